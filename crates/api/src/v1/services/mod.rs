//! Services: models that are served on a compute or alone.
//!
//! A service is a row with versions below it, both in the shape of an endpoint and its deployments, so that the same
//! reconcilers, the same runtime and the same router serve it; what only these clients know lies in a hidden block. A
//! request's document is read into rows ([`wish`]) and rows are shown as a document ([`show`]); a patch is applied to the
//! document that the rows make ([`document`]) and read again as a whole.
//!
//! An operation of these clients is several of the platform's: one for the service's row, one for each version that
//! changes ([`operations`]).

mod addresses;
mod document;
mod environment;
mod keys;
mod operations;
mod show;
mod tls;
mod validate;
mod wish;
mod write;

#[cfg(test)]
mod tests;

use casemate_model::{
    Fault, Resource, ResourceId,
    service::{SERVICE_DEPLOYMENT_TYPE, SERVICE_TYPE},
};
use casemate_store::{Condition, Filter};
use http::Method;
use serde_json::{Value, json};

use super::{Asked, models};
use crate::{ApiError, ApiState, OpContext, context::Outcome, ml::endpoints::accept_deletion, respond};

/// Lines of a log when the client names no number, and at most.
const DEFAULT_TAIL: usize = 5000;
const MAX_TAIL: usize = 100_000;

/// Answers a request.
pub(crate) async fn handle(ctx: &OpContext, state: &ApiState, asked: &Asked) -> Outcome {
    match (&asked.call.method, asked.parts().as_slice()) {
        (&Method::POST, ["services", "validate", rest @ ..]) => validate::answer(ctx, state, asked, rest).await,
        (&Method::POST, ["services"]) => write::create(ctx, state, asked).await,
        (&Method::GET, ["services"]) => list(ctx, state, asked).await,
        (&Method::GET, ["services", name]) => {
            asked.authorize(ctx, "services/read")?;
            let service = Service::read(state, asked, name).await?;
            Ok(respond::ok(&show::service(state, asked, &service).await?))
        }
        (&Method::PATCH, ["services", name]) => write::update(ctx, state, asked, name).await,
        (&Method::DELETE, ["services", name]) => delete(ctx, state, asked, name).await,
        (&Method::GET, ["services", name, "logs"]) => logs(ctx, state, asked, name).await,
        (&Method::POST, ["services", name, action]) => keys::action(ctx, state, asked, name, action).await,
        (&Method::GET, ["operations", id]) => operations::get(ctx, state, asked, id).await,
        _ => Err(asked.nothing_here().into()),
    }
}

/// A service with its versions, the default one first.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) row: Resource,
    pub(crate) versions: Vec<Resource>,
}

impl Service {
    /// The service of this name.
    ///
    /// # Errors
    /// `ServiceNotFound`.
    pub(crate) async fn read(state: &ApiState, asked: &Asked, name: &str) -> Result<Self, ApiError> {
        let row = state.store.resource_get(&id(asked, name)?).await?;
        let row = row.ok_or_else(|| missing(asked, name))?;
        let versions = Filter::of_type(SERVICE_DEPLOYMENT_TYPE).child_of(&row.id);
        let versions = state.store.resource_list(&versions).await?;
        Ok(Self { row, versions: versions.into_iter().filter(|version| !version.deleting).collect() })
    }
}

/// The id of a service.
pub(crate) fn id(asked: &Asked, name: &str) -> Result<ResourceId, Fault> {
    asked.workspace.id.child("services", name)
}

fn missing(asked: &Asked, name: &str) -> Fault {
    let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    let message = format!("There is no service '{shown}' in the workspace '{}'.", asked.workspace.name());
    Fault::not_found("ServiceNotFound", message).at("name")
}

async fn list(ctx: &OpContext, state: &ApiState, asked: &Asked) -> Outcome {
    asked.authorize(ctx, "services/read")?;
    let rows = state.store.resource_list(&Filter::of_type(SERVICE_TYPE).child_of(&asked.workspace.id)).await?;
    let all = Filter::of_type(SERVICE_DEPLOYMENT_TYPE).within(&asked.workspace.id);
    let versions = state.store.resource_list(&all).await?;
    let mut items = Vec::new();
    for row in rows {
        let own = versions.iter().filter(|version| !version.deleting && version.id.is_within(&row.id));
        let service = Service { versions: own.cloned().collect(), row };
        let shown = show::service(state, asked, &service).await?;
        if is_wanted(asked, &shown) {
            items.push(shown);
        }
    }
    Ok(respond::ok(&json!({ "value": items })))
}

fn is_wanted(asked: &Asked, service: &Value) -> bool {
    let query = &asked.call.query;
    let models = || service["models"].as_array().into_iter().flatten();
    query
        .get("computeType")
        .is_none_or(|kind| service["computeType"].as_str().is_some_and(|own| own.eq_ignore_ascii_case(kind)))
        && query.get("modelName").is_none_or(|name| models().any(|model| model["name"] == name))
        && query.get("modelId").is_none_or(|id| models().any(|model| model["id"] == id))
        && query.get("tags").is_none_or(|tags| models::has_all(&service["kvTags"], tags))
        && query.get("properties").is_none_or(|wanted| models::has_all(&service["properties"], wanted))
        && ["imageId", "imageName", "imageDigest"].iter().all(|key| query.get(key).is_none())
}

async fn delete(ctx: &OpContext, state: &ApiState, asked: &Asked, name: &str) -> Outcome {
    asked.authorize(ctx, "services/delete")?;
    let mut tx = state.store.begin().await?;
    let Some(operation) = accept_deletion(&mut tx, &id(asked, name)?, &Condition::None).await? else {
        return Ok(respond::no_content());
    };
    tx.commit().await?;
    Ok(operations::accepted(ctx, asked, &[operation], &json!({})))
}

async fn logs(ctx: &OpContext, state: &ApiState, asked: &Asked, name: &str) -> Outcome {
    asked.authorize(ctx, "services/read")?;
    let service = Service::read(state, asked, name).await?;
    let query = &asked.call.query;
    let tail = query.get("tail").map_or(Some(DEFAULT_TAIL), |tail| tail.parse().ok());
    let tail = tail.filter(|tail| (1..=MAX_TAIL).contains(tail)).ok_or_else(|| {
        Fault::invalid("BadArgument", format!("tail is not a number of lines from 1 to {MAX_TAIL}.")).at("tail")
    })?;
    let init = query.get("init").is_some_and(|init| init.eq_ignore_ascii_case("true"));
    let container = if init { "StorageInitializer" } else { "InferenceServer" };
    let mut content = String::new();
    for version in &service.versions {
        let (logs, id) = (state.logs.clone(), version.id.clone());
        let read = tokio::task::spawn_blocking(move || logs.read(&id, container, tail)).await;
        let failed = || Fault::internal(format!("The logs of the service '{name}' could not be read; try again."));
        let read = read.map_err(|_| failed())?.map_err(|_| failed())?;
        if service.versions.len() > 1 {
            content.push_str(&format!("--- version {} ---\n", version.name()));
        }
        content.push_str(&read);
    }
    Ok(respond::ok(&json!({ "content": content })))
}
