//! From what deployments reached to the rules that would have let it through, and no more.

use std::collections::{BTreeMap, BTreeSet};

use super::{EgressPolicy, HostName, HostPattern, LogEntry, PortRanges, Prefix, Target};

/// From so many hosts side by side on, a wildcard stands for them.
const SIBLINGS: usize = 5;
/// Most hosts that a proposal tells of.
const EXAMPLES: usize = 10;
/// The longest name of a rule.
const MAX_NAME: usize = 60;
/// Second labels below which anybody can have a name, under a country's own label.
const REGISTRIES: [&str; 12] = ["ac", "co", "com", "edu", "go", "gob", "gov", "ne", "net", "nom", "or", "org"];

/// One proposed rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    /// A name that no other rule has.
    pub name: String,
    /// [`Target::Host`] or [`Target::Addresses`].
    pub target: Target,
    /// The ports that were used.
    pub ports: PortRanges,
    /// How many connections it would have let through.
    pub connections: u64,
    /// Some of the hosts, when a wildcard stands for several.
    pub hosts: Vec<HostName>,
}

#[derive(Default)]
struct Seen {
    ports: BTreeSet<u16>,
    connections: u64,
}

/// The smallest set of rules for the connections that were let through without one (in learn mode, or while everything
/// public was open), leaving out those that `policy`, with the rules as they are, lets through anyhow. Each host and
/// address gets the very ports that it was used on; `taken` are names that other rules have.
#[must_use]
pub fn suggest(entries: &[LogEntry], policy: &EgressPolicy, taken: &[&str]) -> Vec<Suggestion> {
    let (mut hosts, mut addresses) = (BTreeMap::<HostName, Seen>::new(), BTreeMap::<Prefix, Seen>::new());
    let unruled = |entry: &&LogEntry| entry.allowed && entry.rule.is_none() && entry.port > 0;
    for entry in entries.iter().filter(unruled) {
        let seen = match (entry.host(), entry.address) {
            (Some(host), _) if policy.name(&host, entry.port).is_allowed() => continue,
            (Some(host), _) => hosts.entry(host).or_default(),
            // A name that is none, such as one with odd bytes, can't be approved.
            (None, _) if entry.name.is_some() => continue,
            (None, Some(address)) if policy.address(address, entry.port).is_allowed() => continue,
            (None, Some(address)) => addresses.entry(Prefix::from(address)).or_default(),
            (None, None) => continue,
        };
        seen.ports.insert(entry.port);
        seen.connections += 1;
    }
    let mut names: BTreeSet<String> = taken.iter().map(|name| name.to_ascii_lowercase()).collect();
    let mut proposed = for_hosts(hosts, &mut names);
    proposed.extend(for_addresses(addresses, &mut names));
    proposed
}

fn for_hosts(mut hosts: BTreeMap<HostName, Seen>, names: &mut BTreeSet<String>) -> Vec<Suggestion> {
    let mut siblings: BTreeMap<(HostName, BTreeSet<u16>), Vec<HostName>> = BTreeMap::new();
    for (host, seen) in &hosts {
        if let Some(base) = base_of(host) {
            siblings.entry((base, seen.ports.clone())).or_default().push(host.clone());
        }
    }
    siblings.retain(|_, hosts| hosts.len() >= SIBLINGS);
    let mut proposed = Vec::new();
    for ((base, ports), together) in siblings {
        let connections = together.iter().filter_map(|host| hosts.remove(host)).map(|seen| seen.connections).sum();
        proposed.push(Suggestion {
            name: fresh(&format!("any-{base}"), names),
            target: Target::Host(HostPattern::Below(base)),
            ports: ranges(&ports),
            connections,
            hosts: together.into_iter().take(EXAMPLES).collect(),
        });
    }
    for (host, seen) in hosts {
        proposed.push(Suggestion {
            name: fresh(host.as_str(), names),
            target: Target::Host(HostPattern::Exact(host)),
            ports: ranges(&seen.ports),
            connections: seen.connections,
            hosts: Vec::new(),
        });
    }
    proposed
}

/// Addresses that were used on the same ports share a rule.
fn for_addresses(addresses: BTreeMap<Prefix, Seen>, names: &mut BTreeSet<String>) -> Vec<Suggestion> {
    let mut by_ports: BTreeMap<BTreeSet<u16>, (Vec<Prefix>, u64)> = BTreeMap::new();
    for (address, seen) in addresses {
        let (together, connections) = by_ports.entry(seen.ports).or_default();
        together.push(address);
        *connections += seen.connections;
    }
    let proposal = |(ports, (addresses, connections)): (BTreeSet<u16>, (Vec<Prefix>, u64))| {
        let ports = ranges(&ports);
        Suggestion {
            name: fresh(&format!("addresses-{ports}"), names),
            target: Target::Addresses(addresses),
            ports,
            connections,
            hosts: Vec::new(),
        }
    };
    by_ports.into_iter().map(proposal).collect()
}

/// What a host's siblings share, unless anybody could get a name there.
fn base_of(host: &HostName) -> Option<HostName> {
    let (_, base) = host.as_str().split_once('.')?;
    let labels: Vec<&str> = base.split('.').collect();
    let registry = matches!(labels[..], [second, country] if country.len() == 2 && REGISTRIES.contains(&second));
    (labels.len() >= 2 && !registry).then(|| HostName::parse(base).ok())?
}

fn ranges(ports: &BTreeSet<u16>) -> PortRanges {
    let mut all = ports.iter().map(|port| PortRanges::one(*port));
    let first = all.next().unwrap_or_default();
    all.fold(first, |ranges, one| ranges.union(&one))
}

/// A rule's name made of a text, and a number when another rule has it.
fn fresh(text: &str, names: &mut BTreeSet<String>) -> String {
    let plain: String = text
        .trim_start_matches('_')
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .take(MAX_NAME)
        .collect();
    let plain = plain.trim_matches('-');
    let mut name = plain.to_owned();
    let mut number = 2;
    while !names.insert(name.clone()) {
        name = format!("{plain}-{number}");
        number += 1;
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::Rule;

    fn entry(name: Option<&str>, address: Option<&str>, port: u16) -> LogEntry {
        LogEntry {
            time: jiff::Timestamp::UNIX_EPOCH,
            deployment: "e/blue".to_owned(),
            instance: "0".to_owned(),
            name: name.map(str::to_owned),
            address: address.map(|text| text.parse().unwrap()),
            port,
            protocol: "tcp".to_owned(),
            allowed: true,
            rule: None,
            reason: String::new(),
            bytes_sent: 0,
            bytes_received: 0,
            would_deny: true,
        }
    }

    fn shown(suggestions: &[Suggestion]) -> Vec<String> {
        let target = |target: &Target| match target {
            Target::Host(pattern) => pattern.to_string(),
            Target::Addresses(prefixes) => prefixes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
            Target::Private { .. } => "private".to_owned(),
        };
        let show =
            |one: &Suggestion| format!("{} {} {} x{}", one.name, target(&one.target), one.ports, one.connections);
        suggestions.iter().map(show).collect()
    }

    #[test]
    fn each_host_on_its_own_ports_and_wildcards_for_many() {
        let mut entries = vec![
            entry(Some("packages.example.org"), Some("151.101.0.223"), 443),
            entry(Some("packages.example.org"), None, 443),
            entry(Some("packages.example.org"), None, 80),
            entry(Some("db.example.com"), None, 5432),
            entry(Some("approved.example"), None, 443),
            entry(Some("approved.example"), None, 8443),
            entry(None, Some("1.1.1.1"), 853),
            entry(None, Some("8.8.8.8"), 853),
            entry(None, Some("8.8.8.8"), 853),
            entry(Some("only.looked.up"), None, 0),
            entry(Some("odd\u{1}name.example"), Some("1.2.3.4"), 443),
            LogEntry { allowed: false, ..entry(Some("refused.example"), None, 443) },
            LogEntry { rule: Some("r".to_owned()), ..entry(Some("ruled.example"), None, 443) },
        ];
        for number in 0..5 {
            entries.push(entry(Some(&format!("s{number}.cdn.example")), None, 443));
            entries.push(entry(Some(&format!("shop{number}.co.uk")), None, 443));
        }
        entries.push(entry(Some("other.cdn.example"), None, 8080));
        let approved = Rule {
            name: "approved".to_owned(),
            target: Target::Host(HostPattern::parse("approved.example").unwrap()),
            ports: PortRanges::default(),
            protocols_tcp: true,
        };
        let policy = EgressPolicy { rules: vec![approved], ..EgressPolicy::default() };
        let found = suggest(&entries, &policy, &["packages-example-org"]);
        assert_eq!(
            shown(&found),
            [
                "any-cdn-example *.cdn.example 443 x5",
                "approved-example approved.example 8443 x1",
                "db-example-com db.example.com 5432 x1",
                "other-cdn-example other.cdn.example 8080 x1",
                "packages-example-org-2 packages.example.org 80,443 x3",
                "shop0-co-uk shop0.co.uk 443 x1",
                "shop1-co-uk shop1.co.uk 443 x1",
                "shop2-co-uk shop2.co.uk 443 x1",
                "shop3-co-uk shop3.co.uk 443 x1",
                "shop4-co-uk shop4.co.uk 443 x1",
                "addresses-853 1.1.1.1/32 8.8.8.8/32 853 x3",
            ]
        );
        assert_eq!(found[0].hosts.len(), 5);
        // With these rules nothing is left to propose.
        let rules = found.into_iter().map(|one| Rule {
            name: one.name,
            target: one.target,
            ports: one.ports,
            protocols_tcp: true,
        });
        let policy = EgressPolicy { rules: policy.rules.into_iter().chain(rules).collect(), ..EgressPolicy::default() };
        assert_eq!(suggest(&entries, &policy, &[]), []);
    }
}
