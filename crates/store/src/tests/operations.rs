//! Operations and sequences.

use casemate_model::{Fault, OperationStatus, operation::OperationKind};
use jiff::SignedDuration;
use serde_json::json;
use uuid::Uuid;

use super::{Fixture, fault, group};
use crate::query;

#[tokio::test]
async fn an_operation_ends_once_and_reads_back_after_reopening() {
    let at = Fixture::new().await;
    let mut tx = at.store.begin().await.unwrap();
    let put = tx.operation_create(&group("G"), OperationKind::Put, 3).await.unwrap();
    let delete = tx.operation_create(&group("g"), OperationKind::Delete, 3).await.unwrap();
    let action = tx.operation_create(&group("g"), OperationKind::Action, 3).await.unwrap();
    tx.commit().await.unwrap();
    let at = at.reopen().await;
    assert_eq!(at.store.operations_pending().await.unwrap(), [put.clone(), delete.clone(), action.clone()]);
    at.time.advance(SignedDuration::from_secs(2));
    let failed = OperationStatus::Failed(Fault::invalid("BadArgument", "no").at("here"));
    let mut tx = at.store.begin().await.unwrap();
    tx.operation_finish(put.id, failed.clone(), None).await.unwrap();
    tx.operation_finish(action.id, OperationStatus::Succeeded, Some(json!({"keys": [1]}))).await.unwrap();
    tx.operation_finish(action.id, OperationStatus::Canceled, None).await.unwrap();
    tx.operation_finish(Uuid::new_v4(), OperationStatus::Succeeded, None).await.unwrap();
    assert_eq!(
        fault(tx.operation_finish(delete.id, OperationStatus::InProgress, None).await).code,
        "InternalServerError"
    );
    tx.commit().await.unwrap();
    let at = at.reopen().await;
    assert_eq!(at.store.operations_pending().await.unwrap(), [delete]);
    let put_ended = at.store.operation_get(put.id).await.unwrap().unwrap();
    assert_eq!(put_ended.status, failed);
    assert_eq!(put_ended.ended_at.unwrap().duration_since(put_ended.created_at).as_secs(), 2);
    assert_eq!(put_ended.created_at, put.created_at);
    let action_ended = at.store.operation_get(action.id).await.unwrap().unwrap();
    assert_eq!((action_ended.status, action_ended.result), (OperationStatus::Succeeded, Some(json!({"keys": [1]}))));
    assert_eq!(at.store.operation_get(Uuid::new_v4()).await.unwrap(), None);
}

#[tokio::test]
async fn finished_operations_are_forgotten_after_a_week_and_unfinished_ones_never() {
    let at = Fixture::new().await;
    let mut tx = at.store.begin().await.unwrap();
    let unfinished = tx.operation_create(&group("g"), OperationKind::Put, 1).await.unwrap();
    let old = tx.operation_create(&group("g"), OperationKind::Put, 1).await.unwrap();
    let young = tx.operation_create(&group("g"), OperationKind::Put, 1).await.unwrap();
    tx.operation_finish(old.id, OperationStatus::Succeeded, None).await.unwrap();
    tx.commit().await.unwrap();
    at.time.advance(query::operation::KEPT - SignedDuration::from_secs(1));
    let mut tx = at.store.begin().await.unwrap();
    tx.operation_finish(young.id, OperationStatus::Succeeded, None).await.unwrap();
    assert!(tx.operation_get(old.id).await.unwrap().is_some());
    tx.commit().await.unwrap();
    at.time.advance(SignedDuration::from_secs(2));
    let at = at.reopen().await;
    assert_eq!(at.store.operation_get(old.id).await.unwrap(), None);
    assert!(at.store.operation_get(young.id).await.unwrap().is_some());
    assert_eq!(at.store.operations_pending().await.unwrap(), [unfinished]);
}

#[tokio::test]
async fn at_most_ten_thousand_finished_operations_are_kept() {
    const EXTRA: i64 = 7;
    let at = Fixture::new().await;
    let mut tx = at.store.begin().await.unwrap();
    let unfinished = tx.operation_create(&group("g"), OperationKind::Put, 1).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..query::operation::KEPT_COUNT + EXTRA {
        let finished = casemate_model::Operation {
            id: Uuid::new_v4(),
            status: OperationStatus::Succeeded,
            ended_at: Some(unfinished.created_at),
            ..unfinished.clone()
        };
        query::operation::insert(&mut tx.transaction, &finished).await.unwrap();
        ids.push(finished.id);
    }
    let last = tx.operation_create(&group("g"), OperationKind::Put, 1).await.unwrap();
    tx.operation_finish(last.id, OperationStatus::Succeeded, None).await.unwrap();
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM operations WHERE ended_at IS NOT NULL")
        .fetch_one(&mut *tx.transaction)
        .await
        .unwrap();
    assert_eq!(count, query::operation::KEPT_COUNT);
    let forgotten = usize::try_from(EXTRA + 1).unwrap();
    assert_eq!(tx.operation_get(ids[forgotten - 1]).await.unwrap(), None);
    assert!(tx.operation_get(ids[forgotten]).await.unwrap().is_some());
    assert!(tx.operation_get(last.id).await.unwrap().is_some());
    assert_eq!(tx.operations_pending().await.unwrap(), [unfinished]);
}

#[tokio::test]
async fn sequences_count_apart_and_go_on_after_reopening() {
    let mut at = Fixture::new().await;
    for wanted in 1..=3 {
        let mut tx = at.store.begin().await.unwrap();
        assert_eq!(tx.sequence_next("instances").await.unwrap(), wanted * 2 - 1);
        assert_eq!(tx.sequence_next("instances").await.unwrap(), wanted * 2);
        assert_eq!(tx.sequence_next("versions").await.unwrap(), wanted);
        tx.commit().await.unwrap();
        at = at.reopen().await;
    }
}
