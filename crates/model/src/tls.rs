//! What is wanted of an owner's TLS: the block `_tls` in the body of a compute, a service or an endpoint.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Fault, Resource};

/// Where the block stands in an owner's body. It is never shown.
pub const TLS_FIELD: &str = "_tls";
/// Secret of the owner: the chain given with version N of a custom certificate, PEM, under `tls-custom-chain-N`.
pub const CUSTOM_CHAIN: &str = "tls-custom-chain";
/// Secret of the owner: its key, PEM, under `tls-custom-key-N`.
pub const CUSTOM_KEY: &str = "tls-custom-key";
/// Secret of the owner: the certificates that clients' certificates must come from, PEM.
pub const CLIENT_CA: &str = "tls-client-ca";

/// Whose certificate is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TlsMode {
    /// None: the owner is served on the plain port only.
    Off,
    /// One that the platform gets from its issuer and renews.
    Platform,
    /// One that the owner gave.
    Custom,
}

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MinimumTls {
    /// TLS 1.2.
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V1_3,
}

/// What is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsWish {
    /// Whose certificate.
    pub mode: TlsMode,
    /// The host names to serve, lower-case; never empty unless `mode` is `Off`.
    #[serde(default)]
    pub names: Vec<String>,
    /// Grows with each forced renewal of a platform certificate.
    #[serde(default)]
    pub renewal: u64,
    /// Which of the owner's stored custom certificates; grows with each one given.
    #[serde(default)]
    pub version: u64,
    /// The oldest version of TLS.
    #[serde(default)]
    pub minimum: MinimumTls,
    /// Whether clients must show a certificate that comes from the owner's [`CLIENT_CA`].
    #[serde(default)]
    pub client_certificates: bool,
}

impl TlsWish {
    /// No TLS.
    #[must_use]
    pub fn off() -> Self {
        Self {
            mode: TlsMode::Off,
            names: Vec::new(),
            renewal: 0,
            version: 0,
            minimum: MinimumTls::default(),
            client_certificates: false,
        }
    }

    /// A certificate of the platform's issuer for these names.
    #[must_use]
    pub fn platform(names: Vec<String>) -> Self {
        Self { mode: TlsMode::Platform, names, ..Self::off() }
    }

    /// The wish in an owner's body; none when it has none.
    ///
    /// # Errors
    /// When the stored block can't be read.
    pub fn of(owner: &Resource) -> Result<Option<Self>, Fault> {
        let Some(block) = owner.body.get(TLS_FIELD).filter(|block| !block.is_null()) else { return Ok(None) };
        Self::deserialize(block).map(Some).map_err(|error| {
            Fault::internal(format!("The TLS settings stored for {} can't be read: {error}.", owner.id))
        })
    }

    /// The block to be stored under [`TLS_FIELD`].
    #[must_use]
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_it_writes_and_what_an_earlier_version_wrote() {
        let wish = TlsWish { renewal: 2, minimum: MinimumTls::V1_3, ..TlsWish::platform(vec!["a.b".to_owned()]) };
        assert_eq!(serde_json::from_value::<TlsWish>(wish.to_value()).unwrap(), wish);
        let early: TlsWish = serde_json::from_value(json!({"mode": "custom", "names": ["a.b"], "version": 3})).unwrap();
        assert_eq!((early.mode, early.version, early.minimum), (TlsMode::Custom, 3, MinimumTls::V1_2));
    }
}
