//! Versions of assets.

use std::collections::HashSet;

use casemate_model::{
    Fault, Resource, ResourceId,
    deployment::DEPLOYMENT_TYPE,
    service::{Package, SERVICE_DEPLOYMENT_TYPE, V1_FIELD},
};
use casemate_store::{Condition, Filter, Tx};
use http::Method;
use serde_json::{Map, Value, json};

use super::{
    CODES, Family, check,
    listing::{Wanted, by_creation},
};
use crate::{
    ApiError, ApiState, Call, OpContext,
    context::Outcome,
    ml::{body::Body, workspace},
    respond,
};

pub(super) async fn get(ctx: &OpContext, state: &ApiState, call: &Call, family: &Family, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    workspace::read(state, id).await?;
    if let Some(row) = state.store.resource_get(id).await? {
        return Ok(respond::resource(call, &row));
    }
    Err(missing(family, id).into())
}

fn missing(family: &Family, id: &ResourceId) -> Fault {
    let name = id.parent().map(|parent| parent.name().to_owned()).unwrap_or_default();
    Fault::not_found(
        "ResourceNotFound",
        format!(
            "The {} '{name}' has no version '{}'. List its versions, or register this one.",
            family.word,
            id.name()
        ),
    )
}

/// `labels/latest` as if it were a version.
pub(super) async fn labelled(
    ctx: &OpContext,
    state: &ApiState,
    call: &Call,
    family: &Family,
    id: &ResourceId,
) -> Outcome {
    ctx.authorize(&format!("{}/read", family.version_type), id)?;
    workspace::read(state, id).await?;
    let container = id.parent().ok_or_else(|| missing(family, id))?;
    let found = if id.name().eq_ignore_ascii_case("latest") { latest(state, &container).await? } else { None };
    match found {
        Some(row) => Ok(respond::resource(call, &row)),
        None => Err(Fault::not_found(
            "ResourceNotFound",
            format!("The {} '{}' has nothing labelled '{}'.", family.word, container.name(), id.name()),
        )
        .into()),
    }
}

/// The version of a container that was made last and is not archived.
pub(in crate::ml) async fn latest(state: &ApiState, container: &ResourceId) -> Result<Option<Resource>, ApiError> {
    let rows = state.store.resource_list(&Filter::default().child_of(container)).await?;
    Ok(newest(&rows).cloned())
}

/// The one made last among rows that are not archived.
pub(super) fn newest(rows: &[Resource]) -> Option<&Resource> {
    let active = |row: &&Resource| row.properties().get("isArchived").and_then(Value::as_bool) != Some(true);
    rows.iter().filter(active).max_by_key(|row| by_creation(row))
}

pub(super) async fn list(
    ctx: &OpContext,
    state: &ApiState,
    call: &Call,
    family: &Family,
    container: &ResourceId,
) -> Outcome {
    workspace::read(state, container).await?;
    // No such container is an empty list: clients look for content that they have not registered yet this way.
    let rows = state.store.resource_list(&Filter::of_type(family.version_type).child_of(container)).await?;
    let rows = ctx.readable(container, &call.permission(), rows)?;
    let wanted = Wanted::read(call)?;
    let mut rows: Vec<Resource> = rows.into_iter().filter(|row| wanted.takes(row)).collect();
    wanted.sort(&mut rows)?;
    let items = rows.iter().map(Resource::to_public).collect();
    respond::list(ctx, call, &call.path(), items)
}

pub(super) async fn put(ctx: &OpContext, state: &ApiState, call: &Call, family: &Family, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    let condition = call.condition()?;
    let home = workspace::for_write(state, id).await?;
    check::names(family, id)?;
    let before = state.store.resource_get(id).await?;
    let mut body = match (&before, &call.method) {
        (Some(before), &Method::PATCH) => Body::patched(&before.body, &call.json()?)?,
        (None, &Method::PATCH) => return Err(missing(family, id).into()),
        _ => Body::read(call.json()?)?,
    };
    check::common(body.properties())?;
    if let Some(before) = &before {
        keep_substance(family, before, body.properties())?;
    }
    check::substance(state, &home, family, body.properties()).await?;

    let mut tx = state.store.begin().await?;
    // Read again: two clients may register the same version at once, and only one of them first.
    if let Some(before) = tx.resource_get(id).await? {
        keep_substance(family, &before, body.properties())?;
    }
    let mut stored = json!({ "properties": *body.properties() });
    // What only the first generation of the SDK knows of a model goes with it.
    if let Some(hidden) = before.and_then(|before| before.body.get(V1_FIELD).cloned()) {
        stored[V1_FIELD] = hidden;
    }
    let put = tx.resource_put(id, stored, &condition, &ctx.author()).await?;
    container_ensure(&mut tx, ctx, id).await?;
    tx.commit().await?;
    Ok(respond::written(&put))
}

/// A version's substance stays as it was first written; what else it says may change.
fn keep_substance(family: &Family, before: &Resource, wanted: &mut Map<String, Value>) -> Result<(), Fault> {
    let stored = before.properties();
    for key in family.substance.iter().chain(&["flavors", "stage", "isAnonymous", "environmentType"]) {
        if let Some(value) = stored.get(*key) {
            wanted.entry(*key).or_insert_with(|| value.clone());
        }
    }
    let hash = |properties: &Value| properties.pointer("/properties/hash_sha256").cloned();
    // The same code uploaded twice at once lies at two places; the first stays.
    if *family == CODES && hash(stored).is_some() && hash(stored) == hash(&Value::Object(wanted.clone())) {
        wanted.insert("codeUri".to_owned(), stored["codeUri"].clone());
    }
    let changed: Vec<&str> =
        family.substance.iter().filter(|key| stored.get(**key) != wanted.get(**key)).copied().collect();
    if changed.is_empty() {
        return Ok(());
    }
    let (word, name) = (family.word, before.id.parent().map(|parent| parent.name().to_owned()).unwrap_or_default());
    Err(Fault::conflict(
        "UserError",
        format!(
            "A {word} with this name and version already exists: '{name}', version '{}'. Its {} cannot be changed; only tags, description, stage and isArchived can. Register a new version instead.",
            before.name(),
            changed.join(", ")
        ),
    )
    .at(changed[0]))
}

/// Makes the container of a version where it is missing.
pub(crate) async fn container_ensure(tx: &mut Tx, ctx: &OpContext, version: &ResourceId) -> Result<(), ApiError> {
    let Some(container) = version.parent() else { return Ok(()) };
    if tx.resource_get(&container).await?.is_none() {
        let body = json!({"properties": {"tags": {}, "properties": {}, "isArchived": false}});
        tx.resource_put(&container, body, &Condition::None, &ctx.author()).await?;
    }
    Ok(())
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
    refuse_used(&mut tx, family, std::slice::from_ref(id)).await?;
    tx.resource_mark_deleting(id, &condition).await?;
    tx.resource_remove(id).await?;
    tx.commit().await?;
    Ok(respond::no_content())
}

/// Fails when a deployment uses one of these versions.
///
/// # Errors
/// `Conflict` naming the version and the deployment.
pub(crate) async fn refuse_used(tx: &mut Tx, family: &Family, versions: &[ResourceId]) -> Result<(), ApiError> {
    let Some(workspace) = versions.first().and_then(|id| id.ancestor(casemate_model::workspace::WORKSPACE_TYPE)) else {
        return Ok(());
    };
    let doomed: HashSet<&str> = versions.iter().map(ResourceId::key).collect();
    for version in tx.resource_list(&Filter::of_type(SERVICE_DEPLOYMENT_TYPE).within(&workspace)).await? {
        let models = Package::of(&version.body)?.map(|package| package.models).unwrap_or_default();
        if let Some(used) = models.iter().find(|used| doomed.contains(used.key())) {
            let service = version.id.parent().map(|service| service.name().to_owned()).unwrap_or_default();
            let message = format!(
                "The {} '{used}' is used by the service '{service}'. Delete or update the service first.",
                family.word
            );
            return Err(Fault::conflict("Conflict", message).at(version.id.as_str()).into());
        }
    }
    for deployment in tx.resource_list(&Filter::of_type(DEPLOYMENT_TYPE).within(&workspace)).await? {
        for pointer in ["/model", "/environmentId", "/codeConfiguration/codeId"] {
            let used = deployment.properties().pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            if doomed.contains(used.to_lowercase().as_str()) {
                let message = format!(
                    "The {} '{used}' is used by the deployment '{}'. Delete or update the deployment first.",
                    family.word, deployment.id
                );
                return Err(Fault::conflict("Conflict", message).at(deployment.id.as_str()).into());
            }
        }
    }
    Ok(())
}
