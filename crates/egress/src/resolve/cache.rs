//! What has been looked up a moment ago.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use casemate_model::egress::HostName;
use tokio::time::Instant;

/// The longest that an answer is kept, whatever its owner says.
pub(super) const LONGEST: Duration = Duration::from_secs(30);
/// How long it is remembered that there is none.
pub(super) const NEGATIVE: Duration = Duration::from_secs(2);

type Known = Option<Vec<IpAddr>>;

/// Answers until they are old, a number of them at most.
pub(super) struct Cache {
    most: usize,
    known: Mutex<HashMap<HostName, (Known, Instant)>>,
}

impl Cache {
    pub(super) fn new(most: usize) -> Self {
        Self { most, known: Mutex::default() }
    }

    /// The addresses (or that there are none), when that is known.
    pub(super) fn get(&self, name: &HostName) -> Option<Known> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).filter(|(_, until)| Instant::now() < *until).map(|(known, _)| known.clone())
    }

    pub(super) fn put(&self, name: &HostName, found: Known, keep: Duration) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= self.most && !known.contains_key(name) {
            known.retain(|_, (_, until)| now < *until);
        }
        if known.len() >= self.most && !known.contains_key(name) {
            let soonest = known.iter().min_by_key(|(_, (_, until))| *until).map(|(name, _)| name.clone());
            soonest.and_then(|soonest| known.remove(&soonest));
        }
        known.insert(name.clone(), (found, now + keep.min(LONGEST)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn kept_for_a_while_and_in_bounds() {
        let name = |at: usize| HostName::parse(&format!("n{at}.example")).unwrap();
        let cache = Cache::new(3);
        let found: Known = Some(vec!["1.2.3.4".parse().unwrap()]);
        cache.put(&name(0), found.clone(), Duration::from_secs(86_400));
        cache.put(&name(1), None, NEGATIVE);
        cache.put(&name(2), found.clone(), Duration::ZERO);
        assert_eq!((cache.get(&name(0)), cache.get(&name(1)), cache.get(&name(2))), (Some(found), Some(None), None));
        for at in 3..1000 {
            cache.put(&name(at), None, NEGATIVE);
            assert!(cache.known.lock().unwrap().len() <= 3);
        }
        assert!(cache.get(&name(0)).is_some(), "what lasts longest is kept");
        tokio::time::advance(LONGEST).await;
        assert_eq!(cache.get(&name(0)), None);
    }
}
