//! Helpers for turning the API's answers into what the command line prints: snake case, no nulls.

use serde_json::{Map, Value, json};

/// `SystemAssigned` → `system_assigned`, `AllowOnlyApprovedOutbound` → `allow_only_approved_outbound`.
#[must_use]
pub fn snake_from_camel(text: &str) -> String {
    let mut snake = String::with_capacity(text.len() + 4);
    let mut before_was_lower = false;
    for c in text.chars() {
        if c.is_uppercase() && before_was_lower {
            snake.push('_');
        }
        before_was_lower = c.is_lowercase() || c.is_ascii_digit();
        snake.extend(c.to_lowercase());
    }
    snake
}

/// `allow_only_approved_outbound` → `AllowOnlyApprovedOutbound`.
#[must_use]
pub fn camel_from_snake(text: &str) -> String {
    text.split('_')
        .flat_map(|word| {
            let mut letters = word.chars();
            letters.next().into_iter().flat_map(char::to_uppercase).chain(letters)
        })
        .collect()
}

/// The value behind a JSON pointer, unless it is null.
pub(super) fn at<'v>(value: &'v Value, pointer: &str) -> Option<&'v Value> {
    value.pointer(pointer).filter(|value| !value.is_null())
}

/// The text behind a JSON pointer.
pub(super) fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// An object without the entries that are none.
pub(super) fn object<const N: usize>(entries: [(&str, Option<Value>); N]) -> Value {
    let map: Map<String, Value> =
        entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
    Value::Object(map)
}

/// A copy of what stands behind a pointer.
pub(super) fn copy(value: &Value, pointer: &str) -> Option<Value> {
    at(value, pointer).cloned()
}

/// `systemData` as the command line prints it.
pub(super) fn creation_context(value: &Value) -> Option<Value> {
    let system = at(value, "/systemData")?;
    let entries = [
        ("created_at", "createdAt"),
        ("created_by", "createdBy"),
        ("created_by_type", "createdByType"),
        ("last_modified_at", "lastModifiedAt"),
        ("last_modified_by", "lastModifiedBy"),
        ("last_modified_by_type", "lastModifiedByType"),
    ];
    let map: Map<String, Value> = entries
        .iter()
        .filter_map(|(shown, wire)| Some(((*shown).to_owned(), system.get(*wire).filter(|v| !v.is_null())?.clone())))
        .collect();
    Some(Value::Object(map))
}

/// Adds `resourceGroup` to every object whose `id` lies in one, as `az` does for all its output.
pub fn add_resource_group(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(add_resource_group),
        Value::Object(map) => {
            let group = map.get("id").and_then(Value::as_str).and_then(group_of).map(str::to_owned);
            if let Some(group) = group
                && !map.contains_key("resourceGroup")
            {
                map.insert("resourceGroup".to_owned(), json!(group));
            }
            map.values_mut().for_each(add_resource_group);
        }
        _ => {}
    }
}

fn group_of(id: &str) -> Option<&str> {
    let mut parts = id.strip_prefix("azureml:").unwrap_or(id).split('/');
    while let Some(part) = parts.next() {
        if part.eq_ignore_ascii_case("resourceGroups") {
            // The group itself is no resource in a group.
            let name = parts.next()?;
            return parts.next().map(|_| name);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases() {
        for (camel, snake) in [
            ("SystemAssigned", "system_assigned"),
            ("SystemAssigned,UserAssigned", "system_assigned,user_assigned"),
            ("AllowOnlyApprovedOutbound", "allow_only_approved_outbound"),
            ("Enabled", "enabled"),
            ("FQDN", "fqdn"),
        ] {
            assert_eq!(snake_from_camel(camel), snake);
        }
        assert_eq!(camel_from_snake("allow_internet_outbound"), "AllowInternetOutbound");
        assert_eq!(camel_from_snake("user_defined"), "UserDefined");
    }

    #[test]
    fn groups_are_added_once() {
        let mut value = json!([
            {"id": "/subscriptions/s/resourceGroups/g/providers/P/t/n", "x": {"id": "azureml:/subscriptions/s/resourceGroups/h/providers/P/t/n"}},
            {"id": "/subscriptions/s/resourceGroups/g"}, {"id": 3}]);
        add_resource_group(&mut value);
        assert_eq!(value[0]["resourceGroup"], "g");
        assert_eq!(value[0]["x"]["resourceGroup"], "h");
        assert!(value[1].get("resourceGroup").is_none() && value[2].get("resourceGroup").is_none());
    }
}
