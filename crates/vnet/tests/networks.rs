//! Networks made real: each test has a network namespace of its own with the real kernel in it. They need root;
//! without it only the loopback network is tried, and that the others fail by name.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    future::Future,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use casemate_model::{
    ResourceId,
    network::{NetworkKind, NetworkSnapshot, PrivateEndpoint, Subnet, VirtualNetwork},
};
use casemate_vnet::{Config, Published, VirtualNetworks};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);
const PORT: u16 = 8443;
const BRIDGE: &str = "cm0123456789";

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Runs `test` in a network namespace of its own.
fn apart<F: Future>(test: impl FnOnce() -> F + Send + 'static) {
    let inside = move || {
        if is_root() {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            ip("link set lo up");
        }
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test());
    };
    // Another thread: one that went into a namespace has no way back.
    std::thread::spawn(inside).join().unwrap();
}

/// `ip …` in this thread's namespace; what it prints.
fn ip(line: &str) -> String {
    let output = Command::new("ip").args(line.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn addresses(device: &str) -> BTreeSet<String> {
    let text = ip(&format!("-o addr show dev {device}"));
    let words = text.lines().map(|line| line.split_whitespace().nth(3).unwrap().to_owned());
    words.filter(|word| !word.starts_with("fe80")).collect()
}

fn id(kind: &str, name: &str) -> ResourceId {
    ResourceId::parse(&format!("/subscriptions/s/resourceGroups/g/providers/{kind}/{name}")).unwrap()
}

fn network(name: &str, kind: NetworkKind, prefix: &str) -> VirtualNetwork {
    let subnet: ipnet::IpNet = prefix.parse().unwrap();
    let mut hosts = subnet.hosts();
    VirtualNetwork {
        id: id("Microsoft.Network/virtualNetworks", name),
        guid: uuid::Uuid::nil(),
        name: name.to_owned(),
        gateway_address: hosts.next().filter(|_| matches!(kind, NetworkKind::Managed { .. })),
        dns_address: hosts.next().filter(|_| !matches!(kind, NetworkKind::Interface { .. })),
        kind,
        prefixes: vec![subnet],
        subnets: vec![Subnet { name: "s".to_owned(), prefix: subnet }],
        forwarders: Vec::new(),
    }
}

fn managed(name: &str, prefix: &str) -> VirtualNetwork {
    network(name, NetworkKind::Managed { bridge: BRIDGE.to_owned() }, prefix)
}

fn endpoint(name: &str, home: &str, address: &str) -> PrivateEndpoint {
    let target = id("Microsoft.MachineLearningServices/workspaces", "w");
    PrivateEndpoint {
        id: id("Microsoft.Network/privateEndpoints", name),
        network: id("Microsoft.Network/virtualNetworks", home),
        subnet: "s".to_owned(),
        address: address.parse().unwrap(),
        connection: target.child("privateEndpointConnections", "c").unwrap(),
        target,
        groups: Vec::new(),
        approved: true,
    }
}

/// Networks that run. Dropping it is `kill -9`.
struct Stage {
    snapshot: watch::Sender<Arc<NetworkSnapshot>>,
    published: Published,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Stage {
    fn start(state: &Path) -> Self {
        Self::start_with(state, Vec::new(), Vec::new())
    }

    fn start_with(state: &Path, networks: Vec<VirtualNetwork>, endpoints: Vec<PrivateEndpoint>) -> Self {
        let first = NetworkSnapshot { networks, endpoints, ..NetworkSnapshot::default() };
        let (snapshot, wanted) = watch::channel(Arc::new(first));
        let (published, shutdown) = (Published::new(), CancellationToken::new());
        let front_door = SocketAddr::from(([127, 0, 0, 1], PORT));
        let networks = VirtualNetworks::new(Config { state_dir: state.to_owned(), front_door, dns_port: 53 });
        let mut tasks = JoinSet::new();
        tasks.spawn(networks.run(wanted, published.clone(), shutdown.clone()));
        Self { snapshot, published, shutdown, tasks }
    }

    fn publish(&self, networks: Vec<VirtualNetwork>, endpoints: Vec<PrivateEndpoint>) {
        let snapshot = NetworkSnapshot { networks, endpoints, ..NetworkSnapshot::default() };
        self.snapshot.send_replace(Arc::new(snapshot));
    }

    /// Waits until the resource `name` is there or has failed; gives the code of why.
    async fn settled(&self, name: &str) -> Option<String> {
        let find = |status: &casemate_vnet::Status| {
            status
                .iter()
                .find(|(id, _)| id.name() == name)
                .map(|(_, fault)| fault.as_ref().map(|fault| fault.code.clone()))
        };
        let mut status = self.published.status.subscribe();
        let found = tokio::time::timeout(PATIENCE, status.wait_for(|status| find(status).is_some())).await;
        let status = found.expect("the resource is looked at in time").unwrap();
        find(&status).flatten()
    }

    fn open(&self) -> Vec<String> {
        self.published.listeners.borrow().iter().map(|listener| listener.address.to_string()).collect()
    }

    async fn until(&self, what: &str, done: impl Fn() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < PATIENCE, "never: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(mut self) {
        self.shutdown.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

#[test]
fn a_loopback_network_needs_no_rights() {
    apart(|| async {
        let state = tempfile::tempdir().unwrap();
        let stage = Stage::start(state.path());
        let home = network("net", NetworkKind::Loopback, "127.0.40.0/24");
        let began = Instant::now();
        stage.publish(vec![home.clone()], vec![endpoint("pe", "net", "127.0.40.5")]);
        assert_eq!(stage.settled("pe").await, None);
        let took = began.elapsed();
        assert!(stage.open().contains(&format!("127.0.40.5:{PORT}")), "{:?}", stage.open());
        drop(TcpStream::connect(("127.0.40.5", PORT)).unwrap());
        eprintln!("a private endpoint of a loopback network is open after {took:?}");

        // Rejected: gone, listener and all.
        let rejected = PrivateEndpoint { approved: false, ..endpoint("pe", "net", "127.0.40.5") };
        stage.publish(vec![home], vec![rejected]);
        stage.until("the listener closes", || stage.open().is_empty()).await;
        stage.until("nobody listens", || TcpStream::connect(("127.0.40.5", PORT)).is_err()).await;
        stage.stop().await;
        assert!(!state.path().join("networks.txt").exists());
    });
}

#[test]
fn without_the_right_a_network_fails_by_name_and_others_go_on() {
    if is_root() {
        return;
    }
    apart(|| async {
        let state = tempfile::tempdir().unwrap();
        let stage = Stage::start(state.path());
        stage.publish(
            vec![managed("net", "10.213.0.0/24"), network("loop", NetworkKind::Loopback, "127.0.41.0/24")],
            vec![endpoint("pe", "net", "10.213.0.5"), endpoint("other", "loop", "127.0.41.5")],
        );
        assert_eq!(stage.settled("net").await.as_deref(), Some("NetworkAdminRequired"));
        assert_eq!(stage.settled("pe").await.as_deref(), Some("NetworkAdminRequired"));
        assert_eq!(stage.settled("other").await, None);
    });
}

#[test]
fn a_managed_network_is_a_bridge_that_survives_kill_and_goes_when_deleted() {
    if !is_root() {
        return;
    }
    apart(|| async {
        let state = tempfile::tempdir().unwrap();
        let stage = Stage::start(state.path());
        let (home, own) = (managed("net", "10.213.0.0/24"), endpoint("pe", "net", "10.213.0.5"));
        let began = Instant::now();
        stage.publish(vec![home.clone()], vec![own.clone(), endpoint("second", "net", "10.213.0.6")]);
        assert_eq!(stage.settled("net").await, None);
        assert_eq!(stage.settled("pe").await, None);
        eprintln!("a private endpoint of a managed network is open after {:?}", began.elapsed());
        let wanted = ["10.213.0.1/24", "10.213.0.2/32", "10.213.0.5/32", "10.213.0.6/32"].map(str::to_owned);
        assert_eq!(addresses(BRIDGE), BTreeSet::from(wanted));
        let open = [443, PORT].map(|port| [format!("10.213.0.5:{port}"), format!("10.213.0.6:{port}")]).concat();
        assert_eq!(BTreeSet::from_iter(stage.open()), BTreeSet::from_iter(open));
        for family in ["ipv4", "ipv6"] {
            let value = std::fs::read_to_string(format!("/proc/sys/net/{family}/conf/{BRIDGE}/forwarding"));
            assert_eq!(value.unwrap().trim(), "0");
        }
        // What somebody else adds is not touched, what somebody takes away comes back.
        ip(&format!("addr add 10.213.0.77/32 dev {BRIDGE}"));
        ip(&format!("addr del 10.213.0.5/32 dev {BRIDGE}"));
        let back = || addresses(BRIDGE).contains("10.213.0.5/32");
        stage.until("the address comes back", back).await;

        // kill -9, and a start that wants one endpoint less.
        let number = || ip(&format!("-o link show {BRIDGE}")).split(':').next().unwrap().to_owned();
        let before = number();
        drop(stage);
        let stage = Stage::start_with(state.path(), vec![home.clone()], vec![own]);
        assert_eq!(stage.settled("pe").await, None);
        stage.until("the other's address goes", || !addresses(BRIDGE).contains("10.213.0.6/32")).await;
        assert_eq!(number(), before, "the bridge was made anew");
        assert!(addresses(BRIDGE).contains("10.213.0.77/32"));

        stage.publish(Vec::new(), Vec::new());
        stage.until("the bridge goes", || !ip("-o link").contains(BRIDGE)).await;
        assert!(stage.open().is_empty());
        stage.stop().await;
    });
}

#[test]
fn a_bridge_with_members_stays_at_a_stop_and_one_without_goes() {
    if !is_root() {
        return;
    }
    apart(|| async {
        let state = tempfile::tempdir().unwrap();
        for members in [true, false] {
            let stage = Stage::start(state.path());
            stage.publish(vec![managed("net", "10.213.0.0/24")], vec![endpoint("pe", "net", "10.213.0.5")]);
            assert_eq!(stage.settled("pe").await, None);
            if members {
                ip("link add member type veth peer name inside");
                ip(&format!("link set member master {BRIDGE}"));
            } else {
                ip("link del member");
            }
            stage.stop().await;
            assert_eq!(ip("-o link").contains(BRIDGE), members);
        }
    });
}

#[test]
fn members_reach_the_private_endpoint_and_no_other_service_of_the_machine() {
    if !is_root() {
        return;
    }
    apart(|| async {
        let state = tempfile::tempdir().unwrap();
        let stage = Stage::start(state.path());
        stage.publish(vec![managed("net", "10.213.0.0/24")], vec![endpoint("pe", "net", "10.213.0.5")]);
        assert_eq!(stage.settled("pe").await, None);
        let member = format!("cm-vnet-{}", std::process::id());
        ip(&format!("netns add {member}"));
        ip(&format!("link add member type veth peer name inside netns {member}"));
        ip(&format!("link set member master {BRIDGE} up"));
        ip(&format!("-n {member} addr add 10.213.0.50/24 dev inside"));
        ip(&format!("-n {member} link set inside up"));
        // Another service of the machine, at all its addresses, and one at the port of names.
        let (other, names) =
            (std::net::TcpListener::bind("0.0.0.0:2222"), std::net::TcpListener::bind("10.213.0.2:53"));
        let (_other, _names) = (other.unwrap(), names.unwrap());
        let reaches = |to: &str, port: u16| {
            let script = format!("exec 3<>/dev/tcp/{to}/{port}");
            let line = ["netns", "exec", &member, "timeout", "2", "bash", "-c", &script];
            Command::new("ip").args(line).output().unwrap().status.success()
        };
        let seen = [
            ("10.213.0.5", PORT, true),
            ("10.213.0.5", 443, true),
            ("10.213.0.2", 53, true),
            ("10.213.0.5", 2222, false),
            ("10.213.0.1", 2222, false),
            ("10.213.0.2", 2222, false),
        ]
        .map(|(to, port, expected)| (to, port, reaches(to, port), expected));
        // The machine reaches its members, and has their answers.
        ip(&format!("-n {member} link set lo up"));
        let answered = Command::new("ping").args(["-c", "1", "-W", "5", "10.213.0.50"]).output();
        ip(&format!("netns delete {member}"));
        for (to, port, reached, expected) in seen {
            assert_eq!(reached, expected, "{to}:{port}");
        }
        assert!(answered.is_err() || answered.is_ok_and(|ping| ping.status.success()), "no answer of a member");
        stage.publish(Vec::new(), Vec::new());
        stage.until("the bridge goes", || !ip("-o link").contains(BRIDGE)).await;
        stage.stop().await;
    });
}

#[test]
fn addresses_on_an_interface_come_and_go_and_those_of_others_stay() {
    if !is_root() {
        return;
    }
    apart(|| async {
        let state = tempfile::tempdir().unwrap();
        ip("link add wire0 type veth peer name wire1");
        ip("link set wire1 up");
        ip("addr add 10.214.0.9/24 dev wire0");
        let stage = Stage::start(state.path());
        let home = network("net", NetworkKind::Interface { device: "wire0".to_owned() }, "10.214.0.0/24");
        let both = vec![endpoint("pe", "net", "10.214.0.5"), endpoint("theirs", "net", "10.214.0.9")];
        stage.publish(vec![home.clone()], both.clone());
        assert_eq!(stage.settled("net").await.as_deref(), Some("InterfaceNotFound"));
        ip("link set wire0 up");
        let ready = || stage.published.status.borrow().values().all(Option::is_none);
        stage.until("the interface is found", ready).await;
        assert_eq!(addresses("wire0"), BTreeSet::from(["10.214.0.5/32", "10.214.0.9/24"].map(str::to_owned)));
        assert_eq!(stage.open().len(), 4);

        // kill -9, and nothing is wanted any more.
        drop(stage);
        let stage = Stage::start(state.path());
        stage.until("the address goes", || !addresses("wire0").contains("10.214.0.5/32")).await;
        stage.publish(vec![home], both);
        assert_eq!(stage.settled("pe").await, None);
        stage.stop().await;
        assert_eq!(addresses("wire0"), BTreeSet::from(["10.214.0.9/24".to_owned()]));
    });
}

#[test]
fn a_network_that_would_hide_others_or_take_their_interface_fails() {
    if !is_root() {
        return;
    }
    apart(|| async {
        let state = tempfile::tempdir().unwrap();
        ip("link add wire0 type veth peer name wire1");
        ip("link set wire1 up");
        ip("link set wire0 up");
        ip("addr add 10.215.0.9/24 dev wire0");
        ip("route add 10.216.0.0/16 via 10.215.0.1");
        let stage = Stage::start(state.path());
        for (prefix, code) in [
            ("10.215.0.0/16", Some("AddressSpaceInUse")),
            ("10.215.0.128/25", Some("AddressSpaceInUse")),
            ("10.216.7.0/24", Some("AddressSpaceInUse")),
            ("10.217.0.0/24", None),
        ] {
            stage.publish(Vec::new(), Vec::new());
            stage.until("all is forgotten", || stage.published.status.borrow().is_empty()).await;
            stage.publish(vec![managed("net", prefix)], Vec::new());
            assert_eq!(stage.settled("net").await.as_deref(), code, "{prefix}");
        }
        stage.publish(Vec::new(), Vec::new());
        stage.until("the bridge goes", || !ip("-o link").contains(BRIDGE)).await;
        stage.until("all is forgotten", || stage.published.status.borrow().is_empty()).await;
        ip(&format!("link add {BRIDGE} type veth peer name wire2"));
        stage.publish(vec![managed("net", "10.217.0.0/24")], Vec::new());
        assert_eq!(stage.settled("net").await.as_deref(), Some("InterfaceNameInUse"));
        stage.publish(Vec::new(), Vec::new());
        stage.until("all is forgotten", || stage.published.status.borrow().is_empty()).await;
        assert!(ip("-o link").contains(BRIDGE), "what is somebody else's was removed");
    });
}
