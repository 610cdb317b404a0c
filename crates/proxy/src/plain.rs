//! What the plain port answers besides services that are open there: challenges of certificate authorities, and where
//! everything else is to be found.

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE},
};
use hyper::body::Incoming;

use crate::{
    address,
    answer::{AnswerBody, Ids, Refusal},
    arrival::Arrival,
    score::Shared,
};

/// Where certificate authorities look for the answers to their challenges (RFC 8555, 8.3).
const CHALLENGES: &str = "/.well-known/acme-challenge/";

/// Longest host in a message, in bytes: no name is longer.
const SHOWN_HOST: usize = 253;

/// The answer to a question about a challenge; none for any other question.
pub(crate) fn challenge(
    shared: &Shared,
    arrival: &Arrival,
    request: &Request<Incoming>,
) -> Option<Response<AnswerBody>> {
    let token = request.uri().path().strip_prefix(CHALLENGES)?;
    let ids = Ids::new(shared.random.guid(), request.headers());
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let message = "Answers to challenges can only be read. Use GET.";
        let mut answer = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message).into_answer(&ids);
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return Some(answer);
    }
    let Some(text) = arrival.certificates.challenges().http(token) else {
        let message = "There is no such challenge now. They come and go with the platform's orders of certificates.";
        return Some(Refusal::new(StatusCode::NOT_FOUND, "ChallengeNotFound", message).into_answer(&ids));
    };
    let mut answer = Response::new(AnswerBody::Whole(Some(Bytes::from(text))));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    ids.put(answer.headers_mut());
    Some(answer)
}

/// 404 for what is never served here.
pub(crate) fn refuse_management(arrival: &Arrival, request: &Request<Incoming>) -> Refusal {
    let host = address::host(request.uri(), request.headers()).ok().filter(|host| host.len() <= SHOWN_HOST);
    let host = host.unwrap_or("localhost");
    Refusal::new(
        StatusCode::NOT_FOUND,
        "HttpsRequired",
        format!("This port serves web services without TLS only. Everything else is at {}.", arrival.https(host)),
    )
}
