//! What deployments may reach, and who they are: read from the rows when these or this machine's addresses have changed,
//! and published to what runs. Streams that are open learn it, too.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use casemate_model::{
    Fault, Resource, ResourceId,
    deployment::DEPLOYMENT_TYPE,
    egress::{self, EgressPolicy, PROVISIONED, RULE_TYPE, ServiceTags, Surroundings},
    managed_identity::USER_ASSIGNED_TYPE,
    service::SERVICE_DEPLOYMENT_TYPE,
    workspace::WORKSPACE_TYPE,
};
use casemate_runtime::Backend;
use casemate_store::{Filter, Store};
use serde_json::{Map, json};
use tokio::sync::watch;

use crate::{Shared, host::own_addresses};

/// The policies in force, one channel for each deployment. A policy that is the same as before wakes nobody.
#[derive(Default)]
pub struct Policies(Mutex<HashMap<ResourceId, watch::Sender<Arc<EgressPolicy>>>>);

impl Policies {
    /// What a deployment may reach, from now on. Nothing, until a policy is published for it.
    pub fn subscribe(&self, deployment: &ResourceId) -> watch::Receiver<Arc<EgressPolicy>> {
        let mut senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        senders.entry(deployment.clone()).or_insert_with(|| watch::Sender::new(Arc::default())).subscribe()
    }

    /// Puts these policies in force. A deployment that is not among them may reach nothing any more, and is forgotten
    /// when nothing of it runs.
    fn publish(&self, mut policies: HashMap<ResourceId, EgressPolicy>) {
        let mut senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|deployment, sender| {
            let policy = policies.remove(deployment);
            let wanted = policy.is_some() || sender.receiver_count() > 0;
            let policy = policy.unwrap_or_default();
            sender.send_if_modified(|now| {
                let other = **now != policy;
                if other {
                    *now = Arc::new(policy);
                }
                other
            });
            wanted
        });
        senders
            .extend(policies.into_iter().map(|(deployment, policy)| (deployment, watch::Sender::new(policy.into()))));
    }
}

/// Reads the rows and publishes what they mean for deployments.
pub struct Outbound {
    tags: Arc<ServiceTags>,
    /// The store's revision and this machine's addresses of what is published.
    published: Option<(u64, Vec<IpAddr>)>,
}

impl Outbound {
    pub fn new(tags: Arc<ServiceTags>) -> Self {
        Self { tags, published: None }
    }

    /// Publishes what has changed since the last call.
    ///
    /// # Errors
    /// When the store can't be read; what was published stays in force.
    pub async fn reconcile<B: Backend>(&mut self, shared: &Shared<B>, endpoints: &[Resource]) -> Result<(), Fault> {
        let store = &shared.store;
        // Read before the rows: a commit in between is looked at again, never missed.
        let now = (*store.subscribe().borrow(), own_addresses());
        if self.published.as_ref() == Some(&now) {
            return Ok(());
        }
        shared.policies.publish(policies(store, &shared.config.domain, &self.tags, &now.1).await?);
        let user_assigned = store.resource_list(&Filter::of_type(USER_ASSIGNED_TYPE)).await?;
        shared.identities.publish(endpoints, &user_assigned);
        self.published = Some(now);
        Ok(())
    }
}

/// The policy of each deployment. One whose workspace is gone gets none, which closes its way out.
async fn policies(
    store: &Store,
    domain: &str,
    tags: &ServiceTags,
    own_addresses: &[IpAddr],
) -> Result<HashMap<ResourceId, EgressPolicy>, Fault> {
    let mut deployments = store.resource_list(&Filter::of_type(DEPLOYMENT_TYPE)).await?;
    deployments.extend(store.resource_list(&Filter::of_type(SERVICE_DEPLOYMENT_TYPE)).await?);
    let workspaces = store.resource_list(&Filter::of_type(WORKSPACE_TYPE)).await?;
    let all_rules = store.resource_list(&Filter::of_type(RULE_TYPE)).await?;
    let mut services = Vec::new();
    for kind in egress::SERVICE_TYPES {
        services.extend(store.resource_list(&Filter::of_type(kind)).await?);
    }
    let mut policies = HashMap::new();
    for workspace in &workspaces {
        let deployments: Vec<&Resource> = deployments.iter().filter(|one| one.id.is_within(&workspace.id)).collect();
        if deployments.is_empty() {
            continue;
        }
        let rules: Vec<Resource> = all_rules.iter().filter(|rule| rule.id.is_within(&workspace.id)).cloned().collect();
        let mut known = HashMap::new();
        for id in egress::needed(workspace, &rules) {
            if let Some(row) = store.resource_get(&id).await?.filter(|row| !row.deleting) {
                known.insert(id, row);
            }
        }
        let lookup = |id: &ResourceId| known.get(id).cloned();
        let around = Surroundings { tags, domain, own_addresses, lookup: &lookup };
        for deployment in deployments {
            let (mut policy, faults) = egress::policy(workspace, &rules, Some(deployment), &around);
            egress::lead_home(&mut policy, &services, domain);
            for fault in faults {
                tracing::warn!(workspace = %workspace.id, %fault, "an outbound rule opens nothing");
            }
            policies.insert(deployment.id.clone(), policy);
        }
    }
    Ok(policies)
}

/// Notes that the managed network of a deployment's workspace is in force, as it is from the first deployment on.
pub async fn provision(store: &Store, deployment: &ResourceId) -> Result<(), Fault> {
    let Some(workspace) = deployment.ancestor(WORKSPACE_TYPE) else { return Ok(()) };
    let mut tx = store.begin().await?;
    let Some(row) = tx.resource_get(&workspace).await? else { return Ok(()) };
    if egress::mode_of(&row) == egress::IsolationMode::Disabled || egress::is_provisioned(&row) {
        return Ok(());
    }
    tx.resource_observe(&workspace, Map::from_iter([(PROVISIONED.to_owned(), json!(true))])).await?;
    tx.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use casemate_model::Clock;
    use casemate_model::egress::{HostName, IsolationMode};
    use casemate_store::{Author, Condition};

    use super::*;

    const WORKSPACE: &str =
        "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w";

    fn id(tail: &str) -> ResourceId {
        ResourceId::parse(&format!("{WORKSPACE}{tail}")).unwrap()
    }

    async fn put(store: &Store, tail: &str, properties: serde_json::Value) -> Resource {
        let mut tx = store.begin().await.unwrap();
        let author = Author { name: "test".to_owned(), kind: "User".to_owned() };
        let put =
            tx.resource_put(&id(tail), json!({"properties": properties}), &Condition::None, &author).await.unwrap();
        tx.commit().await.unwrap();
        put.resource
    }

    #[tokio::test]
    async fn rules_of_a_workspace_are_the_policy_of_its_deployments() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Clock::system()).await.unwrap();
        put(&store, "", json!({"managedNetwork": {"isolationMode": "AllowOnlyApprovedOutbound"}})).await;
        put(&store, "/outboundRules/one", json!({"type": "FQDN", "destination": "one.example"})).await;
        let deployment = put(&store, "/onlineEndpoints/e/deployments/blue", json!({})).await;
        let own = ["192.0.2.1".parse().unwrap()];
        let read = async || {
            let tags = ServiceTags::builtin();
            policies(&store, "ml.example", &tags, &own).await.unwrap()
        };
        let registry = Policies::default();
        let mut seen = registry.subscribe(&deployment.id);
        assert_eq!(**seen.borrow(), EgressPolicy::default(), "closed until something is published");
        registry.publish(read().await);
        assert!(seen.has_changed().unwrap());
        let policy = Arc::clone(&seen.borrow_and_update());
        assert_eq!((policy.mode, &policy.own_addresses[..]), (IsolationMode::AllowOnlyApprovedOutbound, &own[..]));
        let allowed =
            |policy: &EgressPolicy, name: &str| policy.name(&HostName::parse(name).unwrap(), 443).is_allowed();
        assert!(allowed(&policy, "one.example") && !allowed(&policy, "two.example"));

        registry.publish(read().await);
        assert!(!seen.has_changed().unwrap(), "the same policy wakes nobody");
        put(&store, "/outboundRules/two", json!({"type": "FQDN", "destination": "two.example"})).await;
        registry.publish(read().await);
        assert!(allowed(&seen.borrow_and_update(), "two.example"));

        registry.publish(HashMap::new());
        assert_eq!(**seen.borrow_and_update(), EgressPolicy::default(), "closed when the deployment is gone");
        drop(seen);
        registry.publish(HashMap::new());
        assert!(registry.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_first_deployment_puts_the_network_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Clock::system()).await.unwrap();
        let deployment = id("/onlineEndpoints/e/deployments/blue");
        for (mode, expected) in [("Disabled", false), ("AllowInternetOutbound", true)] {
            put(&store, "", json!({"managedNetwork": {"isolationMode": mode}})).await;
            provision(&store, &deployment).await.unwrap();
            let workspace = store.resource_get(&id("")).await.unwrap().unwrap();
            assert_eq!(egress::is_provisioned(&workspace), expected, "{mode}");
        }
        let revision = *store.subscribe().borrow();
        provision(&store, &deployment).await.unwrap();
        assert_eq!(*store.subscribe().borrow(), revision, "nothing is written twice");
    }
}
