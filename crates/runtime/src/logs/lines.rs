//! Bytes from a process become safe lines of text.

use std::fmt::Write;

use super::MAX_LINE_BYTES;

/// What is put after the kept part of a line that was too long.
const CUT_MARK: &str = " […line cut]";

/// Splits a stream of bytes at line breaks (`\n`, `\r\n`, and a lone `\r` as progress bars write it) and makes each
/// line printable. Holds at most one line.
#[derive(Default)]
pub(crate) struct Cleaner {
    partial: Vec<u8>,
    /// The line is over the limit: what follows up to its end is thrown away.
    cutting: bool,
    /// The last byte was `\r`: a `\n` right after it belongs to the same break.
    after_return: bool,
}

impl Cleaner {
    /// Takes bytes in and hands each finished line to `sink`.
    pub(crate) fn push(&mut self, mut bytes: &[u8], sink: &mut dyn FnMut(&str)) {
        if self.after_return && !bytes.is_empty() {
            self.after_return = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.keep(&bytes[..end]);
            self.emit(sink);
            let broken_by = bytes[end];
            bytes = &bytes[end + 1..];
            if broken_by == b'\r' {
                self.after_return = bytes.is_empty();
                bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
            }
        }
        self.keep(bytes);
    }

    /// Hands on what is left without a line break, if anything.
    pub(crate) fn finish(&mut self, sink: &mut dyn FnMut(&str)) {
        if self.has_partial() {
            self.emit(sink);
        }
    }

    /// Whether there is the beginning of a line.
    pub(crate) fn has_partial(&self) -> bool {
        !self.partial.is_empty()
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = MAX_LINE_BYTES - self.partial.len();
        self.cutting |= bytes.len() > room;
        self.partial.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn emit(&mut self, sink: &mut dyn FnMut(&str)) {
        let mut line = printable(&self.partial);
        if self.cutting {
            line.push_str(CUT_MARK);
        }
        sink(&line);
        self.partial.clear();
        self.cutting = false;
    }
}

/// The bytes as text: what is not UTF-8 becomes U+FFFD, control characters other than tab become `\u{…}`.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if !text.chars().any(is_unsafe) {
        return text.into_owned();
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_unsafe(c) {
            // Writing to a String can't fail.
            let _ = write!(safe, "{}", c.escape_unicode());
        } else {
            safe.push(c);
        }
    }
    safe
}

fn is_unsafe(c: char) -> bool {
    // Beside terminal controls: the marks that make a terminal show text in another order than it is written.
    (c.is_control() && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
