//! What kind of address one is, by the registries of special-purpose addresses (RFC 6890 and its successors) and by
//! what clouds put at well-known places.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of address it is. Only `Public` is reachable by name without a rule that says more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressClass {
    /// A host on the internet.
    Public,
    /// RFC 1918 or unique local.
    Private,
    /// 100.64.0.0/10, between a carrier and its customers.
    Shared,
    /// The machine itself.
    Loopback,
    /// Valid on one link only.
    LinkLocal,
    /// A cloud's instance metadata or platform service.
    Metadata,
    /// `0.0.0.0/8` and `::`; Linux takes them for the machine itself.
    Unspecified,
    /// A group of hosts.
    Multicast,
    /// 255.255.255.255.
    Broadcast,
    /// Kept for examples.
    Documentation,
    /// Kept for benchmarks; the addresses that sandboxes get for names lie here.
    Benchmark,
    /// Kept for protocols or for later.
    Reserved,
    /// IPv6 that a gateway would turn into an IPv4 address: NAT64, 6to4, Teredo, ISATAP, IPv4-compatible, IPv4-translated.
    Embedded,
}

impl AddressClass {
    /// What to call an address of this class, with its article.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::Public => "a public address",
            Self::Private => "a private address",
            Self::Shared => "an address of carrier-grade NAT (100.64.0.0/10)",
            Self::Loopback => "a loopback address, which is the machine itself",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud's instance metadata address",
            Self::Unspecified => "an unspecified address, which is the machine itself",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "the broadcast address",
            Self::Documentation => "an address kept for examples",
            Self::Benchmark => "an address kept for benchmarks",
            Self::Reserved => "a reserved address",
            Self::Embedded => "an IPv6 address that stands for an IPv4 address",
        }
    }
}

/// The class of an address; an IPv4-mapped one is classified as the IPv4 address that it is.
#[must_use]
pub fn classify(address: IpAddr) -> AddressClass {
    match unmapped(address) {
        IpAddr::V4(address) => classify_v4(address),
        IpAddr::V6(address) => classify_v6(address),
    }
}

/// The IPv4 address in an IPv4-mapped IPv6 address, any other address as it is.
#[must_use]
pub fn unmapped(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn classify_v4(address: Ipv4Addr) -> AddressClass {
    match address.octets() {
        [169, 254, 169, 254] | [168, 63, 129, 16] | [100, 100, 100, 200] => AddressClass::Metadata,
        [255, 255, 255, 255] => AddressClass::Broadcast,
        [0, ..] => AddressClass::Unspecified,
        [127, ..] => AddressClass::Loopback,
        [169, 254, ..] => AddressClass::LinkLocal,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => AddressClass::Private,
        [100, 64..=127, ..] => AddressClass::Shared,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => AddressClass::Documentation,
        [198, 18 | 19, ..] => AddressClass::Benchmark,
        // Protocol assignments, AS112, AMT, the old 6to4 relays.
        [192, 0, 0, _] | [192, 31, 196, _] | [192, 52, 193, _] | [192, 88, 99, _] | [192, 175, 48, _] => {
            AddressClass::Reserved
        }
        [224..=239, ..] => AddressClass::Multicast,
        [240..=255, ..] => AddressClass::Reserved,
        _ => AddressClass::Public,
    }
}

fn classify_v6(address: Ipv6Addr) -> AddressClass {
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => AddressClass::Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => AddressClass::Loopback,
        // The metadata services of three clouds.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
        | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
        | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42] => AddressClass::Metadata,
        // IPv4-compatible, IPv4-translated, NAT64 (both prefixes), Teredo, 6to4.
        [0, 0, 0, 0, 0, 0, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x64, 0xff9b, 0, 0, 0, 0, ..]
        | [0x64, 0xff9b, 1, ..]
        | [0x2001, 0, ..]
        | [0x2002, ..] => AddressClass::Embedded,
        [0xff00..=0xffff, ..] => AddressClass::Multicast,
        [0xfe80..=0xfebf, ..] => AddressClass::LinkLocal,
        [0xfc00..=0xfdff, ..] => AddressClass::Private,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => AddressClass::Documentation,
        [0x2001, 2, 0, ..] => AddressClass::Benchmark,
        // Protocol assignments, AS112.
        [0x2001, 0..=0x1ff, ..] | [0x2620, 0x4f, 0x8000, ..] => AddressClass::Reserved,
        // ISATAP: the last 32 bits are an IPv4 address.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => AddressClass::Embedded,
        [0x2000..=0x3fff, ..] => AddressClass::Public,
        // Nothing else has been given out.
        _ => AddressClass::Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_purpose_range_at_both_ends() {
        use AddressClass::{
            Benchmark, Broadcast, Documentation, Embedded, LinkLocal, Loopback, Metadata, Multicast, Private, Public,
            Reserved, Shared, Unspecified,
        };
        for (class, addresses) in [
            (Public, "1.0.0.0 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0"),
            (Public, "168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0"),
            (
                Public,
                "191.255.255.255 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0 203.0.114.0 223.255.255.255",
            ),
            (Public, "2606:4700::1111 2001:4860:4860::8888 2001:200:: 2003::1 2a00::1 3ffe::1 ::ffff:8.8.8.8"),
            (Private, "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255"),
            (Private, "fc00:: fdff:ffff:: fd00:ec2::253 ::ffff:10.0.0.1 fd00::5efe:1.2.3.4"),
            (Shared, "100.64.0.0 100.127.255.255 100.100.100.199 ::ffff:100.64.0.1"),
            (Loopback, "127.0.0.0 127.0.0.1 127.0.0.2 127.255.255.255 ::1 ::ffff:127.0.0.1"),
            (LinkLocal, "169.254.0.0 169.254.255.255 169.254.170.2 fe80:: febf:ffff:: ::ffff:169.254.1.1"),
            (Metadata, "169.254.169.254 168.63.129.16 100.100.100.200 fd00:ec2::254 fd20:ce::254 fd00:42::42"),
            (Metadata, "::ffff:169.254.169.254 ::ffff:a83f:8110"),
            (Unspecified, "0.0.0.0 0.0.0.1 0.255.255.255 :: ::ffff:0.0.0.0"),
            (Multicast, "224.0.0.0 239.255.255.255 ff00:: ff02::1 ffff::"),
            (Broadcast, "255.255.255.255 ::ffff:255.255.255.255"),
            (
                Documentation,
                "192.0.2.0 192.0.2.255 198.51.100.1 203.0.113.255 2001:db8:: 2001:db8:ffff:: 3fff:: 3fff:fff::",
            ),
            (Benchmark, "198.18.0.0 198.19.255.255 2001:2::1 ::ffff:198.18.0.1"),
            (Reserved, "192.0.0.0 192.0.0.8 192.0.0.192 192.88.99.1 192.31.196.1 192.52.193.1 192.175.48.1 240.0.0.0"),
            (
                Reserved,
                "255.255.255.254 100:: 100:0:0:1:: 2001:1::1 2001:3:: 2001:10:: 2001:20:: 2001:30:: 2001:4:112::",
            ),
            (Reserved, "2001:1ff:: 2620:4f:8000:: 5f00:: fec0::1 4000:: 1fff:: e000::"),
            (Embedded, "::2 ::127.0.0.1 ::8.8.8.8 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::8.8.8.8 64:ff9b:1::1"),
            (
                Embedded,
                "2001::1 2001:0:7f00:1:: 2002:7f00:1:: 2002:808:808::1 2a00::5efe:10.0.0.1 2a00::200:5efe:a00:1",
            ),
        ] {
            for address in addresses.split(' ') {
                assert_eq!(classify(address.parse().unwrap()), class, "{address}");
            }
        }
    }
}
