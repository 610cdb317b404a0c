//! One place on the network: a host and a port, read from the addresses that installers are given.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use url::{Host, Url};

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Site {
    pub host: SiteHost,
    pub port: u16,
}

/// The host of a site, as its address gives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SiteHost {
    /// In lower case, without a dot at its end.
    Name(String),
    Address(IpAddr),
}

impl Site {
    /// The site of an http or https address, also of one in the form `git+https://…`; none for other texts.
    pub(super) fn of_text(text: &str) -> Option<Self> {
        let plain = text.split_once("://").and_then(|(scheme, _)| scheme.rfind('+')).map_or(text, |at| &text[at + 1..]);
        Self::of(&Url::parse(plain).ok()?)
    }

    /// The site of an http or https address.
    pub(super) fn of(url: &Url) -> Option<Self> {
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        let host = match url.host()? {
            Host::Domain(name) => SiteHost::Name(name.trim_end_matches('.').to_ascii_lowercase()),
            Host::Ipv4(address) => SiteHost::Address(address.into()),
            Host::Ipv6(address) => SiteHost::Address(address.into()),
        };
        Some(Self { host, port: url.port_or_known_default()? })
    }

    /// Where on the host's own loopback interface the site lies, if that is what its address says.
    pub(super) fn on_loopback(&self) -> Option<SocketAddr> {
        let address = match &self.host {
            SiteHost::Address(address) => *address,
            SiteHost::Name(name) if name == "localhost" => IpAddr::from([127, 0, 0, 1]),
            SiteHost::Name(_) => return None,
        };
        address.is_loopback().then_some(SocketAddr::new(address, self.port))
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            SiteHost::Name(name) => write!(f, "{name}:{}", self.port),
            SiteHost::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sites_of_addresses() {
        let table = [
            ("https://index.example/simple", Some("index.example:443")),
            ("http://user:pass@Index.Example.:8080/simple", Some("index.example:8080")),
            ("git+https://git.example/p.git@v1", Some("git.example:443")),
            ("http://10.0.0.5/x", Some("10.0.0.5:80")),
            ("http://[::1]:3141/", Some("[::1]:3141")),
            ("http://0x7f.1:81/", Some("127.0.0.1:81")),
            ("ssh://git@git.example/p", None),
            ("git+ssh://git@git.example/p", None),
            ("file:///srv/wheels", None),
            ("index.example", None),
        ];
        for (text, expected) in table {
            assert_eq!(Site::of_text(text).map(|site| site.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_lies_on_the_loopback_interface() {
        let table = [
            ("http://localhost:3141/", Some("127.0.0.1:3141")),
            ("http://127.0.0.9/", Some("127.0.0.9:80")),
            ("http://[::1]:3141/", Some("[::1]:3141")),
            ("http://index.example/", None),
            ("http://10.0.0.5/", None),
        ];
        for (text, expected) in table {
            let found = Site::of_text(text).unwrap().on_loopback().map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}
