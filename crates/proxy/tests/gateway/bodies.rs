//! Bodies of all sizes, both ways, with bounded memory.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::support::*;

const MIB: usize = 1024 * 1024;

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// A model that answers with as many bytes as it is asked for.
async fn spring() -> Model {
    Model::start(|request| async move {
        let wanted: usize = request.headers()["x-want"].to_str().unwrap().parse().unwrap();
        let (sender, body) = channel();
        tokio::spawn(async move {
            let block = Bytes::from(vec![b'x'; MIB]);
            for _ in 0..wanted {
                if sender.send(block.clone()).await.is_err() {
                    return;
                }
            }
        });
        Response::new(body)
    })
    .await
}

/// A model that counts what it is sent.
async fn sink() -> Model {
    Model::start(|request| async move {
        let mut body = request.into_body();
        let mut count = 0;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => count += frame.data_ref().map_or(0, Bytes::len),
                Err(_) => break,
            }
        }
        Response::new(full(count.to_string()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_passes_without_being_held() {
    let model = spring().await;
    let stage = Stage::start(table(vec![endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])])])).await;
    for mut caller in [stage.h1(&host("e")).await, stage.h2(&host("e")).await] {
        let before = resident();
        let mut peak = 0;
        let mut body = caller.send(with(to_url(score("e", "")), "x-want", "200")).await.unwrap().into_body();
        let mut count = 0;
        while let Some(frame) = timeout(PATIENCE, body.frame()).await.unwrap() {
            count += frame.unwrap().data_ref().map_or(0, Bytes::len);
            peak = peak.max(resident());
        }
        assert_eq!(count, 200 * MIB);
        assert!(peak.saturating_sub(before) < 48 * MIB, "grew by {} MiB", peak.saturating_sub(before) / MIB);
        until("the place is given back", || model.upstream.in_flight() == 0).await;
    }
}

/// HTTP/2 has its host in the target; over HTTP/1.1 the target may be absolute as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_upload_passes_without_being_held() {
    let model = sink().await;
    let stage = Stage::start(table(vec![endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])])])).await;
    for mut caller in [stage.h1(&host("e")).await, stage.h2(&host("e")).await] {
        let before = resident();
        let (sender, body) = channel();
        let feed = tokio::spawn(async move {
            let block = Bytes::from(vec![b'x'; MIB]);
            let mut peak = 0;
            for _ in 0..90 {
                sender.send(block.clone()).await.unwrap();
                peak = peak.max(resident());
            }
            peak
        });
        let answer = caller.call(to_url(score("e", "")).map(|_| body)).await;
        assert_eq!(answer.text(), (90 * MIB).to_string());
        let peak = feed.await.unwrap();
        assert!(peak.saturating_sub(before) < 48 * MIB, "grew by {} MiB", peak.saturating_sub(before) / MIB);
    }
}

#[tokio::test]
async fn sizes_around_the_bounds_arrive_whole() {
    let model = Model::start(|request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(full(body))
    })
    .await;
    let stage = Stage::start(table(vec![endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])])])).await;
    let (mut h1, mut h2) = (stage.h1(&host("e")).await, stage.h2(&host("e")).await);
    for size in [0, 1, 65_535, 65_536, 65_537, 70_000, 300_000, 3 * MIB] {
        let body: Bytes = (0..size).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
        for caller in [&mut h1, &mut h2] {
            let answer = caller.call(to_url(score("e", body.clone()))).await;
            assert_eq!(answer.status, StatusCode::OK);
            let announced = answer.headers.get("content-length").map(|length| length.to_str().unwrap().to_owned());
            assert!(announced == Some(size.to_string()) || (size == 0 && announced.is_none()), "{announced:?}");
            assert!(answer.body == body, "{size}");
            let (sender, chunked) = channel();
            let pieces = body.clone();
            tokio::spawn(async move {
                for piece in pieces.chunks(40_000) {
                    sender.send(Bytes::copy_from_slice(piece)).await.unwrap();
                }
            });
            let answer = caller.call(to_url(score("e", "")).map(|_| chunked)).await;
            assert!(answer.body == body, "{size} in pieces");
        }
    }
}

#[tokio::test]
async fn a_streamed_answer_arrives_piece_by_piece_and_ends_with_the_model() {
    let model = Model::tcp(|mut stream| async move {
        let _ = stream.read(&mut [0_u8; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let _ = stream.write_all(b"6\r\nsecond\r\n").await;
        // Then the model dies, when the caller has surely been sent what there was.
        tokio::time::sleep(Duration::from_millis(500)).await;
    })
    .await;
    let stage = Stage::start(table(vec![endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])])])).await;
    let mut caller = stage.h1(&host("e")).await;
    let mut body = caller.send(score("e", "x")).await.unwrap().into_body();
    let mut next = async || timeout(PATIENCE, body.frame()).await.unwrap();
    assert_eq!(next().await.unwrap().unwrap().into_data().unwrap(), "first");
    assert_eq!(next().await.unwrap().unwrap().into_data().unwrap(), "second");
    assert!(next().await.unwrap().is_err(), "a broken answer must not look like a whole one");
}

#[tokio::test]
async fn a_model_that_pauses_in_its_answer_is_cut_off() {
    let model = Model::tcp(|mut stream| async move {
        let _ = stream.read(&mut [0_u8; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
        std::future::pending().await
    })
    .await;
    let settings = limits(1, 1000, 300);
    let stage = Stage::start(table(vec![endpoint("e", vec![deployment("blue", settings, &[&model.upstream])])])).await;
    let mut caller = stage.h1(&host("e")).await;
    let body = caller.send(score("e", "x")).await.unwrap().into_body();
    assert!(timeout(PATIENCE, body.collect()).await.unwrap().is_err());
    until("the place is given back", || model.upstream.in_flight() == 0).await;
}

#[tokio::test]
async fn a_caller_that_takes_nothing_loses_its_place() {
    let model = spring().await;
    let route = endpoint("e", vec![deployment("blue", limits(1, 1000, 30_000), &[&model.upstream])]);
    let stage = Stage::start_with(table(vec![route]), |config| config.idle_timeout = Duration::from_millis(500)).await;
    for version in [1, 2] {
        let mut caller = if version == 1 { stage.h1(&host("e")).await } else { stage.h2(&host("e")).await };
        // 100 MiB are more than all buffers on the way hold.
        let answer = caller.send(with(to_url(score("e", "")), "x-want", "100")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        until("the place is given back", || model.upstream.in_flight() == 0).await;
        drop(answer);
    }
}

#[tokio::test]
async fn a_caller_that_sends_too_slowly_holds_no_place() {
    let model = sink().await;
    let route = endpoint("e", vec![deployment("blue", limits(1, 1000, 30_000), &[&model.upstream])]);
    let stage = Stage::start_with(table(vec![route]), |config| config.idle_timeout = Duration::from_secs(1)).await;
    let mut slow = stage.h1(&host("e")).await;
    let (sender, body) = channel();
    sender.send(Bytes::from_static(b"a little")).await.unwrap();
    let waiting = tokio::spawn(async move { slow.call(score("e", "").map(|_| body)).await });
    assert_eq!(stage.call(score("e", "quick")).await.text(), "5");
    let answer = waiting.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (408, "RequestTimeout"));
    assert_eq!(model.hits(), 1);
    drop(sender);
}

#[tokio::test]
async fn a_refusal_reaches_a_caller_that_is_still_sending() {
    let model = Model::says("ok").await;
    let stage =
        Stage::start_with(table(vec![endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])])]), |config| {
            config.max_body_bytes = (8 * MIB) as u64
        })
        .await;
    for (request, expected) in [
        (with(score("e", vec![0; 20 * MIB]), "authorization", "Bearer wrong"), 401),
        (score("e", vec![0; 20 * MIB]), 413),
    ] {
        // The whole request is written before the first byte is read, as simple clients do.
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let mut stream = stage.tls(&host("e"), "http/1.1").await.unwrap();
        let mut head = format!("POST /score HTTP/1.1\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in &parts.headers {
            head.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = [0_u8; 12];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(std::str::from_utf8(&answer).unwrap(), format!("HTTP/1.1 {expected}"));
    }
}

#[tokio::test]
async fn a_caller_that_asks_first_is_asked_for_its_body_only_when_it_is_wanted() {
    let model = sink().await;
    let stage =
        Stage::start_with(table(vec![endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])])]), |config| {
            config.max_body_bytes = 1000
        })
        .await;
    for (key, length, expected) in [(KEY, 5, 100), ("wrong", 5, 401), (KEY, 1001, 413)] {
        let mut stream = stage.tls(&host("e"), "http/1.1").await.unwrap();
        let head = format!(
            "POST /score HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {key}\r\ncontent-length: {length}\r\n\
             expect: 100-continue\r\n\r\n",
            host("e")
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0_u8; 12];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(std::str::from_utf8(&answer).unwrap(), format!("HTTP/1.1 {expected}"));
        if expected == 100 {
            stream.write_all(b"hello").await.unwrap();
        }
        let mut rest = String::new();
        // The connection stays open after a good request, and ends after a refused one.
        let ended = timeout(Duration::from_millis(500), stream.read_to_string(&mut rest)).await;
        assert_eq!(ended.is_err(), expected == 100, "{rest}");
    }
    assert_eq!(model.hits(), 1);
}

#[tokio::test]
async fn a_streamed_upload_is_counted() {
    let model = sink().await;
    let stage =
        Stage::start_with(table(vec![endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])])]), |config| {
            config.max_body_bytes = MIB as u64
        })
        .await;
    for (pieces, expected) in [(16, 200), (17, 413), (200, 413)] {
        for version in [1, 2] {
            let mut caller = if version == 1 { stage.h1(&host("e")).await } else { stage.h2(&host("e")).await };
            let (sender, body) = channel();
            tokio::spawn(async move {
                for _ in 0..pieces {
                    if sender.send(Bytes::from(vec![b'x'; MIB / 16])).await.is_err() {
                        return;
                    }
                }
            });
            let answer = caller.call(to_url(score("e", "")).map(|_| body)).await;
            assert_eq!(answer.status.as_u16(), expected, "{pieces} pieces over HTTP/{version}");
            if expected == 413 {
                assert_eq!(answer.code(), "RequestBodyTooLarge");
            }
        }
    }
}
