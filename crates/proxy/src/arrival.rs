//! How a request arrives: over which listener, with which TLS settings, from where.

use std::{fmt, sync::Arc};

use casemate_model::inbound::Origin;
use casemate_pki::{CertificateResolver, TlsSettings};

/// The ports of the public listeners.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) tls: u16,
    pub(crate) plain: Option<u16>,
}

/// What all requests of one connection have in common.
pub(crate) struct Arrival {
    /// Where they come from.
    pub(crate) origin: Origin,
    /// How the name is served that the client asked for when it connected; none on the plain port.
    pub(crate) tls: Option<TlsSettings>,
    pub(crate) certificates: Arc<CertificateResolver>,
    pub(crate) ports: Ports,
}

impl Arrival {
    /// Whether they come over the plain port.
    pub(crate) fn is_plain(&self) -> bool {
        self.tls.is_none()
    }

    /// The scheme of the caller's URL.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.is_plain() { "http" } else { "https" }
    }

    /// Where `host` is served by TLS.
    pub(crate) fn https(&self, host: &str) -> Url {
        Url { scheme: "https", host: host.to_owned(), port: self.ports.tls, usual: 443 }
    }

    /// Where `host` is served without TLS; none when the platform has no plain port.
    pub(crate) fn http(&self, host: &str) -> Option<Url> {
        self.ports.plain.map(|port| Url { scheme: "http", host: host.to_owned(), port, usual: 80 })
    }
}

/// Scheme, host and port.
pub(crate) struct Url {
    scheme: &'static str,
    host: String,
    port: u16,
    usual: u16,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scheme, host, port, usual } = self;
        write!(f, "{scheme}://{host}")?;
        if port == usual { Ok(()) } else { write!(f, ":{port}") }
    }
}
