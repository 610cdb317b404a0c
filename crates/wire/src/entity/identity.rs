//! Managed identities of endpoints and workspaces.

use serde_json::{Map, Value, json};

use super::show;
use crate::yaml::{Fields, Kind};

/// Who the resource is when it calls others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// `SystemAssigned`, `UserAssigned`, `SystemAssigned,UserAssigned` or `None`.
    pub kind: &'static str,
    /// Ids of user-assigned identities.
    pub user_assigned: Vec<String>,
}

impl Default for Identity {
    fn default() -> Self {
        Self { kind: "SystemAssigned", user_assigned: Vec::new() }
    }
}

impl Identity {
    /// Reads the field `identity`.
    pub(super) fn read(fields: &Fields<'_>) -> Option<Self> {
        let inner = fields.nested("identity")?;
        let kind = inner.choice(
            "type",
            &[
                ("system_assigned", "SystemAssigned"),
                ("user_assigned", "UserAssigned"),
                ("system_assigned,user_assigned", "SystemAssigned,UserAssigned"),
                ("none", "None"),
            ],
        );
        inner.ignore(&["principal_id", "tenant_id"]);
        inner.require("type", kind.is_some());
        let mut user_assigned = Vec::new();
        for item in inner.list("user_assigned_identities") {
            if let Kind::Scalar { text, .. } = &item.kind {
                user_assigned.push(text.clone());
            } else if let Some(one) = Fields::open(item, "the user-assigned identity", inner.issues()) {
                one.ignore(&["client_id", "principal_id", "object_id"]);
                let id = one.text("resource_id");
                one.require("resource_id", id.is_some());
                user_assigned.extend(id);
                one.finish();
            }
        }
        if kind.is_some_and(|kind| kind.contains("UserAssigned")) && user_assigned.is_empty() {
            inner.require("user_assigned_identities", false);
        }
        inner.finish();
        Some(Self { kind: kind.unwrap_or("SystemAssigned"), user_assigned })
    }

    /// The API's shape.
    #[must_use]
    pub fn to_arm(&self) -> Value {
        let mut body = json!({"type": self.kind});
        if !self.user_assigned.is_empty() {
            let map: Map<String, Value> = self.user_assigned.iter().map(|id| (id.clone(), json!({}))).collect();
            body["userAssignedIdentities"] = Value::Object(map);
        }
        body
    }

    /// What the command line prints for the API's shape.
    pub(super) fn show(arm: &Value) -> Option<Value> {
        let identity = show::at(arm, "/identity")?;
        let users = identity.get("userAssignedIdentities").and_then(Value::as_object).map(|map| {
            let shown = map.iter().map(|(id, one)| {
                show::object([
                    ("resource_id", Some(json!(id))),
                    ("principal_id", show::copy(one, "/principalId")),
                    ("client_id", show::copy(one, "/clientId")),
                ])
            });
            Value::Array(shown.collect())
        });
        Some(show::object([
            ("type", show::text(identity, "/type").map(|kind| json!(show::snake_from_camel(&kind.replace(", ", ","))))),
            ("principal_id", show::copy(identity, "/principalId")),
            ("tenant_id", show::copy(identity, "/tenantId")),
            ("user_assigned_identities", users),
        ]))
    }
}
