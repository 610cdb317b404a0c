//! Floods: bounded for the sandbox that makes them, unfelt by its neighbours.

use std::time::Duration;

use tokio::net::TcpStream;

use super::{World, is_reset, only, read_some, rule, say, server::Server};
use crate::EgressLimits;

const NAME: &str = "approved.example";

#[tokio::test]
async fn half_hellos_are_bounded_and_neighbours_served() {
    let policy = || only([rule("r", NAME, "443,5432")]);
    let (greedy, neighbour) = (World::new(policy()), World::new(policy()));
    let server = Server::echo().await;
    neighbour.host(NAME, 5432, server.address);
    greedy.host(NAME, 5432, server.address);
    let mut held: Vec<TcpStream> = Vec::new();
    for _ in 0..200 {
        let mut stream = greedy.connect(NAME, 443).await;
        say(&mut stream, &[22, 3, 1]).await;
        held.push(stream);
    }
    let limit = EgressLimits::default().half_open;
    let reset = greedy.refused("have not said whom they talk to").await;
    assert_eq!(reset.port, 443);
    let mut open = 0;
    for stream in &mut held {
        let read = tokio::time::timeout(Duration::from_millis(20), is_reset(stream)).await;
        open += usize::from(read.is_err());
    }
    assert_eq!(open, limit);
    let mut stream = neighbour.connect(NAME, 5432).await;
    say(&mut stream, b"hello").await;
    assert_eq!(read_some(&mut stream, 5).await, b"hello");
    // Room again when they go.
    drop(held);
    for _ in 0..600 {
        let mut stream = greedy.connect(NAME, 5432).await;
        say(&mut stream, b"hello").await;
        if !tokio::time::timeout(Duration::from_millis(50), is_reset(&mut stream)).await.unwrap_or(false) {
            return;
        }
    }
    panic!("there is no room for a new connection");
}

#[tokio::test]
async fn open_connections_are_bounded() {
    let limits = EgressLimits { connections: 3, ..EgressLimits::default() };
    let world = World::with(only([rule("r", NAME, "5432")]), limits, None);
    let server = Server::echo().await;
    world.host(NAME, 5432, server.address);
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut stream = world.connect(NAME, 5432).await;
        say(&mut stream, b"hello").await;
        read_some(&mut stream, 5).await;
        open.push(stream);
    }
    assert!(is_reset(&mut world.connect(NAME, 5432).await).await);
    world.refused("3 are open").await;
    for stream in &mut open {
        say(stream, b"hello").await;
        assert_eq!(read_some(stream, 5).await, b"hello");
    }
}

#[tokio::test]
async fn a_flood_of_refusals_is_summed_up() {
    let world = World::new(only([rule("r", NAME, "5432")]));
    for _ in 0..300 {
        assert!(is_reset(&mut world.connect("evil.example", 443).await).await);
    }
    let told = world.log().len();
    assert!((1..=10).contains(&told), "{told} entries");
    // Detaching settles the sums.
    let mut world = world;
    assert_eq!(world.attachment.as_ref().unwrap().refusals().len(), 1);
    drop(world.attachment.take());
    let entry = world.refused("290 more of these").await;
    assert_eq!((entry.name.as_deref(), entry.port), (Some("evil.example"), 443));
}
