//! Sockets that live inside a sandbox's network. One thread makes them all: it enters the sandbox's network namespace,
//! creates the socket and steps back into an empty namespace of its own, never into the host's. A failed step thus
//! yields no socket rather than one in the wrong network, and no dead sandbox's namespace is kept alive.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};

use crate::egress::EgressSockets;

/// Requests waiting for the thread; more callers wait to ask.
const QUEUE: usize = 64;

/// Connections that wait to be accepted at a listener.
const BACKLOG: i32 = 64;

/// Runs in the asked-for namespace, or learns why the thread could not enter it.
type Job = Box<dyn FnOnce(io::Result<()>) + Send>;

struct Request {
    network: Arc<OwnedFd>,
    job: Job,
}

/// The thread and the way to ask it. Dropping it ends the thread.
pub struct SocketMaker {
    requests: Option<SyncSender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl SocketMaker {
    /// Starts the thread, in its own empty network namespace.
    pub fn start() -> io::Result<Self> {
        let (requests, received) = sync_channel(QUEUE);
        let (ready, is_ready) = sync_channel(1);
        let thread = std::thread::Builder::new().name("sandbox-sockets".into()).spawn(move || {
            let parked = park();
            match parked {
                Ok(parked) => {
                    let _ = ready.send(Ok(()));
                    serve(&parked, &received);
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })?;
        is_ready.recv().unwrap_or_else(|_| Err(gone()))?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }

    /// A non-blocking, close-on-exec IPv4 TCP socket inside `network`.
    pub fn dialer(&self, network: &Arc<OwnedFd>) -> io::Result<OwnedFd> {
        self.make(network, || {
            let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
            Ok(socket(AddressFamily::Inet, SockType::Stream, flags, None)?)
        })
    }

    /// The gateway's sockets inside `network`.
    pub fn egress(&self, network: &Arc<OwnedFd>) -> io::Result<EgressSockets> {
        self.make(network, EgressSockets::open)
    }

    /// A non-blocking, close-on-exec TCP socket that listens at `address` inside `network`.
    pub fn listener(&self, network: &Arc<OwnedFd>, address: SocketAddr) -> io::Result<OwnedFd> {
        self.make(network, move || Ok(listener(address)?))
    }

    fn make<T: Send + 'static>(
        &self,
        network: &Arc<OwnedFd>,
        create: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (answer, answered) = sync_channel(1);
        let job: Job = Box::new(move |entered| {
            // The caller may have given up.
            let _ = answer.send(entered.and_then(|()| create()));
        });
        let request = Request { network: Arc::clone(network), job };
        self.requests.as_ref().ok_or_else(gone)?.send(request).map_err(|_| gone())?;
        answered.recv().unwrap_or_else(|_| Err(gone()))
    }
}

impl Drop for SocketMaker {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // A panic of that thread has been printed; there is nobody else to tell.
            let _ = thread.join();
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that makes sandbox sockets has ended")
}

fn park() -> io::Result<OwnedFd> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    Ok(std::fs::File::open("/proc/thread-self/ns/net")?.into())
}

fn listener(address: SocketAddr) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let listener = socket(family, SockType::Stream, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, None)?;
    if address.is_ipv6() {
        setsockopt(&listener, sockopt::Ipv6V6Only, &true)?;
    }
    bind(listener.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&listener, Backlog::new(BACKLOG)?)?;
    Ok(listener)
}

fn serve(parked: &OwnedFd, requests: &Receiver<Request>) {
    while let Ok(Request { network, job }) = requests.recv() {
        job(setns(network.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from));
        if setns(parked.as_fd(), CloneFlags::CLONE_NEWNET).is_err() {
            // Staying would hold the wrong namespace; later callers learn that the thread has ended.
            return;
        }
    }
}
