//! Real scoring processes, in real sandboxes, served by the real `azureml-inference-server-http`.
//!
//! This binary has its own main function, because it is also the sandbox's helper: what enters namespaces must not
//! have a second thread. It speaks the test protocol that `cargo test` and `cargo nextest` use.

#[cfg(test)]
mod bench;
#[cfg(test)]
mod cases;

use std::{io::Write, process::ExitCode, time::Instant};

use casemate_sandbox::{HELPER_ARG, helper_main, prepare_process};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == HELPER_ARG) {
        helper_main();
    }
    let flag = |name: &str| args.iter().any(|arg| arg == name);
    let mut stdout = std::io::stdout();
    if flag("--list") {
        let listed = cases::TESTS.iter().filter(|_| !flag("--ignored"));
        listed.for_each(|(name, _)| writeln!(stdout, "{name}: test").expect("stdout is open"));
        return ExitCode::SUCCESS;
    }
    let filter = args.iter().find(|arg| !arg.starts_with('-'));
    let wanted =
        |name: &str| filter.is_none_or(|filter| if flag("--exact") { name == filter } else { name.contains(filter) });
    prepare_process().expect("this machine can confine processes");
    for (name, test) in cases::TESTS.iter().filter(|(name, _)| wanted(name)) {
        let began = Instant::now();
        test();
        writeln!(stdout, "test {name} ... ok in {:.1} s", began.elapsed().as_secs_f32()).expect("stdout is open");
    }
    ExitCode::SUCCESS
}
