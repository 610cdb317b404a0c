//! Concurrency, waiting in order, and refusing at once.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::Response;
use http_body_util::BodyExt;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::support::*;

/// A model whose answers wait for a permit each; it knows how many requests it had at once, at most.
struct Gate {
    model: Model,
    permits: Arc<Semaphore>,
    most: Arc<AtomicUsize>,
    /// Bodies in order of arrival.
    arrived: Arc<Mutex<Vec<String>>>,
}

impl Gate {
    async fn new() -> Self {
        let permits = Arc::new(Semaphore::new(0));
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let (gate, peak, arrivals) = (Arc::clone(&permits), Arc::clone(&most), Arc::clone(&arrived));
        let model = Model::start(move |request| {
            let (gate, now, peak) = (Arc::clone(&gate), Arc::clone(&now), Arc::clone(&peak));
            let arrivals = Arc::clone(&arrivals);
            async move {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let body = request.into_body().collect().await.unwrap().to_bytes();
                arrivals.lock().unwrap().push(String::from_utf8_lossy(&body).into_owned());
                gate.acquire().await.unwrap().forget();
                now.fetch_sub(1, Ordering::SeqCst);
                Response::new(full(body))
            }
        })
        .await;
        Self { model, permits, most, arrived }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_twice_the_places_is_refused_at_once_and_the_rest_is_served() {
    let gate = Gate::new().await;
    let route = endpoint("e", vec![deployment("blue", limits(3, 20_000, 30_000), &[&gate.model.upstream])]);
    let stage = Arc::new(Stage::start(table(vec![route])).await);
    let mut calls = JoinSet::new();
    for number in 0..10 {
        let stage = Arc::clone(&stage);
        calls.spawn(async move { stage.call(score("e", number.to_string())).await });
    }
    // Four of ten can't be let in: 2 x 3 x 1 are.
    for _ in 0..4 {
        let refused = calls.join_next().await.unwrap().unwrap();
        assert_eq!((refused.status.as_u16(), refused.code().as_str()), (429, "TooManyRequests"));
        assert_eq!(refused.header("retry-after"), "1");
    }
    assert_eq!(gate.model.upstream.in_flight(), 3);
    until("all places are taken", || gate.model.hits() == 3).await;
    gate.permits.add_permits(6);
    while let Some(served) = calls.join_next().await {
        assert_eq!(served.unwrap().status.as_u16(), 200);
    }
    assert_eq!((gate.model.hits(), gate.most.load(Ordering::SeqCst)), (6, 3));
    assert_eq!(gate.model.upstream.in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_too_long_is_refused_and_who_came_first_is_served_first() {
    let gate = Gate::new().await;
    let route = |wait_ms| endpoint("e", vec![deployment("blue", limits(3, wait_ms, 30_000), &[&gate.model.upstream])]);
    let stage = Arc::new(Stage::start(table(vec![route(100)])).await);
    let mut calls = JoinSet::new();
    let call = |calls: &mut JoinSet<Answer>, number: usize| {
        let stage = Arc::clone(&stage);
        calls.spawn(async move { stage.call(score("e", number.to_string())).await });
    };
    for number in 0..3 {
        call(&mut calls, number);
    }
    until("all places are taken", || gate.model.hits() == 3).await;
    let refused = stage.call(score("e", "late")).await;
    assert_eq!((refused.status.as_u16(), refused.code().as_str()), (429, "TooManyRequests"));
    stage.publish(table(vec![route(20_000)]));
    // The limits of the new table hold once a caller is let in under them.
    tokio::time::sleep(Duration::from_millis(200)).await;
    for number in 3..6 {
        call(&mut calls, number);
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    for expected in 4..=6 {
        gate.permits.add_permits(1);
        assert_eq!(calls.join_next().await.unwrap().unwrap().status.as_u16(), 200);
        until("the next one is let in", || gate.arrived.lock().unwrap().len() == expected).await;
    }
    gate.permits.add_permits(3);
    while let Some(served) = calls.join_next().await {
        assert_eq!(served.unwrap().status.as_u16(), 200);
    }
    // The first three came together; the others waited, and were let in one by one.
    let arrived = gate.arrived.lock().unwrap().clone();
    assert_eq!(arrived[3..], ["3", "4", "5"], "{arrived:?}");
    assert_eq!(gate.most.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_loaded_instance_is_chosen_and_a_new_one_serves_those_who_wait() {
    let (one, two) = (Gate::new().await, Gate::new().await);
    let route = |instances: &[&Gate]| {
        let upstreams: Vec<_> = instances.iter().map(|gate| &gate.model.upstream).collect();
        table(vec![endpoint("e", vec![deployment("blue", limits(2, 20_000, 30_000), &upstreams)])])
    };
    let stage = Arc::new(Stage::start(route(&[&one, &two])).await);
    let mut calls = JoinSet::new();
    let call = |calls: &mut JoinSet<Answer>| {
        let stage = Arc::clone(&stage);
        calls.spawn(async move { stage.call(score("e", "x")).await });
    };
    for expected in [1, 2, 3, 4] {
        call(&mut calls);
        until("one more in flight", || one.model.hits() + two.model.hits() == expected).await;
        let (left, right) = (one.model.upstream.in_flight(), two.model.upstream.in_flight());
        assert!(left.abs_diff(right) <= 1, "{left} {right}");
    }
    call(&mut calls);
    call(&mut calls);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(one.model.hits() + two.model.hits(), 4, "the fifth and sixth wait");
    let third = Gate::new().await;
    third.permits.add_permits(10);
    stage.publish(route(&[&one, &two, &third]));
    until("the new instance serves them", || third.model.hits() == 2).await;
    one.permits.add_permits(10);
    two.permits.add_permits(10);
    while let Some(served) = calls.join_next().await {
        assert_eq!(served.unwrap().status.as_u16(), 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_gives_its_place_back() {
    let gate = Gate::new().await;
    let route = endpoint("e", vec![deployment("blue", limits(1, 20_000, 30_000), &[&gate.model.upstream])]);
    let stage = Stage::start(table(vec![route])).await;
    let mut gone = stage.h1(&host("e")).await;
    let waiting = tokio::spawn(async move { gone.send(score("e", "x")).await.map(|_| gone) });
    until("the request is in flight", || gate.model.upstream.in_flight() == 1).await;
    waiting.abort();
    until("the place is free", || gate.model.upstream.in_flight() == 0).await;
    gate.permits.add_permits(2);
    assert_eq!(stage.call(score("e", "x")).await.status.as_u16(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_deployment_sends_its_waiters_to_another() {
    let (blue, green) = (Gate::new().await, Model::says("green").await);
    let stage = Arc::new(
        Stage::start(table(vec![endpoint(
            "e",
            vec![deployment("blue", limits(1, 20_000, 30_000), &[&blue.model.upstream])],
        )]))
        .await,
    );
    let mut calls = JoinSet::new();
    for _ in 0..2 {
        let stage = Arc::clone(&stage);
        calls.spawn(async move { stage.call(score("e", "x")).await });
    }
    until("one is in flight", || blue.model.upstream.in_flight() == 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    stage.publish(table(vec![endpoint("e", vec![deployment("green", wide(), &[&green.upstream])])]));
    assert_eq!(calls.join_next().await.unwrap().unwrap().text(), "green");
    blue.permits.add_permits(1);
    assert_eq!(calls.join_next().await.unwrap().unwrap().text(), "x");
}
