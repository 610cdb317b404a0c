//! The one failure code of this module, in its shades.

use casemate_model::{Fault, FaultKind};

/// The code that clients know for an environment that can't be built.
const CODE: &str = "ImageBuildFailure";

/// The conda file or what it asks for is at fault.
pub(super) fn invalid(message: impl Into<String>) -> Fault {
    Fault::new(FaultKind::Invalid, CODE, message)
}

/// The machine, its network or its package index is at fault; the same request may succeed later.
pub(super) fn unavailable(message: impl Into<String>) -> Fault {
    Fault::new(FaultKind::Unavailable, CODE, message)
}

/// A file operation on the platform's own directories failed.
pub(super) fn io(what: &str, error: &std::io::Error) -> Fault {
    let full = error.kind() == std::io::ErrorKind::StorageFull || error.kind() == std::io::ErrorKind::QuotaExceeded;
    let fix = if full {
        "Free space on the disk of the state directory and try again."
    } else {
        "Check the state directory's owner and rights, and try again."
    };
    unavailable(format!("The environment could not be built: {what} failed: {error}. {fix}"))
}
