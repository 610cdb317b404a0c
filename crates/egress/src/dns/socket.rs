//! Packets in and out: an answer comes from the address that was asked, whichever it was.

use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, SocketAddr, UdpSocket as StdSocket},
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use nix::{
    errno::Errno,
    libc,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockaddrLike, SockaddrStorage, getsockname,
        recvmsg, sendmsg, setsockopt, sockopt,
    },
};
use tokio::{io::Interest, net::UdpSocket};
use tokio_util::sync::CancellationToken;

use super::{Answer, Responder};

/// The longest query that is read; a name has 255 bytes at most, and options are short.
const LONGEST: usize = 1500;
/// How long nothing is read after a query beyond the rate: what comes meanwhile is the kernel's to drop.
const PAUSE: Duration = Duration::from_millis(5);

/// Takes over a UDP socket that was made inside a sandbox, and makes it tell the destination of each packet.
///
/// # Errors
/// It is not a UDP socket of IPv4 or IPv6, or the runtime cannot watch it.
pub(crate) fn dns_socket(fd: OwnedFd) -> io::Result<UdpSocket> {
    let address = getsockname::<SockaddrStorage>(fd.as_raw_fd())?;
    match address.family() {
        Some(AddressFamily::Inet) => setsockopt(&fd, sockopt::Ipv4PacketInfo, &true)?,
        Some(AddressFamily::Inet6) => setsockopt(&fd, sockopt::Ipv6RecvPacketInfo, &true)?,
        _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a socket of IPv4 or IPv6")),
    }
    let socket = StdSocket::from(fd);
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// Answers what comes to `socket` until `stop`.
pub(crate) async fn serve_dns(socket: UdpSocket, responder: Arc<Responder>, stop: CancellationToken) {
    let mut buffer = [0; LONGEST];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = socket.async_io(Interest::READABLE, || receive(&socket, &mut buffer)) => received,
        };
        let Ok(packet) = received else {
            // Errors of a UDP socket are about packets sent earlier, and reading them clears them.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Some((length, client, asked_at)) = packet else { continue };
        let (answer, within) = match responder.answer(&buffer[..length]) {
            Answer::Packet(answer) => (Some(answer), true),
            Answer::Nothing => (None, true),
            Answer::Beyond(refusal) => (refusal, false),
        };
        if let Some(answer) = answer {
            // A client that does not read its answers loses them.
            let _ = socket.try_io(Interest::WRITABLE, || send(&socket, &answer, client, asked_at));
        }
        if !within {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Where an answer has to come from: the address that the query was sent to.
#[derive(Clone, Copy)]
struct AskedAt(Option<IpAddr>);

type Packet = Option<(usize, SocketAddr, AskedAt)>;

/// One packet, who sent it and to which address; nothing when it is longer than any query.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Packet> {
    let mut control = nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        return Ok(None);
    }
    let asked_at = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes())),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
        _ => None,
    });
    let client = message.address.as_ref().and_then(socket_address);
    Ok(client.map(|client| (message.bytes, client, AskedAt(asked_at))))
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|address| SocketAddr::from((address.ip(), address.port())));
    v4.or_else(|| {
        let address = address.as_sockaddr_in6()?;
        Some(std::net::SocketAddrV6::new(address.ip(), address.port(), 0, address.scope_id()).into())
    })
}

fn send(socket: &UdpSocket, answer: &[u8], to: SocketAddr, AskedAt(from): AskedAt) -> io::Result<()> {
    let (v4, v6);
    let control = match from {
        Some(IpAddr::V4(address)) => {
            let bytes = libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) };
            v4 = libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: bytes, ipi_addr: libc::in_addr { s_addr: 0 } };
            vec![ControlMessage::Ipv4PacketInfo(&v4)]
        }
        Some(IpAddr::V6(address)) => {
            v6 = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: address.octets() }, ipi6_ifindex: 0 };
            vec![ControlMessage::Ipv6PacketInfo(&v6)]
        }
        None => Vec::new(),
    };
    let (parts, to) = ([IoSlice::new(answer)], SockaddrStorage::from(to));
    let sent =
        sendmsg(socket.as_raw_fd(), &parts, &control, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL, Some(&to));
    sent.map(drop).map_err(|errno: Errno| errno.into())
}
