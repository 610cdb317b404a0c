//! What the first generation of the SDK speaks, beside the resource manager: discovery, the reads of computes, models,
//! artifacts and services.
//!
//! A path is a service's prefix, a workspace's id and a rest (`/modelmanagement/v1.0` + `/subscriptions/…/workspaces/W` +
//! `/services/s`). [`Door::parse`] reads the workspace once; [`dispatch`] finds its row and sees that the caller may
//! read it, and the family behind the door asks for what it needs beyond that with [`Asked::authorize`]. What goes wrong
//! is said in the shape that these clients show ([`shaped`]).
//!
//! Nothing here has state or operations of its own: services are rows that the same reconcilers bring about, and what
//! takes time is an operation like any other.

pub(crate) mod artifacts;
pub(crate) mod compute;
pub(crate) mod discovery;
pub(crate) mod models;
mod patch;
mod route;
pub(crate) mod services;

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use casemate_model::{Fault, Resource, workspace::WORKSPACE_TYPE};
use casemate_wire::envelope;
use serde_json::{Value, json};

pub(crate) use self::route::Door;
use crate::{
    arm,
    call::{Call, Target},
    context::{OpContext, Outcome},
    state::ApiState,
};

/// A request below a workspace.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The request; its target is the workspace.
    pub(crate) call: Call,
    /// The workspace's row, which is not being deleted.
    pub(crate) workspace: Resource,
    /// The decoded parts of the path after the workspace: `["services", "s", "listkeys"]`.
    pub(crate) rest: Vec<String>,
}

impl Asked {
    /// The parts of the path after the workspace, for matching.
    pub(crate) fn parts(&self) -> Vec<&str> {
        self.rest.iter().map(String::as_str).collect()
    }

    /// Insists that the caller may do `action`, such as `services/write`, in the workspace.
    ///
    /// # Errors
    /// As [`OpContext::authorize`].
    pub(crate) fn authorize(&self, ctx: &OpContext, action: &str) -> Result<(), Fault> {
        ctx.authorize(&format!("{WORKSPACE_TYPE}/{action}"), &self.workspace.id)
    }

    /// The answer to a path or a method that nothing is behind.
    pub(crate) fn nothing_here(&self) -> Fault {
        let (method, path) = (&self.call.method, self.rest.join("/"));
        let shown: String = path.chars().take(200).collect();
        Fault::not_found("NotFound", format!("There is no {method} of '{shown}' in the workspace on this platform."))
    }
}

/// Answers a request that came through `door`; `rest` is what follows the workspace in its path.
pub(crate) async fn dispatch(ctx: &OpContext, state: &ApiState, door: Door, call: Call, rest: Vec<String>) -> Outcome {
    if door == Door::Computes {
        return arm::dispatch(ctx, state, &call).await;
    }
    arm::check_subscription(state, &call)?;
    let Target::Resource(id) = &call.target else { return call.method_not_allowed() };
    ctx.authorize(&format!("{WORKSPACE_TYPE}/read"), id)?;
    let row = state.store.resource_get(id).await?.filter(|row| !row.deleting);
    let workspace = row.ok_or_else(|| arm::shape::not_found(id))?;
    let asked = Asked { call, workspace, rest };
    match (door, asked.rest.first().map(String::as_str)) {
        (Door::Artifacts, _) => artifacts::handle(ctx, state, &asked).await,
        (Door::Management, Some("models" | "assets")) => models::handle(ctx, state, &asked).await,
        (Door::Management, _) => services::handle(ctx, state, &asked).await,
        _ => Err(asked.nothing_here().into()),
    }
}

/// An outcome whose failure has the shape that these clients show: `code`, `statusCode`, `message` and `details` at the
/// top, and `error` as everywhere else.
pub(crate) fn shaped(outcome: Outcome) -> Response {
    let error = match outcome {
        Ok(response) => return response,
        Err(error) => error,
    };
    let body = error_body(error.fault());
    let mut response = error.into_response();
    *response.body_mut() = Body::from(body.to_string());
    response
}

/// A fault as these clients show it; also what stands under `error` of an operation that failed.
pub(crate) fn error_body(fault: &Fault) -> Value {
    let detail = |fault: &Fault| json!({"code": fault.code, "message": fault.message, "target": fault.target});
    let details: Vec<Value> =
        if fault.details.is_empty() { vec![detail(fault)] } else { fault.details.iter().map(detail).collect() };
    json!({
        "code": fault.code,
        "statusCode": envelope::status_of(fault),
        "message": fault.message,
        "details": details,
        // All that the client shows of a failure with models.
        "correlation": {"message": fault.message},
        "error": envelope::error_body(fault),
    })
}
