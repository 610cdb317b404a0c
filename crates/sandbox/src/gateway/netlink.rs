//! Just enough of netlink to configure a namespace: requests in one datagram, and one answer for each. Synchronous: the
//! kernel has answered by the time that sending returns.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// Length, type, flags, sequence number and port of every message.
const HEADER: usize = 16;
/// An answer that refuses repeats the request.
const MAX_ANSWER: usize = 16 << 10;

/// Requests that travel together, each with a name for whoever reads the refusal.
#[derive(Default)]
pub struct Requests {
    bytes: Vec<u8>,
    names: Vec<&'static str>,
    answers: usize,
}

impl Requests {
    /// Adds a request to make something, which the kernel has to answer. `fixed` is what precedes the attributes.
    pub fn make(&mut self, name: &'static str, kind: u16, fixed: &[u8], attributes: &Attributes) {
        self.push(name, kind, libc::NLM_F_ACK | libc::NLM_F_CREATE, fixed, &attributes.0);
        self.answers += 1;
    }

    /// The same, for something that comes after all of its sort that are there.
    pub fn append(&mut self, name: &'static str, kind: u16, fixed: &[u8], attributes: &Attributes) {
        self.push(name, kind, libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_APPEND, fixed, &attributes.0);
        self.answers += 1;
    }

    /// Adds a message without an answer of its own.
    pub fn mark(&mut self, name: &'static str, kind: u16, fixed: &[u8]) {
        self.push(name, kind, 0, fixed, &[]);
    }

    fn push(&mut self, name: &'static str, kind: u16, flags: libc::c_int, fixed: &[u8], attributes: &[u8]) {
        let length = (HEADER + fixed.len() + attributes.len()) as u32;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&((flags | libc::NLM_F_REQUEST) as u16).to_ne_bytes());
        // The place in the list is the sequence number, which the answer repeats.
        self.bytes.extend_from_slice(&(self.names.len() as u32).to_ne_bytes());
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(fixed);
        self.bytes.extend_from_slice(attributes);
        self.names.push(name);
    }

    /// Sends all of them; fails with the first refusal, which names its request.
    pub fn send(&self, protocol: SockProtocol) -> io::Result<()> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket: OwnedFd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        let sent = send(socket.as_raw_fd(), &self.bytes, MsgFlags::empty())?;
        if sent != self.bytes.len() {
            return Err(io::Error::other(format!("{sent} of {} bytes were taken", self.bytes.len())));
        }
        let mut answer = vec![0; MAX_ANSWER];
        for _ in 0..self.answers {
            let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
            self.check(&answer[..length])?;
        }
        Ok(())
    }

    fn check(&self, answer: &[u8]) -> io::Result<()> {
        let word =
            |at: usize| answer.get(at..at + 4).and_then(|bytes| Some(u32::from_ne_bytes(bytes.try_into().ok()?)));
        let kind = answer.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
        let (Some(kind), Some(sequence), Some(code)) = (kind, word(8), word(HEADER)) else {
            return Err(io::Error::other(format!("an answer of {} bytes", answer.len())));
        };
        if libc::c_int::from(kind) != libc::NLMSG_ERROR {
            return Err(io::Error::other(format!("an answer of type {kind}")));
        }
        if code == 0 {
            return Ok(());
        }
        let name = self.names.get(sequence as usize).copied().unwrap_or("an unknown request");
        Err(io::Error::other(format!("{name}: {}", Errno::from_raw((code as i32).wrapping_neg()).desc())))
    }
}

/// A list of netlink attributes, each padded to four bytes.
#[derive(Default, Clone)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    /// Adds raw bytes.
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = 4 + value.len();
        self.0.extend_from_slice(&(length as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Adds a text with the zero that ends it.
    pub fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// Adds a number in network order, as netfilter wants it.
    pub fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Adds a list of attributes as one.
    pub fn nest(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | libc::NLA_F_NESTED as u16, &inner.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested() {
        let inner = Attributes::default().bytes(2, &[7]);
        let outer = Attributes::default().text(1, "abc").nest(3, &inner);
        let expected = [&[8, 0, 1, 0][..], b"abc\0", &[12, 0, 3, 0x80], &[5, 0, 2, 0, 7, 0, 0, 0]].concat();
        assert_eq!(outer.0, expected);
        assert_eq!(Attributes::default().number(1, 1).0, [8, 0, 1, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn an_answer_names_the_request_it_refuses() {
        let mut requests = Requests::default();
        requests.mark("begin", 16, &[]);
        requests.make("the table", 17, &[], &Attributes::default());
        let answer = |kind: u16, sequence: u32, code: i32| {
            let mut bytes = 36_u32.to_ne_bytes().to_vec();
            bytes.extend_from_slice(&kind.to_ne_bytes());
            bytes.extend_from_slice(&[0, 0]);
            bytes.extend_from_slice(&sequence.to_ne_bytes());
            bytes.extend_from_slice(&[0; 4]);
            bytes.extend_from_slice(&code.to_ne_bytes());
            bytes
        };
        requests.check(&answer(2, 1, 0)).unwrap();
        let table = [
            (answer(2, 1, -libc::EPERM), "the table: Operation not permitted"),
            (answer(2, 9, -libc::ENOENT), "an unknown request: No such file"),
            (answer(3, 1, 0), "type 3"),
            (answer(2, 1, 0)[..19].to_vec(), "19 bytes"),
            (Vec::new(), "0 bytes"),
        ];
        for (bytes, words) in table {
            let error = requests.check(&bytes).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn the_kernel_refuses_what_it_does_not_know() {
        let mut requests = Requests::default();
        requests.make("nonsense", libc::RTM_NEWROUTE, &[0xff; 12], &Attributes::default());
        let error = requests.send(SockProtocol::NetlinkRoute).unwrap_err().to_string();
        assert!(error.starts_with("nonsense: "), "{error}");
    }
}
