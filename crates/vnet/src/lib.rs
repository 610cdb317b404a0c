//! Virtual networks on this machine: their addresses, bridges and private listeners.
//!
//! [`VirtualNetworks::run`] makes the networks of the last published [`NetworkSnapshot`] real and keeps them so:
//!
//! - **loopback**: nothing to make, all of 127.0.0.0/8 is this machine's already;
//! - **interface**: the addresses of approved private endpoints are added to the interface, and taken away with them;
//! - **managed**: a bridge per network carries the network's addresses; machines, containers and namespaces attach to it.
//!   Nothing is forwarded for them: they reach each other, private endpoints and the network's names, and no
//!   other service of this machine.
//!
//! and opens a listener at every approved private endpoint's address, which the front door serves.
//!
//! # What this room refuses to do
//!
//! It takes away only what it added: that is written down before it is added (`ledger`), so that a start after
//! `kill -9` knows it again. It never changes the machine's routes, packet rules or forwarding for others, and refuses a
//! network whose addresses the machine reaches elsewhere. What can't be made real, for want of a right or of an
//! interface, fails by itself and by name; everything else goes on.

mod fault;
mod firewall;
mod kernel;
mod ledger;
mod listen;
mod plan;
mod run;
mod sysctl;

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf, sync::Arc};

use casemate_model::{Fault, ResourceId, inbound::PrivateListener, network::NetworkSnapshot};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How each network and private endpoint of a snapshot is: real, or why not. Networks and endpoints that are not in
/// it have not been looked at yet.
pub type Status = BTreeMap<ResourceId, Option<Fault>>;

/// Where things are.
#[derive(Debug, Clone)]
pub struct Config {
    /// The state directory; what was added to the machine is written down in `networks.txt` there.
    pub state_dir: PathBuf,
    /// Where the front door's public listener is. Private listeners have its port, and 443 where they can.
    pub front_door: SocketAddr,
    /// The port at which the networks' names are answered.
    pub dns_port: u16,
}

/// What is published while networks come and go.
#[derive(Debug, Clone)]
pub struct Published {
    /// The listeners that are open. One that stays is the same `Arc`.
    pub listeners: watch::Sender<Arc<Vec<Arc<PrivateListener>>>>,
    /// How everything is.
    pub status: watch::Sender<Arc<Status>>,
}

impl Published {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { listeners: watch::Sender::new(Arc::default()), status: watch::Sender::new(Arc::default()) }
    }
}

impl Default for Published {
    fn default() -> Self {
        Self::new()
    }
}

/// The virtual networks of one platform.
pub struct VirtualNetworks {
    config: Config,
}

impl VirtualNetworks {
    /// Nothing happens before [`VirtualNetworks::run`].
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    /// Makes the networks of each snapshot real, until `shutdown`. Looks again every few seconds, so that what
    /// somebody took away comes back, and what failed for want of an interface works when it is there.
    ///
    /// `snapshot` must hold what is wanted from the beginning: what an earlier run left and it does not name is taken
    /// away at once.
    ///
    /// At the end listeners close and addresses on interfaces are taken away. Bridges that somebody is attached to
    /// stay, so that a restart disconnects nobody; the others go.
    pub async fn run(
        self,
        snapshot: watch::Receiver<Arc<NetworkSnapshot>>,
        published: Published,
        shutdown: CancellationToken,
    ) {
        run::run(self.config, snapshot, published, shutdown).await;
    }
}
