//! Dialling: the addresses of an approved destination, checked by the route, tried in turn.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    time::Duration,
};

use casemate_model::{
    egress::{EgressPolicy, HostName, PrivateDestination, Route},
    inbound::DeploymentCaller,
};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::{attach::Sandbox, stream::Destination};

/// Addresses of one name that are tried at most.
const TRIED: usize = 8;
/// How long one address is tried alone before the next one is tried beside it (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);

/// A connection that was made, and the address it leads to.
pub(crate) struct Dialled {
    /// What the front door knows it by, until it has accepted it. Goes before the stream, whose address is free then.
    _caller: Option<DeploymentCaller>,
    pub(crate) stream: TcpStream,
    pub(crate) address: SocketAddr,
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum DialError {
    /// The name leads to no address that the route means: a refusal.
    Refused { address: Option<IpAddr>, reason: String },
    /// It is approved, but cannot be reached.
    Failed { address: Option<IpAddr>, reason: String },
}

/// Resolves, checks and connects, within the sandbox's time limit.
pub(crate) async fn dial(sandbox: &Sandbox, destination: &Destination, route: &Route) -> Result<Dialled, DialError> {
    let limit = sandbox.limits.connect_timeout;
    match tokio::time::timeout(limit, attempt(sandbox, destination, route)).await {
        Ok(result) => result,
        Err(_) => {
            let reason = format!("It is approved, but did not answer within {} s.", limit.as_secs());
            Err(DialError::Failed { address: None, reason })
        }
    }
}

async fn attempt(sandbox: &Sandbox, destination: &Destination, route: &Route) -> Result<Dialled, DialError> {
    let addresses = match route {
        Route::Private(PrivateDestination::FrontDoor) => return front_door(sandbox).await,
        _ => {
            let found = find(sandbox, destination, route).await?;
            let policy = sandbox.policy();
            let admitted = policy.admit(route, &found);
            if let Some(reason) = admitted.refusal(&destination.shown()) {
                return Err(DialError::Refused { address: found.first().copied(), reason });
            }
            admitted.addresses.into_iter().map(|address| SocketAddr::new(address, destination.port)).collect()
        }
    };
    connect(sandbox, &in_turns(addresses)).await
}

/// A connection to the front door that it knows for one of the workspace's deployments: its source address is announced
/// before it is opened.
async fn front_door(sandbox: &Sandbox) -> Result<Dialled, DialError> {
    let address = sandbox.front_door;
    let wire = sandbox.wire.to_upstream(address);
    let open = async {
        let socket = if wire.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
        socket.bind(SocketAddr::new(wire.ip(), 0))?;
        let local = socket.local_addr()?;
        let mut connecting = pin!(socket.connect(wire));
        // Dropped before the socket when this is cancelled.
        let caller = sandbox.workspace.clone().map(|workspace| sandbox.callers.register(local, workspace));
        let stream = connecting.as_mut().await?;
        Ok((caller, stream))
    };
    match open.await {
        Ok((caller, stream)) => Ok(Dialled { _caller: caller, stream, address }),
        Err(error) => Err(unreachable(address, &error)),
    }
}

fn unreachable(address: SocketAddr, error: &io::Error) -> DialError {
    let reason = format!("It is approved, but {address} cannot be reached: {error}.");
    DialError::Failed { address: Some(address.ip()), reason }
}

/// The addresses that the destination has, unchecked.
async fn find(sandbox: &Sandbox, destination: &Destination, route: &Route) -> Result<Vec<IpAddr>, DialError> {
    let name: &HostName = match (route, &destination.name) {
        (Route::Private(PrivateDestination::Address(address)), _) => return Ok(vec![*address]),
        (Route::Private(PrivateDestination::Name(name)), _) => name,
        (_, Some(name)) => name,
        (_, None) => return Ok(vec![destination.address]),
    };
    let found = sandbox.resolver.addresses(name).await;
    found.map_err(|error| DialError::Failed { address: None, reason: format!("It is approved, but {error}") })
}

/// Whether a stream that leads to `address` is still what `route` means.
pub(crate) fn still_leads_to(
    policy: &EgressPolicy,
    route: &Route,
    was: &Route,
    address: SocketAddr,
    front_door: SocketAddr,
) -> bool {
    match route {
        Route::Private(PrivateDestination::FrontDoor) => address == front_door,
        // What the name resolves to now need not be what it was: the same rule is the same destination.
        Route::Private(PrivateDestination::Name(_)) => {
            route == was && !policy.admit(route, &[address.ip()]).addresses.is_empty()
        }
        _ => !policy.admit(route, &[address.ip()]).addresses.is_empty(),
    }
}

/// IPv6 and IPv4 in turns, beginning with the family of the first address.
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut turns = Vec::new();
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let pair = (first.next(), second.next());
        turns.extend(pair.0);
        turns.extend(pair.1);
        if pair == (None, None) {
            break;
        }
    }
    turns.truncate(TRIED);
    turns
}

/// The first address that answers.
async fn connect(sandbox: &Sandbox, addresses: &[SocketAddr]) -> Result<Dialled, DialError> {
    let open = |address: SocketAddr| {
        let wire = sandbox.wire.to_upstream(address);
        async move { (address, TcpStream::connect(wire).await) }
    };
    let failed = |failure: Option<(SocketAddr, io::Error)>| match failure {
        Some((address, error)) => unreachable(address, &error),
        None => DialError::Failed { address: None, reason: "It is approved, but has no address.".to_owned() },
    };
    if let [only] = addresses {
        let (address, opened) = open(*only).await;
        return match opened {
            Ok(stream) => Ok(Dialled { _caller: None, stream, address }),
            Err(error) => Err(failed(Some((address, error)))),
        };
    }
    let mut waiting = addresses.iter().copied();
    let mut attempts = JoinSet::new();
    let mut next = |attempts: &mut JoinSet<_>| waiting.next().map(|address| attempts.spawn(open(address))).is_some();
    let mut more = next(&mut attempts);
    let mut failure = None;
    loop {
        tokio::select! {
            biased;
            Some(done) = attempts.join_next() => match done {
                Ok((address, Ok(stream))) => return Ok(Dialled { _caller: None, stream, address }),
                Ok((address, Err(error))) => {
                    failure.get_or_insert((address, error));
                    more = next(&mut attempts);
                }
                // Attempts are not cancelled before this ends, and connecting does not panic.
                Err(_) => {}
            },
            () = tokio::time::sleep(HEAD_START), if more => more = next(&mut attempts),
            else => return Err(failed(failure)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let parse =
            |list: &str| -> Vec<SocketAddr> { list.split_whitespace().map(|text| text.parse().unwrap()).collect() };
        for (addresses, turns) in [
            ("", ""),
            ("1.1.1.1:1", "1.1.1.1:1"),
            ("1.1.1.1:1 2.2.2.2:1 [::1]:1", "1.1.1.1:1 [::1]:1 2.2.2.2:1"),
            ("[::1]:1 [::2]:1 [::3]:1 1.1.1.1:1", "[::1]:1 1.1.1.1:1 [::2]:1 [::3]:1"),
        ] {
            assert_eq!(in_turns(parse(addresses)), parse(turns), "{addresses}");
        }
        let many: Vec<SocketAddr> = (0..99).map(|port| SocketAddr::from(([1, 1, 1, 1], port))).collect();
        assert_eq!(in_turns(many).len(), TRIED);
    }
}
