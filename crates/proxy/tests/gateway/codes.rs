//! Which request gets which status, code and headers; and what the model sees of a request.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use casemate_model::route::Upstream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::Notify,
};
use uuid::Uuid;

use crate::support::*;

/// A model that tells what it was sent.
async fn mirror_glass() -> Model {
    Model::start(|request| async move {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let headers: BTreeMap<String, String> = parts
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect();
        let seen = json!({"method": parts.method.as_str(), "uri": parts.uri.to_string(), "headers": headers,
            "body": String::from_utf8_lossy(&body)});
        let mut answer = Response::new(full(seen.to_string()));
        answer.headers_mut().insert("x-from-the-model", "yes".parse().unwrap());
        answer.headers_mut().insert("x-request-id", "the model's own".parse().unwrap());
        answer.headers_mut().insert("connection", "x-hop".parse().unwrap());
        answer.headers_mut().insert("x-hop", "1".parse().unwrap());
        answer
    })
    .await
}

#[tokio::test]
async fn the_model_sees_the_request_and_the_caller_the_answer() {
    let model = mirror_glass().await;
    let stage =
        Stage::start(table(vec![endpoint("diabetes", vec![deployment("Blue", wide(), &[&model.upstream])])])).await;
    let mut request = at(score("diabetes", r#"{"data": [1]}"#), "/score?verbose=1");
    for (name, value) in [
        ("content-type", "application/json"),
        ("x-ms-client-request-id", "0123456789012345678901234567890123456789-and-more"),
        ("x-forwarded-for", "10.0.0.1"),
        ("forwarded", "for=10.0.0.1"),
        ("connection", "x-private"),
        ("x-private", "secret"),
        ("x-custom", "kept"),
        ("x-request-id", "the caller's own"),
    ] {
        request = with(request, name, value);
    }
    let answer = stage.call(request).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("azureml-model-deployment"), "Blue");
    assert_eq!(answer.header("x-from-the-model"), "yes");
    assert!(!answer.headers.contains_key("x-hop"));
    let id = answer.header("x-request-id");
    assert!(Uuid::parse_str(id).is_ok(), "{id}");
    assert_eq!(answer.header("x-ms-request-id"), id);
    assert_eq!(answer.header("x-ms-client-request-id"), "0123456789012345678901234567890123456789");
    let seen: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (&seen["method"], &seen["uri"], &seen["body"]),
        (&json!("POST"), &json!("/score?verbose=1"), &json!(r#"{"data": [1]}"#))
    );
    let headers = &seen["headers"];
    for (name, value) in [
        ("content-type", json!("application/json")),
        ("content-length", json!("13")),
        ("host", json!(host("diabetes"))),
        ("x-custom", json!("kept")),
        ("x-forwarded-for", json!("127.0.0.1")),
        ("x-forwarded-proto", json!("https")),
        ("x-request-id", json!(id)),
        ("x-ms-client-request-id", json!("0123456789012345678901234567890123456789")),
        ("authorization", json!(null)),
        ("forwarded", json!(null)),
        ("connection", json!(null)),
        ("x-private", json!(null)),
    ] {
        assert_eq!(headers[name], value, "{name} in {headers}");
    }
}

#[tokio::test]
async fn addresses() {
    let model = mirror_glass().await;
    let stage =
        Stage::start(table(vec![endpoint("diabetes", vec![deployment("blue", wide(), &[&model.upstream])])])).await;
    let own = host("diabetes");
    let upper = own.to_uppercase();
    for (host, path, seen) in [
        (own.as_str(), "/", "/"),
        (&own, "/swagger.json?version=3", "/swagger.json?version=3"),
        (&upper, "/score", "/score"),
        ("127.0.0.1", "/api/v1/endpoint/Diabetes/score?a=1", "/score?a=1"),
        ("localhost", "/api/v1/endpoint/diabetes/swagger.json", "/swagger.json"),
    ] {
        let answer = stage.call(with(at(score("diabetes", ""), path), "host", host)).await;
        assert_eq!(answer.status, StatusCode::OK, "{host}{path}");
        let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(told["uri"], seen, "{host}{path}");
    }
    for (host, path) in [("127.0.0.1", "/"), ("localhost", "/score"), ("localhost", "/api/v1/endpoint/diabetes/other")]
    {
        let answer = stage.call(with(at(score("diabetes", ""), path), "host", host)).await;
        assert_eq!(answer.text(), format!("management {path}"), "{host}{path}");
    }
}

/// What a caller does and what it must get.
struct Case {
    what: &'static str,
    request: Request<Body>,
    status: u16,
    code: &'static str,
}

#[tokio::test]
async fn refusals() {
    let model = Model::says("ok").await;
    let blue = || deployment("blue", wide(), &[&model.upstream]);
    let mut hidden = endpoint("hidden", vec![blue()]);
    hidden.public_access = false;
    let silent = with_traffic(endpoint("silent", vec![blue()]), &[("blue", 0)], &[]);
    let ghost = with_traffic(endpoint("ghost", vec![blue()]), &[("gone", 100)], &[]);
    let empty = endpoint("empty", vec![deployment("blue", limits(1, 50, 5000), &[])]);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refusing = upstream(closed);
    let refusing = endpoint("refusing", vec![deployment("blue", wide(), &[&refusing])]);
    let stage = Stage::start_with(
        table(vec![endpoint("open", vec![blue()]), hidden, silent, ghost, empty, refusing]),
        |config| config.max_body_bytes = 1000,
    )
    .await;
    let case = |what, request, status, code| Case { what, request, status, code };
    let (sender, chunked) = channel();
    tokio::spawn(async move { while sender.send(Bytes::from_static(&[b'x'; 400])).await.is_ok() {} });
    let chunked = score("open", "").map(|_| chunked);
    for Case { what, request, status, code } in [
        case("no key", without(score("open", "x"), "authorization"), 401, "Unauthorized"),
        case("wrong key", with(score("open", "x"), "authorization", "Bearer wrong"), 401, "Unauthorized"),
        case("no scheme", with(score("open", "x"), "authorization", KEY), 401, "Unauthorized"),
        case("public access off", score("hidden", "x"), 403, "PublicNetworkAccessDisabled"),
        case("unknown endpoint", score("nobody", "x"), 404, "EndpointNotFound"),
        case(
            "unknown endpoint by path",
            with(at(score("open", "x"), "/api/v1/endpoint/nobody/score"), "host", "localhost"),
            404,
            "EndpointNotFound",
        ),
        case("unknown path", at(score("open", "x"), "/other"), 404, "NotFound"),
        case(
            "unknown deployment",
            with(score("open", "x"), "azureml-model-deployment", "green"),
            404,
            "DeploymentNotFound",
        ),
        case("no traffic", score("silent", "x"), 404, "NoDeploymentWithTraffic"),
        case("traffic to a deployment that is not there", score("ghost", "x"), 404, "NoDeploymentWithTraffic"),
        case("announced too large", score("open", vec![b'x'; 1001]), 413, "RequestBodyTooLarge"),
        case("counted too large", chunked, 413, "RequestBodyTooLarge"),
        case("no instance", score("empty", "x"), 503, "NoInstanceReady"),
        case("instance takes no connection", score("refusing", "x"), 503, "InstanceUnreachable"),
    ] {
        let answer = stage.call(with(request, "x-ms-client-request-id", "mine")).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (status, code), "{what}");
        assert_eq!(answer.header("x-ms-client-request-id"), "mine", "{what}");
        assert_eq!(status == 401, answer.headers.contains_key("www-authenticate"), "{what}");
        assert!(!answer.text().contains(KEY), "{what}");
    }
    let exact = stage.call(score("open", vec![b'x'; 1000])).await;
    assert_eq!((exact.status, model.hits()), (StatusCode::OK, 1));
}

#[tokio::test]
async fn a_host_that_is_not_the_tls_name_is_misdirected() {
    let model = Model::says("ok").await;
    let stage = Stage::start(table(vec![
        endpoint("one", vec![deployment("blue", wide(), &[&model.upstream])]),
        endpoint("two", vec![deployment("blue", wide(), &[&model.upstream])]),
    ]))
    .await;
    let mut caller = stage.h1(&host("one")).await;
    let answer = caller.call(score("two", "x")).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (421, "MisdirectedRequest"));
    let by_path = with(at(score("two", "x"), "/api/v1/endpoint/two/score"), "host", "localhost");
    assert_eq!(caller.call(by_path).await.status, StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(caller.call(score("one", "x")).await.status, StatusCode::OK);
    // A caller of the bare address sends no TLS name, so nothing disagrees.
    assert_eq!(stage.h1("127.0.0.1").await.call(score("two", "x")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_model_that_does_not_answer_200_is_a_failed_dependency() {
    let model = Model::start(|request| async move {
        let status: u16 = request.headers()["x-want"].to_str().unwrap().parse().unwrap();
        let mut answer = Response::new(full(if status == 204 || status == 304 { "" } else { "the model's words" }));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap();
        answer.headers_mut().insert("location", "https://elsewhere.example/".parse().unwrap());
        answer.headers_mut().insert("content-type", "text/plain".parse().unwrap());
        answer
    })
    .await;
    let stage = Stage::start(table(vec![endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])])])).await;
    for (status, reason) in [
        (500, "Internal Server Error"),
        (400, "Bad Request"),
        (503, "Service Unavailable"),
        (302, "Found"),
        (201, "Created"),
        (204, "No Content"),
        (304, "Not Modified"),
    ] {
        let answer = stage.call(with(score("e", "x"), "x-want", &status.to_string())).await;
        assert_eq!(answer.status, StatusCode::FAILED_DEPENDENCY, "{status}");
        assert_eq!(answer.header("ms-azureml-model-error-statuscode"), status.to_string());
        assert_eq!(answer.header("ms-azureml-model-error-reason"), reason);
        assert_eq!(answer.header("azureml-model-deployment"), "blue");
        let body = if status == 204 || status == 304 { "" } else { "the model's words" };
        assert_eq!((answer.text(), answer.header("content-type")), (body, "text/plain"));
    }
    assert_eq!(model.hits(), 7);
}

#[tokio::test]
async fn a_model_that_crashes_or_talks_nonsense_is_a_failed_dependency() {
    async fn head(stream: &mut tokio::net::TcpStream) {
        let _ = stream.read(&mut [0_u8; 4096]).await;
    }
    let crash = Model::tcp(|mut stream| async move { head(&mut stream).await }).await;
    let nonsense = Model::tcp(|mut stream| async move {
        head(&mut stream).await;
        let _ = stream.write_all(b"\x01\x02 this is not HTTP\r\n\r\n").await;
    })
    .await;
    let short = Model::tcp(|mut stream| async move {
        head(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this").await;
    })
    .await;
    let named = [("crash", &crash), ("nonsense", &nonsense), ("short", &short)];
    let endpoints = named.map(|(name, model)| endpoint(name, vec![deployment("blue", wide(), &[&model.upstream])]));
    let stage = Stage::start(table(endpoints.into())).await;
    for (name, reason) in [
        ("crash", "model closed the connection"),
        ("nonsense", "model answered no HTTP"),
        ("short", "model closed the connection"),
    ] {
        let answer = stage.call(score(name, "x")).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (424, "ModelError"), "{name}");
        assert_eq!(answer.header("ms-azureml-model-error-reason"), reason, "{name}");
    }
    // Nothing was sent twice: a model may have begun to work on it.
    assert_eq!((crash.connections(), nonsense.connections(), short.connections()), (1, 1, 1));
}

#[tokio::test]
async fn a_request_that_a_model_died_of_goes_to_no_other_instance() {
    // Answers one request per connection, kept open, and dies with its listener of the second.
    let stop = Arc::new(Notify::new());
    let killer = Arc::clone(&stop);
    let fragile = Model::tcp(move |mut stream| {
        let killer = Arc::clone(&killer);
        async move {
            let _ = stream.read(&mut [0_u8; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            let _ = stream.read(&mut [0_u8; 4096]).await;
            killer.notify_one();
            // The connection ends when the listener is surely gone.
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    })
    .await;
    let other = Model::says("other").await;
    let route = |instances: &[&Arc<Upstream>]| table(vec![endpoint("e", vec![deployment("blue", wide(), instances)])]);
    let (fragile_upstream, other_upstream) = (Arc::clone(&fragile.upstream), Arc::clone(&other.upstream));
    let stage = Stage::start(route(&[&fragile_upstream])).await;
    let mut caller = stage.h1(&host("e")).await;
    assert_eq!(caller.call(score("e", "x")).await.text(), "ok");
    let second = caller.call(score("e", "x"));
    let death = async {
        stop.notified().await;
        stage.publish(route(&[&fragile_upstream, &other_upstream]));
        fragile.close();
    };
    let (answer, ()) = tokio::join!(second, death);
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (424, "ModelError"));
    assert_eq!(other.hits(), 0);
}

#[tokio::test]
async fn a_model_that_hangs_is_a_timeout() {
    let hang = Model::start(|_| std::future::pending()).await;
    let half = Model::tcp(|mut stream| async move {
        let _ = stream.read(&mut [0_u8; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this").await;
        std::future::pending().await
    })
    .await;
    let settings = limits(10, 1000, 300);
    let stage = Stage::start(table(vec![
        endpoint("hang", vec![deployment("blue", settings, &[&hang.upstream])]),
        endpoint("half", vec![deployment("blue", settings, &[&half.upstream])]),
    ]))
    .await;
    for name in ["hang", "half"] {
        let start = std::time::Instant::now();
        let answer = stage.call(score(name, "x")).await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (408, "RequestTimeout"), "{name}");
        assert!(start.elapsed() >= Duration::from_millis(300), "{name}");
    }
    until("the places are given back", || hang.upstream.in_flight() + half.upstream.in_flight() == 0).await;
}

#[tokio::test]
async fn head_and_get_pass_through() {
    let model = Model::start(|request| async move {
        let mut answer = Response::new(full("Healthy"));
        answer.headers_mut().insert("x-method", request.method().as_str().parse().unwrap());
        answer
    })
    .await;
    let stage = Stage::start(table(vec![endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])])])).await;
    let mut caller = stage.h1(&host("e")).await;
    for (method, length, body) in [(Method::HEAD, "7", ""), (Method::GET, "7", "Healthy"), (Method::HEAD, "7", "")] {
        let mut request = at(score("e", ""), "/");
        *request.method_mut() = method.clone();
        let answer = caller.call(request).await;
        assert_eq!((answer.status, answer.header("x-method")), (StatusCode::OK, method.as_str()));
        assert_eq!((answer.header("content-length"), answer.text()), (length, body), "{method}");
    }
}
