//! What can go wrong between a spec and a running sandbox, in words that name the cause, the evidence and the fix.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Why a sandbox could not be set up, started or asked.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel, or whoever set this machine up, withholds something the sandbox cannot do without. Nothing is
    /// started: there is no weaker mode to fall back to.
    #[error("this machine cannot confine a process: {feature} is not available ({evidence}). {fix}")]
    Missing {
        /// The missing feature, for example `Landlock`.
        feature: &'static str,
        /// What was tried and what the kernel answered.
        evidence: String,
        /// What the machine's owner can do about it.
        fix: &'static str,
    },
    /// The spec asks for something that no sandbox can have.
    #[error("the sandbox specification is not usable: {0}")]
    Spec(String),
    /// One step of the launch failed; everything begun was undone.
    #[error("sandbox '{name}' did not start: to {step} failed: {detail}")]
    Launch {
        /// The name from the spec.
        name: String,
        /// The step that failed.
        step: Step,
        /// The path or object concerned and the system's own words.
        detail: String,
    },
    /// A resource limit could not be put in place.
    #[error("the limits of sandbox '{name}' could not be set: {path}: {source}")]
    Limits {
        /// The name from the spec.
        name: String,
        /// The control file concerned.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The platform's side of the work failed (spawning the helper, talking to it, its scratch directory).
    #[error("the sandbox helper could not be used: {context}: {source}")]
    Helper {
        /// What was being done.
        context: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

/// The steps of a launch, in order. Each is named in the error when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Reading the plan from the platform.
    Plan,
    /// Giving up supplementary groups and inherited descriptors.
    Shed,
    /// Creating the network namespace.
    NetworkNamespace,
    /// Bringing up the loopback interface and checking that nothing else is there.
    Loopback,
    /// Handing every connection to the platform's gateway.
    Proxy,
    /// Cloning the first process of the sandbox into its namespaces.
    Namespaces,
    /// Preparing the id-mapped view of the mounts.
    IdMap,
    /// Building the root file system.
    RootFs,
    /// Mounting `/proc`.
    Proc,
    /// Switching to the new root.
    Pivot,
    /// Entering the user namespace and taking the mapped identity.
    UserNamespace,
    /// Shutting off further user namespaces.
    NoMoreNamespaces,
    /// Starting the confined process.
    Fork,
    /// Setting the process limits.
    ResourceLimits,
    /// Dropping privileges.
    Privileges,
    /// Checking that the payload can read what was mounted for it.
    MountAccess,
    /// Applying the file system rules.
    Landlock,
    /// Applying the system call filter.
    Seccomp,
    /// Executing the program.
    Exec,
}

impl Step {
    /// When the step fails in the probe: the kernel feature to blame, and the fix.
    pub(crate) fn feature(self) -> Option<(&'static str, &'static str)> {
        Some(match self {
            Step::NetworkNamespace | Step::Loopback => (
                "an empty network namespace",
                "Use a kernel with CONFIG_NET_NS, and set net.core.fb_tunnels_only_for_init_net=1 if tunnel devices \
                 appear in new network namespaces.",
            ),
            Step::Proxy => (
                "transparent proxying",
                "Use a kernel with CONFIG_NF_TABLES_INET, CONFIG_NFT_TPROXY and CONFIG_NFT_REJECT_INET; where they are \
                 modules, load them before the platform starts: modprobe -a nf_tables nft_tproxy nft_reject_inet.",
            ),
            Step::Namespaces => (
                "creation of pid, mount, ipc, uts and cgroup namespaces",
                "Use a kernel with CONFIG_PID_NS, CONFIG_IPC_NS and CONFIG_UTS_NS, and raise the limits in \
                 /proc/sys/user.",
            ),
            Step::UserNamespace | Step::IdMap | Step::NoMoreNamespaces => USER_NAMESPACES,
            Step::RootFs | Step::Pivot => (
                "the mount interface (open_tree, move_mount, mount_setattr; Linux 5.12 or newer)",
                "Use Linux 6.1 or newer, and let the platform mount (in a container: add CAP_SYS_ADMIN).",
            ),
            Step::Proc => (
                "a fresh /proc",
                "In a container, start it with an unmasked /proc (docker: --security-opt systempaths=unconfined).",
            ),
            Step::Landlock => LANDLOCK,
            Step::Seccomp => SECCOMP,
            _ => return None,
        })
    }
}

pub(crate) const USER_NAMESPACES: (&str, &str) = (
    "user namespaces",
    "Allow them: sysctl user.max_user_namespaces (above 0), kernel.unprivileged_userns_clone=1 (Debian) or \
     kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu); or run the platform as root.",
);
pub(crate) const LANDLOCK: (&str, &str) =
    ("Landlock (ABI 2 or newer)", "Use Linux 5.19 or newer with landlock in the boot parameter lsm=.");
pub(crate) const SECCOMP: (&str, &str) = ("seccomp filtering", "Use a kernel with CONFIG_SECCOMP_FILTER.");
pub(crate) const SANDBOX_CHILDREN: (&str, &str) =
    ("the list of a process's children in /proc", "Use a kernel with CONFIG_PROC_CHILDREN and a mounted /proc.");

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Plan => "read the plan",
            Step::Shed => "shed inherited groups and descriptors",
            Step::NetworkNamespace => "create the network namespace",
            Step::Loopback => "set up the loopback interface",
            Step::Proxy => "hand connections to the gateway",
            Step::Namespaces => "create the namespaces",
            Step::IdMap => "prepare the id-mapped mounts",
            Step::RootFs => "build the root file system",
            Step::Proc => "mount /proc",
            Step::Pivot => "switch to the new root",
            Step::UserNamespace => "enter the user namespace",
            Step::NoMoreNamespaces => "shut off further user namespaces",
            Step::Fork => "start the confined process",
            Step::ResourceLimits => "set the process limits",
            Step::Privileges => "drop privileges",
            Step::MountAccess => "check that the mounts are readable",
            Step::Landlock => "apply the Landlock rules",
            Step::Seccomp => "apply the system call filter",
            Step::Exec => "execute the program",
        })
    }
}

/// A failed step inside the helper, on its way to the platform.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StepFailure {
    pub step: Step,
    pub detail: String,
}

impl StepFailure {
    pub fn new(step: Step, detail: impl fmt::Display) -> Self {
        Self { step, detail: detail.to_string() }
    }
}

/// Turns any failed call into a failure of the named step, with the object concerned in front.
pub(crate) trait During<T> {
    fn during(self, step: Step, what: impl fmt::Display) -> Result<T, StepFailure>;
}

impl<T, E: fmt::Display> During<T> for Result<T, E> {
    fn during(self, step: Step, what: impl fmt::Display) -> Result<T, StepFailure> {
        self.map_err(|error| StepFailure { step, detail: format!("{what}: {error}") })
    }
}
