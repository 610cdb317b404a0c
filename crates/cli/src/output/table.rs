//! Columns for reading: a heading, dashes, one row for each item. Only plain values are shown.

use serde_json::{Map, Value};

use super::order::KeyOrder;

/// Keys that are left out: long, or the same in every row.
const SKIPPED: [&str; 3] = ["id", "type", "etag"];

pub(super) fn render(value: &Value, order: &KeyOrder) -> String {
    let items = match value {
        Value::Array(items) => items.as_slice(),
        other => std::slice::from_ref(other),
    };
    let rows: Vec<Vec<(String, String)>> = items.iter().map(|item| row(item, order)).collect();
    let mut columns: Vec<String> = Vec::new();
    for (name, _) in rows.iter().flatten() {
        if !columns.contains(name) {
            columns.push(name.clone());
        }
    }
    if columns.is_empty() {
        return String::from("\n");
    }
    let mut lines = vec![columns.clone()];
    for row in &rows {
        let cell = |column: &String| row.iter().find(|(name, _)| name == column).map(|(_, text)| text.clone());
        lines.push(columns.iter().map(|column| cell(column).unwrap_or_default()).collect());
    }
    // A column is two wider than its heading, as the tables of `az` are.
    let longest = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(|at| longest(at).max(columns[at].chars().count() + 2)).collect();
    lines.insert(1, widths.iter().map(|width| "-".repeat(*width)).collect());
    lines.iter().map(|line| padded(line, &widths) + "\n").collect()
}

fn padded(cells: &[String], widths: &[usize]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

fn row(item: &Value, order: &KeyOrder) -> Vec<(String, String)> {
    match item {
        Value::Object(map) => entries(map, order),
        Value::Array(items) => {
            items.iter().enumerate().map(|(at, value)| (format!("Column{}", at + 1), text(value))).collect()
        }
        other => vec![("Result".to_owned(), text(other))],
    }
}

fn entries(map: &Map<String, Value>, order: &KeyOrder) -> Vec<(String, String)> {
    let plain = |value: &Value| !value.is_null() && !value.is_array() && !value.is_object();
    order
        .entries(map)
        .into_iter()
        .filter(|(key, value)| !SKIPPED.contains(&key.as_str()) && plain(value))
        .map(|(key, value)| (capitalized(key), text(value)))
        .collect()
}

fn capitalized(key: &str) -> String {
    let mut letters = key.chars();
    letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect()
}

fn text(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        other => other.to_string(),
    };
    text.replace(['\n', '\r'], " ")
}
