//! `network vnet …`.

use serde_json::{Value, json};

use super::{Found, delete, flat, get, id, list, list_in, location, named, put, show, tags};
use crate::{
    failure::Failure,
    grammar::{SubnetCommand, SubnetName, VnetArgs, VnetCommand},
    output::Output,
    session::{Session, segment},
};

const SUBNET_COLUMNS: &str =
    "[].{Name:name, AddressPrefix:addressPrefix, ResourceGroup:resourceGroup, ProvisioningState:provisioningState}";

pub(super) async fn run(command: VnetCommand, session: &Session) -> Found {
    match command {
        VnetCommand::Create { name, placed, args, subnet_name, subnet_prefixes, kind, interface, .. } => {
            let mut body = json!({
                "location": location(session, &placed, &name.group).await?,
                "tags": tags(placed.tags.as_ref())?,
                "properties": {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}},
            });
            lay(&mut body["properties"], &args)?;
            for (key, value) in [("kind", kind), ("interface", interface)] {
                if let Some(value) = value {
                    body["properties"]["casemate"][key] = value.into();
                }
            }
            if subnet_name.is_some() || subnet_prefixes.is_some() {
                let first = body["properties"]["addressSpace"]["addressPrefixes"][0].as_str().unwrap_or_default();
                let prefixes = subnet_prefixes.unwrap_or_else(|| vec![first_part(first)]);
                let name = subnet_name.unwrap_or_else(|| "default".to_owned());
                body["properties"]["subnets"] = json!([{"name": name, "properties": subnet_properties(&prefixes)}]);
            }
            let made = put(session, &named(session, &name, "virtualNetworks").await?, &body).await?;
            Ok(json!({"newVNet": flat(&made)}).into())
        }
        VnetCommand::Update { name, placed, args, .. } => {
            let id = named(session, &name, "virtualNetworks").await?;
            let mut body = get(session, &id).await?;
            lay(&mut body["properties"], &args)?;
            if placed.tags.is_some() {
                body["tags"] = tags(placed.tags.as_ref())?;
            }
            Ok(flat(&put(session, &id, &body).await?).into())
        }
        VnetCommand::Show(name) => show(session, &named(session, &name, "virtualNetworks").await?).await,
        VnetCommand::List(group) => {
            const COLUMNS: &str = "[].{Name:name, ResourceGroup:resourceGroup, Location:location, Kind:casemate.kind, Prefixes:join(', ', addressSpace.addressPrefixes), NumSubnets:length(subnets)}";
            match list_in(session, &group, "virtualNetworks").await? {
                Output::Value(value, _) => Ok(Output::Value(value, Some(COLUMNS))),
                other => Ok(other),
            }
        }
        VnetCommand::Delete { name, .. } => delete(session, &named(session, &name, "virtualNetworks").await?).await,
        VnetCommand::Subnet(command) => subnet(command, session).await,
    }
}

async fn subnet(command: SubnetCommand, session: &Session) -> Found {
    match command {
        SubnetCommand::Create { name, address_prefixes, private_endpoint_network_policies, .. } => {
            let id = subnet_id(session, &name).await?;
            let existing = session.client().get_optional(&format!("{id}?{}", super::NET_API)).await?;
            let mut body = existing.unwrap_or_else(|| json!({"properties": {}}));
            if let Some(prefixes) = &address_prefixes {
                body["properties"] = subnet_properties(prefixes);
            }
            if let Some(policies) = private_endpoint_network_policies {
                body["properties"]["privateEndpointNetworkPolicies"] = policies.into();
            }
            Ok(flat(&put(session, &id, &body).await?).into())
        }
        SubnetCommand::Show(name) => show(session, &subnet_id(session, &name).await?).await,
        SubnetCommand::List { vnet_name, group } => {
            let network = id(session, &group, "virtualNetworks", &vnet_name).await?;
            list(session, &format!("{network}/subnets"), SUBNET_COLUMNS).await
        }
        SubnetCommand::Delete { name, .. } => delete(session, &subnet_id(session, &name).await?).await,
    }
}

async fn subnet_id(session: &Session, name: &SubnetName) -> Result<String, Failure> {
    let network = id(session, &name.subnet.group, "virtualNetworks", &name.vnet_name).await?;
    Ok(format!("{network}/subnets/{}", segment(&name.subnet.name)))
}

fn subnet_properties(prefixes: &[String]) -> Value {
    match prefixes {
        [one] => json!({"addressPrefix": one}),
        several => json!({"addressPrefixes": several}),
    }
}

/// Lays options over a network's properties.
fn lay(properties: &mut Value, args: &VnetArgs) -> Result<(), Failure> {
    if let Some(prefixes) = &args.address_prefixes {
        properties["addressSpace"] = json!({"addressPrefixes": prefixes});
    }
    if let Some(servers) = &args.dns_servers {
        let servers: Vec<&String> = servers.iter().filter(|server| !server.is_empty()).collect();
        properties["dhcpOptions"] = json!({"dnsServers": servers});
    }
    if let Some(address) = &args.dns_address {
        properties["casemate"]["dnsAddress"] = address.as_str().into();
    }
    if let Some(forwarders) = &args.forwarders {
        let read = |given: &String| {
            let (suffix, servers) = given.split_once('=').ok_or_else(|| {
                Failure::usage(format!("--forwarders '{given}' is not of the form DOMAIN=ADDRESS[,ADDRESS]."))
            })?;
            Ok(json!({"suffix": suffix, "to": servers.split(',').collect::<Vec<_>>()}))
        };
        let given = forwarders.iter().filter(|given| !given.is_empty());
        properties["casemate"]["forwarders"] = given.map(read).collect::<Result<Value, Failure>>()?;
    }
    Ok(())
}

/// The first /24 of a prefix (or the prefix, when it is smaller); /64 for IPv6. The platform checks what comes of it.
fn first_part(prefix: &str) -> String {
    let Some((address, bits)) = prefix.split_once('/') else { return prefix.to_owned() };
    let part = if address.contains(':') { 64 } else { 24 };
    match bits.parse::<u8>() {
        Ok(bits) if bits < part => format!("{address}/{part}"),
        _ => prefix.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_parts() {
        for (prefix, part) in [
            ("10.0.0.0/16", "10.0.0.0/24"),
            ("10.0.0.0/24", "10.0.0.0/24"),
            ("10.0.0.0/28", "10.0.0.0/28"),
            ("fd00::/48", "fd00::/64"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(first_part(prefix), part);
        }
    }
}
