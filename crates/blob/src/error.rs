//! One failure of a blob request, in the words that storage clients know.

use std::{error::Error as StdError, io};

use casemate_model::{Fault, FaultKind};
use http::StatusCode;

/// A failed blob request: the status, the storage error code and a message that says cause, evidence and fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct BlobError {
    /// The HTTP status.
    pub status: StatusCode,
    /// The storage error code, such as `BlobNotFound`.
    pub code: &'static str,
    /// Plain sentences; no secrets.
    pub message: String,
}

impl BlobError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(crate) fn bad(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn header(name: &str, why: &str) -> Self {
        Self::bad("InvalidHeaderValue", format!("The value of the header '{name}' is not usable: {why}."))
    }

    pub(crate) fn parameter(name: &str, why: &str) -> Self {
        Self::bad("InvalidQueryParameterValue", format!("The query parameter '{name}' is not usable: {why}."))
    }

    pub(crate) fn blob_not_found(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "BlobNotFound", format!("The specified blob does not exist: '{name}'."))
    }

    pub(crate) fn forbidden(why: &str) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "AuthenticationFailed",
            format!(
                "Server failed to authenticate the request: {why}. Ask the workspace for a new shared access signature."
            ),
        )
    }

    pub(crate) fn too_large(size: u64, limit: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestBodyTooLarge",
            format!(
                "The request body is too large and exceeds the maximum permissible limit: {size} bytes of at most {limit}."
            ),
        )
    }

    pub(crate) fn no_space(what: &str) -> Self {
        Self::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "InsufficientStorage",
            format!(
                "The artifact store's disk is full: {what}. Free space on the platform's state directory and upload again; nothing of this upload was kept."
            ),
        )
    }

    pub(crate) fn internal(what: &str, error: &dyn std::fmt::Display) -> Self {
        tracing::error!(what, %error, "the artifact store failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "InternalError",
            format!("The artifact store failed while {what}. The platform's log says why; try again."),
        )
    }

    /// Reads what the file system said; `what` completes "failed while …".
    pub(crate) fn from_store(what: &str, name: &str, error: &object_store::Error) -> Self {
        if matches!(error, object_store::Error::NotFound { .. }) {
            return Self::blob_not_found(name);
        }
        match io_cause(error) {
            Some(cause) => Self::from_io(what, name, cause),
            None => Self::internal(what, error),
        }
    }

    pub(crate) fn from_io(what: &str, name: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::blob_not_found(name),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::no_space(&error.to_string())
            }
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory | io::ErrorKind::DirectoryNotEmpty => Self::new(
                StatusCode::CONFLICT,
                "ResourceTypeMismatch",
                format!(
                    "The name '{name}' is at odds with a blob that is there: in this store a name can't be a blob and the directory of other blobs at once. Choose another name, or delete the other blob."
                ),
            ),
            io::ErrorKind::InvalidFilename => Self::bad(
                "InvalidResourceName",
                format!("The name '{name}' is too long for the platform's file system."),
            ),
            _ => Self::internal(what, error),
        }
    }
}

fn io_cause(error: &object_store::Error) -> Option<&io::Error> {
    let mut at: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(now) = at {
        if let Some(found) = now.downcast_ref::<io::Error>() {
            return Some(found);
        }
        at = now.source();
    }
    None
}

impl From<BlobError> for Fault {
    fn from(error: BlobError) -> Self {
        let kind = match error.status {
            StatusCode::NOT_FOUND => FaultKind::NotFound,
            StatusCode::CONFLICT => FaultKind::Conflict,
            StatusCode::PAYLOAD_TOO_LARGE => FaultKind::TooLarge,
            StatusCode::FORBIDDEN => FaultKind::Forbidden,
            StatusCode::PRECONDITION_FAILED => FaultKind::PreconditionFailed,
            StatusCode::INSUFFICIENT_STORAGE | StatusCode::SERVICE_UNAVAILABLE => FaultKind::Unavailable,
            status if status.is_client_error() => FaultKind::Invalid,
            _ => FaultKind::Internal,
        };
        Fault::new(kind, error.code, error.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_systems_words_become_the_storage_codes() {
        for (errno, code, status) in [
            (28, "InsufficientStorage", 507),
            (122, "InsufficientStorage", 507),
            (20, "ResourceTypeMismatch", 409),
            (21, "ResourceTypeMismatch", 409),
            (2, "BlobNotFound", 404),
            (36, "InvalidResourceName", 400),
            (5, "InternalError", 500),
        ] {
            let generic =
                object_store::Error::Generic { store: "test", source: Box::new(io::Error::from_raw_os_error(errno)) };
            let error = BlobError::from_store("writing", "a/b", &generic);
            assert_eq!((error.code, error.status.as_u16()), (code, status), "{errno}");
        }
    }
}
