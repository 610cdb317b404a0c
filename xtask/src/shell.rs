//! Running other programs.

use std::{
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail};

/// Runs `command` with its output shown, under a headline.
///
/// # Errors
/// When it cannot be started or does not succeed.
pub fn step(headline: &str, command: &mut Command) -> Result<()> {
    eprintln!("==> {headline}");
    let start = Instant::now();
    let status = command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {}", name(command)))?;
    if !status.success() {
        bail!("{headline} failed ({status}): {}", line(command));
    }
    eprintln!("    {headline}: {:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Runs `command` and returns what it wrote to stdout.
///
/// # Errors
/// When it cannot be started or does not succeed; with what it wrote to stderr.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", name(command)))?;
    if !output.status.success() {
        bail!("{} failed ({}):\n{}", line(command), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} wrote what is not UTF-8", name(command)))
}

/// Whether `command` succeeds; its output is not shown.
pub fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
