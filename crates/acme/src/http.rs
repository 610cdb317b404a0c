//! The way to the authority: HTTPS only, each request bounded in time and each answer in size, and a note of the last
//! answer as evidence for whoever has to explain a failure.

use std::{
    error::Error as StdError,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use casemate_model::Fault;
use http::{
    HeaderMap, Request, Response,
    header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER},
};
use http_body_util::{BodyExt, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822::DateTimeParser};
use reqwest::{Certificate, Client, redirect};

use crate::{AcmeConfig, Limits};

/// Largest answer that is read: a chain of certificates is some 10 KiB.
const MAX_ANSWER: usize = 256 << 10;
/// How much of an answer is kept as evidence, in characters.
const EXCERPT: usize = 160;
/// Longest rest that an authority may ask for.
pub(crate) const LONGEST_REST: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longest time for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// What the last answer looked like.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Status code.
    pub status: u16,
    /// `Content-Type`, as far as it is text.
    pub media_type: String,
    /// The beginning of its body, without control characters.
    pub excerpt: String,
    /// `Retry-After`, bounded.
    pub retry_after: Option<Duration>,
}

/// The note of the last answer of one order. A clone is the same note.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Option<Seen>>>);

impl Log {
    fn put(&self, seen: Option<Seen>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = seen;
    }

    /// The last answer; none when the last request had none.
    pub(crate) fn last(&self) -> Option<Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why a request had no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// No connection.
    #[error("no connection: {0}")]
    Connect(String),
    /// The connection is there, but who answers can't be trusted.
    #[error("no trust in its certificate: {0}")]
    Trust(String),
    /// Nothing within the time of one request.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Slow(Duration),
    /// More than is read.
    #[error("an answer of more than {} KiB", MAX_ANSWER >> 10)]
    TooLong,
    /// It sent us to an address that is not HTTPS.
    #[error("the address '{0}', which is not https")]
    Plain(String),
    /// Cut off or not HTTP.
    #[error("{0}")]
    Broken(String),
}

/// Requests for one order.
#[derive(Clone)]
pub(crate) struct Http {
    client: Client,
    limit: Duration,
    log: Log,
}

impl Http {
    pub(crate) fn new(client: &Client, limits: &Limits, log: &Log) -> Self {
        Self { client: client.clone(), limit: limits.request, log: log.clone() }
    }

    /// The same way for another of the library's values.
    pub(crate) fn boxed(&self) -> Box<Self> {
        Box::new(self.clone())
    }
}

/// The pool of connections to the authority.
///
/// # Errors
/// When its root certificates can't be read.
pub(crate) fn client(config: &AcmeConfig) -> Result<Client, Fault> {
    let mut builder = Client::builder()
        .https_only(true)
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT)
        .timeout(config.limits.request)
        .pool_idle_timeout(Duration::from_secs(30));
    if let Some(pem) = &config.root_pem {
        let none = || {
            let message = "The root of the ACME authority can't be read: it holds no PEM certificate. Give the file with the certificates that the authority's server comes from.";
            Fault::invalid("InvalidAcmeRoot", message).at("--acme-root")
        };
        let roots = Certificate::from_pem_bundle(pem).map_err(|_| none())?;
        if roots.is_empty() {
            return Err(none());
        }
        builder = builder.tls_certs_only(roots);
    }
    if is_loopback(config.host()) {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| Fault::internal(format!("The client for ACME can't start: {}.", causes(&error))))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (client, log, limit) = (self.client.clone(), self.log.clone(), self.limit);
        Box::pin(async move {
            log.put(None);
            let answer = tokio::time::timeout(limit, send(&client, request, limit)).await;
            let answer =
                answer.unwrap_or(Err(Unanswered::Slow(limit))).map_err(|error| Error::Other(Box::new(error)))?;
            log.put(Some(seen(&answer)));
            Ok(BytesResponse::from(answer.map(Full::new)))
        })
    }
}

async fn send(
    client: &Client,
    request: Request<BodyWrapper<Bytes>>,
    limit: Duration,
) -> Result<Response<Bytes>, Unanswered> {
    if request.uri().scheme_str() != Some("https") {
        return Err(Unanswered::Plain(plain(&request.uri().to_string())));
    }
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|error| Unanswered::Broken(error.to_string()))?.to_bytes();
    let url = head.uri.to_string();
    let sent = client.request(head.method, url).headers(head.headers).body(body).send().await;
    let mut answer = sent.map_err(|error| unanswered(&error, limit))?;
    let mut read = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| unanswered(&error, limit))? {
        if read.len() + chunk.len() > MAX_ANSWER {
            return Err(Unanswered::TooLong);
        }
        read.extend_from_slice(&chunk);
    }
    let mut response = Response::new(Bytes::from(read));
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    bound_rest(response.headers_mut());
    Ok(response)
}

/// Puts a `Retry-After` in the form of seconds, and within bounds: the library adds whatever number stands there to the
/// time of day.
fn bound_rest(headers: &mut HeaderMap) {
    let Some(value) = headers.remove(RETRY_AFTER) else { return };
    let Some(rest) = value.to_str().ok().and_then(|text| rest(text.trim(), Timestamp::now())) else { return };
    headers.insert(RETRY_AFTER, HeaderValue::from(rest.as_secs()));
}

/// The rest that a `Retry-After` asks for.
fn rest(text: &str, now: Timestamp) -> Option<Duration> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().map_or(LONGEST_REST, Duration::from_secs).min(LONGEST_REST));
    }
    let until = DateTimeParser::new().parse_timestamp(text).ok()?;
    let rest = until.duration_since(now).max(SignedDuration::ZERO);
    // Whole seconds, and not one too early.
    Some((rest.unsigned_abs() + Duration::from_millis(999)).min(LONGEST_REST))
}

fn seen(answer: &Response<Bytes>) -> Seen {
    let text =
        |name| answer.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let start = answer.body().get(..EXCERPT * 4).unwrap_or(answer.body());
    Seen {
        status: answer.status().as_u16(),
        media_type: plain(text(CONTENT_TYPE)),
        excerpt: plain(&String::from_utf8_lossy(start)),
        retry_after: text(RETRY_AFTER).parse().ok().map(Duration::from_secs),
    }
}

/// Text of a stranger, fit to be shown: short, on one line, without control characters.
pub(crate) fn plain(text: &str) -> String {
    let words =
        text.split(|letter: char| letter.is_whitespace() || letter.is_control()).filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    let mut short: String = line.chars().take(EXCERPT).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short
}

fn unanswered(error: &reqwest::Error, limit: Duration) -> Unanswered {
    let why = causes(error);
    if error.is_timeout() {
        return Unanswered::Slow(limit);
    }
    if why.contains("certificate") {
        return Unanswered::Trust(why);
    }
    if error.is_connect() { Unanswered::Connect(why) } else { Unanswered::Broken(why) }
}

/// The innermost reasons of an error, which say more than its outermost.
fn causes(error: &dyn StdError) -> String {
    let mut said: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = plain(&cause.to_string());
        // A wrapper often repeats what it wraps.
        said.retain(|outer| !outer.contains(&text));
        said.push(text);
        next = cause.source();
    }
    let from = said.len().saturating_sub(2);
    if said.is_empty() { plain(&error.to_string()) } else { said[from..].join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_are_bounded_whatever_the_authority_says() {
        let now: Timestamp = "2026-01-01T00:00:00.5Z".parse().unwrap();
        for (text, expected) in [
            ("0", Some(0)),
            ("120", Some(120)),
            ("604801", Some(604_800)),
            ("99999999999999999999999999", Some(604_800)),
            ("Thu, 01 Jan 2026 00:01:00 GMT", Some(60)),
            ("Wed, 31 Dec 2025 00:00:00 GMT", Some(0)),
            ("Fri, 01 Jan 2100 00:00:00 GMT", Some(604_800)),
            ("", None),
            ("-5", None),
            ("soon", None),
            ("1.5", None),
        ] {
            assert_eq!(rest(text, now).map(|rest| rest.as_secs()), expected, "{text}");
        }
    }

    #[test]
    fn what_strangers_say_is_shown_on_one_short_line() {
        assert_eq!(plain("a\u{1b}[31m b\r\n\tc"), "a [31m b c");
        let long = plain(&"é".repeat(400));
        assert_eq!(long.chars().count(), EXCERPT + 1);
    }
}
