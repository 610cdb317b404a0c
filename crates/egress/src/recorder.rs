//! One sandbox's decisions on their way to the log: the first of a kind each as an entry, the rest counted.
//!
//! Without this a model that asks for a thousand names a second would wash everything else out of a log that is bounded.
//! Every decision is in the log, if only in a sum; refusals have a budget of their own, so that a flood of them hides
//! nothing that was let through, and the other way round.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use casemate_model::{
    Clock,
    egress::{Decision, HostName, LogEntry},
};
use tokio::time::Instant;

use crate::{DecisionLog, Owner, bucket::Bucket};

/// Entries for one destination and verdict within a window; further ones are summed up at its end.
const FIRST: u64 = 10;
/// How long identical decisions are summed up for.
const WINDOW: Duration = Duration::from_secs(30);
const MINUTE: Duration = Duration::from_secs(60);
/// Different destinations that are told apart within a window.
const KEYS: usize = 2048;
/// The latest refusals that are kept to be shown at once.
const RECENT: usize = 64;
/// Longest reason in the log, in characters; ours are shorter, unless a name in them is long.
const REASON: usize = 600;
/// Entries that may come at once, and how many more each minute: at that rate two files hold days of a flood of refusals.
const REFUSALS: (u32, u32) = (300, 20);
const PASSES: (u32, u32) = (1000, 60);

/// Takes what one sandbox's connections and queries came to. Never waits.
pub(crate) struct Recorder {
    log: DecisionLog,
    scope: Arc<str>,
    owner: Owner,
    clock: Clock,
    state: Mutex<State>,
}

/// One decision, without what the recorder knows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Event {
    pub(crate) name: Option<String>,
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: u16,
    /// `tcp`, `dns`, `http` or `metadata`.
    pub(crate) protocol: &'static str,
    pub(crate) allowed: bool,
    pub(crate) rule: Option<String>,
    pub(crate) reason: String,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) would_deny: bool,
}

impl Event {
    /// What a policy decided, before anything was relayed.
    pub(crate) fn decided(
        name: Option<&HostName>,
        address: Option<IpAddr>,
        port: u16,
        protocol: &'static str,
        decision: &Decision,
    ) -> Self {
        Self {
            name: name.map(|name| name.as_str().to_owned()),
            address,
            port,
            protocol,
            allowed: decision.is_allowed(),
            rule: decision.rule.clone(),
            reason: decision.reason.clone(),
            would_deny: decision.would_deny,
            ..Self::default()
        }
    }

    /// The same, refused for another reason.
    pub(crate) fn refused(self, reason: impl Into<String>) -> Self {
        Self { allowed: false, would_deny: false, reason: reason.into(), ..self }
    }

    fn key(&self) -> Key {
        (self.name.clone(), self.address, self.port, self.protocol, self.allowed)
    }
}

type Key = (Option<String>, Option<IpAddr>, u16, &'static str, bool);

struct State {
    since: Instant,
    refusals: Bucket,
    passes: Bucket,
    seen: HashMap<Key, Seen>,
    others: HashMap<(&'static str, bool), Sum>,
    recent: VecDeque<(Key, LogEntry)>,
}

struct Seen {
    told: u64,
    untold: Sum,
    like: Event,
}

#[derive(Default, Clone, Copy)]
struct Sum {
    count: u64,
    sent: u64,
    received: u64,
}

impl Sum {
    fn add(&mut self, count: u64, sent: u64, received: u64) {
        self.count += count;
        self.sent = self.sent.saturating_add(sent);
        self.received = self.received.saturating_add(received);
    }
}

impl Recorder {
    pub(crate) fn new(log: DecisionLog, owner: Owner, clock: Clock) -> Self {
        let now = Instant::now();
        let state = State {
            since: now,
            refusals: Bucket::new(REFUSALS.0, REFUSALS.1, MINUTE),
            passes: Bucket::new(PASSES.0, PASSES.1, MINUTE),
            seen: HashMap::new(),
            others: HashMap::new(),
            recent: VecDeque::new(),
        };
        Self { log, scope: owner.scope.as_str().into(), owner, clock, state: Mutex::new(state) }
    }

    /// Takes one decision.
    pub(crate) fn record(&self, event: Event) {
        let key = event.key();
        let mut state = self.state();
        let state = &mut *state;
        let budget = if event.allowed { &state.passes } else { &state.refusals };
        let room = state.seen.len() < KEYS;
        let entry = match state.seen.get_mut(&key) {
            Some(seen) if seen.told >= FIRST => {
                seen.untold.add(1, event.sent, event.received);
                return;
            }
            Some(seen) if budget.take() => {
                seen.told += 1;
                self.entry(&event)
            }
            None if room && budget.take() => {
                let entry = self.entry(&event);
                let like = Event { sent: 0, received: 0, ..event };
                state.seen.insert(key.clone(), Seen { told: 1, untold: Sum::default(), like });
                entry
            }
            _ => {
                let others = state.others.entry((event.protocol, event.allowed)).or_default();
                return others.add(1, event.sent, event.received);
            }
        };
        if !entry.allowed && !state.recent.iter().any(|(known, _)| *known == key) {
            state.recent.truncate(RECENT - 1);
            state.recent.push_front((key, entry.clone()));
        }
        self.log.record(&self.scope, entry);
    }

    /// The latest refusals of different destinations, the newest first.
    pub(crate) fn refusals(&self) -> Vec<LogEntry> {
        self.state().recent.iter().map(|(_, entry)| entry.clone()).collect()
    }

    /// Writes the sums when their window is over. To be called every second or so.
    pub(crate) fn tick(&self) {
        let over = self.state().since.elapsed() >= WINDOW;
        if over {
            self.settle();
        }
    }

    /// Writes the sums and begins a new window.
    fn settle(&self) {
        let now = Instant::now();
        let mut state = self.state();
        let state = &mut *state;
        let window = now.saturating_duration_since(state.since).as_secs().max(1);
        state.since = now;
        for (_, Seen { untold, mut like, .. }) in std::mem::take(&mut state.seen) {
            if untold.count == 0 {
                continue;
            }
            let budget = if like.allowed { &state.passes } else { &state.refusals };
            if !budget.take() {
                let others = state.others.entry((like.protocol, like.allowed)).or_default();
                others.add(untold.count, untold.sent, untold.received);
                continue;
            }
            like.reason = format!("{} more of these within {window} s; of the first: {}", untold.count, like.reason);
            (like.sent, like.received) = (untold.sent, untold.received);
            self.log.record(&self.scope, self.entry(&like));
        }
        for ((protocol, allowed), sum) in std::mem::take(&mut state.others) {
            let did = if allowed { "let through" } else { "refused" };
            let reason = format!("{} others were {did} within {window} s: too many to be told one by one.", sum.count);
            let Sum { sent, received, .. } = sum;
            let event = Event { protocol, allowed, reason, sent, received, ..Event::default() };
            self.log.record(&self.scope, self.entry(&event));
        }
    }

    fn entry(&self, event: &Event) -> LogEntry {
        let mut reason = event.reason.clone();
        if let Some((end, _)) = reason.char_indices().nth(REASON) {
            reason.truncate(end);
            reason.push('…');
        }
        LogEntry {
            time: self.clock.now(),
            deployment: self.owner.deployment.clone(),
            instance: self.owner.instance.clone(),
            name: event.name.clone(),
            address: event.address,
            port: event.port,
            protocol: event.protocol.to_owned(),
            allowed: event.allowed,
            rule: event.rule.clone(),
            reason,
            bytes_sent: event.sent,
            bytes_received: event.received,
            would_deny: event.would_deny,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.settle();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogQuery;

    fn event(name: &str, allowed: bool) -> Event {
        Event {
            name: Some(name.to_owned()),
            port: 443,
            protocol: "tcp",
            allowed,
            sent: 2,
            reason: "Why.".into(),
            ..Event::default()
        }
    }

    #[test]
    fn floods_of_refusals_are_summed_and_hide_nothing_that_passed() {
        let dir = tempfile::tempdir().unwrap();
        let log = DecisionLog::open(dir.path(), Clock::system()).unwrap();
        let owner = Owner { scope: "s".into(), deployment: "d".into(), instance: "i".into() };
        let recorder = Recorder::new(log.clone(), owner, Clock::system());
        for at in 0..10_000 {
            recorder.record(event("same.example", false));
            recorder.record(event(&format!("n{at}.example"), false));
        }
        recorder.record(event("passed.example", true));
        recorder.record(Event { reason: "ä".repeat(2000), ..event("long.example", true) });
        let refusals = recorder.refusals();
        assert_eq!((refusals.len(), refusals[0].name.as_deref()), (RECENT, Some("n289.example")));
        drop(recorder);
        log.flush();
        let (entries, _) = log.read("s", &LogQuery { limit: 100_000, ..LogQuery::default() }).unwrap();
        let of = |name: &str| entries.iter().filter(|entry| entry.name.as_deref() == Some(name)).count();
        assert!(entries.len() < 320, "{}", entries.len());
        assert_eq!((of("same.example"), of("passed.example"), of("long.example")), (10, 1, 1));
        assert!(entries.iter().all(|entry| entry.reason.chars().count() <= REASON + 1));
        // Nothing is missing in the sums.
        let sent: u64 = entries.iter().map(|entry| entry.bytes_sent).sum();
        assert_eq!(sent, 2 * 20_002);
        let sum = entries.iter().find(|entry| entry.name.is_none()).unwrap();
        assert!(!sum.allowed && sum.reason.contains("others were refused"), "{sum:?}");
    }
}
