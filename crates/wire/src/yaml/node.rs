//! The tree.

use std::fmt;

use serde_json::{Map, Number, Value};

/// A place in a file; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl fmt::Display for Spot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A key of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Its text.
    pub text: String,
    /// Where it stood; none when it came from `--set` or from the server.
    pub spot: Option<Spot>,
}

/// A value and where it stood.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it stood; none when it came from `--set` or from the server.
    pub spot: Option<Spot>,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Text whose type is decided by whoever reads it.
    Scalar {
        /// The text as written, without quotes.
        text: String,
        /// Written without quotes, so that it may be a number, a boolean or null.
        plain: bool,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping in the order of the file.
    Map(Vec<(Key, Node)>),
}

/// A scalar by the YAML 1.2 core rules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scalar<'a> {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// Anything else, and everything quoted.
    Text(&'a str),
}

impl Node {
    /// A quoted scalar from nowhere.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { spot: None, kind: Kind::Scalar { text: text.into(), plain: false } }
    }

    /// An empty mapping from nowhere.
    #[must_use]
    pub fn empty_map() -> Self {
        Self { spot: None, kind: Kind::Map(Vec::new()) }
    }

    /// The scalar's value; none for lists and mappings.
    #[must_use]
    pub fn scalar(&self) -> Option<Scalar<'_>> {
        match &self.kind {
            Kind::Scalar { text, plain: true } => Some(resolve(text)),
            Kind::Scalar { text, plain: false } => Some(Scalar::Text(text)),
            _ => None,
        }
    }

    /// The scalar's text as written; none for null, lists and mappings.
    #[must_use]
    pub fn as_written(&self) -> Option<&str> {
        match (&self.kind, self.scalar()) {
            (_, Some(Scalar::Null)) => None,
            (Kind::Scalar { text, .. }, _) => Some(text),
            _ => None,
        }
    }

    /// Whether it is null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.scalar() == Some(Scalar::Null)
    }

    /// The value of a key of a mapping; null counts as absent.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Self> {
        let Kind::Map(entries) = &self.kind else { return None };
        entries.iter().find(|(name, node)| name.text == key && !node.is_null()).map(|(_, node)| node)
    }

    /// What it is, in words for a message.
    #[must_use]
    pub fn describe(&self) -> String {
        match (&self.kind, self.scalar()) {
            (Kind::List(_), _) => "a list".to_owned(),
            (Kind::Map(_), _) => "a mapping".to_owned(),
            (_, Some(Scalar::Null)) => "nothing".to_owned(),
            (_, Some(Scalar::Bool(value))) => format!("{value}"),
            (_, Some(Scalar::Int(value))) => format!("{value}"),
            (_, Some(Scalar::Float(value))) => format!("{value}"),
            (Kind::Scalar { text, .. }, _) => format!("'{}'", shortened(text)),
        }
    }

    /// The same value as JSON.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Kind::Map(entries) => {
                let map: Map<String, Value> =
                    entries.iter().map(|(key, node)| (key.text.clone(), node.to_json())).collect();
                Value::Object(map)
            }
            Kind::Scalar { text, plain } => match if *plain { resolve(text) } else { Scalar::Text(text) } {
                Scalar::Null => Value::Null,
                Scalar::Bool(value) => Value::Bool(value),
                Scalar::Int(value) => Value::from(value),
                Scalar::Float(value) => {
                    Number::from_f64(value).map_or_else(|| Value::String(text.clone()), Value::Number)
                }
                Scalar::Text(text) => Value::String(text.to_owned()),
            },
        }
    }

    /// A tree without spots from JSON.
    #[must_use]
    pub fn from_json(value: &Value) -> Self {
        let plain = |text: String| Kind::Scalar { text, plain: true };
        let kind = match value {
            Value::Null => plain("null".to_owned()),
            Value::Bool(value) => plain(value.to_string()),
            Value::Number(value) => plain(value.to_string()),
            Value::String(text) => Kind::Scalar { text: text.clone(), plain: false },
            Value::Array(items) => Kind::List(items.iter().map(Self::from_json).collect()),
            Value::Object(map) => Kind::Map(
                map.iter()
                    .map(|(key, value)| (Key { text: key.clone(), spot: None }, Self::from_json(value)))
                    .collect(),
            ),
        };
        Self { spot: None, kind }
    }
}

/// The first 60 characters of a text.
pub(super) fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

fn resolve(text: &str) -> Scalar<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number too large for 64 bits stays text: whoever wants a number will say so.
        return text.parse().map_or(Scalar::Text(text), Scalar::Int);
    }
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(value) = text.strip_prefix(prefix).and_then(|digits| i64::from_str_radix(digits, radix).ok()) {
            return Scalar::Int(value);
        }
    }
    let numeric = digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        && digits.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte))
        && digits.bytes().any(|byte| byte.is_ascii_digit());
    match text.parse::<f64>() {
        Ok(value) if numeric && value.is_finite() => Scalar::Float(value),
        _ => Scalar::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_by_the_core_rules() {
        for (text, scalar) in [
            ("", Scalar::Null),
            ("null", Scalar::Null),
            ("True", Scalar::Bool(true)),
            ("yes", Scalar::Text("yes")),
            ("12", Scalar::Int(12)),
            ("-7", Scalar::Int(-7)),
            ("0x10", Scalar::Int(16)),
            ("1.5", Scalar::Float(1.5)),
            ("1e3", Scalar::Float(1000.0)),
            (".5", Scalar::Float(0.5)),
            ("1.2.3", Scalar::Text("1.2.3")),
            ("nan", Scalar::Text("nan")),
            ("inf", Scalar::Text("inf")),
            (".", Scalar::Text(".")),
            ("-", Scalar::Text("-")),
            ("99999999999999999999", Scalar::Text("99999999999999999999")),
        ] {
            assert_eq!(resolve(text), scalar, "{text}");
        }
    }

    #[test]
    fn json_and_back() {
        let value = serde_json::json!({"a": [1, 2.5, "3", null, true], "b": {}});
        assert_eq!(Node::from_json(&value).to_json(), value);
    }
}
