//! Progress: a spinner on a terminal, plain lines in a pipe, the time of each step.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// Runs and times steps.
pub struct Steps {
    began: Instant,
    terminal: bool,
}

impl Steps {
    /// Counts from `began`.
    pub fn new(began: Instant) -> Self {
        Self { began, terminal: std::io::stdout().is_terminal() && std::io::stderr().is_terminal() }
    }

    /// Runs one step, showing that it goes on and then how long it took.
    pub async fn run<T, E: Into<anyhow::Error>>(
        &mut self,
        what: &str,
        step: impl Future<Output = Result<T, E>>,
    ) -> Result<T> {
        let began = Instant::now();
        let spinner = self.terminal.then(|| spinner(what));
        if spinner.is_none() {
            self.say(&format!("  .. {what}"));
        }
        let outcome = step.await.map_err(Into::into);
        if let Some(spinner) = spinner {
            spinner.finish_and_clear();
        }
        let mark = if outcome.is_ok() { "ok" } else { "!!" };
        self.say(&format!("  {mark} {what} ({})", shown(began.elapsed())));
        outcome
    }

    /// Says how long the way to the first score took.
    pub fn first_score(&self) {
        self.say(&format!("    first score {} after the start", shown(self.began.elapsed())));
    }

    /// Prints a line.
    pub fn say(&self, line: &str) {
        // A closed stdout ends nothing: the demo goes on to stop its platform cleanly.
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}

fn spinner(what: &str) -> ProgressBar {
    let spinner = ProgressBar::new_spinner().with_message(what.to_owned());
    if let Ok(style) = ProgressStyle::with_template("  {spinner} {msg} ({elapsed})") {
        spinner.set_style(style);
    }
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

fn shown(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}
