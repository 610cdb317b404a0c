//! Online endpoints.

use casemate_identity::new_endpoint_key;
use casemate_model::{
    Fault, FaultKind, Operation, OperationStatus, Resource, ResourceId,
    deployment::DEPLOYMENT_TYPE,
    endpoint::{AuthMode, ENDPOINT_TYPE, EndpointSpec},
    id::check_serving_name,
    operation::OperationKind,
};
use casemate_store::{Condition, Filter, Put, Tx};
use http::Method;
use serde_json::{Map, Value, json};

use super::{
    body::{Body, spell, texts},
    keys, traffic, workspace,
};
use crate::{ApiError, ApiState, Call, OpContext, Target, arm::shape::not_found, context::Outcome, respond, vault};

/// Most endpoints of the platform's one region.
const MAX_ENDPOINTS: usize = 100;

/// Answers calls about endpoints.
pub(super) async fn handle(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Collection { parent: Some(parent), .. }, &Method::GET) => list(ctx, state, call, parent).await,
        (Target::Resource(id), &Method::GET | &Method::HEAD) => {
            ctx.authorize_call(call)?;
            workspace::read(state, id).await?;
            Ok(respond::resource(call, &workspace::present(state.store.resource_get(id).await?, id)?))
        }
        (Target::Resource(id), &Method::PUT | &Method::PATCH) => put(ctx, state, call, id).await,
        (Target::Resource(id), &Method::DELETE) => {
            ctx.authorize_call(call)?;
            delete(ctx, state, call, id).await
        }
        (Target::Action { resource, name }, &Method::POST) => keys::action(ctx, state, call, resource, name).await,
        _ => call.method_not_allowed(),
    }
}

async fn list(ctx: &OpContext, state: &ApiState, call: &Call, parent: &ResourceId) -> Outcome {
    workspace::read(state, parent).await?;
    let rows = state.store.resource_list(&Filter::of_type(ENDPOINT_TYPE).child_of(parent)).await?;
    let rows = ctx.readable(parent, &call.permission(), rows)?;
    let kubernetes = call.query.get("computeType").is_some_and(|kind| kind.eq_ignore_ascii_case("Kubernetes"));
    let named = |row: &&Resource| call.query.get("name").is_none_or(|name| name.eq_ignore_ascii_case(row.name()));
    let wanted = rows.iter().filter(|_| !kubernetes).filter(named);
    let items = wanted.map(Resource::to_public).collect();
    respond::list(ctx, call, &call.path(), items)
}

async fn put(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    let condition = call.condition()?;
    let home = workspace::for_write(state, id).await?;
    check_serving_name("endpoint", id.name())?;
    let given = call.json()?;

    let mut tx = state.store.begin().await?;
    let before = tx.resource_get(id).await?;
    let body = match &before {
        Some(before) if call.method == Method::PATCH => Body::patched(&before.body, &given)?,
        None if call.method == Method::PATCH => return Err(not_found(id).into()),
        _ => Body::read(given)?,
    };
    let deployments = match &before {
        Some(_) => Some(tx.resource_list(&Filter::of_type(DEPLOYMENT_TYPE).child_of(id)).await?),
        None => {
            check_room(&mut tx, id).await?;
            None
        }
    };
    let (body, auth_mode) = wish(state, &home, id, body, before.as_ref(), deployments.as_deref())?;
    if before.is_none() && auth_mode == AuthMode::Key {
        vault::check_keys(state, &home, id.name()).await?;
    }
    let mut put = tx.resource_put(id, body, &condition, &ctx.author()).await?;
    if put.created && auth_mode == AuthMode::Key {
        for name in keys::NAMES {
            tx.secret_put(id, name, &new_endpoint_key()).await?;
        }
    }
    let operation = begin_work(&mut tx, &mut put, Map::new()).await?;
    tx.commit().await?;
    Ok(respond::accepted_put(ctx, &put, &operation))
}

/// Marks the resource as being worked on and adds the operation that ends when it is done.
pub(crate) async fn begin_work(
    tx: &mut Tx,
    put: &mut Put,
    mut observed: Map<String, Value>,
) -> Result<Operation, ApiError> {
    let state = if put.created { "Creating" } else { "Updating" };
    observed.insert("provisioningState".to_owned(), state.into());
    tx.resource_observe(&put.resource.id, observed).await?;
    if let Some(written) = tx.resource_get(&put.resource.id).await? {
        put.resource = written;
    }
    let (id, generation) = (put.resource.id.clone(), put.resource.generation);
    Ok(tx.operation_create(&id, OperationKind::Put, generation).await?)
}

/// Fails when the name is taken anywhere on the platform, or there are too many endpoints.
async fn check_room(tx: &mut Tx, id: &ResourceId) -> Result<(), ApiError> {
    let all = tx.resource_list(&Filter::of_type(ENDPOINT_TYPE)).await?;
    if all.iter().any(|row| row.name().eq_ignore_ascii_case(id.name())) {
        return Err(Fault::conflict(
            "EndpointAlreadyExists",
            "There is already an endpoint with this name, Endpoint name needs to be unique within a region. Try some other name.",
        )
        .at("name")
        .into());
    }
    if all.len() >= MAX_ENDPOINTS {
        let message = format!("There are {MAX_ENDPOINTS} endpoints already, which is the most. Delete one first.");
        return Err(Fault::new(FaultKind::Quota, "OutOfQuota", message).into());
    }
    Ok(())
}

/// The complete body to be stored.
fn wish(
    state: &ApiState,
    home: &Resource,
    id: &ResourceId,
    mut body: Body,
    before: Option<&Resource>,
    deployments: Option<&[Resource]>,
) -> Result<(Value, AuthMode), Fault> {
    let stored = |key: &str| before.and_then(|before| before.body.get(key)).cloned();
    body.default("location", || {
        stored("location")
            .or_else(|| home.location().map(Value::from))
            .unwrap_or_else(|| state.config.region.as_str().into())
    });
    body.default("kind", || "Managed".into());
    let identity = identity(body.get("identity"), before, state)?;
    body.set("identity", identity);
    let properties = body.properties();
    for shown in ["provisioningState", "scoringUri", "swaggerUri", "provisioningError"] {
        properties.remove(shown);
    }
    if properties.remove("keys").is_some() {
        let message = "Keys are made by the platform and can't be given; remove 'keys' and read them with listKeys.";
        return Err(Fault::invalid("BadArgument", message).at("keys"));
    }
    if properties.get("compute").is_some_and(|compute| compute.as_str() != Some("")) {
        return Err(Fault::new(
            FaultKind::NotImplemented,
            "NotImplemented",
            "Kubernetes compute is not available on this platform yet. Leave out 'compute' to get a managed endpoint.",
        )
        .at("compute"));
    }
    properties.remove("compute");
    let old = before.and_then(|before| before.properties().as_object());
    // What a client leaves out of an update stays: traffic must never vanish because a body did not mention it.
    for key in ["traffic", "mirrorTraffic", "authMode", "publicNetworkAccess"] {
        if let Some(value) = old.and_then(|old| old.get(key)) {
            properties.entry(key).or_insert_with(|| value.clone());
        }
    }
    spell(properties, "authMode", &["Key", "AMLToken", "AADToken"], Some("Key"))?;
    spell(properties, "publicNetworkAccess", &["Enabled", "Disabled"], Some("Enabled"))?;
    let free = texts(properties.remove("properties"), "properties")?;
    properties.insert("properties".to_owned(), json!(free));
    let spec = EndpointSpec::from_properties(&Value::Object(properties.clone()))?;
    if let Some(mode) = old.and_then(|old| old.get("authMode")).filter(|mode| **mode != json!(spec.auth_mode)) {
        let message = format!(
            "The auth mode of the endpoint '{}' is {mode} and can't be changed. Create another endpoint for another mode.",
            id.name()
        );
        return Err(Fault::invalid("BadArgument", message).at("authMode"));
    }
    traffic::settle(id.name(), properties, &spec, deployments)?;
    Ok((body.into_value(), spec.auth_mode))
}

/// The identity with the ids that the platform gives it; those of an endpoint that exists stay.
fn identity(given: Option<&Value>, before: Option<&Resource>, state: &ApiState) -> Result<Value, Fault> {
    let stored = before.and_then(|before| before.body.get("identity"));
    let mut wanted = match given.or(stored) {
        None => Map::new(),
        Some(Value::Object(map)) => map.clone(),
        Some(_) => return Err(Fault::invalid("BadArgument", "'identity' is not an object.").at("identity")),
    };
    let compact: Option<String> = wanted.get("type").and_then(Value::as_str).map(|kind| kind.replace(' ', ""));
    if let Some(compact) = compact {
        wanted.insert("type".to_owned(), compact.into());
    }
    let kinds = ["SystemAssigned", "UserAssigned", "SystemAssigned,UserAssigned", "None"];
    spell(&mut wanted, "type", &kinds, Some("SystemAssigned")).map_err(|fault| fault.at("identity"))?;
    if wanted.get("userAssignedIdentities").is_some_and(|identities| !identities.is_object()) {
        return Err(Fault::invalid("BadArgument", "'userAssignedIdentities' is not an object.").at("identity"));
    }
    for (key, system) in [("principalId", true), ("tenantId", true)] {
        wanted.remove(key);
        if system && wanted["type"].as_str().is_some_and(|kind| kind.starts_with("SystemAssigned")) {
            let kept = stored.and_then(|stored| stored.get(key)).cloned();
            let new = if key == "tenantId" { state.config.tenant } else { uuid::Uuid::new_v4() };
            wanted.insert(key.to_owned(), kept.unwrap_or_else(|| new.to_string().into()));
        }
    }
    Ok(Value::Object(wanted))
}

/// Accepts the deletion of an endpoint or a deployment; the rows go when all that runs has stopped.
pub(super) async fn delete(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    let condition = call.condition()?;
    let mut tx = state.store.begin().await?;
    let operation = match accept_deletion(&mut tx, id, &condition).await? {
        Some(operation) => operation,
        None => return Ok(respond::no_content()),
    };
    tx.commit().await?;
    Ok(respond::accepted_delete(ctx, &operation))
}

/// Marks a row as being deleted; gives the operation, which is the earlier one when the deletion was accepted before.
pub(crate) async fn accept_deletion(
    tx: &mut Tx,
    id: &ResourceId,
    condition: &Condition,
) -> Result<Option<Operation>, ApiError> {
    let Some(row) = tx.resource_mark_deleting(id, condition).await? else {
        return Ok(None);
    };
    let pending = tx.operations_pending().await?;
    let earlier = pending.into_iter().find(|operation| {
        operation.resource == *id
            && operation.kind == OperationKind::Delete
            && operation.status == OperationStatus::InProgress
    });
    match earlier {
        Some(operation) => Ok(Some(operation)),
        None => Ok(Some(tx.operation_create(id, OperationKind::Delete, row.generation).await?)),
    }
}
