//! Operations as these clients poll them. One of theirs stands for several of the platform's; its id is theirs, joined.

use axum::response::Response;
use casemate_model::{Fault, Operation, OperationStatus};
use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Asked;
use crate::{ApiState, OpContext, context::Outcome, respond, v1};

/// Between the ids.
const JOINT: &str = ".";
/// Most operations in one.
const MAX_JOINED: usize = 32;

/// The answer to a request that goes on in the background: 202, and where to poll.
pub(super) fn accepted(ctx: &OpContext, asked: &Asked, operations: &[Operation], body: &Value) -> Response {
    let mut response = respond::json(StatusCode::ACCEPTED, body);
    let ids: Vec<String> = operations.iter().map(|operation| operation.id.to_string()).collect();
    let link = format!("{}/modelmanagement/v1.0{}/operations/{}", ctx.base, asked.workspace.id, ids.join(JOINT));
    if let Ok(link) = HeaderValue::from_str(&link) {
        response.headers_mut().insert(HeaderName::from_static("operation-location"), link);
    }
    response
}

/// How far an operation is.
pub(super) async fn get(ctx: &OpContext, state: &ApiState, asked: &Asked, id: &str) -> Outcome {
    asked.authorize(ctx, "services/read")?;
    let unknown = || Fault::not_found("OperationNotFound", "There is no such operation in the workspace.");
    let mut operations = Vec::new();
    for part in id.split(JOINT).take(MAX_JOINED) {
        let part: Uuid = part.parse().map_err(|_| unknown())?;
        let operation = state.store.operation_get(part).await?;
        let inside = |operation: &Operation| operation.resource.is_within(&asked.workspace.id);
        operations.push(operation.filter(inside).ok_or_else(unknown)?);
    }
    Ok(respond::ok(&shown(id, &operations)))
}

fn shown(id: &str, operations: &[Operation]) -> Value {
    let failed = operations.iter().find_map(|operation| match &operation.status {
        OperationStatus::Failed(fault) => Some(fault),
        _ => None,
    });
    let any = |status: &OperationStatus| operations.iter().any(|operation| operation.status == *status);
    let word = if failed.is_some() {
        "Failed"
    } else if any(&OperationStatus::InProgress) {
        "Running"
    } else if any(&OperationStatus::Canceled) {
        "Cancelled"
    } else {
        "Succeeded"
    };
    let ended = operations.iter().filter_map(|operation| operation.ended_at).max().filter(|_| word != "Running");
    json!({
        "id": id,
        "operationType": "Service",
        "state": word,
        "createdTime": operations.iter().map(|operation| operation.created_at).min().map(|time| time.to_string()),
        "endTime": ended.map(|time| time.to_string()),
        "resourceLocation": operations.first().map(|operation| operation.resource.as_str()),
        "operationLog": null,
        "operationDetails": {"subOperationType": "DeployService", "subOperationState": word},
        "error": failed.map(v1::error_body),
    })
}
