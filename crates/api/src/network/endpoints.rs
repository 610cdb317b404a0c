//! Private endpoints. One is done when it is written: its address is taken from the subnet, its connection asked for,
//! and its names written, in the transaction of its PUT. A PUT of one that is there mends what is missing of that.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use casemate_model::{
    Fault, Resource, ResourceId,
    network::{
        PRIVATE_ENDPOINT_TYPE, PRIVATE_LINK_SERVICE_TYPE, PrivateEndpoint, SUBNET_TYPE, VirtualNetwork, connection_type,
    },
};
use casemate_store::{Filter, Put, Tx};
use http::Method;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    apply, connections, interfaces,
    shape::{self, Asked, bad},
    targets, vnets,
};
use crate::{
    arm::shape as common,
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    respond,
    state::ApiState,
};

/// Most private endpoints of the platform.
const MAX_ENDPOINTS: usize = 1000;
/// The longest message to the owner of the target, in bytes.
const MAX_MESSAGE: usize = 140;
const LINKS: [&str; 2] = ["privateLinkServiceConnections", "manualPrivateLinkServiceConnections"];

pub(super) async fn handle(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Resource(id), &Method::GET) => {
            ctx.authorize_call(call)?;
            let row = shape::read(state, id).await?;
            let shown = Around::read(state).await?.show(state, &row);
            Ok(respond::shown(call, &row, &shown))
        }
        (Target::Resource(id), &Method::HEAD) => shape::head(ctx, state, call, id).await,
        (Target::Resource(id), &Method::PUT) => {
            ctx.authorize_call(call)?;
            let asked = Asked::read(call)?;
            let mut tx = state.store.begin().await?;
            let put = write(&mut tx, ctx, state, id, &asked).await?;
            tx.commit().await?;
            Ok(respond::written_as(&put, &Around::read(state).await?.show(state, &put.resource)))
        }
        (Target::Resource(id), &Method::PATCH) => {
            let put = shape::patch_tags(ctx, state, call, id).await?;
            Ok(respond::written_as(&put, &Around::read(state).await?.show(state, &put.resource)))
        }
        (Target::Resource(id), &Method::DELETE) => delete(ctx, state, call, id).await,
        (Target::Collection { .. }, &Method::GET) => {
            let rows = shape::list(ctx, state, call).await?;
            let around = Around::read(state).await?;
            respond::list(ctx, call, &call.path(), rows.iter().map(|row| around.show(state, row)).collect())
        }
        _ => call.method_not_allowed(),
    }
}

/// What a body asks for.
struct Wish {
    subnet: ResourceId,
    target: ResourceId,
    group: &'static str,
    /// Whether the decision is to be left to the target's owner.
    manual: bool,
    link_name: String,
    message: String,
    /// The address asked for.
    address: Option<IpAddr>,
    ip_configurations: Value,
    interface_name: Option<String>,
}

impl Wish {
    fn read(properties: &Map<String, Value>) -> Result<Self, Fault> {
        shape::refuse_unbuilt(properties, &[("applicationSecurityGroups", "Application security groups")])?;
        let subnet = shape::reference(properties, "subnet", SUBNET_TYPE)?;
        let list = |field: &str| properties.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let (field, link) = match (list(LINKS[0]), list(LINKS[1])) {
            ([link], []) => (LINKS[0], link),
            ([], [link]) => (LINKS[1], link),
            _ => {
                let message =
                    format!("A private endpoint has one connection: one entry in '{}' or in '{}'.", LINKS[0], LINKS[1]);
                return Err(bad(LINKS[0], message));
            }
        };
        let asked = &link["properties"];
        let target = target_id(asked["privateLinkServiceId"].as_str().unwrap_or_default())?;
        let group = match asked["groupIds"].as_array().map(Vec::as_slice).unwrap_or_default() {
            [group] => targets::group(&target, group.as_str().unwrap_or_default())?.id,
            _ => {
                let names = shape::names(targets::groups(&target).iter().map(|group| group.id));
                return Err(bad("groupIds", format!("A private endpoint leads to one part of its target: {names}.")));
            }
        };
        let (address, ip_configurations) = static_address(list("ipConfigurations"))?;
        let message = asked["requestMessage"].as_str().unwrap_or_default();
        if message.len() > MAX_MESSAGE {
            return Err(bad("requestMessage", format!("The request message is longer than {MAX_MESSAGE} bytes.")));
        }
        let interface_name = properties.get("customNetworkInterfaceName").and_then(Value::as_str);
        Ok(Self {
            subnet,
            target,
            group,
            manual: field == LINKS[1],
            link_name: link["name"].as_str().unwrap_or("connection").to_owned(),
            message: message.to_owned(),
            address,
            ip_configurations,
            interface_name: interface_name.filter(|name| !name.is_empty()).map(str::to_owned),
        })
    }

    /// What is kept of it.
    fn properties(&self, guid: &str, address: IpAddr, connection: &str) -> Value {
        let link = json!([{"name": self.link_name, "properties": {
            "privateLinkServiceId": self.target.as_str(),
            "groupIds": [self.group],
            "requestMessage": self.message,
        }}]);
        let (field, other) = if self.manual { (LINKS[1], LINKS[0]) } else { (LINKS[0], LINKS[1]) };
        json!({
            "resourceGuid": guid,
            "subnet": {"id": self.subnet.as_str()},
            field: link,
            other: [],
            "ipConfigurations": self.ip_configurations,
            "customNetworkInterfaceName": self.interface_name,
            "casemate": {"address": address.to_string(), "connection": connection},
        })
    }
}

fn target_id(text: &str) -> Result<ResourceId, Fault> {
    let id = ResourceId::parse(text).map_err(|fault| bad("privateLinkServiceId", fault.message))?;
    if id.is_type(PRIVATE_LINK_SERVICE_TYPE) {
        let message = format!(
            "'{id}' is a destination for outbound rules of workspaces; private endpoints of virtual networks lead to the \
             platform's own resources: workspaces, storage accounts, vaults and registries."
        );
        return Err(bad("privateLinkServiceId", message));
    }
    if connection_type(&id.resource_type()).is_some() {
        return Ok(id);
    }
    let message =
        format!("Private endpoints can't lead to '{id}': give a workspace, storage account, vault or registry.");
    Err(bad("privateLinkServiceId", message))
}

/// The address in `ipConfigurations`, and what is kept of them.
fn static_address(given: &[Value]) -> Result<(Option<IpAddr>, Value), Fault> {
    let [one] = given else {
        if given.is_empty() {
            return Ok((None, json!([])));
        }
        return Err(bad("ipConfigurations", "A private endpoint has one address here: give one IP configuration."));
    };
    let text = one["properties"]["privateIPAddress"].as_str().unwrap_or_default();
    let shown: String = text.chars().take(60).collect();
    let address = text.parse().map_err(|_| bad("ipConfigurations", format!("'{shown}' is not an address.")))?;
    let kept = json!([{"name": one["name"].as_str().unwrap_or("ipconfig"), "properties": {
        "groupId": one["properties"]["groupId"],
        "memberName": one["properties"]["memberName"],
        "privateIPAddress": text,
    }}]);
    Ok((Some(address), kept))
}

pub(super) async fn write(
    tx: &mut Tx,
    ctx: &OpContext,
    state: &ApiState,
    id: &ResourceId,
    asked: &Asked,
) -> Result<Put, ApiError> {
    let given = &asked.given;
    shape::check_name(id, "Microsoft.Resources/resourceGroups", 80)?;
    common::require_parent(tx, id).await?;
    let existing = tx.resource_get(id).await?;
    let location = shape::location(given, existing.as_ref())?;
    let wish = Wish::read(&shape::properties(given)?)?;
    ctx.authorize("Microsoft.Network/virtualNetworks/subnets/join/action", &wish.subnet)?;
    shape::named(tx, &wish.subnet, "subnet").await?;
    // Whether a target exists is told to those who may see it.
    ctx.authorize(&format!("{}/read", wish.target.resource_type()), &wish.target)?;
    shape::named(tx, &wish.target, "privateLinkServiceId").await?;
    let was = existing.as_ref().and_then(|row| PrivateEndpoint::new(&row.id, row.properties()).ok());
    check_unchanged(was.as_ref(), &wish)?;
    let address = address(tx, id, &wish, was.as_ref()).await?;
    let kept = |path: &str| existing.as_ref()?.properties().pointer(path)?.as_str().map(str::to_owned);
    let guid = kept("/resourceGuid").unwrap_or_else(|| Uuid::new_v4().to_string());
    let connection = kept("/casemate/connection").unwrap_or_else(|| format!("{}.{}", id.name(), Uuid::new_v4()));
    let body = json!({
        "location": location,
        "tags": common::tags(given.get("tags"))?,
        "properties": wish.properties(&guid, address, &connection),
    });
    let put = tx.resource_put(id, body, &asked.condition, &ctx.author()).await?;
    let endpoint = PrivateEndpoint::new(id, put.resource.properties())?;
    connections::open(tx, ctx, &endpoint, wish.manual, &wish.message).await?;
    apply::sync(tx, ctx, state, &put.resource).await?;
    Ok(put)
}

/// A private endpoint stays in its subnet and with its target.
fn check_unchanged(was: Option<&PrivateEndpoint>, wish: &Wish) -> Result<(), Fault> {
    let Some(was) = was else { return Ok(()) };
    let changed = |field: &str| {
        let message =
            format!("The {field} of the private endpoint '{}' can't be changed. Create another one.", was.id.name());
        Err(bad(field, message))
    };
    if !was.subnet.eq_ignore_ascii_case(wish.subnet.name()) || wish.subnet.parent().as_ref() != Some(&was.network) {
        return changed("subnet");
    }
    if was.target != wish.target || was.groups != [wish.group] {
        return changed("privateLinkServiceConnections");
    }
    Ok(())
}

/// The address asked for, the one it has, or the first free one of the subnet.
async fn address(tx: &mut Tx, id: &ResourceId, wish: &Wish, was: Option<&PrivateEndpoint>) -> Result<IpAddr, ApiError> {
    let network_id = wish.subnet.parent().ok_or_else(|| common::not_found(&wish.subnet))?;
    let row = shape::named(tx, &network_id, "subnet").await?;
    let rows = vnets::subnet_rows(tx, &network_id).await?;
    let subnets = rows.iter().map(|row| (row.name(), row.properties()));
    let network = VirtualNetwork::new(&network_id, row.properties(), subnets)?;
    let subnet = network.subnet(wish.subnet.name()).ok_or_else(|| common::not_found(&wish.subnet))?;
    let all = tx.resource_list(&Filter::of_type(PRIVATE_ENDPOINT_TYPE)).await?;
    if was.is_none() && all.len() >= MAX_ENDPOINTS {
        let message = format!("There are {MAX_ENDPOINTS} private endpoints already; delete one first.");
        return Err(shape::quota(message).into());
    }
    let mut taken: HashSet<IpAddr> = network.own_addresses();
    for other in vnets::endpoints_in(tx, &network_id).await?.iter().filter(|other| other.id != *id) {
        taken.insert(other.address);
    }
    match (wish.address, was) {
        (Some(asked), _) if !subnet.is_usable(asked) => {
            let message = format!(
                "Private static IP address {asked} does not belong to the usable range of the subnet '{}' ({}); its \
                 first four addresses and the last are reserved.",
                subnet.name, subnet.prefix
            );
            Err(Fault::invalid("PrivateIPAddressNotInSubnet", message).at("ipConfigurations").into())
        }
        (Some(asked), _) if taken.contains(&asked) => {
            let message = format!("The address {asked} is in use by another private endpoint or by the platform.");
            Err(Fault::invalid("PrivateIPAddressInUse", message).at("ipConfigurations").into())
        }
        (Some(asked), _) => Ok(asked),
        (None, Some(was)) => Ok(was.address),
        (None, None) => subnet.first_free(&taken).ok_or_else(|| {
            let message = format!(
                "Subnet {} with address prefix {} does not have enough capacity for another private endpoint: all its \
                 addresses are taken. Delete one, or use another subnet.",
                subnet.name, subnet.prefix
            );
            Fault::invalid("SubnetIsFull", message).at("subnet").into()
        }),
    }
}

async fn delete(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    let condition = call.condition()?;
    let mut tx = state.store.begin().await?;
    if tx.resource_mark_deleting(id, &condition).await?.is_none() {
        return Ok(respond::no_content());
    }
    apply::release(&mut tx, ctx, id).await?;
    common::remove_inner(&mut tx, id).await?;
    tx.resource_remove(id).await?;
    tx.commit().await?;
    Ok(shape::deleted())
}

/// What is shown of a private endpoint and lies elsewhere: what its target says of it, and the target itself.
pub(super) struct Around {
    connections: HashMap<ResourceId, Resource>,
    targets: HashMap<ResourceId, Resource>,
}

impl Around {
    pub(super) async fn read(state: &ApiState) -> Result<Self, ApiError> {
        let mut targets = HashMap::new();
        for kind in casemate_model::network::CONNECTION_TARGETS {
            let rows = state.store.resource_list(&Filter::of_type(kind)).await?;
            targets.extend(rows.into_iter().map(|row| (row.id.clone(), row)));
        }
        Ok(Self { connections: connections::all(state).await?, targets })
    }

    fn show(&self, state: &ApiState, row: &Resource) -> Value {
        let mut shown = shape::public(row);
        let Ok(endpoint) = PrivateEndpoint::new(&row.id, row.properties()) else { return shown };
        let connection = connections::shown_state(self.connections.get(&endpoint.connection));
        let Some(properties) = shown["properties"].as_object_mut() else { return shown };
        for field in LINKS {
            let kind = format!("{PRIVATE_ENDPOINT_TYPE}/{field}");
            for link in properties.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten() {
                link["id"] = format!("{}/{field}/{}", row.id, link["name"].as_str().unwrap_or_default()).into();
                link["type"] = kind.as_str().into();
                link["etag"] = row.etag.as_str().into();
                link["properties"]["privateLinkServiceConnectionState"] = connection.clone();
                link["properties"]["provisioningState"] = "Succeeded".into();
            }
        }
        let names: Vec<Value> = self
            .public_names(state, &endpoint)
            .into_iter()
            .map(|name| json!({"fqdn": name, "ipAddresses": [endpoint.address.to_string()]}))
            .collect();
        properties.insert("customDnsConfigs".to_owned(), names.into());
        let interface = interfaces::id(row).map(|id| json!([{"id": id}])).unwrap_or_else(|| json!([]));
        properties.insert("networkInterfaces".to_owned(), interface);
        shown
    }

    pub(super) fn public_names(&self, state: &ApiState, endpoint: &PrivateEndpoint) -> Vec<String> {
        let target = self.targets.get(&endpoint.target);
        target.map(|target| targets::public_names(state, target, &endpoint.groups)).unwrap_or_default()
    }

    /// The target of an endpoint.
    pub(super) fn target(&self, endpoint: &PrivateEndpoint) -> Option<&Resource> {
        self.targets.get(&endpoint.target)
    }
}
