//! `network private-endpoint-connection …`, `network private-link-resource …` and `acr …`.

use reqwest::Method;
use serde_json::Value;

use super::{Found, checked, flat, flat_object, group_of};
use crate::{
    commands::confirmed,
    failure::Failure,
    grammar::{
        Acr, AcrConnection, AcrConnectionName, ConnectionCommand, ConnectionName, InGroup, LinkResource, TargetName,
    },
    output::Output,
    session::{ARM_API, Session, segment},
};

const REGISTRY: &str = "Microsoft.ContainerRegistry/registries";
/// The types that connections lead to, and the versions in which their connections are spoken of.
const TARGETS: [(&str, &str); 4] = [
    ("Microsoft.MachineLearningServices/workspaces", "api-version=2021-01-01"),
    ("Microsoft.Storage/storageAccounts", "api-version=2021-01-01"),
    ("Microsoft.KeyVault/vaults", "api-version=2021-10-01"),
    (REGISTRY, "api-version=2019-12-01-preview"),
];
const COLUMNS: &str = "[].{Name:name, Status:properties.privateLinkServiceConnectionState.status, Description:properties.privateLinkServiceConnectionState.description, ResourceGroup:resourceGroup}";
const ACR_COLUMNS: &str = "[].{Name:name, Status:privateLinkServiceConnectionState.status, Description:privateLinkServiceConnectionState.description, ResourceGroup:resourceGroup}";

pub(super) async fn run(command: ConnectionCommand, session: &Session) -> Found {
    match command {
        ConnectionCommand::List(target) => {
            let target = target_id(session, target.id, target.kind, target.name, &target.group).await?;
            let all = connections(session, &target).await?;
            Ok(Output::Value(all.iter().map(named).collect(), Some(COLUMNS)))
        }
        ConnectionCommand::Show(name) => {
            let id = connection_id(session, name).await?;
            Ok(named(&get(session, &id).await?).into())
        }
        ConnectionCommand::Approve { name, description } => {
            let id = connection_id(session, name).await?;
            Ok(named(&decide(session, &id, "Approved", description).await?).into())
        }
        ConnectionCommand::Reject { name, description } => {
            let id = connection_id(session, name).await?;
            Ok(named(&decide(session, &id, "Rejected", description).await?).into())
        }
        ConnectionCommand::Delete { name, yes } => {
            confirmed(yes)?;
            let id = connection_id(session, name).await?;
            remove(session, &id).await
        }
    }
}

pub(super) async fn resources(command: LinkResource, session: &Session) -> Found {
    const COLUMNS: &str = "[].{Name:name, GroupId:properties.groupId, Zones:join(', ', properties.requiredZoneNames)}";
    let LinkResource::List(TargetName { id, name, kind, group }) = command;
    let target = target_id(session, id, kind, name, &group).await?;
    let all = session.client().list(&format!("{target}/privateLinkResources?{}", api(&target))).await?;
    Ok(Output::Value(all.iter().map(named).collect(), Some(COLUMNS)))
}

/// These are shown as they are, with the name of their group.
fn named(answer: &Value) -> Value {
    let mut shown = answer.clone();
    if let Some(map) = shown.as_object_mut() {
        let group = group_of(map);
        map.remove("systemData");
        map.extend(group.map(|group| ("resourceGroup".to_owned(), group.into())));
    }
    shown
}

/// The version for a target or a connection.
fn api(id: &str) -> &'static str {
    let id = id.to_lowercase();
    let found = TARGETS.iter().find(|(kind, _)| id.contains(&format!("/providers/{}/", kind.to_lowercase())));
    found.map_or(ARM_API, |(_, api)| api)
}

async fn get(session: &Session, id: &str) -> Result<Value, Failure> {
    Ok(session.client().get(&format!("{id}?{}", api(id))).await?)
}

async fn connections(session: &Session, target: &str) -> Result<Vec<Value>, Failure> {
    Ok(session.client().list(&format!("{target}/privateEndpointConnections?{}", api(target))).await?)
}

/// Reads the connection, writes the decision into it, and reads it again.
async fn decide(session: &Session, id: &str, status: &str, description: Option<String>) -> Result<Value, Failure> {
    let mut body = get(session, id).await?;
    let state = &mut body["properties"]["privateLinkServiceConnectionState"];
    state["status"] = status.into();
    if let Some(description) = description {
        state["description"] = description.into();
    }
    let path = format!("{id}?{}", api(id));
    session.client().write_and_wait(Method::PUT, &path, Some(&body), None, &mut |_| {}).await?;
    get(session, id).await
}

async fn remove(session: &Session, id: &str) -> Found {
    get(session, id).await?;
    let path = format!("{id}?{}", api(id));
    session.client().write_and_wait(Method::DELETE, &path, None, None, &mut |_| {}).await?;
    Ok(Output::Nothing)
}

async fn target_id(
    session: &Session,
    id: Option<String>,
    kind: Option<String>,
    name: Option<String>,
    group: &InGroup,
) -> Result<String, Failure> {
    match (id, kind, name) {
        (Some(id), ..) => checked(&id),
        (None, Some(kind), Some(name)) => {
            let group = session.group_id(group.resource_group.as_deref()).await?;
            checked(&format!("{group}/providers/{kind}/{}", segment(&name)))
        }
        _ => Err(Failure::usage("Of which resource? Give its --id, or its --type and -n.")),
    }
}

async fn connection_id(session: &Session, name: ConnectionName) -> Result<String, Failure> {
    let ConnectionName { id, name, resource_name, kind, group } = name;
    match (id, name, kind, resource_name) {
        (Some(id), ..) => checked(&id),
        (None, Some(name), Some(kind), Some(resource)) => {
            let target = target_id(session, None, Some(kind), Some(resource), &group).await?;
            Ok(format!("{target}/privateEndpointConnections/{}", segment(&name)))
        }
        (None, Some(name), ..) => connection_named(session, &name, &group).await,
        _ => Err(Failure::usage("Which connection? Give its --id, or its -n with --type and --resource-name.")),
    }
}

/// Finds a connection by its name alone among the targets of a group.
async fn connection_named(session: &Session, name: &str, group: &InGroup) -> Result<String, Failure> {
    let group = session.group_id(group.resource_group.as_deref()).await?;
    let mut found = Vec::new();
    for (kind, _) in TARGETS {
        for target in session.client().list(&format!("{group}/providers/{kind}?{ARM_API}")).await? {
            let target = checked(target.get("id").and_then(Value::as_str).unwrap_or_default())?;
            for connection in connections(session, &target).await? {
                if connection["name"].as_str().is_some_and(|known| known.eq_ignore_ascii_case(name)) {
                    found.push(format!("{target}/privateEndpointConnections/{}", segment(name)));
                }
            }
        }
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Failure::not_found(format!("No resource of the group has a private endpoint connection '{name}'."))),
        _ => Err(Failure::usage(format!(
            "Several resources have a connection '{name}'. Give --type and --resource-name."
        ))),
    }
}

/// `acr …`.
pub(in crate::commands) async fn acr(command: Acr, session: &Session) -> Found {
    match command {
        Acr::Show(name) => {
            let id = registry(session, &name.registry, &name.group).await?;
            Ok(flat(&get(session, &id).await?).into())
        }
        Acr::List(group) => {
            const COLUMNS: &str =
                "[].{NAME:name, RESOURCEGROUP:resourceGroup, LOCATION:location, SKU:sku.name, LOGINSERVER:loginServer}";
            let scope = match group.resource_group {
                Some(group) => session.group_id(Some(&group)).await?,
                None => session.subscription_id().await?,
            };
            let all = session.client().list(&format!("{scope}/providers/{REGISTRY}?{ARM_API}")).await?;
            Ok(Output::Value(all.iter().map(flat).collect(), Some(COLUMNS)))
        }
        Acr::PrivateEndpointConnection(command) => acr_connection(command, session).await,
    }
}

async fn acr_connection(command: AcrConnection, session: &Session) -> Found {
    let shown = |answer: &Value| answer.as_object().map_or(Value::Null, |map| Value::Object(flat_object(map)));
    let id = async |name: &AcrConnectionName| {
        let registry = registry(session, &name.registry_name, &name.group).await?;
        Ok::<String, Failure>(format!("{registry}/privateEndpointConnections/{}", segment(&name.name)))
    };
    match command {
        AcrConnection::List { registry_name, group } => {
            let registry = registry(session, &registry_name, &group).await?;
            let all = connections(session, &registry).await?;
            Ok(Output::Value(all.iter().map(shown).collect(), Some(ACR_COLUMNS)))
        }
        AcrConnection::Show(name) => Ok(shown(&get(session, &id(&name).await?).await?).into()),
        AcrConnection::Approve { name, description } => {
            Ok(shown(&decide(session, &id(&name).await?, "Approved", description).await?).into())
        }
        AcrConnection::Reject { name, description } => {
            Ok(shown(&decide(session, &id(&name).await?, "Rejected", description).await?).into())
        }
        AcrConnection::Delete { name, .. } => remove(session, &id(&name).await?).await,
    }
}

/// The id of a registry in the group given, else of the one of this name in the subscription.
async fn registry(session: &Session, name: &str, group: &InGroup) -> Result<String, Failure> {
    if let Some(group) = &group.resource_group {
        let group = session.group_id(Some(group)).await?;
        return Ok(format!("{group}/providers/{REGISTRY}/{}", segment(name)));
    }
    let all =
        session.client().list(&format!("{}/providers/{REGISTRY}?{ARM_API}", session.subscription_id().await?)).await?;
    let is = |one: &&Value| one["name"].as_str().is_some_and(|known| known.eq_ignore_ascii_case(name));
    let found = all.iter().find(is).and_then(|one| one["id"].as_str());
    let found = found.ok_or_else(|| {
        Failure::not_found(format!("The registry '{name}' does not exist. List those there are: casemate acr list."))
    })?;
    checked(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_by_target() {
        let id =
            |kind: &str| format!("/subscriptions/s/resourceGroups/g/providers/{kind}/n/privateEndpointConnections/c");
        assert_eq!(api(&id("microsoft.containerregistry/Registries")), "api-version=2019-12-01-preview");
        assert_eq!(api(&id("Microsoft.MachineLearningServices/workspaces")), "api-version=2021-01-01");
        assert_eq!(api(&id("Microsoft.Other/things")), ARM_API);
        assert_eq!(
            named(&json!({"id": "/subscriptions/s/resourceGroups/g/x", "systemData": {}}))["resourceGroup"],
            "g"
        );
    }
}
