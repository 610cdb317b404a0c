//! JSON Patch (RFC 6902), as far as the first generation of the SDK uses it: add, replace, remove and test of members of
//! objects.

use casemate_model::Fault;
use serde_json::Value;

/// Most changes in one request, and most parts of a path.
const MAX_CHANGES: usize = 500;
const MAX_PARTS: usize = 16;

/// Applies a list of changes, all or none. Objects on the way that are not there are made by `add` and `replace`: clients
/// replace members of what is null.
///
/// # Errors
/// `BadArgument` naming the change that can't be made.
pub(crate) fn apply(document: &mut Value, changes: &Value) -> Result<(), Fault> {
    let bad = |message: String| Fault::invalid("BadArgument", message).at("patch");
    let list = changes.as_array().filter(|list| list.len() <= MAX_CHANGES);
    let list =
        list.ok_or_else(|| bad(format!("The body is not a list of at most {MAX_CHANGES} changes (JSON Patch).")))?;
    let mut changed = document.clone();
    for change in list {
        let (op, path) = (change["op"].as_str().unwrap_or_default(), change["path"].as_str().unwrap_or_default());
        let shown = || {
            let shown: String = format!("{op} {path}").chars().filter(|c| !c.is_control()).take(200).collect();
            shown
        };
        let parts = parts(path).ok_or_else(|| bad(format!("The change '{}' has no path such as /tags.", shown())))?;
        let value = change.get("value").cloned().unwrap_or(Value::Null);
        let done = match op.to_ascii_lowercase().as_str() {
            "add" | "replace" => put(&mut changed, &parts, value),
            "remove" => remove(&mut changed, &parts),
            "test" => changed.pointer(path) == Some(&value),
            _ => false,
        };
        if !done {
            return Err(bad(format!(
                "The change '{}' can't be made: give add, replace, remove or test of a member that is there.",
                shown()
            )));
        }
    }
    *document = changed;
    Ok(())
}

/// The members that a path names.
fn parts(path: &str) -> Option<Vec<String>> {
    let parts: Vec<String> =
        path.strip_prefix('/')?.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
    (parts.len() <= MAX_PARTS && parts.iter().all(|part| !part.is_empty() && !part.starts_with('_'))).then_some(parts)
}

fn put(document: &mut Value, parts: &[String], value: Value) -> bool {
    let Some((last, way)) = parts.split_last() else { return false };
    let mut at = document;
    for part in way {
        if at.is_null() {
            *at = Value::Object(serde_json::Map::new());
        }
        let Some(object) = at.as_object_mut() else { return false };
        at = object.entry(part).or_insert(Value::Null);
    }
    if at.is_null() {
        *at = Value::Object(serde_json::Map::new());
    }
    let Some(object) = at.as_object_mut() else { return false };
    object.insert(last.clone(), value);
    true
}

fn remove(document: &mut Value, parts: &[String]) -> bool {
    let Some((last, way)) = parts.split_last() else { return false };
    let parent = way.iter().try_fold(document, |at, part| at.get_mut(part));
    parent.and_then(Value::as_object_mut).and_then(|object| object.remove(last)).is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes() {
        let start = json!({"tags": {"a": "1"}, "keys": null, "versions": {"one": {"x": 1}}});
        for (changes, expected) in [
            (
                json!([{"op": "replace", "path": "/tags", "value": {"b": "2"}}]),
                json!({"tags": {"b": "2"}, "keys": null, "versions": {"one": {"x": 1}}}),
            ),
            (
                json!([{"op": "add", "path": "/tags/c~1d", "value": "3"}]),
                json!({"tags": {"a": "1", "c/d": "3"}, "keys": null, "versions": {"one": {"x": 1}}}),
            ),
            (
                json!([{"op": "replace", "path": "/keys/deep/er", "value": 1}]),
                json!({"tags": {"a": "1"}, "keys": {"deep": {"er": 1}}, "versions": {"one": {"x": 1}}}),
            ),
            (
                json!([{"op": "remove", "path": "/versions/one"}]),
                json!({"tags": {"a": "1"}, "keys": null, "versions": {}}),
            ),
            (json!([]), start.clone()),
        ] {
            let mut document = start.clone();
            apply(&mut document, &changes).unwrap();
            assert_eq!(document, expected, "{changes}");
        }
    }

    #[test]
    fn refusals_change_nothing() {
        let start = json!({"a": 1, "b": {}});
        for changes in [
            json!({}),
            json!([{"op": "replace", "value": 1}]),
            json!([{"op": "replace", "path": "a", "value": 1}]),
            json!([{"op": "replace", "path": "/_hidden", "value": 1}]),
            json!([{"op": "replace", "path": "/a/b", "value": 1}]),
            json!([{"op": "remove", "path": "/c"}]),
            json!([{"op": "move", "from": "/a", "path": "/c"}]),
            json!([{"op": "test", "path": "/a", "value": 2}]),
            json!([{"op": "replace", "path": "/b", "value": 1}, {"op": "remove", "path": "/c"}]),
            json!([{"op": "add", "path": "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17", "value": 1}]),
        ] {
            let mut document = start.clone();
            assert!(apply(&mut document, &changes).is_err(), "{changes}");
            assert_eq!(document, start, "{changes}");
        }
    }
}
