//! The managed network of a workspace: its mode, its outbound rules, and what its deployments reached.
//!
//! Rules are checked and shown by the same functions that the reconcilers build a deployment's policy with
//! ([`casemate_model::egress`]); nothing is opened here. The platform's own rules are computed when they are shown, so
//! users can neither write nor delete them, and they are never stale.

mod decisions;
mod rules;
mod surroundings;

use casemate_model::{
    Fault, OperationStatus, Resource,
    egress::{self, IsolationMode, PROVISIONED},
    operation::OperationKind,
};
use casemate_store::Tx;
use serde_json::{Map, Value, json};
use uuid::Uuid;

pub(super) use decisions::{list_log, suggest_rules, test_destination};
pub(super) use rules::{dispatch as rules, remove_connections, shown_rules, write_required, write_rule};
pub(super) use surroundings::Loaded;

use super::shape;
use crate::{
    call::Call,
    context::{OpContext, Outcome},
    error::ApiError,
    respond,
    state::ApiState,
};

/// Brings `managedNetwork` to one form; the rules in it become resources of their own.
pub(super) fn normalize(
    given: Option<Value>,
    existing: Option<&Resource>,
) -> Result<(Value, Vec<(String, Value)>), Fault> {
    let before = existing.map(|row| row.properties()["managedNetwork"].clone()).unwrap_or_default();
    let given = given.filter(|given| !given.is_null()).unwrap_or_else(|| json!({}));
    let Some(map) = given.as_object() else {
        return Err(Fault::invalid("BadArgument", "'managedNetwork' must be an object.").at("managedNetwork"));
    };
    let mode = match map.get("isolationMode").filter(|mode| !mode.is_null()) {
        Some(mode) => isolation_mode(mode)?,
        None => existing.map_or(IsolationMode::Disabled, egress::mode_of),
    };
    let mut network = json!({"isolationMode": mode});
    for key in ["firewallSku", "enableNetworkMonitor", "enableFirewallLog"] {
        if let Some(value) = map.get(key).or_else(|| before.get(key)).filter(|value| !value.is_null()) {
            network[key] = value.clone();
        }
    }
    // Kept over a time without isolation: it is the same network that comes back.
    let known = before.get("networkId").filter(|id| id.is_string()).cloned();
    if mode != IsolationMode::Disabled || known.is_some() {
        network["networkId"] = known.unwrap_or_else(|| Uuid::new_v4().to_string().into());
    }
    let rules = match map.get("outboundRules") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(rules)) => rules.iter().map(|(name, rule)| (name.clone(), rule.clone())).collect(),
        Some(_) => return Err(Fault::invalid("BadArgument", "'outboundRules' must be an object.").at("outboundRules")),
    };
    Ok((network, rules))
}

fn isolation_mode(given: &Value) -> Result<IsolationMode, Fault> {
    given.as_str().and_then(IsolationMode::parse).ok_or_else(|| {
        let shown: String = given.to_string().chars().take(60).collect();
        let message = format!(
            "isolationMode is {shown}; give one of: Disabled, AllowInternetOutbound, AllowOnlyApprovedOutbound."
        );
        Fault::invalid("BadArgument", message).at("isolationMode")
    })
}

/// `managedNetwork` as clients see it.
pub(super) fn shown(row: &Resource, rules: Map<String, Value>) -> Value {
    let mut network = row.properties().get("managedNetwork").cloned().unwrap_or_else(|| json!({}));
    let status = if egress::is_provisioned(row) { "Active" } else { "Inactive" };
    network["isolationMode"] = json!(egress::mode_of(row));
    network["status"] = json!({"status": status, "sparkReady": false});
    network["outboundRules"] = Value::Object(rules);
    network
}

/// `POST …/provisionManagedNetwork`: what there is to build is built with the first deployment, so the operation is
/// over when it is accepted.
pub(super) async fn provision(ctx: &OpContext, state: &ApiState, call: &Call, workspace: &Resource) -> Outcome {
    let asked = call.json_or_empty()?;
    if let Some(spark) = asked.get("includeSpark").filter(|spark| !spark.is_null())
        && shape::truth(spark, "includeSpark")?
    {
        let message = "Spark is not available on this platform; provision the network without includeSpark.";
        return Err(Fault::new(casemate_model::FaultKind::NotImplemented, "NotImplemented", message)
            .at("includeSpark")
            .into());
    }
    let mut tx = state.store.begin().await?;
    let Some(workspace) = tx.resource_get(&workspace.id).await?.filter(|row| !row.deleting) else {
        return Err(shape::not_found(&workspace.id).into());
    };
    if egress::mode_of(&workspace) == IsolationMode::Disabled {
        let message = format!(
            "The workspace '{0}' has no managed network to provision: its isolation mode is disabled. Set it first: \
             casemate ml workspace update -n {0} -m allow_only_approved_outbound.",
            workspace.name()
        );
        return Err(Fault::invalid("ManagedNetworkDisabled", message).at("managedNetwork").into());
    }
    mark_provisioned(&mut tx, &workspace).await?;
    let operation = tx.operation_create(&workspace.id, OperationKind::Action, workspace.generation).await?;
    let result = json!({"status": "Active", "sparkReady": false});
    tx.operation_finish(operation.id, OperationStatus::Succeeded, Some(result)).await?;
    tx.commit().await?;
    Ok(respond::accepted_action(ctx, &operation))
}

/// Puts the managed network of a workspace in force, if it has one and it is not yet. A deployment does so too.
pub(crate) async fn mark_provisioned(tx: &mut Tx, workspace: &Resource) -> Result<(), ApiError> {
    if egress::mode_of(workspace) == IsolationMode::Disabled || egress::is_provisioned(workspace) {
        return Ok(());
    }
    let seen = Map::from_iter([(PROVISIONED.to_owned(), true.into())]);
    tx.resource_observe(&workspace.id, seen).await?;
    Ok(())
}
