//! A front door on a free port, models behind it, and callers.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use casemate_identity::TokenAuthority;
use casemate_model::{
    Clock, ResourceId,
    deployment::RequestSettings,
    endpoint::AuthMode,
    inbound::{AllowList, Origin, PrivateListener},
    route::{DeploymentRoute, Dial, EndpointRoute, RouteTable, Upstream, key_digest},
    traffic::{Mirror, TrafficSplit},
};
use casemate_pki::{CertificateAuthority, CertificateMap, CertificateResolver};
use casemate_proxy::{Gateway, GatewayConfig, Listeners};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::{SignedDuration, Timestamp};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

/// Longer than anything here takes on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const KEY: &str = "the-primary-key";
pub const SECOND_KEY: &str = "the-secondary-key";

pub type Body = UnsyncBoxBody<Bytes, io::Error>;

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Ordinary sockets: the models of these tests live in the same network namespace.
struct Loopback;

impl Dial for Loopback {
    fn socket(&self) -> io::Result<OwnedFd> {
        TcpSocket::new_v4()?.as_fd().try_clone_to_owned()
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

pub fn upstream(address: SocketAddr) -> Arc<Upstream> {
    Arc::new(Upstream::new(NEXT_ID.fetch_add(1, Ordering::Relaxed), address, Arc::new(Loopback)))
}

/// A model's HTTP server.
pub struct Model {
    pub upstream: Arc<Upstream>,
    hits: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    /// Stops listening, while connections go on.
    close: CancellationToken,
    _stop: DropGuard,
}

impl Model {
    /// Answers every request by `handler`.
    pub async fn start<H, F>(handler: H) -> Self
    where
        H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<Body>> + Send + 'static,
    {
        let hits = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&hits);
        Self::raw(hits, move |stream| {
            let (handler, counting) = (handler.clone(), Arc::clone(&counting));
            async move {
                let service = service_fn(move |request| {
                    counting.fetch_add(1, Ordering::SeqCst);
                    let answer = handler(request);
                    async move { Ok::<_, Infallible>(answer.await) }
                });
                let server = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                let _ = server.await;
            }
        })
        .await
    }

    /// Handles every connection by `handler`.
    pub async fn tcp<H, F>(handler: H) -> Self
    where
        H: Fn(TcpStream) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::raw(Arc::new(AtomicUsize::new(0)), handler).await
    }

    async fn raw<H, F>(hits: Arc<AtomicUsize>, handler: H) -> Self
    where
        H: Fn(TcpStream) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let upstream = upstream(listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let connections = Arc::new(AtomicUsize::new(0));
        let counting = Arc::clone(&connections);
        let close = stop.child_token();
        let closed = close.clone();
        tokio::spawn(async move {
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    () = closed.cancelled() => return,
                };
                counting.fetch_add(1, Ordering::SeqCst);
                let (handler, stopped) = (handler.clone(), stopped.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = handler(stream) => {}
                        () = stopped.cancelled() => {}
                    }
                });
            }
        });
        Self { upstream, hits, connections, close, _stop: stop.drop_guard() }
    }

    /// Answers every request with `text`, at once.
    pub async fn says(text: &'static str) -> Self {
        Self::start(move |request| async move {
            let _ = request.into_body().collect().await;
            Response::new(full(text))
        })
        .await
    }

    /// Takes no further connection.
    pub fn close(&self) {
        self.close.cancel();
    }

    /// Requests so far.
    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Limits: `concurrent` at once, `wait_ms` in the queue, `timeout_ms` for a request.
pub fn limits(concurrent: u32, wait_ms: i64, timeout_ms: i64) -> RequestSettings {
    RequestSettings {
        request_timeout: SignedDuration::from_millis(timeout_ms),
        max_concurrent_requests_per_instance: concurrent,
        max_queue_wait: SignedDuration::from_millis(wait_ms),
    }
}

/// Limits that no test reaches by chance.
pub fn wide() -> RequestSettings {
    limits(1000, 20_000, 30_000)
}

pub fn deployment(name: &str, settings: RequestSettings, instances: &[&Arc<Upstream>]) -> DeploymentRoute {
    DeploymentRoute {
        name: name.to_owned(),
        limits: settings,
        instances: instances.iter().map(|one| Arc::clone(one)).collect(),
    }
}

/// The id of a workspace.
pub fn workspace(name: &str) -> ResourceId {
    let kind = "Microsoft.MachineLearningServices/workspaces";
    ResourceId::parse(&format!("/subscriptions/s/resourceGroups/g/providers/{kind}/{name}")).unwrap()
}

/// An endpoint with keys, of which the first deployment has all traffic.
pub fn endpoint(name: &str, deployments: Vec<DeploymentRoute>) -> EndpointRoute {
    let first = deployments.first().map(|first| (first.name.clone(), 100));
    EndpointRoute {
        name: name.to_owned(),
        id: format!(
            "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/onlineEndpoints/{name}"
        ),
        workspace: workspace("w"),
        public_access: true,
        allowed_callers: AllowList::default(),
        auth: AuthMode::Key,
        keys: vec![key_digest(KEY.as_bytes()), key_digest(SECOND_KEY.as_bytes())],
        scorers: HashSet::new(),
        traffic: TrafficSplit::new(first.into_iter().collect()).unwrap(),
        mirror: None,
        deployments: deployments.into_iter().map(|one| (one.name.to_lowercase(), Arc::new(one))).collect(),
    }
}

pub fn shares(shares: &[(&str, u64)]) -> BTreeMap<String, u64> {
    shares.iter().map(|(name, share)| ((*name).to_owned(), *share)).collect()
}

pub fn with_traffic(mut route: EndpointRoute, live: &[(&str, u64)], mirror: &[(&str, u64)]) -> EndpointRoute {
    route.traffic = TrafficSplit::new(shares(live)).unwrap();
    route.mirror = Mirror::new(&shares(mirror), &route.traffic).unwrap();
    route
}

pub fn table(endpoints: Vec<EndpointRoute>) -> RouteTable {
    RouteTable {
        endpoints: endpoints
            .into_iter()
            .map(|route| (route.name.to_lowercase(), Arc::new(route)))
            .collect::<HashMap<_, _>>(),
        ..RouteTable::default()
    }
}

/// The host of an endpoint.
pub fn host(endpoint: &str) -> String {
    format!("{endpoint}.local.inference.casemate.internal")
}

/// A running front door. Dropping it stops it.
pub struct Stage {
    pub address: SocketAddr,
    /// Of the plain listener.
    pub plain: SocketAddr,
    pub authority: CertificateAuthority,
    pub certificates: Arc<CertificateResolver>,
    pub tokens: Arc<TokenAuthority>,
    routes: watch::Sender<Arc<RouteTable>>,
    private: watch::Sender<Arc<Vec<Arc<PrivateListener>>>>,
    pub roots: Arc<RootCertStore>,
    pub shutdown: CancellationToken,
    pub served: JoinHandle<io::Result<()>>,
    _stop: DropGuard,
}

impl Stage {
    pub async fn start(table: RouteTable) -> Self {
        Self::start_with(table, |_| {}).await
    }

    pub async fn start_with(table: RouteTable, adjust: impl FnOnce(&mut GatewayConfig)) -> Self {
        Self::start_on("127.0.0.1:0", table, adjust).await
    }

    /// With its public listener at `bind`, which must take connections to 127.0.0.1.
    pub async fn start_on(bind: &str, table: RouteTable, adjust: impl FnOnce(&mut GatewayConfig)) -> Self {
        let (authority, _) = CertificateAuthority::create(Timestamp::now()).unwrap();
        let names = ["*.local.inference.casemate.internal", "localhost", "127.0.0.1"].map(str::to_owned);
        let leaf = authority.issue(&names, Timestamp::now(), Duration::from_secs(3600)).unwrap();
        let served = names[..2].iter().map(|name| (name.clone(), &leaf));
        let resolver = Arc::new(CertificateResolver::new(CertificateMap::new(served, Some(&leaf))));
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.root_pem().as_bytes()).unwrap()).unwrap();
        let key = TokenAuthority::generate_key();
        let tokens =
            TokenAuthority::new(&key, Uuid::new_v4(), "https://localhost".to_owned(), Clock::system()).unwrap();
        let tokens = Arc::new(tokens);
        let (routes, receiver) = watch::channel(Arc::new(table));
        let mut config = GatewayConfig::new("local".to_owned(), "casemate.internal".to_owned());
        adjust(&mut config);
        let management = tower::service_fn(|request: Request<Incoming>| async move {
            let origin = match request.extensions().get() {
                Some(Origin::Public { .. }) => "public".to_owned(),
                Some(Origin::Private { target, .. }) => target.name().to_owned(),
                Some(Origin::Deployment { workspace, public }) => {
                    format!("deployment of {}, public: {}", workspace.name(), public.is_some())
                }
                None => "nowhere".to_owned(),
            };
            let text = format!("management {}", request.uri().path());
            let mut answer = Response::new(Full::new(Bytes::from(text)));
            answer.headers_mut().insert("x-origin", HeaderValue::from_str(&origin).unwrap());
            Ok::<_, Infallible>(answer)
        });
        let gateway = Gateway::new(config, receiver, Arc::clone(&tokens), management);
        let listener = TcpListener::bind(bind).await.unwrap();
        let address = SocketAddr::new([127, 0, 0, 1].into(), listener.local_addr().unwrap().port());
        let shutdown = CancellationToken::new();
        let (private, wanted) = watch::channel(Arc::default());
        let plain_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plain = plain_listener.local_addr().unwrap();
        let listeners = Listeners { public: listener, plain: Some(plain_listener), private: wanted };
        let served = tokio::spawn(gateway.serve(listeners, Arc::clone(&resolver), shutdown.clone()));
        Self {
            address,
            plain,
            authority,
            certificates: resolver,
            tokens,
            routes,
            private,
            roots: Arc::new(roots),
            served,
            _stop: shutdown.clone().drop_guard(),
            shutdown,
        }
    }

    pub fn publish(&self, table: RouteTable) {
        self.routes.send_replace(Arc::new(table));
    }

    /// Makes these the private listeners.
    pub fn open(&self, listeners: Vec<Arc<PrivateListener>>) {
        self.private.send_replace(Arc::new(listeners));
    }

    /// A TLS connection that asks for `name`.
    pub async fn tls(&self, name: &str, alpn: &str) -> io::Result<TlsStream<TcpStream>> {
        self.tls_over(TcpStream::connect(self.address).await?, name, alpn).await
    }

    /// The same over a connection that is open already.
    pub async fn tls_over(&self, stream: TcpStream, name: &str, alpn: &str) -> io::Result<TlsStream<TcpStream>> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// An HTTP/1.1 connection to `name`.
    pub async fn h1(&self, name: &str) -> Caller {
        self.h1_over(self.tls(name, "http/1.1").await.unwrap()).await
    }

    /// An HTTP/1.1 connection to the plain listener.
    pub async fn plainly(&self) -> Caller {
        let stream = TcpStream::connect(self.plain).await.unwrap();
        Caller::h1(http1::handshake(TokioIo::new(stream)).await.unwrap())
    }

    /// HTTP/1.1 over a connection that is open already.
    pub async fn h1_over(&self, stream: TlsStream<TcpStream>) -> Caller {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        Caller::h1((sender, connection))
    }

    /// An HTTP/2 connection to `name`.
    pub async fn h2(&self, name: &str) -> Caller {
        self.h2_over(self.tls(name, "h2").await.unwrap()).await
    }

    /// HTTP/2 over a connection that is open already.
    pub async fn h2_over(&self, stream: TlsStream<TcpStream>) -> Caller {
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        Caller { sender: Sender::H2(sender), task: tokio::spawn(connection) }
    }

    /// One request over a connection of its own, to the host that it names.
    pub async fn call(&self, request: Request<Body>) -> Answer {
        let name = request.headers()["host"].to_str().unwrap().to_owned();
        self.h1(&name).await.call(request).await
    }
}

enum Sender {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
}

/// A client connection.
pub struct Caller {
    sender: Sender,
    task: JoinHandle<hyper::Result<()>>,
}

impl Caller {
    /// A caller over any stream.
    pub fn h1<S>((sender, connection): (http1::SendRequest<Body>, http1::Connection<TokioIo<S>, Body>)) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self { sender: Sender::H1(sender), task: tokio::spawn(connection) }
    }

    /// Sends a request; gives the head of the answer.
    pub async fn send(&mut self, request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::H1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::H2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    /// Sends a request; gives the whole answer.
    pub async fn call(&mut self, request: Request<Body>) -> Answer {
        self.try_call(request).await.unwrap()
    }

    pub async fn try_call(&mut self, request: Request<Body>) -> hyper::Result<Answer> {
        let answer = async {
            let (parts, body) = self.send(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Answer { status: parts.status, headers: parts.headers, body })
        };
        timeout(PATIENCE, answer).await.expect("an answer in time")
    }

    /// Waits until the server has closed the connection.
    pub async fn closed(self) {
        let _ = timeout(PATIENCE, self.task).await.expect("the connection closes in time");
    }

    /// Another handle on an HTTP/2 connection.
    pub fn fork(&self) -> http2::SendRequest<Body> {
        match &self.sender {
            Sender::H2(sender) => sender.clone(),
            Sender::H1(_) => panic!("HTTP/1.1 carries one request at a time"),
        }
    }

    /// Closes the connection at once.
    pub fn abort(self) {
        self.task.abort();
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no header {name} in {self:?}")).to_str().unwrap()
    }

    /// The code of an error answer, whose shape is checked.
    pub fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/json");
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert!(body["error"]["message"].as_str().is_some_and(|message| message.len() > 20), "{body}");
        assert_eq!(self.header("x-ms-request-id"), self.header("x-request-id"));
        body["error"]["code"].as_str().unwrap().to_owned()
    }
}

/// `POST /score` to an endpoint's own host, with the primary key.
pub fn score(endpoint: &str, body: impl Into<Bytes>) -> Request<Body> {
    let mut request = Request::post("/score").body(full(body)).unwrap();
    request.headers_mut().insert("host", HeaderValue::from_str(&host(endpoint)).unwrap());
    request.headers_mut().insert("authorization", HeaderValue::from_str(&format!("Bearer {KEY}")).unwrap());
    request
}

/// The same request with a header more, or in place of another.
pub fn with(mut request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
    request
}

/// The same request without a header.
pub fn without(mut request: Request<Body>, name: &'static str) -> Request<Body> {
    request.headers_mut().remove(name);
    request
}

/// The same request for another path.
pub fn at(mut request: Request<Body>, path: &str) -> Request<Body> {
    *request.uri_mut() = path.parse().unwrap();
    request
}

/// A body of frames that come from a channel.
/// The same request with its host in the target, as HTTP/2 has it.
pub fn to_url(request: Request<Body>) -> Request<Body> {
    let url = format!("https://{}{}", request.headers()["host"].to_str().unwrap(), request.uri());
    at(request, &url)
}

pub fn channel() -> (tokio::sync::mpsc::Sender<Bytes>, Body) {
    let (sender, frames) = tokio::sync::mpsc::channel(1);
    (sender, Frames(frames).boxed_unsync())
}

struct Frames(tokio::sync::mpsc::Receiver<Bytes>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(http_body::Frame::data(bytes))))
    }
}

/// Waits until `done` holds.
pub async fn until(what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}
