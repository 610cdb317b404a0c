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

use casemate_model::network::connection_type;

pub(crate) use vnets::require_free;

use crate::{
    call::Call,
    context::{OpContext, Outcome},
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
