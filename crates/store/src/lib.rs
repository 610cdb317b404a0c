//! The memory of the platform: resources, operations, secrets and sequences in one SQLite database.
//!
//! Everything that must survive `kill -9` is here, and a write is acknowledged only after it has reached the disk
//! (WAL, `synchronous=FULL`). One connection writes, a few read; readers never wait for the writer. Secret values are
//! sealed with a key that lies in a file beside the database, never in it.
//!
//! This is the only room that names the database. It refuses to know what a resource means: it keeps bodies as they
//! are given, checks no names and no rights, and removes nothing but what it is told to.

mod error;
mod filter;
mod key;
mod open;
mod query;
mod tx;

#[cfg(test)]
mod tests;

use std::{path::Path, sync::Arc, time::Duration};

use casemate_model::{Clock, Operation, Resource, ResourceId, Secret};
use sqlx::{SqlitePool, pool::PoolConnection, sqlite::Sqlite};
use tokio::sync::watch;
use uuid::Uuid;

pub use error::StoreError;
pub use filter::Filter;
pub use tx::{Author, Condition, Put, Tx};

/// The longest wait for a connection, and so for the transactions before one's own.
const WAIT: Duration = Duration::from_secs(10);

/// A handle on the open database; clones share it.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    writer: SqlitePool,
    readers: SqlitePool,
    key: key::SealingKey,
    commits: watch::Sender<u64>,
    clock: Clock,
    /// The longest wait for a connection, and so for the transactions before this one.
    wait: Duration,
}

impl Store {
    /// Opens the database in `dir`, making the directory (0700), the key file `store.key` (0600) and the database
    /// `casemate.db` when they are not there, and bringing an older database to the present schema.
    ///
    /// # Errors
    /// [`StoreError::KeyMissing`], [`StoreError::KeyInvalid`] and [`StoreError::KeyMismatch`] when the secrets of an
    /// existing database could not be opened; [`StoreError::Newer`] for a database of a later release;
    /// [`StoreError::Corrupt`], [`StoreError::Full`], [`StoreError::Busy`] and [`StoreError::Files`].
    pub async fn open(dir: &Path, clock: Clock) -> Result<Self, StoreError> {
        open::open(dir, clock, WAIT).await
    }

    /// Starts a transaction; at most one is open at a time. A caller that holds one must not begin another.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when the transactions before this one took more than 10 seconds.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        Tx::begin(self.clone()).await
    }

    /// The resource with this id, as last committed.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn resource_get(&self, id: &ResourceId) -> Result<Option<Resource>, StoreError> {
        query::resource::get(&mut *self.reader().await?, id).await
    }

    /// The resources that pass `filter`, as last committed, ordered by key.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn resource_list(&self, filter: &Filter) -> Result<Vec<Resource>, StoreError> {
        query::resource::list(&mut *self.reader().await?, filter).await
    }

    /// The operation with this id. Finished ones are kept for 7 days, and at most 10,000 of them.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn operation_get(&self, id: Uuid) -> Result<Option<Operation>, StoreError> {
        query::operation::get(&mut *self.reader().await?, id).await
    }

    /// The operations in progress, oldest first.
    ///
    /// # Errors
    /// Fails when the database cannot be read.
    pub async fn operations_pending(&self) -> Result<Vec<Operation>, StoreError> {
        query::operation::pending(&mut *self.reader().await?).await
    }

    /// The secret of this owner and name.
    ///
    /// # Errors
    /// Fails when the database cannot be read, and with [`StoreError::Corrupt`] when the sealed value was tampered
    /// with.
    pub async fn secret_get(&self, owner: &ResourceId, name: &str) -> Result<Option<Secret>, StoreError> {
        query::secret::get(&mut *self.reader().await?, &self.0.key, owner, name).await
    }

    /// Counts commits that changed something, so that a reconciler can sleep until there is news. A change may be
    /// counted twice, never missed.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.commits.subscribe()
    }

    /// The clock that dates rows.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// Waits until no transaction is open, then closes the database and merges its write-ahead log. What is called
    /// on any clone afterwards fails.
    pub async fn close(&self) {
        self.0.readers.close().await;
        self.0.writer.close().await;
    }

    async fn reader(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        Ok(self.0.readers.acquire().await?)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}
