//! The ways in: public listeners, and private ones that come and go while the platform runs.
//!
//! A connection's way is fixed when it is accepted and says where all its requests come from. A private listener that
//! is taken away takes its connections with it.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use casemate_model::{
    ResourceId,
    inbound::{Origin, PrivateListener},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tokio_util::sync::CancellationToken;

use crate::GatewayConfig;

/// The private listeners that are wanted, as they change. One that stays must stay the same `Arc`.
pub type PrivateListeners = watch::Receiver<Arc<Vec<Arc<PrivateListener>>>>;

/// An open private listener.
pub(crate) struct Door {
    pub(crate) listener: Arc<PrivateListener>,
    /// Connections that it serves at once.
    pub(crate) places: Arc<Semaphore>,
    /// Cancelled when it is taken away.
    pub(crate) closed: CancellationToken,
}

/// The way that a connection came in.
#[derive(Clone)]
pub(crate) enum Way {
    Public,
    Private(Arc<Door>),
    /// From a deployment of this workspace, over a public listener.
    Deployment {
        workspace: Arc<ResourceId>,
        /// Whether the caller's address may call there as well.
        public: bool,
    },
}

impl Way {
    /// Where the requests of `caller` come from.
    pub(crate) fn origin(&self, caller: SocketAddr) -> Origin {
        match self {
            Self::Public => Origin::Public { caller: caller.ip().to_canonical() },
            Self::Private(door) => door.listener.origin(caller.ip()),
            Self::Deployment { workspace, public } => Origin::Deployment {
                workspace: ResourceId::clone(workspace),
                public: public.then(|| caller.ip().to_canonical()),
            },
        }
    }

    /// Cancelled when connections that came this way must end.
    pub(crate) fn closed(&self) -> CancellationToken {
        match self {
            Self::Public | Self::Deployment { .. } => CancellationToken::new(),
            Self::Private(door) => door.closed.child_token(),
        }
    }
}

/// All open private listeners, by address and port.
#[derive(Default)]
pub(crate) struct Doors(ArcSwap<HashMap<SocketAddr, Arc<Door>>>);

impl Doors {
    /// Opens and closes doors so that they are those of `wanted`; gives the new ones. Doors that are closed cut their
    /// connections.
    pub(crate) fn update(&self, wanted: &[Arc<PrivateListener>], places: usize) -> Vec<Arc<Door>> {
        let before = self.0.load_full();
        let mut opened = Vec::new();
        let mut next = HashMap::with_capacity(wanted.len());
        for listener in wanted {
            let known = before.get(&listener.address).filter(|door| Arc::ptr_eq(&door.listener, listener));
            let door = known.cloned().unwrap_or_else(|| {
                let door = Arc::new(Door {
                    listener: Arc::clone(listener),
                    places: Arc::new(Semaphore::new(places)),
                    closed: CancellationToken::new(),
                });
                opened.push(Arc::clone(&door));
                door
            });
            next.insert(listener.address, door);
        }
        let kept =
            |address: &SocketAddr, door: &Arc<Door>| next.get(address).is_some_and(|kept| Arc::ptr_eq(kept, door));
        let gone: Vec<Arc<Door>> =
            before.iter().filter(|(address, door)| !kept(address, door)).map(|(_, door)| Arc::clone(door)).collect();
        self.0.store(Arc::new(next));
        gone.iter().for_each(|door| door.closed.cancel());
        opened
    }

    /// The way of a connection from `caller` that a public listener took. A wildcard listener takes those to private
    /// addresses as well, and the deployments of this machine call here.
    pub(crate) fn way(&self, stream: &TcpStream, caller: SocketAddr, config: &GatewayConfig) -> io::Result<Way> {
        let doors = self.0.load();
        if doors.is_empty() && config.deployments.is_empty() {
            return Ok(Way::Public);
        }
        let local = stream.local_addr()?;
        let local = SocketAddr::new(local.ip().to_canonical(), local.port());
        if let Some(door) = doors.get(&local) {
            return Ok(Way::Private(Arc::clone(door)));
        }
        // A deployment's connection has the front door's own address at both ends; no other one is looked up.
        let inside = caller.ip().to_canonical() == local.ip();
        let workspace = inside.then(|| config.deployments.claim(caller)).flatten();
        Ok(workspace.map_or(Way::Public, |workspace| Way::Deployment {
            workspace: Arc::new(workspace),
            public: config.allow_from.admits(caller.ip()),
        }))
    }
}

impl Door {
    /// Its own socket, for the runtime; none where a wildcard listener takes its connections.
    pub(crate) fn socket(&self) -> io::Result<Option<TcpListener>> {
        let Some(socket) = &self.listener.socket else { return Ok(None) };
        let socket = socket.try_clone()?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket).map(Some)
    }
}
