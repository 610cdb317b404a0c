//! Private link services: destinations outside the platform, such as a database on the company's network, registered so
//! that outbound rules of workspaces can name them.

use std::net::IpAddr;

use casemate_model::{
    Fault, ResourceId,
    egress::{AddressClass, HostName, PortRanges, classify},
};
use casemate_store::{Put, Tx};
use http::Method;
use serde_json::{Map, Value, json};

use super::shape::{self, Asked, bad};
use crate::{
    arm::shape as common,
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    respond,
    state::ApiState,
};

pub(super) async fn handle(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Resource(id), &Method::GET) => {
            ctx.authorize_call(call)?;
            let row = shape::read(state, id).await?;
            Ok(respond::shown(call, &row, &shape::public(&row)))
        }
        (Target::Resource(id), &Method::HEAD) => shape::head(ctx, state, call, id).await,
        (Target::Resource(id), &Method::PUT) => {
            ctx.authorize_call(call)?;
            let asked = Asked::read(call)?;
            let mut tx = state.store.begin().await?;
            let put = write(&mut tx, ctx, id, &asked).await?;
            tx.commit().await?;
            Ok(respond::written_as(&put, &shape::public(&put.resource)))
        }
        (Target::Resource(id), &Method::PATCH) => {
            let put = shape::patch_tags(ctx, state, call, id).await?;
            Ok(respond::written_as(&put, &shape::public(&put.resource)))
        }
        (Target::Resource(id), &Method::DELETE) => shape::delete(ctx, state, call, id).await,
        (Target::Collection { .. }, &Method::GET) => {
            let rows = shape::list(ctx, state, call).await?;
            respond::list(ctx, call, &call.path(), rows.iter().map(shape::public).collect())
        }
        _ => call.method_not_allowed(),
    }
}

pub(super) async fn write(tx: &mut Tx, ctx: &OpContext, id: &ResourceId, asked: &Asked) -> Result<Put, ApiError> {
    shape::check_name(id, "Microsoft.Resources/resourceGroups", 80)?;
    let destination = destination(shape::properties(&asked.given)?.get("casemate"))?;
    common::require_parent(tx, id).await?;
    let existing = tx.resource_get(id).await?;
    let body = json!({
        "location": shape::location(&asked.given, existing.as_ref())?,
        "tags": common::tags(asked.given.get("tags"))?,
        "properties": {"casemate": destination},
    });
    Ok(tx.resource_put(id, body, &asked.condition, &ctx.author()).await?)
}

/// `{address | fqdn, ports}`: an address that a machine on a network can have, or a host name.
fn destination(given: Option<&Value>) -> Result<Value, Fault> {
    let empty = Map::new();
    let given = given.and_then(Value::as_object).unwrap_or(&empty);
    let text = |key: &str| given.get(key).and_then(Value::as_str);
    let ports = text("ports").map_or_else(|| Ok(PortRanges::default()), PortRanges::parse);
    let ports = ports.map_err(|error| bad("casemate.ports", error.to_string()))?.to_string();
    match (text("address"), text("fqdn")) {
        (Some(address), None) => {
            let shown: String = address.chars().take(60).collect();
            let parsed = address.parse::<IpAddr>().ok().filter(|address| may_be_named(*address));
            let message = format!("'{shown}' is not an address that a machine on a network can have.");
            let parsed = parsed.ok_or_else(|| bad("casemate.address", message))?;
            Ok(json!({"address": parsed.to_string(), "ports": ports}))
        }
        (None, Some(name)) => {
            let name = HostName::parse(name).map_err(|error| bad("casemate.fqdn", error.to_string()))?;
            Ok(json!({"fqdn": name.as_str(), "ports": ports}))
        }
        _ => {
            let message = "A private link service is a destination outside the platform: give casemate.address or \
                           casemate.fqdn, and casemate.ports such as 443 or 5432,8000-8010.";
            Err(bad("casemate", message))
        }
    }
}

/// Loopback, link-local and metadata addresses are this machine's own affairs.
fn may_be_named(address: IpAddr) -> bool {
    matches!(classify(address), AddressClass::Public | AddressClass::Private | AddressClass::Shared)
}
