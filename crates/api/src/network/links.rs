//! Links: which networks see a zone.

use casemate_model::{
    Fault, Resource, ResourceId,
    network::{NETWORK_TYPE, ZONE_LINK_TYPE, ZONE_TYPE},
};
use casemate_store::{Condition, Filter, Put, Tx};
use http::Method;
use serde_json::{Value, json};

use super::{
    apply,
    shape::{self, Asked},
    zones,
};
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
            Ok(respond::shown(call, &row, &show(&row)))
        }
        (Target::Resource(id), &Method::HEAD) => shape::head(ctx, state, call, id).await,
        (Target::Resource(id), &Method::PUT) => {
            ctx.authorize_call(call)?;
            let asked = Asked::read(call)?;
            let mut tx = state.store.begin().await?;
            let put = write(&mut tx, ctx, id, &asked).await?;
            tx.commit().await?;
            Ok(respond::written_as(&put, &show(&put.resource)))
        }
        (Target::Resource(id), &Method::PATCH) => {
            let put = shape::patch_tags(ctx, state, call, id).await?;
            Ok(respond::written_as(&put, &show(&put.resource)))
        }
        (Target::Resource(id), &Method::DELETE) => shape::delete(ctx, state, call, id).await,
        (Target::Collection { .. }, &Method::GET) => {
            let rows = shape::list(ctx, state, call).await?;
            respond::list(ctx, call, &call.path(), rows.iter().map(show).collect())
        }
        _ => call.method_not_allowed(),
    }
}

pub(super) async fn write(tx: &mut Tx, ctx: &OpContext, id: &ResourceId, asked: &Asked) -> Result<Put, ApiError> {
    shape::check_name(id, ZONE_TYPE, 80)?;
    let properties = shape::properties(&asked.given)?;
    let message = "Networks here hold nothing that registers itself in DNS; give registrationEnabled = false.";
    if properties
        .get("registrationEnabled")
        .is_some_and(|value| common::truth(value, "registrationEnabled") != Ok(false))
    {
        return Err(shape::bad("registrationEnabled", message).into());
    }
    let network = shape::reference(&properties, "virtualNetwork", NETWORK_TYPE)?;
    ctx.authorize("Microsoft.Network/virtualNetworks/join/action", &network)?;
    common::require_parent(tx, id).await?;
    shape::named(tx, &network, "virtualNetwork").await?;
    let existing = tx.resource_get(id).await?;
    let adopted = clear_place(tx, id, existing.as_ref(), &network).await?;
    let body = json!({
        "location": "global",
        "tags": common::tags(asked.given.get("tags"))?,
        "properties": {"virtualNetwork": {"id": network.as_str()}, "registrationEnabled": false},
    });
    let condition = if adopted { &Condition::None } else { &asked.condition };
    let put = tx.resource_put(id, body, condition, &ctx.author()).await?;
    Ok(Put { created: put.created || adopted, ..put })
}

/// Checks that the network sees no other zone of this name. A link that was made on the way gives its place to the
/// caller's; true when it had the same name.
async fn clear_place(
    tx: &mut Tx,
    id: &ResourceId,
    existing: Option<&Resource>,
    network: &ResourceId,
) -> Result<bool, ApiError> {
    let zone = id.parent().ok_or_else(|| common::not_found(id))?;
    if let Some(existing) = existing
        && network_of(existing).as_ref() != Some(network)
        && !apply::is_automatic(existing)
    {
        let message =
            format!("The link '{}' leads to another network and can't be turned over. Create another link.", id.name());
        return Err(Fault::conflict("Conflict", message).at("virtualNetwork").into());
    }
    let rows = tx.resource_list(&Filter::of_type(ZONE_LINK_TYPE)).await?;
    if existing.is_none() && rows.iter().filter(|row| row.id.is_within(&zone)).count() >= zones::MAX_LINKS {
        return Err(shape::quota(format!("The zone has {} links already.", zones::MAX_LINKS)).into());
    }
    for row in rows.iter().filter(|row| row.id != *id && network_of(row).as_ref() == Some(network)) {
        let Some(other) = row.id.parent().filter(|other| other.name().eq_ignore_ascii_case(zone.name())) else {
            continue;
        };
        if other == zone && apply::is_automatic(row) {
            tx.resource_remove(&row.id).await?;
            continue;
        }
        let message = format!(
            "The network '{network}' is linked to a zone '{}' already, by '{}'. A network sees one zone of a name.",
            zone.name(),
            row.id
        );
        return Err(Fault::conflict("Conflict", message).at("virtualNetwork").into());
    }
    Ok(existing.is_some_and(apply::is_automatic))
}

fn network_of(row: &Resource) -> Option<ResourceId> {
    ResourceId::parse(row.properties()["virtualNetwork"]["id"].as_str()?).ok()
}

fn show(row: &Resource) -> Value {
    let mut shown = shape::public(row);
    shown["properties"]["virtualNetworkLinkState"] = "Completed".into();
    shown
}
