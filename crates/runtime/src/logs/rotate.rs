//! One log's files: numbered segments, the newest being appended to.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::LogLimits;

/// The state of a log that is being written.
pub(super) struct Rotating {
    dir: PathBuf,
    limits: LogLimits,
    current: Option<Segment>,
    /// Lines refused since the last one that was written.
    dropped: u64,
    dropped_in_all: u64,
    /// The log was removed: nothing is written any more.
    closed: bool,
}

struct Segment {
    number: u64,
    file: File,
    bytes: u64,
}

impl Rotating {
    pub(super) fn new(dir: PathBuf, limits: LogLimits) -> Self {
        Self { dir, limits, current: None, dropped: 0, dropped_in_all: 0, closed: false }
    }

    /// Appends one line, which must hold no line break. A line that can't be written is dropped and counted.
    pub(super) fn append(&mut self, line: &str) {
        if self.closed {
            return;
        }
        let mut text = String::with_capacity(line.len() + 1);
        if self.dropped > 0 {
            text.push_str(&format!("[{} log lines were lost: the disk refused them]\n", self.dropped));
        }
        text.push_str(line);
        text.push('\n');
        match self.try_append(text.as_bytes()) {
            Ok(()) => self.dropped = 0,
            Err(error) => {
                if self.dropped == 0 {
                    tracing::warn!(dir = %self.dir.display(), %error, "a log line was lost");
                }
                self.dropped += 1;
                self.dropped_in_all += 1;
            }
        }
    }

    pub(super) fn dropped_in_all(&self) -> u64 {
        self.dropped_in_all
    }

    /// Lets go of the files; later lines are dropped silently.
    pub(super) fn close(&mut self) {
        self.closed = true;
        self.current = None;
    }

    fn try_append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let limit = self.limits.segment_bytes;
        let segment = match self.current.take() {
            Some(segment) if segment.bytes < limit => segment,
            Some(segment) => self.create(segment.number + 1)?,
            None => self.open_newest()?,
        };
        let segment = self.current.insert(segment);
        match segment.file.write_all(bytes) {
            Ok(()) => segment.bytes += bytes.len() as u64,
            Err(error) => {
                // Part of the line may be there: take it away, so that every line in the file is whole.
                let _ = segment.file.set_len(segment.bytes);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Goes on with the newest segment of an earlier writer, or begins the first one.
    fn open_newest(&self) -> io::Result<Segment> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let Some((number, path)) = segments(&self.dir)?.pop() else {
            return self.create(0);
        };
        let file = OpenOptions::new().append(true).open(path)?;
        let bytes = file.metadata()?.len();
        if bytes >= self.limits.segment_bytes {
            return self.create(number + 1);
        }
        Ok(Segment { number, file, bytes })
    }

    fn create(&self, number: u64) -> io::Result<Segment> {
        let path = self.dir.join(format!("{number:012}.log"));
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        for (old, path) in segments(&self.dir)? {
            if old + self.limits.segments <= number {
                fs::remove_file(path)?;
            }
        }
        let bytes = file.metadata()?.len();
        Ok(Segment { number, file, bytes })
    }
}

/// The segments in `dir`, oldest first. Other files are ignored.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".log")?.parse().ok());
        if let Some(number) = number {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}
