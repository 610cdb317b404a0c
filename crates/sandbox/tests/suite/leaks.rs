//! Payloads behind a gateway that try to reach anything but it, or to put themselves in its place. Each denial stands
//! beside a control that gets through, and beside canaries on the host at which nothing may arrive.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

use casemate_sandbox::Network;

use crate::Test;
use crate::gateway::Gateway;
use crate::world::{World, outside};

pub const TESTS: &[Test] = &[
    Test { name: "datagrams_reach_nobody_but_the_name_server", check: datagrams },
    Test { name: "loopback_is_the_sandboxs_own", check: loopback },
    Test { name: "the_listener_shares_its_port_with_nobody", check: squatting },
    Test { name: "nothing_takes_the_place_of_a_closed_gateway", check: closed_gateway },
    Test { name: "routes_and_rules_are_not_the_payloads_to_change", check: configuration },
    Test { name: "unusual_connections_arrive_at_the_gateway_or_nowhere", check: unusual },
    Test { name: "a_flood_of_connections_is_bounded", check: flood },
];

/// Listens on the host, for TCP and UDP at one port of every address.
pub struct Canary {
    tcp: TcpListener,
    udp: UdpSocket,
    pub port: u16,
}

impl Canary {
    pub fn new() -> Self {
        let any = Ipv6Addr::UNSPECIFIED;
        let (tcp, udp) = std::iter::repeat_with(|| TcpListener::bind((any, 0)).unwrap())
            .take(100)
            .find_map(|tcp| {
                let udp = UdpSocket::bind((any, tcp.local_addr().unwrap().port())).ok()?;
                Some((tcp, udp))
            })
            .unwrap();
        tcp.set_nonblocking(true).unwrap();
        udp.set_nonblocking(true).unwrap();
        // A control for the multicast attempts, as far as this machine has an interface for it.
        let _ = udp.join_multicast_v6(&"ff02::1".parse().unwrap(), 0);
        let port = tcp.local_addr().unwrap().port();
        let canary = Self { tcp, udp, port };
        canary.must_sing();
        canary
    }

    /// The control: an unconfined program reaches it both ways.
    fn must_sing(&self) {
        let port = self.port;
        let code = format!(
            "import socket
socket.create_connection(('127.0.0.1', {port}), 20)
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'control', ('127.0.0.1', {port}))"
        );
        assert!(outside(&code).1.success());
        crate::world::until("the canary hears a connection", || self.tcp.accept().is_ok());
        crate::world::until("the canary hears a datagram", || self.udp.recv(&mut [0; 16]).is_ok());
    }

    pub fn must_be_silent(&self) {
        let heard = self.tcp.accept().map(|(_, from)| from);
        assert!(heard.is_err(), "a connection came from {heard:?}");
        let heard = self.udp.recv_from(&mut [0; 16]).map(|(_, from)| from);
        assert!(heard.is_err(), "a datagram came from {heard:?}");
    }
}

/// An address by which this machine is known to others, if it has one.
fn own_address() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(address) => Some(*address.ip()),
        SocketAddr::V6(_) => None,
    }
}

fn datagrams(world: &World) {
    let canary = Canary::new();
    let port = canary.port;
    let own = own_address().map_or_else(|| "10.0.0.1".to_owned(), |address| address.to_string());
    let code = format!(
        "for address, port in (('8.8.8.8', 443), ('8.8.8.8', 123), ('8.8.8.8', 3478), ('8.8.8.8', 54), ('169.254.169.254', 80),
                      ('{own}', {port}), ('127.0.0.1', {port}), ('127.0.0.2', {port}), ('192.0.0.8', {port}), ('10.0.0.1', {port}),
                      ('::1', {port}), ('fd00::1', {port}), ('2001:4860:4860::8888', 443), ('fe80::1%lo', {port}), ('::ffff:{own}', {port})):
    attempt('refused', lambda: udp(address, port))
def cast(address, family=socket.AF_INET):
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1); s.settimeout(0.2)
        for port in ({port}, 53): s.sendto(QUERY, (address, port))
        return s.recvfrom(100)
for address in ('255.255.255.255', '127.255.255.255', '0.0.0.0', '224.0.0.1', '224.0.0.251', '239.255.255.250'):
    attempt('cast', lambda: cast(address))
for address in ('ff02::1%lo', 'ff02::fb%lo', 'ff05::2', 'ff0e::1'):
    attempt('cast', lambda: cast(address, socket.AF_INET6))
for address in ('255.255.255.255', '224.0.0.1', 'ff02::1%lo', 'ff0e::1'):
    attempt('stream', lambda: tcp(address, {port}))
attempt('control', lambda: udp('8.8.8.8', 53, data=QUERY))
own = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); own.bind(('127.0.0.1', 0))
own.sendto(b'to myself', own.getsockname()); print(own.recv(100))
print(sorted(line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]))"
    );
    let (printed, seen) = world.behind_gateway(&code);
    let of = |word: &str| printed.lines().filter(|line| line.starts_with(word)).collect::<Vec<_>>();
    assert_eq!(of("refused"), ["refused ECONNREFUSED"; 15], "{printed}");
    for line in of("cast").iter().chain(&of("stream")) {
        let nothing = ["timeout", "ENETUNREACH", "EACCES", "EADDRNOTAVAIL", "ECONNREFUSED", "EINVAL", "EHOSTUNREACH"];
        // The name server may have answered: it is at every address.
        assert!(nothing.iter().any(|word| line.ends_with(word)) || line.contains(", 53"), "{printed}");
    }
    assert!(printed.ends_with("control 43\nb'to myself'\n['lo']\n"), "{printed}");
    assert!(seen.all().iter().all(|each| each.starts_with("dns ")), "{:?}", seen.all());
    canary.must_be_silent();
}

fn loopback(world: &World) {
    let canary = Canary::new();
    let port = canary.port;
    let code = format!(
        "own = ('127.0.0.1', '127.0.0.2', '127.255.255.254', '0.0.0.0', '::1', '::', '::ffff:127.0.0.1', '::ffff:0.0.0.0', 'localhost', '192.0.0.8')
for address in own:
    attempt('closed', lambda: tcp(address, {port}))
    attempt('listener', lambda: tcp(address, 15001))
import threading
server = socket.create_server(('::', 8080), family=socket.AF_INET6, dualstack_ipv6=True)
def serve():
    while True:
        connection, peer = server.accept(); connection.sendall(b'from inside'); connection.close()
threading.Thread(target=serve, daemon=True).start()
for address in own: attempt('open', lambda: tcp(address, 8080))
print('served', flush=True)
time.sleep(600)"
    );
    let (mut running, gateway) = world.serve_python(&code);
    running.wait_for("served");
    let printed = running.stdout();
    let of = |line: &str| printed.lines().filter(|each| *each == line).count();
    assert_eq!(of("closed ECONNREFUSED"), 10, "{printed}");
    assert_eq!(of("listener ECONNREFUSED"), 10, "{printed}");
    assert_eq!(of("open from inside"), 10, "{printed}");
    // The platform's own way in.
    let stream = crate::network::connect(&running, 8080).unwrap();
    assert_eq!(std::io::read_to_string(stream).unwrap(), "from inside");
    assert!(crate::network::connect(&running, 15_001).is_err());
    assert_eq!(gateway.seen.all(), Vec::<String>::new());
    canary.must_be_silent();
}

fn squatting(world: &World) {
    let code = "reuse = {'plain': [], 'addr': [socket.SO_REUSEADDR], 'port': [socket.SO_REUSEPORT], 'both': [socket.SO_REUSEADDR, socket.SO_REUSEPORT]}
def bind(kind, address, port, options):
    s = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, kind)
    for option in options: s.setsockopt(socket.SOL_SOCKET, option, 1)
    s.bind((address, port))
    if kind == socket.SOCK_STREAM: s.listen()
    return s
held = []
for name, options in reuse.items():
    for address in ('0.0.0.0', '127.0.0.1', '127.0.0.2', '8.8.8.8', '192.0.0.8', '::', '::1', '::ffff:127.0.0.1'):
        attempt('taken', lambda: bind(socket.SOCK_STREAM, address, 15001, options))
        attempt('low', lambda: bind(socket.SOCK_DGRAM, address, 53, options))
        attempt('low', lambda: bind(socket.SOCK_STREAM, address, 53, options))
    # Any other port and address may be listened at; what is sent elsewhere arrives elsewhere all the same.
    port = 8443 + len(held); mine = bind(socket.SOCK_STREAM, '8.8.8.8', port, options); mine.setblocking(False)
    held.append(socket.create_connection(('8.8.8.8', port), 20)); attempt('elsewhere', lambda: held[-1].recv(100).decode())
    attempt('mine', mine.accept)
    mine.close()
    # Connections of the gateway that are still open count as users of the port they were for.
    attempt('again', lambda: bind(socket.SOCK_STREAM, '0.0.0.0', port, [socket.SO_REUSEADDR]).close())
    both = bind(socket.SOCK_DGRAM, '8.8.8.8', port, options)
    attempt('datagram', lambda: udp('8.8.8.8', port))
    both.close()
attempt('source', lambda: tcp('8.8.8.8', 443, ('127.0.0.1', 15001)))
s = socket.socket()
for name, level, option in (('transparent', socket.SOL_IP, 19), ('mark', socket.SOL_SOCKET, 36), ('priority', socket.SOL_SOCKET, 33)):
    attempt(name, lambda: s.setsockopt(level, option, 99))
attempt('transparent6', lambda: socket.socket(socket.AF_INET6).setsockopt(socket.IPPROTO_IPV6, 75, 1))
attempt('control', lambda: tcp('8.8.8.8', 443, ('127.0.0.1', 15002)))";
    let (printed, seen) = world.behind_gateway(code);
    let of = |line: &str| printed.lines().filter(|each| *each == line).count();
    assert_eq!(of("taken EADDRINUSE"), 32, "{printed}");
    assert_eq!(of("low EACCES"), 64, "{printed}");
    assert_eq!((8443..8447).map(|port| of(&format!("elsewhere for 8.8.8.8:{port}"))).sum::<usize>(), 4, "{printed}");
    assert_eq!(of("again None"), 4, "{printed}");
    assert_eq!(of("mine EAGAIN"), 4, "{printed}");
    assert_eq!(of("datagram ECONNREFUSED"), 4, "{printed}");
    for line in ["source EADDRINUSE", "transparent EPERM", "mark EPERM", "priority EPERM", "transparent6 EPERM"] {
        assert_eq!(of(line), 1, "{line}: {printed}");
    }
    assert_eq!(of("control for 8.8.8.8:443"), 1, "{printed}");
    assert_eq!(seen.all().len(), 5, "{:?}", seen.all());
}

fn closed_gateway(world: &World) {
    let code = "attempt('control', lambda: tcp('8.8.8.8', 443))
attempt('control', lambda: udp('8.8.8.8', 53, data=QUERY))
# The gateway closes one socket after another.
def closed(address):
    try: udp(address, 53, data=QUERY, wait=0.5)
    except ConnectionRefusedError: return True
    except OSError: return False
while not (closed('8.8.8.8') and closed('fd00::1')): pass
def squat():
    s = socket.socket(socket.AF_INET6); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('::', 15001)); s.listen(); s.settimeout(0.3); return s
mine = squat()
for address in ('8.8.8.8', '169.254.169.254', '2001:4860:4860::8888', '127.0.0.1', '::1'):
    for port in (443, 15001): attempt('refused', lambda: tcp(address, port))
for address in ('8.8.8.8', '127.0.0.1', '2001:4860:4860::8888'): attempt('refused', lambda: udp(address, 53, data=QUERY))
attempt('squat', mine.accept)";
    let (mut running, gateway) = world.serve_python(code);
    running.wait_for("control 43");
    drop(gateway);
    let outcome = running.finish();
    let of = |line: &str| outcome.stdout.lines().filter(|each| *each == line).count();
    assert_eq!(of("control for 8.8.8.8:443"), 1, "{}", outcome.stdout);
    assert_eq!(of("refused ECONNREFUSED"), 13, "{}{}", outcome.stdout, outcome.stderr);
    assert_eq!(of("squat timeout"), 1, "{}", outcome.stdout);
    // A new sandbox has a namespace and a listener of its own.
    let (printed, _) = world.behind_gateway("attempt('again', lambda: tcp('8.8.8.8', 443))");
    assert_eq!(printed, "again for 8.8.8.8:443\n");
}

/// Asks the kernel by route netlink and by ioctl to change the network, and says what it answers.
const CHANGES: &str = "import ctypes, errno, fcntl, os, socket, struct
def attempt(name, action):
    try: action(); print(name, 'ok', flush=True)
    except OSError as error: print(name, errno.errorcode.get(error.errno, error.errno), flush=True)
def ask(kind, flags, body):
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as s:
        s.send(struct.pack('IHHII', 16 + len(body), kind, flags | 5, 1, 0) + body)
        answer = s.recv(65536)
        code = struct.unpack_from('i', answer, 16)[0]
        if struct.unpack_from('H', answer, 4)[0] == 2 and code: raise OSError(-code, '')
def attribute(kind, value): return struct.pack('HH', 4 + len(value), kind) + value + b'\\0' * (-len(value) % 4)
ten = bytes((10, 9, 9, 9))
lo = struct.pack('i', 1)
attempt('dump', lambda: ask(18, 0x300, bytes(16)))
attempt('address', lambda: ask(20, 0x400, bytes((2, 32, 0, 0)) + lo + attribute(2, ten) + attribute(1, ten)))
attempt('route', lambda: ask(24, 0x400, bytes((2, 32, 0, 0, 255, 4, 254, 2)) + bytes(4) + attribute(1, ten) + attribute(4, lo)))
attempt('rule', lambda: ask(32, 0x400, bytes((2, 0, 0, 0, 200, 0, 0, 1)) + bytes(4)))
attempt('down', lambda: ask(16, 0, bytes(4) + lo + struct.pack('II', 0, 1)))
attempt('unroute', lambda: ask(25, 0, bytes((2, 32, 0, 0, 255, 4, 254, 2)) + bytes(4) + attribute(1, ten) + attribute(4, lo)))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
attempt('flags', lambda: fcntl.ioctl(s, 0x8914, struct.pack('16sH22x', b'lo', 0x49)))
attempt('mtu', lambda: fcntl.ioctl(s, 0x8922, struct.pack('16si20x', b'lo', 1280)))
def low_ports():
    with open('/proc/sys/net/ipv4/ip_unprivileged_port_start', 'w') as file: file.write('0')
attempt('setting', low_ports)
";

fn configuration(world: &World) {
    let names = ["address", "route", "rule", "down", "unroute", "flags", "mtu", "setting"];
    let mut payload = world.python(&format!("{CHANGES}socket.create_connection(('8.8.8.8', 443), 20); print('still')"));
    payload.spec.network = Network::Gateway;
    let mut running = payload.start();
    let gateway = Gateway::serve(running.sandbox.take_egress().unwrap());
    assert!(running.sandbox.take_egress().is_none(), "they are given out once");
    let outcome = running.finish();
    for name in names {
        let refused =
            ["EPERM", "EACCES", "EROFS"].iter().any(|errno| outcome.stdout.contains(&format!("{name} {errno}\n")));
        assert!(refused, "{name}: {}{}", outcome.stdout, outcome.stderr);
    }
    assert!(outcome.stdout.starts_with("dump ok\n") && outcome.stdout.ends_with("still\n"), "{}", outcome.stdout);
    assert!(gateway.seen.has("tcp 8.8.8.8:443"));
    // The control: with the platform's rights the same requests are granted, in a namespace of their own.
    let own = "import ctypes; assert ctypes.CDLL(None).unshare(0x40000000) == 0\n";
    let control = outside(&format!("{own}{CHANGES}")).0;
    for name in names {
        assert!(control.contains(&format!("{name} ok\n")), "{name}: {control}");
    }
}

fn unusual(world: &World) {
    let canary = Canary::new();
    let port = canary.port;
    let code = format!(
        "def fast(option=None, connect=False):
    s = socket.socket()
    if option: s.setsockopt(socket.IPPROTO_TCP, option, 1)
    if connect: s.connect(('8.8.8.8', {port})); s.send(b'early')
    else: s.sendto(b'early', 0x20000000, ('8.8.8.8', {port}))
    s.shutdown(socket.SHUT_WR); return s.recv(100).decode()
attempt('fast', lambda: fast())
attempt('fast-no-cookie', lambda: fast(34))
attempt('fast-connect', lambda: fast(30, True))
def options(bytes_):
    s = socket.socket(); s.settimeout(1.5); s.setsockopt(socket.SOL_IP, 4, bytes_); s.connect(('8.8.8.8', {port})); return s.recv(100).decode()
for kind in (131, 137):
    attempt('source-route', lambda: options(bytes((kind, 7, 4, 127, 0, 0, 1, 0))))
    attempt('source-route', lambda: options(bytes((kind, 7, 4, 10, 0, 0, 1, 0))))
def device():
    s = socket.socket(); s.settimeout(20); s.setsockopt(socket.SOL_SOCKET, 25, b'lo'); s.setsockopt(socket.SOL_SOCKET, socket.SO_DONTROUTE, 1)
    s.connect(('10.0.0.1', {port})); return s.recv(100).decode()
attempt('device', device)
# From an address that is not the sandbox's own no connection is made, nor with itself.
attempt('foreign', lambda: tcp('8.8.8.8', {port}, ('10.1.1.1', 0)))
attempt('foreign', lambda: tcp('10.1.1.1', 7000, ('10.1.1.1', 7000)))
attempt('foreign', lambda: tcp('2001:db8::1', 7000, ('2001:db8::2', 7000)))
attempt('own', lambda: tcp('8.8.8.8', {port}, ('127.0.0.9', 0)))
attempt('own', lambda: tcp('8.8.8.8', {port}, ('192.0.0.8', 0)))
s = socket.socket(); s.settimeout(20); s.connect(('8.8.8.8', {port})); s.recv(100)
s.connect_ex(('8.8.8.8', 1)); print('urgent', s.send(b'!', socket.MSG_OOB))
s.shutdown(socket.SHUT_WR)"
    );
    let (printed, seen) = world.behind_gateway(&code);
    let of = |line: &str| printed.lines().filter(|each| *each == line).count();
    for name in ["fast", "fast-no-cookie", "fast-connect"] {
        assert_eq!(of(&format!("{name} for 8.8.8.8:{port}")), 1, "{printed}");
    }
    assert_eq!(seen.all().iter().filter(|each| *each == "data early").count(), 3, "{:?}", seen.all());
    // Newer kernels do not let it be asked for; others drop the packets.
    assert_eq!(of("source-route timeout") + of("source-route EPERM"), 4, "{printed}");
    assert_eq!(of(&format!("device for 10.0.0.1:{port}")), 1, "{printed}");
    assert_eq!((of("foreign ECONNREFUSED"), of("foreign EADDRNOTAVAIL")), (2, 1), "{printed}");
    assert_eq!(of(&format!("own for 8.8.8.8:{port}")), 2, "{printed}");
    canary.must_be_silent();
}

fn flood(world: &World) {
    let code = "sockets = []
for n in range(3000):
    s = socket.socket(); s.setblocking(False); s.connect_ex((f'10.{n % 200}.{n // 200}.1', 443)); sockets.append(s)
for n in range(50000): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(bytes(1000), ('8.8.8.8', 53))
print('flooded', flush=True)
time.sleep(600)";
    let mut flooder = world.python_behind(code).start();
    let sockets = flooder.sandbox.take_egress().unwrap();
    flooder.wait_for("flooded");
    // Neighbours come and go meanwhile.
    let (printed, _) = world.behind_gateway(
        "attempt('neighbour', lambda: tcp('8.8.8.8', 443))\nattempt('dns', lambda: udp('8.8.8.8', 53, data=QUERY))",
    );
    assert_eq!(printed, "neighbour for 8.8.8.8:443\ndns 43\n");
    // Else attempts that the kernel repeats would take the places of those that are counted.
    flooder.sandbox.kill();
    flooder.wait();
    let listener = TcpListener::from(sockets.tcp);
    let waiting = std::iter::from_fn(|| listener.accept().ok()).count();
    // The kernel lets one more than the bound wait.
    assert!((1..=257).contains(&waiting), "{waiting} connections waited");
    let dns = UdpSocket::from(sockets.dns.into_iter().next().unwrap());
    let queries = std::iter::from_fn(|| dns.recv(&mut [0; 2000]).ok()).count();
    assert!((1..2000).contains(&queries), "{queries} queries waited");
}
