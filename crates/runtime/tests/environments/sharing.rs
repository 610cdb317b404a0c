//! Builds side by side, cut off, and stopped.

use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use casemate_runtime::environment::{EnvironmentBuilder, PythonPolicy};

use super::Test;
use super::world::{SCOPE, World, block_on, eventually, gateway, request};

/// The first argument of a process that builds until it is killed.
pub const VICTIM_ARG: &str = "--victim";

pub const TESTS: &[Test] = &[
    ("the_same_environment_is_built_once_for_all", the_same_environment_is_built_once_for_all),
    ("a_killed_platform_leaves_nothing_in_the_way", a_killed_platform_leaves_nothing_in_the_way),
    ("a_stopping_platform_ends_its_builds", a_stopping_platform_ends_its_builds),
    ("a_caller_that_goes_away_does_not_end_the_build", a_caller_that_goes_away_does_not_end_the_build),
];

const SLEEPER: &str = "import time\ndef work():\n    time.sleep(SECONDS)\n    return 'x = 1'\n";
const CONDA_FILE: &str = "dependencies: [{pip: [sleeper]}]";

fn sleeper(seconds: u32) -> World {
    let mut world = World::new();
    world.packages().source("sleeper", &SLEEPER.replace("SECONDS", &seconds.to_string()));
    world
}

fn the_same_environment_is_built_once_for_all() {
    let world = sleeper(2);
    let builder = world.builder();
    block_on(async {
        let (blue, green, grey) = (world.log("blue"), world.log("green"), world.log("grey"));
        let first = builder.prepare(SCOPE, request(CONDA_FILE), &blue);
        let second = builder.prepare(SCOPE, request("dependencies: [pip, {pip: ['sleeper # same']}]"), &green);
        let late = async {
            tokio::time::sleep(Duration::from_millis(700)).await;
            builder.prepare(SCOPE, request(CONDA_FILE), &grey).await
        };
        let (first, second, late) = tokio::join!(first, second, late);
        let first = first.unwrap();
        assert_eq!((second.unwrap(), late.unwrap()), (first.clone(), first));
    });
    let logs: Vec<String> = ["blue", "green", "grey"].map(|name| world.log_text(name)).into();
    let waited = logs.iter().filter(|log| log.contains("being built for another deployment")).count();
    assert_eq!(waited, 2, "{logs:#?}");
    for log in &logs {
        assert_eq!(log.matches("Building the environment").count(), 1, "{log}");
        assert!(log.contains("The environment is ready: "), "{log}");
    }
    assert_eq!(world.shelf().len(), 1);
}

fn a_killed_platform_leaves_nothing_in_the_way() {
    let world = sleeper(600);
    let mark = world.dir.path().join("packages");
    let mut victim = Command::new("/proc/self/exe")
        .arg(VICTIM_ARG)
        .arg(world.dir.path())
        .arg(&world.variables["PATH"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the hook runs", || world.log_text("blue").contains("Building sleeper==1.0"));
    victim.kill().unwrap();
    victim.wait().unwrap();
    assert!(world.shelf()[0].ends_with(".partial"), "{:?}", world.shelf());
    let runs = || processes_with(&mark);
    eventually("its processes have ended", || runs() == 0);

    std::fs::remove_file(mark.join("sleeper-1.0.tar.gz")).unwrap();
    let mut world = world;
    world.packages().source("sleeper", &SLEEPER.replace("SECONDS", "0"));
    let builder = world.builder();
    assert!(world.shelf().is_empty(), "{:?}", world.shelf());
    block_on(builder.prepare(SCOPE, request(CONDA_FILE), &world.log("blue"))).unwrap();
}

/// Builds an environment until it is killed.
pub fn victim(args: &[String]) -> ExitCode {
    casemate_sandbox::prepare_process().unwrap();
    let dir = Path::new(&args[0]);
    let packages = dir.join("packages").display().to_string();
    let variables = [
        ("PATH", args[1].as_str()),
        ("PIP_CONFIG_FILE", "/dev/null"),
        ("PIP_NO_INDEX", "1"),
        ("PIP_FIND_LINKS", &packages),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
    let launcher = std::sync::Arc::new(super::world::launcher(dir));
    let state = dir.join("state");
    let builder = EnvironmentBuilder::with_variables(&state, launcher, gateway(&state), PythonPolicy::Exact, variables);
    let logs = casemate_runtime::logs::LogStore::new(state.join("logs"));
    let log = logs.writer(&super::world::deployment("blue"), casemate_runtime::logs::Container::StorageInitializer);
    let _ = block_on(builder.prepare(SCOPE, request(CONDA_FILE), &log));
    ExitCode::FAILURE
}

/// Processes whose command line names this directory.
fn processes_with(dir: &Path) -> usize {
    let name = dir.display().to_string();
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let others = entries.filter(|entry| entry.file_name().to_string_lossy() != own);
    others
        .filter(|entry| {
            std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&name))
        })
        .count()
}

fn a_stopping_platform_ends_its_builds() {
    let world = sleeper(600);
    let builder = world.builder();
    let fault = block_on(async {
        let log = world.log("blue");
        let stop = async {
            while !world.log_text("blue").contains("Building sleeper==1.0") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let started = Instant::now();
            builder.shutdown().await;
            assert!(started.elapsed() < Duration::from_secs(20));
        };
        let (result, ()) = tokio::join!(builder.prepare(SCOPE, request(CONDA_FILE), &log), stop);
        result.unwrap_err()
    });
    assert!(fault.message.contains("the platform stopped"), "{}", fault.message);
    assert_eq!(processes_with(&world.dir.path().join("packages")), 0);
    assert!(world.shelf().is_empty(), "{:?}", world.shelf());
}

fn a_caller_that_goes_away_does_not_end_the_build() {
    let world = sleeper(3);
    let builder = world.builder();
    block_on(async {
        let log = world.log("blue");
        tokio::select! {
            _ = builder.prepare(SCOPE, request(CONDA_FILE), &log) => panic!("it was built too fast for this test"),
            () = async {
                while !world.log_text("blue").contains("Building sleeper==1.0") {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            } => {}
        }
        let started = Instant::now();
        while !world.log_text("blue").contains("The environment is ready") {
            assert!(started.elapsed() < Duration::from_secs(120));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(world.shelf().len(), 1);
}
