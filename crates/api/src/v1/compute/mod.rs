//! Computes of the kind AKS: a pool that services are deployed to, with one TLS configuration for all of them.
//!
//! On one machine the pool is the platform's own runtime, whether the compute was created or attached; the id of an
//! attached cluster is kept. A write checks the whole wish, and stores it with its certificate's key (as a secret), and
//! the operation, in one transaction. Certificates are got and proven by the reconcilers.
//!
//! The resource manager writes computes and both it and `/rp/workspaces` show them: see `arm::computes`.

mod body;
mod labels;
mod show;
mod ssl;
mod tls;

#[cfg(test)]
mod tests;

use casemate_model::{
    Fault, Operation, OperationStatus, Resource, ResourceId, Secret,
    operation::OperationKind,
    service::{self, SERVICE_TYPE},
    tls::{CUSTOM_CHAIN, CUSTOM_KEY},
};
use casemate_store::{Condition, Filter, Put, Tx};
use http::Method;
use serde_json::{Map, Value, json};

pub(crate) use self::{
    body::COMPUTE_TYPE,
    show::show,
    tls::{check_cname, check_free},
};
use crate::{
    arm::shape::{self, not_found},
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    respond,
    state::ApiState,
};

/// Most computes of one workspace.
const MAX_COMPUTES: usize = 100;

/// Answers a call about computes.
pub(crate) async fn handle(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Collection { parent: Some(parent), .. }, &Method::GET) => list(ctx, state, call, parent).await,
        (Target::Resource(id), &Method::GET | &Method::HEAD) => {
            ctx.authorize_call(call)?;
            let row = read(state, id).await?;
            Ok(respond::shown(call, &row, &show(ctx, &row)))
        }
        (Target::Resource(id), &Method::PUT) => put(ctx, state, call, id).await,
        (Target::Resource(id), &Method::DELETE) => delete(ctx, state, call, id).await,
        (Target::Action { resource, name }, &Method::POST) if name.eq_ignore_ascii_case("listKeys") => {
            ctx.authorize_call(call)?;
            read(state, resource).await?;
            // There is no cluster behind it whose API could be signed in to.
            Ok(respond::ok(&json!({
                "computeType": "AKS",
                "userKubeConfig": null,
                "adminKubeConfig": null,
                "imagePullSecretName": null,
            })))
        }
        _ => call.method_not_allowed(),
    }
}

async fn read(state: &ApiState, id: &ResourceId) -> Result<Resource, ApiError> {
    Ok(state.store.resource_get(id).await?.ok_or_else(|| not_found(id))?)
}

async fn list(ctx: &OpContext, state: &ApiState, call: &Call, parent: &ResourceId) -> Outcome {
    let rows = state.store.resource_list(&Filter::of_type(COMPUTE_TYPE).child_of(parent)).await?;
    let rows = ctx.readable(parent, &call.permission(), rows)?;
    respond::list(ctx, call, &call.path(), rows.iter().map(|row| show(ctx, row)).collect())
}

async fn put(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    let (given, condition) = (call.json()?, call.condition()?);
    body::check_name(id.name())?;
    let mut tx = state.store.begin().await?;
    let home = shape::require_parent(&mut tx, id).await?.ok_or_else(|| not_found(id))?;
    let before = tx.resource_get(id).await?;
    if before.is_none() {
        check_room(&mut tx, &home.id).await?;
    }
    let mut wanted = body::read(&given, before.as_ref(), &home)?;
    let asked = ssl::read(body::ssl_of(&given), &tls::standing(before.as_ref()))?;
    let settled = tls::settle(&mut tx, ctx, state, id, before.as_ref(), asked).await?;
    let secrets = settled.write_into(&mut wanted);
    let mut put = tx.resource_put(id, wanted, &condition, &ctx.author()).await?;
    if let Some(custom) = secrets {
        keep_custom(&mut tx, id, custom).await?;
    }
    let operation = begin_work(&mut tx, &mut put).await?;
    tx.commit().await?;
    let shown = show(ctx, &put.resource);
    Ok(respond::accepted_put_as(ctx, &put, &operation, &shown))
}

async fn check_room(tx: &mut Tx, workspace: &ResourceId) -> Result<(), ApiError> {
    let present = tx.resource_list(&Filter::of_type(COMPUTE_TYPE).child_of(workspace)).await?;
    if present.len() < MAX_COMPUTES {
        return Ok(());
    }
    let message = format!("There are {MAX_COMPUTES} computes in the workspace, which is the most. Delete one first.");
    Err(Fault::new(casemate_model::FaultKind::Quota, "OutOfQuota", message).into())
}

/// A certificate that was given, under the number of its version.
struct Custom {
    version: u64,
    chain: String,
    key: Secret,
}

/// Keeps a certificate that was given, and forgets those that nothing can fall back to any more.
async fn keep_custom(tx: &mut Tx, id: &ResourceId, custom: Custom) -> Result<(), ApiError> {
    let Custom { version, chain, key } = custom;
    tx.secret_put(id, &format!("{CUSTOM_CHAIN}-{version}"), &Secret::from(chain)).await?;
    tx.secret_put(id, &format!("{CUSTOM_KEY}-{version}"), &key).await?;
    if let Some(old) = version.checked_sub(2) {
        tx.secret_remove(id, &format!("{CUSTOM_CHAIN}-{old}")).await?;
        tx.secret_remove(id, &format!("{CUSTOM_KEY}-{old}")).await?;
    }
    Ok(())
}

/// Marks the compute as being worked on and adds the operation that ends when it is done.
async fn begin_work(tx: &mut Tx, put: &mut Put) -> Result<Operation, ApiError> {
    let doing = if put.created { "Creating" } else { "Updating" };
    let observed = Map::from_iter([("provisioningState".to_owned(), Value::from(doing))]);
    tx.resource_observe(&put.resource.id, observed).await?;
    if let Some(written) = tx.resource_get(&put.resource.id).await? {
        put.resource = written;
    }
    let (id, generation) = (put.resource.id.clone(), put.resource.generation);
    Ok(tx.operation_create(&id, OperationKind::Put, generation).await?)
}

/// Accepts a deletion; the row goes when the certificate is not served any more.
async fn delete(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    let condition = call.condition()?;
    let mut tx = state.store.begin().await?;
    let Some(row) = tx.resource_get(id).await? else { return Ok(respond::no_content()) };
    check_deletion(&row, call.query.get("underlyingResourceAction"))?;
    let services = services_on(&mut tx, id).await?;
    if !services.is_empty() {
        let message = format!(
            "The compute '{}' has services: {}. Delete them first (service.delete() of the SDK), then the compute.",
            id.name(),
            services.join(", ")
        );
        return Err(Fault::conflict("ComputeHasServices", message).at(id.as_str()).into());
    }
    let operation = accept_deletion(&mut tx, id, &condition).await?;
    tx.commit().await?;
    Ok(match operation {
        Some(operation) => respond::accepted_delete(ctx, &operation),
        None => respond::no_content(),
    })
}

/// What is attached can't be deleted, since it is not the workspace's own.
fn check_deletion(row: &Resource, action: Option<&str>) -> Result<(), Fault> {
    let bad = |message: String| Err(Fault::invalid("BadArgument", message).at("underlyingResourceAction"));
    let is_attached = row.properties()["isAttachedCompute"] == true;
    match action.map(str::to_ascii_lowercase).as_deref() {
        Some("detach") => Ok(()),
        Some("delete") if !is_attached => Ok(()),
        Some("delete") => bad(format!(
            "The compute '{}' was attached, so it can't be deleted here. Detach it: casemate ml computetarget detach \
             -n {0}, or detach() of the SDK.",
            row.name()
        )),
        Some(other) => bad(format!(
            "underlyingResourceAction is '{}'; give Delete or Detach.",
            other.chars().take(40).collect::<String>()
        )),
        None => bad("underlyingResourceAction is missing; give Delete or Detach.".to_owned()),
    }
}

/// The names of the services that are deployed to a compute.
async fn services_on(tx: &mut Tx, compute: &ResourceId) -> Result<Vec<String>, ApiError> {
    let Some(workspace) = compute.parent() else { return Ok(Vec::new()) };
    let rows = tx.resource_list(&Filter::of_type(SERVICE_TYPE).child_of(&workspace)).await?;
    Ok(rows
        .iter()
        .filter(|row| service::compute_of(row).as_ref() == Some(compute))
        .map(|row| row.name().to_owned())
        .collect())
}

/// Marks a row as being deleted; gives the operation, which is the earlier one when the deletion was accepted before.
async fn accept_deletion(tx: &mut Tx, id: &ResourceId, condition: &Condition) -> Result<Option<Operation>, ApiError> {
    let Some(row) = tx.resource_mark_deleting(id, condition).await? else { return Ok(None) };
    let earlier = tx.operations_pending().await?.into_iter().find(|operation| {
        operation.resource == *id
            && operation.kind == OperationKind::Delete
            && operation.status == OperationStatus::InProgress
    });
    match earlier {
        Some(operation) => Ok(Some(operation)),
        None => Ok(Some(tx.operation_create(id, OperationKind::Delete, row.generation).await?)),
    }
}
