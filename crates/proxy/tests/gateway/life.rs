//! Connections from the first byte to the last: slow ones, broken ones, too many, idle ones, and the drain.

use std::{io, sync::Arc, time::Duration};

use http::Response;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use crate::support::*;

/// A model that answers when it is given a permit.
async fn gated() -> (Model, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&permits);
    let model = Model::start(move |request| {
        let gate = Arc::clone(&gate);
        async move {
            let _ = request.into_body().collect().await;
            gate.acquire().await.unwrap().forget();
            Response::new(full("done"))
        }
    })
    .await;
    (model, permits)
}

fn to_url(request: http::Request<Body>) -> http::Request<Body> {
    let url = format!("https://{}{}", host("e"), request.uri());
    at(request, &url)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lets_requests_finish_and_takes_no_new_ones() {
    let (model, permits) = gated().await;
    let stage = Stage::start(table(vec![endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])])])).await;
    let (mut h1, mut h2) = (stage.h1(&host("e")).await, stage.h2(&host("e")).await);
    let (mut idle1, idle2) = (stage.h1(&host("e")).await, stage.h2(&host("e")).await);
    permits.add_permits(1);
    assert_eq!(idle1.call(score("e", "x")).await.text(), "done");
    let first = tokio::spawn(async move { (h1.call(score("e", "x")).await, h1) });
    let second = tokio::spawn(async move { (h2.call(to_url(score("e", "x"))).await, h2) });
    until("both are in flight", || model.upstream.in_flight() == 2).await;
    stage.shutdown.cancel();
    idle1.closed().await;
    idle2.closed().await;
    until("the door is shut", || std::net::TcpStream::connect(stage.address).is_err()).await;
    assert!(!stage.served.is_finished());
    permits.add_permits(2);
    for finished in [first, second] {
        let (answer, caller) = finished.await.unwrap();
        assert_eq!(answer.text(), "done");
        caller.closed().await;
    }
    timeout(PATIENCE, stage.served).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_drain_ends_in_time() {
    let (model, _permits) = gated().await;
    let route = endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])]);
    let stage = Stage::start_with(table(vec![route]), |config| config.drain_timeout = Duration::from_millis(300)).await;
    let mut calls = JoinSet::new();
    for mut caller in [stage.h1(&host("e")).await, stage.h2(&host("e")).await] {
        calls.spawn(async move {
            let failed = caller.try_call(to_url(score("e", "x"))).await.is_err();
            caller.closed().await;
            failed
        });
    }
    until("both are in flight", || model.upstream.in_flight() == 2).await;
    stage.shutdown.cancel();
    timeout(Duration::from_secs(10), stage.served).await.unwrap().unwrap().unwrap();
    until("the places are given back", || model.upstream.in_flight() == 0).await;
    while let Some(failed) = calls.join_next().await {
        assert!(failed.unwrap());
    }
}

#[tokio::test]
async fn a_drain_does_not_wait_for_callers_that_sleep() {
    let model = Model::says("ok").await;
    let route = endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])]);
    let stage = Stage::start_with(table(vec![route]), |config| config.drain_timeout = PATIENCE * 10).await;
    let mut asleep = stage.tls(&host("e"), "h2").await.unwrap();
    // The preface and empty settings; then this caller answers nothing, the goodbye's ping neither.
    asleep.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    asleep.flush().await.unwrap();
    assert!(asleep.read(&mut [0; 64]).await.unwrap() > 0);
    stage.shutdown.cancel();
    timeout(PATIENCE, stage.served).await.expect("the drain ends without the sleeper").unwrap().unwrap();
    drop(asleep);
}

#[tokio::test]
async fn a_refusal_of_a_long_body_says_that_the_connection_ends() {
    let model = Model::says("ok").await;
    let stage = Stage::start(table(vec![endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])])])).await;
    for (length, close) in [(2, false), (1 << 20, true)] {
        let mut stream = stage.tls(&host("e"), "http/1.1").await.unwrap();
        let head = format!("POST /score HTTP/1.1\r\nhost: {}\r\ncontent-length: {length}\r\n\r\nab", host("e"));
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut buffer = vec![0; 4096];
        let read = stream.read(&mut buffer).await.unwrap();
        let answer = String::from_utf8_lossy(&buffer[..read]).to_lowercase();
        assert!(answer.starts_with("http/1.1 401"), "{answer}");
        assert_eq!(answer.contains("connection: close"), close, "{length} bytes: {answer}");
    }
}

#[tokio::test]
async fn idle_connections_are_closed() {
    let model = Model::says("ok").await;
    let route = endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])]);
    let stage = Stage::start_with(table(vec![route]), |config| config.idle_timeout = Duration::from_millis(400)).await;
    let (mut h1, mut h2) = (stage.h1(&host("e")).await, stage.h2(&host("e")).await);
    let start = std::time::Instant::now();
    assert_eq!(h1.call(score("e", "x")).await.text(), "ok");
    assert_eq!(h2.call(to_url(score("e", "x"))).await.text(), "ok");
    h1.closed().await;
    h2.closed().await;
    assert!(start.elapsed() >= Duration::from_millis(400));
}

#[tokio::test]
async fn a_dripping_head_is_cut_off() {
    let stage = Stage::start_with(table(vec![]), |config| config.idle_timeout = Duration::from_millis(600)).await;
    let mut stream = stage.tls("localhost", "http/1.1").await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n").await.unwrap();
    let drip = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.write_all(b"x-drip: 1\r\n").await?;
            stream.flush().await?;
            let mut answer = [0_u8; 1];
            if let Ok(read) = timeout(Duration::from_millis(1), stream.read(&mut answer)).await {
                // Closed, or refused in words.
                read?;
                return Ok::<(), io::Error>(());
            }
        }
    };
    let _ = timeout(Duration::from_secs(10), drip).await.expect("the connection is cut off");
}

#[tokio::test]
async fn a_handshake_that_does_not_end_and_one_that_is_none_are_cut_off() {
    let stage = Stage::start_with(table(vec![]), |config| config.handshake_timeout = Duration::from_millis(500)).await;
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", &[0xff; 3000]] {
        let mut stream = TcpStream::connect(stage.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        // An alert or nothing, and then the end.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection is cut off");
        assert!(answer.len() < 16, "{answer:?}");
    }
    assert!(stage.tls("unknown.example", "http/1.1").await.is_err());
    let alive = stage.call(with(at(score("e", ""), "/alive"), "host", "localhost")).await;
    assert_eq!(alive.text(), "management /alive");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let stage = Stage::start_with(table(vec![]), |config| config.max_connections = 2).await;
    let request = || with(at(score("e", ""), "/x"), "host", "localhost");
    let (mut one, mut two) = (stage.h1("localhost").await, stage.h1("localhost").await);
    assert_eq!(one.call(request()).await.text(), "management /x");
    assert_eq!(two.call(request()).await.text(), "management /x");
    let third = stage.call(request());
    tokio::pin!(third);
    assert!(timeout(Duration::from_millis(300), &mut third).await.is_err(), "a third has to wait");
    one.abort();
    assert_eq!(third.await.text(), "management /x");
}

#[tokio::test]
async fn kept_connections_are_used_again_and_a_closed_one_is_no_failure() {
    let model = Model::says("ok").await;
    // This one closes each connection after the answer without saying so.
    let rude = Model::tcp(|mut stream| async move {
        let mut head = [0_u8; 4096];
        if stream.read(&mut head).await.is_ok_and(|read| read > 0) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nrude").await;
        }
    })
    .await;
    let stage = Stage::start(table(vec![
        endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])]),
        endpoint("r", vec![deployment("blue", wide(), &[&rude.upstream])]),
    ]))
    .await;
    let (mut polite_caller, mut rude_caller) = (stage.h1(&host("e")).await, stage.h1(&host("r")).await);
    for _ in 0..200 {
        assert_eq!(polite_caller.call(score("e", "x")).await.text(), "ok");
        assert_eq!(rude_caller.call(score("r", "x")).await.text(), "rude");
    }
    assert_eq!(model.connections(), 1);
    assert!(rude.connections() >= 200);
}

#[tokio::test]
async fn a_kept_connection_that_breaks_under_a_request_is_no_failure() {
    // Answers the first request of each connection and breaks off at the second.
    let model = Model::tcp(|mut stream| async move {
        let mut head = [0_u8; 4096];
        let _ = stream.read(&mut head).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        let _ = stream.read(&mut head).await;
    })
    .await;
    let stage = Stage::start(table(vec![endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])])])).await;
    let mut caller = stage.h1(&host("e")).await;
    for _ in 0..50 {
        assert_eq!(caller.call(score("e", "x")).await.text(), "ok");
    }
    assert_eq!(model.connections(), 50);
}
