//! Version 2: one directory. Controllers must be enabled from above, and a group with groups below it may hold no
//! process itself. So a platform that was given a group of its own (systemd: `Delegate=yes`) moves itself into a
//! leaf of it; root otherwise makes its groups at the top, as container managers do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::hierarchy::Hierarchies;
use super::{
    FileError, PERIOD_MICROS, field, make_dir, number, pids, put, quota_micros, require_files, require_writable,
};
use crate::spec::{Limits, Usage};

const REQUIRED: [&str; 3] = ["memory", "cpu", "pids"];
/// The files by which they limit.
const LIMITS: [&str; 3] = ["memory.max", "cpu.max", "pids.max"];
/// The leaf that the platform itself moves into; no group of sandboxes can have this name.
const LEAF: &str = "casemate.platform";

/// The directory of a platform's groups.
#[derive(Debug)]
pub struct Base {
    dir: PathBuf,
}

/// One sandbox's directory.
#[derive(Debug)]
pub struct Group {
    dir: PathBuf,
}

impl Base {
    pub fn prepare(found: &Hierarchies, group: &str) -> Result<Self, String> {
        let (top, own) = found.v2.as_ref().ok_or("not mounted")?;
        // After a restart within the same leaf the groups lie beside it.
        let parent = if own.ends_with(LEAF) { own.parent().unwrap_or(own) } else { own.as_path() };
        require_controllers(parent)?;
        let mine = if parent == own { is_alone(own) } else { true };
        let parent = match mine {
            true => {
                step_aside(parent, own).map_err(|error| error.words())?;
                parent
            }
            false if nix::unistd::geteuid().is_root() => {
                require_controllers(top)?;
                top.as_path()
            }
            false => return Err(format!("{} is shared with other processes", own.display())),
        };
        let base = Self { dir: parent.join(group) };
        base.make().map_err(|error| error.words())?;
        require_files(base.dir(), &LIMITS).and_then(|()| require_writable(base.dir())).inspect_err(|_| {
            // What is missing is the failure worth telling.
            let _ = std::fs::remove_dir(base.dir());
        })?;
        Ok(base)
    }

    /// Makes the directory, again after a sweep, with the controllers that its groups need.
    fn make(&self) -> Result<(), FileError> {
        self.dir.parent().map_or(Ok(()), enable)?;
        make_dir(&self.dir)?;
        enable(&self.dir)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn create(&self, name: &str, limits: &Limits) -> Result<Group, FileError> {
        self.make()?;
        let group = Group { dir: self.dir.join(name) };
        make_dir(&group.dir)?;
        group.limit(limits).inspect_err(|_| {
            // The first failure is the one worth telling.
            let _ = std::fs::remove_dir(&group.dir);
        })?;
        Ok(group)
    }
}

impl Group {
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn limit(&self, limits: &Limits) -> Result<(), FileError> {
        put(&self.dir, "memory.max", &limits.memory_bytes.to_string())?;
        if self.dir.join("memory.swap.max").exists() {
            put(&self.dir, "memory.swap.max", "0")?;
        }
        put(&self.dir, "cpu.max", &format!("{} {PERIOD_MICROS}", quota_micros(limits)))?;
        put(&self.dir, "pids.max", &pids(limits).to_string())
    }

    pub fn join(&self, pid: u32) -> Result<(), FileError> {
        put(&self.dir, "cgroup.procs", &pid.to_string())
    }

    pub fn usage(&self) -> Usage {
        Usage {
            memory_bytes: number(&self.dir, "memory.current"),
            cpu: Duration::from_micros(field(&self.dir, "cpu.stat", "usage_usec")),
            processes: u32::try_from(number(&self.dir, "pids.current")).unwrap_or(u32::MAX),
        }
    }

    pub fn out_of_memory(&self) -> bool {
        field(&self.dir, "memory.events", "oom_kill") > 0
    }
}

fn require_controllers(dir: &Path) -> Result<(), String> {
    let path = dir.join("cgroup.controllers");
    let present = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let missing = REQUIRED.iter().find(|needed| !present.split_whitespace().any(|each| each == **needed));
    missing.map_or(Ok(()), |name| Err(format!("{} lacks {name}", path.display())))
}

/// Whether this process is the only one in its group.
fn is_alone(own: &Path) -> bool {
    let members = std::fs::read_to_string(own.join("cgroup.procs")).unwrap_or_default();
    members.trim() == std::process::id().to_string()
}

fn step_aside(parent: &Path, own: &Path) -> Result<(), FileError> {
    if parent != own {
        return Ok(());
    }
    let leaf = parent.join(LEAF);
    make_dir(&leaf)?;
    put(&leaf, "cgroup.procs", &std::process::id().to_string())
}

fn enable(dir: &Path) -> Result<(), FileError> {
    let wanted: Vec<String> = REQUIRED.iter().map(|name| format!("+{name}")).collect();
    put(dir, "cgroup.subtree_control", &wanted.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's files are plain files to write and read, so a directory of plain files can stand for them: what is
    /// checked is which value goes into which file.
    #[test]
    fn limits_and_usage_go_through_the_right_files() {
        let top = tempfile::tempdir().unwrap();
        std::fs::write(top.path().join("cgroup.controllers"), "cpuset cpu io memory pids\n").unwrap();
        require_controllers(top.path()).unwrap();
        let base = Base { dir: top.path().join("casemate-x") };
        let limits = Limits { memory_bytes: 64 << 20, milli_cpus: 250, pids: 10, scratch_bytes: 0 };
        let group = base.create("blue", &limits).unwrap();
        let read = |file: &str| std::fs::read_to_string(group.dir().join(file)).unwrap();
        assert_eq!(read("memory.max"), "67108864");
        assert_eq!(read("cpu.max"), "25000 100000");
        assert_eq!(read("pids.max"), "12");
        let enabled = std::fs::read_to_string(base.dir().join("cgroup.subtree_control")).unwrap();
        assert_eq!(enabled, "+memory +cpu +pids");
        assert!(!group.out_of_memory());
        std::fs::write(group.dir().join("memory.events"), "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n").unwrap();
        std::fs::write(group.dir().join("cpu.stat"), "usage_usec 1500000\nuser_usec 1\n").unwrap();
        assert!(group.out_of_memory());
        assert_eq!(group.usage().cpu, Duration::from_millis(1500));
    }

    #[test]
    fn a_missing_controller_is_named() {
        let top = tempfile::tempdir().unwrap();
        std::fs::write(top.path().join("cgroup.controllers"), "cpu hugetlb\n").unwrap();
        assert!(require_controllers(top.path()).unwrap_err().contains("lacks memory"));
        assert!(require_files(top.path(), &LIMITS).unwrap_err().contains("lacks memory.max"));
    }
}
