//! The decision log: what each sandbox asked for and what was decided, on disk and bounded.
//!
//! One thread writes, fed by a bounded queue, so that no connection ever waits for a disk. Each scope has two files of at
//! most [`FILE_BYTES`], the present one and the one before; lines are JSON with a sequence number that goes on after a
//! restart. What could not be queued or written is counted, and the count is an entry of its own as soon as that works
//! again. It refuses to grow: not in memory, not on disk, not by what a model puts into a name.

mod file;
mod read;

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use casemate_model::{Clock, egress::LogEntry};

use self::file::LogFile;

/// Largest size of one file, in bytes; a scope has two.
pub(crate) const FILE_BYTES: u64 = 16 << 20;
/// Entries that wait for the disk at most.
const QUEUE: usize = 4096;
/// Scopes whose files are kept open.
const OPEN_SCOPES: usize = 64;
/// How often what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Longest wait for the writer, when somebody wants it to be done.
const PATIENCE: Duration = Duration::from_secs(5);

/// The log of every decision, by scope. A clone is the same log; when the last one is dropped, what is queued is written.
#[derive(Clone)]
pub struct DecisionLog(Arc<Log>);

struct Log {
    dir: PathBuf,
    queue: Option<mpsc::SyncSender<Job>>,
    /// Entries that found the queue full, not yet told of in the log.
    overflow: Arc<AtomicU64>,
    /// Held for writing while files change their names, so that a reader opens two that belong together.
    names: Arc<RwLock<()>>,
    /// Says by its end that the writer has ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

enum Job {
    Entry(Arc<str>, Box<LogEntry>),
    /// Answers when everything queued before it is on its way to the disk.
    Flush(mpsc::SyncSender<()>),
}

/// What to read of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Only what was refused, or in learn mode would have been.
    pub denied_only: bool,
    /// Only entries after this sequence number, oldest first; none: the newest ones, in order.
    pub after: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

impl DecisionLog {
    /// Opens the log in `dir`, which is made when there is none, and starts its writer.
    ///
    /// # Errors
    /// When the directory can't be made or the thread can't be started.
    pub(crate) fn open(dir: &Path, clock: Clock) -> io::Result<Self> {
        Self::with_sizes(dir, clock, FILE_BYTES)
    }

    fn with_sizes(dir: &Path, clock: Clock, file_bytes: u64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let (queue, jobs) = mpsc::sync_channel(QUEUE);
        let overflow = Arc::new(AtomicU64::new(0));
        let names = Arc::new(RwLock::new(()));
        let writer = Writer {
            dir: dir.to_owned(),
            clock,
            file_bytes,
            overflow: Arc::clone(&overflow),
            names: Arc::clone(&names),
            open: HashMap::new(),
        };
        let (end, ended) = mpsc::sync_channel(1);
        thread::Builder::new().name("decision-log".to_owned()).spawn(move || {
            let _end = end;
            writer.run(&jobs);
        })?;
        let ended = Mutex::new(ended);
        Ok(Self(Arc::new(Log { dir: dir.to_owned(), queue: Some(queue), overflow, names, ended })))
    }

    /// Reads entries of `scope` (compared without regard to case), and the sequence number to go on `after`. Blocks on
    /// the disk. A scope of which nothing is recorded has no entries.
    ///
    /// # Errors
    /// When the files are there but can't be read.
    pub fn read(&self, scope: &str, query: &LogQuery) -> io::Result<(Vec<LogEntry>, u64)> {
        let files = {
            let _steady = self.0.names.read().unwrap_or_else(PoisonError::into_inner);
            read::open(&self.0.dir, scope)?
        };
        read::read(files, query)
    }

    /// Waits until what was recorded before this call can be read. Blocks on the disk, for some seconds at most.
    pub fn flush(&self) {
        let (done, wait) = mpsc::sync_channel(1);
        if self.0.queue.as_ref().is_some_and(|queue| queue.try_send(Job::Flush(done)).is_ok()) {
            // A writer that is held up longer than this is waiting for its disk: nothing here can hurry it.
            let _ = wait.recv_timeout(PATIENCE);
        }
    }

    /// Queues one entry; never waits. A full queue counts it.
    pub(crate) fn record(&self, scope: &Arc<str>, entry: LogEntry) {
        let Some(queue) = &self.0.queue else { return };
        if queue.try_send(Job::Entry(Arc::clone(scope), Box::new(entry))).is_err() {
            self.0.overflow.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue = None;
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        // It ends when the queue is empty; a disk that hangs is not waited for.
        let _ = ended.recv_timeout(PATIENCE);
    }
}

/// The thread behind the queue.
struct Writer {
    dir: PathBuf,
    clock: Clock,
    file_bytes: u64,
    overflow: Arc<AtomicU64>,
    names: Arc<RwLock<()>>,
    open: HashMap<Arc<str>, LogFile>,
}

impl Writer {
    fn run(mut self, jobs: &mpsc::Receiver<Job>) {
        let mut waiting = false;
        loop {
            // Only when the queue is empty does the disk get what the files hold back: many entries in one write.
            let job = match jobs.try_recv() {
                Ok(job) => job,
                Err(mpsc::TryRecvError::Disconnected) => break,
                Err(mpsc::TryRecvError::Empty) => {
                    waiting = self.flush();
                    let next = if waiting {
                        jobs.recv_timeout(RETRY)
                    } else {
                        jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
                    };
                    match next {
                        Ok(job) => job,
                        Err(RecvTimeoutError::Timeout) => continue,
                        Err(RecvTimeoutError::Disconnected) => break,
                    }
                }
            };
            match job {
                Job::Entry(scope, entry) => self.write(&scope, &entry),
                Job::Flush(done) => {
                    waiting = self.flush();
                    // Who asked may have gone.
                    let _ = done.send(());
                }
            }
        }
        if self.flush() || waiting {
            tracing::warn!("decisions could not be recorded; the disk of {} is full or gone", self.dir.display());
        }
    }

    fn write(&mut self, scope: &Arc<str>, entry: &LogEntry) {
        if !self.open.contains_key(scope) {
            self.make_room();
            let file = LogFile::new(&self.dir, scope, self.file_bytes, Arc::clone(&self.names), self.clock.clone());
            self.open.insert(Arc::clone(scope), file);
        }
        if let Some(file) = self.open.get_mut(scope) {
            let overflow = self.overflow.swap(0, Ordering::Relaxed);
            file.lose(overflow, "more decisions were made than could be written down");
            file.append(entry);
        }
    }

    /// Closes a file when too many are open: one that has nothing left to say, or else any.
    fn make_room(&mut self) {
        if self.open.len() < OPEN_SCOPES {
            return;
        }
        self.flush();
        let quiet = self.open.iter().find(|(_, file)| !file.is_waiting()).map(|(scope, _)| Arc::clone(scope));
        if let Some(scope) = quiet.or_else(|| self.open.keys().next().cloned()) {
            self.open.remove(&scope);
        }
    }

    /// Writes what the files hold back; whether some could not.
    fn flush(&mut self) -> bool {
        let mut waiting = false;
        for file in self.open.values_mut() {
            file.flush();
            waiting |= file.is_waiting();
        }
        waiting
    }
}

/// The file names of a scope: the present one and the one before.
fn paths(dir: &Path, scope: &str) -> [PathBuf; 2] {
    let scope = scope.to_ascii_lowercase();
    let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, scope.as_bytes());
    let last = scope.rsplit('/').next().unwrap_or_default();
    let shown: String = last.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(40).collect();
    [dir.join(format!("{shown}.{}.jsonl", id.simple())), dir.join(format!("{shown}.{}.1.jsonl", id.simple()))]
}

#[cfg(test)]
mod tests;
