//! What no compiler checks: that the rooms depend on each other as ARCHITECTURE.md says, that what it names exists,
//! and that files keep the house's form.

mod arrows;
mod form;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};

use crate::project::Project;

/// Something that is not as it should be, and where.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Problem {
    /// Relative to the root.
    path: PathBuf,
    /// From 1; none when it concerns the whole file.
    line: Option<usize>,
    what: String,
}

/// Prints the arrows and every problem.
///
/// # Errors
/// When a file cannot be read, or there is a problem.
pub fn run(project: &Project) -> Result<ExitCode> {
    check(project)?;
    Ok(ExitCode::SUCCESS)
}

/// The same as one of several checks.
///
/// # Errors
/// As [`run`].
pub fn check(project: &Project) -> Result<()> {
    eprintln!("==> tidy");
    let architecture = Path::new("ARCHITECTURE.md");
    let text = fs::read_to_string(project.root.join(architecture)).context("cannot read ARCHITECTURE.md")?;
    let mut problems = Vec::new();
    let table = arrows::parse(&text, &mut problems);
    for (room, needed) in &table {
        eprintln!("    {room:<9} -> {}", needed.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
    }
    arrows::compare(&table, &project.root, &project.packages, &mut problems);
    form::check_named_paths(&project.root, &text, &mut problems);
    for name in ["CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "SECURITY.md"] {
        if !project.root.join(name).is_file() {
            problems.push(Problem { path: name.into(), line: None, what: "is missing".to_owned() });
        }
    }
    let private = form::machine_paths(&project.root, env::var_os("HOME").as_deref().map(Path::new));
    let files = form::files(&project.root, &project.target)?;
    for path in &files {
        form::check_file(&project.root, path, &private, &mut problems)?;
    }
    problems.sort();
    for Problem { path, line, what } in &problems {
        let line = line.map(|line| format!(":{line}")).unwrap_or_default();
        eprintln!("    {}{line}: {what}", path.display());
    }
    if !problems.is_empty() {
        bail!("tidy found {} problem(s)", problems.len());
    }
    eprintln!("    tidy: {} files, no problem", files.len());
    Ok(())
}
