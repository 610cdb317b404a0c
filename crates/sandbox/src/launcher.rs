//! The platform's side of a launch: limits in place, helper started, its reports followed, everything undone when any
//! step fails.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::egress::EgressSockets;
use crate::error::{SandboxError, Step, StepFailure};
use crate::limits::{Held, Limiter, LimitsBackend};
use crate::plan::{COMMAND_GO, Ids, Plan, Report, read_frame, write_frame};
use crate::privilege::IdRange;
use crate::probe::KernelFeatures;
use crate::sandbox::{First, Inside, Sandbox};
use crate::sockets::SocketMaker;
use crate::spec::{Limits, Network, SandboxSpec};
use crate::{HELPER_ARG, cgroup};

/// A launch that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_GROUP: usize = 64;
/// In the scratch directory: every place where this platform ever made control groups, one a line.
const GROUPS_FILE: &str = "control-groups";

/// What a launcher needs to know.
#[derive(Debug, Clone)]
pub struct LauncherConfig {
    /// The binary to execute as the helper, usually `/proc/self/exe`. It is started with [`HELPER_ARG`] as its first
    /// argument and must then call [`crate::helper_main`].
    pub helper: PathBuf,
    /// Further arguments for the helper.
    pub helper_args: Vec<String>,
    /// Names this platform's control groups: letters, digits, `-`, `_` and `.`, at most 64, and not shared with any
    /// platform on another state directory.
    pub cgroup_group: String,
    /// A directory of the platform's own, made if missing, that outlives it.
    pub scratch: PathBuf,
}

/// Starts sandboxes. One per platform; shared by reference.
pub struct Launcher {
    config: LauncherConfig,
    limiter: Limiter,
    ids: IdRange,
    sockets: Arc<SocketMaker>,
    launched: AtomicU64,
}

impl Launcher {
    /// Checks that this machine has all that a sandbox needs, by starting one, and prepares for launches.
    ///
    /// Fails with [`SandboxError::Missing`] naming what is not there; nothing weaker is offered. Missing control groups
    /// are no failure: see [`Launcher::limits`].
    pub fn new(config: LauncherConfig) -> Result<Self, SandboxError> {
        Self::with_features(config, &KernelFeatures::detect())
    }

    /// As [`Launcher::new`], with the kernel's answers given by the caller.
    pub fn with_features(config: LauncherConfig, features: &KernelFeatures) -> Result<Self, SandboxError> {
        features.require()?;
        check_group(&config.cgroup_group)?;
        let used = |context| move |source| SandboxError::Helper { context, source };
        std::fs::create_dir_all(root_dir(&config.scratch)).map_err(used("make the scratch directory"))?;
        let group = format!("casemate-{}", config.cgroup_group);
        let ids = IdRange::detect(&config.cgroup_group).map_err(used("read the id map"))?;
        let sockets = SocketMaker::start().map_err(|error| SandboxError::Missing {
            feature: "an empty network namespace",
            evidence: error.to_string(),
            fix: "Start the platform as root, or let ordinary users have namespaces: sysctl \
                  kernel.apparmor_restrict_unprivileged_userns=0 (Ubuntu), user.max_net_namespaces above 0; the kernel \
                  needs CONFIG_NET_NS.",
        })?;
        let limiter = Limiter::detect(&group).map_err(used("start the watchdog"))?;
        let launcher = Self { config, limiter, ids, sockets: Arc::new(sockets), launched: AtomicU64::new(0) };
        launcher.record_groups().map_err(used("record the control groups"))?;
        launcher.probe()?;
        Ok(launcher)
    }

    /// By what means limits are enforced here.
    pub fn limits(&self) -> LimitsBackend {
        self.limiter.backend()
    }

    /// Kills and removes what an earlier run of the same platform left. Call it once, before the first launch.
    pub fn sweep(&self) -> Result<(), SandboxError> {
        let file = self.config.scratch.join(GROUPS_FILE);
        let recorded = std::fs::read_to_string(&file).unwrap_or_default();
        let current = self.group_dirs();
        for dir in recorded.lines().map(Path::new) {
            cgroup::sweep(dir).map_err(|error| SandboxError::Limits {
                name: "(left from an earlier run)".to_owned(),
                path: error.path,
                source: error.source,
            })?;
        }
        let lines: String = current.iter().map(|dir| format!("{}\n", dir.display())).collect();
        std::fs::write(&file, lines)
            .map_err(|source| SandboxError::Helper { context: "record the control groups", source })
    }

    /// Starts a sandbox and returns when its program executes. Blocks for some ten milliseconds.
    pub fn launch(&self, spec: SandboxSpec) -> Result<Sandbox, SandboxError> {
        spec.check()?;
        let (serial, ids) = self.next();
        let plan = Plan {
            name: spec.name,
            program: Some(spec.program),
            args: spec.args,
            env: spec.env,
            cwd: spec.cwd,
            mounts: spec.mounts,
            network: spec.network,
            installer_config: spec.installer_config,
            limits: spec.limits,
            scratch: root_dir(&self.config.scratch),
            home: std::env::var_os("HOME").map(PathBuf::from),
            ids,
            unmapped_memory_refused: self.limits() == LimitsBackend::Watchdog,
        };
        self.start(&plan, serial, spec.stdout, spec.stderr)
    }

    /// Goes through a whole launch without a program: what cannot be done here shows before the first deployment.
    fn probe(&self) -> Result<(), SandboxError> {
        let (serial, ids) = self.next();
        let plan = Plan {
            name: "probe".to_owned(),
            program: None,
            args: Vec::new(),
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            mounts: Vec::new(),
            network: Network::Gateway,
            installer_config: false,
            limits: Limits { memory_bytes: 64 << 20, milli_cpus: 1000, pids: 4, scratch_bytes: 1 << 20 },
            scratch: root_dir(&self.config.scratch),
            home: None,
            ids,
            unmapped_memory_refused: self.limits() == LimitsBackend::Watchdog,
        };
        let null = || {
            let file = std::fs::OpenOptions::new().write(true).open("/dev/null");
            file.map(OwnedFd::from).map_err(|source| SandboxError::Helper { context: "open /dev/null", source })
        };
        match self.start(&plan, serial, null()?, null()?) {
            Ok(probe) => {
                drop(probe);
                Ok(())
            }
            Err(SandboxError::Launch { step, detail, .. }) if step.feature().is_some() => {
                let (feature, fix) = step.feature().unwrap_or(("", ""));
                Err(SandboxError::Missing { feature, evidence: detail, fix })
            }
            Err(error) => Err(error),
        }
    }

    fn next(&self) -> (u64, Ids) {
        let serial = self.launched.fetch_add(1, Ordering::Relaxed);
        (serial, self.ids.ids(serial))
    }

    fn start(&self, plan: &Plan, serial: u64, out: OwnedFd, err: OwnedFd) -> Result<Sandbox, SandboxError> {
        let used = |context| move |source| SandboxError::Helper { context, source };
        let (control, theirs) = UnixStream::pair().map_err(used("make a socket pair"))?;
        control.set_read_timeout(Some(PATIENCE)).map_err(used("set a time limit"))?;
        control.set_write_timeout(Some(PATIENCE)).map_err(used("set a time limit"))?;
        let helper = self.spawn_helper(theirs, out, err).map_err(used("start the helper"))?;
        let mut starting = Starting { helper, first: None, held: None };
        let pid = starting.helper.id();
        // The helper waits for its plan, so nothing has run outside the limits.
        starting.held = Some(self.limiter.hold(&plan.name, &group_dir(&plan.name, serial), &plan.limits, pid)?);
        write_frame(&control, plan).map_err(used("send the plan"))?;
        let first = match self.next_report(&control, plan)? {
            Report::Created { pid } => First::open(pid).map_err(used("open the first process"))?,
            other => return Err(unexpected(plan, &other)),
        };
        let first = starting.first.insert(first);
        let network = Arc::new(self.open_network(first, &control, plan)?);
        // Nothing of the payload's runs yet, so nothing can be where these are to be.
        let egress = match plan.network {
            Network::Gateway => Some(self.open_egress(&network)?),
            Network::Isolated => None,
        };
        if let Some(held) = &mut starting.held {
            self.limiter.watch(held, first.pid, first.pidfd.as_fd(), &plan.limits).map_err(used("start the watch"))?;
        }
        // If it has failed already, the next report says why.
        let _ = (&control).write_all(&[COMMAND_GO]);
        match self.next_report(&control, plan)? {
            Report::Started => {}
            other => return Err(unexpected(plan, &other)),
        }
        let (first, held) = starting.finish().map_err(used("collect the helper"))?;
        let sockets = Arc::clone(&self.sockets);
        Ok(Sandbox::new(plan.name.clone(), first, control, Inside { network, sockets, egress }, held))
    }

    /// The helper gets the socket, the two outputs, and nothing of the platform's environment.
    fn spawn_helper(&self, socket: UnixStream, out: OwnedFd, err: OwnedFd) -> io::Result<Child> {
        Command::new(&self.config.helper)
            .arg(HELPER_ARG)
            .args(&self.config.helper_args)
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(socket))
            .stdout(out)
            .stderr(err)
            .spawn()
    }

    fn open_network(&self, first: &First, control: &UnixStream, plan: &Plan) -> Result<OwnedFd, SandboxError> {
        match first.network() {
            Ok(network) => Ok(network),
            // It has ended already, and said why.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.next_report(control, plan).and_then(|report| Err(unexpected(plan, &report)))
            }
            Err(source) => Err(SandboxError::Helper { context: "open the network namespace", source }),
        }
    }

    fn open_egress(&self, network: &Arc<OwnedFd>) -> Result<EgressSockets, SandboxError> {
        let used = |context| move |source| SandboxError::Helper { context, source };
        self.sockets.egress(network).map_err(used("open the gateway's sockets"))
    }

    fn next_report(&self, control: &UnixStream, plan: &Plan) -> Result<Report, SandboxError> {
        match read_frame(control) {
            Ok(Some(Report::Failed(failure))) => Err(launch_error(plan, failure)),
            Ok(Some(report)) => Ok(report),
            Ok(None) => Err(SandboxError::Helper {
                context: "wait for its report",
                source: io::Error::other("it ended without one; was it killed, or is its memory limit too small?"),
            }),
            Err(source) => Err(SandboxError::Helper { context: "read its report", source }),
        }
    }

    fn group_dirs(&self) -> Vec<PathBuf> {
        match &self.limiter {
            Limiter::Cgroup(base) => base.dirs(),
            Limiter::Watchdog(_) => Vec::new(),
        }
    }

    /// Remembers where this run makes its groups, for the sweep of a later run that may be placed elsewhere.
    fn record_groups(&self) -> io::Result<()> {
        let file = self.config.scratch.join(GROUPS_FILE);
        let mut lines = std::fs::read_to_string(&file).unwrap_or_default();
        for dir in self.group_dirs() {
            let line = format!("{}\n", dir.display());
            if !lines.contains(&line) {
                lines.push_str(&line);
            }
        }
        std::fs::write(&file, lines)
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        for dir in self.group_dirs() {
            // Groups of sandboxes that outlive the launcher keep it; the next sweep looks again.
            let _ = std::fs::remove_dir(dir);
        }
    }
}

/// A launch under way. Dropping it undoes what was done.
struct Starting {
    helper: Child,
    first: Option<First>,
    held: Option<Held>,
}

impl Starting {
    /// The helper has done its work and ends by itself.
    fn finish(mut self) -> io::Result<(First, Held)> {
        self.helper.wait()?;
        let taken = self.first.take().zip(self.held.take());
        taken.ok_or_else(|| io::Error::other("the launch is incomplete"))
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        // Both may have ended already.
        let _ = self.helper.kill();
        let _ = self.helper.wait();
        if let Some(first) = &self.first {
            first.end();
        }
        if let Some(held) = &self.held {
            held.release();
        }
    }
}

/// Modules can be unloaded after the probe: then it is still the machine that lacks something, not the spec.
fn launch_error(plan: &Plan, StepFailure { step, detail }: StepFailure) -> SandboxError {
    match step.feature() {
        Some((feature, fix)) if step == Step::Proxy => SandboxError::Missing { feature, evidence: detail, fix },
        _ => SandboxError::Launch { name: plan.name.clone(), step, detail },
    }
}

fn unexpected(plan: &Plan, report: &Report) -> SandboxError {
    let source = io::Error::other(format!("unexpected report {report:?} for '{}'", plan.name));
    SandboxError::Helper { context: "follow its reports", source }
}

fn root_dir(scratch: &Path) -> PathBuf {
    scratch.join("root")
}

/// A directory name: what is plain in the sandbox's name, and a number that makes it unique.
fn group_dir(name: &str, serial: u64) -> String {
    let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(80).collect();
    format!("{plain}.{}.{serial}", std::process::id())
}

fn check_group(group: &str) -> Result<(), SandboxError> {
    let plain = group.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if plain && !group.is_empty() && group.len() <= MAX_GROUP && !group.starts_with('.') {
        return Ok(());
    }
    Err(SandboxError::Spec(format!("'{group}' cannot name a control group: letters, digits, '-', '_', '.'")))
}
