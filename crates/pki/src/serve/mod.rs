//! Which certificate a TLS server shows for which name, and how the name is served.

mod settings;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use arc_swap::ArcSwap;
use casemate_model::challenge::{AlpnCertificate, ChallengeBoard};
use rustls::{
    AlertDescription, ServerConfig,
    server::{ClientHello, NoServerSessionStorage},
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::Leaf;

pub use settings::TlsSettings;

/// The protocol by which a certificate authority asks for the answer to a challenge (RFC 8737).
const ACME_TLS: &[u8] = b"acme-tls/1";

/// A certificate, the names it is served for, and how.
#[derive(Debug, Clone)]
pub struct Served<'a> {
    /// Names in any case; `*.` stands for one label.
    pub names: Vec<String>,
    /// What is shown.
    pub leaf: &'a Leaf,
    /// How.
    pub settings: TlsSettings,
}

impl<'a> From<(String, &'a Leaf)> for Served<'a> {
    fn from((name, leaf): (String, &'a Leaf)) -> Self {
        Self { names: vec![name], leaf, settings: TlsSettings::default() }
    }
}

/// The certificates by server name, immutable. Looking one up takes no lock and, for a lower-case name, no memory. Each
/// has a TLS configuration of its own.
#[derive(Default)]
pub struct CertificateMap {
    exact: HashMap<String, Arc<Entry>>,
    /// By what follows `*.`.
    wildcard: HashMap<String, Arc<Entry>>,
    nameless: Option<Arc<Entry>>,
    /// Whether any name is served with other settings than the default ones.
    has_settings: bool,
}

struct Entry {
    certified: Arc<CertifiedKey>,
    settings: TlsSettings,
    /// Made at the first handshake.
    config: OnceLock<Arc<ServerConfig>>,
}

impl Entry {
    fn config(&self) -> &Arc<ServerConfig> {
        self.config.get_or_init(|| self.settings.config(Arc::clone(&self.certified)))
    }

    /// Takes the place of `self`: goes on with what `before` has if that is the same certificate, served the same way.
    fn follow(self: &mut Arc<Self>, before: Option<&Arc<Self>>) {
        let same =
            |before: &&Arc<Self>| before.certified.cert == self.certified.cert && before.settings == self.settings;
        if let Some(before) = before.filter(same) {
            *self = Arc::clone(before);
        }
    }
}

impl CertificateMap {
    /// Builds a map; a later entry for a name replaces an earlier one. `nameless` is shown to callers that send no
    /// server name, as callers of an IP literal do, with the default settings.
    pub fn new<'a, S: Into<Served<'a>>>(served: impl IntoIterator<Item = S>, nameless: Option<&'a Leaf>) -> Self {
        let entry = |leaf: &Leaf, settings| {
            Arc::new(Entry { certified: Arc::clone(leaf.certified()), settings, config: OnceLock::new() })
        };
        let mut map = Self { nameless: nameless.map(|leaf| entry(leaf, TlsSettings::default())), ..Self::default() };
        for served in served {
            let Served { names, leaf, settings } = served.into();
            map.has_settings |= settings != TlsSettings::default();
            let entry = entry(leaf, settings);
            for name in names {
                let mut name = name.to_ascii_lowercase();
                if name.ends_with('.') {
                    name.pop();
                }
                match name.strip_prefix("*.") {
                    Some(rest) => map.wildcard.insert(rest.to_owned(), Arc::clone(&entry)),
                    None => map.exact.insert(name, Arc::clone(&entry)),
                };
            }
        }
        map
    }

    /// The certificate for a server name, or for none.
    #[must_use]
    pub fn get(&self, server_name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        self.entry(server_name).map(|entry| &entry.certified)
    }

    fn entry(&self, server_name: Option<&str>) -> Option<&Arc<Entry>> {
        let Some(name) = server_name else {
            return self.nameless.as_ref();
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.get_lower(&name.to_ascii_lowercase());
        }
        self.get_lower(name)
    }

    fn get_lower(&self, name: &str) -> Option<&Arc<Entry>> {
        let wild =
            || name.split_once('.').and_then(|(first, rest)| self.wildcard.get(rest).filter(|_| !first.is_empty()));
        self.exact.get(name).or_else(wild)
    }

    /// Takes over what goes on unchanged from the map before, with its sessions.
    fn follow(&mut self, before: &Self) {
        self.exact.iter_mut().for_each(|(name, entry)| entry.follow(before.exact.get(name)));
        self.wildcard.iter_mut().for_each(|(name, entry)| entry.follow(before.wildcard.get(name)));
        if let Some(entry) = &mut self.nameless {
            entry.follow(before.nameless.as_ref());
        }
    }
}

impl fmt::Debug for CertificateMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateMap")
            .field("names", &self.exact.len())
            .field("wildcards", &self.wildcard.len())
            .field("nameless", &self.nameless.is_some())
            .finish()
    }
}

/// What a TLS server does about a client's hello.
#[derive(Debug, Clone)]
pub enum Selection {
    /// Goes on with this configuration.
    Serve {
        /// The name's certificate and settings, ALPN `h2` and `http/1.1`.
        config: Arc<ServerConfig>,
        /// The settings in it.
        settings: TlsSettings,
    },
    /// Goes on with this configuration, then closes the connection: the caller is a certificate authority that wanted to
    /// see the answer to its challenge.
    Challenge(Arc<ServerConfig>),
    /// Ends the handshake with this alert.
    Refuse(AlertDescription),
}

/// Serves from the last published [`CertificateMap`], and from the board of challenges.
#[derive(Debug, Default)]
pub struct CertificateResolver {
    published: ArcSwap<CertificateMap>,
    challenges: ChallengeBoard,
    /// Held while a map is published: each takes over from the one before.
    publishing: Mutex<()>,
}

impl CertificateResolver {
    /// A resolver that starts with `map`.
    #[must_use]
    pub fn new(map: CertificateMap) -> Self {
        let resolver = Self::default();
        resolver.publish(map);
        resolver
    }

    /// A resolver that starts with no certificate, and shows the answers on `challenges` to those who ask by the protocol
    /// `acme-tls/1`.
    #[must_use]
    pub fn with_challenges(challenges: ChallengeBoard) -> Self {
        Self { challenges, ..Self::default() }
    }

    /// Replaces the map: handshakes that start after this see the new one, open connections notice nothing. Sessions
    /// can be resumed as long as their name is served with the same certificate and the same settings: a new certificate
    /// is seen by everybody, and who got in under other settings does not get in again by that.
    pub fn publish(&self, mut map: CertificateMap) {
        let _one_at_a_time = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        map.follow(&self.published.load());
        self.published.store(Arc::new(map));
    }

    /// What to do about a client's hello. A name that is not served gets `unrecognized_name`; there is no default
    /// certificate. Who asks for the answer to a challenge never gets another certificate, and nobody else gets that one.
    #[must_use]
    pub fn select(&self, hello: &ClientHello<'_>) -> Selection {
        if let Some(mut protocols) = hello.alpn()
            && protocols.any(|protocol| protocol == ACME_TLS)
        {
            return self.select_challenge(hello);
        }
        match self.published.load().entry(hello.server_name()) {
            Some(entry) => Selection::Serve { config: Arc::clone(entry.config()), settings: entry.settings.clone() },
            None => Selection::Refuse(AlertDescription::UnrecognisedName),
        }
    }

    fn select_challenge(&self, hello: &ClientHello<'_>) -> Selection {
        if hello.alpn().is_none_or(|protocols| protocols.count() != 1) {
            return Selection::Refuse(AlertDescription::NoApplicationProtocol);
        }
        let Some(answer) = hello.server_name().and_then(|name| self.challenges.alpn(name)) else {
            return Selection::Refuse(AlertDescription::UnrecognisedName);
        };
        match challenge_config(answer) {
            Ok(config) => Selection::Challenge(config),
            Err(_) => Selection::Refuse(AlertDescription::InternalError),
        }
    }

    /// Whether any name is served with other settings than the default ones.
    #[must_use]
    pub fn has_settings(&self) -> bool {
        self.published.load().has_settings
    }

    /// Whether what is served at `name` may be given to a connection that was made with `settings`: not if it is served
    /// with settings of its own and these are others; and if its owner wants such (`guarded`), not before they are served.
    #[must_use]
    pub fn admits(&self, name: &str, settings: &TlsSettings, guarded: bool) -> bool {
        let published = self.published.load();
        match published.entry(Some(name)).map(|entry| &entry.settings) {
            Some(own) if *own != TlsSettings::default() => own == settings,
            _ => !guarded,
        }
    }

    /// Where the answers to challenges are posted that this shows.
    #[must_use]
    pub fn challenges(&self) -> &ChallengeBoard {
        &self.challenges
    }
}

fn challenge_config(answer: AlpnCertificate) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = settings::provider();
    let key =
        provider.key_provider.load_private_key(PrivatePkcs8KeyDer::from(answer.key.expose()).clone_key().into())?;
    // Not compared with the certificate, whose critical extension no ordinary reader knows.
    let certified = CertifiedKey::new(vec![CertificateDer::from(answer.certificate)], key);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ACME_TLS.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The record of a fatal alert, for a handshake that ends before it has keys.
#[must_use]
pub fn fatal_alert(description: AlertDescription) -> [u8; 7] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    [ALERT, 3, 3, 0, 2, FATAL, u8::from(description)]
}
