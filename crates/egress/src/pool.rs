//! The addresses that one sandbox gets for names: 198.18.0.0/15, kept for benchmarks and so nobody's.
//!
//! An address says which name a connection is for, whatever its port and protocol, without a packet having left. Names
//! are forgotten when there are too many, those that no rule names exactly first. Addresses are given out in order and
//! come round again only after all 131,070 have been used, so that one that a client still holds leads to the name it
//! was given for or to none; a stream reads its name once, when it is accepted, and keeps it.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use casemate_model::egress::{Breadth, HostName, unmapped};

use crate::bucket::Bucket;

/// 198.18.0.0.
const FIRST: u32 = 0xc612_0000;
/// How many addresses 198.18.0.0/15 has.
const SIZE: u32 = 1 << 17;

/// The names of one sandbox that have an address.
#[derive(Debug)]
pub(crate) struct NamePool {
    most: usize,
    fresh: Bucket,
    per_minute: u32,
    names: Mutex<Names>,
}

#[derive(Debug, Default)]
struct Names {
    by_name: HashMap<HostName, Given>,
    by_address: HashMap<Ipv4Addr, HostName>,
    /// The offset of the address that was given out last.
    last: u32,
    /// Grows with each use: the order of uses.
    uses: u64,
}

#[derive(Debug)]
struct Given {
    address: Ipv4Addr,
    used: u64,
    exact: bool,
}

/// New names that no rule names exactly come too fast.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "More than {0} new names in a minute under a wildcard: a program that makes up names can carry data out in them. \
     Approve the hosts by their exact names, or wait a minute."
)]
pub(crate) struct TooManyNames(u32);

impl NamePool {
    /// A pool of at most `most` names at once, and `per_minute` new ones that only a wildcard covers.
    pub(crate) fn new(most: usize, per_minute: u32) -> Self {
        let most = most.clamp(1, SIZE as usize / 2);
        let fresh = Bucket::new(per_minute, per_minute, Duration::from_secs(60));
        Self { most, fresh, per_minute, names: Mutex::default() }
    }

    /// The name that has this address. Asking counts as a use of the name.
    pub(crate) fn name_of(&self, address: IpAddr) -> Option<HostName> {
        let IpAddr::V4(address) = unmapped(address) else { return None };
        let mut names = self.names();
        let name = names.by_address.get(&address)?.clone();
        names.touch(&name);
        Some(name)
    }

    /// Whether a name has an address.
    pub(crate) fn knows(&self, name: &HostName) -> bool {
        self.names().by_name.contains_key(name)
    }

    /// The address of a name; a new one if it has none. Names are asked for here only once the policy resolves them.
    ///
    /// # Errors
    /// The name is new, only a wildcard covers it, and there have been too many such.
    pub(crate) fn address_for(&self, name: &HostName, breadth: Breadth) -> Result<Ipv4Addr, TooManyNames> {
        let exact = breadth == Breadth::Exact;
        let mut names = self.names();
        if let Some(given) = names.by_name.get_mut(name) {
            given.exact = exact;
            let address = given.address;
            names.touch(name);
            return Ok(address);
        }
        if breadth == Breadth::Wildcard && !self.fresh.take() {
            return Err(TooManyNames(self.per_minute));
        }
        while names.by_name.len() >= self.most {
            names.forget_one();
        }
        Ok(names.give(name, exact))
    }

    /// How many names have an address.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn len(&self) -> usize {
        let names = self.names();
        assert_eq!(names.by_name.len(), names.by_address.len());
        names.by_name.len()
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Names {
    fn touch(&mut self, name: &HostName) {
        self.uses += 1;
        if let Some(given) = self.by_name.get_mut(name) {
            given.used = self.uses;
        }
    }

    /// Forgets the name that is longest unused, of those that no rule names exactly if there is one.
    fn forget_one(&mut self) {
        let oldest = self.by_name.iter().min_by_key(|(_, given)| (given.exact, given.used));
        let Some((name, address)) = oldest.map(|(name, given)| (name.clone(), given.address)) else { return };
        self.by_name.remove(&name);
        self.by_address.remove(&address);
    }

    fn give(&mut self, name: &HostName, exact: bool) -> Ipv4Addr {
        // At most half of the addresses are given out at a time, so there is a free one; the two at the ends, which look
        // like a network's own and its broadcast address, are left out.
        let address = loop {
            self.last = (self.last + 1) % SIZE;
            let address = Ipv4Addr::from(FIRST + self.last);
            if self.last != 0 && self.last != SIZE - 1 && !self.by_address.contains_key(&address) {
                break address;
            }
        };
        self.uses += 1;
        self.by_name.insert(name.clone(), Given { address, used: self.uses, exact });
        self.by_address.insert(address, name.clone());
        address
    }
}

#[cfg(test)]
mod tests {
    use casemate_model::egress::{AddressClass, classify};

    use super::*;

    fn name(text: &str) -> HostName {
        HostName::parse(text).unwrap()
    }

    #[test]
    fn a_name_keeps_its_address_and_the_address_its_name() {
        let pool = NamePool::new(1024, 120);
        let address = pool.address_for(&name("a.example"), Breadth::Exact).unwrap();
        assert_eq!(address, Ipv4Addr::new(198, 18, 0, 1));
        let other = pool.address_for(&name("b.example"), Breadth::Open).unwrap();
        assert_ne!(address, other);
        assert_eq!(pool.address_for(&name("a.example"), Breadth::Exact), Ok(address));
        assert_eq!(pool.name_of(address.into()), Some(name("a.example")));
        assert_eq!(pool.name_of(address.to_ipv6_mapped().into()), Some(name("a.example")));
        for unknown in ["198.18.0.0", "198.18.0.3", "198.19.255.255", "127.0.0.1", "::1", "fd00::1"] {
            assert_eq!(pool.name_of(unknown.parse().unwrap()), None, "{unknown}");
        }
    }

    #[test]
    fn a_hundred_thousand_names_stay_within_bounds_and_exact_ones_stay() {
        let pool = NamePool::new(20, 120);
        let kept = pool.address_for(&name("kept.example"), Breadth::Exact).unwrap();
        let mut seen = HashMap::new();
        for at in 0..100_000 {
            let fresh = name(&format!("n{at}.example"));
            let address = pool.address_for(&fresh, Breadth::Open).unwrap();
            assert_eq!(classify(address.into()), AddressClass::Benchmark);
            assert_eq!(seen.insert(address, at), None, "{address} was given out again");
            assert!(pool.len() <= 20);
        }
        assert_eq!(pool.name_of(kept.into()), Some(name("kept.example")));
        // The first ones are forgotten: their addresses lead nowhere rather than to another name.
        assert_eq!(pool.name_of(Ipv4Addr::new(198, 18, 0, 2).into()), None);
        // When they come round, the address that is still in use is left out.
        for at in 0..100_000 {
            assert_ne!(pool.address_for(&name(&format!("m{at}.example")), Breadth::Open), Ok(kept));
        }
    }

    #[test]
    fn the_longest_unused_goes_first() {
        let pool = NamePool::new(2, 120);
        let one = pool.address_for(&name("one.example"), Breadth::Open).unwrap();
        let two = pool.address_for(&name("two.example"), Breadth::Open).unwrap();
        assert!(pool.name_of(one.into()).is_some());
        pool.address_for(&name("three.example"), Breadth::Open).unwrap();
        assert_eq!((pool.name_of(one.into()).is_some(), pool.name_of(two.into())), (true, None));
        // A full pool of exact names still has room for another.
        let pool = NamePool::new(2, 120);
        for at in 0..5 {
            pool.address_for(&name(&format!("x{at}.example")), Breadth::Exact).unwrap();
            assert!(pool.len() <= 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn six_hundred_fresh_names_under_a_wildcard() {
        let pool = NamePool::new(1024, 120);
        let mut given = 0;
        for at in 0..600 {
            given += u32::from(pool.address_for(&name(&format!("d{at}.x.example")), Breadth::Wildcard).is_ok());
        }
        assert_eq!(given, 120);
        // Known names, exact ones and those that need no rule are not rationed.
        assert!(pool.address_for(&name("d0.x.example"), Breadth::Wildcard).is_ok());
        assert!(pool.address_for(&name("exact.example"), Breadth::Exact).is_ok());
        assert!(pool.address_for(&name("open.example"), Breadth::Open).is_ok());
        let refusal = pool.address_for(&name("d599.x.example"), Breadth::Wildcard).unwrap_err().to_string();
        assert!(refusal.contains("More than 120 new names"), "{refusal}");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(pool.address_for(&name("d599.x.example"), Breadth::Wildcard).is_ok());
    }
}
