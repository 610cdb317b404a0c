//! One connection pool: TLS roots, timeouts, retries, and faults out of failures.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use casemate_model::{Fault, FaultKind};
use reqwest::{
    Certificate, Method, Request, RequestBuilder, Url,
    header::{HeaderMap, RETRY_AFTER},
    redirect,
};
use serde_json::Value;

use crate::envelope::fault_from_answer;

/// Longest time for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for a request with its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(100);
/// Longest time for one upload request.
pub const UPLOAD_TIMEOUT: Duration = Duration::from_secs(600);
/// Largest answer read.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// How often a request that may be repeated is repeated.
pub const MAX_RETRIES: u32 = 4;
/// Longest wait that a `Retry-After` may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// Whether a request may be sent again without knowing how the first attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Idempotence {
    /// Twice is as good as once.
    Safe,
    /// Only repeated when it certainly never arrived.
    Unsafe,
}

/// The wait before attempt `attempt + 1`: 0.2 s, doubling.
#[must_use]
pub fn backoff(attempt: u32) -> Duration {
    Duration::from_millis(200 << attempt.min(5))
}

/// Hears of every request: method, path, how it ended, how long it took. Never of bodies, headers or queries, which
/// may hold secrets.
pub type Trace = Box<dyn Fn(&str) + Send + Sync>;

/// Requests to one platform.
pub struct Http {
    client: reqwest::Client,
    base: String,
    trace: Option<Trace>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
}

impl Http {
    pub(super) fn new(url: &str, ca_pem: Option<&[u8]>) -> Result<Self, Fault> {
        Self::at(url, ca_pem, None)
    }

    /// As [`Self::new`]; `leads_to` says at which addresses a host is found. With none its name is looked up.
    pub(super) fn at(url: &str, ca_pem: Option<&[u8]>, leads_to: Option<(&str, &[SocketAddr])>) -> Result<Self, Fault> {
        let bad = |why: &str| {
            Fault::invalid(
                "InvalidUrl",
                format!(
                    "The platform's address '{url}' can't be used: {why}. Give one such as https://127.0.0.1:8443."
                ),
            )
        };
        let parsed = Url::parse(url).map_err(|error| bad(&error.to_string()))?;
        if parsed.scheme() != "https" {
            return Err(bad("it must begin with https://, since secrets travel over it"));
        }
        if !matches!(parsed.path(), "" | "/") || parsed.query().is_some() || !parsed.username().is_empty() {
            return Err(bad("it must be a host and a port and nothing else"));
        }
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("casemate/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = ca_pem {
            let no_certificates = || {
                Fault::invalid(
                    "InvalidCaFile",
                    "The file of CA certificates holds no PEM certificate. Give the platform's ca.pem or ca-bundle.pem.",
                )
            };
            let certificates = Certificate::from_pem_bundle(pem).map_err(|_| no_certificates())?;
            if certificates.is_empty() {
                return Err(no_certificates());
            }
            builder = builder.tls_certs_only(certificates);
        }
        if let Some((host, addresses)) = leads_to.filter(|(_, addresses)| !addresses.is_empty()) {
            builder = builder.resolve_to_addrs(host, addresses).no_proxy();
        }
        if is_loopback(&parsed) {
            builder = builder.no_proxy();
        }
        let client = builder
            .build()
            .map_err(|error| Fault::internal(format!("The HTTPS client can't start: {}.", causes(&error))))?;
        Ok(Self { client, base: parsed.as_str().trim_end_matches('/').to_owned(), trace: None })
    }

    pub(super) fn set_trace(&mut self, trace: Trace) {
        self.trace = Some(trace);
    }

    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// A request to be handed to [`Self::send`] or [`Self::send_once`].
    pub fn request(&self, method: Method, address: Url) -> RequestBuilder {
        self.client.request(method, address)
    }

    /// Sends a request, again where that is safe: after failed connections, and for safe requests also after broken
    /// ones and after 429, 502, 503 and 504. The last answer is returned whatever its status.
    ///
    /// # Errors
    /// `PlatformNotReachable`, `EndpointNotReachable`, `CertificateNotTrusted`, `RequestTimedOut` or `ConnectionBroken`.
    pub async fn send(
        &self,
        idempotence: Idempotence,
        build: impl Fn() -> Result<RequestBuilder, Fault>,
    ) -> Result<Answer, Fault> {
        for attempt in 0.. {
            let result = self.send_once(build()?).await;
            let wait = match &result {
                Ok(answer) if matches!(answer.status, 429 | 502 | 503 | 504) && idempotence == Idempotence::Safe => {
                    answer.retry_after().unwrap_or_else(|| backoff(attempt))
                }
                Err(fault) if fault.code == "ConnectionBroken" && idempotence == Idempotence::Safe => backoff(attempt),
                _ => return result,
            };
            if attempt >= MAX_RETRIES {
                return result;
            }
            tokio::time::sleep(wait).await;
        }
        Err(Fault::internal("A request was neither sent nor refused."))
    }

    /// Sends a request once.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_once(&self, request: RequestBuilder) -> Result<Answer, Fault> {
        let request = request
            .build()
            .map_err(|error| Fault::internal(format!("A request can't be made: {}.", causes(&error))))?;
        let Some(trace) = &self.trace else { return self.execute(request).await };
        let what = format!("{} {}", request.method(), request.url().path());
        let started = Instant::now();
        let result = self.execute(request).await;
        let how = match &result {
            Ok(answer) => answer.status.to_string(),
            Err(fault) => fault.code.clone(),
        };
        trace(&format!("{what} → {how} in {} ms", started.elapsed().as_millis()));
        result
    }

    async fn execute(&self, request: Request) -> Result<Answer, Fault> {
        let mut response = self.client.execute(request).await.map_err(|error| self.fault(&error))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.fault(&error))? {
            if body.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(Fault::new(
                    FaultKind::TooLarge,
                    "AnswerTooLarge",
                    format!("The server's answer is larger than {MAX_ANSWER_BYTES} bytes and was not read to its end."),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer { status, headers, body })
    }

    /// Whether this is the platform's own address, and not an endpoint's.
    fn is_at(&self, origin: &str) -> bool {
        reqwest::Url::parse(&self.base).is_ok_and(|base| base.origin().ascii_serialization() == origin)
    }

    fn fault(&self, error: &reqwest::Error) -> Fault {
        let why = causes(error);
        let unavailable = |code: &str, message: String| Fault::new(FaultKind::Unavailable, code, message);
        let lower = why.to_ascii_lowercase();
        if error.is_connect() && (lower.contains("certificate") || lower.contains("unknownissuer")) {
            return Fault::new(
                FaultKind::Unauthenticated,
                "CertificateNotTrusted",
                format!(
                    "The certificate of '{}' is not trusted: {why}. Name the platform's ca.pem with SSL_CERT_FILE (see `casemate env`), or with --ca-file at `casemate login`.",
                    self.base
                ),
            );
        }
        let elsewhere = error.url().map(|url| url.origin().ascii_serialization()).filter(|at| !self.is_at(at));
        if let Some(at) = elsewhere.filter(|_| error.is_connect()) {
            return unavailable(
                "EndpointNotReachable",
                format!(
                    "The endpoint at '{at}' can't be reached from here: {why}. Without public network access its name leads somewhere only inside a \
                     virtual network with the workspace's private endpoint: call it from there, or set public_network_access to enabled."
                ),
            );
        }
        if error.is_connect() {
            return unavailable(
                "PlatformNotReachable",
                format!(
                    "No platform answers at '{}': {why}. Start it with `casemate up`, or check CASEMATE_URL and --state.",
                    self.base
                ),
            );
        }
        if error.is_timeout() {
            return unavailable("RequestTimedOut", format!("'{}' did not answer in time: {why}.", self.base));
        }
        unavailable("ConnectionBroken", format!("The connection to '{}' broke: {why}.", self.base))
    }
}

impl Answer {
    /// The JSON body of a successful answer; null for an empty one.
    ///
    /// # Errors
    /// The fault of any other answer; `InternalServerError` when the body is not JSON.
    pub fn check(&self) -> Result<Value, Fault> {
        if !(200..300).contains(&self.status) {
            return Err(self.fault());
        }
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        let is_json = self
            .headers
            .get("content-type")
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.contains("json"));
        match serde_json::from_slice(&self.body) {
            Ok(value) => Ok(value),
            Err(_) if !is_json => Ok(Value::Null),
            Err(error) => Err(Fault::internal(format!("The server's answer is no valid JSON: {error}."))),
        }
    }

    fn fault(&self) -> Fault {
        let error_code = self.headers.get("x-ms-error-code").and_then(|code| code.to_str().ok());
        let mut fault = fault_from_answer(self.status, &self.body);
        if let Some(code) = error_code
            && fault.code.starts_with("Http")
        {
            code.clone_into(&mut fault.code);
        }
        fault
    }

    /// The wait that the server asks for, at most 30 s.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let seconds: f64 = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Duration::try_from_secs_f64(seconds).ok().map(|wait| wait.min(MAX_RETRY_AFTER))
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// An error and what is behind it, innermost last, without repetitions.
fn causes(error: &dyn std::error::Error) -> String {
    let mut source = error.source();
    let mut parts: Vec<String> = Vec::new();
    while let Some(inner) = source {
        let text = inner.to_string();
        // The outermost layer says only that it was a client's error while connecting.
        if !text.starts_with("client error (") && !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        source = inner.source();
    }
    if parts.is_empty() { error.to_string() } else { parts.join(": ") }
}
