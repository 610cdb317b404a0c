//! Why a token is refused.

use casemate_model::{Fault, FaultKind};
use jiff::Timestamp;

/// The signing key is unusable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token signing key is not a P-256 private key in PKCS#8 PEM; put back the one that the platform made")]
pub struct SigningKeyError;

/// Why a token is refused. No variant carries the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Longer than [`crate::MAX_TOKEN_BYTES`].
    #[error("The token is longer than 16 KiB. Sign in again to get a new one.")]
    TooLong,
    /// Not a token at all, or one that lacks a claim.
    #[error("The token is not a JSON Web Token of this platform. Sign in again to get a new one.")]
    Malformed,
    /// Not signed with the platform's key.
    #[error(
        "The token was not signed by this platform. Sign in here to get one: tokens of other platforms are of no use."
    )]
    Forged,
    /// An endpoint's token where a management token is wanted, or the other way round.
    #[error(
        "The token is of another kind: a token that scores at an endpoint does not open the management API, nor the other way round."
    )]
    WrongKind,
    /// Issued under another address of the platform.
    #[error("The token was issued by {found}, not by this platform. Sign in again to get a new one.")]
    WrongIssuer { found: String },
    /// Issued for another tenant.
    #[error(
        "The token is for the tenant {found}, not for the one of this platform. Sign in to this platform's tenant."
    )]
    WrongTenant { found: String },
    /// Meant for another service.
    #[error("The token is for the audience {found}. Ask for one for {wanted}.")]
    WrongAudience { found: String, wanted: String },
    /// Meant for another endpoint.
    #[error("The token is for another endpoint. Ask this endpoint for one.")]
    WrongEndpoint,
    /// Its time is over.
    #[error("The token expired at {at}. Get a new one.")]
    Expired { at: Timestamp },
    /// Its time has not come.
    #[error("The token is valid only from {from} on. Check the clocks of both machines.")]
    NotYetValid { from: Timestamp },
}

impl From<TokenError> for Fault {
    fn from(error: TokenError) -> Self {
        let code = match &error {
            TokenError::TooLong
            | TokenError::Malformed
            | TokenError::Forged
            | TokenError::WrongKind
            | TokenError::WrongEndpoint
            | TokenError::NotYetValid { .. } => "InvalidAuthenticationToken",
            TokenError::WrongIssuer { .. } => "InvalidAuthenticationTokenIssuer",
            TokenError::WrongTenant { .. } => "InvalidAuthenticationTokenTenant",
            TokenError::WrongAudience { .. } => "InvalidAuthenticationTokenAudience",
            TokenError::Expired { .. } => "ExpiredAuthenticationToken",
        };
        Self::new(FaultKind::Unauthenticated, code, error.to_string())
    }
}
