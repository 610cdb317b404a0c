//! The listeners at private endpoints' addresses.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::Arc,
};

use casemate_model::{Fault, inbound::PrivateListener, network::PrivateEndpoint};
use ipnet::IpNet;

use crate::fault;

/// Where clients look when an address names no port.
pub(crate) const HTTPS: u16 = 443;
/// Callers in a loopback network: all of this machine.
const MACHINE: &str = "127.0.0.0/8";

/// The open listeners, by address and port.
#[derive(Default)]
pub(crate) struct Listeners {
    open: BTreeMap<SocketAddr, Arc<PrivateListener>>,
}

/// One round of [`Listeners`]: what is not asked for in it is closed at its end.
pub(crate) struct Round<'l> {
    before: BTreeMap<SocketAddr, Arc<PrivateListener>>,
    open: &'l mut BTreeMap<SocketAddr, Arc<PrivateListener>>,
    front_door: SocketAddr,
}

impl Listeners {
    pub(crate) fn round(&mut self, front_door: SocketAddr) -> Round<'_> {
        Round { before: std::mem::take(&mut self.open), open: &mut self.open, front_door }
    }

    /// Closes those at these addresses; gives whether there were any.
    pub(crate) fn close(&mut self, addresses: &[IpAddr]) -> bool {
        let before = self.open.len();
        self.open.retain(|at, _| !addresses.contains(&at.ip()));
        self.open.len() < before
    }

    pub(crate) fn all(&self) -> Vec<Arc<PrivateListener>> {
        self.open.values().cloned().collect()
    }
}

impl Round<'_> {
    /// Opens the listeners of one private endpoint, or keeps them.
    pub(crate) fn open(&mut self, endpoint: &PrivateEndpoint, callers: &[IpNet]) -> Result<(), Fault> {
        let address = SocketAddr::new(endpoint.address, self.front_door.port());
        self.open_at(address, endpoint, callers).map_err(|error| fault::address_taken(address, &error))?;
        if address.port() != HTTPS {
            let https = SocketAddr::new(endpoint.address, HTTPS);
            if let Err(error) = self.open_at(https, endpoint, callers) {
                tracing::debug!(%error, address = %https, "the private endpoint has no listener at the common port");
            }
        }
        Ok(())
    }

    fn open_at(&mut self, address: SocketAddr, endpoint: &PrivateEndpoint, callers: &[IpNet]) -> io::Result<()> {
        if self.open.contains_key(&address) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another private endpoint has it"));
        }
        let known = self.before.remove(&address);
        if let Some(known) = known.as_ref().filter(|known| is_for(known, endpoint, callers)) {
            self.open.insert(address, Arc::clone(known));
            return Ok(());
        }
        let socket = match known {
            Some(known) => known.socket.clone(),
            None if covers(self.front_door, address) => None,
            None => Some(Arc::new(TcpListener::bind(address)?)),
        };
        let listener = PrivateListener {
            network: endpoint.network.clone(),
            endpoint: endpoint.id.clone(),
            target: endpoint.target.clone(),
            address,
            callers: callers.to_vec(),
            socket,
        };
        self.open.insert(address, Arc::new(listener));
        Ok(())
    }
}

/// Callers of a network: those in its prefixes; on this machine any of its loopback addresses.
pub(crate) fn callers(prefixes: &[IpNet], is_loopback: bool) -> Vec<IpNet> {
    if is_loopback { MACHINE.parse().into_iter().collect() } else { prefixes.to_vec() }
}

fn is_for(listener: &PrivateListener, endpoint: &PrivateEndpoint, callers: &[IpNet]) -> bool {
    listener.network == endpoint.network
        && listener.endpoint == endpoint.id
        && listener.target == endpoint.target
        && listener.callers == callers
}

/// Whether the front door's own listener takes connections to `address` already.
fn covers(front_door: SocketAddr, address: SocketAddr) -> bool {
    let family = match front_door.ip() {
        IpAddr::V4(_) => address.is_ipv4(),
        IpAddr::V6(_) => true,
    };
    front_door.ip().is_unspecified() && family && front_door.port() == address.port()
}

#[cfg(test)]
mod tests {
    use casemate_model::ResourceId;

    use super::*;

    fn endpoint(name: &str, address: &str, target: &str) -> PrivateEndpoint {
        let id = |kind: &str, name: &str| {
            ResourceId::parse(&format!("/subscriptions/s/resourceGroups/g/providers/{kind}/{name}")).unwrap()
        };
        let target = id("Microsoft.MachineLearningServices/workspaces", target);
        PrivateEndpoint {
            id: id("Microsoft.Network/privateEndpoints", name),
            network: id("Microsoft.Network/virtualNetworks", "net"),
            subnet: "s".to_owned(),
            address: address.parse().unwrap(),
            connection: target.child("privateEndpointConnections", "c").unwrap(),
            target,
            groups: Vec::new(),
            approved: true,
        }
    }

    #[test]
    fn listeners_come_stay_change_and_go() {
        let callers = callers(&[], true);
        let port = TcpListener::bind("127.0.9.1:0").unwrap().local_addr().unwrap().port();
        let front_door = SocketAddr::from(([127, 0, 0, 1], port));
        let at = |listeners: &Listeners, ip: &str| {
            let address = SocketAddr::new(ip.parse().unwrap(), port);
            listeners.all().into_iter().find(|listener| listener.address == address)
        };
        let (one, two) = (endpoint("one", "127.0.9.1", "a"), endpoint("two", "127.0.9.2", "a"));
        let mut listeners = Listeners::default();

        let mut round = listeners.round(front_door);
        round.open(&one, &callers).unwrap();
        round.open(&two, &callers).unwrap();
        // Of two with one address the first has it.
        assert_eq!(round.open(&endpoint("three", "127.0.9.2", "b"), &callers).unwrap_err().code, "AddressInUse");
        drop(round);
        let (first, second) = (at(&listeners, "127.0.9.1").unwrap(), at(&listeners, "127.0.9.2").unwrap());

        let mut round = listeners.round(front_door);
        round.open(&one, &callers).unwrap();
        round.open(&endpoint("two", "127.0.9.2", "b"), &callers).unwrap();
        drop(round);
        assert!(Arc::ptr_eq(&first, &at(&listeners, "127.0.9.1").unwrap()));
        let changed = at(&listeners, "127.0.9.2").unwrap();
        assert!(!Arc::ptr_eq(&second, &changed));
        assert!(Arc::ptr_eq(second.socket.as_ref().unwrap(), changed.socket.as_ref().unwrap()));
        assert_eq!(changed.target.name(), "b");

        drop(listeners.round(front_door));
        drop((first, second, changed));
        assert!(listeners.all().is_empty());
        assert!(std::net::TcpStream::connect(("127.0.9.1", port)).is_err());
    }

    #[test]
    fn a_port_that_somebody_has_is_told_and_a_wildcard_front_door_serves_it_itself() {
        let taken = TcpListener::bind("127.0.9.3:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let callers = callers(&[], true);
        let mut listeners = Listeners::default();
        let mut round = listeners.round(SocketAddr::from(([127, 0, 0, 1], port)));
        let fault = round.open(&endpoint("one", "127.0.9.3", "a"), &callers).unwrap_err();
        assert!(fault.message.contains(&format!("127.0.9.3:{port}")), "{fault}");
        drop(round);
        for (front_door, address, covered) in [
            ("0.0.0.0:1", "10.0.0.1:1", true),
            ("0.0.0.0:1", "10.0.0.1:2", false),
            ("0.0.0.0:1", "[fd00::1]:1", false),
            ("[::]:1", "10.0.0.1:1", true),
            ("[::]:1", "[fd00::1]:1", true),
            ("127.0.0.1:1", "127.0.0.2:1", false),
        ] {
            assert_eq!(
                covers(front_door.parse().unwrap(), address.parse().unwrap()),
                covered,
                "{front_door} {address}"
            );
        }
    }
}
