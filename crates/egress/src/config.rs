//! What a gateway is given: addresses, limits, and the sockets and the owner of each sandbox.

use std::{net::SocketAddr, os::fd::OwnedFd, path::PathBuf, time::Duration};

use casemate_model::inbound::DeploymentCallers;

/// What holds for a whole gateway.
#[derive(Debug, Clone)]
pub struct EgressConfig {
    /// The name server that is asked for approved names; none: the host's own resolver.
    pub upstream_dns: Option<SocketAddr>,
    /// Where the decision logs lie; made when it does not exist.
    pub log_dir: PathBuf,
    /// The limits of each sandbox.
    pub limits: EgressLimits,
    /// Where the platform itself listens, for names that it answers for (`Route::Private(FrontDoor)`).
    pub front_door: SocketAddr,
    /// Where connections to the front door are announced, so that it knows them for a deployment's.
    pub callers: DeploymentCallers,
}

/// What one sandbox may use. Each sandbox has these to itself: none can use up another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressLimits {
    /// TCP connections at once; more are reset.
    pub connections: usize,
    /// Connections at once that have not yet said who they talk to (part of `connections`); more are reset.
    pub half_open: usize,
    /// Name queries per second, in the long run; more are refused.
    pub dns_per_second: u32,
    /// Name queries that may come at once.
    pub dns_burst: u32,
    /// Names with an address at once; the one that is longest unused makes room.
    pub names: usize,
    /// New names per minute that only a wildcard allows.
    pub new_names_per_minute: u32,
    /// Bytes per second, both directions together; none: as many as there are.
    pub bytes_per_second: Option<u64>,
    /// Time for a client to say whom it talks to: the whole ClientHello, or the head of an HTTP request.
    pub hello_deadline: Duration,
    /// Time to resolve and connect, all addresses of a name together.
    pub connect_timeout: Duration,
    /// A connection on which nothing has moved for so long is reset.
    pub idle_timeout: Duration,
}

impl Default for EgressLimits {
    /// 256 connections, 64 of them half open; 50 queries per second (200 at once), 1024 names, 120 new ones per minute
    /// under wildcards; no limit of bandwidth; 10 s to say whom it talks to, 10 s to connect, an hour idle.
    fn default() -> Self {
        Self {
            connections: 256,
            half_open: 64,
            dns_per_second: 50,
            dns_burst: 200,
            names: 1024,
            new_names_per_minute: 120,
            bytes_per_second: None,
            hello_deadline: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(3600),
        }
    }
}

/// The sockets that were made inside a sandbox's network namespace, before its first process started.
#[derive(Debug)]
pub struct EgressSockets {
    /// Listens for every TCP connection, IPv4 and IPv6; the local address of what it accepts is the destination.
    pub tcp: OwnedFd,
    /// UDP sockets on port 53 of every address, which tell the destination of each packet.
    pub dns: Vec<OwnedFd>,
}

/// Whose sandbox it is: what decisions are recorded under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Resource id whose log it is: the workspace's.
    pub scope: String,
    /// The deployment as `endpoint/deployment`, or the name of the environment that is built.
    pub deployment: String,
    /// Name of the instance.
    pub instance: String,
}
