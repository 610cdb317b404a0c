//! Secrets and the key file.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use casemate_model::Secret;

use super::{Fixture, body, group};
use crate::{Store, StoreError};

const VALUE: &str = "correct-horse-battery-staple";

#[tokio::test]
async fn a_secret_reads_back_is_replaced_and_goes_with_its_owner() {
    let at = Fixture::new().await;
    at.put(&group("g"), body("x")).await;
    let long = Secret::new(vec![0xff; 100_000]);
    let mut tx = at.store.begin().await.unwrap();
    for (name, value) in
        [("one", Secret::from("first")), ("one", Secret::from(VALUE)), ("two", long.clone()), ("three", "".into())]
    {
        tx.secret_put(&group("g"), name, &value).await.unwrap();
        assert_eq!(tx.secret_get(&group("G"), name).await.unwrap(), Some(value));
    }
    tx.secret_remove(&group("g"), "three").await.unwrap();
    tx.secret_put(&group("other"), "one", &"kept".into()).await.unwrap();
    tx.commit().await.unwrap();
    let at = at.reopen().await;
    assert_eq!(at.store.secret_get(&group("g"), "one").await.unwrap(), Some(VALUE.into()));
    assert_eq!(at.store.secret_get(&group("g"), "two").await.unwrap(), Some(long));
    assert_eq!(at.store.secret_get(&group("g"), "three").await.unwrap(), None);
    let mut tx = at.store.begin().await.unwrap();
    tx.resource_remove(&group("g")).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(at.store.secret_get(&group("g"), "one").await.unwrap(), None);
    assert_eq!(at.store.secret_get(&group("other"), "one").await.unwrap(), Some("kept".into()));
}

#[tokio::test]
async fn no_file_holds_a_secret_in_clear_and_none_is_open_to_others() {
    let at = Fixture::new().await;
    at.put(&group("g"), body("a body is not sealed")).await;
    let mut tx = at.store.begin().await.unwrap();
    tx.secret_put(&group("g"), "key", &VALUE.into()).await.unwrap();
    tx.commit().await.unwrap();
    // Both while the change is in the write-ahead log and after it was merged.
    check_files(at.dir.path());
    at.store.close().await;
    check_files(at.dir.path());
}

fn check_files(dir: &Path) {
    let mut body_seen = false;
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!holds(VALUE), "{} holds the secret", path.display());
        body_seen |= holds("a body is not sealed");
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", path.display());
    }
    assert!(body_seen, "the search would find clear text");
}

#[tokio::test]
async fn a_sealed_value_opens_for_its_owner_and_name_only() {
    let at = Fixture::new().await;
    let mut tx = at.store.begin().await.unwrap();
    tx.secret_put(&group("g"), "key", &VALUE.into()).await.unwrap();
    sqlx::query("INSERT INTO secrets SELECT ?, name, sealed FROM secrets")
        .bind(group("thief").key())
        .execute(&mut *tx.transaction)
        .await
        .unwrap();
    sqlx::query("INSERT INTO secrets SELECT owner, 'other', sealed FROM secrets WHERE owner = ?")
        .bind(group("g").key())
        .execute(&mut *tx.transaction)
        .await
        .unwrap();
    sqlx::query("INSERT INTO secrets VALUES (?, 'short', x'00')")
        .bind(group("g").key())
        .execute(&mut *tx.transaction)
        .await
        .unwrap();
    for (owner, name) in [("thief", "key"), ("g", "other"), ("g", "short")] {
        let result = tx.secret_get(&group(owner), name).await;
        assert!(matches!(result, Err(StoreError::Corrupt(_))), "{owner} {name} {result:?}");
    }
    assert_eq!(tx.secret_get(&group("g"), "key").await.unwrap(), Some(VALUE.into()));
}

#[tokio::test]
async fn a_wrong_key_is_refused_and_the_right_one_opens_again() {
    let at = Fixture::new().await;
    let mut tx = at.store.begin().await.unwrap();
    tx.secret_put(&group("g"), "key", &VALUE.into()).await.unwrap();
    tx.commit().await.unwrap();
    at.store.close().await;
    let path = at.dir.path().join("store.key");
    let right = fs::read(&path).unwrap();
    assert_eq!(right.len(), 32);
    type Is = fn(&StoreError) -> bool;
    let table: [(&str, Option<Vec<u8>>, u32, Is); 5] = [
        ("missing", None, 0o600, |error| matches!(error, StoreError::KeyMissing { .. })),
        ("another", Some(vec![7; 32]), 0o600, |error| matches!(error, StoreError::KeyMismatch { .. })),
        ("short", Some(right[..31].to_vec()), 0o600, |error| matches!(error, StoreError::KeyInvalid { .. })),
        ("long", Some([&right[..], b"\n"].concat()), 0o600, |error| matches!(error, StoreError::KeyInvalid { .. })),
        ("open to others", Some(right.clone()), 0o644, |error| matches!(error, StoreError::KeyInvalid { .. })),
    ];
    for (what, bytes, mode, is) in table {
        write_key(&path, bytes.as_deref(), mode);
        let error = Store::open(at.dir.path(), at.time.clock()).await.unwrap_err();
        assert!(is(&error), "{what}: {error:?}");
        assert!(error.to_string().contains("store.key"), "{what}: {error}");
        assert_eq!(path.exists(), bytes.is_some(), "{what}: no key was made");
    }
    write_key(&path, Some(&right), 0o600);
    let store = Store::open(at.dir.path(), at.time.clock()).await.unwrap();
    assert_eq!(store.secret_get(&group("g"), "key").await.unwrap(), Some(VALUE.into()));
}

fn write_key(path: &Path, bytes: Option<&[u8]>, mode: u32) {
    match bytes {
        None => fs::remove_file(path).unwrap(),
        Some(bytes) => {
            fs::write(path, bytes).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}
