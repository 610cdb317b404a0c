//! Values separated by tabs: one row for each item of a list, without a heading. Lists inside a row are shown as their
//! length, objects as nothing.

use serde_json::Value;

use super::order::KeyOrder;

pub(super) fn render(value: &Value, order: &KeyOrder) -> String {
    let rows = match value {
        Value::Array(items) => items.as_slice(),
        other => std::slice::from_ref(other),
    };
    rows.iter().map(|item| row(item, order) + "\n").collect()
}

fn row(item: &Value, order: &KeyOrder) -> String {
    match item {
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join("\t"),
        Value::Object(map) => {
            order.entries(map).into_iter().map(|(_, value)| cell(value)).collect::<Vec<_>>().join("\t")
        }
        // A boolean is lower-case when it stands alone, and capitalized inside a row.
        Value::Bool(value) => value.to_string(),
        other => cell(other),
    }
}

fn cell(value: &Value) -> String {
    match value {
        Value::Array(items) => items.len().to_string(),
        Value::Object(_) => String::new(),
        Value::String(text) => text.clone(),
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
    }
}
