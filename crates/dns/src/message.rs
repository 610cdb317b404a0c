//! DNS messages: the one question of a packet, parsed before anything is done about it, and the packet that answers.
//!
//! A packet is judged by its header first: a server that parses whatever the counts promise does an attacker's work.

use hickory_proto::{
    op::{Edns, Header, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, Record, RecordType},
    serialize::binary::{BinDecodable, BinDecoder},
};

/// The longest answer over UDP, bytes: what passes everywhere without fragments.
pub(crate) const MAX_UDP: u16 = 1232;
/// What a client that says nothing of EDNS can take, bytes.
const PLAIN_UDP: u16 = 512;
/// The longest query that is read, bytes. A name has 255 at most; the rest is room for options.
pub(crate) const MAX_QUERY: usize = 4096;
/// An answer over TCP, bytes.
pub(crate) const MAX_TCP: u16 = u16::MAX;

/// What a packet is.
#[derive(Debug)]
pub(crate) enum Packet {
    /// Nothing that may be answered: too short, or itself an answer.
    Ignored,
    /// Something to turn down with these bytes.
    Refused(Vec<u8>),
    /// A question.
    Question(Question),
}

/// The one question of a packet.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    id: u16,
    op_code: OpCode,
    recursion_desired: bool,
    checking_disabled: bool,
    /// Bytes that the client can take over UDP; `None` without EDNS.
    payload: Option<u16>,
    /// Name, type and class as the client wrote them.
    pub query: Query,
}

/// The content of an answer.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    /// The response code.
    pub code: ResponseCode,
    /// Whether the name is in one of our zones.
    pub authoritative: bool,
    /// Whether this client may have other names looked up.
    pub recursion_available: bool,
    /// The answer section.
    pub answers: Vec<Record>,
    /// The authority section.
    pub authority: Vec<Record>,
}

impl Packet {
    /// Reads a packet.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut decoder = BinDecoder::new(bytes);
        let Ok(header) = Header::read(&mut decoder) else { return Self::Ignored };
        if header.metadata.message_type == MessageType::Response {
            return Self::Ignored;
        }
        match header.metadata.op_code {
            OpCode::Query => {}
            OpCode::Update | OpCode::Notify => return Self::refuse(&header, ResponseCode::Refused),
            _ => return Self::refuse(&header, ResponseCode::NotImp),
        }
        let counts = header.counts;
        let plain = counts.queries == 1 && counts.answers == 0 && counts.authorities == 0 && counts.additionals <= 2;
        if !plain {
            // An IXFR carries an SOA in the authority section: it is refused like an AXFR.
            let transfer = counts.queries == 1 && counts.answers == 0 && counts.authorities == 1;
            let code = if transfer { ResponseCode::Refused } else { ResponseCode::FormErr };
            return Self::refuse(&header, code);
        }
        let Ok(query) = Query::read(&mut decoder) else {
            return Self::refuse(&header, ResponseCode::FormErr);
        };
        let additionals = usize::from(counts.additionals);
        let Ok((_, edns, _)) = Message::read_records(&mut decoder, additionals, true, header.metadata.op_code) else {
            return Self::refuse(&header, ResponseCode::FormErr);
        };
        let question = Question {
            id: header.metadata.id,
            op_code: header.metadata.op_code,
            recursion_desired: header.metadata.recursion_desired,
            checking_disabled: header.metadata.checking_disabled,
            payload: edns.as_ref().map(|edns| edns.max_payload().max(PLAIN_UDP)),
            query,
        };
        match question.unanswerable(edns.as_ref()) {
            Some(code) => Self::Refused(question.encode(Reply { code, ..Reply::default() }, MAX_UDP)),
            None => Self::Question(question),
        }
    }

    /// Turns a packet down whose question is unread.
    fn refuse(header: &Header, code: ResponseCode) -> Self {
        let mut message = Message::error_msg(header.metadata.id, header.metadata.op_code, code);
        message.metadata.recursion_desired = header.metadata.recursion_desired;
        message.to_vec().map_or(Self::Ignored, Self::Refused)
    }
}

impl Question {
    /// Why nobody gets an answer to this question, if so.
    fn unanswerable(&self, edns: Option<&Edns>) -> Option<ResponseCode> {
        if edns.is_some_and(|edns| edns.version() > 0) {
            return Some(ResponseCode::BADVERS);
        }
        if self.query.query_class() != DNSClass::IN {
            return Some(ResponseCode::Refused);
        }
        match self.query.query_type() {
            RecordType::AXFR | RecordType::IXFR => Some(ResponseCode::Refused),
            RecordType::OPT | RecordType::ZERO | RecordType::TSIG => Some(ResponseCode::FormErr),
            RecordType::ANY => None,
            // Types that stand for several types, or for work other than an answer.
            kind if (128..=255).contains(&u16::from(kind)) => Some(ResponseCode::NotImp),
            _ => None,
        }
    }

    /// Whether the client wants names of other servers looked up.
    pub(crate) fn recursion_desired(&self) -> bool {
        self.recursion_desired
    }

    /// The longest answer that this client can take over UDP.
    pub(crate) fn udp_limit(&self) -> u16 {
        self.payload.unwrap_or(PLAIN_UDP).min(MAX_UDP)
    }

    /// The packet that answers: no longer than `limit`, else empty and marked as truncated.
    pub(crate) fn encode(&self, reply: Reply, limit: u16) -> Vec<u8> {
        let mut message = Message::response(self.id, self.op_code);
        message.metadata.recursion_desired = self.recursion_desired;
        message.metadata.checking_disabled = self.checking_disabled;
        message.metadata.recursion_available = reply.recursion_available;
        message.metadata.authoritative = reply.authoritative;
        message.metadata.response_code = reply.code;
        message.queries.push(self.query.clone());
        message.answers = reply.answers;
        message.authorities = reply.authority;
        if self.payload.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP);
            message.set_edns(edns);
        }
        match message.to_vec() {
            Ok(bytes) if bytes.len() <= usize::from(limit) => bytes,
            Ok(_) => message.truncate().to_vec().unwrap_or_default(),
            // More than one packet can hold, or records that no packet can: the client hears of a failure.
            Err(error) => {
                tracing::debug!(%error, "an answer can't be written");
                self.encode(Reply { code: ResponseCode::ServFail, ..Reply::default() }, limit)
            }
        }
    }

    /// The answer to somebody who asks too much: empty and truncated, so that a real client asks again over TCP.
    pub(crate) fn slip(&self) -> Vec<u8> {
        self.encode(Reply::default(), 0)
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::{Name, RData, rdata::TXT};

    use super::*;

    fn asked(kind: RecordType) -> Message {
        let mut message = Message::new(77, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii("a.Example.").unwrap(), kind));
        message
    }

    /// What became of a packet: nothing, a code, or a question.
    fn told(bytes: &[u8]) -> String {
        match Packet::parse(bytes) {
            Packet::Ignored => "ignored".to_owned(),
            Packet::Refused(bytes) => {
                let message = Message::from_vec(&bytes).unwrap();
                assert_eq!((message.id, message.message_type), (77, MessageType::Response));
                format!("{:?}", message.response_code)
            }
            Packet::Question(question) => format!("question {}", question.udp_limit()),
        }
    }

    #[test]
    fn only_plain_questions_are_taken() {
        let change = |change: fn(&mut Message)| {
            let mut message = asked(RecordType::A);
            change(&mut message);
            message.to_vec().unwrap()
        };
        let patch = |at: usize, value: u8| {
            let mut bytes = asked(RecordType::A).to_vec().unwrap();
            bytes[at] = value;
            bytes
        };
        let of = |kind: RecordType| asked(kind).to_vec().unwrap();
        for (what, bytes, expected) in [
            ("a question", change(|_| {}), "question 512"),
            ("nothing", vec![], "ignored"),
            ("half a header", vec![0, 77, 0, 0, 0, 1], "ignored"),
            ("an answer", change(|message| message.metadata.message_type = MessageType::Response), "ignored"),
            ("an update", change(|message| message.metadata.op_code = OpCode::Update), "Refused"),
            ("a notification", change(|message| message.metadata.op_code = OpCode::Notify), "Refused"),
            ("a status", change(|message| message.metadata.op_code = OpCode::Status), "NotImp"),
            ("no question", change(|message| message.queries.clear()), "FormErr"),
            ("two", change(|message| message.queries.push(message.queries[0].clone())), "FormErr"),
            ("65,535 questions", patch(4, 0xff), "FormErr"),
            ("promised additionals", patch(10, 0xff), "FormErr"),
            ("one additional that is not there", patch(11, 1), "FormErr"),
            ("a cut one", of(RecordType::A)[..20].to_vec(), "FormErr"),
            ("a label that is too long", patch(12, 70), "FormErr"),
            ("a name that leads to itself", patch(12, 0xc0).iter().copied().chain([0; 4]).collect(), "FormErr"),
            ("AXFR", of(RecordType::AXFR), "Refused"),
            ("IXFR", of(RecordType::IXFR), "Refused"),
            ("MAILB", of(RecordType::Unknown(253)), "NotImp"),
            ("ANY", of(RecordType::ANY), "question 512"),
            ("a type that nobody knows", of(RecordType::Unknown(65_280)), "question 512"),
            ("CHAOS", change(|message| message.queries[0].query_class = DNSClass::CH), "Refused"),
        ] {
            assert_eq!(told(&bytes), expected, "{what}");
        }
        // 16 is two codes in one: BADVERS in answers to EDNS, and BADSIG, which is what is read here.
        for (payload, version, expected) in
            [(4096, 0, "question 1232"), (600, 0, "question 600"), (0, 0, "question 512"), (1232, 1, "BADSIG")]
        {
            let mut message = asked(RecordType::A);
            let mut edns = Edns::new();
            edns.set_max_payload(payload).set_version(version);
            message.set_edns(edns);
            assert_eq!(told(&message.to_vec().unwrap()), expected, "{payload} {version}");
        }
    }

    #[test]
    fn what_is_too_long_is_truncated_to_nothing_but_the_question() {
        let Packet::Question(question) = Packet::parse(&asked(RecordType::TXT).to_vec().unwrap()) else { panic!() };
        let owner = Name::from_ascii("a.example.").unwrap();
        let text = |size| Record::from_rdata(owner.clone(), 5, RData::TXT(TXT::new(vec!["x".repeat(size)])));
        let reply = |records: usize| Reply { answers: vec![text(200); records], ..Reply::default() };
        let read = |bytes: Vec<u8>| Message::from_vec(&bytes).unwrap();
        let short = read(question.encode(reply(2), question.udp_limit()));
        assert_eq!((short.truncation, short.answers.len()), (false, 2));
        let long = read(question.encode(reply(3), question.udp_limit()));
        assert_eq!((long.truncation, long.answers.len(), long.queries.len()), (true, 0, 1));
        assert_eq!(long.queries[0].name().to_string(), "a.Example.");
        let over_tcp = read(question.encode(reply(200), MAX_TCP));
        assert_eq!((over_tcp.truncation, over_tcp.answers.len()), (false, 200));
        let slip = question.slip();
        assert!(read(slip.clone()).truncation && slip.len() <= asked(RecordType::TXT).to_vec().unwrap().len());
        // Sections that no message can hold end as something that can be sent.
        assert!(!question.encode(reply(1000), MAX_TCP).is_empty());
    }
}
