//! The one writer: a transaction, and the rules of what it may change.

use casemate_model::{
    Clock, Fault, FaultKind, Operation, OperationStatus, Resource, ResourceId, Secret, SystemData,
    operation::OperationKind,
};
use serde_json::{Map, Value};
use sqlx::{Sqlite, Transaction};
use tokio::{sync::watch, time};
use uuid::Uuid;

use crate::{Store, error::StoreError, filter::Filter, query};

/// What must hold of the row before it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    #[default]
    None,
    /// There is no such row (`If-None-Match: *`).
    MustNotExist,
    /// The row has this etag, quotes included (`If-Match`); `*` is any existing row.
    Etag(String),
}

/// Who makes a change, for the resource's system data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// Object id or name of the principal.
    pub name: String,
    /// `User` or `Application`.
    pub kind: String,
}

/// What a put did.
#[derive(Debug, Clone, PartialEq)]
pub struct Put {
    /// The row as it is now.
    pub resource: Resource,
    /// Whether there was no row before.
    pub created: bool,
}

/// An open transaction. Dropped without [`Tx::commit`], it changes nothing.
///
/// Each method fails with [`StoreError::Full`], [`StoreError::Busy`], [`StoreError::Corrupt`] or
/// [`StoreError::Database`] when the database does; after such a failure the transaction is good for nothing but to
/// be dropped. A [`StoreError::Condition`] leaves it usable and everything unchanged.
pub struct Tx {
    pub(crate) transaction: Transaction<'static, Sqlite>,
    store: Store,
    wrote: bool,
}

impl Tx {
    pub(crate) async fn begin(store: Store) -> Result<Self, StoreError> {
        // Immediate: a transaction that only learns at its first write that another process writes would have to be
        // done again from the start.
        let begun = time::timeout(store.0.wait, store.0.writer.begin_with("BEGIN IMMEDIATE")).await;
        let transaction = begun.map_err(|_| StoreError::Busy)??;
        Ok(Self { transaction, store, wrote: false })
    }

    /// The resource with this id, this transaction's changes included.
    ///
    /// # Errors
    /// See [`Tx`].
    pub async fn resource_get(&mut self, id: &ResourceId) -> Result<Option<Resource>, StoreError> {
        query::resource::get(&mut self.transaction, id).await
    }

    /// The resources that pass `filter`, ordered by key, this transaction's changes included.
    ///
    /// # Errors
    /// See [`Tx`].
    pub async fn resource_list(&mut self, filter: &Filter) -> Result<Vec<Resource>, StoreError> {
        query::resource::list(&mut self.transaction, filter).await
    }

    /// Makes the resource, or replaces its body. Each call counts one generation up and gives a new etag, even when
    /// the body is the same. What was observed and the case of the id stay.
    ///
    /// # Errors
    /// `Condition` with `PreconditionFailed` when `condition` does not hold, and with `ResourceBeingDeleted` when the
    /// deletion of the row was accepted and is not done. Else see [`Tx`].
    pub async fn resource_put(
        &mut self,
        id: &ResourceId,
        body: Value,
        condition: &Condition,
        author: &Author,
    ) -> Result<Put, StoreError> {
        let found = self.resource_get(id).await?;
        if found.as_ref().is_some_and(|row| row.deleting) {
            return Err(StoreError::Condition(being_deleted(id)));
        }
        condition.check(id, found.as_ref()).map_err(StoreError::Condition)?;
        let now = query::now(self.clock());
        let created = found.is_none();
        let mut resource = found.unwrap_or_else(|| Resource {
            id: id.clone(),
            body: Value::Null,
            observed: Map::new(),
            generation: 0,
            etag: String::new(),
            deleting: false,
            system: SystemData {
                created_by: author.name.clone(),
                created_by_type: author.kind.clone(),
                created_at: now,
                last_modified_by: String::new(),
                last_modified_by_type: String::new(),
                last_modified_at: now,
            },
        });
        resource.body = body;
        resource.generation += 1;
        resource.etag = format!("\"{}\"", Uuid::new_v4());
        resource.system.last_modified_by.clone_from(&author.name);
        resource.system.last_modified_by_type.clone_from(&author.kind);
        resource.system.last_modified_at = now;
        self.wrote = true;
        query::resource::write(&mut self.transaction, &resource).await?;
        Ok(Put { resource, created })
    }

    /// Lays `patch` over what was observed of the resource; a null removes its key. Generation and etag stay.
    /// False when there is no such row.
    ///
    /// # Errors
    /// See [`Tx`].
    pub async fn resource_observe(&mut self, id: &ResourceId, patch: Map<String, Value>) -> Result<bool, StoreError> {
        let Some(mut resource) = self.resource_get(id).await? else { return Ok(false) };
        let before = resource.observed.clone();
        for (key, value) in patch {
            match value {
                Value::Null => drop(resource.observed.remove(&key)),
                value => drop(resource.observed.insert(key, value)),
            }
        }
        if resource.observed != before {
            self.wrote = true;
            query::resource::write(&mut self.transaction, &resource).await?;
        }
        Ok(true)
    }

    /// Marks the resource as being deleted, from when on it cannot be put. None when there is no such row; unchanged
    /// when it was marked before.
    ///
    /// # Errors
    /// `Condition` with `PreconditionFailed` when `condition` does not hold of the row. Else see [`Tx`].
    pub async fn resource_mark_deleting(
        &mut self,
        id: &ResourceId,
        condition: &Condition,
    ) -> Result<Option<Resource>, StoreError> {
        let Some(mut resource) = self.resource_get(id).await? else { return Ok(None) };
        condition.check(id, Some(&resource)).map_err(StoreError::Condition)?;
        if !resource.deleting {
            resource.deleting = true;
            self.wrote = true;
            query::resource::write(&mut self.transaction, &resource).await?;
        }
        Ok(Some(resource))
    }

    /// Removes the row and its secrets, and nothing else: neither what lies inside it nor its operations.
    ///
    /// # Errors
    /// See [`Tx`].
    pub async fn resource_remove(&mut self, id: &ResourceId) -> Result<(), StoreError> {
        self.wrote |= query::resource::remove(&mut self.transaction, id).await?;
        Ok(())
    }

    /// Adds an operation in progress.
    ///
    /// # Errors
    /// See [`Tx`].
    pub async fn operation_create(
        &mut self,
        resource: &ResourceId,
        kind: OperationKind,
        generation: i64,
    ) -> Result<Operation, StoreError> {
        let operation = Operation {
            id: Uuid::new_v4(),
            resource: resource.clone(),
            kind,
            generation,
            status: OperationStatus::InProgress,
            result: None,
            created_at: query::now(self.clock()),
            ended_at: None,
        };
        self.wrote = true;
        query::operation::insert(&mut self.transaction, &operation).await?;
        Ok(operation)
    }

    /// Ends an operation. One that has ended, or is not there, stays as it is. Old finished operations are forgotten
    /// on the way.
    ///
    /// # Errors
    /// `Condition` when `status` is `InProgress`, which is no end. Else see [`Tx`].
    pub async fn operation_finish(
        &mut self,
        id: Uuid,
        status: OperationStatus,
        result: Option<Value>,
    ) -> Result<(), StoreError> {
        if status == OperationStatus::InProgress {
            let message = format!("The operation {id} was to be finished as being in progress.");
            return Err(StoreError::Condition(Fault::internal(message)));
        }
        let now = query::now(self.clock());
        self.wrote |= query::operation::finish(&mut self.transaction, id, &status, result.as_ref(), now).await?;
        query::operation::prune(&mut self.transaction, &self.store.0.clock).await
    }

    /// The operation with this id, this transaction's changes included.
    ///
    /// # Errors
    /// See [`Tx`].
    pub async fn operation_get(&mut self, id: Uuid) -> Result<Option<Operation>, StoreError> {
        query::operation::get(&mut self.transaction, id).await
    }

    /// The operations in progress, oldest first, this transaction's changes included.
    ///
    /// # Errors
    /// See [`Tx`].
    pub async fn operations_pending(&mut self) -> Result<Vec<Operation>, StoreError> {
        query::operation::pending(&mut self.transaction).await
    }

    /// Seals and keeps a secret of `owner`, over one of the same name. The owner need not exist.
    ///
    /// # Errors
    /// See [`Tx`].
    pub async fn secret_put(&mut self, owner: &ResourceId, name: &str, secret: &Secret) -> Result<(), StoreError> {
        self.wrote = true;
        query::secret::put(&mut self.transaction, &self.store.0.key, owner, name, secret).await
    }

    /// The secret of this owner and name, this transaction's changes included.
    ///
    /// # Errors
    /// `Corrupt` when the sealed value was tampered with. Else see [`Tx`].
    pub async fn secret_get(&mut self, owner: &ResourceId, name: &str) -> Result<Option<Secret>, StoreError> {
        query::secret::get(&mut self.transaction, &self.store.0.key, owner, name).await
    }

    /// Removes the secret of this owner and name, if there is one.
    ///
    /// # Errors
    /// See [`Tx`].
    pub async fn secret_remove(&mut self, owner: &ResourceId, name: &str) -> Result<(), StoreError> {
        self.wrote |= query::secret::remove(&mut self.transaction, owner, name).await?;
        Ok(())
    }

    /// The next number of a sequence, from 1 up. A committed number is never given again, also after a restart; one
    /// taken by a transaction that rolls back was not given, so use it for nothing outside before the commit.
    ///
    /// # Errors
    /// See [`Tx`].
    pub async fn sequence_next(&mut self, name: &str) -> Result<u64, StoreError> {
        self.wrote = true;
        query::sequence::next(&mut self.transaction, name).await
    }

    /// Makes the changes durable, all or none, then wakes the subscribers if there were any changes.
    ///
    /// # Errors
    /// See [`Tx`]; nothing was changed then.
    pub async fn commit(self) -> Result<(), StoreError> {
        // On drop, so that a caller that gives up waiting while the disk writes cannot lose the wake-up.
        let wake = self.wrote.then(|| Wake(self.store.0.commits.clone()));
        self.transaction.commit().await?;
        drop(wake);
        Ok(())
    }

    fn clock(&self) -> &Clock {
        self.store.clock()
    }
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tx")
    }
}

struct Wake(watch::Sender<u64>);

impl Drop for Wake {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count += 1);
    }
}

impl Condition {
    fn check(&self, id: &ResourceId, found: Option<&Resource>) -> Result<(), Fault> {
        let failed = |message: String| {
            Err(Fault::new(FaultKind::PreconditionFailed, "PreconditionFailed", message).at(id.as_str()))
        };
        match (self, found) {
            (Self::None, _) | (Self::MustNotExist, None) => Ok(()),
            (Self::MustNotExist, Some(_)) => failed(format!(
                "{id} exists already, and the request (If-None-Match) asks for it to be new. Take another name, or repeat without that condition to replace it."
            )),
            (Self::Etag(wanted), Some(row)) if wanted == "*" || *wanted == row.etag => Ok(()),
            (Self::Etag(wanted), Some(row)) => failed(format!(
                "{id} was changed by someone else: its etag is {}, and the request (If-Match) names {wanted}. Read it again and repeat the change.",
                row.etag
            )),
            (Self::Etag(wanted), None) => failed(format!(
                "{id} does not exist, and the request (If-Match) asks for its etag to be {wanted}. Create it without that condition."
            )),
        }
    }
}

fn being_deleted(id: &ResourceId) -> Fault {
    Fault::conflict(
        "ResourceBeingDeleted",
        format!("{id} is being deleted. Wait until its deletion is done, then create it again."),
    )
    .at(id.as_str())
}
