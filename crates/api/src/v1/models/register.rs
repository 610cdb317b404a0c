//! Registering a model: the next version of its name.

use casemate_model::{Fault, Resource, ResourceId, asset::MODEL_VERSION_TYPE, service::V1_FIELD};
use casemate_store::{Condition, Filter};
use serde_json::{Value, json};

use super::{
    Asked, assets,
    shown::{number, show, unknown},
};
use crate::{
    ApiError, ApiState, OpContext,
    context::Outcome,
    ml::{
        assets::{MODELS, check_name, container_ensure},
        body::{map_of, texts},
    },
    respond,
    v1::artifacts::Place,
};

/// Largest document kept of what only the first generation knows, in bytes.
const MAX_KEPT: usize = 64 << 10;

/// Registers files as the next version of a model.
pub(super) async fn register(ctx: &OpContext, state: &ApiState, asked: &Asked) -> Outcome {
    asked.authorize(ctx, "models/write")?;
    let given = asked.call.json()?;
    let text = |key: &str| given.get(key).and_then(Value::as_str);
    let name = text("name").unwrap_or_default();
    check_name("model name", name)?;
    let artifact = assets::artifact_of_url(text("url").unwrap_or_default())?;
    let place = Place::parse(state, asked, &artifact).await?;
    if place.files(state, false).await?.is_empty() {
        let message = format!("There are no files at '{artifact}'. Upload them before registering them.");
        return Err(Fault::invalid("BadArgument", message).at("url").into());
    }
    let given_texts = |key: &str| {
        let value = given.get(key).filter(|value| !value.is_null()).cloned();
        texts(value, key).map(map_of)
    };
    let mut properties = json!({
        "modelUri": place.uri(),
        "modelType": "custom_model",
        "flavors": {},
        "tags": given_texts("kvTags")?,
        "properties": given_texts("properties")?,
        "isAnonymous": false,
        "isArchived": false,
    });
    if let Some(description) = text("description") {
        properties["description"] = description.into();
    }
    let mut body = json!({ "properties": properties });
    keep(&mut body, &given)?;
    let row = write(ctx, state, asked, name, body).await?;
    Ok(respond::ok(&show(&row)?))
}

/// Writes the version after the highest number there is.
async fn write(
    ctx: &OpContext,
    state: &ApiState,
    asked: &Asked,
    name: &str,
    body: Value,
) -> Result<Resource, ApiError> {
    let container = asked.workspace.id.child(MODELS.collection, name)?;
    let mut tx = state.store.begin().await?;
    let versions = tx.resource_list(&Filter::of_type(MODEL_VERSION_TYPE).child_of(&container)).await?;
    let next = versions.iter().filter_map(number).max().unwrap_or(0) + 1;
    let id: ResourceId = MODELS.version_id(&asked.workspace.id, name, &next.to_string())?;
    let put = tx.resource_put(&id, body, &Condition::MustNotExist, &ctx.author()).await?;
    container_ensure(&mut tx, ctx, &id).await?;
    tx.commit().await?;
    Ok(put.resource)
}

/// Keeps what only the first generation knows beside the properties.
///
/// # Errors
/// `BadArgument` when that is very much.
pub(super) fn keep(body: &mut Value, given: &Value) -> Result<(), Fault> {
    let mut kept = unknown();
    for (key, value) in kept.as_object_mut().into_iter().flatten() {
        if let Some(given) = given.get(key).filter(|given| !given.is_null()) {
            *value = given.clone();
        }
    }
    if kept.to_string().len() > MAX_KEPT {
        let message = format!("What the model says of its framework and data has more than {MAX_KEPT} bytes.");
        return Err(Fault::invalid("BadArgument", message));
    }
    body[V1_FIELD] = kept;
    Ok(())
}
