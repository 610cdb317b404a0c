//! Where environments lie on disk: finished ones under their digest, unfinished ones beside them under another name.
//!
//! An environment is there as a whole or not at all: it gets its name in one step, after everything in it has reached
//! the disk. What an interrupted build leaves is recognised by its name and removed.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// How the directory of an unfinished build ends.
const PARTIAL: &str = ".partial";
/// Largest manifest read, in bytes.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// What is written beside a finished environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub digest: String,
    /// Version of the rules by which it was built.
    pub builder: u32,
    pub installer: String,
    pub python_version: String,
    pub python_executable: PathBuf,
    /// What was asked for, without credentials.
    pub requirements: Vec<String>,
    /// What was installed: `name==version`, in order of name.
    pub packages: Vec<String>,
    /// What the user should know of the build.
    pub warnings: Vec<String>,
}

/// The directory of all environments.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    dir: PathBuf,
}

/// The directories of one unfinished build.
#[derive(Debug)]
pub(super) struct Draft {
    /// Becomes the environment. Nothing but the platform writes here.
    pub tree: PathBuf,
    /// The part of it that is written from inside the sandbox.
    pub venv: PathBuf,
    /// Files that the platform hands to the sandbox.
    pub inputs: PathBuf,
    /// The package cache of this build alone, in reach of foreign code.
    pub cache: PathBuf,
    work: PathBuf,
    partial: PathBuf,
    digest: String,
}

impl Shelf {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The directory of a finished environment.
    pub(super) fn home(&self, digest: &str) -> PathBuf {
        self.dir.join(digest)
    }

    /// The environment's own tree of programs and packages; the same path inside and outside of sandboxes.
    pub(super) fn venv(&self, digest: &str) -> PathBuf {
        self.home(digest).join("venv")
    }

    /// The manifest of a finished environment; none when there is no usable one.
    pub(super) fn find(&self, digest: &str) -> Option<Manifest> {
        let file = self.home(digest).join("manifest.json");
        let small = fs::symlink_metadata(&file).is_ok_and(|data| data.is_file() && data.len() <= MAX_MANIFEST_BYTES);
        let manifest: Manifest = serde_json::from_slice(&fs::read(small.then_some(file)?).ok()?).ok()?;
        (manifest.digest == digest && fs::symlink_metadata(self.venv(digest).join("bin/python")).is_ok())
            .then_some(manifest)
    }

    /// Begins a build; what an earlier try left is removed first.
    pub(super) fn begin(&self, digest: &str) -> io::Result<Draft> {
        let partial = self.dir.join(format!("{digest}{PARTIAL}"));
        remove_tree(&partial)?;
        let draft = Draft {
            tree: partial.join("tree"),
            venv: partial.join("tree/venv"),
            inputs: partial.join("work/inputs"),
            cache: partial.join("work/cache"),
            work: partial.join("work"),
            digest: digest.to_owned(),
            partial,
        };
        for dir in [&draft.venv, &draft.inputs, &draft.cache] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        Ok(draft)
    }

    /// Turns a build into a finished environment. Blocks until it has reached the disk.
    pub(super) fn finish(&self, draft: &Draft, manifest: &Manifest) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(manifest).map_err(io::Error::other)?;
        fs::write(draft.tree.join("manifest.json"), text)?;
        // One call for thousands of files; they lie on the same file system as their directory.
        let tree = fs::File::open(&draft.tree)?;
        nix::unistd::syncfs(&tree)?;
        let home = self.home(&draft.digest);
        // There can only be an unusable one: a usable one would not have been built again.
        remove_tree(&home)?;
        fs::rename(&draft.tree, &home)?;
        fs::File::open(&self.dir)?.sync_all()?;
        remove_tree(&draft.partial)
    }

    /// Removes what interrupted builds left. To be called when no build runs.
    pub(super) fn sweep(&self) -> io::Result<usize> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut removed = 0;
        for entry in entries {
            let entry = entry?;
            if entry.file_name().to_string_lossy().ends_with(PARTIAL) {
                remove_tree(&entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

impl Draft {
    /// A fresh directory that one command may write its results to. Fresh, because foreign code may have left links in
    /// an older one.
    pub(super) fn results(&self) -> io::Result<PathBuf> {
        for number in 1..1000 {
            let dir = self.work.join(format!("results-{number}"));
            match fs::DirBuilder::new().mode(0o700).create(&dir) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| dir),
            }
        }
        Err(io::Error::other("a build has at most 999 results"))
    }

    /// Removes everything of a build that failed.
    pub(super) fn discard(&self) -> io::Result<()> {
        remove_tree(&self.partial)
    }
}

/// Removes a tree that foreign code has written to; links are not followed, and directories that it has closed to
/// their owner are opened again.
fn remove_tree(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(dir)?;
            fs::remove_dir_all(dir)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn open_up(root: &Path) -> io::Result<()> {
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            // The type of the entry itself: a link to a directory is not one.
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(digest: &str) -> Manifest {
        Manifest {
            digest: digest.to_owned(),
            builder: 1,
            installer: "uv 1".to_owned(),
            python_version: "3.12.1".to_owned(),
            python_executable: "/usr/bin/python3.12".into(),
            requirements: vec!["six".to_owned()],
            packages: vec!["six==1.16.0".to_owned()],
            warnings: Vec::new(),
        }
    }

    fn build(shelf: &Shelf, digest: &str) -> Draft {
        let draft = shelf.begin(digest).unwrap();
        fs::create_dir(draft.venv.join("bin")).unwrap();
        std::os::unix::fs::symlink("/nonexistent/python", draft.venv.join("bin/python")).unwrap();
        draft
    }

    #[test]
    fn an_environment_is_there_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path().join("environments"));
        assert_eq!(shelf.sweep().unwrap(), 0);
        let draft = build(&shelf, "abc");
        assert_eq!(shelf.find("abc"), None);
        shelf.finish(&draft, &manifest("abc")).unwrap();
        assert_eq!(shelf.find("abc"), Some(manifest("abc")));
        let left: Vec<_> =
            fs::read_dir(dir.path().join("environments")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["abc"]);

        fs::remove_file(shelf.venv("abc").join("bin/python")).unwrap();
        assert_eq!(shelf.find("abc"), None, "a damaged one is not used");
        shelf.finish(&build(&shelf, "abc"), &manifest("abc")).unwrap();
        assert!(shelf.find("abc").is_some(), "and is replaced");
        fs::write(shelf.home("abc").join("manifest.json"), "{").unwrap();
        assert_eq!(shelf.find("abc"), None);
    }

    #[test]
    fn what_an_interrupted_build_left_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(dir.path().to_owned());
        shelf.finish(&build(&shelf, "done"), &manifest("done")).unwrap();
        let draft = build(&shelf, "cut");
        let outside = dir.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, draft.venv.join("link")).unwrap();
        fs::create_dir(draft.cache.join("closed")).unwrap();
        fs::write(draft.cache.join("closed/file"), "x").unwrap();
        fs::set_permissions(draft.cache.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
        assert_eq!(shelf.sweep().unwrap(), 1);
        assert!(shelf.find("done").is_some() && outside.join("kept").exists());
        assert!(!dir.path().join("cut.partial").exists());
    }

    #[test]
    fn closed_directories_are_opened_to_be_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink(dir.path(), root.join("a/up")).unwrap();
        fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o000)).unwrap();
        open_up(&root).unwrap();
        assert_eq!(fs::metadata(root.join("a/b")).unwrap().permissions().mode() & 0o777, 0o700);
        remove_tree(&root).unwrap();
        assert!(dir.path().exists() && !root.exists());
    }

    #[test]
    fn results_are_always_fresh() {
        let dir = tempfile::tempdir().unwrap();
        let draft = Shelf::new(dir.path().to_owned()).begin("x").unwrap();
        let (one, two) = (draft.results().unwrap(), draft.results().unwrap());
        assert!(one != two && fs::read_dir(&two).unwrap().next().is_none());
        draft.discard().unwrap();
        assert!(!dir.path().join("x.partial").exists());
    }
}
