//! Reads what stands under `pip:` in a conda file: requirements and the options that pip takes between them.
//!
//! Refuses what needs files that the platform doesn't have (`-r`, `-e`, local paths) instead of guessing at them.

use url::Url;

use super::version::Specifier;

/// The longest line accepted, in bytes.
const MAX_BYTES: usize = 4096;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PipLine {
    Requirement(PipRequirement),
    IndexUrl(String),
    ExtraIndexUrl(String),
    FindLinks(String),
    TrustedHost(String),
    NoIndex,
    /// `--pre`
    PreReleases,
}

/// One requirement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PipRequirement {
    /// As the index compares names: lower-case, with single dashes.
    pub name: String,
    /// The line, without its comment.
    pub text: String,
    /// Whether it fixes the version.
    pub pin: bool,
}

/// The index's way of comparing names: `Foo.Bar_baz` and `foo-bar-baz` are one package.
pub(super) fn normalize_name(name: &str) -> String {
    let parts: Vec<&str> = name.split(['-', '_', '.']).filter(|part| !part.is_empty()).collect();
    parts.join("-").to_ascii_lowercase()
}

impl PipLine {
    /// Reads one line; none when it holds only a comment or nothing.
    ///
    /// # Errors
    /// A sentence that says what is wrong and what to do.
    pub(super) fn parse(line: &str) -> Result<Option<Self>, String> {
        if line.len() > MAX_BYTES {
            return Err(format!("it is longer than {MAX_BYTES} bytes"));
        }
        // The installer ends a line at more characters than YAML does.
        if line.contains(|c: char| c.is_control() && c != '\t' || matches!(c, '\u{2028}' | '\u{2029}')) {
            return Err("it has more than one line, or a control character".to_owned());
        }
        let text = without_comment(line);
        if text.is_empty() {
            return Ok(None);
        }
        if text.starts_with('-') {
            option(text).map(Some)
        } else {
            requirement(text).map(|r| Some(Self::Requirement(r)))
        }
    }
}

fn without_comment(line: &str) -> &str {
    let line = line.trim();
    if line.starts_with('#') {
        return "";
    }
    line.find(" #").map_or(line, |start| line[..start].trim_end())
}

fn option(text: &str) -> Result<PipLine, String> {
    let split = text.split_once(|c: char| c == '=' || c.is_whitespace());
    let (name, value) = split.map_or((text, ""), |(name, value)| (name, value.trim()));
    let address = |what: &str| {
        let wants = || format!("{name} wants the address of {what} (https://…)");
        if value.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(wants());
        }
        let url = Url::parse(value).map_err(|_| wants())?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!(
                "{name} takes only http and https addresses here: the platform doesn't have your local files"
            ));
        }
        // Of addresses that are understood although they are misspelled, such as https:/host, no credentials can be masked.
        let rest = value.get(url.scheme().len()..).and_then(|rest| rest.strip_prefix("://"));
        if rest.is_some_and(|rest| !rest.starts_with(['/', '\\'])) { Ok(value.to_owned()) } else { Err(wants()) }
    };
    match name {
        "-i" | "--index-url" | "--pypi-url" => address("a package index").map(PipLine::IndexUrl),
        "--extra-index-url" => address("a package index").map(PipLine::ExtraIndexUrl),
        "-f" | "--find-links" => address("a page with links").map(PipLine::FindLinks),
        "--trusted-host" if !value.is_empty() && !value.contains(char::is_whitespace) => Ok(PipLine::TrustedHost(value.to_owned())),
        "--no-index" if value.is_empty() => Ok(PipLine::NoIndex),
        "--pre" if value.is_empty() => Ok(PipLine::PreReleases),
        "-r" | "--requirement" | "-c" | "--constraint" => {
            Err(format!("{name} names a file that the platform doesn't have; put its lines into the conda file"))
        }
        "-e" | "--editable" => Err("editable installs need a source tree that the platform doesn't have; name a published package or a wheel's address, or put the code beside the scoring script".to_owned()),
        _ => Err(format!(
            "the option {name} is not supported; supported are --index-url, --extra-index-url, --find-links, --trusted-host, --no-index and --pre"
        )),
    }
}

fn requirement(text: &str) -> Result<PipRequirement, String> {
    if text.contains(" --") {
        return Err("options after a requirement (such as --hash) are not supported; leave them out".to_owned());
    }
    let local = text.starts_with(['.', '/', '~']) || text.starts_with("file:");
    let bare_file = [".whl", ".tar.gz", ".zip"].iter().any(|end| text.ends_with(end)) && !text.contains("://");
    if local || bare_file || text.contains("@ file:") || text.contains("@file:") {
        return Err("it is a file on your machine, which the platform doesn't have; name a published package or a wheel's address".to_owned());
    }
    let name_end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c)).unwrap_or(text.len());
    let after_name = text[name_end..].trim_start();
    if after_name.starts_with("://") || (after_name.starts_with('+') && text.contains("://")) {
        return Err(format!("write an address with the package's name in front: name @ {text}"));
    }
    let name = normalize_name(&text[..name_end]);
    let edges = [text.as_bytes().first(), text.as_bytes()[..name_end].last()];
    if name.is_empty() || edges.iter().any(|edge| edge.is_none_or(|b| !b.is_ascii_alphanumeric())) {
        return Err("it does not begin with a package name".to_owned());
    }
    let after_extras = match after_name.strip_prefix('[') {
        Some(inside) => inside.split_once(']').ok_or("its '[' has no ']'")?.1.trim_start(),
        None => after_name,
    };
    let pin = if let Some(address) = after_extras.strip_prefix('@') {
        if !address.contains("://") {
            return Err("after '@' comes an address (https://…)".to_owned());
        }
        false
    } else {
        let conditions = after_extras.split(';').next().unwrap_or_default();
        check_conditions(conditions.trim().trim_start_matches('(').trim_end_matches(')'))?
    };
    Ok(PipRequirement { name, text: text.to_owned(), pin })
}

/// Checks `>=1,<2` and tells whether it fixes the version.
fn check_conditions(conditions: &str) -> Result<bool, String> {
    if conditions.is_empty() {
        return Ok(false);
    }
    let mut pin = false;
    for part in conditions.split(',').map(str::trim) {
        let sign_end = part.find(|c: char| !"=<>!~".contains(c)).unwrap_or(part.len());
        let (sign, version) = (&part[..sign_end], part[sign_end..].trim());
        if sign == "=" {
            return Err(format!("a single '=' is conda's way; under pip: write '=={version}'"));
        }
        if !["==", "===", "!=", "<=", ">=", "<", ">", "~="].contains(&sign) {
            return Err(format!("'{part}' is not a condition on the version; write one such as ==1.2.3 or >=1.2"));
        }
        let plain = version.strip_suffix(".*").filter(|_| matches!(sign, "==" | "!=")).unwrap_or(version);
        // Spellings vary (1.0-RC1); the installer knows them all, so only what can't be one is refused here.
        let plausible = plain.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit())
            && plain.bytes().all(|b| b.is_ascii_alphanumeric() || b".+!_-".contains(&b));
        if sign != "===" && !plausible {
            return Err(format!("'{version}' is not a version that the Python package index can have"));
        }
        pin |= matches!(sign, "==" | "===" | "~=");
    }
    Ok(pin)
}

impl PipRequirement {
    /// A requirement on a package by its name and conditions.
    pub(super) fn new(name: &str, specifier: &Specifier) -> Self {
        Self { name: normalize_name(name), text: format!("{name}{specifier}"), pin: specifier.is_pin() }
    }

    /// The address that the package is taken from, when the line gives one (`name @ https://…`).
    pub(super) fn address(&self) -> Option<&str> {
        let (_, after) = self.text.split_once('@')?;
        let address = after.trim_start().split(|c: char| c.is_whitespace() || c == ';').next()?;
        address.contains("://").then_some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requirements() {
        // line, name, text, pin
        let cases = [
            ("six", "six", "six", false),
            ("Azure_Identity==1.7", "azure-identity", "Azure_Identity==1.7", true),
            (
                "inference-schema[numpy-support]==1.3.0",
                "inference-schema",
                "inference-schema[numpy-support]==1.3.0",
                true,
            ),
            ("inference-schema[numpy-support]", "inference-schema", "inference-schema[numpy-support]", false),
            ("pkg [a, b] >= 1.0, < 2", "pkg", "pkg [a, b] >= 1.0, < 2", false),
            ("pkg~=1.4.2", "pkg", "pkg~=1.4.2", true),
            ("pkg==1.*", "pkg", "pkg==1.*", true),
            ("pkg===weird-1", "pkg", "pkg===weird-1", true),
            ("pkg (>=1.0)", "pkg", "pkg (>=1.0)", false),
            ("pkg>=1; python_version < '3.11'", "pkg", "pkg>=1; python_version < '3.11'", false),
            ("torch==2.1.0+cpu", "torch", "torch==2.1.0+cpu", true),
            ("pkg==1.0-rc1  # why", "pkg", "pkg==1.0-rc1", true),
            (
                "pkg @ https://example.org/pkg-1.0-py3-none-any.whl",
                "pkg",
                "pkg @ https://example.org/pkg-1.0-py3-none-any.whl",
                false,
            ),
            ("pkg@git+https://example.org/pkg.git@v1", "pkg", "pkg@git+https://example.org/pkg.git@v1", false),
        ];
        for (line, name, text, pin) in cases {
            let expected = PipRequirement { name: name.to_owned(), text: text.to_owned(), pin };
            assert_eq!(PipLine::parse(line), Ok(Some(PipLine::Requirement(expected))), "{line}");
        }
        let address = |line: &str| match PipLine::parse(line) {
            Ok(Some(PipLine::Requirement(requirement))) => requirement.address().map(ToOwned::to_owned),
            _ => None,
        };
        let table = [
            ("pkg @ https://example.org/pkg.whl", Some("https://example.org/pkg.whl")),
            (
                "pkg[a]@git+https://user@example.org/p.git@v1 ; python_version > '3'",
                Some("git+https://user@example.org/p.git@v1"),
            ),
            ("pkg==1.0", None),
        ];
        for (line, expected) in table {
            assert_eq!(address(line).as_deref(), expected, "{line}");
        }
        for empty in ["", "   ", "# a comment", "  # another"] {
            assert_eq!(PipLine::parse(empty), Ok(None));
        }
    }

    #[test]
    fn options() {
        let address = || "https://example.org/simple".to_owned();
        let cases = [
            ("-i https://example.org/simple", PipLine::IndexUrl(address())),
            ("--index-url https://example.org/simple", PipLine::IndexUrl(address())),
            ("--index-url=https://example.org/simple", PipLine::IndexUrl(address())),
            ("--extra-index-url https://example.org/simple", PipLine::ExtraIndexUrl(address())),
            ("-f https://example.org/simple", PipLine::FindLinks(address())),
            ("--find-links=https://example.org/simple # cpu", PipLine::FindLinks(address())),
            ("--trusted-host example.org", PipLine::TrustedHost("example.org".to_owned())),
            ("--no-index", PipLine::NoIndex),
            ("--pre", PipLine::PreReleases),
        ];
        for (line, expected) in cases {
            assert_eq!(PipLine::parse(line), Ok(Some(expected)), "{line}");
        }
    }

    #[test]
    fn refusals_say_why() {
        let cases = [
            ("-r requirements.txt", "put its lines"),
            ("-c constraints.txt", "put its lines"),
            ("-e .", "source tree"),
            ("--hash=sha256:0", "not supported"),
            ("--index-url", "address"),
            ("--index-url file:///srv/wheels", "http and https"),
            ("--index-url https:/user:password@example.org", "address"),
            ("--index-url https://example.org/simple\tmore", "address"),
            ("--index-url https:////user:password@example.org", "address"),
            ("--index-url https:user:password@example.org://user:password@other.example.org", "address"),
            ("--find-links ./wheels", "address"),
            ("six==1.16.0 --hash=sha256:0", "options after"),
            ("./dist/pkg-1.0-py3-none-any.whl", "on your machine"),
            ("pkg-1.0-py3-none-any.whl", "on your machine"),
            ("/srv/pkg", "on your machine"),
            ("pkg @ file:///srv/pkg", "on your machine"),
            ("https://example.org/pkg-1.0-py3-none-any.whl", "name in front"),
            ("git+https://example.org/pkg.git", "name in front"),
            ("six=1.16", "=="),
            ("six 1.16", "condition"),
            ("six==", "not a version"),
            ("six==one", "not a version"),
            ("pkg[extra==1", "no ']'"),
            ("pkg @ somewhere", "address"),
            ("===", "package name"),
            ("_pkg", "package name"),
            ("a\nb", "more than one line"),
            ("six\u{2028}--pre", "more than one line"),
            ("--index-url\u{3000}somewhere", "address"),
        ];
        for (line, expected) in cases {
            let error = PipLine::parse(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
        assert!(PipLine::parse(&"x".repeat(MAX_BYTES + 1)).is_err());
    }

    #[test]
    fn names_are_compared_as_the_index_does() {
        for (name, expected) in [("Foo.Bar_baz", "foo-bar-baz"), ("a--b", "a-b"), ("six", "six")] {
            assert_eq!(normalize_name(name), expected);
        }
    }
}
