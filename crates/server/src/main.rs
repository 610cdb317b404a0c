//! The `casemate` binary: wiring, configuration and the task tree; everything else lives in the rooms below.

mod acme;
mod certificates;
mod demo;
mod networks;
mod platform;
mod service_tags;
mod state;
mod up;

use std::{env, process::ExitCode};

use casemate_cli::Outcome;

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().collect();
    // A sandbox starts as this same program: nothing else may have run by then.
    if arguments.get(1).is_some_and(|argument| argument == casemate_sandbox::HELPER_ARG) {
        casemate_sandbox::helper_main();
    }
    match casemate_cli::run(arguments) {
        Outcome::Done(code) => code,
        Outcome::Up(args) => up::main(args),
        Outcome::Demo(args) => demo::main(args),
    }
}
