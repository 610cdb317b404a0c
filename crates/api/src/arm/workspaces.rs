//! Workspaces. One is done when it is written: what it leans on are records, and its datastores are made when they
//! are first asked for.

mod body;

use casemate_model::{
    Fault, FaultKind, Resource, ResourceId, egress::RULE_TYPE, operation::OperationKind, workspace::WORKSPACE_TYPE,
};
use casemate_store::{Condition, Filter, Put, Tx};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{generic, networks, provision, shape};
use crate::{
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    network, respond,
    state::ApiState,
    vault,
};

pub(super) async fn dispatch(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Resource(id), &Method::GET) => {
            ctx.authorize_call(call)?;
            let row = state.store.resource_get(id).await?.ok_or_else(|| shape::not_found(id))?;
            provision::answer(ctx, state, call, &row).await
        }
        (Target::Resource(id), &Method::HEAD) => {
            ctx.authorize_call(call)?;
            state.store.resource_get(id).await?.ok_or_else(|| shape::not_found(id))?;
            Ok(respond::no_content())
        }
        (Target::Resource(id), &Method::PUT) => {
            ctx.authorize_call(call)?;
            let (given, condition) = (call.json()?, call.condition()?);
            let mut tx = state.store.begin().await?;
            let put = write(&mut tx, ctx, state, id, given, &condition).await?;
            tx.commit().await?;
            // Clients of workspaces take 200 and 202 only, even for a new one.
            answer_written(ctx, state, &put).await
        }
        (Target::Resource(id), &Method::PATCH) => {
            ctx.authorize_call(call)?;
            let (given, condition) = (call.json()?, call.condition()?);
            let mut tx = state.store.begin().await?;
            let put = patch(&mut tx, ctx, state, id, given, &condition).await?;
            tx.commit().await?;
            answer_written(ctx, state, &put).await
        }
        (Target::Resource(id), &Method::DELETE) => delete(ctx, state, call, id).await,
        (Target::Collection { parent: Some(scope), .. }, &Method::GET) => list(ctx, state, call, scope).await,
        (Target::Action { resource, name }, &Method::POST) => act(ctx, state, call, resource, name).await,
        _ => call.method_not_allowed(),
    }
}

async fn answer_written(ctx: &OpContext, state: &ApiState, put: &Put) -> Outcome {
    let rules = provision::rules(state, &put.resource).await?;
    let mut shown = show(ctx, state, &put.resource, rules);
    network::embed(state, &put.resource.id, WORKSPACE_TYPE, [&mut shown]).await?;
    let put = Put { created: false, ..put.clone() };
    Ok(respond::written_as(&put, &shown))
}

/// Checks and writes a workspace, making what it leans on when none is named; also used by templates.
pub(super) async fn write(
    tx: &mut Tx,
    ctx: &OpContext,
    state: &ApiState,
    id: &ResourceId,
    given: Value,
    condition: &Condition,
) -> Result<Put, ApiError> {
    body::check_name(id)?;
    shape::require_parent(tx, id).await?;
    let existing = tx.resource_get(id).await?;
    let given = shape::object(given)?;
    let mut wanted = body::normalize(&given, existing.as_ref(), state.config.tenant)?;
    body::keep_fixed(&mut wanted.body, existing.as_ref())?;
    dependents(tx, ctx, state, id, &mut wanted.body).await?;
    finish(tx, ctx, state, id, wanted, condition).await
}

async fn patch(
    tx: &mut Tx,
    ctx: &OpContext,
    state: &ApiState,
    id: &ResourceId,
    given: Value,
    condition: &Condition,
) -> Result<Put, ApiError> {
    let existing = tx.resource_get(id).await?.ok_or_else(|| shape::not_found(id))?;
    let merged = body::merge(&existing, &shape::object(given)?)?;
    let mut wanted = body::normalize(&merged, Some(&existing), state.config.tenant)?;
    body::keep_fixed(&mut wanted.body, Some(&existing))?;
    dependents(tx, ctx, state, id, &mut wanted.body).await?;
    finish(tx, ctx, state, id, wanted, condition).await
}

async fn finish(
    tx: &mut Tx,
    ctx: &OpContext,
    state: &ApiState,
    id: &ResourceId,
    wanted: body::Wanted,
    condition: &Condition,
) -> Result<Put, ApiError> {
    let mut put = tx.resource_put(id, wanted.body, condition, &ctx.author()).await?;
    if put.created {
        let seen = Map::from_iter([("workspaceId".to_owned(), Uuid::new_v4().to_string().into())]);
        tx.resource_observe(id, seen).await?;
    }
    if wanted.provision_network {
        networks::mark_provisioned(tx, &put.resource).await?;
    }
    networks::write_required(tx, ctx, &put.resource).await?;
    for (name, rule) in wanted.rules {
        networks::write_rule(tx, ctx, state, &put.resource, &name, rule, &Condition::None).await?;
    }
    if let Some(row) = tx.resource_get(id).await? {
        put.resource.observed = row.observed;
    }
    Ok(put)
}

/// The resources that a workspace leans on: those named must exist, those not named are made beside it.
async fn dependents(
    tx: &mut Tx,
    ctx: &OpContext,
    state: &ApiState,
    id: &ResourceId,
    body: &mut Value,
) -> Result<(), ApiError> {
    let needs = [
        ("storageAccount", "Microsoft.Storage/storageAccounts", "st", true),
        ("keyVault", "Microsoft.KeyVault/vaults", "kv", true),
        ("applicationInsights", "Microsoft.Insights/components", "ai", true),
        ("containerRegistry", "Microsoft.ContainerRegistry/registries", "", false),
    ];
    let group = id.parent().ok_or_else(|| shape::not_found(id))?;
    for (field, kind, short, needed) in needs {
        if let Some(named) = body["properties"].get(field).and_then(Value::as_str) {
            let named = ResourceId::parse(named).map_err(|fault| fault.at(field))?;
            if !named.is_type(kind) {
                let message = format!("The workspace's {field} '{named}' is not a resource of the type {kind}.");
                return Err(Fault::invalid("BadArgument", message).at(field).into());
            }
            if tx.resource_get(&named).await?.is_none_or(|row| row.deleting) {
                let message = format!(
                    "The workspace's {field} '{named}' does not exist. Create it first, or leave {field} out and one \
                     is made with the workspace."
                );
                return Err(Fault::invalid("ResourceNotFound", message).at(field).into());
            }
            continue;
        }
        if !needed {
            continue;
        }
        let location = body["location"].clone();
        let mut dependent = json!({"location": location, "tags": body["tags"], "properties": {}});
        if short == "ai" {
            let logs = made_id(&group, "Microsoft.OperationalInsights/workspaces", id, "la")?;
            let logs_body = json!({"location": location, "tags": body["tags"], "properties": {}});
            generic::write(tx, ctx, state, &logs, logs_body, &Condition::None).await?;
            dependent["properties"]["WorkspaceResourceId"] = logs.as_str().into();
        }
        let made = made_id(&group, kind, id, short)?;
        match field {
            "keyVault" => vault::write(tx, ctx, state, &made, dependent, &Condition::None).await?,
            _ => generic::write(tx, ctx, state, &made, dependent, &Condition::None).await?,
        };
        body["properties"][field] = made.as_str().into();
    }
    Ok(())
}

/// An id for a dependent resource: the workspace's letters, what it is, and random ones.
fn made_id(group: &ResourceId, kind: &str, workspace: &ResourceId, short: &str) -> Result<ResourceId, Fault> {
    let letters: String = workspace.name().to_lowercase().chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    let random = Uuid::new_v4().simple().to_string();
    ResourceId::parse(&format!("{group}/providers/{kind}/{letters}{short}{}", &random[..13]))
}

/// The workspace as clients see it.
pub(super) fn show(ctx: &OpContext, state: &ApiState, row: &Resource, rules: Map<String, Value>) -> Value {
    let mut shown = row.to_public();
    let host = ctx.base.split_once("://").map_or(ctx.base.as_str(), |(_, host)| host);
    if let Some(properties) = shown["properties"].as_object_mut() {
        properties.insert("tenantId".to_owned(), state.config.tenant.to_string().into());
        properties.insert("discoveryUrl".to_owned(), format!("{}/discovery", ctx.base).into());
        properties.insert("mlFlowTrackingUri".to_owned(), format!("azureml://{host}/mlflow/v1.0{}", row.id).into());
        properties.insert("creationTime".to_owned(), row.system.created_at.to_string().into());
        properties.insert("managedNetwork".to_owned(), networks::shown(row, rules));
    }
    shown
}

/// Marks the workspace and all in it; the reconcilers take it away and finish the operation. Purging is the only way
/// that it can go here, so `forceToPurge` means nothing.
async fn delete(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    let condition = call.condition()?;
    let mut tx = state.store.begin().await?;
    let Some(row) = tx.resource_mark_deleting(id, &condition).await? else {
        return Ok(respond::no_content());
    };
    networks::remove_connections(&mut tx, &row).await?;
    for inner in tx.resource_list(&Filter::default().within(id)).await? {
        tx.resource_mark_deleting(&inner.id, &Condition::None).await?;
    }
    let operation = tx.operation_create(id, OperationKind::Delete, row.generation).await?;
    tx.commit().await?;
    Ok(respond::accepted_delete(ctx, &operation))
}

async fn list(ctx: &OpContext, state: &ApiState, call: &Call, scope: &ResourceId) -> Outcome {
    if scope.resource_group().is_some() && state.store.resource_get(scope).await?.is_none() {
        return Err(shape::not_found(scope).into());
    }
    let rows = state.store.resource_list(&Filter::of_type(WORKSPACE_TYPE).within(scope)).await?;
    let rows = ctx.readable(scope, &format!("{WORKSPACE_TYPE}/read"), rows)?;
    let mut shown = Vec::new();
    for row in &rows {
        shown.push(show(ctx, state, row, provision::rules(state, row).await?));
    }
    network::embed(state, scope, WORKSPACE_TYPE, &mut shown).await?;
    respond::list(ctx, call, &call.path(), shown)
}

async fn act(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId, name: &str) -> Outcome {
    let action = name.to_ascii_lowercase();
    match action.as_str() {
        // To look at what rules do is to read them.
        "listoutboundlog" | "testoutbounddestination" | "suggestoutboundrules" => {
            ctx.authorize(&format!("{RULE_TYPE}/read"), id)?
        }
        _ => ctx.authorize_call(call)?,
    }
    let row = state.store.resource_get(id).await?.ok_or_else(|| shape::not_found(id))?;
    match action.as_str() {
        "listoutboundlog" => networks::list_log(state, call, &row).await,
        "suggestoutboundrules" => networks::suggest_rules(state, call, &row).await,
        "testoutbounddestination" => networks::test_destination(state, call, &row).await,
        "listkeys" => Ok(respond::ok(&json!({
            "userStorageKey": null,
            "userStorageResourceId": row.properties().get("storageAccount"),
            "userStorageArmId": row.properties().get("storageAccount"),
            "appInsightsInstrumentationKey": null,
            "containerRegistryCredentials": null,
            "notebookAccessKeys": null,
        }))),
        "liststorageaccountkeys" => Ok(respond::ok(&json!({"userStorageKey": null}))),
        "resynckeys" => Ok(respond::json(StatusCode::OK, &json!({}))),
        "diagnose" => Ok(respond::ok(&json!({"value": {
            "userDefinedRouteResults": [],
            "networkSecurityRuleResults": [],
            "resourceLockResults": [],
            "dnsResolutionResults": [],
            "storageAccountResults": [],
            "keyVaultResults": [],
            "containerRegistryResults": [],
            "applicationInsightsResults": [],
            "otherResults": [],
        }}))),
        "provisionmanagednetwork" => networks::provision(ctx, state, call, &row).await,
        "preparenotebook" | "listnotebookkeys" | "listnotebookaccesstoken" => {
            let message = "Notebooks are not available on this platform.";
            Err(Fault::new(FaultKind::NotImplemented, "NotImplemented", message).into())
        }
        _ => {
            let message = format!("The action '{name}' is not known for workspaces.");
            Err(Fault::not_found("InvalidResourceType", message).into())
        }
    }
}
