//! The heads of requests and answers. Requests are read so strictly that no server can read them differently; what goes
//! on is written anew from what was read.

use casemate_model::egress::HostName;

use super::answer::Refusal;

/// Largest head, in bytes.
pub(crate) const MAX_HEAD: usize = 32 << 10;
/// Most headers.
const MAX_HEADERS: usize = 128;
/// What may stay in a `Connection` header; a client could name others to have the next server drop them.
const CONNECTION: [&str; 4] = ["close", "keep-alive", "te", "upgrade"];

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Body {
    None,
    Length(u64),
    Chunked,
    /// Answers only: all there is until the server ends.
    UntilEnd,
}

/// A request that may go on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Its head, written anew.
    pub(crate) head: Vec<u8>,
    pub(crate) body: Body,
    /// The answer to HEAD has no body, whatever its head says.
    pub(crate) is_head: bool,
    /// Whether it asks to go on as a WebSocket.
    pub(crate) upgrade: bool,
    /// Whether the client may send another one.
    pub(crate) more: bool,
}

/// What follows the head of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Body,
    /// Whether the server takes another request.
    pub(crate) more: bool,
}

/// Looks for the end of a request's head as it comes in; every byte is looked at once.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    at: usize,
    before: u8,
}

impl Scan {
    /// The length of the head at the start of `bytes`, its empty line included; none while it is not all there. `bytes`
    /// only grows from call to call.
    ///
    /// # Errors
    /// As soon as it can't become a head that all servers read alike: lines end in CR LF, none is continued or empty but
    /// the last, and nothing else is a control character.
    pub(crate) fn find(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        if bytes.len() >= 4 && b"PRI * HTTP/2.0\r\n".starts_with(bytes.get(..16).unwrap_or(bytes)) {
            return Err(Refusal::bad("This is HTTP/2 without TLS, which cannot be checked. Use HTTP/1.1, or https."));
        }
        while let Some(&byte) = bytes.get(self.at) {
            if self.at >= MAX_HEAD {
                let reason = format!("Its head is larger than {MAX_HEAD} bytes. Send fewer or shorter headers.");
                return Err(Refusal::new(431, reason));
            }
            self.check(byte)?;
            self.at += 1;
            self.before = byte;
            if bytes.get(..self.at).is_some_and(|head| head.ends_with(b"\r\n\r\n")) {
                return Ok(Some(self.at));
            }
        }
        Ok(None)
    }

    fn check(&self, byte: u8) -> Result<(), Refusal> {
        let refusal = match (self.before, byte) {
            _ if self.at == 0 && !byte.is_ascii_alphabetic() => {
                "It does not begin with a method. Only HTTP requests are let through on this port."
            }
            (b'\r', b'\n') => return Ok(()),
            (_, b'\n') => "A line ends without CR. End each line with CR LF.",
            (b'\r', _) => "It holds a CR that ends no line.",
            (b'\n', b' ' | b'\t') => "A header is continued on the next line. Send each on one line.",
            (_, b'\t' | b'\r' | b' '..=b'~' | 0x80..) => return Ok(()),
            _ => return Err(Refusal::bad(format!("It holds the control character {byte:#04x} at byte {}.", self.at))),
        };
        Err(Refusal::bad(refusal))
    }
}

/// Reads a request's whole head: it must be for `name` and nobody else.
///
/// # Errors
/// With the answer to give.
pub(crate) fn request(head: &[u8], name: &HostName, port: u16) -> Result<Request, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(Refusal::bad("Its head is not one HTTP request.")),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::new(431, format!("It has more than {MAX_HEADERS} headers. Send fewer.")));
        }
        Err(error) => return Err(Refusal::bad(format!("It is not an HTTP/1.1 request ({error})."))),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refusal::bad("Its first line is not complete."));
    };
    check_target(method, target, name, port)?;
    let fields = Fields(parsed.headers);
    check_host(&fields, name, port)?;
    let body = request_body(&fields, minor)?;
    let upgrade = wants_websocket(&fields, method, minor, body);
    let connection = connection(&fields, upgrade);
    let more = match minor {
        0 => connection.contains(&"keep-alive"),
        _ => !connection.contains(&"close"),
    };
    let head = write(method, target, minor, &fields, &connection, upgrade);
    Ok(Request { head, body, is_head: method == "HEAD", upgrade, more })
}

fn check_target(method: &str, target: &str, name: &HostName, port: u16) -> Result<(), Refusal> {
    if method == "CONNECT" {
        let reason =
            "CONNECT is for proxies, and this is none: connect to the host directly, each one is approved by its name.";
        return Err(Refusal::new(405, reason));
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(());
    }
    let authority = target.split_once("://").map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
    match authority {
        Some(authority) if !names(authority, name, port) => {
            Err(Refusal::new(403, format!("Its target is at '{}', but the connection is to {name}.", shown(authority))))
        }
        _ => Err(Refusal::bad("Its target is not a path. This is no proxy: send the path and a Host header.")),
    }
}

fn check_host(fields: &Fields<'_>, name: &HostName, port: u16) -> Result<(), Refusal> {
    let mut hosts = fields.all("host");
    let (first, second) = (hosts.next(), hosts.next());
    match (first, second) {
        (None, _) => Err(Refusal::bad(format!("It has no Host header. Send 'Host: {name}'."))),
        (_, Some(_)) => Err(Refusal::bad("It has more than one Host header. Send one.")),
        (Some(host), None) => match std::str::from_utf8(host) {
            Ok(host) if names(host, name, port) => Ok(()),
            _ => Err(Refusal::new(
                403,
                format!(
                    "Its Host header is '{}', but the connection is to {name}. Connect to the host that is asked for, \
                     so that its own rule decides.",
                    shown(&String::from_utf8_lossy(host))
                ),
            )),
        },
    }
}

/// Whether `authority` is the host `name`, with the connection's port or none.
fn names(authority: &str, name: &HostName, port: u16) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, text)) if *text == port.to_string() => host,
        Some(_) => return false,
        None => authority,
    };
    HostName::parse(host).is_ok_and(|host| host == *name)
}

fn request_body(fields: &Fields<'_>, minor: u8) -> Result<Body, Refusal> {
    let lengths: Vec<&[u8]> = fields.all("content-length").collect();
    let codings: Vec<&[u8]> = fields.all("transfer-encoding").collect();
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Ok(Body::None),
        ([length], []) => number(length)
            .map(|length| if length == 0 { Body::None } else { Body::Length(length) })
            .ok_or_else(|| Refusal::bad("Its Content-Length is not a number.")),
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && minor == 1 => Ok(Body::Chunked),
        ([], _) => Err(Refusal::bad(
            "Its Transfer-Encoding is not 'chunked' alone. Send the body chunked, or with its length.",
        )),
        (_, []) => Err(Refusal::bad("It has more than one Content-Length. Send one.")),
        _ => Err(Refusal::bad("It has both Content-Length and Transfer-Encoding. Send one of them.")),
    }
}

/// A number in digits, as HTTP writes lengths: no sign, no list.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn wants_websocket(fields: &Fields<'_>, method: &str, minor: u8, body: Body) -> bool {
    let mut upgrades = fields.all("upgrade");
    let only = (upgrades.next(), upgrades.next());
    matches!(only, (Some(value), None) if value.eq_ignore_ascii_case(b"websocket"))
        && fields.tokens("connection").any(|token| token.eq_ignore_ascii_case("upgrade"))
        && method == "GET"
        && minor == 1
        && body == Body::None
}

/// The known tokens of the `Connection` headers; `upgrade` only for a WebSocket.
fn connection(fields: &Fields<'_>, upgrade: bool) -> Vec<&'static str> {
    let said: Vec<&str> = fields.tokens("connection").collect();
    let known = CONNECTION.into_iter().filter(|known| said.iter().any(|token| token.eq_ignore_ascii_case(known)));
    known.filter(|known| upgrade || *known != "upgrade").collect()
}

/// The head as it goes on. An upgrade to anything but a WebSocket (h2c above all) is left out: a server may ignore it.
fn write(method: &str, target: &str, minor: u8, fields: &Fields<'_>, connection: &[&str], upgrade: bool) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.{minor}\r\n").into_bytes();
    for field in fields.0 {
        let left_out: &[&str] = match upgrade {
            true => &["connection", "http2-settings"],
            false => &["connection", "http2-settings", "upgrade"],
        };
        if left_out.iter().any(|name| field.name.eq_ignore_ascii_case(name)) {
            continue;
        }
        head.extend_from_slice(field.name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(field.value);
        head.extend_from_slice(b"\r\n");
    }
    if !connection.is_empty() {
        head.extend_from_slice(format!("Connection: {}\r\n", connection.join(", ")).as_bytes());
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// Reads the head of an answer at the start of `bytes`: its length and what follows; none while it is not all there.
///
/// # Errors
/// When it is none, with what is wrong.
pub(crate) fn answer(bytes: &[u8], is_head: bool) -> Result<Option<(usize, Answer)>, String> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut headers);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() <= MAX_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(format!("its head is larger than {MAX_HEAD} bytes")),
        Err(error) => return Err(error.to_string()),
    };
    let (Some(status), Some(minor)) = (parsed.code, parsed.version) else {
        return Err("its first line is not complete".to_owned());
    };
    let fields = Fields(parsed.headers);
    let body = answer_body(&fields, status, is_head)?;
    let says = |what: &str| fields.tokens("connection").any(|token| token.eq_ignore_ascii_case(what));
    let more = body != Body::UntilEnd && if minor == 0 { says("keep-alive") } else { !says("close") };
    Ok(Some((length, Answer { status, body, more })))
}

/// RFC 9112, section 6.3.
fn answer_body(fields: &Fields<'_>, status: u16, is_head: bool) -> Result<Body, String> {
    if is_head || status < 200 || matches!(status, 204 | 304) {
        return Ok(Body::None);
    }
    if let Some(last) = fields.tokens("transfer-encoding").last() {
        return Ok(if last.eq_ignore_ascii_case("chunked") { Body::Chunked } else { Body::UntilEnd });
    }
    let mut lengths: Vec<&[u8]> = fields.all("content-length").collect();
    lengths.dedup();
    match lengths.as_slice() {
        [] => Ok(Body::UntilEnd),
        [length] => number(length).map(Body::Length).ok_or_else(|| "its Content-Length is not a number".to_owned()),
        _ => Err("it has two lengths".to_owned()),
    }
}

struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    fn all(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    }

    /// The members of a list over all headers of that name; what is not ASCII has none.
    fn tokens(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let lists = self.all(name).filter_map(|value| std::str::from_utf8(value).ok());
        lists.flat_map(|list| list.split(',')).map(str::trim).filter(|token| !token.is_empty())
    }
}

/// A client's words in an answer and in the log: short, and without control characters.
fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}
