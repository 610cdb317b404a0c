//! The body of a long-running operation, as the server writes it and as a client polls it.

use casemate_model::{Fault, FaultKind, Operation, OperationStatus};
use serde_json::{Map, Value};

use crate::envelope::{error_body, fault_from_error};

/// The body that `Azure-AsyncOperation` leads to. `id` is the path of the operation itself.
#[must_use]
pub fn operation_body(operation: &Operation, id: &str) -> Value {
    let mut body = Map::new();
    body.insert("id".to_owned(), id.into());
    body.insert("name".to_owned(), operation.id.to_string().into());
    body.insert("resourceId".to_owned(), operation.resource.as_str().into());
    body.insert("status".to_owned(), status_word(&operation.status).into());
    body.insert("startTime".to_owned(), operation.created_at.to_string().into());
    if let Some(ended) = operation.ended_at {
        body.insert("endTime".to_owned(), ended.to_string().into());
    }
    match &operation.status {
        OperationStatus::Failed(fault) => {
            body.insert("error".to_owned(), error_body(fault));
        }
        OperationStatus::Canceled => {
            body.insert("error".to_owned(), error_body(&canceled()));
        }
        OperationStatus::Succeeded => {
            body.insert("percentComplete".to_owned(), 100.into());
            if let Some(result) = &operation.result {
                body.insert("properties".to_owned(), result.clone());
            }
        }
        OperationStatus::InProgress => {}
    }
    Value::Object(body)
}

/// The fault of an operation that was canceled.
#[must_use]
pub fn canceled() -> Fault {
    Fault::conflict("OperationCanceled", "The operation was canceled before it ended; start it again if it is needed.")
}

fn status_word(status: &OperationStatus) -> &'static str {
    match status {
        OperationStatus::InProgress => "InProgress",
        OperationStatus::Succeeded => "Succeeded",
        OperationStatus::Failed(_) => "Failed",
        OperationStatus::Canceled => "Canceled",
    }
}

/// What a client learns from one poll.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// Not ended: poll again.
    Running,
    /// Ended well; an action's result, or null.
    Done(Value),
    /// Ended otherwise.
    Failed(Fault),
}

impl Progress {
    /// Reads the body behind `Azure-AsyncOperation`. Any status that is not one of the four final words means that
    /// it is still running, as the protocol says.
    ///
    /// # Errors
    /// `InternalServerError` when there is no `status`.
    pub fn from_body(body: &Value) -> Result<Self, Fault> {
        let Some(status) = body.get("status").and_then(Value::as_str) else {
            return Err(Fault::internal("The server's answer about the operation has no 'status'.").at("status"));
        };
        let error = || body.get("error").and_then(|error| fault_from_error(FaultKind::Internal, error));
        Ok(match status.to_ascii_lowercase().as_str() {
            "succeeded" => Self::Done(body.get("properties").cloned().unwrap_or(Value::Null)),
            "failed" => Self::Failed(
                error().unwrap_or_else(|| Fault::internal("The operation failed; the server gives no reason.")),
            ),
            "canceled" | "cancelled" => Self::Failed(error().unwrap_or_else(canceled)),
            _ => Self::Running,
        })
    }
}

#[cfg(test)]
mod tests {
    use casemate_model::{ResourceId, operation::OperationKind};
    use jiff::Timestamp;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn operation(status: OperationStatus, result: Option<Value>) -> Operation {
        Operation {
            id: Uuid::nil(),
            resource: ResourceId::parse("/subscriptions/s/resourceGroups/g").unwrap(),
            kind: OperationKind::Action,
            generation: 1,
            status,
            result,
            created_at: Timestamp::UNIX_EPOCH,
            ended_at: None,
        }
    }

    #[test]
    fn there_and_back() {
        let fault = Fault::new(FaultKind::Internal, "UserScriptInitFailed", "init() raised").at("blue");
        for (status, result, seen) in [
            (OperationStatus::InProgress, None, Progress::Running),
            (
                OperationStatus::Succeeded,
                Some(json!({"status": "Active"})),
                Progress::Done(json!({"status": "Active"})),
            ),
            (OperationStatus::Succeeded, None, Progress::Done(Value::Null)),
            (OperationStatus::Failed(fault.clone()), None, Progress::Failed(fault)),
        ] {
            let body = operation_body(&operation(status, result), "/x");
            assert_eq!(Progress::from_body(&body).unwrap(), seen, "{body}");
        }
        let body = operation_body(&operation(OperationStatus::Canceled, None), "/x");
        assert!(
            matches!(Progress::from_body(&body).unwrap(), Progress::Failed(fault) if fault.code == "OperationCanceled")
        );
    }

    #[test]
    fn odd_bodies() {
        for body in [json!({}), json!([]), json!(null), json!({"status": 1})] {
            assert!(Progress::from_body(&body).is_err(), "{body}");
        }
        assert_eq!(Progress::from_body(&json!({"status": "Accepted"})).unwrap(), Progress::Running);
        assert!(matches!(Progress::from_body(&json!({"status": "failed"})).unwrap(), Progress::Failed(_)));
    }
}
