//! How the payload, a user without any rights on the host, can read a directory that only its owner may read, and
//! write into one that belongs to the platform: the mount is id-mapped, so that the source's owner is the payload.
//!
//! File systems that cannot do it (overlay, network file systems) get the plain mount: what is read-only must then be
//! readable by others (the launch checks), and what is writable is given to the payload's user on the host.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::fstat;

use crate::error::{During, Step, StepFailure};
use crate::helper::IdMap;
use crate::plan::Ids;
use crate::spec::{Access, Mount};
use crate::sys;

/// Makes the detached tree usable by the payload.
pub fn apply(tree: BorrowedFd<'_>, mount: &Mount, ids: Ids, maps: &[IdMap]) -> Result<(), StepFailure> {
    let source = mount.source.display();
    let meta = fstat(tree).during(Step::IdMap, &source)?;
    let map = maps
        .iter()
        .find(|map| (map.uid, map.gid) == (meta.st_uid, meta.st_gid))
        .ok_or_else(|| StepFailure::new(Step::IdMap, format!("{source} changed its owner meanwhile")))?;
    match sys::mount_setattr(tree, 0, true, Some(map.namespace.as_fd())) {
        Ok(()) => Ok(()),
        Err(error) if !is_unsupported(&error) => Err(error).during(Step::IdMap, &source),
        Err(_) if mount.access == Access::ReadOnly => Ok(()),
        Err(_) => give_away(&mount.source, ids.payload).during(Step::IdMap, &source),
    }
}

fn is_unsupported(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | libc::EPERM))
}

/// Gives a whole tree to `id`, following no link. The kernel clears setuid bits on the way.
fn give_away(top: &Path, id: u32) -> std::io::Result<()> {
    let mut pending = vec![top.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = std::fs::symlink_metadata(&path)?;
        if (meta.uid(), meta.gid()) != (id, id) {
            std::os::unix::fs::lchown(&path, Some(id), Some(id))?;
        }
        if meta.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                pending.push(entry?.path());
            }
        }
    }
    Ok(())
}
