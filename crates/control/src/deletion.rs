//! Deletions, in dependency order: what lies inside goes before what holds it, instances before their rows.
//!
//! A row goes in the same transaction that ends its operations, so a name is free the moment its deletion is reported
//! and never before. An interrupted deletion goes on after a restart, since its operation is still pending.

use std::collections::HashSet;

use casemate_model::{
    Fault, Operation, OperationStatus, Resource, ResourceId,
    network::{self, Change},
    operation::OperationKind,
    service::is_deployment,
};
use casemate_runtime::Backend;
use casemate_store::{Author, Condition, Filter, Tx};

use crate::Shared;

/// A datastore; it owns the container of its files.
const DATASTORE_TYPE: &str = "Microsoft.MachineLearningServices/workspaces/datastores";

/// Moves every pending deletion on as far as it can go now.
pub async fn reconcile<B: Backend>(shared: &Shared<B>, pending: &[Operation]) -> Result<(), Fault> {
    for operation in pending.iter().filter(|operation| operation.kind == OperationKind::Delete) {
        advance(shared, operation).await?;
    }
    Ok(())
}

async fn advance<B: Backend>(shared: &Shared<B>, operation: &Operation) -> Result<(), Fault> {
    let mut tx = shared.store.begin().await?;
    let mut rows = tx.resource_list(&Filter::default().within(&operation.resource)).await?;
    rows.extend(tx.resource_get(&operation.resource).await?);
    // The deepest first; a parent's key is always shorter than those of its children.
    rows.sort_by_key(|row| std::cmp::Reverse(row.id.key().len()));
    let mut kept: HashSet<ResourceId> = HashSet::new();
    let mut removed = Vec::new();
    let mut changed = rows.is_empty();
    for row in &rows {
        if !row.deleting {
            changed = true;
            tx.resource_mark_deleting(&row.id, &Condition::None).await?;
        }
        let holds_something = kept.iter().any(|kept| kept.is_within(&row.id));
        if holds_something || (is_deployment(&row.id) && shared.actors.is_live(&row.id)) {
            kept.insert(row.id.clone());
            continue;
        }
        tx.resource_remove(&row.id).await?;
        release(&mut tx, &row.id).await?;
        end_operations(&mut tx, &row.id).await?;
        removed.push(row.clone());
    }
    if rows.is_empty() {
        tx.operation_finish(operation.id, OperationStatus::Succeeded, None).await?;
    }
    // Nothing to commit while instances drain: a commit would only wake the next round at once.
    if !changed && removed.is_empty() {
        return Ok(());
    }
    tx.commit().await?;
    for row in removed {
        clean(shared, &row).await;
    }
    Ok(())
}

/// Changes what lies elsewhere and goes with a private endpoint or a network that is now gone: its records, links and
/// connections.
async fn release(tx: &mut Tx, gone: &ResourceId) -> Result<(), Fault> {
    if !network::has_consequences(gone) {
        return Ok(());
    }
    let mut rows = Vec::new();
    for kind in network::registration_types() {
        rows.extend(tx.resource_list(&Filter::of_type(kind)).await?);
    }
    let author = Author { name: "casemate".to_owned(), kind: "Application".to_owned() };
    for change in network::release(gone, &rows) {
        match change {
            Change::Remove(id) => tx.resource_remove(&id).await?,
            Change::Put(id, body) => drop(tx.resource_put(&id, body, &Condition::None, &author).await?),
        }
    }
    Ok(())
}

/// Ends what was pending for a row that is now gone.
async fn end_operations(tx: &mut Tx, gone: &ResourceId) -> Result<(), Fault> {
    for operation in tx.operations_pending().await?.iter().filter(|operation| operation.resource == *gone) {
        let status = if operation.kind == OperationKind::Delete {
            OperationStatus::Succeeded
        } else {
            OperationStatus::Canceled
        };
        tx.operation_finish(operation.id, status, None).await?;
    }
    Ok(())
}

/// Removes the files that belonged to a row. A failure leaves files behind, not a wrong state, and is logged.
async fn clean<B: Backend>(shared: &Shared<B>, gone: &Resource) {
    if is_deployment(&gone.id) {
        shared.backend.logs().remove(&gone.id);
    }
    if gone.id.is_type(DATASTORE_TYPE)
        && let Some(container) = gone.properties()["containerName"].as_str()
        && let Err(error) = shared.blob.container_remove(container).await
    {
        tracing::warn!(datastore = %gone.id, %error, "the files of a deleted datastore could not be removed");
    }
}

#[cfg(test)]
mod tests {
    use casemate_model::Clock;
    use casemate_store::Store;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_private_endpoint_takes_its_records_and_its_connection_along() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Clock::system()).await.unwrap();
        let author = Author { name: "test".to_owned(), kind: "User".to_owned() };
        let id = |rest: &str| ResourceId::parse(&format!("/subscriptions/s/resourceGroups/{rest}")).unwrap();
        let endpoint = id("g/providers/Microsoft.Network/privateEndpoints/pe");
        let connection =
            id("other/providers/Microsoft.MachineLearningServices/workspaces/w/privateEndpointConnections/pe.1");
        let zone = id("other/providers/Microsoft.Network/privateDnsZones/z");
        let record = zone.child("A", "x").unwrap();
        let owners = json!({endpoint.key(): {"address": "10.0.0.4", "network": "n"}, "another": {"address": "10.0.0.5", "network": "m"}});
        let mut tx = store.begin().await.unwrap();
        for (id, body) in [
            (&zone, json!({"properties": {}})),
            (&connection, json!({"properties": {"privateEndpoint": {"id": endpoint.as_str()}}})),
            (
                &record,
                json!({"properties": {"aRecords": [{"ipv4Address": "10.0.0.4"}, {"ipv4Address": "10.0.0.5"}]}, network::OWNERS: owners}),
            ),
        ] {
            tx.resource_put(id, body, &Condition::None, &author).await.unwrap();
        }
        release(&mut tx, &endpoint).await.unwrap();
        assert!(tx.resource_get(&connection).await.unwrap().is_none());
        let kept = tx.resource_get(&record).await.unwrap().unwrap();
        assert_eq!(kept.properties()["aRecords"], json!([{"ipv4Address": "10.0.0.5"}]));
        // What is removed and uses nothing elsewhere changes nothing.
        release(&mut tx, &zone).await.unwrap();
        assert!(tx.resource_get(&record).await.unwrap().is_some());
    }
}
