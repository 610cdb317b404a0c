//! Listings of a container, one page at a time, in order of name, as XML.

use std::collections::BTreeMap;

use futures_util::TryStreamExt;
use object_store::{ObjectMeta, path::Path};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use quick_xml::{
    Writer,
    events::{BytesDecl, BytesText, Event},
};

use crate::{
    content::{Blob, ContentMark, http_date},
    error::BlobError,
    name::{BlobName, ContainerName},
    query::Query,
    store::Inner,
};

/// Most entries of one page.
const MAX_RESULTS: usize = 5000;

/// What is asked for.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) prefix: String,
    pub(crate) delimiter: String,
    /// Entries after this one only.
    pub(crate) marker: String,
    pub(crate) limit: usize,
    /// Only blobs in this directory (or that are it); empty for all.
    pub(crate) directory: String,
    pub(crate) metadata: bool,
}

impl Listing {
    pub(crate) fn from_query(query: &Query, directory: String) -> Result<Self, BlobError> {
        let limit = match query.text("maxresults") {
            "" => MAX_RESULTS,
            given => match given.parse::<usize>() {
                Ok(limit) if limit > 0 => limit.min(MAX_RESULTS),
                _ => return Err(BlobError::parameter("maxresults", "it must be a number from 1")),
            },
        };
        Ok(Self {
            prefix: query.text("prefix").to_owned(),
            delimiter: query.text("delimiter").to_owned(),
            marker: query.text("marker").to_owned(),
            limit,
            directory,
            metadata: query.text("include").split(',').any(|part| part.eq_ignore_ascii_case("metadata")),
        })
    }
}

/// One page.
#[derive(Debug)]
pub(crate) struct Page {
    /// By name: a blob, or nothing for a prefix that stands for several.
    pub(crate) entries: BTreeMap<String, Option<ObjectMeta>>,
    /// Where the next page starts, if there is one.
    pub(crate) next: Option<String>,
}

/// Walks the container; memory holds one page, however many blobs there are.
pub(crate) async fn page(inner: &Inner, container: &ContainerName, asked: &Listing) -> Result<Page, BlobError> {
    let mut page = Page { entries: BTreeMap::new(), next: None };
    let Some(start) = start_of(container, &asked.prefix) else {
        return Ok(page);
    };
    let base = format!("data/{container}/");
    let mut found = inner.disk.list(&start);
    while let Some(meta) = found.try_next().await? {
        let Some(name) = meta.location.as_ref().strip_prefix(&base) else {
            continue;
        };
        let Some((entry, is_blob)) = entry_of(name, asked) else {
            continue;
        };
        let full = page.entries.len() > asked.limit;
        if full && page.entries.last_key_value().is_some_and(|(last, _)| entry > last.as_str()) {
            continue;
        }
        page.entries.insert(entry.to_owned(), is_blob.then_some(meta));
        if page.entries.len() > asked.limit + 1 {
            page.entries.pop_last();
        }
    }
    if page.entries.len() > asked.limit {
        page.entries.pop_last();
        page.next = page.entries.last_key_value().map(|(last, _)| last.clone());
    }
    Ok(page)
}

/// The directory that every match lies in, or nothing when the prefix can match no name.
fn start_of(container: &ContainerName, prefix: &str) -> Option<Path> {
    let directory = prefix.rsplit_once('/').map_or("", |(directory, _)| directory);
    match directory {
        "" => Some(Path::from(format!("data/{container}"))),
        directory => Some(BlobName::parse(directory).ok()?.location("data", container)),
    }
}

/// The entry that a name makes in the listing, and whether it is the blob itself.
fn entry_of<'a>(name: &'a str, asked: &Listing) -> Option<(&'a str, bool)> {
    let rest = name.strip_prefix(&asked.prefix)?;
    let inside = name.strip_prefix(&asked.directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !asked.directory.is_empty() && !inside {
        return None;
    }
    let cut = (!asked.delimiter.is_empty()).then(|| rest.find(&asked.delimiter)).flatten();
    let (entry, is_blob) = match cut {
        Some(at) => (&name[..asked.prefix.len() + at + asked.delimiter.len()], false),
        None => (name, true),
    };
    (entry > asked.marker.as_str()).then_some((entry, is_blob))
}

/// The page as XML.
pub(crate) async fn show(
    inner: &Inner,
    container: &ContainerName,
    asked: &Listing,
    page: Page,
) -> Result<String, BlobError> {
    let mut blobs = Vec::with_capacity(page.entries.len());
    for (name, meta) in page.entries {
        let Some(meta) = meta else {
            blobs.push((name, None));
            continue;
        };
        let parsed = BlobName::parse(&name)?;
        let properties = inner.disk.properties(container, &parsed, ContentMark::of(&meta)).await?;
        blobs.push((name, Some(Blob { meta, properties })));
    }
    let mut writer = Writer::new(Vec::new());
    let root = writer.create_element("EnumerationResults").with_attribute(("ContainerName", container.as_str()));
    let written = root.write_inner_content(|writer| {
        let limit = asked.limit.to_string();
        for (tag, value) in [
            ("Prefix", asked.prefix.as_str()),
            ("Marker", asked.marker.as_str()),
            ("MaxResults", limit.as_str()),
            ("Delimiter", asked.delimiter.as_str()),
        ] {
            if !value.is_empty() {
                element(writer, tag, value)?;
            }
        }
        writer.create_element("Blobs").write_inner_content(|writer| {
            blobs.iter().try_for_each(|(name, blob)| show_entry(writer, name, blob.as_ref(), asked.metadata))
        })?;
        element(writer, "NextMarker", page.next.as_deref().unwrap_or_default())
    });
    written.map_err(|error| BlobError::internal("writing a listing", &error))?;
    document(writer)
}

fn show_entry(writer: &mut Writer<Vec<u8>>, name: &str, blob: Option<&Blob>, metadata: bool) -> std::io::Result<()> {
    let Some(blob) = blob else {
        let prefix = writer.create_element("BlobPrefix");
        return prefix.write_inner_content(|writer| element(writer, "Name", name)).map(|_| ());
    };
    let entry = writer.create_element("Blob");
    let written = entry.write_inner_content(|writer| {
        element(writer, "Name", name)?;
        writer.create_element("Properties").write_inner_content(|writer| {
            element(writer, "Creation-Time", &http_date(blob.created()))?;
            element(writer, "Last-Modified", &http_date(blob.modified()))?;
            element(writer, "Etag", blob.etag().trim_matches('"'))?;
            element(writer, "Content-Length", &blob.meta.size.to_string())?;
            element(writer, "Content-Type", blob.content_type())?;
            if let Some(md5) = blob.properties.as_ref().and_then(|properties| properties.md5.as_deref()) {
                element(writer, "Content-MD5", md5)?;
            }
            element(writer, "BlobType", "BlockBlob")?;
            element(writer, "LeaseStatus", "unlocked")?;
            element(writer, "LeaseState", "available")
        })?;
        if metadata {
            writer.create_element("Metadata").write_inner_content(|writer| {
                blob.metadata().try_for_each(|(name, value)| element(writer, name, value))
            })?;
        }
        Ok(())
    });
    written.map(|_| ())
}

/// `<tag>value</tag>`, escaped. A value with a character that XML does not have is percent-encoded, and marked so, as
/// clients expect of names.
pub(crate) fn element(writer: &mut Writer<Vec<u8>>, tag: &str, value: &str) -> std::io::Result<()> {
    let element = writer.create_element(tag);
    if value.chars().all(is_xml) {
        return element.write_text_content(BytesText::new(value)).map(|_| ());
    }
    let encoded = utf8_percent_encode(value, NON_ALPHANUMERIC).to_string();
    element.with_attribute(("Encoded", "true")).write_text_content(BytesText::new(&encoded)).map(|_| ())
}

/// Whether XML 1.0 has this character.
pub(crate) fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// The document with its declaration in front.
pub(crate) fn document(writer: Writer<Vec<u8>>) -> Result<String, BlobError> {
    let mut whole = Writer::new(Vec::new());
    let declared = whole.write_event(Event::Decl(BytesDecl::new("1.0", Some("utf-8"), None)));
    declared.map_err(|error| BlobError::internal("writing XML", &error))?;
    let mut bytes = whole.into_inner();
    bytes.extend(writer.into_inner());
    String::from_utf8(bytes).map_err(|error| BlobError::internal("writing XML", &error))
}
