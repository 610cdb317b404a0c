//! What may come in over a bridge: calls of private endpoints, names, and the answers to what the platform itself asked.
//! The machine's other services, which would answer at any of its addresses, are not for members.
//!
//! One table per bridge in the kernel's own packet filter (nf_tables), at the bridge's ingress: it sees what is meant
//! for the machine, not what members say to each other, and is nobody else's.

use std::{io, net::IpAddr};

use ipnet::IpNet;
use rtnetlink::sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

/// What members may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Open {
    /// The platform's addresses on the bridge.
    pub(crate) addresses: Vec<IpAddr>,
    /// Of them, those of private endpoints, for TCP to these ports.
    pub(crate) endpoints: Vec<IpAddr>,
    pub(crate) ports: Vec<u16>,
    /// Where names are answered.
    pub(crate) dns: Option<(IpAddr, u16)>,
}

impl Open {
    pub(crate) fn new(
        addresses: &[IpNet],
        endpoints: Vec<IpAddr>,
        ports: Vec<u16>,
        dns: Option<(IpAddr, u16)>,
    ) -> Self {
        Self { addresses: addresses.iter().map(IpNet::addr).collect(), endpoints, ports, dns }
    }
}

/// Puts the rules of a bridge in place of those there are, all at once.
pub(crate) fn close(bridge: &str, open: &Open) -> io::Result<()> {
    let mut batch = Batch::new();
    batch.message(NEWTABLE, CREATE, &Attributes::new().text(1, bridge));
    batch.message(DELTABLE, 0, &Attributes::new().text(1, bridge));
    batch.message(NEWTABLE, CREATE, &Attributes::new().text(1, bridge));
    let hook = Attributes::new().number(HOOK_NUMBER, INGRESS).number(HOOK_PRIORITY, 0).text(HOOK_DEVICE, bridge);
    let chain = Attributes::new().text(CHAIN_TABLE, bridge).text(CHAIN_NAME, CHAIN).nest(CHAIN_HOOK, &hook);
    let chain = chain.number(CHAIN_POLICY, DROP).text(CHAIN_TYPE, "filter");
    batch.message(NEWCHAIN, CREATE, &chain);
    for rule in rules(open) {
        let list = rule.iter().fold(Attributes::new(), |list, expression| list.nest(LIST_ELEMENT, expression));
        let rule = Attributes::new().text(RULE_TABLE, bridge).text(RULE_CHAIN, CHAIN).nest(RULE_EXPRESSIONS, &list);
        batch.message(NEWRULE, CREATE | APPEND, &rule);
    }
    batch.send()
}

/// Takes the rules of a bridge away, if there are any.
pub(crate) fn forget(bridge: &str) -> io::Result<()> {
    let mut batch = Batch::new();
    batch.message(DELTABLE, 0, &Attributes::new().text(1, bridge));
    batch.send().or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// What is let in; all else is dropped.
fn rules(open: &Open) -> Vec<Vec<Attributes>> {
    let accept = || vec![accepted()];
    let mut rules = vec![
        [meta_is(META_PROTOCOL, &ARP.to_be_bytes()), accept()].concat(),
        // Neighbours and routers of IPv6 find each other by these.
        [meta_is(META_L4PROTO, &[ICMP6]), accept()].concat(),
        // What is no opening of a connection belongs to one that was opened, or is answered by a reset.
        [meta_is(META_L4PROTO, &[TCP]), no_opening(), accept()].concat(),
    ];
    for address in &open.addresses {
        if address.is_ipv4() {
            rules.push([to(*address), meta_is(META_L4PROTO, &[ICMP]), accept()].concat());
        }
        // Answers of name servers among the members.
        let answer = [port_is(0, 53), port_from(2, 32768)].concat();
        rules.push([to(*address), meta_is(META_L4PROTO, &[UDP]), answer, accept()].concat());
    }
    for (address, port) in open.endpoints.iter().flat_map(|address| open.ports.iter().map(move |port| (address, port)))
    {
        rules.push([to(*address), meta_is(META_L4PROTO, &[TCP]), port_is(2, *port), accept()].concat());
    }
    for protocol in [UDP, TCP] {
        rules.extend(
            open.dns
                .map(|(at, port)| [to(at), meta_is(META_L4PROTO, &[protocol]), port_is(2, port), accept()].concat()),
        );
    }
    rules
}

/// Matches packets to an address.
fn to(address: IpAddr) -> Vec<Attributes> {
    let (protocol, offset, bytes) = match address {
        IpAddr::V4(address) => (IPV4, 16, address.octets().to_vec()),
        IpAddr::V6(address) => (IPV6, 24, address.octets().to_vec()),
    };
    [meta_is(META_PROTOCOL, &protocol.to_be_bytes()), loaded(NETWORK, offset, &bytes, EQUAL)].concat()
}

fn port_is(offset: u32, port: u16) -> Vec<Attributes> {
    loaded(TRANSPORT, offset, &port.to_be_bytes(), EQUAL)
}

fn port_from(offset: u32, port: u16) -> Vec<Attributes> {
    loaded(TRANSPORT, offset, &port.to_be_bytes(), AT_LEAST)
}

/// Matches TCP packets that are not SYN without ACK.
fn no_opening() -> Vec<Attributes> {
    let masked = Attributes::new().number(1, REGISTER).number(2, REGISTER).number(3, 1);
    let masked = masked.nest(4, &Attributes::new().bytes(1, &[0x12])).nest(5, &Attributes::new().bytes(1, &[0]));
    vec![payload(TRANSPORT, 13, 1), expression("bitwise", &masked), compared(&[0x02], DIFFERENT)]
}

fn meta_is(key: u32, value: &[u8]) -> Vec<Attributes> {
    let meta = Attributes::new().number(1, REGISTER).number(2, key);
    vec![expression("meta", &meta), compared(value, EQUAL)]
}

fn loaded(base: u32, offset: u32, bytes: &[u8], operator: u32) -> Vec<Attributes> {
    vec![payload(base, offset, bytes.len() as u32), compared(bytes, operator)]
}

fn payload(base: u32, offset: u32, length: u32) -> Attributes {
    let payload = Attributes::new().number(1, REGISTER).number(2, base).number(3, offset).number(4, length);
    expression("payload", &payload)
}

fn compared(value: &[u8], operator: u32) -> Attributes {
    let compared = Attributes::new().number(1, REGISTER).number(2, operator);
    expression("cmp", &compared.nest(3, &Attributes::new().bytes(1, value)))
}

fn accepted() -> Attributes {
    let verdict = Attributes::new().nest(2, &Attributes::new().number(1, ACCEPT));
    expression("immediate", &Attributes::new().number(1, VERDICT_REGISTER).nest(2, &verdict))
}

fn expression(name: &str, data: &Attributes) -> Attributes {
    Attributes::new().text(1, name).nest(2, data)
}

/// Netlink attributes: length, type, value, padding.
#[derive(Debug, Clone, Default)]
struct Attributes(Vec<u8>);

impl Attributes {
    fn new() -> Self {
        Self::default()
    }

    fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (value.len() + 4) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A number, which this protocol has in network order.
    fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    fn nest(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// Changes that hold all together or not at all.
struct Batch {
    bytes: Vec<u8>,
    /// Messages that the kernel answers.
    answers: usize,
}

impl Batch {
    fn new() -> Self {
        let mut batch = Self { bytes: Vec::new(), answers: 0 };
        batch.push(BATCH_BEGIN, REQUEST, &[0, 0, 0, SUBSYSTEM], &[]);
        batch
    }

    fn message(&mut self, kind: u16, flags: u16, attributes: &Attributes) {
        self.answers += 1;
        let kind = u16::from(SUBSYSTEM) << 8 | kind;
        self.push(kind, REQUEST | ACKNOWLEDGE | flags, &[NETDEV, 0, 0, 0], &attributes.0);
    }

    fn push(&mut self, kind: u16, flags: u16, fixed: &[u8; 4], attributes: &[u8]) {
        let length = (16 + fixed.len() + attributes.len()) as u32;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(fixed);
        self.bytes.extend_from_slice(attributes);
    }

    /// Sends it and reads the answers: the kernel has them ready when sending returns.
    fn send(mut self) -> io::Result<()> {
        self.push(BATCH_END, REQUEST, &[0, 0, 0, SUBSYSTEM], &[]);
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_non_blocking(true)?;
        socket.send(&self.bytes, 0)?;
        let mut answered = 0;
        while answered < self.answers {
            let (datagram, _) = socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while let Some((code, next)) = answer(rest) {
                if code != 0 {
                    return Err(io::Error::from_raw_os_error(-code));
                }
                answered += 1;
                rest = next;
            }
        }
        Ok(())
    }
}

/// The code of the first answer, and what follows it.
fn answer(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let length = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let code = i32::from_ne_bytes(bytes.get(16..20)?.try_into().ok()?);
    Some((code, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

const CHAIN: &str = "in";

// From linux/netlink.h, linux/netfilter.h, linux/netfilter/nfnetlink.h and nf_tables.h.
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 1 << 15;
const SUBSYSTEM: u8 = 10;
const NETDEV: u8 = 5;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = 0;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const NEWRULE: u16 = 6;
const INGRESS: u32 = 0;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_DEVICE: u16 = 3;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const VERDICT_REGISTER: u32 = 0;
const REGISTER: u32 = 1;
const META_PROTOCOL: u32 = 1;
const META_L4PROTO: u32 = 16;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const EQUAL: u32 = 0;
const DIFFERENT: u32 = 1;
const AT_LEAST: u32 = 5;
const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;
