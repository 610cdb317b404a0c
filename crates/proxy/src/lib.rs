//! The front door's data plane: TLS in, the right model process out, and everything else to the management service.
//!
//! # The phases of a request
//!
//! 1. **accept** (`accept`, `doors`): a connection takes one of a bounded number of places. The listener says where its
//!    requests come from; who may not call there is closed before a byte is exchanged.
//! 2. **TLS** (`connection`): handshake in bounded time; certificate, oldest version and client certificates by server
//!    name; HTTP/2 or HTTP/1.1 by ALPN. The plain port (`plain`) goes without.
//! 3. **address** (`address`): `Host` must agree with the TLS server name (421); it and the path say whether this is
//!    a scoring request and for which endpoint or service. All other requests go to the management service as they are.
//! 4. **lookup** (`snapshot`): the endpoint in the last published table (404), whether this way in leads to it (403),
//!    and whether the connection has the TLS settings of its name (421), before anything is asked about the caller's
//!    credentials.
//! 5. **auth** (`auth`): key, endpoint token or identity token (401, 403).
//! 6. **split** (`split`): the deployment named by the header, else one drawn by weight (404).
//! 7. **upload** (`upload`): small bodies are read whole, large ones stream; the size limit holds for both (413).
//! 8. **mirror** (`mirror`): a copy for the mirror target, which the caller never waits for.
//! 9. **queue** (`queue`): a place at the least loaded ready instance, in order of arrival (429, 503).
//! 10. **forward** (`forward`, `pool`): over a kept or new connection into the instance's network namespace (408, 424).
//! 11. **answer** (`answer`): the model's answer, small ones whole, large ones streamed with bounded memory.
//!
//! # What this room refuses to do
//!
//! It reads no database and no file. It never waits for a lock that is shared between deployments: routes come from an
//! immutable snapshot behind an atomic pointer, so a stalled reconciler or store never stops traffic. It forwards no
//! credentials to a model. It follows no redirect.

mod accept;
mod address;
mod answer;
mod arrival;
mod auth;
mod connection;
mod doors;
mod forward;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod io;
mod mirror;
mod plain;
mod pool;
mod queue;
mod random;
mod score;
mod snapshot;
mod split;
mod upload;

use std::{convert::Infallible, error::Error, io::Result as IoResult, sync::Arc, time::Duration};

use bytes::Bytes;
use casemate_identity::TokenAuthority;
use casemate_model::{
    inbound::{AllowList, DeploymentCallers},
    route::RouteTable,
};
use casemate_pki::CertificateResolver;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;
use tower::Service;

pub use crate::doors::PrivateListeners;
use crate::{accept::Hall, arrival::Ports, doors::Doors, score::Shared};

/// Any error, as bodies and services give it.
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// Names and limits of the front door. [`GatewayConfig::new`] gives the documented limits.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// The region: scoring hosts are `<endpoint>.<region>.inference.<domain>`.
    pub region: String,
    /// The platform's DNS domain.
    pub domain: String,
    /// Largest body of a scoring request, in bytes. Management requests have limits of their own.
    pub max_body_bytes: u64,
    /// Connections served at once; further ones wait in the kernel's queue.
    pub max_connections: usize,
    /// The same for each private listener, which nobody else can fill.
    pub max_private_connections: usize,
    /// From where callers may connect to public listeners. Others are closed before the TLS handshake.
    pub allow_from: AllowList,
    /// The connections of the platform's own deployments, which may come from anywhere.
    pub deployments: DeploymentCallers,
    /// Longest time for a TLS handshake.
    pub handshake_timeout: Duration,
    /// Longest time for an idle connection, for the head of a request, and for a peer that takes nothing of what is
    /// sent to it.
    pub idle_timeout: Duration,
    /// Longest time that requests in flight get when the front door closes.
    pub drain_timeout: Duration,
}

impl GatewayConfig {
    /// The limits: bodies of 100 MiB, 10,000 connections (2,000 at a private listener), callers from
    /// everywhere, 10 s for a handshake, 75 s idle, 30 s to drain.
    #[must_use]
    pub fn new(region: String, domain: String) -> Self {
        Self {
            region,
            domain,
            max_body_bytes: 100 * 1024 * 1024,
            max_connections: 10_000,
            max_private_connections: 2_000,
            allow_from: AllowList::default(),
            deployments: DeploymentCallers::default(),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// What answers the requests that are not scoring requests; an `axum::Router` is one.
pub trait Management:
    Service<Request<Incoming>, Response = Response<Self::Answer>, Error = Infallible, Future: Send + 'static>
    + Clone
    + Send
    + Sync
    + 'static
{
    /// The body of its answers.
    type Answer: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static;
}

impl<M, B> Management for M
where
    M: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    type Answer = B;
}

/// Where the front door is open.
pub struct Listeners {
    /// TLS, for everybody whom the allow-list admits.
    pub public: TcpListener,
    /// HTTP/1.1 without TLS, for the same callers: answers to ACME challenges, and first-generation services that are
    /// open without TLS; never the management service. It has as many places for connections as the public listener.
    pub plain: Option<TcpListener>,
    /// TLS, one for each address of a private endpoint.
    pub private: PrivateListeners,
}

/// The front door: scoring and management over TLS, and a plain port for the little that needs one.
pub struct Gateway<M> {
    shared: Arc<Shared>,
    routes: watch::Receiver<Arc<RouteTable>>,
    management: M,
}

impl<M: Management> Gateway<M> {
    /// A front door that serves the tables that appear on `routes` and hands all other requests to `management`.
    pub fn new(
        config: GatewayConfig,
        routes: watch::Receiver<Arc<RouteTable>>,
        tokens: Arc<TokenAuthority>,
        management: M,
    ) -> Self {
        Self { shared: Shared::new(config, tokens), routes, management }
    }

    /// Serves `listeners` until `shutdown`; then drains: no new connections, idle ones close, requests in flight finish
    /// within the drain timeout. If the tables stop coming, the last one is served on. A private listener that is no
    /// longer wanted is closed at once, and its connections are cut.
    ///
    /// # Errors
    /// None today after the start: a failing accept is logged and tried again, since one bad connection must not
    /// close the front door.
    pub async fn serve(
        self,
        listeners: Listeners,
        certificates: Arc<CertificateResolver>,
        shutdown: CancellationToken,
    ) -> IoResult<()> {
        let plain = listeners.plain.as_ref().map(TcpListener::local_addr).transpose()?;
        let ports = Ports { tls: listeners.public.local_addr()?.port(), plain: plain.map(|address| address.port()) };
        let hall = Hall {
            shared: self.shared,
            management: self.management,
            certificates,
            ports,
            shutdown,
            doors: Doors::default(),
        };
        accept::serve(hall, self.routes, listeners).await;
        Ok(())
    }
}
