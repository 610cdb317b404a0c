//! What the gateway costs: throughput through it against a direct copy over loopback, and the time from connecting to the
//! first byte, each in turns in one run, so that the ratios hold on any machine.
//!
//! Each end has threads of its own, as the programs that they stand for have: client and host wait in their calls, and the
//! gateway has a runtime like the platform's.
//!
//! It runs itself anew in a network namespace of its own, where every address leads to this machine, as it does inside a
//! sandbox: the fake address of a name arrives at the gateway, the name's public address at the host. That takes `unshare`
//! and `ip`, and no privileges.

#![allow(clippy::print_stdout, reason = "its output is its purpose")]
#![allow(clippy::disallowed_methods, reason = "the process ends with its tasks")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark fails by panicking")]

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::process::CommandExt,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use casemate_egress::{EgressConfig, EgressLimits, EgressSockets, Gateway, Owner};
use casemate_model::egress::{EgressPolicy, HostPattern, PortRanges, Rule, Target};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name, RData, Record, RecordType},
};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeVal,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::watch,
};

const INSIDE: &str = "CASEMATE_BENCH_INSIDE";
const NAMESPACE: &str = "ip link set lo up && ip route add local 198.18.0.0/15 dev lo src 127.0.0.1 \
                         && ip route add local 93.184.215.0/24 dev lo src 127.0.0.1 && exec \"$@\"";
/// The host's public address; its two ports send, and answer one byte.
const HOST: [u8; 4] = [93, 184, 215, 14];
const BULK: u16 = 5432;
const PING: u16 = 5433;
/// A port that no rule opens.
const CLOSED: u16 = 5434;
/// Where the gateway's own resolver, and the sandbox's, are.
const UPSTREAM_DNS: &str = "127.0.0.1:5353";
const SANDBOX_DNS: &str = "127.0.0.2:5353";
const ROUNDS: usize = 7;
const BYTES: usize = 1 << 30;
const CALLS: usize = 2000;
const IDLE: usize = 200;

fn main() {
    if std::env::var_os(INSIDE).is_none() {
        let this = std::env::current_exe().unwrap();
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "sh", "-ec", NAMESPACE, "sh"]).arg(this).env(INSIDE, "1");
        panic!("cannot run unshare: {}", command.exec());
    }
    let platform = tokio::runtime::Runtime::new().unwrap();
    let _in_platform = platform.enter();
    let host = |port| SocketAddr::from((HOST, port));
    serve_bulk(host(BULK));
    serve_pings(host(PING));
    name_server();
    let dir = tempfile::tempdir().unwrap();
    let mut attached = Vec::new();
    let gateway = Gateway::new(EgressConfig {
        upstream_dns: Some(UPSTREAM_DNS.parse().unwrap()),
        log_dir: dir.path().to_owned(),
        limits: EgressLimits { dns_per_second: 1_000_000, dns_burst: 1_000_000, ..EgressLimits::default() },
        front_door: "127.0.0.1:1".parse().unwrap(),
        callers: casemate_model::inbound::DeploymentCallers::default(),
    })
    .unwrap();
    let target = Target::Host(HostPattern::parse("host.example").unwrap());
    let ports = PortRanges::parse("5432-5433").unwrap();
    let rules = vec![Rule { name: "bench".into(), target, ports, protocols_tcp: true }];
    let (_policy, receiver) = watch::channel(Arc::new(EgressPolicy { rules, ..EgressPolicy::default() }));
    // One sandbox for each port: what brings all ports to one listener is the sandbox's.
    let mut through = Vec::new();
    for (at, port) in [(1, BULK), (2, PING), (3, CLOSED)] {
        let fake = SocketAddr::from(([198, 18, 0, 1], port));
        let dns = UdpSocket::bind(SANDBOX_DNS.replace("0.2", &format!("0.{}", at + 1))).unwrap();
        let dns_address = dns.local_addr().unwrap();
        let sockets = EgressSockets { tcp: TcpListener::bind(fake).unwrap().into(), dns: vec![dns.into()] };
        let owner = Owner { scope: "bench".into(), deployment: "bench".into(), instance: at.to_string() };
        attached.push(gateway.attach(sockets, owner, receiver.clone(), None).unwrap());
        assert_eq!(look_up(dns_address), fake.ip(), "the first name has the first address");
        through.push(fake);
    }
    throughput(host(BULK), through[0]);
    first_byte(host(PING), through[1]);
    refusal(through[2]);
    idle(through[1]);
}

fn throughput(direct: SocketAddr, through: SocketAddr) {
    let (mut directs, mut throughs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        directs.push(rate(direct));
        throughs.push(rate(through));
    }
    let mut ratios: Vec<f64> = directs.iter().zip(&throughs).map(|(direct, through)| through.0 / direct.0).collect();
    // The best round of each: the one in which the machine had the least else to do.
    let best = |rounds: &[(f64, f64)]| {
        rounds.iter().fold((0.0, f64::MAX), |best, round| (round.0.max(best.0), round.1.min(best.1)))
    };
    let ((direct, direct_cpu), (through, through_cpu)) = (best(&directs), best(&throughs));
    let ratio = median(&mut ratios);
    println!(
        "throughput: ratio {ratio:.2} (median of {ROUNDS} rounds, from {:.2} to {:.2})",
        ratios[0],
        ratios[ROUNDS - 1]
    );
    println!(
        "best rounds: direct {direct:.2} GB/s, through the gateway {through:.2} GB/s, ratio {:.2}",
        through / direct
    );
    println!("CPU time, all ends: direct {direct_cpu:.2} s/GB, through the gateway {through_cpu:.2} s/GB");
}

/// Gigabytes per second, and seconds of CPU time per gigabyte.
fn rate(address: SocketAddr) -> (f64, f64) {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut bytes = vec![0; 256 << 10];
    let (begun, used) = (Instant::now(), cpu());
    let mut left = BYTES;
    while left > 0 {
        left = left.saturating_sub(stream.read(&mut bytes).unwrap());
    }
    let size = BYTES as f64 / 1e9;
    (size / begun.elapsed().as_secs_f64(), (cpu() - used) / size)
}

/// Seconds of CPU time that this process has used.
fn cpu() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

fn first_byte(direct: SocketAddr, through: SocketAddr) {
    let (mut directs, mut throughs) = (Vec::new(), Vec::new());
    for _ in 0..CALLS {
        directs.push(call(direct));
        throughs.push(call(through));
    }
    let (direct, through) = (median(&mut directs), median(&mut throughs));
    println!("connect and first byte: direct {direct:.0} us, through the gateway {through:.0} us (medians of {CALLS})");
}

/// Microseconds.
fn call(address: SocketAddr) -> f64 {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&[1]).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    let passed = begun.elapsed().as_secs_f64() * 1e6;
    stream.shutdown(Shutdown::Write).unwrap();
    // Its end is waited for, so that the next call has the machine to itself.
    let _ = stream.read(&mut [0]);
    passed
}

fn refusal(through: SocketAddr) {
    let mut times = Vec::new();
    for _ in 0..CALLS {
        let begun = Instant::now();
        // The reset may come before the connection is seen to be there.
        if let Ok(mut stream) = TcpStream::connect(through) {
            assert!(stream.read(&mut [0]).is_err(), "it is not refused");
        }
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    println!("refusal of an unapproved port: {:.0} us (median of {CALLS})", median(&mut times));
}

/// All three ends are in this process: the client's, the gateway's and the host's.
fn idle(through: SocketAddr) {
    let before = resident();
    let mut streams = Vec::new();
    for _ in 0..IDLE {
        let mut stream = TcpStream::connect(through).unwrap();
        stream.write_all(&[1]).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        streams.push(stream);
    }
    let (after, count) = (resident(), streams.len() as u64);
    println!(
        "memory: {} KiB for each of {count} idle streams, {after} KiB in all",
        after.saturating_sub(before) / count
    );
}

/// Sends without end to whoever connects, one after the other.
fn serve_bulk(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    std::thread::spawn(move || {
        let bytes = vec![7; 256 << 10];
        for mut stream in listener.incoming().flatten() {
            while stream.write_all(&bytes).is_ok() {}
        }
    });
}

/// Answers each byte with itself; one thread for all, so that idle streams cost it little.
fn serve_pings(address: SocketAddr) {
    let listener = TcpListener::bind(address).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                tokio::spawn(async move {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).await.is_ok() && stream.write_all(&byte).await.is_ok() {}
                });
            }
        });
    });
}

/// The internet's name server: every name is at the host's address.
fn name_server() {
    let socket = UdpSocket::bind(UPSTREAM_DNS).unwrap();
    std::thread::spawn(move || {
        let mut packet = [0; 1500];
        while let Ok((length, client)) = socket.recv_from(&mut packet) {
            let request = Message::from_vec(&packet[..length]).unwrap();
            let query = request.queries[0].clone();
            let mut answer = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
            if query.query_type() == RecordType::A {
                answer.add_answer(Record::from_rdata(
                    query.name().clone(),
                    3600,
                    RData::A(Ipv4Addr::from(HOST).into()),
                ));
            }
            answer.add_query(query);
            socket.send_to(&answer.to_vec().unwrap(), client).unwrap();
        }
    });
}

/// Looks the host up as a program in the sandbox does.
fn look_up(server: SocketAddr) -> std::net::IpAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut question = Message::new(1, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_ascii("host.example.").unwrap(), RecordType::A));
    socket.send_to(&question.to_vec().unwrap(), server).unwrap();
    let mut packet = [0; 1500];
    let length = socket.recv(&mut packet).unwrap();
    let answer = Message::from_vec(&packet[..length]).unwrap();
    answer.answers[0].data.ip_addr().unwrap()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
