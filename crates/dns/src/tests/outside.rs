//! The server as `dig` and `nslookup` see it, from clients in network namespaces of their own.
//!
//! The test runs itself again in a namespace that it makes (as root, or as the root of a user namespace), so that the
//! machine's own network stays as it is. There the server stands between two clients: one in the virtual network
//! 10.77.0.0/16, and one on the outside, 198.51.100.0/24.

use std::process::{Command, Output};

use super::*;

const MARK: &str = "CASEMATE_DNS_INSIDE";
const NAME: &str = "tests::outside::dig_and_nslookup_in_two_networks";
const ENDPOINT: &str = "one.local.inference.casemate.test";

fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask test` installs bind9-dnsutils and iproute2"))
}

fn must(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = run(words[0], &words[1..]);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs a line in a client's namespace; what it printed.
async fn from(client: &'static str, line: String) -> String {
    let ran = tokio::task::spawn_blocking(move || {
        let words = ["netns", "exec", client].into_iter().chain(line.split_whitespace()).collect::<Vec<_>>();
        let output = run("ip", &words);
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    });
    ran.await.unwrap()
}

#[test]
fn dig_and_nslookup_in_two_networks() {
    if std::env::var_os(MARK).is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        return runtime.block_on(inside());
    }
    let root = String::from_utf8_lossy(&run("id", &["-u"]).stdout).trim() == "0";
    let mut command = Command::new("unshare");
    command.args(if root { &["--net", "--mount"][..] } else { &["--user", "--map-root-user", "--net", "--mount"] });
    command.arg(std::env::current_exe().unwrap()).args(["--exact", NAME, "--nocapture"]).env(MARK, "1");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

fn two_networks() {
    for line in ["mount --make-rprivate /", "mount -t tmpfs tmpfs /run", "ip link set lo up"] {
        must(line);
    }
    for (client, ours, theirs) in [("member", "10.77.0.2", "10.77.0.9"), ("stranger", "198.51.100.1", "198.51.100.9")] {
        for line in [
            format!("ip netns add {client}"),
            format!("ip link add {client} type veth peer name eth0 netns {client}"),
            format!("ip address add {ours}/24 dev {client}"),
            format!("ip link set {client} up"),
            format!("ip -n {client} link set lo up"),
            format!("ip -n {client} address add {theirs}/24 dev eth0"),
            format!("ip -n {client} link set eth0 up"),
            format!("ip -n {client} route add default via {ours}"),
        ] {
            must(&line);
        }
    }
}

async fn inside() {
    two_networks();
    let mut snapshot = snapshot(77);
    snapshot.networks = vec![network("v", "10.77.0.0/16", json!({}))];
    let record = json!([{"ipv4Address": "10.77.0.4"}]);
    let [all, own] = workspace_record_names(GUID, "local");
    snapshot.views[0].zones[2] = zone(WORKSPACE_ZONE, &[(&all, "A", record.clone()), (&own, "A", record)]);
    let mut config = DnsConfig::new("casemate.test".to_owned(), "local".to_owned(), ip("198.51.100.1"));
    config.listen = vec!["198.51.100.1:53".parse().unwrap()];
    let (publish, receiver) = watch::channel(Arc::new(snapshot));
    let server = Server::new(config, receiver).await.unwrap();
    let stop = CancellationToken::new();
    let serving = TaskTracker::new().spawn(server.serve(stop.clone()));
    let ready = timeout(PATIENCE, async {
        while ask(([10, 77, 0, 2], 53).into(), &question("casemate.test.", "SOA")).await.is_none() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    ready.await.expect("the network's address is answered at");
    dig().await;
    nslookup().await;
    drop(publish);
    stop.cancel();
    serving.await.unwrap();
}

async fn dig() {
    let long = format!("one.{GUID}.inference.local.privatelink.api.azureml.ms");
    let short = |server: &str, rest: &str| format!("dig +time=3 +tries=2 +short @{server} {rest}");
    for (client, server, rest, expected) in [
        ("member", "10.77.0.2", format!("{ENDPOINT} A"), "10.77.0.4\n"),
        ("member", "198.51.100.1", format!("{ENDPOINT} A"), "10.77.0.4\n"),
        ("stranger", "198.51.100.1", format!("{ENDPOINT} A"), "198.51.100.1\n"),
        ("member", "10.77.0.2", "management.casemate.test A".to_owned(), "10.77.0.4\n"),
        ("stranger", "198.51.100.1", "management.casemate.test A".to_owned(), "198.51.100.1\n"),
        ("member", "10.77.0.2", long.clone(), "10.77.0.4\n"),
        ("stranger", "198.51.100.1", long, ""),
        ("member", "10.77.0.2", "-x 192.0.2.25".to_owned(), "mail.corp.test.\n"),
        ("member", "10.77.0.2", "www.corp.test AAAA".to_owned(), "mail.corp.test.\n2001:db8::25\n"),
        ("member", "10.77.0.2", "_ldap._tcp.corp.test SRV".to_owned(), "1 2 389 mail.corp.test.\n"),
        ("member", "10.77.0.2", "+tcp note.corp.test TXT".to_owned(), "\"one\" \"two words\"\n\"three\"\n"),
    ] {
        assert_eq!(from(client, short(server, &rest)).await, expected, "{client} asks {server} for {rest}");
    }
    let full = |rest: &str| format!("dig +time=3 +tries=2 @10.77.0.2 {rest}");
    for (rest, expected) in [
        ("long.corp.test TXT", "Truncated, retrying in TCP mode"),
        ("long.corp.test TXT", "ANSWER: 20,"),
        ("+ignore +bufsize=512 long.corp.test TXT", "flags: qr aa tc rd ra"),
        ("none.corp.test A", "status: NXDOMAIN"),
        ("mail.corp.test MX", "status: NOERROR"),
        ("mail.corp.test MX", "SOA\tns.casemate.test. hostmaster.casemate.test."),
        ("mail.corp.test ANY", "RFC8482"),
        ("+edns=1 +noednsnegotiation mail.corp.test", "status: BADVERS"),
        ("+noedns mail.corp.test", "192.0.2.25"),
        ("+cookie mail.corp.test", "192.0.2.25"),
        ("-c CH version.bind TXT", "status: REFUSED"),
        ("+opcode=notify corp.test SOA", "status: REFUSED"),
        ("+opcode=update corp.test SOA", "status: REFUSED"),
        ("corp.test AXFR", "Transfer failed."),
        ("corp.test IXFR=1", "Transfer failed."),
    ] {
        let found = from("member", full(rest)).await;
        assert!(found.contains(expected), "{rest}: {expected} in {found}");
    }
    let refused = from("stranger", "dig +time=3 +tries=2 @198.51.100.1 www.example.org".to_owned()).await;
    assert!(refused.contains("status: REFUSED"), "{refused}");
}

async fn nslookup() {
    for (client, server, expected) in
        [("member", "10.77.0.2", "Address: 10.77.0.4"), ("stranger", "198.51.100.1", "Address: 198.51.100.1")]
    {
        let found = from(client, format!("nslookup -timeout=3 {ENDPOINT} {server}")).await;
        let answer = found.split_once("Name:").map(|(_, answer)| answer.to_owned()).unwrap_or_default();
        assert!(answer.contains(ENDPOINT) && answer.contains(expected), "{client}: {found}");
    }
    let found = from("member", format!("nslookup -timeout=3 none.{ENDPOINT} 10.77.0.2")).await;
    assert!(found.contains("NXDOMAIN"), "{found}");
}
