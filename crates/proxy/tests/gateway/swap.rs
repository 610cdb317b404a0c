//! Tables change under load and no request fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::Response;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};

use crate::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_tables_change() {
    let stage = Arc::new(Stage::start(table(vec![])).await);
    let mut blue = vec![Model::says("blue").await, Model::says("blue").await];
    let green = Model::says("green").await;
    let publish = |blue: &[Model], share: u64| {
        let instances: Vec<_> = blue.iter().map(|model| &model.upstream).collect();
        let settings = limits(4, 20_000, 30_000);
        let deployments =
            vec![deployment("blue", settings, &instances), deployment("green", settings, &[&green.upstream])];
        stage.publish(table(vec![with_traffic(
            endpoint("e", deployments),
            &[("blue", share), ("green", 100 - share)],
            &[],
        )]));
    };
    publish(&blue, 100);
    while stage.call(score("e", "x")).await.status.as_u16() == 404 {}
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut callers = JoinSet::new();
    for number in 0..8 {
        let (stage, stop, served) = (Arc::clone(&stage), Arc::clone(&stop), Arc::clone(&served));
        callers.spawn(async move {
            let mut caller = if number % 4 == 3 { None } else { Some(stage.h1(&host("e")).await) };
            while !stop.load(Ordering::Relaxed) {
                let answer = match &mut caller {
                    Some(caller) => caller.call(score("e", "x")).await,
                    None => stage.call(score("e", "x")).await,
                };
                assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let (start, mut tables) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(3) || tables < 200 {
        // A new instance comes, the oldest one goes: off the table first, then it drains, then it dies.
        blue.push(Model::says("blue").await);
        publish(&blue, 10 * (tables % 10 + 1));
        let oldest = blue.remove(0);
        publish(&blue, 10 * (tables % 10 + 1));
        tokio::time::sleep(Duration::from_millis(10)).await;
        until("the old instance is drained", || oldest.upstream.in_flight() == 0).await;
        drop(oldest);
        tables += 2;
        assert!(start.elapsed() < PATIENCE, "only {tables} tables");
    }
    stop.store(true, Ordering::Relaxed);
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
    let served = served.load(Ordering::Relaxed);
    eprintln!("{served} requests over {tables} tables, {} by green", green.hits());
    assert!(served > 100 && green.hits() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_dies_without_notice_is_passed_over() {
    let (dying, living) = (Model::says("dying").await, Model::says("living").await);
    let route = endpoint("e", vec![deployment("blue", wide(), &[&dying.upstream, &living.upstream])]);
    let stage = Stage::start(table(vec![route])).await;
    let mut caller = stage.h1(&host("e")).await;
    for _ in 0..20 {
        caller.call(score("e", "x")).await;
    }
    assert!(dying.hits() > 0 && living.hits() > 0);
    let gone = Arc::clone(&dying.upstream);
    drop(dying);
    until("it takes no connections", || std::net::TcpStream::connect(gone.address).is_err()).await;
    for _ in 0..50 {
        let answer = caller.call(score("e", "x")).await;
        assert_eq!((answer.status.as_u16(), answer.text()), (200, "living"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_takes_no_connections_is_not_tried_again_though_it_is_the_least_loaded() {
    let hold = Arc::new(Semaphore::new(0));
    let holding = Arc::clone(&hold);
    let busy = Model::start(move |request| {
        let holding = Arc::clone(&holding);
        async move {
            if request.headers().contains_key("x-hold") {
                holding.acquire().await.unwrap().forget();
            }
            Response::new(full("busy"))
        }
    })
    .await;
    let dead = upstream(TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap());
    let route = endpoint("e", vec![deployment("blue", wide(), &[&busy.upstream, &dead])]);
    let stage = Arc::new(Stage::start(table(vec![route])).await);
    let held = Arc::clone(&stage);
    let held = tokio::spawn(async move { held.call(with(score("e", "x"), "x-hold", "1")).await });
    until("one is held", || busy.upstream.in_flight() == 1).await;
    for _ in 0..10 {
        assert_eq!(stage.call(score("e", "x")).await.text(), "busy");
    }
    hold.add_permits(1);
    assert_eq!(held.await.unwrap().text(), "busy");
}

#[tokio::test]
async fn connections_to_instances_outlive_tables() {
    let model = Model::says("ok").await;
    let route = || table(vec![endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])])]);
    let stage = Stage::start(route()).await;
    let mut caller = stage.h1(&host("e")).await;
    for _ in 0..20 {
        assert_eq!(caller.call(score("e", "x")).await.text(), "ok");
        stage.publish(route());
        // Time for the new table to be taken over.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((model.hits(), model.connections()), (20, 1));
}
