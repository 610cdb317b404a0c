//! Which files an upload holds.

use std::{
    fs,
    path::{Path, PathBuf},
};

use casemate_model::{Fault, FaultKind};

use super::ignore::IgnoreFile;

/// Most files in one upload.
const MAX_FILES: usize = 100_000;
/// Deepest directory.
const MAX_DEPTH: usize = 64;

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where it lies; links are followed.
    pub path: PathBuf,
    /// Its path relative to the root, with `/` between its parts; a single file's own name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

/// The files of one upload.
#[derive(Debug)]
pub struct Tree {
    /// The directory, or the single file.
    pub root: PathBuf,
    /// The last part of its path.
    pub name: String,
    /// The files, by their names in lower case.
    pub items: Vec<Item>,
    /// Whether the root is a directory.
    pub is_directory: bool,
    pub(super) ignore: IgnoreFile,
}

impl Tree {
    /// Bytes in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.items.iter().map(|item| item.size).sum()
    }
}

/// Lists the files of a directory (or the one file), without those that its ignore file leaves out. Links are
/// followed and uploaded as what they lead to.
///
/// # Errors
/// `FileNotReadable`, `EmptyDirectory`, `TooManyFiles`, or `InvalidPath` for a name that is no UTF-8, a loop of links
/// or a device.
pub fn scan(root: &Path) -> Result<Tree, Fault> {
    let root = root.canonicalize().map_err(|error| unreadable(root, &error))?;
    let name = root
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or_else(|| invalid(&root, "it has no name that is UTF-8 text"))?
        .to_owned();
    let metadata = fs::metadata(&root).map_err(|error| unreadable(&root, &error))?;
    if !metadata.is_dir() {
        if !metadata.is_file() {
            return Err(invalid(&root, "it is neither a file nor a directory"));
        }
        let items = vec![Item { path: root.clone(), name: name.clone(), size: metadata.len() }];
        return Ok(Tree { root, name, items, is_directory: false, ignore: IgnoreFile::default() });
    }
    let ignore = IgnoreFile::of_directory(&root)?;
    let mut items = Vec::new();
    let mut walked = vec![root.clone()];
    walk(&root, "", &ignore, &mut walked, &mut items)?;
    if items.is_empty() {
        return Err(Fault::invalid(
            "EmptyDirectory",
            format!(
                "The directory '{}' holds no files (or its ignore file leaves all of them out); there is nothing to upload.",
                root.display()
            ),
        ));
    }
    items.sort_by_cached_key(|item| item.name.to_lowercase());
    Ok(Tree { root, name, items, is_directory: true, ignore })
}

/// `walked` holds the real paths of the directories above, so that a loop of links is noticed.
fn walk(
    directory: &Path,
    prefix: &str,
    ignore: &IgnoreFile,
    walked: &mut Vec<PathBuf>,
    items: &mut Vec<Item>,
) -> Result<(), Fault> {
    if walked.len() > MAX_DEPTH {
        return Err(invalid(directory, "it lies deeper than 64 directories"));
    }
    let entries = fs::read_dir(directory).map_err(|error| unreadable(directory, &error))?;
    for entry in entries {
        let path = entry.map_err(|error| unreadable(directory, &error))?.path();
        let Some(own) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(invalid(&path, "its name is not UTF-8 text"));
        };
        let name = if prefix.is_empty() { own.to_owned() } else { format!("{prefix}/{own}") };
        let excluded = ignore.excludes(&name);
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(_) if excluded => continue,
            Err(error) => return Err(unreadable(&path, &error)),
        };
        if metadata.is_dir() {
            let real = path.canonicalize().map_err(|error| unreadable(&path, &error))?;
            if walked.contains(&real) {
                if excluded {
                    continue;
                }
                return Err(invalid(&path, "the link leads back to a directory above it"));
            }
            walked.push(real);
            walk(&path, &name, ignore, walked, items)?;
            walked.pop();
        } else if excluded {
            continue;
        } else if !metadata.is_file() {
            return Err(invalid(&path, "it is neither a file nor a directory"));
        } else if items.len() == MAX_FILES {
            return Err(Fault::new(
                FaultKind::TooLarge,
                "TooManyFiles",
                format!(
                    "There are more than {MAX_FILES} files below '{}'; leave some out with an .amlignore file.",
                    walked[0].display()
                ),
            ));
        } else {
            items.push(Item { path, name, size: metadata.len() });
        }
    }
    Ok(())
}

pub(super) fn unreadable(path: &Path, error: &std::io::Error) -> Fault {
    Fault::invalid("FileNotReadable", format!("'{}' can't be read: {error}.", path.display()))
}

pub(super) fn invalid(path: &Path, why: &str) -> Fault {
    Fault::invalid("InvalidPath", format!("'{}' can't be uploaded: {why}.", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn names(root: &Path) -> Result<Vec<String>, Fault> {
        Ok(scan(root)?.items.into_iter().map(|item| item.name).collect())
    }

    #[test]
    fn files_links_and_exclusions() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("Sub/deep")).unwrap();
        for (name, text) in
            [("a.txt", "alpha"), ("B.txt", ""), ("Sub/deep/z", "deep"), ("drop.log", "x"), (".amlignore", "*.log")]
        {
            fs::write(at(name), text).unwrap();
        }
        symlink("../a.txt", at("Sub/link")).unwrap();
        assert_eq!(names(dir.path()).unwrap(), [".amlignore", "a.txt", "B.txt", "Sub/deep/z", "Sub/link"]);
        assert_eq!(scan(dir.path()).unwrap().bytes(), 5 + 4 + 5 + 5);
        assert_eq!(names(&at("a.txt")).unwrap(), ["a.txt"]);
    }

    #[test]
    fn refusals() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("empty/sub")).unwrap();
        assert_eq!(names(&at("empty")).unwrap_err().code, "EmptyDirectory");
        assert_eq!(names(&at("none")).unwrap_err().code, "FileNotReadable");
        fs::create_dir(at("loop")).unwrap();
        symlink("..", at("loop/up")).unwrap();
        assert!(names(&at("loop")).unwrap_err().message.contains("leads back") || names(dir.path()).is_err());
        fs::create_dir(at("dangling")).unwrap();
        symlink("nowhere", at("dangling/x")).unwrap();
        assert_eq!(names(&at("dangling")).unwrap_err().code, "FileNotReadable");
        assert_eq!(names(Path::new("/dev/null")).unwrap_err().code, "InvalidPath");
    }
}
