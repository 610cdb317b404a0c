//! Parameters: which values they get, and whether those fit.

use std::collections::BTreeMap;

use casemate_model::Fault;
use serde_json::{Map, Value};

use super::{
    document::{MAX_BODY_DEPTH, wrong},
    evaluate::is_shallow,
    functions,
};

/// Where a parameter's value comes from.
#[derive(Debug, Clone)]
pub(super) enum ParameterSource {
    /// Given with the request.
    Fixed(Value),
    /// The template's default, perhaps an expression.
    Default(Value),
}

/// Where the value of each defined parameter comes from, by its lower-case name.
pub(super) fn sources(
    definitions: &Map<String, Value>,
    given: &Value,
) -> Result<BTreeMap<String, ParameterSource>, Fault> {
    let empty = Map::new();
    let given = match given {
        Value::Null => &empty,
        Value::Object(given) => given,
        _ => return Err(wrong("parameters", "the given parameters are not an object")),
    };
    let is_defined = |name: &str| definitions.keys().any(|known| known.eq_ignore_ascii_case(name));
    if let Some(other) = given.keys().find(|name| !is_defined(name)) {
        let names: Vec<&str> = definitions.keys().map(String::as_str).collect();
        let message = format!("the template defines no such parameter; it defines: {}", names.join(", "));
        return Err(wrong(&format!("parameters.{other}"), &message));
    }
    let mut sources = BTreeMap::new();
    for (name, definition) in definitions {
        let entry = given.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, entry)| entry);
        if let Some(entry) = entry
            && entry.get("reference").is_some()
        {
            return Err(wrong(&format!("parameters.{name}"), "references to vault secrets are not known here"));
        }
        // An explicit null means: not given.
        let value = entry.and_then(|entry| entry.get("value")).filter(|value| !value.is_null());
        let source = match (value, definition.get("defaultValue")) {
            (Some(value), _) => ParameterSource::Fixed(value.clone()),
            (None, Some(raw)) => ParameterSource::Default(raw.clone()),
            (None, None) => {
                let place = format!("parameters.{name}");
                return Err(wrong(&place, "the parameter has no default value, and none is given"));
            }
        };
        sources.insert(name.to_lowercase(), source);
    }
    Ok(sources)
}

/// Checks a value against its definition.
pub(super) fn check_parameter(name: &str, definition: &Value, value: &Value) -> Result<(), Fault> {
    let place = format!("parameters.{name}");
    let sort = definition.get("type").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    let fits = match sort.as_str() {
        "string" | "securestring" => value.is_string(),
        "int" => value.is_i64(),
        "bool" => value.is_boolean(),
        "array" => value.is_array(),
        "object" | "secureobject" => value.is_object(),
        _ => return Err(wrong(&place, &format!("the type '{sort}' is not known"))),
    };
    if !fits {
        return Err(wrong(&place, &format!("the type is '{sort}', but the value is {}", functions::kind(value))));
    }
    if !is_shallow(value, MAX_BODY_DEPTH) {
        return Err(wrong(&place, &format!("the value nests deeper than {MAX_BODY_DEPTH} levels")));
    }
    let secure = sort.starts_with("secure");
    let shown = if secure { "(secure)".to_owned() } else { value.to_string().chars().take(100).collect() };
    if let Some(allowed) = definition.get("allowedValues").and_then(Value::as_array)
        && !allowed.contains(value)
    {
        let allowed: Vec<String> = allowed.iter().map(Value::to_string).collect();
        let message = format!("the provided value {shown} is not part of the allowed values: {}", allowed.join(", "));
        return Err(wrong(&place, &message));
    }
    let measured = match value {
        Value::String(text) => Some((text.chars().count(), "Length")),
        Value::Array(items) => Some((items.len(), "Length")),
        _ => None,
    };
    let measure = measured.and_then(|(count, unit)| Some((i64::try_from(count).ok()?, unit)));
    if let Some((measure, unit)) = measure.or_else(|| value.as_i64().map(|number| (number, "Value"))) {
        let bound = |edge: &str| definition.get(format!("{edge}{unit}")).and_then(Value::as_i64);
        let low = bound("min").is_some_and(|least| measure < least);
        if low || bound("max").is_some_and(|most| measure > most) {
            let edge = if low { "min" } else { "max" };
            return Err(wrong(&place, &format!("the value {shown} breaks the parameter's {edge}{unit}")));
        }
    }
    Ok(())
}
