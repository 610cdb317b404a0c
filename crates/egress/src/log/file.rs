//! One scope's file: appended in batches, renamed when it is large, mended after a crash.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Instant,
};

use casemate_model::{Clock, egress::LogEntry};

use super::{RETRY, paths, read::sequence};

/// What is held back to be written at once, in bytes.
const BATCH: usize = 64 << 10;
/// What the last lines of a file are searched in for a sequence number, in bytes.
const TAIL: u64 = 256 << 10;

pub(super) struct LogFile {
    path: PathBuf,
    old: PathBuf,
    limit: u64,
    names: Arc<RwLock<()>>,
    clock: Clock,
    open: Option<Open>,
    batch: Vec<u8>,
    /// Entries in `batch`.
    entries: u64,
    /// The last sequence number given away; none until the files have been read.
    last: Option<u64>,
    lost: Lost,
}

struct Open {
    file: File,
    /// Its size after the last write that succeeded.
    length: u64,
}

/// Decisions that are missing in the log, and since when writing failed.
#[derive(Default)]
struct Lost {
    entries: u64,
    why: String,
    failed: Option<Instant>,
}

impl LogFile {
    pub(super) fn new(dir: &Path, scope: &str, limit: u64, names: Arc<RwLock<()>>, clock: Clock) -> Self {
        let [path, old] = paths(dir, scope);
        let lost = Lost::default();
        Self { path, old, limit, names, clock, open: None, batch: Vec::new(), entries: 0, last: None, lost }
    }

    /// Takes one entry; it is written with others, at the latest at the next `flush`.
    pub(super) fn append(&mut self, entry: &LogEntry) {
        // A disk that has just refused is left alone for a while: then the entry is only counted.
        if self.lost.failed.is_some_and(|failed| failed.elapsed() < RETRY) {
            self.lost.entries += 1;
            return;
        }
        if let Err(error) = self.admit(entry) {
            self.fail(&error, 1);
        } else if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    /// Counts entries that never came here.
    pub(super) fn lose(&mut self, entries: u64, why: &str) {
        if entries > 0 {
            self.lost.entries += entries;
            self.lost.why = why.to_owned();
        }
    }

    /// Writes what is held back, and tells of what was lost before.
    pub(super) fn flush(&mut self) {
        if self.lost.failed.is_some_and(|failed| failed.elapsed() < RETRY) {
            return;
        }
        if self.batch.is_empty() && self.lost.entries == 0 {
            return;
        }
        let entries = self.entries;
        if let Err(error) = self.tell_of_losses().and_then(|()| self.write()) {
            self.fail(&error, entries);
        }
    }

    /// Whether something is still to be told when the disk works again.
    pub(super) fn is_waiting(&self) -> bool {
        self.lost.entries > 0 || !self.batch.is_empty()
    }

    fn admit(&mut self, entry: &LogEntry) -> io::Result<()> {
        let sequence = self.last()? + 1;
        let line = entry.line();
        let Some(rest) = line.strip_prefix('{') else { return Ok(()) };
        // The number stands first, where a reader finds it without reading the rest.
        self.batch.extend_from_slice(format!("{{\"seq\":{sequence},{rest}\n").as_bytes());
        self.entries += 1;
        self.last = Some(sequence);
        Ok(())
    }

    fn tell_of_losses(&mut self) -> io::Result<()> {
        if self.lost.entries == 0 {
            return Ok(());
        }
        let entry = LogEntry {
            time: self.clock.now(),
            deployment: String::new(),
            instance: String::new(),
            name: None,
            address: None,
            port: 0,
            protocol: "log".to_owned(),
            allowed: false,
            rule: None,
            reason: format!("{} decisions are not in this log: {}.", self.lost.entries, self.lost.why),
            bytes_sent: 0,
            bytes_received: 0,
            would_deny: false,
        };
        let (entries, batched) = (self.entries, self.batch.len());
        let told = self.admit(&entry).and_then(|()| self.write());
        if told.is_err() {
            // The note itself is no decision: it is made anew at the next try.
            self.entries = entries;
            self.batch.truncate(batched);
        } else {
            self.lost.entries = 0;
        }
        told
    }

    fn write(&mut self) -> io::Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let size = self.batch.len() as u64;
        if self.open()?.length.saturating_add(size) > self.limit {
            self.rotate()?;
        }
        let batch = std::mem::take(&mut self.batch);
        let open = self.open()?;
        let written = open.file.write_all(&batch);
        if written.is_ok() {
            open.length += size;
            self.entries = 0;
            self.lost.failed = None;
            self.batch = batch;
            self.batch.clear();
        } else {
            // Half a line may be there: it is cut off, and if even that fails the next opening mends it.
            let _ = open.file.set_len(open.length);
        }
        written
    }

    /// Counts what the disk refused, and starts afresh with the file at the next try.
    fn fail(&mut self, error: &io::Error, entries: u64) {
        if self.lost.failed.is_none() {
            tracing::warn!(file = %self.path.display(), %error, "decisions cannot be recorded; traffic goes on");
        }
        self.lost.entries += entries;
        self.lost.why = format!("{} could not be written ({error})", self.path.display());
        self.lost.failed = Some(Instant::now());
        self.batch = Vec::new();
        self.entries = 0;
        self.open = None;
        self.last = None;
    }

    fn open(&mut self) -> io::Result<&mut Open> {
        if self.open.is_none() {
            let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
            let mut length = file.metadata()?.len();
            if length > 0 && last_byte(&mut file, length)? != b'\n' {
                // The platform ended in the middle of a line.
                file.write_all(b"\n")?;
                length += 1;
            }
            self.open = Some(Open { file, length });
        }
        self.open.as_mut().ok_or_else(|| io::Error::other("the file was just opened"))
    }

    fn rotate(&mut self) -> io::Result<()> {
        let _alone = self.names.write().unwrap_or_else(PoisonError::into_inner);
        self.open = None;
        fs::rename(&self.path, &self.old)
    }

    fn last(&mut self) -> io::Result<u64> {
        if let Some(last) = self.last {
            return Ok(last);
        }
        let last = match last_sequence(&self.path)? {
            Some(last) => last,
            None => last_sequence(&self.old)?.unwrap_or(0),
        };
        self.last = Some(last);
        Ok(last)
    }
}

fn last_byte(file: &mut File, length: u64) -> io::Result<u8> {
    let mut byte = [0];
    file.seek(SeekFrom::Start(length - 1))?;
    file.read_exact(&mut byte)?;
    Ok(byte[0])
}

/// The sequence number of the last whole line of a file; none when there is no file or no such line.
fn last_sequence(path: &Path) -> io::Result<Option<u64>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail)?;
    Ok(tail.split(|byte| *byte == b'\n').rev().find_map(sequence))
}
