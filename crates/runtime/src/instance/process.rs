//! One start of a scoring process: the sandbox, its output and its end.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use casemate_egress::Attachment;
use casemate_model::route::Dial;
use casemate_sandbox::{Exit, Launcher, Limits, Network, Sandbox, SandboxSpec};
use tokio::{
    io::{Interest, unix::AsyncFd},
    task::JoinHandle,
};

use crate::{
    layout::Layout,
    logs::{LogPipe, LogTail, LogWriter},
    outbound::Outbound,
};

/// Longest wait for a killed process to be gone, and for the rest of its output.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// A process that was started. Dropping it kills the process and all its children.
pub(super) struct Process {
    cell: Arc<Cell>,
    pidfd: AsyncFd<OwnedFd>,
    pump: JoinHandle<()>,
    /// What it prints.
    pub(super) tail: LogTail,
    /// Its way out, for as long as it lives.
    _attachment: Attachment,
}

impl Process {
    /// Starts a process as laid out. What it opens before the gateway serves it has to wait for that.
    ///
    /// # Errors
    /// The sandbox's or the gateway's words when it can't be started. Nothing is ever started without a sandbox, and
    /// nothing that is started goes on without a gateway.
    pub(super) async fn start(
        launcher: &Arc<Launcher>,
        name: String,
        layout: &Layout,
        outbound: &Outbound,
        limits: Limits,
        log: &LogWriter,
    ) -> Result<Self, String> {
        let LogPipe { stdout, stderr, pump, tail } =
            log.pipe().map_err(|error| format!("no pipe for the log: {error}"))?;
        let spec = SandboxSpec {
            name: name.clone(),
            program: layout.program.clone(),
            args: layout.args.clone(),
            env: layout.env.clone(),
            cwd: layout.cwd.clone(),
            mounts: layout.mounts.clone(),
            network: Network::Gateway,
            installer_config: false,
            limits,
            stdout,
            stderr,
        };
        let launcher = Arc::clone(launcher);
        let launched = tokio::task::spawn_blocking(move || launcher.launch(spec)).await;
        let mut sandbox =
            launched.map_err(|_| "the launch was broken off".to_owned())?.map_err(|error| error.to_string())?;
        let attachment = outbound.attach(&mut sandbox, name)?;
        let pidfd = sandbox.pidfd().try_clone_to_owned().and_then(watched);
        let pidfd = pidfd.map_err(|error| format!("the process can't be watched: {error}"))?;
        let pump = tokio::task::spawn_blocking(move || pump.run());
        Ok(Self { cell: Arc::new(Cell(RwLock::new(Some(sandbox)))), pidfd, pump, tail, _attachment: attachment })
    }

    /// The way into the process's network namespace, for as long as the process lives.
    pub(super) fn dial(&self) -> Arc<dyn Dial> {
        Arc::clone(&self.cell) as Arc<dyn Dial>
    }

    /// Waits until the process ends.
    pub(super) async fn exited(&self) -> Exit {
        loop {
            let Ok(mut ready) = self.pidfd.readable().await else {
                return Exit { code: None, signal: None, out_of_memory: false };
            };
            match self.cell.try_wait() {
                Ok(None) => ready.clear_ready(),
                Ok(Some(exit)) => return exit,
                Err(error) => {
                    tracing::warn!(%error, "how a process ended can't be learned");
                    return Exit { code: None, signal: None, out_of_memory: false };
                }
            }
        }
    }

    /// Asks the process to end.
    pub(super) fn terminate(&self) {
        self.cell.with(Sandbox::terminate);
    }

    /// Kills what is left, and gives what the process leaves behind.
    pub(super) async fn end(mut self) -> Remains {
        self.cell.with(Sandbox::kill);
        let exit = tokio::time::timeout(LAST_BREATH, self.exited()).await;
        let sandbox = self.cell.take();
        // Dropping waits and removes the control group, which takes some milliseconds.
        if tokio::task::spawn_blocking(move || drop(sandbox)).await.is_err() {
            tracing::warn!("the end of a sandbox was broken off");
        }
        if tokio::time::timeout(LAST_BREATH, &mut self.pump).await.is_err() {
            tracing::warn!("a process is gone but its output is still held open");
        }
        Remains { lines: self.tail.lines(), out_of_memory: exit.is_ok_and(|exit| exit.out_of_memory) }
    }
}

/// What is left of a process that has ended.
pub(super) struct Remains {
    /// The last lines that it printed.
    pub(super) lines: Vec<String>,
    /// Whether it, or one of its children, was killed for its memory.
    pub(super) out_of_memory: bool,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Routes may hold the way in for longer than the process is wanted.
        drop(self.cell.take());
    }
}

/// The sandbox, until the process is ended.
struct Cell(RwLock<Option<Sandbox>>);

impl Cell {
    fn with<T>(&self, act: impl FnOnce(&Sandbox) -> T) -> Option<T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(act)
    }

    fn try_wait(&self) -> io::Result<Option<Exit>> {
        let mut sandbox = self.0.write().unwrap_or_else(PoisonError::into_inner);
        sandbox.as_mut().map_or_else(|| Err(gone()), Sandbox::try_wait)
    }

    fn take(&self) -> Option<Sandbox> {
        self.0.write().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Dial for Cell {
    fn socket(&self) -> io::Result<OwnedFd> {
        self.with(Sandbox::socket).unwrap_or_else(|| Err(gone()))
    }
}

#[expect(
    deprecated,
    reason = "its replacement is unsafe, for types that may change their descriptor; OwnedFd does not"
)]
fn watched(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the instance has ended")
}
