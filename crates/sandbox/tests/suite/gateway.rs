//! A gateway for the tests: it greets every connection with the address that was asked for, answers every name query,
//! and remembers both.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use casemate_sandbox::{EgressSockets, Network};
use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, getsockopt, recvmsg, sendmsg, sockopt,
};

use crate::world::{Payload, Running, World};

/// What the name server of the tests answers to whoever asks for an IPv4 address.
pub const FAKE: [u8; 4] = [198, 18, 0, 7];
const INTERVAL: Duration = Duration::from_millis(20);

/// Tells of everything that arrived, in words such as `tcp 8.8.8.8:443` and `dns ::1 udp`.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn add(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub fn has(&self, what: &str) -> bool {
        self.all().iter().any(|each| each == what)
    }
}

/// Serves until it is dropped.
pub struct Gateway {
    pub seen: Seen,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Gateway {
    pub fn serve(sockets: EgressSockets) -> Self {
        let (seen, stop) = (Seen::default(), Arc::new(AtomicBool::new(false)));
        let mut threads = Vec::new();
        let (theirs, stopped) = (seen.clone(), Arc::clone(&stop));
        threads.push(std::thread::spawn(move || accept(sockets.tcp.into(), &theirs, &stopped)));
        for socket in sockets.dns {
            let (theirs, stopped) = (seen.clone(), Arc::clone(&stop));
            threads.push(std::thread::spawn(move || answer(&socket, &theirs, &stopped)));
        }
        Self { seen, stop, threads }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

impl World {
    /// A Python program behind a gateway, which has not been started yet.
    pub fn python_behind(&self, code: &str) -> Payload<'_> {
        let mut payload = self.python(&format!("{PRELUDE}{code}"));
        payload.spec.network = Network::Gateway;
        payload
    }

    /// Starts one and serves it.
    pub fn serve_python(&self, code: &str) -> (Running, Gateway) {
        let mut running = self.python_behind(code).start();
        let gateway = Gateway::serve(running.sandbox.take_egress().unwrap());
        (running, gateway)
    }

    /// What such a program prints, and what arrived at the gateway.
    pub fn behind_gateway(&self, code: &str) -> (String, Seen) {
        let (running, gateway) = self.serve_python(code);
        let outcome = running.finish();
        assert_eq!(outcome.exit.code, Some(0), "{:?}\n{}{}", outcome.exit, outcome.stdout, outcome.stderr);
        (outcome.stdout, gateway.seen.clone())
    }
}

/// Ways for a payload to try and to tell in one line each.
const PRELUDE: &str = "import ctypes, errno, os, socket, struct, sys, time
def attempt(name, action):
    try: print(name, action(), flush=True)
    except socket.timeout: print(name, 'timeout', flush=True)
    except OSError as error: print(name, errno.errorcode.get(error.errno, error.errno), flush=True)
def tcp(address, port, source=None):
    with socket.create_connection((address, port), 20, source_address=source) as s: return s.recv(200).decode()
def udp(address, port, data=b'x', wait=20):
    family, _, _, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(wait); s.connect(place); s.send(data); return len(s.recv(2000))
QUERY = bytes.fromhex('1234010000010000000000000161076578616d706c650000010001')
";

fn accept(listener: TcpListener, seen: &Seen, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                let theirs = seen.clone();
                std::thread::spawn(move || greet(stream, &theirs));
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::sleep(INTERVAL / 10),
            Err(error) => panic!("{error}"),
        }
    }
}

fn greet(mut stream: TcpStream, seen: &Seen) {
    // Without the mapping, as the payload wrote it.
    let Ok(address) = stream.local_addr() else { return };
    let address = SocketAddr::new(address.ip().to_canonical(), address.port());
    seen.add(format!("tcp {address}"));
    // What a payload can make wait in the host's memory; the kernel counts its own needs on top.
    for size in [getsockopt(&stream, sockopt::RcvBuf), getsockopt(&stream, sockopt::SndBuf)] {
        assert!(size.unwrap() < 1 << 20, "{size:?}");
    }
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    if stream.write_all(format!("for {address}").as_bytes()).is_err() {
        return;
    }
    let mut received = Vec::new();
    // A payload that resets the connection is none of the gateway's troubles.
    let _ = stream.take(4096).read_to_end(&mut received);
    if !received.is_empty() {
        seen.add(format!("data {}", String::from_utf8_lossy(&received)));
    }
}

fn answer(socket: &OwnedFd, seen: &Seen, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if !answer_one(socket, seen) {
            std::thread::sleep(INTERVAL / 10);
        }
    }
}

fn answer_one(socket: &OwnedFd, seen: &Seen) -> bool {
    let mut query = [0; 2048];
    let mut space = cmsg_space!(libc::in6_pktinfo);
    let (length, asker, info) = {
        let mut buffers = [IoSliceMut::new(&mut query)];
        let Ok(message) =
            recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut buffers, Some(&mut space), MsgFlags::empty())
        else {
            return false;
        };
        (message.bytes, message.address.unwrap(), message.cmsgs().unwrap().next().unwrap())
    };
    let reply = reply(&query[..length]);
    let buffers = [IoSlice::new(&reply)];
    let sent = match info {
        ControlMessageOwned::Ipv4PacketInfo(mut info) => {
            seen.add(format!("dns {}", std::net::Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr))));
            info.ipi_spec_dst = info.ipi_addr;
            info.ipi_ifindex = 0;
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            sendmsg(socket.as_raw_fd(), &buffers, &control, MsgFlags::empty(), Some(&asker))
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            seen.add(format!("dns {}", std::net::Ipv6Addr::from(info.ipi6_addr.s6_addr)));
            let control = [ControlMessage::Ipv6PacketInfo(&info)];
            sendmsg(socket.as_raw_fd(), &buffers, &control, MsgFlags::empty(), Some(&asker))
        }
        other => panic!("{other:?}"),
    };
    // The broadcast address can be asked, but nobody can answer from it.
    assert!(sent.is_ok() || seen.has("dns 127.255.255.255"), "{sent:?}: {:?}", seen.all());
    true
}

/// Answers one question: an address for type A, nothing for others.
fn reply(query: &[u8]) -> Vec<u8> {
    let Some(question) = query.get(12..) else { return query.to_vec() };
    let Some(name) = question.iter().position(|byte| *byte == 0) else { return query.to_vec() };
    let end = (12 + name + 5).min(query.len());
    let is_a = query.get(12 + name + 1..12 + name + 3) == Some(&[0, 1]);
    let mut reply = query[..end].to_vec();
    reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    if is_a {
        reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
        reply.extend_from_slice(&FAKE);
    }
    reply
}
