//! The one error envelope: `{"error": {"code", "message", "target", "details"}}`, both ways.

use casemate_model::{Fault, FaultKind};
use serde_json::{Map, Value, json};

/// Longest message kept when an answer that is no envelope is turned into a fault, in characters.
const MAX_FOREIGN_MESSAGE: usize = 500;
/// Deepest `details` read from an answer.
const MAX_DEPTH: usize = 8;

/// The HTTP status code of a fault.
#[must_use]
pub fn status_of(fault: &Fault) -> u16 {
    match (fault.kind, fault.code.as_str()) {
        (_, "MethodNotAllowed") => 405,
        (_, "UnsupportedMediaType") => 415,
        (FaultKind::Invalid, _) => 400,
        (FaultKind::Unauthenticated, _) => 401,
        (FaultKind::Forbidden, _) => 403,
        (FaultKind::NotFound, _) => 404,
        (FaultKind::PreconditionFailed, _) => 412,
        (FaultKind::TooLarge, _) => 413,
        // A rate may be retried by clients on their own; a limit in number stays until something is deleted.
        (FaultKind::Quota, "TooManyRequests") => 429,
        (FaultKind::Conflict | FaultKind::Quota, _) => 409,
        (FaultKind::Internal, _) => 500,
        (FaultKind::NotImplemented, _) => 501,
        (FaultKind::Unavailable, _) => 503,
    }
}

/// The kind behind an HTTP status code that is not a success.
#[must_use]
pub fn kind_of(status: u16) -> FaultKind {
    match status {
        401 => FaultKind::Unauthenticated,
        403 => FaultKind::Forbidden,
        404 | 410 => FaultKind::NotFound,
        409 => FaultKind::Conflict,
        412 => FaultKind::PreconditionFailed,
        413 => FaultKind::TooLarge,
        429 => FaultKind::Quota,
        501 => FaultKind::NotImplemented,
        408 | 502..=504 => FaultKind::Unavailable,
        400..=499 => FaultKind::Invalid,
        _ => FaultKind::Internal,
    }
}

/// `{"error": …}`.
#[must_use]
pub fn envelope(fault: &Fault) -> Value {
    json!({ "error": error_body(fault) })
}

/// What stands under `error`: code, message, and target and details where there are any.
#[must_use]
pub fn error_body(fault: &Fault) -> Value {
    let mut body = Map::new();
    body.insert("code".to_owned(), fault.code.as_str().into());
    body.insert("message".to_owned(), fault.message.as_str().into());
    if let Some(target) = &fault.target {
        body.insert("target".to_owned(), target.as_str().into());
    }
    if !fault.details.is_empty() {
        body.insert("details".to_owned(), fault.details.iter().map(error_body).collect());
    }
    Value::Object(body)
}

/// Reads what stands under `error`; none when it has neither a code nor a message.
#[must_use]
pub fn fault_from_error(kind: FaultKind, error: &Value) -> Option<Fault> {
    read(kind, error, MAX_DEPTH)
}

fn read(kind: FaultKind, error: &Value, depth: usize) -> Option<Fault> {
    let text = |key: &str| error.get(key).and_then(Value::as_str);
    let (code, message) = (text("code"), text("message"));
    if depth == 0 || (code.is_none() && message.is_none()) {
        return None;
    }
    let mut fault = Fault::new(kind, code.unwrap_or("Unknown"), message.unwrap_or_default());
    fault.target = text("target").map(str::to_owned);
    let details = error.get("details").and_then(Value::as_array);
    fault.details = details.into_iter().flatten().filter_map(|detail| read(kind, detail, depth - 1)).collect();
    Some(fault)
}

/// The fault that an unsuccessful answer carries. An answer that is no envelope becomes a fault with the status
/// code and the first 500 characters of the body.
#[must_use]
pub fn fault_from_answer(status: u16, body: &[u8]) -> Fault {
    let kind = kind_of(status);
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let enveloped =
        parsed.as_ref().and_then(|body| fault_from_error(kind, body.get("error").filter(|error| error.is_object())?));
    enveloped.unwrap_or_else(|| {
        let text: String = String::from_utf8_lossy(body).chars().take(MAX_FOREIGN_MESSAGE).collect();
        let said = if text.trim().is_empty() { "an empty body".to_owned() } else { text.trim().to_owned() };
        Fault::new(kind, format!("Http{status}"), format!("The server answered {status}: {said}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested() -> Fault {
        let mut fault = Fault::invalid("InvalidTemplate", "Two things are wrong.").at("template");
        fault.details = vec![Fault::invalid("A", "one"), Fault::invalid("B", "two").at("resources[0]")];
        fault
    }

    #[test]
    fn there_and_back() {
        let fault = nested();
        let body = serde_json::to_vec(&envelope(&fault)).unwrap();
        assert_eq!(fault_from_answer(status_of(&fault), &body), fault);
    }

    #[test]
    fn every_kind_survives_its_status() {
        for kind in [
            FaultKind::Invalid,
            FaultKind::Unauthenticated,
            FaultKind::Forbidden,
            FaultKind::NotFound,
            FaultKind::Conflict,
            FaultKind::PreconditionFailed,
            FaultKind::TooLarge,
            FaultKind::Unavailable,
            FaultKind::NotImplemented,
            FaultKind::Internal,
        ] {
            assert_eq!(kind_of(status_of(&Fault::new(kind, "X", "x"))), kind);
        }
        assert_eq!(status_of(&Fault::new(FaultKind::Quota, "TooManyRequests", "x")), 429);
        assert_eq!(status_of(&Fault::new(FaultKind::Quota, "QuotaExceeded", "x")), 409);
    }

    #[test]
    fn answers_that_are_no_envelope() {
        for (body, said) in [
            (&b"<html>bad gateway</html>"[..], "bad gateway"),
            (b"", "an empty body"),
            (b"{\"error\":\"text\"}", "text"),
            (b"{\"error\":{}}", "{}"),
            (b"\xff\xfe", "\u{fffd}"),
        ] {
            let fault = fault_from_answer(502, body);
            assert_eq!((fault.kind, fault.code.as_str()), (FaultKind::Unavailable, "Http502"));
            assert!(fault.message.contains(said), "{}", fault.message);
        }
        assert!(fault_from_answer(500, &vec![b'x'; 100_000]).message.len() < 600);
    }

    #[test]
    fn deep_details_are_cut() {
        let mut error = json!({"code": "Leaf", "message": ""});
        for _ in 0..100 {
            error = json!({"code": "Node", "message": "", "details": [error]});
        }
        let mut fault = fault_from_error(FaultKind::Invalid, &error).unwrap();
        let mut depth = 1;
        while let Some(inner) = fault.details.pop() {
            fault = inner;
            depth += 1;
        }
        assert_eq!(depth, MAX_DEPTH);
    }
}
