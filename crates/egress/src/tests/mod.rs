//! Real connections through a whole gateway, hostile and not. The sandbox and the internet are both on loopback: [`Map`]
//! says which loopback address stands for which other one, and keeps a list of all that was dialled.

mod http;
mod identity;
mod limits;
mod policy;
mod relay;
mod server;
mod tls;

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener, UdpSocket as StdUdp},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use casemate_model::{
    egress::{Breadth, EgressPolicy, HostName, HostPattern, IsolationMode, LogEntry, PortRanges, Rule, Target},
    inbound::DeploymentCallers,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    time::timeout,
};

use crate::{
    Attachment, EgressConfig, EgressLimits, EgressSockets, Gateway, InstanceIdentity, LogQuery, Owner, attach::Wire,
};

const SCOPE: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/W";
/// Longer than anything here takes on a busy machine.
const LONG: Duration = Duration::from_secs(30);

/// Which loopback addresses stand for which others, on both sides of the gateway.
#[derive(Default)]
pub(crate) struct Map {
    originals: Mutex<HashMap<IpAddr, SocketAddr>>,
    upstreams: Mutex<HashMap<SocketAddr, SocketAddr>>,
    dialled: Mutex<Vec<SocketAddr>>,
}

impl Map {
    pub(crate) fn original(&self, local: SocketAddr) -> SocketAddr {
        self.originals.lock().unwrap().get(&local.ip()).copied().unwrap_or(local)
    }

    /// What has no place on loopback leads to a port that nobody listens on, never to the network.
    pub(crate) fn upstream(&self, address: SocketAddr) -> SocketAddr {
        self.dialled.lock().unwrap().push(address);
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        self.upstreams.lock().unwrap().get(&address).copied().unwrap_or(nowhere)
    }
}

/// A gateway with one sandbox, a policy that can be changed, and an internet.
struct World {
    gateway: Gateway,
    attachment: Option<Attachment>,
    policy: watch::Sender<Arc<EgressPolicy>>,
    callers: DeploymentCallers,
    map: Arc<Map>,
    names: Names,
    /// Where the sandbox's listener is.
    port: u16,
    next: AtomicU16,
    _dir: tempfile::TempDir,
}

type Names = Arc<Mutex<HashMap<String, Vec<IpAddr>>>>;

/// The front door of these worlds, an address that stands for itself nowhere.
const FRONT_DOOR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 8443);

impl World {
    fn new(policy: EgressPolicy) -> Self {
        Self::with(policy, EgressLimits::default(), None)
    }

    fn with(policy: EgressPolicy, limits: EgressLimits, identity: Option<Arc<dyn InstanceIdentity>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let names = Names::default();
        let upstream_dns = Some(name_server(&names));
        let callers = DeploymentCallers::default();
        let log_dir = dir.path().join("log");
        let config = EgressConfig { upstream_dns, log_dir, limits, front_door: FRONT_DOOR, callers: callers.clone() };
        let gateway = Gateway::new(config).unwrap();
        let map = Arc::new(Map::default());
        let (policy, receiver) = watch::channel(Arc::new(policy));
        let listener = StdListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sockets = EgressSockets { tcp: listener.into(), dns: Vec::new() };
        let owner = Owner { scope: SCOPE.into(), deployment: "blue".into(), instance: "blue-0".into() };
        let wire = Wire { map: Some(Arc::clone(&map)) };
        let attachment = gateway.attach_by(sockets, owner, receiver, identity, wire).unwrap();
        let next = AtomicU16::new(1);
        Self { gateway, attachment: Some(attachment), policy, callers, map, names, port, next, _dir: dir }
    }

    /// A host of this name at a public address of its own, whose `port` is served at `server`.
    fn host(&self, name: &str, port: u16, server: SocketAddr) -> IpAddr {
        let address = IpAddr::from([93, 184, 215, self.fresh().1]);
        self.names.lock().unwrap().insert(name.to_owned(), vec![address]);
        self.place(SocketAddr::new(address, port), server);
        address
    }

    fn place(&self, address: SocketAddr, server: SocketAddr) {
        self.map.upstreams.lock().unwrap().insert(address, server);
    }

    fn fresh(&self) -> (u8, u8) {
        let [high, low] = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        (high, low)
    }

    /// What a program in the sandbox gets when it connects to `port` of a name that it has looked up.
    async fn connect(&self, name: &str, port: u16) -> TcpStream {
        let name = HostName::parse(name).unwrap();
        let pool = &self.attachment.as_ref().unwrap().pool;
        let fake = pool.address_for(&name, Breadth::Exact).unwrap();
        self.connect_to(fake.into(), port).await
    }

    /// The same for an address.
    async fn connect_to(&self, address: IpAddr, port: u16) -> TcpStream {
        let (high, low) = self.fresh();
        let local = Ipv4Addr::new(127, 77, high, low);
        self.map.originals.lock().unwrap().insert(local.into(), SocketAddr::new(address, port));
        // Blocking, so that a reset can only come after the connection is there.
        let stream = std::net::TcpStream::connect((local, self.port)).unwrap();
        stream.set_nonblocking(true).unwrap();
        TcpStream::from_std(stream).unwrap()
    }

    fn dialled(&self) -> Vec<SocketAddr> {
        self.map.dialled.lock().unwrap().clone()
    }

    fn set(&self, policy: EgressPolicy) {
        self.policy.send_replace(Arc::new(policy));
    }

    fn log(&self) -> Vec<LogEntry> {
        self.gateway.log().flush();
        let query = LogQuery { limit: 10_000, ..LogQuery::default() };
        self.gateway.log().read(SCOPE, &query).unwrap().0
    }

    /// The first entry that `wanted` finds, once there is one.
    async fn logged(&self, wanted: impl Fn(&LogEntry) -> bool) -> LogEntry {
        for _ in 0..600 {
            if let Some(entry) = self.log().into_iter().find(&wanted) {
                return entry;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no such decision in {:#?}", self.log());
    }

    async fn refused(&self, part: &str) -> LogEntry {
        self.logged(|entry| !entry.allowed && entry.reason.contains(part)).await
    }
}

/// A name server on loopback that knows what is in `names`.
fn name_server(names: &Names) -> SocketAddr {
    use hickory_proto::{
        op::{Message, MessageType, OpCode, ResponseCode},
        rr::{RData, Record, RecordType},
    };
    let socket = StdUdp::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let names = Arc::downgrade(names);
    std::thread::spawn(move || {
        let mut packet = [0; 1500];
        while let Ok((length, client)) = socket.recv_from(&mut packet) {
            let Some(names) = names.upgrade() else { return };
            let Ok(request) = Message::from_vec(&packet[..length]) else { continue };
            let query = request.queries[0].clone();
            let mut answer = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
            answer.add_query(query.clone());
            let known = names.lock().unwrap().get(query.name().to_ascii().trim_end_matches('.')).cloned();
            if known.is_none() {
                answer.metadata.response_code = ResponseCode::NXDomain;
            }
            for address in known.unwrap_or_default() {
                let data = match (address, query.query_type()) {
                    (IpAddr::V4(address), RecordType::A) => RData::A(address.into()),
                    (IpAddr::V6(address), RecordType::AAAA) => RData::AAAA(address.into()),
                    _ => continue,
                };
                answer.add_answer(Record::from_rdata(query.name().clone(), 0, data));
            }
            let _ = socket.send_to(&answer.to_vec().unwrap(), client);
        }
    });
    address
}

fn rule(name: &str, pattern: &str, ports: &str) -> Rule {
    let target = Target::Host(HostPattern::parse(pattern).unwrap());
    Rule { name: name.into(), target, ports: PortRanges::parse(ports).unwrap(), protocols_tcp: true }
}

/// Approved destinations only, by these rules.
fn only(rules: impl IntoIterator<Item = Rule>) -> EgressPolicy {
    EgressPolicy { rules: rules.into_iter().collect(), ..EgressPolicy::default() }
}

fn internet() -> EgressPolicy {
    EgressPolicy { mode: IsolationMode::AllowInternetOutbound, ..EgressPolicy::default() }
}

/// Whether the connection was reset, not ended, and nothing came over it.
async fn is_reset(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    let read = timeout(LONG, stream.read(&mut byte)).await.expect("the connection is still open");
    matches!(read, Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset)
}

/// Sends without minding a connection that has gone already.
async fn say(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = timeout(LONG, stream.write_all(bytes)).await.expect("nobody reads");
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("it does not end").unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn read_some(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    timeout(LONG, stream.read_exact(&mut bytes)).await.expect("nothing comes").unwrap();
    bytes
}
