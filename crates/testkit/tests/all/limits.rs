//! Bad input from the network and from models that take more than they may: each refused in the client's shape, nothing
//! lost, and the platform serves on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use casemate_testkit::{
    Platform,
    rest::Rest,
    sample::{SUM, Sample},
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// A size, in bytes, above what the management API takes.
const LARGE: usize = (4 << 20) + 1;

#[tokio::test]
async fn malformed_requests_are_refused_in_the_clients_shape() -> Result<()> {
    let platform = Platform::start()?;
    platform.workspace()?;
    let rest = Rest::new(&platform)?;
    let token = format!("Bearer {}", rest.token(&rest.owner, &rest.url).await?);
    let group = format!("{}/resourceGroups/rg", rest.subscription);
    let workspace = format!("{group}/providers/Microsoft.MachineLearningServices/workspaces/main");
    let endpoint = format!("{workspace}/onlineEndpoints/sample");
    let deployment = format!("{endpoint}/deployments/blue");
    let long = "x".repeat(9000);
    let cases: [(&str, String, Vec<u8>, u16); 17] = [
        ("PUT", endpoint.clone(), b"{".to_vec(), 400),
        ("PUT", endpoint.clone(), b"[]".to_vec(), 400),
        ("PUT", endpoint.clone(), b"\xff\xfe{}".to_vec(), 400),
        ("PUT", endpoint.clone(), Vec::new(), 400),
        ("PUT", endpoint.clone(), b"{\"properties\": 7}".to_vec(), 400),
        ("PUT", endpoint.clone(), b"{\"properties\": {\"authMode\": \"Magic\"}}".to_vec(), 400),
        ("PUT", endpoint.clone(), b"{\"properties\": {\"authMode\": []}}".to_vec(), 400),
        ("PUT", endpoint.clone(), b"{\"properties\": {\"traffic\": {\"a\": -1}}}".to_vec(), 400),
        ("PUT", endpoint.clone(), [b"[".repeat(100_000), b"]".repeat(100_000)].concat(), 400),
        ("PUT", endpoint.clone(), vec![b' '; LARGE], 413),
        ("PUT", format!("{workspace}/onlineEndpoints/a_b"), b"{}".to_vec(), 400),
        ("PUT", deployment, b"{}".to_vec(), 404),
        ("PUT", format!("{group}/providers/Microsoft.Nothing/things/x"), b"{}".to_vec(), 400),
        ("GET", format!("{workspace}/onlineEndpoints/%ff%00"), Vec::new(), 400),
        ("GET", format!("/subscriptions/not-a-guid/resourceGroups/{long}"), Vec::new(), 400),
        ("GET", "/subscriptions//resourceGroups/../x".to_owned(), Vec::new(), 400),
        ("BREW", endpoint.clone(), b"{}".to_vec(), 400),
    ];
    for (method, path, body, status) in cases {
        let address = format!("{}{path}?api-version=2024-10-01", rest.url);
        let headers = [("authorization", token.as_str()), ("content-type", "application/json")];
        let shown = format!("{method} {} with {} bytes", &path[path.len().saturating_sub(60)..], body.len());
        let answer = rest.send(method.parse()?, &address, &headers, body).await.with_context(|| shown.clone())?;
        // Which of the 4xx an odd id gets is of no matter; that it is none of ours to fail on is.
        let close = answer.status == status || (status == 400 && matches!(answer.status, 404 | 405 | 414));
        assert!(close, "{shown}: {} {}", answer.status, answer.body);
        assert!(answer.body["error"]["code"].is_string(), "{shown}: {}", answer.body);
        assert!(
            answer.body["error"]["message"].as_str().is_some_and(|text| text.len() > 10),
            "{shown}: {}",
            answer.body
        );
        assert!(!answer.header("x-ms-request-id").is_empty(), "{shown}");
    }
    assert_eq!(platform.casemate("ml workspace show -n main --query name -o tsv")?.trim(), "main");
    assert_eq!(platform.casemate("ml online-endpoint list --query length(@)")?.trim(), "0", "nothing was made");
    Ok(())
}

/// The address of a blob in the workspace's store, signed for an hour.
async fn signed(rest: &Rest, token: &str, blob: &str) -> Result<String> {
    let store = format!(
        "{}/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/main/datastores/workspaceblobstore",
        rest.subscription
    );
    let shown = rest.call(token, Method::GET, &store, None).await?.body;
    let secrets = rest.call(token, Method::POST, &format!("{store}/listSecrets"), Some(&json!({}))).await?.body;
    let text = |value: &Value| value.as_str().map(str::to_owned).with_context(|| format!("{shown} {secrets}"));
    let (account, container) =
        (text(&shown["properties"]["accountName"])?, text(&shown["properties"]["containerName"])?);
    let suffix = text(&shown["properties"]["endpoint"])?;
    let sas = text(&secrets["sasToken"])?;
    Ok(format!("https://{account}.blob.{suffix}/{container}/{blob}?{sas}"))
}

/// Announces a body of `announced` bytes for a PUT, sends fewer, and breaks the connection off.
async fn break_off(platform: &Platform, address: &str, announced: usize, sent: usize) -> Result<()> {
    // The request goes through a plain client that is dropped in the middle: its body never ends by itself.
    let root = reqwest::Certificate::from_pem(&std::fs::read(platform.state().join("ca.pem"))?)?;
    let client = reqwest::Client::builder().http1_only().tls_certs_only([root]).build()?;
    let (mut writer, reader) = tokio::io::duplex(1 << 16);
    let body = reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::new(reader));
    let request = client
        .put(address)
        .header("x-ms-blob-type", "BlockBlob")
        .header("content-length", announced.to_string())
        .body(body)
        .send();
    let feed = async {
        writer.write_all(&vec![b'x'; sent]).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        anyhow::Ok(())
    };
    tokio::select! {
        answer = request => anyhow::bail!("an answer before the end: {answer:?}"),
        fed = feed => fed?,
    }
    Ok(())
}

#[tokio::test]
async fn uploads_cut_off_midway_leave_nothing_and_can_be_sent_again() -> Result<()> {
    let platform = Platform::start()?;
    platform.workspace()?;
    let rest = Rest::new(&platform)?;
    let token = rest.token(&rest.owner, &rest.url).await?;
    let address = signed(&rest, &token, "LocalUpload/cut/model.bin").await?;
    let block = format!("{address}&comp=block&blockid=MDAwMDAx");
    let whole = vec![b'x'; 3 << 20];
    for (line, announced) in [(&address, whole.len()), (&block, whole.len())] {
        break_off(&platform, line, announced, 1 << 20).await?;
        let found = rest.send(Method::HEAD, &address, &[], "").await?;
        assert_eq!((found.status, found.header("x-ms-error-code")), (404, "BlobNotFound"));
    }
    // What was cut off is not among the blocks either.
    let list = "<?xml version=\"1.0\"?><BlockList><Latest>MDAwMDAx</Latest></BlockList>";
    let none = rest.send(Method::PUT, &format!("{address}&comp=blocklist"), &[], list).await?;
    assert_eq!((none.status, none.header("x-ms-error-code")), (400, "InvalidBlockList"), "{}", none.body);
    let headers = [("x-ms-blob-type", "BlockBlob"), ("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==")];
    let wrong = rest.send(Method::PUT, &address, &headers, whole.clone()).await?;
    assert_eq!((wrong.status, wrong.header("x-ms-error-code")), (400, "Md5Mismatch"), "{}", wrong.body);
    let sent = rest.send(Method::PUT, &address, &headers[..1], whole.clone()).await?;
    assert_eq!(sent.status, 201, "{}", sent.body);
    let found = rest.send(Method::HEAD, &address, &[], "").await?;
    assert_eq!(found.header("content-length"), whole.len().to_string());
    let uploads = platform.state().join("blobs/uploads");
    let left = std::fs::read_dir(&uploads).map(Iterator::count).unwrap_or_default();
    assert_eq!(left, 0, "half an upload stays in {}", uploads.display());
    // And a connection that breaks off in the middle of its TLS greeting harms nobody.
    let mut greeting = TcpStream::connect(platform.url.trim_start_matches("https://")).await?;
    greeting.write_all(b"\x16\x03\x01\x02\x00\x01\x00").await?;
    drop(greeting);
    assert_eq!(rest.call(&token, Method::GET, &rest.subscription, None).await?.status, 200);
    Ok(())
}

const HUNGRY: &str = r#"
import json, os, time

def eat():
    held = []
    while True:
        held.append(b"x" * (64 << 20))

def init():
    if os.environ.get("FLAVOUR") == "hungry":
        eat()
    if os.environ.get("FLAVOUR") == "hanging":
        time.sleep(3600)

def run(data):
    request = json.loads(data)
    if request.get("eat"):
        eat()
    return {"sum": sum(request["data"])}
"#;

/// The smallest instance there is (3 GiB), and a short patience.
const SMALL: &str = "request_settings:\n  request_timeout_ms: 60000\n  max_queue_wait_ms: 30000\n\
    readiness_probe:\n  initial_delay: 1\n  period: 1\n  timeout: 1\n  failure_threshold: 60\n";

#[tokio::test]
async fn models_that_eat_memory_or_hang_are_named_and_harm_nobody() -> Result<()> {
    let platform = Platform::start()?;
    platform.workspace()?;
    let dir = tempfile::tempdir()?;
    let (sum, hungry) = (Sample::new(dir.path(), "sum", SUM)?, Sample::new(dir.path(), "hungry", HUNGRY)?);
    platform.casemate(&format!("ml online-endpoint create -f {}", sum.path("endpoint.yml").display()))?;
    let small = |name: &str, more: &str| -> Result<String> {
        let path = hungry.deployment(name, more)?;
        let text = std::fs::read_to_string(&path)?.replace("Standard_DS3_v2", "Standard_DS1_v2");
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    };
    platform.casemate(&format!("ml online-deployment create -f {}", small("eater", SMALL)?))?;
    platform.casemate(&format!("ml online-deployment create -f {} --all-traffic", sum.path("blue.yml").display()))?;
    let target = platform.scoring("sample")?;
    let client = target.client()?;

    for (name, codes) in
        [("hungry", &["PodOutOfMemory"][..]), ("hanging", &["ResourceNotReady", "UserScriptInitFailed"])]
    {
        let began = Instant::now();
        // A loaded machine needs its time to reach the memory limit; a script that hangs does so at once.
        let probes = if name == "hanging" {
            SMALL.replace("failure_threshold: 60", "failure_threshold: 10")
        } else {
            SMALL.to_owned()
        };
        let yaml = small(name, &probes)?;
        let output = platform.command(["ml", "online-deployment", "create", "-f", &yaml]).output()?;
        let stderr = String::from_utf8(output.stderr)?;
        assert_eq!(output.status.code(), Some(1), "{name}: {stderr}");
        assert!(codes.iter().any(|code| stderr.contains(code)), "{name}: {stderr}");
        assert!(began.elapsed() < Duration::from_secs(240), "{name} took {:?}", began.elapsed());
        let (status, body) = target.score(&client, &json!({"data": [1, 2]})).await?;
        assert_eq!((status, &body["sum"]), (200, &json!(3)), "beside {name}: {body}");
        platform.casemate(&format!("ml online-deployment delete -n {name} -e sample --yes"))?;
    }

    // The same at run time: the call fails, the others' calls do not, and the instance comes back.
    platform.casemate("ml online-endpoint update -n sample --traffic eater=100")?;
    let (status, body) = target.score(&client, &json!({"data": [], "eat": true})).await?;
    assert!(matches!(status, 424 | 503), "{status}: {body}");
    let began = Instant::now();
    loop {
        let (status, body) = target.score(&client, &json!({"data": [4]})).await?;
        if status == 200 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(90), "{status}: {body}\n{}", platform.log());
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let logs = platform.casemate("ml online-deployment get-logs -n eater -e sample")?;
    assert!(logs.to_lowercase().contains("memory"), "the log should say why: {logs}");
    Ok(())
}

#[tokio::test]
async fn bodies_too_large_to_score_are_refused() -> Result<()> {
    let platform = Platform::start()?;
    platform.workspace()?;
    let dir = tempfile::tempdir()?;
    let sample = Sample::new(dir.path(), "sum", SUM)?;
    platform.casemate(&format!("ml online-endpoint create -f {}", sample.path("endpoint.yml").display()))?;
    platform
        .casemate(&format!("ml online-deployment create -f {} --all-traffic", sample.path("blue.yml").display()))?;
    let target = platform.scoring("sample")?;
    let rest = Rest::new(&platform)?;
    let key = format!("Bearer {}", target.key);
    let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
    let announced = rest.send(Method::POST, &target.uri, &headers, vec![b' '; (100 << 20) + 1]).await;
    // The refusal comes before the body is read, so a client may see the connection close under its hands instead.
    if let Ok(answer) = announced {
        assert_eq!((answer.status, answer.error().is_empty()), (413, false), "{}", answer.body);
    }
    for (body, status) in [(&b"{"[..], 424), (b"", 424), (b"\xff\xfe", 424), (br#"{"data": [2, 3]}"#, 200)] {
        let answer = rest.send(Method::POST, &target.uri, &headers, body.to_vec()).await?;
        assert!(
            answer.status == status || (status == 424 && answer.status == 400),
            "{body:?}: {} {}",
            answer.status,
            answer.body
        );
    }
    Ok(())
}
