//! Kubernetes and other computes: not on this platform yet, said in so many words.

use casemate_model::{Fault, FaultKind};
use http::Method;
use serde_json::{Value, json};

use super::shape;
use crate::{
    call::{Call, Target},
    context::{OpContext, Outcome},
    respond,
    state::ApiState,
};

pub(super) async fn dispatch(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    ctx.authorize_call(call)?;
    let scope = call.target.scope();
    let workspace = scope.and_then(|scope| scope.ancestor(casemate_model::workspace::WORKSPACE_TYPE));
    if let Some(workspace) = workspace
        && state.store.resource_get(&workspace).await?.is_none()
    {
        return Err(shape::not_found(&workspace).into());
    }
    match (&call.target, &call.method) {
        (Target::Resource(_), &Method::PUT | &Method::PATCH) => {
            let body = call.json()?;
            let given = body.get("properties").and_then(|properties| properties.get("computeType"));
            let kind = given.and_then(Value::as_str).unwrap_or("Kubernetes");
            let shown: String = kind.chars().take(40).collect();
            let message = format!(
                "{shown} compute is not available on this platform yet. Use managed online endpoints: leave 'compute' \
                 out of the endpoint's YAML."
            );
            Err(Fault::new(FaultKind::NotImplemented, "NotImplemented", message).into())
        }
        (Target::Collection { .. }, &Method::GET) => Ok(respond::ok(&json!({"value": []}))),
        (Target::Resource(_), &Method::DELETE) => Ok(respond::no_content()),
        (Target::Resource(id) | Target::Action { resource: id, .. }, _) => Err(shape::not_found(id).into()),
        _ => call.method_not_allowed(),
    }
}
