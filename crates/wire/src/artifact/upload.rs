//! Uploading a tree to a container of the artifact store.

use std::path::Path;

use casemate_model::{Fault, FaultKind, Secret};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Body, Method, Url, header::CONTENT_LENGTH};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::scan::{Item, Tree, invalid, unreadable};
use crate::client::{Http, Idempotence};

/// Files up to this size travel in one request.
const SINGLE_PUT_BYTES: u64 = 16 << 20;
/// Size of one block of a larger file, unless it would need more blocks than allowed.
const BLOCK_BYTES: u64 = 8 << 20;
/// Most blocks of one blob.
const MAX_BLOCKS: u64 = 50_000;
/// What a path of the store may hold unescaped.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');
/// The version of the store's protocol that is spoken.
const BLOB_VERSION: &str = "2023-11-03";

/// A container to upload to.
#[derive(Debug, Clone)]
pub struct BlobTarget {
    /// The container's address, without a query.
    pub container: Url,
    /// The query that grants access.
    pub signature: Secret,
}

impl BlobTarget {
    /// From an address that carries its access signature.
    ///
    /// # Errors
    /// `UnexpectedAnswer` when it is no absolute address.
    pub fn from_signed_address(address: &str) -> Result<Self, Fault> {
        let mut container = Url::parse(address).map_err(|error| {
            Fault::internal(format!("The server gave an upload address that can't be read: {error}."))
        })?;
        let signature = Secret::from(container.query().unwrap_or_default());
        container.set_query(None);
        Ok(Self { container, signature })
    }

    fn address(&self, blob: &str, query: &str) -> Result<Url, Fault> {
        let unreadable = |_| Fault::internal("The store's access signature is not text.");
        let signature = self.signature.expose_str().map_err(unreadable)?.trim_start_matches('?');
        let mut address = self.container.clone();
        let path = format!("{}/{}", address.path().trim_end_matches('/'), utf8_percent_encode(blob, PATH));
        address.set_path(&path);
        let query = [query, signature].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("&");
        address.set_query(Some(&query));
        Ok(address)
    }
}

/// How far an upload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Bytes sent and acknowledged.
    pub sent: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What an upload came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// Path of the directory or file in the container.
    pub path: String,
    /// Whether the same content was there already, so that nothing was sent.
    pub already_there: bool,
    /// Name of the asset that the content in the store was first uploaded for.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Uploads a tree below `prefix` (empty for the container's root): `prefix/DIRECTORY/…` or `prefix/FILE`. A finished
/// upload is marked on its first file with the asset's name and version; when the mark is there, nothing is sent.
///
/// # Errors
/// A file that can't be read or changes underway; what the store answers; the store not answering.
pub async fn upload_tree(
    http: &Http,
    target: &BlobTarget,
    tree: &Tree,
    prefix: &str,
    asset: (&str, &str),
    progress: &mut (dyn FnMut(Progress) + Send),
) -> Result<Uploaded, Fault> {
    let path = if prefix.is_empty() { tree.name.clone() } else { format!("{prefix}/{}", tree.name) };
    let blob_of = |item: &Item| if tree.is_directory { format!("{path}/{}", item.name) } else { path.clone() };
    // The clients mark the file that comes first by its full local path, links resolved.
    let mut by_path: Vec<&Item> = tree.items.iter().collect();
    by_path.sort_by_cached_key(|item| item.path.canonicalize().unwrap_or_else(|_| item.path.clone()));
    let Some(marked) = by_path.first().map(|item| blob_of(item)) else {
        return Err(invalid(&tree.root, "it holds no files"));
    };
    if let Some((name, version)) = mark_of(http, target, &marked).await? {
        return Ok(Uploaded { path, already_there: true, name, version });
    }
    let total = tree.bytes();
    let mut sent = 0;
    progress(Progress { sent, total });
    for item in &tree.items {
        let blob = blob_of(item);
        if item.size <= SINGLE_PUT_BYTES {
            put_whole(http, target, &blob, item).await?;
            sent += item.size;
            progress(Progress { sent, total });
        } else {
            put_blocks(http, target, &blob, item, &mut |bytes| {
                sent += bytes;
                progress(Progress { sent, total });
            })
            .await?;
        }
    }
    set_mark(http, target, &marked, asset).await?;
    Ok(Uploaded { path, already_there: false, name: asset.0.to_owned(), version: asset.1.to_owned() })
}

async fn mark_of(http: &Http, target: &BlobTarget, blob: &str) -> Result<Option<(String, String)>, Fault> {
    let address = target.address(blob, "")?;
    let answer = http
        .send(Idempotence::Safe, || {
            Ok(http.request(Method::HEAD, address.clone()).header("x-ms-version", BLOB_VERSION))
        })
        .await?;
    if answer.status == 404 {
        return Ok(None);
    }
    answer.check()?;
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    if header("x-ms-meta-upload_status").as_deref() != Some("completed") {
        return Ok(None);
    }
    Ok(header("x-ms-meta-name").zip(header("x-ms-meta-version")))
}

async fn set_mark(http: &Http, target: &BlobTarget, blob: &str, asset: (&str, &str)) -> Result<(), Fault> {
    let address = target.address(blob, "comp=metadata")?;
    let send = || {
        Ok(http
            .request(Method::PUT, address.clone())
            .header("x-ms-version", BLOB_VERSION)
            .header("x-ms-meta-upload_status", "completed")
            .header("x-ms-meta-name", asset.0)
            .header("x-ms-meta-version", asset.1)
            .header(CONTENT_LENGTH, 0))
    };
    http.send(Idempotence::Safe, send).await?.check().map(drop)
}

/// A stretch of a file as a request body. The length is promised first, so a file that shrank meanwhile cuts the
/// request off instead of being stored short.
async fn stretch(item: &Item, from: u64, length: u64) -> Result<Body, Fault> {
    let failed = |error: std::io::Error| unreadable(&item.path, &error);
    let mut file = tokio::fs::File::open(&item.path).await.map_err(failed)?;
    file.seek(std::io::SeekFrom::Start(from)).await.map_err(failed)?;
    Ok(Body::wrap_stream(ReaderStream::with_capacity(file.take(length), 1 << 16)))
}

fn check_unchanged(item: &Item) -> Result<(), Fault> {
    let size = std::fs::metadata(&item.path).map_err(|error| unreadable(&item.path, &error))?.len();
    if size == item.size {
        return Ok(());
    }
    Err(changed(&item.path))
}

fn changed(path: &Path) -> Fault {
    Fault::conflict(
        "FileChanged",
        format!("'{}' changed while it was being uploaded; run the command again.", path.display()),
    )
}

async fn put_whole(http: &Http, target: &BlobTarget, blob: &str, item: &Item) -> Result<(), Fault> {
    let address = target.address(blob, "")?;
    send_stretch(http, &address, item, 0, item.size, true).await
}

async fn put_blocks(
    http: &Http,
    target: &BlobTarget,
    blob: &str,
    item: &Item,
    done: &mut (dyn FnMut(u64) + Send),
) -> Result<(), Fault> {
    use base64::Engine as _;
    let block = BLOCK_BYTES.max(item.size.div_ceil(MAX_BLOCKS));
    let mut list = "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>".to_owned();
    let (mut from, mut number) = (0, 0);
    while from < item.size {
        let length = block.min(item.size - from);
        let id = base64::engine::general_purpose::STANDARD.encode(format!("block-{number:08}"));
        let address =
            target.address(blob, &format!("comp=block&blockid={}", utf8_percent_encode(&id, NON_ALPHANUMERIC)))?;
        send_stretch(http, &address, item, from, length, false).await?;
        list.push_str(&format!("<Latest>{id}</Latest>"));
        done(length);
        from += length;
        number += 1;
    }
    list.push_str("</BlockList>");
    let address = target.address(blob, "comp=blocklist")?;
    let send =
        || Ok(http.request(Method::PUT, address.clone()).header("x-ms-version", BLOB_VERSION).body(list.clone()));
    http.send(Idempotence::Safe, send).await?.check().map(drop)
}

/// Sends one stretch; a failed attempt reads it from the file again.
async fn send_stretch(
    http: &Http,
    address: &Url,
    item: &Item,
    from: u64,
    length: u64,
    whole: bool,
) -> Result<(), Fault> {
    check_unchanged(item)?;
    for attempt in 0.. {
        let body = stretch(item, from, length).await?;
        let mut request = http
            .request(Method::PUT, address.clone())
            .timeout(crate::client::UPLOAD_TIMEOUT)
            .header("x-ms-version", BLOB_VERSION)
            .header(CONTENT_LENGTH, length)
            .body(body);
        if whole {
            request = request.header("x-ms-blob-type", "BlockBlob");
        }
        let result = match http.send_once(request).await {
            Ok(answer) => answer.check().map(drop),
            Err(fault) => Err(fault),
        };
        match result {
            Err(fault) if fault.kind == FaultKind::Unavailable && attempt < crate::client::MAX_RETRIES => {
                check_unchanged(item)?;
                tokio::time::sleep(crate::client::backoff(attempt)).await;
            }
            Ok(()) => break,
            Err(fault) => {
                check_unchanged(item)?;
                return Err(fault);
            }
        }
    }
    check_unchanged(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_escaped_and_signed() {
        let target = BlobTarget::from_signed_address("https://h:1/acct.blob.local/c?sv=1&sig=a%2Bb").unwrap();
        assert_eq!(target.container.as_str(), "https://h:1/acct.blob.local/c");
        let address = target.address("Local/a b#ü/x?.py", "comp=metadata").unwrap();
        assert_eq!(
            address.as_str(),
            "https://h:1/acct.blob.local/c/Local/a%20b%23%C3%BC/x%3F.py?comp=metadata&sv=1&sig=a%2Bb"
        );
        assert!(!format!("{target:?}").contains("a%2Bb"));
        assert!(BlobTarget::from_signed_address("nonsense").is_err());
    }
}
