//! A compute as clients see it.

use casemate_model::{ProvisioningState, Resource, tls::CertificateRecord};
use casemate_wire::envelope;
use serde_json::{Value, json};

use super::tls::WARNINGS;
use crate::context::OpContext;

/// What is said of a compute that was attached.
const ATTACHED: &str =
    "The attached cluster is on record; services on this compute are served by this platform itself.";

/// A compute as clients see it. Certificates and keys that were given are never shown; of the certificate that is served
/// its facts are, under `casemate`.
pub(crate) fn show(ctx: &OpContext, row: &Resource) -> Value {
    let record = CertificateRecord::of(row);
    let mut shown = row.to_public();
    let properties = &mut shown["properties"];
    properties["createdOn"] = row.system.created_at.to_string().into();
    properties["modifiedOn"] = row.system.last_modified_at.to_string().into();
    properties["provisioningErrors"] = errors(row, &record);
    let mut warnings = row.body.get(WARNINGS).and_then(Value::as_array).cloned().unwrap_or_default();
    if properties["isAttachedCompute"] == true {
        warnings.push(ATTACHED.into());
    }
    properties["casemate"] = json!({"warnings": warnings, "certificate": certificate(&record)});
    let pool = &mut properties["properties"];
    pool["clusterFqdn"] = pool["sslConfiguration"]["cname"].clone();
    pool["systemServices"] = json!([{
        "systemServiceType": "ScoringFrontEnd",
        "version": env!("CARGO_PKG_VERSION"),
        "publicIpAddress": host_of(&ctx.base),
    }]);
    shown
}

/// Why the last change did not come true; null when it did.
fn errors(row: &Resource, record: &CertificateRecord) -> Value {
    match (row.provisioning_state(), &record.refused) {
        (ProvisioningState::Failed, Some(refusal)) => json!([{"error": envelope::error_body(&refusal.fault)}]),
        _ => Value::Null,
    }
}

/// The facts of the certificate that is served; null without one.
fn certificate(record: &CertificateRecord) -> Value {
    let Some(facts) = record.certificate.as_ref().filter(|_| record.served) else { return Value::Null };
    json!({
        "issuer": facts.issuer,
        "serial": facts.serial,
        "sha256": facts.sha256,
        "notBefore": facts.not_before,
        "notAfter": facts.not_after,
        "nextRenewal": facts.next_renewal,
        "names": facts.ask.names,
        "mode": facts.ask.mode,
        "provisional": facts.provisional,
        "lastResult": record.last_result,
    })
}

/// The host in a base, without brackets and port.
fn host_of(base: &str) -> &str {
    let host = base.trim_start_matches("https://");
    match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((host, _)) => host,
        None => host.split(':').next().unwrap_or(host),
    }
}
