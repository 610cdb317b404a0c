//! Networks, beside the other reconcilers: publishes what is wanted of them, and writes back how they are.
//!
//! A loop of its own, so that a private endpoint waits for no environment to be built.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use casemate_model::{
    Fault, ResourceId,
    network::{NetworkSnapshot, SNAPSHOT_TYPES},
};
use casemate_store::{Filter, Store};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Look at least this often, whatever happens.
const ROUND: Duration = Duration::from_secs(5);

/// How networks and private endpoints are: real, or why not.
pub type NetworkStatus = BTreeMap<ResourceId, Option<Fault>>;

/// The reconciler of networks.
pub struct Networks {
    store: Store,
    snapshot: watch::Sender<Arc<NetworkSnapshot>>,
    /// Rows that can't be read, so that each is told once.
    problems: HashMap<ResourceId, Fault>,
}

impl Networks {
    /// Nothing is published before [`Networks::prepare`].
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, snapshot: watch::Sender::new(Arc::default()), problems: HashMap::new() }
    }

    /// Where snapshots appear.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<NetworkSnapshot>> {
        self.snapshot.subscribe()
    }

    /// Publishes the first snapshot: those who take away what is not wanted must know what is.
    ///
    /// # Errors
    /// When the store can't be read.
    pub async fn prepare(&mut self) -> Result<(), Fault> {
        let mut rows = Vec::new();
        for kind in SNAPSHOT_TYPES {
            rows.extend(self.store.resource_list(&Filter::of_type(kind)).await?);
        }
        let (next, problems) = NetworkSnapshot::from_resources(&rows);
        let problems: HashMap<ResourceId, Fault> = problems.into_iter().collect();
        for (id, fault) in problems.iter().filter(|(id, fault)| self.problems.get(*id) != Some(*fault)) {
            tracing::error!(%id, %fault, "left out of the networks");
        }
        self.problems = problems;
        self.snapshot.send_if_modified(|last| {
            let changed = **last != next;
            if changed {
                *last = Arc::new(next);
            }
            changed
        });
        Ok(())
    }

    /// Publishes what changes in the store, and writes `status` back, until `shutdown`.
    pub async fn run(mut self, mut status: watch::Receiver<Arc<NetworkStatus>>, shutdown: CancellationToken) {
        let mut commits = self.store.subscribe();
        loop {
            if let Err(fault) = self.round(&mut status).await {
                tracing::error!(%fault, "a round of the networks failed and will be tried again");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = commits.changed() => if changed.is_err() { return },
                // Who told of them may be gone before this is.
                Ok(()) = status.changed() => {}
                () = tokio::time::sleep(ROUND) => {}
            }
        }
    }

    async fn round(&mut self, status: &mut watch::Receiver<Arc<NetworkStatus>>) -> Result<(), Fault> {
        self.prepare().await?;
        let status = Arc::clone(&status.borrow_and_update());
        for (id, fault) in status.iter() {
            self.observe(id, fault.as_ref()).await?;
        }
        Ok(())
    }

    async fn observe(&self, id: &ResourceId, fault: Option<&Fault>) -> Result<(), Fault> {
        let Some(row) = self.store.resource_get(id).await? else { return Ok(()) };
        let error = fault.map_or(Value::Null, |fault| json!({"code": fault.code, "message": fault.message}));
        let state = if fault.is_some() { "Failed" } else { "Succeeded" };
        let seen = row.observed.get("provisioningState").and_then(Value::as_str).unwrap_or("Succeeded");
        if seen == state && row.observed.get("provisioningError").unwrap_or(&Value::Null) == &error {
            return Ok(());
        }
        let mut patch = Map::new();
        patch.insert("provisioningState".to_owned(), json!(state));
        patch.insert("provisioningError".to_owned(), error);
        let mut tx = self.store.begin().await?;
        tx.resource_observe(id, patch).await?;
        tx.commit().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use casemate_model::{Clock, FaultKind, network::NETWORK_TYPE};
    use casemate_store::{Author, Condition};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn networks_are_published_and_what_becomes_of_them_is_written_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Clock::system()).await.unwrap();
        let mut networks = Networks::new(store.clone());
        networks.prepare().await.unwrap();
        let mut snapshots = networks.snapshots();
        let (status, told) = watch::channel(Arc::default());
        let stop = CancellationToken::new();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(networks.run(told, stop.clone()));

        let id = ResourceId::parse(&format!("/subscriptions/s/resourceGroups/g/providers/{NETWORK_TYPE}/net")).unwrap();
        let body = json!({"location": "local", "properties": {
            "resourceGuid": uuid::Uuid::new_v4().to_string(),
            "addressSpace": {"addressPrefixes": ["127.0.40.0/24"]},
        }});
        let author = Author { name: "a".to_owned(), kind: "User".to_owned() };
        let mut tx = store.begin().await.unwrap();
        tx.resource_put(&id, body, &Condition::None, &author).await.unwrap();
        tx.commit().await.unwrap();
        let published = snapshots.wait_for(|snapshot| !snapshot.networks.is_empty());
        tokio::time::timeout(PATIENCE, published).await.expect("a snapshot in time").unwrap();

        let fault = Fault::new(FaultKind::Unavailable, "NetworkAdminRequired", "why, and what to do");
        for (told, state, code) in
            [(Some(fault), "Failed", json!("NetworkAdminRequired")), (None, "Succeeded", Value::Null)]
        {
            status.send_replace(Arc::new(NetworkStatus::from([(id.clone(), told)])));
            let began = tokio::time::Instant::now();
            loop {
                let shown = store.resource_get(&id).await.unwrap().unwrap().to_public();
                let properties = &shown["properties"];
                if properties["provisioningState"] == state && properties["provisioningError"]["code"] == code {
                    break;
                }
                assert!(began.elapsed() < PATIENCE, "{shown}");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        stop.cancel();
        while tasks.join_next().await.is_some() {}
    }
}
