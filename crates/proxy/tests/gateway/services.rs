//! Services of the first generation: by host and by path, with TLS and without.

use std::sync::Arc;

use casemate_model::{
    ResourceId,
    endpoint::AuthMode,
    route::{EndpointRoute, HostRoute, RouteTable, ServiceRoute},
};
use casemate_pki::CertificateMap;
use http::{Request, Response, StatusCode};

use crate::support::*;

pub const POOL: &str = "www.example.org";
pub const OWN: &str = "one.example.org";

pub fn compute(name: &str) -> ResourceId {
    ResourceId::parse(&format!("{}/computes/{name}", workspace("w").as_str())).unwrap()
}

pub fn service(route: EndpointRoute, on: Option<&str>, plain: bool, tls: bool) -> (String, Arc<ServiceRoute>) {
    let name = route.name.to_lowercase();
    (name, Arc::new(ServiceRoute { endpoint: Arc::new(route), compute: on.map(compute), plain, tls }))
}

/// `both`, `secure` and `open` on the compute of [`POOL`], `other` on another one, `one` at [`OWN`] for everybody; `e`
/// is an endpoint.
pub fn services(model: &Model) -> RouteTable {
    let route = |name: &str| endpoint(name, vec![deployment("default", wide(), &[&model.upstream])]);
    let anyone = EndpointRoute { auth: AuthMode::None, keys: vec![], ..route("one") };
    RouteTable {
        services: [
            service(route("both"), Some("pool"), true, true),
            service(route("secure"), Some("pool"), false, true),
            service(route("open"), Some("pool"), true, false),
            service(route("other"), Some("pond"), true, true),
            service(anyone, None, true, true),
        ]
        .into(),
        hosts: [
            (POOL.to_owned(), HostRoute::Compute(compute("pool"))),
            (OWN.to_owned(), HostRoute::Service("one".to_owned())),
        ]
        .into(),
        ..table(vec![route("e")])
    }
}

/// Tells the scheme and the path that it was called with.
pub async fn echo() -> Model {
    Model::start(|request| async move {
        let scheme = request.headers()["x-forwarded-proto"].to_str().unwrap();
        let text = format!("{scheme} {}", request.uri());
        Response::new(full(text))
    })
    .await
}

pub fn post(host: &str, path: &str) -> Request<Body> {
    at(with(score("e", "x"), "host", host), path)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_called_by_host_and_by_path_on_the_ports_that_are_open() {
    let model = echo().await;
    let stage = Stage::start(services(&model)).await;
    let names = [POOL, OWN, "localhost", "127.0.0.1"].map(str::to_owned);
    let leaf = stage.authority.issue(&names, jiff::Timestamp::now(), std::time::Duration::from_secs(3600)).unwrap();
    let served = names[..3].iter().map(|name| (name.clone(), &leaf));
    stage.certificates.publish(CertificateMap::new(served, Some(&leaf)));

    let (tls, plain) = (stage.address.port(), stage.plain.port());
    let none = "";
    for (host, path, secure, open) in [
        (POOL, "/api/v1/service/both/score?a=b", "200 https /score?a=b", "200 http /score?a=b"),
        (POOL, "/api/v1/service/Both/swagger.json", "200 https /swagger.json", "200 http /swagger.json"),
        ("127.0.0.1", "/api/v1/service/both/score", "200 https /score", "200 http /score"),
        ("localhost", "/api/v1/service/other/score", "200 https /score", "200 http /score"),
        (POOL, "/api/v1/service/secure/score", "200 https /score", "403 HttpsRequired https://www.example.org:TLS"),
        (POOL, "/api/v1/service/open/score", "403 HttpRequired http://www.example.org:PLAIN", "200 http /score"),
        (POOL, "/api/v1/service/other/score", "404 ServiceNotFound", "404 ServiceNotFound"),
        (POOL, "/api/v1/service/nobody/score", "404 ServiceNotFound", "404 ServiceNotFound"),
        (POOL, "/score", "404 NotFound", "404 NotFound"),
        (OWN, "/score", "200 https /score", "200 http /score"),
        (OWN, "/", "200 https /", "200 http /"),
        (OWN, "/metrics", "404 NotFound", "404 NotFound"),
        ("localhost", "/api/v1/endpoint/e/score", "200 https /score", "403 HttpsRequired https://e.local.inference"),
        ("127.0.0.1", "/subscriptions", none, "404 HttpsRequired https://127.0.0.1:TLS"),
        ("127.0.0.1", "/", none, "404 HttpsRequired https://127.0.0.1:TLS"),
        ("localhost", "/api/v1/service/both/token", none, "404 HttpsRequired"),
    ] {
        let answers = [(stage.h1(host).await, secure), (stage.plainly().await, open)];
        for (mut caller, expected) in answers {
            let answer = caller.call(post(host, path)).await;
            let (status, text) = (answer.status.as_u16(), answer.text().to_owned());
            if expected == none {
                assert_eq!(text, format!("management {path}"));
                continue;
            }
            let seen = if status == 200 { format!("200 {text}") } else { format!("{status} {} {text}", answer.code()) };
            let expected = expected.replace("TLS", &tls.to_string()).replace("PLAIN", &plain.to_string());
            let all = expected.splitn(3, ' ').all(|part| seen.contains(part));
            assert!(all && seen.starts_with(&expected[..3]), "{host}{path}: {seen}, not {expected}");
            assert!(!seen.contains("management"), "{seen}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_asks_for_its_keys_or_for_nothing_on_both_ports() {
    let model = echo().await;
    let stage = Stage::start(services(&model)).await;
    for (service, status) in [("both", StatusCode::UNAUTHORIZED), ("one", StatusCode::OK)] {
        for mut caller in [stage.h1("localhost").await, stage.plainly().await] {
            let path = format!("/api/v1/service/{service}/score");
            let answer = caller.call(without(post("localhost", &path), "authorization")).await;
            assert_eq!(answer.status, status, "{service}: {answer:?}");
        }
    }
    // A table without the service ends it; one that keeps it keeps its queue.
    stage.publish(services(&model));
    let mut caller = stage.h1("localhost").await;
    assert_eq!(caller.call(post("localhost", "/api/v1/service/both/score")).await.status, StatusCode::OK);
    stage.publish(table(vec![]));
    let gone = loop {
        let answer = caller.call(post("localhost", "/api/v1/service/both/score")).await;
        if answer.status != StatusCode::OK {
            break answer;
        }
    };
    assert_eq!(gone.code(), "ServiceNotFound");
}
