use std::{fs, os::unix::fs::symlink, time::Instant};

use super::*;

const SCOPE: &str = "/subscriptions/s/workspaces/W";

fn entry(at: u64, allowed: bool) -> LogEntry {
    LogEntry {
        time: "2026-01-02T03:04:05Z".parse().unwrap(),
        deployment: "blue".into(),
        instance: "blue-0".into(),
        name: Some("evil\n{\"seq\":9,\u{1b}[2J".into()),
        address: None,
        port: 443,
        protocol: "tcp".into(),
        allowed,
        rule: None,
        reason: format!("entry {at}"),
        bytes_sent: at,
        bytes_received: 0,
        would_deny: false,
    }
}

fn open(dir: &Path, file_bytes: u64) -> DecisionLog {
    DecisionLog::with_sizes(dir, Clock::system(), file_bytes).unwrap()
}

fn fill(log: &DecisionLog, from: u64, to: u64) {
    for at in from..=to {
        log.record(&SCOPE.into(), entry(at, at % 3 == 0));
        if at % 1000 == 0 {
            log.flush();
        }
    }
    log.flush();
}

fn read(log: &DecisionLog, denied_only: bool, after: Option<u64>, limit: usize) -> (Vec<u64>, u64) {
    let (entries, next) = log.read(SCOPE, &LogQuery { denied_only, after, limit }).unwrap();
    (entries.iter().map(|entry| entry.bytes_sent).collect(), next)
}

#[test]
fn entries_come_back_in_order_by_page_and_by_kind() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), FILE_BYTES);
    assert_eq!(read(&log, false, None, 10), (vec![], 0));
    fill(&log, 1, 10);
    assert_eq!(read(&log, false, None, 3), (vec![8, 9, 10], 10));
    assert_eq!(read(&log, false, Some(0), 3), (vec![1, 2, 3], 3));
    assert_eq!(read(&log, false, Some(3), 100), ((4..=10).collect(), 10));
    assert_eq!(read(&log, true, Some(3), 2), (vec![4, 5], 5));
    assert_eq!(read(&log, true, Some(8), 10), (vec![10], 10));
    assert_eq!(read(&log, false, Some(10), 10), (vec![], 10));
    // Names of resources differ in case only by chance; other scopes are others.
    let upper = log.read(&SCOPE.to_uppercase(), &LogQuery { limit: 1, ..LogQuery::default() }).unwrap();
    assert_eq!(upper.0, [entry(10, false)]);
    assert_eq!(log.read("/other", &LogQuery { limit: 1, ..LogQuery::default() }).unwrap(), (vec![], 0));
    let text = fs::read_to_string(&paths(dir.path(), SCOPE)[0]).unwrap();
    assert_eq!((text.lines().count(), text.contains('\u{1b}')), (10, false));
}

#[test]
fn numbers_go_on_after_a_restart_and_a_torn_line_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    fill(&open(dir.path(), FILE_BYTES), 1, 5);
    let [path, _] = paths(dir.path(), SCOPE);
    let mut text = fs::read_to_string(&path).unwrap();
    text.push_str("{\"seq\":6,\"time\":\"20");
    fs::write(&path, text).unwrap();
    let log = open(dir.path(), FILE_BYTES);
    assert_eq!(read(&log, false, None, 10), ((1..=5).collect(), 5));
    fill(&log, 6, 7);
    assert_eq!(read(&log, false, Some(0), 10).0, (1..=7).collect::<Vec<_>>());
}

#[test]
fn two_files_at_most_and_the_newest_entries() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), 256 << 10);
    fill(&log, 1, 5000);
    let sizes: Vec<u64> =
        fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() == 2 && sizes.iter().all(|size| *size <= 256 << 10), "{sizes:?}");
    assert_eq!(read(&log, false, None, 3), (vec![4998, 4999, 5000], 5000));
    // From before what is kept: from the oldest that is.
    let (kept, next) = read(&log, false, Some(0), usize::MAX);
    assert!(kept.len() > 1000 && kept.windows(2).all(|pair| pair[1] == pair[0] + 1), "{}", kept.len());
    assert_eq!((kept.last(), next), (Some(&5000), 5000));
    // Every position is found by halving.
    for after in (kept[0]..5000).step_by(97) {
        assert_eq!(read(&log, false, Some(after), 1).0, [after + 1]);
    }
    drop(log);
    let log = open(dir.path(), 256 << 10);
    fill(&log, 5001, 5001);
    assert_eq!(read(&log, false, Some(4999), 10), (vec![5000, 5001], 5001));
}

#[test]
fn a_full_disk_loses_entries_says_so_and_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let [path, _] = paths(dir.path(), SCOPE);
    fs::create_dir_all(dir.path()).unwrap();
    // Every write to it fails as on a full disk.
    symlink("/dev/full", &path).unwrap();
    let log = open(dir.path(), FILE_BYTES);
    let begun = Instant::now();
    fill(&log, 1, 20_000);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    fs::remove_file(&path).unwrap();
    let note = (0..300).find_map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        log.read(SCOPE, &LogQuery { limit: 1, ..LogQuery::default() }).unwrap().0.pop()
    });
    let note = note.expect("nothing is said of what was lost");
    assert!(note.reason.contains("decisions are not in this log") && note.reason.contains("No space left"), "{note:?}");
    let lost: u64 = note.reason.split(' ').next().unwrap().parse().unwrap();
    assert_eq!(lost, 20_000);
    fill(&log, 1, 1);
    assert_eq!(read(&log, false, None, 1).0, [1]);
}

#[test]
fn a_queue_that_is_full_counts() {
    let dir = tempfile::tempdir().unwrap();
    let [path, _] = paths(dir.path(), SCOPE);
    fs::create_dir_all(dir.path()).unwrap();
    // A pipe that nobody reads: opening it holds the writer up.
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let log = open(dir.path(), FILE_BYTES);
    let begun = Instant::now();
    for at in 0..20_000 {
        log.record(&SCOPE.into(), entry(at, false));
    }
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(log.0.overflow.load(Ordering::Relaxed) >= 20_000 - QUEUE as u64 - 1);
    // Another end lets the writer open the pipe, and by its going says that nothing is in there.
    let end = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    drop(end);
    log.flush();
    let lost = (0..300).find_map(|_| {
        std::thread::sleep(Duration::from_millis(100));
        fill(&log, 1, 1);
        let (entries, _) = log.read(SCOPE, &LogQuery { limit: 20_000, ..LogQuery::default() }).unwrap();
        entries.into_iter().find(|entry| entry.reason.contains("more decisions were made than could be written down"))
    });
    assert!(lost.is_some(), "nothing is said of what was lost");
}
