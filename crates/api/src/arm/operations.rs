//! Long-running operations, as clients poll them.

use axum::response::IntoResponse;
use casemate_model::{Fault, Operation, OperationStatus, operation::OperationKind};
use casemate_wire::operation::{canceled, operation_body};
use http::{HeaderValue, Method, StatusCode, header};
use uuid::Uuid;

use super::provision;
use crate::{
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    respond,
    state::ApiState,
};

pub(super) async fn dispatch(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    let (Target::Resource(id), &Method::GET) = (&call.target, &call.method) else {
        return call.method_not_allowed();
    };
    let unknown = || {
        let message =
            format!("The operation '{}' was not found. Finished operations are kept for seven days.", id.name());
        Fault::not_found("OperationNotFound", message)
    };
    let number: Uuid = id.name().parse().map_err(|_| unknown())?;
    let operation = state.store.operation_get(number).await?.ok_or_else(unknown)?;
    // Whoever could only see the resource itself has lost that right with it, and still wants to know that it is gone.
    let is_over = operation.status != OperationStatus::InProgress;
    let is_gone = is_over && state.store.resource_get(&operation.resource).await?.is_none();
    if !is_gone {
        ctx.authorize(&format!("{}/read", operation.resource.resource_type()), &operation.resource)?;
    }
    if id.is_type("Casemate.Platform/operationResults") {
        return result(ctx, state, call, operation).await;
    }
    let path = respond::operation_path(&operation, "operationStatuses");
    let mut response = respond::ok(&operation_body(&operation, &path));
    if operation.status == OperationStatus::InProgress {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    Ok(response)
}

/// What stands at `Location`: 202 while it lasts, then what the operation gives.
async fn result(ctx: &OpContext, state: &ApiState, call: &Call, operation: Operation) -> Outcome {
    match operation.status {
        OperationStatus::InProgress => {
            let mut response = StatusCode::ACCEPTED.into_response();
            let here = format!("{}{}", ctx.base, respond::operation_path(&operation, "operationResults"));
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            headers.extend(HeaderValue::from_str(&here).ok().map(|here| (header::LOCATION, here)));
            Ok(response)
        }
        OperationStatus::Failed(fault) => Err(ApiError::from(fault)),
        OperationStatus::Canceled => Err(ApiError::from(canceled())),
        OperationStatus::Succeeded => match (operation.kind, operation.result) {
            (OperationKind::Action, Some(result)) => Ok(respond::ok(&result)),
            (OperationKind::Put, _) => match state.store.resource_get(&operation.resource).await? {
                Some(row) => provision::answer(ctx, state, call, &row).await,
                None => Ok(respond::no_content()),
            },
            _ => Ok(respond::no_content()),
        },
    }
}
