//! One zone and its lookup: exact names, empty non-terminals, wildcards by closest encloser (RFC 4592), aliases, and the
//! difference between "no such name" and "nothing of this type".
//!
//! A zone never changes: a new snapshot makes new zones. Delegations are not a thing here: everything below the origin
//! belongs to the zone.

use std::collections::HashMap;

use casemate_model::challenge::ChallengeBoard;
use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{NS, SOA, TXT},
};

/// How long an answer that says "nothing" may be kept, seconds: short, since what is missing is often just being made.
pub(crate) const NEGATIVE_TTL: u32 = 10;
/// How long the zone's own SOA and NS records may be kept, seconds.
const APEX_TTL: u32 = 3600;

/// First label of the names at which certificate authorities look for proofs (RFC 8555, section 8.4).
const CHALLENGE: &[u8] = b"_acme-challenge";

/// An immutable zone; only answers to challenges, where it has a board for them, come and go.
#[derive(Debug)]
pub(crate) struct Zone {
    origin: Name,
    soa: Record,
    nodes: HashMap<Name, Node>,
    /// Labels of the deepest name: what is longer can only match a wildcard, and is cut before the search.
    deepest: usize,
    challenges: Option<ChallengeBoard>,
}

/// What a name holds; nothing for a name that exists only because there are names below it.
#[derive(Debug, Default)]
struct Node {
    sets: Vec<(RecordType, Vec<Record>)>,
}

/// What a zone says about a name and a type.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'z> {
    /// The records, whose owner may be a wildcard.
    Records(&'z [Record]),
    /// The name is an alias.
    Alias(&'z Name, u32),
    /// The name exists, with other types.
    NoData,
    /// The name does not exist.
    NoName,
}

impl Zone {
    /// An empty zone with its SOA and NS records; `server` is the name of the DNS server.
    pub(crate) fn new(origin: &Name, server: &Name, serial: u32) -> Self {
        let origin = origin.to_lowercase();
        let responsible = server.base_name().prepend_label("hostmaster").unwrap_or_else(|_| server.clone());
        let data = SOA::new(server.clone(), responsible, serial, 3600, 300, 2_419_200, NEGATIVE_TTL);
        let soa = Record::from_rdata(origin.clone(), APEX_TTL, RData::SOA(data));
        let deepest = labels(&origin);
        let mut zone =
            Self { origin: origin.clone(), soa: soa.clone(), nodes: HashMap::new(), deepest, challenges: None };
        zone.add(soa);
        zone.add(Record::from_rdata(origin, APEX_TTL, RData::NS(NS(server.clone()))));
        zone
    }

    /// Shows the answers to challenges on `board` at names that begin with `_acme-challenge`: those of the zone itself,
    /// and those of other domains with the zone's name behind them, to which such a domain has a CNAME record.
    pub(crate) fn with_challenges(mut self, board: ChallengeBoard) -> Self {
        self.challenges = Some(board);
        self
    }

    /// Whether certificate authorities may look for proofs at this lower-case name.
    pub(crate) fn is_challenge(&self, name: &Name) -> bool {
        self.challenges.is_some() && name.iter().next() == Some(CHALLENGE)
    }

    /// The proofs that are shown at a lower-case name now; nobody may keep them. Only such a name takes the board's lock.
    pub(crate) fn proofs(&self, name: &Name) -> Vec<Record> {
        let Some(board) = self.challenges.as_ref().filter(|_| self.is_challenge(name)) else { return Vec::new() };
        let text = name.to_ascii();
        let mut proofs = board.txt(&text);
        let foreign = text.strip_suffix(&self.origin.to_ascii()).filter(|foreign| foreign.contains('.'));
        proofs.extend(foreign.map(|foreign| board.txt(foreign)).into_iter().flatten());
        let record = |proof| Record::from_rdata(name.clone(), 0, RData::TXT(TXT::new(vec![proof])));
        proofs.into_iter().map(record).collect()
    }

    /// The name of the zone.
    pub(crate) fn origin(&self) -> &Name {
        &self.origin
    }

    /// The SOA record as it goes with the answer that there is nothing at a lower-case name.
    pub(crate) fn negative_soa(&self, name: &Name) -> Record {
        let mut soa = self.soa.clone();
        // A proof that is not there yet may be there when it is asked for the next time.
        soa.ttl = if self.is_challenge(name) { 0 } else { NEGATIVE_TTL };
        soa
    }

    /// Adds a record. One that is not in the zone, that is there already, or that would be an alias beside other
    /// records changes nothing.
    pub(crate) fn add(&mut self, mut record: Record) {
        record.name = record.name.to_lowercase();
        if !self.origin.zone_of(&record.name) {
            return;
        }
        let depth = labels(&record.name);
        self.deepest = self.deepest.max(depth);
        for above in labels(&self.origin)..depth {
            self.nodes.entry(record.name.trim_to(above)).or_default();
        }
        let node = self.nodes.entry(record.name.clone()).or_default();
        let kind = record.record_type();
        let alias_beside =
            node.sets.iter().any(|(held, _)| (*held == RecordType::CNAME) != (kind == RecordType::CNAME));
        if alias_beside {
            return;
        }
        match node.sets.iter_mut().find(|(held, _)| *held == kind) {
            // A name has one alias and a zone one SOA: the first stays.
            Some(_) if kind == RecordType::CNAME || kind == RecordType::SOA => {}
            Some((_, records)) if records.iter().any(|held| held.data == record.data) => {}
            Some((_, records)) => records.push(record),
            None => node.sets.push((kind, vec![record])),
        }
    }

    /// Looks a lower-case name inside the zone up. `ANY` finds whatever comes first.
    pub(crate) fn find(&self, name: &Name, kind: RecordType) -> Found<'_> {
        if let Some(node) = self.nodes.get(name) {
            return node.find(kind);
        }
        let apex = labels(&self.origin);
        let from = labels(name).saturating_sub(1).min(self.deepest);
        for labels in (apex..=from).rev() {
            let encloser = name.trim_to(labels);
            if self.nodes.contains_key(&encloser) {
                // Only the closest name that exists may offer a wildcard.
                let wildcard = encloser.prepend_label("*").ok().and_then(|name| self.nodes.get(&name));
                return wildcard.map_or(Found::NoName, |node| node.find(kind));
            }
        }
        Found::NoName
    }
}

impl Node {
    fn find(&self, kind: RecordType) -> Found<'_> {
        let set = self.sets.iter().find(|(held, _)| *held == kind || kind == RecordType::ANY);
        if let Some((_, records)) = set {
            return Found::Records(records);
        }
        for (_, records) in &self.sets {
            if let [record] = records.as_slice()
                && let RData::CNAME(target) = &record.data
            {
                return Found::Alias(&target.0, record.ttl);
            }
        }
        Found::NoData
    }
}

/// The SOA that says that nothing exists below a name of nobody's zone, as RFC 6303 has it.
pub(crate) fn denial(origin: Name) -> Record {
    let responsible = Name::from_ascii("nobody.invalid.").unwrap_or_else(|_| Name::root());
    let data = SOA::new(origin.clone(), responsible, 1, 3600, 1200, 604_800, NEGATIVE_TTL);
    Record::from_rdata(origin, NEGATIVE_TTL, RData::SOA(data))
}

/// How many labels a name has. (The name's own count leaves a leading `*` out.)
pub(crate) fn labels(name: &Name) -> usize {
    name.iter().len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    /// A zone `example.` in a form that a table can hold: `name TYPE data`.
    fn zone(lines: &[&str]) -> Zone {
        let mut zone = Zone::new(&name("example."), &name("ns.example."), 7);
        for line in lines {
            let mut words = line.splitn(3, ' ');
            let (owner, kind, data) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
            let owner = name(owner).append_domain(&name("example.")).unwrap();
            let data = RData::try_from_str(kind.parse().unwrap(), data).unwrap();
            zone.add(Record::from_rdata(owner, 60, data));
        }
        zone
    }

    fn told(found: &Found<'_>) -> String {
        match found {
            Found::Records(records) => {
                records.iter().map(|record| record.data.to_string()).collect::<Vec<_>>().join(",")
            }
            Found::Alias(target, _) => format!("-> {target}"),
            Found::NoData => "no data".to_owned(),
            Found::NoName => "no name".to_owned(),
        }
    }

    /// The example of RFC 4592, section 2.2.1, and what stands around it.
    #[test]
    fn wildcards_as_the_rfc_says() {
        let zone = zone(&[
            "* TXT \"wild\"",
            "* MX 10 host1.example.",
            "sub.* TXT \"not a wildcard\"",
            "host1 A 192.0.2.1",
            "_ssh._tcp.host1 SRV 0 0 22 host1.example.",
            "_ssh._tcp.host2 SRV 0 0 22 host2.example.",
            "alias CNAME host1.example.",
            "*.deep.er CNAME elsewhere.test.",
        ]);
        for (asked, kind, expected) in [
            ("host3.example.", "MX", "10 host1.example."),
            ("host3.example.", "A", "no data"),
            ("foo.bar.example.", "TXT", "wild"),
            ("host1.example.", "MX", "no data"),
            ("sub.*.example.", "MX", "no data"),
            ("sub.*.example.", "TXT", "not a wildcard"),
            ("_telnet._tcp.host1.example.", "SRV", "no name"),
            ("host2.example.", "A", "no data"),
            ("ghost.*.example.", "MX", "no name"),
            ("*.example.", "TXT", "wild"),
            ("host1.example.", "A", "192.0.2.1"),
            ("below.host1.example.", "TXT", "no name"),
            ("alias.example.", "A", "-> host1.example."),
            ("alias.example.", "CNAME", "host1.example."),
            ("a.b.c.deep.er.example.", "AAAA", "-> elsewhere.test."),
            ("deep.er.example.", "AAAA", "no data"),
            ("x.er.example.", "AAAA", "no name"),
            ("example.", "NS", "ns.example."),
            ("example.", "A", "no data"),
            ("host1.example.", "ANY", "192.0.2.1"),
        ] {
            assert_eq!(told(&zone.find(&name(asked), kind.parse().unwrap())), expected, "{asked} {kind}");
        }
    }

    #[test]
    fn proofs_come_and_go_with_the_board() {
        let board = ChallengeBoard::default();
        let zone = zone(&["a.sub A 192.0.2.1"]).with_challenges(board.clone());
        let shown = |asked: &str| -> Vec<String> {
            let records = zone.proofs(&name(asked));
            assert!(records.iter().all(|record| record.ttl == 0 && record.name == name(asked)));
            records.iter().map(|record| record.data.to_string()).collect()
        };
        let (own, foreign) = ("_acme-challenge.a.sub.example.", "_acme-challenge.www.corp.test.example.");
        assert_eq!((shown(own), shown(foreign)), (Vec::new(), Vec::new()));
        let posted = [
            board.post_txt("_acme-challenge.a.sub.example", "one".to_owned()).unwrap(),
            board.post_txt("_acme-challenge.a.sub.example", "two".to_owned()).unwrap(),
            board.post_txt("_acme-challenge.www.corp.test", "three".to_owned()).unwrap(),
            board.post_txt("a.sub.example", "stray".to_owned()).unwrap(),
        ];
        assert_eq!((shown(own), shown(foreign)), (vec!["one".to_owned(), "two".to_owned()], vec!["three".to_owned()]));
        for other in ["a.sub.example.", "_acme-challenge.example.", "x._acme-challenge.a.sub.example."] {
            assert_eq!(shown(other), Vec::<String>::new(), "{other}");
        }
        assert_eq!(zone.negative_soa(&name(own)).ttl, 0);
        assert_eq!(zone.negative_soa(&name("a.sub.example.")).ttl, NEGATIVE_TTL);
        drop(posted);
        assert_eq!((shown(own), shown(foreign)), (Vec::new(), Vec::new()));
    }

    #[test]
    fn an_alias_stands_alone_and_repetitions_count_once() {
        let zone = zone(&[
            "a A 192.0.2.1",
            "a CNAME b.example.",
            "b CNAME c.example.",
            "b A 192.0.2.2",
            "b CNAME d.example.",
            "c A 192.0.2.3",
            "c A 192.0.2.3",
            "C A 192.0.2.4",
        ]);
        for (asked, expected) in [("a", "192.0.2.1"), ("b", "-> c.example."), ("c", "192.0.2.3,192.0.2.4")] {
            let asked = name(asked).append_domain(&name("example.")).unwrap();
            assert_eq!(told(&zone.find(&asked, RecordType::A)), expected);
        }
        let mut outside = Zone::new(&name("example."), &name("ns.example."), 7);
        let before = outside.nodes.len();
        outside.add(Record::from_rdata(name("example.org."), 60, RData::A("192.0.2.1".parse().unwrap())));
        assert_eq!(outside.nodes.len(), before);
    }

    proptest! {
        /// Whatever is in the zone is found, and a name is denied only if neither it, nor one below it, nor a wildcard
        /// at its closest encloser is there: checked against a search through all names.
        #[test]
        fn agrees_with_a_plain_search(
            held in proptest::collection::vec("([ab*]\\.){0,3}[ab*]", 0..8),
            asked in "([abc]\\.){0,4}[abc]",
        ) {
            let lines: Vec<String> = held.iter().map(|owner| format!("{owner} A 192.0.2.1")).collect();
            let zone = zone(&lines.iter().map(String::as_str).collect::<Vec<_>>());
            let exists = |wanted: &str| wanted.is_empty()
                || held.iter().any(|owner| owner == wanted || owner.ends_with(&format!(".{wanted}")));
            let mut encloser = asked.as_str();
            while !exists(encloser) {
                encloser = encloser.split_once('.').map_or("", |(_, above)| above);
            }
            let wildcard = if encloser.is_empty() { "*".to_owned() } else { format!("*.{encloser}") };
            let source = if exists(&asked) { asked.clone() } else { wildcard };
            let expected = if held.contains(&source) { "192.0.2.1" } else if exists(&source) { "no data" } else { "no name" };
            let full = name(&format!("{asked}.example."));
            prop_assert_eq!(told(&zone.find(&full, RecordType::A)), expected);
        }
    }
}
