//! Everyone who waits for one build and follows its progress.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use super::mask::Mask;
use crate::logs::LogWriter;

/// Lines kept for those who come later.
const HISTORY_LINES: usize = 2000;

/// The logs that a build writes to. Who joins late gets what was said before.
pub(super) struct Audience {
    mask: Mask,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    history: VecDeque<String>,
    writers: Vec<LogWriter>,
}

impl Audience {
    pub(super) fn new(mask: Mask) -> Self {
        Self { mask, state: Mutex::default() }
    }

    /// Adds a log, which first gets what was said before.
    pub(super) fn join(&self, writer: &LogWriter) {
        let mut state = self.lock();
        state.history.iter().for_each(|line| writer.line(line));
        state.writers.push(writer.clone());
    }

    /// Says a line to all, without the credentials it may hold. Returns it as it was said.
    pub(super) fn line(&self, text: &str) -> String {
        let text = self.mask.apply(text);
        let mut state = self.lock();
        state.writers.iter().for_each(|writer| writer.line(&text));
        if state.history.len() == HISTORY_LINES {
            state.history.pop_front();
        }
        state.history.push_back(text.clone());
        text
    }

    /// A text without the credentials it may hold.
    pub(super) fn masked(&self, text: &str) -> String {
        self.mask.apply(text)
    }

    /// A panic while a line is written leaves at worst a line unwritten.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use casemate_model::ResourceId;

    use super::*;
    use crate::logs::{Container, LogStore};

    #[test]
    fn all_see_all_and_nobody_sees_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let logs = LogStore::new(dir.path());
        let id = |name: &str| ResourceId::parse(&format!("/providers/Casemate.Test/things/{name}")).unwrap();
        let audience = Audience::new(Mask::of_urls(["https://me:secret-word@index.example/"]));
        audience.join(&logs.writer(&id("early"), Container::StorageInitializer));
        assert_eq!(
            audience.line("asking https://me:secret-word@index.example/six"),
            "asking https://****@index.example/six"
        );
        audience.join(&logs.writer(&id("late"), Container::StorageInitializer));
        audience.line("no secret-word here");
        for name in ["early", "late"] {
            let text = logs.read(&id(name), Container::StorageInitializer, 10).unwrap();
            assert!(text.contains("****@index.example/six") && text.contains("no **** here"), "{name}: {text}");
            assert!(!text.contains("secret-word"));
        }
    }
}
