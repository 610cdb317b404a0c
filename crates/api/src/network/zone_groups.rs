//! Groups of DNS zones: the zones into which a private endpoint's names are written.

use casemate_model::{
    Fault, Resource, ResourceId,
    network::{PRIVATE_ENDPOINT_TYPE, PrivateEndpoint, ZONE_GROUP_TYPE, ZONE_TYPE},
};
use casemate_store::{Filter, Put, Tx};
use http::Method;
use serde_json::{Value, json};

use super::{
    apply,
    endpoints::Around,
    shape::{self, Asked, bad},
    targets,
};
use crate::{
    arm::shape as common,
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    respond,
    state::ApiState,
};

/// Most zones in one group.
const MAX_ZONES: usize = 5;

pub(super) async fn handle(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Resource(id), &Method::GET) => {
            ctx.authorize_call(call)?;
            let row = shape::read(state, id).await?;
            Ok(respond::shown(call, &row, &show(state, &row).await?))
        }
        (Target::Resource(id), &Method::HEAD) => shape::head(ctx, state, call, id).await,
        (Target::Resource(id), &Method::PUT) => {
            ctx.authorize_call(call)?;
            let asked = Asked::read(call)?;
            let mut tx = state.store.begin().await?;
            let put = write(&mut tx, ctx, state, id, &asked).await?;
            tx.commit().await?;
            Ok(respond::written_as(&put, &show(state, &put.resource).await?))
        }
        (Target::Resource(id), &Method::DELETE) => {
            ctx.authorize_call(call)?;
            let condition = call.condition()?;
            let mut tx = state.store.begin().await?;
            if tx.resource_mark_deleting(id, &condition).await?.is_none() {
                return Ok(respond::no_content());
            }
            tx.resource_remove(id).await?;
            let parent = id.parent().ok_or_else(|| common::not_found(id))?;
            if let Some(endpoint) = tx.resource_get(&parent).await?.filter(|row| !row.deleting) {
                apply::sync(&mut tx, ctx, state, &endpoint).await?;
            }
            tx.commit().await?;
            Ok(shape::deleted())
        }
        (Target::Collection { .. }, &Method::GET) => {
            let mut shown = Vec::new();
            for row in shape::list(ctx, state, call).await? {
                shown.push(show(state, &row).await?);
            }
            respond::list(ctx, call, &call.path(), shown)
        }
        _ => call.method_not_allowed(),
    }
}

pub(super) async fn write(
    tx: &mut Tx,
    ctx: &OpContext,
    state: &ApiState,
    id: &ResourceId,
    asked: &Asked,
) -> Result<Put, ApiError> {
    shape::check_name(id, PRIVATE_ENDPOINT_TYPE, 80)?;
    let given = shape::properties(&asked.given)?;
    let endpoint = common::require_parent(tx, id).await?.ok_or_else(|| common::not_found(id))?;
    let others = tx.resource_list(&Filter::of_type(ZONE_GROUP_TYPE).child_of(&endpoint.id)).await?;
    if let Some(other) = others.iter().find(|other| other.id != *id) {
        let message =
            format!("The private endpoint has a group of zones already, '{}'. Add the zones to it.", other.name());
        return Err(Fault::conflict("MaximumPrivateDnsZoneGroupsExceeded", message).into());
    }
    let configs = configs(tx, ctx, given.get("privateDnsZoneConfigs")).await?;
    let body = json!({"properties": {"privateDnsZoneConfigs": configs}});
    let put = tx.resource_put(id, body, &asked.condition, &ctx.author()).await?;
    apply::sync(tx, ctx, state, &endpoint).await?;
    Ok(put)
}

async fn configs(tx: &mut Tx, ctx: &OpContext, given: Option<&Value>) -> Result<Vec<Value>, ApiError> {
    let field = "privateDnsZoneConfigs";
    let given = given.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if given.len() > MAX_ZONES {
        return Err(bad(field, format!("A group can have at most {MAX_ZONES} zones.")).into());
    }
    let mut kept = Vec::new();
    for config in given {
        let zone = config["properties"]["privateDnsZoneId"].as_str().unwrap_or_default();
        let zone = shape::typed_id(zone, "privateDnsZoneId", ZONE_TYPE)?;
        ctx.authorize("Microsoft.Network/privateDnsZones/join/action", &zone)?;
        shape::named(tx, &zone, "privateDnsZoneId").await?;
        let usual = || zone.name().replace('.', "-");
        let name = config["name"].as_str().map_or_else(usual, str::to_owned);
        kept.push(json!({"name": name, "properties": {"privateDnsZoneId": zone.as_str()}}));
    }
    Ok(kept)
}

async fn show(state: &ApiState, row: &Resource) -> Result<Value, ApiError> {
    let mut shown = shape::public(row);
    let parent = row.id.parent().ok_or_else(|| common::not_found(&row.id))?;
    let endpoint = shape::read(state, &parent).await?;
    let Ok(endpoint) = PrivateEndpoint::new(&endpoint.id, endpoint.properties()) else { return Ok(shown) };
    let around = Around::read(state).await?;
    let configs = shown["properties"]["privateDnsZoneConfigs"].as_array_mut();
    for config in configs.into_iter().flatten() {
        let zone = config["properties"]["privateDnsZoneId"].as_str().and_then(|id| ResourceId::parse(id).ok());
        let (Some(zone), Some(target)) = (zone, around.target(&endpoint)) else { continue };
        let kind = if endpoint.address.is_ipv4() { "A" } else { "AAAA" };
        let sets: Vec<Value> = targets::names(state, target, &endpoint.groups, zone.name())
            .into_iter()
            .map(|name| {
                json!({
                    "recordType": kind,
                    "recordSetName": name,
                    "fqdn": format!("{name}.{}", zone.name()),
                    "ttl": 10,
                    "ipAddresses": [endpoint.address.to_string()],
                    "provisioningState": "Succeeded",
                })
            })
            .collect();
        config["properties"]["recordSets"] = sets.into();
    }
    Ok(shown)
}
