//! Certificates: got from an issuer, published, seen to be served, and only then kept.
//!
//! Whoever may be called by a name of its own owns one certificate: the platform, an endpoint, a compute, a service. Each
//! round compares what an owner wishes ([`TlsWish`]) with what it has, and moves it one step on: get a certificate (from
//! the built-in authority or the owner's own at once, from another issuer in a task of its own, so that a slow issuer holds
//! nobody up), publish it, look at it through the front door, write it down together with the end of the operations that
//! waited. Until that last step the one before is what a restart serves; when the front door shows something else, the one
//! before is published again. What fails is tried again by [`casemate_pki::schedule`].
//!
//! Private keys go from the issuer to the store's sealed secrets and to the TLS server, and nowhere else.

mod attempt;
mod authority;
mod keep;
mod owner;
mod probe;
mod settle;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod stage;
#[cfg(test)]
mod tests;
mod wanted;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use casemate_model::{
    Fault, Operation, ResourceId,
    tls::{PLATFORM_OWNER, TlsMode, TlsOutcome, TlsWish},
};
use casemate_pki::{BuiltIn, CertificateMap, CertificateResolver, Issuer, Served, schedule::Pace};
use casemate_store::Store;
use jiff::Timestamp;
use tokio::task::{Id, JoinSet};
use uuid::Uuid;

use self::{
    authority::Authority,
    owner::{Done, Owner, Step},
};
pub use self::{
    authority::{PublishRoots, open_authority, trusted_roots},
    owner::Wanted,
    probe::{FrontDoor, Probe},
    wanted::{COMPUTE_TYPE, wanted, wish_of},
};

/// Tasks that wait for an issuer at once.
const ISSUING: usize = 4;
/// Certificates that are published and not yet seen to be served, at once.
const PROVING: usize = 16;

/// Who makes the platform's certificates.
#[derive(Clone)]
pub struct Issuers {
    /// Makes those of the platform's own names, and stands in for others.
    pub built_in: Arc<BuiltIn>,
    /// Makes those of endpoints, computes and services; the built-in authority where there is none.
    pub names: Option<Arc<dyn Issuer>>,
}

/// All certificates of the platform.
pub struct Certificates {
    store: Store,
    issuers: Issuers,
    resolver: Arc<CertificateResolver>,
    probe: Arc<dyn Probe>,
    authority: Authority,
    platform: ResourceId,
    owners: HashMap<ResourceId, Owner>,
    /// Whose each name is. Nobody is served under a name of somebody else.
    claims: HashMap<String, ResourceId>,
    pace: Pace,
    /// Numbers attempts, so that the end of one that was given up is not taken for that of the next.
    number: u64,
    tasks: JoinSet<Done>,
    /// Which attempt each task is about.
    running: HashMap<Id, (ResourceId, u64)>,
    done: VecDeque<Done>,
    /// Operations that ended in this round, after those that are pending were read.
    ended: Vec<Uuid>,
    /// Whether the front door serves, so that certificates can be looked at.
    is_open: bool,
    /// Whether something is to be published.
    changed: bool,
}

impl Certificates {
    /// No certificate is served until the first [`Certificates::reconcile`].
    pub fn new(
        store: Store,
        issuers: Issuers,
        resolver: Arc<CertificateResolver>,
        probe: Arc<dyn Probe>,
        roots: PublishRoots,
    ) -> Self {
        Self {
            authority: Authority::new(store.clone(), Arc::clone(&issuers.built_in), roots),
            store,
            issuers,
            resolver,
            probe,
            platform: ResourceId::parse(PLATFORM_OWNER).expect("the id is well-formed"),
            owners: HashMap::new(),
            claims: HashMap::new(),
            pace: Pace::default(),
            number: 0,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            done: VecDeque::new(),
            ended: Vec::new(),
            is_open: false,
            changed: false,
        }
    }

    /// From now on the front door serves: issuers can look at the answers to their challenges, and certificates are
    /// looked at before they are kept.
    pub fn open(&mut self) {
        self.is_open = true;
    }

    /// Moves every owner on as far as it can go now; `wanted` are all owners there are.
    ///
    /// # Errors
    /// When the store can't be read or written; the next round goes on from there.
    pub async fn reconcile(&mut self, wanted: Vec<Wanted<'_>>, pending: &[Operation]) -> Result<(), Fault> {
        let now = self.store.clock().now();
        self.ended.clear();
        self.authority.reconcile(pending, now).await?;
        self.settle_all(now).await?;
        self.meet(wanted, now).await?;
        self.begin(pending, now).await?;
        if std::mem::take(&mut self.changed) {
            self.publish(now);
        }
        self.prove();
        Ok(())
    }

    /// Returns when a certificate was got or looked at, so that the next round has something to do. May be dropped and
    /// called again at any time.
    pub async fn finished(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(ended) => self.note(ended),
            None => std::future::pending().await,
        }
    }

    /// What has become of a wish.
    pub fn outcome(&self, owner: &ResourceId, wish: &TlsWish) -> TlsOutcome {
        match self.owners.get(owner) {
            Some(known) => wish.outcome(&known.record),
            None if wish.mode == TlsMode::Off => TlsOutcome::Settled,
            None => TlsOutcome::Pending,
        }
    }

    fn note(&mut self, ended: Result<(Id, Done), tokio::task::JoinError>) {
        match ended {
            Ok((id, done)) => {
                self.running.remove(&id);
                self.done.push_back(done);
            }
            Err(error) => {
                if let Some((owner, number)) = self.running.remove(&error.id()) {
                    tracing::error!(%owner, %error, "an attempt to get a certificate broke off");
                    self.done.push_back(Done::lost(owner, number));
                }
            }
        }
    }

    async fn settle_all(&mut self, now: Timestamp) -> Result<(), Fault> {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.note(ended);
        }
        while let Some(done) = self.done.pop_front() {
            if let Err(fault) = self.settle(&done, now).await {
                // What could not be written down is not forgotten: the next round writes it.
                self.done.push_front(done);
                return Err(fault);
            }
        }
        Ok(())
    }

    /// Takes over who is wanted, and what each wishes.
    async fn meet(&mut self, wanted: Vec<Wanted<'_>>, now: Timestamp) -> Result<(), Fault> {
        let gone: Vec<ResourceId> = {
            let ids: std::collections::HashSet<&ResourceId> = wanted.iter().map(|wanted| wanted.owner).collect();
            self.owners.keys().filter(|owner| !ids.contains(owner)).cloned().collect()
        };
        for owner in gone {
            self.owners.remove(&owner);
            self.release(&owner, &[]);
            self.changed = true;
        }
        // Those that were served before claim their names before those that are new.
        let (new, known): (Vec<_>, Vec<_>) =
            wanted.into_iter().partition(|wanted| !self.owners.contains_key(wanted.owner));
        let mut loaded = Vec::new();
        for wanted in new {
            let owner = keep::load(&self.store, &wanted, now).await?;
            if let Some((names, _)) = owner.shown(now) {
                let names = names.to_vec();
                self.claim(wanted.owner, &names);
                self.changed = true;
            }
            self.owners.insert(wanted.owner.clone(), owner);
            loaded.push(wanted);
        }
        for wanted in known.into_iter().chain(loaded) {
            self.wish(wanted).await?;
        }
        Ok(())
    }

    async fn wish(&mut self, wanted: Wanted<'_>) -> Result<(), Fault> {
        let Some(owner) = self.owners.get_mut(wanted.owner) else { return Ok(()) };
        let is_new = owner.settings.is_none() || owner.generation != wanted.generation;
        if !is_new && owner.wish == wanted.wish {
            return Ok(());
        }
        let settings = keep::settings(&self.store, &wanted).await?;
        if settings.is_some() && owner.settings != settings {
            owner.settings = settings;
            self.changed = true;
        }
        let turned_off = wanted.wish.mode == TlsMode::Off && owner.wish.mode != TlsMode::Off;
        owner.wish = wanted.wish;
        owner.generation = wanted.generation;
        if turned_off || (owner.wish.mode == TlsMode::Off && owner.record.served) {
            owner.step = Step::Rest;
            self.changed = true;
            let record = casemate_model::tls::CertificateRecord { served: false, ..owner.record.clone() };
            keep::record(&self.store, wanted.owner, &record, &[]).await?;
            owner.record = record;
        }
        let mut names = owner.wish.names.clone();
        names.extend(
            owner.record.certificate.iter().filter(|_| owner.record.served).flat_map(|facts| facts.ask.names.clone()),
        );
        self.release(wanted.owner, &names);
        self.claim(wanted.owner, &names);
        Ok(())
    }

    /// Gives names to an owner unless they, or what they stand for, are another's.
    fn claim(&mut self, owner: &ResourceId, names: &[String]) {
        for name in names {
            if self.holder(name).is_none() {
                self.claims.insert(name.clone(), owner.clone());
            }
        }
    }

    fn release(&mut self, owner: &ResourceId, but: &[String]) {
        let Some(held) = self.owners.get(owner).map(|owner| owner.held.clone()) else {
            self.claims.retain(|_, holder| holder != owner);
            return;
        };
        for name in held.iter().filter(|name| !but.contains(name)) {
            if self.claims.get(name) == Some(owner) {
                self.claims.remove(name);
            }
        }
        if let Some(owner) = self.owners.get_mut(owner) {
            owner.held = but.to_vec();
        }
    }

    /// Whose a name is: by itself, or by a wildcard.
    fn holder(&self, name: &str) -> Option<&ResourceId> {
        let wildcard = || self.claims.get(&format!("*.{}", name.split_once('.')?.1));
        self.claims.get(name).or_else(wildcard)
    }

    /// Callers that send no server name came by the platform's address and get the platform's own certificate.
    fn publish(&self, now: Timestamp) {
        let served = self.owners.values().filter_map(|owner| {
            let (names, leaf) = owner.shown(now)?;
            Some(Served { names: names.to_vec(), leaf, settings: owner.settings.clone()? })
        });
        let nameless = self.owners.get(&self.platform).and_then(|owner| owner.shown(now)).map(|(_, leaf)| leaf);
        self.resolver.publish(CertificateMap::new(served, nameless));
    }

    /// Looks at what was published through the front door.
    fn prove(&mut self) {
        if !self.is_open {
            return;
        }
        for (id, owner) in &mut self.owners {
            let Step::Issued(attempt, leaf) = &owner.step else { continue };
            let (probe, names) = (Arc::clone(&self.probe), attempt.ask.names.clone());
            let (id, number, sha256) = (id.clone(), attempt.number, leaf.sha256.clone());
            owner.step = Step::Proving(attempt.clone(), leaf.clone());
            let told = (id.clone(), number);
            let task = self.tasks.spawn(async move {
                let result = seen_for_all(&*probe, &names, &sha256).await;
                Done::Proved { owner: id, number, result }
            });
            self.running.insert(task.id(), told);
        }
    }
}

/// Whether every name shows the certificate with this fingerprint; what is shown instead, for people.
async fn seen_for_all(probe: &dyn Probe, names: &[String], sha256: &str) -> Result<(), String> {
    for name in names {
        match probe.seen(name).await {
            Ok(seen) if seen == sha256 => {}
            Ok(seen) => return Err(format!("for {name} the front door shows the certificate {seen}")),
            Err(why) => return Err(format!("for {name} {why}")),
        }
    }
    Ok(())
}

/// The life of a certificate, never negative.
fn life(not_before: Timestamp, not_after: Timestamp) -> jiff::SignedDuration {
    not_after.duration_since(not_before).max(jiff::SignedDuration::ZERO)
}

/// How often an issuer is asked when it wants a certificate renewed.
const WINDOW_EVERY: Duration = Duration::from_secs(6 * 3600);
