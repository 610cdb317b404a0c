//! What is promised of any packet, checked with fixed seeds in the tests and without end by the fuzz target `name_server`.

use std::{
    net::IpAddr,
    sync::{Arc, LazyLock},
};

use casemate_model::{challenge::ChallengeBoard, network::NetworkSnapshot};
use hickory_proto::op::{Message, MessageType};

use crate::{
    compile::{Compiler, Facts, Views},
    handler::{Answer, Transport, answer, slip},
    message::{MAX_QUERY, MAX_UDP},
};

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 1));

fn views() -> &'static Arc<Views> {
    static VIEWS: LazyLock<Arc<Views>> = LazyLock::new(|| {
        let facts = Facts {
            domain: "casemate.test".to_owned(),
            region: "local".to_owned(),
            front_door: LOCAL,
            listening: vec![(LOCAL, 53).into()],
            network_ports: vec![53],
            upstream: Vec::new(),
            challenges: ChallengeBoard::default(),
        };
        Arc::new(Compiler::default().compile(&facts, &NetworkSnapshot::default(), 1))
    });
    &VIEWS
}

/// Handles a packet and checks what comes out: nothing, or one well-formed response with the packet's id, no longer
/// than its transport allows, and never a long answer to a short packet that asked nothing.
///
/// # Panics
/// When a promise is broken.
pub fn packet(bytes: &[u8]) {
    let bytes = bytes.get(..MAX_QUERY).unwrap_or(bytes);
    for (transport, longest) in [(Transport::Udp, usize::from(MAX_UDP)), (Transport::Tcp, usize::from(u16::MAX))] {
        let answer = answer(views(), bytes, LOCAL, LOCAL, transport);
        assert!(!matches!(answer, Answer::Later(_)), "a public client's question was to be forwarded");
        if let Answer::Now(said) = answer {
            check(bytes, &said, longest);
        }
    }
    if let Some(said) = slip(bytes) {
        check(bytes, &said, bytes.len() + 16);
    }
}

fn check(asked: &[u8], said: &[u8], longest: usize) {
    assert!(said.len() <= longest, "{} bytes, {longest} are allowed", said.len());
    assert_eq!(said.get(..2), asked.get(..2), "the id is another");
    let message = Message::from_vec(said).expect("what is sent can be read");
    assert_eq!(message.message_type, MessageType::Response);
    assert!(message.queries.len() <= 1 && message.answers.len() <= 64);
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::{OpCode, Query},
        rr::{Name, RecordType},
    };
    use proptest::prelude::*;

    use super::*;

    fn question() -> impl Strategy<Value = Vec<u8>> {
        let name = "(([a-zA-Z0-9_]{1,12}|\\*)\\.){0,6}(local\\.inference\\.casemate\\.test|casemate\\.test|test)\\.";
        (name, any::<u16>(), any::<u16>()).prop_map(|(name, id, kind)| {
            let mut message = Message::new(id, MessageType::Query, OpCode::Query);
            message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::from(kind % 270)));
            message.to_vec().unwrap()
        })
    }

    proptest! {
        #[test]
        fn noise(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            packet(&bytes);
        }

        #[test]
        fn questions_and_what_becomes_of_them_on_the_way(
            bytes in question(),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in proptest::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = bytes;
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            let length = cut.map_or(bytes.len(), |cut| cut.index(bytes.len()));
            packet(&bytes[..length]);
        }
    }
}
