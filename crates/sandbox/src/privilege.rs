//! With which rights the platform works: those of the host's root, or those that an ordinary user gets in a user
//! namespace of its own. Everything after [`prepare_process`] is the same code for both.
//!
//! # Who a payload is
//!
//! Inside, the payload is always user 1000. Started by root, it is on the host a user that exists nowhere else: each
//! sandbox takes two ids from a high range, one for the payload and one for its first process, so that neither is ever
//! the host's root and sandboxes do not share the kernel's per-user limits. Such a user could read nothing of a
//! directory that is private to root, so mounts are id-mapped (see [`crate::idmapped`]): the source's owner is the
//! payload there, and only there. To map the payload to root without capabilities would have been simpler, and would
//! have made every mistake in the mounts a read of root's files.
//!
//! An ordinary user has one id to map: the payload is on the host that user, who owns what it is given already, and its
//! first process shares the id (it is protected by not being dumpable). The user's supplementary groups stay, as the
//! kernel lets nobody give them up there; what they could open is not in the payload's file system.

use std::io;

use caps::{CapSet, Capability};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::error::{SandboxError, USER_NAMESPACES};
use crate::plan::Ids;

/// How the platform came by the rights it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// It was started with them.
    Root,
    /// It moved into a user namespace in which its user is root. Host root has no part in it.
    UserNamespace,
}

/// What launching takes.
const NEEDED: [Capability; 8] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_CHOWN,
    Capability::CAP_KILL,
];

/// Gives the process the rights to launch sandboxes. Must be called first in `main`, before any thread exists: the
/// kernel refuses it to a process with threads.
///
/// An ordinary user's process moves into a user namespace of its own (it then sees itself as user 0) and stays in the
/// host's network and file system; what it may do there does not change.
pub fn prepare_process() -> Result<Privilege, SandboxError> {
    if has_needed() {
        let many = id_extents().map_err(|error| missing(&error))?.iter().map(|extent| extent.count).sum::<u64>() > 1;
        return Ok(if many { Privilege::Root } else { Privilege::UserNamespace });
    }
    if std::fs::read_dir("/proc/self/task").is_ok_and(|threads| threads.count() > 1) {
        let source = io::Error::other("the process has threads already; it must be the first thing in main");
        return Err(SandboxError::Helper { context: "prepare the process", source });
    }
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| missing(&errno.into()))?;
    std::fs::write("/proc/self/setgroups", "deny")
        .and_then(|()| std::fs::write("/proc/self/uid_map", format!("0 {uid} 1\n")))
        .and_then(|()| std::fs::write("/proc/self/gid_map", format!("0 {gid} 1\n")))
        .map_err(|error| missing(&error))?;
    if !has_needed() {
        return Err(missing(&io::Error::other("the new user namespace came without capabilities")));
    }
    Ok(Privilege::UserNamespace)
}

fn has_needed() -> bool {
    let Ok(effective) = caps::read(None, CapSet::Effective) else { return false };
    NEEDED.iter().all(|needed| effective.contains(needed))
}

fn missing(evidence: &io::Error) -> SandboxError {
    let (feature, fix) = USER_NAMESPACES;
    SandboxError::Missing { feature, evidence: evidence.to_string(), fix }
}

/// A run of ids that this process may give away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    first: u64,
    count: u64,
}

/// The ids that exist as users as well as groups.
fn id_extents() -> io::Result<Vec<Extent>> {
    let users = parse_id_map(&std::fs::read_to_string("/proc/self/uid_map")?);
    let groups = parse_id_map(&std::fs::read_to_string("/proc/self/gid_map")?);
    Ok(users.iter().flat_map(|user| groups.iter().filter_map(|group| overlap(*user, *group))).collect())
}

fn parse_id_map(text: &str) -> Vec<Extent> {
    let number = |word: Option<&str>| word.and_then(|word| word.parse::<u64>().ok());
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(Extent { first: number(words.next())?, count: number(words.nth(1))? })
        })
        .collect()
}

fn overlap(a: Extent, b: Extent) -> Option<Extent> {
    let first = a.first.max(b.first);
    let end = (a.first + a.count).min(b.first + b.count);
    (end > first).then(|| Extent { first, count: end - first })
}

/// Where this platform takes its sandboxes' host ids from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdRange {
    /// Two ids of its own for each of `slots` sandboxes, from `first` on.
    Many { first: u32, slots: u32 },
    /// There is one id only: the platform's own.
    Single,
}

/// Above the ranges that distributions and container managers hand out, below those that systemd reserves.
const HIGH_FIRST: u64 = 0x7000_0000;
const HIGH_END: u64 = 0x7ffe_0000;
/// Sandboxes with distinct ids per platform; later ones start over.
const SLOTS: u64 = 2048;

impl IdRange {
    /// Chooses for the platform whose control group is `group`, so that two platforms rarely share ids.
    pub fn detect(group: &str) -> io::Result<Self> {
        Ok(Self::choose(&id_extents()?, group))
    }

    fn choose(extents: &[Extent], group: &str) -> Self {
        let high = Extent { first: HIGH_FIRST, count: HIGH_END - HIGH_FIRST };
        let within = extents.iter().find_map(|extent| overlap(*extent, high).filter(|part| part.count >= 2 * SLOTS));
        // In a container with a short range its upper end is the least used, as ids are given out from below.
        let fallback = || {
            let longest = extents.iter().max_by_key(|extent| extent.count)?;
            let count = (longest.count / 2).min(2 * SLOTS);
            (count >= 2).then(|| Extent { first: longest.first + longest.count - count, count })
        };
        let Some(range) = within.or_else(fallback) else { return Self::Single };
        let places = range.count / (2 * SLOTS).min(range.count);
        let place = fnv(group) % places;
        let slots = (range.count / places / 2).min(SLOTS);
        Self::Many { first: (range.first + place * 2 * SLOTS) as u32, slots: slots as u32 }
    }

    /// The ids of the `n`th sandbox.
    pub fn ids(self, n: u64) -> Ids {
        match self {
            Self::Many { first, slots } => {
                let base = first + 2 * (n % u64::from(slots)) as u32;
                Ids { payload: base, init: Some(base + 1) }
            }
            Self::Single => Ids { payload: 0, init: None },
        }
    }
}

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_fit_the_map_they_come_from() {
        let table = [
            ("0 0 4294967295\n", HIGH_FIRST, HIGH_END),
            ("0 100000 65536\n", 0, 65536),
            ("0 1000 1\n1 100000 500\n", 1, 501),
        ];
        for (map, from, end) in table {
            let extents = parse_id_map(map);
            for group in ["a", "b", "some longer name"] {
                let range = IdRange::choose(&extents, group);
                assert!(matches!(range, IdRange::Many { .. }), "{map:?} gave {range:?}");
                for n in [0, 1, 2047, 2048, u64::from(u32::MAX)] {
                    let ids = range.ids(n);
                    for id in [ids.payload, ids.init.unwrap()] {
                        assert!(u64::from(id) >= from && u64::from(id) < end, "{map:?} {group} {n}: {id}");
                        assert!(id != 0, "a payload must never be root of the map");
                    }
                }
            }
        }
    }

    #[test]
    fn a_single_id_is_shared() {
        let range = IdRange::choose(&parse_id_map("0 1000 1\n"), "a");
        assert_eq!(range, IdRange::Single);
        assert_eq!(range.ids(5), Ids { payload: 0, init: None });
    }

    #[test]
    fn neighbours_and_other_platforms_get_other_ids() {
        let extents = parse_id_map("0 0 4294967295\n");
        let (a, b) = (IdRange::choose(&extents, "a"), IdRange::choose(&extents, "b"));
        assert_ne!(a.ids(0), a.ids(1));
        assert_ne!(a.ids(0), b.ids(0));
    }
}
