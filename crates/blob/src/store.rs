//! What the rest of the platform sees of the store.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use casemate_model::{Clock, Secret};
use http::{Request, Response};
use http_body::Body as HttpBody;
use jiff::Timestamp;
use tokio::sync::Semaphore;

use crate::{
    disk::{Disk, SharedDisk},
    error::BlobError,
    listing::{self, Listing},
    name::{self, BlobName, ContainerName},
    rest::{self, Body},
    sas::{Permissions, Signer},
};

/// How long an uncommitted block is kept.
const BLOCK_AGE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Uploads received at once; further ones wait.
const MAX_UPLOADS: usize = 64;

/// The store's limits.
#[derive(Debug, Clone)]
pub struct BlobConfig {
    /// Largest blob, in bytes. Default 64 GiB.
    pub max_blob_bytes: u64,
    /// Largest block, in bytes. Default 4000 MiB.
    pub max_block_bytes: u64,
    /// Free bytes of the disk that uploads may not use, so that a full store never stops the platform's own
    /// writes. Default 256 MiB.
    pub reserve_bytes: u64,
    /// Longest wait for the next bytes of an upload. Default 120 s.
    pub upload_idle: Duration,
}

impl Default for BlobConfig {
    fn default() -> Self {
        Self {
            max_blob_bytes: 64 << 30,
            max_block_bytes: 4000 << 20,
            reserve_bytes: 256 << 20,
            upload_idle: Duration::from_secs(120),
        }
    }
}

/// One blob, as [`BlobStore::list`] and [`BlobStore::info`] tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its name in the container.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
}

/// What [`BlobStore::sweep`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Uncommitted blocks older than seven days.
    pub blocks: u64,
}

pub(crate) struct Inner {
    pub(crate) disk: SharedDisk,
    pub(crate) signer: Signer,
    pub(crate) clock: Clock,
    pub(crate) config: BlobConfig,
    pub(crate) uploads: Semaphore,
}

/// The artifact store; cheap to clone.
#[derive(Clone)]
pub struct BlobStore(Arc<Inner>);

impl BlobStore {
    /// Opens the store below `dir` (made if absent) with the default limits; blocks for a moment. Only one process may
    /// have it open.
    ///
    /// # Errors
    /// When the directory can't be made or read.
    pub fn open(dir: &Path, sas_key: Secret, clock: Clock) -> Result<Self, BlobError> {
        Self::open_with(dir, sas_key, clock, BlobConfig::default())
    }

    /// As [`BlobStore::open`], with these limits.
    ///
    /// # Errors
    /// As [`BlobStore::open`].
    pub fn open_with(dir: &Path, sas_key: Secret, clock: Clock, config: BlobConfig) -> Result<Self, BlobError> {
        let disk = Arc::new(Disk::open(dir, config.reserve_bytes)?);
        let uploads = Semaphore::new(MAX_UPLOADS);
        Ok(Self(Arc::new(Inner { disk, signer: Signer::new(&sas_key), clock, config, uploads })))
    }

    /// Whether a request's path is for this store: it starts with `/<account>.blob.<suffix>/`.
    #[must_use]
    pub fn owns(path: &str) -> bool {
        path.strip_prefix('/').and_then(|rest| rest.split('/').next()).is_some_and(name::is_account_host)
    }

    /// Answers one storage request. The caller must not log the query: it carries the signature.
    pub async fn handle<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send,
        B::Error: std::fmt::Display,
    {
        rest::handle(&self.0, request).await
    }

    /// A query string that opens `directory` of `container` (empty: all of it) until `expires`.
    ///
    /// # Errors
    /// `InvalidResourceName`.
    pub fn sign(
        &self,
        container: &str,
        directory: &str,
        permissions: Permissions,
        expires: Timestamp,
    ) -> Result<Secret, BlobError> {
        let container = ContainerName::parse(container)?;
        self.0.signer.sign(&container, directory.trim_matches('/'), permissions, self.0.clock.now(), expires)
    }

    /// Makes a container; false when it was there.
    ///
    /// # Errors
    /// `InvalidResourceName`, or a failing disk.
    pub async fn container_create(&self, container: &str) -> Result<bool, BlobError> {
        self.0.disk.container_create(&ContainerName::parse(container)?).await
    }

    /// Removes a container with all its blobs; nothing when it is not there.
    ///
    /// # Errors
    /// `InvalidResourceName`, or a failing disk.
    pub async fn container_remove(&self, container: &str) -> Result<(), BlobError> {
        self.0.disk.container_remove(&ContainerName::parse(container)?).await
    }

    /// Where a blob, or a directory of blobs, lies on disk, for reading only. An empty path is the whole container.
    /// Says nothing about whether it exists.
    ///
    /// # Errors
    /// `InvalidResourceName`.
    pub fn local_path(&self, container: &str, path: &str) -> Result<PathBuf, BlobError> {
        self.0.disk.local_path(&ContainerName::parse(container)?, path)
    }

    /// One blob, or nothing when there is none of that name.
    ///
    /// # Errors
    /// `InvalidResourceName`, or a failing disk.
    pub async fn info(&self, container: &str, name: &str) -> Result<Option<BlobInfo>, BlobError> {
        let (container, name) = (ContainerName::parse(container)?, BlobName::parse(name)?);
        let found = self.0.disk.head(&name.location("data", &container)).await?;
        Ok(found.map(|meta| BlobInfo { name: name.as_str().to_owned(), size: meta.size }))
    }

    /// The first `limit` (at most 5000) blobs whose names start with `prefix`, in order of name.
    ///
    /// # Errors
    /// `InvalidResourceName`, or a failing disk.
    pub async fn list(&self, container: &str, prefix: &str, limit: usize) -> Result<Vec<BlobInfo>, BlobError> {
        let container = ContainerName::parse(container)?;
        let asked = Listing { prefix: prefix.to_owned(), limit: limit.clamp(1, 5000), ..Listing::default() };
        let page = listing::page(&self.0, &container, &asked).await?;
        let named = page.entries.into_iter().filter_map(|(name, meta)| Some(BlobInfo { name, size: meta?.size }));
        Ok(named.collect())
    }

    /// Removes all blobs of a directory, and the blob of that very name. Answers how many there were.
    ///
    /// # Errors
    /// `InvalidResourceName`, or a failing disk.
    pub async fn remove_prefix(&self, container: &str, directory: &str) -> Result<u64, BlobError> {
        let container = ContainerName::parse(container)?;
        let directory = BlobName::parse(directory.trim_end_matches('/'))?;
        let mut count = u64::from(self.0.disk.blob_delete(&container, &directory).await?);
        count += self.0.disk.delete_all(&directory.location("data", &container)).await?;
        for room in ["properties", "blocklists"] {
            self.0.disk.delete_all(&directory.location(room, &container)).await?;
        }
        Ok(count)
    }

    /// Removes uncommitted blocks older than seven days. Call it at start and once a day.
    ///
    /// # Errors
    /// A failing disk.
    pub async fn sweep(&self) -> Result<Swept, BlobError> {
        let blocks = self.0.disk.sweep(self.0.clock.now(), BLOCK_AGE).await?;
        Ok(Swept { blocks })
    }
}

impl std::fmt::Debug for BlobStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobStore").field("config", &self.0.config).finish_non_exhaustive()
    }
}
