//! Where a request came in, and whether that way is open: public network access, allow-lists of addresses, and the
//! private listeners that lead to one resource.
//!
//! This is arithmetic on addresses only. Who listens, and who closes what is refused, is the front door's affair.

mod deployments;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net};
use serde_json::Value;

pub use self::deployments::{DeploymentCaller, DeploymentCallers};
use crate::{Fault, ResourceId};

/// The code of every refusal that is about the way a request came in.
pub const ACCESS_DISABLED: &str = "PublicNetworkAccessDisabled";
/// The code of a refusal by an allow-list.
pub const NOT_ALLOWED: &str = "ForbiddenByFirewall";
/// Most entries of one allow-list.
pub const MAX_ENTRIES: usize = 200;

/// Where a request came from. The front door puts it into the extensions of every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Over a public listener.
    Public {
        /// The caller's address; mapped IPv4 addresses are unwrapped.
        caller: IpAddr,
    },
    /// Through a private endpoint.
    Private {
        /// The virtual network that the caller is in.
        network: ResourceId,
        /// The private endpoint.
        endpoint: ResourceId,
        /// What it leads to.
        target: ResourceId,
        /// The caller's address; mapped IPv4 addresses are unwrapped.
        caller: IpAddr,
    },
    /// From a deployment of this platform, by a connection that its outbound rules approve.
    Deployment {
        /// The deployment's workspace, which is open to it.
        workspace: ResourceId,
        /// Where it calls from if it could call over a public listener as well: other workspaces are open to it as
        /// they are to every caller from there. None: they are closed.
        public: Option<IpAddr>,
    },
}

/// Source addresses that may call. An empty list admits everybody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList(Vec<IpNet>);

impl AllowList {
    /// Reads prefixes (`203.0.113.0/24`, `2001:db8::/32`) and single addresses. Host bits are cleared; IPv4 addresses
    /// mapped into IPv6 become what they map.
    ///
    /// # Errors
    /// `BadArgument` naming the entry that is neither, or the limit of 200 entries.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, Fault> {
        let list = entries.into_iter().map(prefix).collect::<Result<Vec<_>, _>>()?;
        if list.len() > MAX_ENTRIES {
            let message = format!("The allow-list has {} entries; at most {MAX_ENTRIES} are kept.", list.len());
            return Err(Fault::invalid("BadArgument", message).at("ipAllowlist"));
        }
        Ok(Self(list))
    }

    /// Whether a caller with this address may call.
    #[must_use]
    pub fn admits(&self, caller: IpAddr) -> bool {
        self.0.is_empty() || contains(&self.0, caller)
    }

    /// Whether there is no entry, so that everybody is admitted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether one of the prefixes holds the address; a mapped IPv4 address counts as what it maps.
#[must_use]
pub fn contains(prefixes: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    prefixes.iter().any(|prefix| prefix.contains(&address))
}

fn prefix(entry: &str) -> Result<IpNet, Fault> {
    let trimmed = entry.trim();
    let parsed = trimmed.parse::<IpNet>().or_else(|_| trimmed.parse::<IpAddr>().map(IpNet::from));
    let net = parsed.map_err(|_| {
        let shown: String = trimmed.chars().filter(|c| !c.is_control()).take(60).collect();
        let message = format!(
            "'{shown}' is no address range. Give a prefix such as 203.0.113.0/24 or 2001:db8::/32, or one address."
        );
        Fault::invalid("BadArgument", message).at("ipAllowlist")
    })?;
    Ok(unmapped(net).trunc())
}

fn unmapped(net: IpNet) -> IpNet {
    let mapped = match net {
        IpNet::V6(net) if net.prefix_len() >= 96 => {
            net.addr().to_ipv4_mapped().map(|addr| (addr, net.prefix_len() - 96))
        }
        _ => None,
    };
    let mapped: Option<Ipv4Net> = mapped.and_then(|(addr, len): (Ipv4Addr, u8)| Ipv4Net::new(addr, len).ok());
    mapped.map_or(net, IpNet::V4)
}

/// What a workspace says about the ways that lead to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkspaceAccess {
    /// Whether public network access is disabled: calls must come through the workspace's private endpoint.
    pub public_disabled: bool,
    /// From where public calls may come.
    pub allowed: AllowList,
}

impl WorkspaceAccess {
    /// Reads a workspace's properties. An allow-list that cannot be read admits nobody: it was meant to keep callers
    /// out, and the API checks it when it is written.
    #[must_use]
    pub fn from_properties(properties: &Value) -> Self {
        let access = properties.get("publicNetworkAccess").and_then(Value::as_str).unwrap_or_default();
        let entries = properties.get("ipAllowlist").and_then(Value::as_array);
        let read = AllowList::parse(entries.into_iter().flatten().map(|entry| entry.as_str().unwrap_or_default()));
        let nobody = || AllowList(vec![IpNet::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED))]);
        Self { public_disabled: access.eq_ignore_ascii_case("disabled"), allowed: read.unwrap_or_else(|_| nobody()) }
    }
}

/// Why a request may not go where it wants to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// It came over a public listener and must not.
    Public,
    /// It came through the private endpoint of something else, or from a deployment of another workspace.
    Elsewhere,
    /// It came over a public listener from an address that is not on the allow-list.
    NotAllowed,
}

/// Whether a request from `origin` may reach something of `workspace`.
///
/// # Errors
/// Why not.
pub fn check(
    origin: &Origin,
    workspace: &ResourceId,
    public_disabled: bool,
    allowed: &AllowList,
) -> Result<(), Closed> {
    let caller = match origin {
        Origin::Private { target: own, .. } | Origin::Deployment { workspace: own, .. } if own == workspace => {
            return Ok(());
        }
        Origin::Private { .. } | Origin::Deployment { public: None, .. } => return Err(Closed::Elsewhere),
        Origin::Public { caller } | Origin::Deployment { public: Some(caller), .. } => *caller,
    };
    if public_disabled {
        Err(Closed::Public)
    } else if !allowed.admits(caller) {
        Err(Closed::NotAllowed)
    } else {
        Ok(())
    }
}

/// One address at which one private endpoint is served.
#[derive(Clone)]
pub struct PrivateListener {
    /// The virtual network.
    pub network: ResourceId,
    /// The private endpoint.
    pub endpoint: ResourceId,
    /// What it leads to.
    pub target: ResourceId,
    /// The private endpoint's address with the port.
    pub address: SocketAddr,
    /// Where callers may be: the network's prefixes.
    pub callers: Vec<IpNet>,
    /// The listening socket; none where the front door's own wildcard listener has the port, and takes these
    /// connections as well.
    pub socket: Option<Arc<TcpListener>>,
}

impl PrivateListener {
    /// Where a request of `caller` over this listener comes from.
    #[must_use]
    pub fn origin(&self, caller: IpAddr) -> Origin {
        Origin::Private {
            network: self.network.clone(),
            endpoint: self.endpoint.clone(),
            target: self.target.clone(),
            caller: caller.to_canonical(),
        }
    }

    /// Whether a caller with this address is in the network.
    #[must_use]
    pub fn admits(&self, caller: IpAddr) -> bool {
        contains(&self.callers, caller)
    }
}

impl fmt::Debug for PrivateListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateListener")
            .field("endpoint", &self.endpoint)
            .field("target", &self.target)
            .field("address", &self.address)
            .field("own_socket", &self.socket.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id(name: &str) -> ResourceId {
        let kind = "Microsoft.MachineLearningServices/workspaces";
        ResourceId::parse(&format!("/subscriptions/s/resourceGroups/g/providers/{kind}/{name}")).unwrap()
    }

    fn private(target: &str) -> Origin {
        let caller = IpAddr::from([10, 8, 0, 9]);
        Origin::Private { network: id("n"), endpoint: id("e"), target: id(target), caller }
    }

    fn deployment(workspace: &str, public: Option<&str>) -> Origin {
        Origin::Deployment { workspace: id(workspace), public: public.map(|caller| caller.parse().unwrap()) }
    }

    fn public(caller: &str) -> Origin {
        Origin::Public { caller: caller.parse().unwrap() }
    }

    #[test]
    fn lists_admit_what_they_name() {
        for (entries, caller, admitted) in [
            (&[][..], "203.0.113.9", true),
            (&["203.0.113.0/24"], "203.0.113.9", true),
            (&["203.0.113.77/24"], "203.0.113.9", true),
            (&["203.0.113.0/24"], "203.0.114.9", false),
            (&["203.0.113.0/24"], "::ffff:203.0.113.9", true),
            (&["::ffff:203.0.113.0/120"], "203.0.113.9", true),
            (&["::ffff:203.0.113.0/120"], "203.0.112.9", false),
            (&["2001:db8::/32"], "2001:db8:1::1", true),
            (&["2001:db8::/32"], "2001:db9::1", false),
            (&["::/0"], "203.0.113.9", false),
            (&["0.0.0.0/0"], "2001:db8::1", false),
            (&["198.51.100.7", " 2001:db8::1 "], "198.51.100.7", true),
            (&["198.51.100.7", " 2001:db8::1 "], "2001:db8::1", true),
            (&["198.51.100.7"], "198.51.100.8", false),
        ] {
            let list = AllowList::parse(entries.iter().copied()).unwrap();
            assert_eq!(list.admits(caller.parse().unwrap()), admitted, "{entries:?} {caller}");
        }
        for bad in ["", "10.0.0.0/33", "10.0.0", "example.org", "1", "10.0.0.0/8/8", "0x7f.1"] {
            let fault = AllowList::parse([bad]).unwrap_err();
            assert_eq!(fault.code, "BadArgument", "{bad}");
        }
        assert!(AllowList::parse(["10.0.0.1"; MAX_ENTRIES + 1]).is_err());
    }

    #[test]
    fn every_way_in_is_open_or_says_why_not() {
        let list = AllowList::parse(["203.0.113.0/24"]).unwrap();
        let all = AllowList::default();
        for (origin, disabled, list, expected) in [
            (public("203.0.113.9"), false, &all, Ok(())),
            (public("203.0.113.9"), false, &list, Ok(())),
            (public("::ffff:203.0.113.9"), false, &list, Ok(())),
            (public("198.51.100.1"), false, &list, Err(Closed::NotAllowed)),
            (public("203.0.113.9"), true, &list, Err(Closed::Public)),
            (private("a"), true, &list, Ok(())),
            (private("A"), true, &list, Ok(())),
            (private("b"), true, &list, Err(Closed::Elsewhere)),
            (private("b"), false, &all, Err(Closed::Elsewhere)),
            (deployment("a", None), true, &list, Ok(())),
            (deployment("A", Some("127.0.0.1")), true, &list, Ok(())),
            (deployment("b", None), false, &all, Err(Closed::Elsewhere)),
            (deployment("b", Some("127.0.0.1")), false, &all, Ok(())),
            (deployment("b", Some("127.0.0.1")), false, &list, Err(Closed::NotAllowed)),
            (deployment("b", Some("127.0.0.1")), true, &all, Err(Closed::Public)),
        ] {
            assert_eq!(check(&origin, &id("a"), disabled, list), expected, "{origin:?} {disabled}");
        }
    }

    #[test]
    fn a_workspace_that_cannot_be_read_is_closed() {
        for (properties, disabled, admits) in [
            (json!({}), false, true),
            (json!({"publicNetworkAccess": "Enabled", "ipAllowlist": []}), false, true),
            (json!({"publicNetworkAccess": "disabled"}), true, true),
            (json!({"ipAllowlist": ["203.0.113.0/24"]}), false, true),
            (json!({"ipAllowlist": ["198.51.100.0/24"]}), false, false),
            (json!({"ipAllowlist": ["nonsense"]}), false, false),
            (json!({"ipAllowlist": [7]}), false, false),
        ] {
            let access = WorkspaceAccess::from_properties(&properties);
            assert_eq!(access.public_disabled, disabled, "{properties}");
            assert_eq!(access.allowed.admits("203.0.113.9".parse().unwrap()), admits, "{properties}");
        }
    }
}
