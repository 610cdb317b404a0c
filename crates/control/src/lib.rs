//! The reconcilers: they read what is wanted from the store, make it so, and write what they saw.
//!
//! One loop ([`Control::run`]) is woken by every commit, by every change of an instance, and by a timer. Each round is
//! idempotent and takes no input but the store: it makes certificates, hands each deployment's wish to the actor that
//! owns its instances, publishes what instances may reach and the route table, and finishes operations and deletions. A restart and normal
//! operation share this one path.
//!
//! This room never answers a request and never touches a traffic path: what it publishes are immutable snapshots.

mod actor;
mod artifacts;
mod board;
mod certificates;
mod computes;
mod deletion;
mod fleet;
mod host;
mod identity;
mod networks;
mod outbound;
mod package;
mod routes;
mod secrets;
mod services;
mod trust;
mod wish;

use std::{path::PathBuf, sync::Arc, time::Duration};

use casemate_blob::BlobStore;
use casemate_identity::TokenAuthority;
use casemate_model::{
    Fault, OperationStatus, Resource, ResourceId,
    deployment::DEPLOYMENT_TYPE,
    egress::ServiceTags,
    endpoint::{ENDPOINT_TYPE, EndpointSpec},
    operation::{Operation, OperationKind},
    route::RouteTable,
    service::{SERVICE_DEPLOYMENT_TYPE, SERVICE_TYPE},
    tls::{PLATFORM_OWNER, TlsOutcome},
};
use casemate_runtime::Backend;
use casemate_store::{Filter, Store};
use serde_json::{Map, json};
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

pub use self::trust::BUNDLE as TRUST_BUNDLE;
use crate::{
    board::Board,
    certificates::COMPUTE_TYPE,
    identity::Identities,
    outbound::{Outbound, Policies},
};
pub use crate::{
    certificates::{Certificates, FrontDoor, Issuers, Probe, PublishRoots, open_authority, trusted_roots},
    host::own_addresses,
    networks::{NetworkStatus, Networks},
};

/// Reconcile at least this often, whatever happens.
const ROUND: Duration = Duration::from_secs(5);
/// Look for left-over files this often.
const SWEEP: Duration = Duration::from_secs(24 * 3600);
/// Wait this long after a failed round before the next.
const RETRY: Duration = Duration::from_secs(1);

/// Names and places that the reconcilers need.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// The state directory.
    pub state_dir: PathBuf,
    /// The region, a label of every endpoint's DNS name.
    pub region: String,
    /// The platform's DNS domain.
    pub domain: String,
    /// `https://host:port` of the front door.
    pub url: String,
    /// Whether there is a plain port, for services without TLS. Without one they are served on the TLS port.
    pub has_plain_port: bool,
    /// Whether `<endpoint>.<region>.inference.<domain>` resolves to the front door on this machine; if not, scoring
    /// addresses are given in the form that needs no DNS.
    pub endpoint_names_resolve: bool,
    /// Names and addresses on the platform's own certificate.
    pub platform_names: Vec<String>,
    /// The service tags that outbound rules may name.
    pub tags: Arc<ServiceTags>,
}

/// What all reconcilers share.
struct Shared<B> {
    store: Store,
    blob: Arc<BlobStore>,
    backend: B,
    config: ControlConfig,
    board: Board,
    actors: actor::Registry,
    /// What each deployment may reach.
    policies: Policies,
    /// Who each endpoint is.
    identities: Arc<Identities>,
    /// Rings when a round is due.
    wake: Notify,
    /// Counts route tables as they are published.
    published: watch::Sender<u64>,
    /// Owns every task of this room.
    tasks: TaskTracker,
    shutdown: CancellationToken,
}

/// The reconcilers of one platform.
pub struct Control<B: Backend> {
    shared: Arc<Shared<B>>,
    certificates: Certificates,
    /// The owner of the platform's own certificate.
    platform: ResourceId,
    outbound: Outbound,
    routes: watch::Sender<Arc<RouteTable>>,
}

impl<B: Backend> Control<B> {
    /// Sets up the reconcilers; nothing happens until [`Control::run`]. Route tables appear on the returned receiver.
    pub fn new(
        store: Store,
        blob: Arc<BlobStore>,
        backend: B,
        certificates: Certificates,
        tokens: Arc<TokenAuthority>,
        config: ControlConfig,
    ) -> (Self, watch::Receiver<Arc<RouteTable>>) {
        let (routes, receiver) = watch::channel(Arc::new(RouteTable::default()));
        let outbound = Outbound::new(Arc::clone(&config.tags));
        let shared = Arc::new(Shared {
            store,
            blob,
            backend,
            config,
            board: Board::default(),
            actors: actor::Registry::default(),
            policies: Policies::default(),
            identities: Arc::new(Identities::new(tokens)),
            wake: Notify::new(),
            published: watch::Sender::new(0),
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
        });
        let platform = ResourceId::parse(PLATFORM_OWNER).expect("the id is well-formed");
        (Self { shared, certificates, platform, outbound, routes }, receiver)
    }

    /// Makes the platform's own certificate and publishes it, so that the front door can open.
    ///
    /// # Errors
    /// When the store can't be read or written, or the certificate can't be issued.
    pub async fn prepare(&mut self) -> Result<(), Fault> {
        self.sweep().await?;
        self.round().await
    }

    /// Reconciles until `shutdown`, then stops every instance and returns.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut commits = self.shared.store.subscribe();
        let mut swept = tokio::time::Instant::now();
        self.certificates.open();
        loop {
            if swept.elapsed() > SWEEP {
                swept = tokio::time::Instant::now();
                if let Err(fault) = self.sweep().await {
                    tracing::warn!(%fault, "left-over files could not be removed; trying again tomorrow");
                }
            }
            let pause = match self.round().await {
                Ok(()) => ROUND,
                Err(fault) => {
                    tracing::error!(%fault, "a reconcile round failed and will be tried again");
                    RETRY
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = commits.changed() => if changed.is_err() { break },
                () = self.shared.wake.notified() => {}
                () = self.certificates.finished() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.shared.shutdown.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// Removes files that nothing owns any more: half-made links, uploads that were never finished.
    async fn sweep(&self) -> Result<(), Fault> {
        artifacts::sweep(&self.shared).await?;
        self.shared.blob.sweep().await?;
        Ok(())
    }

    /// One round: read everything, act, publish, finish.
    async fn round(&mut self) -> Result<(), Fault> {
        let store = &self.shared.store;
        let endpoints = store.resource_list(&Filter::of_type(ENDPOINT_TYPE)).await?;
        let services = store.resource_list(&Filter::of_type(SERVICE_TYPE)).await?;
        let mut deployments = store.resource_list(&Filter::of_type(DEPLOYMENT_TYPE)).await?;
        deployments.extend(store.resource_list(&Filter::of_type(SERVICE_DEPLOYMENT_TYPE)).await?);
        let computes = store.resource_list(&Filter::of_type(COMPUTE_TYPE)).await?;
        let pending = store.operations_pending().await?;

        // First: what is not allowed any more is cut before anything else happens.
        self.outbound.reconcile(&self.shared, &endpoints).await?;
        let owners = || endpoints.iter().chain(&services).chain(&computes);
        let platform = store.resource_get(&self.platform).await?;
        let wanted = certificates::wanted(&self.shared.config, (&self.platform, platform.as_ref()), owners());
        self.certificates.reconcile(wanted, &pending).await?;
        actor::reconcile(&self.shared, &deployments);

        let mut table = routes::build(&self.shared, &endpoints, &deployments).await?;
        services::add(&self.shared, &mut table, &services, &deployments).await?;
        computes::add(&mut table, &computes);
        routes::guard(&self.shared.config, &mut table, owners());
        self.routes.send_replace(Arc::new(table));
        self.shared.published.send_modify(|count| *count += 1);

        for owner in owners().filter(|owner| !owner.deleting) {
            self.finish_owner(owner, &pending).await?;
        }
        services::finish(&self.shared, &services, &pending).await?;
        computes::finish(&self.shared, &computes, &pending).await?;
        deletion::reconcile(&self.shared, &pending).await
    }

    /// Reports an owner of a certificate as done when its wish is in the published route table and its certificate is
    /// served; as failed when it can't be, while what was served before is served on. Services and computes that have
    /// nothing to do with TLS are reported by those who see to them.
    async fn finish_owner(&self, owner: &Resource, pending: &[Operation]) -> Result<(), Fault> {
        // What an earlier wish or a key's renewal asked for is in the same table, unless a later wish overwrote it.
        let waiting: Vec<Uuid> = waiting(pending, owner).map(|operation| operation.id).collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let Some(wish) = certificates::wish_of(&self.shared.config, owner)? else { return Ok(()) };
        let (state, status) = match self.certificates.outcome(&owner.id, &wish) {
            TlsOutcome::Pending => return Ok(()),
            TlsOutcome::Settled => ("Succeeded", OperationStatus::Succeeded),
            TlsOutcome::Refused(fault) => ("Failed", OperationStatus::Failed(fault)),
        };
        let observed = match owner.id.is_type(ENDPOINT_TYPE) {
            true => self.endpoint_addresses(owner),
            false => Map::new(),
        };
        let waiting = waiting.into_iter().map(|operation| (operation, status.clone())).collect();
        self.shared.finish_put(owner, state, observed, waiting).await
    }

    /// Where an endpoint is called. One without public access is called from inside a virtual network, whose DNS knows
    /// its name; this machine need not.
    fn endpoint_addresses(&self, endpoint: &Resource) -> Map<String, serde_json::Value> {
        let (config, name) = (&self.shared.config, endpoint.name());
        let is_public = EndpointSpec::from_properties(endpoint.properties()).is_ok_and(|spec| spec.is_public());
        let base = if config.endpoint_names_resolve || !is_public {
            let port =
                config.url.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()).filter(|port| *port != 443);
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            format!("https://{}{port}", routes::host_name(config, name))
        } else {
            format!("{}/api/v1/endpoint/{name}", config.url)
        };
        let mut observed = Map::new();
        observed.insert("scoringUri".to_owned(), json!(format!("{base}/score")));
        observed.insert("swaggerUri".to_owned(), json!(format!("{base}/swagger.json")));
        observed
    }
}

/// The pending operations that a resource at its present generation settles.
fn waiting<'a>(pending: &'a [Operation], resource: &'a Resource) -> impl Iterator<Item = &'a Operation> {
    let puts = pending.iter().filter(|operation| operation.kind == OperationKind::Put);
    puts.filter(|operation| operation.resource == resource.id && operation.generation <= resource.generation)
}

impl<B: Backend> Shared<B> {
    /// Writes what was seen of a resource and ends the operations that waited for it, in one transaction.
    async fn finish_put(
        &self,
        resource: &Resource,
        state: &str,
        mut observed: Map<String, serde_json::Value>,
        waiting: Vec<(Uuid, OperationStatus)>,
    ) -> Result<(), Fault> {
        observed.insert("provisioningState".to_owned(), json!(state));
        let mut tx = self.store.begin().await?;
        // A newer wish may have been written since this round began; then it is not for this round to report.
        let current = tx.resource_get(&resource.id).await?;
        if current.is_none_or(|current| current.generation != resource.generation) {
            return Ok(());
        }
        tx.resource_observe(&resource.id, observed).await?;
        for (operation, status) in waiting {
            tx.operation_finish(operation, status, None).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Waits until a route table built after this call is published, and a moment more for the router to take it up.
    async fn routes_settled(&self) {
        let mut published = self.published.subscribe();
        // A round may be under way with older data: the one after it is surely built from now on.
        let target = *published.borrow_and_update() + 2;
        while *published.borrow_and_update() < target {
            self.wake.notify_one();
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                changed = published.changed() => if changed.is_err() { return },
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
