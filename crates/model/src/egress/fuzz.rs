//! What must hold for whatever a rule, a tag or a log line is written as. The targets in `fuzz/` run these on raw texts,
//! the tests below on likely ones; each panics when a promise is broken.

use std::net::{IpAddr, Ipv4Addr};

use super::{AddressClass, EgressPolicy, HostName, HostPattern, LogEntry, PortRanges, Prefix, ServiceTags, classify};

/// A host name has one spelling, only characters that names have, and is no address; what is refused is told in plain
/// text.
pub fn host_name(text: &str) {
    match HostName::parse(text) {
        Ok(name) => {
            let plain =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
            assert!(name.as_str().bytes().all(plain) && name.as_str().len() <= 253, "{text:?}");
            assert!(name.labels().all(|label| (1..=63).contains(&label.len())), "{text:?}");
            assert_eq!(HostName::parse(name.as_str()).as_ref(), Ok(&name));
            assert_eq!(HostName::parse(&text.to_ascii_uppercase()).as_ref(), Ok(&name));
            assert!(text.parse::<IpAddr>().is_err() && name.as_str().parse::<IpAddr>().is_err(), "{text:?}");
            assert_eq!(inet_aton(name.as_str()), None, "{text:?} is an address");
            assert!(!name.is_below(&name));
            // No policy without a rule for it lets it through.
            assert!(!EgressPolicy::default().resolvable(&name));
        }
        Err(error) => told(&error.to_string()),
    }
}

/// Patterns, ports and prefixes are shown as they are read; a wildcard means names below its base alone.
pub fn rule_parts(text: &str, name: &str) {
    match HostPattern::parse(text) {
        Ok(pattern) => {
            assert_eq!(HostPattern::parse(&pattern.to_string()).as_ref(), Ok(&pattern));
            if let (HostPattern::Below(base), Ok(name)) = (&pattern, HostName::parse(name)) {
                assert!(base.labels().count() >= 2 && !pattern.matches(base), "{text:?}");
                let dotted = format!(".{base}");
                assert_eq!(pattern.matches(&name), name.as_str().ends_with(&dotted), "{text:?} {name}");
            }
        }
        Err(error) => told(&error.to_string()),
    }
    match PortRanges::parse(text) {
        Ok(ports) => {
            assert_eq!(PortRanges::parse(&ports.to_string()).as_ref(), Ok(&ports));
            assert!(!ports.contains(0) && ports.union(&ports) == ports, "{text:?}");
        }
        Err(error) => told(&error.to_string()),
    }
    match Prefix::parse(text) {
        Ok(prefix) => {
            assert_eq!(Prefix::parse(&prefix.to_string()), Ok(prefix));
            let net = prefix.net();
            assert!(prefix.contains(net.addr()) && prefix.contains(net.broadcast()), "{text:?}");
            if prefix.is_private() {
                // The ends of private space are private, but for the metadata services that lie within.
                for end in [net.addr(), net.broadcast()] {
                    let class = classify(end);
                    assert!(matches!(class, AddressClass::Private | AddressClass::Shared | AddressClass::Metadata));
                }
            }
        }
        Err(error) => told(&error.to_string()),
    }
}

/// A file of tags opens nothing that no tag may, and a line of the log is one line.
pub fn tags_and_lines(text: &str) {
    match ServiceTags::parse(text) {
        Ok(tags) => {
            let never = ["127.0.0.1", "169.254.169.254", "::1", "0.0.0.0", "168.63.129.16", "fe80::1", "224.0.0.1"];
            for tag in tags.iter() {
                for address in never.iter().filter_map(|text| text.parse().ok()) {
                    assert!(!tag.prefixes.iter().any(|prefix| prefix.contains(address)), "{} {address}", tag.name);
                }
                assert!(tags.get(&tag.name.to_ascii_uppercase()).is_some());
            }
        }
        Err(error) => told(&error.to_string()),
    }
    if let Some(entry) = LogEntry::from_line(text) {
        let line = entry.line();
        assert!(line.bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{line:?}");
        assert_eq!(LogEntry::from_line(&line), Some(entry));
    }
}

/// A message is a line of plain text of bounded length, whatever was read.
fn told(message: &str) {
    assert!(message.chars().all(|c| !c.is_control()) && message.len() < 4000, "{message:?}");
}

/// What the C library takes for an IPv4 address: one to four numbers in decimal, octal or hexadecimal.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let number = |part: &str| match part.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None if part.starts_with('0') && part.len() > 1 => u64::from_str_radix(part, 8).ok(),
        None => part.parse().ok(),
    };
    let parts: Vec<u64> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    let room = 32 - 8 * u32::try_from(first.len()).ok().filter(|count| *count < 4)?;
    if first.iter().any(|part| *part > 255) || *last >= 1 << room {
        return None;
    }
    let high = first.iter().fold(0, |bits, part| bits << 8 | part);
    u32::try_from(high << room | last).ok().map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, test_runner::RngSeed};

    use super::*;

    fn likely() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => "[a-cA-C0-9x*_.-]{0,12}",
            2 => "(\\*\\.)?([a-b]{1,2}\\.){0,4}[a-b]{1,3}\\.?",
            2 => "(0x|0)?[0-9a-f]{1,3}(\\.(0x|0)?[0-9]{1,3}){0,4}(/[0-9]{1,2})?",
            1 => "[0-9]{1,5}([,-][0-9]{1,5}){0,3}",
            1 => "[0-9a-f:]{2,12}(/[0-9]{1,3})?",
            1 => "(10|172\\.16|192\\.168|100\\.64)(\\.0){1,3}/[0-9]{1,2}",
            1 => "\\PC{0,20}",
            1 => any::<String>(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1200, rng_seed: RngSeed::Fixed(2), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn likely_texts(text in likely(), name in likely()) {
            host_name(&text);
            rule_parts(&text, &name);
        }

        #[test]
        fn likely_tags(prefix in likely(), name in likely(), ports in likely()) {
            tags_and_lines(&serde_json::json!({"T": {"prefixes": [prefix]}, "U": {"names": [name], "ports": ports}}).to_string());
            let line = serde_json::json!({
                "time": "2026-01-02T03:04:05Z", "deployment": name, "instance": ports, "port": 1, "protocol": "tcp",
                "allowed": false, "reason": prefix,
            });
            prop_assert!(LogEntry::from_line(&line.to_string()).is_some());
            tags_and_lines(&line.to_string());
        }
    }

    #[test]
    fn the_oracle_knows_addresses() {
        for (text, address) in [
            ("127.1", Some([127, 0, 0, 1])),
            ("0x7f.0.1", Some([127, 0, 0, 1])),
            ("017700000001", Some([127, 0, 0, 1])),
            ("1.2.3.4", Some([1, 2, 3, 4])),
            ("4294967295", Some([255; 4])),
            ("4294967296", None),
            ("1.2.3.4.5", None),
            ("256.1", None),
            ("a.1", None),
        ] {
            assert_eq!(inet_aton(text), address.map(Ipv4Addr::from), "{text}");
        }
    }
}
