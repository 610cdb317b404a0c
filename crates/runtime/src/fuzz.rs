//! What must hold for whatever a model process prints or answers. The target in `fuzz/` runs these on raw bytes; each
//! panics when a promise is broken.

use std::time::Duration;

use casemate_sandbox::Exit;

pub use crate::environment::fuzz::{conda_file, configuration, index_page, match_spec, pip_line, version};
use crate::{
    failure::{End, Evidence, is_worker_boot, is_worker_kill, judge},
    logs::{MAX_LINE_BYTES, lines::Cleaner},
    probe::status,
};

/// What a process prints becomes bounded lines without terminal controls, the same however the bytes arrive, and a
/// judgement about its end.
pub fn output(bytes: &[u8]) {
    let clean = |step: usize| {
        let (mut lines, mut cleaner) = (Vec::new(), Cleaner::default());
        bytes.chunks(step).for_each(|chunk| cleaner.push(chunk, &mut |line| lines.push(line.to_owned())));
        cleaner.finish(&mut |line| lines.push(line.to_owned()));
        lines
    };
    let lines = clean(bytes.len().max(1));
    for step in [1, 3, 64] {
        assert_eq!(clean(step), lines);
    }
    for line in &lines {
        assert!(line.chars().all(|c| c == '\t' || !c.is_control()), "{line:?}");
        // Each byte may become an escape.
        assert!(line.len() <= MAX_LINE_BYTES * 8 + 32);
    }
    let exit = |code, signal| End::Exited(Exit { code, signal, out_of_memory: false });
    let ends = [exit(Some(3), None), exit(None, Some(9)), End::WorkersDied, End::NotReady(Duration::from_secs(9))];
    for end in ends {
        for out_of_memory in [false, true] {
            let evidence =
                Evidence { end: end.clone(), out_of_memory, lines: &lines, script: "score.py", memory_bytes: 1 << 30 };
            let fault = judge(&evidence).fault;
            assert!(!fault.code.is_empty() && fault.message.lines().count() <= 60, "{fault}");
        }
    }
    let _ = (lines.iter().any(|line| is_worker_boot(line)), is_worker_kill(&lines), status(bytes));
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, test_runner::RngSeed};

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn likely_output(parts in prop::collection::vec(prop::sample::select(vec![
            "Failed to import user script", "User's init function failed", "user_script.UserScriptError: ", "Invoking user's init function",
            "The above exception was the direct cause of the following exception:", "ModuleNotFoundError: No module named 'x'", "  File",
            "\n", "\r", "\r\n", "\x1b[2J", "\u{202e}", "é", "Booting worker with pid", "was sent SIGKILL!", "HTTP/1.1 200 OK\r\n", "HTTP/1. 99999",
        ]), 0..20), odd in prop::collection::vec(any::<u8>(), 0..40)) {
            output(parts.concat().as_bytes());
            output(&odd);
        }
    }
}
