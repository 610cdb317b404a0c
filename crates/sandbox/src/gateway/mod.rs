//! How connections find the platform from inside a sandbox: every address there is is routed to the loopback interface,
//! and a packet rule hands each TCP connection that is not to the sandbox itself to the platform's one listener, which
//! learns the destination from the accepted socket. Name queries to any server reach the platform's sockets.
//!
//! Nothing here opens a way out: the namespace still holds only `lo`. Were a rule missing, a connection would end at
//! the sandbox itself. The payload can change none of it, as the namespace belongs to the user namespace outside.

mod netlink;
mod routes;
mod rules;

use nix::sys::socket::SockProtocol;

use crate::error::{During, Step, StepFailure};

/// Where the platform's listener is: in the sandbox's namespace no other process can have this port.
pub const PORT: u16 = 15_001;
/// Where the platform answers name queries, over UDP.
pub const DNS_PORT: u16 = 53;

/// Prepares the network namespace that the calling process is in. Its loopback interface must be up.
pub fn prepare() -> Result<(), StepFailure> {
    let index = nix::net::if_::if_nametoindex("lo").during(Step::Loopback, "lo")?;
    let routes = routes::requests(index, routes::has_version_6());
    routes.send(SockProtocol::NetlinkRoute).during(Step::Loopback, "routes")?;
    rules::requests().send(SockProtocol::NetlinkNetFilter).during(Step::Proxy, "netfilter")
}
