//! From a process's stdout and stderr into a log.

use std::{
    collections::VecDeque,
    io::{self, PipeReader, Read},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{LogWriter, lines::Cleaner, lock};

/// Lines that a tail remembers. More than any message shows: what decides the cause of a failure may stand well
/// before the end.
const TAIL_LINES: usize = 400;
/// Longest line in a tail, in characters.
const TAIL_LINE_CHARS: usize = 500;
/// A line without an end is written after this time, so that a prompt or a hang can be seen.
const PARTIAL_WAIT_MS: u16 = 1000;

/// The two sides of a process's output.
pub struct LogPipe {
    /// For the process. Both ends lead into one pipe, so the order of what it writes is kept.
    pub stdout: OwnedFd,
    /// For the process.
    pub stderr: OwnedFd,
    /// To be run while the process lives.
    pub pump: LogPump,
    /// What was written last, by this process alone.
    pub tail: LogTail,
}

impl LogPipe {
    pub(super) fn new(writer: LogWriter) -> io::Result<Self> {
        let (reader, stdout) = io::pipe()?;
        let stderr = stdout.try_clone()?;
        let tail = LogTail::default();
        let pump = LogPump { reader, writer, tail: tail.clone() };
        Ok(Self { stdout: stdout.into(), stderr: stderr.into(), pump, tail })
    }
}

/// Moves what a process writes into its log until every writing end is closed.
pub struct LogPump {
    reader: PipeReader,
    writer: LogWriter,
    tail: LogTail,
}

impl LogPump {
    /// Blocks until the process and all its children are gone: give it a thread of its own (`spawn_blocking`).
    pub fn run(mut self) {
        let mut buffer = vec![0; 64 << 10];
        let mut cleaner = Cleaner::default();
        let Self { reader, writer, tail } = &mut self;
        let mut sink = |line: &str| {
            writer.append(line);
            tail.push(line);
        };
        loop {
            if cleaner.has_partial() && !readable_soon(reader) {
                cleaner.finish(&mut sink);
            }
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => cleaner.push(&buffer[..count], &mut sink),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "a process's output can't be read any more");
                    break;
                }
            }
        }
        cleaner.finish(&mut sink);
    }
}

fn readable_soon(reader: &PipeReader) -> bool {
    let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    // Any answer but a time-out, an error too, is for read() to tell.
    !matches!(poll(&mut fds, PollTimeout::from(PARTIAL_WAIT_MS)), Ok(0))
}

/// The last lines of one process, readable while it lives and after.
#[derive(Clone, Default)]
pub struct LogTail(Arc<Mutex<TailState>>);

#[derive(Default)]
struct TailState {
    lines: VecDeque<String>,
    /// Lines ever written.
    written: u64,
}

impl LogTail {
    /// The last lines, oldest first: at most 400, each cut to 500 characters.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        lock(&self.0).lines.iter().cloned().collect()
    }

    /// The lines written since `seen` were, as far as they are still remembered; moves `seen` on.
    #[must_use]
    pub fn news(&self, seen: &mut u64) -> Vec<String> {
        let state = lock(&self.0);
        let count = usize::try_from(state.written - *seen).unwrap_or(usize::MAX);
        *seen = state.written;
        let skipped = state.lines.len().saturating_sub(count);
        state.lines.iter().skip(skipped).cloned().collect()
    }

    fn push(&self, line: &str) {
        let mut state = lock(&self.0);
        if state.lines.len() == TAIL_LINES {
            state.lines.pop_front();
        }
        state.lines.push_back(line.chars().take(TAIL_LINE_CHARS).collect());
        state.written += 1;
    }
}
