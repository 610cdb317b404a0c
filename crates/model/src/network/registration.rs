//! The DNS records that belong to private endpoints, and the zones and links made for them.
//!
//! A record set remembers which private endpoints put addresses into it, so that each can be taken out again, whoever
//! else uses the record set. Zones and links that nobody made by hand go with their last use. This is a function from
//! rows to changes of rows: the management API applies them when a private endpoint changes, the reconcilers when one
//! is deleted with its group.

use std::{
    collections::{BTreeMap, HashSet, btree_map::Entry},
    net::IpAddr,
};

use serde_json::{Map, Value, json};

use super::{
    NETWORK_TYPE, PRIVATE_ENDPOINT_TYPE, ZONE_LINK_TYPE, ZONE_TYPE, connection::CONNECTION_TYPES, zone::RecordKind,
};
use crate::{id::ResourceId, resource::Resource};

/// In a record set's body: which private endpoints put which addresses into it. Never shown.
pub const OWNERS: &str = "_endpoints";
/// In the body of a zone or a link: it was made for private endpoints, and goes with the last of them. Never shown.
pub const AUTOMATIC: &str = "_automatic";
/// Seconds that an answer with a private endpoint's address may be kept.
const TTL: u32 = 10;

/// A change of one row.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Make it, or replace its body.
    Put(ResourceId, Value),
    /// Remove it.
    Remove(ResourceId),
}

/// What a private endpoint wants to have in DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The private endpoint's network.
    pub network: ResourceId,
    /// Its address.
    pub address: IpAddr,
    /// The zones that its names are in.
    pub zones: Vec<ZoneNames>,
}

/// Names of one zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZoneNames {
    /// The zone.
    pub zone: ResourceId,
    /// Whether to make the zone, and its link to the network, when they are not there.
    pub automatic: bool,
    /// Lower-case names relative to the zone.
    pub names: Vec<String>,
}

/// The types of rows that [`register`] and [`release`] want to be given.
#[must_use]
pub fn registration_types() -> Vec<String> {
    let dns =
        [ZONE_TYPE.to_owned(), ZONE_LINK_TYPE.to_owned(), record_type(RecordKind::A), record_type(RecordKind::Aaaa)];
    dns.into_iter().chain(CONNECTION_TYPES.map(str::to_owned)).collect()
}

/// Brings DNS to what a private endpoint wants; none: nothing at all. Rows being deleted are left alone.
#[must_use]
pub fn register(endpoint: &ResourceId, wish: Option<&Registration>, rows: &[Resource]) -> Vec<Change> {
    let mut plan = Plan::new(rows);
    plan.withdraw(endpoint, wish);
    if let Some(wish) = wish {
        plan.enter(endpoint, wish);
    }
    plan.prune();
    plan.changes()
}

/// What goes with a row that is removed: with a private endpoint its records and its connection at the target, with a
/// network its links. Nothing for rows of other types.
#[must_use]
pub fn release(gone: &ResourceId, rows: &[Resource]) -> Vec<Change> {
    let present = rows.iter().filter(|row| !row.deleting);
    let names_it = |value: &Value| value.as_str().is_some_and(|id| id.eq_ignore_ascii_case(gone.as_str()));
    if gone.is_type(PRIVATE_ENDPOINT_TYPE) {
        let is_connection = |row: &&Resource| {
            CONNECTION_TYPES.iter().any(|kind| row.id.is_type(kind))
                && names_it(&row.properties()["privateEndpoint"]["id"])
        };
        let mut changes = register(gone, None, rows);
        changes.extend(present.filter(is_connection).map(|row| Change::Remove(row.id.clone())));
        return changes;
    }
    if gone.is_type(NETWORK_TYPE) {
        let is_link =
            |row: &&Resource| row.id.is_type(ZONE_LINK_TYPE) && names_it(&row.properties()["virtualNetwork"]["id"]);
        return present.filter(is_link).map(|row| Change::Remove(row.id.clone())).collect();
    }
    Vec::new()
}

/// Whether the removal of a row of this type has consequences that [`release`] knows.
#[must_use]
pub fn has_consequences(id: &ResourceId) -> bool {
    id.is_type(PRIVATE_ENDPOINT_TYPE) || id.is_type(NETWORK_TYPE)
}

fn record_type(kind: RecordKind) -> String {
    format!("{ZONE_TYPE}/{}", kind.as_str())
}

/// The bodies as they were and as they are to be.
struct Plan {
    before: BTreeMap<ResourceId, Value>,
    now: BTreeMap<ResourceId, Value>,
}

impl Plan {
    fn new(rows: &[Resource]) -> Self {
        let kinds = [
            ZONE_TYPE.to_owned(),
            ZONE_LINK_TYPE.to_owned(),
            record_type(RecordKind::A),
            record_type(RecordKind::Aaaa),
        ];
        let ours = |row: &&Resource| !row.deleting && kinds.iter().any(|kind| row.id.is_type(kind));
        let before: BTreeMap<_, _> = rows.iter().filter(ours).map(|row| (row.id.clone(), row.body.clone())).collect();
        Self { now: before.clone(), before }
    }

    fn of_type(&self, kind: &str) -> Vec<ResourceId> {
        self.now.keys().filter(|id| id.is_type(kind)).cloned().collect()
    }

    /// Takes the endpoint's addresses out of the record sets that it does not want them in.
    fn withdraw(&mut self, endpoint: &ResourceId, wish: Option<&Registration>) {
        for kind in [RecordKind::A, RecordKind::Aaaa] {
            for id in self.of_type(&record_type(kind)) {
                let Some(body) = self.now.get_mut(&id) else { continue };
                let wanted = wish.is_some_and(|wish| {
                    owned_address(body, endpoint) == Some(wish.address.to_string()) && wish.wants(&id)
                });
                if !wanted && take_out(body, kind, endpoint) {
                    self.now.remove(&id);
                }
            }
        }
    }

    fn enter(&mut self, endpoint: &ResourceId, wish: &Registration) {
        let kind = if wish.address.is_ipv4() { RecordKind::A } else { RecordKind::Aaaa };
        for ZoneNames { zone, automatic, names } in &wish.zones {
            if *automatic {
                self.ensure_linked(zone, &wish.network);
            } else if !self.now.contains_key(zone) {
                continue;
            }
            for name in names {
                let Ok(id) = zone.child(kind.as_str(), name) else { continue };
                let fresh = || json!({"properties": {"ttl": TTL, "metadata": {"creator": format!("created by private endpoint {}", endpoint.name())}, kind.property(): []}});
                put_in(self.now.entry(id).or_insert_with(fresh), kind, endpoint, wish);
            }
        }
    }

    fn ensure_linked(&mut self, zone: &ResourceId, network: &ResourceId) {
        let made = || json!({"location": "global", "tags": {}, "properties": {}, AUTOMATIC: true});
        self.now.entry(zone.clone()).or_insert_with(made);
        let linked = self.links_of(zone).iter().any(|link| self.network_of(link).as_ref() == Some(network));
        if linked {
            return;
        }
        // Networks of one name in several groups are told apart by a number.
        let names =
            std::iter::once(network.name().to_owned()).chain((2..100).map(|n| format!("{}-{n}", network.name())));
        for name in names {
            let Ok(id) = zone.child("virtualNetworkLinks", &name) else { return };
            if let Entry::Vacant(place) = self.now.entry(id) {
                let mut link = made();
                link["properties"] = json!({"virtualNetwork": {"id": network.as_str()}, "registrationEnabled": false});
                place.insert(link);
                return;
            }
        }
    }

    /// Removes automatic links to networks without a record in their zone, then automatic zones with nothing in them.
    fn prune(&mut self) {
        for zone in self.of_type(ZONE_TYPE) {
            let records: Vec<&Value> =
                self.now.iter().filter(|(id, _)| id.parent().as_ref() == Some(&zone)).map(|(_, body)| body).collect();
            let used: HashSet<String> = records.iter().flat_map(|body| networks(body)).collect();
            for link in self.links_of(&zone) {
                let idle = self.network_of(&link).is_none_or(|network| !used.contains(network.key()));
                if idle && self.is_automatic(&link) {
                    self.now.remove(&link);
                }
            }
            let is_empty = !self.now.keys().any(|id| *id != zone && id.is_within(&zone));
            if is_empty && self.is_automatic(&zone) {
                self.now.remove(&zone);
            }
        }
    }

    fn links_of(&self, zone: &ResourceId) -> Vec<ResourceId> {
        let is_own = |id: &&ResourceId| id.is_type(ZONE_LINK_TYPE) && id.is_within(zone);
        self.now.keys().filter(is_own).cloned().collect()
    }

    fn network_of(&self, link: &ResourceId) -> Option<ResourceId> {
        ResourceId::parse(self.now.get(link)?["properties"]["virtualNetwork"]["id"].as_str()?).ok()
    }

    fn is_automatic(&self, id: &ResourceId) -> bool {
        self.now.get(id).is_some_and(|body| body[AUTOMATIC] == true)
    }

    /// Removals deepest first, then puts with parents first.
    fn changes(self) -> Vec<Change> {
        let gone = self.before.keys().rev().filter(|id| !self.now.contains_key(*id));
        let mut changes: Vec<Change> = gone.cloned().map(Change::Remove).collect();
        let altered = self.now.into_iter().filter(|(id, body)| self.before.get(id) != Some(body));
        changes.extend(altered.map(|(id, body)| Change::Put(id, body)));
        changes
    }
}

impl Registration {
    fn wants(&self, record: &ResourceId) -> bool {
        let holds = |zone: &ZoneNames| {
            record.parent().as_ref() == Some(&zone.zone)
                && zone.names.iter().any(|name| name.eq_ignore_ascii_case(record.name()))
        };
        self.zones.iter().any(holds)
    }
}

fn owned_address(body: &Value, endpoint: &ResourceId) -> Option<String> {
    Some(body[OWNERS][endpoint.key()]["address"].as_str()?.to_owned())
}

/// The keys of the networks whose private endpoints have an address in a record set.
fn networks(body: &Value) -> Vec<String> {
    let owners = body[OWNERS].as_object().into_iter().flat_map(Map::values);
    owners.filter_map(|owner| owner["network"].as_str().map(str::to_owned)).collect()
}

fn address_field(kind: RecordKind) -> &'static str {
    if kind == RecordKind::A { "ipv4Address" } else { "ipv6Address" }
}

/// Takes an endpoint's address out of a record set; true when nothing is left in it.
fn take_out(body: &mut Value, kind: RecordKind, endpoint: &ResourceId) -> bool {
    let Some(owners) = body.get_mut(OWNERS).and_then(Value::as_object_mut) else { return false };
    let Some(owner) = owners.remove(endpoint.key()) else { return false };
    // Two endpoints never have one address, but one may have been written down twice.
    let kept = owners.values().any(|other| other["address"] == owner["address"]);
    let values = body.get_mut("properties").and_then(|properties| properties.get_mut(kind.property()));
    let Some(values) = values.and_then(Value::as_array_mut) else { return false };
    if !kept {
        values.retain(|value| value[address_field(kind)] != owner["address"]);
    }
    values.is_empty()
}

fn put_in(body: &mut Value, kind: RecordKind, endpoint: &ResourceId, wish: &Registration) {
    let address = Value::from(wish.address.to_string());
    let owner = json!({"address": address, "network": wish.network.key()});
    object(object(body).entry(OWNERS).or_insert(Value::Null)).insert(endpoint.key().to_owned(), owner);
    let properties = object(object(body).entry("properties").or_insert(Value::Null));
    let values = properties.entry(kind.property()).or_insert(Value::Null);
    if !values.is_array() {
        *values = json!([]);
    }
    if let Some(values) = values.as_array_mut()
        && !values.iter().any(|value| value[address_field(kind)] == address)
    {
        values.push(json!({address_field(kind): address}));
    }
}

/// The value as an object, which it becomes if it is none.
fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it was just made an object")
}
