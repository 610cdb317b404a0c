//! The management of vaults. One is done when it is written.

use casemate_model::{
    Fault, FaultKind, Resource, ResourceId,
    vault::{VAULT_TYPE, check_name, checked_policies, checked_rules},
};
use casemate_store::{Condition, Filter, Put, Tx};
use http::Method;
use serde_json::{Map, Value, json};

use crate::{
    arm::shape,
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    network, respond,
    state::ApiState,
};

/// The type in lower case.
pub(crate) const KIND: &str = "microsoft.keyvault/vaults";
const POLICIES: &str = "microsoft.keyvault/vaults/accesspolicies";
const NAME_CHECK: &str = "microsoft.keyvault/checknameavailability";
const DELETED: [&str; 2] = ["microsoft.keyvault/deletedvaults", "microsoft.keyvault/locations/deletedvaults"];

/// Whether a type (in lower case) is answered for here.
pub(crate) fn is_known(resource_type: &str) -> bool {
    [KIND, POLICIES, NAME_CHECK].contains(&resource_type) || DELETED.contains(&resource_type)
}

pub(crate) async fn dispatch(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (target, method) if target.kind() != KIND => beside(ctx, state, call, method).await,
        (Target::Resource(id), &Method::GET) => {
            ctx.authorize_call(call)?;
            let row = state.store.resource_get(id).await?.ok_or_else(|| shape::not_found(id))?;
            Ok(respond::shown(call, &row, &whole(state, &row).await?))
        }
        (Target::Resource(id), &Method::HEAD) => {
            ctx.authorize_call(call)?;
            state.store.resource_get(id).await?.ok_or_else(|| shape::not_found(id))?;
            Ok(respond::no_content())
        }
        (Target::Resource(id), &Method::PUT) => {
            ctx.authorize_call(call)?;
            let (body, condition) = (call.json()?, call.condition()?);
            let mut tx = state.store.begin().await?;
            let put = write(&mut tx, ctx, state, id, body, &condition).await?;
            tx.commit().await?;
            Ok(respond::written_as(&put, &whole(state, &put.resource).await?))
        }
        (Target::Resource(id), &Method::PATCH) => {
            ctx.authorize_call(call)?;
            let given = shape::object(call.json()?)?;
            let mut tx = state.store.begin().await?;
            let mut body = tx.resource_get(id).await?.ok_or_else(|| shape::not_found(id))?.body;
            lay_over(&mut body, given)?;
            let put = write(&mut tx, ctx, state, id, body, &call.condition()?).await?;
            tx.commit().await?;
            Ok(respond::written_as(&put, &whole(state, &put.resource).await?))
        }
        (Target::Resource(id), &Method::DELETE) => delete(ctx, state, call, id).await,
        (Target::Collection { parent: Some(scope), .. }, &Method::GET) => {
            let rows = state.store.resource_list(&Filter::of_type(VAULT_TYPE).within(scope)).await?;
            let rows = ctx.readable(scope, &call.permission(), rows)?;
            let mut shown: Vec<Value> = rows.iter().map(|row| show(state, row)).collect();
            network::embed(state, scope, KIND, &mut shown).await?;
            respond::list(ctx, call, &call.path(), shown)
        }
        _ => call.method_not_allowed(),
    }
}

/// What lies beside vaults: whether a name is free, vaults that could be recovered (none), single access policies.
async fn beside(ctx: &OpContext, state: &ApiState, call: &Call, method: &Method) -> Outcome {
    match (&call.target, method) {
        (Target::Collection { kind, .. }, &Method::POST) if kind == NAME_CHECK => {
            let name = call.json()?["name"].as_str().unwrap_or_default().to_owned();
            let answer = match (check_name(&name), taken(&mut state.store.begin().await?, None, &name).await?) {
                (Err(fault), _) => {
                    json!({"nameAvailable": false, "reason": "AccountNameInvalid", "message": fault.message})
                }
                (_, Some(_)) => {
                    let message = format!("The vault name '{name}' is already in use.");
                    json!({"nameAvailable": false, "reason": "AlreadyExists", "message": message})
                }
                _ => json!({"nameAvailable": true}),
            };
            Ok(respond::ok(&answer))
        }
        (Target::Collection { kind, .. }, &Method::GET) if DELETED.contains(&kind.as_str()) => {
            respond::list(ctx, call, &call.path(), Vec::new())
        }
        (Target::Resource(id), &Method::PUT) if call.target.kind() == POLICIES => policies(ctx, state, call, id).await,
        (Target::Resource(id), &Method::GET) if DELETED.contains(&call.target.kind().as_str()) => {
            let message = format!(
                "The deleted vault '{}' does not exist: deleting a vault is final on this platform, and its name is \
                 free again.",
                id.name()
            );
            Err(Fault::not_found("DeletedVaultNotFound", message).into())
        }
        _ => call.method_not_allowed(),
    }
}

/// Checks and writes one.
///
/// # Errors
/// `VaultNameNotValid`, `VaultAlreadyExists`, and `BadRequest` or `NotImplemented` naming the property.
pub(crate) async fn write(
    tx: &mut Tx,
    ctx: &OpContext,
    state: &ApiState,
    id: &ResourceId,
    body: Value,
    condition: &Condition,
) -> Result<Put, ApiError> {
    check_name(id.name())?;
    if id.resource_group().is_none() {
        return Err(Fault::invalid("InvalidResourceName", "A vault must lie in a resource group.").at("id").into());
    }
    shape::require_parent(tx, id).await?;
    if let Some(other) = taken(tx, Some(id), id.name()).await? {
        let message = format!("The vault name '{}' is already in use: {other}. Take another name.", id.name());
        return Err(Fault::conflict("VaultAlreadyExists", message).at("name").into());
    }
    let given = shape::object(body)?;
    let properties = given.get("properties").unwrap_or(&Value::Null);
    let kept = json!({
        "location": shape::location(given.get("location"))?,
        "tags": shape::tags(given.get("tags"))?,
        "properties": checked(state, properties)?,
    });
    Ok(tx.resource_put(id, kept, condition, &ctx.author()).await?)
}

/// Vaults are called by their name alone, so there is one of a name.
async fn taken(tx: &mut Tx, own: Option<&ResourceId>, name: &str) -> Result<Option<ResourceId>, ApiError> {
    let rows = tx.resource_list(&Filter::of_type(VAULT_TYPE).named(name)).await?;
    Ok(rows.into_iter().map(|row| row.id).find(|id| Some(id) != own))
}

fn checked(state: &ApiState, given: &Value) -> Result<Value, Fault> {
    if !given.is_object() && !given.is_null() {
        return Err(Fault::invalid("BadRequest", "'properties' must be an object.").at("properties"));
    }
    let tenant = state.config.tenant;
    if let Some(other) = given["tenantId"].as_str().filter(|id| !id.eq_ignore_ascii_case(&tenant.to_string())) {
        let shown: String = other.chars().take(60).collect();
        let message = format!("The tenant '{shown}' does not exist here; this platform has one: '{tenant}'.");
        return Err(Fault::invalid("BadRequest", message).at("properties.tenantId"));
    }
    let flag = |key: &str, usual: bool| match &given[key] {
        Value::Null => Ok(usual),
        value => shape::truth(value, key),
    };
    if flag("enablePurgeProtection", false)? {
        let message = "Purge protection can't be had on this platform: deleting a vault or a secret is final. Leave \
                       'enablePurgeProtection' out.";
        return Err(Fault::new(FaultKind::NotImplemented, "NotImplemented", message).at("enablePurgeProtection"));
    }
    if given["createMode"].as_str().is_some_and(|mode| mode.eq_ignore_ascii_case("recover")) {
        let message = "Deleted vaults are not kept on this platform, so none can be recovered. Create it anew.";
        return Err(Fault::new(FaultKind::NotImplemented, "NotImplemented", message).at("createMode"));
    }
    let sku = match &given["sku"]["name"] {
        Value::Null => "standard",
        value => shape::one_of(value, "sku.name", &["standard", "premium"])?,
    };
    let access = match &given["publicNetworkAccess"] {
        Value::Null => "Enabled",
        value => shape::one_of(value, "publicNetworkAccess", &["Enabled", "Disabled"])?,
    };
    Ok(json!({
        "tenantId": tenant.to_string(),
        "sku": {"family": "A", "name": sku},
        "accessPolicies": checked_policies(&given["accessPolicies"], tenant)?,
        "enabledForDeployment": flag("enabledForDeployment", false)?,
        "enabledForDiskEncryption": flag("enabledForDiskEncryption", false)?,
        "enabledForTemplateDeployment": flag("enabledForTemplateDeployment", false)?,
        "enableRbacAuthorization": flag("enableRbacAuthorization", true)?,
        "enableSoftDelete": false,
        "networkAcls": checked_rules(&given["networkAcls"])?,
        "publicNetworkAccess": access,
    }))
}

/// Lays a PATCH over what is there: lists and single values replace, `networkAcls` is replaced as a whole.
fn lay_over(body: &mut Value, given: Map<String, Value>) -> Result<(), Fault> {
    for (key, value) in given {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                let there = body["properties"].as_object_mut();
                let there = there.ok_or_else(|| Fault::internal("The vault's row can't be read."))?;
                there.extend(properties.into_iter().filter(|(_, value)| !value.is_null()));
            }
            ("tags", tags) => body["tags"] = tags,
            ("location" | "id" | "name" | "type", _) => {}
            (other, _) => {
                let shown: String = other.chars().take(60).collect();
                return Err(Fault::invalid("BadRequest", format!("'{shown}' can't be changed.")).at(shown.clone()));
            }
        }
    }
    Ok(())
}

/// `PUT …/accessPolicies/add|replace|remove`: changes the policies of the principals named.
async fn policies(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    let vault = id.parent().ok_or_else(|| shape::not_found(id))?;
    ctx.authorize("Microsoft.KeyVault/vaults/accessPolicies/write", &vault)?;
    let given = call.json()?;
    let given = checked_policies(&given["properties"]["accessPolicies"], state.config.tenant)?;
    let mut tx = state.store.begin().await?;
    let mut body = tx.resource_get(&vault).await?.ok_or_else(|| shape::not_found(&vault))?.body;
    let mut now: Vec<Value> = body["properties"]["accessPolicies"].as_array().cloned().unwrap_or_default();
    for policy in given.as_array().into_iter().flatten() {
        let at = now.iter().position(|one| one["objectId"] == policy["objectId"]);
        match (id.name().to_ascii_lowercase().as_str(), at) {
            ("replace", Some(at)) => now[at] = policy.clone(),
            ("add", Some(at)) => add(&mut now[at], policy),
            ("add" | "replace", None) => now.push(policy.clone()),
            ("remove", Some(at)) => drop(now.remove(at)),
            ("remove", None) => {}
            _ => {
                let message = format!("'{}' is not add, replace or remove.", id.name());
                return Err(Fault::invalid("BadRequest", message).into());
            }
        }
    }
    body["properties"]["accessPolicies"] = now.into();
    let put = write(&mut tx, ctx, state, &vault, body, &call.condition()?).await?;
    tx.commit().await?;
    let kept = &put.resource.properties()["accessPolicies"];
    Ok(respond::ok(&json!({
        "id": format!("{vault}/accessPolicies/"),
        "type": "Microsoft.KeyVault/vaults/accessPolicies",
        "properties": {"accessPolicies": kept},
    })))
}

fn add(now: &mut Value, policy: &Value) {
    for (kind, words) in policy["permissions"].as_object().into_iter().flatten() {
        let there = now["permissions"][kind].as_array().cloned().unwrap_or_default();
        let more = words.as_array().into_iter().flatten().filter(|word| !there.contains(word)).cloned();
        now["permissions"][kind] = there.iter().cloned().chain(more).collect();
    }
}

/// The vault, its secrets and the roles on them are gone at once, and its name is free.
async fn delete(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    let condition = call.condition()?;
    let mut tx = state.store.begin().await?;
    if tx.resource_mark_deleting(id, &condition).await?.is_none() {
        return Ok(respond::no_content());
    }
    shape::remove_inner(&mut tx, id).await?;
    tx.resource_remove(id).await?;
    tx.commit().await?;
    Ok(respond::ok(&Value::Object(Map::new())))
}

/// The vault with the connections of private endpoints to it.
async fn whole(state: &ApiState, row: &Resource) -> Result<Value, ApiError> {
    let mut shown = show(state, row);
    network::embed(state, &row.id, VAULT_TYPE, [&mut shown]).await?;
    Ok(shown)
}

/// The vault as clients see it.
pub(crate) fn show(state: &ApiState, row: &Resource) -> Value {
    let mut shown = row.to_public();
    if let Some(properties) = shown["properties"].as_object_mut() {
        properties.insert("vaultUri".to_owned(), format!("{}/", uri(state, row)).into());
    }
    shown
}

/// `https://NAME.vault.DOMAIN`, with the front door's port.
fn uri(state: &ApiState, row: &Resource) -> String {
    let port = state.config.url.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let port = port.filter(|port| *port != 443).map_or_else(String::new, |port| format!(":{port}"));
    format!("https://{}.vault.{}{port}", row.name().to_lowercase(), state.config.domain)
}
