//! What the host itself uses: its hosts file and resolv.conf, read again when they change.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use casemate_model::egress::HostName;
use hickory_proto::{op::Query, rr::RecordType};
use hickory_resolver::{Hosts, TokioResolver, lookup::Lookup, net::NetError, system_conf::parse_resolv_conf};
use tokio::time::Instant;

use super::{absolute, build};

/// How often it is looked whether the files have changed.
const LOOK: Duration = Duration::from_secs(5);
/// The longest file that is read.
const LONGEST: u64 = 16 << 20;

/// The host's way of resolving.
pub(super) struct System {
    resolv_conf: PathBuf,
    hosts: PathBuf,
    state: Mutex<Option<(Arc<Current>, Instant)>>,
}

/// The files as they were read.
pub(super) struct Current {
    stamp: Stamp,
    resolver: TokioResolver,
    hosts: Hosts,
}

type Stamp = [Option<(SystemTime, u64)>; 2];

impl Default for System {
    fn default() -> Self {
        Self::at("/etc/resolv.conf".into(), "/etc/hosts".into())
    }
}

impl System {
    pub(super) fn at(resolv_conf: PathBuf, hosts: PathBuf) -> Self {
        Self { resolv_conf, hosts, state: Mutex::default() }
    }

    /// The files as they are, or were five seconds ago.
    pub(super) fn current(&self) -> Result<Arc<Current>, NetError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some((current, at)) = &mut *state {
            if now.saturating_duration_since(*at) < LOOK {
                return Ok(Arc::clone(current));
            }
            if self.stamp() == current.stamp {
                *at = now;
                return Ok(Arc::clone(current));
            }
        }
        let current = Arc::new(self.read()?);
        *state = Some((Arc::clone(&current), now));
        Ok(current)
    }

    fn stamp(&self) -> Stamp {
        [&self.resolv_conf, &self.hosts].map(|path| {
            let data = std::fs::metadata(path).ok()?;
            Some((data.modified().ok()?, data.len()))
        })
    }

    fn read(&self) -> Result<Current, NetError> {
        let stamp = self.stamp();
        let unreadable =
            |error: &dyn std::fmt::Display| NetError::Msg(format!("{}: {error}", self.resolv_conf.display()));
        let text = read(&self.resolv_conf).map_err(|error| unreadable(&error))?;
        let (config, options) = parse_resolv_conf(text).map_err(|error| unreadable(&error))?;
        let mut hosts = Hosts::default();
        if let Ok(text) = read(&self.hosts) {
            // What is not understood of the file is left out.
            let _ = hosts.read_hosts_conf(text.as_slice());
        }
        Ok(Current { stamp, resolver: build(config, options)?, hosts })
    }
}

impl Current {
    pub(super) fn resolver(&self) -> &TokioResolver {
        &self.resolver
    }

    /// What the hosts file says of a name, if it has it.
    pub(super) fn hosts(&self, name: &HostName) -> Option<Vec<IpAddr>> {
        let name = absolute(name)?;
        let lookup = |kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind));
        let found = [RecordType::A, RecordType::AAAA].map(lookup);
        let addresses = |lookup: &Lookup| lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
        let found: Vec<Vec<IpAddr>> = found.iter().flatten().map(addresses).collect();
        Some(found.concat()).filter(|found| !found.is_empty())
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(LONGEST).read_to_end(&mut text)?;
    Ok(text)
}
