//! Against authorities that are down, slow, busy or no authorities at all: one small TLS server each, since no real one
//! is broken on demand.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use casemate_pki::{IssueError, Issuer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
};

use super::{site::tls_server, *};
use crate::Limits;

/// A server that answers each request with what `answer` makes of its first line and the server's own address.
struct Broken {
    directory: String,
    root_pem: Vec<u8>,
    asked: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Broken {
    async fn start(answer: fn(&str, SocketAddr) -> Option<String>) -> Self {
        let (authority, _) = CertificateAuthority::create(Timestamp::now()).unwrap();
        let own = authority.issue(&names(&["127.0.0.1"]), Timestamp::now(), Duration::from_secs(3600)).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let (address, tasks) = tls_server(&own.chain_pem, own.key_pem.expose(), move |mut tls| {
            let counted = Arc::clone(&counted);
            async move {
                counted.fetch_add(1, Ordering::Relaxed);
                let mut head = Vec::new();
                while !head.windows(4).any(|window| window == b"\r\n\r\n") {
                    if !matches!(tls.read_buf(&mut head).await, Ok(1..)) {
                        return;
                    }
                }
                let text = String::from_utf8_lossy(&head).into_owned();
                let here = tls.get_ref().0.local_addr().unwrap();
                match answer(text.lines().next().unwrap_or_default(), here) {
                    Some(answer) => {
                        let _ = tls.write_all(answer.as_bytes()).await;
                        let _ = tls.shutdown().await;
                    }
                    // It holds the connection and says nothing.
                    None => std::future::pending().await,
                }
            }
        })
        .await;
        let root_pem = authority.root_pem().as_bytes().to_vec();
        Self { directory: format!("https://{address}/dir"), root_pem, asked, _tasks: tasks }
    }

    fn issuer(&self) -> AcmeIssuer {
        let limits = Limits {
            request: Duration::from_secs(2),
            processing: Duration::from_secs(2),
            order: Duration::from_secs(20),
            ..Limits::default()
        };
        let config = AcmeConfig::new(&self.directory, ChallengeKind::Http01).unwrap();
        let config = AcmeConfig { root_pem: Some(self.root_pem.clone()), limits, ..config };
        AcmeIssuer::new(config, ChallengeBoard::default(), Arc::new(Shelf::default())).unwrap()
    }
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len())
}

/// A directory at this server, and nonces.
fn usual(line: &str, here: SocketAddr) -> Option<String> {
    let at = |path: &str| format!("https://{here}/{path}");
    let directory = serde_json::json!({
        "newNonce": at("nonce"), "newAccount": at("account"), "newOrder": at("order"), "revokeCert": at("revoke"),
    });
    match line {
        line if line.contains("/dir") => Some(http("200 OK", "", &directory.to_string())),
        line if line.contains("/nonce") => Some(http("200 OK", "Replay-Nonce: abc\r\n", "")),
        _ => None,
    }
}

async fn fails(broken: &Broken) -> IssueError {
    broken.issuer().issue(&names(&["a.casemate.test"]), Timestamp::now()).await.unwrap_err()
}

const HTML: &str = "<html><h1>It works!</h1></html>";

#[tokio::test]
async fn each_kind_of_broken_authority_is_told_apart() {
    type Answer = fn(&str, SocketAddr) -> Option<String>;
    let html: Answer = |_, _| Some(http("200 OK", "Content-Type: text/html\r\n", HTML));
    let missing: Answer = |_, _| Some(http("404 Not Found", "", ""));
    let endless: Answer = |_, _| Some(http("200 OK", "", &"x".repeat(1 << 20)));
    let not_http: Answer = |_, _| Some("SSH-2.0-OpenSSH\r\n".to_owned());
    let plain: Answer = |line, here| usual(line, here).map(|said| said.replace("https://", "http://_"));
    let no_nonce: Answer = |line, here| usual(line, here).map(|said| said.replace("Replay-Nonce", "Server"));
    let no_account: Answer = |line, here| usual(line, here).or_else(|| Some(http("201 Created", "", "{}")));
    let odd_problem: Answer =
        |line, here| usual(line, here).or_else(|| Some(http("400 Bad Request", "Replay-Nonce: x\r\n", "{}")));
    let nonces: Answer = |line, here| {
        let problem = r#"{"type": "urn:ietf:params:acme:error:badNonce", "detail": "no"}"#;
        usual(line, here).or_else(|| Some(http("400 Bad Request", "Replay-Nonce: x\r\n", problem)))
    };
    let contact: Answer = |line, here| {
        let problem = r#"{"type": "urn:ietf:params:acme:error:userActionRequired", "detail": "agree\u001b[2J first"}"#;
        usual(line, here).or_else(|| Some(http("403 Forbidden", "", problem)))
    };
    for (name, answer, code, said) in [
        ("html", html, "AcmeUnexpectedAnswer", "HTTP 200 with text/html, '<html><h1>It works!"),
        ("missing", missing, "AcmeUnexpectedAnswer", "HTTP 404 without a body"),
        ("endless", endless, "AcmeUnexpectedAnswer", "256 KiB"),
        ("not http", not_http, "AcmeUnavailable", "HTTP version"),
        ("plain", plain, "AcmeUnexpectedAnswer", "not https"),
        ("no nonce", no_nonce, "AcmeUnexpectedAnswer", "no nonce"),
        ("no account", no_account, "AcmeUnexpectedAnswer", "account URL"),
        ("odd problem", odd_problem, "AcmeRefused", "about:blank"),
        ("nonces", nonces, "AcmeUnavailable", "badNonce: no"),
        ("contact", contact, "AcmeActionRequired", "userActionRequired: agree [2J first"),
    ] {
        let error = fails(&Broken::start(answer).await).await;
        assert_eq!(error.fault.code, code, "{name}: {error}");
        assert!(error.fault.message.contains(said) && error.fault.message.contains("127.0.0.1"), "{name}: {error}");
        assert_eq!(error.retry_after, None, "{name}");
    }
}

#[tokio::test]
async fn an_authority_that_is_down_or_not_trusted() {
    let down = Broken { directory: format!("https://127.0.0.1:{}/dir", free_port()), ..Broken::start(usual).await };
    let error = fails(&down).await;
    assert_eq!(error.fault.code, "AcmeUnavailable");
    assert!(error.fault.message.contains("no connection"), "{error}");
    let (other, _) = CertificateAuthority::create(Timestamp::now()).unwrap();
    let stranger = Broken { root_pem: other.root_pem().as_bytes().to_vec(), ..Broken::start(usual).await };
    let error = fails(&stranger).await;
    assert_eq!(error.fault.code, "AcmeNotTrusted");
    assert!(error.fault.message.contains("--acme-root"), "{error}");
    let config = AcmeConfig::new("https://ca.example/dir", ChallengeKind::Http01).unwrap();
    let config = AcmeConfig { root_pem: Some(b"no PEM".to_vec()), ..config };
    let refused = AcmeIssuer::new(config, ChallengeBoard::default(), Arc::new(Shelf::default())).unwrap_err();
    assert_eq!(refused.target.as_deref(), Some("--acme-root"));
}

#[tokio::test]
async fn an_authority_that_hangs_is_left_in_time() {
    for answer in [(|_, _| None) as fn(&str, SocketAddr) -> Option<String>, usual] {
        let broken = Broken::start(answer).await;
        let start = Instant::now();
        let error = fails(&broken).await;
        assert_eq!(error.fault.code, "AcmeTimeout", "{error}");
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn an_authority_that_asks_for_rest_gets_it() {
    let busy = Broken::start(|_, _| Some(http("503 Service Unavailable", "Retry-After: 3600\r\n", "busy"))).await;
    let issuer = busy.issuer();
    let wanted = names(&["a.casemate.test"]);
    let error = issuer.issue(&wanted, Timestamp::now()).await.unwrap_err();
    assert_eq!((error.fault.code.as_str(), error.retry_after), ("AcmeUnavailable", Some(Duration::from_secs(3600))));
    let asked = busy.asked.load(Ordering::Relaxed);
    let error = issuer.issue(&names(&["b.casemate.test"]), Timestamp::now()).await.unwrap_err();
    let left = error.retry_after.unwrap();
    assert!(left > Duration::from_secs(3500) && left <= Duration::from_secs(3600), "{left:?}");
    assert_eq!(busy.asked.load(Ordering::Relaxed), asked, "it was left in peace");

    // A limit may be about one name only.
    let limited = Broken::start(|line, here| {
        let problem = r#"{"type": "urn:ietf:params:acme:error:rateLimited", "detail": "too many of a.casemate.test"}"#;
        let rest = "Retry-After: 99999999999999999999\r\n";
        usual(line, here).or_else(|| Some(http("429 Too Many Requests", rest, problem)))
    })
    .await;
    let issuer = limited.issuer();
    let error = issuer.issue(&wanted, Timestamp::now()).await.unwrap_err();
    let week = Duration::from_secs(7 * 24 * 3600);
    assert_eq!((error.fault.code.as_str(), error.retry_after), ("AcmeRateLimited", Some(week)), "{error}");
    assert!(error.fault.message.contains("too many of a.casemate.test"), "{error}");
    let asked = limited.asked.load(Ordering::Relaxed);
    assert!(issuer.issue(&names(&["b.casemate.test"]), Timestamp::now()).await.is_err());
    assert!(limited.asked.load(Ordering::Relaxed) > asked, "others may ask");
}
