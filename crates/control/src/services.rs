//! First-generation services in the route table: each is served like an endpoint, at addresses of its own.

use std::{collections::HashMap, sync::Arc};

use casemate_model::{
    Fault, FaultKind, Operation, OperationStatus, Resource, ResourceId,
    route::{HostRoute, RouteTable, ServiceRoute},
    service::{self, NAMES_FIELD},
    tls::{TlsMode, TlsWish},
};
use casemate_runtime::Backend;
use serde_json::{Map, Value};

use crate::{Shared, routes};

/// Adds all services, and the host names that lead to one. A service whose stored wish can't be read is left out and
/// said so in the log.
pub async fn add<B: Backend>(
    shared: &Shared<B>,
    table: &mut RouteTable,
    services: &[Resource],
    deployments: &[Resource],
) -> Result<(), Fault> {
    let mut computes = HashMap::new();
    for service in services.iter().filter(|service| !service.deleting) {
        let compute = match service::compute_of(service) {
            Some(id) => compute(shared, &mut computes, id).await?,
            None => None,
        };
        match routes::route(shared, service, &[], deployments).await {
            Ok(endpoint) => {
                let tls = service::has_tls(service, compute.as_ref());
                let route = ServiceRoute {
                    endpoint: Arc::new(endpoint),
                    compute: service::compute_of(service),
                    plain: !tls,
                    tls: tls || !shared.config.has_plain_port,
                };
                let name = service.name().to_lowercase();
                for host in hosts(service) {
                    table.hosts.insert(host, HostRoute::Service(name.clone()));
                }
                table.services.insert(name, Arc::new(route));
            }
            Err(fault) if fault.kind == FaultKind::Invalid => {
                tracing::error!(service = %service.id, %fault, "service left out of the route table");
            }
            Err(fault) => return Err(fault),
        }
    }
    Ok(())
}

/// The row of a compute, read once in a round.
async fn compute<B: Backend>(
    shared: &Shared<B>,
    known: &mut HashMap<ResourceId, Option<Resource>>,
    id: ResourceId,
) -> Result<Option<Resource>, Fault> {
    if let Some(row) = known.get(&id) {
        return Ok(row.clone());
    }
    let row = shared.store.resource_get(&id).await?;
    known.insert(id, row.clone());
    Ok(row)
}

/// The host names that lead to a service: those of its certificate, and others of its own.
fn hosts(service: &Resource) -> Vec<String> {
    let certified = match TlsWish::of(service) {
        Ok(Some(wish)) if wish.mode != TlsMode::Off => wish.names,
        _ => Vec::new(),
    };
    let own = service.body.get(NAMES_FIELD).and_then(Value::as_array).into_iter().flatten();
    let own = own.filter_map(|name| name.as_str().map(str::to_lowercase));
    own.chain(certified).collect()
}

/// Reports services as done whose wish is now in the published route table. One with a certificate of its own is
/// reported by who sees to that.
pub async fn finish<B: Backend>(shared: &Shared<B>, services: &[Resource], pending: &[Operation]) -> Result<(), Fault> {
    for service in services.iter().filter(|service| !service.deleting) {
        let waiting: Vec<_> =
            crate::waiting(pending, service).map(|operation| (operation.id, OperationStatus::Succeeded)).collect();
        if !waiting.is_empty() && TlsWish::of(service)?.is_none() {
            shared.finish_put(service, "Succeeded", Map::new(), waiting).await?;
        }
    }
    Ok(())
}
