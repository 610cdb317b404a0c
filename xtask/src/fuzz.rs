//! Fuzzing: bytes that nobody would think of, for each parser of what comes from outside. The targets are in `fuzz/`;
//! this builds them with nightly and runs each for a while from the seeds beside it.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{needs, project::Project, shell};

/// How long each target runs when nothing is said, in seconds.
const SECONDS: u32 = 10;
/// Largest input, in bytes, and longest time for one, in seconds: a slower one counts as hanging.
const LIMITS: [&str; 3] = ["-max_len=4096", "-timeout=10", "-rss_limit_mb=2048"];
/// Where files of one run lie, when there is such a place in memory.
const MEMORY: &str = "/dev/shm";

/// What is to be run.
#[derive(Debug, PartialEq, Eq)]
pub struct Wish {
    target: Option<String>,
    seconds: u32,
}

impl Wish {
    /// All targets, each for a short while.
    pub fn all() -> Self {
        Self { target: None, seconds: SECONDS }
    }

    /// Reads `[TARGET] [--seconds N]`; none for anything else.
    pub fn read(arguments: &[&str]) -> Option<Self> {
        let mut wish = Self::all();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match *argument {
                "--seconds" => wish.seconds = rest.next()?.parse().ok().filter(|seconds| *seconds > 0)?,
                target if !target.starts_with('-') && wish.target.is_none() => wish.target = Some(target.to_owned()),
                _ => return None,
            }
        }
        Some(wish)
    }
}

/// Whether there is a nightly toolchain, which the targets need.
#[must_use]
pub fn is_possible() -> bool {
    shell::succeeds(&mut nightly(["--version"]))
}

/// Builds the targets and runs them one after the other. What they find interesting is kept below `target/`, and each
/// run goes on from there.
///
/// # Errors
/// When there is no nightly toolchain or no such target, when a target can't be built, and after all have run when one
/// has found something.
pub fn run(project: &Project, wish: &Wish) -> Result<()> {
    ensure!(is_possible(), "fuzzing needs nightly; install it with: rustup toolchain install nightly");
    needs::cargo_fuzz()?;
    let home = project.root.join("fuzz");
    let targets = targets(&home)?;
    let chosen: Vec<&String> =
        targets.iter().filter(|name| wish.target.as_ref().is_none_or(|target| target == *name)).collect();
    if chosen.is_empty() {
        bail!("there is no such target; there are: {}", targets.join(", "));
    }
    take_lock(project, &home)?;
    let kept = project.target.join("fuzz");
    let common = |verb: &'static str| {
        let mut command = nightly(["fuzz", verb, "--fuzz-dir"]);
        command.current_dir(&project.root).arg(&home).arg("--target-dir").arg(&kept);
        // All but one room are safe code, where a sanitizer finds nothing and takes half the speed.
        command.args(["--sanitizer", "none", "--codegen-units", "16"]);
        command
    };
    shell::step("build the fuzz targets (long at the first time)", common("build").args(&wish.target))?;
    let scratch = Scratch::new()?;
    let mut failed = Vec::new();
    for name in chosen {
        let mut command = common("run");
        command.env("TMPDIR", &scratch.0).arg(name);
        let found = fuzz(&mut command, name, &kept, &home, wish.seconds);
        failed.extend(found.err().map(|error| eprintln!("error: {error:#}")).map(|()| name.as_str()));
    }
    ensure!(failed.is_empty(), "fuzzing found something in: {}", failed.join(", "));
    Ok(())
}

/// Runs one target, with what it says in a file, and tells how many inputs it tried.
fn fuzz(command: &mut Command, name: &str, kept: &Path, home: &Path, seconds: u32) -> Result<()> {
    let corpus = kept.join("corpus").join(name);
    let logs = kept.join("logs");
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&logs)?;
    let log = logs.join(format!("{name}.log"));
    let said = fs::File::create(&log)?;
    command.arg(&corpus).arg(home.join("corpus-seeds").join(name)).arg("--").args(LIMITS);
    command.arg(format!("-max_total_time={seconds}")).stdout(said.try_clone()?).stderr(said);
    let start = Instant::now();
    let status = command.stdin(std::process::Stdio::null()).status().context("cannot start cargo fuzz")?;
    let said = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if status.success() {
        let tried = said.lines().rev().find_map(runs).context("the target does not say how many inputs it tried")?;
        eprintln!("    {name:<18} {tried:>10} inputs, {:.0} s", start.elapsed().as_secs_f64());
        return Ok(());
    }
    let at = said.find("panicked at").map_or(said.len().saturating_sub(2000), |at| said[..at].rfind('\n').unwrap_or(0));
    let at = (0..=at).rev().find(|at| said.is_char_boundary(*at)).unwrap_or(0);
    let shown: Vec<&str> = said[at..]
        .lines()
        .filter(|line| !line.trim().is_empty())
        .take_while(|line| !line.starts_with("stack backtrace"))
        .take(12)
        .collect();
    bail!("{name} ({status}), all of it in {}:\n{}", log.display(), shown.join("\n"))
}

/// The number in `Done 520466 runs in 61 second(s)`.
fn runs(line: &str) -> Option<u64> {
    line.strip_prefix("Done ")?.split_once(" runs")?.0.parse().ok()
}

fn nightly<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).args(arguments);
    // The cargo that runs this tool is another one.
    command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").env_remove("CARGO_TARGET_DIR");
    command
}

fn targets(home: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(home.join("targets")).context("cannot read fuzz/targets")? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("rs")) {
            names.extend(path.file_stem().and_then(OsStr::to_str).map(str::to_owned));
        }
    }
    names.sort();
    Ok(names)
}

/// The targets are a workspace of their own; they take the versions that this one has.
fn take_lock(project: &Project, home: &Path) -> Result<()> {
    let (ours, theirs) = (project.root.join("Cargo.lock"), home.join("Cargo.lock"));
    let changed = |path: &Path| fs::metadata(path).and_then(|data| data.modified()).ok();
    if changed(&theirs) < changed(&ours) {
        fs::copy(&ours, &theirs).context("cannot copy Cargo.lock to fuzz/")?;
    }
    Ok(())
}

/// A directory for the temporary files of the targets, gone with this.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let memory = Path::new(MEMORY);
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let dir = parent.join(format!("casemate-fuzz-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays behind after a failure to remove it is found by its name.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes() {
        let wish = |target: Option<&str>, seconds| Some(Wish { target: target.map(str::to_owned), seconds });
        for (arguments, expected) in [
            (&[][..], wish(None, SECONDS)),
            (&["token"], wish(Some("token"), SECONDS)),
            (&["--seconds", "60"], wish(None, 60)),
            (&["token", "--seconds", "1"], wish(Some("token"), 1)),
            (&["--seconds", "1", "token"], wish(Some("token"), 1)),
            (&["--seconds"], None),
            (&["--seconds", "0"], None),
            (&["--seconds", "x"], None),
            (&["--minutes", "1"], None),
            (&["one", "two"], None),
        ] {
            assert_eq!(Wish::read(arguments), expected, "{arguments:?}");
        }
    }

    #[test]
    fn the_count_is_read_from_the_last_line() {
        assert_eq!(runs("Done 520466 runs in 61 second(s)"), Some(520_466));
        assert_eq!(runs("#520466 DONE cov: 1"), None);
    }

    #[test]
    fn every_target_has_its_entry_and_its_seeds() {
        let home = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("fuzz");
        let manifest = fs::read_to_string(home.join("Cargo.toml")).unwrap();
        let names = targets(&home).unwrap();
        assert_eq!(manifest.matches("[[bin]]").count(), names.len());
        for name in names {
            assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name}");
            assert!(home.join("corpus-seeds").join(&name).read_dir().unwrap().count() > 0, "{name}");
        }
    }
}
