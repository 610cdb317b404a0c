//! `network private-endpoint …` and `network private-link-service …`.

use serde_json::{Map, Value, json};

use super::{Found, checked, delete, flat, id, list, list_in, location, name_or_id, named, put, show, tags, truth};
use crate::{
    commands::pairs,
    failure::Failure,
    grammar::{EndpointArgs, PrivateEndpointCommand, ServiceCommand, ZoneGroupCommand, ZoneGroupName},
    output::Output,
    session::{Session, segment},
};

const COLUMNS: &str = "[].{Name:name, ResourceGroup:resourceGroup, Address:casemate.address, Group:(privateLinkServiceConnections || manualPrivateLinkServiceConnections)[0].groupIds[0], Status:(privateLinkServiceConnections || manualPrivateLinkServiceConnections)[0].privateLinkServiceConnectionState.status}";

pub(super) async fn run(command: PrivateEndpointCommand, session: &Session) -> Found {
    match command {
        PrivateEndpointCommand::Create(args) => create(*args, session).await,
        PrivateEndpointCommand::Show(name) => show(session, &named(session, &name, "privateEndpoints").await?).await,
        PrivateEndpointCommand::List(group) => match list_in(session, &group, "privateEndpoints").await? {
            Output::Value(value, _) => Ok(Output::Value(value, Some(COLUMNS))),
            other => Ok(other),
        },
        PrivateEndpointCommand::Delete { name, .. } => {
            delete(session, &named(session, &name, "privateEndpoints").await?).await
        }
        PrivateEndpointCommand::DnsZoneGroup(command) => zone_group(command, session).await,
    }
}

async fn create(args: EndpointArgs, session: &Session) -> Found {
    let group = &args.name.group;
    let subnet = match (&args.vnet_name, args.subnet.starts_with('/')) {
        (_, true) => args.subnet.clone(),
        (Some(network), false) => {
            format!("{}/subnets/{}", id(session, group, "virtualNetworks", network).await?, segment(&args.subnet))
        }
        (None, false) => {
            return Err(Failure::usage(
                "Give the subnet's network with --vnet-name, or the subnet's id with --subnet.",
            ));
        }
    };
    let address = args.ip_config.as_deref().map(ip_configuration).transpose()?;
    let manual = args.manual_request.as_deref().map(|given| truth("--manual-request", given)).transpose()?;
    let field = match manual {
        Some(true) => "manualPrivateLinkServiceConnections",
        _ => "privateLinkServiceConnections",
    };
    let mut body = json!({
        "location": location(session, &args.placed, group).await?,
        "tags": tags(args.placed.tags.as_ref())?,
        "properties": {
            "subnet": {"id": subnet},
            field: [{"name": args.connection_name, "properties": {
                "privateLinkServiceId": args.private_connection_resource_id,
                "groupIds": [args.group_id],
                "requestMessage": args.request_message,
            }}],
        },
    });
    if let Some(address) = address {
        body["properties"]["ipConfigurations"] = json!([address]);
    }
    if let Some(name) = args.nic_name {
        body["properties"]["customNetworkInterfaceName"] = name.into();
    }
    let made = put(session, &named(session, &args.name, "privateEndpoints").await?, &body).await?;
    Ok(flat(&made).into())
}

fn ip_configuration(given: &[String]) -> Result<Value, Failure> {
    let mut properties = Map::new();
    let mut name = "ipconfig".to_owned();
    for (key, value) in pairs("--ip-config", given)? {
        match key.as_str() {
            "name" | "n" => name = value,
            "group-id" => drop(properties.insert("groupId".to_owned(), value.into())),
            "member-name" => drop(properties.insert("memberName".to_owned(), value.into())),
            "private-ip-address" => drop(properties.insert("privateIPAddress".to_owned(), value.into())),
            other => {
                let known = "name, group-id, member-name and private-ip-address";
                return Err(Failure::usage(format!("--ip-config knows no '{other}', but {known}.")));
            }
        }
    }
    Ok(json!({"name": name, "properties": properties}))
}

async fn zone_group(command: ZoneGroupCommand, session: &Session) -> Found {
    match command {
        ZoneGroupCommand::Create { name, private_dns_zone, zone_name, .. } => {
            let zone = name_or_id(session, &name.group.group, "privateDnsZones", &private_dns_zone).await?;
            let id = zone_group_id(session, &name).await?;
            let config = json!({"name": zone_name, "properties": {"privateDnsZoneId": zone}});
            let existing = session.client().get_optional(&format!("{id}?{}", super::NET_API)).await?;
            let mut configs = existing
                .and_then(|group| group.pointer("/properties/privateDnsZoneConfigs")?.as_array().cloned())
                .unwrap_or_default();
            configs.retain(|other| other["name"] != config["name"]);
            configs.push(config);
            let body = json!({"properties": {"privateDnsZoneConfigs": configs}});
            Ok(flat(&put(session, &id, &body).await?).into())
        }
        ZoneGroupCommand::Show(name) => show(session, &zone_group_id(session, &name).await?).await,
        ZoneGroupCommand::List { endpoint_name, group } => {
            let endpoint = id(session, &group, "privateEndpoints", &endpoint_name).await?;
            list(session, &format!("{endpoint}/privateDnsZoneGroups"), super::COLUMNS).await
        }
        ZoneGroupCommand::Delete { name, .. } => delete(session, &zone_group_id(session, &name).await?).await,
    }
}

async fn zone_group_id(session: &Session, name: &ZoneGroupName) -> Result<String, Failure> {
    let endpoint = id(session, &name.group.group, "privateEndpoints", &name.endpoint_name).await?;
    Ok(format!("{endpoint}/privateDnsZoneGroups/{}", segment(&name.group.name)))
}

pub(super) async fn service(command: ServiceCommand, session: &Session) -> Found {
    const KIND: &str = "privateLinkServices";
    const COLUMNS: &str = "[].{Name:name, ResourceGroup:resourceGroup, Address:casemate.address, Fqdn:casemate.fqdn, Ports:casemate.ports}";
    match command {
        ServiceCommand::Create { name, placed, address, fqdn, ports } => {
            let body = json!({
                "location": location(session, &placed, &name.group).await?,
                "tags": tags(placed.tags.as_ref())?,
                "properties": {"casemate": {"address": address, "fqdn": fqdn, "ports": ports}},
            });
            Ok(flat(&put(session, &named(session, &name, KIND).await?, &body).await?).into())
        }
        ServiceCommand::Show(name) => show(session, &checked(&named(session, &name, KIND).await?)?).await,
        ServiceCommand::List(group) => match list_in(session, &group, KIND).await? {
            Output::Value(value, _) => Ok(Output::Value(value, Some(COLUMNS))),
            other => Ok(other),
        },
        ServiceCommand::Delete { name, .. } => delete(session, &named(session, &name, KIND).await?).await,
    }
}
