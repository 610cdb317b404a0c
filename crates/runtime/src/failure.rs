//! Why an instance did not come up: from how its process ended and what it printed, to a code and a message that a
//! user can act on.
//!
//! The server's own words decide. They are the same in all versions of `azureml-inference-server-http` from 0.8.4 to
//! 1.5.1 and of gunicorn from 20.1 to 27; where gunicorn says nothing, how far the start got decides.

use std::time::Duration;

use casemate_model::{Fault, FaultKind};
use casemate_sandbox::Exit;

/// Log lines that a fault's message carries.
const MESSAGE_LINES: usize = 50;
/// Longest exception text in a message, in characters.
const EXCEPTION_CHARS: usize = 500;

/// How a start ended.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// The process ended.
    Exited(Exit),
    /// The server lives, but its workers die as soon as they are started.
    WorkersDied,
    /// Alive, but it did not answer the readiness probe in time.
    NotReady(Duration),
    /// Alive, but it did not answer the liveness probe.
    NotLive(Duration),
}

/// What is known about a start that failed.
pub(crate) struct Evidence<'a> {
    pub end: End,
    /// Whether a process in the sandbox was killed for its memory.
    pub out_of_memory: bool,
    /// What the process printed, oldest first.
    pub lines: &'a [String],
    /// The entry script as the user named it.
    pub script: &'a str,
    pub memory_bytes: u64,
}

/// What to make of it.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub fault: Fault,
    /// Another try would end the same way.
    pub hopeless: bool,
}

/// What the server printed, as far as it tells the cause.
const IMPORT_FAILED: &str = "Failed to import user script";
const INIT_FAILED: &str = "User's init function failed";
const SCRIPT_ERROR: &str = "user_script.UserScriptError: ";
const SCRIPT_LOADING: &str = "Starting up app insights client";
const SCRIPT_FOUND: &str = "Found user script at";
const INIT_CALLED: &str = "Invoking user's init function";
const NO_SERVER: &str = "No module named azureml_inference_server_http";
/// From gunicorn 21 on, and before.
const WORKER_KILLED: &[&str] = &["was sent SIGKILL!", "was terminated due to signal 9"];
const WORKER_STUCK: &str = "WORKER TIMEOUT";
const CAUSED: &str = "The above exception was the direct cause of the following exception:";
const WORKER_BOOT: &str = "Booting worker with pid";
/// Exceptions at import that come back however often one tries: the files do not change.
const LASTING: &[&str] = &["ModuleNotFoundError", "ImportError", "SyntaxError", "IndentationError", "TabError"];

/// Whether a line says that the server has started a worker.
pub(crate) fn is_worker_boot(line: &str) -> bool {
    line.contains(WORKER_BOOT)
}

/// Whether lines say that a worker was killed from outside: not by the server itself, for being stuck.
pub(crate) fn is_worker_kill(lines: &[String]) -> bool {
    let said = |marker: &str| lines.iter().any(|line| line.contains(marker));
    WORKER_KILLED.iter().any(|marker| said(marker)) && !said(WORKER_STUCK)
}

/// Judges a start that failed.
pub(crate) fn judge(evidence: &Evidence) -> Verdict {
    let mut verdict = diagnose(evidence);
    // The server has tried often enough by itself, or the process has had the whole readiness budget.
    verdict.hopeless |= matches!(evidence.end, End::WorkersDied | End::NotReady(_));
    verdict
}

fn diagnose(evidence: &Evidence) -> Verdict {
    let verdict = |kind, code, hopeless, words: String| {
        let message = format!("{words}{}", last_lines(evidence.lines));
        Verdict { fault: Fault::new(kind, code, message), hopeless }
    };
    let said = |marker: &str| evidence.lines.iter().any(|line| line.contains(marker));
    let script = evidence.script;
    let exception = cause(evidence.lines);

    if evidence.out_of_memory {
        let words = memory_words(evidence.memory_bytes);
        return verdict(FaultKind::Quota, "PodOutOfMemory", false, words);
    }
    if said(NO_SERVER) {
        let words = "The environment has no package azureml-inference-server-http, which runs the scoring script. Add it \
                     to the pip section of the conda file.";
        return verdict(FaultKind::Invalid, "ImageBuildFailure", true, words.to_owned());
    }
    if said(IMPORT_FAILED) {
        let lasting = LASTING.iter().any(|name| exception.starts_with(name));
        let fix = if exception.starts_with("ModuleNotFoundError") {
            "Add the package that has it to the environment's conda file, or the missing file to the code directory."
        } else {
            "Correct the script and update the deployment."
        };
        let words = format!("{script} can't be imported: {exception}. {fix}");
        return verdict(FaultKind::Invalid, "UserScriptImportError", lasting, words);
    }
    if let Some(complaint) = evidence.lines.iter().rev().find_map(|line| Some(line.split_once(SCRIPT_ERROR)?.1)) {
        let words = format!("{script} can't be used: {complaint} It needs init() and run(data).");
        return verdict(FaultKind::Invalid, "UserScriptFunctionNotFound", true, words);
    }
    if said(INIT_FAILED) {
        let words = format!("init() of {script} raised {exception}. Correct the script, or what it loads.");
        return verdict(FaultKind::Invalid, "UserScriptInitFailed", false, words);
    }
    let reached = said(INIT_CALLED) || said(SCRIPT_LOADING);
    if let Some(exception) = evidence.lines.iter().rev().find(|line| !reached && is_import_exception(line)) {
        let words = format!(
            "azureml-inference-server-http can't run in the environment: {exception}. Add or pin the missing package in \
             the conda file, or use the newest version of the server."
        );
        return verdict(FaultKind::Invalid, "ImageBuildFailure", true, words);
    }
    let (kind, code, words) = silent(evidence, said(INIT_CALLED), said(SCRIPT_LOADING) && !said(SCRIPT_FOUND));
    verdict(kind, code, false, words)
}

fn is_import_exception(line: &str) -> bool {
    line.starts_with("ModuleNotFoundError: ") || line.starts_with("ImportError: ")
}

/// The failures of which the server says nothing: how far it got is all there is to go by.
fn silent(evidence: &Evidence, in_init: bool, importing: bool) -> (FaultKind, &'static str, String) {
    let script = evidence.script;
    let place = match (in_init, importing) {
        (true, _) => format!("in init() of {script}"),
        (_, true) => format!("while {script} was imported"),
        _ => "before the scoring script was reached".to_owned(),
    };
    if let End::NotReady(after) | End::NotLive(after) = evidence.end {
        let seconds = after.as_secs();
        let words = format!(
            "The instance was not ready after {seconds} s; it is still {place}. If that needs more time, give the \
             readiness and liveness probes a longer initial_delay or a higher failure_threshold."
        );
        return (FaultKind::Unavailable, "ResourceNotReady", words);
    }
    let how = match &evidence.end {
        End::Exited(exit) => exit_words(exit),
        _ => "its worker died again and again".to_owned(),
    };
    let words = format!("The scoring process ended {place}: {how}.");
    match (in_init, importing) {
        (true, _) => (FaultKind::Invalid, "UserScriptInitFailed", words),
        (_, true) => (FaultKind::Invalid, "UserScriptImportError", words),
        _ => (FaultKind::Internal, "InternalServerError", words),
    }
}

/// What to do about the memory limit.
pub(crate) const MEMORY_ADVICE: &str = "Choose a larger instance_type, or use less memory in init() and run().";

/// That the memory limit was reached, with the limit, and what to do.
pub(crate) fn memory_words(limit: u64) -> String {
    format!("The instance reached its memory limit of {:.1} GiB and was killed. {MEMORY_ADVICE}", to_gib(limit))
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub(crate) fn to_gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// An exit in words.
pub(crate) fn exit_words(exit: &Exit) -> String {
    match (exit.signal, exit.code) {
        (Some(signal), _) => format!("killed by signal {signal}"),
        (None, Some(code)) => format!("exit code {code}"),
        (None, None) => "it ended without a status".to_owned(),
    }
}

/// The user's exception: the server wraps it, so it stands before the last "direct cause" of the output.
fn cause(lines: &[String]) -> String {
    let Some(wrapped_at) = lines.iter().rposition(|line| line.trim() == CAUSED) else {
        return "an exception that is not in the log".to_owned();
    };
    // An exception's text may have several lines; the stack frames above it are indented.
    let text = lines[..wrapped_at].iter().rev().skip_while(|line| line.trim().is_empty());
    let mut text: Vec<&str> = text.take_while(|line| !line.starts_with("  ")).take(10).map(String::as_str).collect();
    text.reverse();
    text.join(" ").chars().take(EXCEPTION_CHARS).collect::<String>().trim_end_matches('.').to_owned()
}

fn last_lines(lines: &[String]) -> String {
    if lines.is_empty() {
        return " It printed nothing.".to_owned();
    }
    let last = &lines[lines.len().saturating_sub(MESSAGE_LINES)..];
    format!(" The last {} log lines:\n{}", last.len(), last.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT_3: End = End::Exited(Exit { code: Some(3), signal: None, out_of_memory: false });

    fn judged(end: End, text: &str) -> (String, bool, String) {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let evidence = Evidence { end, out_of_memory: false, lines: &lines, script: "score.py", memory_bytes: 1 << 30 };
        let verdict = judge(&evidence);
        let Fault { code, message, .. } = verdict.fault;
        (code, verdict.hopeless, message)
    }

    #[test]
    fn what_the_server_says_decides() {
        let import = "Traceback (most recent call last):\n  File \"score.py\", line 1, in <module>\n    import x\n\
                      ModuleNotFoundError: No module named 'x'\n\nThe above exception was the direct cause of the \
                      following exception:\n\nTraceback (most recent call last):\n…UserScriptImportException: Failed to \
                      import user script because it raised an unhandled exception";
        let init = "azmlinfsrv.user_script - Invoking user's init function\nazmlinfsrv - User's init function failed\n\
                    Traceback (most recent call last):\n  File \"score.py\", line 2, in init\n    raise E(1)\nE: two\n\
                    lines.\n\nThe above exception was the direct cause of the following exception:\n\nmore";
        let table = [
            (
                EXIT_3,
                import,
                "UserScriptImportError",
                true,
                "score.py can't be imported: ModuleNotFoundError: No module named 'x'. Add the package",
            ),
            (EXIT_3, init, "UserScriptInitFailed", false, "init() of score.py raised E: two lines. Correct"),
            (
                EXIT_3,
                "azureml_inference_server_http.server.user_script.UserScriptError: User script at /s.py does not have a run() function defined.",
                "UserScriptFunctionNotFound",
                true,
                "does not have a run() function defined. It needs init() and run(data).",
            ),
            (
                EXIT_3,
                "/v/bin/python: No module named azureml_inference_server_http",
                "ImageBuildFailure",
                true,
                "conda file",
            ),
            (
                EXIT_3,
                "    import pkg_resources\nModuleNotFoundError: No module named 'pkg_resources'",
                "ImageBuildFailure",
                true,
                "can't run in the environment: ModuleNotFoundError: No module named 'pkg_resources'. Add",
            ),
            (End::WorkersDied, "Invoking user's init function", "UserScriptInitFailed", true, "again and again"),
            (
                End::WorkersDied,
                "Starting up app insights client",
                "UserScriptImportError",
                true,
                "while score.py was imported",
            ),
            (
                End::Exited(Exit { code: None, signal: Some(11), out_of_memory: false }),
                "",
                "InternalServerError",
                false,
                "killed by signal 11",
            ),
            (
                End::NotReady(Duration::from_secs(310)),
                "Invoking user's init function",
                "ResourceNotReady",
                true,
                "not ready after 310 s; it is still in init()",
            ),
        ];
        for (end, text, code, hopeless, words) in table {
            let shown = format!("{end:?} {text}");
            let (got_code, got_hopeless, message) = judged(end, text);
            assert_eq!((got_code.as_str(), got_hopeless), (code, hopeless), "{shown}");
            assert!(message.contains(words), "{words:?} is not in {message:?}");
        }
    }

    #[test]
    fn memory_comes_before_what_the_server_says() {
        let lines = ["azmlinfsrv - User's init function failed".to_owned()];
        let evidence =
            Evidence { end: EXIT_3, out_of_memory: true, lines: &lines, script: "score.py", memory_bytes: 3 << 29 };
        let Verdict { fault, hopeless } = judge(&evidence);
        assert_eq!((fault.code.as_str(), hopeless), ("PodOutOfMemory", false));
        assert!(fault.message.starts_with("The instance reached its memory limit of 1.5 GiB"), "{}", fault.message);
    }

    #[test]
    fn killed_workers_by_the_words_of_gunicorn() {
        for (lines, expected) in [
            (&["gunicorn.error - Worker (pid:9) was sent SIGKILL! Perhaps out of memory?"][..], true),
            (&["gunicorn.error - Worker with pid 3 was terminated due to signal 9"], true),
            (&["WORKER TIMEOUT (pid:9)", "Worker (pid:9) was sent SIGKILL! Perhaps out of memory?"], false),
            (&["Worker (pid:9) exited with code 7"], false),
            (&[], false),
        ] {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(is_worker_kill(&lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn the_message_carries_the_last_fifty_lines() {
        let text: String = (0..200).map(|number| format!("line {number}\n")).collect();
        let (_, _, message) = judged(EXIT_3, &text);
        assert!(message.contains("The last 50 log lines:\nline 150\n") && message.ends_with("line 199"), "{message}");
    }
}
