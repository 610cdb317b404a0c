//! What a rule names: one host, or everything below a base.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::{HostName, NameError, shown};

/// One host, or every host below a base of at least two labels (`*.example.com`; the base itself is not meant).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// This host only.
    Exact(HostName),
    /// Every host below, at any depth.
    Below(HostName),
}

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A star that is not the whole first label.
    #[error("'{0}' has a star that is not its whole first label. Write *.example.com for all hosts below example.com.")]
    Star(String),
    /// A wildcard over a whole top-level domain, or over everything.
    #[error(
        "'{0}' would approve hosts of anybody. A wildcard needs at least two labels after the star, such as \
         *.example.com; to allow the whole internet set the isolation mode to allow_internet_outbound."
    )]
    TooWide(String),
    /// The host name in it is wrong.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl HostPattern {
    /// Reads `host` or `*.base`.
    ///
    /// # Errors
    /// A [`PatternError`] that says what to write instead.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text == "*" || text == "*." {
            return Err(PatternError::TooWide(shown(text)));
        }
        let base = text.strip_prefix("*.");
        if base.unwrap_or(text).contains('*') {
            return Err(PatternError::Star(shown(text)));
        }
        let Some(base) = base else { return Ok(Self::Exact(HostName::parse(text)?)) };
        let base = HostName::parse(base)?;
        if base.labels().count() < 2 {
            return Err(PatternError::TooWide(shown(text)));
        }
        Ok(Self::Below(base))
    }

    /// Whether this pattern means `name`.
    #[must_use]
    pub fn matches(&self, name: &HostName) -> bool {
        match self {
            Self::Exact(host) => host == name,
            Self::Below(base) => name.is_below(base),
        }
    }

    /// How closely it describes a host it matches: one host before a wildcard, a longer base before a shorter one.
    pub(super) fn closeness(&self) -> usize {
        match self {
            Self::Exact(_) => usize::MAX,
            Self::Below(base) => base.as_str().len(),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => write!(f, "{host}"),
            Self::Below(base) => write!(f, "*.{base}"),
        }
    }
}

impl std::str::FromStr for HostPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for HostPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        Self::parse(&text)
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_pattern_means() {
        for (pattern, name, matches) in [
            ("approved.com", "approved.com", true),
            ("Approved.com.", "approved.com", true),
            ("approved.com", "approved.com.evil.com", false),
            ("approved.com", "www.approved.com", false),
            ("approved.com", "xapproved.com", false),
            ("*.x.com", "a.x.com", true),
            ("*.x.com", "a.b.x.com", true),
            ("*.x.com", "x.com", false),
            ("*.x.com", "evilx.com", false),
            ("*.x.com", "x.com.evil.com", false),
            ("*.x.com", "approved.evil.com", false),
        ] {
            let parsed = HostPattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(&HostName::parse(name).unwrap()), matches, "{pattern} {name}");
            assert_eq!(HostPattern::parse(&parsed.to_string()), Ok(parsed));
        }
    }

    #[test]
    fn what_is_no_pattern() {
        for (text, part) in [
            ("*", "anybody"),
            ("*.", "anybody"),
            ("*.com", "anybody"),
            ("*.com.", "anybody"),
            ("a.*.b", "whole first label"),
            ("*.*.b.c", "whole first label"),
            ("*a.b.c", "whole first label"),
            ("a*.b.c", "whole first label"),
            ("**.b.c", "whole first label"),
            ("a.b.*", "whole first label"),
            ("*.10.0.0.1", "address"),
            ("*.a..b", "empty label"),
            ("", "empty"),
            ("*.b\u{fc}cher.example", "xn--bcher-kva.example"),
        ] {
            let message = HostPattern::parse(text).unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
