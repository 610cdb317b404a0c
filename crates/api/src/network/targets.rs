//! What private endpoints can lead to: the parts of each kind of target, and the names that lead there.

use axum::response::Response;
use casemate_model::{Fault, Resource, ResourceId, network};
use http::Method;
use serde_json::{Value, json};

use super::shape;
use crate::{
    arm::shape as common,
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    respond,
    state::{ApiConfig, ApiState},
};

/// A part of a target.
pub(super) struct Group {
    /// Its name: what `groupIds` holds.
    pub(super) id: &'static str,
    /// What the original calls its members.
    members: &'static [&'static str],
    /// The zones that its names can be in, the one to be told first.
    zones: fn(&ApiConfig) -> Vec<String>,
    /// Its names in that zone.
    names: fn(&ApiState, &Resource) -> Vec<String>,
}

const WORKSPACE: &[Group] = &[Group {
    id: "amlworkspace",
    members: &["default"],
    zones: |_| vec![network::WORKSPACE_ZONE.to_owned()],
    names: |state, row| {
        let guid = row.observed.get("workspaceId").and_then(Value::as_str);
        guid.map(|guid| network::workspace_record_names(guid, &state.config.region).to_vec()).unwrap_or_default()
    },
}];

const STORAGE: &[Group] = &[
    Group { id: "blob", members: &["blob"], zones: |config| account_zones(config, "blob"), names: own_name },
    Group {
        id: "file",
        members: &["file"],
        zones: |config| vec![format!("privatelink.file.{}", config.storage_suffix())],
        names: own_name,
    },
];

const VAULT: &[Group] =
    &[Group { id: "vault", members: &["default"], zones: |config| account_zones(config, "vault"), names: own_name }];

const REGISTRY: &[Group] = &[Group {
    id: "registry",
    members: &["registry"],
    zones: |config| account_zones(config, "registry"),
    names: own_name,
}];

fn account_zones(config: &ApiConfig, group: &str) -> Vec<String> {
    let service = network::ACCOUNT_SERVICES.iter().find(|service| service.group == group);
    service.into_iter().flat_map(|service| service.zones(&config.domain)).collect()
}

fn own_name(_: &ApiState, row: &Resource) -> Vec<String> {
    vec![row.name().to_lowercase()]
}

/// The parts of a target; none for what private endpoints can't lead to.
pub(super) fn groups(target: &ResourceId) -> &'static [Group] {
    let kinds = network::CONNECTION_TARGETS.into_iter().zip([WORKSPACE, STORAGE, VAULT, REGISTRY]);
    kinds.into_iter().find(|(kind, _)| target.is_type(kind)).map(|(_, groups)| groups).unwrap_or_default()
}

/// The group of this name, in any case.
///
/// # Errors
/// Naming those that there are.
pub(super) fn group(target: &ResourceId, name: &str) -> Result<&'static Group, Fault> {
    let known = groups(target);
    known.iter().find(|group| group.id.eq_ignore_ascii_case(name)).ok_or_else(|| {
        let shown: String = name.chars().take(60).collect();
        let names = shape::names(known.iter().map(|group| group.id));
        let message = format!("'{shown}' is not a part (group id) of '{target}'; it has {names}.");
        Fault::invalid("InvalidPrivateLinkGroupId", message).at("groupIds")
    })
}

/// The names that lead to some parts of a target, in the zone of this name.
pub(super) fn names(state: &ApiState, target: &Resource, ids: &[String], zone: &str) -> Vec<String> {
    let mut names = Vec::new();
    for id in ids {
        let is_its = |group: &&Group| (group.zones)(&state.config).iter().any(|own| own.eq_ignore_ascii_case(zone));
        let found = group(&target.id, id).ok().filter(is_its);
        names.extend(found.map(|group| (group.names)(state, target)).into_iter().flatten());
    }
    names
}

/// The full public names that lead to some parts of a target.
pub(super) fn public_names(state: &ApiState, target: &Resource, ids: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for group in ids.iter().filter_map(|id| group(&target.id, id).ok()) {
        let zone = (group.zones)(&state.config).into_iter().next().unwrap_or_default();
        let suffix = zone.strip_prefix("privatelink.").unwrap_or(&zone);
        found.extend((group.names)(state, target).into_iter().map(|name| format!("{name}.{suffix}")));
    }
    found
}

/// `GET …/privateLinkResources` and one of them.
pub(super) async fn handle(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    ctx.authorize_call(call)?;
    match (&call.target, &call.method) {
        (Target::Collection { parent: Some(target), .. }, &Method::GET) => {
            shape::read(state, target).await?;
            let all: Vec<Value> = groups(target).iter().map(|group| show(state, target, group)).collect();
            Ok(respond::ok(&json!({ "value": all })))
        }
        (Target::Resource(id), &Method::GET) => one(state, id).await,
        _ => call.method_not_allowed(),
    }
}

async fn one(state: &ApiState, id: &ResourceId) -> Result<Response, ApiError> {
    let target = id.parent().ok_or_else(|| common::not_found(id))?;
    shape::read(state, &target).await?;
    let found = groups(&target).iter().find(|group| group.id.eq_ignore_ascii_case(id.name()));
    let group = found.ok_or_else(|| common::not_found(id))?;
    Ok(respond::ok(&show(state, &target, group)))
}

fn show(state: &ApiState, target: &ResourceId, group: &Group) -> Value {
    json!({
        "id": format!("{target}/privateLinkResources/{}", group.id),
        "name": group.id,
        "type": format!("{}/privateLinkResources", target.resource_type()),
        "properties": {
            "groupId": group.id,
            "requiredMembers": group.members,
            "requiredZoneNames": &(group.zones)(&state.config)[..1],
        },
    })
}
