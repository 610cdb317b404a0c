//! Draws for the split and ids for requests: no lock, no system call. Not for secrets.

use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

/// SplitMix64 over a shared counter, seeded from the system.
pub(crate) struct Random(AtomicU64);

impl Random {
    /// A source with a seed of its own.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(Uuid::new_v4().as_u64_pair().1))
    }

    fn next(&self) -> u64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut mixed = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number in `0..bound`; 0 when the bound is 0.
    pub(crate) fn below(&self, bound: u8) -> u8 {
        // The high byte of the product is below the bound; the bias is under 2^-56.
        let product = u128::from(self.next()) * u128::from(bound);
        u8::try_from(product >> 64).unwrap_or_default()
    }

    /// A version 4 GUID.
    pub(crate) fn guid(&self) -> Uuid {
        let (high, low) = (self.next(), self.next());
        uuid::Builder::from_random_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes()).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn draws_are_even_and_in_bounds() {
        let random = Random::new();
        let mut seen = [0_u32; 100];
        for _ in 0..100_000 {
            seen[usize::from(random.below(100))] += 1;
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
        assert_eq!((random.below(0), random.below(1)), (0, 0));
    }

    #[test]
    fn guids_differ() {
        let random = Random::new();
        let ids: HashSet<Uuid> = (0..10_000).map(|_| random.guid()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.get_version_num() == 4));
    }
}
