//! Addresses and routes: every address is the sandbox's own, so that whatever a payload asks for arrives.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::netlink::{Attributes, Requests};

/// An address that is not the loopback's: without one, name lookups that look at the machine's addresses first
/// (`AI_ADDRCONFIG`) find no network at all and ask nobody. It is the dummy address of RFC 7600, which no host has.
pub const DUMMY: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);

/// Whether this namespace speaks IPv6: some machines have it switched off.
pub fn has_version_6() -> bool {
    let addresses = std::fs::read_to_string("/proc/self/net/if_inet6").unwrap_or_default();
    addresses.lines().any(|line| line.starts_with("00000000000000000000000000000001 "))
}

/// What makes `lo`, with this index, the destination of everything.
pub fn requests(index: u32, version_6: bool) -> Requests {
    let mut requests = Requests::default();
    // family, prefix length, flags, scope (everywhere), then the interface
    let fixed = [&[libc::AF_INET as u8, 32, 0, libc::RT_SCOPE_UNIVERSE][..], &index.to_ne_bytes()].concat();
    let address =
        Attributes::default().bytes(libc::IFA_LOCAL, &DUMMY.octets()).bytes(libc::IFA_ADDRESS, &DUMMY.octets());
    requests.make("address 192.0.0.8", libc::RTM_NEWADDR, &fixed, &address);
    route(&mut requests, "route 0.0.0.0/0", index, Ipv4Addr::LOCALHOST.into());
    if version_6 {
        route(&mut requests, "route ::/0", index, Ipv6Addr::LOCALHOST.into());
    }
    requests
}

/// A local route for all addresses of a version. Without `source` a connection's own end would take the destination's
/// address, and could meet itself.
fn route(requests: &mut Requests, name: &'static str, index: u32, source: IpAddr) {
    let (family, source) = match source {
        IpAddr::V4(address) => (libc::AF_INET, address.octets().to_vec()),
        IpAddr::V6(address) => (libc::AF_INET6, address.octets().to_vec()),
    };
    // family, destination's and source's prefix lengths, service type, table, origin, scope, type, flags
    let fixed = [
        &[family as u8, 0, 0, 0, libc::RT_TABLE_LOCAL, libc::RTPROT_STATIC, libc::RT_SCOPE_HOST, libc::RTN_LOCAL][..],
        &[0; 4],
    ]
    .concat();
    let attributes = Attributes::default().bytes(libc::RTA_OIF, &index.to_ne_bytes()).bytes(libc::RTA_PREFSRC, &source);
    requests.make(name, libc::RTM_NEWROUTE, &fixed, &attributes);
}
