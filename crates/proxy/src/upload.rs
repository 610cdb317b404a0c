//! The body of a scoring request on its way to the model: read whole while it is small, streamed when it is not,
//! counted in both cases.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header::EXPECT};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{runtime::Handle, time::timeout};
use tokio_util::task::TaskTracker;

use crate::{BoxError, answer::Refusal};

/// How long the rest of a body that nobody wants is read and thrown away, so that the caller gets to read its answer
/// instead of a reset connection.
const LINGER: Duration = Duration::from_secs(3);
/// How much of it.
const LINGER_BYTES: u64 = 256 * 1024 * 1024;

/// A caller's body. When it is dropped before its end, the rest is read and thrown away within bounds.
pub(crate) struct Inbound {
    body: Option<Incoming>,
    /// The caller sends nothing before it is asked to (`Expect: 100-continue`), and has not been asked yet.
    unasked: bool,
    tracker: TaskTracker,
}

impl Inbound {
    /// Wraps the body of a request with these headers; `tracker` owns the task that reads an unwanted rest.
    pub(crate) fn new(body: Incoming, headers: &HeaderMap, tracker: TaskTracker) -> Self {
        Self { body: Some(body), unasked: headers.contains_key(EXPECT), tracker }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    /// The length that the caller announced, less what has been read.
    fn announced(&self) -> Option<u64> {
        self.body.as_ref().map_or(Some(0), |body| body.size_hint().exact())
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        self.unasked = false;
        loop {
            let Some(body) = &mut self.body else {
                return Poll::Ready(None);
            };
            match ready!(Pin::new(body).poll_frame(cx)) {
                // Trailers stay here: no model's server asks for them.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                end => {
                    self.body = None;
                    return Poll::Ready(end.map(|failed| failed.map(|_| Bytes::new())));
                }
            }
        }
    }

    async fn data(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        std::future::poll_fn(|cx| self.poll_data(cx)).await
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take().filter(|body| !self.unasked && !body.is_end_stream()) else {
            return;
        };
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let rest = async move {
            let mut read = 0;
            while let Some(Ok(frame)) = body.frame().await {
                read += frame.data_ref().map_or(0, |data| data.len() as u64);
                if read > LINGER_BYTES {
                    break;
                }
            }
        };
        self.tracker.spawn_on(timeout(LINGER, rest), &runtime);
    }
}

/// A body that is ready to be sent.
pub(crate) enum Payload {
    /// In memory: it can be sent again.
    Whole(Bytes),
    /// Too large for that.
    Streaming {
        /// What has been read already.
        read: Bytes,
        /// What is still to come.
        rest: Inbound,
        /// How much of it may come.
        limit: u64,
    },
}

/// Reads a body whole if it has at most `whole_up_to` bytes.
///
/// # Errors
/// 413 for more than `limit` bytes, at once when the caller announced them; 408 when the caller takes longer than
/// `patience` to send as much as is read here; 400 when it breaks off.
pub(crate) async fn receive(
    mut inbound: Inbound,
    whole_up_to: usize,
    limit: u64,
    patience: Duration,
) -> Result<Payload, Refusal> {
    let announced = inbound.announced();
    if announced.is_some_and(|bytes| bytes > limit) {
        return Err(Refusal::too_large(limit));
    }
    if inbound.is_end_stream() {
        return Ok(Payload::Whole(Bytes::new()));
    }
    if announced.is_some_and(|bytes| bytes > whole_up_to as u64) {
        return Ok(Payload::Streaming { read: Bytes::new(), rest: inbound, limit });
    }
    let read = timeout(patience, collect(&mut inbound, whole_up_to)).await;
    let read = read.map_err(|_| too_slow(patience))?.map_err(|_| broken_off())?;
    if read.len() as u64 > limit {
        return Err(Refusal::too_large(limit));
    }
    if inbound.is_end_stream() {
        Ok(Payload::Whole(read))
    } else {
        Ok(Payload::Streaming { limit: limit - read.len() as u64, read, rest: inbound })
    }
}

/// Reads to the end or until more than `enough` bytes are there. A body of one piece is not copied.
async fn collect(inbound: &mut Inbound, enough: usize) -> Result<Bytes, hyper::Error> {
    let first = match inbound.data().await {
        Some(first) => first?,
        None => return Ok(Bytes::new()),
    };
    if inbound.is_end_stream() || first.len() > enough {
        return Ok(first);
    }
    let mut all = BytesMut::from(first);
    while all.len() <= enough {
        match inbound.data().await {
            Some(more) => all.extend_from_slice(&more?),
            None => break,
        }
    }
    Ok(all.freeze())
}

fn too_slow(patience: Duration) -> Refusal {
    Refusal::new(
        StatusCode::REQUEST_TIMEOUT,
        "RequestTimeout",
        format!(
            "The body of the request did not arrive within {} s. Send it faster, or less of it.",
            patience.as_secs()
        ),
    )
}

/// 400 for a body that ends before its end; the caller is most likely gone.
pub(crate) fn broken_off() -> Refusal {
    Refusal::bad_request("The body of the request ended before its announced end.")
}

/// What became of a body that was streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Sent, or still being sent.
    Good,
    /// It passed the limit.
    TooLarge,
    /// The caller broke off.
    BrokenOff,
}

/// Tells what became of an [`Upload`] that the connection has taken.
#[derive(Clone, Default)]
pub(crate) struct Report(Arc<AtomicU8>);

impl Report {
    /// What is known now.
    pub(crate) fn outcome(&self) -> Outcome {
        match self.0.load(Ordering::Acquire) {
            1 => Outcome::TooLarge,
            2 => Outcome::BrokenOff,
            _ => Outcome::Good,
        }
    }
}

/// A body on the wire to the model.
pub(crate) enum Upload {
    /// From memory.
    Whole(Option<Bytes>),
    /// As it comes.
    Streaming {
        /// What has been read already.
        read: Bytes,
        /// What is still to come.
        rest: Inbound,
        /// How much of it may come.
        limit: u64,
        /// Where the outcome is told.
        report: Report,
    },
}

impl Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Whole(bytes) => {
                Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Streaming { read, rest, limit, report } => {
                if !read.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(std::mem::take(read)))));
                }
                match ready!(rest.poll_data(cx)) {
                    Some(Ok(data)) if data.len() as u64 <= *limit => {
                        *limit -= data.len() as u64;
                        Poll::Ready(Some(Ok(Frame::data(data))))
                    }
                    Some(Ok(_)) => {
                        report.0.store(1, Ordering::Release);
                        Poll::Ready(Some(Err("the body is over the limit".into())))
                    }
                    Some(Err(error)) => {
                        report.0.store(2, Ordering::Release);
                        Poll::Ready(Some(Err(error.into())))
                    }
                    None => Poll::Ready(None),
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Self::Streaming { read, rest, .. } => read.is_empty() && rest.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Streaming { read, rest, .. } => match rest.announced() {
                Some(rest) => SizeHint::with_exact(rest.saturating_add(read.len() as u64)),
                None => SizeHint::default(),
            },
        }
    }
}
