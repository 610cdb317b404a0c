//! Receives a body into a file that nobody sees yet, counting and hashing as it goes.

use std::{fmt::Display, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use crc::{CRC_64_NVME, Crc, Digest, Table};
use http::{HeaderMap, StatusCode, header::CONTENT_LENGTH};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use md5::{Digest as _, Md5};
use object_store::{MultipartUpload, PutPayloadMut, path::Path};

use crate::{
    disk::{Disk, SharedDisk},
    error::BlobError,
};

/// Bytes gathered before they are written to disk.
const PART_BYTES: usize = 1 << 20;
/// How often free space is looked at, in bytes received.
const SPACE_CHECK_BYTES: u64 = 64 << 20;

static CRC64: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_NVME);

/// What a request says of its body.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    length: Option<u64>,
    md5: Option<Vec<u8>>,
    crc64: Option<Vec<u8>>,
    limit: u64,
}

impl Expected {
    /// Reads `Content-Length`, `Content-MD5` and `x-ms-content-crc64`; `limit` is the largest body accepted.
    pub(crate) fn from_headers(headers: &HeaderMap, limit: u64) -> Result<Self, BlobError> {
        if headers.contains_key("x-ms-structured-body") {
            return Err(BlobError::header(
                "x-ms-structured-body",
                "structured bodies are not spoken here; send plain bytes",
            ));
        }
        let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
        let hash = |name: &str, bytes: usize| match text(name) {
            None => Ok(None),
            Some(given) => match STANDARD.decode(given) {
                Ok(hash) if hash.len() == bytes => Ok(Some(hash)),
                _ => Err(BlobError::bad(
                    "InvalidMd5",
                    format!("The header '{name}' is not the base64 of {bytes} bytes."),
                )),
            },
        };
        let length = match text(CONTENT_LENGTH.as_str()) {
            None => None,
            Some(given) => {
                let bytes = given.parse().map_err(|_| BlobError::header("Content-Length", "it is no number"))?;
                Some(bytes)
            }
        };
        if let Some(length) = length.filter(|length| *length > limit) {
            return Err(BlobError::too_large(length, limit));
        }
        Ok(Self { length, md5: hash("content-md5", 16)?, crc64: hash("x-ms-content-crc64", 8)?, limit })
    }

    /// The checked MD5, as headers show it.
    pub(crate) fn md5_text(&self) -> Option<String> {
        self.md5.as_ref().map(|hash| STANDARD.encode(hash))
    }
}

/// A complete, checked, synced file in `uploads/`; gone when dropped without being published.
pub(crate) struct Staged {
    pub(crate) at: Path,
    disk: Arc<Disk>,
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.disk.upload_forget(&self.at);
    }
}

/// A file in `uploads/` being written; gone when dropped.
pub(crate) struct Incoming {
    disk: SharedDisk,
    at: Path,
    upload: Box<dyn MultipartUpload>,
    gathered: PutPayloadMut,
    size: u64,
    limit: u64,
}

impl Incoming {
    /// Starts a file of `expected` bytes, if that is known, and at most `limit`.
    pub(crate) async fn start(disk: &SharedDisk, expected: Option<u64>, limit: u64) -> Result<Self, BlobError> {
        disk.check_space(expected.unwrap_or(0))?;
        let (at, upload) = disk.upload_start().await?;
        Ok(Self { disk: Arc::clone(disk), at, upload, gathered: PutPayloadMut::new(), size: 0, limit })
    }

    /// Takes more bytes; waits for the disk when enough are gathered.
    pub(crate) async fn push(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        let before = self.size;
        self.size += bytes.len() as u64;
        if self.size > self.limit {
            return Err(BlobError::too_large(self.size, self.limit));
        }
        if before / SPACE_CHECK_BYTES != self.size / SPACE_CHECK_BYTES {
            self.disk.check_space(0)?;
        }
        self.gathered.push(bytes);
        if self.gathered.content_length() >= PART_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), BlobError> {
        let part = std::mem::take(&mut self.gathered).freeze();
        let written = self.upload.put_part(part).await;
        written.map_err(|error| BlobError::from_store("writing an upload", "", &error))
    }

    /// Syncs the file; the caller then publishes it.
    pub(crate) async fn finish(mut self) -> Result<Staged, BlobError> {
        if !self.gathered.is_empty() {
            self.flush().await?;
        }
        let done = self.upload.complete().await;
        done.map_err(|error| BlobError::from_store("finishing an upload", "", &error))?;
        Ok(Staged { at: self.at, disk: self.disk })
    }
}

/// Receives a body. `idle` is the longest wait for more bytes.
///
/// # Errors
/// A body that ends early, is larger than allowed, differs from its hashes, or stalls; a full disk.
pub(crate) async fn receive<B>(
    disk: &SharedDisk,
    body: B,
    expected: &Expected,
    idle: Duration,
) -> Result<Staged, BlobError>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Display,
{
    let mut incoming = Incoming::start(disk, expected.length, expected.limit).await?;
    let mut hashes = Hashes::of(expected);
    let mut body = std::pin::pin!(body);
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_| {
            BlobError::new(
                StatusCode::REQUEST_TIMEOUT,
                "OperationTimedOut",
                format!("The upload stalled: no byte came for {} s. Upload again.", idle.as_secs()),
            )
        })?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| {
            BlobError::bad("InvalidInput", format!("The upload ended before its end: {error}. Upload again."))
        })?;
        let Ok(bytes) = frame.into_data() else { continue };
        hashes.update(&bytes);
        incoming.push(bytes).await?;
    }
    if let Some(length) = expected.length.filter(|length| *length != incoming.size) {
        return Err(BlobError::bad(
            "InvalidInput",
            format!("The upload ended after {} of {length} bytes. Upload again.", incoming.size),
        ));
    }
    hashes.check(expected)?;
    incoming.finish().await
}

struct Hashes {
    md5: Option<Md5>,
    crc64: Option<Digest<'static, u64, Table<16>>>,
}

impl Hashes {
    fn of(expected: &Expected) -> Self {
        Self { md5: expected.md5.as_ref().map(|_| Md5::new()), crc64: expected.crc64.as_ref().map(|_| CRC64.digest()) }
    }

    fn update(&mut self, bytes: &[u8]) {
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        if let Some(crc64) = &mut self.crc64 {
            crc64.update(bytes);
        }
    }

    fn check(self, expected: &Expected) -> Result<(), BlobError> {
        let md5 = self.md5.map(|md5| md5.finalize().to_vec());
        if md5 != expected.md5 {
            return Err(BlobError::bad(
                "Md5Mismatch",
                "The MD5 value specified in the request did not match the MD5 value calculated by the server. The upload was damaged on its way; upload again.",
            ));
        }
        let crc64 = self.crc64.map(|crc64| crc64.finalize().to_le_bytes().to_vec());
        if crc64 != expected.crc64 {
            return Err(BlobError::bad(
                "Crc64Mismatch",
                "The CRC64 value specified in the request did not match the CRC64 value calculated by the server. The upload was damaged on its way; upload again.",
            ));
        }
        Ok(())
    }
}
