//! Resources: writing, conditions, deletion, rolling back, waking.

use casemate_model::FaultKind;
use jiff::SignedDuration;
use serde_json::{Map, Value, json};

use super::{Fixture, author, body, fault, group, id, workspace};
use crate::{Author, Condition, Filter};

#[tokio::test]
async fn a_resource_reads_back_as_written_also_after_reopening() {
    let at = Fixture::new().await;
    let put = at.put(&workspace("Ws"), body("ÄÖ \u{1f600} \"quoted\"")).await;
    assert!(put.created);
    assert_eq!(put.resource.generation, 1);
    assert_eq!(put.resource.system.created_by, "alice");
    assert_eq!(at.store.resource_get(&workspace("Ws")).await.unwrap().as_ref(), Some(&put.resource));
    let at = at.reopen().await;
    assert_eq!(at.store.resource_get(&workspace("Ws")).await.unwrap(), Some(put.resource));
    assert_eq!(at.store.resource_get(&workspace("other")).await.unwrap(), None);
}

#[tokio::test]
async fn ids_that_differ_in_case_are_one_resource_that_keeps_its_first_spelling() {
    let at = Fixture::new().await;
    at.put(&workspace("MyWs"), body("one")).await;
    let upper = id(&workspace("MyWs").as_str().to_uppercase());
    let put = at.put(&upper, body("two")).await;
    assert!(!put.created);
    assert_eq!(put.resource.id.as_str(), workspace("MyWs").as_str());
    assert_eq!(at.store.resource_get(&upper).await.unwrap().as_ref(), Some(&put.resource));
    assert_eq!(at.store.resource_list(&Filter::default()).await.unwrap(), [put.resource]);
}

#[tokio::test]
async fn each_put_counts_one_generation_and_a_new_etag_and_keeps_the_rest() {
    let at = Fixture::new().await;
    let first = at.put(&group("g"), body("same")).await.resource;
    let mut tx = at.store.begin().await.unwrap();
    let patch = Map::from_iter([("provisioningState".to_owned(), json!("Succeeded"))]);
    assert!(tx.resource_observe(&group("g"), patch).await.unwrap());
    tx.commit().await.unwrap();
    at.time.advance(SignedDuration::from_secs(5));
    let mut tx = at.store.begin().await.unwrap();
    let bob = Author { name: "bob".to_owned(), kind: "Application".to_owned() };
    let second = tx.resource_put(&group("g"), body("same"), &Condition::None, &bob).await.unwrap().resource;
    tx.commit().await.unwrap();
    assert_eq!((first.generation, second.generation), (1, 2));
    assert_ne!(first.etag, second.etag);
    assert!(second.etag.starts_with('"') && second.etag.ends_with('"'));
    assert_eq!(second.observed["provisioningState"], "Succeeded");
    assert_eq!(second.system.created_by, "alice");
    assert_eq!(second.system.created_at, first.system.created_at);
    assert_eq!(
        (second.system.last_modified_by.as_str(), second.system.last_modified_by_type.as_str()),
        ("bob", "Application")
    );
    assert_eq!(second.system.last_modified_at.duration_since(first.system.last_modified_at).as_secs(), 5);
}

#[tokio::test]
async fn observing_merges_and_leaves_generation_and_etag() {
    let at = Fixture::new().await;
    let put = at.put(&group("g"), body("x")).await.resource;
    let patches = [
        (json!({"a": 1, "b": {"deep": true}}), json!({"a": 1, "b": {"deep": true}})),
        (json!({"a": null, "c": [2]}), json!({"b": {"deep": true}, "c": [2]})),
        (json!({"b": 3, "never": null}), json!({"b": 3, "c": [2]})),
        (json!({}), json!({"b": 3, "c": [2]})),
    ];
    for (patch, wanted) in patches {
        let Value::Object(patch) = patch else { unreachable!() };
        let mut tx = at.store.begin().await.unwrap();
        assert!(tx.resource_observe(&group("g"), patch).await.unwrap());
        tx.commit().await.unwrap();
        let found = at.store.resource_get(&group("g")).await.unwrap().unwrap();
        assert_eq!(Value::Object(found.observed), wanted);
        assert_eq!((found.generation, found.etag), (put.generation, put.etag.clone()));
    }
    let mut tx = at.store.begin().await.unwrap();
    assert!(!tx.resource_observe(&group("gone"), Map::new()).await.unwrap());
}

#[tokio::test]
async fn conditions_hold_or_nothing_changes() {
    let at = Fixture::new().await;
    let there = at.put(&group("there"), body("first")).await.resource;
    let stale = Condition::Etag("\"stale\"".to_owned());
    let current = Condition::Etag(there.etag.clone());
    let any = Condition::Etag("*".to_owned());
    // (resource, condition, whether a put goes through); each in a transaction that is dropped.
    let table = [
        ("there", Condition::None, true),
        ("there", Condition::MustNotExist, false),
        ("there", current.clone(), true),
        ("there", any.clone(), true),
        ("there", stale.clone(), false),
        ("new", Condition::None, true),
        ("new", Condition::MustNotExist, true),
        ("new", current, false),
        ("new", any, false),
        ("new", stale.clone(), false),
    ];
    for (name, condition, passes) in table {
        let mut tx = at.store.begin().await.unwrap();
        let result = tx.resource_put(&group(name), body("second"), &condition, &author()).await;
        assert_eq!(result.is_ok(), passes, "{name} {condition:?}");
        if !passes {
            let fault = fault(result);
            assert_eq!((fault.kind, fault.code.as_str()), (FaultKind::PreconditionFailed, "PreconditionFailed"));
            assert_eq!(fault.target.as_deref(), Some(group(name).as_str()));
        }
    }
    let mut tx = at.store.begin().await.unwrap();
    assert_eq!(fault(tx.resource_mark_deleting(&group("there"), &stale).await).kind, FaultKind::PreconditionFailed);
    assert_eq!(tx.resource_mark_deleting(&group("new"), &stale).await.unwrap(), None);
    tx.commit().await.unwrap();
    assert_eq!(at.store.resource_get(&group("there")).await.unwrap(), Some(there));
}

#[tokio::test]
async fn a_resource_being_deleted_cannot_be_put_until_it_is_gone() {
    let at = Fixture::new().await;
    at.put(&group("g"), body("x")).await;
    let inside = at.put(&workspace("inside"), body("x")).await.resource;
    let mut tx = at.store.begin().await.unwrap();
    let marked = tx.resource_mark_deleting(&group("G"), &Condition::None).await.unwrap().unwrap();
    assert!(marked.deleting);
    assert_eq!(tx.resource_mark_deleting(&group("g"), &Condition::None).await.unwrap(), Some(marked));
    tx.commit().await.unwrap();
    let mut tx = at.store.begin().await.unwrap();
    for condition in [Condition::None, Condition::MustNotExist] {
        let fault = fault(tx.resource_put(&group("g"), body("y"), &condition, &author()).await);
        assert_eq!((fault.kind, fault.code.as_str()), (FaultKind::Conflict, "ResourceBeingDeleted"));
    }
    tx.resource_remove(&group("g")).await.unwrap();
    let put = tx.resource_put(&group("g"), body("y"), &Condition::MustNotExist, &author()).await.unwrap();
    tx.commit().await.unwrap();
    assert!(put.created);
    assert_eq!(put.resource.generation, 1);
    assert_eq!(at.store.resource_get(&inside.id).await.unwrap(), Some(inside));
}

#[tokio::test]
async fn a_dropped_transaction_changes_nothing_and_blocks_nobody() {
    let at = Fixture::new().await;
    let commits = at.store.subscribe();
    for _ in 0..20 {
        let mut tx = at.store.begin().await.unwrap();
        tx.resource_put(&group("g"), body("x"), &Condition::None, &author()).await.unwrap();
        tx.secret_put(&group("g"), "key", &"value".into()).await.unwrap();
        assert_eq!(tx.sequence_next("n").await.unwrap(), 1);
        assert!(tx.resource_get(&group("g")).await.unwrap().is_some(), "a transaction sees its own changes");
        assert_eq!(at.store.resource_get(&group("g")).await.unwrap(), None, "others do not");
        drop(tx);
    }
    assert_eq!(*commits.borrow(), 0);
    assert_eq!(at.store.resource_get(&group("g")).await.unwrap(), None);
    assert_eq!(at.store.secret_get(&group("g"), "key").await.unwrap(), None);
}

#[tokio::test]
async fn subscribers_wake_after_the_commit_of_a_change_only() {
    let at = Fixture::new().await;
    let mut commits = at.store.subscribe();
    at.put(&group("g"), body("x")).await;
    assert!(commits.has_changed().unwrap());
    commits.mark_unchanged();
    let mut tx = at.store.begin().await.unwrap();
    tx.resource_get(&group("g")).await.unwrap();
    tx.resource_observe(&group("g"), Map::new()).await.unwrap();
    tx.resource_remove(&group("gone")).await.unwrap();
    tx.secret_remove(&group("g"), "gone").await.unwrap();
    tx.commit().await.unwrap();
    assert!(!commits.has_changed().unwrap(), "nothing changed, so nobody needs to look");
    let mut tx = at.store.begin().await.unwrap();
    tx.resource_remove(&group("g")).await.unwrap();
    assert!(!commits.has_changed().unwrap(), "not before the commit");
    tx.commit().await.unwrap();
    assert!(commits.has_changed().unwrap());
}
