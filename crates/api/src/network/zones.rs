//! Private DNS zones.

use std::collections::HashMap;

use casemate_model::{
    Fault, Resource, ResourceId,
    network::{RecordKind, ZONE_LINK_TYPE, ZONE_TYPE, check_zone_name},
};
use casemate_store::{Condition, Filter, Put, Tx};
use http::Method;
use serde_json::{Value, json};

use super::{
    apply,
    shape::{self, Asked},
};
use crate::{
    arm::shape as common,
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    respond,
    state::ApiState,
};

/// Most private zones of the platform.
const MAX_ZONES: usize = 200;
/// Most record sets of one zone.
pub(super) const MAX_RECORD_SETS: usize = 5000;
/// Most links of one zone: one for each network.
pub(super) const MAX_LINKS: usize = 64;

pub(super) async fn handle(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Resource(id), &Method::GET) => {
            ctx.authorize_call(call)?;
            let row = shape::read(state, id).await?;
            let shown = Counts::read(state, &row.id).await?.show(&row);
            Ok(respond::shown(call, &row, &shown))
        }
        (Target::Resource(id), &Method::HEAD) => shape::head(ctx, state, call, id).await,
        (Target::Resource(id), &Method::PUT) => {
            ctx.authorize_call(call)?;
            let asked = Asked::read(call)?;
            let mut tx = state.store.begin().await?;
            let put = write(&mut tx, ctx, id, &asked).await?;
            tx.commit().await?;
            Ok(respond::written_as(&put, &Counts::read(state, id).await?.show(&put.resource)))
        }
        (Target::Resource(id), &Method::PATCH) => {
            let put = shape::patch_tags(ctx, state, call, id).await?;
            let shown = Counts::read(state, id).await?.show(&put.resource);
            Ok(respond::written_as(&put, &shown))
        }
        (Target::Resource(id), &Method::DELETE) => delete(ctx, state, call, id).await,
        (Target::Collection { parent: Some(scope), .. }, &Method::GET) => {
            let rows = shape::list(ctx, state, call).await?;
            let counts = Counts::read(state, scope).await?;
            respond::list(ctx, call, &call.path(), rows.iter().map(|row| counts.show(row)).collect())
        }
        _ => call.method_not_allowed(),
    }
}

pub(super) async fn write(tx: &mut Tx, ctx: &OpContext, id: &ResourceId, asked: &Asked) -> Result<Put, ApiError> {
    let tags = common::tags(asked.given.get("tags"))?;
    shape::check_place(id, "Microsoft.Resources/resourceGroups")?;
    check_zone_name(&id.name().to_ascii_lowercase())?;
    common::require_parent(tx, id).await?;
    let existing = tx.resource_get(id).await?;
    if existing.is_none() && tx.resource_list(&Filter::of_type(ZONE_TYPE)).await?.len() >= MAX_ZONES {
        let message = format!("There are {MAX_ZONES} private zones already; delete one first.");
        return Err(shape::quota(message).into());
    }
    // A zone that was made on the way becomes the caller's own: scripts create it, and expect it to be new.
    let adopted = existing.as_ref().is_some_and(apply::is_automatic);
    let condition = if adopted { &Condition::None } else { &asked.condition };
    let body = json!({"location": "global", "tags": tags, "properties": {}});
    let put = tx.resource_put(id, body, condition, &ctx.author()).await?;
    Ok(Put { created: put.created || adopted, ..put })
}

async fn delete(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    let condition = call.condition()?;
    let mut tx = state.store.begin().await?;
    if tx.resource_mark_deleting(id, &condition).await?.is_none() {
        return Ok(respond::no_content());
    }
    let links = tx.resource_list(&Filter::of_type(ZONE_LINK_TYPE).child_of(id)).await?;
    if !links.is_empty() {
        let message = format!(
            "Can not delete resource '{}' before nested resources are deleted: it is linked to networks by {}. Delete \
             these links first.",
            id.name(),
            shape::names(links.iter().map(|link| link.id.as_str()))
        );
        return Err(Fault::conflict("CannotDeleteResource", message).at(id.as_str()).into());
    }
    common::remove_inner(&mut tx, id).await?;
    tx.resource_remove(id).await?;
    tx.commit().await?;
    Ok(shape::deleted())
}

/// How much lies in zones: links and record sets by zone.
struct Counts(HashMap<ResourceId, (usize, usize)>);

impl Counts {
    async fn read(state: &ApiState, scope: &ResourceId) -> Result<Self, ApiError> {
        let mut counts: HashMap<ResourceId, (usize, usize)> = HashMap::new();
        for link in state.store.resource_list(&Filter::of_type(ZONE_LINK_TYPE).within(scope)).await? {
            counts.entry(link.id.parent().unwrap_or_else(|| link.id.clone())).or_default().0 += 1;
        }
        for kind in RecordKind::ALL {
            let filter = Filter::of_type(format!("{ZONE_TYPE}/{}", kind.as_str())).within(scope);
            for record in state.store.resource_list(&filter).await? {
                counts.entry(record.id.parent().unwrap_or_else(|| record.id.clone())).or_default().1 += 1;
            }
        }
        Ok(Self(counts))
    }

    fn show(&self, row: &Resource) -> Value {
        let (links, records) = self.0.get(&row.id).copied().unwrap_or_default();
        let mut shown = shape::public(row);
        if let Some(properties) = shown["properties"].as_object_mut() {
            properties.extend([
                ("maxNumberOfRecordSets".to_owned(), MAX_RECORD_SETS.into()),
                ("maxNumberOfVirtualNetworkLinks".to_owned(), MAX_LINKS.into()),
                ("maxNumberOfVirtualNetworkLinksWithRegistration".to_owned(), 0.into()),
                // The record of authority is one of them.
                ("numberOfRecordSets".to_owned(), (records + 1).into()),
                ("numberOfVirtualNetworkLinks".to_owned(), links.into()),
                ("numberOfVirtualNetworkLinksWithRegistration".to_owned(), 0.into()),
            ]);
        }
        shown
    }
}
