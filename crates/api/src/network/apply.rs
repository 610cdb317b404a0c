//! Brings the DNS records of private endpoints in step with what is stored.

use casemate_model::{
    Resource, ResourceId,
    network::{
        self, Change, ConnectionStatus, PrivateEndpoint, Registration, WORKSPACE_ZONE, ZONE_GROUP_TYPE, ZONE_LINK_TYPE,
        ZONE_TYPE, ZoneNames,
    },
    workspace::WORKSPACE_TYPE,
};
use casemate_store::{Condition, Filter, Tx};
use serde_json::Value;

use super::{connections, targets};
use crate::{context::OpContext, error::ApiError, state::ApiState};

/// The rows that plans of DNS records are made from.
async fn rows(tx: &mut Tx) -> Result<Vec<Resource>, ApiError> {
    let mut rows = Vec::new();
    for kind in network::registration_types() {
        rows.extend(tx.resource_list(&Filter::of_type(kind)).await?);
    }
    Ok(rows)
}

async fn changes(tx: &mut Tx, ctx: &OpContext, changes: Vec<Change>) -> Result<(), ApiError> {
    for change in changes {
        match change {
            Change::Put(id, body) => drop(tx.resource_put(&id, body, &Condition::None, &ctx.author()).await?),
            Change::Remove(id) => tx.resource_remove(&id).await?,
        }
    }
    Ok(())
}

/// Writes or mends the records of a private endpoint; takes them away while its connection is not approved.
pub(super) async fn sync(tx: &mut Tx, ctx: &OpContext, state: &ApiState, row: &Resource) -> Result<(), ApiError> {
    let endpoint = PrivateEndpoint::new(&row.id, row.properties())?;
    let connection = tx.resource_get(&endpoint.connection).await?;
    let target = tx.resource_get(&endpoint.target).await?.filter(|target| !target.deleting);
    let rows = rows(tx).await?;
    let wish = match target {
        Some(target) if connections::status(connection.as_ref()) == ConnectionStatus::Approved => {
            let groups = tx.resource_list(&Filter::of_type(ZONE_GROUP_TYPE).child_of(&row.id)).await?;
            Some(wish(state, &endpoint, &target, &groups, &rows))
        }
        _ => None,
    };
    changes(tx, ctx, network::register(&row.id, wish.as_ref(), &rows)).await
}

/// Removes what goes with a private endpoint or a network.
pub(super) async fn release(tx: &mut Tx, ctx: &OpContext, gone: &ResourceId) -> Result<(), ApiError> {
    let rows = rows(tx).await?;
    changes(tx, ctx, network::release(gone, &rows)).await
}

/// The names of a private endpoint: those of its groups of zones, and for a workspace also those of the zone that is
/// made on the way.
fn wish(
    state: &ApiState,
    endpoint: &PrivateEndpoint,
    target: &Resource,
    groups: &[Resource],
    rows: &[Resource],
) -> Registration {
    let names = |zone: &ResourceId| targets::names(state, target, &endpoint.groups, zone.name());
    let mut zones: Vec<ZoneNames> = Vec::new();
    for zone in groups.iter().flat_map(zone_ids) {
        zones.push(ZoneNames { names: names(&zone), zone, automatic: false });
    }
    let has_own = zones.iter().any(|zone| zone.zone.name().eq_ignore_ascii_case(WORKSPACE_ZONE));
    if target.id.is_type(WORKSPACE_TYPE)
        && !has_own
        && let Some(zone) = workspace_zone(endpoint, rows)
    {
        zones.push(ZoneNames { names: names(&zone), zone, automatic: true });
    }
    Registration { network: endpoint.network.clone(), address: endpoint.address, zones }
}

/// The zones that a group of zones names.
pub(super) fn zone_ids(group: &Resource) -> Vec<ResourceId> {
    let configs = group.properties()["privateDnsZoneConfigs"].as_array().into_iter().flatten();
    let ids = configs.filter_map(|config| config["properties"]["privateDnsZoneId"].as_str());
    ids.filter_map(|id| ResourceId::parse(id).ok()).collect()
}

/// The workspaces' zone that the endpoint's network sees already, else the one beside the endpoint.
fn workspace_zone(endpoint: &PrivateEndpoint, rows: &[Resource]) -> Option<ResourceId> {
    let leads_here = |row: &&Resource| {
        let network = row.properties()["virtualNetwork"]["id"].as_str().map(ResourceId::parse);
        row.id.is_type(ZONE_LINK_TYPE)
            && !row.deleting
            && network.is_some_and(|id| id.ok().as_ref() == Some(&endpoint.network))
    };
    let linked = rows.iter().filter(leads_here).filter_map(|link| link.id.parent());
    let mut linked = linked.filter(|zone| zone.name().eq_ignore_ascii_case(WORKSPACE_ZONE));
    let beside = || {
        let group = endpoint.id.parent()?;
        ResourceId::parse(&format!("{group}/providers/{ZONE_TYPE}/{WORKSPACE_ZONE}")).ok()
    };
    linked.next().or_else(beside)
}

/// Whether a row was made for private endpoints, not by hand.
pub(super) fn is_automatic(row: &Resource) -> bool {
    row.body.get(network::AUTOMATIC).is_some_and(|automatic| *automatic == Value::Bool(true))
}
