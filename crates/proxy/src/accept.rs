//! Listeners: accepting connections, following the tables, and the drain at the end.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use casemate_model::route::RouteTable;
use casemate_pki::CertificateResolver;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::{interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Listeners, Management,
    arrival::Ports,
    connection::Connection,
    doors::{Door, Doors, PrivateListeners, Way},
    score::Shared,
};

/// Pause after a failed accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time for tasks to end once they have been told to.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often kept connections to instances are looked over.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// What every accepting task needs.
pub(crate) struct Hall<M> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) management: M,
    pub(crate) certificates: Arc<CertificateResolver>,
    pub(crate) ports: Ports,
    pub(crate) shutdown: CancellationToken,
    pub(crate) doors: Doors,
}

/// Which listener a connection comes from.
#[derive(Clone, Copy)]
enum Entrance<'a> {
    Public,
    Private(&'a Arc<Door>),
    Plain,
}

/// Serves until `shutdown`, then drains.
pub(crate) async fn serve<M: Management>(
    hall: Hall<M>,
    routes: watch::Receiver<Arc<RouteTable>>,
    listeners: Listeners,
) {
    let hall = Arc::new(hall);
    let mut followers = JoinSet::new();
    follow(&hall.shared, &routes);
    followers.spawn(follow_on(Arc::clone(&hall.shared), routes));
    followers.spawn(keep_doors(Arc::clone(&hall), listeners.private));
    let places = || Arc::new(Semaphore::new(hall.shared.config.max_connections));
    let (public, plain) = (places(), places());
    tokio::join!(accept_on(&hall, &listeners.public, &public, Entrance::Public), async {
        if let Some(listener) = &listeners.plain {
            accept_on(&hall, listener, &plain, Entrance::Plain).await;
        }
    });
    drop((listeners.public, listeners.plain));
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
        () = accept_on(&hall, &socket, &door.places, Entrance::Private(&door)) => {}
    }
}

/// Accepts until the front door closes.
async fn accept_on<M: Management>(
    hall: &Hall<M>,
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    entrance: Entrance<'_>,
) {
    loop {
        let accepted = tokio::select! {
            () = hall.shutdown.cancelled() => return,
            accepted = accept(listener, places) => accepted,
        };
        let found = accepted.and_then(|(stream, caller, place)| {
            let way = match entrance {
                Entrance::Private(door) => Way::Private(Arc::clone(door)),
                Entrance::Public | Entrance::Plain => hall.doors.way(&stream, caller, &hall.shared.config)?,
            };
            Ok((stream, caller, place, way))
        });
        match found {
            Ok((stream, caller, place, way)) if admitted(&hall.shared, &way, caller) => {
                let connection = Connection {
                    shared: Arc::clone(&hall.shared),
                    management: hall.management.clone(),
                    certificates: Arc::clone(&hall.certificates),
                    plain: matches!(entrance, Entrance::Plain),
                    ports: hall.ports,
                    shutdown: hall.shutdown.clone(),
                    caller,
                    way,
                };
                hall.shared.tracker.spawn(connection.run(stream, place));
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
