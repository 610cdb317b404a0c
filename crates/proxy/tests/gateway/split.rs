//! The split by weight, the choice by header, and mirroring.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_is_split_by_weight_and_the_header_overrides_it() {
    let (blue, green) = (Model::says("blue").await, Model::says("green").await);
    let both = || vec![deployment("blue", wide(), &[&blue.upstream]), deployment("Green", wide(), &[&green.upstream])];
    let split = |shares: &[(&str, u64)]| table(vec![with_traffic(endpoint("e", both()), shares, &[])]);
    let stage = Stage::start(split(&[("blue", 90), ("Green", 10)])).await;
    let mut caller = stage.h1(&host("e")).await;
    for _ in 0..2000 {
        let answer = caller.call(score("e", "x")).await;
        assert_eq!(answer.text(), answer.header("azureml-model-deployment").to_lowercase());
    }
    // Nine standard deviations: 10 % of 2000 is 200 +- 13.4.
    assert!((80..320).contains(&green.hits()), "green {}", green.hits());
    assert_eq!(blue.hits() + green.hits(), 2000);
    for name in ["green", "GREEN", "Green"] {
        for _ in 0..20 {
            let answer = caller.call(with(score("e", "x"), "azureml-model-deployment", name)).await;
            assert_eq!((answer.text(), answer.header("azureml-model-deployment")), ("green", "Green"));
        }
    }
    // A weight of zero still answers by header.
    stage.publish(split(&[("blue", 100), ("Green", 0)]));
    let answer = caller.call(with(score("e", "x"), "azureml-model-deployment", "green")).await;
    assert_eq!(answer.text(), "green");
}

/// A model that keeps what it was sent and never answers.
async fn hoarder() -> (Model, Arc<Mutex<Vec<Bytes>>>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    let model = Model::start(move |request| {
        let keep = Arc::clone(&keep);
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            keep.lock().unwrap().push(body);
            std::future::pending::<Response<Body>>().await
        }
    })
    .await;
    (model, kept)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_go_to_the_mirror_and_the_caller_never_waits_for_it() {
    let blue = Model::says("blue").await;
    let (green, kept) = hoarder().await;
    let deployments = vec![
        deployment("blue", wide(), &[&blue.upstream]),
        deployment("green", limits(1000, 20_000, 20_000), &[&green.upstream]),
    ];
    let route = with_traffic(endpoint("e", deployments), &[("blue", 100)], &[("green", 50)]);
    let stage = Stage::start(table(vec![route])).await;
    let mut caller = stage.h1(&host("e")).await;
    let start = std::time::Instant::now();
    // With half of them mirrored to a model that never answers, these would take minutes if a caller waited.
    for number in 0..60 {
        let answer = caller.call(score("e", format!("body {number}"))).await;
        assert_eq!(answer.text(), "blue");
    }
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert_eq!(blue.hits(), 60);
    until("some copies arrive", || kept.lock().unwrap().len() >= 10).await;
    assert!(kept.lock().unwrap().iter().all(|body| body.starts_with(b"body ")));
    assert!((10..=50).contains(&green.hits()), "{}", green.hits());
    // Neither by header nor too large for a copy; what follows shows that copies still go out.
    let large = vec![b'x'; 2 * 1024 * 1024];
    for _ in 0..10 {
        caller.call(with(score("e", "by name"), "azureml-model-deployment", "blue")).await;
        assert_eq!(caller.call(score("e", large.clone())).await.text(), "blue");
    }
    while !kept.lock().unwrap().iter().any(|body| body == "last") {
        assert_eq!(caller.call(score("e", "last")).await.text(), "blue");
        assert!(start.elapsed() < PATIENCE);
    }
    assert!(kept.lock().unwrap().iter().all(|body| body.starts_with(b"body ") || body == "last"));
}

#[tokio::test]
async fn a_medium_body_is_copied_whole() {
    let blue = Model::says("blue").await;
    let (green, kept) = hoarder().await;
    let deployments =
        vec![deployment("blue", wide(), &[&blue.upstream]), deployment("green", wide(), &[&green.upstream])];
    let route = with_traffic(endpoint("e", deployments), &[("blue", 100)], &[("green", 50)]);
    let stage = Stage::start(table(vec![route])).await;
    let mut caller = stage.h1(&host("e")).await;
    let body: Bytes = (0..500_000_u32).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
    for _ in 0..20 {
        assert_eq!(caller.call(score("e", body.clone())).await.text(), "blue");
    }
    until("a copy arrives", || !kept.lock().unwrap().is_empty()).await;
    assert!(kept.lock().unwrap().iter().all(|copy| *copy == body));
}
