//! Containers of assets: what the versions of one name have in common.

use std::collections::HashMap;

use casemate_model::{Resource, ResourceId};
use casemate_store::Filter;
use http::Method;
use serde_json::{Value, json};

use super::{
    Family, check,
    listing::{Wanted, number},
    versions::{newest, refuse_used},
};
use crate::{
    ApiState, Call, OpContext,
    arm::shape::not_found,
    context::Outcome,
    ml::{body::Body, workspace},
    respond,
};

/// The container with what its versions say of it.
fn shown(container: &Resource, versions: &[Resource]) -> Value {
    let mut shown = container.to_public();
    let next = versions.iter().filter_map(number).max().map_or(1, |last| last.saturating_add(1));
    if let Some(properties) = shown["properties"].as_object_mut() {
        properties.insert("latestVersion".to_owned(), json!(newest(versions).map(Resource::name)));
        properties.insert("nextVersion".to_owned(), next.to_string().into());
    }
    shown
}

pub(super) async fn get(ctx: &OpContext, state: &ApiState, call: &Call, family: &Family, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    workspace::read(state, id).await?;
    let row = workspace::present(state.store.resource_get(id).await?, id)?;
    let versions = state.store.resource_list(&Filter::of_type(family.version_type).child_of(id)).await?;
    Ok(respond::shown(call, &row, &shown(&row, &versions)))
}

pub(super) async fn list(
    ctx: &OpContext,
    state: &ApiState,
    call: &Call,
    family: &Family,
    parent: &ResourceId,
) -> Outcome {
    workspace::read(state, parent).await?;
    let rows = state.store.resource_list(&Filter::of_type(family.container_type).child_of(parent)).await?;
    let rows = ctx.readable(parent, &call.permission(), rows)?;
    let mut versions: HashMap<ResourceId, Vec<Resource>> = HashMap::new();
    for version in state.store.resource_list(&Filter::of_type(family.version_type).within(parent)).await? {
        if let Some(container) = version.id.parent() {
            versions.entry(container).or_default().push(version);
        }
    }
    let wanted = Wanted::read(call)?;
    let anonymous = |row: &Resource| row.properties().get("isAnonymous").and_then(Value::as_bool) == Some(true);
    let mut items = Vec::new();
    for row in rows.iter().filter(|row| wanted.takes(row)) {
        let own = versions.get(&row.id).map(Vec::as_slice).unwrap_or_default();
        // What clients make up for one deployment only is not shown among what users named.
        if own.is_empty() || !own.iter().all(anonymous) {
            items.push(shown(row, own));
        }
    }
    respond::list(ctx, call, &call.path(), items)
}

pub(super) async fn put(ctx: &OpContext, state: &ApiState, call: &Call, family: &Family, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    let condition = call.condition()?;
    workspace::for_write(state, id).await?;
    check::name(&format!("{} name", family.word), id.name())?;
    let mut tx = state.store.begin().await?;
    let before = tx.resource_get(id).await?;
    let mut body = match (&before, &call.method) {
        (Some(before), &Method::PATCH) => Body::patched(&before.body, &call.json()?)?,
        (None, &Method::PATCH) => return Err(not_found(id).into()),
        _ => Body::read(call.json()?)?,
    };
    check::common(body.properties())?;
    body.properties().remove("isAnonymous");
    let properties = json!({ "properties": *body.properties() });
    let put = tx.resource_put(id, properties, &condition, &ctx.author()).await?;
    let versions = tx.resource_list(&Filter::of_type(family.version_type).child_of(id)).await?;
    tx.commit().await?;
    Ok(respond::written_as(&put, &shown(&put.resource, &versions)))
}

pub(super) async fn delete(
    ctx: &OpContext,
    state: &ApiState,
    call: &Call,
    family: &Family,
    id: &ResourceId,
) -> Outcome {
    ctx.authorize_call(call)?;
    let condition = call.condition()?;
    workspace::read(state, id).await?;
    let mut tx = state.store.begin().await?;
    if tx.resource_get(id).await?.is_none() {
        return Ok(respond::no_content());
    }
    let versions = tx.resource_list(&Filter::default().within(id)).await?;
    let ids: Vec<ResourceId> = versions.into_iter().map(|version| version.id).collect();
    refuse_used(&mut tx, family, &ids).await?;
    tx.resource_mark_deleting(id, &condition).await?;
    for version in &ids {
        tx.resource_remove(version).await?;
    }
    tx.resource_remove(id).await?;
    tx.commit().await?;
    Ok(respond::no_content())
}
