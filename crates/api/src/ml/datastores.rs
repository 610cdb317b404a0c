//! Datastores: the two that every workspace has, and the signatures that open them.
//!
//! A workspace's datastores are made the first time that anybody asks for them. Each has a container of its own with
//! a random name, so that a workspace made again under an old name never sees old files.

use casemate_blob::Permissions;
use casemate_model::{Fault, FaultKind, Resource};
use casemate_store::{Author, Condition, Filter};
use http::Method;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::workspace;
use crate::{ApiError, ApiState, Call, OpContext, Target, context::Outcome, respond};

/// The resource type.
pub(super) const DATASTORE_TYPE: &str = "Microsoft.MachineLearningServices/workspaces/datastores";
/// Where clients upload to.
pub(crate) const DEFAULT: &str = "workspaceblobstore";
/// Where the first generation of the SDK uploads to.
pub(crate) const ARTIFACTS: &str = "workspaceartifactstore";
/// Name, and how its container's name starts.
const EVERY: [(&str, &str); 2] = [(DEFAULT, "azureml-blobstore"), (ARTIFACTS, "azureml-artifacts")];
/// Longest life of a signature, in hours.
const MAX_HOURS: i64 = 168;

/// Answers calls about datastores.
pub(super) async fn handle(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Collection { parent: Some(_), .. }, &Method::GET) => list(ctx, state, call).await,
        (Target::Resource(id), &Method::GET | &Method::HEAD) => {
            ctx.authorize_call(call)?;
            let home = workspace::read(state, id).await?;
            ensure(state, &home).await?;
            let row = workspace::present(state.store.resource_get(id).await?, id)?;
            Ok(respond::ok(&shown(ctx, state, &home, &row)))
        }
        (Target::Action { resource, name }, &Method::POST) if name.eq_ignore_ascii_case("listSecrets") => {
            ctx.authorize_call(call)?;
            let home = workspace::read(state, resource).await?;
            ensure(state, &home).await?;
            let row = workspace::present(state.store.resource_get(resource).await?, resource)?;
            secrets(state, call, &row)
        }
        (Target::Resource(id), &Method::PUT | &Method::PATCH | &Method::DELETE) => {
            ctx.authorize_call(call)?;
            workspace::read(state, id).await?;
            Err(Fault::new(
                FaultKind::NotImplemented,
                "NotImplemented",
                format!(
                    "The datastore '{}' can't be written: a workspace has just its own datastores ({DEFAULT} and workspaceartifactstore) on this platform so far.",
                    id.name()
                ),
            )
            .into())
        }
        _ => call.method_not_allowed(),
    }
}

async fn list(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    let Some(scope) = call.target.scope() else { return call.method_not_allowed() };
    let home = workspace::read(state, scope).await?;
    ensure(state, &home).await?;
    let rows = state.store.resource_list(&Filter::of_type(DATASTORE_TYPE).child_of(&home.id)).await?;
    let rows = ctx.readable(scope, &call.permission(), rows)?;
    let only_default = call.query.get("isDefault").is_some_and(|wanted| wanted.eq_ignore_ascii_case("true"));
    let names: Option<Vec<&str>> = call.query.get("names").map(|names| names.split(',').map(str::trim).collect());
    let wanted = rows.iter().filter(|row| {
        let named = names.as_ref().is_none_or(|names| names.iter().any(|name| name.eq_ignore_ascii_case(row.name())));
        named && (!only_default || row.name().eq_ignore_ascii_case(DEFAULT))
    });
    let items = wanted.map(|row| shown(ctx, state, &home, row)).collect();
    respond::list(ctx, call, &call.path(), items)
}

/// The datastore as clients want it: the account's name holds the platform's address, from which they make the
/// address of the files.
fn shown(ctx: &OpContext, state: &ApiState, home: &Resource, row: &Resource) -> Value {
    let mut shown = row.to_public();
    let host = ctx.base.split_once("://").map_or(ctx.base.as_str(), |(_, host)| host);
    let overlay = json!({
        "accountName": format!("{host}/{}", workspace::account(home)),
        "endpoint": state.config.storage_suffix(),
        "protocol": "https",
        "subscriptionId": row.id.subscription(),
        "resourceGroup": row.id.resource_group(),
    });
    if let (Some(properties), Value::Object(overlay)) = (shown["properties"].as_object_mut(), overlay) {
        properties.extend(overlay);
    }
    shown
}

fn secrets(state: &ApiState, call: &Call, row: &Resource) -> Outcome {
    let asked = call.json_or_empty()?;
    let hours = match asked.get("expireAfterHours") {
        None | Some(Value::Null) => 1,
        Some(hours) => hours.as_i64().filter(|hours| (1..=MAX_HOURS).contains(hours)).ok_or_else(|| {
            Fault::invalid("BadArgument", format!("expireAfterHours is {hours}; give 1 to {MAX_HOURS}."))
                .at("expireAfterHours")
        })?,
    };
    let expires = state.clock.now() + SignedDuration::from_hours(hours);
    let query = state.blob.sign(container_of(row)?, "", Permissions::ALL, expires).map_err(Fault::from)?;
    let token = query.expose_str().map_err(|_| Fault::internal("The signature is no text."))?;
    Ok(respond::ok(&json!({ "secretsType": "Sas", "sasToken": token })))
}

fn container_of(row: &Resource) -> Result<&str, Fault> {
    let name = row.properties().get("containerName").and_then(Value::as_str);
    name.ok_or_else(|| Fault::internal(format!("The datastore '{}' has no container.", row.id)))
}

/// The container of a datastore of the workspace.
///
/// # Errors
/// `ResourceNotFound` naming the datastore.
pub(crate) async fn container(state: &ApiState, home: &Resource, name: &str) -> Result<String, ApiError> {
    ensure(state, home).await?;
    let id = home.id.child("datastores", name)?;
    let row = workspace::present(state.store.resource_get(&id).await?, &id)?;
    Ok(container_of(&row)?.to_owned())
}

/// The containers of all datastores of the workspace.
pub(super) async fn containers(state: &ApiState, home: &Resource) -> Result<Vec<String>, ApiError> {
    ensure(state, home).await?;
    let rows = state.store.resource_list(&Filter::of_type(DATASTORE_TYPE).child_of(&home.id)).await?;
    Ok(rows.iter().filter_map(|row| container_of(row).ok()).map(str::to_owned).collect())
}

/// Makes the workspace's datastores where they are missing.
pub(super) async fn ensure(state: &ApiState, home: &Resource) -> Result<(), ApiError> {
    let mut missing = Vec::new();
    for (name, container) in EVERY {
        let id = home.id.child("datastores", name)?;
        if state.store.resource_get(&id).await?.is_none() {
            missing.push((id, name, container));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let mut tx = state.store.begin().await?;
    let author = Author { name: home.system.created_by.clone(), kind: home.system.created_by_type.clone() };
    for (id, name, container) in missing {
        // Another request may have been faster, or the workspace be gone since it was read.
        let home_is_there = tx.resource_get(&home.id).await?.is_some_and(|home| !home.deleting);
        if !home_is_there || tx.resource_get(&id).await?.is_some() {
            continue;
        }
        let container = format!("{container}-{}", uuid::Uuid::new_v4());
        state.blob.container_create(&container).await.map_err(Fault::from)?;
        let body = json!({"properties": {
            "datastoreType": "AzureBlob",
            "containerName": container,
            "credentials": {"credentialsType": "Sas"},
            "isDefault": name == DEFAULT,
            "serviceDataAccessAuthIdentity": "None",
            "tags": {},
            "properties": {},
        }});
        tx.resource_put(&id, body, &Condition::MustNotExist, &author).await?;
    }
    tx.commit().await?;
    Ok(())
}
