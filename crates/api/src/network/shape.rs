//! What the resources of this family have in common.

use axum::response::Response;
use casemate_model::{Fault, FaultKind, Resource, ResourceId};
use casemate_store::{Condition, Filter, Put, Tx};
use serde_json::{Map, Value};

use crate::{
    arm::shape,
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    respond,
    state::ApiState,
};

/// What a PUT or a template asks for.
pub(super) struct Asked {
    /// The body.
    pub(super) given: Map<String, Value>,
    /// Under which condition.
    pub(super) condition: Condition,
}

impl Asked {
    /// Reads a call whose right was checked.
    pub(super) fn read(call: &Call) -> Result<Self, Fault> {
        Ok(Self { given: shape::object(call.json()?)?, condition: call.condition()? })
    }
}

/// The row with this id.
pub(super) async fn read(state: &ApiState, id: &ResourceId) -> Result<Resource, ApiError> {
    Ok(state.store.resource_get(id).await?.ok_or_else(|| shape::not_found(id))?)
}

/// The row of something that another resource names in `field`: there, and not on its way out.
pub(super) async fn named(tx: &mut Tx, id: &ResourceId, field: &str) -> Result<Resource, ApiError> {
    if let Some(row) = tx.resource_get(id).await?.filter(|row| !row.deleting) {
        return Ok(row);
    }
    let message = format!("{field} names '{id}', which does not exist. Create it first, or correct the name.");
    Err(Fault::invalid("InvalidResourceReference", message).at(field).into())
}

/// The rows of a collection that the caller may read.
pub(super) async fn list(ctx: &OpContext, state: &ApiState, call: &Call) -> Result<Vec<Resource>, ApiError> {
    let Target::Collection { parent: Some(scope), kind } = &call.target else { return Ok(Vec::new()) };
    // A list below a group or a resource that is not there must not look like an empty one.
    if scope.resource_group().is_some() {
        read(state, scope).await?;
    }
    let rows = state.store.resource_list(&Filter::of_type(kind.clone()).within(scope)).await?;
    Ok(ctx.readable(scope, &call.permission(), rows)?)
}

/// `HEAD` of a resource.
pub(super) async fn head(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    read(state, id).await?;
    Ok(respond::no_content())
}

/// `DELETE` of a resource that nothing lies in and that nothing else follows.
pub(super) async fn delete(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    let condition = call.condition()?;
    let mut tx = state.store.begin().await?;
    if tx.resource_mark_deleting(id, &condition).await?.is_none() {
        return Ok(respond::no_content());
    }
    tx.resource_remove(id).await?;
    tx.commit().await?;
    Ok(deleted())
}

/// A PATCH, which changes tags only.
pub(super) async fn patch_tags(
    ctx: &OpContext,
    state: &ApiState,
    call: &Call,
    id: &ResourceId,
) -> Result<Put, ApiError> {
    ctx.authorize_call(call)?;
    let (given, condition) = (shape::object(call.json()?)?, call.condition()?);
    if given.get("properties").is_some_and(|properties| !properties.is_null()) {
        let message = "Only tags can be patched here. Send the whole resource with PUT to change its properties.";
        return Err(Fault::invalid("InvalidRequestFormat", message).at("properties").into());
    }
    let mut tx = state.store.begin().await?;
    let mut body = tx.resource_get(id).await?.ok_or_else(|| shape::not_found(id))?.body;
    if given.contains_key("tags")
        && let Some(body) = body.as_object_mut()
    {
        body.insert("tags".to_owned(), shape::tags(given.get("tags"))?);
    }
    let put = tx.resource_put(id, body, &condition, &ctx.author()).await?;
    tx.commit().await?;
    Ok(put)
}

/// `properties` of a body.
pub(super) fn properties(given: &Map<String, Value>) -> Result<Map<String, Value>, Fault> {
    match given.get("properties") {
        None | Some(Value::Null) => Ok(Map::new()),
        Some(Value::Object(properties)) => Ok(properties.clone()),
        Some(_) => Err(bad("properties", "'properties' must be an object.")),
    }
}

/// The location of a resource, which never changes.
pub(super) fn location(given: &Map<String, Value>, existing: Option<&Resource>) -> Result<String, Fault> {
    let location = shape::location(given.get("location"))?;
    match existing.and_then(Resource::location) {
        Some(was) if was != location => {
            let message = format!("The resource is in '{was}' and can't move to '{location}'. Give its own location.");
            Err(Fault::conflict("InvalidResourceLocation", message).at("location"))
        }
        _ => Ok(location),
    }
}

/// The id in `{"id": …}` under `field`, of the given type.
pub(super) fn reference(properties: &Map<String, Value>, field: &str, kind: &str) -> Result<ResourceId, Fault> {
    let given = properties.get(field).and_then(|value| value.get("id")).and_then(Value::as_str);
    typed_id(given.unwrap_or_default(), field, kind)
}

/// An id of the given type.
pub(super) fn typed_id(given: &str, field: &str, kind: &str) -> Result<ResourceId, Fault> {
    let id = ResourceId::parse(given).ok().filter(|id| id.is_type(kind) && id.subscription().is_some());
    id.ok_or_else(|| {
        let shown: String = given.chars().take(200).collect();
        bad(field, format!("'{shown}' is not the id of a resource of the type {kind}."))
    })
}

/// Checks a name of letters, digits, '.', '_' and '-', beginning with a letter or digit and ending with one or '_',
/// and that the resource lies directly in what it should.
pub(super) fn check_name(id: &ResourceId, parent: &str, most: usize) -> Result<(), Fault> {
    let name = id.name();
    let fits = (1..=most).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    check_place(id, parent)?;
    if fits {
        return Ok(());
    }
    let message = format!(
        "'{name}' is not a name for a resource of the type '{}': it has 1 to {most} letters, digits, '.', '_' and '-', \
         begins with a letter or digit, and ends with one or '_'.",
        id.resource_type()
    );
    Err(Fault::invalid("InvalidResourceName", message).at("name"))
}

/// Checks that a resource lies directly in a resource of a type.
pub(super) fn check_place(id: &ResourceId, parent: &str) -> Result<(), Fault> {
    if id.parent().is_some_and(|place| place.is_type(parent)) {
        return Ok(());
    }
    let message = format!("A resource of the type '{}' lies in one of the type '{parent}'.", id.resource_type());
    Err(Fault::invalid("InvalidResourceId", message))
}

/// Refuses what is asked for and not there on this platform; leaving it out silently would promise a protection that
/// does not exist.
pub(super) fn refuse_unbuilt(properties: &Map<String, Value>, what: &[(&str, &str)]) -> Result<(), Fault> {
    for (field, shown) in what {
        let is_asked = match properties.get(*field) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Array(values)) => !values.is_empty(),
            Some(_) => true,
        };
        if is_asked {
            let message = format!("{shown} are not available on this platform; leave '{field}' out.");
            return Err(Fault::new(FaultKind::NotImplemented, "NotImplemented", message).at(*field));
        }
    }
    Ok(())
}

/// The fault of a limit in number.
pub(super) fn quota(message: impl Into<String>) -> Fault {
    Fault::new(FaultKind::Quota, "QuotaExceeded", message)
}

pub(super) fn bad(field: &str, message: impl Into<String>) -> Fault {
    Fault::invalid("InvalidRequestFormat", message).at(field)
}

/// What a DELETE of something that is not there, and of something that is now gone, answers.
pub(super) fn deleted() -> Response {
    respond::ok(&Value::Object(Map::new()))
}

/// A list of names for a sentence, cut after ten.
pub(super) fn names<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    let ids: Vec<&str> = ids.into_iter().collect();
    let shown: Vec<String> = ids.iter().take(10).map(|id| format!("'{id}'")).collect();
    match ids.len() {
        0..=10 => shown.join(", "),
        more => format!("{} and {} more", shown.join(", "), more - 10),
    }
}

/// A row in its public shape without what is only for the platform.
pub(super) fn public(row: &Resource) -> Value {
    let mut shown = row.to_public();
    if let Some(shown) = shown.as_object_mut() {
        shown.retain(|key, _| !key.starts_with('_'));
    }
    shown
}
