//! The client and the upload against scripted peers behind real TLS.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

mod peer;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    http::{HeaderMap, StatusCode, header::LOCATION},
    routing::{any, delete, get, post, put},
};
use casemate_model::{FaultKind, Secret};
use casemate_wire::client::{Accepted, Client, Credential, WaitLimits};
use peer::Peer;
use reqwest::Method;
use serde_json::{Value, json};

fn credential() -> Credential {
    Credential { tenant: "t".to_owned(), client_id: "app".to_owned(), client_secret: Secret::from("s&cret") }
}

fn client(peer: &Peer) -> Client {
    Client::new(&peer.url, Some(peer.ca_pem.as_bytes()), credential()).unwrap()
}

/// A token issuer that counts, beside the routes of a test.
fn with_tokens(routes: Router, issued: Arc<AtomicUsize>) -> Router {
    let issue = move |body: String| {
        let number = issued.fetch_add(1, Ordering::SeqCst);
        async move {
            if !body.contains("client_secret=s%26cret") {
                let refusal =
                    json!({"error": "invalid_client", "error_description": "AADSTS7000215: wrong. Trace ID: 1"});
                return (StatusCode::UNAUTHORIZED, Json(refusal));
            }
            (StatusCode::OK, Json(json!({"access_token": format!("token-{number}"), "expires_in": 3600})))
        }
    };
    routes.route("/t/oauth2/v2.0/token", post(issue))
}

async fn peer(routes: Router) -> Peer {
    Peer::start(with_tokens(routes, Arc::default())).await
}

#[tokio::test]
async fn tokens_are_kept_and_replaced_when_refused() {
    let issued = Arc::new(AtomicUsize::new(0));
    let routes = Router::new().route(
        "/thing",
        get(|headers: HeaderMap| async move {
            match headers["authorization"].to_str().unwrap() {
                "Bearer token-0" => Err(StatusCode::UNAUTHORIZED),
                other => Ok(Json(json!({"seen": other}))),
            }
        }),
    );
    let peer = Peer::start(with_tokens(routes, issued.clone())).await;
    let client = client(&peer);
    for _ in 0..3 {
        assert_eq!(client.get("/thing").await.unwrap(), json!({"seen": "Bearer token-1"}));
    }
    assert_eq!(issued.load(Ordering::SeqCst), 2);
    client.token(Some("https://ml.azure.com")).await.unwrap();
    assert_eq!(issued.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_refused_sign_in_says_who_and_why() {
    let peer = peer(Router::new()).await;
    let wrong = Credential { client_secret: Secret::from("other"), ..credential() };
    let client = Client::new(&peer.url, Some(peer.ca_pem.as_bytes()), wrong).unwrap();
    let fault = client.get("/thing").await.unwrap_err();
    assert_eq!((fault.kind, fault.code.as_str()), (FaultKind::Unauthenticated, "invalid_client"));
    assert_eq!(fault.message, "The sign-in of 'app' was refused: AADSTS7000215: wrong.");
}

#[tokio::test]
async fn faults_of_the_connection() {
    let peer = peer(Router::new()).await;
    let untrusting = Client::new(&peer.url, Some(peer::authority().pem().as_bytes()), credential()).unwrap();
    assert_eq!(untrusting.get("/thing").await.unwrap_err().code, "CertificateNotTrusted");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::new(&format!("https://{closed}"), Some(peer.ca_pem.as_bytes()), credential()).unwrap();
    let fault = client.get("/thing").await.unwrap_err();
    assert_eq!(fault.code, "PlatformNotReachable");
    assert!(fault.message.contains("casemate up"), "{}", fault.message);
    let client = Client::new(&peer.url, Some(peer.ca_pem.as_bytes()), credential()).unwrap();
    let call = client.http().request(reqwest::Method::POST, format!("https://{closed}/score").parse().unwrap());
    let fault = client.http().send_once(call).await.unwrap_err();
    assert_eq!(fault.code, "EndpointNotReachable");
    assert!(fault.message.contains(&closed.to_string()), "{}", fault.message);
    for (url, ca) in [
        ("http://127.0.0.1:1", None),
        ("nonsense", None),
        ("https://h/path", None),
        ("https://h", Some(&b"no pem"[..])),
    ] {
        assert!(Client::new(url, ca, credential()).is_err(), "{url}");
    }
}

#[tokio::test]
async fn errors_are_read_and_404_may_be_an_answer() {
    let routes = Router::new()
        .route(
            "/wrong",
            get(|| async {
                (StatusCode::BAD_REQUEST, Json(json!({"error": {"code": "BadArgument", "message": "m"}})))
            }),
        )
        .route("/there", get(|| async { Json(json!({"a": 1})) }));
    let peer = peer(routes).await;
    let client = client(&peer);
    let fault = client.get("/wrong").await.unwrap_err();
    assert_eq!((fault.kind, fault.code.as_str(), fault.message.as_str()), (FaultKind::Invalid, "BadArgument", "m"));
    assert_eq!(client.get("/none").await.unwrap_err().kind, FaultKind::NotFound);
    assert_eq!(client.get_optional("/none").await.unwrap(), None);
    assert_eq!(client.get_optional("/there").await.unwrap(), Some(json!({"a": 1})));
    assert!(client.exists("/there").await.unwrap());
    assert!(!client.exists("/none").await.unwrap());
}

#[tokio::test]
async fn only_what_may_be_repeated_is() {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    let routes = Router::new().route(
        "/busy",
        any(move |method: axum::http::Method| {
            let first = seen.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                if first || method == axum::http::Method::POST {
                    return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")], Json(json!({})));
                }
                (StatusCode::OK, [("retry-after", "0")], Json(json!({"ok": true})))
            }
        }),
    );
    let peer = peer(routes).await;
    let client = client(&peer);
    assert_eq!(client.get("/busy").await.unwrap(), json!({"ok": true}));
    assert_eq!(count.load(Ordering::SeqCst), 2);
    assert_eq!(client.post("/busy", &json!({})).await.unwrap_err().kind, FaultKind::Unavailable);
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn lists_follow_their_pages_but_not_to_other_hosts() {
    let routes = Router::new()
        .route(
            "/list",
            get(|headers: HeaderMap| async move {
                let next = format!("https://{}/list2?$skip=2", headers["host"].to_str().unwrap());
                Json(json!({"value": [1, 2], "nextLink": next}))
            }),
        )
        .route("/list2", get(|| async { Json(json!({"value": [3], "nextLink": null})) }))
        .route("/elsewhere", get(|| async { Json(json!({"value": [], "nextLink": "https://other.example/steal"})) }))
        .route("/object", get(|| async { Json(json!({"a": 1})) }));
    let peer = peer(routes).await;
    let client = client(&peer);
    assert_eq!(client.list("/list").await.unwrap(), [json!(1), json!(2), json!(3)]);
    assert!(client.list("/elsewhere").await.unwrap_err().message.contains("was not sent"));
    assert!(client.list("/object").await.unwrap_err().message.contains("is no list"));
}

/// Answers `Running` twice, then what is given.
fn operation(last: Value) -> Router {
    let polls = Arc::new(AtomicUsize::new(0));
    let thing = put(|| async {
        (
            StatusCode::CREATED,
            [("azure-asyncoperation", "/operation"), ("retry-after", "0")],
            Json(json!({"state": "Creating"})),
        )
    })
    .get(|| async { Json(json!({"state": "Succeeded"})) });
    Router::new().route("/thing", thing).route(
        "/operation",
        get(move || {
            let number = polls.fetch_add(1, Ordering::SeqCst);
            let body = if number < 2 { json!({"status": "InProgress"}) } else { last.clone() };
            async move { ([("retry-after", "0")], Json(body)) }
        }),
    )
}

#[tokio::test]
async fn a_put_is_followed_to_its_end() {
    let peer = peer(operation(json!({"status": "Succeeded"}))).await;
    let polls = Mutex::new(0);
    let mut observer = |_: Duration| *polls.lock().unwrap() += 1;
    let body = json!({});
    let done = client(&peer).write_and_wait(Method::PUT, "/thing", Some(&body), None, &mut observer).await.unwrap();
    assert_eq!(done, json!({"state": "Succeeded"}));
    assert_eq!(*polls.lock().unwrap(), 3);
}

#[tokio::test]
async fn a_failed_operation_is_the_callers_fault_too() {
    let failed = json!({"status": "Failed", "error": {"code": "UserScriptInitFailed", "message": "init() raised"}});
    let peer = peer(operation(failed)).await;
    let fault =
        client(&peer).write_and_wait(Method::PUT, "/thing", Some(&json!({})), None, &mut |_| {}).await.unwrap_err();
    assert_eq!((fault.code.as_str(), fault.message.as_str()), ("UserScriptInitFailed", "init() raised"));
}

#[tokio::test]
async fn an_operation_that_never_ends_is_given_up() {
    let peer = peer(operation(json!({"status": "InProgress"}))).await;
    let client = client(&peer);
    let Accepted::Running(pending) = client.write(Method::PUT, "/thing", Some(&json!({})), None).await.unwrap() else {
        panic!("accepted as done");
    };
    let limits = WaitLimits { total: Duration::from_millis(500) };
    assert_eq!(client.wait(*pending, limits, &mut |_| {}).await.unwrap_err().code, "OperationTimedOut");
}

#[tokio::test]
async fn a_deletion_is_followed_by_its_location() {
    let polls = Arc::new(AtomicUsize::new(0));
    let routes = Router::new()
        .route("/thing", delete(|| async { (StatusCode::ACCEPTED, [(LOCATION, "/result")], "") }))
        .route("/gone", delete(|| async { StatusCode::NO_CONTENT }))
        .route(
            "/result",
            get(move || {
                let first = polls.fetch_add(1, Ordering::SeqCst) == 0;
                async move { if first { StatusCode::ACCEPTED } else { StatusCode::NO_CONTENT } }
            }),
        );
    let peer = peer(routes).await;
    let client = client(&peer);
    for path in ["/thing", "/gone"] {
        assert_eq!(client.write_and_wait(Method::DELETE, path, None, None, &mut |_| {}).await.unwrap(), Value::Null);
    }
}

#[tokio::test]
async fn a_condition_is_sent() {
    let routes = Router::new().route(
        "/thing",
        put(|headers: HeaderMap| async move {
            let held = headers.get("if-match").is_some_and(|etag| etag == "\"1\"");
            if held { StatusCode::OK } else { StatusCode::PRECONDITION_FAILED }
        }),
    );
    let peer = peer(routes).await;
    let client = client(&peer);
    let body = json!({});
    assert!(client.write(Method::PUT, "/thing", Some(&body), Some("\"1\"")).await.is_ok());
    let fault = client.write(Method::PUT, "/thing", Some(&body), Some("\"2\"")).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::PreconditionFailed);
}

mod upload {
    use std::collections::{BTreeMap, HashMap};

    use axum::{
        body::Bytes,
        extract::{Query, State},
        http::Uri,
        response::{IntoResponse, Response},
    };
    use casemate_wire::artifact::{BlobTarget, Progress, scan, upload_tree};

    use super::*;

    /// A store that keeps blobs in memory and fails the first attempt at each address.
    #[derive(Default)]
    struct Blobs {
        blobs: BTreeMap<String, (Vec<u8>, HashMap<String, String>)>,
        blocks: HashMap<String, Vec<u8>>,
        tried: std::collections::HashSet<String>,
        flaky: bool,
    }

    type Shared = Arc<Mutex<Blobs>>;

    async fn store(
        State(shared): State<Shared>,
        method: axum::http::Method,
        uri: Uri,
        Query(query): Query<HashMap<String, String>>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Response {
        let mut store = shared.lock().unwrap();
        if query.get("sig").map(String::as_str) != Some("ok") {
            return StatusCode::FORBIDDEN.into_response();
        }
        if store.flaky && method == "PUT" && store.tried.insert(uri.to_string()) {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let name = uri.path().trim_start_matches("/acct.blob.x/c/").to_owned();
        let metadata: HashMap<String, String> = headers
            .iter()
            .filter(|(key, _)| key.as_str().starts_with("x-ms-meta-"))
            .map(|(key, value)| (key.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        match (method.as_str(), query.get("comp").map(String::as_str)) {
            ("HEAD", None) => match store.blobs.get(&name) {
                None => (StatusCode::NOT_FOUND, [("x-ms-error-code", "BlobNotFound")]).into_response(),
                Some((_, metadata)) => {
                    let mut response = StatusCode::OK.into_response();
                    for (key, value) in metadata {
                        let key: axum::http::HeaderName = key.parse().unwrap();
                        response.headers_mut().insert(key, value.parse().unwrap());
                    }
                    response
                }
            },
            ("PUT", None) => {
                assert_eq!(headers["x-ms-blob-type"], "BlockBlob");
                store.blobs.insert(name, (body.to_vec(), metadata));
                StatusCode::CREATED.into_response()
            }
            ("PUT", Some("metadata")) => {
                store.blobs.get_mut(&name).unwrap().1 = metadata;
                StatusCode::OK.into_response()
            }
            ("PUT", Some("block")) => {
                assert!(body.len() <= 8 << 20);
                store.blocks.insert(query["blockid"].clone(), body.to_vec());
                StatusCode::CREATED.into_response()
            }
            ("PUT", Some("blocklist")) => {
                let text = String::from_utf8(body.to_vec()).unwrap();
                let ids = text.split("<Latest>").skip(1).map(|part| part.split('<').next().unwrap());
                let content: Vec<u8> = ids.flat_map(|id| store.blocks[id].clone()).collect();
                store.blobs.insert(name, (content, metadata));
                StatusCode::CREATED.into_response()
            }
            other => panic!("{other:?}"),
        }
    }

    async fn store_peer(flaky: bool) -> (Peer, Shared) {
        let shared: Shared = Arc::new(Mutex::new(Blobs { flaky, ..Blobs::default() }));
        let routes =
            Router::new().fallback(store).layer(axum::extract::DefaultBodyLimit::disable()).with_state(shared.clone());
        (Peer::start(routes).await, shared)
    }

    fn target(peer: &Peer, signature: &str) -> BlobTarget {
        BlobTarget::from_signed_address(&format!("{}/acct.blob.x/c?sig={signature}", peer.url)).unwrap()
    }

    #[tokio::test]
    async fn small_and_large_files_arrive_whole_and_only_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("model");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        let large: Vec<u8> = (0..20_000_003_u32).map(|number| (number % 251) as u8).collect();
        std::fs::write(root.join("large.bin"), &large).unwrap();
        std::fs::write(root.join("sub/small file.txt"), "small").unwrap();
        std::fs::write(root.join("empty"), "").unwrap();
        let tree = scan(&root).unwrap();
        let (peer, shared) = store_peer(true).await;
        let client = client(&peer);
        let target = target(&peer, "ok");
        let mut seen = Vec::new();
        let mut note = |progress: Progress| seen.push(progress.sent);
        let first = upload_tree(client.http(), &target, &tree, "LocalUpload/h", ("m", "1"), &mut note).await.unwrap();
        assert_eq!((first.path.as_str(), first.already_there), ("LocalUpload/h/model", false));
        assert_eq!(seen.first(), Some(&0));
        assert_eq!(seen.last(), Some(&tree.bytes()));
        {
            let store = shared.lock().unwrap();
            let names: Vec<&String> = store.blobs.keys().collect();
            assert_eq!(
                names,
                [
                    "LocalUpload/h/model/empty",
                    "LocalUpload/h/model/large.bin",
                    "LocalUpload/h/model/sub/small%20file.txt"
                ]
            );
            assert_eq!(store.blobs["LocalUpload/h/model/large.bin"].0, large);
            assert_eq!(store.blobs["LocalUpload/h/model/empty"].1["x-ms-meta-name"], "m");
        }
        let second =
            upload_tree(client.http(), &target, &tree, "LocalUpload/h", ("other", "9"), &mut |_| {}).await.unwrap();
        assert_eq!((second.already_there, second.name.as_str(), second.version.as_str()), (true, "m", "1"));
    }

    #[tokio::test]
    async fn a_refusal_and_a_changed_file_are_told() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "12345").unwrap();
        let tree = scan(&dir.path().join("f")).unwrap();
        let (peer, _) = store_peer(false).await;
        let client = client(&peer);
        let refused =
            upload_tree(client.http(), &target(&peer, "no"), &tree, "", ("m", "1"), &mut |_| {}).await.unwrap_err();
        assert_eq!(refused.kind, FaultKind::Forbidden);
        std::fs::write(dir.path().join("f"), "123").unwrap();
        let changed =
            upload_tree(client.http(), &target(&peer, "ok"), &tree, "", ("m", "1"), &mut |_| {}).await.unwrap_err();
        assert_eq!(changed.code, "FileChanged");
    }
}
