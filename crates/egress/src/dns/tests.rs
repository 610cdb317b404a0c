//! Real packets over real sockets.

use std::{
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Mutex,
};

use casemate_model::egress::{
    AddressClass, HostPattern, IsolationMode, PortRanges, PrivateDestination, Rule, Target, classify,
};
use hickory_proto::{
    op::{Edns, MessageType, OpCode, ResponseCode},
    rr::rdata::opt::EdnsOption,
};
use tokio::net::UdpSocket;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::*;

type Lines = Arc<Mutex<Vec<(String, bool, String)>>>;

/// A responder, what it recorded, its pool, and the way to change its policy.
struct Bench {
    responder: Arc<Responder>,
    pool: Arc<NamePool>,
    lines: Lines,
    policy: watch::Sender<Arc<EgressPolicy>>,
}

fn policy() -> EgressPolicy {
    let rule = |name: &str, target| Rule { name: name.into(), target, ports: PortRanges::web(), protocols_tcp: true };
    let host = |pattern: &str| Target::Host(HostPattern::parse(pattern).unwrap());
    let absent = Target::Private {
        names: vec![HostPattern::parse("gone.example").unwrap()],
        to: PrivateDestination::Absent("Its connection is not approved.".into()),
    };
    EgressPolicy {
        rules: vec![rule("one", host("approved.example")), rule("all", host("*.wild.example")), rule("gone", absent)],
        ..EgressPolicy::default()
    }
}

impl Bench {
    fn new(policy: EgressPolicy, limits: &EgressLimits) -> Self {
        let pool = Arc::new(NamePool::new(limits.names, limits.new_names_per_minute));
        let lines = Lines::default();
        let (sender, receiver) = watch::channel(Arc::new(policy));
        let told = Arc::clone(&lines);
        let record: RecordLookup = Box::new(move |name, decision| {
            told.lock().unwrap().push((name.to_owned(), decision.is_allowed(), decision.reason.clone()));
        });
        let responder = Arc::new(Responder::new(Arc::clone(&pool), receiver, limits, record));
        Self { responder, pool, lines, policy: sender }
    }

    fn ask(&self, packet: &[u8]) -> Option<Message> {
        match self.responder.answer(packet) {
            Answer::Packet(answer) | Answer::Beyond(Some(answer)) => {
                Some(Message::from_vec(&answer).expect("a message"))
            }
            Answer::Nothing | Answer::Beyond(None) => None,
        }
    }

    fn told(&self) -> Vec<(String, bool, String)> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    message
}

fn packet(name: &str, kind: RecordType) -> Vec<u8> {
    query(name, kind).to_vec().unwrap()
}

fn v4(answer: &Message) -> Vec<IpAddr> {
    answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect()
}

#[tokio::test]
async fn approved_names_get_an_address_and_other_questions_nothing() {
    let bench = Bench::new(policy(), &EgressLimits::default());
    let answer = bench.ask(&packet("Approved.EXAMPLE.", RecordType::A)).unwrap();
    let metadata = &answer.metadata;
    assert_eq!(
        (metadata.id, metadata.message_type, metadata.response_code),
        (0x1234, MessageType::Response, ResponseCode::NoError)
    );
    assert!(metadata.recursion_desired && metadata.recursion_available && !metadata.truncation);
    // The question comes back as it was written: clients that vary the case check it.
    assert!(answer.queries[0].name().eq_case(&Name::from_str("Approved.EXAMPLE.").unwrap()));
    let addresses = v4(&answer);
    assert!(addresses.len() == 1 && classify(addresses[0]) == AddressClass::Benchmark, "{answer:?}");
    assert!(answer.answers[0].ttl <= 60 && answer.edns.is_none());
    assert_eq!(bench.pool.name_of(addresses[0]).unwrap().as_str(), "approved.example");
    assert_eq!(v4(&bench.ask(&packet("approved.example.", RecordType::A)).unwrap()), addresses);
    for kind in
        ["AAAA", "HTTPS", "SVCB", "TXT", "ANY", "NULL", "MX", "NS", "SOA", "CNAME", "SRV", "NAPTR", "CAA", "TYPE65280"]
    {
        let kind = kind
            .strip_prefix("TYPE")
            .map_or_else(|| RecordType::from_str(kind).unwrap(), |code| RecordType::from(code.parse::<u16>().unwrap()));
        let answer = bench.ask(&packet("approved.example.", kind)).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError, "{kind}");
        assert!(answer.answers.is_empty() && answer.authorities.is_empty() && answer.additionals.is_empty(), "{kind}");
    }
    assert_eq!(bench.pool.len(), 1);
    let told = bench.told();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].1 && told[0].2.contains("Rule 'one' approves"), "{told:?}");
}

#[tokio::test]
async fn every_other_name_does_not_exist() {
    let bench = Bench::new(policy(), &EgressLimits::default());
    for (name, reason) in [
        ("c2VjcmV0IGRhdGE.evil.com.", "No outbound rule approves c2vjcmv0igrhdge.evil.com."),
        ("wild.example.", "approves the hosts below it"),
        ("evilwild.example.", "No outbound rule"),
        ("approved.example.evil.com.", "No outbound rule"),
        ("gone.example.", "Its connection is not approved."),
        ("metadata.google.internal.", "metadata service"),
        ("1.0.18.198.in-addr.arpa.", "backwards"),
        ("1.2.3.4.", "not the name of a host"),
        ("com.", "No outbound rule"),
    ] {
        for kind in
            [RecordType::A, RecordType::AAAA, RecordType::TXT, RecordType::NULL, RecordType::PTR, RecordType::ANY]
        {
            let answer = bench.ask(&packet(name, kind)).unwrap();
            assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{name} {kind}");
            assert!(answer.answers.is_empty(), "{name} {kind}");
        }
        let told = bench.told();
        assert!(told.len() == 1 && !told[0].1 && told[0].2.contains(reason), "{name} {told:?}");
    }
    // The name of the instance itself is answered without a word to anybody.
    assert_eq!(v4(&bench.ask(&packet("localhost.", RecordType::A)).unwrap()), [IpAddr::from([127, 0, 0, 1])]);
    assert_eq!(v4(&bench.ask(&packet("x.localhost.", RecordType::AAAA)).unwrap()), [IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    assert!(v4(&bench.ask(&packet("localhost.", RecordType::TXT)).unwrap()).is_empty());
    assert_eq!(bench.ask(&packet(".", RecordType::NS)).unwrap().metadata.response_code, ResponseCode::NoError);
    assert_eq!((bench.pool.len(), bench.told().len()), (0, 0));
}

#[tokio::test]
async fn labels_that_no_host_has_are_compared_whole_and_shown_escaped() {
    let bench = Bench::new(policy(), &EgressLimits::default());
    for (labels, shown) in [
        (vec![&b"a\n{}\x1b[2J"[..], b"evil"], "a\\n{}\\x1b[2J.evil"),
        // A dot within a label would make two labels of it.
        (vec![&b"approved.example"[..]], "approved.example"),
        (vec![&b"x.wild"[..], b"example"], "x.wild.example"),
        (vec![&b"approved\0"[..], b"example"], "approved\\x00.example"),
        (vec![&b"\xff\xfe"[..], b"wild", b"example"], "\\xff\\xfe.wild.example"),
    ] {
        let mut packet = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in labels {
            packet.push(label.len() as u8);
            packet.extend_from_slice(label);
        }
        packet.extend_from_slice(&[0, 0, 1, 0, 1]);
        let answer = bench.ask(&packet).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{shown}");
        let told = bench.told();
        assert!(told.len() == 1 && told[0].0 == shown && told[0].2.contains("not the name of a host"), "{told:?}");
    }
    assert_eq!(bench.pool.len(), 0);
}

#[tokio::test]
async fn the_policy_of_the_moment_decides() {
    let bench =
        Bench::new(EgressPolicy { mode: IsolationMode::AllowInternetOutbound, ..policy() }, &EgressLimits::default());
    assert_eq!(v4(&bench.ask(&packet("any.example.", RecordType::A)).unwrap()).len(), 1);
    bench.policy.send(Arc::new(policy())).unwrap();
    assert_eq!(
        bench.ask(&packet("any.example.", RecordType::A)).unwrap().metadata.response_code,
        ResponseCode::NXDomain
    );
    bench.policy.send(Arc::new(EgressPolicy { audit: true, ..policy() })).unwrap();
    assert_eq!(v4(&bench.ask(&packet("any.example.", RecordType::A)).unwrap()).len(), 1);
}

#[tokio::test]
async fn whatever_is_not_one_plain_question_is_refused() {
    let bench = Bench::new(policy(), &EgressLimits::default());
    let good = packet("approved.example.", RecordType::A);
    let with = |at: usize, bytes: &[u8]| {
        let mut packet = good.clone();
        packet[at..at + bytes.len()].copy_from_slice(bytes);
        packet
    };
    let two = {
        let mut message = query("approved.example.", RecordType::A);
        message.add_query(Query::query(Name::from_str("evil.com.").unwrap(), RecordType::A));
        message.to_vec().unwrap()
    };
    let loops = [&good[..12], &[0xc0, 12, 0, 1, 0, 1]].concat();
    let ahead = [&good[..12], &[0xc0, 20, 0, 1, 0, 1, 0, 0, 0]].concat();
    let chaos = {
        let mut message = query("version.bind.", RecordType::TXT);
        message.queries[0].set_query_class(DNSClass::CH);
        message.to_vec().unwrap()
    };
    let long = {
        let mut packet = good[..12].to_vec();
        for _ in 0..5 {
            packet.push(63);
            packet.extend_from_slice(&[b'a'; 63]);
        }
        [packet, vec![0, 0, 1, 0, 1]].concat()
    };
    for (what, packet, code) in [
        ("two questions", two, ResponseCode::FormErr),
        ("no question", with(4, &[0, 0]), ResponseCode::FormErr),
        ("more questions than there are", with(4, &[0xff, 0xff]), ResponseCode::FormErr),
        ("an answer in it", with(6, &[0, 1]), ResponseCode::FormErr),
        ("an authority in it", with(8, &[0, 1]), ResponseCode::FormErr),
        ("additions that are not there", with(10, &[0, 9]), ResponseCode::FormErr),
        ("cut short", good[..good.len() - 3].to_vec(), ResponseCode::FormErr),
        ("a name that leads to itself", loops, ResponseCode::FormErr),
        ("a name that leads ahead", ahead, ResponseCode::FormErr),
        ("a name of 320 bytes", long, ResponseCode::FormErr),
        ("a truncated query", with(2, &[3]), ResponseCode::FormErr),
        ("an inverse query", with(2, &[0x09]), ResponseCode::NotImp),
        ("a status query", with(2, &[0x11]), ResponseCode::NotImp),
        ("a notify", with(2, &[0x21]), ResponseCode::NotImp),
        ("an update", with(2, &[0x29]), ResponseCode::NotImp),
        ("an opcode of nobody", with(2, &[0x79]), ResponseCode::NotImp),
        ("a zone transfer", super::tests::packet("approved.example.", RecordType::AXFR), ResponseCode::Refused),
        ("a part of one", super::tests::packet("approved.example.", RecordType::IXFR), ResponseCode::Refused),
        ("another class", chaos, ResponseCode::Refused),
    ] {
        let answer = bench.ask(&packet).unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!(answer.metadata.response_code, code, "{what}");
        assert_eq!((answer.metadata.id, answer.metadata.message_type), (0x1234, MessageType::Response), "{what}");
        assert!(answer.answers.is_empty(), "{what}");
    }
    // Answers and scraps have none.
    assert_eq!(bench.responder.answer(&with(2, &[0x81])), Answer::Nothing);
    for length in 0..12 {
        assert_eq!(bench.responder.answer(&good[..length]), Answer::Nothing);
    }
    assert_eq!((bench.pool.len(), bench.told().len()), (0, 0));
}

#[tokio::test]
async fn options_are_read_and_answered() {
    let bench = Bench::new(policy(), &EgressLimits::default());
    let mut message = query("approved.example.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    edns.options_mut().insert(EdnsOption::Unknown(10, vec![1; 8]));
    message.set_edns(edns);
    let answer = bench.ask(&message.to_vec().unwrap()).unwrap();
    let edns = answer.edns.as_ref().unwrap();
    assert_eq!((v4(&answer).len(), edns.version(), edns.max_payload()), (1, 0, 1232));
    message.edns.as_mut().unwrap().set_version(1);
    let answer = bench.ask(&message.to_vec().unwrap()).unwrap();
    // Code 16 has another name in signed answers.
    let code = u16::from(answer.metadata.response_code);
    assert_eq!((code, v4(&answer).len()), (u16::from(ResponseCode::BADVERS), 0));
}

#[tokio::test(start_paused = true)]
async fn names_under_a_wildcard_are_rationed() {
    let bench = Bench::new(policy(), &EgressLimits { new_names_per_minute: 5, names: 8, ..EgressLimits::default() });
    let mut codes = Vec::new();
    for at in 0..20 {
        codes.push(bench.ask(&packet(&format!("d{at}.wild.example."), RecordType::A)).unwrap().metadata.response_code);
    }
    assert!(codes[..5].iter().all(|code| *code == ResponseCode::NoError));
    assert!(codes[5..].iter().all(|code| *code == ResponseCode::ServFail));
    assert_eq!(bench.pool.len(), 5);
    let told = bench.told();
    assert!(told.len() == 20 && told[19].2.contains("More than 5 new names in a minute"), "{told:?}");
    // The exactly approved one is not kept out by them.
    assert_eq!(v4(&bench.ask(&packet("approved.example.", RecordType::A)).unwrap()).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_is_answered_more_often() {
    let limits = EgressLimits { dns_per_second: 2, dns_burst: 4, ..EgressLimits::default() };
    let bench = Bench::new(policy(), &limits);
    let answered = |name: &str| {
        let packet = packet(name, RecordType::A);
        (0..1000).take_while(|_| matches!(bench.responder.answer(&packet), Answer::Packet(_))).count()
    };
    // The first query makes the name known.
    assert_eq!(answered("approved.example."), 1 + 4 * KNOWN as usize);
    assert_eq!(answered("evil.com."), 3);
    assert_eq!(answered("other.evil.com."), 0);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!((answered("evil.com."), answered("localhost.")), (2, 2 * KNOWN as usize));
    let refusal = bench.ask(&packet("evil.com.", RecordType::A)).unwrap();
    assert_eq!(refusal.metadata.response_code, ResponseCode::Refused);
}

/// Serves at `address` until the token is dropped.
fn serve(bench: &Bench, address: &str, tasks: &TaskTracker, stop: &CancellationToken) -> SocketAddr {
    let socket = std::net::UdpSocket::bind(address).unwrap();
    let address = socket.local_addr().unwrap();
    let socket = dns_socket(socket.into()).unwrap();
    tasks.spawn(serve_dns(socket, Arc::clone(&bench.responder), stop.clone()));
    address
}

async fn exchange(client: &UdpSocket, server: SocketAddr, packet: &[u8]) -> (Message, SocketAddr) {
    let mut buffer = [0; 2000];
    client.send_to(packet, server).await.unwrap();
    let received = tokio::time::timeout(Duration::from_secs(20), client.recv_from(&mut buffer)).await;
    let (length, from) = received.expect("an answer within 20 s").unwrap();
    (Message::from_vec(&buffer[..length]).unwrap(), from)
}

#[tokio::test]
async fn answers_come_from_the_address_that_was_asked() {
    let bench = Bench::new(policy(), &EgressLimits::default());
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let port = serve(&bench, "0.0.0.0:0", &tasks, &stop).port();
    let port6 = serve(&bench, "[::]:0", &tasks, &stop).port();
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let client6 = UdpSocket::bind("[::1]:0").await.unwrap();
    // Any address of 127.0.0.0/8 is the machine's own, as every address is inside a sandbox. The last one is of a
    // socket for both families.
    for (client, server) in [
        (&client, format!("127.0.0.1:{port}")),
        (&client, format!("127.8.8.8:{port}")),
        (&client, format!("127.9.9.9:{port}")),
        (&client6, format!("[::1]:{port6}")),
        (&client, format!("127.7.7.7:{port6}")),
    ] {
        let server: SocketAddr = server.parse().unwrap();
        let (answer, from) = exchange(client, server, &packet("approved.example.", RecordType::A)).await;
        assert_eq!((from, v4(&answer).len()), (server, 1));
    }
    // A packet that is no query, or too long for one, has no answer and does no harm.
    let server: SocketAddr = format!("127.0.0.1:{port}").parse().unwrap();
    for packet in [vec![], vec![0; 5], vec![0xff; 12], vec![0; 60_000]] {
        client.send_to(&packet, server).await.unwrap();
    }
    let (answer, _) = exchange(&client, server, &packet("x.wild.example.", RecordType::A)).await;
    assert_eq!(v4(&answer).len(), 1);
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

#[tokio::test]
async fn a_flood_is_bounded_and_another_sandbox_does_not_feel_it() {
    let limits = EgressLimits { dns_per_second: 10, dns_burst: 20, ..EgressLimits::default() };
    let (flooded, calm) = (Bench::new(policy(), &limits), Bench::new(policy(), &limits));
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let server = serve(&flooded, "127.0.0.1:0", &tasks, &stop);
    let other = serve(&calm, "127.0.0.1:0", &tasks, &stop);
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for at in 0..3000u32 {
        let name = format!("n{at}.evil.com.");
        client.send_to(&packet(&name, RecordType::A), server).await.unwrap();
    }
    let quiet = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (answer, _) = exchange(&quiet, other, &packet("approved.example.", RecordType::A)).await;
    assert_eq!(v4(&answer).len(), 1);
    let (mut refused, mut buffer) = (0, [0; 2000]);
    while refused == 0 {
        let received = tokio::time::timeout(Duration::from_secs(20), client.recv(&mut buffer)).await;
        let length = received.expect("an answer").unwrap();
        let code = Message::from_vec(&buffer[..length]).unwrap().metadata.response_code;
        refused += u32::from(code == ResponseCode::Refused);
    }
    let told = flooded.told().len();
    assert!((20..3000 / 2).contains(&told), "{told} were read");
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

/// The sockets that a sandbox hands out: port 53 of every address, IPv4 and IPv6.
fn every_address() -> Vec<std::os::fd::OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt};
    use std::os::fd::AsRawFd;

    let any: [SocketAddr; 2] = ["0.0.0.0:53".parse().unwrap(), "[::]:53".parse().unwrap()];
    let make = |address: SocketAddr| {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
        if address.is_ipv6() {
            setsockopt(&fd, sockopt::Ipv6V6Only, &true).unwrap();
            setsockopt(&fd, sockopt::IpFreebind, &true).unwrap();
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(address)).unwrap();
        fd
    };
    any.map(make).into()
}

/// Says that this process runs in a network namespace where every address is its own.
const WITHIN: &str = "CASEMATE_TEST_WITHIN";

#[test]
fn a_query_to_any_server_of_the_world_is_answered_from_its_address() {
    if std::env::var_os(WITHIN).is_some() {
        return within_a_namespace();
    }
    let routes = "ip link set lo up && ip route add local 0.0.0.0/0 dev lo src 127.0.0.1 && \
                  ip -6 route add local ::/0 dev lo && exec \"$0\" \"$@\"";
    let this = "dns::tests::a_query_to_any_server_of_the_world_is_answered_from_its_address";
    let output = std::process::Command::new("unshare")
        .args(["--map-root-user", "--net", "sh", "-c", routes])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", this, "--nocapture"])
        .env(WITHIN, "yes")
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("every address answered"), "{said}");
}

fn within_a_namespace() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bench = Bench::new(policy(), &EgressLimits::default());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        for fd in every_address() {
            tasks.spawn(serve_dns(dns_socket(fd).unwrap(), Arc::clone(&bench.responder), stop.clone()));
        }
        let client = UdpSocket::bind("0.0.0.0:0").await.unwrap();
        let client6 = UdpSocket::bind("[::]:0").await.unwrap();
        for (client, server) in [
            (&client, "8.8.8.8:53"),
            (&client, "127.0.0.1:53"),
            (&client, "10.0.0.53:53"),
            (&client6, "[2001:4860:4860::8888]:53"),
            (&client6, "[::1]:53"),
            (&client6, "[fd00::53]:53"),
        ] {
            let server: SocketAddr = server.parse().unwrap();
            let (answer, from) = exchange(client, server, &packet("approved.example.", RecordType::A)).await;
            assert_eq!((from, v4(&answer).len()), (server, 1));
            let (answer, _) = exchange(client, server, &packet("evil.com.", RecordType::A)).await;
            assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        }
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    });
    println!("every address answered");
}
