//! Sends a request to an instance and turns the model's answer into the endpoint's.
//!
//! A request whose body is in memory may use a kept connection; should the model have closed that one, it is sent
//! once more over a new one. A streamed body always gets a new connection. An instance that takes no connection is
//! passed over for another one, once. A request that a model may have begun to work on is never sent to another.

use std::{future::poll_fn, io, pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
    request::Parts,
    uri::PathAndQuery,
};
use http_body::{Body, Frame};
use hyper::{body::Incoming, ext::ReasonPhrase};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    answer::{AnswerBody, CLIENT_REQUEST_ID, Ids, REQUEST_ID, Refusal},
    pool::Link,
    queue::{Denied, Deployment, Entered, Instance},
    score::Shared,
    split::DEPLOYMENT,
    upload::{Outcome, Payload, Report, Upload, broken_off},
};

/// The status code that the model answered.
const MODEL_STATUS: HeaderName = HeaderName::from_static("ms-azureml-model-error-statuscode");
/// Why the model's answer is an error.
pub(crate) const MODEL_REASON: HeaderName = HeaderName::from_static("ms-azureml-model-error-reason");
/// Headers that mean something between two neighbours only, and are not in the http crate's list.
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Answers up to this size are read whole before they are passed on, in bytes.
const WHOLE_ANSWER: u64 = 64 * 1024;
/// Frames of a streamed answer that wait for the caller.
const FRAMES_AHEAD: usize = 2;
/// Longest time for a connection to an instance; it is on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Instances that are tried when one does not take the connection.
const INSTANCES_TRIED: usize = 2;

/// What is sent to the model, apart from the body.
#[derive(Clone)]
pub(crate) struct Head {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Head {
    /// The caller's head without what is between the caller and the front door (credentials, connection headers,
    /// claims about where it comes from), with the front door's word on these.
    pub(crate) fn new(parts: Parts, path: PathAndQuery, caller: &HeaderValue, scheme: &'static str, ids: &Ids) -> Self {
        let mut headers = parts.headers;
        drop_hop_by_hop(&mut headers);
        for name in [AUTHORIZATION, EXPECT, CONTENT_LENGTH, FORWARDED, FORWARDED_HOST] {
            headers.remove(name);
        }
        if let Some(authority) = parts.uri.authority()
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            headers.insert(HOST, host);
        }
        join_cookies(&mut headers);
        headers.insert(FORWARDED_FOR, caller.clone());
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
        headers.insert(REQUEST_ID, ids.request.clone());
        if let Some(client) = &ids.client {
            headers.insert(CLIENT_REQUEST_ID, client.clone());
        }
        Self { method: parts.method, uri: Uri::from(path), headers }
    }

    fn request(&self, upload: Upload) -> Request<Upload> {
        let mut request = Request::new(upload);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// HTTP/2 may give cookies in several headers, HTTP/1.1 has one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(COOKIE, joined);
    }
}

/// Removes what concerns one connection only, including what `Connection` names.
fn drop_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
}

/// Why there is no answer of a model.
enum Failed {
    /// The instance took no connection.
    Connect(io::Error),
    /// The connection ended, or what came was not HTTP.
    Exchange(hyper::Error),
}

/// Sends a request to the instance where it has its place, and gives the endpoint's answer (without ids).
///
/// # Errors
/// 408, 413, 424 or 503, as the phases in the crate's documentation say.
pub(crate) async fn forward(
    shared: &Arc<Shared>,
    deployment: &Arc<Deployment>,
    mut entered: Entered,
    head: Head,
    payload: Payload,
) -> Result<Response<AnswerBody>, Refusal> {
    let patience = deployment.limits().request_timeout;
    let deadline = Instant::now() + patience;
    let report = Report::default();
    let mut payload = Some(payload);
    for tried in 1..=INSTANCES_TRIED {
        let exchange = timeout_at(deadline, exchange(entered.instance(), &head, &mut payload, &report)).await;
        match exchange {
            Ok(Ok((answer, link))) => {
                let reading = Reading { answer, link, entered, head: head.method == Method::HEAD, deadline, patience };
                return reading.answer(shared, deployment).await;
            }
            Ok(Err(Failed::Connect(error))) => {
                tracing::warn!(upstream = entered.instance().upstream.id, %error, "an instance takes no connection");
                entered.instance().suspect();
                if tried < INSTANCES_TRIED {
                    drop(entered);
                    entered = deployment.enter().await.map_err(|denied| refuse(deployment, denied))?;
                    continue;
                }
                return Err(unreachable(deployment));
            }
            Ok(Err(Failed::Exchange(error))) => {
                return Err(match report.outcome() {
                    Outcome::TooLarge => Refusal::too_large(shared.config.max_body_bytes),
                    Outcome::BrokenOff => broken_off(),
                    Outcome::Good => model_closed(deployment, &error),
                });
            }
            Err(_) => return Err(too_late(deployment, patience)),
        }
    }
    Err(unreachable(deployment))
}

async fn exchange(
    instance: &Instance,
    head: &Head,
    payload: &mut Option<Payload>,
    report: &Report,
) -> Result<(Response<Incoming>, Link), Failed> {
    let mut begun = None;
    if let Some(Payload::Whole(bytes)) = payload
        && let Some(mut link) = instance.pool.take().await
    {
        match link.send(head.request(Upload::Whole(Some(bytes.clone())))).await {
            Ok(answer) => return Ok((answer, link)),
            Err(broken) if broken.error.is_parse() => return Err(Failed::Exchange(broken.error)),
            // Most likely the model closed the connection while it was kept: once more, over a new one.
            Err(broken) => begun = Some(broken).filter(|broken| !broken.unsent),
        }
    }
    let open = timeout(CONNECT_TIMEOUT, Link::open(&instance.upstream)).await;
    let mut link = match (open.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())), begun) {
        (Ok(link), _) => link,
        // The model may have died of this very request: no other instance shall get it.
        (Err(_), Some(broken)) => return Err(Failed::Exchange(broken.error)),
        (Err(error), None) => return Err(Failed::Connect(error)),
    };
    let upload = match payload.take() {
        Some(Payload::Whole(bytes)) => Upload::Whole(Some(bytes)),
        Some(Payload::Streaming { read, rest, limit }) => {
            Upload::Streaming { read, rest, limit, report: report.clone() }
        }
        None => Upload::Whole(None),
    };
    let answer = link.send(head.request(upload)).await.map_err(|broken| Failed::Exchange(broken.error))?;
    Ok((answer, link))
}

/// An answer whose head is there.
struct Reading {
    answer: Response<Incoming>,
    link: Link,
    entered: Entered,
    /// The request was HEAD, so no body follows whatever the headers say.
    head: bool,
    deadline: Instant,
    patience: Duration,
}

impl Reading {
    async fn answer(self, shared: &Arc<Shared>, deployment: &Arc<Deployment>) -> Result<Response<AnswerBody>, Refusal> {
        let (parts, body) = self.answer.into_parts();
        let length = body.size_hint().exact();
        let mut flow = Flow { body, link: self.link, entered: self.entered };
        let body = if length.is_some_and(|length| length <= WHOLE_ANSWER) {
            let whole = timeout_at(self.deadline, flow.collect()).await;
            let whole = whole.map_err(|_| too_late(deployment, self.patience))?;
            let whole = whole.map_err(|error| model_closed(deployment, &error))?;
            flow.finish().await;
            AnswerBody::Whole(Some(whole))
        } else {
            let (sender, frames) = mpsc::channel(FRAMES_AHEAD);
            shared.tracker.spawn(flow.pump(sender, self.patience, shared.config.idle_timeout));
            AnswerBody::Streamed { frames, left: length }
        };
        let mut answer = Response::new(body);
        *answer.headers_mut() = parts.headers;
        let headers = answer.headers_mut();
        drop_hop_by_hop(headers);
        if !self.head || parts.status != StatusCode::OK {
            headers.remove(CONTENT_LENGTH);
        }
        headers.insert(DEPLOYMENT, deployment.name.clone());
        if parts.status != StatusCode::OK {
            let reason = parts.extensions.get::<ReasonPhrase>().map(ReasonPhrase::as_bytes);
            let reason = reason.or_else(|| parts.status.canonical_reason().map(str::as_bytes)).unwrap_or(b"Unknown");
            if let Ok(reason) = HeaderValue::from_bytes(reason) {
                headers.insert(MODEL_REASON, reason);
            }
            headers.insert(MODEL_STATUS, HeaderValue::from(parts.status.as_u16()));
            *answer.status_mut() = StatusCode::FAILED_DEPENDENCY;
        }
        Ok(answer)
    }
}

/// The model's body on its way, with the place that it keeps taken until its end.
struct Flow {
    body: Incoming,
    link: Link,
    entered: Entered,
}

impl Flow {
    async fn frame(&mut self) -> Option<Result<Frame<Bytes>, hyper::Error>> {
        let Self { body, link, .. } = self;
        poll_fn(|cx| link.poll_body(cx, |cx| Pin::new(&mut *body).poll_frame(cx))).await
    }

    /// The whole body. One of one piece is not copied.
    async fn collect(&mut self) -> Result<Bytes, hyper::Error> {
        let mut all = Bytes::new();
        while let Some(frame) = self.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            if all.is_empty() {
                all = data;
            } else {
                let mut joined = BytesMut::from(all);
                joined.extend_from_slice(&data);
                all = joined.freeze();
            }
        }
        Ok(all)
    }

    /// Hands the body to the caller frame by frame. Ends when the model pauses for longer than `model_patience`, or
    /// the caller takes nothing for `caller_patience`, or is gone.
    async fn pump(
        mut self,
        sender: mpsc::Sender<Result<Frame<Bytes>, crate::BoxError>>,
        model_patience: Duration,
        caller_patience: Duration,
    ) {
        loop {
            let frame = tokio::select! {
                frame = timeout(model_patience, self.frame()) => frame,
                () = sender.closed() => return,
            };
            let frame = match frame {
                Ok(None) => break,
                Ok(Some(frame)) => frame.map_err(Into::into),
                Err(_) => Err("the model paused for too long in the middle of its answer".into()),
            };
            let failed = frame.is_err();
            let sent = timeout(caller_patience, sender.send(frame)).await;
            if failed || !matches!(sent, Ok(Ok(()))) {
                return;
            }
            if self.body.is_end_stream() {
                break;
            }
        }
        self.finish().await;
    }

    /// Keeps the connection, then gives the place to the next, who will find it.
    async fn finish(self) {
        let Self { body, link, entered } = self;
        drop(body);
        entered.instance().pool.put(link).await;
    }
}

/// The refusal for a request without a place.
pub(crate) fn refuse(deployment: &Deployment, denied: Denied) -> Refusal {
    let name = deployment.name.to_str().unwrap_or_default();
    match denied {
        Denied::Full => Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "TooManyRequests",
            format!(
                "The deployment '{name}' has as many requests in flight and waiting as it takes: 2 x \
                 max_concurrent_requests_per_instance x instances. Try again later, or raise one of the two."
            ),
        ),
        Denied::Waited => Refusal::new(
            StatusCode::TOO_MANY_REQUESTS,
            "TooManyRequests",
            format!(
                "No instance of the deployment '{name}' became free within its max_queue_wait_ms. Try again later, or \
                 give it more instances or a longer wait."
            ),
        ),
        Denied::NoInstance => Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "NoInstanceReady",
            format!("No instance of the deployment '{name}' is ready. Try again later; its logs say what it is doing."),
        ),
        Denied::Gone => Refusal::new(
            StatusCode::NOT_FOUND,
            "DeploymentNotFound",
            format!("The deployment '{name}' has just been deleted."),
        ),
    }
}

fn unreachable(deployment: &Deployment) -> Refusal {
    Refusal::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "InstanceUnreachable",
        format!(
            "The instances of the deployment '{}' take no connections. Try again later; its logs say what it is doing.",
            deployment.name.to_str().unwrap_or_default()
        ),
    )
}

fn too_late(deployment: &Deployment, patience: Duration) -> Refusal {
    Refusal::new(
        StatusCode::REQUEST_TIMEOUT,
        "RequestTimeout",
        format!(
            "The deployment '{}' did not answer within its request_timeout_ms of {} ms. Send less in one request, or \
             raise the limit.",
            deployment.name.to_str().unwrap_or_default(),
            patience.as_millis()
        ),
    )
}

fn model_closed(deployment: &Deployment, error: &hyper::Error) -> Refusal {
    let (reason, what) = if error.is_parse() {
        ("model answered no HTTP", "answered with something that is not HTTP")
    } else {
        ("model closed the connection", "closed the connection before the end of its answer")
    };
    let mut refusal = Refusal::new(
        StatusCode::FAILED_DEPENDENCY,
        "ModelError",
        format!(
            "The model of the deployment '{}' {what}. The deployment's logs say why.",
            deployment.name.to_str().unwrap_or_default()
        ),
    );
    refusal.model_reason = Some(reason);
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_headers_are_dropped_and_others_stay() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Private"),
            ("connection", "x-second"),
            ("x-private", "1"),
            ("x-second", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "Basic x"),
            ("content-type", "application/json"),
            ("x-kept", "1"),
        ] {
            headers.append(name.parse::<HeaderName>().unwrap(), HeaderValue::from_static(value));
        }
        drop_hop_by_hop(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-type", "x-kept"]);
    }
}
