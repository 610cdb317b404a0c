//! One connection: the TLS handshake, the protocol, idling, its requests.

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

use casemate_pki::{CertificateResolver, Selection, TlsSettings, fatal_alert};
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
use rustls::server::Acceptor;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{
    Management,
    address::Target,
    answer::{GatewayBody, Ids},
    arrival::{Arrival, Ports},
    doors::Way,
    io::StallGuard,
    plain,
    score::{self, Call, Shared},
};

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
pub(crate) struct Connection<M> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) management: M,
    pub(crate) certificates: Arc<CertificateResolver>,
    /// Whether it speaks without TLS.
    pub(crate) plain: bool,
    pub(crate) ports: Ports,
    pub(crate) shutdown: CancellationToken,
    pub(crate) caller: SocketAddr,
    pub(crate) way: Way,
}

impl<M: Management> Connection<M> {
    pub(crate) async fn run(self, stream: TcpStream, _place: OwnedSemaphorePermit) {
        // Without it answers wait for acknowledgements; a connection that can't have it is broken already.
        let _ = stream.set_nodelay(true);
        if self.plain {
            return self.serve(stream, None, None, false).await;
        }
        let handshake = timeout(self.shared.config.handshake_timeout, handshake(&self.certificates, stream));
        let closed = self.way.closed();
        let accepted = tokio::select! {
            accepted = handshake => accepted,
            () = self.shutdown.cancelled() => return,
            () = closed.cancelled() => return,
        };
        match accepted {
            Ok(Ok(Some((stream, settings)))) => {
                let session = stream.get_ref().1;
                let is_http2 = session.alpn_protocol() == Some(b"h2");
                let server_name = session.server_name().map(str::to_owned);
                self.serve(stream, server_name, Some(settings), is_http2).await;
            }
            Ok(Ok(None)) => tracing::debug!(caller = %self.caller, "a challenge was answered"),
            Ok(Err(error)) => tracing::debug!(caller = %self.caller, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(caller = %self.caller, "TLS handshake took too long"),
        }
    }

    async fn serve<S>(self, stream: S, server_name: Option<String>, tls: Option<TlsSettings>, is_http2: bool)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let caller = self.caller.ip().to_canonical().to_string();
        let closed = self.way.closed();
        let origin = self.way.origin(self.caller);
        let arrival = Arrival { origin, tls, certificates: self.certificates, ports: self.ports };
        let peer = Arc::new(Peer {
            server_name,
            caller: HeaderValue::from_str(&caller).expect("an IP address is plain text"),
            arrival: Arc::new(arrival),
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

/// The handshake, with what belongs to the name that the client asks for; none when that was all the client wanted.
async fn handshake(
    certificates: &CertificateResolver,
    stream: TcpStream,
) -> io::Result<Option<(TlsStream<TcpStream>, TlsSettings)>> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let selection = certificates.select(&start.client_hello());
    match selection {
        Selection::Serve { config, settings } => Ok(Some((start.into_stream(config).await?, settings))),
        Selection::Challenge(config) => {
            let mut stream = start.into_stream(config).await?;
            stream.shutdown().await?;
            // The other side closes first, so that it gets to see the whole handshake.
            let _ = stream.read(&mut [0; 1]).await;
            Ok(None)
        }
        Selection::Refuse(alert) => {
            let mut stream = start.io;
            stream.write_all(&fatal_alert(alert)).await?;
            stream.shutdown().await?;
            Err(io::Error::other(format!("answered with the alert {alert:?}")))
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
    /// How its requests arrive.
    arrival: Arc<Arrival>,
    activity: Arc<Activity>,
}

impl<M: Management> Peer<M> {
    async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<GatewayBody<M::Answer>>, Infallible> {
        let busy = self.activity.begin();
        let is_plain = self.arrival.is_plain();
        if is_plain && let Some(answer) = plain::challenge(&self.shared, &self.arrival, &request) {
            return Ok(answer.map(|body| GatewayBody::score(body, busy)));
        }
        let target = self.shared.target(self.server_name.as_deref(), request.uri(), request.headers());
        let refusal = match target {
            Ok(Target::Score { callee, path }) => {
                let arrival = Arc::clone(&self.arrival);
                let call = Call { callee, path, caller: self.caller.clone(), arrival, request };
                return Ok(score::answer(&self.shared, call).await.map(|body| GatewayBody::score(body, busy)));
            }
            Ok(Target::Management) if !is_plain => {
                request.extensions_mut().insert(self.arrival.origin.clone());
                let answer = self.management.clone().oneshot(request).await?;
                return Ok(answer.map(|body| GatewayBody::management(body, busy)));
            }
            Ok(Target::Management) => plain::refuse_management(&self.arrival, &request),
            Err(refusal) => refusal,
        };
        let ids = Ids::new(self.shared.random.guid(), request.headers());
        Ok(refusal.into_answer(&ids).map(|body| GatewayBody::score(body, busy)))
    }
}
