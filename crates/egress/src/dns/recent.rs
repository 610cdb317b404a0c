//! What was handed to the log a moment ago.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long a decision counts as the same as the last one for its name.
const MOMENT: Duration = Duration::from_secs(2);
/// How many are remembered.
const MOST: usize = 32;

/// The names decided last, with the verdicts.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<VecDeque<(String, bool, Instant)>>);

impl Recent {
    /// Whether `name` has not been decided like this within the last moment; then it is remembered.
    pub(super) fn is_news(&self, name: &str, allowed: bool) -> bool {
        let now = Instant::now();
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|(_, _, at)| now.saturating_duration_since(*at) < MOMENT);
        if recent.iter().any(|(known, verdict, _)| known == name && *verdict == allowed) {
            return false;
        }
        recent.truncate(MOST - 1);
        recent.push_front((name.to_owned(), allowed, now));
        true
    }
}
