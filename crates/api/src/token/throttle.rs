//! Slows down guessing: after ten wrong secrets for an application within ten seconds, further wrong ones are told to
//! wait. The right secret always works, so that nobody can lock an application out by guessing at it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use casemate_model::Clock;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

/// Wrong secrets within the window that are answered as such.
const MOST_FAILURES: u32 = 10;
/// The length of a window.
const WINDOW: SignedDuration = SignedDuration::from_secs(10);
/// Most applications that are remembered. Only existing ones get here, so this is ample.
const MOST_ENTRIES: usize = 1024;

pub(super) struct Throttle {
    clock: Clock,
    failures: Mutex<HashMap<Uuid, (Timestamp, u32)>>,
}

impl Throttle {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, failures: Mutex::default() }
    }

    /// Whether a wrong secret of this application is answered as such now.
    pub(super) fn may_try(&self, app: Uuid) -> bool {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(&app).is_none_or(|(since, count)| *count < MOST_FAILURES || self.is_over(*since))
    }

    /// Counts a wrong secret.
    pub(super) fn failed(&self, app: Uuid) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() >= MOST_ENTRIES {
            failures.retain(|_, (since, _)| !self.is_over(*since));
        }
        if failures.len() >= MOST_ENTRIES && !failures.contains_key(&app) {
            return;
        }
        let now = self.clock.now();
        let entry = failures.entry(app).or_insert((now, 0));
        if self.is_over(entry.0) {
            *entry = (now, 0);
        }
        entry.1 += 1;
    }

    fn is_over(&self, since: Timestamp) -> bool {
        self.clock.now().duration_since(since) >= WINDOW
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    };

    use super::*;

    #[test]
    fn ten_failures_close_the_window_for_that_application() {
        let seconds = Arc::new(AtomicI64::new(0));
        let read = Arc::clone(&seconds);
        let clock = Clock::from_fn(move || Timestamp::from_second(read.load(Ordering::Relaxed)).unwrap());
        let throttle = Throttle::new(clock);
        let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
        for _ in 0..MOST_FAILURES {
            assert!(throttle.may_try(one));
            throttle.failed(one);
        }
        assert!(!throttle.may_try(one));
        assert!(throttle.may_try(two));
        seconds.store(10, Ordering::Relaxed);
        assert!(throttle.may_try(one));
    }

    #[test]
    fn the_table_is_bounded() {
        let throttle = Throttle::new(Clock::from_fn(|| Timestamp::UNIX_EPOCH));
        for _ in 0..MOST_ENTRIES * 2 {
            throttle.failed(Uuid::new_v4());
        }
        assert_eq!(throttle.failures.lock().unwrap().len(), MOST_ENTRIES);
    }
}
