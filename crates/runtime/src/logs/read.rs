//! Reading a log from its end, without loading the rest.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use super::rotate::segments;

const BLOCK_BYTES: usize = 64 << 10;

/// The last `lines` lines of the log in `dir`, in whole lines of together at most `max_bytes`.
///
/// A segment that is rotated away meanwhile is simply no longer part of the log.
pub(super) fn tail(dir: &Path, lines: usize, max_bytes: usize) -> io::Result<String> {
    let found = match segments(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        found => found?,
    };
    let mut end = Ending { blocks: Vec::new(), bytes: 0, breaks: 0 };
    for (_, path) in found.into_iter().rev() {
        match File::open(path) {
            Ok(file) => end.read(&file, lines, max_bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        }
    }
    end.blocks.reverse();
    let mut bytes = end.blocks.concat();
    // What a writer is just adding has no line break yet.
    bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
    // The files hold UTF-8 and the cut lies at a line break; a file spoilt from outside is still shown.
    Ok(String::from_utf8_lossy(last_lines(&bytes, lines, max_bytes)).into_owned())
}

/// The end of the log as far as it was read, newest block first.
struct Ending {
    blocks: Vec<Vec<u8>>,
    bytes: usize,
    breaks: usize,
}

impl Ending {
    /// Reads `file` from its end until there is enough of it. One line break more than lines, and one byte more than
    /// allowed, show where the first whole line begins.
    fn read(&mut self, file: &File, lines: usize, max_bytes: usize) -> io::Result<()> {
        let mut end = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        while end > 0 && self.breaks <= lines && self.bytes <= max_bytes {
            let start = end.saturating_sub(BLOCK_BYTES);
            let mut block = vec![0; end - start];
            file.read_exact_at(&mut block, start as u64)?;
            self.bytes += block.len();
            self.breaks += block.iter().filter(|byte| **byte == b'\n').count();
            self.blocks.push(block);
            end = start;
        }
        Ok(())
    }
}

fn last_lines(bytes: &[u8], lines: usize, max_bytes: usize) -> &[u8] {
    let breaks_from_the_end = bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    let by_lines = breaks_from_the_end.map(|(at, _)| at + 1).nth(lines).unwrap_or(0);
    let by_size = match bytes.len().checked_sub(max_bytes) {
        None | Some(0) => 0,
        // A line may begin right at the first byte allowed, if a break lies just before it.
        Some(over) => bytes[over - 1..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| over + at),
    };
    &bytes[by_lines.max(by_size)..]
}
