//! Version numbers and the conditions on them, in the index's own grammar (PEP 440).

use std::fmt;

/// How a condition compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    /// Equal in all the parts that are given: `1.2` admits `1.2.9`.
    Prefix,
    NotEqual,
    NotPrefix,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    /// At least this, and equal in all parts but the last.
    Compatible,
}

/// One condition, such as `>=1.2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    pub operator: Operator,
    /// A valid PEP 440 version, without `.*`.
    pub version: String,
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, tail) = match self.operator {
            Operator::Equal => ("==", ""),
            Operator::Prefix => ("==", ".*"),
            Operator::NotEqual => ("!=", ""),
            Operator::NotPrefix => ("!=", ".*"),
            Operator::Less => ("<", ""),
            Operator::LessEqual => ("<=", ""),
            Operator::Greater => (">", ""),
            Operator::GreaterEqual => (">=", ""),
            Operator::Compatible => ("~=", ""),
        };
        write!(f, "{sign}{}{tail}", self.version)
    }
}

/// Conditions that must all hold; none at all admits everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Specifier(pub Vec<Clause>);

impl Specifier {
    /// Whether it fixes the version, apart from its last parts.
    pub(super) fn is_pin(&self) -> bool {
        self.0.iter().any(|clause| matches!(clause.operator, Operator::Equal | Operator::Prefix | Operator::Compatible))
    }

    /// Whether a release (`[3, 12, 1]`) meets all conditions. Conditions are read by their numbers alone.
    pub(super) fn admits(&self, release: &[u64]) -> bool {
        self.0.iter().all(|clause| clause.admits(release))
    }
}

impl Clause {
    fn admits(&self, release: &[u64]) -> bool {
        let wanted = release_of(&self.version);
        let order = compare(release, &wanted);
        match self.operator {
            Operator::Equal => order.is_eq(),
            Operator::NotEqual => order.is_ne(),
            Operator::Prefix => starts_with(release, &wanted),
            Operator::NotPrefix => !starts_with(release, &wanted),
            Operator::Less => order.is_lt(),
            Operator::LessEqual => order.is_le(),
            Operator::Greater => order.is_gt(),
            Operator::GreaterEqual => order.is_ge(),
            Operator::Compatible => order.is_ge() && starts_with(release, &wanted[..wanted.len().saturating_sub(1)]),
        }
    }
}

impl fmt::Display for Specifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, clause) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{clause}")?;
        }
        Ok(())
    }
}

/// The numbers at the front of a version: `1.2.0rc1` gives `[1, 2, 0]`.
pub(super) fn release_of(version: &str) -> Vec<u64> {
    let plain = version.split_once('!').map_or(version, |(_, rest)| rest);
    let end = plain.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(plain.len());
    plain[..end].split('.').map_while(|part| part.parse().ok()).collect()
}

/// Compares two releases; missing parts count as 0.
pub(super) fn compare(left: &[u64], right: &[u64]) -> std::cmp::Ordering {
    let part = |release: &[u64], index: usize| release.get(index).copied().unwrap_or(0);
    let length = left.len().max(right.len());
    (0..length)
        .map(|index| part(left, index).cmp(&part(right, index)))
        .find(|order| order.is_ne())
        .unwrap_or_else(|| 0.cmp(&0))
}

fn starts_with(release: &[u64], prefix: &[u64]) -> bool {
    (0..prefix.len()).all(|index| release.get(index).copied().unwrap_or(0) == prefix[index])
}

/// Whether a text is a version that the package index can have (PEP 440, without its spelling variants).
pub(super) fn is_pep440(text: &str) -> bool {
    let (public, local) = text.split_once('+').map_or((text, None), |(public, local)| (public, Some(local)));
    let local_fits = local.is_none_or(|local| {
        local.split(['.', '-', '_']).all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()))
    });
    let public = match public.split_once('!') {
        Some((epoch, rest)) if is_number(epoch) => rest,
        Some(_) => return false,
        None => public,
    };
    let release_end = public.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(public.len());
    let release = public[..release_end].strip_suffix('.').unwrap_or(&public[..release_end]);
    let release_fits = release.split('.').all(is_number);
    local_fits && release_fits && is_tail(&public[release.len()..])
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit())
}

/// `a1`, `b2`, `rc3`, then `.post4`, then `.dev5`; each may be missing.
fn is_tail(mut rest: &str) -> bool {
    for (labels, dotted) in [(&["a", "b", "rc"][..], false), (&["post"], true), (&["dev"], true)] {
        let body = if dotted { rest.strip_prefix('.').unwrap_or("") } else { rest };
        let Some(after) = labels.iter().find_map(|label| body.strip_prefix(label)) else { continue };
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        if digits == 0 {
            return false;
        }
        rest = &after[digits..];
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_version_is() {
        for good in ["1", "1.2", "1.2.3", "2024.7.4", "1!2.0", "1.0rc1", "1.0a2.post3.dev4", "1.0.dev1", "1.13.1+cu117"]
        {
            assert!(is_pep440(good), "{good}");
        }
        for bad in [
            "", "x", "1.", "1..2", "1.1.1k", "2023c", "1.0_1", "1.0rc", "1.0.post", "a!1", "1.0+", "1.0+a..b", "1.0 2",
            "*",
        ] {
            assert!(!is_pep440(bad), "{bad}");
        }
    }

    #[test]
    fn what_conditions_admit() {
        let cases: [(Operator, &str, &[u64], bool); 14] = [
            (Operator::Prefix, "3.12", &[3, 12, 1], true),
            (Operator::Prefix, "3.1", &[3, 12, 1], false),
            (Operator::Prefix, "3.12.0", &[3, 12], true),
            (Operator::Equal, "3.12", &[3, 12, 0], true),
            (Operator::Equal, "3.12", &[3, 12, 1], false),
            (Operator::NotEqual, "3.12.1", &[3, 12, 1], false),
            (Operator::NotPrefix, "3.12", &[3, 12, 1], false),
            (Operator::Less, "3.12", &[3, 11, 9], true),
            (Operator::Less, "3.12", &[3, 12, 0], false),
            (Operator::LessEqual, "3.12", &[3, 12, 0], true),
            (Operator::Greater, "3.9", &[3, 10], true),
            (Operator::GreaterEqual, "3.10", &[3, 9, 18], false),
            (Operator::Compatible, "3.10.2", &[3, 10, 13], true),
            (Operator::Compatible, "3.10.2", &[3, 11, 0], false),
        ];
        for (operator, version, release, expected) in cases {
            let specifier = Specifier(vec![Clause { operator, version: version.to_owned() }]);
            assert_eq!(specifier.admits(release), expected, "{specifier} against {release:?}");
        }
        assert!(Specifier::default().admits(&[3, 13]));
    }
}
