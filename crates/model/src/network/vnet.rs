//! Virtual networks and their subnets.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde_json::Value;
use uuid::Uuid;

use super::zone::check_zone_name;
use crate::{fault::Fault, id::ResourceId};

/// Most prefixes of one network.
const MAX_PREFIXES: usize = 16;
/// Most subnets of one network.
const MAX_SUBNETS: usize = 256;
/// Most forwarders of one network, and addresses of one of them.
const MAX_FORWARDERS: usize = 32;
/// Addresses at the start of a subnet that are never given to a private endpoint: the network's own, the gateway's,
/// and two for DNS.
const RESERVED: u128 = 4;
/// The machine's own part of 127.0.0.0/8, which no network may cover.
const MACHINE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 24);

/// How a network exists on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkKind {
    /// A part of 127.0.0.0/8: needs no privilege, and only this machine stands in it.
    Loopback,
    /// A part of what an existing interface is connected to; private endpoints' addresses are added to it.
    Interface {
        /// The interface, such as `eth0`.
        device: String,
    },
    /// A bridge that the platform makes, to which machines, containers or namespaces attach.
    Managed {
        /// The bridge's name, at most 15 bytes.
        bridge: String,
    },
}

/// A part of a network from which private endpoints get their addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subnet {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub prefix: IpNet,
}

/// Where a network sends the names that the platform has no answer for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarder {
    /// Lower-case domain without a trailing dot; names in it go here. None: all other names.
    pub suffix: Option<String>,
    /// The servers, in the order in which they are asked.
    pub to: Vec<SocketAddr>,
}

/// A virtual network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualNetwork {
    /// Its id.
    pub id: ResourceId,
    /// Never changes, and is never given again.
    pub guid: Uuid,
    /// Its name.
    pub name: String,
    /// How it exists on this machine.
    pub kind: NetworkKind,
    /// Its addresses; they do not overlap.
    pub prefixes: Vec<IpNet>,
    /// Its subnets, inside the prefixes; they do not overlap.
    pub subnets: Vec<Subnet>,
    /// Where the platform's DNS answers for this network: the second address of the first subnet, or what
    /// `casemate.dnsAddress` says. None without a subnet, and on an interface without that property, since there the
    /// address may be someone's.
    pub dns_address: Option<IpAddr>,
    /// The platform's own address on the bridge of a managed network: the first of the first subnet. None otherwise.
    pub gateway_address: Option<IpAddr>,
    /// Forwarders of its DNS view.
    pub forwarders: Vec<Forwarder>,
}

impl VirtualNetwork {
    /// Reads the properties of a network and of its subnets (name and properties each).
    ///
    /// # Errors
    /// Naming the property at fault: prefixes that are none, overlap or do not suit the network's kind, subnets
    /// outside of them or overlapping, a malformed forwarder, more than 16 prefixes, 256 subnets or 32 forwarders.
    pub fn new<'a>(
        id: &ResourceId,
        properties: &Value,
        subnets: impl IntoIterator<Item = (&'a str, &'a Value)>,
    ) -> Result<Self, Fault> {
        let guid = properties["resourceGuid"].as_str().and_then(|guid| Uuid::parse_str(guid).ok());
        let guid = guid.ok_or_else(|| bad("resourceGuid", "The network has no resourceGuid.".to_owned()))?;
        let prefixes = prefixes(&properties["addressSpace"]["addressPrefixes"])?;
        let casemate = &properties["casemate"];
        let kind = NetworkKind::read(casemate, &prefixes, guid)?;
        for prefix in &prefixes {
            kind.check(*prefix)?;
        }
        let mut network = Self {
            id: id.clone(),
            guid,
            name: id.name().to_owned(),
            kind,
            prefixes,
            subnets: Vec::new(),
            dns_address: None,
            gateway_address: None,
            forwarders: forwarders(properties)?,
        };
        for (name, properties) in subnets {
            network.add_subnet(name, properties)?;
        }
        network.set_own_addresses(casemate)?;
        Ok(network)
    }

    /// Whether an address lies in the network.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.prefixes.iter().any(|prefix| prefix.contains(&address))
    }

    /// The subnet of this name, in any case.
    #[must_use]
    pub fn subnet(&self, name: &str) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.name.eq_ignore_ascii_case(name))
    }

    /// Addresses that private endpoints can't have because the platform answers there itself.
    #[must_use]
    pub fn own_addresses(&self) -> HashSet<IpAddr> {
        self.dns_address.into_iter().chain(self.gateway_address).collect()
    }

    fn add_subnet(&mut self, name: &str, properties: &Value) -> Result<(), Fault> {
        let given = properties["addressPrefix"].as_str();
        let given = given.or_else(|| properties["addressPrefixes"][0].as_str()).unwrap_or_default();
        let prefix = parse_prefix(given).map_err(|why| bad("addressPrefix", format!("The subnet '{name}': {why}")))?;
        let least = if prefix.addr().is_ipv4() { 29 } else { 125 };
        if prefix.prefix_len() > least {
            let message = format!("The subnet '{name}' ({prefix}) is too small: /{least} is the smallest that can be.");
            return Err(bad("addressPrefix", message));
        }
        if !self.prefixes.iter().any(|space| space.contains(&prefix)) {
            let message =
                format!("The subnet '{name}' ({prefix}) does not lie in the network's {}.", listed(&self.prefixes));
            return Err(Fault { code: "NetcfgSubnetRangeOutsideVnet".to_owned(), ..bad("addressPrefix", message) });
        }
        if let Some(other) = self.subnets.iter().find(|other| overlap(other.prefix, prefix)) {
            let message = format!("The subnet '{name}' ({prefix}) overlaps '{}' ({}).", other.name, other.prefix);
            return Err(Fault { code: "NetcfgSubnetRangesOverlap".to_owned(), ..bad("addressPrefix", message) });
        }
        if self.subnets.len() >= MAX_SUBNETS {
            return Err(bad("subnets", format!("A network can have at most {MAX_SUBNETS} subnets.")));
        }
        self.subnets.push(Subnet { name: name.to_owned(), prefix });
        Ok(())
    }

    fn set_own_addresses(&mut self, casemate: &Value) -> Result<(), Fault> {
        let first = self.subnets.first().map(|subnet| subnet.prefix);
        let is_interface = matches!(self.kind, NetworkKind::Interface { .. });
        if matches!(self.kind, NetworkKind::Managed { .. }) {
            self.gateway_address = first.map(|prefix| offset(prefix, 1));
        }
        self.dns_address = match casemate.get("dnsAddress").filter(|given| !given.is_null()) {
            None => first.filter(|_| !is_interface).map(|prefix| offset(prefix, 2)),
            Some(given) => {
                let address = given.as_str().and_then(|text| text.parse::<IpAddr>().ok());
                let inside = address.filter(|address| self.contains(*address));
                let message = format!("casemate.dnsAddress is {given}; give an address inside the network.");
                Some(inside.ok_or_else(|| bad("casemate.dnsAddress", message))?)
            }
        };
        Ok(())
    }
}

impl NetworkKind {
    fn read(casemate: &Value, prefixes: &[IpNet], guid: Uuid) -> Result<Self, Fault> {
        let loopback = prefixes.iter().all(|prefix| prefix.addr().is_loopback());
        let word = match casemate.get("kind").filter(|kind| !kind.is_null()) {
            None => if loopback { "loopback" } else { "managed" }.to_owned(),
            Some(kind) => kind.as_str().unwrap_or_default().to_ascii_lowercase(),
        };
        let device = casemate["interface"].as_str().filter(|device| !device.is_empty());
        match (word.as_str(), device) {
            ("loopback", None) => Ok(Self::Loopback),
            ("managed", None) => Ok(Self::Managed { bridge: format!("cm{}", &guid.simple().to_string()[..10]) }),
            ("interface", Some(device)) if is_device(device) => Ok(Self::Interface { device: device.to_owned() }),
            ("interface", Some(device)) => {
                Err(bad("casemate.interface", format!("'{device}' is not an interface's name, such as eth0.")))
            }
            ("interface", None) => Err(bad(
                "casemate.interface",
                "A network of the kind 'interface' needs the interface's name: --interface eth0.".to_owned(),
            )),
            ("loopback" | "managed", Some(_)) => {
                Err(bad("casemate.interface", format!("A network of the kind '{word}' has no interface of its own.")))
            }
            _ => Err(bad("casemate.kind", "The kind of a network is loopback, interface or managed.".to_owned())),
        }
    }

    /// The word in `casemate.kind`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Interface { .. } => "interface",
            Self::Managed { .. } => "managed",
        }
    }

    fn check(&self, prefix: IpNet) -> Result<(), Fault> {
        let fits = match self {
            Self::Loopback => match prefix {
                IpNet::V4(prefix) => prefix.addr().is_loopback() && !overlap(prefix.into(), MACHINE.into()),
                IpNet::V6(_) => false,
            },
            Self::Managed { .. } => is_private(prefix),
            Self::Interface { .. } => is_unicast(prefix),
        };
        if fits {
            return Ok(());
        }
        let wanted = match self {
            Self::Loopback => {
                "a prefix inside 127.0.0.0/8 that leaves out 127.0.0.0/24, the machine's own, such as 127.77.0.0/16"
            }
            Self::Managed { .. } => {
                "a private prefix (inside 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10 or fc00::/7)"
            }
            Self::Interface { .. } => "a prefix of addresses that machines can have",
        };
        let message =
            format!("The prefix {prefix} does not suit a network of the kind '{}': give {wanted}.", self.word());
        Err(bad("addressSpace", message))
    }
}

impl Subnet {
    /// Whether a private endpoint can have this address: inside, and neither one of the first four nor the last.
    #[must_use]
    pub fn is_usable(&self, address: IpAddr) -> bool {
        let (first, last) = self.usable();
        self.prefix.contains(&address) && (first..=last).contains(&number(address))
    }

    /// The first usable address that is not taken; none when all are. Looks at one more address than are taken.
    #[must_use]
    pub fn first_free(&self, taken: &HashSet<IpAddr>) -> Option<IpAddr> {
        let (first, last) = self.usable();
        (first..=last).map(|number| from_number(number, self.prefix)).find(|address| !taken.contains(address))
    }

    fn usable(&self) -> (u128, u128) {
        let (start, end) = (number(self.prefix.network()), number(self.prefix.broadcast()));
        (start.saturating_add(RESERVED), end.saturating_sub(1))
    }
}

/// Reads `10.0.0.0/24`; the bits after the prefix must be zero.
///
/// # Errors
/// A sentence saying what is wrong with it.
pub fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let shown: String = text.chars().take(60).collect();
    let prefix: IpNet =
        text.trim().parse().map_err(|_| format!("'{shown}' is not an address prefix such as 10.0.0.0/16."))?;
    if prefix.trunc() != prefix {
        return Err(format!("'{shown}' has bits after its prefix; it should be {}.", prefix.trunc()));
    }
    Ok(prefix)
}

fn prefixes(given: &Value) -> Result<Vec<IpNet>, Fault> {
    let given = given.as_array().map(Vec::as_slice).unwrap_or_default();
    if given.is_empty() || given.len() > MAX_PREFIXES {
        let message = format!("A network needs 1 to {MAX_PREFIXES} address prefixes, such as 10.0.0.0/16.");
        return Err(bad("addressSpace", message));
    }
    let mut prefixes: Vec<IpNet> = Vec::new();
    for text in given {
        let prefix = parse_prefix(text.as_str().unwrap_or_default()).map_err(|why| bad("addressSpace", why))?;
        if let Some(other) = prefixes.iter().find(|other| overlap(**other, prefix)) {
            return Err(bad("addressSpace", format!("The prefixes {other} and {prefix} of the network overlap.")));
        }
        prefixes.push(prefix);
    }
    Ok(prefixes)
}

/// `casemate.forwarders` and, for all other names, the servers of `dhcpOptions`.
fn forwarders(properties: &Value) -> Result<Vec<Forwarder>, Fault> {
    let mut found = Vec::new();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for given in list(&properties["casemate"]["forwarders"]) {
        let suffix = given["suffix"].as_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
        check_zone_name(&suffix).map_err(|fault| bad("casemate.forwarders", fault.message))?;
        found.push(Forwarder { suffix: Some(suffix), to: servers(&list(&given["to"]), "casemate.forwarders")? });
    }
    let others = list(&properties["dhcpOptions"]["dnsServers"]);
    if !others.is_empty() {
        found.push(Forwarder { suffix: None, to: servers(&others, "dhcpOptions.dnsServers")? });
    }
    if found.len() > MAX_FORWARDERS {
        return Err(bad("casemate.forwarders", format!("A network can have at most {MAX_FORWARDERS} forwarders.")));
    }
    Ok(found)
}

fn servers(given: &[Value], field: &str) -> Result<Vec<SocketAddr>, Fault> {
    let read = |value: &Value| {
        let text = value.as_str()?;
        text.parse::<SocketAddr>().ok().or_else(|| Some(SocketAddr::new(text.parse().ok()?, 53)))
    };
    if given.is_empty() || given.len() > MAX_FORWARDERS {
        return Err(bad(field, format!("Give 1 to {MAX_FORWARDERS} DNS servers, such as 10.0.0.53.")));
    }
    let found = given.iter().map(|value| {
        read(value).ok_or_else(|| bad(field, format!("{value} is not a DNS server's address, such as 10.0.0.53.")))
    });
    found.collect()
}

/// Whether two prefixes have an address in common.
#[must_use]
pub fn overlap(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

fn is_device(device: &str) -> bool {
    (1..=15).contains(&device.len())
        && !matches!(device, "." | "..")
        && device.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@".contains(c))
}

fn is_private(prefix: IpNet) -> bool {
    const V4: [Ipv4Net; 4] = [
        Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
        Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
        Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
        Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    ];
    const V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7);
    match prefix {
        IpNet::V4(prefix) => V4.iter().any(|space| space.contains(&prefix)),
        IpNet::V6(prefix) => V6.contains(&prefix),
    }
}

fn is_unicast(prefix: IpNet) -> bool {
    const NOT_V4: [Ipv4Net; 4] = [
        Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8),
        Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
        Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
        Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3),
    ];
    const NOT_V6: [Ipv6Net; 3] = [
        Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 8),
        Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10),
        Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8),
    ];
    match prefix {
        IpNet::V4(_) => NOT_V4.iter().all(|space| !overlap((*space).into(), prefix)),
        IpNet::V6(_) => NOT_V6.iter().all(|space| !overlap((*space).into(), prefix)),
    }
}

fn offset(prefix: IpNet, by: u128) -> IpAddr {
    from_number(number(prefix.network()).saturating_add(by), prefix)
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The address with this number, of the prefix's family.
fn from_number(number: u128, prefix: IpNet) -> IpAddr {
    match prefix {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

fn listed(prefixes: &[IpNet]) -> String {
    prefixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn bad(field: &str, message: String) -> Fault {
    Fault::invalid("InvalidRequestFormat", message).at(field)
}
