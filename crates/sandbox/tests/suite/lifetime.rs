//! That nothing outlives what holds it: a sandbox its owner, everything the platform.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use casemate_sandbox::{Launcher, LimitsBackend, Network};

use crate::Test;
use crate::leaks::Canary;
use crate::world::{World, children, config, processes_with, until};

pub const TESTS: &[Test] = &[
    Test { name: "dropping_a_sandbox_ends_it_and_leaves_nothing", check: dropping },
    Test { name: "a_killed_platform_leaves_nothing_running", check: killed_platform },
    Test { name: "a_platform_killed_at_any_moment_leaves_nothing_running", check: killed_any_time },
    Test { name: "two_platforms_do_not_disturb_each_other", check: two_platforms },
    Test { name: "an_ended_launcher_leaves_no_group", check: ended_launcher },
];

/// The argument that makes this binary a platform of its own.
pub const PLATFORM_ARG: &str = "__platform";

const DAEMON: &str = "import os, sys, time
if os.fork() == 0:
    os.setsid()
    print('daemon', flush=True)
    time.sleep(600)
print('payload', flush=True)
time.sleep(600)";

/// Tries without a pause to get out, to this machine's port in the last argument.
const HAMMER: &str = "import socket, sys, threading, time
def hammer():
    port = int(sys.argv[-1])
    while True:
        for address in ('127.0.0.1', '10.0.0.1', '::1'):
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                try:
                    with socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, kind) as s:
                        s.settimeout(0.05); s.connect((address, port)); s.send(b'out')
                except OSError: pass
        time.sleep(0.001)
threading.Thread(target=hammer, daemon=True).start()
";

fn dropping(world: &World) {
    let marker = format!("marker-{}", std::process::id());
    let mut payload = world.python(DAEMON);
    payload.spec.args.push(marker.clone());
    let mut running = payload.start();
    running.wait_for("daemon");
    running.wait_for("payload");
    assert_eq!(processes_with(&marker).len(), 2);
    drop(running);
    assert_eq!(processes_with(&marker), Vec::<u32>::new());
    assert_eq!(children(), Vec::<u32>::new());
    assert_eq!(groups(world.dir.path()), Vec::<PathBuf>::new(), "no sandbox, no group");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(world.dir.path().to_str().unwrap()), "a mount is visible on the host");
}

/// The groups of single sandboxes that belong to the platform with this directory.
fn groups(dir: &Path) -> Vec<PathBuf> {
    let record = std::fs::read_to_string(dir.join("scratch/control-groups")).unwrap();
    let below = |base: &str| std::fs::read_dir(base).into_iter().flatten().flatten().map(|entry| entry.path());
    record.lines().flat_map(below).filter(|path| path.is_dir()).collect()
}

/// A platform in a process of its own, that launches sandboxes whose processes carry `marker` and try to reach `port`.
fn start_platform(dir: &Path, marker: &str, port: u16, endless: bool) -> Child {
    let exe = std::fs::read_link("/proc/self/exe").unwrap();
    let kind = if endless { "endless" } else { "one" };
    Command::new(exe)
        .arg(PLATFORM_ARG)
        .arg(dir)
        .args([marker, kind, &port.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The main function of such a process: never returns by itself.
pub fn platform(args: &[String]) -> ! {
    casemate_sandbox::prepare_process().unwrap();
    let (dir, marker, endless) = (PathBuf::from(&args[0]), args[1].clone(), args[2] == "endless");
    let mut config = config(&dir);
    config.helper_args = vec![marker.clone()];
    let world = World::with(dir, Launcher::new(config).unwrap());
    world.launcher.sweep().unwrap();
    println!("launching");
    loop {
        let mut payload = world.python(&format!("{HAMMER}{DAEMON}"));
        payload.spec.network = Network::Gateway;
        payload.spec.args.extend([marker.clone(), args[3].clone()]);
        let mut running = payload.start();
        if endless {
            continue;
        }
        running.wait_for("daemon");
        running.wait_for("payload");
        println!("running");
        std::thread::sleep(Duration::from_secs(600));
    }
}

fn wait_for_line(platform: &mut Child, word: &str) {
    let mut lines = BufReader::new(platform.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == word), "the platform never said {word:?}");
}

fn killed_platform(world: &World) {
    let dir = world.make_dir("platform");
    let marker = format!("marker-{}", std::process::id());
    let canary = Canary::new();
    let mut platform = start_platform(&dir, &marker, canary.port, false);
    wait_for_line(&mut platform, "running");
    // The platform itself and two processes inside carry it; the first process has the helper's arguments.
    assert!(processes_with(&marker).len() >= 4, "{:?}", processes_with(&marker));
    platform.kill().unwrap();
    platform.wait().unwrap();
    until("everything inside has ended", || processes_with(&marker).is_empty());
    canary.must_be_silent();

    let next = Launcher::new(config(&dir)).unwrap();
    if next.limits() != LimitsBackend::Watchdog {
        assert!(!groups(&dir).is_empty(), "the control: a killed platform cannot remove its groups");
    }
    next.sweep().unwrap();
    assert_eq!(groups(&dir), Vec::<PathBuf>::new());
}

fn killed_any_time(world: &World) {
    let dir = world.make_dir("platform");
    let marker = format!("marker-{}", std::process::id());
    let canary = Canary::new();
    for round in 0..12_u64 {
        let mut platform = start_platform(&dir, &marker, canary.port, true);
        wait_for_line(&mut platform, "launching");
        // Spread over the phases of a launch, differently each time.
        std::thread::sleep(Duration::from_micros(round * 1_700));
        platform.kill().unwrap();
        platform.wait().unwrap();
        until("everything inside has ended", || processes_with(&marker).is_empty());
    }
    canary.must_be_silent();
    let next = Launcher::new(config(&dir)).unwrap();
    next.sweep().unwrap();
    assert_eq!(groups(&dir), Vec::<PathBuf>::new());
    drop(next);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dir.to_str().unwrap()), "a mount is visible on the host");
}

fn two_platforms(world: &World) {
    let other_dir = world.make_dir("other");
    let other = World::with(other_dir.clone(), Launcher::new(config(&other_dir)).unwrap());
    let sleeper = "import time; print('ready', flush=True); time.sleep(600)";
    let (mut mine, mut theirs) = (world.python(sleeper).start(), other.python(sleeper).start());
    mine.wait_for("ready");
    theirs.wait_for("ready");
    // A sweep is for the time before the first launch: it ends whatever its own platform runs, and nothing else.
    other.launcher.sweep().unwrap();
    if other.launcher.limits() != LimitsBackend::Watchdog {
        assert_eq!(theirs.wait().signal, Some(9), "the control: a sweep does end what it covers");
    }
    assert_eq!(mine.sandbox.try_wait().unwrap(), None);
    drop(theirs);
    drop(other);
    assert_eq!(mine.sandbox.try_wait().unwrap(), None);
    world.payload("/bin/true", &[]).output();
}

fn ended_launcher(world: &World) {
    let dir = world.make_dir("ended");
    let other = World::with(dir.clone(), Launcher::new(config(&dir)).unwrap());
    other.payload("/bin/true", &[]).output();
    drop(other);
    let record = std::fs::read_to_string(dir.join("scratch/control-groups")).unwrap();
    for base in record.lines() {
        assert!(!Path::new(base).exists(), "{base}");
    }
}
