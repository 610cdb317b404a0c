//! Asking other servers on behalf of a virtual network's client.
//!
//! Each set of servers has its own cache and its own limit of questions in flight, so that one that hangs takes nothing
//! from the others. Answers are matched with the question by id, port, name and type (hickory-resolver does that).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hickory_proto::{
    op::ResponseCode,
    rr::{Name, Record, RecordType},
};
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Questions in flight to one set of servers; more are refused at once.
const IN_FLIGHT: usize = 64;
/// Answers kept for one set of servers.
const CACHED: u64 = 2048;
/// No answer is kept longer, whatever its server says.
const LONGEST: Duration = Duration::from_secs(3600);
/// One question to one server.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// The whole of it, all servers and attempts.
const DEADLINE: Duration = Duration::from_secs(4);

/// One set of servers that answer for others.
pub(crate) struct Upstream {
    servers: Vec<SocketAddr>,
    resolver: Option<TokioResolver>,
    in_flight: Arc<Semaphore>,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Upstream").field(&self.servers).finish()
    }
}

/// What another server said.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Heard {
    /// The response code.
    pub code: ResponseCode,
    /// The answer section.
    pub answers: Vec<Record>,
    /// The SOA of a negative answer.
    pub authority: Vec<Record>,
}

impl Upstream {
    /// A set of servers, asked over UDP and, for long answers, over TCP.
    pub(crate) fn new(servers: &[SocketAddr]) -> Self {
        let config = servers.iter().map(|server| {
            let port = |mut connection: ConnectionConfig| {
                connection.port = server.port();
                connection
            };
            let connections = vec![port(ConnectionConfig::udp()), port(ConnectionConfig::tcp())];
            NameServerConfig::new(server.ip(), true, connections)
        });
        let config = ResolverConfig::from_parts(None, Vec::new(), config.collect());
        let mut options = ResolverOpts::default();
        options.timeout = ATTEMPT;
        options.attempts = 1;
        options.cache_size = CACHED;
        options.use_hosts_file = ResolveHosts::Never;
        options.positive_max_ttl = Some(LONGEST);
        options.negative_max_ttl = Some(Duration::from_secs(300));
        options.case_randomization = false;
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let resolver = match builder.build() {
            Ok(resolver) => Some(resolver),
            Err(error) => {
                tracing::warn!(%error, ?servers, "the DNS servers to forward to can't be used");
                None
            }
        };
        Self { servers: servers.to_vec(), resolver, in_flight: Arc::new(Semaphore::new(IN_FLIGHT)) }
    }

    #[cfg(test)]
    pub(crate) fn servers(&self) -> &[SocketAddr] {
        &self.servers
    }

    /// A place among the questions in flight, if there is one.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.in_flight).try_acquire_owned().ok()
    }

    /// Asks; `SERVFAIL` when nobody answers in time.
    pub(crate) async fn ask(&self, name: Name, kind: RecordType) -> Heard {
        let failed = Heard { code: ResponseCode::ServFail, ..Heard::default() };
        let Some(resolver) = &self.resolver else { return failed };
        let answer = tokio::time::timeout(DEADLINE, resolver.lookup(name, kind)).await;
        match answer {
            Ok(Ok(lookup)) => Heard { answers: lookup.answers().to_vec(), ..Heard::default() },
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(nothing)))) => {
                let code = match nothing.response_code {
                    ResponseCode::NXDomain => ResponseCode::NXDomain,
                    ResponseCode::NoError => ResponseCode::NoError,
                    _ => return failed,
                };
                let authority = nothing.soa.map(|soa| soa.into_record_of_rdata());
                Heard { code, authority: authority.into_iter().collect(), ..Heard::default() }
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, servers = ?self.servers, "a forwarded question failed");
                failed
            }
            Err(_) => {
                tracing::debug!(servers = ?self.servers, "a forwarded question was not answered in time");
                failed
            }
        }
    }
}
