//! Sockets: UDP and TCP at one address, bounded in connections, time and work in flight.
//!
//! hickory-server's own loops start a task for each packet, take any number of connections and log every question, and
//! a handler does not learn at which address it was asked; so the loops are here, over hickory's messages and names.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    compile::Views,
    handler::{Answer, Transport, answer, slip},
    limit::{Allowance, RateLimit},
    message::MAX_QUERY,
};

/// Connections at one address.
const CONNECTIONS: usize = 256;
/// Connections of one source at one address.
const CONNECTIONS_EACH: usize = 32;
/// The time that a connection may say nothing, or take to say something or to hear it.
const IDLE: Duration = Duration::from_secs(10);
/// The life of a connection.
const LIFE: Duration = Duration::from_secs(120);
/// Packets answered before other work gets its turn.
const BATCH: usize = 64;

/// A bound address.
#[derive(Debug)]
pub(crate) struct Listener {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    local: SocketAddr,
}

/// What the loops work with.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    /// The views, replaced as a whole.
    pub views: watch::Receiver<Arc<Views>>,
    /// Answers per source.
    pub rate: Arc<RateLimit>,
}

impl Listener {
    /// Binds UDP and TCP; with port 0 the two get one free port.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut attempts = if address.port() == 0 { 16 } else { 1 };
        loop {
            attempts -= 1;
            let tcp = TcpListener::bind(address).await?;
            let local = tcp.local_addr()?;
            match UdpSocket::bind(local).await {
                Ok(udp) => return Ok(Self { udp: Arc::new(udp), tcp, local }),
                Err(error) if attempts == 0 => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// The address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Answers until `stop`.
    pub(crate) async fn serve(self, shared: Shared, stop: CancellationToken) {
        let local = self.local.ip();
        tokio::join!(
            udp(self.udp, local, shared.clone(), stop.clone()),
            tcp(self.tcp, local, shared.views, stop.clone()),
        );
    }
}

async fn udp(socket: Arc<UdpSocket>, local: IpAddr, mut shared: Shared, stop: CancellationToken) {
    let mut errands = JoinSet::new();
    let mut buffer = vec![0; MAX_QUERY];
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            ready = socket.readable() => if ready.is_err() { return },
        }
        while errands.try_join_next().is_some() {}
        let views = Arc::clone(&shared.views.borrow_and_update());
        for _ in 0..BATCH {
            let (length, source) = match socket.try_recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP answer to something sent before: no reason to stop.
                Err(_) => continue,
            };
            let packet = buffer.get(..length).unwrap_or_default();
            let answer = match shared.rate.take(source.ip()) {
                Allowance::Answer => answer(&views, packet, source.ip(), local, Transport::Udp),
                Allowance::Slip => slip(packet).map_or(Answer::Silence, Answer::Now),
                Allowance::Drop => Answer::Silence,
            };
            match answer {
                Answer::Silence => {}
                // A full socket buffer is a lost packet, as anywhere on the way; the client asks again.
                Answer::Now(bytes) => drop(socket.try_send_to(&bytes, source)),
                Answer::Later(errand) => {
                    let socket = Arc::clone(&socket);
                    errands.spawn(async move { drop(socket.send_to(&errand.run().await, source).await) });
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn tcp(listener: TcpListener, local: IpAddr, views: watch::Receiver<Arc<Views>>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let each = Arc::new(PerSource::default());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, source)) = accepted else {
            // Out of descriptors, most likely: that passes, and not by asking again at once.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let place = Arc::clone(&places).try_acquire_owned();
        let (Ok(place), Some(seat)) = (place, PerSource::seat(&each, source.ip())) else { continue };
        let views = views.clone();
        connections.spawn(async move {
            // Whatever goes wrong on a connection ends it.
            let _ = timeout(LIFE, connection(stream, source.ip(), local, views)).await;
            drop((place, seat));
        });
    }
}

async fn connection(
    mut stream: TcpStream,
    source: IpAddr,
    local: IpAddr,
    mut views: watch::Receiver<Arc<Views>>,
) -> io::Result<()> {
    let mut buffer = vec![0; MAX_QUERY];
    loop {
        let length = usize::from(timeout(IDLE, stream.read_u16()).await??);
        let Some(packet) = buffer.get_mut(..length) else { return Ok(()) };
        timeout(IDLE, stream.read_exact(packet)).await??;
        let now = Arc::clone(&views.borrow_and_update());
        let bytes = match answer(&now, packet, source, local, Transport::Tcp) {
            Answer::Silence => return Ok(()),
            Answer::Now(bytes) => bytes,
            Answer::Later(errand) => errand.run().await,
        };
        let length = u16::try_from(bytes.len()).unwrap_or_default().to_be_bytes();
        let framed = [length.as_slice(), &bytes].concat();
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

/// Connections by source.
#[derive(Debug, Default)]
struct PerSource(Mutex<HashMap<IpAddr, usize>>);

/// One connection of a source; given back on drop.
struct Seat {
    held: Arc<PerSource>,
    source: IpAddr,
}

impl PerSource {
    fn seat(held: &Arc<Self>, source: IpAddr) -> Option<Seat> {
        let mut counts = held.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(source).or_default();
        if *count >= CONNECTIONS_EACH {
            return None;
        }
        *count += 1;
        Some(Seat { held: Arc::clone(held), source })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.held.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.source);
            }
        }
    }
}
