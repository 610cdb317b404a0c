//! HTTP/2.

use http::{Request, StatusCode, Version};
use http_body_util::BodyExt;
use tokio::task::JoinSet;

use crate::support::*;

fn score2(endpoint: &str, body: &'static str) -> Request<Body> {
    let request = without(score(endpoint, body), "host");
    at(request, &format!("https://{}/score", host(endpoint)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_share_a_connection() {
    let model = Model::start(|request| async move {
        let told = request.headers()["host"].to_str().unwrap().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        http::Response::new(full(format!("{told} {}", String::from_utf8_lossy(&body))))
    })
    .await;
    let stage = Stage::start(table(vec![endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])])])).await;
    let caller = stage.h2(&host("e")).await;
    let mut calls = JoinSet::new();
    for _ in 0..300 {
        let mut sender = caller.fork();
        calls.spawn(async move {
            sender.ready().await.unwrap();
            let answer = sender.send_request(score2("e", "hello")).await.unwrap();
            assert_eq!((answer.status(), answer.version()), (StatusCode::OK, Version::HTTP_2));
            answer.into_body().collect().await.unwrap().to_bytes()
        });
    }
    while let Some(body) = calls.join_next().await {
        assert_eq!(body.unwrap(), format!("{} hello", host("e")));
    }
    assert_eq!(model.hits(), 300);
}

#[tokio::test]
async fn a_connection_is_good_for_one_endpoint() {
    let model = Model::says("ok").await;
    let route = |name| endpoint(name, vec![deployment("blue", wide(), &[&model.upstream])]);
    let stage = Stage::start(table(vec![route("one"), route("two")])).await;
    let mut caller = stage.h2(&host("one")).await;
    let answer = caller.call(score2("two", "x")).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (421, "MisdirectedRequest"));
    let two_hosts = with(score2("one", "x"), "host", &host("two"));
    assert_eq!(caller.call(two_hosts).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(caller.call(score2("one", "x")).await.text(), "ok");
}

#[tokio::test]
async fn cookies_reach_the_model_in_one_header() {
    let model = Model::start(|request| async move {
        let cookies: Vec<_> = request.headers().get_all("cookie").iter().map(|value| value.to_str().unwrap()).collect();
        http::Response::new(full(cookies.join("|")))
    })
    .await;
    let stage = Stage::start(table(vec![endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])])])).await;
    let mut request = score2("e", "x");
    for cookie in ["a=1", "b=2", "c=3"] {
        request.headers_mut().append("cookie", cookie.parse().unwrap());
    }
    assert_eq!(stage.h2(&host("e")).await.call(request).await.text(), "a=1; b=2; c=3");
}

#[tokio::test]
async fn refusals_leave_the_connection_usable() {
    let model = Model::says("ok").await;
    let stage = Stage::start(table(vec![endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])])])).await;
    let mut caller = stage.h2(&host("e")).await;
    for _ in 0..20 {
        let answer = caller.call(without(score2("e", "x"), "authorization")).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "Unauthorized"));
        assert_eq!(caller.call(score2("e", "x")).await.text(), "ok");
    }
}
