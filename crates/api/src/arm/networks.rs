//! The managed network of a workspace and its outbound rules.
//!
//! Rules are kept and checked here. Nothing opens a way out of a sandbox for them yet, so a rule says `Inactive`;
//! a provisioned network says `Active`, since what it stands for, that nothing gets out, is in force.

use std::net::IpAddr;

use casemate_model::{
    Fault, OperationStatus, Resource, ResourceId, operation::OperationKind, workspace::WORKSPACE_TYPE,
};
use casemate_store::{Condition, Filter, Put, Tx};
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::shape;
use crate::{
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    respond,
    state::ApiState,
};

pub(super) const RULE_TYPE: &str = "Microsoft.MachineLearningServices/workspaces/outboundRules";
/// Observed of a workspace whose network was provisioned.
pub(super) const PROVISIONED: &str = "_networkProvisioned";

const MODES: &[&str] = &["Disabled", "AllowInternetOutbound", "AllowOnlyApprovedOutbound"];
/// Most rules of one workspace.
const MAX_RULES: usize = 500;

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
        Some(mode) => shape::one_of(mode, "isolationMode", MODES)?,
        None => MODES.iter().find(|known| before["isolationMode"] == **known).copied().unwrap_or("Disabled"),
    };
    let mut network = json!({"isolationMode": mode});
    for key in ["firewallSku", "enableNetworkMonitor", "enableFirewallLog"] {
        if let Some(value) = map.get(key).or_else(|| before.get(key)).filter(|value| !value.is_null()) {
            network[key] = value.clone();
        }
    }
    if mode != "Disabled" {
        let known = before.get("networkId").cloned();
        network["networkId"] = known.unwrap_or_else(|| Uuid::new_v4().to_string().into());
    }
    let rules = match map.get("outboundRules") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(rules)) => rules.iter().map(|(name, rule)| (name.clone(), rule.clone())).collect(),
        Some(_) => return Err(Fault::invalid("BadArgument", "'outboundRules' must be an object.").at("outboundRules")),
    };
    Ok((network, rules))
}

/// Writes one rule of a workspace; null removes it.
pub(super) async fn write_rule(
    tx: &mut Tx,
    ctx: &OpContext,
    workspace: &Resource,
    name: &str,
    rule: Value,
) -> Result<Option<Put>, ApiError> {
    let id = rule_id(&workspace.id, name)?;
    if rule.is_null() {
        tx.resource_remove(&id).await?;
        return Ok(None);
    }
    let existing = tx.resource_get(&id).await?;
    if existing.is_none() {
        let rules = tx.resource_list(&Filter::of_type(RULE_TYPE).child_of(&workspace.id)).await?;
        if rules.len() >= MAX_RULES {
            let message = format!("The workspace has {MAX_RULES} outbound rules already; delete one first.");
            return Err(Fault::new(casemate_model::FaultKind::Quota, "QuotaExceeded", message).into());
        }
    }
    if workspace.properties()["managedNetwork"]["isolationMode"] == "Disabled" {
        let message = format!(
            "The workspace '{}' has no managed network (its isolation mode is Disabled), so it can't have outbound \
             rules. Set the mode first: casemate ml workspace update -n {} -m allow_only_approved_outbound.",
            workspace.name(),
            workspace.name()
        );
        return Err(Fault::invalid("ManagedNetworkDisabled", message).at("managedNetwork").into());
    }
    let rule = checked_rule(name, &rule)?;
    Ok(Some(tx.resource_put(&id, json!({"properties": rule}), &Condition::None, &ctx.author()).await?))
}

fn rule_id(workspace: &ResourceId, name: &str) -> Result<ResourceId, Fault> {
    let fits = (1..=80).contains(&name.chars().count())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !fits {
        let message = format!(
            "The outbound rule name '{name}' is invalid: it may have 1 to 80 letters, digits, '-', '_' and '.', \
             beginning with a letter or a digit."
        );
        return Err(Fault::invalid("BadArgument", message).at("name"));
    }
    workspace.child("outboundRules", name)
}

/// The rule's properties in one form.
fn checked_rule(name: &str, rule: &Value) -> Result<Value, Fault> {
    let bad = |field: &str, message: String| {
        Err(Fault::invalid("BadArgument", format!("The outbound rule '{name}': {message}")).at(field))
    };
    let kind = shape::one_of(&rule["type"], "type", &["FQDN", "PrivateEndpoint", "ServiceTag"])?;
    let category = match rule.get("category").filter(|category| !category.is_null()) {
        None => "UserDefined",
        Some(category) => {
            shape::one_of(category, "category", &["UserDefined", "Required", "Recommended", "Dependency"])?
        }
    };
    if category != "UserDefined" {
        return bad("category", format!("rules of the category {category} are made by the platform, not by users."));
    }
    let mut kept = json!({"type": kind, "category": category});
    match kind {
        "FQDN" => {
            let host = rule["destination"].as_str().unwrap_or_default();
            if !is_host_pattern(host) {
                return bad(
                    "destination",
                    format!("'{host}' is not a host name such as packages.example.com or *.example.com."),
                );
            }
            kept["destination"] = host.to_lowercase().into();
        }
        "PrivateEndpoint" => {
            let destination = &rule["destination"];
            let service = ResourceId::parse(destination["serviceResourceId"].as_str().unwrap_or_default());
            let service = service.map_err(|fault| fault.at("destination.serviceResourceId"))?;
            let Some(target) = destination["subresourceTarget"].as_str().filter(|target| !target.is_empty()) else {
                return bad(
                    "destination.subresourceTarget",
                    "it needs a subresource target, such as 'blob'.".to_owned(),
                );
            };
            kept["destination"] = json!({
                "serviceResourceId": service.as_str(),
                "subresourceTarget": target,
                "sparkEnabled": destination["sparkEnabled"].as_bool().unwrap_or(false),
                "sparkStatus": "Inactive",
            });
            if let Some(fqdns) = rule["fqdns"].as_array() {
                if let Some(other) = fqdns.iter().find(|name| !name.as_str().is_some_and(is_host_pattern)) {
                    return bad("fqdns", format!("{other} is not a host name."));
                }
                kept["fqdns"] = fqdns.clone().into();
            }
        }
        _ => kept["destination"] = service_tag(&rule["destination"]).or_else(|(field, why)| bad(field, why))?,
    }
    Ok(kept)
}

fn service_tag(destination: &Value) -> Result<Value, (&'static str, String)> {
    let text = |key: &str| destination[key].as_str().map(str::trim).filter(|text| !text.is_empty());
    let prefixes = destination["addressPrefixes"].as_array().cloned().unwrap_or_default();
    if text("serviceTag").is_none() && prefixes.is_empty() {
        return Err(("destination", "it needs a service tag or address prefixes.".to_owned()));
    }
    if let Some(other) = prefixes.iter().find(|prefix| !prefix.as_str().is_some_and(is_prefix)) {
        return Err(("destination.addressPrefixes", format!("{other} is not an address prefix such as 10.0.0.0/24.")));
    }
    let protocol = text("protocol").unwrap_or("TCP");
    let known = ["TCP", "UDP", "ICMP", "*"].into_iter().find(|known| known.eq_ignore_ascii_case(protocol));
    let Some(protocol) = known else {
        return Err(("destination.protocol", format!("the protocol '{protocol}' is not TCP, UDP, ICMP or *.")));
    };
    let ports = text("portRanges").unwrap_or_default();
    if protocol != "ICMP" && !(ports == "*" || are_port_ranges(ports)) {
        let why = format!("the port ranges '{ports}' are not of the form 80,8080-8089.");
        return Err(("destination.portRanges", why));
    }
    let action = text("action").unwrap_or("Allow");
    let Some(action) = ["Allow", "Deny"].into_iter().find(|known| known.eq_ignore_ascii_case(action)) else {
        return Err(("destination.action", format!("the action '{action}' is not Allow or Deny.")));
    };
    Ok(json!({
        "serviceTag": text("serviceTag"),
        "protocol": protocol,
        "portRanges": ports,
        "addressPrefixes": prefixes,
        "action": action,
    }))
}

/// `a.example.com`, or `*.example.com`.
fn is_host_pattern(host: &str) -> bool {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= 253 && !name.is_empty() && name.split('.').all(is_label)
}

fn is_prefix(prefix: &str) -> bool {
    let (address, bits) = prefix.split_once('/').map_or((prefix, None), |(address, bits)| (address, Some(bits)));
    match (address.parse::<IpAddr>(), bits.map(str::parse::<u8>)) {
        (Ok(_), None) => true,
        (Ok(address), Some(Ok(bits))) => bits <= if address.is_ipv4() { 32 } else { 128 },
        _ => false,
    }
}

fn are_port_ranges(ports: &str) -> bool {
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    ports.split(',').all(|range| match range.split_once('-') {
        None => port(range).is_some(),
        Some((low, high)) => matches!((port(low), port(high)), (Some(low), Some(high)) if low <= high),
    })
}

/// A rule's properties as clients see them.
pub(super) fn shown_properties(rule: &Resource) -> Value {
    let mut properties = rule.properties().clone();
    properties["status"] = "Inactive".into();
    properties
}

fn show(rule: &Resource) -> Value {
    let mut shown = rule.to_public();
    shown["properties"] = shown_properties(rule);
    shown
}

/// Calls about outbound rules.
pub(super) async fn rules(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    ctx.authorize_call(call)?;
    let scope = call.target.scope().and_then(|scope| scope.ancestor(WORKSPACE_TYPE));
    let Some(workspace_id) = scope else { return call.method_not_allowed() };
    let workspace = state.store.resource_get(&workspace_id).await?.ok_or_else(|| shape::not_found(&workspace_id))?;
    match (&call.target, &call.method) {
        (Target::Resource(id), &Method::GET) => {
            let row = state.store.resource_get(id).await?.ok_or_else(|| shape::not_found(id))?;
            Ok(respond::shown(call, &row, &show(&row)))
        }
        (Target::Resource(id), &Method::PUT) => {
            let given = shape::object(call.json()?)?;
            let rule = given.get("properties").filter(|rule| rule.is_object()).cloned().ok_or_else(|| {
                Fault::invalid("BadArgument", "An outbound rule needs 'properties', an object.").at("properties")
            })?;
            let mut tx = state.store.begin().await?;
            shape::require_parent(&mut tx, id).await?;
            let put = write_rule(&mut tx, ctx, &workspace, id.name(), rule).await?;
            tx.commit().await?;
            let put = put.ok_or_else(|| shape::not_found(id))?;
            // Clients of rules take 200 and 202 only, even for a new one.
            Ok(respond::written_as(&Put { created: false, ..put.clone() }, &show(&put.resource)))
        }
        (Target::Resource(id), &Method::DELETE) => {
            let mut tx = state.store.begin().await?;
            if tx.resource_get(id).await?.is_none() {
                return Ok(respond::no_content());
            }
            tx.resource_remove(id).await?;
            tx.commit().await?;
            Ok(respond::ok(&json!({})))
        }
        (Target::Collection { .. }, &Method::GET) => {
            let rows = state.store.resource_list(&Filter::of_type(RULE_TYPE).child_of(&workspace_id)).await?;
            respond::list(ctx, call, &call.path(), rows.iter().map(show).collect())
        }
        _ => call.method_not_allowed(),
    }
}

/// `POST …/provisionManagedNetwork`: nothing has to be built, so the operation is over when it is accepted.
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
    if workspace.properties()["managedNetwork"]["isolationMode"] == "Disabled" {
        let message = format!(
            "The workspace '{}' has no managed network to provision: its isolation mode is Disabled. Set it first: \
             casemate ml workspace update -n {} -m allow_only_approved_outbound.",
            workspace.name(),
            workspace.name()
        );
        return Err(Fault::invalid("ManagedNetworkDisabled", message).at("managedNetwork").into());
    }
    let mut tx = state.store.begin().await?;
    let seen = serde_json::Map::from_iter([(PROVISIONED.to_owned(), true.into())]);
    if !tx.resource_observe(&workspace.id, seen).await? {
        return Err(shape::not_found(&workspace.id).into());
    }
    let operation = tx.operation_create(&workspace.id, OperationKind::Action, workspace.generation).await?;
    let result = json!({"status": "Active", "sparkReady": false});
    tx.operation_finish(operation.id, OperationStatus::Succeeded, Some(result)).await?;
    tx.commit().await?;
    Ok(respond::accepted_action(ctx, &operation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_are_kept() {
        for rule in [
            json!({"type": "FQDN", "destination": "Packages.Example.com"}),
            json!({"type": "fqdn", "destination": "*.example.com", "category": "UserDefined"}),
            json!({"type": "ServiceTag", "destination": {"serviceTag": "AzureMonitor", "protocol": "tcp", "portRanges": "80, 8080-8089"}}),
            json!({"type": "ServiceTag", "destination": {"addressPrefixes": ["10.0.0.0/8", "::1"], "protocol": "*", "portRanges": "*"}}),
            json!({"type": "PrivateEndpoint", "destination": {"serviceResourceId": "/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/a", "subresourceTarget": "blob"}}),
        ] {
            checked_rule("r", &rule).unwrap_or_else(|fault| panic!("{rule}: {fault}"));
        }
    }

    #[test]
    fn rules_that_are_refused() {
        for (rule, said) in [
            (json!({}), "type"),
            (json!({"type": "Magic"}), "FQDN, PrivateEndpoint, ServiceTag"),
            (json!({"type": "FQDN"}), "host name"),
            (json!({"type": "FQDN", "destination": "http://x"}), "host name"),
            (json!({"type": "FQDN", "destination": "*"}), "host name"),
            (json!({"type": "FQDN", "destination": "a..b"}), "host name"),
            (json!({"type": "FQDN", "destination": "x", "category": "Required"}), "made by the platform"),
            (json!({"type": "PrivateEndpoint", "destination": {"serviceResourceId": "x"}}), "resource id"),
            (
                json!({"type": "PrivateEndpoint", "destination": {"serviceResourceId": "/subscriptions/s"}}),
                "subresource",
            ),
            (json!({"type": "ServiceTag", "destination": {}}), "service tag"),
            (json!({"type": "ServiceTag", "destination": {"serviceTag": "X", "protocol": "SCTP"}}), "protocol"),
            (json!({"type": "ServiceTag", "destination": {"serviceTag": "X", "portRanges": "90-80"}}), "port ranges"),
            (json!({"type": "ServiceTag", "destination": {"serviceTag": "X", "portRanges": "0"}}), "port ranges"),
            (json!({"type": "ServiceTag", "destination": {"addressPrefixes": ["10.0.0.0/33"]}}), "address prefix"),
        ] {
            let fault = checked_rule("r", &rule).unwrap_err();
            assert!(fault.message.contains(said), "{rule}: {fault}");
        }
    }
}
