//! What a snapshot wants of this machine. Pure.

use std::net::IpAddr;

use casemate_model::{
    ResourceId,
    network::{NetworkKind, NetworkSnapshot, PrivateEndpoint, VirtualNetwork},
};
use ipnet::IpNet;

/// Where a network's addresses go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Device {
    /// Nothing is to be made.
    Loopback,
    /// An interface that is there.
    Existing(String),
    /// A bridge to be made.
    Bridge(String),
}

impl Device {
    /// The interface's name, where addresses are added.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Self::Loopback => None,
            Self::Existing(name) | Self::Bridge(name) => Some(name),
        }
    }
}

/// What one network wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) id: ResourceId,
    pub(crate) device: Device,
    pub(crate) prefixes: Vec<IpNet>,
    /// What the device must have; the platform's own address first, with the length of the prefix it lies in.
    pub(crate) addresses: Vec<IpNet>,
    /// Where its names are answered.
    pub(crate) dns: Option<IpAddr>,
    /// Approved private endpoints in it, ordered by id.
    pub(crate) endpoints: Vec<PrivateEndpoint>,
}

/// The plans of all networks, ordered by id.
pub(crate) fn plans(snapshot: &NetworkSnapshot) -> Vec<Plan> {
    snapshot.networks.iter().map(|network| plan(network, snapshot)).collect()
}

fn plan(network: &VirtualNetwork, snapshot: &NetworkSnapshot) -> Plan {
    let approved = |endpoint: &&PrivateEndpoint| {
        endpoint.approved && endpoint.network == network.id && network.contains(endpoint.address)
    };
    let endpoints: Vec<PrivateEndpoint> = snapshot.endpoints.iter().filter(approved).cloned().collect();
    let device = match &network.kind {
        NetworkKind::Loopback => Device::Loopback,
        NetworkKind::Interface { device } => Device::Existing(device.clone()),
        NetworkKind::Managed { bridge } => Device::Bridge(bridge.clone()),
    };
    let mut addresses = Vec::new();
    if let Device::Bridge(_) = &device {
        addresses.extend(network.prefixes.iter().filter_map(|prefix| own_address(network, *prefix)));
    }
    if device != Device::Loopback {
        let single = network.dns_address.into_iter().chain(endpoints.iter().map(|endpoint| endpoint.address));
        for address in single.map(IpNet::from) {
            if !addresses.iter().any(|known| known.addr() == address.addr()) {
                addresses.push(address);
            }
        }
    }
    Plan {
        id: network.id.clone(),
        device,
        prefixes: network.prefixes.clone(),
        addresses,
        dns: network.dns_address,
        endpoints,
    }
}

/// The platform's address in a prefix of a managed network: the gateway's, or the first of the first subnet there.
/// With it the machine knows that the prefix is on the bridge.
fn own_address(network: &VirtualNetwork, prefix: IpNet) -> Option<IpNet> {
    let gateway = network.gateway_address.filter(|gateway| prefix.contains(gateway));
    let first = || network.subnets.iter().find(|subnet| prefix.contains(&subnet.prefix));
    // Among the hosts of an IPv6 prefix is its own address, which is the routers' anycast address.
    let own = gateway.or_else(|| first()?.prefix.hosts().nth(usize::from(prefix.addr().is_ipv6())))?;
    IpNet::new(own, prefix.prefix_len()).ok()
}

#[cfg(test)]
mod tests {
    use casemate_model::network::Subnet;
    use uuid::Uuid;

    use super::*;

    fn id(kind: &str, name: &str) -> ResourceId {
        ResourceId::parse(&format!("/subscriptions/s/resourceGroups/g/providers/{kind}/{name}")).unwrap()
    }

    fn network(kind: NetworkKind, prefixes: &[&str], subnets: &[&str]) -> VirtualNetwork {
        VirtualNetwork {
            id: id("Microsoft.Network/virtualNetworks", "net"),
            guid: Uuid::nil(),
            name: "net".to_owned(),
            gateway_address: matches!(kind, NetworkKind::Managed { .. }).then(|| "10.8.1.1".parse().unwrap()),
            dns_address: Some("10.8.1.2".parse().unwrap()),
            kind,
            prefixes: prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect(),
            subnets: subnets
                .iter()
                .map(|prefix| Subnet { name: "s".to_owned(), prefix: prefix.parse().unwrap() })
                .collect(),
            forwarders: Vec::new(),
        }
    }

    fn endpoint(name: &str, address: &str, approved: bool) -> PrivateEndpoint {
        let target = id("Microsoft.MachineLearningServices/workspaces", "w");
        PrivateEndpoint {
            id: id("Microsoft.Network/privateEndpoints", name),
            network: id("Microsoft.Network/virtualNetworks", "net"),
            subnet: "s".to_owned(),
            address: address.parse().unwrap(),
            connection: target.child("privateEndpointConnections", "c").unwrap(),
            target,
            groups: vec!["amlworkspace".to_owned()],
            approved,
        }
    }

    #[test]
    fn only_approved_endpoints_inside_the_network_get_addresses() {
        let bridge = NetworkKind::Managed { bridge: "cm0".to_owned() };
        let device = NetworkKind::Interface { device: "eth0".to_owned() };
        let endpoints =
            [endpoint("a", "10.8.1.5", true), endpoint("b", "10.8.1.6", false), endpoint("c", "10.9.0.1", true)];
        for (kind, wanted) in [
            (NetworkKind::Loopback, &[][..]),
            (device, &["10.8.1.2/32", "10.8.1.5/32"]),
            (bridge, &["10.8.1.1/16", "fd00:8::1/48", "10.8.1.2/32", "10.8.1.5/32"]),
        ] {
            let snapshot = NetworkSnapshot {
                networks: vec![network(kind.clone(), &["10.8.0.0/16", "fd00:8::/48"], &["10.8.1.0/24", "fd00:8::/64"])],
                endpoints: endpoints.to_vec(),
                ..NetworkSnapshot::default()
            };
            let plan = plans(&snapshot).remove(0);
            let addresses: Vec<String> = plan.addresses.iter().map(ToString::to_string).collect();
            assert_eq!(addresses, wanted, "{kind:?}");
            let names: Vec<&str> = plan.endpoints.iter().map(|endpoint| endpoint.id.name()).collect();
            assert_eq!(names, ["a"], "{kind:?}");
        }
    }
}
