//! Bodies of requests on their way to become what is stored.

use std::collections::BTreeMap;

use casemate_model::Fault;
use serde_json::{Map, Value};

/// Most tags of one resource, and the longest key and value, in characters.
const MAX_TAGS: usize = 50;
const MAX_TAG_KEY: usize = 512;
const MAX_TAG_VALUE: usize = 256;

/// A resource's body as it will be stored.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Body(Map<String, Value>);

impl Body {
    /// Takes from a request what a user may say: location, kind, tags, identity, sku and properties, without nulls.
    /// Everything else (id, systemData, …) is the platform's to say, and ignored as the original does.
    ///
    /// # Errors
    /// `BadArgument` when the body or its properties are no objects, or the tags no texts.
    pub(super) fn read(given: Value) -> Result<Self, Fault> {
        let Value::Object(mut given) = given else {
            return Err(Fault::invalid("BadArgument", "The request's body is not a JSON object."));
        };
        let mut kept = Map::new();
        for key in ["location", "kind", "tags", "identity", "sku", "properties"] {
            if let Some(mut value) = given.remove(key).filter(|value| !value.is_null()) {
                drop_nulls(&mut value);
                kept.insert(key.to_owned(), value);
            }
        }
        if !kept.entry("properties").or_insert_with(|| Value::Object(Map::new())).is_object() {
            return Err(Fault::invalid("BadArgument", "'properties' is not an object.").at("properties"));
        }
        let mut body = Self(kept);
        for key in ["location", "kind"] {
            if body.0.get(key).is_some_and(|value| !value.is_string()) {
                return Err(Fault::invalid("BadArgument", format!("'{key}' is not a text.")).at(key));
            }
        }
        let tags = texts(body.0.remove("tags"), "tags")?;
        check_tags(&tags)?;
        body.0.insert("tags".to_owned(), map_of(tags));
        Ok(body)
    }

    /// Lays a merge patch over a stored body: objects merge, null removes, everything else replaces.
    ///
    /// # Errors
    /// As [`Body::read`].
    pub(super) fn patched(stored: &Value, patch: &Value) -> Result<Self, Fault> {
        let mut merged = stored.clone();
        merge(&mut merged, patch);
        Self::read(merged)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    pub(super) fn set(&mut self, key: &str, value: Value) {
        self.0.insert(key.to_owned(), value);
    }

    /// Sets what is absent.
    pub(super) fn default(&mut self, key: &str, value: impl FnOnce() -> Value) {
        self.0.entry(key).or_insert_with(value);
    }

    pub(super) fn properties(&mut self) -> &mut Map<String, Value> {
        let properties = self.0.entry("properties").or_insert_with(|| Value::Object(Map::new()));
        properties.as_object_mut().expect("reading checked that the properties are an object")
    }

    pub(super) fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

/// Replaces a property by its canonical spelling; a default when it is absent.
///
/// # Errors
/// `BadArgument` naming the choices.
pub(super) fn spell(
    properties: &mut Map<String, Value>,
    key: &str,
    choices: &[&str],
    default: Option<&str>,
) -> Result<(), Fault> {
    let given = match properties.get(key) {
        None => match default {
            None => return Ok(()),
            Some(default) => default.to_owned(),
        },
        Some(Value::String(given)) => given.clone(),
        Some(other) => other.to_string(),
    };
    let Some(choice) = choices.iter().find(|choice| choice.eq_ignore_ascii_case(&given)) else {
        let message = format!("'{key}' is '{given}'; give one of: {}.", choices.join(", "));
        return Err(Fault::invalid("BadArgument", message).at(key));
    };
    properties.insert(key.to_owned(), (*choice).into());
    Ok(())
}

/// An object of texts; numbers and booleans become texts, as older clients send them.
///
/// # Errors
/// `BadArgument` naming the key whose value is none of these.
pub(crate) fn texts(value: Option<Value>, what: &str) -> Result<BTreeMap<String, String>, Fault> {
    let map = match value {
        None => return Ok(BTreeMap::new()),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(Fault::invalid("BadArgument", format!("'{what}' is not an object of texts.")).at(what)),
    };
    let text = |(key, value): (String, Value)| match value {
        Value::String(text) => Ok((key, text)),
        Value::Number(_) | Value::Bool(_) => Ok((key, value.to_string())),
        _ => Err(Fault::invalid("BadArgument", format!("The value of '{key}' in '{what}' is not a text.")).at(what)),
    };
    map.into_iter().map(text).collect()
}

/// The other way.
pub(crate) fn map_of(texts: BTreeMap<String, String>) -> Value {
    Value::Object(texts.into_iter().map(|(key, value)| (key, Value::String(value))).collect())
}

fn check_tags(tags: &BTreeMap<String, String>) -> Result<(), Fault> {
    let long =
        |(key, value): (&String, &String)| key.chars().count() > MAX_TAG_KEY || value.chars().count() > MAX_TAG_VALUE;
    if tags.len() <= MAX_TAGS && !tags.iter().any(long) {
        return Ok(());
    }
    let message = format!(
        "A resource has at most {MAX_TAGS} tags, with keys of at most {MAX_TAG_KEY} and values of at most {MAX_TAG_VALUE} characters."
    );
    Err(Fault::invalid("BadArgument", message).at("tags"))
}

/// Removes nulls everywhere.
pub(super) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let (Value::Object(target), Value::Object(patch)) = (&mut *target, patch) else {
        *target = patch.clone();
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_a_user_may_say_is_kept() {
        let body = Body::read(
            json!({"id": "/x", "systemData": {}, "location": "local", "tags": {"a": 1, "b": true, "c": null},
            "properties": {"description": null, "keep": {"x": null, "y": 1}}}),
        )
        .unwrap();
        assert_eq!(
            body.into_value(),
            json!({"location": "local", "tags": {"a": "1", "b": "true"}, "properties": {"keep": {"y": 1}}})
        );
    }

    #[test]
    fn patches_merge() {
        let stored = json!({"tags": {"a": "1"}, "properties": {"x": {"y": 1, "z": 2}, "list": [1]}});
        let patch =
            json!({"tags": {"b": "2"}, "properties": {"x": {"y": null}, "list": [2], "deep": {"new": {"er": 1}}}});
        assert_eq!(
            Body::patched(&stored, &patch).unwrap().into_value(),
            json!({"tags": {"a": "1", "b": "2"}, "properties": {"x": {"z": 2}, "list": [2], "deep": {"new": {"er": 1}}}})
        );
    }

    #[test]
    fn refusals() {
        let many: Map<String, Value> = (0..51).map(|n| (n.to_string(), "x".into())).collect();
        for given in [
            json!([]),
            json!("x"),
            json!({"properties": []}),
            json!({"location": 1}),
            json!({"tags": []}),
            json!({"tags": {"a": {}}}),
            json!({"tags": many}),
            json!({"tags": {"a": "x".repeat(257)}}),
        ] {
            assert_eq!(Body::read(given.clone()).unwrap_err().code, "BadArgument", "{given}");
        }
    }
}
