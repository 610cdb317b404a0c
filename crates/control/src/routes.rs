//! Builds the route table from what is wanted and what runs.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use casemate_identity::role::{self, Assignment};
use casemate_model::{
    Fault, FaultKind, Resource,
    endpoint::{AuthMode, EndpointSpec},
    inbound::WorkspaceAccess,
    route::{DeploymentRoute, EndpointRoute, KeyDigest, RouteTable, key_digest},
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
