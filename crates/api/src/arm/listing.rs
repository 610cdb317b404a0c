//! All resources of a subscription or group, filtered.

use casemate_model::Resource;
use casemate_store::Filter;
use http::Method;
use serde_json::{Value, json};

use super::filter::{self, Clause};
use crate::{
    call::{Call, Target},
    context::{OpContext, Outcome},
    respond,
    state::ApiState,
};

/// Types below another resource that are listed all the same.
const LISTED_CHILDREN: &[&str] = &[
    "microsoft.machinelearningservices/workspaces/onlineendpoints",
    "microsoft.machinelearningservices/workspaces/onlineendpoints/deployments",
];
/// Namespaces whose resources are not listed.
const UNLISTED: &[&str] = &["microsoft.resources/", "microsoft.authorization/", "casemate."];

pub(super) async fn dispatch(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    let (Target::Collection { parent: Some(scope), .. }, &Method::GET) = (&call.target, &call.method) else {
        return call.method_not_allowed();
    };
    let text = call.query.get("$filter");
    let clauses = filter::parse(text)?;
    if scope.resource_group().is_some() && state.store.resource_get(scope).await?.is_none() {
        return Err(super::shape::not_found(scope).into());
    }
    let mut wanted = Filter::default().within(scope);
    for clause in &clauses {
        match clause {
            Clause::Equals(field, value) if field == "resourcetype" => wanted.resource_type = Some(value.clone()),
            Clause::Equals(field, value) if field == "name" => wanted.name = Some(value.clone()),
            _ => {}
        }
    }
    let rows = state.store.resource_list(&wanted).await?.into_iter().filter(is_listed).collect();
    let rows = ctx.readable(scope, "Microsoft.Resources/subscriptions/resources/read", rows)?;
    let mut shown = Vec::new();
    for row in &rows {
        if matches(row, &clauses).map_err(|why| filter::invalid(text.unwrap_or_default(), &why))? {
            shown.push(show(row));
        }
    }
    respond::list(ctx, call, &format!("{scope}/resources"), shown)
}

fn is_listed(row: &Resource) -> bool {
    let kind = row.id.resource_type().to_lowercase();
    let is_top = kind.split('/').count() == 2;
    (is_top || LISTED_CHILDREN.contains(&kind.as_str())) && !UNLISTED.iter().any(|start| kind.starts_with(start))
}

fn show(row: &Resource) -> Value {
    let mut shown = json!({
        "id": row.id.as_str(),
        "name": full_name(row),
        "type": row.id.resource_type(),
        "createdTime": row.system.created_at.to_string(),
        "changedTime": row.system.last_modified_at.to_string(),
        "provisioningState": row.provisioning_state(),
    });
    for key in ["location", "tags", "kind", "sku", "identity", "managedBy"] {
        if let Some(value) = row.body.get(key).filter(|value| !value.is_null()) {
            shown[key] = value.clone();
        }
    }
    shown
}

/// `workspace` or `workspace/endpoint`, as the original names resources in this list.
fn full_name(row: &Resource) -> String {
    let depth = row.id.resource_type().split('/').count().saturating_sub(1).max(1);
    let parts: Vec<&str> = row.id.as_str().split('/').collect();
    let names: Vec<&str> = parts.into_iter().rev().step_by(2).take(depth).collect();
    names.into_iter().rev().collect::<Vec<_>>().join("/")
}

fn matches(row: &Resource, clauses: &[Clause]) -> Result<bool, String> {
    let (tag_name, tag_value) = tag_wanted(clauses)?;
    let mut all = has_tag(row, tag_name, tag_value);
    for clause in clauses {
        let (field, value, wanted) = match clause {
            Clause::Holds(field, text) if field == "name" => {
                all &= row.name().to_lowercase().contains(&text.to_lowercase());
                continue;
            }
            Clause::Holds(field, _) => return Err(format!("substringof() is for the name here, not for '{field}'")),
            Clause::Equals(field, value) => (field.as_str(), value, true),
            Clause::Differs(field, value) => (field.as_str(), value, false),
            Clause::Call(function, _) => return Err(format!("the function '{function}' is not known for resources")),
        };
        let is = match field {
            "resourcetype" => row.id.is_type(value),
            "name" => row.name().eq_ignore_ascii_case(value) || full_name(row).eq_ignore_ascii_case(value),
            "resourcegroup" => row.id.resource_group().is_some_and(|group| group.eq_ignore_ascii_case(value)),
            "location" => row.location().is_some_and(|location| location.eq_ignore_ascii_case(value)),
            "tagname" | "tagvalue" => continue,
            other => {
                let known = "resourceType, name, resourceGroup, location, tagName and tagValue";
                return Err(format!("the field '{other}' is not known for resources; known are {known}"));
            }
        };
        all &= is == wanted;
    }
    Ok(all)
}

/// The tag that a filter names.
pub(super) fn tag_wanted(clauses: &[Clause]) -> Result<(Option<&str>, Option<&str>), String> {
    let find = |wanted: &str| {
        clauses.iter().find_map(|clause| match clause {
            Clause::Equals(field, value) if field == wanted => Some(value.as_str()),
            _ => None,
        })
    };
    match (find("tagname"), find("tagvalue")) {
        (None, Some(_)) => Err("tagValue needs a tagName beside it".to_owned()),
        pair => Ok(pair),
    }
}

pub(super) fn has_tag(row: &Resource, name: Option<&str>, value: Option<&str>) -> bool {
    let Some(name) = name else { return true };
    let tags = row.tags();
    let found = tags.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
    found.is_some_and(|(_, has)| value.is_none_or(|value| has == value))
}
