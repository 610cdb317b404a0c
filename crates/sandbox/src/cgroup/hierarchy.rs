//! Where the control group hierarchies are mounted, and where this process is in them.

use std::io;
use std::path::{Path, PathBuf};

/// The hierarchies of this machine as this process sees them.
#[derive(Debug, Default)]
pub struct Hierarchies {
    /// Version 1: controllers, and this process's own directory.
    pub v1: Vec<(Vec<String>, PathBuf)>,
    /// Version 2: the mount point, and this process's own directory.
    pub v2: Option<(PathBuf, PathBuf)>,
}

impl Hierarchies {
    /// This process's version 1 directory under `controller`.
    pub fn own_v1(&self, controller: &str) -> Option<&Path> {
        self.v1.iter().find(|(all, _)| all.iter().any(|each| each == controller)).map(|(_, dir)| dir.as_path())
    }
}

/// Reads `/proc`.
pub fn read() -> io::Result<Hierarchies> {
    Ok(parse(&std::fs::read_to_string("/proc/self/mountinfo")?, &std::fs::read_to_string("/proc/self/cgroup")?))
}

fn parse(mountinfo: &str, membership: &str) -> Hierarchies {
    let mut found = Hierarchies::default();
    for mount in mountinfo.lines().filter_map(MountLine::parse) {
        match mount.kind {
            "cgroup" => {
                let options: Vec<&str> = mount.options.split(',').collect();
                let own = membership.lines().filter_map(split_membership).find(|(controllers, _)| {
                    !controllers.is_empty() && controllers.split(',').all(|each| options.contains(&each))
                });
                if let Some((controllers, path)) = own {
                    found.v1.push((controllers.split(',').map(str::to_owned).collect(), mount.own_dir(path)));
                }
            }
            "cgroup2" if found.v2.is_none() => {
                let own =
                    membership.lines().filter_map(split_membership).find(|(controllers, _)| controllers.is_empty());
                found.v2 = own.map(|(_, path)| (PathBuf::from(mount.point), mount.own_dir(path)));
            }
            _ => {}
        }
    }
    found
}

/// `id:controllers:path`.
fn split_membership(line: &str) -> Option<(&str, &str)> {
    line.split_once(':')?.1.split_once(':')
}

struct MountLine<'a> {
    root: &'a str,
    point: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> MountLine<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (front, back) = line.split_once(" - ")?;
        let mut front = front.split(' ');
        let mut back = back.split(' ');
        Some(Self { root: front.nth(3)?, point: front.next()?, kind: back.next()?, options: back.nth(1)? })
    }

    /// In a container the mount may start below the hierarchy's top.
    fn own_dir(&self, path: &str) -> PathBuf {
        let below = Path::new(path).strip_prefix(self.root).unwrap_or(Path::new(""));
        Path::new(self.point).join(below.strip_prefix("/").unwrap_or(below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_containers_are_understood() {
        let mounts = "\
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
35 31 0:32 /docker/ab /sys/fs/cgroup/memory ro shared:9 - cgroup cgroup rw,memory\n\
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n\
garbage\n";
        let own = "9:name=systemd:/\n4:memory:/docker/ab/c\n1:cpu,cpuacct:/x\n0::/user.slice\n";
        let found = parse(mounts, own);
        assert_eq!(found.own_v1("cpuacct"), Some(Path::new("/sys/fs/cgroup/cpu,cpuacct/x")));
        assert_eq!(found.own_v1("memory"), Some(Path::new("/sys/fs/cgroup/memory/c")));
        assert_eq!(found.own_v1("pids"), None);
        let unified = PathBuf::from("/sys/fs/cgroup/unified");
        assert_eq!(found.v2, Some((unified.clone(), unified.join("user.slice"))));
    }
}
