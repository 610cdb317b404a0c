//! Leaf certificates: one for the platform's own names, one for each endpoint; made when missing, renewed when two
//! thirds of their life are over, kept encrypted in the store, and published as one snapshot.

use std::{collections::HashMap, sync::Arc, time::Duration};

use casemate_model::{Fault, Resource, ResourceId, Secret};
use casemate_pki::{CertificateAuthority, CertificateMap, CertificateResolver, Leaf};
use casemate_runtime::Backend;
use jiff::Timestamp;

use crate::{Shared, routes};

/// Life of a leaf certificate.
const VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);

/// The owner of the platform's own certificate.
const PLATFORM: &str = "/providers/Casemate.Platform/settings/platform";

/// A leaf with the names it is served for.
struct Served {
    names: Vec<String>,
    leaf: Leaf,
}

/// All leaf certificates of the platform.
pub struct Certificates {
    authority: CertificateAuthority,
    resolver: Arc<CertificateResolver>,
    served: HashMap<ResourceId, Served>,
}

impl Certificates {
    /// No certificate is served until the first [`Certificates::reconcile`].
    pub fn new(authority: CertificateAuthority, resolver: Arc<CertificateResolver>) -> Self {
        Self { authority, resolver, served: HashMap::new() }
    }

    /// Makes, renews and drops certificates so that the platform and every endpoint has a good one.
    pub async fn reconcile<B: Backend>(&mut self, shared: &Shared<B>, endpoints: &[Resource]) -> Result<(), Fault> {
        let platform = ResourceId::parse(PLATFORM)?;
        let mut wanted = vec![(platform, shared.config.platform_names.clone())];
        for endpoint in endpoints.iter().filter(|endpoint| !endpoint.deleting) {
            wanted.push((endpoint.id.clone(), vec![routes::host_name(&shared.config, endpoint.name())]));
        }
        let before = self.served.len();
        self.served.retain(|owner, _| wanted.iter().any(|(wanted, _)| wanted == owner));
        let mut changed = self.served.len() != before;
        for (owner, names) in wanted {
            changed |= self.ensure(shared, owner, names).await?;
        }
        if changed {
            self.publish();
        }
        Ok(())
    }

    /// Sees that one owner has a good leaf for its names; true when the leaf is new to this process.
    async fn ensure<B: Backend>(
        &mut self,
        shared: &Shared<B>,
        owner: ResourceId,
        names: Vec<String>,
    ) -> Result<bool, Fault> {
        let now = shared.store.clock().now();
        if self.served.get(&owner).is_some_and(|served| served.names == names && !due(&served.leaf, now)) {
            return Ok(false);
        }
        let leaf = match stored(shared, &owner, &names).await? {
            Some(leaf) if !due(&leaf, now) => leaf,
            _ => self.issue(shared, &owner, &names, now).await?,
        };
        self.served.insert(owner, Served { names, leaf });
        Ok(true)
    }

    async fn issue<B: Backend>(
        &self,
        shared: &Shared<B>,
        owner: &ResourceId,
        names: &[String],
        now: Timestamp,
    ) -> Result<Leaf, Fault> {
        let leaf = self.authority.issue(names, now, VALIDITY).map_err(|error| {
            Fault::internal(format!("The certificate for {} can't be issued: {error}", names.join(", ")))
        })?;
        let mut tx = shared.store.begin().await?;
        tx.secret_put(owner, "tls-chain", &Secret::from(leaf.chain_pem.clone())).await?;
        tx.secret_put(owner, "tls-key", &leaf.key_pem).await?;
        tx.secret_put(owner, "tls-names", &Secret::from(names.join(" "))).await?;
        tx.commit().await?;
        tracing::info!(names = names.join(" "), serial = leaf.serial, not_after = %leaf.not_after, "certificate issued");
        Ok(leaf)
    }

    /// Callers that send no server name came by the platform's address and get the platform's own certificate.
    fn publish(&self) {
        let named =
            self.served.values().flat_map(|served| served.names.iter().map(|name| (name.clone(), &served.leaf)));
        let platform = self.served.iter().find(|(owner, _)| owner.as_str() == PLATFORM).map(|(_, served)| &served.leaf);
        self.resolver.publish(CertificateMap::new(named, platform));
    }
}

/// Whether two thirds of the life are over.
fn due(leaf: &Leaf, now: Timestamp) -> bool {
    let life = leaf.not_after.duration_since(leaf.not_before);
    now >= leaf.not_before + (life / 3 * 2)
}

/// The stored leaf, if there is one for just these names.
async fn stored<B: Backend>(shared: &Shared<B>, owner: &ResourceId, names: &[String]) -> Result<Option<Leaf>, Fault> {
    let Some(stored_names) = shared.store.secret_get(owner, "tls-names").await? else { return Ok(None) };
    let chain = shared.store.secret_get(owner, "tls-chain").await?;
    let key = shared.store.secret_get(owner, "tls-key").await?;
    let (Some(chain), Some(key)) = (chain, key) else { return Ok(None) };
    if stored_names.expose_str() != Ok(names.join(" ").as_str()) {
        return Ok(None);
    }
    let Ok(chain) = chain.expose_str() else { return Ok(None) };
    match Leaf::load(chain.to_owned(), key) {
        Ok(leaf) => Ok(Some(leaf)),
        Err(error) => {
            tracing::warn!(%owner, %error, "the stored certificate can't be read; a new one is issued");
            Ok(None)
        }
    }
}
