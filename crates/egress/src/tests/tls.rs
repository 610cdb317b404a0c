//! Port 443: the hello decides, and hostile ones reach nobody.

use std::{sync::Arc, time::Duration};

use rustls::{ClientConnection, pki_types::ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    World, is_reset, only, read_some, rule, say,
    server::{Identity, Server},
};
use crate::EgressLimits;

const NAME: &str = "approved.example";

/// A hello with these extensions, and what a hello must have.
fn hello(extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    let mut list = Vec::new();
    for (kind, data) in [(13, vec![0, 2, 4, 3])].iter().chain(extensions) {
        list.extend(kind.to_be_bytes());
        list.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        list.extend(data);
    }
    body.extend(u16::try_from(list.len()).unwrap().to_be_bytes());
    body.extend(list);
    let mut message = vec![1, 0];
    message.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
    message.extend(body);
    message
}

/// One record for each piece of a message.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let record = |piece: &[u8]| [&[22, 3, 1], &u16::try_from(piece.len()).unwrap().to_be_bytes()[..], piece].concat();
    message.chunks(size).flat_map(record).collect()
}

fn names(list: &[(u8, &str)]) -> (u16, Vec<u8>) {
    let mut entries = Vec::new();
    for (kind, name) in list {
        entries.push(*kind);
        entries.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
        entries.extend(name.as_bytes());
    }
    (0, [&u16::try_from(entries.len()).unwrap().to_be_bytes()[..], &entries].concat())
}

#[tokio::test]
async fn hostile_hellos_reach_nobody() {
    let one = |list: &[(u8, &str)]| records(&hello(&[names(list)]), 1 << 14);
    let whole = hello(&[names(&[(0, NAME)])]);
    let (mut tail, mut trailing) = (names(&[(0, NAME)]), hello(&[names(&[(0, NAME)])]));
    tail.1.extend(b"more");
    trailing.extend([0; 4]);
    let padded = |size: usize| records(&hello(&[names(&[(0, NAME)]), (21, vec![0; size])]), 4096);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("another name", one(&[(0, "evil.example")]), "names evil.example"),
        ("no name", records(&hello(&[]), 1 << 14), "names no server"),
        ("an address", one(&[(0, "93.184.215.14")]), "names no server"),
        ("an IPv6 address", one(&[(0, "::1")]), "names no server"),
        ("two names", one(&[(0, NAME), (0, "evil.example")]), "TLS hello"),
        ("two names, approved last", one(&[(0, "evil.example"), (0, NAME)]), "TLS hello"),
        ("a name of another kind behind", one(&[(0, NAME), (1, "evil.example")]), "exactly one server name"),
        ("a name of another kind in front", one(&[(1, "evil.example"), (0, NAME)]), "TLS hello"),
        ("an empty list", records(&hello(&[(0, vec![0, 0])]), 1 << 14), "TLS hello"),
        ("something behind the list", records(&hello(&[tail]), 1 << 14), "TLS hello"),
        ("the extension twice", records(&hello(&[names(&[(0, NAME)]), names(&[(0, NAME)])]), 1 << 14), "TLS hello"),
        (
            "an unknown extension twice",
            records(&hello(&[names(&[(0, NAME)]), (4711, vec![]), (4711, vec![])]), 1 << 14),
            "TLS hello",
        ),
        ("encrypted hello", records(&hello(&[names(&[(0, NAME)]), (0xfe0d, vec![0; 60])]), 1 << 14), "TLS hello"),
        (
            "encrypted hello of the draft",
            records(&hello(&[names(&[(0, NAME)]), (0xffce, vec![0; 60])]), 1 << 14),
            "Encrypted",
        ),
        ("NUL in the name", one(&[(0, "approved.example\0.evil.example")]), "TLS hello"),
        ("percent in the name", one(&[(0, "approved%2eexample")]), "TLS hello"),
        ("a dot behind the name", one(&[(0, "approved.example.")]), "TLS hello"),
        ("letters that look like it", one(&[(0, "аpproved.example")]), "TLS hello"),
        ("below the name", one(&[(0, "x.approved.example")]), "names x.approved.example"),
        ("the name in front", one(&[(0, "approved.example.evil.example")]), "names approved.example.evil"),
        ("an over-long label", one(&[(0, &format!("{}.example", "a".repeat(64)))]), "TLS hello"),
        ("a message behind it in the record", records(&trailing, 1 << 14), "TLS hello"),
        (
            "an empty record",
            [records(&whole[..20], 20), vec![22, 3, 1, 0, 0], records(&whole[20..], 500)].concat(),
            "TLS hello",
        ),
        ("too large", padded(16 << 10), "larger than"),
        ("a PROXY prefix", [b"PROXY TCP4 1.2.3.4 1.2.3.4 1 443\r\n".to_vec(), one(&[(0, NAME)])].concat(), "TLS hello"),
        ("SSH", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(), "TLS hello"),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: approved.example\r\n\r\n".to_vec(), "TLS hello"),
        ("an alert", vec![21, 3, 3, 0, 2, 1, 0], "TLS hello"),
    ];
    let canary = Server::echo().await;
    for (what, bytes, reason) in cases {
        let world = World::new(only([rule("r", NAME, "443")]));
        world.host(NAME, 443, canary.address);
        let mut stream = world.connect(NAME, 443).await;
        say(&mut stream, &bytes).await;
        assert!(is_reset(&mut stream).await, "{what}");
        let entry = world.refused("").await;
        assert!(entry.reason.contains(reason), "{what}: {entry:?}");
        assert_eq!(world.dialled(), vec![], "{what}");
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn honest_hellos_pass_whole_in_pieces_and_large() {
    let world = World::new(only([rule("r", NAME, "443")]));
    let echo = Server::echo().await;
    world.host(NAME, 443, echo.address);
    let message = hello(&[names(&[(0, "APPROVED.example")])]);
    let large = hello(&[names(&[(0, NAME)]), (21, vec![0; 12 << 10])]);
    let early = [records(&message, 1 << 14), vec![23, 3, 3, 0, 1, 9]].concat();
    // A second hello is bytes like any other: they go where the first one led.
    let second = [records(&message, 1 << 14), records(&hello(&[names(&[(0, "evil.example")])]), 1 << 14)].concat();
    for bytes in [records(&message, 1 << 14), records(&message, 7), records(&large, 4096), early, second] {
        let mut stream = world.connect(NAME, 443).await;
        for piece in bytes.chunks(1500) {
            say(&mut stream, piece).await;
            tokio::task::yield_now().await;
        }
        assert_eq!(read_some(&mut stream, bytes.len()).await, bytes);
    }
    assert!(world.dialled().iter().all(|address| address.port() == 443 && address.ip().to_string().starts_with("93.")));
}

#[tokio::test]
async fn a_real_client_reaches_the_approved_host_and_no_other() {
    let identity = Identity::of(NAME);
    let server = identity.serve().await;
    let world = World::new(only([rule("r", NAME, "443")]));
    world.host(NAME, 443, server.address);
    let connector = identity.connector(&[b"h2"]);
    let name = ServerName::try_from(NAME).unwrap();
    let mut stream = connector.connect(name.clone(), world.connect(NAME, 443).await).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    stream.write_all(b"hello").await.unwrap();
    let mut answer = vec![0; NAME.len() + 6];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, format!("{NAME}\nhello").as_bytes());
    stream.shutdown().await.unwrap();
    drop(stream);
    let entry = world.logged(|entry| entry.allowed && entry.bytes_sent > 0).await;
    assert_eq!((entry.name.as_deref(), entry.port, entry.rule.as_deref()), (Some(NAME), 443, Some("r")));
    assert!(entry.bytes_received > 500 && entry.address.is_some(), "{entry:?}");
    // Resuming that session under another name is a hello with another name.
    let other = ServerName::try_from("other.example").unwrap();
    assert!(connector.connect(other, world.connect(NAME, 443).await).await.is_err());
    world.refused("names other.example").await;
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_post_quantum_hello_is_large_and_passes() {
    let identity = Identity::of(NAME);
    let config = Arc::new(identity.client(&[]));
    let mut client = ClientConnection::new(config, ServerName::try_from(NAME).unwrap()).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    assert!(bytes.len() > 1300, "{}", bytes.len());
    let server = identity.serve().await;
    let world = World::new(only([rule("r", NAME, "443")]));
    world.host(NAME, 443, server.address);
    let name = ServerName::try_from(NAME).unwrap();
    let stream = identity.connector(&[]).connect(name, world.connect(NAME, 443).await).await.unwrap();
    assert_eq!(stream.get_ref().1.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
}

#[tokio::test]
async fn a_drip_has_a_total_deadline() {
    let limits = EgressLimits { hello_deadline: Duration::from_millis(600), ..EgressLimits::default() };
    let world = World::with(only([rule("r", NAME, "443")]), limits, None);
    let canary = Server::echo().await;
    world.host(NAME, 443, canary.address);
    let mut stream = world.connect(NAME, 443).await;
    let begun = std::time::Instant::now();
    let mut sent = 0;
    for byte in records(&hello(&[names(&[(0, NAME)])]), 1 << 14) {
        if stream.write_all(&[byte]).await.is_err() {
            break;
        }
        sent += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!((3..60).contains(&sent) && begun.elapsed() < Duration::from_secs(20), "{sent} bytes");
    world.refused("did not say whom it talks to").await;
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn an_address_without_a_name_is_refused_before_it_speaks() {
    let world = World::new(only([rule("r", NAME, "443")]));
    let canary = Server::echo().await;
    let address = world.host(NAME, 443, canary.address);
    // The approved host's own address, with its name in the hello or without a word.
    let mut stream = world.connect_to(address, 443).await;
    say(&mut stream, &records(&hello(&[names(&[(0, NAME)])]), 1 << 14)).await;
    assert!(is_reset(&mut stream).await);
    assert!(is_reset(&mut world.connect_to(address, 443).await).await);
    // An approved name on a port of another rule, and a fake address that stands for nobody.
    assert!(is_reset(&mut world.connect(NAME, 5432).await).await);
    assert!(is_reset(&mut world.connect_to("198.18.77.7".parse().unwrap(), 443).await).await);
    assert_eq!((world.dialled(), canary.connections()), (vec![], 0));
    world.refused("Look the name up again").await;
}
