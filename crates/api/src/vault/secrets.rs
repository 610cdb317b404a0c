//! Secrets and their versions.

use axum::response::Response;
use casemate_model::{
    Resource, ResourceId, Secret,
    vault::{
        MAX_SECRET_BYTES, MAX_SECRETS, MAX_VERSIONS, Permission, SECRET_TYPE, VERSION_TYPE, is_secret_name, is_version,
    },
};
use casemate_store::{Condition, Filter};
use http::Method;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{
    answer::{Refusal, invalid, named, object},
    door::Session,
};
use crate::{arm::shape, respond};

/// The name of a version's value among its secrets.
const VALUE: &str = "value";
/// Most entries of one page of a list.
const MAX_PAGE: usize = 25;
/// Longest content type, in bytes.
const MAX_CONTENT_TYPE: usize = 255;

type Answer = Result<Response, Refusal>;

/// Answers a request by its method and path.
pub(super) async fn answer(session: &Session<'_>, method: &Method, path: &str, body: &[u8]) -> Answer {
    let lower = path.to_ascii_lowercase();
    let parts: Vec<&str> = path.split('/').collect();
    let first = lower.split('/').next().unwrap_or_default();
    match (first, method, parts.as_slice()) {
        ("secrets", &Method::GET, [_]) => list(session, None).await,
        ("secrets", &Method::POST, ["secrets", "restore"]) => {
            Err(Refusal::absent("Restoring secrets is not available"))
        }
        ("secrets", &Method::POST, [_, _, "backup"]) => Err(Refusal::absent("Backing secrets up is not available")),
        ("secrets", method, [_, name, rest @ ..]) if rest.len() <= 1 => {
            if !is_secret_name(name) {
                let shown: String = name.chars().take(127).collect();
                return Err(Refusal::bad(format!(
                    "The request URI contains an invalid name: {shown}. A secret's name has 1 to 127 letters, digits and \
                     hyphens."
                )));
            }
            match (method, rest) {
                (&Method::GET, [word]) if word.eq_ignore_ascii_case("versions") => list(session, Some(name)).await,
                (&Method::GET, rest) => get(session, name, rest.first().copied()).await,
                (&Method::PUT, []) => set(session, name, body).await,
                (&Method::PATCH, rest) => update(session, name, rest.first().copied(), body).await,
                (&Method::DELETE, []) => delete(session, name).await,
                _ => Err(Refusal::bad(format!("The method {method} is not known for secrets."))),
            }
        }
        ("deletedsecrets", &Method::GET, [_]) => {
            session.authorize(Permission::List, None)?;
            Ok(respond::ok(&json!({"value": [], "nextLink": null})))
        }
        ("deletedsecrets", _, [_, name, ..]) => {
            session.authorize(Permission::List, None)?;
            Err(Refusal::not_found(name))
        }
        ("keys" | "certificates" | "storage", ..) => Err(Refusal::absent(&format!("'{first}' are not available"))),
        _ => Err(Refusal::bad("There is nothing at this path; secrets are at /secrets.")),
    }
}

fn secret_id(session: &Session<'_>, name: &str) -> Result<ResourceId, Refusal> {
    Ok(session.vault.id.child("secrets", name)?)
}

async fn get(session: &Session<'_>, name: &str, version: Option<&str>) -> Answer {
    session.authorize(Permission::Get, Some(name))?;
    let id = secret_id(session, name)?;
    let row = find(session, &id, version).await?.ok_or_else(|| missing(name, version))?;
    if row.properties()["attributes"]["enabled"] == Value::Bool(false) {
        let message = "Operation get is not allowed on a disabled secret.".to_owned();
        return Err(Refusal::forbidden("SecretDisabled", message));
    }
    let value = session.state.store.secret_get(&row.id, VALUE).await?.ok_or_else(|| missing(name, version))?;
    let mut shown = bundle(session, &row);
    shown["value"] = value.expose_str().map_err(|_| Refusal::bad("The secret's value is no text."))?.into();
    Ok(respond::ok(&shown))
}

/// The row of a version; the newest for none.
async fn find(session: &Session<'_>, id: &ResourceId, version: Option<&str>) -> Result<Option<Resource>, Refusal> {
    let store = &session.state.store;
    let version = match version {
        Some(version) if is_version(version) => version.to_owned(),
        Some(_) => return Ok(None),
        None => {
            let Some(row) = store.resource_get(id).await? else { return Ok(None) };
            row.properties()["version"].as_str().unwrap_or_default().to_owned()
        }
    };
    Ok(store.resource_get(&id.child("versions", &version)?).await?)
}

fn missing(name: &str, version: Option<&str>) -> Refusal {
    match version {
        Some(version) => Refusal::not_found(&format!("{name}/{}", version.chars().take(40).collect::<String>())),
        None => Refusal::not_found(name),
    }
}

/// Makes a new version; what was before stays readable by its version.
async fn set(session: &Session<'_>, name: &str, body: &[u8]) -> Answer {
    session.authorize(Permission::Set, Some(name))?;
    let given = object(body)?;
    let value =
        given.get("value").and_then(Value::as_str).ok_or_else(|| Refusal::bad("Property value is required."))?;
    if value.len() > MAX_SECRET_BYTES {
        return Err(Refusal::bad(format!(
            "The secret's value has {} bytes; the longest has {MAX_SECRET_BYTES}. Keep larger data in a storage account.",
            value.len()
        )));
    }
    let secret = Secret::from(value);
    let (id, vault) = (secret_id(session, name)?, &session.vault);
    let now = session.state.clock.now().as_second();
    let mut properties = described(&given, Map::new())?;
    let version = Uuid::new_v4().simple().to_string();
    properties["attributes"]["created"] = now.into();
    properties["attributes"]["updated"] = now.into();
    properties["version"] = version.as_str().into();

    let author = session.ctx.author();
    let mut tx = session.state.store.begin().await?;
    if tx.resource_get(&vault.id).await?.is_none_or(|row| row.deleting) {
        return Err(shape::not_found(&vault.id).into());
    }
    let full = |what: &str, most: usize| {
        let message = format!("There are {most} {what} already, which is the most. Delete some first.");
        Refusal::forbidden("QuotaExceeded", format!("{message}\r\nVault: {}", named(vault)))
    };
    let is_new = tx.resource_get(&id).await?.is_none();
    if is_new && tx.resource_list(&Filter::of_type(SECRET_TYPE).child_of(&vault.id)).await?.len() >= MAX_SECRETS {
        return Err(full("secrets in the vault", MAX_SECRETS));
    }
    if tx.resource_list(&Filter::of_type(VERSION_TYPE).child_of(&id)).await?.len() >= MAX_VERSIONS {
        return Err(full("versions of the secret", MAX_VERSIONS));
    }
    let body = json!({ "properties": properties });
    tx.resource_put(&id, body.clone(), &Condition::None, &author).await?;
    let put = tx.resource_put(&id.child("versions", &version)?, body, &Condition::MustNotExist, &author).await?;
    tx.secret_put(&put.resource.id, VALUE, &secret).await?;
    tx.commit().await?;
    let mut shown = bundle(session, &put.resource);
    shown["value"] = value.into();
    Ok(respond::ok(&shown))
}

/// Changes what is said about a version, not its value.
async fn update(session: &Session<'_>, name: &str, version: Option<&str>, body: &[u8]) -> Answer {
    session.authorize(Permission::Update, Some(name))?;
    let given = object(body)?;
    let id = secret_id(session, name)?;
    let row = find(session, &id, version).await?.ok_or_else(|| missing(name, version))?;
    let mut tx = session.state.store.begin().await?;
    let row = tx.resource_get(&row.id).await?.ok_or_else(|| missing(name, version))?;
    let before = row.properties().as_object().cloned().unwrap_or_default();
    let mut properties = described(&given, before)?;
    properties["attributes"]["updated"] = session.state.clock.now().as_second().into();
    let body = json!({ "properties": properties });
    let author = session.ctx.author();
    let put = tx.resource_put(&row.id, body.clone(), &Condition::None, &author).await?;
    let newest = tx.resource_get(&id).await?.filter(|row| row.properties()["version"] == properties["version"]);
    if newest.is_some() {
        tx.resource_put(&id, body, &Condition::None, &author).await?;
    }
    tx.commit().await?;
    Ok(respond::ok(&bundle(session, &put.resource)))
}

/// Removes the secret with all its versions and values.
async fn delete(session: &Session<'_>, name: &str) -> Answer {
    session.authorize(Permission::Delete, Some(name))?;
    let id = secret_id(session, name)?;
    let mut tx = session.state.store.begin().await?;
    let row = tx.resource_get(&id).await?.ok_or_else(|| Refusal::not_found(name))?;
    shape::remove_inner(&mut tx, &id).await?;
    tx.resource_remove(&id).await?;
    tx.commit().await?;
    Ok(respond::ok(&bundle(session, &row)))
}

/// The secrets of the vault, or the versions of one, without their values.
async fn list(session: &Session<'_>, of: Option<&str>) -> Answer {
    session.authorize(Permission::List, of)?;
    let filter = match of {
        Some(name) => Filter::of_type(VERSION_TYPE).child_of(&secret_id(session, name)?),
        None => Filter::of_type(SECRET_TYPE).child_of(&session.vault.id),
    };
    let rows = session.state.store.resource_list(&filter).await?;
    let number = |key: &str, usual: usize| match session.query.get(key) {
        None => Ok(usual),
        Some(text) => text.parse::<usize>().map_err(|_| Refusal::bad(format!("{key} must be a number."))),
    };
    let (top, skip) = (number("maxresults", MAX_PAGE)?.clamp(1, MAX_PAGE), number("$skiptoken", 0)?);
    let page: Vec<Value> = rows.iter().skip(skip).take(top).map(|row| item(session, row, of.is_some())).collect();
    let next = skip.saturating_add(page.len());
    let link = (next < rows.len() && !page.is_empty()).then(|| {
        let path = of.map_or("secrets".to_owned(), |name| format!("secrets/{name}/versions"));
        let version = session.query.get("api-version").unwrap_or_default();
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("api-version", version).append_pair("maxresults", &top.to_string());
        query.append_pair("$skiptoken", &next.to_string());
        format!("{}/{path}?{}", session.ctx.base, query.finish())
    });
    Ok(respond::ok(&json!({"value": page, "nextLink": link})))
}

/// What a request says about a version, laid over what was said before.
fn described(given: &Map<String, Value>, before: Map<String, Value>) -> Result<Value, Refusal> {
    let mut kept = Value::Object(before);
    match given.get("contentType") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) if text.len() <= MAX_CONTENT_TYPE => kept["contentType"] = text.as_str().into(),
        Some(_) => {
            return Err(Refusal::bad(format!("contentType must be a text of at most {MAX_CONTENT_TYPE} bytes.")));
        }
    }
    if let Some(tags) = given.get("tags").filter(|tags| !tags.is_null()) {
        kept["tags"] = shape::tags(Some(tags)).map_err(|fault| invalid(&fault))?;
    }
    let attributes = given.get("attributes").unwrap_or(&Value::Null);
    match &attributes["enabled"] {
        Value::Null => {}
        Value::Bool(enabled) => kept["attributes"]["enabled"] = (*enabled).into(),
        _ => return Err(Refusal::bad("attributes.enabled must be true or false.")),
    }
    for key in ["nbf", "exp"] {
        match &attributes[key] {
            Value::Null => {}
            Value::Number(number) if number.as_i64().is_some_and(|at| at >= 0) => {
                kept["attributes"][key] = attributes[key].clone();
            }
            _ => return Err(Refusal::bad(format!("attributes.{key} must be seconds since 1970."))),
        }
    }
    let all = kept["attributes"].clone();
    if let (Some(from), Some(to)) = (all["nbf"].as_i64(), all["exp"].as_i64())
        && from >= to
    {
        return Err(Refusal::bad("attributes.nbf must be before attributes.exp."));
    }
    if all["enabled"].is_null() {
        kept["attributes"]["enabled"] = true.into();
    }
    Ok(kept)
}

/// A version as it is shown, but for its value.
fn bundle(session: &Session<'_>, row: &Resource) -> Value {
    let version = row.properties()["version"].as_str().unwrap_or_default();
    let mut shown = item(session, row, true);
    shown["id"] = format!("{}/secrets/{}/{version}", session.ctx.base, secret_name(row)).into();
    shown
}

fn item(session: &Session<'_>, row: &Resource, versioned: bool) -> Value {
    let properties = row.properties();
    let mut attributes = properties["attributes"].clone();
    attributes["recoveryLevel"] = "Purgeable".into();
    attributes["recoverableDays"] = 0.into();
    let mut id = format!("{}/secrets/{}", session.ctx.base, secret_name(row));
    if versioned {
        id = format!("{id}/{}", properties["version"].as_str().unwrap_or_default());
    }
    let mut shown = json!({"id": id, "attributes": attributes, "tags": {}});
    for key in ["contentType", "tags"] {
        if let Some(value) = properties.get(key) {
            shown[key] = value.clone();
        }
    }
    shown
}

/// The name of the secret that a row is, or is a version of.
fn secret_name(row: &Resource) -> String {
    row.id.ancestor(SECRET_TYPE).map_or_else(String::new, |id| id.name().to_owned())
}
