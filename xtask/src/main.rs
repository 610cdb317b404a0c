//! The project's own chores: `cargo xtask tidy`, `cargo xtask test`, `cargo xtask leak`, `cargo xtask bench`,
//! `cargo xtask fuzz`.
//!
//! It knows how the project is checked, and nothing of what the project does.
#![expect(clippy::print_stderr, reason = "a tool for developers talks to them on stderr")]

mod bench;
mod fuzz;
mod needs;
mod project;
mod shell;
mod test;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;

use project::Project;

const USAGE: &str = "\
Usage: cargo xtask <COMMAND>

  tidy            Check what compilers do not: arrows between rooms, paths in ARCHITECTURE.md, words, sizes
  test [--long]   Install what the tests need, then run every check and every test; --long runs their long forms
  leak [--long]   Attack a live platform from inside a model, as root and as an ordinary user (needs root)
  bench [NAME]    Run one benchmark in release, or list them
  fuzz [TARGET] [--seconds N]
                  Run one fuzz target, or all of them, each for N seconds (10); needs nightly
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[&str]) -> Result<ExitCode> {
    match arguments {
        ["tidy"] => tidy::run(&Project::load()?),
        ["test"] => test::run(&Project::load()?, false),
        ["test", "--long"] => test::run(&Project::load()?, true),
        ["leak"] => test::leaks(&Project::load()?, false),
        ["leak", "--long"] => test::leaks(&Project::load()?, true),
        ["bench"] => bench::list(&Project::load()?),
        ["bench", name] => bench::run(&Project::load()?, name),
        ["fuzz", rest @ ..] => match fuzz::Wish::read(rest) {
            Some(wish) => fuzz::run(&Project::load()?, &wish).map(|()| ExitCode::SUCCESS),
            None => Ok(usage(2)),
        },
        ["help" | "--help" | "-h"] => Ok(usage(0)),
        _ => Ok(usage(2)),
    }
}

fn usage(code: u8) -> ExitCode {
    eprint!("{USAGE}");
    ExitCode::from(code)
}
