//! Looking names up outside, for connections that have been approved.
//!
//! The gateway asks the name server that the operator named, or else whatever the host uses: its hosts file and the
//! servers of its resolv.conf, read again when they change. Answers are believed only so far: they are bounded in number
//! and time, kept for half a minute at most, and every address in them is still to be checked by the route
//! ([`casemate_model::egress::EgressPolicy::admit`]). Nothing is looked up because a sandbox asked for a name, only
//! because it connects.

mod cache;
mod system;
#[cfg(test)]
mod tests;

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use casemate_model::{Fault, FaultKind, egress::HostName};
use hickory_proto::{
    op::ResponseCode,
    rr::{Name, RData, Record, RecordType},
};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
};
use tokio::{sync::Semaphore, time::Instant};

use self::{cache::Cache, system::System};

/// The longest that one lookup takes, waiting for a place included.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a name server may take for one question before it is asked again.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long the addresses of one family wait for those of the other.
const OTHER_FAMILY: Duration = Duration::from_millis(300);
/// Lookups at once of all sandboxes, and of one.
const AT_ONCE: usize = 256;
const AT_ONCE_EACH: usize = 16;
/// Addresses of one name that are looked at.
const MOST_ADDRESSES: usize = 32;
/// Aliases that are followed.
const MOST_ALIASES: usize = 10;
/// Names that are remembered.
const MOST_NAMES: usize = 1024;

/// The way to addresses. A clone shares everything with it.
#[derive(Clone)]
pub(crate) struct Upstream {
    shared: Arc<Shared>,
    /// The places of one sandbox.
    places: Arc<Semaphore>,
}

struct Shared {
    from: Source,
    cache: Cache,
    places: Semaphore,
}

enum Source {
    Server(SocketAddr, Box<TokioResolver>),
    Host(System),
}

/// Why a name has no addresses; each is a clause without a capital or a full stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolveError {
    /// There is no such name, or it has no address.
    #[error("{0} has no address: the name server {1} says that there is none. Check the name's spelling")]
    NotFound(HostName, String),
    /// The answer did not come, or came too late.
    #[error(
        "the name server {1} did not answer for {0} within {limit} s. Check that it can be reached from this machine, \
         or name another by --upstream-dns",
        limit = LIMIT.as_secs()
    )]
    TimedOut(HostName, String),
    /// The server said that it failed, or could not be reached.
    #[error("{0} could not be looked up: the name server {1} failed ({2}). Name another by --upstream-dns if it lasts")]
    Failed(HostName, String, String),
    /// Too many lookups of this sandbox, or of all, are waiting.
    #[error("{0} could not be looked up: too many lookups are waiting for the name server {1}")]
    Busy(HostName, String),
    /// The host has no name server.
    #[error("{0} could not be looked up: this machine names no name server ({1}). Name one by --upstream-dns")]
    NoServer(HostName, String),
}

impl Upstream {
    /// Asks `server` over UDP and TCP, or what the host uses. Nothing is asked yet.
    ///
    /// # Errors
    /// When no resolver can be made for the server.
    pub(crate) fn new(server: Option<SocketAddr>) -> Result<Self, Fault> {
        let from = match server {
            Some(server) => {
                let resolver = asking(server).map_err(|error| unusable(server, &error))?;
                Source::Server(server, Box::new(resolver))
            }
            None => Source::Host(System::default()),
        };
        Ok(Self::from_source(from))
    }

    fn from_source(from: Source) -> Self {
        let shared = Shared { from, cache: Cache::new(MOST_NAMES), places: Semaphore::new(AT_ONCE) };
        Self { shared: Arc::new(shared), places: Arc::new(Semaphore::new(AT_ONCE_EACH)) }
    }

    /// The same for one sandbox, with places of its own: one that looks up what never answers keeps no other waiting.
    pub(crate) fn for_sandbox(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), places: Arc::new(Semaphore::new(AT_ONCE_EACH)) }
    }

    /// The addresses of a name: IPv4 and IPv6, 32 at most, not yet checked against anything.
    ///
    /// # Errors
    /// There are none, or none were found within five seconds.
    pub(crate) async fn addresses(&self, name: &HostName) -> Result<Vec<IpAddr>, ResolveError> {
        let server = || self.shared.from.to_string();
        if let Some(known) = self.shared.cache.get(name) {
            return known.ok_or_else(|| ResolveError::NotFound(name.clone(), server()));
        }
        let deadline = Instant::now() + LIMIT;
        let places = async { (self.places.acquire().await, self.shared.places.acquire().await) };
        let Ok(_places) = tokio::time::timeout_at(deadline, places).await else {
            return Err(ResolveError::Busy(name.clone(), server()));
        };
        let found = tokio::time::timeout_at(deadline, self.look_up(name)).await;
        let (found, keep) = match found {
            Err(_) => return Err(ResolveError::TimedOut(name.clone(), server())),
            Ok(Err(error)) => match self.judge(name, &error) {
                ResolveError::NotFound(..) => (None, cache::NEGATIVE),
                error => return Err(error),
            },
            Ok(Ok((addresses, keep))) => (Some(addresses).filter(|found| !found.is_empty()), keep),
        };
        self.shared.cache.put(name, found.clone(), keep);
        found.ok_or_else(|| ResolveError::NotFound(name.clone(), server()))
    }

    async fn look_up(&self, name: &HostName) -> Result<(Vec<IpAddr>, Duration), NetError> {
        match &self.shared.from {
            Source::Server(_, resolver) => {
                let Some(name) = absolute(name) else { return Err(NetError::Message("the name is too long")) };
                both(|kind| resolver.lookup(name.clone(), kind)).await
            }
            Source::Host(system) => {
                let host = system.current()?;
                if let Some(addresses) = host.hosts(name) {
                    return Ok((addresses, cache::LONGEST));
                }
                // A name of one label is what the host's search list is for.
                let whole = name.labels().count() > 1;
                let relative = || Name::from_ascii(name.as_str()).ok();
                let Some(name) = (if whole { absolute(name) } else { relative() }) else {
                    return Err(NetError::Message("the name is too long"));
                };
                both(|kind| host.resolver().lookup(name.clone(), kind)).await
            }
        }
    }

    fn judge(&self, name: &HostName, error: &NetError) -> ResolveError {
        let (name, server) = (name.clone(), self.shared.from.to_string());
        match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code != ResponseCode::ServFail => {
                ResolveError::NotFound(name, server)
            }
            NetError::Timeout => ResolveError::TimedOut(name, server),
            NetError::Busy => ResolveError::Busy(name, server),
            NetError::Msg(why) if matches!(self.shared.from, Source::Host(_)) => {
                ResolveError::NoServer(name, why.clone())
            }
            error => ResolveError::Failed(name, server, plain(&error.to_string())),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Server(server, _) => write!(f, "{server}"),
            Self::Host(_) => f.write_str("of this machine"),
        }
    }
}

fn unusable(server: SocketAddr, error: &NetError) -> Fault {
    let message = format!(
        "The name server {server} cannot be used: {}. Name another by --upstream-dns.",
        plain(&error.to_string())
    );
    Fault::new(FaultKind::Unavailable, "NameServerUnusable", message)
}

/// A resolver that asks this server, over UDP and for long answers over TCP, and keeps nothing.
fn asking(server: SocketAddr) -> Result<TokioResolver, NetError> {
    let ways = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut way| {
        way.port = server.port();
        way
    });
    let server = NameServerConfig::new(server.ip(), true, ways.into());
    build(ResolverConfig::from_name_servers(vec![server]), ResolverOpts::default())
}

fn build(config: ResolverConfig, mut options: ResolverOpts) -> Result<TokioResolver, NetError> {
    options.timeout = TIMEOUT;
    options.attempts = 1;
    options.cache_size = 0;
    // On one connection of TCP: a sandbox with all its places taken leaves room for others.
    options.max_active_requests = 2 * AT_ONCE;
    options.use_hosts_file = ResolveHosts::Never;
    options.preserve_intermediates = true;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build()
}

fn absolute(name: &HostName) -> Option<Name> {
    let mut name = Name::from_ascii(name.as_str()).ok()?;
    name.set_fqdn(true);
    Some(name)
}

/// Asks for the addresses of both families at once. When one family is there, the other has a moment to follow: servers
/// that never answer for one of them are common.
async fn both<F>(ask: impl Fn(RecordType) -> F) -> Result<(Vec<IpAddr>, Duration), NetError>
where
    F: Future<Output = Result<Lookup, NetError>>,
{
    let (v4, v6) = (ask(RecordType::A), ask(RecordType::AAAA));
    tokio::pin!(v4, v6);
    let (first, second) = tokio::select! {
        first = &mut v4 => match &first {
            Ok(found) if !addresses(found).is_empty() => (first, tokio::time::timeout(OTHER_FAMILY, v6).await.ok()),
            _ => (first, Some(v6.await)),
        },
        first = &mut v6 => match &first {
            Ok(found) if !addresses(found).is_empty() => (first, tokio::time::timeout(OTHER_FAMILY, v4).await.ok()),
            _ => (first, Some(v4.await)),
        },
    };
    let (mut found, mut keep, mut failure, mut none) = (Vec::new(), cache::LONGEST, None, None);
    for lookup in [Some(first), second].into_iter().flatten() {
        match lookup {
            Ok(lookup) => {
                keep = keep.min(lookup.valid_until().saturating_duration_since(std::time::Instant::now()));
                found.extend(addresses(&lookup));
            }
            Err(error) if error.is_no_records_found() => none = Some(error),
            Err(error) => failure = Some(error),
        }
    }
    found.truncate(MOST_ADDRESSES);
    match failure.or(none) {
        // That one family has none says nothing while the other one failed.
        Some(error) if found.is_empty() => Err(error),
        _ => Ok((found, keep)),
    }
}

/// The addresses in an answer that belong to the name that was asked for, or to what it is an alias of. A server can put
/// anything else beside them.
fn addresses(lookup: &Lookup) -> Vec<IpAddr> {
    let mut names = vec![lookup.query().name().clone()];
    let records: &[Record] = lookup.answers();
    for _ in 0..MOST_ALIASES {
        let last = &names[names.len() - 1];
        let alias = records.iter().find_map(|record| match &record.data {
            RData::CNAME(alias) if record.name == *last => Some(alias.0.clone()),
            _ => None,
        });
        match alias {
            Some(alias) if !names.contains(&alias) => names.push(alias),
            _ => break,
        }
    }
    let ours = records.iter().filter(|record| names.contains(&record.name));
    ours.filter_map(|record| record.data.ip_addr()).take(MOST_ADDRESSES / 2).collect()
}

/// A message of another library, short and on one line.
fn plain(message: &str) -> String {
    message.chars().filter(|c| !c.is_control()).take(120).collect()
}
