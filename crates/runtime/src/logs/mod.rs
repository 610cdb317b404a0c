//! The logs of deployments: bounded, rotated files that outlive the instances that wrote them.
//!
//! Each deployment and container has one directory of numbered segments. Every instance of the deployment appends
//! whole lines to it; readers open the files on their own and never hold up a writer. When the disk refuses a line,
//! the line is dropped and counted: a log never stops the model or the platform.
//!
//! Nothing here interprets what a line says, and nothing here keeps more than the configured number of bytes.

pub(crate) mod lines;
mod pipe;
mod read;
mod rotate;

use std::{
    collections::HashMap,
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use aws_lc_rs::digest;
use casemate_model::{Fault, ResourceId};

pub use pipe::{LogPipe, LogPump, LogTail};
use rotate::Rotating;

/// Most lines that one read gives.
pub const MAX_TAIL_LINES: usize = 100_000;
/// Most bytes that one read gives.
pub const MAX_READ_BYTES: usize = 8 << 20;
/// Longest line kept; the rest of a longer one is cut off and said so.
pub const MAX_LINE_BYTES: usize = 64 << 10;

/// Which of a deployment's logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Container {
    /// The scoring process.
    #[default]
    InferenceServer,
    /// What happened before it: the environment, the model and the code being made ready.
    StorageInitializer,
}

impl Container {
    /// The name in the form `inference-server`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InferenceServer => "inference-server",
            Self::StorageInitializer => "storage-initializer",
        }
    }
}

impl FromStr for Container {
    type Err = Fault;

    /// Reads a name as clients write it: `inference-server` or `InferenceServer`, in any case.
    fn from_str(name: &str) -> Result<Self, Fault> {
        let plain: String = name.chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
        match plain.as_str() {
            "inferenceserver" => Ok(Self::InferenceServer),
            "storageinitializer" => Ok(Self::StorageInitializer),
            _ => {
                let shown: String = name.chars().take(50).collect();
                let message =
                    format!("There is no container '{shown}'. Choose inference-server or storage-initializer.");
                Err(Fault::invalid("BadArgument", message).at("containerType"))
            }
        }
    }
}

impl fmt::Display for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How much of each log is kept.
#[derive(Debug, Clone, Copy)]
pub struct LogLimits {
    /// Size at which a segment is closed and the next one begun, in bytes.
    pub segment_bytes: u64,
    /// Segments kept; the oldest goes when there would be more.
    pub segments: u64,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { segment_bytes: 4 << 20, segments: 4 }
    }
}

/// All logs under one directory. Clones are the same store.
#[derive(Clone)]
pub struct LogStore(Arc<StoreInner>);

struct StoreInner {
    dir: PathBuf,
    limits: LogLimits,
    /// Logs being written, so that all writers of one log share one file. Entries whose writers are gone are swept
    /// when a new one is added.
    open: Mutex<HashMap<PathBuf, Weak<Mutex<Rotating>>>>,
}

impl LogStore {
    /// A store under `dir`, which is created when the first line is written.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self::with_limits(dir, LogLimits::default())
    }

    /// A store that keeps other amounts than the default 4 segments of 4 MiB per log.
    #[must_use]
    pub fn with_limits(dir: impl Into<PathBuf>, limits: LogLimits) -> Self {
        Self(Arc::new(StoreInner { dir: dir.into(), limits, open: Mutex::default() }))
    }

    /// The writer of a deployment's log; lines go after what is already there.
    #[must_use]
    pub fn writer(&self, deployment: &ResourceId, container: Container) -> LogWriter {
        let dir = self.deployment_dir(deployment).join(container.name());
        let mut open = lock(&self.0.open);
        if let Some(file) = open.get(&dir).and_then(Weak::upgrade) {
            return LogWriter { file };
        }
        open.retain(|_, file| file.strong_count() > 0);
        let file = Arc::new(Mutex::new(Rotating::new(dir.clone(), self.0.limits)));
        open.insert(dir, Arc::downgrade(&file));
        LogWriter { file }
    }

    /// The last `tail` lines, at most [`MAX_TAIL_LINES`] and [`MAX_READ_BYTES`]; empty when nothing was written.
    /// Reads files: call it where blocking is allowed.
    ///
    /// # Errors
    /// When the files are there but can't be read.
    pub fn read(&self, deployment: &ResourceId, container: Container, tail: usize) -> io::Result<String> {
        read::tail(&self.deployment_dir(deployment).join(container.name()), tail.min(MAX_TAIL_LINES), MAX_READ_BYTES)
    }

    /// Deletes a deployment's logs. Writers that still exist drop their lines from now on. Files that can't be deleted
    /// stay behind, which is said in the platform's own log and harms nothing.
    pub fn remove(&self, deployment: &ResourceId) {
        let dir = self.deployment_dir(deployment);
        let mut open = lock(&self.0.open);
        for (_, file) in open.extract_if(|path, _| path.starts_with(&dir)) {
            if let Some(file) = file.upgrade() {
                lock(&file).close();
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %dir.display(), %error, "a deployment's logs can't be deleted");
        }
    }

    /// Ids may be longer than a file name can be, so the directory is named by the id's hash.
    fn deployment_dir(&self, deployment: &ResourceId) -> PathBuf {
        let hash = digest::digest(&digest::SHA256, deployment.key().as_bytes());
        let name: String = hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.0.dir.join(name)
    }

    /// Where the logs lie.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }
}

impl fmt::Debug for LogStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogStore").field("dir", &self.0.dir).finish_non_exhaustive()
    }
}

/// Appends to one log. Clones write to the same log; each line is written whole.
#[derive(Clone)]
pub struct LogWriter {
    file: Arc<Mutex<Rotating>>,
}

impl LogWriter {
    /// Appends `text` as one line, or as several where it has line breaks. Control characters are escaped.
    pub fn line(&self, text: &str) {
        let mut cleaner = lines::Cleaner::default();
        let mut file = lock(&self.file);
        cleaner.push(text.as_bytes(), &mut |line| file.append(line));
        cleaner.finish(&mut |line| file.append(line));
        if text.is_empty() {
            file.append("");
        }
    }

    /// A pipe whose readings are appended here: the ends for a process, and the pump that must run meanwhile.
    ///
    /// # Errors
    /// When the system is out of descriptors.
    pub fn pipe(&self) -> io::Result<LogPipe> {
        LogPipe::new(self.clone())
    }

    /// Lines that the disk refused and that are lost, since this writer's log was opened.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        lock(&self.file).dropped_in_all()
    }

    fn append(&self, line: &str) {
        lock(&self.file).append(line);
    }
}

impl fmt::Debug for LogWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogWriter")
    }
}

/// A panic while a log is locked leaves at worst a torn line, which is no reason to lose the log.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
