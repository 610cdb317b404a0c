//! The published route table as the router uses it: each deployment with its queue and each instance with its kept
//! connections, both carried over from table to table.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use casemate_model::{
    ResourceId,
    route::{EndpointRoute, HostRoute, RouteTable},
};

use crate::{
    address::Hosts,
    queue::{Deployment, Instance},
    random::Random,
};

/// All endpoints and services, immutable.
#[derive(Default)]
pub(crate) struct Snapshot {
    endpoints: HashMap<String, Arc<Endpoint>>,
    services: HashMap<String, Arc<Service>>,
    pub(crate) hosts: Hosts,
    /// Hosts whose owners want TLS settings of their own.
    guarded: HashSet<String>,
}

/// One service of the first generation.
pub(crate) struct Service {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) compute: Option<ResourceId>,
    pub(crate) plain: bool,
    pub(crate) tls: bool,
    /// The host names that it is served at.
    pub(crate) hosts: Vec<String>,
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

    /// The service with this lower-case name.
    pub(crate) fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// Whether any host's owner wants TLS settings of its own.
    pub(crate) fn has_guarded(&self) -> bool {
        !self.guarded.is_empty()
    }

    /// Whether the owner of this lower-case host wants TLS settings of its own.
    pub(crate) fn is_guarded(&self, host: &str) -> bool {
        self.guarded.contains(host)
    }

    /// The snapshot for `table`. Queues of deployments that stay are told of their new instances, those of
    /// deployments that are gone are dissolved.
    pub(crate) fn next(&self, table: &RouteTable) -> Self {
        let renew = |route: &Arc<EndpointRoute>, before: Option<&Arc<Endpoint>>| {
            Arc::new(Endpoint::new(route, before.filter(|before| before.route.id == route.id)))
        };
        let endpoints = table.endpoints.iter();
        let endpoints = endpoints.map(|(name, route)| (name.clone(), renew(route, self.endpoints.get(name)))).collect();
        let hosts = ServiceHosts::read(&table.hosts);
        let services = table.services.iter();
        let services = services.map(|(name, route)| {
            let before = self.services.get(name).map(|before| &before.endpoint);
            let service = Service {
                endpoint: renew(&route.endpoint, before),
                hosts: hosts.of(name, route.compute.as_ref()),
                compute: route.compute.clone(),
                plain: route.plain,
                tls: route.tls,
            };
            (name.clone(), Arc::new(service))
        });
        let next = Self {
            endpoints,
            services: services.collect(),
            hosts: table.hosts.clone(),
            guarded: table.guarded.clone(),
        };
        let kept: HashSet<*const Deployment> = next.deployments().map(Arc::as_ptr).collect();
        self.deployments().filter(|deployment| !kept.contains(&Arc::as_ptr(deployment))).for_each(Deployment::retire);
        next
    }

    /// All deployments of all endpoints and services.
    pub(crate) fn deployments(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        let services = self.services.values().map(|service| &service.endpoint);
        self.endpoints.values().chain(services).flat_map(|endpoint| endpoint.deployments.values())
    }
}

/// Host names by whose they are.
#[derive(Default)]
struct ServiceHosts<'a> {
    by_service: HashMap<&'a str, Vec<&'a String>>,
    by_compute: HashMap<&'a str, Vec<&'a String>>,
}

impl<'a> ServiceHosts<'a> {
    fn read(hosts: &'a Hosts) -> Self {
        let mut read = Self::default();
        for (host, route) in hosts {
            match route {
                HostRoute::Service(name) => read.by_service.entry(name).or_default().push(host),
                HostRoute::Compute(id) => read.by_compute.entry(id.key()).or_default().push(host),
            }
        }
        read
    }

    fn of(&self, service: &str, compute: Option<&ResourceId>) -> Vec<String> {
        let computes = compute.and_then(|compute| self.by_compute.get(compute.key()));
        let own = self.by_service.get(service);
        own.into_iter().chain(computes).flatten().map(|host| (*host).clone()).collect()
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
