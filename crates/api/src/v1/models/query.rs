//! Lists of models.

use std::cmp::Reverse;

use casemate_model::{Fault, Resource, asset::MODEL_VERSION_TYPE};
use casemate_store::Filter;
use serde_json::{Value, json};

use super::{
    Asked,
    shown::{number, show},
};
use crate::{ApiState, OpContext, call::Query, context::Outcome, respond};

/// Models in a page when the client names no number, and at most.
const PAGE: usize = 255;

/// Lists the models that the query asks for, newest first.
pub(super) async fn list(ctx: &OpContext, state: &ApiState, asked: &Asked) -> Outcome {
    asked.authorize(ctx, "models/read")?;
    let query = &asked.call.query;
    let all = Filter::of_type(MODEL_VERSION_TYPE).within(&asked.workspace.id);
    let mut rows = state.store.resource_list(&all).await?;
    rows.retain(|row| !row.deleting && number(row).is_some());
    if query.get("latestVersionOnly").is_some_and(|only| only.eq_ignore_ascii_case("true")) {
        rows = latest(rows);
    }
    match query.get("orderBy").unwrap_or_default().to_ascii_lowercase().as_str() {
        "createdatasc" | "updatedatasc" => rows.sort_by_key(|row| (row.system.created_at, number(row))),
        _ => rows.sort_by_key(|row| Reverse((row.system.created_at, number(row)))),
    }
    let mut items = Vec::new();
    for row in &rows {
        let shown = show(row)?;
        if is_wanted(query, &shown) {
            items.push(shown);
        }
    }
    page(ctx, asked, items)
}

fn latest(mut rows: Vec<Resource>) -> Vec<Resource> {
    rows.sort_by_key(|row| (row.id.parent(), Reverse(number(row))));
    rows.dedup_by_key(|row| row.id.parent());
    rows
}

fn is_wanted(query: &Query, model: &Value) -> bool {
    let same = |key: &str, field: &str| {
        query
            .get(key)
            .is_none_or(|wanted| model[field].as_str().is_some_and(|found| found.eq_ignore_ascii_case(wanted)))
    };
    let dataset =
        |wanted: &str| model["datasets"].as_array().is_some_and(|sets| sets.iter().any(|set| set["id"] == wanted));
    same("name", "name")
        && same("framework", "framework")
        && same("runId", "runId")
        && query
            .get("description")
            .is_none_or(|part| model["description"].as_str().is_some_and(|text| text.contains(part)))
        && query.get("datasetId").is_none_or(dataset)
        && query.get("tag").is_none_or(|tag| has_all(&model["kvTags"], tag))
        && query.get("tags").is_none_or(|tags| has_all(&model["kvTags"], tags))
        && query.get("properties").is_none_or(|wanted| has_all(&model["properties"], wanted))
}

/// Whether a map has all of `KEY,KEY=VALUE,…`.
pub(crate) fn has_all(map: &Value, wanted: &str) -> bool {
    wanted.split(',').filter(|part| !part.is_empty()).all(|part| match part.split_once('=') {
        Some((key, value)) => map[key].as_str() == Some(value),
        None => map.get(part).is_some(),
    })
}

fn page(ctx: &OpContext, asked: &Asked, items: Vec<Value>) -> Outcome {
    let query = &asked.call.query;
    let number = |key: &str| match query.get(key) {
        None => Ok(None),
        Some(text) => text
            .parse::<usize>()
            .map(Some)
            .map_err(|_| Fault::invalid("BadArgument", format!("{key} is not a number.")).at(key)),
    };
    let count = number("count")?.filter(|count| *count > 0).map_or(PAGE, |count| count.min(PAGE));
    let skip = number("$skipToken")?.or(number("offset")?).unwrap_or(0);
    let total = items.len();
    let shown: Vec<Value> = items.into_iter().skip(skip).take(count).collect();
    let next = skip.saturating_add(shown.len());
    let link = (next < total && !shown.is_empty()).then(|| {
        let mut again = url::form_urlencoded::Serializer::new(String::new());
        again.append_pair("count", &count.to_string()).append_pair("$skipToken", &next.to_string());
        format!("{}/modelmanagement/v1.0{}/models?{}", ctx.base, asked.workspace.id, again.finish())
    });
    Ok(respond::ok(&json!({"value": shown, "nextLink": link})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_by_key_and_by_value() {
        let tags = json!({"area": "diabetes", "type": "regression"});
        for (wanted, expected) in [
            ("area", true),
            ("area=diabetes", true),
            ("area=diabetes,type", true),
            ("area=other", false),
            ("area,missing", false),
            ("", true),
        ] {
            assert_eq!(has_all(&tags, wanted), expected, "{wanted}");
        }
    }
}
