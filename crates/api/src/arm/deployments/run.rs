//! Works a template off: resource after resource, each when what it refers to is there.

use std::collections::BTreeMap;

use casemate_model::{Fault, Resource, ResourceId};
use casemate_store::{Condition, Put, Tx};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Wanted, kept};
use crate::{
    arm::{provision, shape, subscriptions},
    context::OpContext,
    error::ApiError,
    state::ApiState,
    template::{Deployment, Halt, Known, Place, Template},
};

/// Observed of a deployment: its operations, as they are listed.
pub(super) const OPERATIONS: &str = "_operations";

/// What a finished deployment leaves behind.
pub(super) struct Facts {
    pub(super) ended: Timestamp,
    pub(super) duration: SignedDuration,
    pub(super) correlation: Uuid,
    pub(super) parameters: Value,
    pub(super) outputs: Value,
    pub(super) resources: Vec<ResourceId>,
}

impl Facts {
    /// The namespaces and types that were written.
    pub(super) fn providers(&self) -> Value {
        let mut by_namespace: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for id in &self.resources {
            let kind = id.resource_type();
            let (namespace, kind) = kind.split_once('/').unwrap_or((&kind, ""));
            let types = by_namespace.entry(namespace.to_owned()).or_default();
            let entry = json!({"resourceType": kind, "locations": [null]});
            if !types.contains(&entry) {
                types.push(entry);
            }
        }
        by_namespace
            .into_iter()
            .map(|(namespace, types)| json!({"namespace": namespace, "resourceTypes": types}))
            .collect()
    }
}

/// How deep deployments may lie in each other.
const MAX_NESTED: u8 = 4;

/// Writes all resources of a template and the deployment itself, which lies in `depth` others.
///
/// # Errors
/// What is wrong with the template, or what the first resource that can't be written would give to a PUT, with the
/// place in the template.
pub(super) async fn deploy(
    tx: &mut Tx,
    ctx: &OpContext,
    state: &ApiState,
    id: &ResourceId,
    wanted: &Wanted,
    condition: &Condition,
    depth: u8,
) -> Result<Put, ApiError> {
    check_name(id)?;
    let started = state.clock.now();
    let group = shape::require_parent(tx, id).await?;
    let place = Place {
        subscription: state.config.subscription,
        tenant: state.config.tenant,
        subscription_name: subscriptions::DISPLAY_NAME.to_owned(),
        group: group.as_ref().map(Resource::to_public),
        deployment_name: id.name().to_owned(),
        location: wanted.location.clone(),
        now: started,
    };
    let deployment = Deployment::new(Template::parse(&wanted.template)?, &wanted.parameters, place)?;
    let correlation = Uuid::new_v4();
    let mut work = Work { ctx, state, deployment: &deployment, known: Known::new(), done: Vec::new(), depth };
    work.write_all(tx).await?;
    let outputs = work.outputs(tx).await?;
    let parameters = deployment.shown_parameters().map_err(halted)?;
    let ended = state.clock.now();
    let facts = Facts {
        ended,
        duration: ended.duration_since(started),
        correlation,
        parameters,
        outputs,
        resources: work.done.iter().map(|(put, _)| put.resource.id.clone()).collect(),
    };
    let mut put = tx.resource_put(id, kept(wanted, &facts), condition, &ctx.author()).await?;
    let seen = Map::from_iter([(OPERATIONS.to_owned(), operations(id, ctx, &work.done))]);
    put.resource.observed.extend(seen.clone());
    tx.resource_observe(id, seen).await?;
    Ok(put)
}

fn check_name(id: &ResourceId) -> Result<(), Fault> {
    let name = id.name();
    let fits =
        (1..=64).contains(&name.chars().count()) && name.chars().all(|c| c.is_alphanumeric() || "-_.()".contains(c));
    if fits {
        return Ok(());
    }
    let message = format!(
        "The deployment name '{name}' is invalid: it may have 1 to 64 letters, digits and '-', '_', '.', '(', ')'."
    );
    Err(Fault::invalid("InvalidDeploymentName", message).at("name"))
}

/// The answer to a need that comes where none may come.
fn halted(halt: Halt) -> Fault {
    match halt {
        Halt::Fault(fault) => fault,
        Halt::Needs(id) => Fault::invalid("InvalidTemplate", format!("The template refers to {id} where it can't.")),
    }
}

struct Work<'a> {
    ctx: &'a OpContext,
    state: &'a ApiState,
    deployment: &'a Deployment,
    known: Known,
    /// What was written, and when.
    done: Vec<(Put, Timestamp)>,
    depth: u8,
}

impl Work<'_> {
    async fn write_all(&mut self, tx: &mut Tx) -> Result<(), ApiError> {
        let declared = self.deployment.declared();
        let mut is_done = vec![false; declared.len()];
        loop {
            let mut moved = false;
            for at in 0..declared.len() {
                if is_done[at] || declared[at].after.iter().any(|before| !is_done[*before]) {
                    continue;
                }
                if self.write(tx, at, &is_done).await? {
                    is_done[at] = true;
                    moved = true;
                }
            }
            if is_done.iter().all(|done| *done) {
                return Ok(());
            }
            if !moved {
                let stuck = declared.iter().zip(&is_done).filter(|(_, done)| !**done);
                let stuck: Vec<String> =
                    stuck.map(|(resource, _)| format!("{} ({})", resource.place, resource.id)).collect();
                let message = format!(
                    "Deployment template validation failed: these resources wait for each other: {}. Take one of the \
                     'dependsOn' or reference() between them away.",
                    stuck.join(", ")
                );
                return Err(Fault::invalid("InvalidTemplate", message).at("dependsOn").into());
            }
        }
    }

    /// Writes one resource; false when another of the template must come first.
    async fn write(&mut self, tx: &mut Tx, at: usize, is_done: &[bool]) -> Result<bool, ApiError> {
        let declared = self.deployment.declared();
        let planned = loop {
            match self.deployment.plan(&declared[at], &self.known) {
                Ok(planned) => break planned,
                Err(Halt::Fault(fault)) => return Err(fault.into()),
                Err(Halt::Needs(id)) => {
                    let pending =
                        declared.iter().enumerate().any(|(other, one)| other != at && !is_done[other] && one.id == id);
                    if pending {
                        return Ok(false);
                    }
                    self.look_up(tx, id).await?;
                }
            }
        };
        let written = if planned.id.is_type(super::DEPLOYMENT_TYPE) {
            self.nested(tx, &planned.id, planned.body).await
        } else {
            provision::write(tx, self.ctx, self.state, &planned.id, planned.body).await
        };
        let put = written.map_err(|error| at_place(error, &declared[at].place, &planned.id))?;
        let shown = provision::show(self.ctx, self.state, &put.resource, serde_json::Map::new());
        self.known.insert(planned.id, Some(shown));
        self.done.push((put, self.state.clock.now()));
        Ok(true)
    }

    /// Works off a deployment inside this one. Its expressions were evaluated with this one's parameters, as is the
    /// default of the original.
    async fn nested(&self, tx: &mut Tx, id: &ResourceId, body: Value) -> Result<Put, ApiError> {
        self.ctx.authorize(&format!("{}/write", super::DEPLOYMENT_TYPE), id)?;
        if self.depth >= MAX_NESTED {
            let message = format!("Deployments lie in each other more than {MAX_NESTED} levels deep.");
            return Err(Fault::invalid("InvalidTemplate", message).at(id.as_str()).into());
        }
        let wanted = Wanted::of(body)?;
        Box::pin(deploy(tx, self.ctx, self.state, id, &wanted, &Condition::None, self.depth + 1)).await
    }

    async fn look_up(&mut self, tx: &mut Tx, id: ResourceId) -> Result<(), ApiError> {
        self.ctx.authorize(&format!("{}/read", id.resource_type()), &id)?;
        let found = tx.resource_get(&id).await?;
        let shown = found.map(|row| provision::show(self.ctx, self.state, &row, serde_json::Map::new()));
        self.known.insert(id, shown);
        Ok(())
    }

    async fn outputs(&mut self, tx: &mut Tx) -> Result<Value, ApiError> {
        loop {
            match self.deployment.outputs(&self.known) {
                Ok(outputs) => return Ok(outputs),
                Err(Halt::Fault(fault)) => return Err(fault.into()),
                Err(Halt::Needs(id)) => self.look_up(tx, id).await?,
            }
        }
    }
}

/// The fault of one resource, with its place in the template.
fn at_place(error: ApiError, place: &str, id: &ResourceId) -> ApiError {
    let mut fault = error.fault().clone();
    fault.message = format!("{} (The template's {place}, {id}; nothing of the template was written.)", fault.message);
    fault.target = fault.target.or_else(|| Some(place.to_owned()));
    fault.into()
}

fn operations(id: &ResourceId, ctx: &OpContext, done: &[(Put, Timestamp)]) -> Value {
    let entry = |number: Uuid, properties: Value| {
        let name = number.simple().to_string().to_uppercase();
        json!({"id": format!("{id}/operations/{name}"), "operationId": name, "properties": properties})
    };
    let mut listed: Vec<Value> = Vec::new();
    for (put, at) in done {
        let written = &put.resource.id;
        listed.push(entry(
            Uuid::new_v4(),
            json!({
                "provisioningOperation": "Create",
                "provisioningState": "Succeeded",
                "timestamp": at.to_string(),
                "duration": "PT0S",
                "trackingId": ctx.request_id.to_string(),
                "serviceRequestId": ctx.request_id.to_string(),
                "statusCode": if put.created { "Created" } else { "OK" },
                "targetResource": {
                    "id": written.as_str(),
                    "resourceType": written.resource_type(),
                    "resourceName": written.name(),
                },
            }),
        ));
    }
    Value::Array(listed)
}
