//! The operator's own service tags: `service-tags.json` in the state directory, read once at the start.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

use anyhow::{Context, Result, bail};
use casemate_model::egress::ServiceTags;

/// The file in the state directory.
const FILE: &str = "service-tags.json";
/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;

/// The built-in tags, with those of the operator's file if there is one.
///
/// # Errors
/// When the file can't be read, is too large, or holds something that is not a table of tags; a platform that ignored
/// it would refuse what its operator approved.
pub fn read(state: &Path) -> Result<ServiceTags> {
    let path = state.join(FILE);
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(ServiceTags::builtin()),
        opened => opened.with_context(|| format!("the service tags in {} can't be read", path.display()))?,
    };
    let mut text = String::new();
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text);
    read.with_context(|| format!("the service tags in {} can't be read", path.display()))?;
    if text.len() as u64 > MAX_BYTES {
        bail!("the service tags in {} are larger than {} MiB; shorten the file", path.display(), MAX_BYTES >> 20);
    }
    if text.trim().is_empty() {
        return Ok(ServiceTags::builtin());
    }
    ServiceTags::parse(&text).with_context(|| format!("the service tags in {} are wrong", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        assert_eq!(read(dir.path()).unwrap(), ServiceTags::builtin());
        for (text, said) in [
            (r#"{"Corp": {"prefixes": ["10.1.0.0/16"], "ports": "443,5432"}}"#, None),
            ("\n", None),
            ("{", Some("service-tags.json are wrong")),
            (r#"{"Corp": {"prefixes": ["127.0.0.0/8"]}}"#, Some("loopback")),
        ] {
            std::fs::write(&path, text).unwrap();
            match (read(dir.path()), said) {
                (Ok(tags), None) => assert_eq!(tags.get("corp").is_some(), text.contains("Corp"), "{text}"),
                (Err(error), Some(said)) => assert!(format!("{error:#}").contains(said), "{text}: {error:#}"),
                (read, _) => panic!("{text}: {read:?}"),
            }
        }
        std::fs::write(&path, vec![b' '; 5 << 20]).unwrap();
        assert!(format!("{:#}", read(dir.path()).unwrap_err()).contains("larger than 4 MiB"));
    }
}
