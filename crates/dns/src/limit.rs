//! Limits per source: answers over UDP, so that a forged source address is of little use to anybody, and connections
//! over TCP.
//!
//! The table has a fixed size: sources that meet in one slot share its allowance. Which ones meet differs from start to
//! start, so nobody can choose whose answers to spend.

use std::{
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// Slots of the table; 8 bytes each.
const SLOTS: usize = 16_384;

/// What is to be done with a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Allowance {
    /// Answer it.
    Answer,
    /// Say only that TCP would get an answer.
    Slip,
    /// Say nothing.
    Drop,
}

/// Answers per second and source.
#[derive(Debug)]
pub(crate) struct RateLimit {
    slots: Vec<AtomicU64>,
    hasher: RandomState,
    started: Instant,
    per_second: u32,
    burst: u32,
}

impl RateLimit {
    /// `per_second` answers for each source, and `burst` of them at once.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let slots = (0..SLOTS).map(|_| AtomicU64::new(0)).collect();
        Self { slots, hasher: RandomState::new(), started: Instant::now(), per_second, burst: burst.max(1) }
    }

    /// Takes one answer of this source's allowance.
    pub(crate) fn take(&self, source: IpAddr) -> Allowance {
        self.take_at(source, u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The slot holds the moment (ms) at which the allowance is whole again: one number, changed at once.
    fn take_at(&self, source: IpAddr, now: u64) -> Allowance {
        let slot = usize::try_from(self.hasher.hash_one(network(source))).unwrap_or_default() % SLOTS;
        let Some(slot) = self.slots.get(slot) else { return Allowance::Drop };
        // In thousandths of a millisecond, so that thousands of answers per second can be told apart.
        let (now, cost) = (now.saturating_mul(1000), 1_000_000 / u64::from(self.per_second.max(1)));
        let most = cost.saturating_mul(u64::from(self.burst));
        let whole_again = slot.load(Ordering::Relaxed).max(now).saturating_add(cost);
        if whole_again - now <= most {
            slot.store(whole_again, Ordering::Relaxed);
            return Allowance::Answer;
        }
        // Every other one is told of TCP; which, no sender can foresee or needs to.
        if self.hasher.hash_one((source, now, whole_again)) & 1 == 0 { Allowance::Slip } else { Allowance::Drop }
    }
}

/// Whoever has an IPv6 address has 2^64 of them.
fn network(source: IpAddr) -> u128 {
    match source.to_canonical() {
        IpAddr::V4(source) => u128::from(source.to_bits()),
        IpAddr::V6(source) => source.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_own_allowance() {
        let limit = RateLimit::new(100, 10);
        let [one, other]: [IpAddr; 2] = ["192.0.2.1", "198.51.100.7"].map(|text| text.parse().unwrap());
        let answered =
            |source, count: usize, at| (0..count).filter(|_| limit.take_at(source, at) == Allowance::Answer).count();
        assert_eq!(answered(one, 50, 5), 10);
        assert_eq!(answered(one, 50, 5), 0);
        assert_eq!(answered(other, 5, 5), 5);
        // 100 per second: one each 10 ms.
        assert_eq!(answered(one, 50, 55), 5);
        assert_eq!(answered(one, 50, 60_000), 10);
    }

    #[test]
    fn one_network_of_ipv6_is_one_source_and_a_mapped_address_is_the_address() {
        let same = |a: &str, b: &str| network(a.parse().unwrap()) == network(b.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:1"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
    }

    #[test]
    fn over_the_limit_some_are_told_of_tcp() {
        let limit = RateLimit::new(1, 1);
        let source = "192.0.2.1".parse().unwrap();
        let told: Vec<Allowance> = (0..400).map(|at| limit.take_at(source, at)).collect();
        assert_eq!(told[0], Allowance::Answer);
        for expected in [Allowance::Slip, Allowance::Drop] {
            assert!(told.iter().filter(|told| **told == expected).count() > 100, "{expected:?}");
        }
    }
}
