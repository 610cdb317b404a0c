//! What a handler fails with, and its one conversion into an HTTP answer.

use axum::response::{IntoResponse, Response};
use casemate_model::Fault;
use casemate_store::StoreError;
use casemate_wire::envelope;
use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::respond;

/// A fault on its way to the client, with the headers that go with it.
#[derive(Debug)]
pub struct ApiError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    fault: Fault,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// Adds a header; one that cannot be sent is left out.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        self.0.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn fault(&self) -> &Fault {
        &self.0.fault
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        Self(Box::new(Inner { fault, headers: Vec::new() }))
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::from(Fault::from(error))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Inner { fault, headers } = *self.0;
        let status = StatusCode::from_u16(envelope::status_of(&fault)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(code = %fault.code, message = %fault.message, "request failed");
        }
        let mut response = respond::json(status, &envelope::envelope(&fault));
        if let Ok(code) = HeaderValue::from_str(&fault.code) {
            response.headers_mut().insert("x-ms-error-code", code);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        for (name, value) in headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
