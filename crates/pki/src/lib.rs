//! The built-in certificate authority, the checks of certificates that people bring, and what the router serves from.
//!
//! A root (ten years) signs one issuing intermediate (five years), which signs the leaves; the root's key is needed
//! only to make an intermediate, so a running platform never holds it. Leaves are served by server name from an
//! immutable [`CertificateMap`] behind an atomic pointer: publishing a new map is seen by the next handshake and
//! touches no open connection. Each certificate has a TLS configuration of its own with its own ticket keys, so no session
//! crosses names, certificates or settings; a client's hello decides which (`CertificateResolver::select`).
//!
//! This room opens no file and no socket, keeps no state of its own and never prints a key. It serves no default
//! certificate: a caller that asks for a name that is not in the map gets an alert.

mod authority;
pub mod custom;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod issuer;
mod leaf;
mod name;
mod probe;
mod rotate;
pub mod schedule;
mod serve;

use casemate_model::{Fault, FaultKind};

pub use authority::{CaMaterial, CertificateAuthority, INTERMEDIATE_VALIDITY, ROOT_VALIDITY};
pub use issuer::{BoxFuture, BuiltIn, DEFAULT_VALIDITY, IssueError, Issuer, RenewalWindow};
pub use leaf::Leaf;
pub use probe::{fingerprint, probe_config};
pub use rotate::{Described, describe, rotate_intermediate, rotate_root, trusted_roots};
pub use serve::{CertificateMap, CertificateResolver, Selection, Served, TlsSettings, fatal_alert};

/// Why a certificate could not be made, read or served.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A key or a certificate could not be made or signed.
    #[error("{what} could not be made: {why}")]
    Generate {
        /// What was being made.
        what: &'static str,
        /// The library's reason.
        why: String,
    },
    /// Stored or supplied PEM is not what it should be.
    #[error("{what} can't be read: {why}; give it as PEM text")]
    Malformed {
        /// Which part.
        what: &'static str,
        /// The reason; never any of the key's text.
        why: String,
    },
    /// Two parts that belong together do not.
    #[error("{0}")]
    Mismatch(&'static str),
    /// A name that no certificate can carry.
    #[error("'{name}' can't be in a certificate: {why}")]
    BadName {
        /// The name as given, shortened.
        name: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// The issuing certificate is not valid now, so nothing it signs would be.
    #[error("the issuing certificate was valid until {until} and it is {now}; make a new certificate authority")]
    IssuerExpired {
        /// End of its validity.
        until: jiff::Timestamp,
        /// The time of asking.
        now: jiff::Timestamp,
    },
}

impl From<PkiError> for Fault {
    fn from(error: PkiError) -> Self {
        let message = format!("Certificate: {error}.");
        match error {
            PkiError::BadName { .. } | PkiError::Malformed { .. } | PkiError::Mismatch(_) => {
                Self::invalid("InvalidCertificate", message)
            }
            PkiError::Generate { .. } => Self::internal(message),
            PkiError::IssuerExpired { .. } => Self::new(FaultKind::Unavailable, "CertificateAuthorityExpired", message),
        }
    }
}
