//! Service principals: who can sign in. The secret is shown once; only its digest is kept.
//!
//! They lie at the tenant, so what one may do with them is decided at the subscription: reading needs the right to
//! read there, and everything else the right to assign roles, which only Owners have.

use casemate_identity::{digest_secret, new_client_secret};
use casemate_model::{Fault, Resource, ResourceId, Secret};
use casemate_store::{Condition, Filter, Tx};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    filter::{self, Clause},
    roles, shape,
};
use crate::{
    call::{Call, Target},
    context::{ASSIGNMENT_TYPE, OpContext, Outcome, PRINCIPAL_TYPE},
    respond,
    state::ApiState,
    token::{SECRET_DIGEST, principal_id},
};

/// Most service principals.
const MAX_PRINCIPALS: usize = 1000;

pub(super) async fn dispatch(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    let subscription = state.config.subscription_id();
    ctx.authorize(&call.permission(), &subscription)?;
    if call.method != Method::GET {
        ctx.authorize("Microsoft.Authorization/roleAssignments/write", &subscription)?;
    }
    match (&call.target, &call.method) {
        (Target::Collection { parent: None, .. }, &Method::GET) => list(ctx, state, call).await,
        (Target::Resource(id), &Method::GET) => {
            let mut tx = state.store.begin().await?;
            let row = find(&mut tx, id.name()).await?.ok_or_else(|| shape::not_found(id))?;
            Ok(respond::resource(call, &row))
        }
        (Target::Resource(id), &Method::PUT) => put(ctx, state, call, id).await,
        (Target::Resource(id), &Method::DELETE) => delete(state, id).await,
        (Target::Action { resource, name }, &Method::POST) if name.eq_ignore_ascii_case("resetSecret") => {
            let mut tx = state.store.begin().await?;
            let row = find(&mut tx, resource.name()).await?.ok_or_else(|| shape::not_found(resource))?;
            let secret = give_secret(&mut tx, &row.id).await?;
            tx.commit().await?;
            Ok(respond::ok(&with_secret(&row, &secret)?))
        }
        _ => call.method_not_allowed(),
    }
}

/// By application id, else by display name.
async fn find(tx: &mut Tx, name: &str) -> Result<Option<Resource>, Fault> {
    if let Ok(app_id) = name.parse::<Uuid>() {
        return Ok(tx.resource_get(&principal_id(app_id)).await?);
    }
    let rows = tx.resource_list(&Filter::of_type(PRINCIPAL_TYPE)).await?;
    let named = |row: &Resource| {
        row.properties()
            .get("displayName")
            .and_then(Value::as_str)
            .is_some_and(|shown| shown.eq_ignore_ascii_case(name))
    };
    Ok(rows.into_iter().find(named))
}

async fn list(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    let text = call.query.get("$filter");
    let mut rows = state.store.resource_list(&Filter::of_type(PRINCIPAL_TYPE)).await?;
    for clause in filter::parse(text)? {
        let field = match &clause {
            Clause::Equals(field, _) if field == "displayname" => "displayName",
            Clause::Equals(field, _) if field == "appid" => "appId",
            Clause::Equals(field, _) if field == "objectid" => "objectId",
            _ => {
                let why = "known are displayName, appId and objectId, each with eq";
                return Err(filter::invalid(text.unwrap_or_default(), why).into());
            }
        };
        if let Clause::Equals(_, value) = clause {
            rows.retain(|row| {
                row.properties().get(field).and_then(Value::as_str).is_some_and(|has| has.eq_ignore_ascii_case(&value))
            });
        }
    }
    respond::list(ctx, call, &call.path(), rows.iter().map(Resource::to_public).collect())
}

/// Makes a principal and shows its secret; one that exists stays as it is, and its secret stays hidden.
async fn put(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    let condition = call.condition()?;
    let given = shape::object(call.json_or_empty()?)?;
    let mut tx = state.store.begin().await?;
    if let Some(row) = find(&mut tx, id.name()).await? {
        if condition == Condition::MustNotExist {
            let message = format!("The service principal '{}' exists already.", id.name());
            return Err(Fault::conflict("ResourceExists", message).into());
        }
        return Ok(respond::ok(&row.to_public()));
    }
    if let Condition::Etag(_) = condition {
        return Err(shape::not_found(id).into());
    }
    let wanted: Option<Uuid> = id.name().parse().ok();
    let asked = given.get("properties").and_then(|properties| properties.get("displayName")?.as_str());
    let name = if wanted.is_some() { asked.unwrap_or(id.name()) } else { id.name() };
    let fits = (1..=120).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    if !fits || (wanted.is_some() && asked.is_some() && find(&mut tx, name).await?.is_some()) {
        let message = format!("The display name '{name}' is taken, empty or longer than 120 characters; give another.");
        return Err(Fault::invalid("InvalidDisplayName", message).at("properties.displayName").into());
    }
    if tx.resource_list(&Filter::of_type(PRINCIPAL_TYPE)).await?.len() >= MAX_PRINCIPALS {
        let message = format!("There are {MAX_PRINCIPALS} service principals already; delete one that is not used.");
        return Err(Fault::new(casemate_model::FaultKind::Quota, "QuotaExceeded", message).into());
    }
    let app_id = wanted.unwrap_or_else(Uuid::new_v4);
    let body = json!({"properties": {
        "displayName": name,
        "appId": app_id.to_string(),
        "objectId": Uuid::new_v4().to_string(),
    }});
    let made = tx.resource_put(&principal_id(app_id), body, &Condition::MustNotExist, &ctx.author()).await?;
    let secret = give_secret(&mut tx, &made.resource.id).await?;
    tx.commit().await?;
    Ok(respond::json(StatusCode::CREATED, &with_secret(&made.resource, &secret)?))
}

async fn give_secret(tx: &mut Tx, id: &ResourceId) -> Result<Secret, Fault> {
    let secret = new_client_secret();
    tx.secret_put(id, SECRET_DIGEST, &digest_secret(&secret)).await?;
    Ok(secret)
}

fn with_secret(row: &Resource, secret: &Secret) -> Result<Value, Fault> {
    let mut shown = row.to_public();
    let text = secret.expose_str().map_err(|_| Fault::internal("The new secret is no text."))?;
    shown["properties"]["clientSecret"] = text.into();
    Ok(shown)
}

/// Takes the principal's role assignments away with it.
async fn delete(state: &ApiState, id: &ResourceId) -> Outcome {
    let mut tx = state.store.begin().await?;
    let Some(row) = find(&mut tx, id.name()).await? else {
        return Ok(respond::no_content());
    };
    let object_id = row.properties().get("objectId").cloned();
    for assignment in tx.resource_list(&Filter::of_type(ASSIGNMENT_TYPE)).await? {
        if assignment.properties().get("principalId") == object_id.as_ref() {
            tx.resource_remove(&assignment.id).await?;
        }
    }
    tx.resource_remove(&row.id).await?;
    roles::keep_an_owner(&mut tx, state).await?;
    tx.commit().await?;
    Ok(respond::ok(&json!({})))
}
