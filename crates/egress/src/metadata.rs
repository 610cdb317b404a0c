//! The instance metadata service at 169.254.169.254: tokens of the instance's own identity, and of nothing else.

use casemate_model::{Fault, Secret};
use jiff::Timestamp;

/// Who an instance is, as far as tokens go.
pub trait InstanceIdentity: Send + Sync {
    /// A token for `resource` (an audience such as `https://storage.azure.com/`). `client_id` is the identity that the
    /// model asked for, by client id, object id or resource id; none: the only one, or the system-assigned one. Called on
    /// a thread that may block.
    ///
    /// # Errors
    /// A fault whose message the model gets to read. `Unavailable`, `Internal` and `Quota` make clients try again;
    /// every other kind tells them that there is no such identity or resource.
    fn token(&self, resource: &str, client_id: Option<&str>) -> Result<IdentityToken, Fault>;

    /// The value of IDENTITY_HEADER that the instance was started with, random and its own; none: the App Service shape
    /// (IDENTITY_ENDPOINT=`http://169.254.169.254/msi/token`) is not offered.
    fn header(&self) -> Option<Secret> {
        None
    }
}

/// A token as an instance gets it.
#[derive(Debug, Clone)]
pub struct IdentityToken {
    /// The bearer token.
    pub token: Secret,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The client id of the identity that it is of.
    pub client_id: String,
}
