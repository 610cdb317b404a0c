//! Real connections through a whole gateway, hostile and not.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Mutex,
};

/// Which loopback addresses stand for which others, on both sides of the gateway.
#[derive(Default)]
pub(crate) struct Map {
    originals: Mutex<HashMap<IpAddr, SocketAddr>>,
    upstreams: Mutex<HashMap<SocketAddr, SocketAddr>>,
}

impl Map {
    pub(crate) fn original(&self, local: SocketAddr) -> SocketAddr {
        self.originals.lock().unwrap().get(&local.ip()).copied().unwrap_or(local)
    }

    pub(crate) fn upstream(&self, address: SocketAddr) -> SocketAddr {
        self.upstreams.lock().unwrap().get(&address).copied().unwrap_or(address)
    }
}
