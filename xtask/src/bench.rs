//! Benchmarks: any bench target of the workspace, run in release against the release program.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::{
    needs,
    project::{Project, cargo},
    shell,
};

/// Names the benchmarks.
///
/// # Errors
/// Never; it fits the other commands.
pub fn list(project: &Project) -> Result<ExitCode> {
    eprintln!("Benchmarks: {}", names(project).join(", "));
    Ok(ExitCode::SUCCESS)
}

/// Runs the benchmark `name`.
///
/// # Errors
/// When there is none of that name, or it does not build or run.
pub fn run(project: &Project, name: &str) -> Result<ExitCode> {
    let Some(package) = project.packages.iter().find(|package| package.benches().any(|bench| bench == name)) else {
        bail!("there is no benchmark '{name}'; there are: {}", names(project).join(", "));
    };
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(cargo());
        command.current_dir(&project.root).args(arguments);
        command
    };
    // Rooms are measured alone; the kit measures the whole program.
    if package.room() == "testkit" {
        shell::step("build the program", &mut cargo(&["build", "--release", "--package", "casemate"]))?;
    }
    let mut bench = cargo(&["bench", "--package", &package.name, "--bench", name]);
    bench.env("CASEMATE_BIN", needs::binary(&project.target, "release"));
    shell::step(&format!("benchmark {name}"), &mut bench)?;
    Ok(ExitCode::SUCCESS)
}

fn names(project: &Project) -> Vec<&str> {
    project.packages.iter().flat_map(|package| package.benches()).collect()
}
