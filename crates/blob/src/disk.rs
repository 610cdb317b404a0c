//! The files below the state directory, through `object_store`: what lies where, and how it changes safely.
//!
//! Every change is a rename of a file that is already synced; `with_fsync` syncs the directories too, so what was
//! acknowledged outlives a power cut.

use std::{
    io::SeekFrom,
    ops::Range,
    path::{Path as FsPath, PathBuf},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use jiff::Timestamp;
use object_store::{
    GetResultPayload, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload, local::LocalFileSystem,
    path::Path,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt, AsyncSeekExt},
    sync::{Mutex, MutexGuard},
};
use tokio_util::io::ReaderStream;

use crate::{
    content::{Blob, ContentMark, Properties},
    error::BlobError,
    name::{BlobName, ContainerName},
};

/// Bytes read from disk at a time.
const READ_BYTES: usize = 256 * 1024;
/// Locks for writers of one name; two names may share one.
const STRIPES: usize = 64;

pub(crate) struct Disk {
    /// Leaves empty directories be.
    keep: LocalFileSystem,
    /// Removes directories that its deletions empty.
    tidy: LocalFileSystem,
    root: PathBuf,
    stripes: [Mutex<()>; STRIPES],
    reserve_bytes: u64,
}

impl Disk {
    /// Opens or makes the directory, and drops bodies that were arriving when the platform last stopped.
    pub(crate) fn open(root: &FsPath, reserve_bytes: u64) -> Result<Self, BlobError> {
        let failed = |error: &std::io::Error| BlobError::from_io("opening the artifact store", "", error);
        let uploads = root.join("uploads");
        match std::fs::remove_dir_all(&uploads) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&error)),
            _ => {}
        }
        std::fs::create_dir_all(&uploads).map_err(|error| failed(&error))?;
        let keep = LocalFileSystem::new_with_prefix(root)
            .map_err(|error| BlobError::from_store("opening the artifact store", "", &error))?
            .with_fsync(true);
        let tidy = keep.clone().with_automatic_cleanup(true);
        let stripes = std::array::from_fn(|_| Mutex::new(()));
        Ok(Self { keep, tidy, root: root.to_owned(), stripes, reserve_bytes })
    }

    /// Fails when fewer than the reserved bytes would be left after `wanted` more.
    pub(crate) fn check_space(&self, wanted: u64) -> Result<(), BlobError> {
        let found = nix::sys::statvfs::statvfs(&self.root)
            .map_err(|error| BlobError::internal("asking for free space", &error))?;
        let free = found.blocks_available().saturating_mul(found.fragment_size());
        if free < wanted.saturating_add(self.reserve_bytes) {
            return Err(BlobError::no_space(&format!(
                "{free} bytes are free, {wanted} more are wanted and {} are kept back for the platform itself",
                self.reserve_bytes
            )));
        }
        Ok(())
    }

    /// Where a blob, or a directory of blobs, lies; an empty path is the container itself.
    pub(crate) fn local_path(&self, container: &ContainerName, path: &str) -> Result<PathBuf, BlobError> {
        let base = self.root.join("data").join(container.as_str());
        match path.trim_end_matches('/') {
            "" => Ok(base),
            path => Ok(base.join(BlobName::parse(path)?.as_str())),
        }
    }

    /// Held over "check, then change" of one blob.
    pub(crate) async fn lock(&self, container: &ContainerName, name: &BlobName) -> MutexGuard<'_, ()> {
        let first = digest_of(container, name).as_ref().first().copied().unwrap_or_default();
        self.stripes[usize::from(first) % STRIPES].lock().await
    }

    // --- containers ---

    pub(crate) async fn container_exists(&self, container: &ContainerName) -> Result<Option<ObjectMeta>, BlobError> {
        self.head(&container_record(container)).await
    }

    /// Makes the container; false when it was there.
    pub(crate) async fn container_create(&self, container: &ContainerName) -> Result<bool, BlobError> {
        let created = self
            .keep
            .put_opts(&container_record(container), PutPayload::new(), object_store::PutMode::Create.into())
            .await;
        match created {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(BlobError::from_store("making a container", container.as_str(), &error)),
        }
    }

    /// Forgets the container and everything in it.
    pub(crate) async fn container_remove(&self, container: &ContainerName) -> Result<(), BlobError> {
        self.delete(&container_record(container)).await?;
        for room in ["data", "properties", "blocklists", "staging"] {
            self.delete_all(&Path::from(format!("{room}/{container}"))).await?;
        }
        Ok(())
    }

    // --- blobs ---

    pub(crate) async fn blob(&self, container: &ContainerName, name: &BlobName) -> Result<Option<Blob>, BlobError> {
        let Some(meta) = self.head(&name.location("data", container)).await? else {
            return Ok(None);
        };
        let properties = self.properties(container, name, ContentMark::of(&meta)).await?;
        Ok(Some(Blob { meta, properties }))
    }

    pub(crate) async fn properties(
        &self,
        container: &ContainerName,
        name: &BlobName,
        mark: ContentMark,
    ) -> Result<Option<Properties>, BlobError> {
        let found: Option<Properties> = self.read_json(&name.location("properties", container)).await?;
        Ok(found.filter(|properties| properties.content == mark))
    }

    /// Moves a synced file into its place as the blob.
    pub(crate) async fn publish(
        &self,
        from: &Path,
        container: &ContainerName,
        name: &BlobName,
    ) -> Result<ObjectMeta, BlobError> {
        let to = name.location("data", container);
        self.rename(from, &to, name.as_str()).await?;
        self.head(&to).await?.ok_or_else(|| BlobError::blob_not_found(name.as_str()))
    }

    pub(crate) async fn rename(&self, from: &Path, to: &Path, name: &str) -> Result<(), BlobError> {
        self.keep.rename(from, to).await.map_err(|error| BlobError::from_store("storing a blob", name, &error))
    }

    /// Deletes the blob and what is known of it; false when it was not there.
    pub(crate) async fn blob_delete(&self, container: &ContainerName, name: &BlobName) -> Result<bool, BlobError> {
        let was_there = self.delete(&name.location("data", container)).await?;
        self.delete(&name.location("properties", container)).await?;
        self.delete(&name.location("blocklists", container)).await?;
        Ok(was_there)
    }

    // --- plain objects ---

    pub(crate) async fn head(&self, at: &Path) -> Result<Option<ObjectMeta>, BlobError> {
        match self.keep.head(at).await {
            Ok(meta) => Ok(Some(meta)),
            Err(error) => absent(at, &error),
        }
    }

    pub(crate) async fn delete(&self, at: &Path) -> Result<bool, BlobError> {
        match self.tidy.delete(at).await {
            Ok(()) => Ok(true),
            Err(error) => Ok(absent::<()>(at, &error)?.is_some()),
        }
    }

    pub(crate) async fn delete_all(&self, prefix: &Path) -> Result<u64, BlobError> {
        let mut found = self.list(prefix);
        let mut count = 0;
        while let Some(meta) = found.try_next().await? {
            count += u64::from(self.delete(&meta.location).await?);
        }
        Ok(count)
    }

    /// Everything below a prefix, in no order; nothing when it does not exist.
    pub(crate) fn list(&self, prefix: &Path) -> BoxStream<'static, Result<ObjectMeta, BlobError>> {
        let found = self.keep.list(Some(prefix));
        found
            .filter_map(|entry| async {
                match entry {
                    Ok(meta) => Some(Ok(meta)),
                    Err(error) => match BlobError::from_store("listing", "", &error) {
                        vanished if vanished.code == "BlobNotFound" => None,
                        failed => Some(Err(failed)),
                    },
                }
            })
            .boxed()
    }

    pub(crate) async fn read_json<T: DeserializeOwned>(&self, at: &Path) -> Result<Option<T>, BlobError> {
        let found = match self.keep.get(at).await {
            Ok(found) => found.bytes().await.map_err(|error| BlobError::from_store("reading", at.as_ref(), &error))?,
            Err(error) => return absent(at, &error),
        };
        // An unreadable record is as good as none: the bytes it described are still there.
        Ok(serde_json::from_slice(&found).ok())
    }

    pub(crate) async fn write_json<T: Serialize>(&self, at: &Path, value: &T) -> Result<(), BlobError> {
        let text = serde_json::to_vec(value).map_err(|error| BlobError::internal("writing a record", &error))?;
        let written = self.keep.put(at, PutPayload::from(text)).await;
        written.map(|_| ()).map_err(|error| BlobError::from_store("writing a record", at.as_ref(), &error))
    }

    /// Starts a file in `uploads/`.
    pub(crate) async fn upload_start(&self) -> Result<(Path, Box<dyn MultipartUpload>), BlobError> {
        let at = Path::from(format!("uploads/{}", uuid::Uuid::new_v4()));
        let upload = self.keep.put_multipart(&at).await;
        let upload = upload.map_err(|error| BlobError::from_store("starting an upload", "", &error))?;
        Ok((at, upload))
    }

    /// Removes a file of `uploads/` without waiting; for destructors.
    pub(crate) fn upload_forget(&self, at: &Path) {
        if let Ok(path) = self.keep.path_to_filesystem(at) {
            let _ = std::fs::remove_file(path);
        }
    }

    /// The bytes of a file, in pieces; `range` must lie in it.
    pub(crate) async fn read(
        &self,
        at: &Path,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, std::io::Result<Bytes>>, BlobError> {
        let failed = |error: &object_store::Error| BlobError::from_store("reading a blob", at.as_ref(), error);
        let found = self.keep.get(at).await.map_err(|error| failed(&error))?;
        if range.is_empty() {
            return Ok(stream::empty().boxed());
        }
        if range.end > found.meta.size {
            return Err(BlobError::internal("reading a blob", &"it was overwritten meanwhile"));
        }
        let GetResultPayload::File(file, _) = found.payload else {
            return Err(BlobError::internal("reading a blob", &"it is not a file"));
        };
        let mut file = tokio::fs::File::from_std(file);
        let sought = file.seek(SeekFrom::Start(range.start)).await;
        sought.map_err(|error| BlobError::from_io("reading a blob", at.as_ref(), &error))?;
        Ok(ReaderStream::with_capacity(file.take(range.end - range.start), READ_BYTES).boxed())
    }

    /// The directory of a blob's uncommitted blocks.
    pub(crate) fn staging(container: &ContainerName, name: &BlobName) -> Path {
        let hex: String = digest_of(container, name).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Path::from(format!("staging/{container}/{hex}"))
    }

    /// Drops uncommitted blocks older than `age`; answers how many.
    pub(crate) async fn sweep(&self, now: Timestamp, age: Duration) -> Result<u64, BlobError> {
        let limit = now.as_second().saturating_sub(i64::try_from(age.as_secs()).unwrap_or(i64::MAX));
        let mut found = self.list(&Path::from("staging"));
        let mut count = 0;
        while let Some(meta) = found.try_next().await? {
            if meta.last_modified.timestamp() < limit {
                count += u64::from(self.delete(&meta.location).await?);
            }
        }
        Ok(count)
    }
}

/// `None` for "not found" (which a name below a blob is too), the error otherwise.
fn absent<T>(at: &Path, error: &object_store::Error) -> Result<Option<T>, BlobError> {
    match BlobError::from_store("looking up a blob", at.as_ref(), error) {
        missing if matches!(missing.code, "BlobNotFound" | "ResourceTypeMismatch") => Ok(None),
        failed => Err(failed),
    }
}

fn container_record(container: &ContainerName) -> Path {
    Path::from(format!("containers/{container}"))
}

fn digest_of(container: &ContainerName, name: &BlobName) -> digest::Digest {
    digest::digest(&digest::SHA256, format!("{container}/{name}").as_bytes())
}

/// Shared by all requests.
pub(crate) type SharedDisk = Arc<Disk>;
