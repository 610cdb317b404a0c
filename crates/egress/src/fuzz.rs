//! What must hold for whatever a client says first. The targets in `fuzz/` run these on raw bytes, the tests below on
//! bytes that look likely; each panics when a promise is broken.

use casemate_model::egress::HostName;

pub use crate::dns::fuzz::dns_packets;
use crate::{
    hello::{MAX_HELLO, Reader},
    http::{Scan, request},
};

/// Bytes that pass as a TLS hello hold the approved name, and pass however they are cut into pieces; what passes never
/// passes for another name.
pub fn client_hello(bytes: &[u8], cut: usize) {
    let (Ok(name), Ok(other)) = (HostName::parse("approved.example"), HostName::parse("other.example")) else { return };
    let whole = Reader::default().take(bytes, &name).is_ok_and(|complete| complete);
    let mut reader = Reader::default();
    let pieces: Result<Vec<bool>, _> = bytes.chunks(cut.max(1)).map(|piece| reader.take(piece, &name)).collect();
    if whole {
        assert!(bytes.len() > 60, "a hello passed that has no room for a name");
        assert!(!Reader::default().take(bytes, &other).is_ok_and(|complete| complete), "a hello passed for two names");
    }
    if bytes.len() <= MAX_HELLO && pieces.is_ok_and(|pieces| pieces.last() == Some(&true)) {
        assert!(whole, "a hello passed in pieces only");
    }
}

/// A request that passes is for the approved host alone, and what goes on in its place passes again and means the same.
pub fn http_request(bytes: &[u8]) {
    let Ok(name) = HostName::parse("approved.example") else { return };
    let Ok(Some(length)) = Scan::default().find(bytes) else { return };
    let head = bytes.get(..length).unwrap_or_default();
    let Ok(first) = request(head, &name, 80) else { return };
    assert_eq!(
        Scan::default().find(&first.head).ok().flatten(),
        Some(first.head.len()),
        "what goes on is not one head"
    );
    let second = request(&first.head, &name, 80);
    assert_eq!(second.as_ref(), Ok(&first), "what goes on means something else");
    let text = String::from_utf8_lossy(&first.head).to_ascii_lowercase();
    assert_eq!(text.matches("\r\nhost:").count(), 1);
    let hosts =
        ["\r\nhost: approved.example\r\n", "\r\nhost: approved.example.\r\n", "\r\nhost: approved.example:80\r\n"];
    assert!(
        hosts.iter().any(|host| text.contains(host)) || text.contains("\r\nhost: approved.example.:80\r\n"),
        "{text}"
    );
    let framings = text.matches("\r\ncontent-length:").count() + text.matches("\r\ntransfer-encoding:").count();
    assert!(framings <= 1, "{text}");
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, test_runner::RngSeed};

    use super::*;

    /// Pieces of heads, right and wrong, in any order.
    fn head() -> impl Strategy<Value = String> {
        let piece = prop::sample::select(vec![
            "Host: approved.example\r\n",
            "host: Approved.Example:80\r\n",
            "Host: evil.example\r\n",
            "Host : approved.example\r\n",
            "Content-Length: 5\r\n",
            "content-length: 05\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Connection: upgrade, close, host\r\n",
            "Upgrade: websocket\r\n",
            "Upgrade: h2c\r\n",
            "X: y\n",
            "X: \r y\r\n",
            " folded\r\n",
            "A: \u{e4}\r\n",
            "\r\n",
        ]);
        let method = prop::sample::select(vec!["GET", "HEAD", "POST", "CONNECT", "PRI", "get", ""]);
        let target = prop::sample::select(vec![
            "/",
            "*",
            "/a?b#c",
            "http://evil.example/",
            "http://approved.example/",
            "//evil.example/",
            "",
        ]);
        let version = prop::sample::select(vec!["HTTP/1.1\r\n", "HTTP/1.0\r\n", "HTTP/2.0\r\n", "HTTP/1.1\n", "\r\n"]);
        (method, target, version, prop::collection::vec(piece, 0..6))
            .prop_map(|(method, target, version, pieces)| format!("{method} {target} {version}{}\r\n", pieces.concat()))
    }

    /// A hello with likely extensions, then cut, doubled or changed somewhere.
    fn hello() -> impl Strategy<Value = Vec<u8>> {
        let name = |name: &str| {
            let length = u8::try_from(name.len()).unwrap();
            [&[0, 0, 0, length + 5, 0, length + 3, 0, 0, length][..], name.as_bytes()].concat()
        };
        let extension = prop::sample::select(vec![
            name("approved.example"),
            name("other.example"),
            vec![0, 13, 0, 4, 0, 2, 4, 3],
            vec![0xfe, 0x0d, 0, 1, 0],
            vec![0, 43, 0, 3, 2, 3, 4],
            vec![0, 16, 0, 5, 0, 3, 2, b'h', b'2'],
        ]);
        let extensions =
            (prop::bool::ANY, prop::collection::vec(extension, 0..5)).prop_map(move |(likely, mut list)| {
                if likely {
                    list.extend([name("approved.example"), vec![0, 13, 0, 4, 0, 2, 4, 3]]);
                }
                list.concat()
            });
        (extensions, 1_usize..400, prop::option::of((0_usize..300, any::<u8>()))).prop_map(
            |(extensions, size, change)| {
                let mut body = [&[3, 3][..], &[7; 32], &[0, 0, 2, 0x13, 1, 1, 0]].concat();
                body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
                body.extend(extensions);
                let message = [&[1, 0][..], &u16::try_from(body.len()).unwrap().to_be_bytes(), &body].concat();
                let record = |piece: &[u8]| {
                    [&[22, 3, 1][..], &u16::try_from(piece.len()).unwrap().to_be_bytes(), piece].concat()
                };
                let mut bytes: Vec<u8> = message.chunks(size).flat_map(record).collect();
                if let Some((at, byte)) = change {
                    let at = at % bytes.len();
                    bytes[at] = byte;
                }
                bytes
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn likely_requests(head in head()) {
            http_request(head.as_bytes());
        }

        #[test]
        fn likely_hellos(bytes in hello(), cut in 1_usize..200) {
            client_hello(&bytes, cut);
        }

        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 1_usize..50) {
            client_hello(&bytes, cut);
            http_request(&bytes);
        }
    }
}
