//! The ways in: public and private listeners, who may call there, and what each leads to. Every refusal stands beside
//! the same call by a way that is open.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use casemate_model::{
    inbound::{AllowList, DeploymentCallers, PrivateListener},
    route::EndpointRoute,
};
use http::{Request, StatusCode};
use tokio::{
    io::AsyncReadExt,
    net::{TcpSocket, TcpStream},
};

use crate::support::*;

/// A listener of the private endpoint of `workspace` at a free port of `ip`, for callers in `callers`.
fn private(ip: &str, callers: &str, target: &str) -> Arc<PrivateListener> {
    let socket = std::net::TcpListener::bind((ip, 0)).unwrap();
    Arc::new(PrivateListener {
        network: workspace("network"),
        endpoint: workspace(&format!("{target}-endpoint")),
        target: workspace(target),
        address: socket.local_addr().unwrap(),
        callers: vec![callers.parse().unwrap()],
        socket: Some(Arc::new(socket)),
    })
}

async fn endpoints(model: &Model) -> Vec<EndpointRoute> {
    let route = |name: &str, home: &str, public_access| EndpointRoute {
        workspace: workspace(home),
        public_access,
        ..endpoint(name, vec![deployment("blue", wide(), &[&model.upstream])])
    };
    vec![route("closed", "w", false), route("open", "w", true), route("foreign", "x", true)]
}

/// A connection from `from` to `to`.
async fn connect(from: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0))?;
    socket.connect(to).await
}

/// Waits until there is a listener at `to`.
async fn opened(to: SocketAddr) {
    let began = Instant::now();
    while TcpStream::connect(to).await.is_err() {
        assert!(began.elapsed() < PATIENCE, "nobody listens at {to}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One HTTP/1.1 request to `to` from 127.0.0.1, for the host that it names.
async fn call_at(stage: &Stage, to: SocketAddr, request: Request<Body>) -> Answer {
    let name = request.headers()["host"].to_str().unwrap().to_owned();
    let stream = connect("127.0.0.1", to).await.unwrap();
    stage.h1_over(stage.tls_over(stream, &name, "http/1.1").await.unwrap()).await.call(request).await
}

fn by_path(endpoint: &str) -> Request<Body> {
    at(with(score(endpoint, "x"), "host", "localhost"), &format!("/api/v1/endpoint/{endpoint}/score"))
}

#[tokio::test]
async fn an_endpoint_without_public_access_is_reached_through_its_private_endpoint_and_nowhere_else() {
    let model = Model::says("ok").await;
    let stage = Stage::start(table(endpoints(&model).await)).await;
    let (own, other) = (private("127.0.5.1", "127.0.0.0/8", "w"), private("127.0.5.2", "127.0.0.0/8", "x"));
    stage.open(vec![Arc::clone(&own), Arc::clone(&other)]);
    let public = stage.address;
    let closed = "PublicNetworkAccessDisabled";
    for (to, request, status, code) in [
        (public, score("closed", "x"), 403, closed),
        (public, by_path("closed"), 403, closed),
        (public, at(score("closed", "x"), "/metrics"), 403, closed),
        (public, score("open", "x"), 200, ""),
        (own.address, score("closed", "x"), 200, ""),
        (own.address, by_path("closed"), 200, ""),
        (own.address, at(score("closed", "x"), "/metrics"), 404, "NotFound"),
        (own.address, with(score("closed", "x"), "authorization", "Bearer wrong"), 401, "Unauthorized"),
        (own.address, score("open", "x"), 200, ""),
        (own.address, score("foreign", "x"), 403, closed),
        (own.address, by_path("foreign"), 403, closed),
        (other.address, score("closed", "x"), 403, closed),
        (other.address, by_path("closed"), 403, closed),
        (other.address, score("open", "x"), 403, closed),
        (other.address, score("foreign", "x"), 200, ""),
    ] {
        let shown = format!("{} of {} at {to}", request.uri(), request.headers()["host"].to_str().unwrap());
        let answer = call_at(&stage, to, request).await;
        assert_eq!(answer.status.as_u16(), status, "{shown}");
        if status == 200 {
            assert_eq!(answer.text(), "ok", "{shown}");
        } else {
            assert_eq!(answer.code(), code, "{shown}");
        }
    }
}

#[tokio::test]
async fn a_refused_way_says_the_same_whatever_the_credentials() {
    let model = Model::says("ok").await;
    let stage = Stage::start(table(endpoints(&model).await)).await;
    let mut connection = stage.h2(&host("closed")).await;
    let mut seen = Vec::new();
    for request in [
        score("closed", "x"),
        with(score("closed", "x"), "authorization", "Bearer wrong"),
        with(score("closed", "x"), "authorization", "Basic eDp5"),
        without(score("closed", "x"), "authorization"),
        with(score("closed", "x"), "azureml-model-deployment", "nowhere"),
        with(score("closed", "x"), "x-forwarded-for", "127.0.5.1"),
    ] {
        let answer = connection.call(to_url(request)).await;
        assert_eq!((answer.status, answer.code().as_str()), (StatusCode::FORBIDDEN, "PublicNetworkAccessDisabled"));
        let mut headers: Vec<String> = answer.headers.keys().map(ToString::to_string).collect();
        headers.sort_unstable();
        seen.push((answer.text().to_owned(), headers));
    }
    seen.dedup();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(model.hits(), 0);
}

#[tokio::test]
async fn management_requests_know_where_they_came_in() {
    let stage = Stage::start(table(Vec::new())).await;
    let own = private("127.0.5.3", "127.0.0.0/8", "w");
    stage.open(vec![Arc::clone(&own)]);
    let request = || Request::get("/x").header("host", "localhost").body(full("")).unwrap();
    opened(own.address).await;
    assert_eq!(call_at(&stage, own.address, request()).await.header("x-origin"), "w");
    assert_eq!(call_at(&stage, stage.address, request()).await.header("x-origin"), "public");
}

#[tokio::test]
async fn callers_from_outside_of_the_network_are_closed_before_tls() {
    let model = Model::says("ok").await;
    let stage = Stage::start(table(endpoints(&model).await)).await;
    let own = private("127.0.5.4", "127.44.0.0/16", "w");
    stage.open(vec![Arc::clone(&own)]);
    for (from, served) in [("127.44.0.9", true), ("127.0.0.1", false), ("127.45.0.1", false), ("127.0.5.4", false)] {
        let mut stream = connect(from, own.address).await.unwrap();
        if served {
            let stream = stage.tls_over(stream, &host("closed"), "http/1.1").await.unwrap();
            assert_eq!(stage.h1_over(stream).await.call(score("closed", "x")).await.text(), "ok");
        } else {
            // Not a byte, and no waiting for one.
            let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap();
            assert!(matches!(read, Ok(0) | Err(_)), "{from} got {read:?}");
        }
    }
}

#[tokio::test]
async fn an_allow_list_closes_public_listeners_to_others() {
    let model = Model::says("ok").await;
    let routes = vec![endpoint("open", vec![deployment("blue", wide(), &[&model.upstream])])];
    let allow = AllowList::parse(["127.0.6.0/24"]).unwrap();
    let stage = Stage::start_with(table(routes), |config| config.allow_from = allow).await;
    let own = private("127.0.5.5", "127.0.0.0/8", "w");
    stage.open(vec![Arc::clone(&own)]);
    let stream = connect("127.0.6.1", stage.address).await.unwrap();
    let stream = stage.tls_over(stream, &host("open"), "h2").await.unwrap();
    assert_eq!(stage.h2_over(stream).await.call(to_url(score("open", "x"))).await.text(), "ok");
    let mut stream = connect("127.0.7.1", stage.address).await.unwrap();
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    // It is for public listeners only: a network says itself who is in it.
    assert_eq!(call_at(&stage, own.address, score("open", "x")).await.text(), "ok");
}

#[tokio::test]
async fn a_workspace_admits_public_callers_by_address() {
    let model = Model::says("ok").await;
    let route = EndpointRoute {
        allowed_callers: AllowList::parse(["127.0.6.0/24", "2001:db8::/32"]).unwrap(),
        ..endpoint("open", vec![deployment("blue", wide(), &[&model.upstream])])
    };
    let stage = Stage::start(table(vec![route])).await;
    let own = private("127.0.5.6", "127.0.0.0/8", "w");
    stage.open(vec![Arc::clone(&own)]);
    for (from, key, status) in
        [("127.0.6.1", KEY, 200), ("127.0.6.1", "wrong", 401), ("127.0.7.1", KEY, 403), ("127.0.7.1", "wrong", 403)]
    {
        let stream = connect(from, stage.address).await.unwrap();
        let stream = stage.tls_over(stream, &host("open"), "http/1.1").await.unwrap();
        let request = with(score("open", "x"), "authorization", &format!("Bearer {key}"));
        let answer = stage.h1_over(stream).await.call(request).await;
        assert_eq!(answer.status.as_u16(), status, "{from} {key}");
        if status == 403 {
            assert_eq!(answer.code(), "ForbiddenByFirewall");
        }
    }
    assert_eq!(call_at(&stage, own.address, score("open", "x")).await.text(), "ok");
}

#[tokio::test]
async fn access_changes_for_connections_that_are_open() {
    let model = Model::says("ok").await;
    let stage = Stage::start(table(endpoints(&model).await)).await;
    let (mut one, mut two) = (stage.h1(&host("open")).await, stage.h2(&host("open")).await);
    for access in [true, false, true] {
        let mut routes = endpoints(&model).await;
        routes.iter_mut().filter(|route| route.name == "open").for_each(|route| route.public_access = access);
        stage.publish(table(routes));
        let wanted = if access { 200 } else { 403 };
        let began = Instant::now();
        while one.call(score("open", "x")).await.status.as_u16() != wanted {
            assert!(began.elapsed() < PATIENCE, "never {wanted}");
        }
        assert_eq!(two.call(to_url(score("open", "x"))).await.status.as_u16(), wanted);
    }
}

#[tokio::test]
async fn a_private_listener_that_goes_takes_its_connections_with_it() {
    let model = Model::says("ok").await;
    let stage = Stage::start(table(endpoints(&model).await)).await;
    let (own, other) = (private("127.0.5.7", "127.0.0.0/8", "w"), private("127.0.5.8", "127.0.0.0/8", "x"));
    let (address, stays) = (own.address, other.address);
    stage.open(vec![own, Arc::clone(&other)]);
    let connect = async |to, name: &str, alpn| {
        let stream = connect("127.0.0.1", to).await.unwrap();
        stage.tls_over(stream, &host(name), alpn).await.unwrap()
    };
    let mut one = stage.h1_over(connect(address, "closed", "http/1.1").await).await;
    let mut two = stage.h2_over(connect(address, "closed", "h2").await).await;
    let mut kept = stage.h1_over(connect(stays, "foreign", "http/1.1").await).await;
    let mut half = TcpStream::connect(address).await.unwrap();
    assert_eq!(one.call(score("closed", "x")).await.text(), "ok");
    assert_eq!(two.call(to_url(score("closed", "x"))).await.text(), "ok");
    assert_eq!(kept.call(score("foreign", "x")).await.text(), "ok");

    let began = Instant::now();
    stage.open(vec![other]);
    one.closed().await;
    two.closed().await;
    let read = tokio::time::timeout(PATIENCE, half.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    while TcpStream::connect(address).await.is_ok() {
        assert!(began.elapsed() < PATIENCE, "the listener is still there");
    }
    assert_eq!(kept.call(score("foreign", "x")).await.text(), "ok");
}

#[tokio::test]
async fn a_wildcard_listener_knows_private_addresses() {
    let model = Model::says("ok").await;
    let stage = Stage::start_on("0.0.0.0:0", table(endpoints(&model).await), |_| {}).await;
    let at = |ip: &str| SocketAddr::new(ip.parse::<IpAddr>().unwrap(), stage.address.port());
    let listener = |target: &str| {
        Arc::new(PrivateListener {
            network: workspace("network"),
            endpoint: workspace("pe"),
            target: workspace(target),
            address: at("127.0.5.9"),
            callers: vec!["127.0.0.0/8".parse().unwrap()],
            socket: None,
        })
    };
    assert_eq!(call_at(&stage, at("127.0.5.9"), score("closed", "x")).await.status.as_u16(), 403);
    for (target, status) in [("w", 200), ("x", 403)] {
        stage.open(vec![listener(target)]);
        let began = Instant::now();
        while call_at(&stage, at("127.0.5.9"), score("closed", "x")).await.status.as_u16() != status {
            assert!(began.elapsed() < PATIENCE, "never {status}");
        }
        assert_eq!(call_at(&stage, at("127.0.5.10"), score("closed", "x")).await.status.as_u16(), 403);
    }
}

#[tokio::test]
async fn a_deployment_of_this_machine_is_known_by_its_connection_and_nobody_else_gains_by_it() {
    for allowed in ["", "203.0.113.0/24"] {
        let callers = DeploymentCallers::default();
        let stage = Stage::start_with(table(Vec::new()), |config| {
            config.deployments = callers.clone();
            config.allow_from = AllowList::parse((!allowed.is_empty()).then_some(allowed)).unwrap();
        })
        .await;
        let open = allowed.is_empty();
        let host = "w.blob.core.casemate.internal";
        let request = |path: &str| with(at(score("x", "x"), path), "host", host);
        let bound = || {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = socket.local_addr().unwrap();
            (socket, address)
        };
        // A deployment's, while another program's connection of the same time is what it always was.
        let (socket, address) = bound();
        let (forgotten, forgotten_address) = bound();
        let held = callers.register(address, workspace("w"));
        drop(callers.register(forgotten_address, workspace("w")));
        let stranger = connect("127.0.0.1", stage.address).await.unwrap();
        let forgotten = forgotten.connect(stage.address).await.unwrap();
        for stream in [stranger, forgotten] {
            let stream = stage.tls_over(stream, "localhost", "http/1.1").await;
            assert_eq!(stream.is_ok(), open, "{allowed}");
            let Ok(stream) = stream else { continue };
            let answer = stage.h1_over(stream).await.call(with(request("/c/f"), "host", "localhost")).await;
            assert_eq!(answer.headers["x-origin"], "public");
        }
        let stream = socket.connect(stage.address).await.unwrap();
        let stream = stage.tls_over(stream, "localhost", "http/1.1").await.unwrap();
        let mut own = stage.h1_over(stream).await;
        let expected = format!("deployment of w, public: {open}");
        for _ in 0..2 {
            let answer = own.call(with(request("/c/f"), "host", "localhost")).await;
            assert_eq!(answer.headers["x-origin"], expected.as_str());
        }
        // Names are looked at as ever, and what is told once is not told again.
        assert_eq!(own.call(request("/c/f")).await.status, StatusCode::MISDIRECTED_REQUEST);
        assert!(callers.is_empty());
        drop(held);
    }
}
