//! The port without TLS: challenges, and the limits that hold as at the other ports.

use std::{sync::Arc, time::Duration};

use casemate_model::inbound::AllowList;
use http::{Method, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};

use crate::{
    services::{echo, post, services},
    support::*,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_challenges_are_shown_while_they_are_posted() {
    let stage = Stage::start(table(vec![])).await;
    let posted = stage.certificates.challenges().post_http("a-token_1", "a-token_1.thumbprint".to_owned()).unwrap();
    let mut caller = stage.plainly().await;
    for (method, path, status, text) in [
        (Method::GET, "/.well-known/acme-challenge/a-token_1", StatusCode::OK, "a-token_1.thumbprint"),
        (Method::GET, "/.well-known/acme-challenge/other", StatusCode::NOT_FOUND, "ChallengeNotFound"),
        (Method::GET, "/.well-known/acme-challenge/", StatusCode::NOT_FOUND, "ChallengeNotFound"),
        (Method::POST, "/.well-known/acme-challenge/a-token_1", StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    ] {
        let mut request = post("whatever.example", path);
        *request.method_mut() = method;
        let answer = caller.call(request).await;
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.text().contains(text), "{answer:?}");
    }
    let mut head = post("whatever.example", "/.well-known/acme-challenge/a-token_1");
    *head.method_mut() = Method::HEAD;
    assert_eq!(caller.call(head).await.status, StatusCode::OK);
    drop(posted);
    let mut request = post("whatever.example", "/.well-known/acme-challenge/a-token_1");
    *request.method_mut() = Method::GET;
    assert_eq!(caller.call(request).await.status, StatusCode::NOT_FOUND);
    // The TLS port does not show them.
    let mut request = post("localhost", "/.well-known/acme-challenge/other");
    *request.method_mut() = Method::GET;
    assert!(stage.h1("localhost").await.call(request).await.text().starts_with("management"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_speaks_http_1_only_and_loses_patience() {
    let model = echo().await;
    let patience = |config: &mut casemate_proxy::GatewayConfig| config.idle_timeout = Duration::from_millis(300);
    let stage = Stage::start_with(services(&model), patience).await;
    for sent in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: a",
        b"",
    ] {
        let mut stream = TcpStream::connect(stage.plain).await.unwrap();
        stream.write_all(sent).await.unwrap();
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection ends");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
    }
    let upgrade = with(with(post("localhost", "/api/v1/service/one/score"), "upgrade", "h2c"), "connection", "upgrade");
    assert_eq!(stage.plainly().await.call(upgrade).await.text(), "http /score");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_allow_list_holds_and_the_drain_waits() {
    let (gate, model) = {
        let permits = Arc::new(Semaphore::new(0));
        let gate = Arc::clone(&permits);
        let model = Model::start(move |_| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await.unwrap().forget();
                http::Response::new(full("done"))
            }
        });
        (permits, model.await)
    };
    let strangers = |config: &mut casemate_proxy::GatewayConfig| {
        config.allow_from = AllowList::parse(["203.0.113.0/24"]).unwrap();
    };
    let closed = Stage::start_with(services(&model), strangers).await;
    let mut stream = TcpStream::connect(closed.plain).await.unwrap();
    let read = timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("the connection ends");
    assert!(read.is_err() || read.is_ok_and(|bytes| bytes == 0));

    let stage = Stage::start(services(&model)).await;
    let mut caller = stage.plainly().await;
    let request = tokio::spawn(async move { caller.call(post("localhost", "/api/v1/service/both/score")).await });
    until("it is in flight", || model.upstream.in_flight() == 1).await;
    stage.shutdown.cancel();
    until("the plain door is shut", || std::net::TcpStream::connect(stage.plain).is_err()).await;
    assert!(!stage.served.is_finished());
    gate.add_permits(1);
    assert_eq!(request.await.unwrap().text(), "done");
    timeout(PATIENCE, stage.served).await.unwrap().unwrap().unwrap();
}
