//! Who is calling, and what may they do: tokens, secrets of principals, keys of endpoints, roles.
//!
//! Tokens are signed with one key of the platform (ES256) and are of two sorts that never stand in for each other:
//! management tokens name a principal and an audience, endpoint tokens name the one endpoint they score at. Roles are
//! the original's built-in ones, evaluated by its rules.
//!
//! This room answers questions from values it is handed. It keeps nothing, reads no store, and knows no routes.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod role;
mod secret;
mod token;

pub use secret::{digest_secret, new_client_secret, new_endpoint_key, secret_matches};
pub use token::{
    Claims, EndpointToken, Issued, MAX_TOKEN_BYTES, Principal, SigningKeyError, TokenAuthority, TokenError,
};

/// The audience of the data plane; a token for it does not open the management API, nor the other way round.
pub const AUDIENCE_ML: &str = "https://ml.azure.com";
