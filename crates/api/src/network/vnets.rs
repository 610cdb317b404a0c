//! Virtual networks. Their subnets are rows of their own, shown inside as well.

use std::collections::HashMap;

use casemate_model::{
    Fault, Resource, ResourceId,
    network::{
        NETWORK_TYPE, NetworkKind, PRIVATE_ENDPOINT_TYPE, PrivateEndpoint, SUBNET_TYPE, VirtualNetwork, overlap,
    },
};
use casemate_store::{Filter, Put, Tx};
use http::Method;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    apply,
    shape::{self, Asked, bad},
    subnets,
};
use crate::{
    arm::shape as common,
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    respond,
    state::ApiState,
};

const GROUP_TYPE: &str = "Microsoft.Resources/resourceGroups";
/// Most virtual networks of the platform.
const MAX_NETWORKS: usize = 64;

/// What networks of the original can have and ours don't.
const UNBUILT: &[(&str, &str)] = &[
    ("virtualNetworkPeerings", "Peerings"),
    ("enableDdosProtection", "Protection plans"),
    ("ddosProtectionPlan", "Protection plans"),
    ("encryption", "Encrypted networks"),
    ("ipAllocations", "IP allocations"),
];

/// What a network has here and not in the original.
const OWN: &[&str] = &["kind", "interface", "dnsAddress", "forwarders"];

pub(super) async fn handle(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Resource(id), &Method::GET) => {
            ctx.authorize_call(call)?;
            let row = shape::read(state, id).await?;
            let shown = Inside::read(state).await?.show(&row);
            Ok(respond::shown(call, &row, &shown))
        }
        (Target::Resource(id), &Method::HEAD) => shape::head(ctx, state, call, id).await,
        (Target::Resource(id), &Method::PUT) => {
            ctx.authorize_call(call)?;
            let mut tx = state.store.begin().await?;
            let put = write(&mut tx, ctx, id, &Asked::read(call)?).await?;
            tx.commit().await?;
            Ok(respond::written_as(&put, &Inside::read(state).await?.show(&put.resource)))
        }
        (Target::Resource(id), &Method::PATCH) => {
            let put = shape::patch_tags(ctx, state, call, id).await?;
            Ok(respond::written_as(&put, &Inside::read(state).await?.show(&put.resource)))
        }
        (Target::Resource(id), &Method::DELETE) => delete(ctx, state, call, id).await,
        (Target::Collection { .. }, &Method::GET) => {
            let rows = shape::list(ctx, state, call).await?;
            let inside = Inside::read(state).await?;
            respond::list(ctx, call, &call.path(), rows.iter().map(|row| inside.show(row)).collect())
        }
        _ => call.method_not_allowed(),
    }
}

pub(super) async fn write(tx: &mut Tx, ctx: &OpContext, id: &ResourceId, asked: &Asked) -> Result<Put, ApiError> {
    shape::check_name(id, GROUP_TYPE, 64)?;
    common::require_parent(tx, id).await?;
    let existing = tx.resource_get(id).await?;
    let location = shape::location(&asked.given, existing.as_ref())?;
    let mut given_properties = shape::properties(&asked.given)?;
    shape::refuse_unbuilt(&given_properties, UNBUILT)?;
    let wanted = subnets_wanted(&mut given_properties)?;
    let mut properties = normalized(&given_properties, existing.as_ref());

    let old = subnet_rows(tx, id).await?;
    let subnets: Vec<(String, Value)> = match &wanted {
        Some(wanted) => wanted.clone(),
        None => old.iter().map(|row| (row.name().to_owned(), row.properties().clone())).collect(),
    };
    let network = VirtualNetwork::new(id, &properties, pairs(&subnets))?;
    check_kind(&network, existing.as_ref())?;
    // A kind that was chosen by the prefixes stays when these change.
    properties["casemate"]["kind"] = network.kind.word().into();
    check_others(tx, &network, existing.is_none()).await?;
    check_endpoints(tx, &network).await?;

    let body = json!({"location": location, "tags": common::tags(asked.given.get("tags"))?, "properties": properties});
    let put = tx.resource_put(id, body, &asked.condition, &ctx.author()).await?;
    for (name, properties) in wanted.iter().flatten() {
        subnets::keep(tx, ctx, &id.child("subnets", name)?, properties.clone()).await?;
    }
    let stays = |row: &Resource| wanted.iter().flatten().any(|(name, _)| name.eq_ignore_ascii_case(row.name()));
    if wanted.is_some() {
        for row in old.iter().filter(|row| !stays(row)) {
            tx.resource_remove(&row.id).await?;
        }
    }
    Ok(put)
}

/// The subnets in a network's body, checked and normalized; none when it does not mention them.
fn subnets_wanted(properties: &mut Map<String, Value>) -> Result<Option<Vec<(String, Value)>>, Fault> {
    let list = match properties.remove("subnets") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(bad("subnets", "'subnets' must be a list.")),
    };
    let mut wanted: Vec<(String, Value)> = Vec::new();
    for subnet in list {
        let Some(name) = subnet["name"].as_str() else { return Err(bad("subnets", "A subnet needs a name.")) };
        if wanted.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            return Err(bad("subnets", format!("The subnet '{name}' is there twice.")));
        }
        let given = subnet.as_object().map(shape::properties).transpose()?.unwrap_or_default();
        wanted.push((name.to_owned(), subnets::normalized(&given)?));
    }
    Ok(Some(wanted))
}

/// What is kept of a network's properties. What is ours stays as it was when a client of the original leaves it out.
fn normalized(given: &Map<String, Value>, existing: Option<&Resource>) -> Value {
    let was = |key: &str| existing.and_then(|row| row.properties().get(key)).cloned();
    let mut own = given.get("casemate").filter(|own| own.is_object()).cloned().or_else(|| was("casemate"));
    if let Some(own) = own.as_mut().and_then(Value::as_object_mut) {
        own.retain(|key, value| OWN.contains(&key.as_str()) && !value.is_null());
    }
    let guid = was("resourceGuid").unwrap_or_else(|| Uuid::new_v4().to_string().into());
    let mut kept = json!({
        "resourceGuid": guid,
        "addressSpace": {"addressPrefixes": given.get("addressSpace").and_then(|space| space.get("addressPrefixes"))},
        "casemate": own.unwrap_or_else(|| json!({})),
    });
    if let Some(servers) = given.get("dhcpOptions").and_then(|options| options.get("dnsServers")) {
        kept["dhcpOptions"] = json!({"dnsServers": servers});
    }
    kept
}

/// A network stays of its kind: what stands behind it on the machine can't be turned into something else.
fn check_kind(network: &VirtualNetwork, existing: Option<&Resource>) -> Result<(), Fault> {
    let Some(existing) = existing else { return Ok(()) };
    let Ok(was) = VirtualNetwork::new(&existing.id, existing.properties(), []) else { return Ok(()) };
    if was.kind == network.kind {
        return Ok(());
    }
    let shown = |kind: &NetworkKind| match kind {
        NetworkKind::Interface { device } => format!("interface ({device})"),
        other => other.word().to_owned(),
    };
    let message = format!(
        "The network '{}' is of the kind {} and can't become {}. Create another network.",
        network.name,
        shown(&was.kind),
        shown(&network.kind)
    );
    Err(bad("casemate.kind", message))
}

/// Networks share one machine, so their addresses must not overlap.
async fn check_others(tx: &mut Tx, network: &VirtualNetwork, is_new: bool) -> Result<(), ApiError> {
    let rows = tx.resource_list(&Filter::of_type(NETWORK_TYPE)).await?;
    if is_new && rows.len() >= MAX_NETWORKS {
        let message = format!("There are {MAX_NETWORKS} virtual networks already; delete one first.");
        return Err(shape::quota(message).into());
    }
    for row in rows.iter().filter(|row| row.id != network.id) {
        let Ok(other) = VirtualNetwork::new(&row.id, row.properties(), []) else { continue };
        let clash = network.prefixes.iter().find(|prefix| other.prefixes.iter().any(|used| overlap(*used, **prefix)));
        if let Some(prefix) = clash {
            let message = format!(
                "The prefix {prefix} overlaps the network '{}', which is on the same machine. Give another prefix.",
                other.id
            );
            return Err(Fault::conflict("VnetAddressSpaceOverlaps", message).at("addressSpace").into());
        }
    }
    Ok(())
}

/// Private endpoints keep their addresses, so the network must still have them.
pub(super) async fn check_endpoints(tx: &mut Tx, network: &VirtualNetwork) -> Result<(), ApiError> {
    let own = network.own_addresses();
    for endpoint in endpoints_in(tx, &network.id).await? {
        let subnet = network.subnet(&endpoint.subnet);
        if subnet.is_some_and(|subnet| subnet.is_usable(endpoint.address)) && !own.contains(&endpoint.address) {
            continue;
        }
        let message = format!(
            "Subnet {} is in use by {} (address {}) and cannot be deleted or changed so. Delete that private endpoint first.",
            endpoint.subnet, endpoint.id, endpoint.address
        );
        let code = if subnet.is_none() { "InUseSubnetCannotBeDeleted" } else { "InUsePrefixCannotBeDeleted" };
        return Err(Fault::invalid(code, message).at(endpoint.subnet).into());
    }
    Ok(())
}

/// The private endpoints in a network, or in one of its subnets.
pub(super) async fn endpoints_in(tx: &mut Tx, scope: &ResourceId) -> Result<Vec<PrivateEndpoint>, ApiError> {
    let rows = tx.resource_list(&Filter::of_type(PRIVATE_ENDPOINT_TYPE)).await?;
    let read = |row: &Resource| {
        let subnet = ResourceId::parse(row.properties()["subnet"]["id"].as_str()?).ok()?;
        if subnet.is_within(scope) { PrivateEndpoint::new(&row.id, row.properties()).ok() } else { None }
    };
    Ok(rows.iter().filter_map(read).collect())
}

/// The subnets of a network, oldest first.
pub(super) async fn subnet_rows(tx: &mut Tx, network: &ResourceId) -> Result<Vec<Resource>, ApiError> {
    let mut rows = tx.resource_list(&Filter::of_type(SUBNET_TYPE).child_of(network)).await?;
    rows.sort_by_key(|row| row.system.created_at);
    Ok(rows)
}

pub(super) fn pairs(subnets: &[(String, Value)]) -> impl Iterator<Item = (&str, &Value)> {
    subnets.iter().map(|(name, properties)| (name.as_str(), properties))
}

async fn delete(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    let condition = call.condition()?;
    let mut tx = state.store.begin().await?;
    if tx.resource_mark_deleting(id, &condition).await?.is_none() {
        return Ok(respond::no_content());
    }
    let users = endpoints_in(&mut tx, id).await?;
    if let Some(first) = users.first() {
        let message = format!(
            "Subnet {} is in use by {} and cannot be deleted. In order to delete the network, delete these private \
             endpoints first.",
            first.subnet,
            shape::names(users.iter().map(|user| user.id.as_str()))
        );
        return Err(Fault::invalid("InUseSubnetCannotBeDeleted", message).at(id.as_str()).into());
    }
    common::remove_inner(&mut tx, id).await?;
    apply::release(&mut tx, ctx, id).await?;
    tx.resource_remove(id).await?;
    tx.commit().await?;
    Ok(shape::deleted())
}

/// Refuses to delete a group that holds networks in which private endpoints of other groups have their addresses.
pub(crate) async fn require_free(tx: &mut Tx, group: &ResourceId) -> Result<(), ApiError> {
    let mut users = endpoints_in(tx, group).await?;
    users.retain(|user| !user.id.is_within(group));
    if users.is_empty() {
        return Ok(());
    }
    let message = format!(
        "The group '{}' can't be deleted: its virtual networks are used by private endpoints of other groups: {}. \
         Delete these first.",
        group.name(),
        shape::names(users.iter().map(|user| user.id.as_str()))
    );
    Err(Fault::conflict("InUseSubnetCannotBeDeleted", message).at(group.as_str()).into())
}

/// What the platform makes of a network.
fn made(network: &VirtualNetwork) -> Value {
    let bridge = if let NetworkKind::Managed { bridge } = &network.kind { Some(bridge) } else { None };
    json!({
        "bridge": bridge,
        "dnsAddress": network.dns_address.map(|address| address.to_string()),
        "gatewayAddress": network.gateway_address.map(|address| address.to_string()),
    })
}

/// What is shown inside networks: their subnets, and who has an address there.
pub(super) struct Inside {
    subnets: HashMap<ResourceId, Vec<Resource>>,
    /// By subnet.
    users: HashMap<ResourceId, Vec<ResourceId>>,
}

impl Inside {
    pub(super) async fn read(state: &ApiState) -> Result<Self, ApiError> {
        let mut rows = state.store.resource_list(&Filter::of_type(SUBNET_TYPE)).await?;
        rows.sort_by_key(|row| row.system.created_at);
        let mut inside = Self { subnets: HashMap::new(), users: HashMap::new() };
        for row in rows {
            inside.subnets.entry(row.id.parent().unwrap_or_else(|| row.id.clone())).or_default().push(row);
        }
        for row in state.store.resource_list(&Filter::of_type(PRIVATE_ENDPOINT_TYPE)).await? {
            let subnet = row.properties()["subnet"]["id"].as_str().and_then(|id| ResourceId::parse(id).ok());
            if let Some(subnet) = subnet {
                inside.users.entry(subnet).or_default().push(row.id.clone());
            }
        }
        Ok(inside)
    }

    pub(super) fn show(&self, row: &Resource) -> Value {
        let mut shown = shape::public(row);
        let subnets = self.subnets.get(&row.id).into_iter().flatten();
        let network = VirtualNetwork::new(
            &row.id,
            row.properties(),
            self.subnets.get(&row.id).into_iter().flatten().map(|subnet| (subnet.name(), subnet.properties())),
        );
        if let Some(properties) = shown["properties"].as_object_mut() {
            properties.insert("subnets".to_owned(), subnets.map(|subnet| self.show_subnet(subnet)).collect());
            properties.insert("virtualNetworkPeerings".to_owned(), json!([]));
            properties.insert("enableDdosProtection".to_owned(), false.into());
            properties.insert("privateEndpointVNetPolicies".to_owned(), "Disabled".into());
            if let (Ok(network), Some(own)) = (network, properties.get_mut("casemate").and_then(Value::as_object_mut)) {
                own.insert("status".to_owned(), made(&network));
            }
        }
        shown
    }

    pub(super) fn show_subnet(&self, row: &Resource) -> Value {
        let mut shown = shape::public(row);
        let users = self.users.get(&row.id).into_iter().flatten();
        if let Some(properties) = shown["properties"].as_object_mut() {
            let users: Vec<Value> = users.map(|id| json!({"id": id.as_str()})).collect();
            if !users.is_empty() {
                properties.insert("privateEndpoints".to_owned(), users.into());
            }
            properties.insert("delegations".to_owned(), json!([]));
        }
        shown
    }
}
