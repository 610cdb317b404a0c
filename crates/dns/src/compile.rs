//! From the platform's plain data to what the query path works with: one view for each network and listener.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use casemate_model::{
    challenge::ChallengeBoard,
    names::{NamedZone, PlatformNames},
    network::{NetworkKind, NetworkSnapshot, RecordData, VirtualNetwork, WORKSPACE_ZONE},
};
use hickory_proto::rr::{
    Name, RData, Record,
    rdata::{A, AAAA, CNAME, MX, PTR, SRV, TXT},
};
use ipnet::IpNet;

use crate::{forward::Upstream, view::View, zone::Zone};

/// Sets of other servers that are kept; more networks with servers of their own get no forwarding.
const MAX_UPSTREAMS: usize = 256;

/// What all views have in common.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// Domain of the platform's names.
    pub domain: String,
    /// The region.
    pub region: String,
    /// Where the front door listens; the unspecified address means every address.
    pub front_door: IpAddr,
    /// Addresses of this server that belong to no network.
    pub listening: Vec<SocketAddr>,
    /// Ports that are tried at the networks' addresses.
    pub network_ports: Vec<u16>,
    /// The servers for names that are nobody's here.
    pub upstream: Vec<SocketAddr>,
    /// The answers to certificate authorities.
    pub challenges: ChallengeBoard,
}

/// All views at one moment.
#[derive(Debug, Default)]
pub(crate) struct Views {
    /// By the address of this server that was asked.
    public: HashMap<IpAddr, Arc<View>>,
    networks: Vec<NetworkView>,
    by_address: HashMap<IpAddr, usize>,
    /// The longest prefix first.
    by_prefix: Vec<(IpNet, usize)>,
}

#[derive(Debug)]
struct NetworkView {
    view: Arc<View>,
    prefixes: Vec<IpNet>,
    loopback: bool,
}

/// The view of one client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'v> {
    /// What it is told.
    pub view: &'v View,
    /// Whether names of others are looked up for it.
    pub recursion: bool,
}

impl Views {
    /// The view of a client at `source` that asked the server's address `local`; `None` for an address at which
    /// nothing is served any more.
    pub(crate) fn of(&self, source: IpAddr, local: IpAddr) -> Option<Seen<'_>> {
        let source = source.to_canonical();
        let by_address = self.by_address.get(&local).copied();
        let by_prefix = || self.by_prefix.iter().find(|(prefix, _)| prefix.contains(&source)).map(|(_, at)| *at);
        if let Some(network) = by_address.or_else(by_prefix).and_then(|at| self.networks.get(at)) {
            let inside = network.prefixes.iter().any(|prefix| prefix.contains(&source));
            let recursion = inside || (network.loopback && source.is_loopback());
            return Some(Seen { view: &network.view, recursion });
        }
        self.public.get(&local).map(|view| Seen { view, recursion: false })
    }
}

/// Makes views; keeps the sets of other servers from one to the next, with what they have cached.
#[derive(Debug, Default)]
pub(crate) struct Compiler {
    upstreams: BTreeMap<Vec<SocketAddr>, Arc<Upstream>>,
}

impl Compiler {
    /// The views of a snapshot. What can't be said in DNS is left out, with a warning.
    pub(crate) fn compile(&mut self, facts: &Facts, snapshot: &NetworkSnapshot, serial: u32) -> Views {
        let mut views = Views::default();
        let own = own_addresses(facts, snapshot);
        let mut used = BTreeMap::new();
        for local in facts.listening.iter().map(SocketAddr::ip) {
            let zones = names(facts, local).zones(snapshot, None);
            views.public.insert(local, Arc::new(view(&zones, facts, serial)));
        }
        let somewhere = facts.listening.first().map(SocketAddr::ip);
        for network in &snapshot.networks {
            let asked = network.dns_address.or(somewhere).unwrap_or(facts.front_door);
            let zones = names(facts, asked).zones(snapshot, Some(&network.id));
            let mut view = view(&zones, facts, serial);
            for unlinked in private_link_zones(snapshot) {
                parsed(&unlinked).into_iter().for_each(|name| view.add_unlinked(&name));
            }
            for (suffix, to) in forwarders(facts, network) {
                let to: Vec<SocketAddr> = to.into_iter().filter(|server| !own.contains(server)).collect();
                if let (false, Some(upstream)) = (to.is_empty(), self.upstream(&to, &mut used)) {
                    view.add_forwarder(&suffix, upstream);
                }
            }
            let at = views.networks.len();
            views.by_address.extend(network.dns_address.map(|address| (address, at)));
            views.by_prefix.extend(network.prefixes.iter().map(|prefix| (*prefix, at)));
            let loopback = network.kind == NetworkKind::Loopback;
            views.networks.push(NetworkView { view: Arc::new(view), prefixes: network.prefixes.clone(), loopback });
        }
        views.by_prefix.sort_by_key(|(prefix, at)| (std::cmp::Reverse(prefix.prefix_len()), *at));
        self.upstreams = used;
        views
    }

    fn upstream(
        &self,
        to: &[SocketAddr],
        used: &mut BTreeMap<Vec<SocketAddr>, Arc<Upstream>>,
    ) -> Option<Arc<Upstream>> {
        if let Some(upstream) = used.get(to) {
            return Some(Arc::clone(upstream));
        }
        if used.len() >= MAX_UPSTREAMS {
            tracing::warn!(servers = ?to, "names are not forwarded: more than {MAX_UPSTREAMS} sets of DNS servers");
            return None;
        }
        let upstream = self.upstreams.get(to).cloned().unwrap_or_else(|| Arc::new(Upstream::new(to)));
        used.insert(to.to_vec(), Arc::clone(&upstream));
        Some(upstream)
    }
}

/// Addresses at which this server answers: forwarding to one of them would be asking itself.
fn own_addresses(facts: &Facts, snapshot: &NetworkSnapshot) -> HashSet<SocketAddr> {
    let at = |address: IpAddr| facts.network_ports.iter().map(move |port| SocketAddr::new(address, *port));
    let networks = snapshot.networks.iter().filter_map(|network| network.dns_address);
    facts.listening.iter().copied().chain(networks.flat_map(at)).collect()
}

fn names(facts: &Facts, asked: IpAddr) -> PlatformNames {
    // A front door at every address is at the one that the client just reached.
    let front_door = if facts.front_door.is_unspecified() { asked } else { facts.front_door };
    PlatformNames {
        domain: facts.domain.clone(),
        region: facts.region.clone(),
        front_door: vec![front_door],
        dns: vec![asked],
    }
}

/// Zones of private endpoints anywhere on the platform: their names mean nothing outside.
fn private_link_zones(snapshot: &NetworkSnapshot) -> Vec<String> {
    let zones = snapshot.views.iter().flat_map(|view| &view.zones).map(|zone| &zone.name);
    let mut zones: Vec<String> = zones.filter(|name| name.starts_with("privatelink.")).cloned().collect();
    zones.push(WORKSPACE_ZONE.to_owned());
    zones.sort();
    zones.dedup();
    zones
}

/// The network's own forwarders, and for all other names the platform's servers unless it has its own.
fn forwarders(facts: &Facts, network: &VirtualNetwork) -> Vec<(Name, Vec<SocketAddr>)> {
    let own = network.forwarders.iter().filter_map(|forwarder| {
        let suffix = forwarder.suffix.as_deref().map_or(Some(Name::root()), parsed)?;
        Some((suffix, forwarder.to.clone()))
    });
    own.chain([(Name::root(), facts.upstream.clone())]).collect()
}

fn view(zones: &[NamedZone], facts: &Facts, serial: u32) -> View {
    let mut view = View::default();
    let server = parsed(&format!("ns.{}", facts.domain)).unwrap_or_else(Name::root);
    for zone in zones {
        let Some(origin) = parsed(&zone.name) else { continue };
        let mut made = Zone::new(&origin, &server, serial);
        for record in &zone.records {
            let owner = match record.name.as_str() {
                "@" => Some(origin.clone()),
                name => parsed(&format!("{name}.{}", zone.name)),
            };
            let Some(owner) = owner else { continue };
            for data in data(&record.data) {
                made.add(Record::from_rdata(owner.clone(), record.ttl, data));
            }
        }
        if zone.id.is_none() {
            made = made.with_challenges(facts.challenges.clone());
        }
        view.add_zone(Arc::new(made));
    }
    view
}

/// A fully qualified name; `None`, with a warning, for what is too long to be one.
fn parsed(name: &str) -> Option<Name> {
    let read = Name::from_ascii(format!("{}.", name.trim_end_matches('.')));
    read.inspect_err(|error| tracing::warn!(name, %error, "this name can't be answered in DNS")).ok()
}

fn data(data: &RecordData) -> Vec<RData> {
    match data {
        RecordData::A(values) => values.iter().map(|address| RData::A(A(*address))).collect(),
        RecordData::Aaaa(values) => values.iter().map(|address| RData::AAAA(AAAA(*address))).collect(),
        RecordData::Cname(target) => parsed(target).map(|target| RData::CNAME(CNAME(target))).into_iter().collect(),
        RecordData::Ptr(names) => {
            names.iter().filter_map(|name| parsed(name)).map(|name| RData::PTR(PTR(name))).collect()
        }
        RecordData::Mx(values) => {
            let read =
                |(preference, exchange): &(u16, String)| Some(RData::MX(MX::new(*preference, parsed(exchange)?)));
            values.iter().filter_map(read).collect()
        }
        RecordData::Srv(values) => {
            let values = values.iter().filter_map(|service| {
                let target = parsed(&service.target)?;
                Some(RData::SRV(SRV::new(service.priority, service.weight, service.port, target)))
            });
            values.collect()
        }
        RecordData::Txt(values) => values.iter().map(|texts| RData::TXT(TXT::new(texts.clone()))).collect(),
    }
}
