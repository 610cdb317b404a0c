//! A compute as clients see it.

use casemate_model::Resource;
use serde_json::{Value, json};

use super::tls::WARNINGS;
use crate::context::OpContext;

/// What is said of a compute that was attached.
const ATTACHED: &str =
    "The attached cluster is on record; services on this compute are served by this platform itself.";

/// A compute as clients see it. Certificates and keys that were given are never shown; of the certificate that is served
/// its facts are, under `casemate`.
pub(crate) fn show(ctx: &OpContext, row: &Resource) -> Value {
    let mut shown = row.to_public();
    let properties = &mut shown["properties"];
    properties["createdOn"] = row.system.created_at.to_string().into();
    properties["modifiedOn"] = row.system.last_modified_at.to_string().into();
    properties["provisioningErrors"] = row.observed.get("provisioningErrors").cloned().unwrap_or_default();
    let mut warnings = row.body.get(WARNINGS).and_then(Value::as_array).cloned().unwrap_or_default();
    if properties["isAttachedCompute"] == true {
        warnings.push(ATTACHED.into());
    }
    properties["casemate"] = json!({
        "warnings": warnings,
        "certificate": row.observed.get("_certificate").cloned().unwrap_or_default(),
    });
    let pool = &mut properties["properties"];
    pool["clusterFqdn"] = pool["sslConfiguration"]["cname"].clone();
    let host = ctx.base.trim_start_matches("https://");
    let host = host
        .strip_suffix(|c: char| c.is_ascii_digit())
        .map_or(host, |_| host.rsplit_once(':').map_or(host, |(host, _)| host));
    pool["systemServices"] = json!([{
        "systemServiceType": "ScoringFrontEnd",
        "version": env!("CARGO_PKG_VERSION"),
        "publicIpAddress": host.trim_start_matches('[').trim_end_matches(']'),
    }]);
    shown
}
