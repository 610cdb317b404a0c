//! Host names, parsed once at the door: one spelling for each, and never an address in disguise.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest name in text form, without the root's dot.
const MAX_NAME: usize = 253;
/// The longest label.
const MAX_LABEL: usize = 63;

/// A host name: lower-case letters, digits, hyphens and underscores in labels of 1 to 63 bytes, at most 253 bytes, without
/// the dot of the root. What any resolver would take for an address in digits is not a name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(Box<str>);

/// Why a text is not a host name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or only the root's dot.
    #[error("A host name is empty. Give the full name of a host, such as packages.example.org.")]
    Empty,
    /// The whole name is too long.
    #[error("A host name of {0} bytes is longer than DNS allows. It can have at most {MAX_NAME}.")]
    TooLong(usize),
    /// Two dots in a row, or a dot in front.
    #[error("The host name '{0}' has an empty label. Write one dot between labels and none in front.")]
    EmptyLabel(String),
    /// One label is too long.
    #[error("The host name '{0}' has a label longer than {MAX_LABEL} bytes. Shorten it: DNS has no such name.")]
    LongLabel(String),
    /// A hyphen at either end of a label.
    #[error("The host name '{0}' has a label that starts or ends with a hyphen. Such a name cannot be resolved.")]
    Hyphen(String),
    /// A character that no host name has; it is shown escaped.
    #[error(
        "The host name '{name}' holds {character}. Use letters, digits, hyphens and dots only: no scheme, port, path, \
         user or escape."
    )]
    Character {
        /// The text, escaped.
        name: String,
        /// The first offending character, escaped and quoted.
        character: String,
    },
    /// Letters outside ASCII.
    #[error("The host name '{name}' has letters outside ASCII. {hint}")]
    NotAscii {
        /// The text, escaped.
        name: String,
        /// The form in ASCII, or that there is none.
        hint: String,
    },
    /// An address in any of its spellings.
    #[error(
        "'{0}' is an address, not a host name. Approve an address by a service tag rule with --address-prefixes, or \
         name the host."
    )]
    Address(String),
}

impl HostName {
    /// Reads a name; letters may be of either case and one dot may follow the last label.
    ///
    /// # Errors
    /// A [`NameError`] that says what is wrong; the text in it is escaped and cut short.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        check_characters(text, name)?;
        if name.len() > MAX_NAME {
            return Err(NameError::TooLong(name.len()));
        }
        for label in name.split('.') {
            if label.is_empty() {
                return Err(NameError::EmptyLabel(shown(text)));
            }
            if label.len() > MAX_LABEL {
                return Err(NameError::LongLabel(shown(text)));
            }
            if label.starts_with('-') || label.ends_with('-') {
                return Err(NameError::Hyphen(shown(text)));
            }
        }
        if ends_in_number(name) {
            return Err(NameError::Address(shown(text)));
        }
        Ok(Self(name.to_ascii_lowercase().into()))
    }

    /// The name in lower case, without the root's dot.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels from the leftmost on; there is at least one.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }

    /// Whether this name lies below `base` (and is not `base` itself).
    #[must_use]
    pub fn is_below(&self, base: &HostName) -> bool {
        self.0.strip_suffix(base.as_str()).is_some_and(|rest| rest.ends_with('.'))
    }

    /// Whether the name means the machine that asks: `localhost` and everything below it (RFC 6761).
    #[must_use]
    pub fn is_localhost(&self) -> bool {
        self.labels().next_back() == Some("localhost")
    }

    /// Whether the name is one that clouds give to their instance metadata services.
    #[must_use]
    pub fn is_metadata(&self) -> bool {
        const NAMES: [&str; 5] =
            ["instance-data", "instance-data.ec2.internal", "metadata", "metadata.goog", "metadata.google.internal"];
        NAMES.contains(&self.as_str())
    }
}

/// What the URL standard calls "ends in a number": the one test that covers every spelling that `inet_aton` takes for an
/// address (decimal, octal, hexadecimal, one to four parts), since each of them ends in a number.
fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn check_characters(text: &str, name: &str) -> Result<(), NameError> {
    if text.parse::<std::net::IpAddr>().is_ok()
        || text.strip_prefix('[').is_some_and(|rest| rest.trim_end_matches(']').parse::<std::net::Ipv6Addr>().is_ok())
    {
        return Err(NameError::Address(shown(text)));
    }
    let bad = |c: &char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    let Some(first) = name.chars().find(bad) else { return Ok(()) };
    let letters = name.chars().filter(bad).all(|c| !c.is_ascii() && !c.is_control());
    if !letters {
        let first = name.chars().find(|c| bad(c) && (c.is_ascii() || c.is_control())).unwrap_or(first);
        return Err(NameError::Character { name: shown(text), character: format!("'{}'", first.escape_default()) });
    }
    let hint = match ascii_form(name) {
        Some(ascii) => format!(
            "If this very name is meant, write it as '{ascii}'; letters that only look like others make another name."
        ),
        None => "It has no form in ASCII, so it cannot be resolved.".to_owned(),
    };
    Err(NameError::NotAscii { name: shown(text), hint })
}

/// The punycode form, when there is one that is itself a host name.
fn ascii_form(name: &str) -> Option<String> {
    if name.len() > 4 * MAX_NAME {
        return None;
    }
    let ascii = idna::domain_to_ascii(name).ok()?;
    HostName::parse(&ascii).ok().map(String::from)
}

/// A text from outside as it may stand in a message: escaped, and cut after 80 characters.
pub(super) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(80).flat_map(char::escape_default).collect();
    if text.chars().nth(80).is_some() {
        out.push('…');
    }
    out
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for HostName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for HostName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<HostName> for String {
    fn from(name: HostName) -> Self {
        name.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_for_each_name() {
        for (text, name) in [
            ("packages.example.org", "packages.example.org"),
            ("Packages.Example.Org.", "packages.example.org"),
            ("a_b.example", "a_b.example"),
            ("_dmarc.x.y", "_dmarc.x.y"),
            ("r3---sn-4g5.googlevideo.com", "r3---sn-4g5.googlevideo.com"),
            ("db01", "db01"),
            ("3com.example", "3com.example"),
            ("1.2.3.example", "1.2.3.example"),
            ("0x7f.example", "0x7f.example"),
            ("127.0.0.1.nip.io", "127.0.0.1.nip.io"),
            ("0xg", "0xg"),
            ("1e3", "1e3"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(HostName::parse(text).as_ref().map(HostName::as_str), Ok(name), "{text}");
        }
        let long = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
        assert_eq!(long.len(), 253);
        assert!(HostName::parse(&long).is_ok() && HostName::parse(&format!("{long}.")).is_ok());
        assert_eq!(HostName::parse(&format!("{long}d")), Err(NameError::TooLong(254)));
    }

    #[test]
    fn an_address_is_never_a_name() {
        for text in [
            "1",
            "0",
            "127.1",
            "127.0.0.1",
            "127.0.0.1.",
            "0x7f.1",
            "0x7f000001",
            "0X7F000001",
            "0x",
            "017700000001",
            "017.1",
            "1.2.3.4.5",
            "256.1.1.1",
            "a.1",
            "example.0x1",
            "999999999999",
            "2130706433",
            "::1",
            "[::1]",
            "fe80::1",
            "::ffff:127.0.0.1",
            "[::ffff:7f00:1]",
            "010.0.0.1",
            "08",
        ] {
            assert!(matches!(HostName::parse(text), Err(NameError::Address(_))), "{text} {:?}", HostName::parse(text));
        }
    }

    #[test]
    fn what_no_name_has() {
        for (text, part) in [
            ("", "empty"),
            (".", "empty"),
            ("..", "empty label"),
            ("a..b", "empty label"),
            (".a", "empty label"),
            ("a.b..", "empty label"),
            ("-a.b", "hyphen"),
            ("a-.b", "hyphen"),
            ("a.-", "hyphen"),
            ("a b.c", "holds ' '"),
            ("a\0.evil.com", "holds '\\u{0}'"),
            ("a.b\n", "holds '\\n'"),
            ("a%2eb.c", "holds '%'"),
            ("fe80::1%eth0", "holds ':'"),
            ("https://a.b", "holds ':'"),
            ("a.b:443", "holds ':'"),
            ("u@a.b", "holds '@'"),
            ("*.a.b", "holds '*'"),
            ("a.b\u{7f}", "holds '\\u{7f}'"),
            ("a\u{85}.b", "holds '\\u{85}'"),
            ("127.0.0.1 x", "holds ' '"),
        ] {
            let message = HostName::parse(text).unwrap_err().to_string();
            assert!(message.contains(part), "{text:?}: {message}");
            assert!(!message.contains(|c: char| c.is_control()), "{text:?}: {message:?}");
        }
        let label = format!("{}.org", "a".repeat(64));
        assert!(matches!(HostName::parse(&label), Err(NameError::LongLabel(_))));
    }

    #[test]
    fn other_alphabets_are_named_in_ascii() {
        for (text, form) in [
            ("bücher.example", "'xn--bcher-kva.example'"),
            // The first letter is Cyrillic.
            ("\u{430}pple.com", "'xn--pple-43d.com'"),
            ("p\u{0443}pi.org", "'xn--"),
            // An ideographic full stop is a dot to some clients.
            ("packages\u{3002}example.org", "'packages.example.org'"),
            ("\u{ff11}27.0.0.1", "no form in ASCII"),
            ("a\u{202e}b.com", "no form in ASCII"),
        ] {
            let message = HostName::parse(text).unwrap_err().to_string();
            assert!(message.contains(form), "{text}: {message}");
            assert!(message.is_ascii(), "{message}");
        }
    }

    #[test]
    fn below_is_by_whole_labels() {
        let name = |text| HostName::parse(text).unwrap();
        for (text, base, below) in
            [("a.b.c", "b.c", true), ("b.c", "b.c", false), ("ab.c", "b.c", false), ("b.c.d", "b.c", false)]
        {
            assert_eq!(name(text).is_below(&name(base)), below, "{text} {base}");
        }
        assert!(name("localhost").is_localhost() && name("x.localhost").is_localhost());
        assert!(!name("localhost.example").is_localhost());
        assert!(name("Metadata.Google.Internal.").is_metadata());
    }
}
