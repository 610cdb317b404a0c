//! What must hold for whatever a client of the management API sends. The targets in `fuzz/` run these on raw bytes, the
//! tests in `tests/fuzzy.rs` on generated texts; each panics when a promise is broken.

use std::{
    collections::HashSet,
    sync::{Mutex, OnceLock, PoisonError},
};

use axum::body::Body;
use bytes::Bytes;
use casemate_model::Fault;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::{
    Call, Query, Target,
    arm::filter,
    template::{Deployment, Halt, Known, Place, Template, is_shallow, parse_expression},
    testing::{Answer, World},
};

/// A path that is accepted has one canonical form, which names the same target, and a permission.
pub fn path(method: &Method, path: &str) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let query = Query::parse(query);
    let Ok(target) = Target::parse(method, path) else { return };
    let call = Call { method: method.clone(), target, query, headers: HeaderMap::new(), body: Bytes::new() };
    let again = Target::parse(method, &call.path());
    assert_eq!(again.as_ref(), Ok(&call.target), "{path} became {}", call.path());
    assert_eq!(call.target.kind(), call.target.kind().to_lowercase());
    let permission = call.permission();
    assert!(permission.contains('/') && !permission.chars().any(char::is_control), "{permission:?}");
    let _ = (call.target.scope(), call.top(), call.condition());
}

/// A filter is read or refused; what is read is what is read from its canonical form.
pub fn filter(text: &str) {
    let Ok(clauses) = filter::parse(Some(text)) else { return };
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let shown = |clause: &filter::Clause| match clause {
        filter::Clause::Equals(field, value) => format!("{field} eq {}", quoted(value)),
        filter::Clause::Differs(field, value) => format!("{field} ne {}", quoted(value)),
        filter::Clause::Holds(field, text) => format!("substringof({}, {field})", quoted(text)),
        filter::Clause::Call(name, argument) => {
            format!("{name}({})", argument.as_deref().map(quoted).unwrap_or_default())
        }
    };
    let canonical = clauses.iter().map(shown).collect::<Vec<_>>().join(" and ");
    assert_eq!(filter::parse(Some(&canonical)), Ok(clauses), "{canonical}");
}

/// An expression is read or refused, and evaluated or refused, each time with the same outcome.
pub fn expression(text: &str) {
    let parsed = parse_expression(text);
    let document = json!({
        "$schema": "x/deploymentTemplate.json#",
        "parameters": {"p": {"type": "object", "defaultValue": {"name": [1, "a"]}}},
        "variables": {"v": format!("[{text}]"), "w": "[createArray('a', parameters('p'))]"},
        "resources": [],
        "outputs": {"o": {"type": "string", "value": format!("[{text}]")}},
    });
    let outcome = evaluated(&document, &Value::Null);
    if parsed.is_err() && !text.starts_with('[') {
        assert!(outcome.is_err(), "{text} can't be read, but has a value");
    }
}

/// A template is worked out or refused; its resources differ, come in an order that can be followed, and are shallow.
pub fn template(document: &[u8]) {
    let Ok(document) = serde_json::from_slice::<Value>(document) else { return };
    let (template, parameters) = match document.get("template") {
        Some(template) => (template, document.get("parameters").unwrap_or(&Value::Null)),
        None => (&document, &Value::Null),
    };
    let _ = evaluated(template, parameters);
}

/// The outputs of a template, once everything before them is worked out.
pub(crate) fn evaluated(document: &Value, parameters: &Value) -> Result<Value, Fault> {
    let place = Place {
        subscription: Uuid::nil(),
        tenant: Uuid::nil(),
        subscription_name: "s".to_owned(),
        group: Some(json!({"id": "/subscriptions/s/resourceGroups/g", "name": "g", "location": "local"})),
        deployment_name: "d".to_owned(),
        location: None,
        now: Timestamp::UNIX_EPOCH,
    };
    let template = Template::parse(document)?;
    let deployment = Deployment::new(template, parameters, place)?;
    let declared = deployment.declared();
    let ids: HashSet<_> = declared.iter().map(|one| &one.id).collect();
    assert_eq!(ids.len(), declared.len(), "a resource is declared twice");
    let mut known = Known::new();
    for one in declared {
        assert!(one.after.iter().all(|before| *before < declared.len()));
        let planned = settled(&mut known, |known| deployment.plan(one, known))?;
        assert_eq!(planned.id, one.id);
        assert!(is_shallow(&planned.body, 64));
        known.insert(planned.id, Some(json!({"id": one.id.as_str(), "properties": planned.body["properties"]})));
    }
    settled(&mut known, |_| deployment.shown_parameters())?;
    let outputs = settled(&mut known, |known| deployment.outputs(known))?;
    assert!(!outputs.to_string().is_empty());
    Ok(outputs)
}

/// Looks up what an evaluation needs: half of all resources exist.
fn settled<T: PartialEq + std::fmt::Debug>(
    known: &mut Known,
    work: impl Fn(&Known) -> Result<T, Halt>,
) -> Result<T, Fault> {
    loop {
        match work(known) {
            Ok(made) => return Ok(made),
            Err(Halt::Fault(fault)) => {
                assert!(!fault.code.is_empty() && !fault.message.is_empty());
                return Err(fault);
            }
            Err(Halt::Needs(id)) => {
                let there = id.as_str().len().is_multiple_of(2);
                let stub = json!({"id": id.as_str(), "properties": {"a": [1], "name": "n"}});
                assert!(known.insert(id, there.then_some(stub)).is_none(), "what is known was asked for again");
            }
        }
    }
}

/// Requests as the platform's owner may send them, one after the other, to a management API over a real store with the
/// group `g` and the workspace `ws1`. Each is a line `METHOD path`, lines of headers, an empty line and the body; they are
/// parted by lines of `---`; `$S` stands for the subscription, `$W` for the workspace. Every answer has the one form,
/// and none says that the platform failed.
pub fn requests(script: &[u8]) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    /// How many scripts there were, and the world that they met.
    static WORLD: Mutex<(u32, Option<World>)> = Mutex::new((0, None));
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made")
    });
    let mut world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    let (count, world) = &mut *world;
    runtime.block_on(async {
        // Not so long that what earlier scripts left behind decides what this one finds.
        if count.is_multiple_of(500) {
            *world = None;
        }
        *count += 1;
        if world.is_none() {
            let new = World::new().await;
            new.workspace("g", "ws1").await;
            *world = Some(new);
        }
        let Some(world) = world else { return };
        let script = String::from_utf8_lossy(script);
        for request in script.split("\n---\n").take(8) {
            answered(world, request).await;
        }
    });
}

async fn answered(world: &World, request: &str) {
    let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
    let (line, lines) = head.split_once('\n').unwrap_or((head, ""));
    let Some((method, path)) = line.split_once(' ') else { return };
    let workspace = world.path("/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/ws1");
    let path = path.replace("$W", &workspace).replace("$S", &world.path(""));
    let body = body.replace("$W", &workspace).replace("$S", &world.path(""));
    let Ok(method) = method.parse::<Method>() else { return };
    if !path.starts_with('/') || path.parse::<Uri>().is_err() {
        return;
    }
    let headers: Vec<(&str, &str)> = lines.lines().filter_map(|line| line.split_once(':')).collect();
    let headers: Vec<(&str, &str)> = headers
        .into_iter()
        .map(|(name, value)| (name, value.trim()))
        .filter(|(name, value)| name.parse::<HeaderName>().is_ok() && value.parse::<HeaderValue>().is_ok())
        .filter(|(name, _)| !name.eq_ignore_ascii_case("host"))
        .collect();
    let answer = send(world, method.clone(), &path, &headers, &body).await;
    if method != Method::PUT || answer.status.as_u16() > 201 {
        return;
    }
    if let Some(id) = answer.body["id"].as_str() {
        let read = send(world, Method::GET, &path, &[], "").await;
        assert_eq!(read.status.as_u16(), 200, "{path} was written and can't be read: {:#}", read.body);
        assert_eq!(read.body["id"].as_str(), Some(id), "{path}");
    }
}

async fn send(world: &World, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let head = method == Method::HEAD;
    let answer = world.send_as_owner(method, path, headers, Body::from(body.to_owned())).await;
    let status = answer.status.as_u16();
    assert!(status < 500 || matches!(status, 501 | 505), "{status} for {path}: {:#}", answer.body);
    assert!(!answer.header("x-ms-request-id").is_empty(), "{status} for {path} has no request id");
    if status >= 400 && !head && !path.contains(".blob.") {
        let error = &answer.body["error"];
        let said = |key: &str| error[key].as_str().or(answer.body[format!("error_{key}")].as_str()).unwrap_or_default();
        assert!(error.is_string() || !said("code").is_empty(), "{status} for {path}: {:#}", answer.body);
    }
    answer
}
