//! Computes by way of the resource manager: what a workspace's absence means, and the rest in [`crate::v1::compute`].

use super::shape;
use crate::{
    call::Call,
    context::{OpContext, Outcome},
    state::ApiState,
    v1::compute,
};

pub(super) async fn dispatch(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    ctx.authorize_call(call)?;
    let scope = call.target.scope();
    let workspace = scope.and_then(|scope| scope.ancestor(casemate_model::workspace::WORKSPACE_TYPE));
    if let Some(workspace) = workspace
        && state.store.resource_get(&workspace).await?.is_none()
    {
        return Err(shape::not_found(&workspace).into());
    }
    compute::handle(ctx, state, call).await
}
