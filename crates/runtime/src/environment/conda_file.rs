//! Reads the text of a conda file (YAML, of which JSON is a part).
//!
//! Says what the file asks for, with the line of each entry; whether it can be had is decided elsewhere.

use std::fmt;

use casemate_model::Fault;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use super::{match_spec::MatchSpec, pip_line::PipLine};

/// The longest conda file accepted, in bytes.
pub(super) const MAX_BYTES: usize = 256 << 10;
/// Most entries of `dependencies` and of `pip:` together.
const MAX_ENTRIES: usize = 2000;

/// What a conda file asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CondaFile {
    pub name: Option<String>,
    pub channels: Vec<String>,
    /// Entries for conda, in order; `python` among them.
    pub conda: Vec<Entry<MatchSpec>>,
    /// Lines under `pip:`, in order.
    pub pip: Vec<Entry<PipLine>>,
    /// Sections that conda files may have and that mean nothing here, and those that conda doesn't know either.
    pub ignored: Vec<String>,
}

/// One entry as it was read, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<T> {
    pub value: T,
    /// As written.
    pub text: String,
    /// From 1.
    pub line: u64,
}

impl CondaFile {
    /// Reads a conda file.
    ///
    /// # Errors
    /// `ImageBuildFailure` naming the entry with its line and column, and what to write instead.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        if text.len() > MAX_BYTES {
            return Err(fault(format!(
                "The conda file has {} bytes; the longest accepted has {MAX_BYTES}.",
                text.len()
            )));
        }
        let budget = serde_saphyr::budget! { max_events: 4 * MAX_ENTRIES, max_aliases: 100, max_anchors: 100, flow_nesting_limit: 16 };
        let options = serde_saphyr::options! { budget: budget };
        let raw: RawFile = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let place = error.location().map(|location| format!(" at {}", place(&location))).unwrap_or_default();
            let reason = error.without_snippet().to_string();
            let reason = reason.lines().next().unwrap_or_default();
            fault(format!("The conda file can't be read{place}: {reason}. Correct it and create the deployment again."))
        })?;
        let entries: usize =
            raw.dependencies.iter().map(|d| if let RawEntry::Pip(lines) = &d.value { lines.len() } else { 1 }).sum();
        if entries > MAX_ENTRIES {
            return Err(fault(format!(
                "The conda file has {entries} dependencies; at most {MAX_ENTRIES} are accepted."
            )));
        }
        let mut file = Self { name: raw.name, channels: raw.channels, ignored: raw.ignored, ..Self::default() };
        for dependency in raw.dependencies {
            match dependency.value {
                RawEntry::Conda(text) => {
                    let value =
                        MatchSpec::parse(&text).map_err(|reason| bad_entry(&text, &dependency.defined, &reason))?;
                    file.conda.push(Entry { value, text, line: dependency.defined.line() });
                }
                RawEntry::Pip(lines) => {
                    for Spanned { value: text, defined, .. } in lines {
                        let value = PipLine::parse(&text).map_err(|reason| bad_entry(&text, &defined, &reason))?;
                        file.pip.extend(value.map(|value| Entry { value, text, line: defined.line() }));
                    }
                }
            }
        }
        Ok(file)
    }
}

fn place(location: &Location) -> String {
    format!("line {}, column {}", location.line(), location.column())
}

/// A refusal; what is told of the file's text may hold addresses with credentials.
fn fault(message: impl AsRef<str>) -> Fault {
    super::failure::invalid(super::mask::mask_urls(message.as_ref()))
}

fn bad_entry(text: &str, location: &Location, reason: &str) -> Fault {
    // Masked before it is cut: half an address does not look like one.
    let shown: String = super::mask::mask_urls(text).chars().take(120).collect();
    fault(format!("The dependency '{shown}' of the conda file ({}) can't be used: {reason}.", place(location)))
        .at("condaFile")
}

struct RawFile {
    name: Option<String>,
    channels: Vec<String>,
    dependencies: Vec<Spanned<RawEntry>>,
    ignored: Vec<String>,
}

enum RawEntry {
    Conda(String),
    Pip(Vec<Spanned<String>>),
}

impl<'de> Deserialize<'de> for RawFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FileVisitor)
    }
}

struct FileVisitor;

impl<'de> Visitor<'de> for FileVisitor {
    type Value = RawFile;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a conda file: a mapping with name, channels and dependencies")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawFile, A::Error> {
        let mut file = RawFile { name: None, channels: Vec::new(), dependencies: Vec::new(), ignored: Vec::new() };
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "name" => file.name = map.next_value()?,
                "channels" => file.channels = map.next_value::<Option<Vec<String>>>()?.unwrap_or_default(),
                "dependencies" => file.dependencies = map.next_value::<Option<_>>()?.unwrap_or_default(),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    file.ignored.push(key);
                }
            }
        }
        Ok(file)
    }
}

impl<'de> Deserialize<'de> for RawEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = RawEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a package such as numpy=1.26, or a mapping with the one key pip")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RawEntry, E> {
        Ok(RawEntry::Conda(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawEntry, A::Error> {
        let mut lines = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != "pip" {
                return Err(serde::de::Error::custom(format!(
                    "'{key}:' is not understood here; write packages as '- name=version', and only pip: as a mapping"
                )));
            }
            lines = Some(map.next_value::<Option<_>>()?.unwrap_or_default());
        }
        Ok(RawEntry::Pip(lines.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_file() {
        let text = "name: model-env\nchannels:\n  - conda-forge\ndependencies:\n  - python=3.12\n  - numpy=2.3.1\n  - pip\n  - pip:\n    - joblib\n    # why\n    - inference-schema[numpy-support]\n";
        let file = CondaFile::parse(text).unwrap();
        assert_eq!(file.name.as_deref(), Some("model-env"));
        assert_eq!(file.channels, ["conda-forge"]);
        let conda: Vec<_> = file.conda.iter().map(|entry| (entry.text.as_str(), entry.line)).collect();
        assert_eq!(conda, [("python=3.12", 5), ("numpy=2.3.1", 6), ("pip", 7)]);
        let pip: Vec<_> = file.pip.iter().map(|entry| (entry.text.as_str(), entry.line)).collect();
        assert_eq!(pip, [("joblib", 9), ("inference-schema[numpy-support]", 11)]);
    }

    #[test]
    fn other_shapes_that_are_fine() {
        let json =
            r#"{"name": "e", "channels": ["conda-forge"], "dependencies": ["python=3.10", {"pip": ["six==1.16.0"]}]}"#;
        let file = CondaFile::parse(json).unwrap();
        assert_eq!((file.conda.len(), file.pip.len()), (1, 1));
        let file = CondaFile::parse("dependencies:\n- six\nprefix: /opt/env\nvariables: {A: b}\n").unwrap();
        assert_eq!(file.ignored, ["prefix", "variables"]);
        for sparse in
            ["", "# nothing\n", "name: x", "dependencies:", "channels:\ndependencies:\n  - pip:\n", "dependencies: []"]
        {
            let file = CondaFile::parse(sparse).unwrap_or_else(|error| panic!("{sparse}: {error}"));
            assert!(file.conda.is_empty() && file.pip.is_empty());
        }
    }

    #[test]
    fn refusals_name_the_place() {
        let cases = [
            ("- numpy\n", "mapping"),
            ("dependencies:\n  - numpy\n  - scipy=\n", "line 3, column 5"),
            ("dependencies:\n  - numpy\n  - pip:\n    - six\n    - -r more.txt\n", "line 5, column 7"),
            ("dependencies:\n  - [numpy]\n", "line 2"),
            ("dependencies:\n  - 1.5\n", "line 2"),
            ("dependencies:\n  - npm: [x]\n", "npm"),
            ("dependencies: numpy\n", "line 1"),
            ("dependencies:\n  - numpy\n scipy\n", "line 3"),
            ("name: [a]\n", "line 1"),
            ("name: a\nname: b\n", "line 2"),
            ("dependencies:\n  - pip:\n    - --index-url ftp://user:hunter2@example.org\n", "http and https"),
            ("dependencies:\n  - 'https://u:hunter2@h/':\n", "not understood"),
            ("dependencies:\n  - pip:\n    - -ihttps://user:hunter2@example.org\n", "is not supported"),
        ];
        for (text, expected) in cases {
            let fault = CondaFile::parse(text).unwrap_err();
            assert_eq!(fault.code, "ImageBuildFailure");
            assert!(fault.message.contains(expected), "{text:?}: {}", fault.message);
            assert!(!fault.message.contains("hunter2"), "{}", fault.message);
        }
        let long = format!("dependencies:\n  - pip:\n    - -ihttps://user:hunter2{}@example.org\n", "x".repeat(200));
        assert!(!CondaFile::parse(&long).unwrap_err().message.contains("hunter2"));
        assert!(CondaFile::parse(&" ".repeat(MAX_BYTES + 1)).is_err());
        let many = format!("dependencies:\n{}", "- six\n".repeat(MAX_ENTRIES + 1));
        assert!(CondaFile::parse(&many).unwrap_err().message.contains("at most"));
    }

    #[test]
    fn hostile_texts_are_refused_quickly() {
        let laughs = (1..30).fold("a0: &a0 [x, x]\n".to_owned(), |text, n| {
            format!("{text}a{n}: &a{n} [*a{m}, *a{m}, *a{m}, *a{m}]\n", m = n - 1)
        });
        assert!(CondaFile::parse(&laughs).is_err());
        assert!(CondaFile::parse(&"[".repeat(100_000)).is_err());
    }
}
