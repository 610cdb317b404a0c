//! Resource providers. All that this platform has are registered; clients ask and sometimes insist.

use axum::response::Response;
use casemate_model::Fault;
use http::Method;
use serde_json::{Value, json};

use crate::{
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    respond,
    state::ApiState,
};

const PROVIDERS: &[(&str, &[&str])] = &[
    (
        "Microsoft.MachineLearningServices",
        &[
            "workspaces",
            "workspaces/onlineEndpoints",
            "workspaces/onlineEndpoints/deployments",
            "workspaces/models",
            "workspaces/models/versions",
            "workspaces/codes",
            "workspaces/codes/versions",
            "workspaces/environments",
            "workspaces/environments/versions",
            "workspaces/datastores",
            "workspaces/outboundRules",
            "workspaces/computes",
            "workspaces/services",
        ],
    ),
    ("Microsoft.Resources", &["subscriptions", "resourceGroups", "deployments", "tenants", "resources"]),
    ("Microsoft.Authorization", &["roleAssignments", "roleDefinitions"]),
    ("Microsoft.Storage", &["storageAccounts"]),
    ("Microsoft.KeyVault", &["vaults"]),
    ("Microsoft.OperationalInsights", &["workspaces"]),
    ("Microsoft.Insights", &["components"]),
    ("Microsoft.ContainerRegistry", &["registries"]),
    ("Microsoft.ManagedIdentity", &["userAssignedIdentities"]),
    (
        "Microsoft.Network",
        &[
            "virtualNetworks",
            "virtualNetworks/subnets",
            "privateEndpoints",
            "privateEndpoints/privateDnsZoneGroups",
            "privateDnsZones",
            "privateDnsZones/virtualNetworkLinks",
            "privateLinkServices",
            "networkInterfaces",
        ],
    ),
    ("Casemate.Identity", &["servicePrincipals"]),
];

/// Versions that are named to clients; any other is accepted as well.
const VERSIONS: &[&str] = &[
    "2025-12-01",
    "2024-10-01-preview",
    "2024-10-01",
    "2024-04-01",
    "2023-10-01",
    "2023-08-01-preview",
    "2023-07-01",
    "2023-04-01",
    "2022-12-01",
    "2022-04-01",
    "2021-04-01",
    "2020-08-01",
    "2020-06-01",
    "2020-02-02-preview",
    "2019-12-01-preview",
    "2018-11-30",
];

pub(super) fn dispatch(state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Collection { .. }, &Method::GET) => {
            let all: Vec<Value> = PROVIDERS.iter().map(|(name, types)| shown(state, call, name, types)).collect();
            Ok(respond::ok(&json!({ "value": all })))
        }
        (Target::Namespace { namespace, .. }, &Method::GET) => one(state, call, namespace),
        _ => call.method_not_allowed(),
    }
}

/// `POST …/providers/N/register`: it already is.
pub(super) fn register(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    ctx.authorize_call(call)?;
    let kind = call.target.kind();
    one(state, call, kind.split('/').next().unwrap_or_default())
}

fn one(state: &ApiState, call: &Call, namespace: &str) -> Result<Response, ApiError> {
    let found = PROVIDERS.iter().find(|(name, _)| name.eq_ignore_ascii_case(namespace));
    let (name, types) = found.ok_or_else(|| {
        let names: Vec<&str> = PROVIDERS.iter().map(|(name, _)| *name).collect();
        let message =
            format!("The resource namespace '{namespace}' is invalid. This platform has: {}.", names.join(", "));
        Fault::not_found("InvalidResourceNamespace", message)
    })?;
    Ok(respond::ok(&shown(state, call, name, types)))
}

fn shown(state: &ApiState, call: &Call, name: &str, types: &[&str]) -> Value {
    let scope = call.target.scope().map_or("", |scope| scope.as_str());
    // Clients refuse to make what is not offered where they want it.
    let locations = [&state.config.region];
    let shown = |kind: &&str| json!({"resourceType": kind, "locations": locations, "apiVersions": VERSIONS, "capabilities": "None"});
    let types: Vec<Value> = types.iter().map(shown).collect();
    json!({
        "id": format!("{scope}/providers/{name}"),
        "namespace": name,
        "registrationState": "Registered",
        "registrationPolicy": "RegistrationFree",
        "resourceTypes": types,
    })
}
