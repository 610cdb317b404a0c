//! Reads conda's way of naming a package (`conda-forge::numpy=1.26=py312_0`) and says it in the index's way.
//!
//! Knows the notation only; which names exist where is for [`super::mapping`].

use super::version::{Clause, Operator, Specifier, is_pep440};

/// The longest dependency accepted, in bytes.
const MAX_BYTES: usize = 512;

/// One conda dependency, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MatchSpec {
    /// `conda-forge` in `conda-forge::numpy`.
    pub channel: Option<String>,
    /// Lower-case.
    pub name: String,
    /// Everything after the name that says which version, as written; see [`MatchSpec::specifier`].
    pub version: Option<String>,
    /// The build, which has no counterpart on the index.
    pub build: Option<String>,
}

impl MatchSpec {
    /// Reads one entry of `dependencies`.
    ///
    /// # Errors
    /// A sentence that says what is wrong and how to write it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("it is longer than {MAX_BYTES} bytes"));
        }
        if text.contains("://") || text.ends_with(".conda") || text.ends_with(".tar.bz2") {
            return Err(
                "conda packages can't be installed from an address or a file; name the package and its version"
                    .to_owned(),
            );
        }
        let text = text.split(" #").next().unwrap_or_default().trim();
        let (channel, rest) = match text.split_once("::") {
            Some((channel, rest)) => (Some(channel.trim().to_owned()), rest.trim()),
            None => (None, text),
        };
        let name_end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c)).unwrap_or(rest.len());
        let name = rest[..name_end].to_ascii_lowercase();
        if name.is_empty() {
            return Err("it does not begin with a package name".to_owned());
        }
        let tail = rest[name_end..].trim();
        let (version, build) =
            if let Some(inside) = tail.strip_prefix('[') { bracketed(inside)? } else { positional(tail)? };
        Ok(Self { channel, name, version, build })
    }

    /// The conditions on the version in the index's words.
    ///
    /// # Errors
    /// A sentence naming the part that the index can't express.
    pub(super) fn specifier(&self) -> Result<Specifier, String> {
        let Some(version) = &self.version else { return Ok(Specifier::default()) };
        if version.contains('|') {
            return Err(format!("the index has no alternatives ('|' in '{version}'); choose one version or one range"));
        }
        let clauses = version.split(',').map(|part| clause(part.trim(), self.build.is_some()));
        let clauses: Vec<Clause> = clauses.filter_map(Result::transpose).collect::<Result<_, _>>()?;
        Ok(Specifier(clauses))
    }
}

type VersionAndBuild = (Option<String>, Option<String>);

/// `[version='>=1,<2', build=py_0]`
fn bracketed(inside: &str) -> Result<VersionAndBuild, String> {
    let inside = inside.strip_suffix(']').ok_or("its '[' has no ']'")?;
    let (mut version, mut build) = (None, None);
    let mut rest = inside.trim();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or("inside '[…]' write key=value")?;
        let after = after.trim_start();
        let (value, left) = match after.chars().next() {
            Some(quote @ ('\'' | '"')) => after[1..].split_once(quote).ok_or("a quoted value has no closing quote")?,
            _ => after.split_once(',').map_or((after, ""), |(value, _)| (value, &after[value.len()..])),
        };
        match key.trim() {
            "version" => version = Some(normalize(value)),
            "build" => build = Some(value.trim().to_owned()),
            "channel" | "subdir" | "build_number" => {}
            other => return Err(format!("the index knows no '{other}'; only version and build can be given in '[…]'")),
        }
        rest = left.trim_start().trim_start_matches(',').trim_start();
    }
    Ok((version.filter(|version| !version.is_empty()), build))
}

/// `=1.2=py_0`, `==1.2`, `>=1,<2`, `1.2 py_0`, `1.2.*`
fn positional(tail: &str) -> Result<VersionAndBuild, String> {
    if tail.is_empty() {
        return Ok((None, None));
    }
    let signed = tail.starts_with(['=', '<', '>', '!', '~']);
    if !signed {
        // conda's three-word form: a bare version after a blank is exact unless it ends in a star.
        let mut words = tail.split_whitespace();
        let version = words.next().unwrap_or_default();
        let build = words.next().map(ToOwned::to_owned);
        if words.next().is_some() {
            return Err("it has more than a name, a version and a build".to_owned());
        }
        let exact = !version.contains(['=', '<', '>', '!', '~', '*', '|', ',']);
        return Ok((Some(if exact { format!("=={version}") } else { normalize(version) }), build));
    }
    let single = tail.starts_with('=') && !tail.starts_with("==");
    let body = if single { &tail[1..] } else { tail.strip_prefix("==").unwrap_or(tail) };
    let builds = tail.starts_with('=') && body.contains('=') && !body.contains(['<', '>', '!', '~', ',', '|']);
    let (body, build) = match body.rsplit_once('=') {
        Some((version, build)) if builds => (version, Some(build.trim().to_owned())),
        _ => (body, None),
    };
    if body.trim().is_empty() {
        return Err("its '=' is followed by no version".to_owned());
    }
    let sign = if single {
        "="
    } else if tail.starts_with("==") {
        "=="
    } else {
        ""
    };
    Ok((Some(normalize(&format!("{sign}{body}"))), build.filter(|build| build != "*" && !build.is_empty())))
}

fn normalize(version: &str) -> String {
    version.chars().filter(|c| !c.is_whitespace()).collect()
}

/// One condition; none for `*`. With a build named, a single `=` means the exact version, as in conda.
fn clause(part: &str, build: bool) -> Result<Option<Clause>, String> {
    const SIGNS: [(&str, Operator); 8] = [
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessEqual),
        (">=", Operator::GreaterEqual),
        ("~=", Operator::Compatible),
        ("<", Operator::Less),
        (">", Operator::Greater),
        ("=", Operator::Prefix),
    ];
    let found = SIGNS.iter().find_map(|(sign, operator)| part.strip_prefix(sign).map(|rest| (*operator, rest)));
    let (mut operator, version) = found.unwrap_or((Operator::Equal, part));
    if build && operator == Operator::Prefix {
        operator = Operator::Equal;
    }
    if version == "*" {
        return Ok(None);
    }
    let starless = version.strip_suffix('*').map(|rest| rest.strip_suffix('.').unwrap_or(rest));
    if starless.is_some() {
        operator = match operator {
            Operator::Equal | Operator::Prefix => Operator::Prefix,
            Operator::NotEqual => Operator::NotPrefix,
            other => other,
        };
    }
    let mut version = starless.unwrap_or(version);
    if operator == Operator::Less {
        // conda writes `<2.0a0` to keep out 2.0's previews; the index's `<2.0` does that by itself.
        version = [".dev0", "a0", ".0a0"].iter().find_map(|tail| version.strip_suffix(tail)).unwrap_or(version);
    }
    if !is_pep440(version) {
        return Err(format!(
            "'{version}' is not a version that the Python package index can have (digits and dots, such as 1.2.3)"
        ));
    }
    let has_tail = !version.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if has_tail && operator == Operator::Prefix {
        operator = Operator::Equal;
    }
    Ok(Some(Clause { operator, version: version.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notations() {
        // dependency, name, conditions for the index, build
        let cases = [
            ("numpy", "numpy", "", None),
            ("NumPy", "numpy", "", None),
            ("numpy=2.3.1", "numpy", "==2.3.1.*", None),
            ("numpy=1.26", "numpy", "==1.26.*", None),
            ("numpy = 1.26", "numpy", "==1.26.*", None),
            ("numpy==1.26.4", "numpy", "==1.26.4", None),
            ("numpy=1.26.*", "numpy", "==1.26.*", None),
            ("numpy=1.26*", "numpy", "==1.26.*", None),
            ("numpy==1.26.*", "numpy", "==1.26.*", None),
            ("numpy 1.26.4", "numpy", "==1.26.4", None),
            ("numpy 1.26.*", "numpy", "==1.26.*", None),
            ("numpy 1.26.4 py312_0", "numpy", "==1.26.4", Some("py312_0")),
            ("numpy=1.26.4=py312_0", "numpy", "==1.26.4", Some("py312_0")),
            ("numpy==1.26.4=py312_0", "numpy", "==1.26.4", Some("py312_0")),
            ("numpy=1.26.4=*", "numpy", "==1.26.4.*", None),
            ("numpy=*", "numpy", "", None),
            ("numpy *", "numpy", "", None),
            ("scikit-learn>=1.0", "scikit-learn", ">=1.0", None),
            ("scikit-learn >=1.0, <2", "scikit-learn", ">=1.0,<2", None),
            ("scikit-learn>=1.0,<2.0a0", "scikit-learn", ">=1.0,<2.0", None),
            ("scikit-learn>1,!=1.5.0,!=1.6.*,<=1.7", "scikit-learn", ">1,!=1.5.0,!=1.6.*,<=1.7", None),
            ("scikit-learn>=1.0.*", "scikit-learn", ">=1.0", None),
            ("scikit-learn~=1.4.2", "scikit-learn", "~=1.4.2", None),
            ("pandas=2.0rc1", "pandas", "==2.0rc1", None),
            ("conda-forge::lightgbm=4.6.0", "lightgbm", "==4.6.0.*", None),
            ("conda-forge/linux-64::lightgbm", "lightgbm", "", None),
            ("lightgbm[version='>=4,<5']", "lightgbm", ">=4,<5", None),
            ("lightgbm[version=4.6.0, build=py_0]", "lightgbm", "==4.6.0", Some("py_0")),
            ("lightgbm[build='py_0',version=\"=4.6\"]", "lightgbm", "==4.6", Some("py_0")),
            ("python=3.12", "python", "==3.12.*", None),
            ("six  # the small one", "six", "", None),
        ];
        for (text, name, specifier, build) in cases {
            let spec = MatchSpec::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(spec.name, name, "{text}");
            assert_eq!(spec.specifier().unwrap().to_string(), specifier, "{text}");
            assert_eq!(spec.build.as_deref(), build, "{text}");
        }
        assert_eq!(MatchSpec::parse("conda-forge::x").unwrap().channel.as_deref(), Some("conda-forge"));
    }

    #[test]
    fn refusals_say_why() {
        let cases = [
            ("", "package name"),
            ("=1.0", "package name"),
            ("numpy=", "no version"),
            ("numpy==", "no version"),
            ("numpy 1 2 3", "more than"),
            ("numpy[version='1", "no ']'"),
            ("numpy[version='1]", "closing quote"),
            ("numpy[md5=abc]", "md5"),
            ("numpy[nonsense]", "key=value"),
            ("numpy=1.25|1.26", "alternatives"),
            ("numpy>=1|<0.5", "alternatives"),
            ("openssl=1.1.1k", "1.1.1k"),
            ("tz=2023c", "2023c"),
            ("numpy=1.*.3", "1.*.3"),
            ("numpy=^1", "^1"),
            ("numpy>=", "not a version"),
            ("https://example.org/numpy-1.0.tar.bz2", "address"),
            ("numpy-1.0-py_0.conda", "address or a file"),
        ];
        for (text, expected) in cases {
            let error = MatchSpec::parse(text).and_then(|spec| spec.specifier().map(|_| ())).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(MatchSpec::parse(&"x".repeat(MAX_BYTES + 1)).is_err());
    }
}
