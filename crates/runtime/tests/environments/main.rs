//! Environments, really built: in real sandboxes, by the real installer, from package indexes that run on this machine
//! and, where the real packages matter, from the one that the host's pip is configured for.
//!
//! The binary is its own sandbox helper (which is why it has a `main` of its own in place of the standard test
//! runner): it lists and runs its tests as `cargo test` and `cargo nextest` ask for them, each in its own process.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "clippy knows tests by the standard runner"
)]

mod building;
mod confinement;
mod index;
mod installers;
mod packages;
mod real;
mod sharing;
mod world;

use std::process::{Command, ExitCode};

/// A property and how it is checked.
pub type Test = (&'static str, fn());

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some(casemate_sandbox::HELPER_ARG) => casemate_sandbox::helper_main(),
        Some(sharing::VICTIM_ARG) => sharing::victim(&args[2..]),
        Some("--list") => list(&args),
        _ => run(&args),
    }
}

fn tests() -> impl Iterator<Item = &'static Test> {
    [building::TESTS, confinement::TESTS, installers::TESTS, real::TESTS, sharing::TESTS].into_iter().flatten()
}

fn list(args: &[String]) -> ExitCode {
    if !args.iter().any(|arg| arg == "--ignored") {
        tests().for_each(|(name, _)| println!("{name}: test"));
    }
    ExitCode::SUCCESS
}

fn run(args: &[String]) -> ExitCode {
    let exact = args.iter().any(|arg| arg == "--exact");
    let filters: Vec<&String> = args[1..].iter().filter(|arg| !arg.starts_with('-')).collect();
    let wanted = |name: &str| {
        filters.is_empty() || filters.iter().any(|filter| if exact { name == *filter } else { name.contains(*filter) })
    };
    let chosen: Vec<_> = tests().filter(|(name, _)| wanted(name)).collect();
    if let ([(_, check)], true) = (chosen.as_slice(), exact) {
        casemate_sandbox::prepare_process().unwrap();
        check();
        return ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    for (name, _) in &chosen {
        let status = Command::new("/proc/self/exe").args([name, "--exact", "--nocapture"]).status().unwrap();
        println!("test {name} ... {}", if status.success() { "ok" } else { "FAILED" });
        if !status.success() {
            failed.push(name);
        }
    }
    println!("{} passed, {} failed", chosen.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
