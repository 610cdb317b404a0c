//! Microsoft.Network: virtual networks, private endpoints and private DNS zones, and the other side of private
//! endpoints, the connections of workspaces, storage accounts, vaults and registries.
//!
//! All of these are done when they are written: a private endpoint gets its address and its names in the transaction
//! of its PUT. Who listens there and who answers for the names works from the stored rows; nothing here touches an
//! interface. What is in use is not deleted: the refusal names what uses it. Only the deletion of a whole group takes
//! everything, unless something outside the group uses it.

mod apply;
mod connections;
mod endpoints;
mod interfaces;
mod links;
mod records;
mod services;
mod shape;
mod subnets;
mod targets;
mod vnets;
mod zone_groups;
mod zones;

use casemate_model::{
    Resource, ResourceId,
    network::{RecordKind, connection_type},
};
use casemate_store::{Condition, Put, Tx};
use serde_json::Value;

pub(crate) use connections::{CONNECTIONS, embed};
pub(crate) use vnets::require_free;

use self::shape::Asked;
use crate::{
    arm::shape as common,
    call::Call,
    context::{OpContext, Outcome},
    error::ApiError,
    state::ApiState,
};

/// Answers calls about this family; none for other types.
pub(crate) async fn dispatch(ctx: &OpContext, state: &ApiState, call: &Call) -> Option<Outcome> {
    let kind = call.target.kind();
    if let Some((target, last)) = kind.rsplit_once('/')
        && connection_type(target).is_some()
    {
        return match last {
            "privateendpointconnections" => Some(connections::handle(ctx, state, call).await),
            "privatelinkresources" => Some(targets::handle(ctx, state, call).await),
            _ => None,
        };
    }
    Some(match kind.strip_prefix("microsoft.network/")? {
        "virtualnetworks" => vnets::handle(ctx, state, call).await,
        "virtualnetworks/subnets" => subnets::handle(ctx, state, call).await,
        "privateendpoints" => endpoints::handle(ctx, state, call).await,
        "privateendpoints/privatednszonegroups" => zone_groups::handle(ctx, state, call).await,
        "privatednszones" => zones::handle(ctx, state, call).await,
        "privatednszones/virtualnetworklinks" => links::handle(ctx, state, call).await,
        "privatelinkservices" => services::handle(ctx, state, call).await,
        "networkinterfaces" => interfaces::handle(ctx, state, call).await,
        other => return records::handle(ctx, state, call, other.strip_prefix("privatednszones/")?).await,
    })
}

/// Whether a template can make resources of this type (in lower case).
pub(crate) fn is_written_by_templates(kind: &str) -> bool {
    family(kind).is_some()
}

/// The kinds of resources that a template can make.
enum Family {
    Network,
    Subnet,
    Endpoint,
    ZoneGroup,
    Zone,
    Link,
    Service,
    Records(RecordKind),
}

fn family(kind: &str) -> Option<Family> {
    Some(match kind.strip_prefix("microsoft.network/")? {
        "virtualnetworks" => Family::Network,
        "virtualnetworks/subnets" => Family::Subnet,
        "privateendpoints" => Family::Endpoint,
        "privateendpoints/privatednszonegroups" => Family::ZoneGroup,
        "privatednszones" => Family::Zone,
        "privatednszones/virtualnetworklinks" => Family::Link,
        "privatelinkservices" => Family::Service,
        other => Family::Records(RecordKind::parse(other.strip_prefix("privatednszones/")?)?),
    })
}

/// Writes one resource of a template, as a PUT of the same body would.
pub(crate) async fn write(
    tx: &mut Tx,
    ctx: &OpContext,
    state: &ApiState,
    id: &ResourceId,
    body: Value,
) -> Result<Put, ApiError> {
    let family = family(&id.resource_type().to_lowercase()).ok_or_else(|| common::not_found(id))?;
    ctx.authorize(&format!("{}/write", id.resource_type()), id)?;
    let asked = Asked { given: common::object(body)?, condition: Condition::None };
    match family {
        Family::Network => vnets::write(tx, ctx, id, &asked).await,
        Family::Subnet => subnets::write(tx, ctx, id, &asked).await,
        Family::Endpoint => endpoints::write(tx, ctx, state, id, &asked).await,
        Family::ZoneGroup => zone_groups::write(tx, ctx, state, id, &asked).await,
        Family::Zone => zones::write(tx, ctx, id, &asked).await,
        Family::Link => links::write(tx, ctx, id, &asked).await,
        Family::Service => services::write(tx, ctx, id, &asked).await,
        Family::Records(kind) => records::write(tx, ctx, id, kind, &asked).await,
    }
}

/// What a template's functions see of one: what is stored, without what lies around it.
pub(crate) fn show(row: &Resource) -> Value {
    shape::public(row)
}
