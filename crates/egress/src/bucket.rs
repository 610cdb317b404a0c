//! A bucket of permits that fills with time.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Lets something happen at a rate in the long run, and a number of times at once.
#[derive(Debug)]
pub(crate) struct Bucket {
    burst: f64,
    per_second: f64,
    state: Mutex<(f64, Instant)>,
}

impl Bucket {
    /// A full bucket: `burst` at once, and `count` more in each `period`.
    pub(crate) fn new(burst: u32, count: u32, period: Duration) -> Self {
        let per_second = f64::from(count) / period.as_secs_f64().max(0.001);
        Self { burst: f64::from(burst), per_second, state: Mutex::new((f64::from(burst), Instant::now())) }
    }

    /// Takes one permit, if there is one.
    pub(crate) fn take(&self) -> bool {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (left, at) = *state;
        let left = (left + now.saturating_duration_since(at).as_secs_f64() * self.per_second).min(self.burst);
        let enough = left >= 1.0;
        *state = (if enough { left - 1.0 } else { left }, now);
        enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_and_then_the_rate() {
        let bucket = Bucket::new(3, 2, Duration::from_secs(1));
        let taken = || std::iter::repeat_with(|| bucket.take()).take_while(|taken| *taken).count();
        assert_eq!(taken(), 3);
        tokio::time::advance(Duration::from_millis(499)).await;
        assert_eq!(taken(), 0);
        tokio::time::advance(Duration::from_millis(501)).await;
        assert_eq!(taken(), 2);
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(taken(), 3);
        assert!(!Bucket::new(0, 0, Duration::ZERO).take());
    }
}
