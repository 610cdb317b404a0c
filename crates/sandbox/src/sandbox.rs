//! A running sandbox, as its owner holds it. Dropping it ends everything inside.

use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use crate::egress::EgressSockets;
use crate::limits::Held;
use crate::plan::{COMMAND_TERMINATE, Report, read_frame};
use crate::sockets::SocketMaker;
use crate::spec::{Exit, Usage};
use crate::sys;

/// How long dropping waits for the kernel to end what was killed.
const END_PATIENCE_MS: u16 = 5_000;

/// One running process tree. Everything in it dies with this value, and also when the platform's process dies.
pub struct Sandbox {
    name: String,
    first: First,
    control: UnixStream,
    inside: Inside,
    held: Held,
    exit: Option<Exit>,
}

/// The platform's part in the sandbox's network.
pub(crate) struct Inside {
    /// The namespace.
    pub network: Arc<OwnedFd>,
    pub sockets: Arc<SocketMaker>,
    /// For a gateway that has not been attached yet.
    pub egress: Option<EgressSockets>,
}

/// The sandbox's first process, a child of the platform.
pub(crate) struct First {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

impl First {
    /// The process is a child not yet waited for, so the id cannot have passed to another.
    pub fn open(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, pidfd: sys::pidfd_open(pid)? })
    }

    pub fn network(&self) -> io::Result<OwnedFd> {
        Ok(std::fs::File::open(format!("/proc/{}/ns/net", self.pid))?.into())
    }

    /// Kills it, and with it everything in its pid namespace, and collects it.
    pub fn end(&self) {
        // It may have ended already.
        let _ = sys::pidfd_kill(self.pidfd.as_fd(), libc::SIGKILL);
        let mut ended = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ended, PollTimeout::from(END_PATIENCE_MS)) != Ok(1) {
            tracing::warn!(pid = self.pid, "a killed sandbox has not ended yet");
        }
        let _ = self.wait();
    }

    /// Collects it if it has ended.
    fn wait(&self) -> io::Result<Option<WaitStatus>> {
        match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
            Ok(WaitStatus::StillAlive) => Ok(None),
            Ok(status) => Ok(Some(status)),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Sandbox {
    pub(crate) fn new(name: String, first: First, control: UnixStream, inside: Inside, held: Held) -> Self {
        Self { name, first, control, inside, held, exit: None }
    }

    /// The name from the spec.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first process's id on the host, for diagnosis.
    pub fn pid(&self) -> u32 {
        self.first.pid.unsigned_abs()
    }

    /// Becomes readable when the sandbox has ended; then [`Sandbox::try_wait`] tells how.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.first.pidfd.as_fd()
    }

    /// A non-blocking, close-on-exec TCP socket inside the sandbox's network: what it connects to on 127.0.0.1 is the
    /// payload. Costs some ten microseconds.
    pub fn socket(&self) -> io::Result<OwnedFd> {
        self.inside.sockets.dialer(&self.inside.network)
    }

    /// A non-blocking, close-on-exec TCP socket that listens on the sandbox's own loopback interface, so that the platform
    /// can stand in there for a service of the host. An error when the payload is there already.
    pub fn listener(&self, address: SocketAddr) -> io::Result<OwnedFd> {
        if !address.ip().is_loopback() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "only the loopback interface can be listened on"));
        }
        self.inside.sockets.listener(&self.inside.network, address)
    }

    /// The sockets at which the payload's connections and name queries arrive, once: for a sandbox with
    /// [`crate::Network::Gateway`]. The payload runs already; what it asks for waits until they are served. When they
    /// are closed everything is refused at once, and nobody else can take their place. Until then they keep the
    /// sandbox's network alive, though not the sandbox.
    pub fn take_egress(&mut self) -> Option<EgressSockets> {
        self.inside.egress.take()
    }

    /// Asks the payload to end, by SIGTERM.
    pub fn terminate(&self) {
        // If the first process has gone, the payload has too.
        let _ = (&self.control).write_all(&[COMMAND_TERMINATE]);
    }

    /// Ends every process inside at once. [`Sandbox::try_wait`] tells when it has happened.
    pub fn kill(&self) {
        // It may have ended already.
        let _ = sys::pidfd_kill(self.first.pidfd.as_fd(), libc::SIGKILL);
    }

    /// How the sandbox ended; `None` while it runs. Never blocks.
    pub fn try_wait(&mut self) -> io::Result<Option<Exit>> {
        if self.exit.is_none() {
            match self.first.wait() {
                Ok(None) => return Ok(None),
                Ok(Some(_)) => {}
                // Collected by someone else: then it has ended all the same.
                Err(error) if error.raw_os_error() == Some(Errno::ECHILD as i32) => {}
                Err(error) => return Err(error),
            }
            self.exit = Some(self.read_exit());
        }
        Ok(self.exit)
    }

    /// What the first process reported before it ended. Without a report everything was killed as one.
    fn read_exit(&self) -> Exit {
        let out_of_memory = self.held.out_of_memory();
        match read_frame(&self.control) {
            Ok(Some(Report::Exited { code, signal })) => Exit { code, signal, out_of_memory },
            _ => Exit { code: None, signal: Some(libc::SIGKILL), out_of_memory },
        }
    }

    /// What it uses now; zeros once [`Sandbox::try_wait`] has told that it has ended.
    pub fn usage(&self) -> Usage {
        // The id of a collected process may belong to another already.
        if self.exit.is_some() { Usage::default() } else { self.held.usage(self.first.pid) }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.exit.is_none() {
            self.first.end();
        }
        self.held.release();
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sandbox").field("name", &self.name).field("pid", &self.first.pid).finish_non_exhaustive()
    }
}
