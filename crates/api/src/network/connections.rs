//! The target's side of private endpoints: its owner approves, rejects or removes them here.
//!
//! A connection is where the approval is kept; a private endpoint shows what its connection says, and is disconnected
//! when there is none any more, because it was removed or went with its target.

use std::collections::HashMap;

use casemate_model::{
    Fault, Resource, ResourceId,
    network::{CONNECTION_TARGETS, ConnectionStatus, PRIVATE_ENDPOINT_TYPE, PrivateEndpoint, connection_type},
};
use casemate_store::{Condition, Filter, Tx};
use http::Method;
use serde_json::{Value, json};

use super::{
    apply,
    shape::{self, bad},
};
use crate::{
    arm::shape as common,
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    respond,
    state::ApiState,
};

/// Where a target shows its connections.
pub(crate) const CONNECTIONS: &str = "privateEndpointConnections";
/// The longest description of a decision, in bytes.
const MAX_DESCRIPTION: usize = 1024;

pub(super) async fn handle(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Resource(id), &Method::GET) => {
            ctx.authorize_call(call)?;
            let row = shape::read(state, id).await?;
            let target = parent(state, id).await?;
            Ok(respond::shown(call, &row, &Subnets::read(state).await?.show(&row, target.location())))
        }
        (Target::Resource(id), &Method::HEAD) => shape::head(ctx, state, call, id).await,
        (Target::Resource(id), &Method::PUT) => decide(ctx, state, call, id).await,
        (Target::Resource(id), &Method::DELETE) => delete(ctx, state, call, id).await,
        (Target::Collection { parent: Some(target), .. }, &Method::GET) => {
            ctx.authorize_call(call)?;
            let rows = shape::list(ctx, state, call).await?;
            let (target, subnets) = (shape::read(state, target).await?, Subnets::read(state).await?);
            let shown = rows.iter().map(|row| subnets.show(row, target.location())).collect();
            respond::list(ctx, call, &call.path(), shown)
        }
        _ => call.method_not_allowed(),
    }
}

async fn parent(state: &ApiState, id: &ResourceId) -> Result<Resource, ApiError> {
    let parent = id.parent().ok_or_else(|| common::not_found(id))?;
    shape::read(state, &parent).await
}

/// The subnets of private endpoints, which are shown in their connections.
struct Subnets(HashMap<ResourceId, Value>);

impl Subnets {
    async fn read(state: &ApiState) -> Result<Self, ApiError> {
        let rows = state.store.resource_list(&Filter::of_type(PRIVATE_ENDPOINT_TYPE)).await?;
        Ok(Self(rows.into_iter().map(|row| (row.id.clone(), row.properties()["subnet"]["id"].clone())).collect()))
    }

    /// A connection as clients see it, with the location of its target.
    fn show(&self, row: &Resource, location: Option<&str>) -> Value {
        let mut shown = shape::public(row);
        if let Some(location) = location {
            shown["location"] = location.into();
        }
        let endpoint = row.properties()["privateEndpoint"]["id"].as_str().and_then(|id| ResourceId::parse(id).ok());
        if let Some(subnet) = endpoint.and_then(|endpoint| self.0.get(&endpoint)) {
            shown["properties"]["privateEndpoint"]["subnetArmId"] = subnet.clone();
        }
        shown
    }
}

/// Puts the connections of targets, which all lie in `scope` and are of the type `kind`, into what is shown of them.
/// Other resources stay as they are.
pub(crate) async fn embed<'v>(
    state: &ApiState,
    scope: &ResourceId,
    kind: &str,
    targets: impl IntoIterator<Item = &'v mut Value>,
) -> Result<(), ApiError> {
    let Some(kind) = connection_type(kind) else { return Ok(()) };
    let mut rows = state.store.resource_list(&Filter::of_type(kind).within(scope)).await?;
    rows.retain(|row| !row.deleting);
    let subnets = if rows.is_empty() { Subnets(HashMap::new()) } else { Subnets::read(state).await? };
    for target in targets {
        let id = target["id"].as_str().and_then(|id| ResourceId::parse(id).ok());
        let location = target["location"].as_str().map(str::to_owned);
        let own = rows.iter().filter(|row| id.is_some() && row.id.parent() == id);
        let own: Vec<Value> = own.map(|row| subnets.show(row, location.as_deref())).collect();
        target["properties"][CONNECTIONS] = own.into();
    }
    Ok(())
}

/// A PUT carries the decision; everything else of a connection comes from its private endpoint.
async fn decide(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    let given = common::object(call.json()?)?;
    let properties = shape::properties(&given)?;
    let decision = properties.get("privateLinkServiceConnectionState").unwrap_or(&Value::Null);
    let words = ["Approved", "Rejected", "Pending"];
    let status = common::one_of(&decision["status"], "privateLinkServiceConnectionState.status", &words)?;
    let mut tx = state.store.begin().await?;
    let mut row = tx.resource_get(id).await?.ok_or_else(|| common::not_found(id))?;
    if status == "Pending" && self::status(Some(&row)) != ConnectionStatus::Pending {
        let message = format!("The connection '{}' was decided and can't be pending again.", id.name());
        return Err(bad("privateLinkServiceConnectionState.status", message).into());
    }
    if status == "Approved" {
        let target = id.parent().ok_or_else(|| common::not_found(id))?;
        ctx.authorize(&approval(&target), &target)?;
    }
    let text = |key: &str| decision[key].as_str().map(|text| text.chars().take(MAX_DESCRIPTION).collect::<String>());
    let was = row.properties()["privateLinkServiceConnectionState"].clone();
    let description = text("description").unwrap_or_else(|| was["description"].as_str().unwrap_or_default().to_owned());
    let body = row.body.get_mut("properties").and_then(Value::as_object_mut);
    let body = body.ok_or_else(|| Fault::internal(format!("The connection '{id}' can't be read.")))?;
    body.insert("privateLinkServiceConnectionState".to_owned(), state_of(status, &description));
    let put = tx.resource_put(id, row.body, &call.condition()?, &ctx.author()).await?;
    if let Some(endpoint) = endpoint_row(&mut tx, &put.resource).await? {
        apply::sync(&mut tx, ctx, state, &endpoint).await?;
    }
    tx.commit().await?;
    let target = parent(state, id).await?;
    Ok(respond::written_as(&put, &Subnets::read(state).await?.show(&put.resource, target.location())))
}

async fn delete(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    let condition = call.condition()?;
    let mut tx = state.store.begin().await?;
    let Some(row) = tx.resource_mark_deleting(id, &condition).await? else { return Ok(respond::no_content()) };
    tx.resource_remove(id).await?;
    if let Some(endpoint) = endpoint_row(&mut tx, &row).await? {
        apply::sync(&mut tx, ctx, state, &endpoint).await?;
    }
    tx.commit().await?;
    Ok(shape::deleted())
}

/// The private endpoint of a connection, if it is there and stays; none for the connection of a workspace's outbound
/// rule, which has neither an address nor names of its own.
async fn endpoint_row(tx: &mut Tx, connection: &Resource) -> Result<Option<Resource>, ApiError> {
    let id = connection.properties()["privateEndpoint"]["id"].as_str().and_then(|id| ResourceId::parse(id).ok());
    let Some(id) = id.filter(|id| id.is_type(PRIVATE_ENDPOINT_TYPE)) else { return Ok(None) };
    Ok(tx.resource_get(&id).await?.filter(|row| !row.deleting))
}

/// The permission to approve the connections of a target.
pub(super) fn approval(target: &ResourceId) -> String {
    format!("{}/privateEndpointConnectionsApproval/action", target.resource_type())
}

/// What the owner of the target said; disconnected when there is no connection.
pub(super) fn status(connection: Option<&Resource>) -> ConnectionStatus {
    let Some(row) = connection.filter(|row| !row.deleting) else { return ConnectionStatus::Disconnected };
    let word = row.properties()["privateLinkServiceConnectionState"]["status"].as_str().unwrap_or_default();
    ConnectionStatus::parse(word).unwrap_or(ConnectionStatus::Pending)
}

fn state_of(status: &str, description: &str) -> Value {
    json!({"status": status, "description": description, "actionsRequired": "None"})
}

/// Asks the target for a connection, which is approved at once when the caller may do that and did not ask to leave it
/// to the owner. What was decided before stays.
pub(super) async fn open(
    tx: &mut Tx,
    ctx: &OpContext,
    endpoint: &PrivateEndpoint,
    manual: bool,
    message: &str,
) -> Result<(), ApiError> {
    if tx.resource_get(&endpoint.connection).await?.is_some() {
        return Ok(());
    }
    let approved = !manual && ctx.can(&approval(&endpoint.target), &endpoint.target);
    let state = match approved {
        true => state_of("Approved", if message.is_empty() { "Auto-Approved" } else { message }),
        false => state_of("Pending", message),
    };
    let body = json!({"properties": {
        "privateEndpoint": {"id": endpoint.id.as_str()},
        "groupIds": endpoint.groups,
        "privateLinkServiceConnectionState": state,
    }});
    tx.resource_put(&endpoint.connection, body, &Condition::None, &ctx.author()).await?;
    Ok(())
}

/// The connections of all targets, for showing many private endpoints.
pub(super) async fn all(state: &ApiState) -> Result<HashMap<ResourceId, Resource>, ApiError> {
    let mut found = HashMap::new();
    for kind in CONNECTION_TARGETS.into_iter().filter_map(connection_type) {
        let rows = state.store.resource_list(&Filter::of_type(kind)).await?;
        found.extend(rows.into_iter().map(|row| (row.id.clone(), row)));
    }
    Ok(found)
}

/// The state of a private endpoint as its connection says it.
pub(super) fn shown_state(connection: Option<&Resource>) -> Value {
    match connection.filter(|row| !row.deleting) {
        Some(row) => row.properties()["privateLinkServiceConnectionState"].clone(),
        None => state_of("Disconnected", "The connection was removed at the target, or went with it."),
    }
}
