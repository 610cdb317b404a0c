//! Reading a scope's two files: from a sequence number on, or from the end.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use casemate_model::egress::LogEntry;

use super::{FILE_BYTES, LogQuery, paths};

/// A line is longer only in a file that something else has written.
const LINE_BYTES: u64 = 1 << 20;

/// Opens the older file and the present one, where they exist.
pub(super) fn open(dir: &Path, scope: &str) -> io::Result<Vec<File>> {
    let [present, old] = paths(dir, scope);
    let mut files = Vec::new();
    for path in [old, present] {
        match File::open(path) {
            Ok(file) if file.metadata()?.is_file() => files.push(file),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

/// Reads as the query says. The number returned is the last one looked at, so that going on after it misses nothing and
/// repeats nothing.
pub(super) fn read(files: Vec<File>, query: &LogQuery) -> io::Result<(Vec<LogEntry>, u64)> {
    match query.after {
        Some(after) => forwards(files, query, after),
        None => backwards(files, query),
    }
}

fn forwards(files: Vec<File>, query: &LogQuery, after: u64) -> io::Result<(Vec<LogEntry>, u64)> {
    let (mut entries, mut seen) = (Vec::new(), after);
    for mut file in files {
        seek_after(&mut file, after)?;
        let mut reader = BufReader::with_capacity(64 << 10, file);
        let mut line = Vec::new();
        while entries.len() < query.limit {
            line.clear();
            if (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            // A line without its end is being written.
            let Some((b'\n', line)) = line.split_last() else { break };
            let Some(number) = sequence(line).filter(|number| *number > seen) else { continue };
            seen = number;
            entries.extend(entry(line, query));
        }
    }
    Ok((entries, seen))
}

fn backwards(files: Vec<File>, query: &LogQuery) -> io::Result<(Vec<LogEntry>, u64)> {
    let (mut entries, mut seen) = (Vec::new(), 0);
    for file in files.into_iter().rev() {
        let mut bytes = Vec::new();
        file.take(2 * FILE_BYTES).read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
        for line in bytes.get(..whole).unwrap_or_default().rsplit(|byte| *byte == b'\n') {
            if entries.len() >= query.limit {
                break;
            }
            let Some(number) = sequence(line) else { continue };
            seen = seen.max(number);
            entries.extend(entry(line, query));
        }
    }
    entries.reverse();
    Ok((entries, seen))
}

fn entry(line: &[u8], query: &LogQuery) -> Option<LogEntry> {
    let entry = LogEntry::from_line(std::str::from_utf8(line).ok()?)?;
    (!query.denied_only || !entry.allowed || entry.would_deny).then_some(entry)
}

/// Moves to a line at or before the first one whose number is larger than `after`: numbers grow, so it is found by
/// halving.
fn seek_after(file: &mut File, after: u64) -> io::Result<()> {
    let (mut low, mut high) = (0, file.metadata()?.len());
    while high - low > (64 << 10) {
        let middle = low + (high - low) / 2;
        match number_at(file, middle)? {
            Some(number) if number <= after => low = middle,
            _ => high = middle,
        }
    }
    // `low` is inside a line that is not wanted (or at the start): the rest of that line has no number and is passed over.
    file.seek(SeekFrom::Start(low))?;
    Ok(())
}

/// The number of the first whole line after `at`.
fn number_at(file: &mut File, at: u64) -> io::Result<Option<u64>> {
    file.seek(SeekFrom::Start(at))?;
    let mut reader = BufReader::new(file.take(2 * LINE_BYTES));
    reader.skip_until(b'\n')?;
    let mut line = Vec::new();
    reader.read_until(b'\n', &mut line)?;
    Ok(sequence(&line))
}

/// The number in `{"seq":12,"time":…`.
pub(super) fn sequence(line: &[u8]) -> Option<u64> {
    let rest = line.strip_prefix(b"{\"seq\":")?;
    let end = rest.iter().position(|byte| *byte == b',')?;
    std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()
}
