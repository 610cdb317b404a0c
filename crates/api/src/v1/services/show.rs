//! A service as these clients read it. Keys and certificates are never in it.

use casemate_model::{
    Fault, FaultKind, ProvisioningState, Resource,
    service::{self, NAMES_FIELD, Package, ServiceKind, V1_FIELD},
};
use serde_json::{Map, Value, json};

use super::{Asked, Service, addresses, document, tls};
use crate::{ApiError, ApiState, v1, v1::models};

/// The whole service.
pub(super) async fn service(state: &ApiState, _: &Asked, service: &Service) -> Result<Value, ApiError> {
    let row = &service.row;
    let kind = document::kind(row)?;
    let compute = match service::compute_of(row) {
        Some(id) => state.store.resource_get(&id).await?,
        None => None,
    };
    let serves = service.versions.iter().any(|version| version.observed.contains_key("_served"));
    let scoring = if serves { json!(addresses::scoring(state, kind, row, compute.as_ref())) } else { Value::Null };
    let mut shown = common(row, kind, &scoring);
    if kind == ServiceKind::AksEndpoint {
        let mut versions = Map::new();
        for one in &service.versions {
            let mut shown = common(row, ServiceKind::Aks, &scoring);
            shown.extend(version(state, one).await?);
            versions.insert(one.name().to_owned(), Value::Object(shown));
        }
        shown.insert("versions".to_owned(), Value::Object(versions));
    } else if let Some(only) = service.versions.first() {
        let own = version(state, only).await?;
        // The service's own description, tags and state come first.
        let keep: Vec<(String, Value)> = ["name", "description", "kvTags", "properties", "createdTime", "updatedTime"]
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), shown.get(key)?.clone())))
            .collect();
        shown.extend(own);
        shown.extend(keep);
    }
    shown.insert("state".to_owned(), word(service).into());
    shown.insert("error".to_owned(), error(service));
    if kind == ServiceKind::Aci {
        shown.extend(alone(state, row));
    }
    Ok(Value::Object(shown))
}

fn common(row: &Resource, kind: ServiceKind, scoring: &Value) -> Map<String, Value> {
    let block = &row.body[V1_FIELD];
    let field = |name: &str| block.get(name).cloned().unwrap_or(Value::Null);
    let shown = json!({
        "id": row.name(),
        "name": row.name(),
        "description": field("description"),
        "kvTags": field("kvTags"),
        "properties": field("properties"),
        "computeType": kind.as_str(),
        "computeName": field("computeName"),
        "createdTime": row.system.created_at.to_string(),
        "updatedTime": row.system.last_modified_at.to_string(),
        "createdBy": {"userObjectId": row.system.created_by},
        "authEnabled": field("authEnabled"),
        "aadAuthEnabled": field("aadAuthEnabled"),
        "appInsightsEnabled": block["appInsightsEnabled"].as_bool().unwrap_or(false),
        "namespace": field("namespace"),
        "location": field("location"),
        "scoringUri": scoring,
        "swaggerUri": scoring.as_str().and_then(|uri| uri.strip_suffix("/score")).map(|base| format!("{base}/swagger.json")),
        "imageId": null,
        "imageDigest": null,
        "deploymentStatus": null,
        "modelConfigMap": {},
    });
    shown.as_object().cloned().unwrap_or_default()
}

/// What only a service without a compute shows.
fn alone(state: &ApiState, row: &Resource) -> Map<String, Value> {
    let shown = json!({
        "publicIp": tls::public_ip(state),
        "publicFqdn": row.body[NAMES_FIELD].get(0),
        "cname": row.body[V1_FIELD].get("cname"),
        "dnsNameLabel": row.body[V1_FIELD].get("dnsNameLabel"),
        "sslEnabled": service::has_tls(row, None),
        "sslCertificate": null,
        "sslKey": null,
        "encryptionProperties": null,
        "vnetConfiguration": null,
    });
    shown.as_object().cloned().unwrap_or_default()
}

/// What a version adds: its settings, its environment and its models.
async fn version(state: &ApiState, row: &Resource) -> Result<Map<String, Value>, ApiError> {
    let block = &row.body[V1_FIELD];
    let mut shown = block["settings"].as_object().cloned().unwrap_or_default();
    for key in document::VERSION_FIELDS {
        shown.insert(key.to_owned(), block.get(key).cloned().unwrap_or(Value::Null));
    }
    let package = Package::of(&row.body)?;
    let mut all = Vec::new();
    for id in package.iter().flat_map(|package| &package.models) {
        if let Some(model) = state.store.resource_get(id).await? {
            all.push(models::show(&model)?);
        }
    }
    let state = word_of(row);
    shown.extend([
        ("name".to_owned(), row.name().into()),
        ("models".to_owned(), all.into()),
        ("state".to_owned(), state.into()),
        ("error".to_owned(), error_of(row)),
        ("createdTime".to_owned(), row.system.created_at.to_string().into()),
        ("updatedTime".to_owned(), row.system.last_modified_at.to_string().into()),
        (
            "deploymentStatus".to_owned(),
            json!({"availableReplicas": available(row), "replicas": row.body.pointer("/sku/capacity")}),
        ),
    ]);
    Ok(shown)
}

/// The instances that the last reached wish has; none before one was reached.
fn available(row: &Resource) -> Value {
    row.observed.get("_served").and_then(|served| served.pointer("/sku/capacity")).cloned().unwrap_or(json!(0))
}

fn word(service: &Service) -> &'static str {
    if service.row.deleting {
        return "Deleting";
    }
    let words: Vec<&str> = service.versions.iter().map(word_of).collect();
    let certified = match service.row.provisioning_state() {
        ProvisioningState::Failed => "Failed",
        ProvisioningState::Creating | ProvisioningState::Updating => "Transitioning",
        _ => "Healthy",
    };
    let all = || words.iter().copied().chain([certified]);
    ["Failed", "Transitioning"].into_iter().find(|word| all().any(|one| one == *word)).unwrap_or("Healthy")
}

fn word_of(version: &Resource) -> &'static str {
    match version.provisioning_state() {
        ProvisioningState::Creating | ProvisioningState::Updating => "Transitioning",
        ProvisioningState::Deleting => "Deleting",
        ProvisioningState::Failed => "Failed",
        ProvisioningState::Succeeded | ProvisioningState::Canceled => "Healthy",
    }
}

fn error(service: &Service) -> Value {
    service.versions.iter().map(error_of).find(|error| !error.is_null()).unwrap_or(Value::Null)
}

/// Why the last wish was not reached; what was reached before serves on.
fn error_of(version: &Resource) -> Value {
    let Some(error) = version.observed.get("provisioningError").filter(|error| error.is_object()) else {
        return Value::Null;
    };
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    v1::error_body(&Fault::new(FaultKind::Invalid, text("code"), text("message")))
}
