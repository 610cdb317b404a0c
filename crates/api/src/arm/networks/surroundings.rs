//! What outbound rules lead to, read before they are shown or judged.

use std::collections::HashMap;

use casemate_model::{
    Resource, ResourceId,
    egress::{self, RULE_TYPE, Surroundings},
};
use casemate_store::Filter;

use crate::{error::ApiError, state::ApiState};

/// The stored rules of a workspace, and every resource that they (and the required ones) lead to.
pub(in crate::arm) struct Loaded {
    pub(super) rules: Vec<Resource>,
    found: HashMap<ResourceId, Resource>,
    /// The platform's vaults and storage accounts.
    pub(super) services: Vec<Resource>,
}

impl Loaded {
    pub(in crate::arm) async fn of(state: &ApiState, workspace: &Resource) -> Result<Self, ApiError> {
        let rules = state.store.resource_list(&Filter::of_type(RULE_TYPE).child_of(&workspace.id)).await?;
        let mut found = HashMap::new();
        for id in egress::needed(workspace, &rules) {
            if let Some(row) = state.store.resource_get(&id).await?.filter(|row| !row.deleting) {
                found.insert(id, row);
            }
        }
        let mut services = Vec::new();
        for kind in egress::SERVICE_TYPES {
            services.extend(state.store.resource_list(&Filter::of_type(kind)).await?);
        }
        Ok(Self { rules, found, services })
    }

    /// Asks something that needs the surroundings of a rule.
    pub(super) fn with<T>(&self, state: &ApiState, ask: impl FnOnce(&Surroundings<'_>) -> T) -> T {
        let lookup = |id: &ResourceId| self.found.get(id).cloned();
        ask(&Surroundings {
            tags: &state.tags,
            domain: &state.config.domain,
            own_addresses: &(state.own_addresses)(),
            lookup: &lookup,
        })
    }
}
