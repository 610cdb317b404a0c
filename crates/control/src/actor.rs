//! One actor for each deployment: it owns the deployment's instances and pursues its newest wish.
//!
//! A wish that was reached once is kept in the resource (`_served`), so that after a restart, or after an update that
//! failed, the platform brings back what served last.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use casemate_model::{Fault, Operation, OperationStatus, Resource, ResourceId};
use casemate_runtime::Backend;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::{
    Shared,
    fleet::{self, Fleet},
    outbound,
    wish::Wish,
};

/// First wait before what served before a restart is tried again; doubles up to [`RESTORE_MAX`].
const RESTORE_MIN: Duration = Duration::from_secs(2);
/// Longest wait between such tries.
const RESTORE_MAX: Duration = Duration::from_secs(60);

/// What an actor is told: the newest stored deployment, or nothing more to run.
type Wanted = Option<Arc<Resource>>;

/// The live actors by deployment. A deployment's row may be removed only when it has no actor.
#[derive(Default)]
pub struct Registry(Mutex<HashMap<ResourceId, watch::Sender<Wanted>>>);

impl Registry {
    /// Whether the deployment's instances may still run.
    pub fn is_live(&self, deployment: &ResourceId) -> bool {
        self.lock().contains_key(deployment)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ResourceId, watch::Sender<Wanted>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells every actor the newest wish of its deployment; starts and ends actors as deployments come and go.
pub fn reconcile<B: Backend>(shared: &Arc<Shared<B>>, deployments: &[Resource]) {
    let mut live = shared.actors.lock();
    for deployment in deployments.iter().filter(|deployment| !deployment.deleting) {
        match live.get(&deployment.id) {
            Some(wanted) => {
                wanted.send_if_modified(|now| {
                    let newer = now.as_ref().is_some_and(|now| now.generation != deployment.generation);
                    if newer {
                        *now = Some(Arc::new(deployment.clone()));
                    }
                    newer
                });
            }
            None => {
                let (sender, receiver) = watch::channel(Some(Arc::new(deployment.clone())));
                live.insert(deployment.id.clone(), sender);
                let actor = Actor::new(Arc::clone(shared), deployment, receiver);
                shared.tasks.spawn(actor.run());
            }
        }
    }
    for (id, wanted) in live.iter() {
        let kept = deployments.iter().any(|deployment| deployment.id == *id && !deployment.deleting);
        if !kept {
            wanted.send_if_modified(|now| now.take().is_some());
        }
    }
}

struct Actor<B: Backend> {
    wanted: watch::Receiver<Wanted>,
    work: Work<B>,
}

impl<B: Backend> Actor<B> {
    fn new(shared: Arc<Shared<B>>, deployment: &Resource, wanted: watch::Receiver<Wanted>) -> Self {
        let handled = deployment.observed.get("_handledGeneration").and_then(Value::as_i64).unwrap_or(0);
        let served = deployment.observed.get("_served").cloned();
        Self { wanted, work: Work { shared, id: deployment.id.clone(), fleet: None, handled, served } }
    }

    async fn run(mut self) {
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let shutdown = self.work.shared.shutdown.clone();
            if shutdown.is_cancelled() {
                break;
            }
            let Some(deployment) = wanted else { break };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                _ = self.wanted.changed() => continue,
                () = self.work.pursue(&deployment) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = self.wanted.changed() => {}
            }
        }
        self.work.end().await;
    }
}

struct Work<B: Backend> {
    shared: Arc<Shared<B>>,
    id: ResourceId,
    fleet: Option<Fleet>,
    /// The generation whose outcome is already written.
    handled: i64,
    /// The body that was served last.
    served: Option<Value>,
}

impl<B: Backend> Work<B> {
    /// Brings the deployment to its wish and writes the outcome. May be dropped at any await.
    async fn pursue(&mut self, deployment: &Resource) {
        if deployment.generation == self.handled {
            self.restore().await;
            return;
        }
        if self.fleet.is_none() {
            self.restore_once().await.unwrap_or_else(|fault| {
                tracing::warn!(deployment = %self.id, %fault, "what served before could not be brought back");
            });
        }
        let outcome = self.bring_to(deployment).await;
        if outcome.is_ok() {
            self.shared.routes_settled().await;
        }
        self.report(deployment, outcome).await;
    }

    async fn bring_to(&mut self, deployment: &Resource) -> Result<(), Fault> {
        let wish = Wish::of(deployment)?;
        outbound::provision(&self.shared.store, &self.id).await?;
        fleet::bring_to(&self.shared, &mut self.fleet, &wish).await
    }

    /// Brings back what served last, for as long as it takes.
    async fn restore(&mut self) {
        let mut pause = RESTORE_MIN;
        while let Err(fault) = self.restore_once().await {
            tracing::warn!(deployment = %self.id, %fault, "what served before could not be brought back; trying again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RESTORE_MAX);
        }
    }

    async fn restore_once(&mut self) -> Result<(), Fault> {
        let Some(body) = &self.served else { return Ok(()) };
        let wish = Wish::from_body(&self.id, body)?;
        fleet::bring_to(&self.shared, &mut self.fleet, &wish).await
    }

    /// Writes the outcome of one generation and ends its operations, trying until the store takes it.
    async fn report(&mut self, deployment: &Resource, outcome: Result<(), Fault>) {
        let mut observed = Map::new();
        observed.insert("_handledGeneration".to_owned(), json!(deployment.generation));
        let status = match outcome {
            Ok(()) => {
                observed.insert("_served".to_owned(), deployment.body.clone());
                observed.insert("provisioningError".to_owned(), Value::Null);
                OperationStatus::Succeeded
            }
            Err(fault) => {
                tracing::warn!(deployment = %self.id, code = fault.code, "deployment failed");
                observed.insert("provisioningError".to_owned(), json!({"code": fault.code, "message": fault.message}));
                OperationStatus::Failed(fault)
            }
        };
        while let Err(fault) = self.write_outcome(deployment, observed.clone(), status.clone()).await {
            tracing::error!(deployment = %self.id, %fault, "the outcome of a deployment could not be written; trying again");
            tokio::time::sleep(RESTORE_MIN).await;
        }
        if status == OperationStatus::Succeeded {
            self.served = Some(deployment.body.clone());
        }
        self.handled = deployment.generation;
    }

    async fn write_outcome(
        &self,
        deployment: &Resource,
        observed: Map<String, Value>,
        status: OperationStatus,
    ) -> Result<(), Fault> {
        let pending = self.shared.store.operations_pending().await?;
        let state = if status == OperationStatus::Succeeded { "Succeeded" } else { "Failed" };
        // A later wish took the place of the earlier ones before they were reached.
        let outcome = |operation: &Operation| {
            if operation.generation == deployment.generation { status.clone() } else { OperationStatus::Canceled }
        };
        let waiting =
            crate::waiting(&pending, deployment).map(|operation| (operation.id, outcome(operation))).collect();
        self.shared.finish_put(deployment, state, observed, waiting).await
    }

    /// Drains the instances of a deleted deployment, or stops them at the platform's end.
    async fn end(mut self) {
        self.shared.board.clear(&self.id);
        if let Some(fleet) = self.fleet.take() {
            if self.shared.shutdown.is_cancelled() {
                fleet.stop().await;
            } else {
                fleet.retire(&self.shared).await;
            }
        }
        self.shared.actors.lock().remove(&self.id);
        self.shared.wake.notify_one();
    }
}
