//! `.amlignore` and `.gitignore` in the root of an uploaded directory.

use std::path::Path;

use casemate_model::Fault;
use regex::Regex;

/// Largest ignore file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The patterns of one ignore file, in order; the last one that matches decides.
#[derive(Debug, Default)]
pub struct IgnoreFile {
    rules: Vec<(bool, Regex)>,
}

impl IgnoreFile {
    /// Reads `.amlignore`, or else `.gitignore`, of a directory; neither means that nothing is ignored.
    ///
    /// # Errors
    /// `FileNotReadable` or `InvalidIgnoreFile` naming the file and the line.
    pub fn of_directory(directory: &Path) -> Result<Self, Fault> {
        for name in [".amlignore", ".gitignore"] {
            let path = directory.join(name);
            let size = match std::fs::metadata(&path) {
                Ok(metadata) if metadata.is_file() => metadata.len(),
                _ => continue,
            };
            let unreadable =
                |why: String| Fault::invalid("FileNotReadable", format!("'{}' can't be read: {why}.", path.display()));
            if size > MAX_BYTES {
                return Err(unreadable(format!("it is larger than {MAX_BYTES} bytes")));
            }
            let text = std::fs::read_to_string(&path).map_err(|error| unreadable(error.to_string()))?;
            return Self::parse(&text, &path.display().to_string());
        }
        Ok(Self::default())
    }

    /// Parses the text of an ignore file; `name` is how messages call it.
    ///
    /// # Errors
    /// `InvalidIgnoreFile` naming the line whose pattern can't be understood.
    pub fn parse(text: &str, name: &str) -> Result<Self, Fault> {
        let mut rules = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let Some((ignored, pattern)) = to_regex(line) else { continue };
            let regex = Regex::new(&pattern).map_err(|_| {
                Fault::invalid(
                    "InvalidIgnoreFile",
                    format!("{name}:{}: the pattern '{}' can't be understood.", number + 1, line.trim()),
                )
            })?;
            rules.push((ignored, regex));
        }
        Ok(Self { rules })
    }

    /// Whether a path relative to the root, with `/` between its parts, is left out.
    #[must_use]
    pub fn excludes(&self, relative: &str) -> bool {
        self.rules.iter().rev().find(|(_, regex)| regex.is_match(relative)).is_some_and(|(ignored, _)| *ignored)
    }
}

/// A line as (ignored, regular expression over the relative path); none for empty lines and comments.
fn to_regex(line: &str) -> Option<(bool, String)> {
    let line = line.trim_end();
    if line.is_empty() || line.starts_with('#') || line == "/" {
        return None;
    }
    let (ignored, line) = match line.strip_prefix('!') {
        Some(rest) => (false, rest),
        None => (true, line),
    };
    let directory_only = line.ends_with('/');
    let body = line.trim_end_matches('/');
    let anchored = body.contains('/');
    let mut parts: Vec<&str> = body.trim_start_matches('/').split('/').collect();
    if !anchored && parts != ["**"] {
        parts.insert(0, "**");
    }
    let below = parts.len() > 1 && parts.last() == Some(&"**");
    if below {
        parts.pop();
    }
    let mut regex = "(?s)^".to_owned();
    let mut need_slash = false;
    for (index, part) in parts.iter().enumerate() {
        if *part == "**" {
            regex.push_str(match (index, index + 1 == parts.len()) {
                (_, true) => ".+",
                (0, false) => "(?:.+/)?",
                (_, false) => "(?:/.+)?",
            });
            continue;
        }
        if need_slash {
            regex.push('/');
        }
        segment(part, &mut regex);
        need_slash = true;
    }
    regex.push_str(if below || directory_only { "/.*$" } else { "(?:/.*)?$" });
    Some((ignored, regex))
}

/// One part between slashes.
fn segment(part: &str, regex: &mut String) {
    if part == "*" {
        regex.push_str("[^/]+");
        return;
    }
    let characters: Vec<char> = part.chars().collect();
    let mut at = 0;
    while at < characters.len() {
        let c = characters[at];
        at += 1;
        match c {
            '*' => regex.push_str("[^/]*"),
            '?' => regex.push_str("[^/]"),
            '\\' => {
                if let Some(escaped) = characters.get(at) {
                    regex.push_str(&regex::escape(&escaped.to_string()));
                    at += 1;
                }
            }
            '[' => at += class(&characters[at..], regex),
            other => regex.push_str(&regex::escape(&other.to_string())),
        }
    }
}

/// A class after its `[`; how many characters it took. Without a closing bracket the `[` stands for itself.
fn class(rest: &[char], regex: &mut String) -> usize {
    let negated = matches!(rest.first(), Some('!' | '^'));
    let start = usize::from(negated);
    // A bracket right at the start is a member of the class.
    let Some(end) = rest.iter().skip(start + 1).position(|c| *c == ']').map(|at| at + start + 1) else {
        regex.push_str("\\[");
        return 0;
    };
    regex.push_str(if negated { "[^" } else { "[" });
    for c in &rest[start..end] {
        match c {
            '-' => regex.push('-'),
            '\\' | '[' | ']' | '^' | '&' | '~' => {
                regex.push('\\');
                regex.push(*c);
            }
            other => regex.push(*other),
        }
    }
    regex.push(']');
    end + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (patterns, hit, miss) in [
            ("*.log", &["a.log", "x/y/b.log", "d.log/inside"][..], &["a.logs", "log"][..]),
            ("/a", &["a", "a/b"], &["x/a"]),
            ("a/b", &["a/b", "a/b/c"], &["x/a/b"]),
            ("a/", &["a/x", "y/a/x"], &["a"]),
            ("**/x", &["x", "a/b/x", "x/y"], &["xx"]),
            ("x/**", &["x/a", "x/a/b"], &["x", "y/x/a"]),
            ("a/**/b", &["a/b", "a/x/y/b"], &["ab", "x/a/b"]),
            ("?.py", &["a.py"], &["ab.py"]),
            ("[ab].c", &["a.c", "x/b.c"], &["c.c"]),
            ("[!a].d", &["b.d"], &["a.d"]),
            ("[]x]y", &["]y", "xy"], &["zy"]),
            ("\\#x", &["#x"], &["x"]),
            ("foo ", &["foo"], &["foo "]),
            ("a*b/c", &["axxb/c", "ab/c"], &["a/b/c"]),
            ("*", &["a", "a/b"], &[]),
            ("[open", &["[open"], &["o"]),
            ("*.log\n!keep.log", &["a.log"], &["keep.log", "x/keep.log"]),
            ("# only\n\n", &[], &["a", "# only"]),
        ] {
            let file = IgnoreFile::parse(patterns, "f").unwrap();
            for path in hit {
                assert!(file.excludes(path), "{patterns:?} should exclude {path}");
            }
            for path in miss {
                assert!(!file.excludes(path), "{patterns:?} should not exclude {path}");
            }
        }
    }

    #[test]
    fn the_first_kind_of_file_wins() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!IgnoreFile::of_directory(dir.path()).unwrap().excludes("a"));
        std::fs::write(dir.path().join(".gitignore"), "a").unwrap();
        assert!(IgnoreFile::of_directory(dir.path()).unwrap().excludes("a"));
        std::fs::write(dir.path().join(".amlignore"), "b").unwrap();
        let file = IgnoreFile::of_directory(dir.path()).unwrap();
        assert!(file.excludes("b") && !file.excludes("a"));
        std::fs::write(dir.path().join(".amlignore"), "ok\n[b-a]\n").unwrap();
        let fault = IgnoreFile::of_directory(dir.path()).unwrap_err();
        assert!(fault.message.contains(".amlignore:2:"), "{}", fault.message);
    }
}
