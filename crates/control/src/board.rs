//! The board: which instances serve each deployment now. Actors write it, the route builder reads it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use casemate_model::{ResourceId, deployment::RequestSettings, route::Upstream};
use casemate_runtime::InstanceStatus;
use tokio::sync::watch;

/// What serves one deployment.
#[derive(Clone)]
pub struct Entry {
    /// Its request limits.
    pub limits: RequestSettings,
    /// The states of the instances that may get requests.
    pub instances: Vec<watch::Receiver<InstanceStatus>>,
}

impl Entry {
    /// The instances that are ready at this moment.
    pub fn ready(&self) -> Vec<Arc<Upstream>> {
        let states = self.instances.iter().map(|status| status.borrow().clone());
        states
            .filter_map(|status| if let InstanceStatus::Ready(upstream) = status { Some(upstream) } else { None })
            .collect()
    }
}

/// All deployments that serve.
#[derive(Default)]
pub struct Board(Mutex<HashMap<ResourceId, Entry>>);

impl Board {
    /// Replaces what serves a deployment.
    pub fn set(&self, deployment: &ResourceId, entry: Entry) {
        self.lock().insert(deployment.clone(), entry);
    }

    /// Takes a deployment off the board.
    pub fn clear(&self, deployment: &ResourceId) {
        self.lock().remove(deployment);
    }

    /// What serves a deployment, if anything does.
    pub fn get(&self, deployment: &ResourceId) -> Option<Entry> {
        self.lock().get(deployment).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<ResourceId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
