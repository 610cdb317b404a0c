//! JSON: two spaces, keys in order.

use std::io::{IsTerminal, stdout};

use serde_json::Value;

/// Without colours.
pub(super) fn plain(value: &Value) -> String {
    format!("{value:#}\n")
}

/// With colours on a terminal.
pub(super) fn coloured(value: &Value) -> String {
    if !stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
        return plain(value);
    }
    let mut text = String::new();
    write(value, 0, &mut text);
    text.push('\n');
    text
}

const KEY: &str = "\u{1b}[94m";
const TEXT: &str = "\u{1b}[33m";
const OTHER: &str = "\u{1b}[34m";
const RESET: &str = "\u{1b}[0m";

fn write(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth + 1);
    let end = "  ".repeat(depth);
    match value {
        Value::Array(items) if !items.is_empty() => {
            text.push_str("[\n");
            for (number, item) in items.iter().enumerate() {
                text.push_str(&indent);
                write(item, depth + 1, text);
                text.push_str(if number + 1 == items.len() { "\n" } else { ",\n" });
            }
            text.push_str(&format!("{end}]"));
        }
        Value::Object(map) if !map.is_empty() => {
            text.push_str("{\n");
            for (number, (key, item)) in map.iter().enumerate() {
                text.push_str(&format!("{indent}{KEY}{}{RESET}: ", Value::from(key.as_str())));
                write(item, depth + 1, text);
                text.push_str(if number + 1 == map.len() { "\n" } else { ",\n" });
            }
            text.push_str(&format!("{end}}}"));
        }
        Value::String(_) => text.push_str(&format!("{TEXT}{value}{RESET}")),
        other => text.push_str(&format!("{OTHER}{other}{RESET}")),
    }
}
