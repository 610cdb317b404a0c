use std::io::Write;

use super::*;

const BLUE: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/onlineEndpoints/e/deployments/blue";

fn blue() -> ResourceId {
    ResourceId::parse(BLUE).unwrap()
}

fn read(store: &LogStore, tail: usize) -> String {
    store.read(&blue(), Container::InferenceServer, tail).unwrap()
}

#[test]
fn lines_are_made_safe() {
    let long = "x".repeat(MAX_LINE_BYTES + 10);
    let table: &[(&[&[u8]], &[&str])] = &[
        (&[b"one\ntwo\n"], &["one", "two"]),
        (&[b"on", b"e\nt", b"wo"], &["one", "two"]),
        (&[b"dos\r\nline\r", b"\nend\n"], &["dos", "line", "end"]),
        (&[b" 10%|#   \r 20%|##  \r\n"], &[" 10%|#   ", " 20%|##  "]),
        (&[b"\n\n"], &["", ""]),
        (&[b"\x1b[2Jgone\x07\ttab\n"], &["\\u{1b}[2Jgone\\u{7}\ttab"]),
        (&[b"\xff\xfe\x00\n"], &["\u{fffd}\u{fffd}\\u{0}"]),
        (&["caf\u{e9} \u{202e}evil\n".as_bytes()], &["caf\u{e9} \\u{202e}evil"]),
        (&[long.as_bytes(), b"more\nnext\n"], &[&format!("{} […line cut]", &long[..MAX_LINE_BYTES]), "next"]),
    ];
    for (chunks, expected) in table {
        let mut got = Vec::new();
        let mut cleaner = lines::Cleaner::default();
        for chunk in *chunks {
            cleaner.push(chunk, &mut |line| got.push(line.to_owned()));
        }
        cleaner.finish(&mut |line| got.push(line.to_owned()));
        assert_eq!(&got, expected);
    }
}

proptest::proptest! {
    #[test]
    fn lines_do_not_depend_on_how_the_bytes_arrive(
        chunks in proptest::collection::vec(proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40), 0..20)
    ) {
        let clean = |chunks: &[&[u8]]| {
            let mut got = Vec::new();
            let mut cleaner = lines::Cleaner::default();
            chunks.iter().for_each(|chunk| cleaner.push(chunk, &mut |line| got.push(line.to_owned())));
            cleaner.finish(&mut |line| got.push(line.to_owned()));
            got
        };
        let pieces: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
        let lines = clean(&pieces);
        proptest::prop_assert_eq!(&lines, &clean(&[&chunks.concat()]));
        proptest::prop_assert!(lines.iter().all(|line| line.chars().all(|c| c == '\t' || !c.is_control())));
    }
}

#[test]
fn a_log_stays_bounded_and_keeps_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let limits = LogLimits { segment_bytes: 4096, segments: 3 };
    let store = LogStore::with_limits(dir.path(), limits);
    let writer = store.writer(&blue(), Container::InferenceServer);
    for number in 0..5000 {
        writer.line(&format!("line {number}"));
    }
    let log_dir = store.deployment_dir(&blue()).join("inference-server");
    let kept: Vec<_> = rotate::segments(&log_dir).unwrap();
    assert_eq!(kept.len(), 3);
    let bytes: u64 = kept.iter().map(|(_, path)| path.metadata().unwrap().len()).sum();
    assert!(bytes <= 3 * (4096 + 16), "{bytes}");
    let text = read(&store, usize::MAX);
    assert!(text.ends_with("line 4998\nline 4999\n"));
    assert_eq!(text.len() as u64, bytes);
}

#[test]
fn tails() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::with_limits(dir.path(), LogLimits { segment_bytes: 70_000, segments: 4 });
    assert_eq!(read(&store, 10), "", "nothing written yet");
    let writer = store.writer(&blue(), Container::InferenceServer);
    let line = |number: usize| format!("{number:0100}");
    let count = 2000;
    (0..count).for_each(|number| writer.line(&line(number)));
    // Around the borders of lines, of 64 KiB blocks (648.9 lines) and of segments (693.1 lines).
    for tail in [0, 1, 2, 648, 649, 650, 692, 693, 694, 695, 1999, 2000, 2001] {
        let expected: String = (count - tail.min(count)..count).map(|number| line(number) + "\n").collect();
        assert_eq!(read(&store, tail), expected, "tail {tail}");
    }
    let log_dir = store.deployment_dir(&blue()).join("inference-server");
    for (max_bytes, lines) in [(100, 0), (101, 1), (201, 1), (202, 2), (101 * 694, 694), (101 * 694 - 1, 693)] {
        let text = read::tail(&log_dir, usize::MAX, max_bytes).unwrap();
        assert_eq!(text.lines().count(), lines, "{max_bytes} bytes");
    }
    // A new writer, as after a restart of the platform, goes on at the end.
    drop(writer);
    store.writer(&blue(), Container::InferenceServer).line("later\nand later");
    assert_eq!(read(&store, 2), "later\nand later\n");
}

#[test]
fn a_process_writes_through_the_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::new(dir.path());
    let writer = store.writer(&blue(), Container::InferenceServer);
    let LogPipe { stdout, stderr, pump, tail } = writer.pipe().unwrap();
    let pumping = std::thread::spawn(move || pump.run());
    let mut child = std::process::Command::new("/bin/sh")
        .args(["-c", "echo out; echo err >&2; printf 'no end'; sleep 1.5; printf ' after all'"])
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .unwrap();
    writer.line("from the platform");
    child.wait().unwrap();
    pumping.join().unwrap();
    let own: Vec<String> = tail.lines();
    // The beginning of a line is shown before its end comes (unless this machine slept all the while).
    assert!(own == ["out", "err", "no end", " after all"] || own == ["out", "err", "no end after all"], "{own:?}");
    assert_eq!(read(&store, 100).lines().count(), own.len() + 1);
}

#[test]
fn a_full_disk_costs_lines_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::new(dir.path().join("logs"));
    let writer = store.writer(&blue(), Container::InferenceServer);
    // A file where the directory should be refuses every line, as a full disk does.
    std::fs::write(dir.path().join("logs"), "").unwrap();
    writer.line("lost");
    writer.line("lost too");
    assert_eq!(writer.dropped(), 2);
    std::fs::remove_file(dir.path().join("logs")).unwrap();
    writer.line("kept");
    assert_eq!(read(&store, 10), "[2 log lines were lost: the disk refused them]\nkept\n");
}

#[test]
fn removal_is_final_for_old_writers() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::new(dir.path());
    let old = store.writer(&blue(), Container::InferenceServer);
    old.line("before");
    store.writer(&blue(), Container::StorageInitializer).line("other container");
    assert_eq!(read(&store, 10), "before\n");
    store.remove(&blue());
    store.remove(&blue());
    old.line("after");
    assert_eq!(read(&store, 10), "");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    // The deployment may be made again under the same id.
    store.writer(&blue(), Container::InferenceServer).line("anew");
    assert_eq!(read(&store, 10), "anew\n");
}

#[test]
fn containers_by_name() {
    for (name, expected) in [
        ("inference-server", Some(Container::InferenceServer)),
        ("InferenceServer", Some(Container::InferenceServer)),
        ("storage-initializer", Some(Container::StorageInitializer)),
        ("StorageInitializer", Some(Container::StorageInitializer)),
        ("", None),
        ("../secrets", None),
    ] {
        assert_eq!(name.parse().ok(), expected, "{name}");
    }
}

#[test]
fn a_reader_never_sees_half_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::with_limits(dir.path(), LogLimits { segment_bytes: 2000, segments: 3 });
    let LogPipe { stdout, stderr, pump, .. } = store.writer(&blue(), Container::InferenceServer).pipe().unwrap();
    drop(stderr);
    let pumping = std::thread::spawn(move || pump.run());
    let writing = std::thread::spawn(move || {
        let mut stdout = std::fs::File::from(stdout);
        (0..20_000).for_each(|_| stdout.write_all(b"0123456789\n").unwrap());
    });
    while !writing.is_finished() {
        assert!(read(&store, 100).lines().all(|line| line == "0123456789"));
    }
    writing.join().unwrap();
    pumping.join().unwrap();
}
