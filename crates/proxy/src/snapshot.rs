//! The published route table as the router uses it: each deployment with its queue and each instance with its kept
//! connections, both carried over from table to table.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use casemate_model::route::{EndpointRoute, RouteTable};

use crate::{
    queue::{Deployment, Instance},
    random::Random,
};

/// All endpoints, immutable.
#[derive(Default)]
pub(crate) struct Snapshot {
    endpoints: HashMap<String, Arc<Endpoint>>,
}

/// One endpoint.
pub(crate) struct Endpoint {
    pub(crate) route: Arc<EndpointRoute>,
    /// By lower-case name.
    deployments: HashMap<String, Arc<Deployment>>,
    /// Those with a positive share, in order of name.
    live: Vec<(u8, Arc<Deployment>)>,
    /// Percentage and target.
    pub(crate) mirror: Option<(u8, Arc<Deployment>)>,
}

impl Snapshot {
    /// The endpoint with this lower-case name.
    pub(crate) fn endpoint(&self, name: &str) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(name)
    }

    /// The snapshot for `table`. Queues of deployments that stay are told of their new instances, those of
    /// deployments that are gone are dissolved.
    pub(crate) fn next(&self, table: &RouteTable) -> Self {
        let endpoints: HashMap<String, Arc<Endpoint>> = table
            .endpoints
            .iter()
            .map(|(name, route)| {
                let before = self.endpoints.get(name).filter(|before| before.route.id == route.id);
                (name.clone(), Arc::new(Endpoint::new(route, before)))
            })
            .collect();
        let next = Self { endpoints };
        let kept: HashSet<*const Deployment> = next.deployments().map(Arc::as_ptr).collect();
        self.deployments().filter(|deployment| !kept.contains(&Arc::as_ptr(deployment))).for_each(Deployment::retire);
        next
    }

    /// All deployments of all endpoints.
    pub(crate) fn deployments(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        self.endpoints.values().flat_map(|endpoint| endpoint.deployments.values())
    }
}

impl Endpoint {
    fn new(route: &Arc<EndpointRoute>, before: Option<&Arc<Self>>) -> Self {
        let deployments: HashMap<String, Arc<Deployment>> = route
            .deployments
            .iter()
            .map(|(name, deployment)| {
                let known = before.and_then(|before| before.deployments.get(name));
                let known_instances = known.map(|known| known.instances()).unwrap_or_default();
                let instances = deployment.instances.iter().map(|upstream| {
                    let kept = known_instances.iter().find(|instance| instance.upstream.id == upstream.id);
                    kept.cloned().unwrap_or_else(|| Arc::new(Instance::new(Arc::clone(upstream))))
                });
                let instances: Vec<Arc<Instance>> = instances.collect();
                let current = match known {
                    Some(known) => {
                        known.update(&deployment.limits, instances);
                        Arc::clone(known)
                    }
                    None => Deployment::new(&deployment.name, &deployment.limits, instances),
                };
                (name.clone(), current)
            })
            .collect();
        let find = |name: &str| deployments.get(&name.to_lowercase()).cloned();
        let live = route.traffic.iter().filter(|(_, share)| *share > 0);
        let live = live.filter_map(|(name, share)| find(name).map(|deployment| (share, deployment))).collect();
        let mirror = route.mirror.as_ref().and_then(|mirror| Some((mirror.percent, find(&mirror.deployment)?)));
        Self { route: Arc::clone(route), deployments, live, mirror }
    }

    /// The deployment with this name, in any case.
    pub(crate) fn deployment(&self, name: &str) -> Option<&Arc<Deployment>> {
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return self.deployments.get(&name.to_ascii_lowercase());
        }
        self.deployments.get(name)
    }

    /// A deployment drawn by weight. Weights of deployments that can't be called fall to the others.
    pub(crate) fn draw(&self, random: &Random) -> Option<&Arc<Deployment>> {
        if let [(_, only)] = self.live.as_slice() {
            return Some(only);
        }
        let total = self.live.iter().map(|(share, _)| *share).sum();
        let mut draw = random.below(total);
        for (share, deployment) in &self.live {
            if draw < *share {
                return Some(deployment);
            }
            draw -= share;
        }
        None
    }
}
