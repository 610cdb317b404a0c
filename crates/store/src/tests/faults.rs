//! What goes wrong around the store, and that it goes on afterwards.

use std::{collections::BTreeSet, fs, time::Duration};

use casemate_model::FaultKind;
use tokio::task::JoinSet;

use super::{Fixture, author, body, fault, group};
use crate::{Condition, Filter, Store, StoreError, open};

#[tokio::test]
async fn a_full_disk_is_told_and_the_store_goes_on_once_there_is_space() {
    let at = Fixture::new().await;
    at.put(&group("before"), body("x")).await;
    let mut tx = at.store.begin().await.unwrap();
    // SQLite answers a full disk and this limit alike. It is the connection's own, and so ends with it.
    sqlx::query("PRAGMA max_page_count = 1").execute(&mut *tx.transaction).await.unwrap();
    let big = body(&"x".repeat(1_000_000));
    let error = tx.resource_put(&group("big"), big.clone(), &Condition::None, &author()).await.unwrap_err();
    assert!(matches!(error, StoreError::Full), "{error:?}");
    let fault: casemate_model::Fault = error.into();
    assert_eq!((fault.kind, fault.code.as_str()), (FaultKind::Unavailable, "InsufficientStorage"));
    drop(tx);
    at.put(&group("big"), big).await;
    let found = at.store.resource_list(&Filter::default()).await.unwrap();
    assert_eq!(found.iter().map(|row| row.name()).collect::<Vec<_>>(), ["before", "big"]);
}

#[tokio::test]
async fn the_wait_for_the_writer_is_bounded_and_readers_do_not_wait() {
    let dir = tempfile::tempdir().unwrap();
    let store = open::open(dir.path(), casemate_model::Clock::system(), Duration::from_millis(200)).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    tx.resource_put(&group("g"), body("x"), &Condition::None, &author()).await.unwrap();
    assert_eq!(fault(store.begin().await).code, "StoreBusy");
    assert_eq!(store.resource_get(&group("g")).await.unwrap(), None);
    tx.commit().await.unwrap();
    store.begin().await.unwrap();
    // Another handle on the same files stands for another process that holds the database.
    let other = Store::open(dir.path(), casemate_model::Clock::system()).await.unwrap();
    let held = other.begin().await.unwrap();
    assert_eq!(fault(store.begin().await).code, "StoreBusy");
    drop(held);
}

#[tokio::test]
async fn a_damaged_database_is_told() {
    let at = Fixture::new().await;
    at.put(&group("g"), body("x")).await;
    let mut tx = at.store.begin().await.unwrap();
    sqlx::query("UPDATE resources SET body = '{'").execute(&mut *tx.transaction).await.unwrap();
    tx.commit().await.unwrap();
    let error = at.store.resource_get(&group("g")).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
    at.store.close().await;
    let path = at.dir.path().join("casemate.db");
    let mut bytes = fs::read(&path).unwrap();
    bytes[..100].fill(0x2a);
    fs::write(&path, bytes).unwrap();
    let error = Store::open(at.dir.path(), at.time.clock()).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
}

#[tokio::test]
async fn a_database_of_a_later_release_is_refused() {
    let at = Fixture::new().await;
    let mut tx = at.store.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations SELECT 9999, 'later', installed_on, 1, checksum, 0 FROM _sqlx_migrations",
    )
    .execute(&mut *tx.transaction)
    .await
    .unwrap();
    tx.commit().await.unwrap();
    at.store.close().await;
    let error = Store::open(at.dir.path(), at.time.clock()).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 9999, .. }), "{error:?}");
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let fault = fault(Store::open(&file.join("state"), casemate_model::Clock::system()).await);
    assert_eq!((fault.kind, fault.code.as_str()), (FaultKind::Unavailable, "StateDirectoryUnusable"));
    assert!(fault.message.contains("file/state"), "{}", fault.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_take_turns() {
    let at = Fixture::new().await;
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let store = at.store.clone();
        tasks.spawn(async move {
            let mut numbers = Vec::new();
            for _ in 0..10 {
                let mut tx = store.begin().await.unwrap();
                numbers.push(tx.sequence_next("n").await.unwrap());
                tx.resource_put(&group("shared"), body("x"), &Condition::None, &author()).await.unwrap();
                tx.resource_put(&group(&format!("own{task}")), body("x"), &Condition::None, &author()).await.unwrap();
                tx.commit().await.unwrap();
            }
            numbers
        });
    }
    let numbers: BTreeSet<u64> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(numbers, (1..=80).collect());
    assert_eq!(at.store.resource_get(&group("SHARED")).await.unwrap().unwrap().generation, 80);
    assert_eq!(at.store.resource_get(&group("own3")).await.unwrap().unwrap().generation, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_aborted_at_any_moment_leaves_the_store_whole() {
    let at = Fixture::new().await;
    let mut commits = at.store.subscribe();
    for round in 0..60 {
        let store = at.store.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut tx = store.begin().await.unwrap();
            tx.resource_put(&group("one"), body("x"), &Condition::None, &author()).await.unwrap();
            tx.resource_put(&group("two"), body("x"), &Condition::None, &author()).await.unwrap();
            tx.commit().await.unwrap();
        });
        tokio::time::sleep(Duration::from_micros(round * 60)).await;
        tasks.shutdown().await;
    }
    let put = at.put(&group("one"), body("x")).await.resource;
    let generation = |row: Option<casemate_model::Resource>| row.map_or(0, |row| row.generation);
    let two = generation(at.store.resource_get(&group("two")).await.unwrap());
    assert_eq!(put.generation, two + 1, "both or none");
    assert!(*commits.borrow_and_update() > u64::try_from(two).unwrap(), "no commit went unannounced");
}
