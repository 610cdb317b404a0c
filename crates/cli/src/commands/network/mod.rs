//! `network …` and `acr …`. Outputs have the shape of `az`: properties lie beside the name, and the group is named.

mod connection;
mod dns;
mod endpoint;
mod vnet;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Found, group::tag_map};
use crate::{
    failure::Failure,
    grammar::{InGroup, Named, Network, Placed},
    output::Output,
    session::{ARM_API, Session, segment},
};

pub(super) use connection::acr;

/// Version of the network API that is spoken.
const NET_API: &str = "api-version=2024-05-01";
/// Columns of most tables.
const COLUMNS: &str =
    "[].{Name:name, ResourceGroup:resourceGroup, Location:location, ProvisioningState:provisioningState}";

pub(super) async fn run(command: Network, session: &Session) -> Found {
    match command {
        Network::Vnet(command) => vnet::run(*command, session).await,
        Network::PrivateEndpoint(command) => endpoint::run(*command, session).await,
        Network::PrivateEndpointConnection(command) => connection::run(command, session).await,
        Network::PrivateLinkResource(command) => connection::resources(command, session).await,
        Network::PrivateLinkService(command) => endpoint::service(command, session).await,
        Network::PrivateDns(command) => dns::run(*command, session).await,
    }
}

/// The id of a resource in a group: `id(session, group, "virtualNetworks", "v")`.
async fn id(session: &Session, group: &InGroup, kind: &str, name: &str) -> Result<String, Failure> {
    let group = session.group_id(group.resource_group.as_deref()).await?;
    Ok(format!("{group}/providers/Microsoft.Network/{kind}/{}", segment(name)))
}

async fn named(session: &Session, name: &Named, kind: &str) -> Result<String, Failure> {
    id(session, &name.group, kind, &name.name).await
}

/// What was given is an id already, or the name of a resource of this kind in the group.
async fn name_or_id(session: &Session, group: &InGroup, kind: &str, given: &str) -> Result<String, Failure> {
    if given.starts_with('/') { Ok(given.to_owned()) } else { id(session, group, kind, given).await }
}

/// The path of an id that somebody typed; each part is checked, so that it can't lead elsewhere.
pub(super) fn checked(id: &str) -> Result<String, Failure> {
    let id = casemate_model::ResourceId::parse(id)?;
    Ok(id.as_str().split('/').map(segment).collect::<Vec<_>>().join("/"))
}

async fn get(session: &Session, id: &str) -> Result<Value, Failure> {
    Ok(session.client().get(&format!("{id}?{NET_API}")).await?)
}

async fn put(session: &Session, id: &str, body: &Value) -> Result<Value, Failure> {
    Ok(session.client().write_and_wait(Method::PUT, &format!("{id}?{NET_API}"), Some(body), None, &mut |_| {}).await?)
}

async fn show(session: &Session, id: &str) -> Found {
    Ok(flat(&get(session, id).await?).into())
}

/// Deletes; what is not there is not worth an error, as with `az`.
async fn delete(session: &Session, id: &str) -> Found {
    let path = format!("{id}?{NET_API}");
    session.client().write_and_wait(Method::DELETE, &path, None, None, &mut |_| {}).await?;
    Ok(Output::Nothing)
}

async fn list(session: &Session, path: &str, columns: &'static str) -> Found {
    let all = session.client().list(&format!("{path}?{NET_API}")).await?;
    Ok(Output::Value(all.iter().map(flat).collect(), Some(columns)))
}

/// Lists a type in the group given or configured, else in the subscription.
async fn list_in(session: &Session, group: &InGroup, kind: &str) -> Found {
    let scope = match session.group(group.resource_group.as_deref()) {
        Ok(_) => session.group_id(group.resource_group.as_deref()).await?,
        Err(_) => session.subscription_id().await?,
    };
    list(session, &format!("{scope}/providers/Microsoft.Network/{kind}"), COLUMNS).await
}

/// Where something new goes: the region given, the configured one, or the group's.
async fn location(session: &Session, placed: &Placed, group: &InGroup) -> Result<String, Failure> {
    if let Some(known) = placed.location.clone().or_else(|| session.settings().default("location")) {
        return Ok(known);
    }
    let group = session.group_id(group.resource_group.as_deref()).await?;
    let found = session.client().get(&format!("{group}?{ARM_API}")).await?;
    Ok(found.get("location").and_then(Value::as_str).unwrap_or("local").to_owned())
}

fn tags(given: Option<&Vec<String>>) -> Result<Value, Failure> {
    given.map_or_else(|| Ok(json!({})), |tags| tag_map(tags))
}

/// A word such as `true` or `false`.
pub(super) fn truth(option: &str, given: &str) -> Result<bool, Failure> {
    match given.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(Failure::usage(format!("{option} is '{given}'; give true or false."))),
    }
}

/// The value in the shape of `az`: what lies under `properties` moves up, and what has an id names its group.
fn flat(value: &Value) -> Value {
    match value {
        Value::Array(values) => values.iter().map(flat).collect(),
        Value::Object(map) => Value::Object(flat_object(map)),
        other => other.clone(),
    }
}

fn flat_object(map: &Map<String, Value>) -> Map<String, Value> {
    let inner = map.get("properties").and_then(Value::as_object);
    let mut shown = Map::new();
    for (key, value) in inner.into_iter().flatten().chain(map) {
        if key != "systemData" && !(key == "properties" && inner.is_some()) {
            shown.insert(key.clone(), flat(value));
        }
    }
    if let Some(group) = group_of(map) {
        shown.entry("resourceGroup").or_insert(group.into());
    }
    shown
}

/// The group that an id names.
fn group_of(map: &Map<String, Value>) -> Option<String> {
    let parts: Vec<&str> = map.get("id")?.as_str()?.split('/').collect();
    let at = parts.iter().position(|part| part.eq_ignore_ascii_case("resourceGroups"))?;
    parts.get(at + 1).map(|group| (*group).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_are_flat_and_name_groups() {
        let subnet =
            json!({"id": "/subscriptions/s/resourceGroups/G/x", "name": "d", "properties": {"addressPrefix": "p"}});
        let arm = json!({"id": "/subscriptions/s/resourcegroups/g/providers/p/t/n", "name": "n", "systemData": {},
            "properties": {"provisioningState": "Succeeded", "subnets": [subnet], "casemate": {"kind": "managed"}}});
        assert_eq!(
            flat(&arm),
            json!({"id": "/subscriptions/s/resourcegroups/g/providers/p/t/n", "name": "n", "resourceGroup": "g",
                "provisioningState": "Succeeded", "casemate": {"kind": "managed"},
                "subnets": [{"id": "/subscriptions/s/resourceGroups/G/x", "name": "d", "resourceGroup": "G", "addressPrefix": "p"}]})
        );
    }
}
