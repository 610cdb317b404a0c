//! A resource as it is stored: what the user wants (`body`), and what the platform saw (`observed`).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::id::ResourceId;

/// Who made and last changed a resource, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SystemData {
    /// Object id or name of the principal that created it.
    pub created_by: String,
    /// `User` or `Application`.
    pub created_by_type: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Who last changed what is wanted of it.
    pub last_modified_by: String,
    /// `User` or `Application`.
    pub last_modified_by_type: String,
    /// When that was.
    pub last_modified_at: Timestamp,
}

/// The state that clients poll, in the original's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProvisioningState {
    Creating,
    Updating,
    Deleting,
    Succeeded,
    Failed,
    Canceled,
}

/// One stored resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Its id in the case of its creation.
    pub id: ResourceId,
    /// The public shape as the user wants it, without what the platform adds: `location`, `tags`, `identity`, `sku`,
    /// `kind`, `properties`. Validated and with defaults filled in before it gets here. Keys starting with `_` are the
    /// platform's own and never shown.
    pub body: Value,
    /// What the platform saw; written by reconcilers only. Its keys lie over `body.properties` when shown
    /// (`provisioningState` among them); keys starting with `_` are for reconcilers and never shown.
    pub observed: Map<String, Value>,
    /// Counts changes of `body`; starts at 1.
    pub generation: i64,
    /// Changes with every write of `body`; quoted, as HTTP wants it.
    pub etag: String,
    /// Set from the moment a deletion is accepted until the row is gone.
    pub deleting: bool,
    /// Who and when.
    pub system: SystemData,
}

impl Resource {
    /// The resource's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.id.name()
    }

    /// `body.properties`, or an empty object.
    #[must_use]
    pub fn properties(&self) -> &Value {
        const EMPTY: &Value = &Value::Null;
        self.body.get("properties").unwrap_or(EMPTY)
    }

    /// The region it was created in, if it has one.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.body.get("location").and_then(Value::as_str)
    }

    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> BTreeMap<String, String> {
        let tags = self.body.get("tags").and_then(Value::as_object);
        tags.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    }

    /// The state last written by a reconciler; `Succeeded` for resources that need none.
    #[must_use]
    pub fn provisioning_state(&self) -> ProvisioningState {
        if self.deleting {
            return ProvisioningState::Deleting;
        }
        let state = self.observed.get("provisioningState").cloned();
        state.and_then(|state| serde_json::from_value(state).ok()).unwrap_or(ProvisioningState::Succeeded)
    }

    /// A GUID that this very resource keeps, and that one made again under its name does not get.
    #[must_use]
    pub fn stable_id(&self, what: &str) -> Uuid {
        let seed = format!("{}|{}|{what}", self.id.key(), self.system.created_at);
        Uuid::new_v5(&Uuid::NAMESPACE_URL, seed.as_bytes())
    }

    /// The resource as clients see it: id, name, type, etag, systemData, body and observed state in one object.
    #[must_use]
    pub fn to_public(&self) -> Value {
        let mut shown = self.body.as_object().cloned().unwrap_or_default();
        shown.retain(|key, _| !key.starts_with('_'));
        let properties = shown.entry("properties").or_insert_with(|| Value::Object(Map::new()));
        if let Some(properties) = properties.as_object_mut() {
            for (key, value) in self.observed.iter().filter(|(key, _)| !key.starts_with('_')) {
                properties.insert(key.clone(), value.clone());
            }
            let state = serde_json::to_value(self.provisioning_state()).unwrap_or(Value::Null);
            properties.insert("provisioningState".to_owned(), state);
        }
        shown.insert("id".to_owned(), self.id.as_str().into());
        shown.insert("name".to_owned(), self.name().into());
        shown.insert("type".to_owned(), self.id.resource_type().into());
        shown.insert("etag".to_owned(), self.etag.as_str().into());
        shown.insert("systemData".to_owned(), serde_json::to_value(&self.system).unwrap_or(Value::Null));
        Value::Object(shown)
    }
}
