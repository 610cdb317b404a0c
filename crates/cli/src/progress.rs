//! Progress of long steps on stderr: a spinner or a bar on a terminal, plain lines in a pipe, nothing with
//! `--only-show-errors`.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{grammar::Globals, terminal};

/// Between two plain lines about the same step.
const LINE_INTERVAL: Duration = Duration::from_secs(30);
/// A step shorter than this says nothing in a pipe.
const QUIET_TIME: Duration = Duration::from_secs(3);

/// How to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Bar,
    Lines,
    Silent,
}

/// One long step.
pub(crate) struct Step {
    what: String,
    style: Style,
    bar: Option<ProgressBar>,
    started: Instant,
    next_line: Duration,
}

impl Step {
    /// Begins a step of unknown length, such as `Creating deployment 'blue'`.
    pub(crate) fn begin(globals: &Globals, what: impl Into<String>) -> Self {
        let style = if globals.only_show_errors {
            Style::Silent
        } else if stderr().is_terminal() {
            Style::Bar
        } else {
            Style::Lines
        };
        let mut step = Self { what: what.into(), style, bar: None, started: Instant::now(), next_line: QUIET_TIME };
        if style == Style::Bar {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            if let Ok(template) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
                bar.set_style(template);
            }
            bar.set_message(step.what.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            step.bar = Some(bar);
        }
        step
    }

    /// The step goes on.
    pub(crate) fn tick(&mut self, elapsed: Duration) {
        if self.style == Style::Lines && elapsed >= self.next_line {
            terminal::note(&format!("{} … {} s", self.what, elapsed.as_secs()));
            self.next_line = elapsed + LINE_INTERVAL;
        }
    }

    /// So many bytes of so many are through.
    pub(crate) fn bytes(&mut self, sent: u64, total: u64) {
        match self.style {
            Style::Bar => {
                let Some(bar) = &self.bar else { return };
                if bar.length() != Some(total) {
                    bar.set_length(total);
                    if let Ok(template) =
                        ProgressStyle::with_template("{spinner} {msg} [{bar:30}] {bytes}/{total_bytes} {eta}")
                    {
                        bar.set_style(template);
                    }
                }
                bar.set_position(sent);
            }
            Style::Lines => {
                let elapsed = self.started.elapsed();
                if elapsed >= self.next_line {
                    let percent = (sent * 100).checked_div(total).unwrap_or(100);
                    terminal::note(&format!("{} … {percent} %", self.what));
                    self.next_line = elapsed + LINE_INTERVAL;
                }
            }
            Style::Silent => {}
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
