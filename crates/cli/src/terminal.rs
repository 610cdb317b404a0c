//! The one place that writes to stdout and stderr.

use std::io::{self, IsTerminal, Write};

/// Writes data. A reader that went away (`| head`) is no failure.
pub(crate) fn out(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// Writes talk.
pub(crate) fn err(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Writes one line of talk.
pub(crate) fn note(text: &str) {
    err(&format!("{text}\n"));
}

/// Writes an error, in red on a terminal.
pub(crate) fn error_lines(message: &str) {
    let text = format!("ERROR: {}", message.trim_end());
    if io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        err(&format!("\u{1b}[31m{text}\u{1b}[0m\n"));
    } else {
        err(&format!("{text}\n"));
    }
}

/// Asks a question with yes or no; none when nobody can be asked.
pub(crate) fn confirm(question: &str) -> Option<bool> {
    if !io::stdin().is_terminal() {
        return None;
    }
    for _ in 0..3 {
        err(&format!("{question} (y/n): "));
        let mut line = String::new();
        if io::stdin().read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => return Some(true),
            "n" | "no" => return Some(false),
            _ => {}
        }
    }
    Some(false)
}
