//! One connection from its arrival to its end: destination, decision, inspection, dialling, relay, record.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use casemate_model::egress::{
    AddressClass, Decision, EgressPolicy, HostName, Inspection, Route, Verdict, classify, unmapped,
};
use tokio::{
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};

use crate::{
    attach::Sandbox,
    dial::{DialError, Dialled, dial, still_leads_to},
    hello,
    http::{self, Approved, First, HttpEnd, Refusal},
    metadata,
    recorder::Event,
    relay::{Flow, Means, relay},
};

/// A stream that is open so long is recorded then as well as at its end.
const OPEN: Duration = Duration::from_secs(10);
const LOOKED_AT: &str = "The policy now looks at what such connections say first. Connect again.";
const FORGOTTEN: &str = "The name that this address stood for is not known any more. Look the name up again.";

/// Where a client wanted to go.
#[derive(Debug, Clone)]
pub(crate) struct Destination {
    /// The name whose fake address it is; none for an address that stands for itself.
    pub(crate) name: Option<HostName>,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

impl Destination {
    fn decide(&self, policy: &EgressPolicy) -> Decision {
        match &self.name {
            Some(name) => policy.name(name, self.port),
            None => match policy.address(self.address, self.port) {
                decision if !decision.is_allowed() && classify(self.address) == AddressClass::Benchmark => {
                    Decision { reason: FORGOTTEN.to_owned(), ..decision }
                }
                decision => decision,
            },
        }
    }

    fn judge(&self, policy: &EgressPolicy) -> (Decision, Inspection) {
        (self.decide(policy), self.inspection(policy))
    }

    /// How the first bytes are checked. An address has no name that they could be compared with: its rule names it.
    fn inspection(&self, policy: &EgressPolicy) -> Inspection {
        self.name.as_ref().map_or(Inspection::Raw, |name| policy.inspection(name, self.port))
    }

    /// What to call it in a sentence.
    pub(crate) fn shown(&self) -> String {
        self.name.as_ref().map_or_else(|| self.address.to_string(), ToString::to_string)
    }

    fn event(&self, protocol: &'static str, decision: &Decision) -> Event {
        let address = self.name.is_none().then_some(self.address);
        Event::decided(self.name.as_ref(), address, self.port, protocol, decision)
    }
}

/// Serves one connection. Whatever ends it before its time resets it: `client` does not linger.
pub(crate) async fn serve(sandbox: &Sandbox, mut client: TcpStream, half_open: OwnedSemaphorePermit) {
    let Ok(local) = client.local_addr() else { return };
    let local = sandbox.wire.original(local);
    let original = SocketAddr::new(unmapped(local.ip()), local.port());
    if original == metadata::ADDRESS {
        return metadata::serve(sandbox, client).await;
    }
    let (address, port) = (original.ip(), original.port());
    let destination = Destination { name: sandbox.pool.name_of(address), address, port };
    let mut policy = sandbox.policy.clone();
    let (decision, inspection) = destination.judge(&policy.borrow_and_update());
    let protocol = if inspection == Inspection::Http { "http" } else { "tcp" };
    let event = destination.event(protocol, &decision);
    if !decision.is_allowed() {
        return sandbox.recorder.record(event);
    }
    let opening = match inspect(sandbox, &mut client, &destination, inspection).await {
        Ok(opening) => opening,
        Err(refusal) => return refuse(sandbox, client, event, refusal).await,
    };
    drop(half_open);
    // The client may have taken its time: what counts is the policy now.
    let (decision, now) = destination.judge(&policy.borrow_and_update());
    let event = destination.event(protocol, &decision);
    let Verdict::Allow(route) = decision.verdict else { return sandbox.recorder.record(event) };
    if now != inspection && now != Inspection::Raw {
        return sandbox.recorder.record(event.refused(LOOKED_AT));
    }
    let mut dialled = match dial(sandbox, &destination, &route).await {
        Ok(dialled) => dialled,
        Err(error) => return not_dialled(sandbox, client, event, error, &opening).await,
    };
    // A socket that never wants to linger can't fail to be told so: from here on only a good end is no reset.
    let _ = dialled.stream.set_zero_linger();
    let _ = dialled.stream.set_nodelay(true);
    let flow = Flow::default();
    let end = {
        let means =
            Means { buffers: &sandbox.buffers, pipes: &sandbox.pipes, throttle: &sandbox.throttle, flow: &flow };
        let stream = Stream { sandbox, destination: &destination, route: &route, inspection, address: dialled.address };
        let work = stream.work(means, &mut client, &mut dialled.stream, opening);
        stream.supervise(work, &mut policy, &flow, &event).await
    };
    finish(sandbox, client, dialled, event, &flow, end).await;
}

/// What the client has said so far.
enum Opening {
    Bytes(Vec<u8>),
    Http(Box<First>),
}

/// Why a connection that the policy lets through goes nowhere, and what the client is told.
struct Refused {
    reason: String,
    answer: Option<Refusal>,
}

async fn inspect(
    sandbox: &Sandbox,
    client: &mut TcpStream,
    destination: &Destination,
    inspection: Inspection,
) -> Result<Opening, Refused> {
    let silent = |reason: String| Refused { reason, answer: None };
    let deadline = Instant::now() + sandbox.limits.hello_deadline;
    let slow =
        || format!("The client did not say whom it talks to within {} s.", sandbox.limits.hello_deadline.as_secs());
    let Some(name) = &destination.name else { return Ok(Opening::Bytes(Vec::new())) };
    match inspection {
        Inspection::Raw => Ok(Opening::Bytes(Vec::new())),
        Inspection::Tls => match timeout_at(deadline, hello::read(client, name)).await {
            Ok(Ok(bytes)) => Ok(Opening::Bytes(bytes)),
            Ok(Err(error)) => Err(silent(format!("The connection to {name} was refused: {error}."))),
            Err(_) => Err(silent(slow())),
        },
        Inspection::Http => match http::first(client, name, destination.port, deadline).await {
            Ok(Ok(first)) => Ok(Opening::Http(Box::new(first))),
            Ok(Err(refusal)) => Err(Refused { reason: request_refused(&refusal), answer: Some(refusal) }),
            Err(error) => Err(silent(format!("The client ended before it had sent a request ({}).", error.kind()))),
        },
    }
}

fn request_refused(refusal: &Refusal) -> String {
    format!("A request was refused with {}. {}", refusal.status, refusal.reason)
}

async fn refuse(sandbox: &Sandbox, mut client: TcpStream, event: Event, refused: Refused) {
    sandbox.recorder.record(event.refused(refused.reason));
    if let Some(refusal) = refused.answer {
        http::answer(&mut client, &refusal).await;
        end_well(&client);
    }
}

async fn not_dialled(sandbox: &Sandbox, mut client: TcpStream, event: Event, error: DialError, opening: &Opening) {
    let (event, refusal) = match error {
        DialError::Refused { address, reason } => {
            let refusal = Refusal::new(403, reason.clone());
            (Event { address: address.or(event.address), ..event.refused(reason) }, refusal)
        }
        DialError::Failed { address, reason } => {
            let refusal = Refusal::new(502, reason.clone());
            (Event { address: address.or(event.address), reason, ..event }, refusal)
        }
    };
    sandbox.recorder.record(event);
    if matches!(opening, Opening::Http(_)) {
        http::answer(&mut client, &refusal).await;
        end_well(&client);
    }
}

/// How a stream ended.
enum End {
    Done(HttpEnd),
    Broken(io::Error),
    Idle,
    Cut(String),
}

/// A stream that is open.
struct Stream<'a> {
    sandbox: &'a Sandbox,
    destination: &'a Destination,
    route: &'a Route,
    inspection: Inspection,
    address: SocketAddr,
}

impl Stream<'_> {
    async fn work(
        &self,
        means: Means<'_>,
        client: &mut TcpStream,
        upstream: &mut TcpStream,
        opening: Opening,
    ) -> io::Result<HttpEnd> {
        match (opening, &self.destination.name) {
            (Opening::Http(first), Some(name)) => {
                let holds = || match self.objection(&self.sandbox.policy()) {
                    None => Ok(()),
                    Some(reason) => Err(Refusal::new(403, reason)),
                };
                let patience = self.sandbox.limits.hello_deadline;
                let approved = Approved { name, port: self.destination.port, patience, holds: &holds };
                http::serve(means, &approved, client, upstream, *first).await
            }
            (Opening::Http(_), None) => Err(io::Error::other("only names are inspected")),
            (Opening::Bytes(bytes), _) => {
                relay(means, client, upstream, (&bytes, &[])).await.map(|()| HttpEnd::Finished)
            }
        }
    }

    /// Runs `work` until it ends, nothing moves any more, or the policy changes its mind.
    async fn supervise(
        &self,
        work: impl Future<Output = io::Result<HttpEnd>>,
        policy: &mut tokio::sync::watch::Receiver<std::sync::Arc<EgressPolicy>>,
        flow: &Flow,
        event: &Event,
    ) -> End {
        let mut work = std::pin::pin!(work);
        let idle = self.sandbox.limits.idle_timeout;
        let mut tick = tokio::time::interval((idle / 4).clamp(Duration::from_millis(10), Duration::from_secs(1)));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (begun, mut moved_at, mut moved) = (Instant::now(), Instant::now(), flow.moved());
        let (mut told, mut followed) = (false, true);
        loop {
            tokio::select! {
                biased;
                changed = policy.changed(), if followed => {
                    followed = changed.is_ok();
                    let objection = self.objection(&policy.borrow_and_update());
                    if let Some(reason) = objection {
                        return End::Cut(reason);
                    }
                }
                done = &mut work => return done.map_or_else(End::Broken, End::Done),
                now = tick.tick() => {
                    if flow.moved() != moved {
                        (moved, moved_at) = (flow.moved(), now);
                    } else if now.saturating_duration_since(moved_at) >= idle {
                        return End::Idle;
                    }
                    if !told && begun.elapsed() >= OPEN {
                        told = true;
                        let reason = format!("{} It is open.", event.reason);
                        self.sandbox.recorder.record(Event { reason, address: Some(self.address.ip()), ..event.clone() });
                    }
                }
            }
        }
    }

    /// Why `policy` would not have this stream; none when it would, with no closer look at what it carries.
    fn objection(&self, policy: &EgressPolicy) -> Option<String> {
        let decision = self.destination.decide(policy);
        let Verdict::Allow(route) = &decision.verdict else { return Some(decision.reason) };
        if !still_leads_to(policy, route, self.route, self.address, self.sandbox.front_door) {
            return Some("The policy now leads it elsewhere. Connect again.".to_owned());
        }
        let inspection = self.destination.inspection(policy);
        if inspection != self.inspection && inspection != Inspection::Raw {
            return Some(LOOKED_AT.to_owned());
        }
        None
    }
}

async fn finish(sandbox: &Sandbox, mut client: TcpStream, dialled: Dialled, event: Event, flow: &Flow, end: End) {
    let event = Event { address: Some(dialled.address.ip()), sent: flow.sent(), received: flow.received(), ..event };
    match end {
        End::Done(HttpEnd::Finished) => {
            end_well(&client);
            end_well(&dialled.stream);
            sandbox.recorder.record(event);
        }
        End::Done(HttpEnd::Refused(refusal)) => {
            end_well(&dialled.stream);
            let refused = Event { sent: 0, received: 0, ..event.clone() }.refused(request_refused(&refusal));
            sandbox.recorder.record(event);
            sandbox.recorder.record(refused);
            http::answer(&mut client, &refusal).await;
            end_well(&client);
        }
        End::Broken(error) => {
            let reason = format!("{} It was reset ({error}).", event.reason);
            sandbox.recorder.record(Event { reason, ..event });
        }
        End::Idle => {
            let seconds = sandbox.limits.idle_timeout.as_secs();
            let reason = format!("{} It was reset: nothing had moved for {seconds} s.", event.reason);
            sandbox.recorder.record(Event { reason, ..event });
        }
        End::Cut(reason) => {
            sandbox.recorder.record(event.refused(format!("The connection was cut when the policy changed. {reason}")));
        }
    }
}

/// Lets a socket end as sockets usually do: what is sent arrives.
#[expect(deprecated, reason = "a linger time is what blocks; this takes it away")]
pub(crate) fn end_well(stream: &TcpStream) {
    // A socket that has failed meanwhile has nothing to send.
    let _ = stream.set_linger(None);
}
