//! The instances of one deployment: starting, replacing, scaling and draining them without losing a request.

use std::{sync::Arc, time::Duration};

use casemate_model::{Fault, deployment::MAX_REQUEST_TIMEOUT, endpoint::ENDPOINT_TYPE};
use casemate_runtime::{Backend, Instance, InstanceRequest, InstanceStatus};

use crate::{Shared, artifacts::Artifacts, board::Entry, secrets, trust, wish::Wish};

/// Time between SIGTERM and SIGKILL for an instance with no request left.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How often a draining instance is looked at.
const DRAIN_POLL: Duration = Duration::from_millis(50);
/// An instance counts as drained after this long without a request.
const DRAIN_QUIET: Duration = Duration::from_millis(250);

/// The running instances of one revision.
pub struct Fleet {
    revision: String,
    instances: Vec<Instance>,
}

/// Brings a deployment's fleet to a wish: starts what is missing, waits until it is ready, swaps it in, and drains what
/// is left over in the background. On failure the old fleet serves on. Dropping the future midway stops what it
/// had started and changes nothing else.
///
/// # Errors
/// The fault of the environment build, of an artifact, or of the first instance that can't become ready.
pub async fn bring_to<B: Backend>(
    shared: &Arc<Shared<B>>,
    fleet: &mut Option<Fleet>,
    wish: &Wish,
) -> Result<(), Fault> {
    let kept = fleet.as_ref().filter(|fleet| fleet.revision == wish.revision).map_or(0, |fleet| fleet.instances.len());
    let mut fresh = Vec::new();
    if wish.count > kept {
        let artifacts = Artifacts::prepare(shared, wish).await?;
        fresh = start(shared, wish, &artifacts, wish.count - kept).await?;
    }
    // From here on nothing waits, so the swap happens whole or not at all.
    let mut retired = Vec::new();
    let current = fleet.get_or_insert_with(|| Fleet { revision: wish.revision.clone(), instances: Vec::new() });
    if current.revision == wish.revision {
        if current.instances.len() > wish.count {
            retired = current.instances.split_off(wish.count);
        }
        current.instances.append(&mut fresh);
    } else {
        retired = std::mem::replace(&mut current.instances, fresh);
        current.revision.clone_from(&wish.revision);
    }
    show(shared, wish, current);
    if !retired.is_empty() {
        let shared_for_drain = Arc::clone(shared);
        shared.tasks.spawn(async move { drain(&shared_for_drain, retired).await });
    }
    Ok(())
}

/// Puts the fleet on the board with the wish's limits.
fn show<B: Backend>(shared: &Shared<B>, wish: &Wish, fleet: &Fleet) {
    let instances = fleet.instances.iter().map(Instance::status).collect();
    shared.board.set(&wish.id, Entry { limits: wish.spec.request_settings, instances });
    shared.wake.notify_one();
}

async fn start<B: Backend>(
    shared: &Arc<Shared<B>>,
    wish: &Wish,
    artifacts: &Artifacts,
    count: usize,
) -> Result<Vec<Instance>, Fault> {
    let mut instances = Vec::with_capacity(count);
    let (store, domain) = (&shared.store, &shared.config.domain);
    let variables = secrets::resolve(store, domain, &wish.id, &artifacts.variables).await?;
    let (environment, variables) = trust::added(&shared.config.state_dir, &artifacts.environment, variables);
    for _ in 0..count {
        let request = InstanceRequest {
            deployment: wish.id.clone(),
            environment: environment.clone(),
            code: artifacts.code.clone(),
            models: artifacts.models.clone(),
            model_mount_path: wish.spec.model_mount_path.clone(),
            variables: variables.clone(),
            size: wish.size,
            workers: wish.workers,
            liveness: wish.spec.liveness_probe,
            readiness: wish.spec.readiness_probe,
            egress: shared.policies.subscribe(&wish.id),
            identity: wish.id.ancestor(ENDPOINT_TYPE).map(|endpoint| shared.identities.of_endpoint(endpoint)),
        };
        let instance = shared.backend.instance_start(request).await?;
        ring_on_change(shared, &instance);
        instances.push(instance);
    }
    for instance in &instances {
        ready(instance).await?;
    }
    Ok(instances)
}

/// Rings for a round at each change of the instance's status, as long as the instance lives.
fn ring_on_change<B: Backend>(shared: &Arc<Shared<B>>, instance: &Instance) {
    let mut status = instance.status();
    let shared_for_ring = Arc::clone(shared);
    shared.tasks.spawn(async move {
        while status.changed().await.is_ok() {
            shared_for_ring.wake.notify_one();
        }
    });
}

/// Waits until an instance is ready. Bounded by the instance itself, which ends as failed when its probes do.
async fn ready(instance: &Instance) -> Result<(), Fault> {
    let mut status = instance.status();
    loop {
        match &*status.borrow_and_update() {
            InstanceStatus::Ready(_) => return Ok(()),
            InstanceStatus::Failed(fault) => return Err(fault.clone()),
            InstanceStatus::Stopped => return Err(Fault::internal("The instance was stopped before it became ready.")),
            InstanceStatus::Starting | InstanceStatus::NotReady => {}
        }
        if status.changed().await.is_err() {
            return Err(Fault::internal("The instance ended before it became ready."));
        }
    }
}

/// Stops instances that are off the board: waits for the router to let go of them, then for their last requests.
async fn drain<B: Backend>(shared: &Shared<B>, instances: Vec<Instance>) {
    shared.routes_settled().await;
    let mut quiet = Duration::ZERO;
    let mut waited = Duration::ZERO;
    while quiet < DRAIN_QUIET && waited < MAX_REQUEST_TIMEOUT && !shared.shutdown.is_cancelled() {
        let busy = instances.iter().any(|instance| {
            matches!(&*instance.status().borrow(), InstanceStatus::Ready(upstream) if upstream.in_flight() > 0)
        });
        quiet = if busy { Duration::ZERO } else { quiet + DRAIN_POLL };
        waited += DRAIN_POLL;
        tokio::time::sleep(DRAIN_POLL).await;
    }
    stop(instances).await;
}

async fn stop(instances: Vec<Instance>) {
    let mut stopping = tokio::task::JoinSet::new();
    for instance in instances {
        stopping.spawn(async move { instance.stop(STOP_GRACE).await });
    }
    stopping.join_all().await;
}

impl Fleet {
    /// Takes the fleet off the board and drains it: for a deployment that is deleted.
    pub async fn retire<B: Backend>(self, shared: &Shared<B>) {
        drain(shared, self.instances).await;
    }

    /// Stops all instances now: for the end of the platform, when the router has already drained.
    pub async fn stop(self) {
        stop(self.instances).await;
    }
}
