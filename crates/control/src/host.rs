//! The machine that the platform runs on.

use std::{collections::BTreeSet, net::IpAddr};

use nix::ifaddrs::getifaddrs;

/// All addresses of this machine's interfaces, sorted; empty when the system doesn't tell. Takes some ten microseconds.
#[must_use]
pub fn own_addresses() -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let version_4 = address.as_sockaddr_in().map(|address| IpAddr::from(address.ip()));
        version_4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::from(address.ip())))
    });
    addresses.collect::<BTreeSet<IpAddr>>().into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_address_is_one_of_them() {
        assert!(own_addresses().contains(&IpAddr::from([127, 0, 0, 1])));
    }
}
