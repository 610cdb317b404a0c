//! Blobs that arrive in blocks: staged one by one, in any order, then put together in one step.
//!
//! Staged blocks are plain files, so an upload goes on after a restart. They go when their blob is committed, or
//! when [`crate::BlobStore::sweep`] finds them older than seven days.

use std::collections::{BTreeMap, HashMap};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use futures_util::TryStreamExt;
use object_store::path::Path;
use quick_xml::{Reader, Writer, events::Event};
use serde::{Deserialize, Serialize};

use crate::{
    content::ContentMark,
    disk::Disk,
    error::BlobError,
    listing::element,
    name::{BlobName, ContainerName},
    store::Inner,
    upload::{Incoming, Staged},
};

/// Most blocks of one blob.
const MAX_BLOCKS: usize = 50_000;
/// Largest block list, in bytes of XML.
pub(crate) const MAX_LIST_BYTES: usize = 16 << 20;
/// Longest block id once decoded, in bytes.
const MAX_ID_BYTES: usize = 64;

/// A block's id: the bytes behind the base64 of the request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BlockId(Vec<u8>);

impl BlockId {
    /// Reads the base64 of a request.
    pub(crate) fn parse(text: &str) -> Result<Self, BlobError> {
        match STANDARD.decode(text) {
            Ok(bytes) if !bytes.is_empty() && bytes.len() <= MAX_ID_BYTES => Ok(Self(bytes)),
            _ => Err(BlobError::parameter("blockid", "it must be the base64 of 1 to 64 bytes")),
        }
    }

    pub(crate) fn shown(&self) -> String {
        STANDARD.encode(&self.0)
    }

    fn file_name(&self) -> String {
        URL_SAFE_NO_PAD.encode(&self.0)
    }

    fn from_file_name(name: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(name).ok().map(Self)
    }
}

/// The blocks that a blob is made of, in order; stored beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Committed {
    /// Which bytes they describe; set when those are in place.
    pub(crate) content: Option<ContentMark>,
    /// Base64 id and size in bytes.
    blocks: Vec<(String, u64)>,
}

/// Where one block of a list is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whence {
    Committed,
    Uncommitted,
    Latest,
}

/// Keeps a received block.
pub(crate) async fn keep(
    disk: &Disk,
    container: &ContainerName,
    name: &BlobName,
    id: &BlockId,
    staged: &Staged,
) -> Result<(), BlobError> {
    let to = block_path(container, name, id);
    disk.rename(&staged.at, &to, name.as_str()).await
}

fn block_path(container: &ContainerName, name: &BlobName, id: &BlockId) -> Path {
    Path::from(format!("{}/{}", Disk::staging(container, name), id.file_name()))
}

/// Reads a block list.
///
/// # Errors
/// `InvalidXmlDocument`, or too many blocks.
pub(crate) fn parse_list(xml: &[u8]) -> Result<Vec<(Whence, BlockId)>, BlobError> {
    let bad = |why: &str| BlobError::bad("InvalidXmlDocument", format!("The block list is not usable: {why}."));
    let text = std::str::from_utf8(xml).map_err(|_| bad("it is not UTF-8"))?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}'));
    let shape = || bad("it should hold one BlockList with Committed, Uncommitted and Latest");
    let (mut found, mut open, mut roots) = (Vec::new(), Vec::new(), 0);
    let mut value = String::new();
    loop {
        let event = reader.read_event().map_err(|_| bad("it is not well-formed XML"))?;
        match (event, open.len()) {
            (Event::Start(start), depth) => {
                let fits = if depth == 0 { start.name().as_ref() == "BlockList" } else { depth == 1 };
                roots += usize::from(depth == 0);
                if !fits || roots > 1 {
                    return Err(shape());
                }
                open.push(start.name().as_ref().to_owned());
                value.clear();
            }
            (Event::Text(part), 2) => value.push_str(&part),
            (Event::Text(part), _) if part.trim().is_empty() => {}
            (Event::End(_), depth) => {
                let name = open.pop().unwrap_or_default();
                if depth == 2 {
                    found.push((whence(&name).ok_or_else(shape)?, BlockId::parse(value.trim())?));
                }
                if found.len() > MAX_BLOCKS {
                    return Err(BlobError::bad("BlockListTooLong", "The block list names more than 50,000 blocks."));
                }
            }
            (Event::Empty(only), 0) if only.name().as_ref() == "BlockList" && roots == 0 => roots += 1,
            (Event::Decl(_) | Event::Comment(_), _) => {}
            (Event::Eof, 0) if roots == 1 => return Ok(found),
            _ => return Err(shape()),
        }
    }
}

fn whence(element: &str) -> Option<Whence> {
    match element {
        "Committed" => Some(Whence::Committed),
        "Uncommitted" => Some(Whence::Uncommitted),
        "Latest" => Some(Whence::Latest),
        _ => None,
    }
}

/// Where the bytes of one block are now.
#[derive(Debug, Clone)]
struct Piece {
    at: Path,
    start: u64,
    size: u64,
}

/// What is known of a blob's blocks.
struct Known {
    committed: Vec<(BlockId, Piece)>,
    uncommitted: BTreeMap<BlockId, Piece>,
}

async fn known(inner: &Inner, container: &ContainerName, name: &BlobName) -> Result<Known, BlobError> {
    let mut uncommitted = BTreeMap::new();
    let mut staged = inner.disk.list(&Disk::staging(container, name));
    while let Some(meta) = staged.try_next().await? {
        if let Some(id) = meta.location.filename().and_then(BlockId::from_file_name) {
            uncommitted.insert(id, Piece { at: meta.location, start: 0, size: meta.size });
        }
        if uncommitted.len() > 2 * MAX_BLOCKS {
            return Err(BlobError::bad("BlockCountExceedsLimit", "The blob has more than 100,000 uncommitted blocks."));
        }
    }
    let mut committed = Vec::new();
    if let Some(meta) = inner.disk.head(&name.location("data", container)).await? {
        let stored: Option<Committed> = inner.disk.read_json(&name.location("blocklists", container)).await?;
        let stored = stored.filter(|stored| stored.content == Some(ContentMark::of(&meta)));
        let mut start = 0;
        for (id, size) in stored.into_iter().flat_map(|stored| stored.blocks) {
            committed.push((BlockId::parse(&id)?, Piece { at: meta.location.clone(), start, size }));
            start += size;
        }
    }
    Ok(Known { committed, uncommitted })
}

/// Puts the listed blocks together into one file, not yet shown. Answers it with the list to be stored beside it,
/// and the staged blocks to drop once the blob is in place.
pub(crate) async fn assemble(
    inner: &Inner,
    container: &ContainerName,
    name: &BlobName,
    list: &[(Whence, BlockId)],
) -> Result<(Staged, Committed, Vec<Path>), BlobError> {
    let known = known(inner, container, name).await?;
    let committed: HashMap<&BlockId, &Piece> = known.committed.iter().map(|(id, piece)| (id, piece)).collect();
    let mut pieces = Vec::with_capacity(list.len());
    for (whence, id) in list {
        let staged = known.uncommitted.get(id).filter(|_| *whence != Whence::Committed);
        let stored = committed.get(id).copied().filter(|_| *whence != Whence::Uncommitted);
        let piece = staged.or(stored).ok_or_else(|| {
            BlobError::bad(
                "InvalidBlockList",
                format!("The specified block list is invalid: the block '{}' was not uploaded, or expired. Upload it again.", id.shown()),
            )
        })?;
        pieces.push(piece.clone());
    }
    let size: u64 = pieces.iter().map(|piece| piece.size).sum();
    let limit = inner.config.max_blob_bytes;
    if size > limit {
        return Err(BlobError::too_large(size, limit));
    }
    let blocks = list.iter().zip(&pieces).map(|((_, id), piece)| (id.shown(), piece.size)).collect();
    let mut incoming = Incoming::start(&inner.disk, Some(size), limit).await?;
    for piece in pieces {
        let mut bytes = inner.disk.read(&piece.at, piece.start..piece.start + piece.size).await?;
        while let Some(part) =
            bytes.try_next().await.map_err(|error| BlobError::from_io("reading a block", "", &error))?
        {
            incoming.push(part).await?;
        }
    }
    let staged = incoming.finish().await?;
    let used = known.uncommitted.into_values().map(|piece| piece.at).collect();
    Ok((staged, Committed { content: None, blocks }, used))
}

/// The answer to `GET ?comp=blocklist`.
pub(crate) async fn show(
    inner: &Inner,
    container: &ContainerName,
    name: &BlobName,
    which: &str,
) -> Result<String, BlobError> {
    let known = known(inner, container, name).await?;
    let committed = matches!(which, "" | "committed" | "all").then_some(known.committed);
    let uncommitted = matches!(which, "uncommitted" | "all").then_some(known.uncommitted);
    if committed.is_none() && uncommitted.is_none() {
        return Err(BlobError::parameter("blocklisttype", "it must be committed, uncommitted or all"));
    }
    let mut writer = Writer::new(Vec::new());
    let written = writer.create_element("BlockList").write_inner_content(|writer| {
        if let Some(committed) = committed {
            writer.create_element("CommittedBlocks").write_inner_content(|writer| {
                committed.iter().try_for_each(|(id, piece)| show_block(writer, id, piece))
            })?;
        }
        if let Some(uncommitted) = uncommitted {
            writer.create_element("UncommittedBlocks").write_inner_content(|writer| {
                uncommitted.iter().try_for_each(|(id, piece)| show_block(writer, id, piece))
            })?;
        }
        Ok(())
    });
    written.map_err(|error| BlobError::internal("writing a block list", &error))?;
    crate::listing::document(writer)
}

fn show_block(writer: &mut Writer<Vec<u8>>, id: &BlockId, piece: &Piece) -> std::io::Result<()> {
    writer.create_element("Block").write_inner_content(|writer| {
        element(writer, "Name", &id.shown())?;
        element(writer, "Size", &piece.size.to_string())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_lists() {
        let list = parse_list(
            b"<?xml version='1.0' encoding='utf-8'?>\n<BlockList><Latest>MDA=</Latest>\n<Committed>MDE=</Committed><Uncommitted>MDI=</Uncommitted></BlockList>",
        )
        .unwrap();
        let shown: Vec<(Whence, String)> = list.into_iter().map(|(whence, id)| (whence, id.shown())).collect();
        assert_eq!(
            shown,
            [
                (Whence::Latest, "MDA=".to_owned()),
                (Whence::Committed, "MDE=".to_owned()),
                (Whence::Uncommitted, "MDI=".to_owned())
            ]
        );
        assert_eq!(parse_list(b"<BlockList/>").unwrap(), []);
        assert_eq!(parse_list(b"<BlockList></BlockList>").unwrap(), []);
        for bad in [
            &b"<BlockList><Latest>MDA=</Latest>"[..],
            b"<BlockList><Newest>MDA=</Newest></BlockList>",
            b"<BlockList><Latest>not base64!</Latest></BlockList>",
            b"<BlockList><Latest></Latest></BlockList>",
            b"<BlockList><Latest/></BlockList>",
            b"<BlockList><Latest><x>MDA=</x></Latest></BlockList>",
            b"<Other><Latest>MDA=</Latest></Other>",
            b"<!DOCTYPE a [<!ENTITY x 'y'>]><BlockList/>",
            b"\xff\xfe",
            b"",
            b"text",
            b"<BlockList>text</BlockList>",
            b"<BlockList/><BlockList/>",
            b"<BlockList><Latest>MD&#65;=</Latest></BlockList>",
            b"<BlockList></Wrong>",
        ] {
            assert!(parse_list(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
