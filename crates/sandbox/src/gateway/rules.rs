//! The packet rules, as nf_tables takes them. They look at what arrives on `lo`, which is all that is ever sent in the
//! namespace, and end in dropping whatever no rule speaks of.

use std::net::Ipv6Addr;

use super::netlink::{Attributes, Requests};
use super::routes::DUMMY;
use super::{DNS_PORT, PORT};

const TABLE: &str = "casemate";
const CHAIN: &str = "arriving";
/// Before the kernel routes the packet, where it looks for marks.
const PRIORITY: i32 = -150;

/// The whole table in one transaction: either all of it holds or none.
pub fn requests() -> Requests {
    let mut requests = Requests::default();
    let batch = |subsystem: libc::c_int| [&[0, 0][..], &(subsystem as u16).to_be_bytes()].concat();
    requests.mark("packet rules (nf_tables)", libc::NFNL_MSG_BATCH_BEGIN as u16, &batch(libc::NFNL_SUBSYS_NFTABLES));
    let table = Attributes::default().text(NFTA_NAME, TABLE);
    requests.make("a table", message(libc::NFT_MSG_NEWTABLE), &FAMILY, &table);
    requests.make("a chain", message(libc::NFT_MSG_NEWCHAIN), &FAMILY, &chain());
    for (name, expressions) in rules() {
        let list = expressions.iter().fold(Attributes::default(), |list, each| list.nest(NFTA_LIST_ELEM, each));
        let rule = Attributes::default()
            .text(NFTA_RULE_TABLE, TABLE)
            .text(NFTA_RULE_CHAIN, CHAIN)
            .nest(NFTA_RULE_EXPRESSIONS, &list);
        requests.append(name, message(libc::NFT_MSG_NEWRULE), &FAMILY, &rule);
    }
    requests.mark("end", libc::NFNL_MSG_BATCH_END as u16, &batch(libc::NFNL_SUBSYS_NFTABLES));
    requests
}

fn chain() -> Attributes {
    let hook = Attributes::default()
        .number(NFTA_HOOK_HOOKNUM, libc::NF_INET_PRE_ROUTING as u32)
        .number(NFTA_HOOK_PRIORITY, PRIORITY as u32);
    Attributes::default()
        .text(NFTA_CHAIN_TABLE, TABLE)
        .text(NFTA_CHAIN_NAME, CHAIN)
        .nest(NFTA_CHAIN_HOOK, &hook)
        .number(NFTA_CHAIN_POLICY, libc::NF_DROP as u32)
        .text(NFTA_CHAIN_TYPE, "filter")
}

/// In order; the first that matches decides.
fn rules() -> Vec<(&'static str, Vec<Attributes>)> {
    let to_loopback = [version(4), network(16, &[127])].concat();
    let to_loopback_6 = [version(6), network(24, &Ipv6Addr::LOCALHOST.octets())].concat();
    let to_dummy = [version(4), network(16, &DUMMY.octets())].concat();
    let from_loopback = [version(4), network(12, &[127])].concat();
    let from_loopback_6 = [version(6), network(8, &Ipv6Addr::LOCALHOST.octets())].concat();
    let from_dummy = [version(4), network(12, &DUMMY.octets())].concat();
    let tcp = protocol(libc::IPPROTO_TCP);
    let udp = protocol(libc::IPPROTO_UDP);
    let to_listener = [tcp.clone(), destination(PORT)].concat();
    let mut rules = vec![
        // The kernel's words that a destination is unreachable; no echo, no other.
        ("errors", [protocol(libc::IPPROTO_ICMP), transport(0, &[3]), accept()].concat()),
        ("IPv6 errors", [protocol(libc::IPPROTO_ICMPV6), transport(0, &[1]), accept()].concat()),
        ("echo", [protocol(libc::IPPROTO_ICMP), verdict(libc::NF_DROP)].concat()),
        ("IPv6 echo", [protocol(libc::IPPROTO_ICMPV6), verdict(libc::NF_DROP)].concat()),
    ];
    for (name, own) in [("127.0.0.0/8", to_loopback), ("::1", to_loopback_6), ("192.0.0.8", to_dummy)] {
        // The listener is for connections to elsewhere; by its own port it is not to be found.
        rules.push((name, [own.clone(), to_listener.clone(), reset()].concat()));
        rules.push((name, [own, accept()].concat()));
    }
    // Answers could not find back to a connection from any other address.
    for own in [from_loopback, from_loopback_6, from_dummy] {
        rules.push(("a transparent proxy (nft_tproxy)", [own, tcp.clone(), proxy(), accept()].concat()));
    }
    rules.extend([
        // Nobody answers from an address that stands for many.
        ("multicast", [version(4), network_from(16, 224), udp.clone(), verdict(libc::NF_DROP)].concat()),
        ("IPv6 multicast", [version(6), network(24, &[0xff]), udp.clone(), verdict(libc::NF_DROP)].concat()),
        ("name queries", [udp.clone(), destination(DNS_PORT), accept()].concat()),
        // A reset is what the next rule itself sends.
        ("resets", [tcp.clone(), transport_bit(13, 0x04), accept()].concat()),
        ("a reset (nft_reject)", [tcp, reset()].concat()),
        ("a refusal (nft_reject)", [udp, unreachable()].concat()),
    ]);
    rules
}

/// Matches the version of the internet protocol.
fn version(number: u8) -> Vec<Attributes> {
    let family = if number == 4 { libc::NFPROTO_IPV4 } else { libc::NFPROTO_IPV6 };
    vec![meta(libc::NFT_META_NFPROTO), equals(&[family as u8])]
}

/// Matches the transport protocol.
fn protocol(number: libc::c_int) -> Vec<Attributes> {
    vec![meta(libc::NFT_META_L4PROTO), equals(&[number as u8])]
}

/// Matches bytes of the network header.
fn network(offset: u32, bytes: &[u8]) -> Vec<Attributes> {
    vec![payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, bytes.len() as u32), equals(bytes)]
}

/// Matches a byte of the network header that is as large as this or larger.
fn network_from(offset: u32, least: u8) -> Vec<Attributes> {
    vec![payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, 1), compare(libc::NFT_CMP_GTE, &[least])]
}

/// Matches bytes of the transport header.
fn transport(offset: u32, bytes: &[u8]) -> Vec<Attributes> {
    vec![payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, offset, bytes.len() as u32), equals(bytes)]
}

/// Matches where a bit of one byte of the transport header is set.
fn transport_bit(offset: u32, bit: u8) -> Vec<Attributes> {
    let masked = Attributes::default()
        .number(NFTA_BITWISE_SREG, REGISTER)
        .number(NFTA_BITWISE_DREG, REGISTER)
        .number(NFTA_BITWISE_LEN, 1)
        .nest(NFTA_BITWISE_MASK, &Attributes::default().bytes(NFTA_DATA_VALUE, &[bit]))
        .nest(NFTA_BITWISE_XOR, &Attributes::default().bytes(NFTA_DATA_VALUE, &[0]));
    vec![payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, offset, 1), expression("bitwise", &masked), equals(&[bit])]
}

/// Matches the destination port.
fn destination(port: u16) -> Vec<Attributes> {
    transport(2, &port.to_be_bytes())
}

fn accept() -> Vec<Attributes> {
    verdict(libc::NF_ACCEPT)
}

fn verdict(code: libc::c_int) -> Vec<Attributes> {
    let verdict = Attributes::default().number(NFTA_VERDICT_CODE, code as u32);
    immediate(NFT_REG_VERDICT, &Attributes::default().nest(NFTA_DATA_VERDICT, &verdict))
}

/// Hands the packet to the platform's listener, of whichever version; matches nothing when there is none.
fn proxy() -> Vec<Attributes> {
    let mut both = immediate(REGISTER, &Attributes::default().bytes(NFTA_DATA_VALUE, &PORT.to_be_bytes()));
    let proxy = Attributes::default()
        .number(NFTA_TPROXY_FAMILY, libc::NFPROTO_UNSPEC as u32)
        .number(NFTA_TPROXY_REG_PORT, REGISTER);
    both.push(expression("tproxy", &proxy));
    both
}

fn reset() -> Vec<Attributes> {
    vec![expression("reject", &Attributes::default().number(NFTA_REJECT_TYPE, NFT_REJECT_TCP_RST))]
}

fn unreachable() -> Vec<Attributes> {
    let port = Attributes::default()
        .number(NFTA_REJECT_TYPE, NFT_REJECT_ICMPX_UNREACH)
        .bytes(NFTA_REJECT_ICMP_CODE, &[NFT_REJECT_ICMPX_PORT_UNREACH]);
    vec![expression("reject", &port)]
}

fn immediate(register: u32, data: &Attributes) -> Vec<Attributes> {
    let attributes = Attributes::default().number(NFTA_IMMEDIATE_DREG, register).nest(NFTA_IMMEDIATE_DATA, data);
    vec![expression("immediate", &attributes)]
}

fn meta(key: libc::c_int) -> Attributes {
    let attributes = Attributes::default().number(NFTA_META_DREG, REGISTER).number(NFTA_META_KEY, key as u32);
    expression("meta", &attributes)
}

fn payload(base: libc::c_int, offset: u32, length: u32) -> Attributes {
    let attributes = Attributes::default()
        .number(NFTA_PAYLOAD_DREG, REGISTER)
        .number(NFTA_PAYLOAD_BASE, base as u32)
        .number(NFTA_PAYLOAD_OFFSET, offset)
        .number(NFTA_PAYLOAD_LEN, length);
    expression("payload", &attributes)
}

fn equals(bytes: &[u8]) -> Attributes {
    compare(libc::NFT_CMP_EQ, bytes)
}

fn compare(operator: libc::c_int, bytes: &[u8]) -> Attributes {
    let value = Attributes::default().bytes(NFTA_DATA_VALUE, bytes);
    let attributes = Attributes::default()
        .number(NFTA_CMP_SREG, REGISTER)
        .number(NFTA_CMP_OP, operator as u32)
        .nest(NFTA_CMP_DATA, &value);
    expression("cmp", &attributes)
}

fn expression(name: &str, data: &Attributes) -> Attributes {
    Attributes::default().text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, data)
}

fn message(kind: libc::c_int) -> u16 {
    (libc::NFNL_SUBSYS_NFTABLES << 8 | kind) as u16
}

/// Both versions of the internet protocol; version 0 of the interface; no resource.
const FAMILY: [u8; 4] = [libc::NFPROTO_INET as u8, 0, 0, 0];
/// The verdict's register, and the one that holds what is compared.
const NFT_REG_VERDICT: u32 = 0;
const REGISTER: u32 = 1;

// From linux/netfilter/nf_tables.h, which the libc crate has in part only.
const NFTA_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_TPROXY_FAMILY: u16 = 1;
const NFTA_TPROXY_REG_PORT: u16 = 3;
const NFTA_REJECT_TYPE: u16 = 1;
const NFTA_REJECT_ICMP_CODE: u16 = 2;
const NFT_REJECT_TCP_RST: u32 = 1;
const NFT_REJECT_ICMPX_UNREACH: u32 = 2;
const NFT_REJECT_ICMPX_PORT_UNREACH: u8 = 1;
