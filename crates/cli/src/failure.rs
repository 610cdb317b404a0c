//! Failures of commands: what is printed, and the exit code.

use casemate_model::{Fault, FaultKind};

use crate::terminal;

/// Exit code of wrong usage.
pub(crate) const USAGE: u8 = 2;
/// Exit code of something that is not found.
const NOT_FOUND: u8 = 3;
/// Exit code of any other failure.
const FAILED: u8 = 1;

/// Where a failure arose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The platform answered so: its code is part of what is said.
    Platform,
    /// In the command itself, on this machine.
    Here,
    /// In how the command was called.
    Usage,
}

/// Codes of faults that the client raises itself.
const LOCAL_CODES: &[&str] = &[
    "PlatformNotReachable",
    "EndpointNotReachable",
    "CertificateNotTrusted",
    "RequestTimedOut",
    "ConnectionBroken",
    "OperationTimedOut",
    "InvalidUrl",
    "InvalidCaFile",
    "ValidationError",
    "InvalidYaml",
    "InvalidArgument",
    "InvalidPath",
    "InvalidIgnoreFile",
    "FileNotFound",
    "FileNotReadable",
    "FileChanged",
    "EmptyDirectory",
    "TooManyFiles",
];

/// A command's failure.
#[derive(Debug)]
pub(crate) struct Failure {
    fault: Fault,
    origin: Origin,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        let origin = if LOCAL_CODES.contains(&fault.code.as_str()) { Origin::Here } else { Origin::Platform };
        Self { fault, origin }
    }
}

impl Failure {
    /// A failure on this machine.
    pub(crate) fn here(message: impl Into<String>) -> Self {
        Self { fault: Fault::invalid("CommandFailed", message), origin: Origin::Here }
    }

    /// The command was called wrongly.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { fault: Fault::invalid("Usage", message), origin: Origin::Usage }
    }

    /// What was asked for does not exist, as far as this machine can tell.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { fault: Fault::not_found("NotFound", message), origin: Origin::Here }
    }

    /// What sort of failure it is.
    pub(crate) fn kind(&self) -> FaultKind {
        self.fault.kind
    }

    /// What is said.
    pub(crate) fn message(&self) -> &str {
        &self.fault.message
    }

    /// The exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match (self.origin, self.fault.kind) {
            (Origin::Usage, _) => USAGE,
            (_, FaultKind::NotFound) => NOT_FOUND,
            _ => FAILED,
        }
    }

    /// Prints it to stderr, the platform's faults in the shape that `az` gives them.
    pub(crate) fn print(&self) {
        let fault = &self.fault;
        if self.origin != Origin::Platform {
            terminal::error_lines(&fault.message);
            return;
        }
        // A message of many lines (a log) is not said twice.
        let first = fault.message.lines().next().unwrap_or_default();
        let mut text = format!("({}) {}\nCode: {}\nMessage: {first}", fault.code, fault.message, fault.code);
        if let Some(target) = &fault.target {
            text.push_str(&format!("\nTarget: {target}"));
        }
        if !fault.details.is_empty() {
            text.push_str("\nException Details:");
            for detail in &fault.details {
                text.push_str(&format!("\n\t({}) {}", detail.code, detail.message));
            }
        }
        terminal::error_lines(&text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes() {
        for (failure, code) in [
            (Failure::from(Fault::not_found("ResourceNotFound", "x")), 3),
            (Failure::from(Fault::invalid("BadArgument", "x")), 1),
            (Failure::here("x"), 1),
            (Failure::usage("x"), 2),
            (Failure::not_found("x"), 3),
        ] {
            assert_eq!(failure.exit_code(), code);
        }
    }
}
