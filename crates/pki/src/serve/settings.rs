//! How a name is served, apart from its certificate.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::digest::{Context, SHA256};
use casemate_model::{route::KeyDigest, tls::MinimumTls};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{Ticketer, default_provider},
    },
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::PkiError;

/// Longest PEM text of client authorities, in bytes, and most certificates in it.
const MAX_CLIENT_CA: usize = 64 * 1024;
const MAX_CLIENT_AUTHORITIES: usize = 100;

/// How a name is served. The default is TLS 1.2 or 1.3 and no certificate asked of clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsSettings {
    minimum: MinimumTls,
    clients: Option<ClientAuthority>,
}

/// The one provider of all configurations: there may be as many of these as names.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(default_provider())))
}

/// Whom clients' certificates must come from.
#[derive(Debug, Clone)]
struct ClientAuthority {
    digest: KeyDigest,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl PartialEq for ClientAuthority {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Eq for ClientAuthority {}

impl TlsSettings {
    /// With an oldest version, and with the authorities (PEM) that clients' certificates must come from, if clients must
    /// show one.
    ///
    /// # Errors
    /// `Malformed` when the authorities are not 1 to 100 certificates of at most 64 KiB.
    pub fn new(minimum: MinimumTls, client_ca: Option<&str>) -> Result<Self, PkiError> {
        Ok(Self { minimum, clients: client_ca.map(ClientAuthority::read).transpose()? })
    }

    /// Whether clients must show a certificate.
    #[must_use]
    pub fn asks_for_client_certificates(&self) -> bool {
        self.clients.is_some()
    }

    /// A configuration with ticket keys of its own: no session that was begun with another certificate or under other
    /// settings can be resumed with it. Tickets also carry the server name they were given for and are refused for any
    /// other. There is no early data, so no handshake can be replayed into a request.
    ///
    /// # Panics
    /// When the system's random source fails.
    pub(super) fn config(&self, certified: Arc<CertifiedKey>) -> Arc<ServerConfig> {
        let versions: &[_] = match self.minimum {
            MinimumTls::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            MinimumTls::V1_3 => &[&rustls::version::TLS13],
        };
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("the default provider has suites for both versions");
        let builder = match &self.clients {
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(&clients.verifier)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = Ticketer::new().expect("the system's random source works");
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Arc::new(config)
    }
}

impl ClientAuthority {
    fn read(pem: &str) -> Result<Self, PkiError> {
        let bad = |why: String| PkiError::Malformed { what: "the client authorities", why };
        if pem.len() > MAX_CLIENT_CA {
            return Err(bad("they are longer than 64 KiB".to_owned()));
        }
        let (mut roots, mut digest) = (RootCertStore::empty(), Context::new(&SHA256));
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            digest.update(&certificate.len().to_be_bytes());
            digest.update(&certificate);
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        }
        if roots.is_empty() || roots.len() > MAX_CLIENT_AUTHORITIES {
            return Err(bad(format!("there must be 1 to {MAX_CLIENT_AUTHORITIES} certificates")));
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| bad(error.to_string()))?;
        let mut bytes = KeyDigest::default();
        bytes.copy_from_slice(digest.finish().as_ref());
        Ok(Self { digest: bytes, verifier })
    }
}
