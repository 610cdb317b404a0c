//! Subnets.

use casemate_model::{
    Fault, ResourceId,
    network::{NETWORK_TYPE, VirtualNetwork},
};
use casemate_store::{Condition, Put, Tx};
use http::Method;
use serde_json::{Map, Value, json};

use super::{
    shape::{self, Asked, bad},
    vnets::{self, Inside},
};
use crate::{
    arm::shape as common,
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    respond,
    state::ApiState,
};

/// What subnets of the original can have and ours don't.
const UNBUILT: &[(&str, &str)] = &[
    ("networkSecurityGroup", "Network security groups"),
    ("routeTable", "Route tables"),
    ("natGateway", "NAT gateways"),
    ("serviceEndpoints", "Service endpoints"),
    ("serviceEndpointPolicies", "Service endpoints"),
    ("delegations", "Delegations of subnets"),
];

pub(super) async fn handle(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Resource(id), &Method::GET) => {
            ctx.authorize_call(call)?;
            let row = shape::read(state, id).await?;
            let shown = Inside::read(state).await?.show_subnet(&row);
            Ok(respond::shown(call, &row, &shown))
        }
        (Target::Resource(id), &Method::HEAD) => shape::head(ctx, state, call, id).await,
        (Target::Resource(id), &Method::PUT) => {
            ctx.authorize_call(call)?;
            let asked = Asked::read(call)?;
            let mut tx = state.store.begin().await?;
            let put = write(&mut tx, ctx, id, &asked).await?;
            tx.commit().await?;
            Ok(respond::written_as(&put, &Inside::read(state).await?.show_subnet(&put.resource)))
        }
        (Target::Resource(id), &Method::DELETE) => delete(ctx, state, call, id).await,
        (Target::Collection { .. }, &Method::GET) => {
            let rows = shape::list(ctx, state, call).await?;
            let inside = Inside::read(state).await?;
            respond::list(ctx, call, &call.path(), rows.iter().map(|row| inside.show_subnet(row)).collect())
        }
        _ => call.method_not_allowed(),
    }
}

pub(super) async fn write(tx: &mut Tx, ctx: &OpContext, id: &ResourceId, asked: &Asked) -> Result<Put, ApiError> {
    let properties = normalized(&shape::properties(&asked.given)?)?;
    check_within(tx, id, Some(&properties)).await?;
    Ok(tx.resource_put(id, json!({"properties": properties}), &asked.condition, &ctx.author()).await?)
}

/// What is kept of a subnet's properties.
pub(super) fn normalized(given: &Map<String, Value>) -> Result<Value, Fault> {
    shape::refuse_unbuilt(given, UNBUILT)?;
    let prefixes = given.get("addressPrefixes").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let prefix = match (given.get("addressPrefix").filter(|prefix| !prefix.is_null()), prefixes) {
        (Some(prefix), [] | [_]) => prefix,
        (None, [prefix]) => prefix,
        _ => return Err(bad("addressPrefix", "A subnet needs one address prefix, such as 10.0.0.0/24.")),
    };
    let policy = |key: &str, usual: &str| given.get(key).and_then(Value::as_str).unwrap_or(usual).to_owned();
    Ok(json!({
        "addressPrefix": prefix,
        "privateEndpointNetworkPolicies": policy("privateEndpointNetworkPolicies", "Disabled"),
        "privateLinkServiceNetworkPolicies": policy("privateLinkServiceNetworkPolicies", "Enabled"),
    }))
}

/// Writes a subnet that was checked with its network; one that is as it was keeps its etag.
pub(super) async fn keep(tx: &mut Tx, ctx: &OpContext, id: &ResourceId, properties: Value) -> Result<(), ApiError> {
    shape::check_name(id, NETWORK_TYPE, 80)?;
    let body = json!({ "properties": properties });
    if tx.resource_get(id).await?.is_none_or(|row| row.body != body) {
        let Put { .. } = tx.resource_put(id, body, &Condition::None, &ctx.author()).await?;
    }
    Ok(())
}

/// Checks that the network is sound with this subnet as it is to be; none: without it.
async fn check_within(tx: &mut Tx, id: &ResourceId, properties: Option<&Value>) -> Result<(), ApiError> {
    shape::check_name(id, NETWORK_TYPE, 80)?;
    let parent = common::require_parent(tx, id).await?.ok_or_else(|| common::not_found(id))?;
    let mut subnets: Vec<(String, Value)> = Vec::new();
    let mut wanted = properties.map(|properties| (id.name().to_owned(), properties.clone()));
    for row in vnets::subnet_rows(tx, &parent.id).await? {
        if row.id == *id {
            subnets.extend(wanted.take());
        } else {
            subnets.push((row.name().to_owned(), row.properties().clone()));
        }
    }
    subnets.extend(wanted);
    let network = VirtualNetwork::new(&parent.id, parent.properties(), vnets::pairs(&subnets))?;
    vnets::check_endpoints(tx, &network).await
}

async fn delete(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    let condition = call.condition()?;
    let mut tx = state.store.begin().await?;
    if tx.resource_mark_deleting(id, &condition).await?.is_none() {
        return Ok(respond::no_content());
    }
    let users = vnets::endpoints_in(&mut tx, id).await?;
    if !users.is_empty() {
        let message = format!(
            "Subnet {} is in use by {} and cannot be deleted. In order to delete the subnet, delete these private \
             endpoints first.",
            id.name(),
            shape::names(users.iter().map(|user| user.id.as_str()))
        );
        return Err(Fault::invalid("InUseSubnetCannotBeDeleted", message).at(id.as_str()).into());
    }
    check_within(&mut tx, id, None).await?;
    tx.resource_remove(id).await?;
    tx.commit().await?;
    Ok(shape::deleted())
}
