//! What one kind of client is told: a set of zones, aliases followed through them, and what happens to names of nobody's
//! zone.
//!
//! A name inside one of the view's zones is answered here or not at all: it never leaves for another server.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, LazyLock},
};

use hickory_proto::{
    op::ResponseCode,
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, HINFO},
    },
};

use crate::{
    forward::Upstream,
    zone::{Found, NEGATIVE_TTL, Zone, labels},
};

/// More aliases than this in one answer are a mistake of whoever wrote the records.
const MAX_ALIASES: usize = 12;

/// Suffixes of names that mean something on one machine or in one network only (RFC 6303, RFC 6761): asking another
/// server about them would only tell it what is asked here. A forwarder for exactly such a suffix is obeyed.
const NEVER_ASKED: [&str; 31] = [
    "localhost.",
    "invalid.",
    "onion.",
    "10.in-addr.arpa.",
    "0.in-addr.arpa.",
    "127.in-addr.arpa.",
    "254.169.in-addr.arpa.",
    "168.192.in-addr.arpa.",
    "16.172.in-addr.arpa.",
    "17.172.in-addr.arpa.",
    "18.172.in-addr.arpa.",
    "19.172.in-addr.arpa.",
    "20.172.in-addr.arpa.",
    "21.172.in-addr.arpa.",
    "22.172.in-addr.arpa.",
    "23.172.in-addr.arpa.",
    "24.172.in-addr.arpa.",
    "25.172.in-addr.arpa.",
    "26.172.in-addr.arpa.",
    "27.172.in-addr.arpa.",
    "28.172.in-addr.arpa.",
    "29.172.in-addr.arpa.",
    "30.172.in-addr.arpa.",
    "31.172.in-addr.arpa.",
    "d.f.ip6.arpa.",
    "c.f.ip6.arpa.",
    "8.e.f.ip6.arpa.",
    "9.e.f.ip6.arpa.",
    "a.e.f.ip6.arpa.",
    "b.e.f.ip6.arpa.",
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.ip6.arpa.",
];
/// Labels of the longest of them.
const DEEPEST_NEVER_ASKED: usize = 34;

/// The zones and forwarders that one kind of client has.
#[derive(Debug, Default)]
pub(crate) struct View {
    zones: HashMap<Name, Arc<Zone>>,
    /// Labels of the longest origin.
    deepest: usize,
    forwarders: HashMap<Name, Arc<Upstream>>,
    /// Labels of the longest suffix with a forwarder, or of a name that is never asked.
    deepest_forwarder: usize,
    /// Names of private zones that this view is not linked with: they mean nothing outside either.
    unlinked: HashSet<Name>,
}

/// What a view says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Said {
    /// The response code.
    pub code: ResponseCode,
    /// The answer section.
    pub answers: Vec<Record>,
    /// The authority section.
    pub authority: Vec<Record>,
    /// The last alias leads to this name, which is in none of the zones.
    pub elsewhere: Option<Name>,
}

impl View {
    /// Adds a zone; the first of one name stays.
    pub(crate) fn add_zone(&mut self, zone: Arc<Zone>) {
        self.deepest = self.deepest.max(labels(zone.origin()));
        self.zones.entry(zone.origin().clone()).or_insert(zone);
    }

    /// Sends the names below `suffix` (the root: all names) to other servers; the first for one suffix stays.
    pub(crate) fn add_forwarder(&mut self, suffix: &Name, upstream: Arc<Upstream>) {
        self.deepest_forwarder = self.deepest_forwarder.max(labels(suffix));
        self.forwarders.entry(suffix.to_lowercase()).or_insert(upstream);
    }

    /// Denies the names below `suffix` unless a zone of the view has them.
    pub(crate) fn add_unlinked(&mut self, suffix: &Name) {
        self.deepest_forwarder = self.deepest_forwarder.max(labels(suffix));
        self.unlinked.insert(suffix.to_lowercase());
    }

    /// Whether the lower-case name is in one of the zones.
    pub(crate) fn holds(&self, name: &Name) -> bool {
        self.zone_of(name).is_some()
    }

    fn zone_of(&self, name: &Name) -> Option<&Arc<Zone>> {
        let most = labels(name).min(self.deepest);
        (0..=most).rev().find_map(|labels| self.zones.get(&name.trim_to(labels)))
    }

    /// Whom to ask about a lower-case name of nobody's zone.
    pub(crate) fn forwarder(&self, name: &Name) -> Forwarder<'_> {
        let most = labels(name).min(self.deepest_forwarder.max(DEEPEST_NEVER_ASKED));
        for labels in (0..=most).rev() {
            let suffix = name.trim_to(labels);
            if let Some(upstream) = self.forwarders.get(&suffix) {
                return Forwarder::Ask(upstream);
            }
            if self.unlinked.contains(&suffix) || never_asked().contains(&suffix) {
                return Forwarder::Deny(suffix);
            }
        }
        Forwarder::Nobody
    }

    /// Answers from the zones; `None` for a name that is in none of them. `asked` is in the client's spelling, which
    /// the owner names of the answer keep.
    pub(crate) fn say(&self, asked: &Name, kind: RecordType) -> Option<Said> {
        let mut owner = asked.clone();
        let mut name = asked.to_lowercase();
        let mut said = Said::default();
        self.zone_of(&name)?;
        for _ in 0..=MAX_ALIASES {
            let Some(zone) = self.zone_of(&name) else {
                said.elsewhere = Some(owner);
                return Some(said);
            };
            let proofs = zone.proofs(&name);
            if !proofs.is_empty() {
                match kind {
                    RecordType::TXT => said.answers.extend(proofs.iter().map(|record| owned_by(&owner, record))),
                    RecordType::ANY => said.answers.push(minimal(owner)),
                    _ => said.authority.push(zone.negative_soa(&name)),
                }
                return Some(said);
            }
            match zone.find(&name, kind) {
                Found::Records(_) if kind == RecordType::ANY => said.answers.push(minimal(owner)),
                Found::Records(records) => {
                    said.answers.extend(records.iter().map(|record| owned_by(&owner, record)));
                }
                Found::NoData => said.authority.push(zone.negative_soa(&name)),
                Found::NoName => {
                    said.code = ResponseCode::NXDomain;
                    said.authority.push(zone.negative_soa(&name));
                }
                Found::Alias(target, ttl) => {
                    let data = RData::CNAME(CNAME(target.clone()));
                    said.answers.push(Record::from_rdata(owner, ttl, data));
                    owner = target.clone();
                    name = owner.to_lowercase();
                    continue;
                }
            }
            return Some(said);
        }
        Some(Said { code: ResponseCode::ServFail, ..Said::default() })
    }
}

/// What becomes of a name that is in no zone.
#[derive(Debug)]
pub(crate) enum Forwarder<'v> {
    /// Ask these servers.
    Ask(&'v Arc<Upstream>),
    /// It is nobody else's business: it does not exist, says this apex.
    Deny(Name),
    /// No server is configured.
    Nobody,
}

/// The record under the name that was asked for: in the client's spelling, and not that of a wildcard.
fn owned_by(owner: &Name, record: &Record) -> Record {
    let mut record = record.clone();
    record.name.clone_from(owner);
    record
}

fn never_asked() -> &'static HashSet<Name> {
    static NAMES: LazyLock<HashSet<Name>> =
        LazyLock::new(|| NEVER_ASKED.iter().filter_map(|suffix| Name::from_ascii(suffix).ok()).collect());
    &NAMES
}

/// The answer to a question for everything (RFC 8482): true, short, and useless to an attacker.
fn minimal(owner: Name) -> Record {
    let data = HINFO::new("RFC8482".to_owned(), String::new());
    Record::from_rdata(owner, NEGATIVE_TTL, RData::HINFO(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    /// Owner, type and data.
    type Line = (&'static str, &'static str, &'static str);

    fn view(zones: &[(&str, &[Line])]) -> View {
        let mut view = View::default();
        for (origin, records) in zones {
            let mut zone = Zone::new(&name(origin), &name("ns.casemate.test."), 1);
            for (owner, kind, data) in *records {
                let data = RData::try_from_str(kind.parse().unwrap(), data).unwrap();
                zone.add(Record::from_rdata(name(owner), 60, data));
            }
            view.add_zone(Arc::new(zone));
        }
        view
    }

    fn told(said: Option<Said>) -> String {
        let Some(said) = said else { return "not ours".to_owned() };
        let mut told: Vec<String> =
            said.answers.iter().map(|record| format!("{} {}", record.name, record.data)).collect();
        if said.code != ResponseCode::NoError {
            told.push(said.code.to_string());
        }
        told.extend(said.authority.iter().map(|record| format!("soa {}", record.name)));
        told.extend(said.elsewhere.iter().map(|name| format!("then {name}")));
        told.join("; ")
    }

    #[test]
    fn the_longest_zone_answers_and_aliases_are_followed() {
        let view = view(&[
            (
                "corp.test.",
                &[
                    ("www.corp.test.", "CNAME", "app.sub.corp.test."),
                    ("out.corp.test.", "CNAME", "www.example.org."),
                    ("one.corp.test.", "CNAME", "two.corp.test."),
                    ("two.corp.test.", "CNAME", "one.corp.test."),
                    ("lost.corp.test.", "CNAME", "none.corp.test."),
                    ("app.sub.corp.test.", "A", "192.0.2.9"),
                    ("*.wild.corp.test.", "A", "192.0.2.3"),
                    ("*.alias.corp.test.", "CNAME", "x.wild.corp.test."),
                ],
            ),
            ("sub.corp.test.", &[("app.sub.corp.test.", "A", "192.0.2.1")]),
        ]);
        for (asked, kind, expected) in [
            ("WWW.corp.test.", "A", "WWW.corp.test. app.sub.corp.test.; app.sub.corp.test. 192.0.2.1"),
            ("www.corp.test.", "CNAME", "www.corp.test. app.sub.corp.test."),
            ("www.corp.test.", "AAAA", "www.corp.test. app.sub.corp.test.; soa sub.corp.test."),
            ("out.corp.test.", "A", "out.corp.test. www.example.org.; then www.example.org."),
            ("one.corp.test.", "A", "Server Failure"),
            ("lost.corp.test.", "A", "lost.corp.test. none.corp.test.; Non-Existent Domain; soa corp.test."),
            ("Q.wild.corp.test.", "A", "Q.wild.corp.test. 192.0.2.3"),
            ("q.alias.corp.test.", "A", "q.alias.corp.test. x.wild.corp.test.; x.wild.corp.test. 192.0.2.3"),
            ("q.wild.corp.test.", "ANY", "q.wild.corp.test. RFC8482 "),
            ("none.corp.test.", "ANY", "Non-Existent Domain; soa corp.test."),
            ("other.sub.corp.test.", "A", "Non-Existent Domain; soa sub.corp.test."),
            ("corp.test.", "MX", "soa corp.test."),
            ("test.", "A", "not ours"),
            (".", "NS", "not ours"),
        ] {
            assert_eq!(told(view.say(&name(asked), kind.parse().unwrap())), expected, "{asked} {kind}");
        }
    }

    #[test]
    fn the_names_never_asked_are_names() {
        assert_eq!(never_asked().len(), NEVER_ASKED.len());
        assert_eq!(never_asked().iter().map(labels).max(), Some(DEEPEST_NEVER_ASKED));
    }

    #[tokio::test]
    async fn the_longest_suffix_decides_who_is_asked() {
        let upstream = |port| Arc::new(Upstream::new(&[([192, 0, 2, 1], port).into()]));
        let mut view = View::default();
        assert!(matches!(view.forwarder(&name("www.example.org.")), Forwarder::Nobody));
        view.add_forwarder(&Name::root(), upstream(1));
        view.add_forwarder(&name("Corp.example."), upstream(2));
        view.add_forwarder(&name("1.10.in-addr.arpa."), upstream(3));
        view.add_unlinked(&name("privatelink.api.azureml.ms."));
        for (asked, expected) in [
            ("www.example.org.", "1"),
            ("example.", "1"),
            ("corp.example.", "2"),
            ("a.b.corp.example.", "2"),
            ("acorp.example.", "1"),
            ("4.3.1.10.in-addr.arpa.", "3"),
            ("4.3.2.10.in-addr.arpa.", "deny 10.in-addr.arpa."),
            ("a.localhost.", "deny localhost."),
            ("x.privatelink.api.azureml.ms.", "deny privatelink.api.azureml.ms."),
            ("api.azureml.ms.", "1"),
        ] {
            let found = match view.forwarder(&name(asked)) {
                Forwarder::Ask(upstream) => upstream.servers()[0].port().to_string(),
                Forwarder::Deny(suffix) => format!("deny {suffix}"),
                Forwarder::Nobody => "nobody".to_owned(),
            };
            assert_eq!(found, expected, "{asked}");
        }
    }
}
