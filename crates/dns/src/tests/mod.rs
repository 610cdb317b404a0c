//! The server as its clients meet it: real packets over real sockets.

mod abuse;
mod answers;
mod forwarding;
mod outside;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use casemate_model::{
    ResourceId,
    challenge::ChallengeBoard,
    inbound::WorkspaceAccess,
    network::{
        NetworkSnapshot, PrivateEndpoint, Record, RecordKind, VirtualNetwork, WORKSPACE_ZONE, WorkspaceView, Zone,
        ZoneView, workspace_record_names,
    },
};
use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query},
    rr::{Name, RecordType},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UdpSocket},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{DnsConfig, Server};

const GUID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on 127.0.0.1, and what it is told.
struct Running {
    /// Where everybody is answered.
    everybody: SocketAddr,
    /// Where the network is.
    network: SocketAddr,
    publish: watch::Sender<Arc<NetworkSnapshot>>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Running {
    /// Starts a server; `network` is the second number of the network's addresses, so that tests don't meet.
    async fn start(network: u8, change: impl FnOnce(&mut DnsConfig, &mut NetworkSnapshot)) -> Self {
        let mut config = DnsConfig::new("casemate.test".to_owned(), "local".to_owned(), ip("192.0.2.1"));
        config.listen = vec![([127, 0, 0, 1], 0).into()];
        config.answers_per_second = 1_000_000;
        config.upstream = Some(([127, 0, 0, 1], 9).into());
        let address = SocketAddr::from(([127, network, 0, 2], free_port([127, network, 0, 2]).await));
        config.network_port = Some(address.port());
        let mut snapshot = snapshot(network);
        change(&mut config, &mut snapshot);
        let (publish, receiver) = watch::channel(Arc::new(snapshot));
        let server = Server::new(config, receiver).await.unwrap();
        let everybody = server.addresses()[0];
        let stop = CancellationToken::new();
        let serving = TaskTracker::new().spawn(server.serve(stop.clone()));
        let running = Self { everybody, network: address, publish, stop, serving };
        // The network's address is bound a moment later.
        running.until(async |running: &Running| running.ask("casemate.test.", "SOA").await.is_some()).await;
        running
    }

    /// Asks the network's address.
    async fn ask(&self, name: &str, kind: &str) -> Option<Message> {
        ask(self.network, &question(name, kind)).await
    }

    async fn until(&self, holds: impl AsyncFn(&Self) -> bool) {
        let waited = timeout(PATIENCE, async {
            while !holds(self).await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited.await.expect("it holds in time");
    }

    async fn end(self) {
        self.stop.cancel();
        timeout(PATIENCE, self.serving).await.expect("the server ends").unwrap();
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn id(tail: &str) -> ResourceId {
    ResourceId::parse(&format!("/subscriptions/s/resourceGroups/g/providers/{tail}")).unwrap()
}

/// A port that is free for UDP and TCP.
async fn free_port(address: [u8; 4]) -> u16 {
    loop {
        let udp = UdpSocket::bind(SocketAddr::from((address, 0))).await.unwrap();
        let port = udp.local_addr().unwrap().port();
        if TcpStream::connect((IpAddr::from(address), port)).await.is_err() {
            return port;
        }
    }
}

fn network(name: &str, prefix: &str, properties: Value) -> VirtualNetwork {
    let mut properties = properties;
    properties["resourceGuid"] = GUID.into();
    properties["addressSpace"] = json!({"addressPrefixes": [prefix]});
    let subnet = json!({"addressPrefix": prefix});
    let id = id(&format!("Microsoft.Network/virtualNetworks/{name}"));
    VirtualNetwork::new(&id, &properties, [("default", &subnet)]).unwrap()
}

fn zone(name: &str, records: &[(&str, &str, Value)]) -> Zone {
    let read = |(name, kind, value): &(&str, &str, Value)| {
        let kind = RecordKind::parse(kind).unwrap();
        Record::new(kind, name, &json!({"ttl": 60, kind.property(): value})).unwrap()
    };
    let id = id(&format!("Microsoft.Network/privateDnsZones/{name}"));
    Zone { id, name: name.to_owned(), records: records.iter().map(read).collect() }
}

/// One loopback network 127.N.0.0/16 with a private endpoint of the workspace, whose endpoints are `one` and `two`, and
/// a zone of the company's own.
fn snapshot(number: u8) -> NetworkSnapshot {
    let [all, own] = workspace_record_names(GUID, "local");
    let address = format!("127.{number}.0.4");
    let private = json!([{"ipv4Address": address}]);
    let zones = vec![
        zone(
            "corp.test",
            &[
                ("@", "MX", json!([{"preference": 10, "exchange": "mail.corp.test"}])),
                ("mail", "A", json!([{"ipv4Address": "192.0.2.25"}, {"ipv4Address": "192.0.2.26"}])),
                ("mail", "AAAA", json!([{"ipv6Address": "2001:db8::25"}])),
                ("www", "CNAME", json!({"cname": "mail.corp.test"})),
                ("away", "CNAME", json!({"cname": "www.example.org"})),
                ("ring", "CNAME", json!({"cname": "ring.corp.test"})),
                ("_ldap._tcp", "SRV", json!([{"priority": 1, "weight": 2, "port": 389, "target": "mail.corp.test"}])),
                ("note", "TXT", json!([{"value": ["one", "two words"]}, {"value": ["three"]}])),
                ("*.wild", "A", json!([{"ipv4Address": "192.0.2.77"}])),
                ("long", "TXT", json!((0..20).map(|n| json!({"value": [format!("{n:0250}")]})).collect::<Vec<_>>())),
            ],
        ),
        zone("2.0.192.in-addr.arpa", &[("25", "PTR", json!([{"ptrdname": "mail.corp.test"}]))]),
        zone(WORKSPACE_ZONE, &[(&all, "A", private.clone()), (&own, "A", private)]),
    ];
    let network = network("v", &format!("127.{number}.0.0/16"), json!({}));
    let workspace = id("Microsoft.MachineLearningServices/workspaces/ws");
    NetworkSnapshot {
        endpoints: vec![PrivateEndpoint {
            id: id("Microsoft.Network/privateEndpoints/pe"),
            network: network.id.clone(),
            subnet: "default".to_owned(),
            address: ip(&address),
            target: workspace.clone(),
            groups: vec!["amlworkspace".to_owned()],
            connection: workspace.child("privateEndpointConnections", "pe").unwrap(),
            approved: true,
        }],
        views: vec![ZoneView { network: network.id.clone(), zones, forwarders: network.forwarders.clone() }],
        networks: vec![network],
        workspaces: vec![WorkspaceView {
            id: workspace,
            guid: GUID.to_owned(),
            access: WorkspaceAccess::default(),
            endpoints: vec!["one".to_owned(), "two".to_owned()],
        }],
        names: vec!["pool1a2b3c.local.cloudapp.casemate.test".to_owned(), "score.example.org".to_owned()],
    }
}

fn question(name: &str, kind: &str) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind.parse::<RecordType>().unwrap()));
    let mut edns = Edns::new();
    edns.set_max_payload(1232);
    message.set_edns(edns);
    message
}

/// The answer over UDP; none when nothing comes or nobody listens.
async fn ask(server: SocketAddr, question: &Message) -> Option<Message> {
    // The source is the server's own address, which lies in its network.
    send(SocketAddr::new(server.ip(), 0), server, &question.to_vec().unwrap(), PATIENCE).await
}

async fn send(from: SocketAddr, server: SocketAddr, packet: &[u8], patience: Duration) -> Option<Message> {
    let socket = UdpSocket::bind(from).await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(packet).await.ok()?;
    let mut buffer = vec![0; 65_535];
    let length = timeout(patience, socket.recv(&mut buffer)).await.ok()?.ok()?;
    Some(Message::from_vec(&buffer[..length]).unwrap())
}

/// A connection from the server's own address.
async fn connect(server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(server.ip(), 0)).unwrap();
    socket.connect(server).await.unwrap()
}

async fn ask_by_tcp(stream: &mut TcpStream, question: &Message) -> Message {
    let bytes = question.to_vec().unwrap();
    let framed = [u16::try_from(bytes.len()).unwrap().to_be_bytes().as_slice(), &bytes].concat();
    stream.write_all(&framed).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}

/// `CODE flags: data, data; soa zone` of an answer.
fn told(message: Option<Message>) -> String {
    let Some(message) = message else { return "silence".to_owned() };
    let answers: Vec<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
    let authority = message.authorities.iter().map(|record| format!("; soa {}", record.name)).collect::<String>();
    let flags = [(message.authoritative, " aa"), (message.truncation, " tc"), (message.recursion_available, " ra")];
    let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect();
    format!("{:?}{flags}: {}{authority}", message.response_code, answers.join(", "))
}
