//! Every sandbox property, checked by real payloads in real sandboxes, with the platform as root and as an ordinary
//! user. The binary is its own helper (which is why it has a `main` of its own in place of the standard test runner):
//! it lists and runs its tests as `cargo test` and `cargo nextest` ask for them, each in a process of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "clippy knows tests by the standard runner"
)]

mod world;

mod basics;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use world::{Mode, World};

/// A property and how it is checked.
struct Test {
    name: &'static str,
    check: fn(&World),
}

const USER: u32 = 65_534;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some(casemate_sandbox::HELPER_ARG) => casemate_sandbox::helper_main(),
        Some("--list") => list(&args),
        _ => run(&args),
    }
}

fn tests() -> Vec<(String, Mode, &'static Test)> {
    let root = nix::unistd::geteuid().is_root();
    let modes = if root { &[Mode::Root, Mode::User][..] } else { &[Mode::User][..] };
    let all = [basics::TESTS].into_iter().flatten();
    all.flat_map(|test| modes.iter().map(move |mode| (format!("{}::{}", mode.name(), test.name), *mode, test)))
        .collect()
}

fn list(args: &[String]) -> ExitCode {
    if !args.iter().any(|arg| arg == "--ignored") {
        for (name, _, _) in tests() {
            println!("{name}: test");
        }
    }
    ExitCode::SUCCESS
}

fn run(args: &[String]) -> ExitCode {
    let exact = args.iter().any(|arg| arg == "--exact");
    let filters: Vec<&String> = args[1..].iter().filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| if exact { name == *filter } else { name.contains(*filter) })
    };
    let chosen: Vec<_> = tests().into_iter().filter(|(name, _, _)| wanted(name)).collect();
    match chosen.as_slice() {
        [(_, mode, test)] if exact => run_one(*mode, test),
        _ => run_each(&chosen),
    }
}

fn run_each(chosen: &[(String, Mode, &Test)]) -> ExitCode {
    let mut failed = Vec::new();
    for (name, _, _) in chosen {
        let status = Command::new("/proc/self/exe").args([name, "--exact", "--nocapture"]).status().unwrap();
        println!("test {name} ... {}", if status.success() { "ok" } else { "FAILED" });
        if !status.success() {
            failed.push(name);
        }
    }
    println!("{} tests, failed: {failed:?}", chosen.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// As root, the tests of an ordinary user go on in a process of such a user.
fn run_one(mode: Mode, test: &Test) -> ExitCode {
    if mode == Mode::User && nix::unistd::geteuid().is_root() {
        let name = format!("{}::{}", mode.name(), test.name);
        let exe = std::fs::read_link("/proc/self/exe").unwrap();
        let error = Command::new(exe).args([&name, "--exact"]).uid(USER).gid(USER).current_dir("/").exec();
        panic!("cannot become an ordinary user: {error}");
    }
    let privilege = casemate_sandbox::prepare_process().unwrap();
    assert_eq!(privilege, mode.privilege());
    (test.check)(&World::new(mode));
    ExitCode::SUCCESS
}
