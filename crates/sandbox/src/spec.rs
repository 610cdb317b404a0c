//! What a caller asks for and what it learns afterwards. Plain data; checked once, in [`SandboxSpec::check`].

use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::SandboxError;

/// The payload's home directory inside the sandbox: empty, writable, and gone with the sandbox.
pub const HOME: &str = "/home/casemate";

/// One process tree to confine.
#[derive(Debug)]
pub struct SandboxSpec {
    /// Names the sandbox in errors, its control group and (reduced to letters, digits and dashes) its host name.
    pub name: String,
    /// The program, an absolute path inside the sandbox. There is no search along PATH.
    pub program: PathBuf,
    /// Arguments after the program's own name.
    pub args: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub env: Vec<(String, String)>,
    /// The working directory inside the sandbox.
    pub cwd: PathBuf,
    /// What the payload sees beside the system's own directories.
    pub mounts: Vec<Mount>,
    /// Which network it lives in.
    pub network: Network,
    /// Whether the payload finds the package installers' configuration of the host and of the platform's user: which
    /// index to ask, and by which certificates. For environment builds.
    pub installer_config: bool,
    /// What it may use.
    pub limits: Limits,
    /// Becomes descriptor 1; a pipe also becomes the payload's, so that it can be opened by name. Nothing else is
    /// inherited.
    pub stdout: OwnedFd,
    /// Becomes descriptor 2, likewise.
    pub stderr: OwnedFd,
}

/// A directory or file of the host made visible inside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// A directory or regular file on the host. The last component must not be a symbolic link: a link could have been
    /// planted by an earlier payload.
    pub source: PathBuf,
    /// An absolute path inside the sandbox.
    pub target: PathBuf,
    /// Whether the payload may change it.
    pub access: Access,
}

/// Whether the payload may change a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Read and execute. What the source's owner may read, the payload may read.
    ReadOnly,
    /// Everything. Files made through the mount belong to the owner of the source.
    ReadWrite,
}

/// The network a payload lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// A namespace of its own with nothing but the loopback interface: no way in but [`crate::Sandbox::socket`], and
    /// no way out.
    Isolated,
    /// As isolated, but every TCP connection to elsewhere, whatever its address, arrives at the platform, and so does
    /// every name query: see [`crate::Sandbox::take_egress`]. Everything else is refused.
    Gateway,
}

/// What a sandbox may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory in bytes, without any swap beside it.
    pub memory_bytes: u64,
    /// Processor time in thousandths of one processor.
    pub milli_cpus: u32,
    /// Processes and threads.
    pub pids: u32,
    /// Bytes in `/tmp`, `/run`, `/dev/shm` and the home directory together. They count as memory too.
    pub scratch_bytes: u64,
}

/// How a sandbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, when the payload ended by itself.
    pub code: Option<i32>,
    /// The signal, when it was ended by one. A sandbox killed as a whole reports 9.
    pub signal: Option<i32>,
    /// True when at least one of its processes was killed for using too much memory.
    pub out_of_memory: bool,
}

/// What a sandbox uses at this moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory in bytes, as the limit counts it.
    pub memory_bytes: u64,
    /// Processor time used since the start.
    pub cpu: Duration,
    /// Live processes (with control groups: and threads), the sandbox's own first process included.
    pub processes: u32,
}

const MAX_MOUNTS: usize = 64;
const MAX_NAME: usize = 200;
/// The smallest memory limit under which the launch itself can finish.
const MIN_MEMORY: u64 = 16 << 20;
/// Directories that the sandbox makes itself; a mount over or inside them would weaken it.
const RESERVED: [&str; 3] = ["/proc", "/dev", "/sys"];

impl SandboxSpec {
    /// Refuses what no sandbox can have, before anything is started.
    pub(crate) fn check(&self) -> Result<(), SandboxError> {
        let refuse = |words: String| Err(SandboxError::Spec(words));
        if self.name.is_empty() || self.name.len() > MAX_NAME {
            return refuse(format!("the name must have 1 to {MAX_NAME} bytes, not {}", self.name.len()));
        }
        if !is_plain_absolute(&self.program) {
            return refuse(format!("the program '{}' is not a plain absolute path", self.program.display()));
        }
        if !is_plain_absolute(&self.cwd) {
            return refuse(format!("the working directory '{}' is not a plain absolute path", self.cwd.display()));
        }
        if self.limits.memory_bytes < MIN_MEMORY || self.limits.milli_cpus == 0 || self.limits.pids == 0 {
            return refuse(format!(
                "limits must be at least {MIN_MEMORY} bytes, 1 milli-cpu and 1 process, not {:?}",
                self.limits
            ));
        }
        if let Some((name, _)) = self.env.iter().find(|(name, _)| name.is_empty() || name.contains('=')) {
            return refuse(format!("'{name}' is not a variable name"));
        }
        let texts = self.args.iter().chain(self.env.iter().flat_map(|(name, value)| [name, value]));
        if let Some(text) = texts.into_iter().find(|text| text.contains('\0')) {
            return refuse(format!("an argument or variable contains a zero byte: {text:?}"));
        }
        if self.mounts.len() > MAX_MOUNTS {
            return refuse(format!("{} mounts are more than {MAX_MOUNTS}", self.mounts.len()));
        }
        self.mounts.iter().try_for_each(check_mount)
    }
}

fn check_mount(mount: &Mount) -> Result<(), SandboxError> {
    let target = &mount.target;
    let reserved = RESERVED.iter().any(|root| target.starts_with(root)) || target.parent().is_none();
    if !is_plain_absolute(target) || reserved {
        return Err(SandboxError::Spec(format!("nothing can be mounted at '{}'", target.display())));
    }
    if !mount.source.is_absolute() {
        return Err(SandboxError::Spec(format!("the source '{}' is not absolute", mount.source.display())));
    }
    Ok(())
}

/// Absolute, UTF-8, no zero byte, no `.` or `..`.
fn is_plain_absolute(path: &Path) -> bool {
    path.to_str().is_some_and(|text| !text.contains('\0'))
        && path.is_absolute()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> SandboxSpec {
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        SandboxSpec {
            name: "t".into(),
            program: "/bin/true".into(),
            args: vec![],
            env: vec![],
            cwd: "/".into(),
            mounts: vec![],
            network: Network::Isolated,
            installer_config: false,
            limits: Limits { memory_bytes: 64 << 20, milli_cpus: 1000, pids: 8, scratch_bytes: 1 << 20 },
            stdout: null(),
            stderr: null(),
        }
    }

    #[test]
    fn a_plain_spec_passes() {
        spec().check().unwrap();
    }

    #[test]
    fn unusable_specs_are_refused_by_name() {
        type Change = fn(&mut SandboxSpec);
        let table: [(&str, Change); 10] = [
            ("name", |s| s.name.clear()),
            ("program", |s| s.program = "true".into()),
            ("program", |s| s.program = "/bin/../bin/true".into()),
            ("working directory", |s| s.cwd = "tmp".into()),
            ("limits", |s| s.limits.memory_bytes = 1),
            ("variable", |s| s.env.push(("A=B".into(), "c".into()))),
            ("zero byte", |s| s.args.push("a\0b".into())),
            ("mounted", |s| s.mounts.push(mount("/srv", "/proc/x"))),
            ("mounted", |s| s.mounts.push(mount("/srv", "/"))),
            ("not absolute", |s| s.mounts.push(mount("srv", "/srv"))),
        ];
        for (word, change) in table {
            let mut spec = spec();
            change(&mut spec);
            let message = spec.check().unwrap_err().to_string();
            assert!(message.contains(word), "{message:?} does not contain {word:?}");
        }
    }

    fn mount(source: &str, target: &str) -> Mount {
        Mount { source: source.into(), target: target.into(), access: Access::ReadOnly }
    }
}
