//! Refusals in the shape of the vault service: a code, a message, and a narrower code inside.

use axum::response::{IntoResponse, Response};
use casemate_model::{Fault, Resource};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use crate::{error::ApiError, respond};

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(super) enum Refusal {
    /// The vault's own.
    Vault { status: StatusCode, code: &'static str, message: String, inner: Option<&'static str> },
    /// Who calls is not known; what the client is to sign in for.
    Challenge { message: String, challenge: String },
    /// Of the platform as a whole.
    Fault(ApiError),
}

impl Refusal {
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::Vault { status: StatusCode::BAD_REQUEST, code: "BadParameter", message: message.into(), inner: None }
    }

    pub(super) fn forbidden(inner: &'static str, message: String) -> Self {
        Self::Vault { status: StatusCode::FORBIDDEN, code: "Forbidden", message, inner: Some(inner) }
    }

    pub(super) fn not_found(name: &str) -> Self {
        let message = format!(
            "A secret with (name/id) {name} was not found in this key vault. A secret that was deleted can't be \
             recovered on this platform; set it again."
        );
        Self::Vault { status: StatusCode::NOT_FOUND, code: "SecretNotFound", message, inner: None }
    }

    /// What the service has and this platform has not.
    pub(super) fn absent(what: &str) -> Self {
        let message = format!("{what} on this platform: vaults keep secrets, and deleting one is final.");
        Self::Vault { status: StatusCode::NOT_IMPLEMENTED, code: "NotImplemented", message, inner: None }
    }
}

impl<E: Into<ApiError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Fault(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Vault { status, code, message, inner } => {
                let mut error = json!({"code": code, "message": message});
                if let Some(inner) = inner {
                    error["innererror"] = json!({ "code": inner });
                }
                respond::json(status, &json!({ "error": error }))
            }
            Self::Challenge { message, challenge } => {
                let body = json!({"error": {"code": "Unauthorized", "message": message}});
                let mut response = respond::json(StatusCode::UNAUTHORIZED, &body);
                if let Ok(value) = HeaderValue::from_str(&challenge) {
                    response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
                }
                response
            }
            Self::Fault(error) => error.into_response(),
        }
    }
}

/// `kv;location=local`, as the service names a vault in its messages.
pub(super) fn named(vault: &Resource) -> String {
    format!("{};location={}", vault.name(), vault.location().unwrap_or("local"))
}

/// The body as an object.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(map)) => Ok(map),
        _ => Err(Refusal::bad("The request's body must be a JSON object.")),
    }
}

/// A fault of the request, in the vault's shape.
pub(super) fn invalid(fault: &Fault) -> Refusal {
    Refusal::bad(fault.message.clone())
}
