//! Template deployments: a document becomes resources, all of them or none, in one transaction.
//!
//! Since nothing here takes time, a deployment has ended when its PUT is answered, and a document that can't be worked
//! off is refused at once instead of leaving a failed deployment behind.

mod run;

use casemate_model::{Fault, FaultKind, Resource, ResourceId};
use casemate_store::Filter;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::shape;
use crate::{
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    respond,
    state::ApiState,
};

const DEPLOYMENT_TYPE: &str = "Microsoft.Resources/deployments";
/// Most deployments that are remembered in one scope; the oldest go first.
const MAX_KEPT: usize = 800;

pub(super) async fn dispatch(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Resource(id), &Method::GET | &Method::HEAD) => {
            ctx.authorize_call(call)?;
            let row = state.store.resource_get(id).await?.ok_or_else(|| missing(id))?;
            if call.method == Method::HEAD {
                return Ok(respond::no_content());
            }
            Ok(respond::shown(call, &row, &show(&row)))
        }
        (Target::Resource(id), &Method::PUT) => {
            ctx.authorize_call(call)?;
            let (wanted, condition) = (Wanted::read(call)?, call.condition()?);
            let mut tx = state.store.begin().await?;
            let put = run::deploy(&mut tx, ctx, state, id, &wanted, &condition, 0).await?;
            prune(&mut tx, id).await?;
            tx.commit().await?;
            Ok(respond::written_as(&put, &show(&put.resource)))
        }
        (Target::Resource(id), &Method::DELETE) => {
            ctx.authorize_call(call)?;
            let mut tx = state.store.begin().await?;
            tx.resource_remove(id).await?;
            tx.commit().await?;
            Ok(respond::no_content())
        }
        (Target::Action { resource, name }, &Method::POST) if name.eq_ignore_ascii_case("validate") => {
            ctx.authorize_call(call)?;
            let wanted = Wanted::read(call)?;
            // Worked off for real and never committed.
            let mut tx = state.store.begin().await?;
            let put = run::deploy(&mut tx, ctx, state, resource, &wanted, &casemate_store::Condition::None, 0).await?;
            Ok(respond::json(StatusCode::OK, &show(&put.resource)))
        }
        (Target::Collection { parent: Some(scope), kind }, &Method::GET) if kind.ends_with("/operations") => {
            ctx.authorize(&format!("{DEPLOYMENT_TYPE}/operations/read"), scope)?;
            let row = state.store.resource_get(scope).await?.ok_or_else(|| missing(scope))?;
            let operations = row.observed.get(run::OPERATIONS).and_then(Value::as_array).cloned().unwrap_or_default();
            respond::list(ctx, call, &call.path(), operations)
        }
        (Target::Collection { parent: Some(scope), .. }, &Method::GET) => {
            let rows = state.store.resource_list(&Filter::of_type(DEPLOYMENT_TYPE).child_of(scope)).await?;
            let rows = ctx.readable(scope, &call.permission(), rows)?;
            respond::list(ctx, call, &call.path(), rows.iter().map(show).collect())
        }
        _ => call.method_not_allowed(),
    }
}

fn missing(id: &ResourceId) -> Fault {
    Fault::not_found("DeploymentNotFound", format!("Deployment '{}' could not be found.", id.name())).at(id.as_str())
}

/// What a PUT asks for.
struct Wanted {
    template: Value,
    parameters: Value,
    location: Option<String>,
    tags: Value,
}

impl Wanted {
    fn read(call: &Call) -> Result<Self, Fault> {
        Self::of(call.json()?)
    }

    /// What a body asks for: a request's, or that of a deployment inside another.
    fn of(body: Value) -> Result<Self, Fault> {
        let body = shape::object(body)?;
        let properties = body.get("properties").cloned().unwrap_or_default();
        let not_here = |what: &str| {
            let message = format!(
                "{what} is not available on this platform; send the template and its parameters in the request."
            );
            Err(Fault::new(FaultKind::NotImplemented, "NotImplemented", message).at("properties"))
        };
        let has = |key: &str| properties.get(key).is_some_and(|value| !value.is_null());
        if has("templateLink") || has("parametersLink") {
            return not_here("A linked template");
        }
        if let Some(mode) = properties.get("mode").filter(|mode| !mode.is_null())
            && shape::one_of(mode, "mode", &["Incremental", "Complete"])? == "Complete"
        {
            return not_here("The mode Complete (which deletes what the template does not name)");
        }
        if !has("template") {
            let message = "The deployment needs 'properties.template', a JSON object.";
            return Err(Fault::invalid("InvalidRequestContent", message).at("properties.template"));
        }
        let location = body.get("location").filter(|location| !location.is_null());
        Ok(Self {
            template: properties["template"].clone(),
            parameters: properties.get("parameters").cloned().unwrap_or_default(),
            location: location.map(|location| shape::location(Some(location))).transpose()?,
            tags: shape::tags(body.get("tags"))?,
        })
    }
}

fn show(row: &Resource) -> Value {
    let mut shown = row.to_public();
    if let Some(location) = shown.get("location").cloned().filter(Value::is_null) {
        drop(location);
        if let Some(map) = shown.as_object_mut() {
            map.remove("location");
        }
    }
    shown
}

/// Forgets the oldest deployments beyond the limit.
async fn prune(tx: &mut casemate_store::Tx, id: &ResourceId) -> Result<(), ApiError> {
    let Some(scope) = id.parent() else { return Ok(()) };
    let mut rows = tx.resource_list(&Filter::of_type(DEPLOYMENT_TYPE).child_of(&scope)).await?;
    rows.sort_by_key(|row| row.system.last_modified_at);
    for row in rows.iter().rev().skip(MAX_KEPT) {
        tx.resource_remove(&row.id).await?;
    }
    Ok(())
}

/// The body that is kept of a deployment.
fn kept(wanted: &Wanted, facts: &run::Facts) -> Value {
    json!({
        "location": wanted.location,
        "tags": wanted.tags,
        "properties": {
            "mode": "Incremental",
            "timestamp": facts.ended.to_string(),
            "duration": facts.duration.to_string(),
            "correlationId": facts.correlation.to_string(),
            "parameters": facts.parameters,
            "outputs": facts.outputs,
            "outputResources": facts.resources.iter().map(|id| json!({"id": id.as_str()})).collect::<Vec<_>>(),
            "providers": facts.providers(),
            "dependencies": [],
        },
    })
}
