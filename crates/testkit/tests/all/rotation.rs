//! Certificates change under load: requests over kept and over new connections, and a renewal again and again. No request
//! may fail, no handshake may show another certificate than the one that is to be served.

use std::{
    collections::HashMap,
    io::Write,
    net::SocketAddr,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use casemate_testkit::{
    Platform,
    load::Target,
    rest::Rest,
    sample::{SUM, Sample},
};
use reqwest::{Method, tls::TlsInfo};
use serde_json::Value;
use tokio::task::JoinSet;

/// Rotations in the short form; `CASEMATE_TEST_LONG` asks for more.
const ROTATIONS: usize = 10;
const LONG_ROTATIONS: usize = 50;
/// The endpoint's own name, whose certificate is the one that rotates.
const NAME: &str = "sample.local.inference.casemate.internal";
/// Callers that keep their connections, half of them with HTTP/2, and the time from one request to the next.
const KEEPERS: usize = 16;
const KEEPERS_PACE: Duration = Duration::from_millis(40);
/// Callers that open a connection for each request.
const COMERS: usize = 8;
const COMERS_PACE: Duration = Duration::from_millis(80);
/// Between two rotations, so that each finds connections opened under the one before.
const BREAK: Duration = Duration::from_millis(500);
/// Longest time for one rotation.
const PATIENCE: Duration = Duration::from_secs(60);

/// One request over a new connection.
struct Arrival {
    /// Rotations that had been reported as done when it began, and when it had ended.
    before: usize,
    after: usize,
    ended: Instant,
    /// Which of the certificates seen, in order of their first appearance.
    certificate: usize,
}

/// What the callers saw.
#[derive(Default)]
struct Seen {
    kept: usize,
    /// Kept requests over a connection that was opened under an earlier certificate.
    under_earlier: usize,
    arrivals: Vec<Arrival>,
    failed: Vec<String>,
}

/// What the callers share.
struct Stage {
    target: Target,
    stop: AtomicBool,
    /// Rotations that were reported as done.
    done: AtomicUsize,
    /// Certificates by their DER.
    certificates: Mutex<HashMap<Vec<u8>, usize>>,
}

impl Stage {
    /// The number of a certificate.
    fn number(&self, der: &[u8]) -> usize {
        let mut known = self.certificates.lock().unwrap_or_else(PoisonError::into_inner);
        let next = known.len();
        *known.entry(der.to_vec()).or_insert(next)
    }

    /// One good answer; gives the certificate of its connection.
    async fn score(&self, client: &reqwest::Client) -> Result<Vec<u8>> {
        let request = client.post(&self.target.uri).bearer_auth(&self.target.key);
        let answer = request.header("content-type", "application/json").body(r#"{"data": [1, 2, 3]}"#).send().await?;
        let info = answer.extensions().get::<TlsInfo>().and_then(TlsInfo::peer_certificate).map(<[u8]>::to_vec);
        let (status, text) = (answer.status(), answer.text().await?);
        let body: Value = serde_json::from_str(&text).unwrap_or_default();
        ensure!(status == 200 && body["sum"] == 6, "{status} {text}");
        info.context("the connection has a certificate")
    }
}

/// A client that trusts the platform's root alone, and judges name and dates of each certificate.
fn client(target: &Target, keeps: bool, http2: bool) -> Result<reqwest::Client> {
    let root = reqwest::Certificate::from_pem(&target.authority)?;
    let builder = reqwest::Client::builder().tls_certs_only([root]).tls_info(true).timeout(PATIENCE);
    let builder = builder.resolve(NAME, SocketAddr::from(([127, 0, 0, 1], 0)));
    let builder = if http2 { builder } else { builder.http1_only() };
    Ok(if keeps { builder } else { builder.pool_max_idle_per_host(0) }.build()?)
}

async fn keep_calling(stage: Arc<Stage>, client: reqwest::Client) -> Seen {
    let (mut seen, mut pace) = (Seen::default(), tokio::time::interval(KEEPERS_PACE));
    while !stage.stop.load(Ordering::Acquire) {
        pace.tick().await;
        match stage.score(&client).await {
            Ok(der) => {
                let latest = stage.certificates.lock().unwrap_or_else(PoisonError::into_inner).len();
                seen.kept += 1;
                seen.under_earlier += usize::from(stage.number(&der) + 1 < latest);
            }
            Err(error) => seen.failed.push(format!("kept: {error:#}")),
        }
    }
    seen
}

async fn come_anew(stage: Arc<Stage>, client: reqwest::Client) -> Seen {
    let (mut seen, mut pace) = (Seen::default(), tokio::time::interval(COMERS_PACE));
    while !stage.stop.load(Ordering::Acquire) {
        pace.tick().await;
        let before = stage.done.load(Ordering::Acquire);
        match stage.score(&client).await {
            Ok(der) => {
                let (after, ended) = (stage.done.load(Ordering::Acquire), Instant::now());
                seen.arrivals.push(Arrival { before, after, ended, certificate: stage.number(&der) });
            }
            Err(error) => seen.failed.push(format!("new: {error:#}")),
        }
    }
    seen
}

/// The SHA-256 of a certificate as OpenSSL sees it, in lower-case hexadecimal.
fn fingerprint(der: &[u8]) -> Result<String> {
    let mut openssl = Command::new("openssl")
        .args(["x509", "-inform", "der", "-noout", "-fingerprint", "-sha256"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    openssl.stdin.take().context("stdin is piped")?.write_all(der)?;
    let said = String::from_utf8(openssl.wait_with_output()?.stdout)?;
    let shown = said.trim().rsplit('=').next().unwrap_or_default();
    Ok(shown.replace(':', "").to_lowercase())
}

/// One forced renewal: when it was asked for, and the fingerprint that the operation reports as served.
async fn rotate(rest: &Rest, token: &str) -> Result<(Instant, String)> {
    let path = format!("{}/providers/Casemate.Platform/certificates/{NAME}/renew?force=true", rest.subscription);
    let began = Instant::now();
    let answer = rest.call(token, Method::POST, &path, None).await?;
    ensure!(answer.status == 202, "{} {}", answer.status, answer.body);
    let address = answer.header("azure-asyncoperation").to_owned();
    let operation = address.strip_prefix(&rest.url).context("the operation is the platform's")?;
    while began.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let state = rest.call(token, Method::GET, operation, None).await?.body;
        match state["status"].as_str().unwrap_or_default() {
            "Succeeded" => {
                let sha256 = find(&state, "after").and_then(|after| after["sha256"].as_str());
                return Ok((began, sha256.with_context(|| format!("no fingerprint in {state}"))?.to_owned()));
            }
            "Failed" | "Canceled" => bail!("the renewal ended with {state}"),
            _ => {}
        }
    }
    bail!("the renewal did not end within {PATIENCE:?}")
}

/// The value of a key, wherever it is.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) => fields.get(key).or_else(|| fields.values().find_map(|field| find(field, key))),
        _ => None,
    }
}

/// What one rotation looked like from outside.
struct Turn {
    began: Instant,
    sha256: String,
    /// Until the operation was reported as done.
    took: Duration,
}

/// All callers under way.
fn begin(stage: &Arc<Stage>) -> Result<JoinSet<Seen>> {
    let mut callers = JoinSet::new();
    for number in 0..KEEPERS {
        callers.spawn(keep_calling(Arc::clone(stage), client(&stage.target, true, number % 2 == 0)?));
    }
    for number in 0..COMERS {
        callers.spawn(come_anew(Arc::clone(stage), client(&stage.target, false, number % 2 == 0)?));
    }
    Ok(callers)
}

async fn end(stage: &Stage, callers: JoinSet<Seen>) -> Seen {
    stage.stop.store(true, Ordering::Release);
    callers.join_all().await.into_iter().fold(Seen::default(), |mut all, one| {
        all.kept += one.kept;
        all.under_earlier += one.under_earlier;
        all.arrivals.extend(one.arrivals);
        all.failed.extend(one.failed);
        all
    })
}

/// Each new connection got the certificate of the last rotation that was done, or the one that was on its way; gives the
/// time from each renewal's start to the first connection with its certificate.
fn judge(stage: &Stage, seen: &Seen, first: &str, turns: &[Turn]) -> Result<Vec<Duration>> {
    let known = stage.certificates.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut place = vec![0; known.len()];
    for (der, number) in known {
        let sha256 = fingerprint(&der)?;
        let turn = turns.iter().position(|turn| turn.sha256 == sha256).map(|turn| turn + 1);
        let found = turn.or_else(|| (first == sha256).then_some(0));
        place[number] = found.with_context(|| format!("{sha256} was never reported as served"))?;
    }
    let mut earliest: Vec<Option<Instant>> = vec![None; turns.len() + 1];
    for arrival in &seen.arrivals {
        let at = place[arrival.certificate];
        ensure!(
            (arrival.before..=arrival.after + 1).contains(&at),
            "a connection begun after rotation {} and used before rotation {} showed the certificate of rotation {at}",
            arrival.before,
            arrival.after + 1
        );
        earliest[at] = Some(earliest[at].map_or(arrival.ended, |known| known.min(arrival.ended)));
    }
    let times = turns.iter().zip(&earliest[1..]).enumerate().map(|(number, (turn, first))| {
        let first = first.with_context(|| format!("nobody saw the certificate of rotation {}", number + 1))?;
        Ok(first.saturating_duration_since(turn.began))
    });
    times.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_rotate_under_load_and_nobody_notices() -> Result<()> {
    let platform = Platform::start()?;
    platform.workspace()?;
    let dir = tempfile::tempdir()?;
    let sample = Sample::new(dir.path(), "sum", SUM)?;
    // Room for all callers at once, on a machine that may be busy with other things.
    let patient = "request_settings:\n  max_queue_wait_ms: 60000\n  request_timeout_ms: 60000\n  max_concurrent_requests_per_instance: 32\n";
    let blue = sample.deployment("blue", patient)?;
    platform.casemate(&format!("ml online-endpoint create -n sample -f {}", sample.path("endpoint.yml").display()))?;
    platform.casemate(&format!("ml online-deployment create -n blue -e sample -f {} --all-traffic", blue.display()))?;
    let mut target = platform.scoring("sample")?;
    target.uri = format!("https://{NAME}:{}/score", platform.url.rsplit(':').next().unwrap_or_default());
    let rest = Rest::new(&platform)?;
    let token = rest.token(&rest.owner, &rest.url).await?;
    let (stop, done) = (AtomicBool::default(), AtomicUsize::default());
    let stage = Arc::new(Stage { target, stop, done, certificates: Mutex::default() });
    let first = fingerprint(&stage.score(&client(&stage.target, false, false)?).await?)?;

    let rotations = if std::env::var_os("CASEMATE_TEST_LONG").is_some() { LONG_ROTATIONS } else { ROTATIONS };
    let (callers, began) = (begin(&stage)?, Instant::now());
    let mut turns = Vec::new();
    for _ in 0..rotations {
        tokio::time::sleep(BREAK).await;
        let (began, sha256) = rotate(&rest, &token).await?;
        turns.push(Turn { began, sha256, took: began.elapsed() });
        stage.done.fetch_add(1, Ordering::AcqRel);
    }
    tokio::time::sleep(BREAK).await;
    let elapsed = began.elapsed().as_secs_f64();
    let seen = end(&stage, callers).await;

    let total = seen.kept + seen.arrivals.len() + seen.failed.len();
    ensure!(seen.failed.is_empty(), "{} of {total} failed, such as {:?}", seen.failed.len(), seen.failed.first());
    let served = judge(&stage, &seen, &first, &turns)?;
    ensure!(seen.under_earlier > 0, "no connection outlived a rotation");
    let middle = |mut times: Vec<Duration>| {
        times.sort();
        (times[times.len() / 2], times[times.len() - 1])
    };
    let (seen_after, done_after) = (middle(served), middle(turns.iter().map(|turn| turn.took).collect()));
    eprintln!("rotations                                        {rotations}");
    eprintln!("requests                                         {total} ({:.0}/s)", total as f64 / elapsed);
    eprintln!("  over kept connections                          {}", seen.kept);
    eprintln!("    opened under an earlier certificate          {}", seen.under_earlier);
    eprintln!("  over new connections                           {}", seen.arrivals.len());
    eprintln!("requests that failed                             0");
    eprintln!("handshakes with a wrong or expired certificate   0");
    eprintln!("from the renewal to the first new handshake      {:?} median, {:?} at most", seen_after.0, seen_after.1);
    eprintln!("from the renewal to its proven end               {:?} median, {:?} at most", done_after.0, done_after.1);
    Ok(())
}
