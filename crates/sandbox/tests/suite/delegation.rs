//! Version 1 control groups given to an ordinary user, as an administrator would, for as long as a test runs.

use std::path::{Path, PathBuf};

const CONTROLLERS: [&str; 4] = ["memory", "cpu", "cpuacct", "pids"];

/// Groups that this process (and what it starts) is in; dropping takes it out and removes them.
pub struct Groups(Vec<PathBuf>);

impl Groups {
    /// `None` where the controllers are not those of version 1, each mounted by itself.
    pub fn give(user: u32) -> Option<Self> {
        let membership = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let own = |controller: &str| {
            let path = membership.lines().find_map(|line| line.split_once(&format!(":{controller}:")))?.1;
            let dir = Path::new("/sys/fs/cgroup").join(controller).join(path.trim_start_matches('/'));
            dir.is_dir().then_some(dir)
        };
        let parents: Vec<PathBuf> = CONTROLLERS.iter().map(|controller| own(controller)).collect::<Option<_>>()?;
        let mut made = Self(Vec::new());
        for parent in parents {
            let dir = parent.join(format!("casemate-delegated-{}", std::process::id()));
            std::fs::create_dir(&dir).unwrap();
            made.0.push(dir.clone());
            for owned in [dir.clone(), dir.join("cgroup.procs")] {
                std::os::unix::fs::chown(owned, Some(user), Some(user)).unwrap();
            }
            join(&dir);
        }
        Some(made)
    }

    /// Nothing given.
    pub fn none() -> Self {
        Self(Vec::new())
    }
}

fn join(dir: &Path) {
    std::fs::write(dir.join("cgroup.procs"), std::process::id().to_string()).unwrap();
}

impl Drop for Groups {
    fn drop(&mut self) {
        for dir in &self.0 {
            join(dir.parent().unwrap());
            std::fs::remove_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        }
    }
}
