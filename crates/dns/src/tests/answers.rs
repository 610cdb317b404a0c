//! Who is told what, and when.

use super::*;

#[tokio::test]
async fn each_kind_of_client_gets_its_own_answer() {
    let running = Running::start(81, |_, _| {}).await;
    let private = "NoError aa ra: 127.81.0.4";
    let long = format!("one.{GUID}.inference.local.privatelink.api.azureml.ms.");
    for (name, kind, inside, outside) in [
        ("one.local.inference.casemate.test.", "A", private, "NoError aa: 192.0.2.1"),
        ("TWO.Local.inference.CASEMATE.test.", "A", private, "NoError aa: 192.0.2.1"),
        (
            "one.local.inference.casemate.test.",
            "AAAA",
            "NoError aa ra: ; soa casemate.test.",
            "NoError aa: ; soa casemate.test.",
        ),
        (
            "none.local.inference.casemate.test.",
            "A",
            "NXDomain aa ra: ; soa casemate.test.",
            "NXDomain aa: ; soa casemate.test.",
        ),
        (&long, "A", private, "Refused: "),
        ("management.casemate.test.", "A", private, "NoError aa: 192.0.2.1"),
        ("pool1a2b3c.local.cloudapp.casemate.test.", "A", "NoError aa ra: 192.0.2.1", "NoError aa: 192.0.2.1"),
        (
            "local.cloudapp.casemate.test.",
            "A",
            "NoError aa ra: ; soa casemate.test.",
            "NoError aa: ; soa casemate.test.",
        ),
        ("score.example.org.", "A", "ServFail ra: ", "Refused: "),
        ("acct.blob.core.casemate.test.", "A", "NoError aa ra: 192.0.2.1", "NoError aa: 192.0.2.1"),
        ("ns.casemate.test.", "A", "NoError aa ra: 127.81.0.2", "NoError aa: 127.0.0.1"),
        ("casemate.test.", "NS", "NoError aa ra: ns.casemate.test.", "NoError aa: ns.casemate.test."),
        ("mail.corp.test.", "A", "NoError aa ra: 192.0.2.25, 192.0.2.26", "Refused: "),
        ("mail.corp.test.", "AAAA", "NoError aa ra: 2001:db8::25", "Refused: "),
        ("www.corp.test.", "A", "NoError aa ra: mail.corp.test., 192.0.2.25, 192.0.2.26", "Refused: "),
        ("corp.test.", "MX", "NoError aa ra: 10 mail.corp.test.", "Refused: "),
        ("_ldap._tcp.corp.test.", "SRV", "NoError aa ra: 1 2 389 mail.corp.test.", "Refused: "),
        ("25.2.0.192.in-addr.arpa.", "PTR", "NoError aa ra: mail.corp.test.", "Refused: "),
        ("any.thing.wild.corp.test.", "A", "NoError aa ra: 192.0.2.77", "Refused: "),
        ("wild.corp.test.", "A", "NoError aa ra: ; soa corp.test.", "Refused: "),
        ("none.corp.test.", "A", "NXDomain aa ra: ; soa corp.test.", "Refused: "),
        ("ring.corp.test.", "A", "ServFail aa ra: ", "Refused: "),
        ("mail.corp.test.", "ANY", "NoError aa ra: RFC8482 ", "Refused: "),
        ("corp.test.", "AXFR", "Refused: ", "Refused: "),
        ("casemate.test.", "AXFR", "Refused: ", "Refused: "),
        ("4.0.0.10.in-addr.arpa.", "PTR", "NXDomain ra: ; soa 10.in-addr.arpa.", "Refused: "),
        ("www.example.org.", "A", "ServFail ra: ", "Refused: "),
    ] {
        assert_eq!(told(running.ask(name, kind).await), inside, "{name} {kind} from inside");
        assert_eq!(told(ask(running.everybody, &question(name, kind)).await), outside, "{name} {kind} from outside");
        // At the public address, too, a source in the network is inside.
        let packet = question(name, kind).to_vec().unwrap();
        let from = SocketAddr::from(([127, 81, 3, 9], 0));
        let seen = told(send(from, running.everybody, &packet, PATIENCE).await);
        assert_eq!(seen, inside, "{name} {kind} from inside at the public address");
    }
    let asked = running.ask("oNe.LOCAL.inference.casemate.test.", "A").await.unwrap();
    assert_eq!(asked.answers[0].name.to_string(), "oNe.LOCAL.inference.casemate.test.", "the spelling is kept");
    running.end().await;
}

#[tokio::test]
async fn proofs_are_shown_to_certificate_authorities() {
    let board = ChallengeBoard::default();
    let running = Running::start(84, |config, _| config.challenges = board.clone()).await;
    let (own, foreign) = ("_ACME-challenge.One.local.inference.casemate.test.", "_acme-challenge.a.org.casemate.test.");
    let nothing = "NXDomain aa: ; soa casemate.test.";
    let outside = async |name: &str, kind: &str| ask(running.everybody, &question(name, kind)).await;
    assert_eq!(told(outside(own, "TXT").await), nothing);
    let posted = [
        board.post_txt("_acme-challenge.one.local.inference.casemate.test", "first".to_owned()).unwrap(),
        board.post_txt("_acme-challenge.one.local.inference.casemate.test", "second".to_owned()).unwrap(),
        board.post_txt("_acme-challenge.a.org", "third".to_owned()).unwrap(),
    ];
    for (name, kind, expected) in [
        (own, "TXT", "NoError aa: first, second"),
        (own, "A", "NoError aa: ; soa casemate.test."),
        (own, "ANY", "NoError aa: RFC8482 "),
        (foreign, "TXT", "NoError aa: third"),
        ("_acme-challenge.a.org.", "TXT", "Refused: "),
        ("_acme-challenge.casemate.test.", "TXT", nothing),
    ] {
        assert_eq!(told(outside(name, kind).await), expected, "{name} {kind}");
    }
    let answer = outside(own, "TXT").await.unwrap();
    assert!(answer.answers.iter().all(|record| record.ttl == 0 && record.name.to_string() == own));
    drop(posted);
    let gone = outside(own, "TXT").await;
    assert_eq!(gone.as_ref().unwrap().authorities[0].ttl, 0, "nobody keeps that there is none");
    assert_eq!(told(gone), nothing);
    running.end().await;
}

#[tokio::test]
async fn what_does_not_fit_is_asked_again_over_tcp() {
    let running = Running::start(82, |_, _| {}).await;
    let long = question("long.corp.test.", "TXT");
    let by_udp = ask(running.network, &long).await.unwrap();
    assert_eq!((by_udp.truncation, by_udp.answers.len()), (true, 0));
    let mut stream = connect(running.network).await;
    for _ in 0..3 {
        let by_tcp = ask_by_tcp(&mut stream, &long).await;
        assert_eq!((by_tcp.truncation, by_tcp.answers.len()), (false, 20));
    }
    assert_eq!(
        told(Some(ask_by_tcp(&mut stream, &question("none.corp.test.", "A")).await)),
        "NXDomain aa ra: ; soa corp.test."
    );
    running.end().await;
}

#[tokio::test]
async fn changes_are_answered_at_once_and_addresses_come_and_go() {
    let running = Running::start(83, |_, _| {}).await;
    let name = "one.local.inference.casemate.test.";
    let publish = |change: &dyn Fn(&mut NetworkSnapshot)| {
        let mut snapshot = snapshot(83);
        change(&mut snapshot);
        running.publish.send_replace(Arc::new(snapshot));
    };
    let becomes = async |expected: &str| {
        let since = std::time::Instant::now();
        running.until(async |running: &Running| told(running.ask(name, "A").await) == expected).await;
        since.elapsed()
    };
    // The record goes, and the name with it; it comes back with another address; the link goes.
    publish(&|snapshot| snapshot.views[0].zones[2].records.clear());
    becomes("NXDomain aa ra: ; soa casemate.test.").await;
    publish(&|snapshot| {
        let record = json!([{"ipv4Address": "127.83.0.5"}]);
        let [all, _] = workspace_record_names(GUID, "local");
        snapshot.views[0].zones = vec![zone(WORKSPACE_ZONE, &[(&all, "A", record)])];
    });
    becomes("NoError aa ra: 127.83.0.5").await;
    publish(&|snapshot| snapshot.views[0].zones.clear());
    becomes("NoError aa ra: 192.0.2.1").await;
    assert_eq!(told(running.ask("mail.corp.test.", "A").await), "ServFail ra: ", "no longer in a zone");
    publish(&|snapshot| snapshot.workspaces[0].endpoints.clear());
    becomes("NXDomain aa ra: ; soa casemate.test.").await;
    publish(&|_| {});
    let took = becomes("NoError aa ra: 127.83.0.4").await;
    assert!(took < Duration::from_secs(5), "it took {took:?}");
    // Without the network its address is free for others, and public questions go on.
    publish(&|snapshot| (snapshot.networks.clear(), snapshot.views.clear()).0);
    running.until(async |running: &Running| UdpSocket::bind(running.network).await.is_ok()).await;
    let everybody = ask(running.everybody, &question(name, "A")).await;
    assert_eq!(told(everybody), "NoError aa: 192.0.2.1");
    let squatter = UdpSocket::bind(running.network).await.unwrap();
    publish(&|_| {});
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(squatter);
    becomes("NoError aa ra: 127.83.0.4").await;
    running.end().await;
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (_publish, snapshot) = watch::channel(Arc::new(NetworkSnapshot::default()));
    for (address, said) in [
        (taken.local_addr().unwrap().to_string(), "Another DNS server has it"),
        ("192.0.2.200:5353".to_owned(), "has no such address"),
        ("0.0.0.0:5353".to_owned(), "the machine's own addresses"),
    ] {
        let mut config = DnsConfig::new("casemate.test".to_owned(), "local".to_owned(), ip("127.0.0.1"));
        config.listen = vec![address.parse().unwrap()];
        let fault = Server::new(config, snapshot.clone()).await.unwrap_err();
        assert!(fault.message.contains(said) && fault.message.contains(&address), "{}", fault.message);
    }
}

#[tokio::test]
async fn a_front_door_at_every_address_is_at_the_one_that_was_asked() {
    let running = Running::start(84, |config, snapshot| {
        config.front_door = ip("0.0.0.0");
        snapshot.views[0].zones.clear();
    })
    .await;
    let name = "one.local.inference.casemate.test.";
    assert_eq!(told(running.ask(name, "A").await), "NoError aa ra: 127.84.0.2");
    assert_eq!(told(ask(running.everybody, &question(name, "A")).await), "NoError aa: 127.0.0.1");
    running.end().await;
}
