//! Bytes that are let through: as they are, both ways, ended as the ends end.

use std::{
    io,
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use casemate_model::{
    ResourceId,
    egress::{PortRanges, PrivateDestination, Rule, Target},
};
use nix::sys::socket::MsgFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};

use super::{FRONT_DOOR, World, internet, is_reset, only, read_all, read_some, rule, say, server::Server};
use crate::EgressLimits;

const NAME: &str = "db.example";

#[tokio::test]
async fn a_large_body_arrives_whole_and_ends_by_halves() {
    let world = World::new(only([rule("r", NAME, "5432")]));
    // Reads to the end before it answers: that the client has ended must be seen, and the answer still pass.
    let server = Server::each(|mut stream, _| async move {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        bytes.reverse();
        stream.write_all(&bytes).await.unwrap();
    })
    .await;
    world.host(NAME, 5432, server.address);
    let mut stream = world.connect(NAME, 5432).await;
    let sent: Vec<u8> = (0..5_000_000_u32).flat_map(|at| at.to_le_bytes()).collect();
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    received.reverse();
    assert!(received == sent);
    let entry = world.logged(|entry| entry.allowed).await;
    assert_eq!((entry.bytes_sent, entry.bytes_received), (20_000_000, 20_000_000));
}

#[tokio::test]
async fn urgent_data_in_bulk_does_not_end_a_stream() {
    let world = World::new(only([rule("r", NAME, "5432")]));
    let server = Server::each(|mut stream, _| async move {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
    })
    .await;
    world.host(NAME, 5432, server.address);
    let mut stream = world.connect(NAME, 5432).await;
    let sent = vec![7; 6_000_000];
    let (before, after) = sent.split_at(3_000_000);
    stream.write_all(before).await.unwrap();
    // A receiver that does not ask for it gets all but this.
    let urgent = || nix::sys::socket::send(stream.as_raw_fd(), b"!", MsgFlags::MSG_OOB).map_err(io::Error::from);
    stream.async_io(Interest::WRITABLE, urgent).await.unwrap();
    stream.write_all(after).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut received = Vec::new();
    stream.read_to_end(&mut received).await.unwrap();
    assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
}

#[tokio::test]
async fn streams_that_nobody_reads_leave_the_others_a_way() {
    let world = World::new(only([rule("r", NAME, "5432")]));
    let server = Server::each(|mut stream, _| async move {
        let _ = stream.write_all(&vec![7; 8_000_000]).await;
    })
    .await;
    world.host(NAME, 5432, server.address);
    // More than there are pipes and large buffers for one sandbox; each is stuck with what it holds.
    let mut stuck = Vec::new();
    for _ in 0..50 {
        let mut stream = world.connect(NAME, 5432).await;
        read_some(&mut stream, 100_000).await;
        stuck.push(stream);
    }
    let mut stream = world.connect(NAME, 5432).await;
    assert_eq!(read_all(&mut stream).await.len(), 8_000_000);
    // And what they hold is theirs still.
    let mut first = stuck.swap_remove(0);
    assert_eq!(read_all(&mut first).await.len(), 7_900_000);
}

#[tokio::test]
async fn a_reset_on_one_side_is_one_on_the_other() {
    let world = World::new(only([rule("r", NAME, "5432")]));
    let server = Server::each(|mut stream, _| async move {
        let _ = stream.read(&mut [0; 10]).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    world.host(NAME, 5432, server.address);
    let mut stream = world.connect(NAME, 5432).await;
    say(&mut stream, b"hello").await;
    assert!(is_reset(&mut stream).await);
    let entry = world.logged(|entry| entry.reason.contains("It was reset")).await;
    assert!(entry.allowed && entry.bytes_sent == 5, "{entry:?}");
}

#[tokio::test]
async fn what_cannot_be_reached_is_reset_and_recorded() {
    let world = World::new(only([rule("r", "*.example.org", "5432,80")]));
    let nobody = "127.0.0.1:1".parse().unwrap();
    world.host("down.example.org", 5432, nobody);
    assert!(is_reset(&mut world.connect("down.example.org", 5432).await).await);
    let entry = world.logged(|entry| entry.reason.contains("cannot be reached")).await;
    assert!(entry.allowed && entry.address.is_some(), "{entry:?}");
    assert!(is_reset(&mut world.connect("unknown.example.org", 5432).await).await);
    world.logged(|entry| entry.allowed && entry.reason.contains("no address")).await;
    // Over HTTP there is an answer to read.
    let mut stream = world.connect("unknown.example.org", 80).await;
    say(&mut stream, b"GET / HTTP/1.1\r\nHost: unknown.example.org\r\n\r\n").await;
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("no address"), "{answer}");
}

#[tokio::test]
async fn names_that_lead_inside_are_refused_and_the_next_address_is_tried() {
    let world = World::new(only([rule("r", "*.example.org", "5432")]));
    let server = Server::echo().await;
    for inside in [
        "127.0.0.1",
        "10.1.2.3",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.8",
        "198.18.0.1",
        "240.0.0.1",
        "::1",
        "fe80::1",
        "fd00::1",
        "64:ff9b::7f00:1",
        "::ffff:127.0.0.1",
    ] {
        let name = format!("n{}.example.org", world.fresh().1);
        world.names.lock().unwrap().insert(name.clone(), vec![inside.parse().unwrap()]);
        assert!(is_reset(&mut world.connect(&name, 5432).await).await, "{inside}");
        let entry = world.logged(|entry| entry.name.as_deref() == Some(&name)).await;
        assert!(!entry.allowed && entry.address.is_some(), "{inside}: {entry:?}");
    }
    assert_eq!(world.dialled(), vec![]);
    // Inside and outside at once: only the outside is dialled. A dead address gives way to the next.
    let public = world.host("mixed.example.org", 5432, server.address);
    let list = vec!["10.0.0.1".parse().unwrap(), "93.184.0.1".parse().unwrap(), public];
    world.names.lock().unwrap().insert("mixed.example.org".into(), list);
    let mut stream = world.connect("mixed.example.org", 5432).await;
    say(&mut stream, b"hello").await;
    assert_eq!(read_some(&mut stream, 5).await, b"hello");
    assert!(world.dialled().iter().all(|address| address.ip().to_string().starts_with("93.184.")));
    // The next connection asks again: an answer that has changed to an inside address is refused.
    world.names.lock().unwrap().insert("mixed.example.org".into(), vec!["192.168.1.1".parse().unwrap()]);
    assert!(is_reset(&mut world.connect("mixed.example.org", 5432).await).await);
}

#[tokio::test]
async fn private_rules_lead_where_they_say() {
    let private = |name: &str, host: &str, to| Rule {
        name: name.into(),
        target: Target::Private { names: vec![casemate_model::egress::HostPattern::parse(host).unwrap()], to },
        ports: PortRanges::parse("443,5432").unwrap(),
        protocols_tcp: true,
    };
    let world = World::new(only([
        private("door", "store.example", PrivateDestination::FrontDoor),
        private("address", "onprem.example", PrivateDestination::Address("10.9.8.7".parse().unwrap())),
        private(
            "name",
            "alias.example",
            PrivateDestination::Name(casemate_model::egress::HostName::parse("real.example").unwrap()),
        ),
        private("absent", "gone.example", PrivateDestination::Absent("The connection is not approved.".into())),
    ]));
    let (door, onprem) = (Server::echo().await, Server::echo().await);
    world.place(FRONT_DOOR, door.address);
    world.place("10.9.8.7:5432".parse().unwrap(), onprem.address);
    world.names.lock().unwrap().insert("real.example".into(), vec!["10.9.8.7".parse().unwrap()]);
    for (name, server) in [("store.example", &door), ("onprem.example", &onprem), ("alias.example", &onprem)] {
        let before = server.connections();
        let mut stream = world.connect(name, 5432).await;
        say(&mut stream, b"hello").await;
        assert_eq!(read_some(&mut stream, 5).await, b"hello", "{name}");
        assert_eq!(server.connections(), before + 1, "{name}");
        // The front door is told whose connection it is; nobody else's are announced, nor are they when they are over.
        let claimed = world.callers.claim(server.last_caller());
        assert_eq!(claimed.as_ref().map(ResourceId::name), (name == "store.example").then_some("W"), "{name}");
        assert!(world.callers.is_empty());
    }
    assert!(is_reset(&mut world.connect("gone.example", 5432).await).await);
    world.refused("not approved").await;
    assert_eq!(world.dialled().len(), 3);
}

#[tokio::test]
async fn with_internet_allowed_every_public_destination_is_relayed_unread() {
    let world = World::new(internet());
    let server = Server::echo().await;
    let address = world.host("any.example", 443, server.address);
    for mut stream in [world.connect("any.example", 443).await, world.connect_to(address, 443).await] {
        say(&mut stream, b"SSH-2.0-x\r\n").await;
        assert_eq!(read_some(&mut stream, 11).await, b"SSH-2.0-x\r\n");
    }
    for inside in [
        "127.0.0.2",
        "10.0.0.1",
        "169.254.169.253",
        "192.168.0.1",
        "::1",
        "fe80::1",
        "0.0.0.0",
        "255.255.255.255",
        "168.63.129.16",
    ] {
        assert!(is_reset(&mut world.connect_to(inside.parse().unwrap(), 443).await).await, "{inside}");
    }
    assert_eq!(world.dialled().len(), 2);
}

#[tokio::test]
async fn an_idle_stream_is_reset_and_a_busy_one_is_not() {
    let limits = EgressLimits { idle_timeout: Duration::from_secs(2), ..EgressLimits::default() };
    let world = World::with(only([rule("r", NAME, "5432")]), limits, None);
    let server = Server::echo().await;
    world.host(NAME, 5432, server.address);
    let (mut idle, mut busy) = (world.connect(NAME, 5432).await, world.connect(NAME, 5432).await);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        say(&mut busy, b"x").await;
        read_some(&mut busy, 1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(is_reset(&mut idle).await);
    world.logged(|entry| entry.reason.contains("nothing had moved")).await;
}

#[tokio::test]
async fn bandwidth_is_limited_for_a_sandbox_as_a_whole() {
    let limits = EgressLimits { bytes_per_second: Some(200_000), ..EgressLimits::default() };
    let world = World::with(only([rule("r", NAME, "5432")]), limits, None);
    let server = Server::each(|mut stream, _| async move {
        let _ = stream.write_all(&[0; 200_000]).await;
    })
    .await;
    world.host(NAME, 5432, server.address);
    let begun = Instant::now();
    let (mut one, mut two) = (world.connect(NAME, 5432).await, world.connect(NAME, 5432).await);
    let (one, two) = tokio::join!(read_all(&mut one), read_all(&mut two));
    assert_eq!((one.len(), two.len()), (200_000, 200_000));
    assert!(begun.elapsed() > Duration::from_millis(1500), "{:?}", begun.elapsed());
}
