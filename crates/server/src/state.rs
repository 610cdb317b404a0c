//! The state directory: made private, held by one platform at a time, and the files in it that other commands read.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;

/// A state directory held by this process until dropped.
pub struct StateDir {
    path: PathBuf,
    _lock: Flock<File>,
}

impl StateDir {
    /// Makes the directory if needed (0700) and takes its lock.
    ///
    /// # Errors
    /// When another platform holds it (naming its process), when it belongs to another user, or can't be made.
    pub fn hold(path: &Path) -> Result<Self> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("the state directory {} can't be made", path.display()))?;
        let path =
            path.canonicalize().with_context(|| format!("the state directory {} can't be opened", path.display()))?;
        let owner = fs::metadata(&path)?.uid();
        // In a user namespace of its own the platform sees its user as 0, and files of others as the overflow uid.
        if owner != nix::unistd::geteuid().as_raw() {
            bail!(
                "the state directory {} belongs to another user (uid {owner}); choose another with --state",
                path.display()
            );
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join("lock"))?;
        let mut holder = String::new();
        file.read_to_string(&mut holder)?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            if errno == nix::errno::Errno::EWOULDBLOCK {
                anyhow::anyhow!(
                    "another casemate (process {}) already runs on the state directory {}; stop it first, or give this one its own with --state",
                    holder.trim(),
                    path.display()
                )
            } else {
                anyhow::anyhow!("the state directory {} can't be locked: {errno}", path.display())
            }
        })?;
        lock.set_len(0)?;
        lock.rewind()?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self { path, _lock: lock })
    }

    /// Where it is, absolute and without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes an owner-only file whole or not at all.
    ///
    /// # Errors
    /// When the disk is full or the directory can't be written.
    pub fn write_private(&self, name: &str, content: &[u8]) -> io::Result<()> {
        write_private(&self.path, name, content)
    }

    /// Reads a JSON file of an earlier run; nothing when it isn't there or can't be read.
    pub fn read_json(&self, name: &str) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.path.join(name)).ok()?).ok()
    }
}

/// Writes an owner-only file of a state directory whole or not at all.
///
/// # Errors
/// When the disk is full or the directory can't be written.
pub fn write_private(directory: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let partial = directory.join(format!("{name}.partial"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&partial, directory.join(name))?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let first = StateDir::hold(&path).unwrap();
        let refusal = StateDir::hold(&path).err().unwrap().to_string();
        assert!(refusal.contains(&std::process::id().to_string()) && refusal.contains("--state"), "{refusal}");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        drop(first);
        StateDir::hold(&path).unwrap();
    }

    #[test]
    fn private_files() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::hold(dir.path()).unwrap();
        state.write_private("x.json", b"{\"a\": 1}").unwrap();
        assert_eq!(fs::metadata(dir.path().join("x.json")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(state.read_json("x.json").unwrap()["a"], 1);
    }
}
