//! Creating and changing services: the whole service, its versions and the operations in one transaction.

use casemate_identity::new_endpoint_key;
use casemate_model::{
    Fault, FaultKind, Operation, ResourceId,
    service::{SERVICE_DEPLOYMENT_TYPE, SERVICE_TYPE, check_service_name},
};
use casemate_store::{Condition, Filter, Tx};
use serde_json::Map;

use super::{Asked, Service, document, id, operations, show, tls, wish::Wish};
use crate::{
    ApiError, ApiState, OpContext,
    context::Outcome,
    ml::{
        endpoints::{accept_deletion, begin_work},
        keys::NAMES,
    },
    v1::patch,
};

/// Most services of the platform.
const MAX_SERVICES: usize = 100;

/// Creates a service, or with `overwrite` replaces what one runs.
pub(super) async fn create(ctx: &OpContext, state: &ApiState, asked: &Asked) -> Outcome {
    asked.authorize(ctx, "services/write")?;
    let given = asked.call.json()?;
    let name = given["name"].as_str().unwrap_or_default().to_owned();
    check_service_name("service", &name)?;
    let before = match Service::read(state, asked, &name).await {
        Ok(service) => Some(service),
        Err(error) if error.fault().kind == FaultKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if given["overwrite"].as_bool() != Some(true) {
        check_free(state, asked, &name).await?;
    }
    let wish = Wish::read(state, asked, &name, &given, before.as_ref()).await?;
    store(ctx, state, asked, &name, wish, before.as_ref()).await
}

/// Changes a service.
pub(super) async fn update(ctx: &OpContext, state: &ApiState, asked: &Asked, name: &str) -> Outcome {
    asked.authorize(ctx, "services/write")?;
    let before = Service::read(state, asked, name).await?;
    let mut document = document::of(&before)?;
    patch::apply(&mut document, &asked.call.json()?)?;
    let wish = Wish::read(state, asked, name, &document, Some(&before)).await?;
    store(ctx, state, asked, name, wish, Some(&before)).await
}

/// Insists that the name is free: it is part of addresses, and so unique on the platform.
///
/// # Errors
/// `ServiceExists` naming where.
pub(super) async fn check_free(state: &ApiState, asked: &Asked, name: &str) -> Result<(), ApiError> {
    check_service_name("service", name)?;
    let all = state.store.resource_list(&Filter::of_type(SERVICE_TYPE)).await?;
    let Some(taken) = all.iter().find(|row| row.name().eq_ignore_ascii_case(name)) else { return Ok(()) };
    let message = if taken.id.is_within(&asked.workspace.id) {
        format!(
            "Error, there is already a service with name {name} found in workspace {}. Delete it, give overwrite=True, or \
             take another name.",
            asked.workspace.name()
        )
    } else {
        format!(
            "The name '{name}' is that of a service in another workspace ({}). Names of services are unique on this \
             platform; take another one.",
            taken.id.parent().map_or_else(String::new, |workspace| workspace.as_str().to_owned())
        )
    };
    Err(Fault::conflict("ServiceExists", message).at("name").into())
}

async fn store(
    ctx: &OpContext,
    state: &ApiState,
    asked: &Asked,
    name: &str,
    wish: Wish,
    before: Option<&Service>,
) -> Outcome {
    let service = id(asked, name)?;
    let mut tx = state.store.begin().await?;
    let current = tx.resource_get(&service).await?;
    let same = current.as_ref().map(|row| row.generation) == before.map(|before| before.row.generation);
    if !same || current.as_ref().is_some_and(|row| row.deleting) {
        let message = format!("The service '{name}' is being changed or deleted by another request; try again.");
        return Err(Fault::conflict("Conflict", message).into());
    }
    if current.is_none() {
        check_room(&mut tx, name).await?;
    }
    let Wish { mut body, versions, keys, tls } = wish;
    tls::check_label(&mut tx, &service, &body).await?;
    tls.settle(&mut tx, ctx, state, &service, current.as_ref(), &mut body).await?;
    let mut put = tx.resource_put(&service, body, &Condition::None, &ctx.author()).await?;
    for (name, key) in NAMES.into_iter().zip(keys) {
        match key {
            Some(key) => tx.secret_put(&service, name, &key).await?,
            None if put.created => tx.secret_put(&service, name, &new_endpoint_key()).await?,
            None => {}
        }
    }
    let mut all = vec![begin_work(&mut tx, &mut put, Map::new()).await?];
    all.extend(store_versions(&mut tx, ctx, &service, versions).await?);
    tx.commit().await?;
    let service = Service::read(state, asked, name).await?;
    Ok(operations::accepted(ctx, asked, &all, &show::service(state, asked, &service).await?))
}

/// Writes the versions that are new or other than before, and lets go of those that are not wanted any more.
async fn store_versions(
    tx: &mut Tx,
    ctx: &OpContext,
    service: &ResourceId,
    versions: std::collections::BTreeMap<String, serde_json::Value>,
) -> Result<Vec<Operation>, ApiError> {
    let mut operations = Vec::new();
    let present = tx.resource_list(&Filter::of_type(SERVICE_DEPLOYMENT_TYPE).child_of(service)).await?;
    for gone in present.iter().filter(|row| !row.deleting && !versions.contains_key(row.name())) {
        operations.extend(accept_deletion(tx, &gone.id, &Condition::None).await?);
    }
    for (name, body) in versions {
        let id = service.child("deployments", &name)?;
        let before = present.iter().find(|row| row.id == id);
        let failed = before.is_some_and(|row| row.provisioning_state() == casemate_model::ProvisioningState::Failed);
        if before.is_some_and(|row| row.body == body) && !failed {
            continue;
        }
        let mut put = tx.resource_put(&id, body, &Condition::None, &ctx.author()).await?;
        operations.push(begin_work(tx, &mut put, Map::new()).await?);
    }
    Ok(operations)
}

/// Fails when the name is taken anywhere on the platform, or there are too many services.
async fn check_room(tx: &mut Tx, name: &str) -> Result<(), ApiError> {
    let all = tx.resource_list(&Filter::of_type(SERVICE_TYPE)).await?;
    if let Some(taken) = all.iter().find(|row| row.name().eq_ignore_ascii_case(name)) {
        let message = format!("The name '{name}' is that of the service '{}'; take another one.", taken.id);
        return Err(Fault::conflict("ServiceExists", message).at("name").into());
    }
    if all.len() >= MAX_SERVICES {
        let message = format!("There are {MAX_SERVICES} services already, which is the most. Delete one first.");
        return Err(Fault::new(FaultKind::Quota, "OutOfQuota", message).into());
    }
    Ok(())
}
