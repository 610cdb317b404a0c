//! Version 1: a directory in each controller's own hierarchy.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::hierarchy::Hierarchies;
use super::{
    FileError, PERIOD_MICROS, field, make_dir, number, pids, put, quota_micros, require_files, require_writable,
};
use crate::spec::{Limits, Usage};

/// Without these no limit would hold: each controller and the file that sets its limit.
const REQUIRED: [(&str, &str); 3] =
    [("memory", "memory.limit_in_bytes"), ("cpu", "cpu.cfs_quota_us"), ("pids", "pids.max")];
/// For data in sockets: this part of the memory limit, on top of it.
const SOCKETS_PART: u64 = 4;
/// Counts processor time; used where it is.
const ACCOUNTING: &str = "cpuacct";

/// A directory per controller; controllers mounted together share one.
#[derive(Debug)]
pub struct Base {
    dirs: Vec<(&'static str, PathBuf)>,
}

/// One sandbox's directories.
#[derive(Debug)]
pub struct Group {
    dirs: Vec<(&'static str, PathBuf)>,
}

impl Base {
    pub fn prepare(found: &Hierarchies, group: &str) -> Result<Self, String> {
        let own = |controller| found.own_v1(controller).map(|dir| dir.join(group));
        let mut dirs = Vec::new();
        for (controller, _) in REQUIRED {
            dirs.push((controller, own(controller).ok_or_else(|| format!("no {controller} controller"))?));
        }
        dirs.extend(own(ACCOUNTING).map(|dir| (ACCOUNTING, dir)));
        let base = Self { dirs };
        base.make().inspect_err(|_| remove_empty(&base.dirs))?;
        Ok(base)
    }

    fn make(&self) -> Result<(), String> {
        distinct(&self.dirs).into_iter().try_for_each(make_dir).map_err(|error| error.words())?;
        self.dirs.iter().try_for_each(|(controller, dir)| {
            let files = REQUIRED.iter().filter(|(each, _)| each == controller).map(|(_, file)| *file);
            require_files(dir, &files.collect::<Vec<_>>()).and_then(|()| require_writable(dir))
        })
    }

    pub fn dirs(&self) -> Vec<PathBuf> {
        distinct(&self.dirs).into_iter().map(Path::to_owned).collect()
    }

    pub fn create(&self, name: &str, limits: &Limits) -> Result<Group, FileError> {
        let group = Group { dirs: self.dirs.iter().map(|(controller, dir)| (*controller, dir.join(name))).collect() };
        let made = distinct(&self.dirs)
            .into_iter()
            .try_for_each(make_dir)
            .and_then(|()| distinct(&group.dirs).into_iter().try_for_each(make_dir))
            .and_then(|()| group.limit(limits));
        match made {
            Ok(()) => Ok(group),
            Err(error) => {
                remove_empty(&group.dirs);
                Err(error)
            }
        }
    }
}

impl Group {
    pub fn dirs(&self) -> Vec<&Path> {
        distinct(&self.dirs)
    }

    fn dir(&self, controller: &str) -> Option<&Path> {
        self.dirs.iter().find(|(each, _)| *each == controller).map(|(_, dir)| dir.as_path())
    }

    fn limit(&self, limits: &Limits) -> Result<(), FileError> {
        for (controller, dir) in &self.dirs {
            match *controller {
                "memory" => limit_memory(dir, limits)?,
                "cpu" => limit_cpu(dir, limits)?,
                "pids" => put(dir, "pids.max", &pids(limits).to_string())?,
                _ => {}
            }
        }
        Ok(())
    }

    pub fn join(&self, pid: u32) -> Result<(), FileError> {
        self.dirs().into_iter().try_for_each(|dir| put(dir, "cgroup.procs", &pid.to_string()))
    }

    pub fn usage(&self) -> Usage {
        let read = |controller, file| self.dir(controller).map_or(0, |dir| number(dir, file));
        Usage {
            memory_bytes: read("memory", "memory.usage_in_bytes"),
            cpu: Duration::from_nanos(read(ACCOUNTING, "cpuacct.usage")),
            processes: u32::try_from(read("pids", "pids.current")).unwrap_or(u32::MAX),
        }
    }

    pub fn out_of_memory(&self) -> bool {
        self.dir("memory").is_some_and(|dir| field(dir, "memory.oom_control", "oom_kill") > 0)
    }
}

/// After a failure, which is the one worth telling.
fn remove_empty(dirs: &[(&'static str, PathBuf)]) {
    for dir in distinct(dirs) {
        let _ = std::fs::remove_dir(dir);
    }
}

fn distinct<'a>(dirs: &'a [(&'static str, PathBuf)]) -> Vec<&'a Path> {
    let mut all: Vec<&Path> = dirs.iter().map(|(_, dir)| dir.as_path()).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn limit_memory(dir: &Path, limits: &Limits) -> Result<(), FileError> {
    let bytes = limits.memory_bytes.to_string();
    put(dir, "memory.limit_in_bytes", &bytes)?;
    // Data that waits in sockets is counted apart, and without a limit not at all: one payload could use up what the
    // kernel allows to all connections of the host.
    if dir.join("memory.kmem.tcp.limit_in_bytes").exists() {
        put(dir, "memory.kmem.tcp.limit_in_bytes", &(limits.memory_bytes / SOCKETS_PART).to_string())?;
    }
    // Without swap accounting the kernel can still be asked not to swap these pages.
    if dir.join("memory.memsw.limit_in_bytes").exists() {
        put(dir, "memory.memsw.limit_in_bytes", &bytes)
    } else {
        put(dir, "memory.swappiness", "0")
    }
}

fn limit_cpu(dir: &Path, limits: &Limits) -> Result<(), FileError> {
    put(dir, "cpu.cfs_period_us", &PERIOD_MICROS.to_string())?;
    match put(dir, "cpu.cfs_quota_us", &quota_micros(limits).to_string()) {
        // A group above allows less; then that limit holds.
        Err(error) if error.source.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        answer => answer,
    }
}
