//! A policy that changes while streams are open.

use std::{sync::Arc, time::Instant};

use casemate_model::egress::{EgressPolicy, PortRanges, Prefix, Rule, Target};
use tokio::net::TcpStream;

use super::{World, internet, is_reset, only, read_some, rule, say, server::Server};

async fn echoes(stream: &mut TcpStream) {
    say(stream, b"hello").await;
    assert_eq!(read_some(stream, 5).await, b"hello");
}

#[tokio::test]
async fn a_rule_that_goes_cuts_its_streams_and_no_others() {
    let (kept, gone) = (rule("kept", "kept.example", "5432"), rule("gone", "gone.example", "5432"));
    let world = World::new(only([kept.clone(), gone]));
    let server = Server::echo().await;
    world.host("kept.example", 5432, server.address);
    world.host("gone.example", 5432, server.address);
    let (mut stays, mut cut) = (world.connect("kept.example", 5432).await, world.connect("gone.example", 5432).await);
    echoes(&mut stays).await;
    echoes(&mut cut).await;
    let begun = Instant::now();
    world.set(only([kept]));
    assert!(is_reset(&mut cut).await);
    assert!(begun.elapsed().as_millis() < 1000, "{:?}", begun.elapsed());
    let entry = world.refused("cut when the policy changed").await;
    assert_eq!((entry.name.as_deref(), entry.bytes_sent), (Some("gone.example"), 5));
    echoes(&mut stays).await;
    assert!(is_reset(&mut world.connect("gone.example", 5432).await).await);
}

#[tokio::test]
async fn a_mode_that_is_tightened_cuts_what_it_no_longer_allows() {
    let world = World::new(internet());
    let server = Server::echo().await;
    let address = world.host("any.example", 5432, server.address);
    world.place((address, 443).into(), server.address);
    let mut streams = [world.connect("any.example", 5432).await, world.connect_to(address, 5432).await];
    let mut unread = world.connect("any.example", 443).await;
    for stream in streams.iter_mut().chain([&mut unread]) {
        echoes(stream).await;
    }
    // Approved by now, but on 443 only what has been read as TLS is.
    world.set(only([rule("any", "any.example", "443,5432")]));
    assert!(is_reset(&mut unread).await);
    assert!(is_reset(&mut streams[1]).await);
    echoes(&mut streams[0]).await;
    world.refused("looks at what such connections say first").await;
    world.set(EgressPolicy { public_disabled: true, ..internet() });
    assert!(is_reset(&mut streams[0]).await);
    // And back.
    world.set(internet());
    let address = world.host("later.example", 5432, server.address);
    echoes(&mut world.connect_to(address, 5432).await).await;
}

#[tokio::test]
async fn a_client_that_takes_its_time_is_judged_by_the_policy_of_the_end() {
    let world = World::new(only([rule("r", "any.example", "80")]));
    let server = Server::echo().await;
    world.host("any.example", 80, server.address);
    let mut stream = world.connect("any.example", 80).await;
    say(&mut stream, b"GET / HTTP/1.1\r\n").await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    world.set(only([]));
    say(&mut stream, b"Host: any.example\r\n\r\n").await;
    assert!(is_reset(&mut stream).await);
    world.refused("").await;
    assert_eq!((world.dialled(), server.connections()), (vec![], 0));
}

#[tokio::test]
async fn a_service_tag_lets_raw_addresses_through_until_it_is_gone() {
    let tag = Rule {
        name: "tag".into(),
        target: Target::Addresses(vec![Prefix::parse("93.184.215.0/24").unwrap()]),
        ports: PortRanges::parse("443").unwrap(),
        protocols_tcp: true,
    };
    let world = World::new(only([tag.clone()]));
    let server = Server::echo().await;
    world.place("93.184.215.200:443".parse().unwrap(), server.address);
    let mut stream = world.connect_to("93.184.215.200".parse().unwrap(), 443).await;
    echoes(&mut stream).await;
    assert!(is_reset(&mut world.connect_to("93.184.216.1".parse().unwrap(), 443).await).await);
    let elsewhere = Target::Addresses(vec![Prefix::parse("93.184.216.0/24").unwrap()]);
    world.set(only([Rule { target: elsewhere, ..tag }]));
    assert!(is_reset(&mut stream).await);
}

#[tokio::test]
async fn learn_mode_lets_through_and_says_what_the_rules_would_do() {
    let world = World::new(EgressPolicy { audit: true, ..only([rule("r", "ruled.example", "5432")]) });
    let server = Server::echo().await;
    for (name, would_deny) in [("ruled.example", false), ("unruled.example", true)] {
        world.host(name, 5432, server.address);
        echoes(&mut world.connect(name, 5432).await).await;
        let entry = world.logged(|entry| entry.name.as_deref() == Some(name)).await;
        assert_eq!((entry.allowed, entry.would_deny), (true, would_deny), "{entry:?}");
    }
}

#[tokio::test]
async fn a_sandbox_that_goes_takes_its_streams_along() {
    let mut world = World::new(only([rule("r", "any.example", "5432")]));
    let server = Server::echo().await;
    world.host("any.example", 5432, server.address);
    let mut stream = world.connect("any.example", 5432).await;
    echoes(&mut stream).await;
    drop(world.attachment.take());
    assert!(is_reset(&mut stream).await);
    for _ in 0..600 {
        if TcpStream::connect(("127.0.0.1", world.port)).await.is_err() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the listener is still there");
}

#[tokio::test]
async fn a_sender_that_is_gone_leaves_the_last_policy() {
    let mut world = World::new(only([rule("r", "any.example", "5432")]));
    let server = Server::echo().await;
    world.host("any.example", 5432, server.address);
    let mut stream = world.connect("any.example", 5432).await;
    echoes(&mut stream).await;
    world.policy = tokio::sync::watch::channel(Arc::new(EgressPolicy::default())).0;
    echoes(&mut stream).await;
    echoes(&mut world.connect("any.example", 5432).await).await;
}
