//! A failure that a user sees: a code, and a message that says the cause, the evidence and the fix.

use serde::{Deserialize, Serialize};

/// What sort of failure it is; the edge turns it into a status code or an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// The request itself is wrong.
    Invalid,
    /// No, forged or expired credentials.
    Unauthenticated,
    /// Known who asks, but not allowed.
    Forbidden,
    /// The thing asked for does not exist.
    NotFound,
    /// The request contradicts the present state.
    Conflict,
    /// An If-Match or If-None-Match condition did not hold.
    PreconditionFailed,
    /// The body or upload is larger than the limit.
    TooLarge,
    /// A limit in number or rate is reached.
    Quota,
    /// The platform lacks something just now (disk, kernel feature, package index); a retry may help.
    Unavailable,
    /// Known, but not built on this platform yet.
    NotImplemented,
    /// A fault of the platform.
    Internal,
}

/// One user-facing failure. `code` is the machine-readable name (PascalCase, the original's where it has one).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Fault {
    /// What sort of failure it is.
    pub kind: FaultKind,
    /// Machine-readable name, such as `BadArgument` or `UserScriptInitFailed`.
    pub code: String,
    /// Cause, evidence and fix in plain sentences; no secrets.
    pub message: String,
    /// The field, id or name at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Further failures behind this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Fault>,
}

impl Fault {
    /// A fault of `kind` with its code and message.
    pub fn new(kind: FaultKind, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, code: code.into(), message: message.into(), target: None, details: Vec::new() }
    }

    /// The request itself is wrong.
    pub fn invalid(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(FaultKind::Invalid, code, message)
    }

    /// The thing asked for does not exist.
    pub fn not_found(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(FaultKind::NotFound, code, message)
    }

    /// The request contradicts the present state.
    pub fn conflict(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(FaultKind::Conflict, code, message)
    }

    /// A fault of the platform: the message says what failed, without internals or secrets.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(FaultKind::Internal, "InternalServerError", message)
    }

    /// Names the field, id or name at fault.
    #[must_use]
    pub fn at(mut self, target: impl Into<String>) -> Self {
        self.target = Some(target.into());
        self
    }
}
