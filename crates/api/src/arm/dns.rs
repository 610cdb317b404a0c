//! What DNS says in a virtual network, or outside of all: the zones that `casemate dns` shows and exports.

use std::net::IpAddr;

use casemate_model::{
    Fault, ResourceId,
    names::{NamedZone, PlatformNames, presentation},
    network::{NETWORK_TYPE, NetworkSnapshot, SNAPSHOT_TYPES},
};
use casemate_store::Filter;
use http::Method;
use serde_json::{Value, json};

use crate::{
    call::{Call, Target},
    context::{OpContext, Outcome},
    respond,
    state::ApiState,
};

/// The collection, below the subscription.
pub(super) const KIND: &str = "casemate.platform/dnszones";

/// `GET …/providers/Casemate.Platform/dnsZones[?network=ID][&frontDoor=ADDRESS][&dns=ADDRESS]`.
pub(super) async fn dispatch(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    let (Target::Collection { parent: Some(scope), .. }, &Method::GET) = (&call.target, &call.method) else {
        return call.method_not_allowed();
    };
    // The zones name endpoints of all workspaces: it takes a reader of all of them to see the list.
    ctx.authorize("Casemate.Platform/dnsZones/read", scope)?;
    let network = call.query.get("network").map(|text| network(ctx, text)).transpose()?;
    let mut rows = Vec::new();
    for kind in SNAPSHOT_TYPES {
        let wanted = Filter { resource_type: Some(kind.to_owned()), ..Filter::default() };
        rows.extend(state.store.resource_list(&wanted).await?);
    }
    let (snapshot, _) = NetworkSnapshot::from_resources(&rows);
    let view = network.as_ref().map(|id| (id, snapshot.network(id)));
    if let Some((id, None)) = view {
        return Err(super::shape::not_found(id).into());
    }
    let own = view.and_then(|(_, network)| network?.dns_address);
    let names = PlatformNames {
        domain: state.config.domain.clone(),
        region: state.config.region.clone(),
        front_door: addresses(call, "frontDoor")?.or_else(|| front_door(&state.config.url)).into_iter().collect(),
        dns: addresses(call, "dns")?.or(own).into_iter().collect(),
    };
    let zones: Vec<Value> = names.zones(&snapshot, network.as_ref()).iter().map(shown).collect();
    Ok(respond::ok(&json!({"value": zones, "dnsAddress": own})))
}

fn network(ctx: &OpContext, text: &str) -> Result<ResourceId, Fault> {
    let id = ResourceId::parse(text).map_err(|fault| fault.at("network"))?;
    if !id.is_type(NETWORK_TYPE) {
        let message = format!("'{id}' is not the id of a virtual network.");
        return Err(Fault::invalid("InvalidRequestFormat", message).at("network"));
    }
    ctx.authorize(&format!("{NETWORK_TYPE}/read"), &id)?;
    Ok(id)
}

fn addresses(call: &Call, key: &str) -> Result<Option<IpAddr>, Fault> {
    let read = |text: &str| {
        let message = format!("'{key}' is not an IP address.");
        text.parse().map_err(|_| Fault::invalid("InvalidRequestFormat", message).at(key))
    };
    call.query.get(key).map(read).transpose()
}

/// The front door's address, when its URL has one instead of a name.
fn front_door(url: &str) -> Option<IpAddr> {
    let authority = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next().unwrap_or_default();
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.trim_matches(['[', ']']).parse().ok()
}

fn shown(zone: &NamedZone) -> Value {
    let records = zone.records.iter().map(|record| {
        json!({
            "name": record.name,
            "type": record.data.kind().as_str(),
            "ttl": record.ttl,
            "values": presentation(&record.data),
        })
    });
    json!({
        "name": zone.name,
        "privateZone": zone.id.as_ref().map(ResourceId::as_str),
        "records": records.collect::<Vec<_>>(),
    })
}
