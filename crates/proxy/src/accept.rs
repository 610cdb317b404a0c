//! Connections: accepting, the TLS handshake, the protocol, idling, and the drain at the end.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use casemate_model::{inbound::Origin, route::RouteTable};
use http::{
    HeaderMap, HeaderValue, Request, Response,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING},
};
use hyper::{
    body::Incoming,
    rt::Executor,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{Instant, interval, sleep, sleep_until, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{
    Management,
    address::Target,
    answer::{GatewayBody, Ids},
    doors::{Door, Doors, PrivateListeners, Way},
    io::StallGuard,
    score::{self, Call, Shared},
};

/// Pause after a failed accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time for tasks to end once they have been told to.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest head of a request, in bytes.
const HEAD_BYTES: usize = 64 * 1024;
/// Most headers of a request.
const HEADERS: usize = 100;
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 128;
/// Bytes of one HTTP/2 request body on their way, and of all of one connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bodies up to this size arrive with their head, in bytes.
const SURELY_READ: u64 = 4 * 1024;
/// How long a connection without requests may take to close at shutdown: its caller may be asleep, or still be taking
/// the end of an answer.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often an HTTP/2 peer is asked whether it still lives.
const PING_EVERY: Duration = Duration::from_secs(30);
/// How often kept connections to instances are looked over.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// What every accepting task needs.
pub(crate) struct Hall<M> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) management: M,
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) shutdown: CancellationToken,
    doors: Doors,
}

impl<M> Hall<M> {
    pub(crate) fn new(shared: Arc<Shared>, management: M, tls: Arc<ServerConfig>, shutdown: CancellationToken) -> Self {
        Self { shared, management, tls, shutdown, doors: Doors::default() }
    }
}

/// Serves until `shutdown`, then drains.
pub(crate) async fn serve<M: Management>(
    hall: Hall<M>,
    routes: watch::Receiver<Arc<RouteTable>>,
    public: TcpListener,
    private: PrivateListeners,
) {
    let hall = Arc::new(hall);
    let mut followers = JoinSet::new();
    follow(&hall.shared, &routes);
    followers.spawn(follow_on(Arc::clone(&hall.shared), routes));
    followers.spawn(keep_doors(Arc::clone(&hall), private));
    let places = Arc::new(Semaphore::new(hall.shared.config.max_connections));
    accept_on(&hall, &public, &places, None).await;
    drop(public);
    drain(&hall.shared).await;
    followers.shutdown().await;
}

/// Opens and closes private listeners as they are wanted. When no more changes can come, the last ones stay.
async fn keep_doors<M: Management>(hall: Arc<Hall<M>>, mut wanted: PrivateListeners) {
    let mut accepting = JoinSet::new();
    loop {
        let now = Arc::clone(&wanted.borrow_and_update());
        for door in hall.doors.update(&now, hall.shared.config.max_private_connections) {
            match door.socket() {
                Ok(Some(socket)) => _ = accepting.spawn(accept_at(Arc::clone(&hall), door, socket)),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, address = %door.listener.address, "a private listener can't be used");
                }
            }
        }
        while accepting.try_join_next().is_some() {}
        if wanted.changed().await.is_err() {
            while accepting.join_next().await.is_some() {}
            std::future::pending::<()>().await;
        }
    }
}

/// Accepts at one private listener until it is taken away.
async fn accept_at<M: Management>(hall: Arc<Hall<M>>, door: Arc<Door>, socket: TcpListener) {
    tokio::select! {
        () = door.closed.cancelled() => {}
        () = accept_on(&hall, &socket, &door.places, Some(&door)) => {}
    }
}

/// Accepts until the front door closes.
async fn accept_on<M: Management>(
    hall: &Hall<M>,
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    door: Option<&Arc<Door>>,
) {
    let acceptor = TlsAcceptor::from(Arc::clone(&hall.tls));
    loop {
        let accepted = tokio::select! {
            () = hall.shutdown.cancelled() => return,
            accepted = accept(listener, places) => accepted,
        };
        let found = accepted.and_then(|(stream, caller, place)| {
            let way = match door {
                Some(door) => Way::Private(Arc::clone(door)),
                None => hall.doors.way(&stream, caller, &hall.shared.config)?,
            };
            Ok((stream, caller, place, way))
        });
        match found {
            Ok((stream, caller, place, way)) if admitted(&hall.shared, &way, caller) => {
                let connection = Connection {
                    shared: Arc::clone(&hall.shared),
                    management: hall.management.clone(),
                    shutdown: hall.shutdown.clone(),
                    caller,
                    way,
                };
                hall.shared.tracker.spawn(connection.run(acceptor.clone(), stream, place));
            }
            // Closed before a byte is exchanged: who is not admitted learns nothing.
            Ok((_, caller, ..)) => tracing::debug!(%caller, "a connection from an address that may not call"),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether a caller with this address may connect this way.
fn admitted(shared: &Shared, way: &Way, caller: SocketAddr) -> bool {
    match way {
        Way::Public => shared.config.allow_from.admits(caller.ip()),
        Way::Private(door) => door.listener.admits(caller.ip()),
        Way::Deployment { .. } => true,
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, caller) = listener.accept().await?;
    Ok((stream, caller, place))
}

/// Lets what is in flight finish, then ends what is left.
async fn drain(shared: &Shared) {
    shared.tracker.close();
    if timeout(shared.config.drain_timeout, shared.tracker.wait()).await.is_err() {
        tracing::warn!(left = shared.tracker.len(), "connections are cut off at the end of the time to drain");
        shared.abort.cancel();
        if timeout(ABORT_TIMEOUT, shared.tracker.wait()).await.is_err() {
            tracing::error!(left = shared.tracker.len(), "tasks did not end when told to");
        }
    }
}

fn follow(shared: &Shared, routes: &watch::Receiver<Arc<RouteTable>>) {
    let table = Arc::clone(&routes.borrow());
    let next = shared.snapshot.load().next(&table);
    shared.snapshot.store(Arc::new(next));
}

/// Takes over each new table. When no more can come, the last one stays.
async fn follow_on(shared: Arc<Shared>, mut routes: watch::Receiver<Arc<RouteTable>>) {
    let mut sweep = interval(SWEEP_EVERY);
    let mut open = true;
    loop {
        tokio::select! {
            changed = routes.changed(), if open => match changed {
                Ok(()) => follow(&shared, &routes),
                Err(_) => open = false,
            },
            _ = sweep.tick() => {
                let snapshot = shared.snapshot.load_full();
                snapshot.deployments().flat_map(|deployment| deployment.instances()).for_each(|instance| instance.pool.sweep());
            }
        }
    }
}

/// How busy a connection is.
pub(crate) struct Activity {
    busy: AtomicUsize,
    start: Instant,
    /// When the last request ended, in milliseconds after `start`.
    idle_since: AtomicU64,
}

/// Counts a request until its answer's body is gone.
pub(crate) struct Busy(Arc<Activity>);

impl Activity {
    fn new() -> Arc<Self> {
        Arc::new(Self { busy: AtomicUsize::new(0), start: Instant::now(), idle_since: AtomicU64::new(0) })
    }

    fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::AcqRel);
        Busy(Arc::clone(self))
    }

    /// When the connection will have been idle for `patience`, as far as can be said now.
    fn idle_at(&self, patience: Duration) -> Instant {
        if self.busy.load(Ordering::Acquire) > 0 {
            return Instant::now() + patience;
        }
        self.start + Duration::from_millis(self.idle_since.load(Ordering::Acquire)) + patience
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let now = u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.idle_since.store(now, Ordering::Release);
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One accepted connection.
struct Connection<M> {
    shared: Arc<Shared>,
    management: M,
    shutdown: CancellationToken,
    caller: SocketAddr,
    way: Way,
}

impl<M: Management> Connection<M> {
    async fn run(self, acceptor: TlsAcceptor, stream: TcpStream, _place: OwnedSemaphorePermit) {
        // Without it answers wait for acknowledgements; a connection that can't have it is broken already.
        let _ = stream.set_nodelay(true);
        let handshake = timeout(self.shared.config.handshake_timeout, acceptor.accept(stream));
        let closed = self.way.closed();
        let accepted = tokio::select! {
            accepted = handshake => accepted,
            () = self.shutdown.cancelled() => return,
            () = closed.cancelled() => return,
        };
        match accepted {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(error)) => tracing::debug!(caller = %self.caller, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(caller = %self.caller, "TLS handshake took too long"),
        }
    }

    async fn serve(self, stream: TlsStream<TcpStream>) {
        let session = stream.get_ref().1;
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let caller = self.caller.ip().to_canonical().to_string();
        let closed = self.way.closed();
        let peer = Arc::new(Peer {
            server_name: session.server_name().map(str::to_owned),
            caller: HeaderValue::from_str(&caller).expect("an IP address is plain text"),
            origin: Arc::new(self.way.origin(self.caller)),
            shared: Arc::clone(&self.shared),
            management: self.management,
            activity: Activity::new(),
        });
        let stream = TokioIo::new(StallGuard::new(stream, self.shared.config.idle_timeout));
        let answering = Arc::clone(&peer);
        let service = service_fn(move |request: Request<Incoming>| {
            let (peer, long) = (Arc::clone(&answering), !is_http2 && may_stay_unread(request.headers()));
            async move {
                let mut answer = peer.answer(request).await?;
                // The connection ends with a body that nobody read, so callers must not send more on it.
                if long && answer.status().is_client_error() {
                    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(answer)
            }
        });
        if is_http2 {
            let connection = http2_builder(&self.shared).serve_connection(stream, service);
            drive(pin!(connection), &peer, &self.shutdown, &closed, http2::Connection::graceful_shutdown).await;
        } else {
            let connection = http1_builder(&self.shared).serve_connection(stream, service);
            drive(pin!(connection), &peer, &self.shutdown, &closed, http1::Connection::graceful_shutdown).await;
        }
    }
}

/// Whether a request says that its body is longer than what is surely at hand when a refusal goes out.
fn may_stay_unread(headers: &HeaderMap) -> bool {
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length > SURELY_READ)
}

fn http1_builder(shared: &Shared) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // The time for a head starts when the previous answer ends, so this is the time to idle as well.
    builder.timer(TokioTimer::new()).header_read_timeout(shared.config.idle_timeout);
    builder.max_header_size(HEAD_BYTES).max_headers(HEADERS);
    builder
}

fn http2_builder(shared: &Shared) -> http2::Builder<Tracked> {
    let mut builder = http2::Builder::new(Tracked(shared.tracker.clone()));
    builder.timer(TokioTimer::new()).keep_alive_interval(PING_EVERY).keep_alive_timeout(shared.config.idle_timeout);
    builder.max_concurrent_streams(STREAMS).max_header_list_size(HEAD_BYTES as u32);
    builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    builder
}

/// Spawns the tasks of an HTTP/2 connection where they have an owner.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tracked {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

/// Drives a connection to its end; asks it to close when it has been idle for too long, and at shutdown; leaves it where
/// it is when its way in is taken away.
async fn drive<C, M>(
    mut connection: Pin<&mut C>,
    peer: &Peer<M>,
    shutdown: &CancellationToken,
    cut: &CancellationToken,
    close: impl Fn(Pin<&mut C>),
) where
    C: Future<Output = hyper::Result<()>>,
{
    let mut patience = peer.shared.config.idle_timeout;
    // Children, since asking whether a token is cancelled takes its lock: this one is shared with nobody.
    let (shutdown, abort) = (shutdown.child_token(), peer.shared.abort.child_token());
    let mut idle = pin!(sleep_until(peer.activity.idle_at(patience)));
    let (mut closing, mut leaving) = (false, false);
    loop {
        tokio::select! {
            biased;
            () = cut.cancelled() => return,
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(caller = ?peer.caller, %error, "connection ended early");
                }
                return;
            }
            () = shutdown.cancelled(), if !leaving => {
                (closing, leaving, patience) = (true, true, patience.min(FAREWELL));
                close(connection.as_mut());
                idle.as_mut().reset(Instant::now() + patience);
            }
            () = abort.cancelled() => return,
            () = idle.as_mut() => {
                let at = peer.activity.idle_at(patience);
                if at > Instant::now() {
                    idle.as_mut().reset(at);
                } else if closing {
                    return;
                } else {
                    closing = true;
                    close(connection.as_mut());
                    idle.as_mut().reset(Instant::now() + patience);
                }
            }
        }
    }
}

/// What the requests of one connection share.
struct Peer<M> {
    shared: Arc<Shared>,
    management: M,
    /// The name that the TLS client asked for.
    server_name: Option<String>,
    /// The caller's IP address.
    caller: HeaderValue,
    /// Where its requests come from.
    origin: Arc<Origin>,
    activity: Arc<Activity>,
}

impl<M: Management> Peer<M> {
    async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<GatewayBody<M::Answer>>, Infallible> {
        let busy = self.activity.begin();
        let target = self.shared.address.target(self.server_name.as_deref(), request.uri(), request.headers());
        let (endpoint, path) = match target {
            Ok(Target::Score { endpoint, path }) => (endpoint.into_owned(), path),
            Ok(Target::Management) => {
                request.extensions_mut().insert(Origin::clone(&self.origin));
                let answer = self.management.clone().oneshot(request).await?;
                return Ok(answer.map(|body| GatewayBody::management(body, busy)));
            }
            Err(refusal) => {
                let ids = Ids::new(self.shared.random.guid(), request.headers());
                return Ok(refusal.into_answer(&ids).map(|body| GatewayBody::score(body, busy)));
            }
        };
        let call = Call { endpoint, path, caller: self.caller.clone(), origin: Arc::clone(&self.origin), request };
        Ok(score::answer(&self.shared, call).await.map(|body| GatewayBody::score(body, busy)))
    }
}
