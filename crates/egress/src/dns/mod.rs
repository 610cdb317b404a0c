//! Names inside a sandbox: every query is answered here, and none leads to a query outside.
//!
//! A name that the policy resolves gets an address of the sandbox's [`NamePool`]; the connection to it is what is
//! resolved, later and by the gateway. Other questions about such a name have an empty answer, and any other name does
//! not exist: labels, types and sizes carry nothing out. The responder knows no zone, keeps no cache, speaks no TCP, and
//! refuses everything that is not one plain question.

#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod recent;
mod socket;
#[cfg(test)]
mod tests;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use casemate_model::egress::{Decision, EgressPolicy, HostName, Verdict};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType},
};
use tokio::sync::watch;

use self::recent::Recent;
pub(crate) use self::socket::{dns_socket, serve_dns};
use crate::{EgressLimits, bucket::Bucket, pool::NamePool};

/// Seconds that a client may keep an answer. Short, so that a forgotten name is soon asked for again.
const TTL: u32 = 10;
/// What an answer may be long, told to clients that ask by EDNS.
const PAYLOAD: u16 = 1232;
/// How many times the limit queries for names may come that have an address already.
const KNOWN: u32 = 20;
/// The bytes before the first question.
const HEADER: usize = 12;

/// What takes each decision for the log: the name as it was asked for (escaped), and what was decided.
pub(crate) type RecordLookup = Box<dyn Fn(&str, &Decision) + Send + Sync>;

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// This answer.
    Packet(Vec<u8>),
    /// Nothing: it is not even the beginning of a query.
    Nothing,
    /// There have been too many: a refusal, and a pause.
    Beyond(Option<Vec<u8>>),
}

/// Answers the queries of one sandbox.
pub(crate) struct Responder {
    pool: Arc<NamePool>,
    policy: watch::Receiver<Arc<EgressPolicy>>,
    rate: Bucket,
    rate_known: Bucket,
    recent: Recent,
    record: RecordLookup,
}

impl Responder {
    /// A responder that gives names addresses of `pool` by `policy` as it is at each query.
    pub(crate) fn new(
        pool: Arc<NamePool>,
        policy: watch::Receiver<Arc<EgressPolicy>>,
        limits: &EgressLimits,
        record: RecordLookup,
    ) -> Self {
        let bucket = |times: u32| {
            let (burst, count) = (limits.dns_burst.saturating_mul(times), limits.dns_per_second.saturating_mul(times));
            Bucket::new(burst, count, Duration::from_secs(1))
        };
        Self { pool, policy, rate: bucket(1), rate_known: bucket(KNOWN), recent: Recent::default(), record }
    }

    /// What becomes of one packet.
    pub(crate) fn answer(&self, packet: &[u8]) -> Answer {
        // An answer is never answered: two responders would talk to each other for ever.
        if packet.len() < HEADER || packet[2] & 0x80 != 0 {
            return if self.rate.take() { Answer::Nothing } else { Answer::Beyond(None) };
        }
        let read = read(packet);
        let known = match &read {
            Ok((_, query)) => host(query.name()).1.is_some_and(|name| name.is_localhost() || self.pool.knows(&name)),
            Err(_) => false,
        };
        // What is known already costs little and tells nothing new: a program that connects often asks often.
        let rate = if known { &self.rate_known } else { &self.rate };
        if !rate.take() {
            return Answer::Beyond(Some(bare(packet, ResponseCode::Refused)));
        }
        let (message, query) = match read {
            Ok(read) => read,
            Err(code) => return Answer::Packet(bare(packet, code)),
        };
        let (code, data) = match message.edns.as_ref().map(Edns::version) {
            Some(1..) => (ResponseCode::BADVERS, None),
            _ => self.decide(&query),
        };
        let answer = reply(&message, &query, code, data);
        Answer::Packet(answer.unwrap_or_else(|| bare(packet, ResponseCode::ServFail)))
    }

    /// What to say to one question.
    fn decide(&self, query: &Query) -> (ResponseCode, Option<RData>) {
        let kind = query.query_type();
        if query.query_class() != DNSClass::IN || matches!(kind, RecordType::AXFR | RecordType::IXFR) {
            return (ResponseCode::Refused, None);
        }
        if query.name().is_root() {
            return (ResponseCode::NoError, None);
        }
        let (shown, name) = host(query.name());
        let decision = match &name {
            Some(name) if name.is_localhost() => return (ResponseCode::NoError, loopback(kind)),
            Some(name) if name.labels().next_back() == Some("arpa") => {
                refused("Addresses are not looked up backwards inside an instance.")
            }
            Some(name) => self.policy.borrow().lookup(name),
            None => refused("What was asked for is not the name of a host."),
        };
        let Some(name) = name.filter(|_| decision.is_allowed()) else {
            self.record(&shown, &decision);
            return (ResponseCode::NXDomain, None);
        };
        if kind != RecordType::A {
            // Whoever asks for an address asks for both kinds; only what asks for nothing else is worth a line.
            if kind != RecordType::AAAA {
                self.record(&shown, &decision);
            }
            return (ResponseCode::NoError, None);
        }
        let breadth = self.policy.borrow().breadth(&name);
        match self.pool.address_for(&name, breadth) {
            Ok(address) => {
                self.record(&shown, &decision);
                (ResponseCode::NoError, Some(RData::A(address.into())))
            }
            Err(error) => {
                self.record(&shown, &Decision { rule: decision.rule, ..refused(&error.to_string()) });
                (ResponseCode::ServFail, None)
            }
        }
    }

    /// Hands a decision on, unless the same one was handed on a moment ago: one `getaddrinfo` asks twice or more.
    fn record(&self, name: &str, decision: &Decision) {
        if self.recent.is_news(name, decision.is_allowed()) {
            (self.record)(name, decision);
        }
    }
}

/// A packet with a whole header as one plain question, or what is wrong with it.
fn read(packet: &[u8]) -> Result<(Message, Query), ResponseCode> {
    let opcode = (packet[2] >> 3) & 0xf;
    if opcode != u8::from(OpCode::Query) {
        return Err(ResponseCode::NotImp);
    }
    let count = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let plain = count(4) == 1 && count(6) == 0 && count(8) == 0 && packet[2] & 0x02 == 0;
    if !plain {
        return Err(ResponseCode::FormErr);
    }
    let mut message = Message::from_vec(packet).map_err(|_| ResponseCode::FormErr)?;
    let query = message.queries.pop().ok_or(ResponseCode::FormErr)?;
    Ok((message, query))
}

/// The name as text for the log, and the host it is, if it is one. Names are compared label by label: a dot inside a
/// label is not one between labels.
fn host(name: &Name) -> (String, Option<HostName>) {
    let plain = name.iter().all(|label| !label.contains(&b'.'));
    let mut text = String::new();
    for label in name.iter() {
        text.push_str(if text.is_empty() { "" } else { "." });
        text.extend(label.iter().flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from));
    }
    let host = Some(&text).filter(|_| plain).and_then(|text| HostName::parse(text).ok());
    (text, host)
}

fn loopback(kind: RecordType) -> Option<RData> {
    match kind {
        RecordType::A => Some(RData::A(Ipv4Addr::LOCALHOST.into())),
        RecordType::AAAA => Some(RData::AAAA(Ipv6Addr::LOCALHOST.into())),
        _ => None,
    }
}

fn refused(reason: &str) -> Decision {
    Decision { verdict: Verdict::Deny, rule: None, reason: reason.to_owned(), would_deny: false }
}

/// A whole answer: the question as it was asked, and one record at most.
fn reply(request: &Message, query: &Query, code: ResponseCode, data: Option<RData>) -> Option<Vec<u8>> {
    let mut message = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
    message.metadata.recursion_desired = request.metadata.recursion_desired;
    message.metadata.checking_disabled = request.metadata.checking_disabled;
    message.metadata.recursion_available = true;
    message.metadata.response_code = code;
    message.add_query(query.clone());
    if let Some(data) = data {
        message.add_answer(Record::from_rdata(query.name().clone(), TTL, data));
    }
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        edns.set_rcode_high(code.high());
        message.set_edns(edns);
    }
    message.to_vec().ok()
}

/// A header alone, for what could not be read: the packet's id, opcode and wish for recursion.
fn bare(packet: &[u8], code: ResponseCode) -> Vec<u8> {
    let mut answer = vec![0; HEADER];
    answer[..2].copy_from_slice(&packet[..2]);
    answer[2] = 0x80 | (packet[2] & 0x79);
    answer[3] = 0x80 | code.low();
    answer
}
