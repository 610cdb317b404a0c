//! Memory limits without control groups: one thread looks at every sandbox ten times a second and kills the one that
//! is over its limit. Between two looks a payload may overshoot; process limits brake it, and memory that no process
//! maps is refused by the system call filter. Processor time is counted, not limited.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::{process_tree, sys};

const INTERVAL: Duration = Duration::from_millis(100);

/// The thread and the sandboxes it looks after. Dropping it ends the thread.
pub struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    watched: BTreeMap<u64, Arc<Target>>,
    next: u64,
    stopping: bool,
}

struct Target {
    first: i32,
    pidfd: OwnedFd,
    memory_bytes: u64,
    exceeded: AtomicBool,
}

/// One sandbox under watch; dropping it ends the watch.
pub struct Watched {
    id: u64,
    target: Arc<Target>,
    /// Keeps the thread alive for as long as anything is under watch.
    watchdog: Arc<Watchdog>,
}

impl Watchdog {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Arc<Self>> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("sandbox-watchdog".into()).spawn(move || theirs.run())?;
        Ok(Arc::new(Self { shared, thread: Some(thread) }))
    }

    /// Looks after the sandbox whose first process is `first` from now on.
    pub fn watch(self: &Arc<Self>, first: i32, pidfd: OwnedFd, memory_bytes: u64) -> Watched {
        let target = Arc::new(Target { first, pidfd, memory_bytes, exceeded: AtomicBool::new(false) });
        let mut state = self.shared.lock();
        let id = state.next;
        state.next += 1;
        state.watched.insert(id, Arc::clone(&target));
        self.shared.changed.notify_all();
        Watched { id, target, watchdog: Arc::clone(self) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been printed; there is nobody else to tell.
            let _ = thread.join();
        }
    }
}

impl Watched {
    /// Whether the sandbox was killed for its memory.
    pub fn exceeded(&self) -> bool {
        self.target.exceeded.load(Ordering::Acquire)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watchdog.shared.lock().watched.remove(&self.id);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is a plain map: it is whole even if a holder panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        while !state.stopping {
            if state.watched.is_empty() {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let targets: Vec<_> = state.watched.values().cloned().collect();
            drop(state);
            targets.iter().for_each(|target| target.look());
            let waited = self.changed.wait_timeout(self.lock(), INTERVAL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Target {
    /// Kills the sandbox when its memory, counted exactly, is over the limit.
    fn look(&self) {
        let members = process_tree::members(self.first);
        if process_tree::resident(&members) <= self.memory_bytes {
            return;
        }
        if process_tree::proportional(&members) <= self.memory_bytes {
            return;
        }
        // It may have ended by itself meanwhile, and its id have passed to another process.
        let killed = sys::pidfd_kill(self.pidfd.as_fd(), libc::SIGKILL).is_ok();
        self.exceeded.fetch_or(killed, Ordering::AcqRel);
    }
}
