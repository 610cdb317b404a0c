//! What is known of a blob besides its bytes: headers, metadata, entity tag.

use std::{collections::BTreeMap, time::SystemTime};

use aws_lc_rs::digest;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use object_store::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::error::BlobError;

/// Most metadata of one blob, names and values together, in bytes (the original's limit).
const MAX_METADATA_BYTES: usize = 8192;

/// Request header that sets it, plain request header that sets it too, response header that shows it.
const CONTENT_HEADERS: &[(&str, Option<&str>, &str)] = &[
    ("x-ms-blob-content-type", Some("content-type"), "content-type"),
    ("x-ms-blob-content-encoding", Some("content-encoding"), "content-encoding"),
    ("x-ms-blob-content-language", Some("content-language"), "content-language"),
    ("x-ms-blob-content-disposition", None, "content-disposition"),
    ("x-ms-blob-cache-control", Some("cache-control"), "cache-control"),
];

/// Ties stored properties to the bytes they were stored for, so that a crash between the two never shows one
/// upload's metadata with another's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContentMark {
    size: u64,
    modified_nanos: i64,
}

impl ContentMark {
    pub(crate) fn of(meta: &ObjectMeta) -> Self {
        Self { size: meta.size, modified_nanos: meta.last_modified.timestamp_nanos_opt().unwrap_or_default() }
    }
}

/// Stored beside the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Properties {
    pub(crate) content: ContentMark,
    /// Seconds since 1970.
    pub(crate) created: i64,
    /// Seconds since 1970.
    pub(crate) changed: i64,
    /// Changes with every change of headers or metadata.
    pub(crate) revision: u128,
    /// By response header name.
    pub(crate) headers: BTreeMap<String, String>,
    /// Base64 MD5 of the bytes, when the uploader gave it.
    pub(crate) md5: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
}

/// What an upload says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) md5: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
}

impl Described {
    /// Reads content headers and metadata of a write. `plain` says whether plain headers (`Content-Type`) describe
    /// the blob too; for a block list they describe the list itself.
    pub(crate) fn from_headers(headers: &HeaderMap, plain: bool) -> Result<Self, BlobError> {
        let mut found = BTreeMap::new();
        for (ours, usual, shown) in CONTENT_HEADERS {
            let usual = usual.filter(|_| plain).and_then(|usual| text_of(headers, usual));
            if let Some(value) = text_of(headers, ours).or(usual) {
                found.insert((*shown).to_owned(), value.to_owned());
            }
        }
        let md5 = text_of(headers, "x-ms-blob-content-md5").map(str::to_owned);
        Ok(Self { headers: found, md5, metadata: metadata_of(headers)? })
    }
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty())
}

/// The `x-ms-meta-*` headers.
pub(crate) fn metadata_of(headers: &HeaderMap) -> Result<BTreeMap<String, String>, BlobError> {
    let mut found = BTreeMap::new();
    let mut bytes = 0;
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix("x-ms-meta-") else {
            continue;
        };
        let value = value.to_str().map_err(|_| BlobError::header(name.as_str(), "metadata must be ASCII text"))?;
        bytes += key.len() + value.len();
        if !is_identifier(key) || bytes > MAX_METADATA_BYTES || found.insert(key.to_owned(), value.to_owned()).is_some()
        {
            return Err(BlobError::bad(
                "InvalidMetadata",
                "Metadata needs names of letters, digits and '_' that start with no digit, each given once, and at most 8192 bytes of names and values.",
            ));
        }
    }
    Ok(found)
}

/// Names become headers and elements of XML again, so they are what both can hold.
fn is_identifier(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
}

/// A blob as it is now.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    pub(crate) meta: ObjectMeta,
    pub(crate) properties: Option<Properties>,
}

impl Blob {
    /// Quoted; changes with bytes, headers and metadata.
    pub(crate) fn etag(&self) -> String {
        let mark = ContentMark::of(&self.meta);
        let revision = self.properties.as_ref().map_or(0, |properties| properties.revision);
        let text = format!("{} {} {revision}", mark.size, mark.modified_nanos);
        let digest = digest::digest(&digest::SHA256, text.as_bytes());
        let hex: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02X}")).collect();
        format!("\"0x{hex}\"")
    }

    /// When bytes, headers or metadata last changed, in whole seconds since 1970.
    pub(crate) fn modified(&self) -> i64 {
        let changed = self.properties.as_ref().map_or(i64::MIN, |properties| properties.changed);
        self.meta.last_modified.timestamp().max(changed)
    }

    pub(crate) fn created(&self) -> i64 {
        self.properties.as_ref().map_or_else(|| self.meta.last_modified.timestamp(), |properties| properties.created)
    }

    pub(crate) fn content_type(&self) -> &str {
        let headers = self.properties.as_ref().map(|properties| &properties.headers);
        headers.and_then(|headers| headers.get("content-type")).map_or("application/octet-stream", String::as_str)
    }

    pub(crate) fn metadata(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.properties.iter().flat_map(|properties| &properties.metadata);
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The headers of a HEAD or GET answer. `whole` says whether the answer carries all bytes.
    pub(crate) fn show(&self, whole: bool) -> HeaderMap {
        let mut shown = HeaderMap::new();
        let mut set = |name: &str, value: &str| {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
                shown.insert(name, value);
            }
        };
        set("content-type", self.content_type());
        if let Some(properties) = &self.properties {
            properties.headers.iter().for_each(|(name, value)| set(name, value));
            if let Some(md5) = &properties.md5 {
                set(if whole { "content-md5" } else { "x-ms-blob-content-md5" }, md5);
            }
        }
        for (name, value) in self.metadata() {
            set(&format!("x-ms-meta-{name}"), value);
        }
        set("etag", &self.etag());
        set("last-modified", &http_date(self.modified()));
        set("x-ms-creation-time", &http_date(self.created()));
        set("x-ms-blob-type", "BlockBlob");
        set("x-ms-lease-status", "unlocked");
        set("x-ms-lease-state", "available");
        set("x-ms-server-encrypted", "false");
        set("accept-ranges", "bytes");
        shown
    }
}

/// A moment as HTTP dates want it; seconds since 1970.
pub(crate) fn http_date(seconds: i64) -> String {
    let since = std::time::Duration::from_secs(seconds.clamp(0, 253_402_300_799).unsigned_abs());
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + since)
}

/// A new revision number.
pub(crate) fn new_revision() -> u128 {
    uuid::Uuid::new_v4().as_u128()
}

/// Properties of bytes just published.
pub(crate) fn describe(described: Described, meta: &ObjectMeta, created: Option<i64>, now: Timestamp) -> Properties {
    let now = now.as_second();
    Properties {
        content: ContentMark::of(meta),
        created: created.unwrap_or(now),
        changed: now,
        revision: new_revision(),
        headers: described.headers,
        md5: described.md5,
        metadata: described.metadata,
    }
}
