//! Tokens for what runs: an instance gets those of its endpoint's managed identities, and of nobody else.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use casemate_identity::{Principal, TokenAuthority};
use casemate_model::{
    Fault, Resource, ResourceId,
    managed_identity::{self, ManagedIdentity},
};
use casemate_runtime::{IdentityToken, InstanceIdentity};

/// Longest name of a resource that a token is asked for.
const MAX_RESOURCE: usize = 256;

/// The managed identities of all endpoints.
pub struct Identities {
    tokens: Arc<TokenAuthority>,
    by_endpoint: RwLock<HashMap<ResourceId, Vec<ManagedIdentity>>>,
}

impl Identities {
    pub fn new(tokens: Arc<TokenAuthority>) -> Self {
        Self { tokens, by_endpoint: RwLock::default() }
    }

    /// Takes over who the endpoints are now. `user_assigned` are the rows of user-assigned identities.
    pub fn publish(&self, endpoints: &[Resource], user_assigned: &[Resource]) {
        let identities = endpoints.iter().filter(|endpoint| !endpoint.deleting).map(|endpoint| {
            let named = managed_identity::user_assigned(endpoint);
            let rows = user_assigned.iter().filter(|row| !row.deleting && named.contains(&row.id));
            let all = ManagedIdentity::of_system(endpoint).into_iter().chain(rows.map(ManagedIdentity::of_user));
            (endpoint.id.clone(), all.collect())
        });
        *self.by_endpoint.write().unwrap_or_else(PoisonError::into_inner) = identities.collect();
    }

    /// The identity of an endpoint's instances.
    pub fn of_endpoint(self: &Arc<Self>, endpoint: ResourceId) -> Arc<dyn InstanceIdentity> {
        Arc::new(EndpointIdentity { identities: Arc::clone(self), endpoint })
    }

    /// The identity that is meant: by name, or the endpoint's own, or its only one.
    fn choose(&self, endpoint: &ResourceId, name: Option<&str>) -> Result<ManagedIdentity, Fault> {
        let by_endpoint = self.by_endpoint.read().unwrap_or_else(PoisonError::into_inner);
        let all = by_endpoint.get(endpoint).map(Vec::as_slice).unwrap_or_default();
        let chosen = match (name, all) {
            (Some(name), _) => all.iter().find(|identity| identity.is_called(name)),
            (None, [only]) => Some(only),
            (None, _) => all.iter().find(|identity| identity.system_assigned),
        };
        chosen.cloned().ok_or_else(|| {
            let message = match (name, all.len()) {
                (_, 0) => format!(
                    "Identity not found: the endpoint '{}' has no managed identity. Give it one: identity: {{type: \
                     system_assigned}} in its YAML file.",
                    endpoint.name()
                ),
                (Some(_), _) => format!(
                    "Identity not found: the endpoint '{}' has no identity of that client id. Tokens are given for the \
                     endpoint's own identities only.",
                    endpoint.name()
                ),
                (None, _) => format!(
                    "Multiple user assigned identities exist for the endpoint '{}'; please specify the client id of one \
                     (the variable AZURE_CLIENT_ID).",
                    endpoint.name()
                ),
            };
            Fault::invalid("IdentityNotFound", message)
        })
    }
}

struct EndpointIdentity {
    identities: Arc<Identities>,
    endpoint: ResourceId,
}

impl InstanceIdentity for EndpointIdentity {
    fn token(&self, resource: &str, client_id: Option<&str>) -> Result<IdentityToken, Fault> {
        let plain = !resource.is_empty()
            && resource.len() <= MAX_RESOURCE
            && resource.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain {
            let message = format!(
                "The resource must be the name of what the token is for, such as https://ml.azure.com: 1 to \
                 {MAX_RESOURCE} visible ASCII characters."
            );
            return Err(Fault::invalid("InvalidResource", message).at("resource"));
        }
        let identity = self.identities.choose(&self.endpoint, client_id)?;
        let principal = Principal {
            object_id: identity.principal_id,
            app_id: identity.client_id,
            display_name: identity.resource.name().to_owned(),
        };
        let issued = self.identities.tokens.issue(&principal, resource);
        Ok(IdentityToken {
            token: issued.token,
            expires_at: issued.expires_at,
            client_id: identity.client_id.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use casemate_model::{Clock, resource::SystemData};
    use serde_json::{Map, Value, json};
    use uuid::Uuid;

    use super::*;

    const GROUP: &str = "/subscriptions/s/resourceGroups/g/providers";

    fn row(tail: &str, identity: Value) -> Resource {
        let at = "2026-01-02T03:04:05Z".parse().unwrap();
        Resource {
            id: ResourceId::parse(&format!("{GROUP}/{tail}")).unwrap(),
            body: json!({ "identity": identity }),
            observed: Map::new(),
            generation: 1,
            etag: String::new(),
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
    fn an_endpoint_gets_tokens_of_its_own_identities_and_of_no_other() {
        let key = TokenAuthority::generate_key();
        let authority = TokenAuthority::new(&key, Uuid::nil(), "https://ml.example".to_owned(), Clock::system());
        let tokens = Arc::new(authority.unwrap());
        let identities = Arc::new(Identities::new(Arc::clone(&tokens)));
        let user = |name: &str| row(&format!("Microsoft.ManagedIdentity/userAssignedIdentities/{name}"), Value::Null);
        let (one, other) = (user("one"), user("other"));
        let principal = "11111111-2222-3333-4444-555555555555";
        let named = |ids: &[&Resource]| {
            let map = ids.iter().map(|row| (row.id.as_str().to_owned(), json!({})));
            Value::Object(map.collect())
        };
        let system = json!({"type": "SystemAssigned", "principalId": principal});
        let only_user = json!({"type": "UserAssigned", "userAssignedIdentities": named(&[&one])});
        let both_users = json!({"type": "UserAssigned", "userAssignedIdentities": named(&[&one, &other])});
        let endpoints = [
            row("E/e/system", system),
            row("E/e/user", only_user),
            row("E/e/users", both_users),
            row("E/e/none", json!({"type": "None"})),
        ];
        identities.publish(&endpoints, &[one.clone(), other.clone()]);

        let one_client = ManagedIdentity::of_user(&one).client_id.to_string();
        let other_client = ManagedIdentity::of_user(&other).client_id.to_string();
        let one_principal = ManagedIdentity::of_user(&one).principal_id.to_string();
        let table: [(usize, Option<&str>, Result<&str, &str>); 9] = [
            (0, None, Ok(principal)),
            (0, Some(principal), Ok(principal)),
            (0, Some(&one_client), Err("no identity of that client id")),
            (1, None, Ok(&one_principal)),
            (1, Some(&one_client), Ok(&one_principal)),
            (1, Some(&other_client), Err("no identity of that client id")),
            (2, None, Err("Multiple user assigned")),
            (2, Some(one.id.as_str()), Ok(&one_principal)),
            (3, None, Err("no managed identity")),
        ];
        for (endpoint, client, expected) in table {
            let identity = identities.of_endpoint(endpoints[endpoint].id.clone());
            match (identity.token("https://ml.azure.com", client), expected) {
                (Ok(issued), Ok(principal)) => {
                    let claims = tokens.check(issued.token.expose_str().unwrap(), &["https://ml.azure.com"]).unwrap();
                    assert_eq!(claims.principal.object_id.to_string(), principal);
                    assert_eq!(claims.principal.app_id.to_string(), issued.client_id);
                    assert!(issued.expires_at > Clock::system().now());
                }
                (Err(fault), Err(words)) => assert!(fault.message.contains(words), "{fault}"),
                (found, _) => panic!("{endpoint} {client:?}: {:?}", found.map(|issued| issued.client_id)),
            }
        }
        let system = identities.of_endpoint(endpoints[0].id.clone());
        for resource in ["", "a\nb", "é", &"x".repeat(300)] {
            assert!(system.token(resource, None).is_err(), "{resource}");
        }
        // Taken away while the instance runs: from then on there are no tokens.
        identities.publish(&[], &[]);
        assert!(system.token("https://ml.azure.com", None).is_err());
    }
}
