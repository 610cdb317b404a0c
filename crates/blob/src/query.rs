//! The query string, read once.

use std::collections::BTreeMap;

use crate::error::BlobError;

/// Longest query accepted, in bytes.
const MAX_QUERY_BYTES: usize = 8192;

/// A request's query parameters; a name given twice is refused, so that no two readers see different values.
#[derive(Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, BlobError> {
        let text = text.unwrap_or_default();
        if text.len() > MAX_QUERY_BYTES {
            return Err(BlobError::bad("InvalidUri", "The query string is longer than 8192 bytes."));
        }
        let mut values = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            if values.insert(name.to_ascii_lowercase(), value.into_owned()).is_some() {
                return Err(BlobError::parameter(&name, "it is given twice"));
            }
        }
        Ok(Self(values))
    }

    /// A parameter's value; the name in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A parameter's value, or nothing when it is absent or empty.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// Whether the parameter has this value in any case.
    pub(crate) fn is(&self, name: &str, value: &str) -> bool {
        self.text(name).eq_ignore_ascii_case(value)
    }
}
