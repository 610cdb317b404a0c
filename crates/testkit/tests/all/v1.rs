//! The unmodified azureml-core client, the first generation of the SDK.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use casemate_testkit::{Platform, binary, project, python_v1};

/// Runs a script of `tests/e2e` with the platform's variables and a home of its own; gives what it printed.
fn run(platform: &Platform, script: &str, arguments: &[&str]) -> Result<String> {
    let home = tempfile::tempdir()?;
    let output = Command::new(python_v1())
        .arg(project().join("tests/e2e").join(script))
        .args(arguments)
        .envs(platform.env()?)
        // The client keeps caches there.
        .env("HOME", home.path())
        .env("PYTHONWARNINGS", "ignore")
        .output()
        .context("the client's Python can't be run")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{script} said:\n{said}\n{errors}\nand the platform:\n{}", platform.log());
    Ok(said)
}

#[test]
fn the_first_walkthroughs_computes() -> Result<()> {
    let platform = Platform::start()?;
    let said = run(&platform, "v1_compute.py", &[&binary().to_string_lossy()])?;
    println!("{said}");
    assert!(said.contains("steps passed"), "{said}");
    Ok(())
}

#[test]
fn the_first_generations_models_and_services() -> Result<()> {
    // A port that is free now; services without TLS are called there.
    let plain = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let platform = Platform::start_with(&["--http-listen", &plain])?;
    platform.workspace()?;
    let said = run(&platform, "v1_services.py", &[])?;
    println!("{said}");
    assert!(said.contains("steps passed"), "{said}");
    Ok(())
}
