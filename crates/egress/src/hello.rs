//! The first thing that a TLS client says: read whole before anything goes upstream, and checked against the approved
//! name.
//!
//! rustls reads the hello, so that what counts as one is what a TLS library takes for one. Beyond that the bytes are
//! walked once more, to refuse what two readers could understand differently: more than one server name, an extension
//! twice, anything behind the name. Both readers must find the same name, and it must be the approved one to the letter
//! (of either case).
//!
//! Every Encrypted Client Hello extension is refused, also the meaningless one (GREASE) that some browsers send: by
//! design nobody between the ends can tell one from the other. Python, curl, OpenSSL, Go, Java and rustls send none unless
//! told to.
//!
//! What comes after the hello is the client's and its server's own: it goes to the one upstream that the name led to, so a
//! second hello in the same connection can reach nobody else. Resuming a session is a hello like any other.

use std::io;

use casemate_model::egress::HostName;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Largest hello, with its record headers, in bytes. A post-quantum one has about 1,700.
pub(crate) const MAX_HELLO: usize = 16 << 10;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
/// Encrypted Client Hello (RFC 9849), the marker of its outer extensions, and the draft before it (ESNI).
const ENCRYPTED: [u16; 3] = [0xfe0d, 0xfd00, 0xffce];

/// Why a connection's beginning is not a hello for the approved name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HelloError {
    #[error("the client ended before it had said whom it talks to ({0})")]
    Ended(io::ErrorKind),
    #[error("it does not begin with a TLS hello ({0}); a rule that names another port lets other protocols through")]
    NotTls(String),
    #[error("its TLS hello is larger than {MAX_HELLO} bytes")]
    TooLarge,
    #[error("its TLS hello names no server; connect by name, with server name indication")]
    NoName,
    #[error("its TLS hello can be read in two ways: {0}")]
    Ambiguous(&'static str),
    #[error(
        "its TLS hello hides the server's name (Encrypted Client Hello), which cannot be approved; turn that off in the client"
    )]
    Encrypted,
    #[error("its TLS hello names {0}, which is not the host that was looked up")]
    OtherName(String),
}

/// Reads a whole hello for `name`, and returns every byte that came: the hello and perhaps more. The caller limits the
/// time.
///
/// # Errors
/// When the client ends, or says anything else.
pub(crate) async fn read(client: &mut (impl AsyncRead + Unpin), name: &HostName) -> Result<Vec<u8>, HelloError> {
    let mut reader = Reader::default();
    let mut chunk = [0; 2048];
    loop {
        let count = client.read(&mut chunk).await.map_err(|error| HelloError::Ended(error.kind()))?;
        if count == 0 {
            return Err(HelloError::Ended(io::ErrorKind::UnexpectedEof));
        }
        if reader.take(&chunk[..count], name)? {
            return Ok(reader.bytes);
        }
    }
}

/// A hello as it comes in.
#[derive(Default)]
pub(crate) struct Reader {
    acceptor: Acceptor,
    bytes: Vec<u8>,
}

impl Reader {
    /// Takes more bytes; true when they complete a hello for `name`.
    pub(crate) fn take(&mut self, chunk: &[u8], name: &HostName) -> Result<bool, HelloError> {
        self.bytes.extend_from_slice(chunk);
        let mut rest = chunk;
        let mut accepted = None;
        while !rest.is_empty() && accepted.is_none() {
            let before = rest.len();
            self.acceptor.read_tls(&mut rest).map_err(|error| HelloError::NotTls(error.to_string()))?;
            accepted = self.acceptor.accept().map_err(|(error, _)| HelloError::NotTls(error.to_string()))?;
            if rest.len() == before {
                break;
            }
        }
        let Some(accepted) = accepted else {
            return if self.bytes.len() > MAX_HELLO { Err(HelloError::TooLarge) } else { Ok(false) };
        };
        let seen = server_name(&self.bytes)?;
        let hello = accepted.client_hello();
        let Some(read) = hello.server_name() else {
            return Err(HelloError::NoName);
        };
        if !seen.eq_ignore_ascii_case(read.as_bytes()) {
            return Err(HelloError::Ambiguous("its server name"));
        }
        if !seen.eq_ignore_ascii_case(name.as_str().as_bytes()) {
            return Err(HelloError::OtherName(seen.escape_ascii().to_string()));
        }
        Ok(true)
    }
}

/// Walks the hello and returns its one server name.
fn server_name(bytes: &[u8]) -> Result<Vec<u8>, HelloError> {
    let message = handshake(bytes)?;
    let mut hello = Cursor(&message);
    let garbled = || HelloError::Ambiguous("its lengths do not add up");
    let mut name = None;
    let mut seen = Vec::new();
    let walked = (|| {
        hello.take(2 + 32)?;
        hello.vector8()?;
        hello.vector16()?;
        hello.vector8()?;
        let mut extensions = Cursor(hello.vector16()?);
        while !extensions.0.is_empty() {
            let (kind, body) = (extensions.number16()?, extensions.vector16()?);
            seen.push(kind);
            if kind == SERVER_NAME {
                name = Some(body);
            }
        }
        hello.0.is_empty().then_some(())
    })();
    walked.ok_or_else(garbled)?;
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    if seen.len() != count {
        return Err(HelloError::Ambiguous("it has an extension twice"));
    }
    if seen.iter().any(|kind| ENCRYPTED.contains(kind)) {
        return Err(HelloError::Encrypted);
    }
    only_name(name.ok_or(HelloError::NoName)?)
}

/// The name in a server name extension that holds one host name and nothing else.
fn only_name(body: &[u8]) -> Result<Vec<u8>, HelloError> {
    let mut body = Cursor(body);
    let mut list = Cursor(body.vector16().unwrap_or_default());
    let name = list.number8().filter(|kind| *kind == 0).and_then(|_| list.vector16());
    match name {
        Some(name) if list.0.is_empty() && body.0.is_empty() && !name.is_empty() => Ok(name.to_vec()),
        _ => Err(HelloError::Ambiguous("it does not have exactly one server name")),
    }
}

/// The body of the first handshake message, put together from its records.
fn handshake(bytes: &[u8]) -> Result<Vec<u8>, HelloError> {
    let mut records = Cursor(bytes);
    let mut message = Vec::new();
    loop {
        let record = (records.number8(), records.number16(), records.vector16());
        let (Some(HANDSHAKE), Some(_), Some(payload)) = record else {
            return Err(HelloError::Ambiguous("its records do not add up"));
        };
        if payload.is_empty() {
            return Err(HelloError::Ambiguous("it has an empty record"));
        }
        message.extend_from_slice(payload);
        if message.len() > MAX_HELLO {
            return Err(HelloError::TooLarge);
        }
        let mut cursor = Cursor(&message);
        if let (Some(kind), Some(high), Some(low)) = (cursor.number8(), cursor.number8(), cursor.number16()) {
            if kind != CLIENT_HELLO {
                return Err(HelloError::Ambiguous("it begins with another message"));
            }
            let length = usize::from(high) << 16 | usize::from(low);
            if cursor.0.len() > length {
                return Err(HelloError::Ambiguous("something follows in the same record"));
            }
            if cursor.0.len() == length {
                return Ok(message.split_off(4));
            }
        }
    }
}

/// Numbers and vectors of TLS, never past the end.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number8(&mut self) -> Option<u8> {
        self.take(1).and_then(|bytes| bytes.first().copied())
    }

    fn number16(&mut self) -> Option<u16> {
        self.take(2).and_then(|bytes| bytes.try_into().ok()).map(u16::from_be_bytes)
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let length = self.number8()?;
        self.take(length.into())
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let length = self.number16()?;
        self.take(length.into())
    }
}
