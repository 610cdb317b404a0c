//! The query path: a packet in, a packet out, from one immutable set of views. It takes no lock, reads no database and
//! waits for nothing; only a name of another server leaves it, as a piece of work with a limit of its own.

use std::{net::IpAddr, sync::Arc};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, Record},
};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    compile::{Seen, Views},
    forward::{Heard, Upstream},
    message::{MAX_TCP, Packet, Question, Reply},
    view::{Forwarder, Said, View},
    zone::denial,
};

/// What becomes of a packet.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Nothing is said.
    Silence,
    /// These bytes are.
    Now(Vec<u8>),
    /// Another server has to be asked first.
    Later(Box<Errand>),
}

/// A question that another server has to answer.
#[derive(Debug)]
pub(crate) struct Errand {
    views: Arc<Views>,
    source: IpAddr,
    local: IpAddr,
    question: Question,
    /// Aliases found here, of which the last leads elsewhere.
    said: Said,
    name: Name,
    upstream: Arc<Upstream>,
    limit: u16,
    _place: OwnedSemaphorePermit,
}

/// How the question came, which says how long an answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// As much as the client takes, and no more than passes everywhere.
    Udp,
    /// 64 KiB.
    Tcp,
}

/// Answers a packet from `source` that came to `local`.
pub(crate) fn answer(views: &Arc<Views>, bytes: &[u8], source: IpAddr, local: IpAddr, by: Transport) -> Answer {
    let question = match Packet::parse(bytes) {
        Packet::Ignored => return Answer::Silence,
        Packet::Refused(bytes) => return Answer::Now(bytes),
        Packet::Question(question) => question,
    };
    let limit = if by == Transport::Tcp { MAX_TCP } else { question.udp_limit() };
    let refused = |question: &Question| {
        Answer::Now(question.encode(Reply { code: ResponseCode::Refused, ..Reply::default() }, limit))
    };
    let Some(seen) = views.of(source, local) else { return refused(&question) };
    let kind = question.query.query_type();
    let (said, name) = match seen.view.say(question.query.name(), kind) {
        None if !(seen.recursion && question.recursion_desired()) => return refused(&question),
        None => (Said::default(), question.query.name().to_lowercase()),
        Some(mut said) => match said.elsewhere.take() {
            Some(name) if seen.recursion && question.recursion_desired() => (said, name.to_lowercase()),
            _ => return Answer::Now(question.encode(reply(said, seen, true), limit)),
        },
    };
    match seen.view.forwarder(&name) {
        Forwarder::Ask(upstream) => {
            let upstream = Arc::clone(upstream);
            let Some(place) = upstream.place() else {
                let failed = Reply { code: ResponseCode::ServFail, recursion_available: true, ..Reply::default() };
                return Answer::Now(question.encode(failed, limit));
            };
            let views = Arc::clone(views);
            let errand = Errand { views, source, local, question, said, name, upstream, limit, _place: place };
            Answer::Later(Box::new(errand))
        }
        Forwarder::Deny(suffix) => {
            let said = Said { code: ResponseCode::NXDomain, authority: vec![denial(suffix)], ..said };
            Answer::Now(question.encode(reply(said, seen, false), limit))
        }
        Forwarder::Nobody => {
            let said = Said { code: ResponseCode::ServFail, ..said };
            Answer::Now(question.encode(reply(said, seen, false), limit))
        }
    }
}

/// The answer to a question that is worth answering over TCP only.
pub(crate) fn slip(bytes: &[u8]) -> Option<Vec<u8>> {
    match Packet::parse(bytes) {
        Packet::Question(question) => Some(question.slip()),
        Packet::Ignored | Packet::Refused(_) => None,
    }
}

fn reply(said: Said, seen: Seen<'_>, authoritative: bool) -> Reply {
    Reply {
        code: said.code,
        authoritative,
        recursion_available: seen.recursion,
        answers: said.answers,
        authority: said.authority,
    }
}

impl Errand {
    /// Asks, and gives the packet that answers. Takes as long as the upstream's deadline at most.
    pub(crate) async fn run(self) -> Vec<u8> {
        let kind = self.question.query.query_type();
        let mut heard = self.upstream.ask(self.name, kind).await;
        let mut said = self.said;
        let view = self.views.of(self.source, self.local).map(|seen| seen.view);
        if let Some(here) = view.and_then(|view| overlay(view, &mut heard, kind)) {
            heard.code = here.code;
            heard.answers.extend(here.answers);
            heard.authority = here.authority;
        }
        said.answers.extend(heard.answers);
        let reply = Reply {
            code: heard.code,
            authoritative: false,
            recursion_available: true,
            answers: said.answers,
            authority: heard.authority,
        };
        self.question.encode(reply, self.limit)
    }
}

/// Where an alias of another server leads into a zone of the view, the view's records take the place of the rest: that
/// is how a public name gets a private address. Cuts `heard` behind that alias.
fn overlay(view: &View, heard: &mut Heard, kind: hickory_proto::rr::RecordType) -> Option<Said> {
    let (at, target) = heard.answers.iter().enumerate().find_map(|(at, record)| match &record.data {
        RData::CNAME(target) if view.holds(&target.0.to_lowercase()) => Some((at, target.0.clone())),
        _ => None,
    })?;
    let said = view.say(&target, kind)?;
    let before = |record: &Record| matches!(record.data, RData::CNAME(_));
    let kept: Vec<Record> = heard.answers.drain(..=at).filter(before).collect();
    heard.answers = kept;
    Some(said)
}
