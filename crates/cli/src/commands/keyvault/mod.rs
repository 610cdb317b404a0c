//! `keyvault …`. Outputs have the shape of `az`.

mod rules;
mod secrets;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{
    Found,
    group::tag_map,
    network::{checked, truth},
};
use crate::{
    failure::Failure,
    grammar::{InGroup, KeyVault, PolicyArgs, PolicyHolder, VaultArgs, VaultCreate, VaultName},
    output::Output,
    session::{ARM_API, Session, segment},
};

/// Version of the management API that is spoken.
const VAULT_API: &str = "api-version=2023-07-01";
const COLUMNS: &str = "[].{Name:name, ResourceGroup:resourceGroup, Location:location, Uri:properties.vaultUri}";
/// The kinds of permissions, by the words of an access policy.
const KINDS: [&str; 4] = ["secrets", "keys", "certificates", "storage"];

pub(super) async fn run(command: KeyVault, session: &Session) -> Found {
    match command {
        KeyVault::Create(args) => create(*args, session).await,
        KeyVault::Show(name) => Ok(shown(find(session, &name).await?).into()),
        KeyVault::List(group) => {
            let all = list(session, &group).await?;
            Ok(Output::Value(all.into_iter().map(shown).collect(), Some(COLUMNS)))
        }
        KeyVault::Update { name, args, no_wait: _ } => {
            let mut vault = find(session, &name).await?;
            apply(&mut vault["properties"], &args)?;
            Ok(shown(put(session, vault).await?).into())
        }
        KeyVault::Delete { name, no_wait: _ } => {
            let vault = find(session, &name).await?;
            let path = format!("{}?{VAULT_API}", id_of(&vault)?);
            session.client().write_and_wait(Method::DELETE, &path, None, None, &mut |_| {}).await?;
            Ok(Output::Nothing)
        }
        KeyVault::SetPolicy(args) => set_policy(*args, session).await,
        KeyVault::DeletePolicy { name, who } => {
            let mut vault = find(session, &name).await?;
            let object = object_id(session, &who).await?;
            let policies = policies(&mut vault);
            let before = policies.len();
            policies.retain(|policy| !is_about(policy, &object));
            if policies.len() == before {
                return Err(Failure::not_found(format!(
                    "The vault '{}' has no access policy for '{object}'.",
                    name.name
                )));
            }
            Ok(shown(put(session, vault).await?).into())
        }
        KeyVault::Secret(command) => secrets::run(command, session).await,
        KeyVault::NetworkRule(command) => rules::run(command, session).await,
    }
}

async fn create(args: VaultCreate, session: &Session) -> Found {
    let group = session.group_id(args.name.group.resource_group.as_deref()).await?;
    let id = format!("{group}/providers/Microsoft.KeyVault/vaults/{}", segment(&args.name.name));
    let client = session.client();
    if client.get_optional(&format!("{id}?{VAULT_API}")).await?.is_some() {
        return Err(Failure::here(format!(
            "A vault with the name '{0}' exists already in the group. Change it with `casemate keyvault update -n {0}`.",
            args.name.name
        )));
    }
    let location = match args.location.clone().or_else(|| session.settings().default("location")) {
        Some(location) => location,
        None => {
            let found = client.get(&format!("{group}?{ARM_API}")).await?;
            found["location"].as_str().unwrap_or("local").to_owned()
        }
    };
    let mut properties = json!({
        "tenantId": session.tenant(),
        "sku": {"family": "A", "name": args.sku.as_deref().unwrap_or("standard")},
        "accessPolicies": [],
    });
    apply(&mut properties, &args.args)?;
    let addresses: Vec<Value> = args.network_acls_ips.iter().flatten().map(|one| json!({ "value": one })).collect();
    let mut subnets = Vec::new();
    for one in args.network_acls_vnets.iter().flatten() {
        subnets.push(json!({"id": rules::subnet(&group, None, one)?}));
    }
    if !addresses.is_empty() || !subnets.is_empty() {
        properties["networkAcls"]["ipRules"] = addresses.into();
        properties["networkAcls"]["virtualNetworkRules"] = subnets.into();
        if args.args.default_action.is_none() {
            properties["networkAcls"]["defaultAction"] = "Deny".into();
        }
    }
    let no_self = args.no_self_perms.as_deref().map_or(Ok(false), |text| truth("--no-self-perms", text))?;
    if properties["enableRbacAuthorization"] == json!(false) && !no_self {
        let object = client.token(None).await?.object_id()?;
        let all = json!({"secrets": ["all"], "keys": ["all"], "certificates": ["all"], "storage": ["all"]});
        properties["accessPolicies"] = json!([{"tenantId": session.tenant(), "objectId": object, "permissions": all}]);
    }
    let mut vault = json!({"id": id, "location": location, "properties": properties});
    if let Some(tags) = &args.tags {
        vault["tags"] = tag_map(tags)?;
    }
    Ok(shown(put(session, vault).await?).into())
}

/// Writes the options into a vault's properties.
fn apply(properties: &mut Value, args: &VaultArgs) -> Result<(), Failure> {
    for (option, key, given) in [
        ("--enable-rbac-authorization", "enableRbacAuthorization", &args.enable_rbac_authorization),
        ("--enabled-for-deployment", "enabledForDeployment", &args.enabled_for_deployment),
        ("--enabled-for-disk-encryption", "enabledForDiskEncryption", &args.enabled_for_disk_encryption),
        ("--enabled-for-template-deployment", "enabledForTemplateDeployment", &args.enabled_for_template_deployment),
    ] {
        if let Some(text) = given {
            properties[key] = truth(option, text)?.into();
        }
    }
    for (key, given) in [("bypass", &args.bypass), ("defaultAction", &args.default_action)] {
        if let Some(word) = given {
            properties["networkAcls"][key] = word.as_str().into();
        }
    }
    if let Some(word) = &args.public_network_access {
        properties["publicNetworkAccess"] = word.as_str().into();
    }
    Ok(())
}

async fn set_policy(args: PolicyArgs, session: &Session) -> Found {
    let mut vault = find(session, &args.name).await?;
    let object = object_id(session, &args.who).await?;
    if vault["properties"]["enableRbacAuthorization"] != json!(false) {
        return Err(Failure::here(format!(
            "Roles decide who may use the secrets of '{0}', so an access policy would have no effect. Assign a role: \
             casemate role assignment create --role \"Key Vault Secrets User\" --assignee-object-id {object} --scope \
             \"$(casemate keyvault show -n {0} --query id -o tsv)\". Or let the vault's own list decide: casemate keyvault \
             update -n {0} --enable-rbac-authorization false.",
            args.name.name
        )));
    }
    let given =
        [&args.secret_permissions, &args.key_permissions, &args.certificate_permissions, &args.storage_permissions];
    if given.iter().all(|given| given.is_none()) {
        return Err(Failure::usage("Allow what? Give --secret-permissions, such as: --secret-permissions get list"));
    }
    let tenant = session.tenant().to_owned();
    let policies = policies(&mut vault);
    let at = policies.iter().position(|policy| is_about(policy, &object)).unwrap_or_else(|| {
        policies.push(json!({"tenantId": tenant, "objectId": object, "permissions": {}}));
        policies.len() - 1
    });
    for (kind, words) in KINDS.into_iter().zip(given) {
        if let Some(words) = words {
            policies[at]["permissions"][kind] = json!(words);
        }
    }
    Ok(shown(put(session, vault).await?).into())
}

fn policies(vault: &mut Value) -> &mut Vec<Value> {
    let list = &mut vault["properties"]["accessPolicies"];
    if !list.is_array() {
        *list = json!([]);
    }
    list.as_array_mut().expect("it was made a list just now")
}

fn is_about(policy: &Value, object: &str) -> bool {
    policy["objectId"].as_str().is_some_and(|id| id.eq_ignore_ascii_case(object))
}

async fn object_id(session: &Session, who: &PolicyHolder) -> Result<String, Failure> {
    let app = match (&who.object_id, &who.spn) {
        (Some(object), _) => return Ok(object.clone()),
        (None, Some(app)) => app,
        (None, None) => return Err(Failure::usage("Who? Give --object-id or --spn.")),
    };
    let path = format!("/providers/Casemate.Identity/servicePrincipals/{}?{ARM_API}", segment(app));
    let found = session.client().get(&path).await?;
    let object = found["properties"]["objectId"].as_str();
    Ok(object.ok_or_else(|| Failure::not_found(format!("There is no service principal '{app}'.")))?.to_owned())
}

/// The vaults of the group given or configured; else those of the subscription.
async fn list(session: &Session, group: &InGroup) -> Result<Vec<Value>, Failure> {
    let scope = match &group.resource_group {
        Some(group) => session.group_id(Some(group)).await?,
        None => session.subscription_id().await?,
    };
    Ok(session.client().list(&format!("{scope}/providers/Microsoft.KeyVault/vaults?{VAULT_API}")).await?)
}

/// The vault of this name, wherever it lies.
async fn find(session: &Session, name: &VaultName) -> Result<Value, Failure> {
    by_name(session, &name.name, &name.group).await
}

async fn by_name(session: &Session, name: &str, group: &InGroup) -> Result<Value, Failure> {
    let all = list(session, group).await?;
    let found = all.into_iter().find(|vault| vault["name"].as_str().is_some_and(|one| one.eq_ignore_ascii_case(name)));
    found.ok_or_else(|| {
        Failure::not_found(format!(
            "The vault '{name}' doesn't exist here, or you may not see it. `casemate keyvault list` lists those there are."
        ))
    })
}

fn id_of(vault: &Value) -> Result<String, Failure> {
    checked(vault["id"].as_str().unwrap_or_default())
}

async fn put(session: &Session, vault: Value) -> Result<Value, Failure> {
    let path = format!("{}?{VAULT_API}", id_of(&vault)?);
    let mut body = Map::new();
    for key in ["location", "tags", "properties"] {
        if let Some(value) = vault.get(key) {
            body.insert(key.to_owned(), value.clone());
        }
    }
    let body = Value::Object(body);
    Ok(session.client().write_and_wait(Method::PUT, &path, Some(&body), None, &mut |_| {}).await?)
}

/// The vault with the name of its group.
fn shown(mut vault: Value) -> Value {
    let group = vault["id"].as_str().and_then(|id| casemate_model::ResourceId::parse(id).ok());
    let group = group.and_then(|id| id.resource_group().map(str::to_owned));
    if let Some(map) = vault.as_object_mut() {
        map.insert("resourceGroup".to_owned(), group.map_or(Value::Null, Value::from));
    }
    vault
}
