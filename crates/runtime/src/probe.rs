//! Asking a scoring process how it is: one bounded `GET /` at a time, through its network namespace.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use casemate_model::{deployment::ProbeSettings, route::Dial};
use jiff::SignedDuration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

/// Most bytes of an answer that are read.
const MAX_ANSWER: usize = 16 << 10;
/// No probe is sent more often, nor given up sooner.
const MIN_WAIT: Duration = Duration::from_millis(100);
/// No probe waits longer, so that no setting stops the supervision.
const MAX_WAIT: Duration = Duration::from_secs(3600);
/// Time between tries while the process is starting…
const START_POLL: Duration = Duration::from_millis(50);
/// …and after this long, …
const START_POLL_FAST_FOR: Duration = Duration::from_secs(10);
/// …this.
const START_POLL_SLOW: Duration = Duration::from_millis(250);

/// Probe settings in bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    pub period: Duration,
    pub timeout: Duration,
    /// Time that a process has from its start until it counts as unhealthy.
    pub patience: Duration,
    pub successes: u32,
    pub failures: u32,
}

impl From<ProbeSettings> for Schedule {
    fn from(settings: ProbeSettings) -> Self {
        let bounded = |wait: SignedDuration| Duration::try_from(wait).unwrap_or_default().clamp(MIN_WAIT, MAX_WAIT);
        let delay = Duration::try_from(settings.initial_delay).unwrap_or_default().min(MAX_WAIT);
        let period = bounded(settings.period);
        let failures = settings.failure_threshold.max(1);
        Self {
            period,
            timeout: bounded(settings.timeout),
            patience: delay.saturating_add(period.saturating_mul(failures)),
            successes: settings.success_threshold.max(1),
            failures,
        }
    }
}

/// Returns when a starting process has answered as often as the schedule wants.
///
/// The first answer is looked for from the start, many times a second: a process that is ready before its
/// `initial_delay` is used before it, too.
pub(crate) async fn first_success(dial: &dyn Dial, address: SocketAddr, schedule: Schedule) {
    let began = Instant::now();
    let mut successes = 0;
    loop {
        let healthy = once(dial, address, schedule.timeout).await;
        successes = if healthy { successes + 1 } else { 0 };
        if successes >= schedule.successes {
            return;
        }
        let pause = match (healthy, began.elapsed() < START_POLL_FAST_FOR) {
            (true, _) => schedule.period,
            (false, true) => START_POLL,
            (false, false) => START_POLL_SLOW,
        };
        sleep(pause).await;
    }
}

/// Which of the two probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    Liveness,
    Readiness,
}

/// Watches the health of a process that is ready, by both probes; each goes by its own schedule.
pub(crate) struct Watcher {
    /// Ended with the watcher.
    _probing: JoinSet<()>,
    changes: mpsc::Receiver<(Probe, bool)>,
}

impl Watcher {
    pub(crate) fn new(dial: &Arc<dyn Dial>, address: SocketAddr, liveness: Schedule, readiness: Schedule) -> Self {
        let (sender, changes) = mpsc::channel(4);
        let mut probing = JoinSet::new();
        for (probe, schedule) in [(Probe::Liveness, liveness), (Probe::Readiness, readiness)] {
            let (dial, sender) = (Arc::clone(dial), sender.clone());
            probing.spawn(async move {
                let mut health = Health { schedule, healthy: true, against: 0 };
                loop {
                    sleep(schedule.period).await;
                    let answer = once(dial.as_ref(), address, schedule.timeout).await;
                    if let Some(change) = health.observe(answer)
                        && sender.send((probe, change)).await.is_err()
                    {
                        return;
                    }
                }
            });
        }
        Self { _probing: probing, changes }
    }

    /// The next change of a probe's health.
    pub(crate) async fn change(&mut self) -> (Probe, bool) {
        match self.changes.recv().await {
            Some(change) => change,
            // The probes run as long as the watcher, so this is the end of the runtime.
            None => std::future::pending().await,
        }
    }
}

/// A process's health by one probe.
struct Health {
    schedule: Schedule,
    healthy: bool,
    /// Answers in a row that speak against `healthy`.
    against: u32,
}

impl Health {
    /// Takes one probe's outcome; gives the health when it changes.
    fn observe(&mut self, answer: bool) -> Option<bool> {
        if answer == self.healthy {
            self.against = 0;
            return None;
        }
        self.against += 1;
        let enough = if self.healthy { self.schedule.failures } else { self.schedule.successes };
        if self.against < enough {
            return None;
        }
        self.against = 0;
        self.healthy = answer;
        Some(answer)
    }
}

/// One probe: whether the process answered with a status from 200 to 399 in time.
async fn once(dial: &dyn Dial, address: SocketAddr, limit: Duration) -> bool {
    matches!(timeout(limit, ask(dial, address)).await, Ok(Ok(200..=399)))
}

async fn ask(dial: &dyn Dial, address: SocketAddr) -> io::Result<u16> {
    let socket = TcpSocket::from_std_stream(dial.socket()?.into());
    let mut stream: TcpStream = socket.connect(address).await?;
    let request =
        format!("GET / HTTP/1.1\r\nHost: {address}\r\nUser-Agent: casemate-probe\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(512);
    // Read to the end: a server whose answer is not read to the end may log an error.
    stream.take(MAX_ANSWER as u64).read_to_end(&mut answer).await?;
    status(&answer).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The status code of an HTTP/1 answer.
pub(crate) fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    use tokio::net::TcpListener;

    use super::*;

    struct Direct;

    impl Dial for Direct {
        fn socket(&self) -> io::Result<OwnedFd> {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            Ok(socket(AddressFamily::Inet, SockType::Stream, flags, None)?)
        }
    }

    fn schedule(successes: u32, failures: u32) -> Schedule {
        ProbeSettings { success_threshold: successes, failure_threshold: failures, ..ProbeSettings::default() }.into()
    }

    #[test]
    fn thresholds_count_answers_in_a_row() {
        type Row = (u32, u32, &'static [bool], &'static [Option<bool>]);
        let table: [Row; 3] = [
            (1, 1, &[true, false, true], &[None, Some(false), Some(true)]),
            (1, 2, &[false, true, false, false, false], &[None, None, None, Some(false), None]),
            (2, 1, &[false, true, false, true, true], &[Some(false), None, None, None, Some(true)]),
        ];
        for (successes, failures, answers, expected) in table {
            let mut health = Health { schedule: schedule(successes, failures), healthy: true, against: 0 };
            let got: Vec<_> = answers.iter().map(|answer| health.observe(*answer)).collect();
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn patience_is_the_documented_one() {
        let default = Schedule::from(ProbeSettings::default());
        assert_eq!(default.patience, Duration::from_secs(310));
        let odd = Schedule::from(ProbeSettings {
            initial_delay: SignedDuration::from_secs(-5),
            period: SignedDuration::ZERO,
            timeout: SignedDuration::MAX,
            success_threshold: 0,
            failure_threshold: 0,
        });
        assert_eq!((odd.period, odd.timeout, odd.successes, odd.failures), (MIN_WAIT, MAX_WAIT, 1, 1));
    }

    #[test]
    fn statuses() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\nHealthy", Some(200)),
            ("HTTP/1.0 503 Service Unavailable\r\n", Some(503)),
            ("HTTP/1.1 204\r\n\r\n", Some(204)),
            ("SSH-2.0-OpenSSH\r\n", None),
            ("HTTP/1.1 abc\r\n", None),
            ("", None),
        ] {
            assert_eq!(status(answer.as_bytes()), expected, "{answer}");
        }
    }

    #[tokio::test]
    async fn a_probe_is_answered_refused_or_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Nobody accepts: the kernel takes the connection, no answer comes.
        assert!(!once(&Direct, address, MIN_WAIT).await);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let (unanswered, _) = listener.accept().await.unwrap();
            drop(unanswered);
            for answer in ["HTTP/1.1 500 Bad\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\nHealthy"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let count = stream.read(&mut request).await.unwrap();
                assert!(request[..count].starts_with(b"GET / HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        first_success(&Direct, address, schedule(1, 1)).await;
        serving.join_all().await;
        assert!(!once(&Direct, address, MIN_WAIT).await, "nobody listens any more");
    }
}
