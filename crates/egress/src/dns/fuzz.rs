//! What must hold for whatever a sandbox sends to port 53. The target in `fuzz/` runs this on raw bytes, the tests below
//! on packets with a few bytes changed; it panics when a promise is broken.

use std::sync::{Arc, Mutex};

use casemate_model::egress::{EgressPolicy, HostName, HostPattern, PortRanges, Rule, Target};
use hickory_proto::op::{Message, MessageType, ResponseCode};
use tokio::sync::watch;

use super::{Answer, HEADER, Responder, host};
use crate::{EgressLimits, pool::NamePool};

/// Names that are approved: one host, and those below a base.
const APPROVED: &str = "approved.example";
const BELOW: &str = "*.wild.example";

/// A packet has no answer, or a short one with its number; an address comes only for an approved name, from the pool; and
/// what is recorded of it is plain text. Packets come one after the other, each to the same responder.
pub fn dns_packets(packets: &[&[u8]]) {
    let rules = [APPROVED, BELOW].iter().filter_map(|text| HostPattern::parse(text).ok()).map(|pattern| Rule {
        name: "rule".to_owned(),
        target: Target::Host(pattern),
        ports: PortRanges::web(),
        protocols_tcp: true,
    });
    let policy = EgressPolicy { rules: rules.collect(), ..EgressPolicy::default() };
    let limits = EgressLimits { names: 4, new_names_per_minute: 6, ..EgressLimits::default() };
    let pool = Arc::new(NamePool::new(limits.names, limits.new_names_per_minute));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&lines);
    let record = Box::new(move |name: &str, _: &_| told.lock().expect("one thread").push(name.to_owned()));
    // The sender stays, as in a sandbox that is served.
    let (_sender, policy) = watch::channel(Arc::new(policy));
    let responder = Responder::new(Arc::clone(&pool), policy, &limits, record);
    for packet in packets {
        match responder.answer(packet) {
            Answer::Packet(answer) => answered(packet, &answer, &pool),
            Answer::Beyond(Some(refusal)) => {
                assert!(refusal.len() == HEADER && refusal[..2] == packet[..2] && refusal[2] & 0x80 != 0);
            }
            Answer::Nothing | Answer::Beyond(None) => {}
        }
        assert!(pool.len() <= limits.names);
    }
    for name in lines.lock().expect("one thread").iter() {
        assert!(name.bytes().all(|byte| (0x20..0x7f).contains(&byte)) && name.len() <= 4 * 255, "{name:?}");
    }
}

fn answered(packet: &[u8], answer: &[u8], pool: &NamePool) {
    let message = Message::from_vec(answer).expect("an answer is a message");
    assert!(answer.len() <= 512, "an answer of {} bytes", answer.len());
    assert_eq!(answer[..2], packet[..2]);
    assert_eq!(message.metadata.message_type, MessageType::Response);
    assert!(message.authorities.is_empty() && message.additionals.is_empty());
    let addresses: Vec<_> = message.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
    assert!(message.answers.len() <= 1 && addresses.len() == message.answers.len());
    let Some(address) = addresses.first() else { return };
    assert_eq!(message.metadata.response_code, ResponseCode::NoError);
    let asked = Message::from_vec(packet).expect("what has an answer is a message");
    let name = host(asked.queries[0].name()).1.expect("what has an address is a host");
    if name.is_localhost() {
        return assert!(address.is_loopback());
    }
    let approved = [APPROVED, BELOW].iter().filter_map(|text| HostPattern::parse(text).ok());
    assert!(approved.into_iter().any(|pattern| pattern.matches(&name)), "{name} has an address");
    assert_eq!(pool.name_of(*address), Some(name.clone()));
    assert!(HostName::parse(name.as_str()).is_ok());
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use hickory_proto::{
        op::{Edns, OpCode, Query},
        rr::{Name, RecordType},
    };
    use proptest::{prelude::*, test_runner::RngSeed};

    use super::*;

    fn packet() -> impl Strategy<Value = Vec<u8>> {
        let names =
            [APPROVED, "a.wild.example", "b.wild.example", "wild.example", "evil.com", "localhost", "1.2.3.4", "."];
        let parts = (
            prop::sample::select(names.to_vec()),
            prop::sample::select(vec![1u16, 28, 16, 65, 255, 252, 12]),
            any::<bool>(),
        );
        let whole = parts.prop_map(|(name, kind, edns)| {
            let mut message = Message::new(7, MessageType::Query, OpCode::Query);
            message.add_query(Query::query(Name::from_str(name).unwrap(), RecordType::from(kind)));
            if edns {
                message.set_edns(Edns::new());
            }
            message.to_vec().unwrap()
        });
        let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
        let changed =
            (whole, changes, prop::option::weighted(0.1, 0usize..40)).prop_map(|(mut packet, changes, length)| {
                for (at, byte) in changes {
                    let at = at.index(packet.len());
                    packet[at] = byte;
                }
                packet.truncate(length.unwrap_or(packet.len()));
                packet
            });
        prop_oneof![9 => changed, 1 => prop::collection::vec(any::<u8>(), 0..80)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1500, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn likely_packets(packets in prop::collection::vec(packet(), 1..10)) {
            let packets: Vec<&[u8]> = packets.iter().map(Vec::as_slice).collect();
            dns_packets(&packets);
        }
    }
}
