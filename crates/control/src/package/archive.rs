//! Reads the archives that the first generation of the SDK makes of a source directory: gzipped tar files with names in
//! the portable (pax) form.
//!
//! An archive comes from outside. Only files and directories are taken, only below the directory given, and not more than
//! a bounded number of bytes; the rest is refused by name.

use std::{
    fs,
    io::{self, BufReader, Read},
    path::{Component, Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry, EntryType, PaxExtensions};

/// Most files and directories.
const MAX_ENTRIES: usize = 50_000;
/// Most bytes of all contents.
const MAX_BYTES: u64 = 1 << 30;
/// Longest extended header, in bytes; names are in it.
const MAX_EXTENDED: u64 = 64 << 10;

/// Unpacks the archive into the directory, which exists.
///
/// # Errors
/// `InvalidData` saying what is wrong with the archive; otherwise what the disk says.
pub fn unpack(archive: &Path, target: &Path) -> io::Result<()> {
    let source = BufReader::new(fs::File::open(archive)?);
    unpack_from(MultiGzDecoder::new(source), target)
}

fn unpack_from(source: impl Read, target: &Path) -> io::Result<()> {
    let mut archive = Archive::new(source);
    let mut left = MAX_BYTES;
    let mut long_name = None;
    // Extended headers are read here, since the library would take them of any length.
    for (count, entry) in archive.entries()?.raw(true).enumerate() {
        let mut entry = entry.map_err(|error| bad(format!("it is damaged, or not an archive: {error}")))?;
        if count == MAX_ENTRIES {
            return Err(bad(format!("it holds more than {MAX_ENTRIES} files")));
        }
        match entry.header().entry_type() {
            EntryType::XHeader => long_name = name_in(&extended(&mut entry)?)?,
            EntryType::GNULongName => {
                let name = extended(&mut entry)?;
                long_name = Some(text(name.split(|byte| *byte == 0).next().unwrap_or_default())?);
            }
            // Comments for the whole archive.
            EntryType::XGlobalHeader => {}
            kind => {
                let own = entry.path_bytes();
                let name = long_name.take().map_or_else(|| text(&own), Ok)?;
                left = left
                    .checked_sub(entry.size())
                    .ok_or_else(|| bad(format!("it holds more than {MAX_BYTES} bytes")))?;
                put(&mut entry, kind, &name, target)?;
            }
        }
    }
    Ok(())
}

/// Makes the file or directory of one entry.
fn put(entry: &mut Entry<'_, impl Read>, kind: EntryType, name: &str, target: &Path) -> io::Result<()> {
    let place = target.join(inside(name)?);
    match kind {
        EntryType::Directory => fs::create_dir_all(&place),
        EntryType::Regular | EntryType::Continuous => {
            if let Some(parent) = place.parent() {
                fs::create_dir_all(parent)?;
            }
            copy(entry, &mut fs::File::create_new(place)?)
        }
        EntryType::Link | EntryType::Symlink => {
            Err(bad(format!("'{}' is a link; only files and directories are taken", name.escape_debug())))
        }
        _ => Err(bad(format!("'{}' is neither a file nor a directory", name.escape_debug()))),
    }
}

fn bad(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// The contents of an extended header.
fn extended(entry: &mut Entry<'_, impl Read>) -> io::Result<Vec<u8>> {
    if entry.size() > MAX_EXTENDED {
        return Err(bad(format!("an extended header in it is longer than {MAX_EXTENDED} bytes")));
    }
    let mut found = Vec::new();
    copy(entry, &mut found)?;
    Ok(found)
}

/// The name that the records of an extended header give to the next entry.
fn name_in(records: &[u8]) -> io::Result<Option<String>> {
    let mut name = None;
    for record in PaxExtensions::new(records) {
        let record = record.map_err(|_| bad("an extended header in it can't be read".to_owned()))?;
        match record.key_bytes() {
            b"path" => name = Some(text(record.value_bytes())?),
            // Only written where a header has no room for the size, which is then far beyond the bound.
            b"size" => return Err(bad(format!("it holds more than {MAX_BYTES} bytes"))),
            _ => {}
        }
    }
    Ok(name)
}

fn copy(entry: &mut Entry<'_, impl Read>, target: &mut impl io::Write) -> io::Result<()> {
    let size = entry.size();
    let copied = io::copy(entry, target).map_err(|error| match error.kind() {
        // What the decoder says of bytes that are not its own.
        io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => bad(format!("it can't be unpacked: {error}")),
        _ => error,
    })?;
    if copied < size { Err(bad("it ends in the middle".to_owned())) } else { Ok(()) }
}

fn text(bytes: &[u8]) -> io::Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| bad("a name in it is not UTF-8".to_owned()))
}

/// The path, if it stays inside.
fn inside(name: &str) -> io::Result<PathBuf> {
    let path: PathBuf = Path::new(name).components().filter(|part| *part != Component::CurDir).collect();
    let stays = path.components().all(|part| matches!(part, Component::Normal(_)));
    if stays && !name.contains('\0') {
        return Ok(path);
    }
    Err(bad(format!("'{}' lies outside of the directory", name.escape_debug())))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    const BLOCK: usize = 512;

    /// An archive of entries (type, name, contents).
    fn archive(entries: &[(u8, &str, &[u8])]) -> Vec<u8> {
        let mut all = Vec::new();
        for (kind, name, contents) in entries {
            let mut block = [0; BLOCK];
            block[..name.len()].copy_from_slice(name.as_bytes());
            block[124..135].copy_from_slice(format!("{:011o}", contents.len()).as_bytes());
            block[156] = *kind;
            block[257..263].copy_from_slice(b"ustar\0");
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
            block[154] = 0;
            all.extend_from_slice(&block);
            all.extend_from_slice(contents);
            all.resize(all.len().next_multiple_of(BLOCK), 0);
        }
        all.resize(all.len() + 2 * BLOCK, 0);
        all
    }

    fn unpacked(archive: &[u8]) -> (tempfile::TempDir, io::Result<()>) {
        let dir = tempfile::tempdir().unwrap();
        let outcome = unpack_from(archive, dir.path());
        (dir, outcome)
    }

    #[test]
    fn files_directories_and_long_names() {
        let long = format!("code/{}.py", "n".repeat(150));
        let record = format!(" path={long}\n");
        let length = record.len() + 3;
        let extended = format!("{length}{record}28 mtime=1700000000.1234567\n");
        let all = archive(&[
            (b'5', "code", b""),
            (b'0', "code/score.py", b"def init(): pass\n"),
            (b'0', "code/deep/er/x", &[7; 1000]),
            (b'x', "PaxHeader", extended.as_bytes()),
            (b'0', "cut", b"long"),
        ]);
        let (dir, outcome) = unpacked(&all);
        outcome.unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("code/score.py")).unwrap(), "def init(): pass\n");
        assert_eq!(fs::read(dir.path().join("code/deep/er/x")).unwrap().len(), 1000);
        assert_eq!(fs::read_to_string(dir.path().join(long)).unwrap(), "long");
        assert!(!dir.path().join("cut").exists());

        let gzipped = dir.path().join("x.tar.gz");
        let mut encoder = GzEncoder::new(fs::File::create(&gzipped).unwrap(), Compression::fast());
        encoder.write_all(&all).unwrap();
        encoder.finish().unwrap();
        let target = dir.path().join("again");
        fs::create_dir(&target).unwrap();
        unpack(&gzipped, &target).unwrap();
        assert!(target.join("code/score.py").exists());
    }

    #[test]
    fn refusals() {
        let good = archive(&[(b'0', "a", b"x")]);
        let mut damaged = good.clone();
        damaged[0] = b'b';
        for (what, archive, words) in [
            ("outside", archive(&[(b'0', "../a", b"")]), "outside"),
            ("absolute", archive(&[(b'0', "/etc/a", b"")]), "outside"),
            ("symbolic link", archive(&[(b'2', "a", b"")]), "link"),
            ("hard link", archive(&[(b'1', "a", b"")]), "link"),
            ("device", archive(&[(b'3', "a", b"")]), "neither"),
            ("cut in the contents", archive(&[(b'0', "a", &[7; 1000])])[..BLOCK + 10].to_vec(), "middle"),
            ("cut in the padding", good[..BLOCK + 10].to_vec(), "EOF"),
            ("damaged", damaged, "damaged"),
            ("text", vec![b'x'; 2048], "damaged"),
            ("bad record", archive(&[(b'x', "p", b"99 path=a\n"), (b'0', "a", b"")]), "extended"),
            ("long record", archive(&[(b'x', "p", &[b'1'; 70_000])]), "longer"),
            ("two of one name", archive(&[(b'0', "a", b""), (b'0', "a", b"")]), "exists"),
        ] {
            let (_dir, outcome) = unpacked(&archive);
            let said = outcome.expect_err(what).to_string();
            assert!(said.contains(words), "{what}: {said}");
        }
    }
}
