//! Online endpoints, deployments, assets and datastores: everything below a workspace that serving a model needs.
//!
//! Handlers here check a wish completely, fill in its defaults and store it; reconcilers do the rest. What cannot be
//! checked at the door (does the environment install, does the script load) is reported by the operation instead.
//!
//! A PUT while an earlier one of the same resource is still in progress supersedes it: the newest wish wins, and the
//! earlier operation ends as canceled. A PUT of a resource that is being deleted is a conflict.

mod absent;
pub(crate) mod assets;
pub(crate) mod body;
mod curated;
pub(crate) mod datastores;
mod deployments;
pub(crate) mod endpoints;
pub(crate) mod keys;
pub(crate) mod location;
mod references;
mod traffic;
pub(crate) mod workspace;

#[cfg(test)]
mod tests;

use axum::response::Response;

use crate::{ApiError, ApiState, Call, OpContext};

/// What all types of this family start with.
const ROOT: &str = "microsoft.machinelearningservices/workspaces/";

/// Answers calls about this family; none for other types.
pub async fn dispatch(ctx: &OpContext, state: &ApiState, call: &Call) -> Option<Result<Response, ApiError>> {
    let kind = call.target.kind();
    let kind = kind.strip_prefix(ROOT)?;
    if let Some(family) = assets::Family::of(kind) {
        return Some(assets::handle(ctx, state, call, family, kind).await);
    }
    match kind {
        "onlineendpoints" => Some(endpoints::handle(ctx, state, call).await),
        "onlineendpoints/deployments" => Some(deployments::handle(ctx, state, call).await),
        "onlineendpoints/deployments/skus" => Some(deployments::skus(ctx, state, call).await),
        "datastores" => Some(datastores::handle(ctx, state, call).await),
        _ => absent::handle(ctx, state, call, kind).await,
    }
}
