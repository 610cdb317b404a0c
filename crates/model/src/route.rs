//! The route table: everything a scoring request needs, in one immutable snapshot.
//!
//! Reconcilers build a new table and publish it; the router only ever reads the last one published.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    ResourceId,
    deployment::RequestSettings,
    endpoint::AuthMode,
    inbound::AllowList,
    traffic::{Mirror, TrafficSplit},
};

/// All endpoints and all services of the first generation.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    /// By lower-case endpoint name, which is unique on the platform.
    pub endpoints: HashMap<String, Arc<EndpointRoute>>,
    /// By lower-case service name, which is unique on the platform.
    pub services: HashMap<String, Arc<ServiceRoute>>,
    /// What is found at the host names of computes and services, by lower-case name without a trailing dot. Endpoints'
    /// own hosts are not here: they follow from the endpoint's name.
    pub hosts: HashMap<String, HostRoute>,
    /// Lower-case host names, endpoints' own among them, whose owners want TLS settings of their own, such as client
    /// certificates. What is served there is given to connections with such settings only, also while these are not
    /// served yet or can't be read.
    pub guarded: HashSet<String>,
}

/// One service of the first generation: an endpoint behind other addresses.
#[derive(Debug, Clone)]
pub struct ServiceRoute {
    /// Who may call it and what answers.
    pub endpoint: Arc<EndpointRoute>,
    /// The compute that it runs on; services that run on none have a host name of their own.
    pub compute: Option<ResourceId>,
    /// Whether it may be called on the plain port.
    pub plain: bool,
    /// Whether it may be called on the TLS port.
    pub tls: bool,
}

/// What is found at a host name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostRoute {
    /// The services of this compute, at `/api/v1/service/<name>/score` and `…/swagger.json`.
    Compute(ResourceId),
    /// The service with this lower-case name, at `/`, `/score` and `/swagger.json`.
    Service(String),
}

/// SHA-256 of a key: what the router compares with, so that no table holds a key itself.
pub type KeyDigest = [u8; 32];

/// The digest of a key.
#[must_use]
pub fn key_digest(key: &[u8]) -> KeyDigest {
    let mut digest = KeyDigest::default();
    digest.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key).as_ref());
    digest
}

/// One endpoint.
#[derive(Debug, Clone)]
pub struct EndpointRoute {
    /// Its name as created.
    pub name: String,
    /// Its resource id, the subject that its own tokens are issued for.
    pub id: String,
    /// The workspace that it lies in: its private endpoints lead to it.
    pub workspace: ResourceId,
    /// Whether callers may come from anywhere; if not, only through a private endpoint.
    pub public_access: bool,
    /// From where callers may come over public listeners.
    pub allowed_callers: AllowList,
    /// How callers authenticate.
    pub auth: AuthMode,
    /// Digests of the primary and the secondary key; empty unless `auth` is `Key`.
    pub keys: Vec<KeyDigest>,
    /// Object ids of the principals that may score (AAD tokens).
    pub scorers: HashSet<String>,
    /// Live percentages.
    pub traffic: TrafficSplit,
    /// Mirror target.
    pub mirror: Option<Mirror>,
    /// Deployments by lower-case name.
    pub deployments: HashMap<String, Arc<DeploymentRoute>>,
}

/// One deployment that has succeeded at least once.
#[derive(Debug, Clone)]
pub struct DeploymentRoute {
    /// Its name as created.
    pub name: String,
    /// Its limits.
    pub limits: RequestSettings,
    /// Its instances that are ready now.
    pub instances: Vec<Arc<Upstream>>,
}

/// A way to a model process: makes unconnected TCP sockets that live in its network namespace.
pub trait Dial: Send + Sync {
    /// A new non-blocking, close-on-exec TCP socket, to be connected by the caller.
    ///
    /// # Errors
    /// When the instance is gone, or the system is out of descriptors.
    fn socket(&self) -> io::Result<OwnedFd>;
}

/// One ready instance.
pub struct Upstream {
    /// Unique while the platform runs: a restarted instance gets a new one.
    pub id: u64,
    /// Where its server listens, as seen from inside its network namespace.
    pub address: SocketAddr,
    /// How to get there.
    pub dial: Arc<dyn Dial>,
    /// Requests now in flight, counted by the router; shared by all tables that hold this instance.
    in_flight: AtomicUsize,
}

impl Upstream {
    /// An instance with nothing in flight.
    #[must_use]
    pub fn new(id: u64, address: SocketAddr, dial: Arc<dyn Dial>) -> Self {
        Self { id, address, dial, in_flight: AtomicUsize::new(0) }
    }

    /// Requests now in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Takes a place if fewer than `limit` are taken; the place is given back when the guard is dropped.
    #[must_use]
    pub fn try_enter(self: &Arc<Self>, limit: usize) -> Option<InFlight> {
        let taken =
            self.in_flight.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| (now < limit).then_some(now + 1));
        taken.ok().map(|_| InFlight(Arc::clone(self)))
    }
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("id", &self.id).field("address", &self.address).finish_non_exhaustive()
    }
}

/// A request's place at an instance; dropping it gives the place back.
#[derive(Debug)]
pub struct InFlight(Arc<Upstream>);

impl InFlight {
    /// The instance.
    #[must_use]
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}
