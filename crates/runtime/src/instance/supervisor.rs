//! The life of an instance: start, watch, start again, stop.

use std::{
    net::{Ipv4Addr, SocketAddr},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use casemate_egress::Gateway;
use casemate_model::{Fault, instance_type::InstanceSize, route::Upstream};
use casemate_sandbox::{Launcher, Limits};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, MissedTickBehavior, interval, sleep},
};

use super::{
    InstanceStatus,
    process::{Process, Remains},
};
use crate::{
    failure::{self, End, Evidence, Verdict},
    layout::{Layout, SERVER_PORT},
    logs::LogWriter,
    outbound::Outbound,
    probe::{Probe, Schedule, Watcher, first_success},
};

/// Starts that may fail before an instance is given up.
const MAX_STARTS: u32 = 3;
/// Times that the server may replace a worker in one start before the start counts as failed.
const MAX_WORKER_DEATHS: u32 = 3;
/// Wait before the second start; doubles from start to start…
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
/// …up to this, which is also how long an instance must have been ready to begin anew with the first wait.
const LAST_BACKOFF: Duration = Duration::from_secs(60);
/// Longest time that a start keeps others waiting for their turn.
const TURN: Duration = Duration::from_secs(15);
/// How often a starting process's output is looked through, and its time is checked.
const START_LOOK: Duration = Duration::from_millis(250);
/// How often a ready process's output is looked through.
const READY_LOOK: Duration = Duration::from_secs(2);
/// Processes and threads of one instance: numeric libraries start one for each core, in each worker.
const MAX_PIDS: u32 = 4096;

/// What all instances of a backend share.
#[derive(Clone)]
pub(crate) struct Means {
    pub launcher: Arc<Launcher>,
    /// The only way out.
    pub gateway: Gateway,
    /// Turns to start: a machine that starts everything at once starts nothing in time.
    pub turns: Arc<Semaphore>,
    /// The next upstream's id.
    pub next_id: Arc<AtomicU64>,
}

/// What one instance is to be.
pub(crate) struct Plan {
    pub layout: Layout,
    pub outbound: Outbound,
    /// The entry script as the user named it.
    pub script: String,
    pub size: InstanceSize,
    pub liveness: Schedule,
    pub readiness: Schedule,
    pub log: LogWriter,
}

/// Runs one instance from its first start to its end.
pub(crate) struct Supervisor {
    means: Means,
    plan: Plan,
    status: watch::Sender<InstanceStatus>,
    stop: watch::Receiver<Option<Duration>>,
    was_ready: bool,
}

/// How one start of the process went.
enum Life {
    Stopped,
    Ended {
        /// How long it was there for requests, if it ever was.
        ready_for: Option<Duration>,
        verdict: Verdict,
    },
}

/// What ended a phase of a life.
enum Turn {
    Stop,
    Ready,
    Ended(End),
}

impl Supervisor {
    pub(crate) fn new(
        means: Means,
        plan: Plan,
        status: watch::Sender<InstanceStatus>,
        stop: watch::Receiver<Option<Duration>>,
    ) -> Self {
        Self { means, plan, status, stop, was_ready: false }
    }

    /// Runs until the instance is stopped or given up.
    pub(crate) async fn run(mut self) {
        let last = self.keep_alive().await;
        self.status.send_replace(last);
    }

    async fn keep_alive(&mut self) -> InstanceStatus {
        let mut backoff = FIRST_BACKOFF;
        for start in 1_u32.. {
            let Life::Ended { ready_for, verdict } = self.live(start).await else { break };
            if ready_for.is_some_and(|time| time >= LAST_BACKOFF) {
                backoff = FIRST_BACKOFF;
            }
            self.was_ready |= ready_for.is_some();
            if !self.was_ready && (verdict.hopeless || start >= MAX_STARTS) {
                self.plan.log.line(&format!("UserContainerStart: Failed ({})", verdict.fault.code));
                return InstanceStatus::Failed(verdict.fault);
            }
            if self.was_ready {
                self.status.send_replace(InstanceStatus::NotReady);
            }
            self.plan.log.line(&format!("Starting again in {} s", backoff.as_secs()));
            tokio::select! {
                () = sleep(backoff) => {}
                _ = self.stop.changed() => break,
            }
            backoff = (backoff * 2).min(LAST_BACKOFF);
        }
        InstanceStatus::Stopped
    }

    /// One start of the process, up to its end.
    async fn live(&mut self, start: u32) -> Life {
        let turn = tokio::select! {
            turn = Arc::clone(&self.means.turns).acquire_owned() => turn.ok(),
            _ = self.stop.changed() => return Life::Stopped,
        };
        let id = self.means.next_id.fetch_add(1, Ordering::Relaxed);
        self.plan.log.line(&self.heading(id, start));
        let Plan { layout, outbound, log, .. } = &self.plan;
        let name = format!("instance-{id}");
        let process = match Process::start(&self.means.launcher, name, layout, outbound, self.limits(), log).await {
            Ok(process) => process,
            Err(words) => {
                log.line(&format!("UserContainerStart: Failed to start: {words}"));
                let fault = Fault::internal(format!("The scoring process could not be started: {words}"));
                return Life::Ended { ready_for: None, verdict: Verdict { fault, hopeless: false } };
            }
        };
        let (mut ready_at, mut outcome) = (None, self.until_ready(&process, turn).await);
        if matches!(outcome, Turn::Ready) {
            ready_at = Some(Instant::now());
            outcome = self.while_ready(&process, id).await;
        }
        let end = match outcome {
            Turn::Ended(end) => end,
            Turn::Stop | Turn::Ready => {
                self.shut_down(process).await;
                return Life::Stopped;
            }
        };
        let ready_for = ready_at.map(|at| at.elapsed());
        // Before anything else: no more requests to a process that is gone or about to be killed.
        if ready_for.is_some() {
            self.status.send_replace(InstanceStatus::NotReady);
        }
        let Remains { lines, out_of_memory } = process.end().await;
        self.plan.log.line(&self.obituary(&end, out_of_memory));
        let (script, memory_bytes) = (self.plan.script.as_str(), self.plan.size.memory_bytes);
        let evidence = Evidence { end, out_of_memory, lines: &lines, script, memory_bytes };
        Life::Ended { ready_for, verdict: failure::judge(&evidence) }
    }

    /// Waits for the first answer. `turn` is given back when the start is over, or takes too long.
    async fn until_ready(&mut self, process: &Process, turn: Option<OwnedSemaphorePermit>) -> Turn {
        let began = Instant::now();
        let mut turn = turn;
        let (liveness, readiness) = (self.plan.liveness, self.plan.readiness);
        let dial = process.dial();
        let mut answer = pin!(first_success(dial.as_ref(), address(), readiness));
        let mut exited = pin!(process.exited());
        let mut looks = interval(START_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut seen, mut boots) = (0, 0);
        loop {
            tokio::select! {
                biased;
                _ = self.stop.changed() => return Turn::Stop,
                exit = &mut exited => return Turn::Ended(End::Exited(exit)),
                () = &mut answer => {
                    let seconds = began.elapsed().as_secs_f32();
                    self.plan.log.line(&format!("UserContainerStart: Succeeded, ready after {seconds:.1} s"));
                    return Turn::Ready;
                }
                _ = looks.tick() => {}
            }
            let time = began.elapsed();
            if time >= TURN {
                turn.take();
            }
            let news = process.tail.news(&mut seen);
            boots +=
                u32::try_from(news.iter().filter(|line| failure::is_worker_boot(line)).count()).unwrap_or(u32::MAX);
            if boots.saturating_sub(self.plan.layout.workers) >= MAX_WORKER_DEATHS {
                return Turn::Ended(End::WorkersDied);
            }
            if time >= readiness.patience {
                return Turn::Ended(End::NotReady(readiness.patience));
            }
            if time >= liveness.patience {
                return Turn::Ended(End::NotLive(liveness.patience));
            }
        }
    }

    /// Publishes the process as ready, and watches it.
    async fn while_ready(&mut self, process: &Process, id: u64) -> Turn {
        let dial = process.dial();
        let mut watcher = Watcher::new(&dial, address(), self.plan.liveness, self.plan.readiness);
        let upstream = Arc::new(Upstream::new(id, address(), dial));
        self.status.send_replace(InstanceStatus::Ready(Arc::clone(&upstream)));
        let mut exited = pin!(process.exited());
        let mut looks = interval(READY_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = 0;
        loop {
            tokio::select! {
                biased;
                _ = self.stop.changed() => return Turn::Stop,
                exit = &mut exited => return Turn::Ended(End::Exited(exit)),
                change = watcher.change() => match change {
                    (Probe::Liveness, true) => {}
                    (Probe::Liveness, false) => {
                        let Schedule { failures, period, .. } = self.plan.liveness;
                        return Turn::Ended(End::NotLive(period.saturating_mul(failures)));
                    }
                    (Probe::Readiness, true) => {
                        self.plan.log.line("The readiness probe succeeds again");
                        self.status.send_replace(InstanceStatus::Ready(Arc::clone(&upstream)));
                    }
                    (Probe::Readiness, false) => {
                        self.plan.log.line("The readiness probe fails: no requests until it succeeds");
                        self.status.send_replace(InstanceStatus::NotReady);
                    }
                },
                _ = looks.tick() => {
                    // The server replaces a worker that is killed: the process goes on, but its user should know.
                    if failure::is_worker_kill(&process.tail.news(&mut seen)) {
                        let limit = failure::to_gib(self.plan.size.memory_bytes);
                        self.plan.log.line(&format!(
                            "PodOutOfMemory: A worker was killed, most likely because the instance reached its memory \
                             limit of {limit:.1} GiB. {}",
                            failure::MEMORY_ADVICE
                        ));
                    }
                }
            }
        }
    }

    /// Ends the process within the grace that was given; without a handle any more, at once.
    async fn shut_down(&mut self, process: Process) {
        self.status.send_if_modified(|status| {
            let was_ready = matches!(status, InstanceStatus::Ready(_));
            if was_ready {
                *status = InstanceStatus::NotReady;
            }
            was_ready
        });
        process.terminate();
        let began = Instant::now();
        {
            let mut exited = pin!(process.exited());
            loop {
                let grace = self.stop.borrow_and_update().unwrap_or_default();
                let left = grace.saturating_sub(began.elapsed());
                tokio::select! {
                    _ = &mut exited => break,
                    () = sleep(left) => break,
                    // Another, maybe shorter grace; or the handle was dropped.
                    changed = self.stop.changed() => if changed.is_err() { break },
                }
            }
        }
        process.end().await;
        self.plan.log.line("Stopped");
    }

    fn limits(&self) -> Limits {
        let InstanceSize { milli_cpus, memory_bytes } = self.plan.size;
        // Scratch files count as memory; half of it keeps a model that fills /tmp from killing itself.
        Limits { memory_bytes, milli_cpus, pids: MAX_PIDS, scratch_bytes: memory_bytes / 2 }
    }

    /// What is written above each start's output.
    fn heading(&self, id: u64, start: u32) -> String {
        let InstanceSize { milli_cpus, memory_bytes } = self.plan.size;
        let (cores, gib) = (f64::from(milli_cpus) / 1000.0, failure::to_gib(memory_bytes));
        let outbound = self.plan.outbound.policy.borrow().mode.as_snake();
        format!(
            "Instance {id}, start {start}\nSystemSetup: Succeeded, {cores} cores and {gib:.1} GiB of memory, outbound network \
             {outbound}\n{}\n\
             UserContainerStart: InProgress, {} worker(s) in {}",
            self.plan.layout.notes.join("\n"),
            self.plan.layout.workers,
            self.plan.layout.cwd.display(),
        )
    }

    /// What is written below a start's output.
    fn obituary(&self, end: &End, out_of_memory: bool) -> String {
        if out_of_memory {
            return format!("PodOutOfMemory: {}", failure::memory_words(self.plan.size.memory_bytes));
        }
        match end {
            End::Exited(exit) => format!("The process ended: {}", failure::exit_words(exit)),
            End::WorkersDied => "The process was killed: its workers died again and again".to_owned(),
            End::NotReady(time) => format!("The process was killed: not ready after {} s", time.as_secs()),
            End::NotLive(time) => format!("The process was killed: the liveness probe failed for {} s", time.as_secs()),
        }
    }
}

impl Drop for Supervisor {
    /// However the supervision ends, nobody may take the instance for ready afterwards.
    fn drop(&mut self) {
        self.status.send_if_modified(|status| {
            let unfinished = !matches!(status, InstanceStatus::Failed(_) | InstanceStatus::Stopped);
            if unfinished {
                *status = InstanceStatus::Stopped;
            }
            unfinished
        });
    }
}

/// Where the server listens, as seen from inside.
fn address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, SERVER_PORT))
}
