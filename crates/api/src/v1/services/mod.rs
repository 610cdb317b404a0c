//! Services: models that are served on a compute or alone.

use super::Asked;
use crate::{
    context::{OpContext, Outcome},
    state::ApiState,
};

/// Answers a request.
pub(crate) async fn handle(_: &OpContext, _: &ApiState, asked: &Asked) -> Outcome {
    Err(asked.nothing_here().into())
}
