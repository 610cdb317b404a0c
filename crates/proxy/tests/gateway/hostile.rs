//! Requests that two readers could understand differently, and heads that are too large.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::support::*;

/// Sends raw bytes over one connection; gives the statuses of all answers until the server closes or falls silent.
async fn raw(stage: &Stage, bytes: &[u8]) -> Vec<u16> {
    let mut stream = stage.tls(&host("e"), "http/1.1").await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    let mut answers = Vec::new();
    let mut buffer = [0_u8; 16 * 1024];
    while let Ok(Ok(read)) = timeout(Duration::from_millis(700), stream.read(&mut buffer)).await {
        if read == 0 {
            break;
        }
        answers.extend_from_slice(&buffer[..read]);
    }
    let text = String::from_utf8_lossy(&answers).into_owned();
    text.match_indices("HTTP/1.1 ").map(|(at, _)| text[at + 9..at + 12].parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_hides_in_another() {
    let model = Model::says("ok").await;
    let stage = Stage::start(table(vec![endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])])])).await;
    let host = host("e");
    let good = format!("POST /score HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {KEY}\r\n");
    let hidden = format!("GET /hidden HTTP/1.1\r\nhost: {host}\r\n\r\n");
    let length = hidden.len();
    let cases = [
        ("plain", format!("{good}content-length: 2\r\n\r\nab"), vec![200]),
        ("two in a row", format!("{good}content-length: 2\r\n\r\nab{good}content-length: 0\r\n\r\n"), vec![200, 200]),
        // Chunked wins and the connection ends: what follows is never read as a request.
        (
            "length and chunks",
            format!("{good}content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
            vec![200],
        ),
        (
            "chunks and length",
            format!("{good}transfer-encoding: chunked\r\ncontent-length: {length}\r\n\r\n0\r\n\r\n{hidden}"),
            vec![200],
        ),
        ("two lengths", format!("{good}content-length: 0\r\ncontent-length: {length}\r\n\r\n{hidden}"), vec![400]),
        ("a list of lengths", format!("{good}content-length: 0, {length}\r\n\r\n{hidden}"), vec![400]),
        ("signed length", format!("{good}content-length: +2\r\n\r\nab"), vec![400]),
        ("hexadecimal length", format!("{good}content-length: 0x2\r\n\r\nab"), vec![400]),
        ("huge length", format!("{good}content-length: 99999999999999999999\r\n\r\nab"), vec![400]),
        ("unknown coding", format!("{good}transfer-encoding: identity\r\n\r\n{hidden}"), vec![400]),
        ("chunked not last", format!("{good}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"), vec![400]),
        ("space before the colon", format!("{good}content-length : 2\r\n\r\nab"), vec![400]),
        ("folded header", format!("{good}x-a: 1\r\n content-length: 2\r\n\r\n"), vec![400]),
        ("a null in a header", format!("{good}x-a: 1\02\r\n\r\n"), vec![400]),
        ("a bare return in a header", format!("{good}x-a: 1\rcontent-length: 5\r\n\r\n"), vec![400]),
        (
            "chunks in HTTP/1.0",
            format!("POST /score HTTP/1.0\r\nhost: {host}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
            vec![400],
        ),
        ("two hosts", format!("{good}host: other\r\n\r\n"), vec![400]),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned(), vec![400]),
        (
            "a host in the target and another in the header",
            format!("GET https://localhost/ HTTP/1.1\r\nhost: {host}\r\n\r\n"),
            vec![400],
        ),
        ("unknown version", "GET / HTTP/3.0\r\n\r\n".to_owned(), vec![400]),
        ("no request at all", "\0\0\0\0\r\n\r\n".to_owned(), vec![400]),
    ];
    for (what, bytes, expected) in cases {
        let got = raw(&stage, bytes.as_bytes()).await;
        assert!(got == expected || (expected == [400] && got.is_empty()), "{what}: {got:?}");
    }
    // A chunk that is longer than it says is no request either.
    let before = model.hits();
    let got =
        raw(&stage, format!("{good}transfer-encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n{hidden}").as_bytes()).await;
    assert!(!got.contains(&200) && got.len() <= 1, "{got:?}");
    assert_eq!(model.hits(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_bounded() {
    let model = Model::says("ok").await;
    let stage = Stage::start(table(vec![endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])])])).await;
    let good =
        format!("POST /score HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {KEY}\r\ncontent-length: 0\r\n", host("e"));
    let long = "a".repeat(100_000);
    let many = (0..200).map(|at| format!("x-{at}: 1\r\n")).collect::<String>();
    for (what, bytes, expected) in [
        ("a long header", format!("{good}x-long: {long}\r\n\r\n"), 431),
        ("many headers", format!("{good}{many}\r\n"), 431),
        ("a long target", format!("GET /{long} HTTP/1.1\r\n\r\n"), 414),
    ] {
        let got = raw(&stage, bytes.as_bytes()).await;
        assert!(got == [expected] || got == [431] || got.is_empty(), "{what}: {got:?}");
    }
    assert_eq!(raw(&stage, format!("{good}x-long: {}\r\n\r\n", "a".repeat(30_000)).as_bytes()).await, [200]);
}
