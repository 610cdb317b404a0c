//! The platform's sockets inside a sandbox: where all that a payload asks of the network arrives. They exist before the
//! payload does, and share their ports with nobody: the kernel refuses a second socket beside one that listens, and
//! the packet rules hand connections only to a socket that is marked as transparent, which takes rights over the
//! namespace. None has `SO_REUSEPORT`, and the UDP sockets no `SO_REUSEADDR`, by which they could be shared.
//!
//! To the kernel an accepted connection uses the port it was for. A payload's server at the same port is not disturbed
//! as long as it asks for `SO_REUSEADDR`, which servers do.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

use crate::gateway::{DNS_PORT, PORT};

/// Connections that wait to be accepted; the kernel drops the attempts beyond, and the payload's side tries again.
const BACKLOG: i32 = 256;

/// Bytes that may wait in a connection, each way, before its sender has to. The kernel would let a payload that sends
/// to a slow destination, or does not read, pile up tens of megabytes of the host's memory on each; what it moves
/// between buffers that fit the processor's cache arrives sooner besides.
const BUFFER: usize = 208 << 10;

/// The sockets at which a payload's connections and name queries arrive. All are non-blocking and close-on-exec.
#[derive(Debug)]
pub struct EgressSockets {
    /// Listens for every TCP connection to an address that is not the sandbox's own. Of an accepted socket, the local
    /// address is the one the payload asked for; IPv4 addresses come mapped (`::ffff:a.b.c.d`). Plain IPv4 on machines
    /// without IPv6.
    pub tcp: OwnedFd,
    /// UDP on port 53 of any address, one for each version of the internet protocol. Each message comes with the
    /// address that was asked (`IP_PKTINFO`, `IPV6_PKTINFO`), and the answer must be sent from it.
    pub dns: Vec<OwnedFd>,
}

impl EgressSockets {
    /// Opens them in the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        let mut dns = vec![dns_socket(AddressFamily::Inet)?];
        let tcp = match listener(AddressFamily::Inet6) {
            Err(Errno::EAFNOSUPPORT) => listener(AddressFamily::Inet)?,
            tcp => {
                dns.push(dns_socket(AddressFamily::Inet6)?);
                tcp?
            }
        };
        Ok(Self { tcp, dns })
    }
}

fn listener(family: AddressFamily) -> nix::Result<OwnedFd> {
    let socket = new(family, SockType::Stream)?;
    // For the accepted connections, which inherit it: a socket that listens shares its port with nobody all the same.
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    // For both versions: the kernel keeps one mark.
    setsockopt(&socket, sockopt::IpTransparent, &true)?;
    if family == AddressFamily::Inet6 {
        setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    }
    // Inherited as well.
    setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
    setsockopt(&socket, sockopt::SndBuf, &BUFFER)?;
    bind_to_any(&socket, family, PORT)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket)
}

fn dns_socket(family: AddressFamily) -> nix::Result<OwnedFd> {
    let socket = new(family, SockType::Datagram)?;
    if family == AddressFamily::Inet6 {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        // A route alone does not make an address a permitted source.
        setsockopt(&socket, sockopt::IpFreebind, &true)?;
    } else {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    bind_to_any(&socket, family, DNS_PORT)?;
    Ok(socket)
}

fn new(family: AddressFamily, kind: SockType) -> nix::Result<OwnedFd> {
    socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)
}

fn bind_to_any(socket: &OwnedFd, family: AddressFamily, port: u16) -> nix::Result<()> {
    let address: SocketAddr = match family {
        AddressFamily::Inet6 => (Ipv6Addr::UNSPECIFIED, port).into(),
        _ => (Ipv4Addr::UNSPECIFIED, port).into(),
    };
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))
}
