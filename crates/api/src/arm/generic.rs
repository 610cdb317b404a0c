//! The resources that a workspace leans on: storage account, log analytics, insights, registry and identities. Here they
//! are records with plausible properties: files lie in the artifact store, but clients expect to find, tag and delete
//! these resources.

use casemate_model::{Fault, Resource, ResourceId};
use casemate_store::{Condition, Filter, Put, Tx};
use http::Method;
use serde_json::{Map, Value, json};

use super::shape;
use crate::{
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    network, respond,
    state::ApiState,
};

struct Kind {
    /// Lower case.
    resource_type: &'static str,
    /// Shortest and longest name, and which characters besides letters and digits it may have.
    name: (usize, usize, &'static str),
    /// What stands at the top when it is not given.
    top: fn() -> Value,
    /// What stands under `properties` when it is not given.
    properties: fn(&ApiState) -> Value,
    /// What is known only when it is shown.
    computed: fn(&OpContext, &ApiState, &Resource) -> Value,
}

const KINDS: &[Kind] = &[
    Kind {
        resource_type: "microsoft.storage/storageaccounts",
        name: (3, 24, ""),
        top: || json!({"sku": {"name": "Standard_LRS"}, "kind": "StorageV2"}),
        properties: |_| {
            json!({
                "supportsHttpsTrafficOnly": true,
                "allowBlobPublicAccess": false,
                "minimumTlsVersion": "TLS1_2",
                "publicNetworkAccess": "Enabled",
                "accessTier": "Hot",
            })
        },
        computed: |ctx, state, row| {
            let suffix = state.config.storage_suffix();
            json!({
                "primaryEndpoints": {"blob": format!("{}/{}.blob.{suffix}/", ctx.base, row.name().to_lowercase())},
                "primaryLocation": row.location(),
                "statusOfPrimary": "available",
                "creationTime": row.system.created_at.to_string(),
            })
        },
    },
    Kind {
        resource_type: "microsoft.operationalinsights/workspaces",
        name: (4, 63, "-"),
        top: || json!({}),
        properties: |_| json!({"sku": {"name": "PerGB2018"}, "retentionInDays": 30}),
        computed: |_, _, row| json!({"customerId": stable_id(row, "customer")}),
    },
    Kind {
        resource_type: "microsoft.insights/components",
        name: (1, 255, "-_.()"),
        top: || json!({"kind": "web"}),
        properties: |_| json!({"Application_Type": "web", "RetentionInDays": 90}),
        computed: |_, _, row| {
            let key = stable_id(row, "instrumentation");
            json!({
                "ApplicationId": row.name(),
                "AppId": stable_id(row, "application"),
                "InstrumentationKey": key,
                "ConnectionString": format!("InstrumentationKey={key}"),
                "CreationDate": row.system.created_at.to_string(),
            })
        },
    },
    Kind {
        resource_type: "microsoft.containerregistry/registries",
        name: (5, 50, ""),
        top: || json!({"sku": {"name": "Standard", "tier": "Standard"}}),
        properties: |_| json!({"adminUserEnabled": false, "publicNetworkAccess": "Enabled"}),
        computed: |_, state, row| {
            json!({
                "loginServer": format!("{}.registry.{}", row.name().to_lowercase(), state.config.domain),
                "creationDate": row.system.created_at.to_string(),
            })
        },
    },
    Kind {
        resource_type: "microsoft.managedidentity/userassignedidentities",
        name: (3, 128, "-_"),
        top: || json!({}),
        properties: |_| json!({}),
        computed: |_, state, row| {
            json!({
                "principalId": stable_id(row, "principal"),
                "clientId": stable_id(row, "client"),
                "tenantId": state.config.tenant.to_string(),
            })
        },
    },
];

/// A GUID that this very resource keeps, and that one made again under its name does not get.
pub(super) fn stable_id(row: &Resource, what: &str) -> String {
    row.stable_id(what).to_string()
}

fn kind_of(resource_type: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.resource_type == resource_type)
}

/// Whether a type (in lower case) is one of these.
pub(super) fn is_known(resource_type: &str) -> bool {
    kind_of(resource_type).is_some()
}

pub(super) async fn dispatch(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Resource(id), &Method::GET) => {
            ctx.authorize_call(call)?;
            let row = state.store.resource_get(id).await?.ok_or_else(|| shape::not_found(id))?;
            Ok(respond::shown(call, &row, &whole(ctx, state, &row).await?))
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
            Ok(respond::written_as(&put, &whole(ctx, state, &put.resource).await?))
        }
        (Target::Resource(id), &Method::PATCH) => patch(ctx, state, call, id).await,
        (Target::Resource(id), &Method::DELETE) => delete(ctx, state, call, id).await,
        (Target::Collection { parent: Some(scope), kind }, &Method::GET) => {
            let rows = state.store.resource_list(&Filter::of_type(kind.clone()).within(scope)).await?;
            let rows = ctx.readable(scope, &call.permission(), rows)?;
            let mut shown: Vec<Value> = rows.iter().map(|row| show(ctx, state, row)).collect();
            network::embed(state, scope, kind, &mut shown).await?;
            respond::list(ctx, call, &call.path(), shown)
        }
        _ => call.method_not_allowed(),
    }
}

/// Checks and writes one; unknown properties are kept as they are.
pub(super) async fn write(
    tx: &mut Tx,
    ctx: &OpContext,
    state: &ApiState,
    id: &ResourceId,
    body: Value,
    condition: &Condition,
) -> Result<Put, ApiError> {
    let kind = kind_of(&id.resource_type().to_lowercase()).ok_or_else(|| shape::not_found(id))?;
    check_name(kind, id)?;
    shape::require_parent(tx, id).await?;
    let given = shape::object(body)?;
    let mut kept = Map::new();
    kept.insert("location".to_owned(), shape::location(given.get("location"))?.into());
    kept.insert("tags".to_owned(), shape::tags(given.get("tags"))?);
    let top = (kind.top)();
    for key in ["sku", "kind", "identity"] {
        let value = given.get(key).filter(|value| !value.is_null()).or_else(|| top.get(key));
        kept.extend(value.map(|value| (key.to_owned(), value.clone())));
    }
    let mut properties = (kind.properties)(state);
    merge(&mut properties, given.get("properties"))?;
    without_connections(&mut properties);
    kept.insert("properties".to_owned(), properties);
    Ok(tx.resource_put(id, Value::Object(kept), condition, &ctx.author()).await?)
}

/// Lays what is given and not null over what is there.
fn merge(there: &mut Value, given: Option<&Value>) -> Result<(), Fault> {
    match (there.as_object_mut(), given) {
        (_, None | Some(Value::Null)) => Ok(()),
        (Some(there), Some(Value::Object(given))) => {
            let values = given.iter().filter(|(_, value)| !value.is_null());
            there.extend(values.map(|(key, value)| (key.clone(), value.clone())));
            Ok(())
        }
        _ => Err(Fault::invalid("InvalidRequestContent", "'properties' must be an object.").at("properties")),
    }
}

/// Who reads one and sends it back changed sends its connections, too, which are shown in it and not kept in it.
fn without_connections(properties: &mut Value) {
    if let Some(properties) = properties.as_object_mut() {
        properties.remove(network::CONNECTIONS);
    }
}

fn check_name(kind: &Kind, id: &ResourceId) -> Result<(), Fault> {
    let (least, most, signs) = kind.name;
    let name = id.name();
    let fits = (least..=most).contains(&name.chars().count())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || signs.contains(c));
    let top_level =
        id.resource_group().is_some() && id.parent().is_some_and(|parent| parent.resource_group().is_some());
    if fits && top_level {
        return Ok(());
    }
    let signs = if signs.is_empty() { String::new() } else { format!(" and '{signs}'") };
    let message = format!(
        "'{name}' is not a valid name for a resource of the type '{}': it needs {least} to {most} letters, digits{signs}, \
         and to lie in a resource group.",
        id.resource_type()
    );
    Err(Fault::invalid("InvalidResourceName", message).at("name"))
}

async fn patch(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    let (given, condition) = (shape::object(call.json()?)?, call.condition()?);
    let mut tx = state.store.begin().await?;
    let mut body = tx.resource_get(id).await?.ok_or_else(|| shape::not_found(id))?.body;
    if given.contains_key("tags") {
        body["tags"] = shape::tags(given.get("tags"))?;
    }
    for key in ["sku", "kind", "identity"] {
        if let Some(value) = given.get(key).filter(|value| !value.is_null()) {
            body[key] = value.clone();
        }
    }
    merge(&mut body["properties"], given.get("properties"))?;
    without_connections(&mut body["properties"]);
    let put = tx.resource_put(id, body, &condition, &ctx.author()).await?;
    tx.commit().await?;
    Ok(respond::written_as(&put, &whole(ctx, state, &put.resource).await?))
}

/// Nothing runs behind these, so they are gone at once, with the role assignments on them.
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

/// One with the connections of private endpoints to it.
async fn whole(ctx: &OpContext, state: &ApiState, row: &Resource) -> Result<Value, ApiError> {
    let mut shown = show(ctx, state, row);
    network::embed(state, &row.id, &row.id.resource_type(), [&mut shown]).await?;
    Ok(shown)
}

pub(super) fn show(ctx: &OpContext, state: &ApiState, row: &Resource) -> Value {
    let mut shown = row.to_public();
    if let Some(kind) = kind_of(&row.id.resource_type().to_lowercase())
        && let (Some(properties), Value::Object(computed)) =
            (shown["properties"].as_object_mut(), (kind.computed)(ctx, state, row))
    {
        properties.extend(computed);
    }
    shown
}
