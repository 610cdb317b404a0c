//! Copying bytes both ways: half-closed as the ends are, as fast as the slower one reads, and counted. What comes in small
//! pieces goes through a buffer, and bulk through a pipe.

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncWrite, AsyncWriteExt, Interest},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    time::Instant,
};

use crate::{
    buffers::Buffers,
    pipes::{self, Pipe, Pipes},
};

/// Chunks that one direction copies before other tasks get their turn.
const TURN: u32 = 16;
/// A chunk of so many bytes is followed by more, which go through a pipe.
const BULK: usize = 32 << 10;
/// What a limit of bandwidth lets through at once after a pause.
const BURST: Duration = Duration::from_millis(250);

/// What has gone each way on one connection, in bytes.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    sent: AtomicU64,
    received: AtomicU64,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the sandbox to the destination.
    Out,
    /// From the destination to the sandbox.
    In,
}

impl Flow {
    pub(crate) fn add(&self, way: Way, bytes: usize) {
        let count = match way {
            Way::Out => &self.sent,
            Way::In => &self.received,
        };
        count.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Both ways together: it stands still on an idle connection.
    pub(crate) fn moved(&self) -> u64 {
        self.sent().wrapping_add(self.received())
    }
}

/// A sandbox's limit of bandwidth, shared by its connections.
pub(crate) struct Throttle {
    rate: Option<u64>,
    next: Mutex<Instant>,
}

impl Throttle {
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self { rate: rate.map(|rate| rate.max(1)), next: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` more may go.
    pub(crate) async fn pass(&self, bytes: usize) {
        let Some(rate) = self.rate else { return };
        let now = Instant::now();
        let until = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            *next = (*next).max(earliest) + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *next
        };
        // Even a sleep that is over takes a millisecond.
        if until > now {
            tokio::time::sleep_until(until).await;
        }
    }

    /// How much to read at once: with a limit small pieces, so that every connection gets its turn.
    pub(crate) fn piece(&self, size: usize) -> usize {
        let quarter = self.rate.map_or(u64::MAX, |rate| (rate / 4).max(512));
        size.min(usize::try_from(quarter).unwrap_or(usize::MAX))
    }
}

/// What copying needs besides the two sockets.
#[derive(Clone, Copy)]
pub(crate) struct Means<'a> {
    pub(crate) buffers: &'a Buffers,
    pub(crate) pipes: &'a Pipes,
    pub(crate) throttle: &'a Throttle,
    pub(crate) flow: &'a Flow,
}

impl Means<'_> {
    /// Writes all of `bytes`, counted and within the limit of bandwidth.
    pub(crate) async fn write(&self, way: Way, to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(self.throttle.piece(usize::MAX)) {
            self.throttle.pass(piece.len()).await;
            to.write_all(piece).await?;
            self.flow.add(way, piece.len());
        }
        Ok(())
    }
}

/// Copies until both ends have finished, sending first what has already been read from either.
///
/// # Errors
/// As soon as one end fails; what it was is the other end's to know by a reset.
pub(crate) async fn relay(
    means: Means<'_>,
    client: &mut TcpStream,
    upstream: &mut TcpStream,
    (to_upstream, to_client): (&[u8], &[u8]),
) -> io::Result<()> {
    let (mut from_client, mut client) = client.split();
    let (mut from_upstream, mut upstream) = upstream.split();
    tokio::try_join!(
        async {
            means.write(Way::Out, &mut upstream, to_upstream).await?;
            copy(means, Way::Out, &mut from_client, &mut upstream).await
        },
        async {
            means.write(Way::In, &mut client, to_client).await?;
            copy(means, Way::In, &mut from_upstream, &mut client).await
        },
    )?;
    Ok(())
}

async fn copy(means: Means<'_>, way: Way, from: &mut ReadHalf<'_>, to: &mut WriteHalf<'_>) -> io::Result<()> {
    let mut turn = 0;
    let mut bulk = false;
    loop {
        // Only a stream that has something to copy holds a buffer or a pipe.
        from.readable().await?;
        let pipe = if bulk { means.pipes.take() } else { None };
        let spliced = match pipe {
            Some(pipe) => splice(means, way, pipe, from, to).await?,
            None => 0,
        };
        let moved = match spliced {
            // Whether there is nothing, or more behind urgent data, or nothing ever again, is what reading tells.
            0 => match chunk(means, way, from, to).await {
                Ok(0) => return to.shutdown().await,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                moved => moved?,
            },
            spliced => spliced,
        };
        bulk = moved >= BULK;
        turn += 1;
        if turn % TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Copies what has come, by way of a buffer; 0 at the end.
async fn chunk(means: Means<'_>, way: Way, from: &ReadHalf<'_>, to: &mut WriteHalf<'_>) -> io::Result<usize> {
    let mut buffer = means.buffers.take();
    let size = means.throttle.piece(buffer.bytes().len());
    let count = from.try_read(&mut buffer.bytes()[..size])?;
    means.throttle.pass(count).await;
    to.write_all(&buffer.bytes()[..count]).await?;
    means.flow.add(way, count);
    Ok(count)
}

/// Moves what has come, by way of a pipe; 0 when that is not to be had.
async fn splice(
    means: Means<'_>,
    way: Way,
    mut pipe: Pipe,
    from: &ReadHalf<'_>,
    to: &WriteHalf<'_>,
) -> io::Result<usize> {
    let (from, to): (&TcpStream, &TcpStream) = (from.as_ref(), to.as_ref());
    let most = means.throttle.piece(pipes::CAPACITY);
    let count = pipe.fill(from, most)?;
    means.throttle.pass(count).await;
    while pipe.held() > 0 {
        let gone = to.async_io(Interest::WRITABLE, || pipe.empty(to)).await?;
        means.flow.add(way, gone);
    }
    Ok(count)
}
