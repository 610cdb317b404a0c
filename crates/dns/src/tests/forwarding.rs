//! Names of other servers: for whom, from whom, and what a server that hangs or lies can do.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use hickory_proto::{
    op::ResponseCode,
    rr::{RData, Record as DnsRecord, rdata::CNAME},
};

use super::*;

/// Another DNS server, which answers as it is told and remembers what it was asked.
struct Upstream {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Upstream {
    /// `answer` gives the packets to send back for a question; the real answer is the argument, with no records.
    async fn start(answer: impl Fn(Message) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&asked);
        let task = TaskTracker::new().spawn(async move {
            let mut buffer = vec![0; 4096];
            while let Ok((length, source)) = socket.recv_from(&mut buffer).await {
                let question = Message::from_vec(&buffer[..length]).unwrap();
                list.lock().unwrap().push(question.queries[0].name().to_ascii().to_lowercase());
                let mut response = Message::response(question.id, OpCode::Query);
                response.metadata.recursion_available = true;
                response.queries = question.queries.clone();
                for packet in answer(response) {
                    socket.send_to(&packet, source).await.unwrap();
                }
            }
        });
        Self { address, asked, task }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers a question for addresses with one of them.
fn with_address(mut response: Message, address: [u8; 4]) -> Vec<Vec<u8>> {
    let name = response.queries[0].name().clone();
    if response.queries[0].query_type() == RecordType::A {
        response.answers.push(DnsRecord::from_rdata(
            name,
            300,
            RData::A(IpAddr::from(address).to_string().parse().unwrap()),
        ));
    }
    vec![response.to_vec().unwrap()]
}

#[tokio::test]
async fn the_longest_suffix_chooses_the_server_and_private_names_stay_here() {
    let usual = Upstream::start(|response| with_address(response, [198, 51, 100, 1])).await;
    let corporate = Upstream::start(|response| with_address(response, [198, 51, 100, 2])).await;
    let (usual_at, corporate_at) = (usual.address, corporate.address);
    let running = Running::start(85, |config, snapshot| {
        config.upstream = Some(usual_at);
        let forwarders =
            json!({"casemate": {"forwarders": [{"suffix": "example.net", "to": [corporate_at.to_string()]}]}});
        snapshot.networks[0].forwarders = network("v", "127.85.0.0/16", forwarders).forwarders;
    })
    .await;
    for (name, expected) in [
        ("www.example.org.", "NoError ra: 198.51.100.1"),
        ("www.example.net.", "NoError ra: 198.51.100.2"),
        ("EXAMPLE.net.", "NoError ra: 198.51.100.2"),
        ("notexample.net.", "NoError ra: 198.51.100.1"),
        ("away.corp.test.", "NoError ra: www.example.org., 198.51.100.1"),
    ] {
        assert_eq!(told(running.ask(name, "A").await), expected, "{name}");
    }
    assert_eq!(corporate.asked(), ["www.example.net.", "example.net."]);
    assert_eq!(usual.asked(), ["www.example.org.", "notexample.net."], "the answer was kept");
    let secret = format!("x.{GUID}.workspace.local.privatelink.api.azureml.ms.");
    for name in ["none.corp.test.", &secret, "a.b.c.casemate.test.", "1.0.0.10.in-addr.arpa.", "x.localhost."] {
        running.ask(name, "A").await.unwrap();
    }
    // Whoever is in no network, and whoever does not want it, gets nothing looked up.
    assert_eq!(told(ask(running.everybody, &question("fresh.example.org.", "A")).await), "Refused: ");
    let stranger = SocketAddr::from(([127, 0, 0, 1], 0));
    let packet = question("fresh.example.org.", "A").to_vec().unwrap();
    assert_eq!(told(send(stranger, running.everybody, &packet, PATIENCE).await), "Refused: ");
    let mut undesired = question("fresh.example.org.", "A");
    undesired.metadata.recursion_desired = false;
    assert_eq!(told(ask(running.network, &undesired).await), "Refused: ");
    assert_eq!((usual.asked(), corporate.asked()), (vec![], vec![]));
    // A network whose link was removed still does not ask others about private endpoints.
    let mut unlinked = snapshot(85);
    unlinked.views[0].zones.clear();
    running.publish.send_replace(Arc::new(unlinked));
    running
        .until(async |running: &Running| told(running.ask(&secret, "A").await).contains("soa privatelink.api"))
        .await;
    assert_eq!(usual.asked(), Vec::<String>::new());
    running.end().await;
}

#[tokio::test]
async fn an_alias_of_another_server_into_a_private_zone_ends_here() {
    let upstream = Upstream::start(|mut response| {
        let name = response.queries[0].name().clone();
        let target = Name::from_ascii("mail.corp.test.").unwrap();
        response.answers.push(DnsRecord::from_rdata(name, 300, RData::CNAME(CNAME(target.clone()))));
        response.answers.push(DnsRecord::from_rdata(target, 300, RData::A("203.0.113.66".parse().unwrap())));
        vec![response.to_vec().unwrap()]
    })
    .await;
    let address = upstream.address;
    let running = Running::start(86, |config, _| config.upstream = Some(address)).await;
    let found = told(running.ask("account.example.org.", "A").await);
    assert_eq!(found, "NoError ra: mail.corp.test., 192.0.2.25, 192.0.2.26");
    running.end().await;
}

#[tokio::test]
async fn a_server_that_lies_is_not_believed() {
    // The wrong id, another question, a response to nothing, noise; and only then the truth.
    let upstream = Upstream::start(|response| {
        let mut forged = Vec::new();
        for wrong in [
            |message: &mut Message| message.metadata.id ^= 1,
            |message: &mut Message| message.queries[0].name = Name::from_ascii("other.example.").unwrap(),
        ] {
            let mut message = response.clone();
            wrong(&mut message);
            forged.extend(with_address(message, [203, 0, 113, 66]));
        }
        forged.push(vec![0xff; 40]);
        forged.extend(with_address(response, [198, 51, 100, 1]));
        forged
    })
    .await;
    let address = upstream.address;
    let running = Running::start(87, |config, _| config.upstream = Some(address)).await;
    for name in ["a.example.org.", "b.example.org."] {
        let found = told(running.ask(name, "A").await);
        assert!(["NoError ra: 198.51.100.1", "ServFail ra: ", "silence"].contains(&found.as_str()), "{found}");
    }
    running.end().await;
}

#[tokio::test]
async fn codes_are_handed_on() {
    let upstream = Upstream::start(|mut response| {
        let name = response.queries[0].name().to_ascii();
        response.metadata.response_code = match name.split('.').next().unwrap() {
            "none" => ResponseCode::NXDomain,
            "broken" => ResponseCode::ServFail,
            "closed" => ResponseCode::Refused,
            _ => ResponseCode::NoError,
        };
        vec![response.to_vec().unwrap()]
    })
    .await;
    let address = upstream.address;
    let running = Running::start(88, |config, _| config.upstream = Some(address)).await;
    for (name, expected) in [
        ("none.example.org.", "NXDomain ra: "),
        ("empty.example.org.", "NoError ra: "),
        ("broken.example.org.", "ServFail ra: "),
        ("closed.example.org.", "ServFail ra: "),
    ] {
        let answer = send(
            SocketAddr::new(running.network.ip(), 0),
            running.network,
            &question(name, "A").to_vec().unwrap(),
            PATIENCE,
        )
        .await;
        assert_eq!(told(answer), expected, "{name}");
    }
    running.end().await;
}

#[tokio::test]
async fn a_server_that_hangs_takes_nothing_from_others() {
    let silent = Upstream::start(|_| Vec::new()).await;
    let usual = Upstream::start(|response| with_address(response, [198, 51, 100, 1])).await;
    let (silent_at, usual_at) = (silent.address, usual.address);
    let running = Running::start(89, |config, snapshot| {
        config.upstream = Some(usual_at);
        let forwarders = json!({"casemate": {"forwarders": [{"suffix": "hangs.test", "to": [silent_at.to_string()]}]}});
        snapshot.networks[0].forwarders = network("v", "127.89.0.0/16", forwarders).forwarders;
    })
    .await;
    let refused = Arc::new(AtomicUsize::new(0));
    let mut flood = tokio::task::JoinSet::new();
    for n in 0..160 {
        let (server, refused) = (running.network, Arc::clone(&refused));
        flood.spawn(async move {
            let packet = question(&format!("n{n}.hangs.test."), "A").to_vec().unwrap();
            let from = SocketAddr::new(server.ip(), 0);
            // A datagram may get lost on a loaded machine: a client asks again.
            let mut answer = None;
            for _ in 0..4 {
                if answer.is_none() {
                    answer = send(from, server, &packet, Duration::from_secs(6)).await;
                }
            }
            let answer = answer.expect("everybody hears something");
            assert_eq!(answer.response_code, ResponseCode::ServFail);
            refused.fetch_add(1, Ordering::Relaxed);
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Those without a place hear at once, while the others wait.
    running.until(async |_: &Running| refused.load(Ordering::Relaxed) >= 90).await;
    assert!(refused.load(Ordering::Relaxed) < 160, "nothing was asked at all");
    for n in 0..20 {
        assert_eq!(told(running.ask(&format!("n{n}.example.org."), "A").await), "NoError ra: 198.51.100.1");
    }
    assert_eq!(told(running.ask("mail.corp.test.", "AAAA").await), "NoError aa ra: 2001:db8::25");
    while let Some(done) = flood.join_next().await {
        done.unwrap();
    }
    assert!(silent.asked().len() <= 64 * 6, "more was asked than may be in flight");
    running.end().await;
}
