//! `casemate up`: the platform in the foreground.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

use anyhow::Result;
use casemate_cli::UpArgs;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::{platform::Platform, state::StateDir};

/// Runs the platform until SIGTERM or SIGINT; 0 after a clean drain.
pub fn main(args: UpArgs) -> ExitCode {
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

/// Says a failure on stderr, with its causes.
pub fn report(error: &anyhow::Error) {
    let mut stderr = std::io::stderr().lock();
    // Nothing can be done about a closed stderr.
    let _ = writeln!(stderr, "ERROR: {error:#}");
}

/// What must happen before any thread exists: a private umask, the namespace for an unprivileged start, the log (at
/// level `log`, or as the variable `CASEMATE_LOG` says).
pub fn prepare(log: &str) -> Result<()> {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    casemate_sandbox::prepare_process()?;
    raise_descriptor_limit();
    // What a model sends as a hello is no news: rustls would warn of each that it can't read.
    let quiet = format!("{log},rustls=error");
    let filter = tracing_subscriber::EnvFilter::try_from_env("CASEMATE_LOG").unwrap_or_else(|_| quiet.into());
    let ansi = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr).init();
    Ok(())
}

/// Many connections need many descriptors: takes as many as the system allows this user.
fn raise_descriptor_limit() {
    let limit = Resource::RLIMIT_NOFILE;
    // Without it the platform works as well, for fewer callers at once.
    if let Ok((soft, hard)) = getrlimit(limit)
        && soft < hard
    {
        let _ = setrlimit(limit, hard, hard);
    }
}

fn run(args: &UpArgs) -> Result<()> {
    let state = StateDir::hold(&args.state)?;
    prepare("info")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut platform = Platform::start(args, state).await?;
        writeln!(std::io::stdout(), "ready {}", platform.url)?;
        let failure = tokio::select! {
            _ = terminate.recv() => None,
            _ = interrupt.recv() => None,
            failure = platform.failed() => Some(failure),
        };
        if let Some(failure) = failure {
            return Err(failure);
        }
        tracing::info!("stopping: requests in flight finish first");
        platform.stop().await;
        Ok(())
    })
}
