//! Processes: killed at a random moment, and two at once. The other process is this test binary, told by a variable
//! which part to play.

use std::{
    collections::BTreeSet,
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use casemate_model::Clock;
use uuid::Uuid;

use super::{author, body, group};
use crate::{Condition, Store};

const CHILD_DIR: &str = "CASEMATE_STORE_TEST_CHILD_DIR";
const CHILD_COUNT: &str = "CASEMATE_STORE_TEST_CHILD_COUNT";
const ACKNOWLEDGED: &str = "acknowledged ";

/// The other process: commits `CHILD_COUNT` times and says so each time. Does nothing when run as an ordinary test.
#[tokio::test]
async fn child() {
    let Some(dir) = env::var_os(CHILD_DIR).map(PathBuf::from) else { return };
    let count: u64 = env::var(CHILD_COUNT).unwrap().parse().unwrap();
    let store = Store::open(&dir, Clock::system()).await.unwrap();
    for _ in 0..count {
        let (number, etag) = commit_one(&store).await;
        println!("{ACKNOWLEDGED}{number} {etag}");
    }
}

async fn commit_one(store: &Store) -> (u64, String) {
    let mut tx = store.begin().await.unwrap();
    let number = tx.sequence_next("n").await.unwrap();
    let id = group(&format!("g{number}"));
    let put = tx.resource_put(&id, body(&"x".repeat(2000)), &Condition::MustNotExist, &author()).await.unwrap();
    tx.secret_put(&id, "key", &put.resource.etag.as_str().into()).await.unwrap();
    tx.commit().await.unwrap();
    (number, put.resource.etag)
}

fn spawn_child(dir: &Path, count: u64) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "tests::durability::child", "--nocapture", "--test-threads", "1"])
        .env(CHILD_DIR, dir)
        .env(CHILD_COUNT, count.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// What the child acknowledges until it ends, as it says it. The harness writes its own words before the first line.
fn acknowledgements(child: &mut Child) -> impl Iterator<Item = (u64, String)> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.filter_map(|line| {
        let (_, said) = line.split_once(ACKNOWLEDGED)?;
        let (number, etag) = said.split_once(' ')?;
        Some((number.parse().unwrap(), etag.to_owned()))
    })
}

#[tokio::test]
async fn each_acknowledged_write_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    // Random moments: the first two while the database is being made or opened, the others amid the writing.
    for wait_for in [0, 0, 1, 4, 9, 16, 25] {
        let mut child = spawn_child(dir.path(), u64::MAX);
        let mut heard = acknowledgements(&mut child);
        all.extend(heard.by_ref().take(wait_for));
        thread::sleep(Duration::from_micros(u64::from(Uuid::new_v4().as_bytes()[0]) * 200));
        child.kill().unwrap();
        all.extend(heard);
        child.wait().unwrap();
        let store = Store::open(dir.path(), Clock::system()).await.unwrap();
        for (number, etag) in &all {
            let id = group(&format!("g{number}"));
            let row = store.resource_get(&id).await.unwrap().expect("an acknowledged write is there");
            assert_eq!(row.etag, *etag);
            assert_eq!(store.secret_get(&id, "key").await.unwrap(), Some(etag.as_str().into()));
        }
        all.push(commit_one(&store).await);
        store.close().await;
    }
    let numbers: BTreeSet<u64> = all.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers.len(), all.len(), "no number was given twice");
}

#[tokio::test]
async fn two_processes_that_make_and_write_one_database_take_turns() {
    const EACH: u64 = 25;
    let dir = tempfile::tempdir().unwrap();
    let mut children = [spawn_child(dir.path(), EACH), spawn_child(dir.path(), EACH)];
    let store = Store::open(dir.path(), Clock::system()).await.unwrap();
    let mut numbers = BTreeSet::new();
    for _ in 0..EACH {
        numbers.insert(commit_one(&store).await.0);
    }
    for child in &mut children {
        numbers.extend(acknowledgements(child).map(|(number, _)| number));
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(numbers, (1..=3 * EACH).collect());
}
