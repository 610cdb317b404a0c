//! Which certificate a TLS server shows for which name.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::{Ticketer, default_provider},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::Leaf;

/// The certificates by server name, immutable. Looking one up takes no lock and, for a lower-case name, no memory.
#[derive(Default)]
pub struct CertificateMap {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    nameless: Option<Arc<CertifiedKey>>,
}

impl CertificateMap {
    /// Builds a map from names (any case; `*.` stands for one label) and their leaves; a later entry for a name
    /// replaces an earlier one. `nameless` is shown to callers that send no server name, as callers of an IP
    /// literal do.
    pub fn new<'a>(named: impl IntoIterator<Item = (String, &'a Leaf)>, nameless: Option<&'a Leaf>) -> Self {
        let mut map = Self { nameless: nameless.map(|leaf| Arc::clone(leaf.certified())), ..Self::default() };
        for (name, leaf) in named {
            let mut name = name.to_ascii_lowercase();
            if name.ends_with('.') {
                name.pop();
            }
            let certified = Arc::clone(leaf.certified());
            match name.strip_prefix("*.") {
                Some(rest) => map.wildcard.insert(rest.to_owned(), certified),
                None => map.exact.insert(name, certified),
            };
        }
        map
    }

    /// The certificate for a server name, or for none.
    #[must_use]
    pub fn get(&self, server_name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let Some(name) = server_name else {
            return self.nameless.as_ref();
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.get_lower(&name.to_ascii_lowercase());
        }
        self.get_lower(name)
    }

    fn get_lower(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let wild =
            || name.split_once('.').and_then(|(first, rest)| self.wildcard.get(rest).filter(|_| !first.is_empty()));
        self.exact.get(name).or_else(wild)
    }
}

impl std::fmt::Debug for CertificateMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateMap")
            .field("names", &self.exact.len())
            .field("wildcards", &self.wildcard.len())
            .field("nameless", &self.nameless.is_some())
            .finish()
    }
}

/// Serves from the last published [`CertificateMap`].
#[derive(Debug, Default)]
pub struct CertificateResolver(ArcSwap<CertificateMap>);

impl CertificateResolver {
    /// A resolver that starts with `map`.
    #[must_use]
    pub fn new(map: CertificateMap) -> Self {
        Self(ArcSwap::from_pointee(map))
    }

    /// Replaces the map: handshakes that start after this see the new one, open connections notice nothing.
    pub fn publish(&self, map: CertificateMap) {
        self.0.store(Arc::new(map));
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().get(hello.server_name()).map(Arc::clone)
    }
}

/// A TLS server configuration: TLS 1.3 and 1.2, ALPN `h2` and `http/1.1`, certificates from `resolver`.
///
/// Sessions resume by tickets whose keys rotate and live in this process only. A ticket carries the server name it
/// was given for and is refused for any other; the name's certificate is looked up again on resumption, so a name
/// that was taken away stops at once. There is no early data, so no handshake can be replayed into a request.
///
/// # Panics
/// When the system's random source fails at start.
pub fn server_config(resolver: Arc<CertificateResolver>) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .expect("the default provider has suites for both versions")
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = Ticketer::new().expect("the system's random source works");
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Arc::new(config)
}
