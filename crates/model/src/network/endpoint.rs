//! Private endpoints: an address in a network that leads to one resource of the platform.

use std::net::IpAddr;

use serde_json::Value;

use super::{SUBNET_TYPE, connection::connection_type};
use crate::{fault::Fault, id::ResourceId};

/// A private endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateEndpoint {
    /// Its id.
    pub id: ResourceId,
    /// The network of its subnet.
    pub network: ResourceId,
    /// The name of its subnet.
    pub subnet: String,
    /// Its address in the subnet, given when it was made.
    pub address: IpAddr,
    /// What it leads to.
    pub target: ResourceId,
    /// The parts of the target it leads to: `amlworkspace`, `blob`, `file`, `vault`, `registry`.
    pub groups: Vec<String>,
    /// The target's side of it: `<target>/privateEndpointConnections/<name>`.
    pub connection: ResourceId,
    /// Whether that connection exists and is approved: only then may traffic flow.
    pub approved: bool,
}

impl PrivateEndpoint {
    /// Reads the stored properties. `approved` is false until the connection is looked at.
    ///
    /// # Errors
    /// Naming the property that can't be read.
    pub fn new(id: &ResourceId, properties: &Value) -> Result<Self, Fault> {
        let bad = |field: &str, why: &str| Fault::invalid("InvalidRequestFormat", format!("{field}: {why}.")).at(field);
        let subnet = ResourceId::parse(properties["subnet"]["id"].as_str().unwrap_or_default());
        let subnet = subnet.map_err(|fault| bad("subnet", &fault.message))?;
        let network = subnet.parent().filter(|_| subnet.is_type(SUBNET_TYPE));
        let network = network.ok_or_else(|| bad("subnet", "it is not the id of a subnet"))?;
        let address = properties["casemate"]["address"].as_str().and_then(|text| text.parse().ok());
        let link = ["privateLinkServiceConnections", "manualPrivateLinkServiceConnections"]
            .into_iter()
            .find_map(|field| properties[field].get(0))
            .ok_or_else(|| bad("privateLinkServiceConnections", "there is none"))?;
        let target = link["properties"]["privateLinkServiceId"].as_str().unwrap_or_default();
        let target = ResourceId::parse(target).map_err(|fault| bad("privateLinkServiceId", &fault.message))?;
        if connection_type(&target.resource_type()).is_none() {
            return Err(bad("privateLinkServiceId", "private endpoints can't lead to a resource of its type"));
        }
        let groups = link["properties"]["groupIds"].as_array().into_iter().flatten();
        let name = properties["casemate"]["connection"].as_str().unwrap_or_default();
        Ok(Self {
            id: id.clone(),
            network,
            subnet: subnet.name().to_owned(),
            address: address.ok_or_else(|| bad("casemate.address", "it is no address"))?,
            connection: target.child("privateEndpointConnections", name)?,
            target,
            groups: groups.filter_map(|group| Some(group.as_str()?.to_lowercase())).collect(),
            approved: false,
        })
    }
}
