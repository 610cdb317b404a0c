//! The command line: the grammar of `az` for what the platform does (`az` as a symlink to `casemate` accepts the same
//! lines), sign-in, output formats and `--query`, progress and exit codes.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: 0, 1 for a failure, 2 for wrong usage, 3 when something
//! is not found. This room knows the platform only through its public API; running the platform itself is the
//! binary's part, to which [`Outcome`] hands over.

mod assets;
mod commands;
mod config;
mod failure;
mod grammar;
mod output;
mod progress;
mod session;
mod state;
mod terminal;

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::{CommandFactory, FromArgMatches};

pub use grammar::{AcmeArgs, AcmeChallenge, DemoArgs, EnvironmentPython, UpArgs};
use grammar::{Root, Top, unsupported};
pub use state::{default_state_dir, environment_lines};

/// What is left to do after the command line was read.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing: the command ran (or failed, and said so).
    Done(ExitCode),
    /// Run the platform.
    Up(UpArgs),
    /// Run the demonstration.
    Demo(DemoArgs),
}

/// The whole grammar, for help texts and completions.
#[must_use]
pub fn command() -> clap::Command {
    Root::command()
}

/// Reads a command line (with the program's name first) and runs it. Under the name `az`, and after a first word
/// `az`, the grammar is the same.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Outcome {
    let arguments = normalize(arguments.into_iter().collect());
    let root = match parse(&arguments) {
        Ok(root) => root,
        Err(code) => return Outcome::Done(ExitCode::from(code)),
    };
    let globals = root.globals;
    match root.command {
        Top::Up(args) => match args.check() {
            Ok(()) => Outcome::Up(args.with_state(&globals)),
            Err(message) => {
                terminal::error_lines(&message);
                Outcome::Done(ExitCode::from(failure::USAGE))
            }
        },
        Top::Demo(args) => Outcome::Demo(args.with_state(&globals)),
        command => Outcome::Done(ExitCode::from(commands::run(command, &globals))),
    }
}

fn parse(arguments: &[OsString]) -> Result<Root, u8> {
    let parsed = command().try_get_matches_from(arguments).and_then(|matches| Root::from_arg_matches(&matches));
    parsed.map_err(|error| {
        if !error.use_stderr() {
            terminal::out(&error.render().to_string());
            return 0;
        }
        let words: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        match unsupported::explain(&error, &words) {
            Some(message) => terminal::error_lines(&message),
            None => terminal::err(&error.render().to_string()),
        }
        failure::USAGE
    })
}

/// Drops a first word `az`, so that `casemate az group list` is `casemate group list`.
fn normalize(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let program = arguments.first().and_then(|first| Path::new(first).file_name()).unwrap_or_default().to_owned();
    if program != "az" && arguments.get(1).is_some_and(|word| word == "az") {
        arguments.remove(1);
    }
    if arguments.is_empty() {
        arguments.push("casemate".into());
    }
    arguments
}

#[cfg(test)]
#[path = "grammar_tests.rs"]
mod grammar_tests;
