//! Outbound rules: written, shown and removed.

use casemate_model::{
    Fault, FaultKind, Resource, ResourceId,
    egress::{self, IsolationMode, Prefix, RULE_TYPE},
    workspace::WORKSPACE_TYPE,
};
use casemate_store::{Condition, Filter, Put, Tx};
use http::Method;
use serde_json::{Map, Value, json};

use super::surroundings::Loaded;
use crate::{
    arm::shape,
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    respond,
    state::ApiState,
};

/// Most rules of one workspace.
const MAX_RULES: usize = 500;
/// What begins the names of the platform's own rules.
const OWN: &str = "__SYS_";
/// What a target's owner reads about the connection; the original says the same.
const DESCRIPTION: &str = "Egress for Microsoft.MachineLearningServices/workspaces/onlineEndpoints";

/// Calls about outbound rules.
pub(in crate::arm) async fn dispatch(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    ctx.authorize_call(call)?;
    let scope = call.target.scope().and_then(|scope| scope.ancestor(WORKSPACE_TYPE));
    let Some(workspace_id) = scope else { return call.method_not_allowed() };
    let workspace = state.store.resource_get(&workspace_id).await?.ok_or_else(|| shape::not_found(&workspace_id))?;
    match (&call.target, &call.method) {
        (Target::Resource(id), &Method::GET) => {
            let all = Loaded::of(state, &workspace).await?;
            let found = every_rule(state, &workspace, &all).into_iter().find(|rule| rule.id == *id);
            let row = found.ok_or_else(|| shape::not_found(id))?;
            Ok(respond::shown(call, &row, &show(state, &workspace, &all, &row)))
        }
        (Target::Resource(id), &Method::PUT) => put(ctx, state, call, id).await,
        (Target::Resource(id), &Method::DELETE) => {
            refuse_own(id)?;
            let condition = call.condition()?;
            let mut tx = state.store.begin().await?;
            if tx.resource_mark_deleting(id, &condition).await?.is_none() {
                return Ok(respond::no_content());
            }
            remove(&mut tx, id).await?;
            tx.commit().await?;
            Ok(respond::ok(&json!({})))
        }
        (Target::Collection { .. }, &Method::GET) => {
            let all = Loaded::of(state, &workspace).await?;
            let rules = every_rule(state, &workspace, &all);
            let shown = rules.iter().map(|rule| show(state, &workspace, &all, rule)).collect();
            respond::list(ctx, call, &call.path(), shown)
        }
        _ => call.method_not_allowed(),
    }
}

async fn put(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    let given = shape::object(call.json()?)?;
    let rule = given.get("properties").filter(|rule| rule.is_object()).cloned().ok_or_else(|| {
        Fault::invalid("BadArgument", "An outbound rule needs 'properties', an object.").at("properties")
    })?;
    let condition = call.condition()?;
    let mut tx = state.store.begin().await?;
    let workspace = shape::require_parent(&mut tx, id).await?.ok_or_else(|| shape::not_found(id))?;
    let put = write_rule(&mut tx, ctx, state, &workspace, id.name(), rule, &condition).await?;
    tx.commit().await?;
    let put = put.ok_or_else(|| shape::not_found(id))?;
    let all = Loaded::of(state, &workspace).await?;
    let shown = show(state, &workspace, &all, &put.resource);
    // Clients of rules take 200 and 202 only, even for a new one.
    Ok(respond::written_as(&Put { created: false, ..put }, &shown))
}

/// Writes one rule of a workspace; null removes it.
pub(in crate::arm) async fn write_rule(
    tx: &mut Tx,
    ctx: &OpContext,
    state: &ApiState,
    workspace: &Resource,
    name: &str,
    rule: Value,
    condition: &Condition,
) -> Result<Option<Put>, ApiError> {
    let id = rule_id(&workspace.id, name)?;
    if rule.is_null() {
        remove(tx, &id).await?;
        return Ok(None);
    }
    let before = tx.resource_get(&id).await?;
    if before.is_none() {
        let rules = tx.resource_list(&Filter::of_type(RULE_TYPE).child_of(&workspace.id)).await?;
        if rules.len() >= MAX_RULES {
            let message = format!("The workspace has {MAX_RULES} outbound rules already; delete one first.");
            return Err(Fault::new(FaultKind::Quota, "QuotaExceeded", message).into());
        }
    }
    let mode = egress::mode_of(workspace);
    if mode == IsolationMode::Disabled {
        let message = format!(
            "The workspace '{0}' has no managed network (its isolation mode is disabled), so it can't have outbound \
             rules. Set the mode first: casemate ml workspace update -n {0} -m allow_only_approved_outbound.",
            workspace.name()
        );
        return Err(Fault::invalid("ManagedNetworkDisabled", message).at("managedNetwork").into());
    }
    let kept = egress::checked_rule(name, &rule, before.as_ref().map(Resource::properties), mode, &state.tags)?;
    refuse_own_addresses(state, name, &kept)?;
    connect(tx, ctx, &id, before.as_ref(), &kept).await?;
    Ok(Some(tx.resource_put(&id, json!({"properties": kept}), condition, &ctx.author()).await?))
}

fn rule_id(workspace: &ResourceId, name: &str) -> Result<ResourceId, Fault> {
    let fits = (1..=80).contains(&name.chars().count())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if !fits {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
        let message = format!(
            "The outbound rule name '{shown}' is invalid: it may have 1 to 80 letters, digits, '-', '_' and '.', \
             beginning with a letter or a digit. Names with {OWN} in front are the platform's own."
        );
        return Err(Fault::invalid("BadArgument", message).at("name"));
    }
    workspace.child("outboundRules", name)
}

fn refuse_own(id: &ResourceId) -> Result<(), Fault> {
    if !id.name().starts_with(OWN) {
        return Ok(());
    }
    let message = format!(
        "The outbound rule '{}' is required by the platform and can't be removed; it goes with what it leads to.",
        id.name()
    );
    Err(Fault::invalid("BadArgument", message).at(id.as_str()))
}

/// No rule can open the machine that the platform runs on, so one for that alone is a mistake.
fn refuse_own_addresses(state: &ApiState, name: &str, rule: &Value) -> Result<(), Fault> {
    let prefixes = rule.pointer("/destination/addressPrefixes").and_then(Value::as_array).into_iter().flatten();
    let own_addresses = (state.own_addresses)();
    for prefix in prefixes.filter_map(|one| Prefix::parse(one.as_str()?).ok()) {
        let single = prefix.net().prefix_len() == prefix.net().max_prefix_len();
        if single && own_addresses.iter().any(|own| prefix.contains(*own)) {
            let message = format!(
                "The outbound rule '{name}': {} is an address of the platform's own machine, which no deployment may \
                 reach. Leave it out; a service on this machine can be registered as a resource of the type \
                 Microsoft.Network/privateLinkServices and reached by a rule of the type private_endpoint.",
                prefix.net().addr()
            );
            return Err(Fault::invalid("BadArgument", message).at("destination.addressPrefixes"));
        }
    }
    Ok(())
}

/// Asks the owner of a private endpoint's target for a connection, when the rule leads there anew: approved at once if
/// the caller may approve there, else pending. What the rule led to before is let go.
async fn connect(
    tx: &mut Tx,
    ctx: &OpContext,
    id: &ResourceId,
    before: Option<&Resource>,
    kept: &Value,
) -> Result<(), ApiError> {
    let old = before.and_then(|before| egress::connection_of(&before.id, before.properties()));
    let Some(target) = egress::private_target(kept) else {
        return disconnect(tx, old.as_ref()).await;
    };
    if tx.resource_get(&target).await?.is_none_or(|row| row.deleting) {
        let message = format!(
            "The outbound rule '{}': the resource '{target}' does not exist. Create it first, or give another \
             service_resource_id.",
            id.name()
        );
        return Err(Fault::invalid("ResourceNotFound", message).at("destination.serviceResourceId").into());
    }
    let new = egress::connection_of(id, kept);
    if old != new {
        disconnect(tx, old.as_ref()).await?;
    }
    let Some(connection) = new else { return Ok(()) };
    if tx.resource_get(&connection).await?.is_none() {
        let action = format!("{}/privateEndpointConnectionsApproval/action", target.resource_type());
        let status = if ctx.can(&action, &target) { "Approved" } else { "Pending" };
        write_connection(tx, ctx, id, &connection, kept, status).await?;
    }
    Ok(())
}

async fn disconnect(tx: &mut Tx, connection: Option<&ResourceId>) -> Result<(), ApiError> {
    if let Some(connection) = connection {
        tx.resource_remove(connection).await?;
    }
    Ok(())
}

async fn write_connection(
    tx: &mut Tx,
    ctx: &OpContext,
    rule: &ResourceId,
    connection: &ResourceId,
    properties: &Value,
    status: &str,
) -> Result<(), ApiError> {
    let body = json!({"properties": {
        "privateEndpoint": {"id": rule.as_str()},
        "privateLinkServiceConnectionState": {"status": status, "description": DESCRIPTION, "actionsRequired": "None"},
        "groupIds": [properties.pointer("/destination/subresourceTarget")],
    }});
    tx.resource_put(connection, body, &Condition::None, &ctx.author()).await?;
    Ok(())
}

/// Makes the connections of the required rules that have none yet, so that their owners see and can end them.
pub(in crate::arm) async fn write_required(tx: &mut Tx, ctx: &OpContext, workspace: &Resource) -> Result<(), ApiError> {
    if egress::mode_of(workspace) == IsolationMode::Disabled {
        return Ok(());
    }
    for (rule, connection) in egress::required_connections(workspace) {
        let Some(target) = connection.parent().filter(|target| *target != workspace.id) else { continue };
        if tx.resource_get(&connection).await?.is_none() && tx.resource_get(&target).await?.is_some() {
            write_connection(tx, ctx, &rule.id, &connection, rule.properties(), "Approved").await?;
        }
    }
    Ok(())
}

/// Removes a rule and its connection.
async fn remove(tx: &mut Tx, id: &ResourceId) -> Result<(), ApiError> {
    if let Some(row) = tx.resource_get(id).await? {
        disconnect(tx, egress::connection_of(&row.id, row.properties()).as_ref()).await?;
        tx.resource_remove(id).await?;
    }
    Ok(())
}

/// Removes every connection that a workspace's rules have at their targets: the workspace goes.
pub(in crate::arm) async fn remove_connections(tx: &mut Tx, workspace: &Resource) -> Result<(), ApiError> {
    for rule in tx.resource_list(&Filter::of_type(RULE_TYPE).child_of(&workspace.id)).await? {
        disconnect(tx, egress::connection_of(&rule.id, rule.properties()).as_ref()).await?;
    }
    for (_, connection) in egress::required_connections(workspace) {
        disconnect(tx, Some(&connection)).await?;
    }
    Ok(())
}

/// The platform's rules of a workspace and the users' own.
fn every_rule(state: &ApiState, workspace: &Resource, all: &Loaded) -> Vec<Resource> {
    let required = all.with(state, |around| egress::required_rules(workspace, around));
    required.into_iter().chain(all.rules.iter().cloned()).collect()
}

/// A rule's properties as clients see them.
fn shown_properties(state: &ApiState, workspace: &Resource, all: &Loaded, rule: &Resource) -> Value {
    let status = all.with(state, |around| egress::rule_status(workspace, rule, around));
    let mut properties = rule.properties().clone();
    properties["status"] = status.as_str().into();
    if let Some(why) = status.why() {
        properties["errorInformation"] = why.into();
    }
    // The rules for whose sake this one exists, which would be of the category Dependency. There are none here: what a
    // private endpoint leads to is served whole by the platform or is one registered host, and no host rule needs
    // another to take effect, so no user's rule brings a second one; the required ones follow from the workspace itself.
    properties["parentRuleNames"] = json!([]);
    properties
}

/// All rules of a workspace by name, as they stand in the workspace.
pub(in crate::arm) fn shown_rules(state: &ApiState, workspace: &Resource, all: &Loaded) -> Map<String, Value> {
    let rules = every_rule(state, workspace, all);
    rules.iter().map(|rule| (rule.name().to_owned(), shown_properties(state, workspace, all, rule))).collect()
}

fn show(state: &ApiState, workspace: &Resource, all: &Loaded, rule: &Resource) -> Value {
    let mut shown = rule.to_public();
    shown["properties"] = shown_properties(state, workspace, all, rule);
    shown
}
