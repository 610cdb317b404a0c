//! Connections to one instance: made through its network namespace, kept for the next request, dropped with it.
//!
//! A connection is driven by the request that uses it, so that a request is one task from the caller's bytes to the
//! model's and back. While kept, nobody drives it: whether the model has closed it shows when it is next taken.

use std::{
    future::poll_fn,
    io,
    net::TcpStream as StdTcpStream,
    pin::{Pin, pin},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use casemate_model::route::Upstream;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpSocket, TcpStream},
    time::Instant,
};

use crate::upload::Upload;

/// Shelves of kept connections; each is only ever tried, never waited for.
const SHELVES: usize = 4;
/// Kept connections per shelf.
const SHELF_LENGTH: usize = 16;
/// How long a connection is kept.
const KEEP_FOR: Duration = Duration::from_secs(15);

/// The kept connections of one instance.
#[derive(Default)]
pub(crate) struct Pool {
    shelves: [Mutex<Vec<Kept>>; SHELVES],
    /// Where the next connection goes.
    turn: AtomicUsize,
}

struct Kept {
    link: Link,
    since: Instant,
}

impl Pool {
    /// A kept connection that is still open, the one used last first.
    pub(crate) async fn take(&self) -> Option<Link> {
        let start = self.turn.load(Ordering::Relaxed);
        for step in 0..SHELVES {
            while let Some(mut kept) = self.pop(start.wrapping_sub(step)) {
                if kept.since.elapsed() < KEEP_FOR && kept.link.ready().await {
                    return Some(kept.link);
                }
            }
        }
        None
    }

    fn pop(&self, at: usize) -> Option<Kept> {
        self.shelves[at % SHELVES].try_lock().ok()?.pop()
    }

    /// Keeps a connection if it is good for another request and there is room.
    pub(crate) async fn put(&self, mut link: Link) {
        if !link.ready().await {
            return;
        }
        let at = self.turn.load(Ordering::Relaxed);
        let mut kept = Some(Kept { link, since: Instant::now() });
        for step in 0..SHELVES {
            let Ok(mut shelf) = self.shelves[at.wrapping_add(step) % SHELVES].try_lock() else {
                continue;
            };
            if shelf.len() < SHELF_LENGTH
                && let Some(kept) = kept.take()
            {
                shelf.push(kept);
                return;
            }
        }
        // Dropping it here closes it.
        drop(kept);
    }

    /// Closes connections that have been kept for too long.
    pub(crate) fn sweep(&self) {
        for shelf in &self.shelves {
            if let Ok(mut shelf) = shelf.try_lock() {
                shelf.retain(|kept| kept.since.elapsed() < KEEP_FOR);
            }
        }
    }
}

/// One HTTP/1.1 connection to an instance, with what drives it.
pub(crate) struct Link {
    sender: SendRequest<Upload>,
    driver: Driver,
}

/// What moves bytes between the socket and the request, until the connection has ended.
type Driver = Option<Pin<Box<Connection<TokioIo<TcpStream>, Upload>>>>;

/// Why there was no answer on a connection.
pub(crate) struct Broken {
    /// Nothing of the request was sent, so the model knows nothing of it.
    pub(crate) unsent: bool,
    pub(crate) error: hyper::Error,
}

impl Link {
    /// Connects to an instance.
    ///
    /// # Errors
    /// When the instance is gone or does not take the connection.
    pub(crate) async fn open(upstream: &Upstream) -> io::Result<Self> {
        let socket = TcpSocket::from_std_stream(StdTcpStream::from(upstream.dial.socket()?));
        let stream = socket.connect(upstream.address).await?;
        stream.set_nodelay(true)?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        Ok(Self { sender, driver: Some(Box::pin(driver)) })
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// When the connection ends or what comes back is not HTTP.
    pub(crate) async fn send(&mut self, request: Request<Upload>) -> Result<Response<Incoming>, Broken> {
        let mut answer = pin!(self.sender.try_send_request(request));
        let driver = &mut self.driver;
        let answer = poll_fn(|cx| {
            // The driver's own end shows in the answer, which then comes at once or never.
            drive(driver, cx);
            answer.as_mut().poll(cx)
        });
        answer
            .await
            .map_err(|mut failed| Broken { unsent: failed.take_message().is_some(), error: failed.into_error() })
    }

    /// Drives the connection while `body` is asked for its next frame.
    pub(crate) fn poll_body<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        drive(&mut self.driver, cx);
        poll(cx)
    }

    /// Whether the connection can take another request now.
    async fn ready(&mut self) -> bool {
        poll_fn(|cx| {
            drive(&mut self.driver, cx);
            Poll::Ready(self.driver.is_some() && self.sender.is_ready())
        })
        .await
    }
}

fn drive(driver: &mut Driver, cx: &mut Context<'_>) {
    if let Some(running) = driver
        && running.as_mut().poll(cx).is_ready()
    {
        *driver = None;
    }
}
