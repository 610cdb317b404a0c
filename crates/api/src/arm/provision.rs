//! Writing and showing a resource by its type: what a PUT and a template share.

use casemate_model::{Fault, FaultKind, Resource, ResourceId};
use casemate_store::{Condition, Put, Tx};
use serde_json::{Map, Value};

use super::{generic, groups, networks, roles, workspaces};
use crate::{
    call::Call,
    context::{OpContext, Outcome},
    error::ApiError,
    network, respond,
    state::ApiState,
    v1::compute,
    vault,
};

const WORKSPACE: &str = "microsoft.machinelearningservices/workspaces";
const COMPUTE: &str = "microsoft.machinelearningservices/workspaces/computes";

/// Writes one resource of a template.
///
/// # Errors
/// What a PUT of the same body would give, and `NotImplemented` for types that templates can't make here.
pub(super) async fn write(
    tx: &mut Tx,
    ctx: &OpContext,
    state: &ApiState,
    id: &ResourceId,
    body: Value,
) -> Result<Put, ApiError> {
    let kind = id.resource_type().to_lowercase();
    let none = Condition::None;
    match kind.as_str() {
        "microsoft.resources/resourcegroups" => {
            ctx.authorize("Microsoft.Resources/subscriptions/resourceGroups/write", id)?;
            groups::write(tx, ctx, id, body, &none).await
        }
        "microsoft.authorization/roleassignments" => roles::write(tx, ctx, state, id, body, &none).await,
        WORKSPACE => {
            ctx.authorize(&format!("{}/write", id.resource_type()), id)?;
            workspaces::write(tx, ctx, state, id, body, &none).await
        }
        known if generic::is_known(known) => {
            ctx.authorize(&format!("{}/write", id.resource_type()), id)?;
            generic::write(tx, ctx, state, id, body, &none).await
        }
        known if network::is_written_by_templates(known) => network::write(tx, ctx, state, id, body).await,
        vault::KIND => {
            ctx.authorize(&format!("{}/write", id.resource_type()), id)?;
            vault::write(tx, ctx, state, id, body, &none).await
        }
        _ => {
            let message = format!(
                "A template can't make resources of the type '{}' on this platform yet. It can make workspaces and \
                 what belongs to them (storage account, key vault, log analytics, insights, registry, identities), \
                 virtual networks, private endpoints, private DNS zones and what lies in these, role assignments and, \
                 at the subscription, resource groups.",
                id.resource_type()
            );
            Err(Fault::new(FaultKind::NotImplemented, "NotImplemented", message).at(id.as_str()).into())
        }
    }
}

/// A resource as clients see it, with what depends on the platform's address filled in. `rules` are a workspace's
/// outbound rules.
pub(super) fn show(ctx: &OpContext, state: &ApiState, row: &Resource, rules: Map<String, Value>) -> Value {
    let kind = row.id.resource_type().to_lowercase();
    match kind.as_str() {
        WORKSPACE => workspaces::show(ctx, state, row, rules),
        "microsoft.authorization/roleassignments" => roles::show(row),
        known if generic::is_known(known) => generic::show(ctx, state, row),
        vault::KIND => vault::show(state, row),
        COMPUTE => compute::show(ctx, row),
        known if network::is_written_by_templates(known) => network::show(row),
        _ => row.to_public(),
    }
}

/// The rules of a workspace as they are shown in it; none for other types.
pub(super) async fn rules(state: &ApiState, row: &Resource) -> Result<Map<String, Value>, ApiError> {
    if !row.id.is_type(WORKSPACE) {
        return Ok(Map::new());
    }
    Ok(networks::shown_rules(state, row, &networks::Loaded::of(state, row).await?))
}

/// 200 with a resource.
pub(super) async fn answer(ctx: &OpContext, state: &ApiState, call: &Call, row: &Resource) -> Outcome {
    let rules = rules(state, row).await?;
    let mut shown = show(ctx, state, row, rules);
    network::embed(state, &row.id, &row.id.resource_type(), [&mut shown]).await?;
    Ok(respond::shown(call, row, &shown))
}
