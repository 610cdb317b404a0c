//! What a handler fails with, and its one conversion into an HTTP answer.

use axum::response::{IntoResponse, Response};
use casemate_model::Fault;
use casemate_store::StoreError;
use casemate_wire::envelope;
use http::{HeaderName, HeaderValue, StatusCode, header};

use crate::respond;

/// A fault on its way to the client, with the headers that go with it.
#[derive(Debug)]
pub struct ApiError {
    fault: Fault,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl ApiError {
    /// Adds a header; one that cannot be sent is left out.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        self.headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn fault(&self) -> &Fault {
        &self.fault
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        Self { fault, headers: Vec::new() }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::from(Fault::from(error))
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(envelope::status_of(&self.fault)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(code = %self.fault.code, message = %self.fault.message, "request failed");
        }
        let mut response = respond::json(status, &envelope::envelope(&self.fault));
        if let Ok(code) = HeaderValue::from_str(&self.fault.code) {
            response.headers_mut().insert("x-ms-error-code", code);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response
    }
}
