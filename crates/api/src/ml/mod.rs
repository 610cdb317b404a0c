//! Online endpoints, deployments, assets and datastores.

use axum::response::Response;

use crate::{ApiError, ApiState, Call, OpContext};

/// Answers calls about this family; none for other types.
pub async fn dispatch(_ctx: &OpContext, _state: &ApiState, _call: &Call) -> Option<Result<Response, ApiError>> {
    None
}
