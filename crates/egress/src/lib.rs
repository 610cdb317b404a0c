//! The egress gateway: the only way out of a sandbox, and what it lets through.
//!
//! A sandbox has no network of its own. Every TCP connection that its processes open arrives here, on a socket whose
//! local address is where they wanted to go, and every name that they look up is answered here. The gateway decides by
//! an [`EgressPolicy`], reads who the client says it talks to (TLS server name, HTTP host), resolves and dials itself,
//! checks the address it has found, and copies bytes. Each decision is recorded, and made again when the policy changes.
//!
//! A connection's phases, in `stream.rs`: accept → original destination → name of a fake address → decision →
//! inspection (`hello`, `http`) → dialling (`dial`) → relay (`relay`) → the log (`log`, by way of `recorder`).
//!
//! What it refuses to do: it never sends a byte upstream before the decision is made on what the client has said, never
//! dials an address that the decision does not cover whatever a name server says, never ends TLS itself, never lets one
//! sandbox's load or log keep others waiting, and in doubt it refuses. It holds no policy of its own: that is
//! `casemate_model::egress`.

mod attach;
mod bucket;
mod buffers;
mod config;
mod dial;
mod dns;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod hello;
mod http;
mod log;
mod metadata;
mod pipes;
mod pool;
mod recorder;
mod relay;
mod resolve;
mod stream;
#[cfg(test)]
mod tests;

use std::{io, sync::Arc};

use casemate_model::{Clock, Fault, FaultKind, ResourceId, egress::EgressPolicy};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use crate::{
    attach::Attachment,
    config::{EgressConfig, EgressLimits, EgressSockets, Owner},
    log::{DecisionLog, LogQuery},
    metadata::{IdentityToken, InstanceIdentity},
};
use crate::{
    attach::{Sandbox, Wire},
    buffers::{Buffers, Shelf},
    dns::{Responder, dns_socket, serve_dns},
    pipes::{PipeShelf, Pipes},
    pool::NamePool,
    recorder::{Event, Recorder},
    relay::Throttle,
    resolve::Upstream,
};

/// The gateway of one platform. A clone is the same gateway.
#[derive(Clone)]
pub struct Gateway(Arc<Shared>);

/// What all sandboxes of a gateway share.
struct Shared {
    config: EgressConfig,
    clock: Clock,
    log: DecisionLog,
    resolver: Upstream,
    shelf: Arc<Shelf>,
    pipes: Arc<PipeShelf>,
    tasks: TaskTracker,
}

impl Gateway {
    /// Opens the decision log and makes the gateway ready.
    ///
    /// # Errors
    /// When the log's directory can't be used, or the name server's address can't be.
    pub fn new(config: EgressConfig) -> Result<Self, Fault> {
        let clock = Clock::system();
        let resolver = Upstream::new(config.upstream_dns)?;
        let log = DecisionLog::open(&config.log_dir, clock.clone()).map_err(|error| {
            let dir = config.log_dir.display();
            let message = format!(
                "The decision log cannot be kept: {dir} cannot be made or written ({error}). Make it a directory of the \
                 platform's user."
            );
            Fault::new(FaultKind::Unavailable, "DecisionLogUnavailable", message)
        })?;
        let (shelf, pipes, tasks) = (Arc::default(), Arc::default(), TaskTracker::new());
        Ok(Self(Arc::new(Shared { config, clock, log, resolver, shelf, pipes, tasks })))
    }

    /// Serves a sandbox through its sockets until the attachment is dropped, which cuts every stream. Must be called
    /// within a tokio runtime. The decisions follow `policy` as it changes: streams that it no longer allows are cut
    /// within a second. A sender that is gone leaves the last policy in force.
    ///
    /// # Errors
    /// When the sockets are not what they should be.
    pub fn attach(
        &self,
        sockets: EgressSockets,
        owner: Owner,
        policy: watch::Receiver<Arc<EgressPolicy>>,
        identity: Option<Arc<dyn InstanceIdentity>>,
    ) -> io::Result<Attachment> {
        self.attach_by(sockets, owner, policy, identity, Wire::default())
    }

    fn attach_by(
        &self,
        sockets: EgressSockets,
        owner: Owner,
        policy: watch::Receiver<Arc<EgressPolicy>>,
        identity: Option<Arc<dyn InstanceIdentity>>,
        wire: Wire,
    ) -> io::Result<Attachment> {
        let shared = &self.0;
        let limits = shared.config.limits.clone();
        let listener = attach::listener(sockets.tcp)?;
        let dns = sockets.dns.into_iter().map(dns_socket).collect::<io::Result<Vec<_>>>()?;
        let workspace = ResourceId::parse(&owner.scope).ok();
        let recorder = Arc::new(Recorder::new(shared.log.clone(), owner, shared.clock.clone()));
        let pool = Arc::new(NamePool::new(limits.names, limits.new_names_per_minute));
        let responder = Arc::new(Responder::new(Arc::clone(&pool), policy.clone(), &limits, lookups(&recorder)));
        let sandbox = Sandbox {
            front_door: shared.config.front_door,
            callers: shared.config.callers.clone(),
            workspace,
            policy,
            pool,
            resolver: shared.resolver.for_sandbox(),
            recorder: Arc::clone(&recorder),
            identity,
            clock: shared.clock.clone(),
            buffers: Buffers::new(Arc::clone(&shared.shelf)),
            pipes: Pipes::new(Arc::clone(&shared.pipes)),
            throttle: Throttle::new(limits.bytes_per_second),
            tokens: Sandbox::token_permits(),
            wire,
            limits,
        };
        let sandbox = Arc::new(sandbox);
        let stop = CancellationToken::new();
        let attachment = Attachment {
            recorder,
            #[cfg(test)]
            pool: Arc::clone(&sandbox.pool),
            _stop: stop.clone().drop_guard(),
        };
        for socket in dns {
            shared.tasks.spawn(serve_dns(socket, Arc::clone(&responder), stop.clone()));
        }
        shared.tasks.spawn(stop.run_until_cancelled_owned(attach::serve(listener, sandbox)));
        Ok(attachment)
    }

    /// The log of what has been decided.
    #[must_use]
    pub fn log(&self) -> &DecisionLog {
        &self.0.log
    }
}

/// Has lookups recorded beside connections.
fn lookups(recorder: &Arc<Recorder>) -> dns::RecordLookup {
    let recorder = Arc::clone(recorder);
    Box::new(move |name, decision| {
        let name = Some(name.to_owned());
        recorder.record(Event { name, ..Event::decided(None, None, 0, "dns", decision) });
    })
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("config", &self.0.config).finish_non_exhaustive()
    }
}
