//! A service's rows as the document that would create it: what a patch is applied to. It never holds keys.

use casemate_model::{
    Fault, Resource,
    service::{ServiceKind, V1_FIELD},
};
use serde_json::{Map, Value};

use super::Service;

/// What of a version's block stands in its document as it is.
pub(super) const VERSION_FIELDS: [&str; 7] =
    ["environmentImageRequest", "description", "kvTags", "properties", "isDefault", "type", "trafficPercentile"];
/// What of a service's block stands in its document as it is.
pub(super) const SERVICE_FIELDS: [&str; 14] = [
    "computeType",
    "computeName",
    "authEnabled",
    "aadAuthEnabled",
    "appInsightsEnabled",
    "namespace",
    "sslEnabled",
    "cname",
    "dnsNameLabel",
    "location",
    "vnetConfiguration",
    "description",
    "kvTags",
    "properties",
];

/// The document of a service.
///
/// # Errors
/// When the stored blocks can't be read.
pub(super) fn of(service: &Service) -> Result<Value, Fault> {
    let mut document = fields(&service.row, &SERVICE_FIELDS);
    if kind(&service.row)? == ServiceKind::AksEndpoint {
        let versions =
            service.versions.iter().map(|version| (version.name().to_owned(), Value::Object(of_version(version))));
        document.insert("versions".to_owned(), Value::Object(versions.collect()));
    } else if let Some(only) = service.versions.first() {
        let mut version = of_version(only);
        version.extend(document);
        document = version;
    }
    Ok(Value::Object(document))
}

/// The sort of a stored service.
///
/// # Errors
/// When the stored block can't be read.
pub(super) fn kind(row: &Resource) -> Result<ServiceKind, Fault> {
    ServiceKind::parse(row.body[V1_FIELD]["computeType"].as_str().unwrap_or_default())
}

fn of_version(version: &Resource) -> Map<String, Value> {
    let mut document = version.body[V1_FIELD]["settings"].as_object().cloned().unwrap_or_default();
    document.extend(fields(version, &VERSION_FIELDS));
    document
}

fn fields(row: &Resource, names: &[&str]) -> Map<String, Value> {
    let block = &row.body[V1_FIELD];
    names.iter().filter_map(|name| Some(((*name).to_owned(), block.get(*name)?.clone()))).collect()
}
