//! Port ranges as rules write them: `80,8080-8089` or `*`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::shown;

/// How many ranges one rule can have.
const MAX_RANGES: usize = 64;

/// A set of TCP ports (1 to 65535), kept sorted and merged.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRanges(Vec<(u16, u16)>);

/// Why a text is not a set of ports.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// A part that is neither a port nor a range.
    #[error("'{0}' is not a port or a range of ports. Write for example 443 or 80,8080-8089, or * for all ports.")]
    Part(String),
    /// The first port of a range is above its last.
    #[error("The port range '{0}' runs backwards. Write the smaller port first.")]
    Backwards(String),
    /// More parts than a rule can have.
    #[error("There are more than {MAX_RANGES} port ranges. Merge them, or make several rules.")]
    TooMany,
}

impl PortRanges {
    /// Reads ports and ranges with commas between, or `*`.
    ///
    /// # Errors
    /// A [`PortError`] that names the part at fault.
    pub fn parse(text: &str) -> Result<Self, PortError> {
        if text.trim() == "*" {
            return Ok(Self::all());
        }
        if text.split(',').nth(MAX_RANGES).is_some() {
            return Err(PortError::TooMany);
        }
        let ranges: Result<Vec<(u16, u16)>, PortError> = text.split(',').map(range).collect();
        Ok(Self::merged(ranges?))
    }

    /// Every port.
    #[must_use]
    pub fn all() -> Self {
        Self(vec![(1, u16::MAX)])
    }

    /// 80 and 443, what a rule for a host opens when it names no ports.
    #[must_use]
    pub fn web() -> Self {
        Self(vec![(80, 80), (443, 443)])
    }

    /// One port. Port 0 is none at all.
    #[must_use]
    pub fn one(port: u16) -> Self {
        Self(if port == 0 { Vec::new() } else { vec![(port, port)] })
    }

    /// Whether `port` is one of them.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    /// These ports and those of `other`.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::merged(self.0.iter().chain(&other.0).copied().collect())
    }

    fn merged(mut ranges: Vec<(u16, u16)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }
}

fn range(text: &str) -> Result<(u16, u16), PortError> {
    let text = text.trim();
    let wrong = || PortError::Part(shown(text));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first).ok_or_else(wrong)?, port(last).ok_or_else(wrong)?);
    if first > last {
        return Err(PortError::Backwards(shown(text)));
    }
    Ok((first, last))
}

/// A port in plain digits; `u16::from_str` would take a sign too.
fn port(text: &str) -> Option<u16> {
    let text = text.trim();
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| plain && *port != 0)
}

impl Default for PortRanges {
    fn default() -> Self {
        Self::web()
    }
}

impl fmt::Display for PortRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::all() {
            return f.write_str("*");
        }
        for (at, (first, last)) in self.0.iter().enumerate() {
            f.write_str(if at > 0 { "," } else { "" })?;
            match first == last {
                true => write!(f, "{first}")?,
                false => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

impl std::str::FromStr for PortRanges {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        Self::parse(text)
    }
}

impl TryFrom<String> for PortRanges {
    type Error = PortError;

    fn try_from(text: String) -> Result<Self, PortError> {
        Self::parse(&text)
    }
}

impl From<PortRanges> for String {
    fn from(ports: PortRanges) -> Self {
        ports.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_sorted_and_merged() {
        for (text, shown) in [
            ("443", "443"),
            (" 80 , 8080 - 8089 ", "80,8080-8089"),
            ("443,80", "80,443"),
            ("1-10,5-20,21", "1-21"),
            ("1-65535", "*"),
            ("*", "*"),
            ("65535,65534", "65534-65535"),
            ("443,443", "443"),
        ] {
            assert_eq!(PortRanges::parse(text).map(|ports| ports.to_string()), Ok(shown.to_owned()), "{text}");
        }
        assert_eq!(PortRanges::default().to_string(), "80,443");
        assert_eq!(PortRanges::web().union(&PortRanges::one(81)).to_string(), "80-81,443");
        assert!(!PortRanges::all().contains(0) && !PortRanges::one(0).contains(0));
    }

    #[test]
    fn what_is_no_port() {
        for text in
            ["", "0", "80,", "-80", "80-", "+80", "65536", "8 0", "0x50", "80;443", "http", "*,80", "1-2-3", "0-5"]
        {
            assert!(matches!(PortRanges::parse(text), Err(PortError::Part(_))), "{text}");
        }
        assert!(matches!(PortRanges::parse("9-8"), Err(PortError::Backwards(_))));
        assert_eq!(PortRanges::parse(&["1"; 65].join(",")), Err(PortError::TooMany));
    }
}
