//! Every sandbox property, checked by real payloads in real sandboxes, with the platform as root and as an ordinary
//! user. The binary is its own helper (which is why it has a `main` of its own in place of the standard test runner):
//! it lists and runs its tests as `cargo test` and `cargo nextest` ask for them, each in a process of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "clippy knows tests by the standard runner"
)]

mod basics;
mod closed;
mod delegation;
mod egress;
mod escapes;
mod files;
mod gateway;
mod leaks;
mod lifetime;
mod limits;
mod network;
mod world;

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use world::{Mode, World};

/// A property and how it is checked.
struct Test {
    name: &'static str,
    check: fn(&World),
}

/// The ordinary user of the tests that root starts.
const USER: u32 = 65_534;
/// The argument for the process that has no user namespaces left.
const NO_NAMESPACES_ARG: &str = "__no_namespaces";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some(casemate_sandbox::HELPER_ARG) => casemate_sandbox::helper_main(),
        Some(lifetime::PLATFORM_ARG) => lifetime::platform(&args[2..]),
        Some(NO_NAMESPACES_ARG) => {
            closed::without_user_namespaces(args[2].as_ref());
            ExitCode::SUCCESS
        }
        Some("--list") => list(&args),
        _ => run(&args),
    }
}

fn tests() -> Vec<(String, Mode, &'static Test)> {
    let all = [
        basics::TESTS,
        files::TESTS,
        network::TESTS,
        egress::TESTS,
        leaks::TESTS,
        escapes::TESTS,
        limits::TESTS,
        lifetime::TESTS,
        closed::TESTS,
    ];
    let both = [Mode::Root, Mode::User];
    let each = all.into_iter().flatten().flat_map(|test| both.into_iter().map(move |mode| (mode, test)));
    let each = each.chain(limits::TESTS.iter().map(|test| (Mode::Delegated, test)));
    each.map(|(mode, test)| (format!("{}::{}", mode.name(), test.name), mode, test)).collect()
}

/// Those that can begin here: only root can try every mode.
fn possible() -> impl Iterator<Item = (String, Mode, &'static Test)> {
    let root = nix::unistd::geteuid().is_root();
    tests().into_iter().filter(move |(_, mode, _)| root || *mode == Mode::User)
}

fn list(args: &[String]) -> ExitCode {
    if !args.iter().any(|arg| arg == "--ignored") {
        for (name, _, _) in possible() {
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
    let named = tests().into_iter().find(|(name, _, _)| exact && wanted(name));
    match named {
        Some((_, mode, test)) => run_one(mode, test),
        None => run_each(&possible().filter(|(name, _, _)| wanted(name)).collect::<Vec<_>>()),
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
    if mode != Mode::Root && nix::unistd::geteuid().is_root() {
        let groups =
            if mode == Mode::Delegated { delegation::Groups::give(USER) } else { Some(delegation::Groups::none()) };
        let Some(_groups) = groups else {
            println!("skipped: this machine has no version 1 control groups to give away");
            return ExitCode::SUCCESS;
        };
        let name = format!("{}::{}", mode.name(), test.name);
        let exe = std::fs::read_link("/proc/self/exe").unwrap();
        let status = Command::new(exe).args([&name, "--exact"]).uid(USER).gid(USER).current_dir("/").status();
        return if status.unwrap().success() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if mode == Mode::Root {
        // So that there is something to shed.
        nix::unistd::setgroups(&[nix::unistd::Gid::from_raw(0), nix::unistd::Gid::from_raw(4)]).unwrap();
    }
    let privilege = casemate_sandbox::prepare_process().unwrap();
    assert_eq!(privilege, mode.privilege());
    (test.check)(&World::new(mode));
    ExitCode::SUCCESS
}
