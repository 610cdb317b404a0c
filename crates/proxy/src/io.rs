//! Cuts off a peer that takes nothing of what is sent to it.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

/// A stream whose writes fail when they make no progress for `patience`. Reads are as they were: the phases that read
/// have deadlines of their own.
pub(crate) struct StallGuard<S> {
    stream: S,
    patience: Duration,
    /// Runs while a write is stuck.
    timer: Option<Pin<Box<Sleep>>>,
    stuck: bool,
}

impl<S> StallGuard<S> {
    /// Guards `stream`.
    pub(crate) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, timer: None, stuck: false }
    }

    /// Passes a write's outcome on, or fails it when it has been stuck for too long.
    fn watch<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stuck = false;
            return outcome;
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(self.patience)));
        if !self.stuck {
            self.stuck = true;
            timer.as_mut().reset(Instant::now() + self.patience);
        }
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing of what is sent to it")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallGuard<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallGuard<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, outcome)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stuck_write_fails_and_a_slow_one_does_not() {
        let (near, mut far) = duplex(4);
        let mut near = StallGuard::new(near, Duration::from_secs(10));
        let reader = async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_secs(9)).await;
                far.read_exact(&mut [0_u8; 4]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(near.write_all(&[7; 20]), reader);
        written.unwrap();
        assert_eq!(near.write_all(&[7; 5]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
