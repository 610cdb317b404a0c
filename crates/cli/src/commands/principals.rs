//! `sp …` and `role …`.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Found, confirmed};
use crate::{
    failure::Failure,
    grammar::{Globals, Role, RoleAssignment, RoleDefinition, ServicePrincipal},
    output::Output,
    session::{Session, segment},
};

const PRINCIPALS: &str = "/providers/Casemate.Identity/servicePrincipals";
const ROLE_API: &str = "api-version=2022-04-01";
/// Columns of the table of assignments.
const COLUMNS: &str = "[].{Principal:principalName, Role:roleDefinitionName, Scope:scope}";

pub(super) async fn run(command: ServicePrincipal, session: &Session) -> Found {
    let client = session.client();
    match command {
        ServicePrincipal::Create { display_name, role, scopes } => create(session, &display_name, role, scopes).await,
        ServicePrincipal::List => {
            let all = client.list(&format!("{PRINCIPALS}?{ROLE_API}")).await?;
            Ok(all.iter().map(shown).collect::<Value>().into())
        }
        ServicePrincipal::Delete { id } => {
            let path = format!("{PRINCIPALS}/{}?{ROLE_API}", segment(&id));
            client.get(&path).await?;
            client.write_and_wait(Method::DELETE, &path, None, None, &mut |_| {}).await?;
            Ok(Output::Nothing)
        }
    }
}

async fn create(session: &Session, name: &str, role: Option<String>, scopes: Vec<String>) -> Found {
    let client = session.client();
    let app_id = Uuid::new_v4();
    let body = json!({"properties": {"displayName": name}});
    let path = format!("{PRINCIPALS}/{app_id}?{ROLE_API}");
    let made = client.write_and_wait(Method::PUT, &path, Some(&body), None, &mut |_| {}).await?;
    let text = |key: &str| made.pointer(&format!("/properties/{key}")).and_then(Value::as_str).unwrap_or_default();
    for scope in &scopes {
        assign(session, text("objectId"), role.as_deref().unwrap_or_default(), scope).await?;
    }
    Ok(json!({
        "appId": text("appId"),
        "displayName": text("displayName"),
        "objectId": text("objectId"),
        "password": text("clientSecret"),
        "tenant": session.tenant(),
    })
    .into())
}

fn shown(principal: &Value) -> Value {
    let text = |key: &str| principal.pointer(&format!("/properties/{key}")).cloned().unwrap_or(Value::Null);
    json!({"appId": text("appId"), "displayName": text("displayName"), "objectId": text("objectId")})
}

pub(super) async fn role(command: Role, session: &Session, _globals: &Globals) -> Found {
    match command {
        Role::Definition(RoleDefinition::List { name }) => {
            let definitions = definitions(session).await?;
            let kept = definitions.into_iter().filter(|one| name.as_deref().is_none_or(|name| names_role(one, name)));
            Ok(kept.map(|one| flattened(&one)).collect::<Value>().into())
        }
        Role::Assignment(RoleAssignment::Create { assignee, assignee_object_id, role, scope, .. }) => {
            let object_id = match (assignee_object_id, assignee) {
                (Some(id), _) => id,
                (None, Some(assignee)) => object_id(session, &assignee).await?,
                (None, None) => return Err(Failure::usage("Who? Give --assignee or --assignee-object-id.")),
            };
            let scope = scope_or_subscription(session, scope).await?;
            Ok(flattened(&assign(session, &object_id, &role, &scope).await?).into())
        }
        Role::Assignment(RoleAssignment::List { scope, assignee, .. }) => {
            let scope = scope_or_subscription(session, scope).await?;
            list(session, &scope, assignee).await
        }
        Role::Assignment(RoleAssignment::Delete { ids, yes }) => {
            confirmed(yes)?;
            for id in &ids {
                let path = format!("{}?{ROLE_API}", checked_scope(id)?);
                session.client().get(&path).await?;
                session.client().write_and_wait(Method::DELETE, &path, None, None, &mut |_| {}).await?;
            }
            Ok(Output::Nothing)
        }
    }
}

async fn scope_or_subscription(session: &Session, scope: Option<String>) -> Result<String, Failure> {
    match scope {
        Some(scope) => Ok(scope),
        None => session.subscription_id().await,
    }
}

async fn definitions(session: &Session) -> Result<Vec<Value>, Failure> {
    let path =
        format!("{}/providers/Microsoft.Authorization/roleDefinitions?{ROLE_API}", session.subscription_id().await?);
    Ok(session.client().list(&path).await?)
}

fn names_role(definition: &Value, wanted: &str) -> bool {
    let text = |pointer: &str| definition.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let last = wanted.rsplit('/').next().unwrap_or(wanted);
    text("/properties/roleName").eq_ignore_ascii_case(wanted) || text("/name").eq_ignore_ascii_case(last)
}

/// An answer with its properties beside its name, as `az` prints roles.
fn flattened(answer: &Value) -> Value {
    let mut shown = answer.get("properties").cloned().unwrap_or_else(|| json!({}));
    for key in ["id", "name", "type"] {
        if let Some(value) = answer.get(key) {
            shown[key] = value.clone();
        }
    }
    shown
}

/// A scope's path; each part is checked, so that it can't lead elsewhere.
fn checked_scope(scope: &str) -> Result<String, Failure> {
    if scope == "/" {
        return Ok(String::new());
    }
    let id = casemate_model::ResourceId::parse(scope)?;
    let parts: Vec<String> = id.as_str().split('/').map(segment).collect();
    Ok(parts.join("/"))
}

/// The object id of a service principal named by its application or object id.
async fn object_id(session: &Session, assignee: &str) -> Result<String, Failure> {
    let all = session.client().list(&format!("{PRINCIPALS}?{ROLE_API}")).await?;
    let text = |one: &Value, key: &str| {
        one.pointer(&format!("/properties/{key}")).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let found = all.iter().find(|one| {
        ["appId", "objectId", "displayName"].iter().any(|key| text(one, key).eq_ignore_ascii_case(assignee))
    });
    found.map(|one| text(one, "objectId")).ok_or_else(|| {
        Failure::not_found(format!(
            "No service principal has the id or name '{assignee}'. `casemate sp list` lists those there are."
        ))
    })
}

async fn assign(session: &Session, object_id: &str, role: &str, scope: &str) -> Result<Value, Failure> {
    let definitions = definitions(session).await?;
    let Some(definition) = definitions.iter().find(|one| names_role(one, role)) else {
        let names: Vec<&str> =
            definitions.iter().filter_map(|one| one.pointer("/properties/roleName")?.as_str()).collect();
        return Err(Failure::not_found(format!("There is no role '{role}'. The roles are: {}.", names.join(", "))));
    };
    let body = json!({"properties": {
        "roleDefinitionId": definition.get("id"),
        "principalId": object_id,
        "principalType": "ServicePrincipal",
    }});
    let scope = checked_scope(scope)?;
    let path = format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{}?{ROLE_API}", Uuid::new_v4());
    Ok(session.client().write_and_wait(Method::PUT, &path, Some(&body), None, &mut |_| {}).await?)
}

async fn list(session: &Session, scope: &str, assignee: Option<String>) -> Found {
    let path = format!("{}/providers/Microsoft.Authorization/roleAssignments?{ROLE_API}", checked_scope(scope)?);
    let mut assignments: Vec<Value> = session.client().list(&path).await?.iter().map(flattened).collect();
    let definitions = definitions(session).await?;
    let principals = session.client().list(&format!("{PRINCIPALS}?{ROLE_API}")).await.unwrap_or_default();
    if let Some(assignee) = assignee {
        let wanted = object_id(session, &assignee).await?;
        assignments.retain(|one| one.get("principalId").and_then(Value::as_str) == Some(wanted.as_str()));
    }
    for one in &mut assignments {
        let text = |key: &str| one.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (role, holder) = (text("roleDefinitionId"), text("principalId"));
        let role = definitions.iter().find(|definition| names_role(definition, &role));
        one["roleDefinitionName"] =
            role.and_then(|role| role.pointer("/properties/roleName")).cloned().unwrap_or(Value::Null);
        let principal =
            principals.iter().find(|one| one.pointer("/properties/objectId").and_then(Value::as_str) == Some(&holder));
        one["principalName"] =
            principal.and_then(|one| one.pointer("/properties/displayName")).cloned().unwrap_or(json!(holder));
    }
    Ok(Output::Value(Value::Array(assignments), Some(COLUMNS)))
}
