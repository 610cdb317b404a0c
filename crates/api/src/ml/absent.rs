//! Collections that clients look into and that this platform does not have: empty to read, refused to write.

use casemate_model::{Fault, FaultKind};
use http::Method;
use serde_json::json;

use super::workspace;
use crate::{ApiState, Call, OpContext, Target, arm::shape::not_found, context::Outcome, respond};

/// Last part of the type, in lower case, and what to call it.
const ABSENT: &[(&str, &str)] = &[
    ("batchendpoints", "Batch endpoints"),
    ("components", "Components"),
    ("connections", "Connections"),
    ("jobs", "Jobs"),
    ("schedules", "Schedules"),
];

/// Answers for the types named above; none for others.
pub(super) async fn handle(ctx: &OpContext, state: &ApiState, call: &Call, kind: &str) -> Option<Outcome> {
    let (_, shown) = ABSENT.iter().find(|(known, _)| *known == kind)?;
    Some(answer(ctx, state, call, shown).await)
}

async fn answer(ctx: &OpContext, state: &ApiState, call: &Call, shown: &str) -> Outcome {
    ctx.authorize_call(call)?;
    if let Some(scope) = call.target.scope() {
        workspace::read(state, scope).await?;
    }
    match (&call.target, &call.method) {
        (Target::Collection { .. }, &Method::GET) => Ok(respond::ok(&json!({ "value": [] }))),
        (Target::Resource(id), &Method::GET | &Method::HEAD | &Method::DELETE) => Err(not_found(id).into()),
        _ => Err(Fault::new(
            FaultKind::NotImplemented,
            "NotImplemented",
            format!("{shown} are not available on this platform yet. Managed online endpoints need none."),
        )
        .into()),
    }
}
