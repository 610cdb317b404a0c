//! Package indexes and proxies on this machine's loopback interface, as builds see them.
//!
//! A sandbox has a loopback interface of its own, on which nothing listens. The platform stands in there for the services
//! that the operator's settings name, at their own addresses, and relays to the real ones. Nothing else of this machine's
//! loopback interface can be reached.

use std::{io, net::SocketAddr, sync::Arc};

use casemate_sandbox::Sandbox;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};

/// Connections to one service at once; more wait.
const MAX_CONNECTIONS: usize = 64;
/// Bytes that are copied at once, in each direction.
const BUFFER_BYTES: usize = 64 << 10;

/// The services that the platform stands in for in one sandbox. Dropping it ends all connections to them.
pub(super) struct StandIns {
    _serving: JoinSet<()>,
}

impl StandIns {
    /// Listens inside the sandbox at each of these addresses, which are the services' own.
    ///
    /// # Errors
    /// When a socket can't be had.
    pub(super) fn open(sandbox: &Sandbox, services: &[SocketAddr]) -> io::Result<Self> {
        let mut serving = JoinSet::new();
        for service in services {
            let listener = std::net::TcpListener::from(sandbox.listener(*service)?);
            serving.spawn(serve(TcpListener::from_std(listener)?, *service));
        }
        Ok(Self { _serving: serving })
    }
}

async fn serve(listener: TcpListener, service: SocketAddr) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((inside, _)) = listener.accept().await else {
            // Out of descriptors, most likely: others will give some back.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        connections.spawn(async move {
            // Either side's end is the other's; there is nobody to tell of an error.
            let _ = relay(inside, service).await;
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn relay(mut inside: TcpStream, service: SocketAddr) -> io::Result<()> {
    let connected = TcpStream::connect(service).await;
    if connected.is_err() {
        // The client sees at once that nobody is there.
        inside.set_zero_linger()?;
    }
    tokio::io::copy_bidirectional_with_sizes(&mut inside, &mut connected?, BUFFER_BYTES, BUFFER_BYTES).await?;
    Ok(())
}
