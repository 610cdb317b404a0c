//! Connections that the platform's own deployments have open to its front door, so that the front door can tell them
//! from those of other programs on this machine.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use crate::ResourceId;

/// The source addresses of deployments' connections that the front door has not accepted yet, each with the deployment's
/// workspace. A clone is the same list. It holds no more than there are such connections, whose number the egress
/// gateway bounds.
#[derive(Debug, Clone, Default)]
pub struct DeploymentCallers(Arc<Callers>);

#[derive(Debug, Default)]
struct Callers {
    /// How many there are, so that nobody waits for the lock to learn that there are none.
    count: AtomicUsize,
    expected: Mutex<HashMap<SocketAddr, Expected>>,
    next: AtomicU64,
}

#[derive(Debug)]
struct Expected {
    /// Which registration it is: an address is used again.
    number: u64,
    workspace: ResourceId,
}

/// One connection's place in the list. Drop it before a socket that was not connected, whose address may be another
/// program's next.
#[derive(Debug)]
pub struct DeploymentCaller {
    callers: DeploymentCallers,
    address: SocketAddr,
    number: u64,
}

impl DeploymentCallers {
    /// Notes that a socket bound to `address` belongs to a deployment of `workspace`. To be called after binding, so that
    /// nobody else has the address, and before connecting.
    #[must_use = "it is forgotten as soon as this is dropped"]
    pub fn register(&self, address: SocketAddr, workspace: ResourceId) -> DeploymentCaller {
        let address = canonical(address);
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.change(|expected| _ = expected.insert(address, Expected { number, workspace }));
        DeploymentCaller { callers: self.clone(), address, number }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.count.load(Ordering::Acquire) == 0
    }

    /// The workspace whose deployment calls from this address; none for every other caller. It is told once, for the
    /// connection that is being accepted: whoever has the address afterwards is somebody else.
    #[must_use]
    pub fn claim(&self, caller: SocketAddr) -> Option<ResourceId> {
        if self.is_empty() {
            return None;
        }
        self.change(|expected| expected.remove(&canonical(caller))).map(|expected| expected.workspace)
    }

    fn change<T>(&self, work: impl FnOnce(&mut HashMap<SocketAddr, Expected>) -> T) -> T {
        let mut expected = self.0.expected.lock().unwrap_or_else(PoisonError::into_inner);
        let result = work(&mut expected);
        self.0.count.store(expected.len(), Ordering::Release);
        result
    }
}

impl Drop for DeploymentCaller {
    fn drop(&mut self) {
        self.callers.change(|expected| {
            if expected.get(&self.address).is_some_and(|expected| expected.number == self.number) {
                expected.remove(&self.address);
            }
        });
    }
}

/// As both ends of a connection see it: mapped IPv4 addresses are unwrapped, and there is no scope.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_told_once_and_not_after_it_is_gone() {
        let id = |name: &str| {
            let kind = "Microsoft.MachineLearningServices/workspaces";
            ResourceId::parse(&format!("/subscriptions/s/resourceGroups/g/providers/{kind}/{name}")).unwrap()
        };
        let address = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let callers = DeploymentCallers::default();
        let other = callers.clone();
        assert!(other.is_empty());
        let _one = callers.register(address("127.0.0.1:40000"), id("a"));
        let _two = callers.register(address("[::ffff:127.0.0.1]:40001"), id("b"));
        let gone = callers.register(address("127.0.0.1:40002"), id("c"));
        drop(gone);
        for (caller, expected) in [
            ("127.0.0.2:40000", None),
            ("127.0.0.1:40002", None),
            ("[::1]:40000", None),
            ("[::ffff:127.0.0.1]:40000", Some(id("a"))),
            ("127.0.0.1:40000", None),
            ("127.0.0.1:40001", Some(id("b"))),
        ] {
            assert_eq!(other.claim(address(caller)), expected, "{caller}");
        }
        assert!(other.is_empty());
        // The same address again: the end of the first connection is not the end of the second.
        let first = callers.register(address("127.0.0.1:40000"), id("a"));
        assert_eq!(other.claim(address("127.0.0.1:40000")), Some(id("a")));
        let _second = callers.register(address("127.0.0.1:40000"), id("b"));
        drop(first);
        assert_eq!(other.claim(address("127.0.0.1:40000")), Some(id("b")));
    }
}
