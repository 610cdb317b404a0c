//! Secrets for what runs: environment variables that name a secret get its value when an instance is started, as the
//! endpoint's identity. The values are in no row and in no log.

use std::collections::BTreeMap;

use casemate_identity::role::{self, ASSIGNMENT_TYPE, Assignment};
use casemate_model::{
    Fault, FaultKind, Resource, ResourceId,
    endpoint::ENDPOINT_TYPE,
    managed_identity::{self, ManagedIdentity},
    vault::{Permission, SecretReference, VAULT_TYPE, check_platform, policy_allows},
};
use casemate_store::{Filter, Store};
use uuid::Uuid;

/// The name of a version's value among its secrets.
const VALUE: &str = "value";

/// The variables with the values of the secrets that they name.
///
/// # Errors
/// `SecretInjectionFailed` naming the variable, what was found, and what to do; never a value.
pub async fn resolve(
    store: &Store,
    domain: &str,
    deployment: &ResourceId,
    variables: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Fault> {
    let mut resolved = variables.clone();
    let mut caller: Option<Caller> = None;
    for (variable, value) in variables {
        let Some(reference) = SecretReference::parse(value, domain).map_err(|fault| failed(variable, &fault))? else {
            continue;
        };
        let known = match caller.take() {
            Some(known) => known,
            None => Caller::read(store, deployment).await.map_err(|fault| failed(variable, &fault))?,
        };
        let found = value_of(store, &known, &reference).await.map_err(|fault| failed(variable, &fault))?;
        resolved.insert(variable.clone(), found);
        caller = Some(known);
    }
    Ok(resolved)
}

fn failed(variable: &str, fault: &Fault) -> Fault {
    let message = format!("The environment variable '{}' names a secret. {}", variable.escape_debug(), fault.message);
    Fault::new(fault.kind, "SecretInjectionFailed", message).at("environmentVariables")
}

/// Whom the platform looks secrets up for.
struct Caller {
    endpoint: String,
    principals: Vec<Uuid>,
    assignments: Vec<Assignment>,
}

impl Caller {
    async fn read(store: &Store, deployment: &ResourceId) -> Result<Self, Fault> {
        let endpoint = deployment.ancestor(ENDPOINT_TYPE);
        let row = match &endpoint {
            Some(id) => store.resource_get(id).await?,
            None => None,
        };
        let Some(row) = row else {
            let message = "Only deployments of online endpoints can name secrets.";
            return Err(Fault::new(FaultKind::NotImplemented, "NotImplemented", message));
        };
        let mut principals: Vec<Uuid> =
            ManagedIdentity::of_system(&row).map(|own| own.principal_id).into_iter().collect();
        for id in managed_identity::user_assigned(&row) {
            let identity = store.resource_get(&id).await?.filter(|identity| !identity.deleting);
            principals.extend(identity.map(|identity| ManagedIdentity::of_user(&identity).principal_id));
        }
        if principals.is_empty() {
            let message = format!(
                "The endpoint '{}' has no managed identity to read it as. Give it one: identity: {{type: \
                 system_assigned}} in its YAML file.",
                row.name()
            );
            return Err(Fault::invalid("IdentityNotFound", message));
        }
        let assignments = store.resource_list(&Filter::of_type(ASSIGNMENT_TYPE)).await?;
        let assignments = assignments.iter().filter_map(Assignment::from_resource).collect();
        Ok(Self { endpoint: row.name().to_owned(), principals, assignments })
    }

    /// Insists that one of the endpoint's identities may read the secret.
    fn authorize(&self, vault: &Resource, secret: &ResourceId) -> Result<(), Fault> {
        let by_roles = vault.properties()["enableRbacAuthorization"] != serde_json::Value::Bool(false);
        let may = |principal: &Uuid| match by_roles {
            true => role::allowed_data(&self.assignments, *principal, Permission::Get.action(), secret),
            false => policy_allows(vault.properties(), *principal, Permission::Get),
        };
        if self.principals.iter().any(may) {
            return Ok(());
        }
        let (name, principal) = (vault.name(), self.principals.first().copied().unwrap_or_default());
        let fix = match by_roles {
            true => format!(
                "az role assignment create --role \"Key Vault Secrets User\" --assignee-object-id {principal} --scope {}",
                vault.id
            ),
            false => format!("az keyvault set-policy -n {name} --object-id {principal} --secret-permissions get"),
        };
        let message = format!(
            "The identity of the endpoint '{}' (principal {principal}) may not read the secret '{}' of the key vault \
             '{name}': {}. Allow it: {fix}",
            self.endpoint,
            secret.name(),
            if by_roles {
                "it has no role with the right getSecret there"
            } else {
                "no access policy of the vault says get"
            }
        );
        Err(Fault::new(FaultKind::Forbidden, "Forbidden", message).at(vault.id.as_str()))
    }
}

async fn value_of(store: &Store, caller: &Caller, reference: &SecretReference) -> Result<String, Fault> {
    let (vault, name, version) = match reference {
        SecretReference::Vault { vault, name, version } => (vault, name, version),
        SecretReference::Connection { name, .. } => {
            let message = format!(
                "It is a credential of the connection '{name}', and workspaces of this platform have no connections yet. \
                 Keep it in a key vault and name it so: ${{{{keyvault:https://VAULT/secrets/NAME}}}}."
            );
            return Err(Fault::new(FaultKind::NotImplemented, "NotImplemented", message));
        }
    };
    let rows = store.resource_list(&Filter::of_type(VAULT_TYPE).named(vault.as_str())).await?;
    let row = rows.into_iter().find(|row| !row.deleting).ok_or_else(|| {
        let message =
            format!("There is no key vault '{vault}' on this platform. `az keyvault list` lists those there are.");
        Fault::not_found("VaultNotFound", message)
    })?;
    check_platform(&row, &format!("read the secret '{name}' for the deployment"))?;
    let id = row.id.child("secrets", name)?;
    caller.authorize(&row, &id)?;
    let missing = || {
        let shown = version.as_ref().map_or_else(|| name.clone(), |version| format!("{name}/{version}"));
        let message = format!(
            "The key vault '{vault}' has no secret '{shown}'. Set it: az keyvault secret set --vault-name {vault} -n {name} \
             --value VALUE"
        );
        Fault::not_found("SecretNotFound", message)
    };
    let version = match version {
        Some(version) => version.clone(),
        None => {
            let secret = store.resource_get(&id).await?.ok_or_else(missing)?;
            secret.properties()["version"].as_str().unwrap_or_default().to_owned()
        }
    };
    let row = store.resource_get(&id.child("versions", &version)?).await?.ok_or_else(missing)?;
    if row.properties()["attributes"]["enabled"] == serde_json::Value::Bool(false) {
        let message = format!(
            "The secret '{name}' of the key vault '{vault}' is disabled. Enable it: az keyvault secret set-attributes \
             --vault-name {vault} -n {name} --enabled true"
        );
        return Err(Fault::new(FaultKind::Forbidden, "SecretDisabled", message));
    }
    let value = store.secret_get(&row.id, VALUE).await?.ok_or_else(missing)?;
    let text = value.expose_str().ok().filter(|text| !text.contains('\0')).map(str::to_owned);
    text.ok_or_else(|| {
        let message = format!("The secret '{name}' of the key vault '{vault}' is no text that a variable can hold.");
        Fault::invalid("SecretNotText", message)
    })
}

#[cfg(test)]
mod tests {
    use casemate_model::{Clock, Secret};
    use casemate_store::{Author, Condition};
    use serde_json::{Value, json};

    use super::*;

    const GROUP: &str = "/subscriptions/s/resourceGroups/g";
    const PRINCIPAL: &str = "11111111-2222-3333-4444-555555555555";

    async fn put(store: &Store, tail: &str, body: Value) -> ResourceId {
        let id = ResourceId::parse(&format!("{GROUP}/providers/{tail}")).unwrap();
        let mut tx = store.begin().await.unwrap();
        let author = Author { name: "test".to_owned(), kind: "User".to_owned() };
        tx.resource_put(&id, body, &Condition::None, &author).await.unwrap();
        if id.key().contains("/versions/") {
            tx.secret_put(&id, VALUE, &Secret::from("swordfish")).await.unwrap();
        }
        tx.commit().await.unwrap();
        id
    }

    #[tokio::test]
    async fn who_may_gets_the_value_and_nobody_else_sees_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Clock::system()).await.unwrap();
        let version = "0123456789abcdef0123456789abcdef";
        let workspace = "Microsoft.MachineLearningServices/workspaces/w/onlineEndpoints";
        let identity = json!({"type": "SystemAssigned", "principalId": PRINCIPAL});
        put(&store, &format!("{workspace}/e"), json!({"identity": identity, "properties": {}})).await;
        put(&store, &format!("{workspace}/none"), json!({"identity": {"type": "None"}, "properties": {}})).await;
        let deployment = put(&store, &format!("{workspace}/e/deployments/blue"), json!({})).await;
        let nobody = put(&store, &format!("{workspace}/none/deployments/blue"), json!({})).await;
        let vault = "Microsoft.KeyVault/vaults/kv1";
        let about = json!({"properties": {"version": version, "attributes": {"enabled": true}}});
        put(&store, &format!("{vault}/secrets/one"), about.clone()).await;
        let row = put(&store, &format!("{vault}/secrets/one/versions/{version}"), about).await;

        let policy = |object: &str| json!([{"objectId": object, "permissions": {"secrets": ["get"]}}]);
        let by_list = |object: &str| json!({"enableRbacAuthorization": false, "accessPolicies": policy(object)});
        let closed = json!({"enableRbacAuthorization": false, "accessPolicies": policy(PRINCIPAL),
            "networkAcls": {"bypass": "None", "defaultAction": "Deny"}});
        let named = "${{keyvault:https://kv1.vault.azure.net/secrets/one}}";
        let exact = format!("${{{{keyvault:https://kv1.vault.ml.example/secrets/one/{version}}}}}");
        let ask = async |deployment: &ResourceId, value: &str| {
            let variables = BTreeMap::from([("A".to_owned(), value.to_owned()), ("B".to_owned(), "plain".to_owned())]);
            resolve(&store, "ml.example", deployment, &variables).await
        };
        for (properties, deployment, value, expected) in [
            (by_list(PRINCIPAL), &deployment, named, Ok("swordfish")),
            (by_list(PRINCIPAL), &deployment, exact.as_str(), Ok("swordfish")),
            (by_list(PRINCIPAL), &nobody, named, Err("has no managed identity")),
            (by_list("11111111-2222-3333-4444-555555555556"), &deployment, named, Err("az keyvault set-policy -n kv1")),
            (json!({}), &deployment, named, Err("Key Vault Secrets User")),
            (closed, &deployment, named, Err("--bypass AzureServices")),
            (
                by_list(PRINCIPAL),
                &deployment,
                "${{keyvault:https://kv2.vault.azure.net/secrets/one}}",
                Err("no key vault 'kv2'"),
            ),
            (
                by_list(PRINCIPAL),
                &deployment,
                "${{keyvault:https://kv1.vault.azure.net/secrets/two}}",
                Err("no secret 'two'"),
            ),
            (by_list(PRINCIPAL), &deployment, "${{keyvault:kv1}}", Err("names a secret: write")),
            (
                by_list(PRINCIPAL),
                &deployment,
                "${{azureml://connections/c/credentials/key}}",
                Err("have no connections"),
            ),
            (by_list(PRINCIPAL), &nobody, "plain", Ok("plain")),
        ] {
            put(&store, vault, json!({ "properties": properties })).await;
            match (ask(deployment, value).await, expected) {
                (Ok(found), Ok(text)) => assert_eq!((found["A"].as_str(), found["B"].as_str()), (text, "plain")),
                (Err(fault), Err(words)) => {
                    assert!(fault.message.contains(words) && fault.message.contains("'A'"), "{value}: {fault}");
                    assert!(fault.code == "SecretInjectionFailed" && !fault.message.contains("swordfish"), "{fault}");
                }
                (found, _) => panic!("{properties} {value}: {found:?}"),
            }
        }
        put(&store, vault, json!({})).await;
        let role = json!({"properties": {"principalId": PRINCIPAL, "roleDefinitionId": role::VAULT_SECRETS_USER}});
        let id = format!("{vault}/secrets/one/providers/{ASSIGNMENT_TYPE}/{PRINCIPAL}");
        put(&store, &id, role).await;
        assert_eq!(ask(&deployment, named).await.unwrap()["A"], "swordfish");
        put(
            &store,
            row.as_str().split_once("/providers/").unwrap().1,
            json!({"properties": {"attributes": {"enabled": false}}}),
        )
        .await;
        assert!(ask(&deployment, &exact).await.unwrap_err().message.contains("is disabled"));
    }
}
