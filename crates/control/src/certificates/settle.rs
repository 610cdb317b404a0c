//! Ending attempts: a certificate that came is published, one that was seen to be served is kept, and one that was not
//! makes room for the one before.

use casemate_model::{
    Fault, FaultKind, OperationStatus, ResourceId,
    tls::{CertificateFacts, CertificateRecord, FAILED, LastResult, Refusal, SUCCEEDED, TlsMode, danger_from},
};
use casemate_pki::{IssueError, Issuer, Leaf, RenewalWindow, schedule};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Certificates,
    keep::{self, Ended},
    owner::{Attempt, Done, Owner, Step},
};

impl Certificates {
    /// Takes up the end of a task. Nothing in memory changes before it is written down.
    pub(super) async fn settle(&mut self, done: &Done, now: Timestamp) -> Result<(), Fault> {
        match done {
            Done::Window { owner, sha256, window } => self.settle_window(owner, sha256, *window).await,
            Done::Issued { owner, number, result } => {
                let Some(attempt) = self.attempt(owner, *number) else { return Ok(()) };
                match result {
                    Ok(leaf) => {
                        self.changed = true;
                        if let Some(owner) = self.owners.get_mut(owner) {
                            owner.step = Step::Issued(attempt, leaf.clone());
                        }
                        Ok(())
                    }
                    Err(error) => self.fail(owner, attempt, error, now).await,
                }
            }
            Done::Proved { owner, number, result } => {
                let Some(attempt) = self.attempt(owner, *number) else { return Ok(()) };
                match result {
                    Ok(()) => self.keep(owner, attempt, now).await,
                    Err(seen) if self.is_only_hope(owner, now) => {
                        tracing::error!(
                            seen,
                            "the platform's certificate can't be looked at; it is served all the same"
                        );
                        self.keep(owner, attempt, now).await
                    }
                    Err(seen) => {
                        let fault = unproven(&attempt, seen);
                        self.fail(owner, attempt, &fault.into(), now).await
                    }
                }
            }
        }
    }

    fn attempt(&self, owner: &ResourceId, number: u64) -> Option<Attempt> {
        self.owners.get(owner).and_then(|owner| owner.attempt(number)).cloned()
    }

    /// Whether there is nothing to go back to, and nobody could reach the platform without a certificate.
    fn is_only_hope(&self, owner: &ResourceId, now: Timestamp) -> bool {
        let before = self.owners.get(owner).and_then(|owner| owner.leaf.as_ref());
        *owner == self.platform && before.is_none_or(|leaf| now >= leaf.not_after)
    }

    /// Keeps what was seen to be served, and ends the operations that waited for it.
    async fn keep(&mut self, id: &ResourceId, attempt: Attempt, now: Timestamp) -> Result<(), Fault> {
        let Some(owner) = self.owners.get(id) else { return Ok(()) };
        let Step::Proving(_, leaf) = &owner.step else { return Ok(()) };
        let leaf = leaf.clone();
        let before = owner.record.certificate.clone();
        let after = keep::facts(&leaf, attempt.ask.clone(), &attempt.issuer, attempt.provisional);
        let message = format!("{} is served for {}.", told(&after), attempt.ask.names.join(", "));
        // One that stands in ends neither the wait for the real one nor what is known of its failures.
        let earlier = &owner.record;
        let record = CertificateRecord {
            served: true,
            last_result: match attempt.provisional {
                true => earlier.last_result.clone(),
                false => Some(LastResult { time: now, outcome: SUCCEEDED.to_owned(), message }),
            },
            issued: earlier.issued + u64::from(attempt.is_new),
            failures: earlier.failures,
            failed_in_row: if attempt.provisional { earlier.failed_in_row } else { 0 },
            retry_at: earlier.retry_at.filter(|_| attempt.provisional),
            refused: None,
            certificate: Some(after.clone()),
        };
        let result = json!({"before": before.as_ref().map(shown), "after": shown(&after), "served": true});
        let ended = ends(&attempt, || (OperationStatus::Succeeded, Some(result.clone())));
        keep::proof(&self.store, id, &leaf, &attempt.ask, &record, &ended).await?;
        self.ended.extend(&attempt.operations);
        tracing::info!(
            owner = %id, names = attempt.ask.names.join(" "), issuer = attempt.issuer, serial = leaf.serial,
            sha256 = leaf.sha256, not_after = %leaf.not_after, "certificate served"
        );
        let mut names = attempt.ask.names;
        if let Some(owner) = self.owners.get_mut(id) {
            owner.record = record;
            owner.leaf = Some(leaf);
            owner.step = Step::Rest;
            owner.window_asked = None;
            owner.stood_in = false;
            owner.warned = false;
            names.extend(owner.wish.names.clone());
        }
        // Names of the certificate before are free now.
        self.release(id, &names);
        Ok(())
    }

    /// Gives an attempt up: what was served before is served on, and who waited is told.
    async fn fail(
        &mut self,
        id: &ResourceId,
        attempt: Attempt,
        error: &IssueError,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let Some(owner) = self.owners.get(id) else { return Ok(()) };
        let stand_in = self.stand_in(owner, &attempt, now).await;
        let record = failed_record(owner, &attempt, error, stand_in.is_none(), now);
        let ended = ends(&attempt, || (OperationStatus::Failed(error.fault.clone()), None));
        keep::record(&self.store, id, &record, &ended).await?;
        self.ended.extend(&attempt.operations);
        tracing::warn!(
            owner = %id, names = attempt.ask.names.join(" "), issuer = attempt.issuer, fault = %error.fault,
            retry_at = record.retry_at.map(tracing::field::display), "no new certificate; the one before is served on"
        );
        self.changed = true;
        self.number += 1;
        let number = self.number;
        if let Some(owner) = self.owners.get_mut(id) {
            owner.record = record;
            owner.step = match stand_in {
                None => Step::Rest,
                Some(leaf) => {
                    let issuer = self.issuers.built_in.name().to_owned();
                    let ask = attempt.ask;
                    Step::Issued(
                        Attempt { number, ask, issuer, provisional: true, is_new: true, operations: Vec::new() },
                        leaf,
                    )
                }
            };
        }
        Ok(())
    }

    /// A certificate of the built-in authority for names that have no good one, when their issuer fails.
    async fn stand_in(&self, owner: &Owner, attempt: &Attempt, now: Timestamp) -> Option<Leaf> {
        let built_in = &self.issuers.built_in;
        let is_theirs = attempt.ask.mode == TlsMode::Platform && attempt.issuer != built_in.name();
        let has_one = owner.is_met()
            && owner.leaf.as_ref().is_some_and(|leaf| {
                // The next attempt comes within an hour.
                let nearly = leaf.not_after.checked_sub(schedule::DANGER_RETRY * 2).unwrap_or(leaf.not_after);
                now < if provisional(owner) { danger_from(leaf.not_before, leaf.not_after) } else { nearly }
            });
        if !is_theirs || has_one || owner.wish.mode != TlsMode::Platform {
            return None;
        }
        match built_in.issue(&attempt.ask.names, now).await {
            Ok(leaf) => Some(leaf),
            Err(error) => {
                tracing::error!(names = attempt.ask.names.join(" "), %error, "the built-in authority can't stand in");
                None
            }
        }
    }

    /// Notes when the issuer wants a certificate renewed.
    async fn settle_window(
        &mut self,
        id: &ResourceId,
        sha256: &str,
        window: Option<RenewalWindow>,
    ) -> Result<(), Fault> {
        let Some(owner) = self.owners.get_mut(id) else { return Ok(()) };
        let Some(facts) = owner.record.certificate.as_ref().filter(|facts| facts.sha256 == sha256) else {
            return Ok(());
        };
        let name = facts.ask.names.first().map(String::as_str).unwrap_or_default();
        let next = schedule::renewal_at(facts.not_before, facts.not_after, name, window);
        if facts.next_renewal == Some(next) {
            return Ok(());
        }
        let certificate = Some(CertificateFacts { next_renewal: Some(next), ..facts.clone() });
        let record = CertificateRecord { certificate, ..owner.record.clone() };
        keep::record(&self.store, id, &record, &[]).await?;
        owner.record = record;
        Ok(())
    }
}

fn provisional(owner: &Owner) -> bool {
    owner.record.certificate.as_ref().is_some_and(|facts| facts.provisional)
}

/// The record after a failure. A wish that nothing stands in for is refused.
fn failed_record(
    owner: &Owner,
    attempt: &Attempt,
    error: &IssueError,
    is_final: bool,
    now: Timestamp,
) -> CertificateRecord {
    let in_row = owner.record.failed_in_row.saturating_add(1);
    let name = attempt.ask.names.first().map(String::as_str).unwrap_or_default();
    let danger = owner.leaf.as_ref().map(|leaf| danger_from(leaf.not_before, leaf.not_after));
    let is_refused = is_final && !(owner.is_met() && owner.record.served && owner.wish.ask() == attempt.ask);
    CertificateRecord {
        last_result: Some(LastResult { time: now, outcome: FAILED.to_owned(), message: error.fault.message.clone() }),
        failures: owner.record.failures + 1,
        failed_in_row: in_row,
        retry_at: Some(schedule::retry_at(now, in_row, error.retry_after, danger, name)),
        refused: is_refused.then(|| Refusal { ask: attempt.ask.clone(), fault: error.fault.clone() }),
        ..owner.record.clone()
    }
}

fn unproven(attempt: &Attempt, seen: &str) -> Fault {
    let message = format!(
        "The new certificate for {} was published, but it is not what callers are shown: {seen}. The certificate before \
         it is served again. Look whether another program answers at the platform's address, then try again.",
        attempt.ask.names.join(", ")
    );
    Fault::new(FaultKind::Unavailable, "CertificateNotServed", message)
}

fn ends(attempt: &Attempt, end: impl Fn() -> (OperationStatus, Option<Value>)) -> Vec<Ended> {
    let operations = attempt.operations.iter();
    operations
        .map(|operation| {
            let (status, result) = end();
            (*operation, status, result)
        })
        .collect()
}

fn told(facts: &CertificateFacts) -> String {
    format!(
        "The certificate {} (SHA-256 {}) of {}, valid until {},",
        facts.serial, facts.sha256, facts.issuer, facts.not_after
    )
}

fn shown(facts: &CertificateFacts) -> Value {
    json!({
        "issuer": facts.issuer,
        "serial": facts.serial,
        "sha256": facts.sha256,
        "notBefore": facts.not_before,
        "notAfter": facts.not_after,
        "nextRenewal": facts.next_renewal,
        "provisional": facts.provisional,
        "names": facts.ask.names,
    })
}
