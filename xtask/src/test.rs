//! Every check and every test, in the order from cheap to dear. The tests come last and run whatever the checks said,
//! so that one run tells all and its last line is the tests' summary.

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::Result;

use crate::{
    fuzz, needs,
    project::{Project, cargo},
    shell, tidy,
};

/// Runs everything; the code says whether all of it passed.
///
/// # Errors
/// When the machine lacks what the tests need, or the program does not build.
pub fn run(project: &Project, long: bool) -> Result<ExitCode> {
    needs::packages()?;
    needs::cargo_tools()?;
    let pythons = Pythons::ready(project)?;
    let cargo = |arguments: &[&str]| {
        let mut command = Command::new(cargo());
        command.current_dir(&project.root).args(arguments);
        command
    };
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"];
    let mut failed = Vec::new();
    failed.extend(shell::step("format", &mut cargo(&["fmt", "--all", "--check"])).err());
    failed.extend(tidy::check(project).err());
    failed.extend(shell::step("lints", &mut cargo(&clippy)).err());
    if long {
        failed.extend(fuzz_all(project).err());
    }
    // The same targets that nextest builds, so that nothing is compiled twice, and the program beside them.
    shell::step("build", &mut cargo(&["build", "--workspace", "--bins", "--tests"]))?;
    for error in &failed {
        eprintln!("error: {error:#}");
    }
    let passed = nextest(project, &pythons, &["--workspace"], long)?;
    Ok(if passed && failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the leak suite alone, and shows what it says.
///
/// # Errors
/// As [`run`].
pub fn leaks(project: &Project, long: bool) -> Result<ExitCode> {
    needs::packages()?;
    needs::cargo_tools()?;
    let pythons = Pythons::ready(project)?;
    let mut build = Command::new(cargo());
    build.current_dir(&project.root).args(["build", "--package", "casemate", "--bins"]);
    shell::step("build", &mut build)?;
    let passed = nextest(project, &pythons, &["--package", "casemate-testkit", "-E", "test(/^leak::/)"], long)?;
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The interpreters with the clients that the end-to-end tests drive.
struct Pythons {
    /// With the SDK's first generation.
    first: PathBuf,
    /// With its second.
    second: PathBuf,
}

impl Pythons {
    fn ready(project: &Project) -> Result<Self> {
        let first = needs::python(project, "requirements-v1.txt")?;
        Ok(Self { first, second: needs::python(project, "requirements.txt")? })
    }
}

/// Runs the tests that `which` names; says whether all of them passed.
fn nextest(project: &Project, pythons: &Pythons, which: &[&str], long: bool) -> Result<bool> {
    let mut tests = Command::new(cargo());
    tests
        .current_dir(&project.root)
        .args(["nextest", "run", "--no-fail-fast"])
        .args(which)
        .env("CASEMATE_BIN", needs::binary(&project.target, "debug"))
        .env("CASEMATE_TEST_PYTHON", &pythons.second)
        .env("CASEMATE_TEST_PYTHON_V1", &pythons.first)
        .env("CASEMATE_TEST_CACHE", needs::download_cache(project));
    if long {
        tests.args(["--profile", "long"]).env("CASEMATE_TEST_LONG", "1");
    }
    Ok(tests.status()?.success())
}

fn fuzz_all(project: &Project) -> Result<()> {
    eprintln!("==> fuzz");
    if fuzz::is_possible() {
        return fuzz::run(project, &fuzz::Wish::all());
    }
    eprintln!("    fuzz: skipped, since there is no nightly toolchain; get one with: rustup toolchain install nightly");
    Ok(())
}
