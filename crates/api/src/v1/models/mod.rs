//! Models as the first generation of the SDK registers and reads them. They are the same rows as the second
//! generation's: each sees the other's. Only those whose version is no number can't be shown here, where it must be one.

mod assets;
mod query;
mod register;
mod shown;

use casemate_model::{Fault, Resource, ResourceId};
use casemate_store::Condition;
use http::Method;
use serde_json::{Value, json};

pub(crate) use self::{query::has_all, shown::show};
use super::{Asked, patch};
use crate::{
    ApiError, ApiState, OpContext,
    context::Outcome,
    ml::{
        assets::{MODELS, refuse_used},
        body::{map_of, texts},
    },
    respond,
};

/// Answers a request.
pub(crate) async fn handle(ctx: &OpContext, state: &ApiState, asked: &Asked) -> Outcome {
    match (&asked.call.method, asked.parts().as_slice()) {
        (&Method::POST, ["assets"]) => assets::create(ctx, state, asked).await,
        (&Method::GET, ["assets", id]) => assets::get(ctx, state, asked, id),
        (&Method::POST, ["models"]) => register::register(ctx, state, asked).await,
        (&Method::GET, ["models"]) => query::list(ctx, state, asked).await,
        (&Method::GET, ["models", id]) => {
            asked.authorize(ctx, "models/read")?;
            Ok(respond::ok(&show(&find(state, asked, id).await?)?))
        }
        (&Method::PATCH, ["models", id]) => update(ctx, state, asked, id).await,
        (&Method::DELETE, ["models", id]) => delete(ctx, state, asked, id).await,
        _ => Err(asked.nothing_here().into()),
    }
}

/// The model with this id, `NAME:VERSION`.
///
/// # Errors
/// `ModelNotFound`; `BadArgument` for an id of another form.
pub(crate) async fn find(state: &ApiState, asked: &Asked, id: &str) -> Result<Resource, ApiError> {
    let row_id = row_id(asked, id)?;
    let row = state.store.resource_get(&row_id).await?.filter(|row| !row.deleting);
    Ok(row.ok_or_else(|| missing(id))?)
}

fn row_id(asked: &Asked, id: &str) -> Result<ResourceId, Fault> {
    let (name, version) = id.split_once(':').ok_or_else(|| missing(id))?;
    MODELS.version_id(&asked.workspace.id, name, version)
}

fn missing(id: &str) -> Fault {
    let shown: String = id.chars().filter(|c| !c.is_control()).take(200).collect();
    Fault::not_found(
        "ModelNotFound",
        format!("The model '{shown}' does not exist in the workspace; ids read NAME:VERSION."),
    )
    .at("id")
}

/// Changes what may change: tags, description, properties that are new, and what is known of the model's use.
async fn update(ctx: &OpContext, state: &ApiState, asked: &Asked, id: &str) -> Outcome {
    asked.authorize(ctx, "models/write")?;
    let changes = asked.call.json()?;
    let row_id = row_id(asked, id)?;
    let mut tx = state.store.begin().await?;
    let row = tx.resource_get(&row_id).await?.filter(|row| !row.deleting).ok_or_else(|| missing(id))?;
    let before = show(&row)?;
    let mut after = before.clone();
    patch::apply(&mut after, &changes)?;
    for fixed in ["id", "name", "version", "url", "unpack", "createdTime", "createdBy"] {
        if before[fixed] != after[fixed] {
            let message = format!("The {fixed} of the model '{id}' can't be changed; register a new version instead.");
            return Err(Fault::invalid("BadArgument", message).at(fixed).into());
        }
    }
    let mut body = row.body.clone();
    register::keep(&mut body, &after)?;
    body["properties"]["tags"] = map_of(texts(Some(after["kvTags"].take()), "kvTags")?);
    body["properties"]["properties"] = map_of(texts(Some(after["properties"].take()), "properties")?);
    match after["description"].take() {
        Value::String(text) => body["properties"]["description"] = text.into(),
        _ => drop(body["properties"].as_object_mut().map(|properties| properties.remove("description"))),
    }
    let put = tx.resource_put(&row_id, body, &Condition::None, &ctx.author()).await?;
    tx.commit().await?;
    Ok(respond::ok(&show(&put.resource)?))
}

async fn delete(ctx: &OpContext, state: &ApiState, asked: &Asked, id: &str) -> Outcome {
    asked.authorize(ctx, "models/delete")?;
    let row_id = row_id(asked, id)?;
    let mut tx = state.store.begin().await?;
    if tx.resource_get(&row_id).await?.is_none() {
        return Ok(respond::no_content());
    }
    refuse_used(&mut tx, &MODELS, std::slice::from_ref(&row_id)).await?;
    tx.resource_mark_deleting(&row_id, &Condition::None).await?;
    tx.resource_remove(&row_id).await?;
    tx.commit().await?;
    Ok(respond::ok(&json!({})))
}
