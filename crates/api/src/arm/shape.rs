//! Checks that every resource's body goes through, and faults that every family uses.

use casemate_model::{Fault, Resource, ResourceId};
use casemate_store::{Filter, Tx};
use serde_json::{Map, Value};

use crate::error::ApiError;

/// Most tags of one resource.
const MAX_TAGS: usize = 50;

/// The fault of a resource that is not there.
pub(crate) fn not_found(id: &ResourceId) -> Fault {
    let (kind, name) = (id.resource_type(), id.name());
    if id.is_type("Microsoft.Resources/resourceGroups") {
        return group_not_found(name);
    }
    let place = id.resource_group().map_or_else(String::new, |group| format!(" under resource group '{group}'"));
    Fault::not_found("ResourceNotFound", format!("The resource '{kind}/{name}'{place} was not found.")).at(id.as_str())
}

pub(crate) fn group_not_found(name: &str) -> Fault {
    let message = format!(
        "Resource group '{name}' could not be found. Create it first: casemate group create -n {name} -l REGION."
    );
    Fault::not_found("ResourceGroupNotFound", message).at(name)
}

/// Removes everything that lies in a resource, at any depth.
pub(crate) async fn remove_inner(tx: &mut Tx, id: &ResourceId) -> Result<(), ApiError> {
    for inner in tx.resource_list(&Filter::default().within(id)).await? {
        tx.resource_remove(&inner.id).await?;
    }
    Ok(())
}

/// The row that a new resource is to lie in: it must be there, and not on its way out.
///
/// # Errors
/// `ResourceGroupNotFound`, `ParentResourceNotFound`, or a conflict for a parent that is being deleted.
pub(crate) async fn require_parent(tx: &mut Tx, id: &ResourceId) -> Result<Option<Resource>, ApiError> {
    let Some(parent) = id.parent().filter(|parent| !parent.is_type("Microsoft.Resources/subscriptions")) else {
        return Ok(None);
    };
    let Some(row) = tx.resource_get(&parent).await? else {
        if parent.is_type("Microsoft.Resources/resourceGroups") {
            return Err(group_not_found(parent.name()).into());
        }
        let message = format!(
            "The resource '{}' can't be handled: '{}/{}', in which it lies, was not found.",
            id.name(),
            parent.resource_type(),
            parent.name()
        );
        return Err(Fault::not_found("ParentResourceNotFound", message).at(parent.as_str()).into());
    };
    if row.deleting {
        let message = format!(
            "'{parent}' is being deleted, so nothing can be written into it. Wait until it is gone, then create it anew."
        );
        let code = if parent.is_type("Microsoft.Resources/resourceGroups") {
            "ResourceGroupBeingDeleted"
        } else {
            "ParentResourceBeingDeleted"
        };
        return Err(Fault::conflict(code, message).at(parent.as_str()).into());
    }
    Ok(Some(row))
}

/// The body as an object.
pub(crate) fn object(body: Value) -> Result<Map<String, Value>, Fault> {
    match body {
        Value::Object(map) => Ok(map),
        _ => Err(Fault::invalid("InvalidRequestContent", "The request's body must be a JSON object.")),
    }
}

/// A region's name: lower case, without spaces.
pub(crate) fn location(value: Option<&Value>) -> Result<String, Fault> {
    let given = value.and_then(Value::as_str).unwrap_or_default();
    let plain: String = given.chars().filter(|c| *c != ' ').collect::<String>().to_lowercase();
    if plain.is_empty() {
        let message = "The location property is required for this resource; give a region's name such as 'local'.";
        return Err(Fault::invalid("LocationRequired", message).at("location"));
    }
    if plain.len() > 64 || !plain.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        let shown: String = given.chars().take(64).collect();
        let message = format!("The location '{shown}' is not a region's name; use letters, digits and '-'.");
        return Err(Fault::invalid("LocationNotAvailableForResourceType", message).at("location"));
    }
    Ok(plain)
}

/// Tags: texts by name; null means none.
pub(crate) fn tags(value: Option<&Value>) -> Result<Value, Fault> {
    let bad = |message: String| Err(Fault::invalid("InvalidTagValueType", message).at("tags"));
    let tags = match value {
        None | Some(Value::Null) => return Ok(Value::Object(Map::new())),
        Some(Value::Object(tags)) => tags,
        Some(_) => return bad("The tags must be an object of texts.".to_owned()),
    };
    if tags.len() > MAX_TAGS {
        return bad(format!("There are {} tags; a resource can have at most {MAX_TAGS}.", tags.len()));
    }
    for (name, value) in tags {
        match value {
            Value::String(text) if name.len() <= 512 && text.len() <= 256 => {}
            Value::String(_) => {
                return bad(format!("The tag '{name}' is too long: names may have 512 bytes, values 256."));
            }
            _ => return bad(format!("The tag '{name}' must be a text.")),
        }
    }
    Ok(Value::Object(tags.clone()))
}

/// A truth that may be written as text, since templates write it so.
pub(crate) fn truth(value: &Value, field: &str) -> Result<bool, Fault> {
    match value {
        Value::Bool(truth) => Ok(*truth),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        other => {
            let shown: String = other.to_string().chars().take(60).collect();
            Err(Fault::invalid("BadArgument", format!("{field} is {shown}; give true or false.")).at(field))
        }
    }
}

/// One word of a fixed set, in any case; gives its canonical spelling.
pub(crate) fn one_of(value: &Value, field: &str, words: &[&'static str]) -> Result<&'static str, Fault> {
    let given = value.as_str().unwrap_or_default();
    words.iter().find(|word| word.eq_ignore_ascii_case(given)).copied().ok_or_else(|| {
        let shown: String = value.to_string().chars().take(60).collect();
        let message = format!("{field} is {shown}; give one of: {}.", words.join(", "));
        Fault::invalid("BadArgument", message).at(field)
    })
}
