//! Managed identities: the principals that endpoints act as, read from the rows that give them.
//!
//! A system-assigned one belongs to its endpoint and goes with it; a user-assigned one is a resource of its own. Nobody
//! signs in as one: tokens of it are given to the endpoint's own instances, inside their sandboxes.

use serde_json::Value;
use uuid::Uuid;

use crate::{id::ResourceId, resource::Resource};

/// The resource type of a user-assigned identity.
pub const USER_ASSIGNED_TYPE: &str = "Microsoft.ManagedIdentity/userAssignedIdentities";

/// Whom an endpoint can act as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedIdentity {
    /// The resource that gives it: the endpoint itself, or the user-assigned identity.
    pub resource: ResourceId,
    /// What roles are assigned to.
    pub principal_id: Uuid,
    /// What it is asked for by.
    pub client_id: Uuid,
    /// Whether it is the resource's own.
    pub system_assigned: bool,
}

impl ManagedIdentity {
    /// The system-assigned identity of a resource, if it has one.
    #[must_use]
    pub fn of_system(owner: &Resource) -> Option<Self> {
        let identity = owner.body.get("identity")?;
        let kind = identity.get("type").and_then(Value::as_str).unwrap_or_default();
        if !kind.split(',').any(|kind| kind.trim().eq_ignore_ascii_case("SystemAssigned")) {
            return None;
        }
        let principal_id: Uuid = identity.get("principalId")?.as_str()?.parse().ok()?;
        // The row has no client id of its own; whoever knows the principal can compute it.
        let client_id = Uuid::new_v5(&Uuid::NAMESPACE_OID, principal_id.as_bytes());
        Some(Self { resource: owner.id.clone(), principal_id, client_id, system_assigned: true })
    }

    /// The identity that a row of [`USER_ASSIGNED_TYPE`] is.
    #[must_use]
    pub fn of_user(identity: &Resource) -> Self {
        Self {
            resource: identity.id.clone(),
            principal_id: identity.stable_id("principal"),
            client_id: identity.stable_id("client"),
            system_assigned: false,
        }
    }

    /// Whether a request for an identity means this one: by its client id, its principal's id or its resource id.
    #[must_use]
    pub fn is_called(&self, name: &str) -> bool {
        let name = name.trim();
        match name.parse::<Uuid>() {
            Ok(id) => id == self.client_id || id == self.principal_id,
            Err(_) => ResourceId::parse(name).is_ok_and(|id| id == self.resource),
        }
    }
}

/// The user-assigned identities that a resource's body names. Texts that are no ids are left out.
#[must_use]
pub fn user_assigned(owner: &Resource) -> Vec<ResourceId> {
    let named = owner.body.pointer("/identity/userAssignedIdentities").and_then(Value::as_object);
    named.into_iter().flatten().filter_map(|(id, _)| ResourceId::parse(id).ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::SystemData;

    fn resource(id: &str, body: Value) -> Resource {
        let at = "2026-01-02T03:04:05Z".parse().unwrap();
        Resource {
            id: ResourceId::parse(id).unwrap(),
            body,
            observed: serde_json::Map::new(),
            generation: 1,
            etag: "1".to_owned(),
            deleting: false,
            system: SystemData {
                created_by: String::new(),
                created_by_type: String::new(),
                created_at: at,
                last_modified_by: String::new(),
                last_modified_by_type: String::new(),
                last_modified_at: at,
            },
        }
    }

    #[test]
    fn who_an_endpoint_is() {
        let user = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/u";
        let principal = "11111111-2222-3333-4444-555555555555";
        for (kind, system) in
            [("SystemAssigned", true), ("SystemAssigned,UserAssigned", true), ("UserAssigned", false), ("None", false)]
        {
            let body = json!({"identity": {"type": kind, "principalId": principal, "userAssignedIdentities": {user: {}, "x": {}}}});
            let endpoint = resource("/subscriptions/s/resourceGroups/g/providers/P/t/e", body);
            let found = ManagedIdentity::of_system(&endpoint);
            assert_eq!(
                found.as_ref().map(|found| found.principal_id.to_string()).as_deref(),
                system.then_some(principal)
            );
            if let Some(found) = found {
                assert!(found.is_called(principal) && found.is_called(&found.client_id.to_string()));
                assert!(!found.is_called("11111111-2222-3333-4444-555555555556") && !found.is_called(""));
                assert_ne!(found.client_id, found.principal_id);
            }
            assert_eq!(user_assigned(&endpoint), [ResourceId::parse(user).unwrap()]);
        }
        let identity = ManagedIdentity::of_user(&resource(user, json!({})));
        assert!(identity.is_called(&user.to_uppercase().replace("/SUBSCRIPTIONS", "/subscriptions")));
        assert_ne!(identity.client_id, identity.principal_id);
        assert!(ManagedIdentity::of_system(&resource(user, json!({}))).is_none());
    }
}
