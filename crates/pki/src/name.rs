//! The names that a certificate can carry: DNS names, `*.` wildcards of one label, IP literals.

use std::{net::IpAddr, str::FromStr};

use rcgen::SanType;

use crate::PkiError;

/// Longest DNS name, in bytes (RFC 1035).
const MAX_NAME_BYTES: usize = 253;
/// Longest label of a DNS name, in bytes.
const MAX_LABEL_BYTES: usize = 63;

/// The lower-case form of a name without a trailing dot, or an IP literal in its shortest form.
///
/// # Errors
/// `BadName` naming the rule that it breaks.
pub(crate) fn canonical(name: &str) -> Result<String, PkiError> {
    if let Ok(address) = IpAddr::from_str(name) {
        return Ok(address.to_string());
    }
    let bad = |why| PkiError::BadName { name: name.chars().take(80).collect(), why };
    let bare = name.strip_suffix('.').unwrap_or(name);
    if bare.is_empty() {
        return Err(bad("it is empty"));
    }
    if bare.len() > MAX_NAME_BYTES {
        return Err(bad("it is longer than 253 bytes"));
    }
    let labels = bare.strip_prefix("*.").unwrap_or(bare);
    for label in labels.split('.') {
        if label.is_empty() || label.len() > MAX_LABEL_BYTES {
            return Err(bad("each part between dots needs 1 to 63 characters"));
        }
        if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
            return Err(bad("only letters, digits, '-' and '_' are allowed, and '*' only as the whole first part"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(bad("a part starts or ends with '-'"));
        }
    }
    if labels.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(bad("its last part is a number, so it reads as a broken IP address"));
    }
    Ok(bare.to_ascii_lowercase())
}

/// The subject alternative name for a canonical name.
///
/// # Errors
/// `BadName`, should the library refuse it.
pub(crate) fn alternative(canonical: &str) -> Result<SanType, PkiError> {
    if let Ok(address) = IpAddr::from_str(canonical) {
        return Ok(SanType::IpAddress(address));
    }
    let name = canonical
        .to_owned()
        .try_into()
        .map_err(|_| PkiError::BadName { name: canonical.to_owned(), why: "it is not plain ASCII" })?;
    Ok(SanType::DnsName(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (given, kept) in [
            ("Score.Local.Inference.Casemate.Internal", "score.local.inference.casemate.internal"),
            ("localhost", "localhost"),
            ("a.b.", "a.b"),
            ("*.Example.org", "*.example.org"),
            ("127.0.0.1", "127.0.0.1"),
            ("0:0:0:0:0:0:0:1", "::1"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(canonical(given).unwrap(), kept);
        }
        let long = format!("{}.example", "a".repeat(64));
        let longer = format!("{}com", "abc.".repeat(70));
        for bad in [
            "",
            ".",
            "*",
            "*.",
            "a..b",
            ".a",
            "-a.b",
            "a-.b",
            "a b",
            "a.*.b",
            "a*.b",
            "*.*.b",
            "bücher.de",
            "1.2.3.4.5",
            "300.1.1.1",
            "a/b",
            "a\0b",
            &long,
            &longer,
        ] {
            assert!(canonical(bad).is_err(), "{bad}");
        }
    }
}
