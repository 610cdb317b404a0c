//! Resource groups.

use casemate_model::{Fault, Resource, ResourceId, operation::OperationKind};
use casemate_store::{Condition, Filter, Put, Tx};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    filter::{self, Clause},
    shape,
};
use crate::{
    call::{Call, Target},
    context::{OpContext, Outcome},
    error::ApiError,
    respond,
    state::ApiState,
};

const GROUP_TYPE: &str = "Microsoft.Resources/resourceGroups";
const READ: &str = "Microsoft.Resources/subscriptions/resourceGroups/read";
const WRITE: &str = "Microsoft.Resources/subscriptions/resourceGroups/write";
const DELETE: &str = "Microsoft.Resources/subscriptions/resourceGroups/delete";

pub(super) async fn dispatch(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Resource(id), &Method::GET) => {
            ctx.authorize(READ, id)?;
            let row = state.store.resource_get(id).await?.ok_or_else(|| shape::not_found(id))?;
            Ok(respond::resource(call, &row))
        }
        (Target::Resource(id), &Method::HEAD) => {
            ctx.authorize(READ, id)?;
            let there = state.store.resource_get(id).await?.is_some();
            Ok(if there { respond::no_content() } else { ApiError::from(shape::not_found(id)).head() })
        }
        (Target::Resource(id), &Method::PUT) => {
            ctx.authorize(WRITE, id)?;
            let (body, condition) = (call.json()?, call.condition()?);
            let mut tx = state.store.begin().await?;
            let put = write(&mut tx, ctx, id, body, &condition).await?;
            tx.commit().await?;
            Ok(respond::written(&put))
        }
        (Target::Resource(id), &Method::PATCH) => patch(ctx, state, call, id).await,
        (Target::Resource(id), &Method::DELETE) => delete(ctx, state, call, id).await,
        (Target::Collection { parent: Some(scope), .. }, &Method::GET) => list(ctx, state, call, scope).await,
        _ => call.method_not_allowed(),
    }
}

/// Writes a group; also used by templates at the subscription.
pub(super) async fn write(
    tx: &mut Tx,
    ctx: &OpContext,
    id: &ResourceId,
    body: Value,
    condition: &Condition,
) -> Result<Put, ApiError> {
    check_name(id.name())?;
    let given = shape::object(body)?;
    let existing = tx.resource_get(id).await?;
    let location = shape::location(given.get("location"))?;
    if let Some(existing) = &existing
        && existing.location() != Some(location.as_str())
    {
        let message = format!(
            "Invalid resource group location '{location}'. The resource group '{}' already exists in location '{}'; a \
             group can't move. Leave the location as it is, or delete the group first.",
            id.name(),
            existing.location().unwrap_or_default()
        );
        return Err(Fault::conflict("InvalidResourceGroupLocation", message).at("location").into());
    }
    let mut kept = json!({"location": location, "tags": shape::tags(given.get("tags"))?, "properties": {}});
    if let Some(managed_by) = given.get("managedBy").filter(|value| value.is_string()) {
        kept["managedBy"] = managed_by.clone();
    }
    Ok(tx.resource_put(id, kept, condition, &ctx.author()).await?)
}

/// 1 to 90 letters, digits, `_ - . ( )`, not ending in a period.
fn check_name(name: &str) -> Result<(), Fault> {
    let fits = (1..=90).contains(&name.chars().count())
        && name.chars().all(|c| c.is_alphanumeric() || "_-.()".contains(c))
        && !name.ends_with('.');
    if fits {
        return Ok(());
    }
    let message = format!(
        "The resource group name '{name}' is invalid: it may have 1 to 90 letters, digits and '_', '-', '.', '(', ')', \
         and must not end in a period."
    );
    Err(Fault::invalid("InvalidResourceGroup", message).at("name"))
}

async fn patch(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    ctx.authorize(WRITE, id)?;
    let (given, condition) = (shape::object(call.json()?)?, call.condition()?);
    let mut tx = state.store.begin().await?;
    let mut body = tx.resource_get(id).await?.ok_or_else(|| shape::not_found(id))?.body;
    if given.contains_key("tags") {
        body["tags"] = shape::tags(given.get("tags"))?;
    }
    let put = tx.resource_put(id, body, &condition, &ctx.author()).await?;
    tx.commit().await?;
    Ok(respond::written(&put))
}

/// Marks the group and all that lies in it; the reconcilers take it away and finish the operation.
async fn delete(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    ctx.authorize(DELETE, id)?;
    let condition = call.condition()?;
    let mut tx = state.store.begin().await?;
    let row = tx.resource_mark_deleting(id, &condition).await?.ok_or_else(|| shape::not_found(id))?;
    crate::network::require_free(&mut tx, id).await?;
    for inner in tx.resource_list(&Filter::default().within(id)).await? {
        tx.resource_mark_deleting(&inner.id, &Condition::None).await?;
    }
    let operation = tx.operation_create(id, OperationKind::Delete, row.generation).await?;
    tx.commit().await?;
    Ok(respond::accepted_delete(ctx, &operation))
}

async fn list(ctx: &OpContext, state: &ApiState, call: &Call, scope: &ResourceId) -> Outcome {
    let text = call.query.get("$filter");
    let clauses = filter::parse(text)?;
    let rows = state.store.resource_list(&Filter::of_type(GROUP_TYPE).within(scope)).await?;
    let rows = ctx.readable(scope, READ, rows)?;
    let mut wanted = Vec::new();
    for row in rows {
        if matches(&row, &clauses).map_err(|why| filter::invalid(text.unwrap_or_default(), &why))? {
            wanted.push(row.to_public());
        }
    }
    respond::list(ctx, call, &format!("{scope}/resourcegroups"), wanted)
}

fn matches(row: &Resource, clauses: &[Clause]) -> Result<bool, String> {
    let (name, value) = super::listing::tag_wanted(clauses)?;
    for clause in clauses {
        match clause {
            Clause::Equals(field, _) if matches!(field.as_str(), "tagname" | "tagvalue") => {}
            Clause::Equals(field, _) | Clause::Differs(field, _) | Clause::Holds(field, _) => {
                return Err(format!("the field '{field}' is not known for groups; use tagName and tagValue"));
            }
            Clause::Call(function, _) => return Err(format!("the function '{function}' is not known for groups")),
        }
    }
    Ok(super::listing::has_tag(row, name, value))
}

impl ApiError {
    /// A HEAD's answer has no body, hence only the status.
    fn head(&self) -> axum::response::Response {
        use axum::response::IntoResponse;
        let status = casemate_wire::envelope::status_of(self.fault());
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).into_response()
    }
}
