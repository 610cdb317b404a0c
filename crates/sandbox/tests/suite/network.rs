//! That nothing leaves or enters a sandbox's network but through the platform's sockets.

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use casemate_sandbox::Network;

use crate::Test;
use crate::world::{Running, World, outside};

pub const TESTS: &[Test] = &[
    Test { name: "no_packet_leaves", check: nothing_leaves },
    Test { name: "a_server_inside_is_reached_only_by_its_socket", check: server_inside },
    Test { name: "many_threads_may_ask_for_sockets", check: many_sockets },
    Test { name: "hosts_abstract_sockets_are_out_of_reach", check: abstract_sockets },
];

fn nothing_leaves(world: &World) {
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = format!("import socket; socket.create_connection(('127.0.0.1', {port}), 5); print('connected')");
    assert_eq!(outside(&connect).0, "connected\n", "the control must get through");
    let (_, _) = listener.accept().unwrap();
    let code = format!(
        "import socket, os
print([line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]])
for address in ('127.0.0.1', '10.0.0.1', '169.254.169.254', '8.8.8.8', '::1', '2001:4860:4860::8888'):
    try: socket.create_connection((address, {port}), 5); print(address, 'connected')
    except OSError as error: print(address, error.strerror)
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try: udp.sendto(b'x', ('8.8.8.8', 53)); print('sent')
except OSError as error: print(error.strerror)
try: socket.getaddrinfo('example.com', 80); print('resolved')
except OSError: print('not resolved')"
    );
    let printed = world.python(&code).output();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "['lo']");
    for line in &lines[1..7] {
        let refused = ["Connection refused", "Network is unreachable"].iter().any(|words| line.ends_with(words));
        assert!(refused, "{line}");
    }
    assert_eq!(lines[7..], ["Network is unreachable", "not resolved"]);
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "something came through");
}

const SERVER: &str = "import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'from inside')
server = http.server.ThreadingHTTPServer(('127.0.0.1', 5001), Handler)
print('ready', flush=True)
server.serve_forever()";

pub fn connect(running: &Running, port: u16) -> std::io::Result<TcpStream> {
    let socket: OwnedFd = running.sandbox.socket()?;
    let stream = TcpStream::from(socket);
    let flags = nix::fcntl::fcntl(&stream, nix::fcntl::F_GETFL)?;
    assert_ne!(flags & nix::fcntl::OFlag::O_NONBLOCK.bits(), 0, "the socket must be non-blocking");
    stream.set_nonblocking(false)?;
    let address = SocketAddrV4::new([127, 0, 0, 1].into(), port);
    nix::sys::socket::connect(stream.as_raw_fd(), &nix::sys::socket::SockaddrIn::from(address))?;
    Ok(stream)
}

fn get(mut stream: TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn server_inside(world: &World) {
    let mut running = world.python(SERVER).start();
    running.wait_for("ready");
    assert!(get(connect(&running, 5001).unwrap()).ends_with("from inside"));
    assert!(connect(&running, 5002).is_err(), "nothing listens there");

    let mut neighbour = world.python("import time; print('ready', flush=True); time.sleep(600)").start();
    neighbour.wait_for("ready");
    assert!(connect(&neighbour, 5001).is_err(), "another sandbox must not share the network");
    // The host may use the port itself; then it must not be the payload that answers.
    if let Ok(stream) = TcpStream::connect("127.0.0.1:5001") {
        assert!(!get(stream).contains("from inside"));
    }
    running.sandbox.kill();
    running.wait();
    assert!(connect(&running, 5001).is_err());
}

fn many_sockets(world: &World) {
    let mut running = world.python(SERVER).start();
    running.wait_for("ready");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    assert!(get(connect(&running, 5001).unwrap()).ends_with("from inside"));
                }
            });
        }
    });
}

fn abstract_sockets(world: &World) {
    let name = format!("casemate-test-{}", std::process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let code = format!("import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}'); print('connected')");
    assert_eq!(outside(&code).0, "connected\n", "the control must get through");
    for network in [Network::Isolated, Network::Gateway] {
        let mut payload = world.python(&code);
        payload.spec.network = network;
        let outcome = payload.run();
        assert_eq!(outcome.exit.code, Some(1), "{network:?}: {}", outcome.stdout);
        let refused =
            ["Connection refused", "Operation not permitted"].iter().any(|words| outcome.stderr.contains(words));
        assert!(refused, "{network:?}: {}", outcome.stderr);
    }
}
