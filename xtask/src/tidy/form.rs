//! The form of files: their sizes, their first words, their line ends, and words that must not be in them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::Problem;

/// The longest file of Rust, in lines.
const MAX_LINES: usize = 800;
/// Directories that are not the project's own work.
const SKIPPED: &[&str] = &[".git", "target", "__pycache__", ".venv"];
/// Endings of files that people write.
const TEXT: &[&str] = &["md", "rs", "toml", "yml", "yaml", "sql", "py", "sh", "json", "txt"];

/// All files of the project.
///
/// # Errors
/// When a directory cannot be read.
pub fn files(root: &Path, target: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))? {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let skipped = path == target || SKIPPED.iter().any(|name| entry.file_name() == *name);
            if kind.is_dir() && !skipped {
                open.push(path);
            } else if kind.is_file() {
                found.push(path.strip_prefix(root).expect("the walk began at the root").to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Paths that exist on this machine alone: this checkout and the hidden directories of this home.
pub fn machine_paths(root: &Path, home: Option<&Path>) -> Vec<String> {
    let home = home.filter(|home| home.is_absolute() && home.parent().is_some());
    let hidden = home.map(|home| format!("{}/.", home.display()));
    std::iter::once(root.display().to_string()).chain(hidden).collect()
}

/// Checks that what stands in backticks and looks like a path exists.
pub fn check_named_paths(root: &Path, architecture: &str, problems: &mut Vec<Problem>) {
    let mut fenced = false;
    for (index, line) in architecture.lines().enumerate() {
        fenced ^= line.starts_with("```");
        let quoted = line.split('`').skip(1).step_by(2);
        for name in quoted.filter(|name| !fenced && is_path(name) && !root.join(name).exists()) {
            let what = format!("names `{name}`, which does not exist; what is no path should not look like one");
            problems.push(Problem { path: "ARCHITECTURE.md".into(), line: Some(index + 1), what });
        }
    }
}

fn is_path(text: &str) -> bool {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    let ending = Path::new(text).extension().is_some_and(|ending| TEXT.iter().any(|known| ending == *known));
    plain && !text.starts_with('/') && (text.contains('/') || ending)
}

/// Checks one file; binary files and files of other kinds pass.
///
/// # Errors
/// When it cannot be read.
pub fn check_file(root: &Path, path: &Path, private: &[String], problems: &mut Vec<Problem>) -> Result<()> {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let script = path.starts_with(".ci");
    if !script && !TEXT.contains(&ending) {
        return Ok(());
    }
    let bytes = fs::read(root.join(path)).with_context(|| format!("cannot read {}", path.display()))?;
    let mut told = |line: Option<usize>, what: String| problems.push(Problem { path: path.to_owned(), line, what });
    let Ok(text) = String::from_utf8(bytes) else {
        told(None, "is not UTF-8".to_owned());
        return Ok(());
    };
    if !text.is_empty() && !text.ends_with('\n') {
        told(None, "does not end with a line feed".to_owned());
    }
    if ending == "rs" && text.lines().count() > MAX_LINES {
        told(None, format!("has more than {MAX_LINES} lines; split it"));
    }
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if ["lib.rs", "mod.rs", "main.rs"].contains(&name) && !text.starts_with("//!") {
        told(None, "does not open with '//!': say why it exists and what it refuses to do".to_owned());
    }
    let unfinished = unfinished(ending);
    let mut fenced = false;
    for (index, line) in text.split('\n').enumerate() {
        let at = Some(index + 1);
        if line.contains('\r') {
            told(at, "has a carriage return; end lines with a line feed alone".to_owned());
        }
        if ending == "rs"
            && let Some(fence) = doc_fence(line)
        {
            fenced = !fenced;
            if fenced && matches!(fence, "" | "rust" | "no_run") {
                told(at, "is an example that nothing runs: mark it as ```text, and write a test".to_owned());
            }
        }
        for word in private.iter().filter(|word| line.contains(*word)) {
            told(at, format!("holds '{word}', a path of this machine"));
        }
        for word in unfinished.iter().filter(|word| line.contains(*word)) {
            told(at, format!("holds '{word}': finish it or leave it out"));
        }
    }
    Ok(())
}

/// What follows the fence that opens or closes a block in a doc comment.
fn doc_fence(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"))?;
    comment.trim().strip_prefix("```")
}

/// Marks of unfinished work. Put together here, so that this file does not hold them itself.
fn unfinished(ending: &str) -> Vec<String> {
    let mut words = vec![["TO", "DO"].concat(), ["FIX", "ME"].concat()];
    if ending == "rs" {
        words.extend([["to", "do!("].concat(), ["unimple", "mented!("].concat(), ["#[ign", "ore"].concat()]);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_finds_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let long = |lines: usize| format!("//! x\n{}", "\n".repeat(lines - 1));
        let table: Vec<(&str, String, usize)> = vec![
            ("a/lib.rs", "//! Good.\n".to_owned(), 0),
            ("b/lib.rs", "// Bad.\n".to_owned(), 1),
            ("c/mod.rs", "mod x;\n".to_owned(), 1),
            ("c/main.rs", "fn main() {}\n".to_owned(), 1),
            ("c/other.rs", "mod x;\n".to_owned(), 0),
            ("d/800.rs", long(800), 0),
            ("d/801.rs", long(801), 1),
            ("e/macro.rs", format!("    {}\n", unfinished("rs")[2]), 1),
            ("e/macro2.rs", format!("    {}\n", unfinished("rs")[3]), 1),
            ("e/skip.rs", format!("    {}]\n", unfinished("rs")[4]), 1),
            ("e/why.rs", format!("    {} = \"slow\"]\n", unfinished("rs")[4]), 1),
            ("e/word.md", format!("{} later\n", unfinished("md")[0]), 1),
            ("e/word.md.png", format!("{} later\n", unfinished("md")[0]), 0),
            (
                "e/doc.rs",
                "//! x\n//! ```text\n//! a\n//! ```\n/// ```\n/// f();\n/// ```\n/// ```rust\n/// ```\n".to_owned(),
                2,
            ),
            ("f/dos.yml", "a: 1\r\nb: 2\r\nc: 3\n".to_owned(), 2),
            ("f/mac.md", "a\rb\n".to_owned(), 1),
            ("f/no_end.md", "a".to_owned(), 1),
            ("f/empty.py", String::new(), 0),
            (".ci/run", "cd /somewhere/here\n".to_owned(), 1),
            ("g/home.toml", "x = \"/home/me/.cargo\"\n".to_owned(), 1),
            ("g/sandbox.rs", "mask(\"/home/me\")\n".to_owned(), 0),
            ("target/lib.rs", "not ours\n".to_owned(), 0),
        ];
        for (path, text, _) in &table {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let private = machine_paths(Path::new("/somewhere/here"), Some(Path::new("/home/me")));
        let mut problems = Vec::new();
        for path in files(dir.path(), Path::new("/elsewhere")).unwrap() {
            check_file(dir.path(), &path, &private, &mut problems).unwrap();
        }
        for (path, _, wanted) in &table {
            let found: Vec<_> = problems.iter().filter(|problem| problem.path == Path::new(path)).collect();
            assert_eq!(found.len(), *wanted, "{path}: {found:?}");
        }
    }

    #[test]
    fn a_home_at_the_root_is_no_private_path() {
        assert_eq!(machine_paths(Path::new("/p"), Some(Path::new("/"))), ["/p"]);
        assert_eq!(machine_paths(Path::new("/p"), None), ["/p"]);
    }

    #[test]
    fn named_paths_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("here.md"), "").unwrap();
        let text = "`here.md` `gone.md` `az` `cargo xtask tidy` `/absolute` `subscribe()`\n```\n`gone/in/fence`\n```\n`gone/x`\n";
        let mut problems = Vec::new();
        check_named_paths(dir.path(), text, &mut problems);
        assert_eq!(problems.iter().map(|problem| problem.line).collect::<Vec<_>>(), [Some(1), Some(5)]);
    }
}
