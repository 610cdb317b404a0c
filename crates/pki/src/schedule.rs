//! When certificates are renewed: at two thirds of their life or when the issuer says, spread so that those made at once
//! are not renewed at once, and again after a failure.
//!
//! Everything here is arithmetic on the times given: no clock is asked, nothing is kept but a [`Pace`]. A clock that jumps
//! does no harm: what lies impossibly far ahead is not waited for, and a certificate that is not valid yet is due.

use std::time::Duration;

use aws_lc_rs::digest;
use casemate_model::tls::danger_from;
use jiff::{SignedDuration, Timestamp};

use crate::RenewalWindow;

/// The first wait after a failure.
pub const FIRST_RETRY: SignedDuration = SignedDuration::from_mins(1);
/// The longest wait between two attempts.
pub const LONGEST_RETRY: SignedDuration = SignedDuration::from_hours(6);
/// The longest wait between two attempts when the certificate is close to its end.
pub const DANGER_RETRY: SignedDuration = SignedDuration::from_hours(1);
/// The longest wait that an issuer may ask for.
pub const LONGEST_RETRY_AFTER: SignedDuration = SignedDuration::from_hours(24);
/// Renewals that a minute may always have.
const LEAST_PACE: usize = 10;
/// Of so many names one may be renewed in each minute.
const PACE_SHARE: usize = 100;
/// Parts of a jitter.
const PARTS: i32 = 1_000_000;

/// When the certificate for `name` with these dates should be renewed: by the issuer's `window` if there is one, else when
/// two thirds of its life are over, less up to an eighth of its life that depends on the name. Never so late that the
/// certificate is close to its end.
#[must_use]
pub fn renewal_at(not_before: Timestamp, not_after: Timestamp, name: &str, window: Option<RenewalWindow>) -> Timestamp {
    let latest = danger_from(not_before, not_after);
    let life = not_after.duration_since(not_before).max(SignedDuration::ZERO);
    let at = match window.filter(|window| window.start <= window.end) {
        Some(window) => plus(window.start, share(window.end.duration_since(window.start), name, "window")),
        None => plus(not_before, life / 3 * 2 - share(life / 8, name, "renewal")),
    };
    at.clamp(not_before.min(latest), latest)
}

/// Whether a certificate with these dates that should be renewed at `renewal` is due at `now`. One that is not valid yet
/// is: a clock was wrong when it was made, or is now.
#[must_use]
pub fn is_due(not_before: Timestamp, renewal: Timestamp, now: Timestamp) -> bool {
    now >= renewal || now < not_before
}

/// Whether enough time has passed since a certificate with the life `life` was got at `last`: an issuer whose certificates
/// are due as soon as they are made must not be asked without end.
#[must_use]
pub fn is_rested(last: Timestamp, life: SignedDuration, now: Timestamp) -> bool {
    let rest = (life / 10).clamp(SignedDuration::ZERO, DANGER_RETRY);
    now < last || now >= plus(last, rest)
}

/// When to try again after `failures` failures in a row (from 1 up), the last of them at `now`: after one minute, doubled
/// with each failure up to six hours, and not before the issuer's `retry_after` (at most a day) is over. `danger` is the
/// time from which the certificate that is served is close to its end, when there is one: from then on the wait is an hour
/// at most, whatever the issuer says.
#[must_use]
pub fn retry_at(
    now: Timestamp,
    failures: u32,
    retry_after: Option<Duration>,
    danger: Option<Timestamp>,
    name: &str,
) -> Timestamp {
    let doubled = FIRST_RETRY * 2_i32.pow(failures.saturating_sub(1).min(16));
    let backoff = doubled.min(LONGEST_RETRY);
    let backoff = backoff - share(backoff / 4, name, &failures.to_string());
    let asked = retry_after.map_or(SignedDuration::ZERO, |wait| {
        SignedDuration::try_from(wait).unwrap_or(LONGEST_RETRY_AFTER).min(LONGEST_RETRY_AFTER)
    });
    let wait = backoff.max(asked);
    match danger {
        Some(danger) if now >= danger => plus(now, wait.min(DANGER_RETRY)),
        Some(danger) if plus(now, wait) > danger => danger.max(plus(now, wait.min(DANGER_RETRY))),
        _ => plus(now, wait),
    }
}

/// Whether the time to try again has come. A time further ahead than any wait was written before the clock was set back.
#[must_use]
pub fn may_retry(retry_at: Option<Timestamp>, now: Timestamp) -> bool {
    retry_at.is_none_or(|at| now >= at || at > plus(now, LONGEST_RETRY_AFTER))
}

/// How many renewals may begin in a minute, so that an outage or a clock that jumps is no flood for the issuer.
#[derive(Debug, Default)]
pub struct Pace {
    minute: i64,
    begun: usize,
}

impl Pace {
    /// Takes a place in the minute of `now`, of which there are one for each hundred of `names` and ten at least; false
    /// when they are taken.
    pub fn take(&mut self, names: usize, now: Timestamp) -> bool {
        let minute = now.as_second().div_euclid(60);
        if minute != self.minute {
            *self = Self { minute, begun: 0 };
        }
        let allowed = self.begun < LEAST_PACE.max(names / PACE_SHARE);
        self.begun += usize::from(allowed);
        allowed
    }
}

/// A part of `whole` that depends on the name alone.
fn share(whole: SignedDuration, name: &str, what: &str) -> SignedDuration {
    let digest = digest::digest(&digest::SHA256, format!("{what}\n{name}").as_bytes());
    let number = digest.as_ref().iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    let part = i32::try_from(number % PARTS.unsigned_abs()).unwrap_or_default();
    // Whole seconds first: nothing overflows, and nobody needs more.
    SignedDuration::from_secs(whole.as_secs().saturating_mul(i64::from(part)) / i64::from(PARTS))
}

fn plus(at: Timestamp, wait: SignedDuration) -> Timestamp {
    at.checked_add(wait).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + seconds).unwrap()
    }

    const DAY: i64 = 86_400;

    #[test]
    fn a_renewal_comes_around_two_thirds_of_the_life_and_names_do_not_come_together() {
        for days in [6, 90] {
            let (from, until) = (at(0), at(days * DAY));
            let mut hours = std::collections::HashMap::new();
            for name in (0..1000).map(|number| format!("e{number}.local")) {
                let renewal = renewal_at(from, until, &name, None);
                assert_eq!(renewal, renewal_at(from, until, &name, None));
                let part = renewal.duration_since(from).as_secs_f64() / (days * DAY) as f64;
                assert!((0.54..=0.6667).contains(&part), "{name}: {part}");
                *hours.entry(renewal.as_second() / 3600).or_insert(0) += 1;
            }
            let most = hours.values().max().copied().unwrap_or_default();
            assert!(most < if days == 6 { 90 } else { 15 }, "{most} of 1000 in one hour, {days} days");
        }
    }

    #[test]
    fn the_issuers_window_is_kept_but_for_nonsense() {
        let (from, until) = (at(0), at(90 * DAY));
        let window = |start: i64, end: i64| Some(RenewalWindow { start: at(start * DAY), end: at(end * DAY) });
        let asked = |window| renewal_at(from, until, "a.b", window);
        assert!((at(10 * DAY)..=at(11 * DAY)).contains(&asked(window(10, 11))));
        assert_eq!(asked(window(5, 5)), at(5 * DAY));
        // In the past: at once. Later than the danger begins: when it begins. Turned around: as without.
        assert_eq!(asked(window(-400, -300)), from);
        assert_eq!(asked(window(300, 400)), at(80 * DAY));
        assert_eq!(asked(window(20, 10)), asked(None));
        // Dates that are no dates.
        assert_eq!(renewal_at(until, from, "a.b", None), from);
        assert!(renewal_at(Timestamp::MIN, Timestamp::MAX, "a.b", None) < Timestamp::MAX);
    }

    #[test]
    fn clocks_that_jump() {
        assert!(!is_due(at(0), at(100), at(50)));
        assert!(is_due(at(0), at(100), at(100)));
        assert!(is_due(at(0), at(100), at(-1)), "not valid yet");
        assert!(may_retry(None, at(0)) && may_retry(Some(at(0)), at(0)) && !may_retry(Some(at(60)), at(0)));
        assert!(may_retry(Some(at(400 * DAY)), at(0)), "the clock was set back");
        assert!(!is_rested(at(0), SignedDuration::from_hours(144), at(3599)));
        assert!(is_rested(at(0), SignedDuration::from_hours(144), at(3600)));
        assert!(is_rested(at(0), SignedDuration::from_mins(10), at(60)));
        assert!(is_rested(at(400 * DAY), SignedDuration::from_hours(144), at(0)), "the clock was set back");
    }

    #[test]
    fn retries_back_off_and_hurry_in_danger() {
        let wait = |failures, retry_after: Option<u64>, danger: Option<i64>| {
            let again = retry_at(at(0), failures, retry_after.map(Duration::from_secs), danger.map(at), "a.b");
            again.duration_since(at(0)).as_secs()
        };
        for (failures, least, most) in
            [(1, 45, 60), (2, 90, 120), (5, 720, 960), (9, 11_520, 15_360), (10, 16_200, 21_600)]
        {
            assert!((least..=most).contains(&wait(failures, None, None)), "{failures}");
        }
        assert!((16_200..=21_600).contains(&wait(u32::MAX, None, None)));
        // The issuer asks for more, for nonsense, and while the end is near.
        assert_eq!(wait(1, Some(7200), None), 7200);
        assert_eq!(wait(1, Some(u64::MAX), None), DAY);
        assert_eq!(wait(9, Some(7200), Some(-5)), 3600);
        assert_eq!(wait(u32::MAX, None, Some(0)), 3600);
        assert!(wait(1, None, Some(0)) <= 60);
        // The danger begins while one would wait.
        assert_eq!(wait(u32::MAX, None, Some(9000)), 9000);
        assert_eq!(wait(u32::MAX, None, Some(10)), 3600);
    }

    #[test]
    fn a_minute_has_a_pace() {
        let mut pace = Pace::default();
        let taken = |pace: &mut Pace, names, now| (0..1000).filter(|_| pace.take(names, now)).count();
        assert_eq!(taken(&mut pace, 5, at(0)), 10);
        assert_eq!(taken(&mut pace, 5, at(60)), 10);
        assert_eq!(taken(&mut pace, 5000, at(120)), 50);
        assert_eq!(taken(&mut pace, 5, at(-4000)), 10, "the clock was set back");
    }

    /// Renews a thousand names for two years; gives the certificates, the most in one hour, and those that ended before
    /// they were renewed.
    fn two_years(days: i64, outages: &[(i64, i64)]) -> (usize, usize, usize) {
        struct Certificate {
            name: String,
            until: i64,
            failures: u32,
        }
        let mut pace = Pace::default();
        let mut all: Vec<_> = (0..1000)
            .map(|number| Certificate { name: format!("e{number}.local"), until: days * DAY, failures: 0 })
            .collect();
        let first = |one: &Certificate| renewal_at(at(-300), at(one.until), &one.name, None);
        let mut queue: std::collections::BTreeSet<_> =
            all.iter().enumerate().map(|(number, one)| (first(one), number)).collect();
        let (mut issued, mut ended, mut hours) = (0, 0, std::collections::HashMap::new());
        while let Some((now, number)) = queue.pop_first().filter(|(now, _)| *now < at(730 * DAY)) {
            let one = &mut all[number];
            ended += usize::from(now >= at(one.until));
            let from = at(one.until - days * DAY - 300);
            let second = now.as_second() - at(0).as_second();
            let next = if outages.iter().any(|(from, until)| (*from..*until).contains(&second)) {
                one.failures += 1;
                retry_at(now, one.failures, None, Some(danger_from(from, at(one.until))), &one.name)
            } else if !pace.take(1000, now) {
                at((second / 60 + 1) * 60)
            } else {
                (one.failures, one.until) = (0, second + days * DAY);
                issued += 1;
                *hours.entry(second / 3600).or_insert(0) += 1;
                renewal_at(at(second - 300), at(one.until), &one.name, None)
            };
            queue.insert((next, number));
        }
        (issued, hours.values().max().copied().unwrap_or_default(), ended)
    }

    #[test]
    fn two_years_of_a_thousand_names_made_at_once() {
        let long = [(100 * DAY, 112 * DAY), (300 * DAY, 303 * DAY), (500 * DAY, 515 * DAY)];
        let short = [(100 * DAY, 101 * DAY), (300 * DAY, 300 * DAY + 40_000), (500 * DAY, 501 * DAY + 40_000)];
        for (days, outages, calm, after_outage) in
            [(90, &[][..], 20, 0), (6, &[], 100, 0), (90, &long, 20, 300), (6, &short, 100, 300)]
        {
            let (issued, most, ended) = two_years(days, outages);
            eprintln!("{days} days, {} outages: {issued} certificates, at most {most} in an hour", outages.len());
            assert_eq!(ended, 0, "ended before they were renewed");
            assert!(most <= calm.max(after_outage), "{most} in an hour, {days} days");
            assert!(issued >= 1000 * 730 / usize::try_from(days).unwrap(), "{issued}");
        }
    }
}
