//! By what means limits are enforced on this machine, and one handle on a sandbox's share of it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::cgroup::{self, Base, Group};
use crate::error::SandboxError;
use crate::process_tree;
use crate::spec::{Limits, Usage};
use crate::watchdog::{Watchdog, Watched};

/// By what means limits are enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitsBackend {
    /// Control groups, version 1.
    CgroupV1,
    /// Control groups, version 2.
    CgroupV2,
    /// The platform looks at each sandbox's memory several times a second and kills one that is over its limit;
    /// process limits bound the number of processes. Processor time is not limited.
    Watchdog,
}

/// The platform's side of limiting.
pub enum Limiter {
    Cgroup(Base),
    Watchdog(Arc<Watchdog>),
}

/// What is held for one sandbox.
pub enum Held {
    Cgroup(Group),
    /// `None` until the first process exists.
    Watchdog(Option<Watched>),
}

impl Limiter {
    /// Control groups where they can be used, else the watchdog.
    pub fn detect(group: &str) -> io::Result<Self> {
        match Base::detect(group) {
            Ok(base) => Ok(Self::Cgroup(base)),
            Err(reason) => {
                tracing::warn!(%reason, "no control groups: memory is limited by polling, processor time is not");
                Ok(Self::Watchdog(Watchdog::start()?))
            }
        }
    }

    pub fn backend(&self) -> LimitsBackend {
        match self {
            Self::Cgroup(Base::V1(_)) => LimitsBackend::CgroupV1,
            Self::Cgroup(Base::V2(_)) => LimitsBackend::CgroupV2,
            Self::Watchdog(_) => LimitsBackend::Watchdog,
        }
    }

    /// Puts the limits in force for the helper `pid`, which waits meanwhile, and all that comes of it.
    pub fn hold(&self, name: &str, dir: &str, limits: &Limits, pid: u32) -> Result<Held, SandboxError> {
        let Self::Cgroup(base) = self else { return Ok(Held::Watchdog(None)) };
        let told = |error: cgroup::FileError| SandboxError::Limits {
            name: name.to_owned(),
            path: error.path,
            source: error.source,
        };
        let group = base.create(dir, limits).map_err(told)?;
        let held = Held::Cgroup(group);
        if let Held::Cgroup(group) = &held {
            group.join(pid).map_err(told).inspect_err(|_| held.release())?;
        }
        Ok(held)
    }

    /// Tells the watchdog, if it is needed, of the sandbox's first process.
    pub fn watch(&self, held: &mut Held, first: i32, pidfd: BorrowedFd<'_>, limits: &Limits) -> io::Result<()> {
        if let (Self::Watchdog(watchdog), Held::Watchdog(watched)) = (self, held) {
            *watched = Some(watchdog.watch(first, pidfd.as_fd().try_clone_to_owned()?, limits.memory_bytes));
        }
        Ok(())
    }
}

impl Held {
    /// What the sandbox with this first process uses.
    pub fn usage(&self, first: i32) -> Usage {
        match self {
            Self::Cgroup(group) => group.usage(),
            Self::Watchdog(_) => {
                let members = process_tree::members(first);
                Usage {
                    memory_bytes: process_tree::resident(&members),
                    cpu: process_tree::cpu(&members),
                    processes: u32::try_from(members.len()).unwrap_or(u32::MAX),
                }
            }
        }
    }

    pub fn out_of_memory(&self) -> bool {
        match self {
            Self::Cgroup(group) => group.out_of_memory(),
            Self::Watchdog(watched) => watched.as_ref().is_some_and(Watched::exceeded),
        }
    }

    /// Gives back what the host holds for the sandbox. What cannot be removed is left for the next sweep.
    pub fn release(&self) {
        if let Self::Cgroup(group) = self
            && let Err(error) = group.remove()
        {
            tracing::warn!(path = %error.path.display(), error = %error.source, "a control group was left behind");
        }
    }
}
