//! Why a network or private endpoint is not real, in words for its owner.

use std::{io, net::SocketAddr};

use casemate_model::{Fault, FaultKind};
use ipnet::IpNet;

fn unavailable(code: &str, message: String) -> Fault {
    Fault::new(FaultKind::Unavailable, code, message)
}

/// The kernel refused a change, or it failed.
pub(crate) fn kernel(what: &str, error: &io::Error) -> Fault {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return unavailable(
            "NetworkAdminRequired",
            format!(
                "The platform could not {what}: it may not change this machine's network ({error}), since CAP_NET_ADMIN \
                 is missing. Start it as root, or make the network a loopback one (a prefix inside 127.0.0.0/8)."
            ),
        );
    }
    unavailable(
        "NetworkUnavailable",
        format!("The platform could not {what}: {error}. It tries again every few seconds."),
    )
}

pub(crate) fn no_interface(device: &str) -> Fault {
    unavailable(
        "InterfaceNotFound",
        format!(
            "The interface '{device}' of the network does not exist on this machine or is down. `ip link` lists those \
             there are; name one of them in casemate.interface, or bring it up."
        ),
    )
}

pub(crate) fn overlaps(prefix: IpNet, other: IpNet, device: &str) -> Fault {
    unavailable(
        "AddressSpaceInUse",
        format!(
            "The network's prefix {prefix} overlaps {other}, which this machine reaches through the interface \
             '{device}'. Give the network another prefix, or make it a network of that interface (casemate.kind \
             interface)."
        ),
    )
}

pub(crate) fn name_taken(bridge: &str) -> Fault {
    unavailable(
        "InterfaceNameInUse",
        format!(
            "This machine has an interface '{bridge}' that the platform did not make. Remove it (`ip link delete \
             {bridge}`) if nobody needs it."
        ),
    )
}

pub(crate) fn address_taken(address: SocketAddr, error: &io::Error) -> Fault {
    unavailable(
        "AddressInUse",
        format!(
            "The private endpoint's address {address} can't be listened on ({error}). End the program that has the \
             port (`ss -ltnp` names it), or recreate the private endpoint to get another address."
        ),
    )
}

pub(crate) fn forwards(bridge: &str) -> Fault {
    unavailable(
        "ForwardingNotDisabled",
        format!(
            "The machine forwards packets of the bridge '{bridge}', and /proc/sys can't be written to stop it. Start \
             the platform where /proc/sys/net is writable, or set net.ipv4.conf.default.forwarding (and that of ipv6) \
             to 0 before the network is made."
        ),
    )
}

pub(crate) fn not_closed(bridge: &str, error: &io::Error) -> Fault {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return kernel(&format!("set packet rules for the bridge '{bridge}'"), error);
    }
    unavailable(
        "PacketRulesUnavailable",
        format!(
            "The platform could not keep members of the bridge '{bridge}' from this machine's other services: the \
             kernel's packet filter refused the rules ({error}). It needs nf_tables with the ingress hook \
             (CONFIG_NF_TABLES_NETDEV, CONFIG_NETFILTER_INGRESS; `modprobe nf_tables`)."
        ),
    )
}

/// A private endpoint in a network that is not real.
pub(crate) fn in_failed(network: &str, cause: &Fault) -> Fault {
    Fault { message: format!("The virtual network '{network}' is not there: {}", cause.message), ..cause.clone() }
}

pub(crate) fn no_network(network: &str) -> Fault {
    unavailable(
        "NetworkNotFound",
        format!("The private endpoint's virtual network '{network}' does not exist or can't be read."),
    )
}
