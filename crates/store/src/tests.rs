//! Tests of the store on real databases, and what they share.

mod durability;
mod faults;
mod filter;
mod operations;
mod resources;
mod secrets;

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use casemate_model::{Clock, Fault, ResourceId};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Author, Condition, Put, Store, StoreError};

/// A new store in a directory of its own, and the hand of its clock.
struct Fixture {
    dir: TempDir,
    store: Store,
    time: Time,
}

#[derive(Clone)]
struct Time(Arc<AtomicI64>);

impl Time {
    fn clock(&self) -> Clock {
        let time = Arc::clone(&self.0);
        Clock::from_fn(move || Timestamp::from_microsecond(time.load(Ordering::SeqCst)).unwrap())
    }

    fn advance(&self, by: SignedDuration) {
        self.0.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }
}

impl Fixture {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let time = Time(Arc::new(AtomicI64::new(1_700_000_000_123_456)));
        let store = Store::open(dir.path(), time.clock()).await.unwrap();
        Self { dir, store, time }
    }

    /// Closes the store and opens it again.
    async fn reopen(self) -> Self {
        self.store.close().await;
        let store = Store::open(self.dir.path(), self.time.clock()).await.unwrap();
        Self { store, ..self }
    }

    async fn put(&self, id: &ResourceId, body: Value) -> Put {
        let mut tx = self.store.begin().await.unwrap();
        let put = tx.resource_put(id, body, &Condition::None, &author()).await.unwrap();
        tx.commit().await.unwrap();
        put
    }
}

fn author() -> Author {
    Author { name: "alice".to_owned(), kind: "User".to_owned() }
}

fn id(text: &str) -> ResourceId {
    ResourceId::parse(text).unwrap()
}

fn group(name: &str) -> ResourceId {
    id(&format!("/subscriptions/S/resourceGroups/{name}"))
}

fn workspace(name: &str) -> ResourceId {
    id(&format!("/subscriptions/S/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/{name}"))
}

fn body(words: &str) -> Value {
    json!({ "location": "local", "properties": { "description": words } })
}

fn fault<T: std::fmt::Debug>(result: Result<T, StoreError>) -> Fault {
    result.unwrap_err().into()
}
