//! What nobody should send: malformed packets, floods of names, connections that say nothing.

use std::time::Instant;

use hickory_proto::op::ResponseCode;

use super::*;

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_names_leave_memory_as_it_was() {
    let running = Running::start(90, |_, _| {}).await;
    let socket = UdpSocket::bind((running.network.ip(), 0)).await.unwrap();
    socket.connect(running.network).await.unwrap();
    let mut buffer = vec![0; 4096];
    let mut flood = async |from: usize, to: usize| {
        let mut answered = 0;
        for n in from..to {
            let suffix = ["corp.test", "wild.corp.test", "local.inference.casemate.test", "hangs.test"][n % 4];
            let packet = question(&format!("name-{n}.{suffix}."), "A").to_vec().unwrap();
            socket.send(&packet).await.unwrap();
            if n % 4 != 3 && timeout(Duration::from_secs(1), socket.recv(&mut buffer)).await.is_ok() {
                answered += 1;
            }
        }
        answered
    };
    flood(0, 4000).await;
    let (before, started) = (resident(), Instant::now());
    let answered = flood(4000, 104_000).await;
    let grown = resident().saturating_sub(before);
    eprintln!("100,000 names: {answered} answers, {:?}, {grown} KiB more", started.elapsed());
    assert!(answered > 50_000, "only {answered} answers");
    assert!(grown < 24 * 1024, "{grown} KiB more");
    running.end().await;
}

#[tokio::test]
async fn malformed_packets_change_nothing() {
    let running = Running::start(91, |_, _| {}).await;
    let good = question("mail.corp.test.", "AAAA").to_vec().unwrap();
    let socket = UdpSocket::bind((running.network.ip(), 0)).await.unwrap();
    socket.connect(running.network).await.unwrap();
    for at in 0..good.len() {
        for value in [0x00, 0x3f, 0x80, 0xc0, 0xff] {
            let mut packet = good.clone();
            packet[at] = value;
            socket.send(&packet).await.unwrap();
            socket.send(&packet[..at]).await.unwrap();
        }
    }
    let mut two = question("mail.corp.test.", "A");
    two.add_query(two.queries[0].clone());
    let answer =
        send(SocketAddr::new(running.network.ip(), 0), running.network, &two.to_vec().unwrap(), PATIENCE).await;
    assert_eq!(answer.unwrap().response_code, ResponseCode::FormErr);
    assert_eq!(told(running.ask("mail.corp.test.", "AAAA").await), "NoError aa ra: 2001:db8::25");
    running.end().await;
}

#[tokio::test]
async fn connections_are_bounded_and_those_that_stay_still_serve() {
    let running = Running::start(92, |_, _| {}).await;
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(connect(running.network).await);
    }
    let mut open = 0;
    for stream in &mut held {
        // A closed one is at its end; an open one is waited for in vain.
        let mut byte = [0; 1];
        if timeout(Duration::from_millis(100), stream.read(&mut byte)).await.is_err() {
            open += 1;
            let answer = ask_by_tcp(stream, &question("mail.corp.test.", "AAAA")).await;
            assert_eq!(told(Some(answer)), "NoError aa ra: 2001:db8::25");
        }
    }
    assert_eq!(open, 32, "of one source");
    // Another source has its own places, and one that is given back can be taken again.
    let mut other = connect(SocketAddr::new(ip("127.0.0.1"), running.everybody.port())).await;
    ask_by_tcp(&mut other, &question("casemate.test.", "SOA")).await;
    held.clear();
    running
        .until(async |running: &Running| {
            let server = running.network;
            let mut stream = connect(server).await;
            let bytes = question("casemate.test.", "SOA").to_vec().unwrap();
            let framed = [u16::try_from(bytes.len()).unwrap().to_be_bytes().as_slice(), &bytes].concat();
            stream.write_all(&framed).await.is_ok() && stream.read_u16().await.is_ok()
        })
        .await;
    // A message longer than any question ends its connection.
    let mut stream = connect(running.network).await;
    stream.write_all(&[0xff; 64]).await.unwrap();
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("it ends");
    assert!(ended.is_err() || rest.is_empty());
    running.end().await;
}

#[tokio::test]
async fn a_source_that_asks_too_much_is_told_of_tcp() {
    let running = Running::start(93, |config, _| config.answers_per_second = 20).await;
    let socket = UdpSocket::bind((running.network.ip(), 0)).await.unwrap();
    socket.connect(running.network).await.unwrap();
    let packet = question("mail.corp.test.", "A").to_vec().unwrap();
    for _ in 0..400 {
        socket.send(&packet).await.unwrap();
    }
    let (mut whole, mut slipped, mut buffer) = (0, 0, vec![0; 4096]);
    while let Ok(Ok(length)) = timeout(Duration::from_millis(500), socket.recv(&mut buffer)).await {
        let answer = Message::from_vec(&buffer[..length]).unwrap();
        assert!(length <= packet.len() + 16 || !answer.truncation);
        if answer.truncation { slipped += 1 } else { whole += 1 }
    }
    assert!(whole >= 1 && slipped >= 20 && whole + slipped < 390, "{whole} whole, {slipped} slipped");
    let mut stream = connect(running.network).await;
    assert_eq!(ask_by_tcp(&mut stream, &question("mail.corp.test.", "A")).await.answers.len(), 2);
    running.end().await;
}
