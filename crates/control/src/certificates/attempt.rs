//! Beginning attempts: who needs a certificate now, in which order, and from whom.

use std::{collections::HashMap, sync::Arc};

use casemate_model::{
    Fault, Operation, OperationStatus, ResourceId, Secret,
    operation::OperationKind,
    tls::{CERTIFICATE_TYPE, CertificateAsk, SUCCEEDED, TlsMode},
};
use casemate_pki::{IssueError, Issuer, Leaf, custom, schedule};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::{
    Certificates, ISSUING, PROVING, WINDOW_EVERY, keep, life,
    owner::{Attempt, Done, Owner, Step},
};

/// What an owner needs now, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    /// The certificate has ended: one of the built-in authority at once, whoever makes the real one.
    StandIn,
    /// Another certificate than what it has.
    Other,
    /// The one it has, which is not served now.
    Again,
    /// A newer one, asked for by somebody who waits.
    Forced,
    /// A newer one, since it is time.
    Renewal,
}

/// How an attempt came out at once, if it did not take a task.
type AtOnce = Option<Result<Leaf, IssueError>>;

impl Certificates {
    /// Begins what is due, in the order of urgency, as far as there is room.
    pub(super) async fn begin(&mut self, pending: &[Operation], now: Timestamp) -> Result<(), Fault> {
        let mut forced = self.forced(pending).await?;
        let mut due = Vec::new();
        for (id, owner) in &mut self.owners {
            warn_of_danger(id, owner, now);
            if !matches!(owner.step, Step::Rest) || owner.wish.mode == TlsMode::Off {
                continue;
            }
            let issuer = issuer_of(&self.issuers, &self.platform, id);
            if let Some(need) = need(owner, issuer.name(), forced.contains_key(id), now) {
                let end = owner.leaf.as_ref().map_or(Timestamp::MIN, |leaf| leaf.not_after);
                due.push((need, end, id.clone()));
            }
        }
        due.sort();
        for (need, _, id) in due {
            let (issuing, proving) = self.under_way();
            if proving >= PROVING {
                break;
            }
            let stands_in = need == Need::StandIn;
            let issuer = issuer_of(&self.issuers, &self.platform, &id);
            let is_task = !stands_in && self.owners[&id].wish.mode == TlsMode::Platform && self.is_outside(&issuer);
            if is_task && (issuing >= ISSUING || !self.is_open) {
                continue;
            }
            if need == Need::Renewal && !self.pace.take(self.owners.len(), now) {
                continue;
            }
            self.start(&id, need, issuer, forced.remove(&id).unwrap_or_default(), now).await?;
        }
        self.ask_windows(now);
        Ok(())
    }

    /// How many attempts wait for an issuer in a task, and how many are published and not proven.
    fn under_way(&self) -> (usize, usize) {
        let steps = self.owners.values().map(|owner| &owner.step);
        steps.fold((0, 0), |(issuing, proving), step| match step {
            Step::Rest => (issuing, proving),
            Step::Issuing(_) => (issuing + 1, proving),
            Step::Issued(..) | Step::Proving(..) => (issuing, proving + 1),
        })
    }

    fn is_outside(&self, issuer: &Arc<dyn Issuer>) -> bool {
        issuer.name() != self.issuers.built_in.name()
    }

    async fn start(
        &mut self,
        id: &ResourceId,
        need: Need,
        issuer: Arc<dyn Issuer>,
        operations: Vec<Uuid>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        self.number += 1;
        let number = self.number;
        let Some(owner) = self.owners.get(id) else { return Ok(()) };
        let ask = owner.wish.ask();
        let made_by = match ask.mode {
            TlsMode::Custom => "custom".to_owned(),
            _ if need == Need::StandIn => self.issuers.built_in.name().to_owned(),
            _ => issuer.name().to_owned(),
        };
        let mut attempt = Attempt {
            number,
            ask: ask.clone(),
            provisional: need == Need::StandIn && made_by != issuer.name(),
            issuer: made_by,
            is_new: need != Need::Again && ask.mode == TlsMode::Platform,
            operations,
        };
        if need == Need::Again
            && let (Some(facts), Some(leaf)) = (&owner.record.certificate, &owner.leaf)
        {
            (attempt.issuer, attempt.provisional) = (facts.issuer.clone(), facts.provisional);
            attempt.ask.renewal = facts.ask.renewal;
            let leaf = leaf.clone();
            self.step_on(id, Step::Issued(attempt, leaf));
            return Ok(());
        }
        let at_once: AtOnce = match self.other_holder(id, &ask) {
            Some((name, holder)) => Some(Err(taken(&name, &holder).into())),
            None if ask.mode == TlsMode::Custom => Some(self.custom(id, &ask, now).await?),
            None if attempt.issuer == self.issuers.built_in.name() => {
                Some(self.issuers.built_in.issue(&ask.names, now).await)
            }
            None => None,
        };
        if let Some(owner) = self.owners.get_mut(id) {
            owner.stood_in |= need == Need::StandIn;
        }
        self.step_on(id, Step::Issuing(attempt));
        match at_once {
            Some(result) => {
                self.done.push_back(Done::Issued { owner: id.clone(), number, result });
                self.settle_all(now).await?;
            }
            None => {
                let owner = id.clone();
                let task = self.tasks.spawn(async move {
                    let result = issuer.issue(&ask.names, now).await;
                    Done::Issued { owner, number, result }
                });
                self.running.insert(task.id(), (id.clone(), number));
            }
        }
        Ok(())
    }

    fn step_on(&mut self, id: &ResourceId, step: Step) {
        self.changed |= matches!(step, Step::Issued(..));
        if let Some(owner) = self.owners.get_mut(id) {
            owner.step = step;
        }
    }

    /// A name of the wish that somebody else is served under, and who.
    fn other_holder(&self, id: &ResourceId, ask: &CertificateAsk) -> Option<(String, ResourceId)> {
        let mut holders = ask.names.iter().filter_map(|name| Some((name, self.holder(name)?)));
        holders.find(|(_, holder)| *holder != id).map(|(name, holder)| (name.clone(), holder.clone()))
    }

    /// The owner's own certificate, if it is one that can be served for the names wished for.
    async fn custom(
        &self,
        id: &ResourceId,
        ask: &CertificateAsk,
        now: Timestamp,
    ) -> Result<Result<Leaf, IssueError>, Fault> {
        let Some((chain, key)) = keep::custom(&self.store, id, ask.version).await? else {
            let message = "The certificate and its key are not kept any more. Give both again.";
            return Ok(Err(Fault::invalid("CertificateMissing", message).into()));
        };
        Ok(readable(&chain, &key, ask, now).map_err(IssueError::from))
    }

    /// The operations that ask for a renewal, by owner. Those about names that nobody has are ended.
    async fn forced(&mut self, pending: &[Operation]) -> Result<HashMap<ResourceId, Vec<Uuid>>, Fault> {
        let mut forced: HashMap<ResourceId, Vec<Uuid>> = HashMap::new();
        let asked = pending.iter().filter(|operation| {
            operation.kind == OperationKind::Action && operation.resource.is_type(CERTIFICATE_TYPE)
        });
        let under_way: Vec<Uuid> = self
            .owners
            .values()
            .filter_map(|owner| match &owner.step {
                Step::Issuing(attempt) | Step::Issued(attempt, _) | Step::Proving(attempt, _) => Some(attempt),
                Step::Rest => None,
            })
            .flat_map(|attempt| attempt.operations.clone())
            .collect();
        let known = |operation: &&Operation| under_way.contains(&operation.id) || self.ended.contains(&operation.id);
        for operation in asked.filter(|operation| !known(operation)) {
            let name = operation.resource.name().to_lowercase();
            let owner = self.claims.get(&name).filter(|id| self.owners.get(*id).is_some_and(is_renewable));
            match owner {
                Some(owner) => forced.entry(owner.clone()).or_default().push(operation.id),
                None => {
                    let message = format!(
                        "There is no certificate of the platform for '{name}' any more, so there is nothing to renew. \
                         One that an owner gave is replaced by giving another."
                    );
                    let status = OperationStatus::Failed(Fault::not_found("CertificateNotFound", message));
                    let mut tx = self.store.begin().await?;
                    tx.operation_finish(operation.id, status, None).await?;
                    tx.commit().await?;
                }
            }
        }
        Ok(forced)
    }

    /// Asks the issuer of certificates that have been asked about long ago, when it wants them renewed.
    fn ask_windows(&mut self, now: Timestamp) {
        let Some(issuer) = self.issuers.names.clone().filter(|_| self.is_open) else { return };
        let every = SignedDuration::try_from(WINDOW_EVERY).unwrap_or(SignedDuration::MAX);
        for (id, owner) in &mut self.owners {
            if self.running.len() >= ISSUING {
                return;
            }
            let (Step::Rest, Some(leaf), Some(facts)) = (&owner.step, &owner.leaf, &owner.record.certificate) else {
                continue;
            };
            let is_asked = owner.window_asked.is_some_and(|at| at <= now && now.duration_since(at) < every);
            if is_asked || facts.issuer != issuer.name() || !owner.record.served {
                continue;
            }
            owner.window_asked = Some(now);
            let (issuer, leaf, told) = (Arc::clone(&issuer), leaf.clone(), id.clone());
            let task = self.tasks.spawn(async move {
                let window = issuer.renewal(&leaf).await;
                Done::Window { owner: told, sha256: leaf.sha256.clone(), window }
            });
            self.running.insert(task.id(), (id.clone(), 0));
        }
    }
}

/// Who makes certificates for an owner: its own names, IP addresses among them, are the platform's own affair.
pub(super) fn issuer_of(issuers: &super::Issuers, platform: &ResourceId, owner: &ResourceId) -> Arc<dyn Issuer> {
    let built_in = || Arc::clone(&issuers.built_in) as Arc<dyn Issuer>;
    match &issuers.names {
        Some(issuer) if owner != platform => Arc::clone(issuer),
        _ => built_in(),
    }
}

fn is_renewable(owner: &Owner) -> bool {
    owner.wish.mode == TlsMode::Platform
}

fn need(owner: &Owner, issuer: &str, is_forced: bool, now: Timestamp) -> Option<Need> {
    let record = &owner.record;
    let may_try = schedule::may_retry(record.retry_at, now);
    let is_refused = record.refused.as_ref().is_some_and(|refusal| refusal.ask == owner.wish.ask());
    let is_free = !is_refused || is_forced || may_try;
    if !owner.is_met() {
        return is_free.then_some(Need::Other);
    }
    let (facts, leaf) = (record.certificate.as_ref()?, owner.leaf.as_ref()?);
    if facts.ask.mode == TlsMode::Custom {
        return (!record.served && is_free).then_some(Need::Again);
    }
    if now >= leaf.not_after {
        return (!owner.stood_in || may_try).then_some(Need::StandIn);
    }
    if is_forced {
        return Some(Need::Forced);
    }
    if !record.served {
        return is_free.then_some(Need::Again);
    }
    let due = facts.next_renewal.is_none_or(|at| schedule::is_due(leaf.not_before, at, now));
    let another = facts.issuer != issuer && (facts.provisional || facts.issuer == "built-in");
    let last = record.last_result.as_ref().filter(|last| last.outcome == SUCCEEDED).map(|last| last.time);
    let is_rested = last.is_none_or(|last| schedule::is_rested(last, life(leaf.not_before, leaf.not_after), now));
    let wanted = another || (due && is_rested);
    (wanted && may_try).then_some(Need::Renewal)
}

/// Tells once that a certificate is close to its end.
fn warn_of_danger(id: &ResourceId, owner: &mut Owner, now: Timestamp) {
    let Some(facts) = owner.record.certificate.as_ref().filter(|_| owner.record.served) else { return };
    let is_near = now >= facts.danger_from();
    if is_near && !owner.warned {
        let last = owner.record.last_result.as_ref().map_or("", |last| last.message.as_str());
        tracing::warn!(
            owner = %id, names = facts.ask.names.join(" "), not_after = %facts.not_after, last,
            "a certificate is close to its end"
        );
    }
    owner.warned = is_near;
}

fn taken(name: &str, holder: &ResourceId) -> Fault {
    let message =
        format!("The name {name} is served for {holder} already. Choose another, or take it from there first.");
    Fault::conflict("NameInUse", message).at(name)
}

/// Reads a certificate that was given, and insists that it can be served for the names wished for, now.
fn readable(chain: &str, key: &Secret, ask: &CertificateAsk, now: Timestamp) -> Result<Leaf, Fault> {
    let mut leaf = None;
    for name in &ask.names {
        leaf = Some(custom::check(chain, key, name, now)?.leaf);
    }
    leaf.ok_or_else(|| Fault::invalid("CertificateNameMissing", "There is no name to serve the certificate for."))
}
