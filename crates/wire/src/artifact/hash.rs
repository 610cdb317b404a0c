//! Digests over local files, as the public clients compute them.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{Context, SHA256};
use casemate_model::Fault;

use super::scan::{Tree, unreadable};

/// Which way of hashing [`content_hash`] is, as the API calls it.
pub const CONTENT_HASH_VERSION: u32 = 202_208;

/// What the object digest starts with in the public clients.
const OBJECT_SEED: &[u8] = b"Initialize for october 2021 AML CLI version";

/// SHA-256 of some bytes, in hex.
#[must_use]
pub fn hash_bytes(bytes: &[u8]) -> String {
    let mut context = Context::new(&SHA256);
    context.update(bytes);
    hex(context)
}

/// The digest by which the platform recognizes code: count, names, sizes and contents of the files.
///
/// # Errors
/// `FileNotReadable` naming the file.
pub fn content_hash(tree: &Tree) -> Result<String, Fault> {
    let mut context = Context::new(&SHA256);
    context.update(tree.items.len().to_string().as_bytes());
    for item in &tree.items {
        context.update(format!("#{}#{}", item.name, item.size).as_bytes());
    }
    for item in &tree.items {
        update_with_file(&mut context, &item.path)?;
    }
    Ok(hex(context))
}

/// The digest under which models and build contexts are stored: names and contents, directory by directory.
///
/// # Errors
/// `FileNotReadable` naming the file.
pub fn object_hash(tree: &Tree) -> Result<String, Fault> {
    let mut context = Context::new(&SHA256);
    context.update(OBJECT_SEED);
    if tree.is_directory {
        update_with_directory(&mut context, tree, &tree.root, "")?;
    } else {
        update_with_file(&mut context, &tree.root)?;
    }
    Ok(hex(context))
}

/// The scan before has bounded the depth and found no loops.
fn update_with_directory(context: &mut Context, tree: &Tree, directory: &Path, prefix: &str) -> Result<(), Fault> {
    let entries = fs::read_dir(directory).map_err(|error| unreadable(directory, &error))?;
    let paths: Result<Vec<PathBuf>, io::Error> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(|error| unreadable(directory, &error))?;
    paths.sort_by_cached_key(|path| path.to_string_lossy().to_lowercase());
    for path in paths {
        let own = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let relative = if prefix.is_empty() { own.clone() } else { format!("{prefix}/{own}") };
        if tree.ignore.excludes(&relative) {
            continue;
        }
        context.update(own.as_bytes());
        let metadata = fs::metadata(&path).map_err(|error| unreadable(&path, &error))?;
        if metadata.is_dir() {
            update_with_directory(context, tree, &path, &relative)?;
        } else {
            update_with_file(context, &path)?;
        }
    }
    Ok(())
}

fn update_with_file(context: &mut Context, path: &Path) -> Result<(), Fault> {
    let mut file = fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    let mut buffer = vec![0_u8; 1 << 18];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => context.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(path, &error)),
        }
    }
}

fn hex(context: Context) -> String {
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::{super::scan, *};

    /// The digests were computed by azure-ai-ml 1.35.2 over the same files.
    #[test]
    fn the_same_as_the_public_client() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for sub in ["Sub/deep", "b.dir", "pycache"] {
            fs::create_dir_all(at(sub)).unwrap();
        }
        for (name, text) in [
            ("a.txt", "alpha"),
            ("B.txt", "BETA"),
            ("Sub/one.py", "x"),
            ("Sub/deep/z", "deep"),
            ("b.dir/f", "dir"),
            ("pycache/x.pyc", "skip"),
            ("keep.log", "skip"),
            ("drop.log", "nolog"),
            (".amlignore", "*.log\n!keep.log\npycache/\n# note\n/b.dir/nothing\n"),
            (".gitignore", "*"),
        ] {
            fs::write(at(name), text).unwrap();
        }
        symlink("../a.txt", at("Sub/link")).unwrap();
        let tree = scan(dir.path()).unwrap();
        assert_eq!(content_hash(&tree).unwrap(), "63fc4532caedb3a8a816e218c5dc47573f4d3a9274060afbc4dd537edc704924");
        let object = object_hash(&tree).unwrap();
        assert_eq!(object, "13e277b7ae4c90a6a4941b032b032f5fc39a2c8817ca6d4f1f4c2a23467ddeca");
        assert_eq!(hash_bytes(object.as_bytes()), "90453faf138a8a2224a7ff9d7cd9a7cfd97651d033bcc7eec9641b07378371a0");
        let file = scan(&at("a.txt")).unwrap();
        assert_eq!(object_hash(&file).unwrap(), "c1a74458b5c23c700f968caa6516512e5fceaa22e235400be6113dbc8290f403");
        assert_eq!(content_hash(&file).unwrap(), "770eb149909585ccdeb0f3cb06578d95a7fe182c80e7b7ea57cbe75315333fe9");
    }

    #[test]
    fn any_change_changes_the_digest() {
        let dir = tempfile::tempdir().unwrap();
        let digests = |name: &str, text: &str| {
            let own = dir.path().join("d");
            let _ = fs::remove_dir_all(&own);
            fs::create_dir(&own).unwrap();
            fs::write(own.join(name), text).unwrap();
            let tree = scan(&own).unwrap();
            (content_hash(&tree).unwrap(), object_hash(&tree).unwrap())
        };
        let first = digests("a", "1");
        assert_eq!(digests("a", "1"), first);
        for other in [digests("b", "1"), digests("a", "2"), digests("a", "")] {
            assert_ne!(other.0, first.0);
            assert_ne!(other.1, first.1);
        }
    }
}
