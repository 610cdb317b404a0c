//! Builds the route table from what is wanted and what runs.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use casemate_identity::role::{self, Assignment};
use casemate_model::{
    Fault, FaultKind, Resource,
    endpoint::{AuthMode, ENDPOINT_TYPE, EndpointSpec},
    inbound::WorkspaceAccess,
    route::{DeploymentRoute, EndpointRoute, KeyDigest, RouteTable, key_digest},
    tls::{MinimumTls, TlsWish},
    workspace::WORKSPACE_TYPE,
};
use casemate_runtime::Backend;
use casemate_store::Filter;
use uuid::Uuid;

use crate::{ControlConfig, Shared};

/// The action that a principal needs for scoring with its own token.
const SCORE_ACTION: &str = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/score/action";

/// The DNS name of an endpoint.
pub fn host_name(config: &ControlConfig, endpoint: &str) -> String {
    format!("{}.{}.inference.{}", endpoint.to_lowercase(), config.region, config.domain)
}

/// The whole table. An endpoint whose stored wish can't be read is left out and said so in the log: one bad row must
/// not stop the traffic of the others.
pub async fn build<B: Backend>(
    shared: &Shared<B>,
    endpoints: &[Resource],
    deployments: &[Resource],
) -> Result<RouteTable, Fault> {
    let assignments = shared.store.resource_list(&Filter::of_type("Microsoft.Authorization/roleAssignments")).await?;
    let assignments: Vec<Assignment> = assignments.iter().filter_map(Assignment::from_resource).collect();
    let mut table = RouteTable::default();
    for endpoint in endpoints.iter().filter(|endpoint| !endpoint.deleting) {
        match route(shared, endpoint, &assignments, deployments).await {
            Ok(route) => _ = table.endpoints.insert(endpoint.name().to_lowercase(), Arc::new(route)),
            Err(fault) if fault.kind == FaultKind::Invalid => {
                tracing::error!(endpoint = %endpoint.id, %fault, "endpoint left out of the route table");
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(table)
}

/// Notes the host names whose owners want TLS settings of their own, so that nothing of theirs is given to connections
/// without these.
pub fn guard<'a>(config: &ControlConfig, table: &mut RouteTable, owners: impl Iterator<Item = &'a Resource>) {
    for owner in owners.filter(|owner| !owner.deleting) {
        let wish = TlsWish::of(owner);
        let is_plain = |wish: &TlsWish| !wish.client_certificates && wish.minimum == MinimumTls::default();
        // A wish that can't be read may be one.
        if wish.as_ref().is_ok_and(|wish| wish.as_ref().is_none_or(is_plain)) {
            continue;
        }
        table.guarded.extend(wish.ok().flatten().into_iter().flat_map(|wish| wish.names));
        if owner.id.is_type(ENDPOINT_TYPE) {
            table.guarded.insert(host_name(config, owner.name()));
        }
    }
}

/// The route of an endpoint, or of a service, whose row has the same shape.
pub async fn route<B: Backend>(
    shared: &Shared<B>,
    endpoint: &Resource,
    assignments: &[Assignment],
    deployments: &[Resource],
) -> Result<EndpointRoute, Fault> {
    let spec = EndpointSpec::from_properties(endpoint.properties())?;
    let keys = if spec.auth_mode == AuthMode::Key { key_digests(shared, endpoint).await? } else { Vec::new() };
    let nowhere = || Fault::invalid("InvalidResourceId", "The endpoint lies in no workspace.");
    let workspace = endpoint.id.ancestor(WORKSPACE_TYPE).ok_or_else(nowhere)?;
    let access =
        shared.store.resource_get(&workspace).await?.map(|row| WorkspaceAccess::from_properties(row.properties()));
    Ok(EndpointRoute {
        name: endpoint.name().to_owned(),
        id: endpoint.id.as_str().to_owned(),
        workspace,
        allowed_callers: access.unwrap_or_default().allowed,
        auth: spec.auth_mode,
        public_access: spec.is_public(),
        keys,
        scorers: scorers(assignments, endpoint),
        traffic: spec.split()?,
        mirror: spec.mirror()?,
        deployments: deployment_routes(shared, endpoint, deployments),
    })
}

async fn key_digests<B: Backend>(shared: &Shared<B>, endpoint: &Resource) -> Result<Vec<KeyDigest>, Fault> {
    let mut digests = Vec::with_capacity(2);
    for name in ["primaryKey", "secondaryKey"] {
        if let Some(key) = shared.store.secret_get(&endpoint.id, name).await? {
            digests.push(key_digest(key.expose()));
        }
    }
    Ok(digests)
}

fn scorers(assignments: &[Assignment], endpoint: &Resource) -> HashSet<String> {
    let principals: HashSet<Uuid> = assignments.iter().map(|assignment| assignment.principal_id).collect();
    let allowed =
        principals.into_iter().filter(|principal| role::allowed(assignments, *principal, SCORE_ACTION, &endpoint.id));
    allowed.map(|principal| principal.to_string()).collect()
}

fn deployment_routes<B: Backend>(
    shared: &Shared<B>,
    endpoint: &Resource,
    deployments: &[Resource],
) -> HashMap<String, Arc<DeploymentRoute>> {
    let children = deployments
        .iter()
        .filter(|deployment| !deployment.deleting && deployment.id.parent().as_ref() == Some(&endpoint.id));
    let mut routes = HashMap::new();
    for deployment in children {
        if let Some(entry) = shared.board.get(&deployment.id) {
            let route =
                DeploymentRoute { name: deployment.name().to_owned(), limits: entry.limits, instances: entry.ready() };
            routes.insert(deployment.name().to_lowercase(), Arc::new(route));
        }
    }
    routes
}

#[cfg(test)]
mod tests {
    use casemate_model::{Clock, ResourceId};
    use casemate_store::{Author, Condition, Store};
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn hosts_with_settings_of_their_own_are_guarded() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Clock::system()).await.unwrap();
        let author = Author { name: "test".to_owned(), kind: "User".to_owned() };
        let workspace = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w";
        let wish = |name: &str| TlsWish::platform(vec![name.to_owned()]);
        let clients = TlsWish { client_certificates: true, ..wish("www.example") }.to_value();
        let newest = TlsWish { minimum: MinimumTls::V1_3, ..wish("new.example") }.to_value();
        let mut tx = store.begin().await.unwrap();
        let mut rows = Vec::new();
        for (name, body) in [
            ("computes/clients", json!({"_tls": clients})),
            ("computes/plain", json!({"_tls": wish("plain.example").to_value()})),
            ("onlineEndpoints/Newest", json!({"_tls": newest})),
            ("onlineEndpoints/none", json!({})),
            ("onlineEndpoints/unreadable", json!({"_tls": 7})),
        ] {
            let id = ResourceId::parse(&format!("{workspace}/{name}")).unwrap();
            rows.push(tx.resource_put(&id, body, &Condition::None, &author).await.unwrap().resource);
        }
        let config = ControlConfig {
            state_dir: dir.path().to_owned(),
            region: "local".to_owned(),
            domain: "test".to_owned(),
            url: String::new(),
            has_plain_port: false,
            endpoint_names_resolve: false,
            platform_names: Vec::new(),
            tags: Arc::default(),
        };
        let mut table = RouteTable::default();
        guard(&config, &mut table, rows.iter());
        let mut guarded: Vec<String> = table.guarded.into_iter().collect();
        guarded.sort();
        let own = |name: &str| format!("{name}.local.inference.test");
        assert_eq!(guarded, ["new.example".to_owned(), own("newest"), own("unreadable"), "www.example".to_owned()]);
    }
}
