//! Which resources a listing wants.

use casemate_model::ResourceId;
use sqlx::{QueryBuilder, Sqlite};

/// Conditions that a listed resource meets, all of them; the default lists everything.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Strictly inside this scope, at any depth.
    pub within: Option<ResourceId>,
    /// A direct child of this resource, group or subscription.
    pub parent: Option<ResourceId>,
    /// Of this full type, in any case.
    pub resource_type: Option<String>,
    /// With this name, in any case.
    pub name: Option<String>,
}

impl Filter {
    /// Resources of a full type such as `Microsoft.MachineLearningServices/workspaces`, in any case.
    pub fn of_type(resource_type: impl Into<String>) -> Self {
        Self { resource_type: Some(resource_type.into()), ..Self::default() }
    }

    /// Strictly inside `scope`, at any depth.
    #[must_use]
    pub fn within(self, scope: &ResourceId) -> Self {
        Self { within: Some(scope.clone()), ..self }
    }

    /// Direct children of `parent`.
    #[must_use]
    pub fn child_of(self, parent: &ResourceId) -> Self {
        Self { parent: Some(parent.clone()), ..self }
    }

    /// With this name, in any case.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// Appends the conditions to a statement that ends in `WHERE true`.
    pub(crate) fn push(&self, sql: &mut QueryBuilder<Sqlite>) {
        if let Some(scope) = &self.within {
            // '0' follows '/', so this range holds each key that starts with "scope/", and an index can walk it.
            sql.push(" AND key >= ").push_bind(format!("{}/", scope.key()));
            sql.push(" AND key < ").push_bind(format!("{}0", scope.key()));
        }
        if let Some(parent) = &self.parent {
            sql.push(" AND parent = ").push_bind(parent.key().to_owned());
        }
        if let Some(resource_type) = &self.resource_type {
            sql.push(" AND type = ").push_bind(resource_type.to_lowercase());
        }
        if let Some(name) = &self.name {
            sql.push(" AND name = ").push_bind(name.to_lowercase());
        }
    }
}
