//! Bodies, copied by their own framing, so that it is known where each ends.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::head::Body;
use crate::relay::{Means, Way};

/// Longest line of chunked coding (a size with its extensions, or a trailer), in bytes.
const MAX_LINE: usize = 4 << 10;
/// Most trailer lines.
const MAX_TRAILERS: usize = 32;
/// What is read at once at first, and in the middle of a large body.
const SMALL: usize = 8 << 10;
const LARGE: usize = 64 << 10;

/// One direction's source, with what has been read and not yet used.
pub(crate) struct Inbox<R> {
    reader: R,
    pub(crate) bytes: BytesMut,
    size: usize,
}

impl<R: AsyncRead + Unpin> Inbox<R> {
    pub(crate) fn new(reader: R, bytes: BytesMut) -> Self {
        Self { reader, bytes, size: SMALL }
    }

    /// Reads more; 0 at the end. Nothing is lost when it is given up.
    pub(crate) async fn fill(&mut self) -> io::Result<usize> {
        self.bytes.reserve(self.size);
        let count = self.reader.read_buf(&mut self.bytes).await?;
        self.size = if count >= self.size { LARGE } else { SMALL };
        Ok(count)
    }

    /// Gives back memory that only a large body needed.
    pub(crate) fn rest(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.fill().await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Copies one body; what follows it stays in the inbox.
///
/// # Errors
/// When either end fails, or the framing is broken (`InvalidData`): then nothing more may be sent.
pub(crate) async fn copy(
    means: Means<'_>,
    way: Way,
    body: Body,
    from: &mut Inbox<impl AsyncRead + Unpin>,
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    match body {
        Body::None => Ok(()),
        Body::Length(length) => copy_length(means, way, length, from, to).await,
        Body::Chunked => copy_chunked(means, way, from, to).await,
        Body::UntilEnd => loop {
            if from.bytes.is_empty() && from.fill().await? == 0 {
                return Ok(());
            }
            let count = from.bytes.len();
            means.write(way, to, &from.bytes).await?;
            from.bytes.advance(count);
        },
    }
}

async fn copy_length(
    means: Means<'_>,
    way: Way,
    mut left: u64,
    from: &mut Inbox<impl AsyncRead + Unpin>,
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    while left > 0 {
        if from.bytes.is_empty() {
            from.more().await?;
        }
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(from.bytes.len());
        means.write(way, to, from.bytes.get(..count).unwrap_or_default()).await?;
        from.bytes.advance(count);
        left -= count as u64;
    }
    Ok(())
}

async fn copy_chunked(
    means: Means<'_>,
    way: Way,
    from: &mut Inbox<impl AsyncRead + Unpin>,
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    loop {
        let line = read_line(from).await?;
        let size = chunk_size(&line).ok_or_else(|| broken("a chunk's size"))?;
        // Only the size goes on: extensions mean nothing between the ends, and readers disagree on them.
        means.write(way, to, format!("{size:x}\r\n").as_bytes()).await?;
        if size == 0 {
            break;
        }
        copy_length(means, way, size, from, to).await?;
        if !read_line(from).await?.is_empty() {
            return Err(broken("a chunk's end"));
        }
        means.write(way, to, b"\r\n").await?;
    }
    for _ in 0..MAX_TRAILERS {
        let mut line = read_line(from).await?;
        let last = line.is_empty();
        if !last && !is_trailer(&line) {
            return Err(broken("a trailer"));
        }
        // A server that takes trailers for headers could take another host from them: those of requests go no further.
        if last || way == Way::In {
            line.extend_from_slice(b"\r\n");
            means.write(way, to, &line).await?;
        }
        if last {
            return Ok(());
        }
    }
    Err(broken("too many trailers"))
}

/// A line that ends in CR LF, without that end. It holds neither elsewhere, and no other control character.
async fn read_line(from: &mut Inbox<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut looked = 0;
    loop {
        if let Some(at) = from.bytes.get(looked..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n')) {
            let line = from.bytes.split_to(looked + at + 1);
            return match line.strip_suffix(b"\r\n") {
                Some(line) if line.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..)) => Ok(line.to_vec()),
                _ => Err(broken("a line")),
            };
        }
        looked = from.bytes.len();
        if looked > MAX_LINE {
            return Err(broken("a line too long"));
        }
        from.more().await?;
    }
}

/// The size in `1a2b` or `1a2b;name=value`.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, rest) = line.split_at_checked(end)?;
    let extension = rest.iter().find(|byte| !matches!(byte, b' ' | b'\t'));
    if digits.is_empty() || digits.len() > 15 || extension.is_some_and(|byte| *byte != b';') {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn is_trailer(line: &[u8]) -> bool {
    let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
    let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    name.len() < line.len() && !name.is_empty() && name.iter().all(token)
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the framing of a body is broken: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_sizes() {
        for (line, size) in [
            ("0", Some(0)),
            ("1aB", Some(0x1ab)),
            ("5;x=y", Some(5)),
            ("5 ;x", Some(5)),
            ("", None),
            (";x", None),
            ("0x5", None),
            ("+5", None),
            ("-1", None),
            (" 5", None),
            ("5 6", None),
            ("5_", None),
            ("ffffffffffffffff", None),
        ] {
            assert_eq!(chunk_size(line.as_bytes()), size, "{line}");
        }
    }
}
