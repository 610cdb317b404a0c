//! Reads the archives that the first generation of the SDK makes of a source directory: gzipped tar files with names in
//! the portable (pax) form.
//!
//! An archive comes from outside. Only files and directories are taken, only below the directory given, and not more than
//! a bounded number of bytes; the rest is refused by name.

use std::{
    fs,
    io::{self, BufReader, Read, Write},
    path::{Component, Path, PathBuf},
};

use flate2::read::MultiGzDecoder;

/// A header, and what contents are padded to.
const BLOCK: usize = 512;
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
    unpack_from(MultiGzDecoder::new(source), target).map_err(|error| match error.kind() {
        // What the decoder says of bytes that are not its own.
        io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => bad(format!("it can't be unpacked: {error}")),
        _ => error,
    })
}

fn unpack_from(mut source: impl Read, target: &Path) -> io::Result<()> {
    let mut left = MAX_BYTES;
    let mut extended = Extended::default();
    for _ in 0..MAX_ENTRIES {
        let Some(header) = Header::read(&mut source)? else { return Ok(()) };
        let size = extended.size.unwrap_or(header.size);
        match header.kind {
            b'x' => extended.read(&contents(&mut source, header.size)?)?,
            b'L' => {
                let name = contents(&mut source, header.size)?;
                extended.path = Some(text(name.split(|byte| *byte == 0).next().unwrap_or_default())?);
            }
            // Comments for the whole archive.
            b'g' => drop(contents(&mut source, header.size)?),
            kind => {
                let name = extended.path.take().unwrap_or(header.name);
                extended = Extended::default();
                let place = target.join(inside(&name)?);
                left = left.checked_sub(size).ok_or_else(|| bad(format!("it holds more than {MAX_BYTES} bytes")))?;
                match kind {
                    b'5' => fs::create_dir_all(&place)?,
                    b'0' | 0 | b'7' => write(&mut source, size, &place)?,
                    b'1' | b'2' => {
                        return Err(bad(format!(
                            "'{}' is a link; only files and directories are taken",
                            name.escape_debug()
                        )));
                    }
                    _ => return Err(bad(format!("'{}' is neither a file nor a directory", name.escape_debug()))),
                }
            }
        }
    }
    Err(bad(format!("it holds more than {MAX_ENTRIES} files")))
}

fn bad(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// One header.
struct Header {
    name: String,
    size: u64,
    kind: u8,
}

impl Header {
    /// The next header; none at the archive's end.
    fn read(source: &mut impl Read) -> io::Result<Option<Self>> {
        let mut block = [0; BLOCK];
        match source.read_exact(&mut block) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(bad("it ends in the middle".to_owned()));
            }
            read => read.map_err(|error| bad(format!("it can't be unpacked: {error}")))?,
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(at, byte)| u64::from(if (148..156).contains(&at) { b' ' } else { *byte }))
            .sum();
        if octal(&block[148..156]) != Some(sum) {
            return Err(bad("it is damaged, or not an archive".to_owned()));
        }
        let name = field(&block[..100])?;
        let prefix = if &block[257..262] == b"ustar" { field(&block[345..500])? } else { String::new() };
        let name = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        let size = octal(&block[124..136]).ok_or_else(|| bad("a size in it can't be read".to_owned()))?;
        Ok(Some(Self { name, size, kind: block[156] }))
    }
}

/// What an extended header says of the next entry.
#[derive(Default)]
struct Extended {
    path: Option<String>,
    size: Option<u64>,
}

impl Extended {
    /// Reads records of the form `LENGTH KEY=VALUE\n`.
    fn read(&mut self, mut records: &[u8]) -> io::Result<()> {
        let broken = || bad("an extended header in it can't be read".to_owned());
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
            let length: usize = text(&records[..space])?.parse().map_err(|_| broken())?;
            let record =
                records.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(broken)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
            let value = &record[equals + 1..];
            match &record[..equals] {
                b"path" => self.path = Some(text(value)?),
                b"size" => self.size = Some(text(value)?.parse().map_err(|_| broken())?),
                _ => {}
            }
            records = &records[length..];
        }
        Ok(())
    }
}

/// A small entry's contents with their padding, the latter thrown away.
fn contents(source: &mut impl Read, size: u64) -> io::Result<Vec<u8>> {
    if size > MAX_EXTENDED {
        return Err(bad(format!("an extended header in it is longer than {MAX_EXTENDED} bytes")));
    }
    let mut found = Vec::new();
    copy(source, size, &mut found)?;
    Ok(found)
}

fn write(source: &mut impl Read, size: u64, place: &Path) -> io::Result<()> {
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = fs::File::create_new(place)?;
    copy(source, size, &mut file)
}

/// Copies `size` bytes and skips their padding.
fn copy(source: &mut impl Read, size: u64, target: &mut impl Write) -> io::Result<()> {
    if io::copy(&mut source.by_ref().take(size), target)? < size {
        return Err(bad("it ends in the middle".to_owned()));
    }
    let padding = size.next_multiple_of(BLOCK as u64) - size;
    io::copy(&mut source.by_ref().take(padding), &mut io::sink())?;
    Ok(())
}

/// A field up to its first NUL.
fn field(bytes: &[u8]) -> io::Result<String> {
    text(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
}

fn text(bytes: &[u8]) -> io::Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| bad("a name in it is not UTF-8".to_owned()))
}

/// A number in octal digits, with blanks and NULs around.
fn octal(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let digits = text.trim_matches(|c: char| c == ' ' || c == '\0');
    u64::from_str_radix(digits, 8).ok()
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
    use flate2::{Compression, write::GzEncoder};

    use super::*;

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
            ("cut off", good[..BLOCK + 10].to_vec(), "middle"),
            ("cut in the padding of the end", good[..2 * BLOCK].to_vec(), "middle"),
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
