//! One sandbox at the gateway: its sockets, its share of everything, and the loop that accepts.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use casemate_model::{
    Clock, ResourceId,
    egress::{EgressPolicy, LogEntry, unmapped},
    inbound::DeploymentCallers,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tokio_util::sync::DropGuard;

use crate::{
    EgressLimits, InstanceIdentity,
    buffers::Buffers,
    pipes::Pipes,
    pool::NamePool,
    recorder::{Event, Recorder},
    relay::Throttle,
    resolve::Upstream,
    stream,
};

/// How long the loop rests when a connection can't be accepted: the process has no file descriptor left.
const PAUSE: Duration = Duration::from_millis(50);
/// Tokens that one sandbox may be waiting for at once.
const TOKENS: usize = 4;

/// A sandbox that is served. Dropping it cuts every stream and closes the sockets.
pub struct Attachment {
    pub(crate) recorder: Arc<Recorder>,
    #[cfg(test)]
    pub(crate) pool: Arc<NamePool>,
    pub(crate) _stop: DropGuard,
}

impl Attachment {
    /// The latest refusals of different destinations (64 at most), the newest first.
    #[must_use]
    pub fn refusals(&self) -> Vec<LogEntry> {
        self.recorder.refusals()
    }
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Attachment")
    }
}

/// What all connections of one sandbox share.
pub(crate) struct Sandbox {
    pub(crate) limits: EgressLimits,
    pub(crate) front_door: SocketAddr,
    pub(crate) callers: DeploymentCallers,
    /// The owner's workspace, as which it calls the front door; none when the owner is none.
    pub(crate) workspace: Option<ResourceId>,
    pub(crate) policy: watch::Receiver<Arc<EgressPolicy>>,
    pub(crate) pool: Arc<NamePool>,
    pub(crate) resolver: Upstream,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) identity: Option<Arc<dyn InstanceIdentity>>,
    pub(crate) clock: Clock,
    pub(crate) buffers: Buffers,
    pub(crate) pipes: Pipes,
    pub(crate) throttle: Throttle,
    pub(crate) tokens: Arc<Semaphore>,
    pub(crate) wire: Wire,
}

impl Sandbox {
    pub(crate) fn token_permits() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(TOKENS))
    }

    /// The policy as it is now.
    pub(crate) fn policy(&self) -> Arc<EgressPolicy> {
        Arc::clone(&self.policy.borrow())
    }
}

/// Where sockets really lead. In tests the sandbox and the internet are both on this machine's loopback interface, so
/// their addresses are translated at the two ends; otherwise an address is what it is.
#[derive(Default)]
pub(crate) struct Wire {
    #[cfg(test)]
    pub(crate) map: Option<Arc<crate::tests::Map>>,
}

impl Wire {
    /// The destination that the local address of an accepted socket stands for.
    pub(crate) fn original(&self, local: SocketAddr) -> SocketAddr {
        #[cfg(test)]
        if let Some(map) = &self.map {
            return map.original(local);
        }
        local
    }

    /// What to connect to for an address that has passed every check.
    pub(crate) fn to_upstream(&self, address: SocketAddr) -> SocketAddr {
        #[cfg(test)]
        if let Some(map) = &self.map {
            return map.upstream(address);
        }
        address
    }
}

/// Takes over a listening socket.
pub(crate) fn listener(socket: OwnedFd) -> io::Result<TcpListener> {
    let listener = StdListener::from(socket);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Accepts and serves until it is dropped, which drops, and so resets, every connection.
pub(crate) async fn serve(listener: TcpListener, sandbox: Arc<Sandbox>) {
    let connections = Arc::new(Semaphore::new(sandbox.limits.connections));
    let half_open = Arc::new(Semaphore::new(sandbox.limits.half_open));
    let mut streams = JoinSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = tick.tick() => sandbox.recorder.tick(),
            Some(_) = streams.join_next(), if !streams.is_empty() => {}
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                };
                // Whatever goes wrong from here on is a reset.
                let _ = client.set_zero_linger();
                let _ = client.set_nodelay(true);
                let permits = (Arc::clone(&connections).try_acquire_owned(), Arc::clone(&half_open).try_acquire_owned());
                let (connection, half_open) = match permits {
                    (Ok(connection), Ok(half_open)) => (connection, half_open),
                    (Ok(_), Err(_)) => {
                        too_many(&sandbox, &client, format!("{} have not said whom they talk to", sandbox.limits.half_open));
                        continue;
                    }
                    (Err(_), _) => {
                        too_many(&sandbox, &client, format!("{} are open", sandbox.limits.connections));
                        continue;
                    }
                };
                let sandbox = Arc::clone(&sandbox);
                streams.spawn(async move {
                    let _connection = connection;
                    stream::serve(&sandbox, client, half_open).await;
                });
            }
        }
    }
}

fn too_many(sandbox: &Sandbox, client: &TcpStream, what: String) {
    let Ok(local) = client.local_addr() else { return };
    let original = sandbox.wire.original(local);
    let (address, port) = (unmapped(original.ip()), original.port());
    let name = sandbox.pool.name_of(address);
    sandbox.recorder.record(Event {
        address: name.is_none().then_some(address),
        name: name.map(|name| name.as_str().to_owned()),
        port,
        protocol: "tcp",
        reason: format!("Too many connections of this instance at once: {what}. Close some, or use them again."),
        ..Event::default()
    });
}
