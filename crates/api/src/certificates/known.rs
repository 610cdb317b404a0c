//! The certificates there are: one for each owner that wishes for one.

use std::collections::HashSet;

use casemate_model::{
    Fault, Resource, ResourceId,
    endpoint::ENDPOINT_TYPE,
    operation::OperationKind,
    service::SERVICE_TYPE,
    tls::{CERTIFICATE_TYPE, CertificateRecord, PLATFORM_OWNER, TlsMode, TlsWish},
};
use casemate_store::Filter;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::state::ApiState;

/// The type of computes.
const COMPUTE_TYPE: &str = "Microsoft.MachineLearningServices/workspaces/computes";
const DAY: i64 = 86_400;

/// One owner's certificate.
pub(super) struct Known {
    pub(super) owner: ResourceId,
    pub(super) record: CertificateRecord,
    /// What is wished for; none for the platform itself, whose names only the reconciler knows.
    pub(super) wish: Option<TlsWish>,
    /// Whether an operation waits for it.
    pub(super) is_busy: bool,
}

/// All certificates, ordered by their first name.
pub(super) async fn all(state: &ApiState) -> Result<Vec<Known>, Fault> {
    let pending = state.store.operations_pending().await?;
    let puts: HashSet<&ResourceId> = pending
        .iter()
        .filter(|operation| operation.kind == OperationKind::Put)
        .map(|operation| &operation.resource)
        .collect();
    let renewals: HashSet<String> = pending
        .iter()
        .filter(|operation| operation.resource.is_type(CERTIFICATE_TYPE))
        .map(|operation| operation.resource.name().to_lowercase())
        .collect();
    let mut rows = Vec::new();
    rows.extend(state.store.resource_get(&ResourceId::parse(PLATFORM_OWNER)?).await?);
    for kind in [ENDPOINT_TYPE, COMPUTE_TYPE, SERVICE_TYPE] {
        rows.extend(state.store.resource_list(&Filter::of_type(kind)).await?);
    }
    let known = rows.iter().filter(|row| !row.deleting).filter_map(|row| known(state, row).transpose());
    let mut known = known.collect::<Result<Vec<_>, _>>()?;
    for one in &mut known {
        one.is_busy = puts.contains(&one.owner) || one.names().iter().any(|name| renewals.contains(name));
    }
    known.sort_by(|one, other| one.names().first().cmp(&other.names().first()));
    Ok(known)
}

fn known(state: &ApiState, row: &Resource) -> Result<Option<Known>, Fault> {
    let is_platform = row.id.as_str() == PLATFORM_OWNER;
    let wish = match TlsWish::of(row)? {
        None if row.id.is_type(ENDPOINT_TYPE) => {
            let (region, domain) = (&state.config.region, &state.config.domain);
            let name = format!("{}.{region}.inference.{domain}", row.name().to_lowercase());
            Some(TlsWish::platform(vec![name]))
        }
        wish => wish.filter(|wish| wish.mode != TlsMode::Off),
    };
    if wish.is_none() && !is_platform {
        return Ok(None);
    }
    Ok(Some(Known { owner: row.id.clone(), record: CertificateRecord::of(row), wish, is_busy: false }))
}

impl Known {
    /// The names it is served for, else those it is wanted for.
    pub(super) fn names(&self) -> &[String] {
        let served = self.record.certificate.as_ref().map(|facts| facts.ask.names.as_slice());
        served.or(self.wish.as_ref().map(|wish| wish.names.as_slice())).unwrap_or_default()
    }

    /// What it is called here: its first name.
    pub(super) fn name(&self) -> &str {
        self.names().first().map(String::as_str).unwrap_or_default()
    }

    /// Whose it is meant to be.
    pub(super) fn mode(&self) -> TlsMode {
        self.wish.as_ref().map_or(TlsMode::Platform, |wish| wish.mode)
    }

    /// As clients see it. No secret is anywhere near.
    pub(super) fn shown(&self, scope: &ResourceId, now: Timestamp) -> Value {
        let facts = self.record.certificate.as_ref();
        json!({
            "id": format!("{scope}/providers/{CERTIFICATE_TYPE}/{}", self.name()),
            "name": self.name(),
            "type": CERTIFICATE_TYPE,
            "properties": {
                "owner": self.owner.as_str(),
                "names": self.names(),
                "mode": self.mode(),
                "issuer": facts.map(|facts| &facts.issuer),
                "serial": facts.map(|facts| &facts.serial),
                "sha256": facts.map(|facts| &facts.sha256),
                "notBefore": facts.map(|facts| facts.not_before),
                "notAfter": facts.map(|facts| facts.not_after),
                "daysLeft": facts.map(|facts| facts.not_after.duration_since(now).as_secs().div_euclid(DAY)),
                "nextRenewal": facts.and_then(|facts| facts.next_renewal),
                "state": self.record.state(now, self.is_busy),
                "lastResult": self.record.last_result,
                "issued": self.record.issued,
                "failures": self.record.failures,
                "retryAt": self.record.retry_at,
            },
        })
    }
}
