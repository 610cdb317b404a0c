//! Sandboxes behind a gateway: what reaches it, and that nothing else goes anywhere.

use crate::Test;
use crate::world::World;

pub const TESTS: &[Test] = &[
    Test { name: "every_tcp_destination_reaches_the_gateway", check: tcp },
    Test { name: "names_are_asked_of_the_gateway_at_any_address", check: names },
];

/// What the payload asks for, in Python's way of writing it, and what the gateway sees.
const DESTINATIONS: &[(&str, u16, &str)] = &[
    ("8.8.8.8", 443, "8.8.8.8:443"),
    ("8.8.8.8", 15001, "8.8.8.8:15001"),
    ("198.18.0.7", 5432, "198.18.0.7:5432"),
    ("10.0.0.1", 22, "10.0.0.1:22"),
    ("169.254.169.254", 80, "169.254.169.254:80"),
    ("168.63.129.16", 80, "168.63.129.16:80"),
    ("240.0.0.1", 1, "240.0.0.1:1"),
    ("192.0.0.9", 65535, "192.0.0.9:65535"),
    ("126.255.255.255", 53, "126.255.255.255:53"),
    ("128.0.0.1", 853, "128.0.0.1:853"),
    ("2001:4860:4860::8888", 443, "[2001:4860:4860::8888]:443"),
    ("fd00:ec2::254", 80, "[fd00:ec2::254]:80"),
    ("64:ff9b::808:808", 443, "[64:ff9b::808:808]:443"),
    ("2002:808:808::1", 443, "[2002:808:808::1]:443"),
    ("fe80::1%lo", 443, "[fe80::1]:443"),
    ("::2", 443, "[::2]:443"),
    ("::127.0.0.1", 443, "[::7f00:1]:443"),
    ("::ffff:8.8.4.4", 443, "8.8.4.4:443"),
    ("::ffff:169.254.169.254", 80, "169.254.169.254:80"),
    ("0x08080808", 443, "8.8.8.8:443"),
    ("134744072", 443, "8.8.8.8:443"),
    ("010.8.8.8", 443, "8.8.8.8:443"),
];

fn tcp(world: &World) {
    let calls: String = DESTINATIONS
        .iter()
        .map(|(address, port, _)| format!("attempt('{address} {port}', lambda: tcp('{address}', {port}))\n"))
        .collect();
    let (printed, seen) = world.behind_gateway(&calls);
    for (address, port, expected) in DESTINATIONS {
        let line = format!("{address} {port} for {expected}");
        assert!(printed.lines().any(|each| each == line), "no line {line:?} in\n{printed}");
        assert!(seen.has(&format!("tcp {expected}")), "{:?}", seen.all());
    }
    assert_eq!(seen.all().len(), DESTINATIONS.len(), "{:?}", seen.all());
}

fn names(world: &World) {
    let code = "attempt('name', lambda: socket.getaddrinfo('any.example', 443, type=socket.SOCK_STREAM)[0][4])
attempt('configured', lambda: socket.getaddrinfo('b.example', 443, socket.AF_INET, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)[0][4])
attempt('connect', lambda: tcp('c.example', 443))
attempt('own', lambda: socket.gethostbyname(socket.gethostname()))
for address in ('8.8.8.8', '127.0.0.1', '192.0.0.8', '198.18.1.1', '10.1.2.3', '2001:4860:4860::8888', '::1', 'fd00::53', '::ffff:9.9.9.9'):
    attempt(address, lambda: udp(address, 53, data=QUERY))
print(open('/etc/resolv.conf').read().split('\\n'))
print(open('/etc/hosts').read().split('\\n'))";
    let (printed, seen) = world.behind_gateway(code);
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "name ('198.18.0.7', 443)");
    assert_eq!(lines[1], "configured ('198.18.0.7', 443)");
    assert_eq!(lines[2], "connect for 198.18.0.7:443");
    assert_eq!(lines[3], "own 127.0.1.1");
    for line in &lines[4..13] {
        assert!(line.ends_with(" 43"), "{line}");
    }
    assert_eq!(lines[13], "['nameserver 127.0.0.1', 'options timeout:2 attempts:2', '']");
    assert_eq!(lines[14], "['127.0.0.1 localhost', '::1 localhost ip6-localhost ip6-loopback', '127.0.1.1 test', '']");
    for address in ["8.8.8.8", "10.1.2.3", "2001:4860:4860::8888", "::1", "fd00::53", "9.9.9.9"] {
        assert!(seen.has(&format!("dns {address}")), "{address}: {:?}", seen.all());
    }
}
