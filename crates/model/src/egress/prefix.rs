//! Address prefixes as rules and tags write them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use super::{address::unmapped, name::shown};

/// A range of addresses: `10.0.0.0/24`, `fd00::/8`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix(IpNet);

/// Why a text is not a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Neither an address nor a prefix.
    #[error("'{0}' is not an address prefix. Write for example 10.1.2.0/24, fd00:1::/64, or a single address.")]
    Text(String),
    /// Bits beyond the prefix length are set.
    #[error("'{0}' has bits set after the prefix length. Write {1} if the whole range is meant.")]
    HostBits(String, IpNet),
    /// An IPv4 range written in IPv6.
    #[error("'{0}' is an IPv4 address written in IPv6. Write it as IPv4.")]
    Mapped(String),
}

impl Prefix {
    /// Reads a prefix or a single address.
    ///
    /// # Errors
    /// A [`PrefixError`] that says what to write instead.
    pub fn parse(text: &str) -> Result<Self, PrefixError> {
        let text = text.trim();
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        // The parser of `IpNet` would take octal digits for decimal ones.
        let net = address.parse::<IpAddr>().ok().and_then(|address| match length {
            None => Some(IpNet::from(address)),
            Some(length) => IpNet::new(address, plain(length)?).ok(),
        });
        let net = net.ok_or_else(|| PrefixError::Text(shown(text)))?;
        if unmapped(net.addr()) != net.addr() {
            return Err(PrefixError::Mapped(shown(text)));
        }
        if net != net.trunc() {
            return Err(PrefixError::HostBits(shown(text), net.trunc()));
        }
        Ok(Self(net))
    }

    /// Whether `address` lies inside; a mapped address counts as the IPv4 address it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&unmapped(address))
    }

    /// The range itself.
    #[must_use]
    pub fn net(&self) -> IpNet {
        self.0
    }

    /// Whether all of it is for private use: RFC 1918, unique local or shared address space.
    #[must_use]
    pub fn is_private(&self) -> bool {
        PRIVATE.iter().any(|range| range.contains(&self.0))
    }
}

/// A prefix length in plain digits; `u8::from_str` would take a sign too.
fn plain(length: &str) -> Option<u8> {
    length.bytes().all(|byte| byte.is_ascii_digit()).then(|| length.parse().ok())?
}

/// RFC 1918, shared and unique local space.
const PRIVATE: [IpNet; 5] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7)),
];

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self(IpNet::from(unmapped(address)))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl std::str::FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Prefix {
    type Error = PrefixError;

    fn try_from(text: String) -> Result<Self, PrefixError> {
        Self::parse(&text)
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_what_lies_inside() {
        for (text, inside, outside) in [
            ("10.0.0.0/24", "10.0.0.255", "10.0.1.0"),
            ("10.0.0.0/24", "::ffff:10.0.0.1", "::ffff:10.0.1.1"),
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            (" fd00::/8 ", "fdff::1", "fc00::1"),
            ("0.0.0.0/0", "8.8.8.8", "2001:4860::8888"),
            ("::/0", "2001:4860::8888", "::ffff:8.8.8.8"),
        ] {
            let prefix = Prefix::parse(text).unwrap();
            assert!(prefix.contains(inside.parse().unwrap()), "{text} {inside}");
            assert!(!prefix.contains(outside.parse().unwrap()), "{text} {outside}");
        }
        for (text, part) in [
            ("", "not an address prefix"),
            ("10.0.0.0/33", "not an address prefix"),
            ("10.0.0/24", "not an address prefix"),
            ("010.0.0.0/8", "not an address prefix"),
            ("10.0.0.0/-1", "not an address prefix"),
            ("10.0.0.0/+8", "not an address prefix"),
            ("10.0.0.0/", "not an address prefix"),
            ("10.0.0.1/24", "10.0.0.0/24"),
            ("::ffff:10.0.0.0/104", "as IPv4"),
        ] {
            let message = Prefix::parse(text).unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn wholly_private_or_not() {
        for (text, private) in [
            ("10.0.0.0/8", true),
            ("10.0.0.0/7", false),
            ("172.16.0.0/12", true),
            ("172.0.0.0/8", false),
            ("192.168.3.4", true),
            ("100.64.0.0/10", true),
            ("100.0.0.0/8", false),
            ("fd00::/8", true),
            ("8.8.8.0/24", false),
            ("0.0.0.0/0", false),
            ("::/0", false),
        ] {
            assert_eq!(Prefix::parse(text).unwrap().is_private(), private, "{text}");
        }
    }
}
