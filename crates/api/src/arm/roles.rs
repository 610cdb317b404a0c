//! Role assignments at any scope, and the built-in role definitions.

use casemate_identity::role::{self, Assignment, RoleDefinition};
use casemate_model::{Fault, Resource, ResourceId};
use casemate_store::{Condition, Filter, Put, Tx};
use http::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    filter::{self, Clause},
    shape,
};
use crate::{
    call::{Call, Target},
    context::{ASSIGNMENT_TYPE, OpContext, Outcome},
    error::ApiError,
    respond,
    state::ApiState,
};

const READ: &str = "Microsoft.Authorization/roleAssignments/read";
const WRITE: &str = "Microsoft.Authorization/roleAssignments/write";
const DELETE: &str = "Microsoft.Authorization/roleAssignments/delete";

pub(super) async fn assignments(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Resource(id), &Method::GET) => {
            ctx.authorize(READ, &scope_of(id)?)?;
            let row = state.store.resource_get(id).await?.ok_or_else(|| missing(id))?;
            Ok(respond::shown(call, &row, &show(&row)))
        }
        (Target::Resource(id), &Method::PUT) => {
            let (body, condition) = (call.json()?, call.condition()?);
            let mut tx = state.store.begin().await?;
            let put = write(&mut tx, ctx, state, id, body, &condition).await?;
            tx.commit().await?;
            Ok(respond::written_as(&put, &show(&put.resource)))
        }
        (Target::Resource(id), &Method::DELETE) => {
            ctx.authorize(DELETE, &scope_of(id)?)?;
            let condition = call.condition()?;
            let mut tx = state.store.begin().await?;
            let Some(row) = tx.resource_mark_deleting(id, &condition).await? else {
                return Ok(respond::no_content());
            };
            keep_an_owner(&mut tx, state).await?;
            tx.resource_remove(id).await?;
            tx.commit().await?;
            Ok(respond::ok(&show(&row)))
        }
        (Target::Collection { parent: Some(scope), .. }, &Method::GET) => {
            ctx.authorize(READ, scope)?;
            list(ctx, state, call, scope).await
        }
        _ => call.method_not_allowed(),
    }
}

fn scope_of(id: &ResourceId) -> Result<ResourceId, Fault> {
    id.parent().ok_or_else(|| {
        Fault::invalid("InvalidScope", "Roles can be assigned at the subscription and below, not at the tenant.")
    })
}

fn missing(id: &ResourceId) -> Fault {
    Fault::not_found("RoleAssignmentNotFound", format!("The role assignment '{}' is not found.", id.name()))
}

/// Checks and writes an assignment; also used by templates.
pub(super) async fn write(
    tx: &mut Tx,
    ctx: &OpContext,
    state: &ApiState,
    id: &ResourceId,
    body: Value,
    condition: &Condition,
) -> Result<Put, ApiError> {
    let scope = scope_of(id)?;
    ctx.authorize(WRITE, &scope)?;
    if id.name().parse::<Uuid>().is_err() {
        let message =
            format!("The role assignment ID '{}' is not valid. The role assignment ID must be a GUID.", id.name());
        return Err(Fault::invalid("InvalidRoleAssignmentId", message).at("name").into());
    }
    shape::require_parent(tx, id).await?;
    let given = shape::object(body)?;
    let text = |field: &str| given.get("properties").and_then(|properties| properties.get(field)?.as_str());
    let definition = definition(text("roleDefinitionId").unwrap_or_default())?;
    let principal: Uuid = text("principalId").unwrap_or_default().parse().map_err(|_| {
        let message = "'principalId' must be the object id (a GUID) of a service principal or managed identity.";
        Fault::invalid("InvalidPrincipalId", message).at("properties.principalId")
    })?;
    let existing = tx.resource_list(&Filter::of_type(ASSIGNMENT_TYPE).child_of(&scope)).await?;
    for other in existing.iter().filter(|other| !other.deleting) {
        let Some(assignment) = Assignment::from_resource(other) else { continue };
        let same = assignment.principal_id == principal && assignment.role_id == definition.id;
        if other.id == *id && !same {
            let message = "An existing assignment's principal and role can't be changed; delete it and make another.";
            return Err(Fault::invalid("RoleAssignmentUpdateNotPermitted", message).into());
        }
        if other.id != *id && same {
            let message = format!("The role assignment already exists. Its ID is {}.", other.name());
            return Err(Fault::conflict("RoleAssignmentExists", message).into());
        }
    }
    let subscription = state.config.subscription;
    let mut properties = json!({
        "roleDefinitionId": definition_path(&format!("/subscriptions/{subscription}"), definition),
        "principalId": principal.to_string(),
        "principalType": text("principalType").unwrap_or("ServicePrincipal"),
    });
    for key in ["description", "condition", "conditionVersion"] {
        if let Some(value) = text(key) {
            properties[key] = value.into();
        }
    }
    if properties.get("condition").is_some() {
        let message = "Conditions on role assignments are not evaluated on this platform, so they are refused. Assign \
                       the role at a narrower scope instead.";
        return Err(Fault::invalid("ConditionNotSupported", message).at("properties.condition").into());
    }
    Ok(tx.resource_put(id, json!({"properties": properties}), condition, &ctx.author()).await?)
}

/// The role that a full id, a bare GUID or a name means.
fn definition(given: &str) -> Result<&'static RoleDefinition, Fault> {
    let last = given.rsplit('/').next().unwrap_or_default();
    role::find(last).ok_or_else(|| {
        let known: Vec<String> =
            role::definitions().iter().map(|role| format!("{} ({})", role.name, role.id)).collect();
        let shown: String = given.chars().take(200).collect();
        let message = format!("The role definition '{shown}' does not exist here. There are: {}.", known.join(", "));
        Fault::invalid("RoleDefinitionDoesNotExist", message).at("properties.roleDefinitionId")
    })
}

/// Refuses a change that would leave nobody able to give rights.
///
/// # Errors
/// `LastOwner`.
pub(super) async fn keep_an_owner(tx: &mut Tx, state: &ApiState) -> Result<(), ApiError> {
    let subscription = state.config.subscription_id();
    let principals = tx.resource_list(&Filter::of_type(crate::context::PRINCIPAL_TYPE)).await?;
    let principals: Vec<Uuid> =
        principals.iter().filter_map(crate::context::read_principal).map(|principal| principal.object_id).collect();
    let rows = tx.resource_list(&Filter::of_type(ASSIGNMENT_TYPE).child_of(&subscription)).await?;
    let owned = rows
        .iter()
        .filter_map(Assignment::from_resource)
        .any(|assignment| assignment.role_id == role::OWNER && principals.contains(&assignment.principal_id));
    if owned {
        return Ok(());
    }
    let message = "This is the last Owner of the subscription; without one nobody could give rights any more. Assign \
                   the role Owner at the subscription to another service principal first.";
    Err(Fault::conflict("LastOwner", message).into())
}

async fn list(ctx: &OpContext, state: &ApiState, call: &Call, scope: &ResourceId) -> Outcome {
    let text = call.query.get("$filter");
    let clauses = filter::parse(text)?;
    let (mut principal, mut below) = (None, true);
    for clause in &clauses {
        match clause {
            Clause::Call(name, None) if name == "atscope" => below = false,
            Clause::Call(name, Some(value)) if name == "assignedto" => principal = Some(value.as_str()),
            Clause::Equals(field, value) if field == "principalid" => principal = Some(value.as_str()),
            _ => {
                let why = "known are atScope(), assignedTo('ID') and principalId eq 'ID'";
                return Err(filter::invalid(text.unwrap_or_default(), why).into());
            }
        }
    }
    let rows = state.store.resource_list(&Filter::of_type(ASSIGNMENT_TYPE)).await?;
    let shown = rows.iter().filter(|row| {
        let Some(at) = row.id.parent() else { return false };
        let placed = scope.is_within(&at) || (below && at.is_within(scope));
        let holder = row.properties().get("principalId").and_then(Value::as_str).unwrap_or_default();
        placed && principal.is_none_or(|principal| principal.eq_ignore_ascii_case(holder))
    });
    respond::list(ctx, call, &call.path(), shown.map(show).collect())
}

pub(super) fn show(row: &Resource) -> Value {
    let mut shown = row.to_public();
    if let Some(properties) = shown["properties"].as_object_mut() {
        properties.remove("provisioningState");
        properties.insert("scope".to_owned(), row.id.parent().map_or(Value::Null, |scope| scope.as_str().into()));
        properties.insert("createdOn".to_owned(), row.system.created_at.to_string().into());
        properties.insert("updatedOn".to_owned(), row.system.last_modified_at.to_string().into());
        properties.insert("createdBy".to_owned(), row.system.created_by.as_str().into());
        properties.insert("updatedBy".to_owned(), row.system.last_modified_by.as_str().into());
    }
    shown
}

fn definition_path(scope: &str, role: &RoleDefinition) -> String {
    format!("{scope}/providers/Microsoft.Authorization/roleDefinitions/{}", role.id)
}

/// Anybody who is signed in may read what the roles mean.
pub(super) fn definitions(ctx: &OpContext, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Resource(id), &Method::GET) => {
            let found = role::find(id.name());
            let found = found.ok_or_else(|| {
                let message = format!("The role definition '{}' does not exist.", id.name());
                Fault::not_found("RoleDefinitionDoesNotExist", message)
            })?;
            Ok(respond::ok(&show_definition(id.parent().as_ref(), found)))
        }
        (Target::Collection { parent, .. }, &Method::GET) => {
            let text = call.query.get("$filter");
            let mut wanted: Vec<&RoleDefinition> = role::definitions().iter().collect();
            for clause in filter::parse(text)? {
                match clause {
                    Clause::Equals(field, value) if field == "rolename" => {
                        wanted.retain(|role| role.name.eq_ignore_ascii_case(&value));
                    }
                    Clause::Equals(field, value) if field == "type" => {
                        wanted.retain(|_| value.eq_ignore_ascii_case("BuiltInRole"));
                    }
                    Clause::Call(name, None) if matches!(name.as_str(), "atscope" | "atscopeandbelow") => {}
                    _ => {
                        let why = "known are roleName eq 'NAME', type eq 'BuiltInRole' and atScopeAndBelow()";
                        return Err(filter::invalid(text.unwrap_or_default(), why).into());
                    }
                }
            }
            let shown = wanted.into_iter().map(|role| show_definition(parent.as_ref(), role)).collect();
            respond::list(ctx, call, &call.path(), shown)
        }
        _ => call.method_not_allowed(),
    }
}

fn show_definition(scope: Option<&ResourceId>, role: &RoleDefinition) -> Value {
    let scope = scope.and_then(|scope| scope.subscription()).map(|id| format!("/subscriptions/{id}"));
    json!({
        "id": definition_path(&scope.unwrap_or_default(), role),
        "name": role.id,
        "type": "Microsoft.Authorization/roleDefinitions",
        "properties": {
            "roleName": role.name,
            "type": "BuiltInRole",
            "description": role.description,
            "assignableScopes": ["/"],
            "permissions": [{
                "actions": role.actions,
                "notActions": role.not_actions,
                "dataActions": role.data_actions,
                "notDataActions": role.not_data_actions,
            }],
        },
    })
}
