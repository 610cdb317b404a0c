//! What must exist before the first request: the tenant, the subscription, one owner, and the platform's keys.

use casemate_identity::{TokenAuthority, digest_secret, new_client_secret, new_endpoint_key, role};
use casemate_model::{Fault, Resource, ResourceId, Secret};
use casemate_store::{Author, Condition, Store, Tx};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    context::ASSIGNMENT_TYPE,
    token::{SECRET_DIGEST, principal_id},
};

/// The resource that holds the platform's facts and owns its secrets.
const SETTINGS: &str = "/providers/Casemate.Platform/settings/platform";
/// The name of the first service principal.
const OWNER_NAME: &str = "casemate-owner";

/// What the platform knows of itself.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// The one tenant.
    pub tenant: Uuid,
    /// The one subscription.
    pub subscription: Uuid,
    /// The client id of the owner.
    pub client_id: Uuid,
    /// The owner's secret; only at the very first start, since only its digest is kept.
    pub client_secret: Option<Secret>,
}

/// Reads the platform's facts, making them and what belongs to them at the first start: the owner, who has the role
/// Owner at the subscription, and the secrets `token-signing-key` and `sas-key`.
///
/// # Errors
/// When the store fails, or holds facts that no release of this program wrote.
pub async fn bootstrap(store: &Store) -> Result<Bootstrap, Fault> {
    let settings = settings();
    let mut tx = store.begin().await?;
    if let Some(row) = tx.resource_get(&settings).await? {
        return known(&row);
    }
    let made = Bootstrap {
        tenant: Uuid::new_v4(),
        subscription: Uuid::new_v4(),
        client_id: Uuid::new_v4(),
        client_secret: Some(new_client_secret()),
    };
    write(&mut tx, &made).await?;
    tx.commit().await?;
    Ok(made)
}

fn settings() -> ResourceId {
    ResourceId::parse(SETTINGS).expect("the id is well-formed")
}

fn known(row: &Resource) -> Result<Bootstrap, Fault> {
    let guid = |name: &str| -> Result<Uuid, Fault> {
        let text = row.properties().get(name).and_then(Value::as_str);
        text.and_then(|text| text.parse().ok()).ok_or_else(|| {
            Fault::internal(format!(
                "The platform's settings have no usable '{name}'; restore casemate.db from a backup."
            ))
        })
    };
    Ok(Bootstrap {
        tenant: guid("tenantId")?,
        subscription: guid("subscriptionId")?,
        client_id: guid("clientId")?,
        client_secret: None,
    })
}

async fn write(tx: &mut Tx, made: &Bootstrap) -> Result<(), Fault> {
    let author = Author { name: "casemate".to_owned(), kind: "Application".to_owned() };
    let (settings, none) = (settings(), Condition::MustNotExist);
    let facts = json!({"properties": {
        "tenantId": made.tenant.to_string(),
        "subscriptionId": made.subscription.to_string(),
        "clientId": made.client_id.to_string(),
    }});
    tx.resource_put(&settings, facts, &none, &author).await?;
    tx.secret_put(&settings, "token-signing-key", &TokenAuthority::generate_key()).await?;
    tx.secret_put(&settings, "sas-key", &new_endpoint_key()).await?;

    let (owner, object_id) = (principal_id(made.client_id), Uuid::new_v4());
    let body = json!({"properties": {
        "displayName": OWNER_NAME,
        "appId": made.client_id.to_string(),
        "objectId": object_id.to_string(),
    }});
    tx.resource_put(&owner, body, &none, &author).await?;
    if let Some(secret) = &made.client_secret {
        tx.secret_put(&owner, SECRET_DIGEST, &digest_secret(secret)).await?;
    }

    let subscription = format!("/subscriptions/{}", made.subscription);
    let assignment = ResourceId::parse(&format!("{subscription}/providers/{ASSIGNMENT_TYPE}/{}", Uuid::new_v4()))?;
    let definition = format!("{subscription}/providers/Microsoft.Authorization/roleDefinitions/{}", role::OWNER);
    let body = json!({"properties": {
        "roleDefinitionId": definition,
        "principalId": object_id.to_string(),
        "principalType": "ServicePrincipal",
    }});
    tx.resource_put(&assignment, body, &none, &author).await?;
    Ok(())
}
