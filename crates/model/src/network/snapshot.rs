//! All networks at one moment, read from the store's rows.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use serde_json::Value;

use super::{
    NETWORK_TYPE, PRIVATE_ENDPOINT_TYPE, SUBNET_TYPE, ZONE_LINK_TYPE, ZONE_TYPE,
    connection::{CONNECTION_TYPES, ConnectionStatus},
    endpoint::PrivateEndpoint,
    vnet::{Forwarder, VirtualNetwork},
    zone::{Record, RecordData, RecordKind, Zone, check_zone_name},
};
use crate::{
    endpoint::ENDPOINT_TYPE,
    fault::Fault,
    id::ResourceId,
    inbound::WorkspaceAccess,
    resource::Resource,
    service::{NAMES_FIELD, SERVICE_TYPE},
    tls::TlsWish,
    workspace::WORKSPACE_TYPE,
};

/// The types of resources that a snapshot is made of: what to read before calling [`NetworkSnapshot::from_resources`].
/// Others are ignored there.
pub const SNAPSHOT_TYPES: [&str; 20] = [
    NETWORK_TYPE,
    SUBNET_TYPE,
    PRIVATE_ENDPOINT_TYPE,
    CONNECTION_TYPES[0],
    CONNECTION_TYPES[1],
    CONNECTION_TYPES[2],
    CONNECTION_TYPES[3],
    ZONE_TYPE,
    ZONE_LINK_TYPE,
    "Microsoft.Network/privateDnsZones/A",
    "Microsoft.Network/privateDnsZones/AAAA",
    "Microsoft.Network/privateDnsZones/CNAME",
    "Microsoft.Network/privateDnsZones/MX",
    "Microsoft.Network/privateDnsZones/PTR",
    "Microsoft.Network/privateDnsZones/SRV",
    "Microsoft.Network/privateDnsZones/TXT",
    WORKSPACE_TYPE,
    ENDPOINT_TYPE,
    NAMED_TYPES[0],
    NAMED_TYPES[1],
];
/// Beside online endpoints, what has host names: computes and services of the first generation of the SDK.
const NAMED_TYPES: [&str; 2] = ["Microsoft.MachineLearningServices/workspaces/computes", SERVICE_TYPE];

/// What clients in one network get from DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneView {
    /// The network.
    pub network: ResourceId,
    /// The zones linked to it, ordered by name; of two zones of one name the first linked counts.
    pub zones: Vec<Zone>,
    /// Where other names go.
    pub forwarders: Vec<Forwarder>,
}

/// A workspace, as far as networks are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceView {
    /// Its id.
    pub id: ResourceId,
    /// Its GUID (`properties.workspaceId`) in lower case, part of its private DNS names; empty when it has none.
    pub guid: String,
    /// From where it may be managed and its endpoints called.
    pub access: WorkspaceAccess,
    /// The lower-case names of its online endpoints, ordered; each is unique on the platform.
    pub endpoints: Vec<String>,
}

/// All networks at one moment. Two snapshots are equal when nothing that matters to DNS or listeners changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkSnapshot {
    /// Virtual networks, ordered by id.
    pub networks: Vec<VirtualNetwork>,
    /// Private endpoints, ordered by id, also those that are not approved.
    pub endpoints: Vec<PrivateEndpoint>,
    /// One view for each network, in the same order.
    pub views: Vec<ZoneView>,
    /// Workspaces, ordered by id.
    pub workspaces: Vec<WorkspaceView>,
    /// Further host names that lead to the front door: those of computes and services, and the own ones of endpoints.
    /// Lower-case, without a trailing dot, ordered; also names outside the platform's domain.
    pub names: Vec<String>,
}

impl NetworkSnapshot {
    /// Reads the rows of [`SNAPSHOT_TYPES`]; rows of other types and rows being deleted are ignored. What can't be read
    /// is left out and told beside the snapshot.
    #[must_use]
    pub fn from_resources(rows: &[Resource]) -> (Self, Vec<(ResourceId, Fault)>) {
        let mut reader = Reader::new(rows);
        let networks = reader.networks();
        let endpoints = reader.endpoints(&networks);
        let views = reader.views(&networks, &endpoints);
        let workspaces = reader.workspaces();
        let names = reader.names();
        (Self { networks, endpoints, views, workspaces, names }, reader.problems)
    }

    /// The network with this id.
    #[must_use]
    pub fn network(&self, id: &ResourceId) -> Option<&VirtualNetwork> {
        self.networks.iter().find(|network| network.id == *id)
    }

    /// The DNS view of a network.
    #[must_use]
    pub fn view(&self, network: &ResourceId) -> Option<&ZoneView> {
        self.views.iter().find(|view| view.network == *network)
    }

    /// The workspace with this id.
    #[must_use]
    pub fn workspace(&self, id: &ResourceId) -> Option<&WorkspaceView> {
        self.workspaces.iter().find(|workspace| workspace.id == *id)
    }

    /// The workspace that holds the online endpoint of this name, in any case.
    #[must_use]
    pub fn workspace_of_endpoint(&self, name: &str) -> Option<&WorkspaceView> {
        let name = name.to_lowercase();
        let holds = |workspace: &&WorkspaceView| workspace.endpoints.binary_search(&name).is_ok();
        self.workspaces.iter().find(holds)
    }
}

impl ZoneView {
    /// The zone of this name, in any case.
    #[must_use]
    pub fn zone(&self, name: &str) -> Option<&Zone> {
        self.zones.iter().find(|zone| zone.name.eq_ignore_ascii_case(name))
    }
}

impl Zone {
    /// The record set of exactly this relative name, in any case.
    #[must_use]
    pub fn record(&self, name: &str, kind: RecordKind) -> Option<&Record> {
        self.records.iter().find(|record| record.data.kind() == kind && record.name.eq_ignore_ascii_case(name))
    }
}

struct Reader<'r> {
    /// By lower-case type, ordered by id.
    by_type: HashMap<String, Vec<&'r Resource>>,
    problems: Vec<(ResourceId, Fault)>,
}

impl<'r> Reader<'r> {
    fn new(rows: &'r [Resource]) -> Self {
        let mut by_type: HashMap<String, Vec<&Resource>> = HashMap::new();
        for row in rows.iter().filter(|row| !row.deleting) {
            by_type.entry(row.id.resource_type().to_lowercase()).or_default().push(row);
        }
        by_type.values_mut().for_each(|rows| rows.sort_by(|one, other| one.id.cmp(&other.id)));
        Self { by_type, problems: Vec::new() }
    }

    fn of(&self, resource_type: &str) -> Vec<&'r Resource> {
        self.by_type.get(&resource_type.to_lowercase()).cloned().unwrap_or_default()
    }

    /// What was read; a failure is noted.
    fn keep<T>(&mut self, id: &ResourceId, read: Result<T, Fault>) -> Option<T> {
        read.map_err(|fault| self.problems.push((id.clone(), fault))).ok()
    }

    fn networks(&mut self) -> Vec<VirtualNetwork> {
        let mut subnets: HashMap<ResourceId, Vec<&Resource>> = HashMap::new();
        for subnet in self.of(SUBNET_TYPE) {
            subnets.entry(subnet.id.parent().unwrap_or_else(|| subnet.id.clone())).or_default().push(subnet);
        }
        let mut found: Vec<VirtualNetwork> = Vec::new();
        for row in self.of(NETWORK_TYPE) {
            let mut own = subnets.remove(&row.id).unwrap_or_default();
            // The oldest subnet is the first one, so that the DNS address stays where it is.
            own.sort_by_key(|subnet| subnet.system.created_at);
            let own = own.iter().map(|subnet| (subnet.name(), subnet.properties()));
            let read = VirtualNetwork::new(&row.id, row.properties(), own);
            found.extend(self.keep(&row.id, read));
        }
        found
    }

    fn endpoints(&mut self, networks: &[VirtualNetwork]) -> Vec<PrivateEndpoint> {
        let connections: Vec<&Resource> = CONNECTION_TYPES.iter().flat_map(|kind| self.of(kind)).collect();
        let approved: HashMap<&ResourceId, &str> = connections
            .into_iter()
            .filter(|row| status_of(row) == Some(ConnectionStatus::Approved))
            .filter_map(|row| Some((&row.id, row.properties()["privateEndpoint"]["id"].as_str()?)))
            .collect();
        let mut taken = HashSet::new();
        let mut found = Vec::new();
        for row in self.of(PRIVATE_ENDPOINT_TYPE) {
            let read = PrivateEndpoint::new(&row.id, row.properties()).and_then(|endpoint| {
                let network = networks.iter().find(|network| network.id == endpoint.network);
                let subnet = network.and_then(|network| network.subnet(&endpoint.subnet));
                let fits = subnet.is_some_and(|subnet| subnet.is_usable(endpoint.address));
                if fits && taken.insert(endpoint.address) {
                    return Ok(endpoint);
                }
                let (address, subnet) = (endpoint.address, &endpoint.subnet);
                let why = if fits { "another private endpoint has it" } else { "it is no usable address there" };
                let message = format!("Its address {address} can't be served in the subnet '{subnet}': {why}.");
                Err(Fault::invalid("InvalidRequestFormat", message))
            });
            let Some(mut endpoint) = self.keep(&row.id, read) else { continue };
            let at_target = approved.get(&endpoint.connection);
            endpoint.approved = at_target.is_some_and(|id| id.eq_ignore_ascii_case(endpoint.id.as_str()));
            found.push(endpoint);
        }
        found
    }

    fn views(&mut self, networks: &[VirtualNetwork], endpoints: &[PrivateEndpoint]) -> Vec<ZoneView> {
        let zones = self.zones();
        let mut links: HashMap<ResourceId, Vec<ResourceId>> = HashMap::new();
        let mut rows = self.of(ZONE_LINK_TYPE);
        rows.sort_by_key(|row| row.system.created_at);
        for row in rows {
            let network = ResourceId::parse(row.properties()["virtualNetwork"]["id"].as_str().unwrap_or_default());
            if let (Some(network), Some(zone)) = (self.keep(&row.id, network), row.id.parent()) {
                links.entry(network).or_default().push(zone);
            }
        }
        let view = |network: &VirtualNetwork| {
            let mut linked: Vec<Zone> = Vec::new();
            for zone in links.get(&network.id).into_iter().flatten().filter_map(|id| zones.get(id)) {
                if !linked.iter().any(|other| other.name == zone.name) {
                    linked.push(seen_from(network, zone, endpoints));
                }
            }
            linked.sort_by(|one, other| one.name.cmp(&other.name));
            ZoneView { network: network.id.clone(), zones: linked, forwarders: network.forwarders.clone() }
        };
        networks.iter().map(view).collect()
    }

    fn zones(&mut self) -> HashMap<ResourceId, Zone> {
        let mut zones = HashMap::new();
        for row in self.of(ZONE_TYPE) {
            let name = row.name().to_ascii_lowercase();
            if self.keep(&row.id, check_zone_name(&name)).is_some() {
                zones.insert(row.id.clone(), Zone { id: row.id.clone(), name, records: Vec::new() });
            }
        }
        for kind in RecordKind::ALL {
            let rows = self.of(&format!("{ZONE_TYPE}/{}", kind.as_str()));
            for row in rows.into_iter().filter(|row| kind.has_values(row.properties())) {
                let Some(record) = self.keep(&row.id, Record::new(kind, row.name(), row.properties())) else {
                    continue;
                };
                if let Some(zone) = row.id.parent().and_then(|zone| zones.get_mut(&zone)) {
                    zone.records.push(record);
                }
            }
        }
        zones
    }

    fn workspaces(&self) -> Vec<WorkspaceView> {
        let mut endpoints: HashMap<ResourceId, Vec<String>> = HashMap::new();
        for row in self.of(ENDPOINT_TYPE) {
            let workspace = row.id.parent().unwrap_or_else(|| row.id.clone());
            endpoints.entry(workspace).or_default().push(row.name().to_lowercase());
        }
        let mut view = |row: &&Resource| {
            let guid = row.observed.get("workspaceId").and_then(Value::as_str).unwrap_or_default();
            let mut endpoints = endpoints.remove(&row.id).unwrap_or_default();
            endpoints.sort();
            WorkspaceView {
                id: row.id.clone(),
                guid: guid.to_ascii_lowercase(),
                access: WorkspaceAccess::from_properties(row.properties()),
                endpoints,
            }
        };
        self.of(WORKSPACE_TYPE).iter().map(&mut view).collect()
    }

    fn names(&mut self) -> Vec<String> {
        let mut names = BTreeSet::new();
        let owners = [ENDPOINT_TYPE, NAMED_TYPES[0], NAMED_TYPES[1]].map(|kind| self.of(kind));
        for row in owners.into_iter().flatten() {
            let wish = self.keep(&row.id, TlsWish::of(row)).flatten();
            let bare = row.body.get(NAMES_FIELD).and_then(Value::as_array).into_iter().flatten();
            names.extend(bare.filter_map(Value::as_str).map(lower));
            names.extend(wish.into_iter().flat_map(|wish| wish.names).map(|name| lower(&name)));
        }
        names.into_iter().collect()
    }
}

fn lower(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn status_of(connection: &Resource) -> Option<ConnectionStatus> {
    let state = &connection.properties()["privateLinkServiceConnectionState"];
    ConnectionStatus::parse(state["status"].as_str()?)
}

/// The zone as clients of a network see it. Where one name leads to private endpoints of several networks, each
/// network sees its own.
fn seen_from(network: &VirtualNetwork, zone: &Zone, endpoints: &[PrivateEndpoint]) -> Zone {
    let (own, foreign): (Vec<&PrivateEndpoint>, Vec<&PrivateEndpoint>) =
        endpoints.iter().partition(|endpoint| endpoint.network == network.id);
    let among = |endpoints: &[&PrivateEndpoint], address: IpAddr| endpoints.iter().any(|one| one.address == address);
    let mut seen = zone.clone();
    for record in &mut seen.records {
        match &mut record.data {
            RecordData::A(values) if values.iter().any(|address| among(&own, (*address).into())) => {
                values.retain(|address| !among(&foreign, (*address).into()));
            }
            RecordData::Aaaa(values) if values.iter().any(|address| among(&own, (*address).into())) => {
                values.retain(|address| !among(&foreign, (*address).into()));
            }
            _ => {}
        }
    }
    seen
}
