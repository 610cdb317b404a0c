//! Names of containers and blobs, checked once so that a path made of them can't leave its container.

use std::fmt;

use http::StatusCode;
use object_store::path::Path;
use percent_encoding::percent_decode_str;

use crate::error::BlobError;

/// Longest blob name, in bytes.
const MAX_NAME_BYTES: usize = 1024;
/// Longest part of a blob name between slashes, in bytes: what file systems take.
const MAX_PART_BYTES: usize = 255;

/// A container's name: 3 to 63 lower-case letters, digits and single hyphens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerName(String);

impl ContainerName {
    /// Checks a name.
    ///
    /// # Errors
    /// `InvalidResourceName` saying what a name may hold.
    pub fn parse(text: &str) -> Result<Self, BlobError> {
        let good = (3..=63).contains(&text.len())
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !text.starts_with('-')
            && !text.ends_with('-')
            && !text.contains("--");
        if good {
            return Ok(Self(text.to_owned()));
        }
        let shown: String = text.chars().take(80).collect();
        Err(BlobError::bad(
            "InvalidResourceName",
            format!("The container name '{shown}' must have 3 to 63 lower-case letters, digits and single hyphens."),
        ))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ContainerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A blob's name, such as `code/score.py`; every part of it is a plain file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlobName(String);

impl BlobName {
    /// Checks a decoded name.
    ///
    /// # Errors
    /// `InvalidResourceName` for an empty, over-long, absolute or relative (`..`) name, an empty part, a control
    /// character, or an ending that the files of half-written objects use (`#` and digits).
    pub fn parse(text: &str) -> Result<Self, BlobError> {
        match name_flaw(text) {
            None => Ok(Self(text.to_owned())),
            Some(flaw) => {
                let shown: String = text.chars().filter(|c| !c.is_control()).take(80).collect();
                Err(BlobError::bad(
                    "InvalidResourceName",
                    format!("The blob name '{shown}' can't be used: {flaw}. Choose another name."),
                ))
            }
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where it lies below `room/<container>`.
    pub(crate) fn location(&self, room: &str, container: &ContainerName) -> Path {
        Path::parse(format!("{room}/{container}/{}", self.0)).expect("a checked name is a path")
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn name_flaw(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return Some("it is empty");
    }
    if text.len() > MAX_NAME_BYTES {
        return Some("it is longer than 1024 bytes");
    }
    if text.chars().any(char::is_control) {
        return Some("it has a control character");
    }
    for part in text.split('/') {
        match part {
            "" => return Some("it has an empty part (a leading, trailing or double slash)"),
            "." | ".." => return Some("it has a relative part"),
            _ if part.len() > MAX_PART_BYTES => return Some("it has a part longer than 255 bytes"),
            _ => {}
        }
        let suffix = part.split_once('#').map_or("", |(_, suffix)| suffix);
        if !suffix.is_empty() && suffix.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some("it has a part that ends with '#' and digits");
        }
    }
    None
}

/// What a request's path names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Container(ContainerName),
    Blob(ContainerName, BlobName),
}

impl Target {
    /// Reads `/<account>.blob.<suffix>/<container>[/<blob…>]`, percent-encoded. The account only makes the address;
    /// container names are unique on the platform.
    pub(crate) fn parse(path: &str) -> Result<Self, BlobError> {
        let elsewhere = || {
            BlobError::new(
                StatusCode::NOT_FOUND,
                "ResourceNotFound",
                "The address names no container; it should read /<account>.blob.<suffix>/<container>/<blob>.",
            )
        };
        let rest = path.strip_prefix('/').ok_or_else(elsewhere)?;
        let (account, rest) = rest.split_once('/').ok_or_else(elsewhere)?;
        if !is_account_host(account) || rest.is_empty() {
            return Err(elsewhere());
        }
        let (container, blob) = rest.split_once('/').unwrap_or((rest, ""));
        let container = ContainerName::parse(&decode(container)?)?;
        match blob {
            "" => Ok(Self::Container(container)),
            blob => Ok(Self::Blob(container, BlobName::parse(&decode(blob)?)?)),
        }
    }
}

/// Whether a path's first part is an account's address: `<account>.blob.<suffix>`.
pub(crate) fn is_account_host(part: &str) -> bool {
    let lower = part.to_ascii_lowercase();
    lower.split_once(".blob.").is_some_and(|(account, suffix)| !account.is_empty() && !suffix.is_empty())
}

fn decode(text: &str) -> Result<String, BlobError> {
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| BlobError::bad("InvalidUri", "The address is not UTF-8 once decoded."))?;
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let blob = |path: &str| match Target::parse(path) {
            Ok(Target::Blob(container, name)) => format!("{container} {name}"),
            Ok(Target::Container(container)) => container.to_string(),
            Err(error) => error.code.to_owned(),
        };
        for (path, expected) in [
            ("/acct.blob.storage.casemate.internal/abc/a/b%20c.txt", "abc a/b c.txt"),
            ("/acct.blob.x/abc", "abc"),
            ("/acct.blob.x/abc/", "abc"),
            ("/acct.blob.x/abc/a%2Fb", "abc a/b"),
            ("/acct.blob.x/abc/%E2%9C%93", "abc ✓"),
            ("/acct.blob.x", "ResourceNotFound"),
            ("/acct.blob.x/", "ResourceNotFound"),
            ("/elsewhere/abc/x", "ResourceNotFound"),
            ("/.blob.x/abc/x", "ResourceNotFound"),
            ("/acct.blob.x/ABC/x", "InvalidResourceName"),
            ("/acct.blob.x/../x", "InvalidResourceName"),
            ("/acct.blob.x/%2e%2e/x", "InvalidResourceName"),
            ("/acct.blob.x/abc/..", "InvalidResourceName"),
            ("/acct.blob.x/abc/a/../../x", "InvalidResourceName"),
            ("/acct.blob.x/abc/%2e%2e/x", "InvalidResourceName"),
            ("/acct.blob.x/abc/%2Fetc/passwd", "InvalidResourceName"),
            ("/acct.blob.x/abc//etc/passwd", "InvalidResourceName"),
            ("/acct.blob.x/abc/a%00b", "InvalidResourceName"),
            ("/acct.blob.x/abc/a%0ab", "InvalidResourceName"),
            ("/acct.blob.x/abc/a#1", "InvalidResourceName"),
            ("/acct.blob.x/abc/a%FF", "InvalidUri"),
        ] {
            assert_eq!(blob(path), expected, "{path}");
        }
        assert!(BlobName::parse(&"x".repeat(256)).is_err());
        assert!(BlobName::parse(&"x/".repeat(600)).is_err());
    }
}
