//! What the system's resolver takes for an address must never be a host name, or a rule for a name would open an
//! address without its check. The resolver is asked through Python, whose `socket` module is a thin layer over the C
//! library (`getaddrinfo` with `AI_NUMERICHOST`, `inet_aton`); asking it needs no network.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngSeed, TestRunner},
};

use super::HostName;

/// Reads hosts in hexadecimal, one on a line, and prints `1` for each that is an address to the C library, else `0`.
const ASK: &str = r"
import socket, sys
def number(ask):
    try:
        ask()
        return True
    except (OSError, UnicodeError, ValueError):
        return False
for line in sys.stdin:
    host = bytes.fromhex(line.strip()).decode()
    found = number(lambda: socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST))
    print(int(found or number(lambda: socket.inet_aton(host))))
";

fn taken_for_addresses(hosts: &[String]) -> Vec<bool> {
    let mut python = Command::new("python3")
        .args(["-c", ASK])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 asks the C library");
    let mut input = String::new();
    for host in hosts {
        input.extend(host.bytes().map(|byte| format!("{byte:02x}")));
        input.push('\n');
    }
    let mut stdin = python.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).unwrap());
    let output = python.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let answers: Vec<bool> = String::from_utf8(output.stdout).unwrap().lines().map(|line| line == "1").collect();
    assert_eq!(answers.len(), hosts.len());
    answers
}

/// One part of an address in some base, in range or not, or something like it.
fn part() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        Just(0u64),
        Just(127),
        Just(255),
        Just(256),
        any::<u8>().prop_map(u64::from),
        any::<u32>().prop_map(u64::from)
    ];
    prop_oneof![
        8 => (number, 0usize..6).prop_map(|(number, form)| match form {
            0 => format!("0{number:o}"),
            1 => format!("0x{number:x}"),
            2 => format!("0X{number:X}"),
            3 => format!("00{number}"),
            _ => number.to_string(),
        }),
        1 => "[0-9a-fxX]{0,4}",
        1 => prop::sample::select(vec!["a", "0x", "-1", "1e1", "+1", "０", "1_0", "b-c"]).prop_map(str::to_owned),
    ]
}

fn host() -> impl Strategy<Value = String> {
    let v4 = (prop::collection::vec(part(), 1..6), prop::sample::select(vec!["", "", "", ".", " ", " x", "%lo", "\t"]))
        .prop_map(|(parts, end)| format!("{}{end}", parts.join(".")));
    let v6 = "(\\[)?[0-9a-f]{0,4}:(:|[0-9a-f]{1,4}:){0,4}[0-9a-f]{0,4}(%lo|%1)?(\\])?";
    prop_oneof![6 => v4, 2 => v6, 1 => "[0-9a-z.:%x-]{1,12}"]
}

#[test]
fn no_name_is_an_address_to_the_resolver() {
    let mut runner =
        TestRunner::new(Config { rng_seed: RngSeed::Fixed(5), failure_persistence: None, ..Config::default() });
    let mut hosts: Vec<String> =
        ["127.1", "0x7f.1", "2130706433", "017700000001", "1.2.3.4 x", "::1", "fe80::1%lo", "::ffff:1.2.3.4", "0"]
            .map(str::to_owned)
            .into();
    for _ in 0..6_000 {
        hosts.push(host().new_tree(&mut runner).unwrap().current());
    }
    // What the platform's own resolver is given has the dot of the root.
    let names = hosts.iter().filter_map(|host| HostName::parse(host).ok());
    hosts.extend(names.map(|name| name.to_string()).collect::<Vec<_>>());
    let (mut addresses, mut names) = (0, 0);
    for (host, is_address) in hosts.iter().zip(taken_for_addresses(&hosts)) {
        let name = HostName::parse(host);
        assert!(!(is_address && name.is_ok()), "{host:?} is a name here and an address to the resolver");
        addresses += u32::from(is_address);
        names += u32::from(name.is_ok());
    }
    // The generator finds enough of both to mean something.
    assert!(addresses > 500 && names > 500, "{addresses} addresses, {names} names");
}
