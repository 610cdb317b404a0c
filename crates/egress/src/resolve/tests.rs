//! Against name servers on loopback, good and bad.

use std::{
    io::Write,
    str::FromStr,
    sync::atomic::{AtomicU32, Ordering},
};

use casemate_model::egress::{EgressPolicy, Route};
use hickory_proto::{
    op::{Message, MessageType, OpCode},
    rr::rdata::CNAME,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::*;

/// A name server of the test's own: what it says, and how often it was asked.
struct Server {
    address: SocketAddr,
    asked: Arc<AtomicU32>,
    _task: AbortOnDropHandle<()>,
}

/// Serves UDP and TCP; `say` makes the answer, `None` is silence.
async fn server(say: impl Fn(Message) -> Option<Vec<u8>> + Send + Sync + Clone + 'static) -> Server {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let serve = async move {
        let mut buffer = [0; 2000];
        let connections = TaskTracker::new();
        loop {
            tokio::select! {
                received = udp.recv_from(&mut buffer) => {
                    let Ok((length, client)) = received else { continue };
                    count.fetch_add(1, Ordering::SeqCst);
                    let answer = Message::from_vec(&buffer[..length]).ok().and_then(&say);
                    if let Some(mut answer) = answer {
                        if answer.len() > 1200 {
                            // Cut short, with the bit that sends the client to TCP.
                            answer.truncate(12);
                            answer[2] |= 2;
                            answer[6..12].fill(0);
                            answer[4..6].fill(0);
                            let end = 12 + question(&buffer[12..length]);
                            answer.extend_from_slice(&buffer[12..end]);
                            answer[5] = 1;
                        }
                        let _ = udp.send_to(&answer, client).await;
                    }
                }
                Ok((mut stream, _)) = tcp.accept() => {
                    let say = say.clone();
                    connections.spawn(async move {
                        let mut query = vec![0; usize::from(stream.read_u16().await.unwrap_or(0))];
                        if stream.read_exact(&mut query).await.is_err() {
                            return;
                        }
                        if let Some(answer) = Message::from_vec(&query).ok().and_then(say) {
                            let _ = stream.write_u16(answer.len() as u16).await;
                            let _ = stream.write_all(&answer).await;
                        }
                        let _ = stream.read_u8().await;
                    });
                }
            }
        }
    };
    Server { address, asked, _task: AbortOnDropHandle::new(TaskTracker::new().spawn(serve)) }
}

/// The length of the first question.
fn question(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte == 0).unwrap() + 5
}

/// An answer to `query` with these lines, each `NAME TYPE VALUE` (a value of `-` is left out: no records).
fn say(query: &Message, lines: &[String]) -> Option<Vec<u8>> {
    let mut message = Message::new(query.metadata.id, MessageType::Response, OpCode::Query);
    message.metadata.recursion_available = true;
    let asked = query.queries.first()?.clone();
    let kind = asked.query_type();
    message.add_query(asked);
    for line in lines {
        let mut words = line.split(' ');
        let (name, is, value) = (words.next()?, words.next()?, words.next()?);
        let name = Name::from_ascii(name).unwrap();
        let data = match is {
            "A" if kind == RecordType::A => RData::A(value.parse::<std::net::Ipv4Addr>().unwrap().into()),
            "AAAA" if kind == RecordType::AAAA => RData::AAAA(value.parse::<std::net::Ipv6Addr>().unwrap().into()),
            "CNAME" => RData::CNAME(CNAME(Name::from_ascii(value).unwrap())),
            _ => continue,
        };
        message.add_answer(Record::from_rdata(name, 60, data));
    }
    if message.answers.is_empty() {
        message.metadata.response_code = ResponseCode::NXDomain;
    }
    message.to_vec().ok()
}

/// A server that says the same lines to everybody.
async fn says(lines: &[&str]) -> Server {
    let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    server(move |query| say(&query, &lines)).await
}

fn name(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

async fn find(server: &Server, host: &str) -> Result<Vec<String>, ResolveError> {
    let mut found: Vec<String> = Upstream::new(Some(server.address))
        .unwrap()
        .addresses(&name(host))
        .await?
        .iter()
        .map(ToString::to_string)
        .collect();
    found.sort();
    Ok(found)
}

#[tokio::test]
async fn addresses_of_both_families_and_through_aliases() {
    let server = says(&["a.example. A 1.2.3.4", "a.example. A 1.2.3.5", "a.example. AAAA 2a00::1"]).await;
    assert_eq!(find(&server, "a.example").await.unwrap(), ["1.2.3.4", "1.2.3.5", "2a00::1"]);
    // Aliases within one answer, and those that have to be asked for.
    let server = says(&["a.example. CNAME b.example.", "b.example. CNAME c.example.", "c.example. A 1.2.3.4"]).await;
    assert_eq!(find(&server, "a.example").await.unwrap(), ["1.2.3.4"]);
    let steps = |query: Message| {
        let asked = query.queries[0].name().to_ascii();
        let line = match asked.as_str() {
            "a.example." => "a.example. CNAME b.other.",
            "b.other." => "b.other. CNAME c.third.",
            _ => "c.third. A 1.2.3.4",
        };
        say(&query, &[line.to_owned()])
    };
    assert_eq!(find(&self::server(steps).await, "a.example").await.unwrap(), ["1.2.3.4"]);
    // The same from a server at an address of IPv6 is for another day; one family alone is enough.
    let server = says(&["a.example. AAAA 2a00::1"]).await;
    assert_eq!(find(&server, "a.example").await.unwrap(), ["2a00::1"]);
}

#[tokio::test]
async fn a_server_that_lies_is_bounded_and_the_route_checks_the_rest() {
    // Records of others, beside the right ones, are not believed.
    let server = says(&["evil.example. A 6.6.6.6", "a.example. A 1.2.3.4", "b.a.example. A 7.7.7.7"]).await;
    assert_eq!(find(&server, "a.example").await.unwrap(), ["1.2.3.4"]);
    // A name or an alias that leads inside: found, and then refused by the route.
    let server = says(&[
        "a.example. CNAME internal.example.",
        "internal.example. A 169.254.169.254",
        "internal.example. A 127.0.0.1",
        "internal.example. A 10.0.0.1",
        "internal.example. A 8.8.8.8",
        "internal.example. AAAA ::ffff:10.0.0.1",
        "internal.example. AAAA fd00:ec2::254",
    ])
    .await;
    let upstream = Upstream::new(Some(server.address)).unwrap();
    let found = upstream.addresses(&name("a.example")).await.unwrap();
    let admitted = EgressPolicy::default().admit(&Route::Public, &found);
    assert_eq!(admitted.addresses, ["8.8.8.8".parse::<IpAddr>().unwrap()]);
    assert_eq!(admitted.refused.len(), 4, "{admitted:?}");
    // An answer of hundreds of addresses comes over TCP, and only so many are looked at.
    let lines: Vec<String> = (0..600).map(|at| format!("a.example. A 1.2.{}.{}", at / 250, at % 250 + 1)).collect();
    let huge = self::server(move |query| say(&query, &lines)).await;
    let found = find(&huge, "a.example").await.unwrap();
    assert!((1..=MOST_ADDRESSES).contains(&found.len()), "{}", found.len());
    // Aliases that never end, in one answer or one by one.
    let server = says(&["a.example. CNAME b.example.", "b.example. CNAME a.example."]).await;
    assert!(find(&server, "a.example").await.is_err());
    let endless = |query: Message| {
        let asked = query.queries[0].name().to_ascii();
        say(&query, &[format!("{asked} CNAME x{}.example.", asked.len())])
    };
    let endless = self::server(endless).await;
    assert!(find(&endless, "a.example").await.is_err());
    assert!(endless.asked.load(Ordering::SeqCst) < 100);
}

#[tokio::test]
async fn what_is_not_found_says_so() {
    let server = says(&[]).await;
    let error = find(&server, "nope.example").await.unwrap_err();
    assert!(matches!(error, ResolveError::NotFound(..)), "{error:?}");
    assert!(error.to_string().contains(&format!("the name server {} says that there is none", server.address)));
    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        let server = self::server(move |query| {
            let mut message = Message::error_msg(query.metadata.id, OpCode::Query, code);
            message.add_query(query.queries[0].clone());
            message.to_vec().ok()
        })
        .await;
        let error = find(&server, "a.example").await.unwrap_err();
        assert!(matches!(error, ResolveError::Failed(..)), "{code} {error:?}");
        assert!(error.to_string().contains("--upstream-dns"), "{error}");
    }
    // Nobody listens there.
    let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Upstream::new(Some(closed)).unwrap().addresses(&name("a.example")).await.unwrap_err();
    assert!(matches!(error, ResolveError::Failed(..) | ResolveError::TimedOut(..)), "{error:?}");
}

#[tokio::test]
async fn answers_that_are_no_answers_are_waited_out() {
    // Rubbish, another name's answer, and another question's number.
    let lie = |lie: u8| async move {
        let server = self::server(move |mut query| match lie {
            0 => Some(vec![0xff; 40]),
            1 => {
                query.queries[0].set_name(Name::from_str("evil.example.").unwrap());
                say(&query, &["evil.example. A 6.6.6.6".to_owned(), "a.example. A 6.6.6.6".to_owned()])
            }
            _ => {
                query.metadata.id = query.metadata.id.wrapping_add(1);
                say(&query, &["a.example. A 6.6.6.6".to_owned()])
            }
        })
        .await;
        let found = find(&server, "a.example").await;
        assert!(found.is_err(), "{lie}: {found:?}");
    };
    let started = Instant::now();
    tokio::join!(lie(0), lie(1), lie(2));
    assert!(started.elapsed() < LIMIT * 4, "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_server_that_hangs_costs_its_sandbox_time_and_no_other() {
    let hangs = |query: Message| {
        let asked = query.queries[0].name().to_ascii();
        asked.starts_with("good").then(|| say(&query, &[format!("{asked} A 1.2.3.4")]))?
    };
    let server = self::server(hangs).await;
    let upstream = Upstream::new(Some(server.address)).unwrap();
    let (noisy, calm) = (upstream.for_sandbox(), upstream.for_sandbox());
    let started = Instant::now();
    let lookups: Vec<_> = (0..3 * AT_ONCE_EACH)
        .map(|at| {
            let noisy = noisy.clone();
            TaskTracker::new().spawn(async move { noisy.addresses(&name(&format!("n{at}.example"))).await })
        })
        .collect();
    // Its questions are all on their way before the calm one begins.
    while server.asked.load(Ordering::SeqCst) < 2 * AT_ONCE_EACH as u32 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(calm.addresses(&name("good.example")).await.unwrap(), [IpAddr::from([1, 2, 3, 4])]);
    assert!(lookups.iter().any(|lookup| !lookup.is_finished()), "the calm one came after the noisy ones");
    let (mut timed_out, mut busy) = (0, 0);
    for lookup in lookups {
        match lookup.await.unwrap().unwrap_err() {
            ResolveError::TimedOut(..) => timed_out += 1,
            ResolveError::Busy(..) => busy += 1,
            error => panic!("{error}"),
        }
    }
    assert!(timed_out >= AT_ONCE_EACH && busy > 0, "{timed_out} {busy}");
    assert!(started.elapsed() < LIMIT * 4, "{:?}", started.elapsed());
    // And then all is as before.
    assert!(noisy.addresses(&name("good2.example")).await.is_ok());
}

#[tokio::test]
async fn an_answer_is_kept_for_a_while_and_no_longer_than_it_says() {
    let server = says(&["a.example. A 1.2.3.4"]).await;
    let upstream = Upstream::new(Some(server.address)).unwrap();
    for _ in 0..10 {
        assert_eq!(upstream.addresses(&name("a.example")).await.unwrap(), [IpAddr::from([1, 2, 3, 4])]);
    }
    // One question for each family.
    assert_eq!(server.asked.load(Ordering::SeqCst), 2);
    for _ in 0..10 {
        assert!(upstream.addresses(&name("b.example")).await.is_err());
    }
    assert_eq!(server.asked.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn the_host_s_own_files_and_their_changes() {
    let directory = tempfile::tempdir().unwrap();
    let (resolv_conf, hosts) = (directory.path().join("resolv.conf"), directory.path().join("hosts"));
    let upstream = || Upstream::from_source(Source::Host(System::at(resolv_conf.clone(), hosts.clone())));
    let error = upstream().addresses(&name("a.example")).await.unwrap_err();
    assert!(matches!(error, ResolveError::NoServer(..)) && error.to_string().contains("--upstream-dns"), "{error}");
    std::fs::write(&resolv_conf, "# nothing\n").unwrap();
    assert!(matches!(upstream().addresses(&name("a.example")).await, Err(ResolveError::NoServer(..))));
    // What the hosts file has is not asked for; it may hold anything, and the route checks it.
    std::fs::write(&resolv_conf, "nameserver 127.0.0.1\nsearch corp.example\n").unwrap();
    let mut file = std::fs::File::create(&hosts).unwrap();
    writeln!(file, "10.1.2.3 db.corp db\nrubbish\n fd00::7 db.corp # both\n").unwrap();
    let system = upstream();
    for host in ["db.corp", "db", "DB.Corp."] {
        let found = system.addresses(&name(host)).await.unwrap();
        assert!(found.contains(&IpAddr::from([10, 1, 2, 3])), "{host} {found:?}");
    }
    let Source::Host(files) = &system.shared.from else { panic!("of the host") };
    let before = files.current().unwrap();
    assert!(Arc::ptr_eq(&before, &files.current().unwrap()));
    writeln!(file, "10.1.2.4 later.corp").unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    assert_eq!(system.addresses(&name("later.corp")).await.unwrap(), [IpAddr::from([10, 1, 2, 4])]);
}
