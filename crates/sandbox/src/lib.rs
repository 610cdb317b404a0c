//! Starts one process tree and confines it: namespaces of its own, an identity without rights, a file system of what
//! it was given, no way to the network but what the platform opens, and bounded memory, processor time and processes.
//! Models and package build hooks are foreign code; this room is what stands between them and the host.
//!
//! It is the only room with unsafe code, and refuses to know what it runs. It fails closed: where a feature of the
//! kernel is missing, [`Launcher::new`] names it and nothing starts. There is no weaker mode, and no way to ask for one.
//!
//! A launch, in order: the platform starts its own binary again as a helper ([`helper_main`]) inside the limits; the
//! helper creates the network namespace (for [`Network::Gateway`] with routes and packet rules that lead every
//! connection to the platform, which opens its sockets in there) and the sandbox's first process; that one builds the
//! file system, enters the user namespace, and starts the payload, which gives up every right before it executes the
//! program. The first process watches the platform's socket and ends, with everything inside, when the platform does.

mod cgroup;
mod egress;
mod error;
mod etc;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod gateway;
mod helper;
mod idmapped;
mod init;
mod landlock;
mod launcher;
mod limits;
mod netns;
mod payload;
mod plan;
mod privilege;
mod probe;
mod process_tree;
mod rootfs;
mod sandbox;
mod seccomp;
mod sockets;
mod spec;
mod sys;
mod watchdog;

pub use egress::EgressSockets;
pub use error::{SandboxError, Step};
pub use helper::helper_main;
pub use launcher::{Launcher, LauncherConfig};
pub use limits::LimitsBackend;
pub use privilege::{Privilege, prepare_process};
pub use probe::KernelFeatures;
pub use sandbox::Sandbox;
pub use spec::{Access, Exit, HOME, Limits, Mount, Network, SandboxSpec, Usage};

/// The first argument of the binary when it is to be the helper: `main` must then call [`helper_main`] before all else.
pub const HELPER_ARG: &str = "__sandbox";
