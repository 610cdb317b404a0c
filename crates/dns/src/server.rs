//! The server: keeps the views current and the right addresses bound.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use casemate_model::{Fault, challenge::ChallengeBoard, network::NetworkSnapshot};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    compile::{Compiler, Facts, Views},
    limit::RateLimit,
    listen::{Listener, Shared},
};

/// The port of DNS.
const DNS_PORT: u16 = 53;
/// How often addresses that could not be bound are tried again, and the host's resolver is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What the server is to do.
#[derive(Debug, Clone)]
pub struct DnsConfig {
    /// Addresses at which everybody is answered: by the view of the network that the source address lies in, else by
    /// the public one. Port 0 takes a free one. An unspecified address (0.0.0.0) is refused.
    pub listen: Vec<SocketAddr>,
    /// The port at the networks' own DNS addresses. `None`: 53, or where the system does not allow that, the port of
    /// the first address of `listen`.
    pub network_port: Option<u16>,
    /// Domain of the platform's names, without a trailing dot.
    pub domain: String,
    /// The platform's region.
    pub region: String,
    /// Where the front door listens. With an unspecified address its names lead to the address of this server that the
    /// client asked.
    pub front_door: IpAddr,
    /// Who is asked about other names, for clients of virtual networks only. `None`: the host's own resolvers.
    pub upstream: Option<SocketAddr>,
    /// The answers to certificate authorities, shown as TXT records of the platform's own zone.
    pub challenges: ChallengeBoard,
    /// Answers over UDP per second and source; more are dropped, half of them with the hint to use TCP.
    pub answers_per_second: u32,
}

impl DnsConfig {
    /// A server of these names that listens nowhere but at the networks' addresses.
    #[must_use]
    pub fn new(domain: String, region: String, front_door: IpAddr) -> Self {
        Self {
            listen: Vec::new(),
            network_port: None,
            domain,
            region,
            front_door,
            upstream: None,
            challenges: ChallengeBoard::default(),
            answers_per_second: 2000,
        }
    }
}

/// A DNS server whose own addresses are bound.
#[derive(Debug)]
pub struct Server {
    config: DnsConfig,
    listeners: Vec<Listener>,
    snapshot: watch::Receiver<Arc<NetworkSnapshot>>,
}

impl Server {
    /// Binds the configured addresses. Those of networks follow in [`Server::serve`], when they exist.
    ///
    /// # Errors
    /// Naming the address that can't be bound, and why.
    pub async fn new(config: DnsConfig, snapshot: watch::Receiver<Arc<NetworkSnapshot>>) -> Result<Self, Fault> {
        let mut listeners = Vec::new();
        for address in &config.listen {
            if address.ip().is_unspecified() {
                let message = format!(
                    "The DNS server can't listen on {address}: an answer would not always leave from the address that was asked. Give the machine's own addresses, each with its port."
                );
                return Err(Fault::invalid("DnsAddressUnspecified", message).at("--dns"));
            }
            listeners.push(Listener::bind(*address).await.map_err(|error| unbound(*address, &error))?);
        }
        Ok(Self { config, listeners, snapshot })
    }

    /// The bound addresses of `listen`, with their ports.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(Listener::local).collect()
    }

    /// Answers until `shutdown`. A new snapshot is answered from at once; a network's DNS address is bound as soon as
    /// it exists on this machine, and released with the network.
    pub async fn serve(self, shutdown: CancellationToken) {
        let Self { config, listeners, mut snapshot } = self;
        let mut facts = facts(&config, listeners.iter().map(Listener::local).collect());
        let mut compiler = Compiler::default();
        let (publish, views) = watch::channel(Arc::new(Views::default()));
        let shared = Shared { views, rate: Arc::new(rate(config.answers_per_second)) };
        let mut bound = Bound::new(shared.clone(), shutdown.child_token());
        for listener in listeners {
            bound.serve(listener);
        }
        let mut look = interval(LOOK_AGAIN);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut open = true;
        let mut current = Arc::clone(&snapshot.borrow_and_update());
        let mut renew = true;
        while !shutdown.is_cancelled() {
            if renew {
                let made = compiler.compile(&facts, &current, serial());
                publish.send_replace(Arc::new(made));
            }
            bound.follow(&current, &facts).await;
            renew = tokio::select! {
                () = shutdown.cancelled() => break,
                changed = snapshot.changed(), if open => {
                    open = changed.is_ok();
                    current = Arc::clone(&snapshot.borrow_and_update());
                    open
                }
                _ = look.tick() => {
                    let upstream = upstream(&config);
                    let moved = upstream != facts.upstream;
                    facts.upstream = upstream;
                    moved
                }
            };
        }
        bound.end().await;
    }
}

fn rate(per_second: u32) -> RateLimit {
    RateLimit::new(per_second, per_second.saturating_mul(2))
}

fn facts(config: &DnsConfig, listening: Vec<SocketAddr>) -> Facts {
    let fallback = listening.first().map(SocketAddr::port);
    let network_ports = match config.network_port {
        Some(port) => vec![port],
        None => [Some(DNS_PORT), fallback.filter(|port| *port != DNS_PORT)].into_iter().flatten().collect(),
    };
    Facts {
        domain: config.domain.clone(),
        region: config.region.clone(),
        front_door: config.front_door,
        upstream: upstream(config),
        challenges: config.challenges.clone(),
        listening,
        network_ports,
    }
}

/// The configured server, else those that the host itself asks now.
fn upstream(config: &DnsConfig) -> Vec<SocketAddr> {
    if let Some(server) = config.upstream {
        return vec![server];
    }
    let Ok((system, _)) = hickory_resolver::system_conf::read_system_conf() else { return Vec::new() };
    let mut servers: Vec<SocketAddr> =
        system.name_servers().iter().map(|server| SocketAddr::new(server.ip, DNS_PORT)).collect();
    servers.dedup();
    servers.truncate(3);
    servers
}

/// A number that grows from one snapshot to the next, and over restarts.
fn serial() -> u32 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    u32::try_from(seconds & u64::from(u32::MAX)).unwrap_or_default()
}

fn unbound(address: SocketAddr, error: &io::Error) -> Fault {
    let fix = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "Ports below 1024 need a privilege: run as root, give the program CAP_NET_BIND_SERVICE, or choose another port with --dns ADDRESS:PORT."
        }
        io::ErrorKind::AddrInUse => {
            "Another DNS server has it: stop that one, or choose another port with --dns ADDRESS:PORT."
        }
        io::ErrorKind::AddrNotAvailable => "This machine has no such address: `ip address` lists those it has.",
        _ => "Choose another with --dns ADDRESS:PORT.",
    };
    let message = format!("The DNS server can't listen on {address}: {error}. {fix}");
    Fault::invalid("DnsAddressUnavailable", message).at("--dns")
}

/// The addresses that are answered at.
struct Bound {
    shared: Shared,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    networks: BTreeMap<IpAddr, CancellationToken>,
    /// Why an address is not bound, as last told.
    told: BTreeMap<IpAddr, String>,
}

impl Bound {
    fn new(shared: Shared, stop: CancellationToken) -> Self {
        Self { shared, stop, tasks: JoinSet::new(), networks: BTreeMap::new(), told: BTreeMap::new() }
    }

    fn serve(&mut self, listener: Listener) -> CancellationToken {
        let stop = self.stop.child_token();
        self.tasks.spawn(listener.serve(self.shared.clone(), stop.clone()));
        stop
    }

    /// Releases what no network has any more, and binds what can be bound.
    async fn follow(&mut self, snapshot: &NetworkSnapshot, facts: &Facts) {
        while self.tasks.try_join_next().is_some() {}
        let wanted: BTreeSet<IpAddr> = snapshot.networks.iter().filter_map(|network| network.dns_address).collect();
        self.networks.retain(|address, stop| {
            let keep = wanted.contains(address);
            if !keep {
                stop.cancel();
            }
            keep
        });
        self.told.retain(|address, _| wanted.contains(address));
        for address in wanted {
            if !self.networks.contains_key(&address) {
                self.bind(address, facts).await;
            }
        }
    }

    async fn bind(&mut self, address: IpAddr, facts: &Facts) {
        let mut failure = String::new();
        for port in &facts.network_ports {
            let at = SocketAddr::new(address, *port);
            if facts.listening.contains(&at) {
                self.networks.insert(address, CancellationToken::new());
                return;
            }
            match Listener::bind(at).await {
                Ok(listener) => {
                    tracing::info!(%at, "answering DNS for a network");
                    let stop = self.serve(listener);
                    self.networks.insert(address, stop);
                    self.told.remove(&address);
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    failure = format!("{at}: {error}; give another port with --dns-port");
                }
                Err(error) => {
                    failure = format!("{at}: {error}");
                    break;
                }
            }
        }
        if self.told.get(&address) != Some(&failure) {
            tracing::info!(failure, "DNS is not answered at a network's address for now");
            self.told.insert(address, failure);
        }
    }

    async fn end(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}
