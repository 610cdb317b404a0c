//! Limits through the kernel's control groups, version 1 or 2, by their plain files. A platform's groups lie in one
//! directory named after its state directory, below the platform's own group where that is possible, so that limits
//! set on the platform itself hold for its sandboxes too.

mod hierarchy;
mod v1;
mod v2;

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::spec::{Limits, Usage};

/// How long the removal of a group waits for its processes to be gone.
const REMOVAL: Duration = Duration::from_secs(5);
const PERIOD_MICROS: u64 = 100_000;
const MIN_QUOTA_MICROS: u64 = 1_000;

/// Where a platform makes its groups.
#[derive(Debug)]
pub enum Base {
    /// Version 1, one directory per controller.
    V1(v1::Base),
    /// Version 2.
    V2(v2::Base),
}

/// The group of one sandbox.
#[derive(Debug)]
pub enum Group {
    V1(v1::Group),
    V2(v2::Group),
}

/// A control file that could not be written.
#[derive(Debug)]
pub struct FileError {
    pub path: PathBuf,
    pub source: io::Error,
}

impl Base {
    /// Finds a place for groups and prepares it; the reasons when there is none.
    pub fn detect(group: &str) -> Result<Self, String> {
        let mounts = hierarchy::read().map_err(|error| format!("control groups cannot be read: {error}"))?;
        let first = match v1::Base::prepare(&mounts, group) {
            Ok(base) => return Ok(Self::V1(base)),
            Err(reason) => reason,
        };
        match v2::Base::prepare(&mounts, group) {
            Ok(base) => Ok(Self::V2(base)),
            Err(second) => Err(format!("version 1: {first}; version 2: {second}")),
        }
    }

    /// Makes the group for one sandbox with its limits in force.
    pub fn create(&self, name: &str, limits: &Limits) -> Result<Group, FileError> {
        match self {
            Self::V1(base) => base.create(name, limits).map(Group::V1),
            Self::V2(base) => base.create(name, limits).map(Group::V2),
        }
    }

    /// The directories that hold this platform's groups.
    pub fn dirs(&self) -> Vec<PathBuf> {
        match self {
            Self::V1(base) => base.dirs(),
            Self::V2(base) => vec![base.dir().to_owned()],
        }
    }
}

impl Group {
    /// Moves a process in; what it starts from then on is in too.
    pub fn join(&self, pid: u32) -> Result<(), FileError> {
        match self {
            Self::V1(group) => group.join(pid),
            Self::V2(group) => group.join(pid),
        }
    }

    /// What the group uses now.
    pub fn usage(&self) -> Usage {
        match self {
            Self::V1(group) => group.usage(),
            Self::V2(group) => group.usage(),
        }
    }

    /// Whether the kernel killed a member for its memory.
    pub fn out_of_memory(&self) -> bool {
        match self {
            Self::V1(group) => group.out_of_memory(),
            Self::V2(group) => group.out_of_memory(),
        }
    }

    /// Kills what is left inside and removes the group.
    pub fn remove(&self) -> Result<(), FileError> {
        let dirs = match self {
            Self::V1(group) => group.dirs(),
            Self::V2(group) => vec![group.dir()],
        };
        dirs.into_iter().try_for_each(remove_dir)
    }
}

/// Removes every group below `base` with all processes in it, then `base` itself.
pub fn sweep(base: &Path) -> Result<(), FileError> {
    let entries = match std::fs::read_dir(base) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(FileError { path: base.to_owned(), source }),
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_dir(&entry.path())?;
        }
    }
    remove_dir(base)
}

/// Kills and removes until the directory is gone or time is up.
fn remove_dir(dir: &Path) -> Result<(), FileError> {
    let deadline = Instant::now() + REMOVAL;
    loop {
        match std::fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) if Instant::now() > deadline => return Err(FileError { path: dir.to_owned(), source }),
            Err(_) => kill_members(dir),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn kill_members(dir: &Path) {
    if std::fs::write(dir.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    for pid in std::fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid @ 2..) = pid.parse::<i32>() {
            // It may be gone already; the next round looks again.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// The directory may be another user's, from an earlier run.
fn require_writable(dir: &Path) -> Result<(), String> {
    let allowed = nix::unistd::access(dir, nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK);
    allowed.map_err(|errno| format!("{}: {errno}", dir.display()))
}

impl FileError {
    fn words(&self) -> String {
        format!("{}: {}", self.path.display(), self.source)
    }
}

fn make_dir(dir: &Path) -> Result<(), FileError> {
    match std::fs::create_dir(dir) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => Err(FileError { path: dir.to_owned(), source }),
        _ => Ok(()),
    }
}

fn put(dir: &Path, file: &str, value: &str) -> Result<(), FileError> {
    let path = dir.join(file);
    std::fs::write(&path, value).map_err(|source| FileError { path, source })
}

fn number(dir: &Path, file: &str) -> u64 {
    std::fs::read_to_string(dir.join(file)).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// The value after `key` in a file of `key value` lines.
fn field(dir: &Path, file: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(dir.join(file)).unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == key).and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

fn quota_micros(limits: &Limits) -> u64 {
    (u64::from(limits.milli_cpus) * PERIOD_MICROS / 1000).max(MIN_QUOTA_MICROS)
}

/// Two more than the payload's: the first process counts too, and the helper until it ends.
fn pids(limits: &Limits) -> u64 {
    u64::from(limits.pids) + 2
}

/// Fails with the first of `files` that `dir` lacks.
fn require_files(dir: &Path, files: &[&str]) -> Result<(), String> {
    let missing = files.iter().find(|file| !dir.join(file).exists());
    missing.map_or(Ok(()), |file| Err(format!("{} lacks {file}", dir.display())))
}
