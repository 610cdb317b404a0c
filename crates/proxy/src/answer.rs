//! Answers: refusals in the one error shape, and the bodies of all answers.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use http_body::{Body, Frame, SizeHint};
use serde_json::json;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{BoxError, connection::Busy};

/// The front end's id of a request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The same id under the management API's name.
const MS_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
/// The caller's own id of a request.
pub(crate) const CLIENT_REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
/// The longest caller's id that is passed on, in bytes.
const CLIENT_ID_BYTES: usize = 40;

/// The ids of one request.
pub(crate) struct Ids {
    /// Ours.
    pub(crate) request: HeaderValue,
    /// The caller's, cut to 40 bytes.
    pub(crate) client: Option<HeaderValue>,
}

impl Ids {
    /// Takes the caller's id from its headers and gives the request `guid`.
    pub(crate) fn new(guid: Uuid, headers: &HeaderMap) -> Self {
        let mut buffer = Uuid::encode_buffer();
        let text = guid.hyphenated().encode_lower(&mut buffer);
        let request = HeaderValue::from_str(text).expect("a GUID is plain text");
        let client = headers.get(CLIENT_REQUEST_ID).and_then(|value| {
            let bytes = value.as_bytes();
            if bytes.len() <= CLIENT_ID_BYTES {
                Some(value.clone())
            } else {
                HeaderValue::from_bytes(&bytes[..CLIENT_ID_BYTES]).ok()
            }
        });
        Self { request, client }
    }

    /// Puts the ids on an answer, in place of what the model may have set.
    pub(crate) fn put(&self, headers: &mut HeaderMap) {
        headers.insert(REQUEST_ID, self.request.clone());
        headers.insert(MS_REQUEST_ID, self.request.clone());
        match &self.client {
            Some(client) => headers.insert(CLIENT_REQUEST_ID, client.clone()),
            None => headers.remove(CLIENT_REQUEST_ID),
        };
    }
}

/// An answer that the front door gives itself: a status, a code for machines and a message that says cause and fix.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) message: String,
    /// For 424: the model's reason.
    pub(crate) model_reason: Option<&'static str>,
}

impl Refusal {
    /// A refusal with its parts.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), model_reason: None }
    }

    /// 400.
    pub(crate) fn bad_request(message: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// 421.
    pub(crate) fn misdirected(host: &str, server_name: &str) -> Self {
        Self::new(
            StatusCode::MISDIRECTED_REQUEST,
            "MisdirectedRequest",
            format!(
                "The request is for the host '{host}', but the TLS connection was opened for '{server_name}'. Open a \
                 connection of its own for each endpoint."
            ),
        )
    }

    /// 421 for what is served at a name with TLS settings that the connection does not have.
    pub(crate) fn other_settings(host: &str) -> Self {
        Self::new(
            StatusCode::MISDIRECTED_REQUEST,
            "MisdirectedRequest",
            format!(
                "What this request is for is served at '{host}' with TLS settings of its own, such as client \
                 certificates. Open a new connection to that name."
            ),
        )
    }

    /// 404 for a path that no compute has.
    pub(crate) fn unknown_compute_path(path: &str) -> Self {
        let shown: String = path.chars().take(100).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!("There is no '{shown}' here. Web services of this compute are at /api/v1/service/NAME/score."),
        )
    }

    /// 404 for a path that no endpoint has.
    pub(crate) fn unknown_path(path: &str) -> Self {
        let shown: String = path.chars().take(100).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            "NotFound",
            format!(
                "An endpoint has no path '{shown}'. Send scoring requests to /score; /swagger.json describes them."
            ),
        )
    }

    /// 413.
    pub(crate) fn too_large(limit: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestBodyTooLarge",
            format!(
                "The body of the request is larger than the limit of {limit} bytes. Send less data in one request."
            ),
        )
    }

    /// The answer to the caller.
    pub(crate) fn into_answer(self, ids: &Ids) -> Response<AnswerBody> {
        let body = json!({"error": {"code": self.code, "message": self.message}}).to_string();
        let mut answer = Response::new(AnswerBody::Whole(Some(Bytes::from(body))));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        if let Some(reason) = self.model_reason {
            headers.insert(crate::forward::MODEL_REASON, HeaderValue::from_static(reason));
        }
        ids.put(headers);
        answer
    }
}

/// The body of a scoring answer.
pub(crate) enum AnswerBody {
    /// All there is.
    Whole(Option<Bytes>),
    /// Frames as the model gives them, from the task that reads them.
    Streamed {
        /// A bounded queue.
        frames: mpsc::Receiver<Result<Frame<Bytes>, BoxError>>,
        /// Bytes still to come, when the model said how many.
        left: Option<u64>,
    },
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut *self {
            Self::Whole(bytes) => {
                Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Streamed { frames, left } => {
                let frame = ready!(frames.poll_recv(cx));
                if let (Some(left), Some(data)) =
                    (left, frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()))
                {
                    *left = left.saturating_sub(u64::try_from(data.len()).unwrap_or(u64::MAX));
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.as_ref().is_none_or(Bytes::is_empty))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Streamed { left: Some(left), .. } => SizeHint::with_exact(*left),
            Self::Streamed { left: None, .. } => SizeHint::default(),
        }
    }
}

/// The body of any answer of the front door; while it exists its connection counts as busy.
pub(crate) struct GatewayBody<B> {
    kind: Kind<B>,
    _busy: Busy,
}

enum Kind<B> {
    Score(AnswerBody),
    Management(Pin<Box<B>>),
}

impl<B> GatewayBody<B> {
    /// The body of a scoring answer.
    pub(crate) fn score(body: AnswerBody, busy: Busy) -> Self {
        Self { kind: Kind::Score(body), _busy: busy }
    }

    /// The body of a management answer.
    pub(crate) fn management(body: B, busy: Busy) -> Self {
        Self { kind: Kind::Management(Box::pin(body)), _busy: busy }
    }
}

impl<B: Body<Data = Bytes, Error: Into<BoxError>>> Body for GatewayBody<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.kind {
            Kind::Score(body) => Pin::new(body).poll_frame(cx),
            Kind::Management(body) => body.as_mut().poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Score(body) => body.is_end_stream(),
            Kind::Management(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Score(body) => body.size_hint(),
            Kind::Management(body) => body.size_hint(),
        }
    }
}
