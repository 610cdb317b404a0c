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
        let shown = bytes.to_ascii_lowercase();
        assert!(shown.windows(16).any(|window| window == b"approved.example"), "a hello passed without the name");
        assert!(bytes.len() > 40);
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
    let Some(head) = bytes.get(..length) else { panic!("a head is longer than what was read") };
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
