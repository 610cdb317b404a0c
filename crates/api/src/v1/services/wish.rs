//! From a document to what is stored: the service's row and a row for each version, in the shape of an endpoint and its
//! deployments, with what only these clients know beside it.

use std::collections::BTreeMap;

use casemate_model::{
    Fault, FaultKind, Resource, ResourceId, Secret,
    endpoint::AuthMode,
    service::{NAMES_FIELD, ONLY_VERSION, ServiceKind, V1_FIELD, VersionSettings, check_service_name},
};
use serde_json::{Map, Value, json};

use super::{
    Asked, Service,
    document::{self, SERVICE_FIELDS, VERSION_FIELDS},
    environment, keys, tls,
};
use crate::{
    ApiError, ApiState,
    ml::body::{map_of, texts},
    v1::compute::COMPUTE_TYPE,
};

/// Most versions of one service.
const MAX_VERSIONS: usize = 20;
/// Longest text of a field that is only kept.
const MAX_TEXT: usize = 4096;

/// What is wanted of a service.
pub(super) struct Wish {
    /// The service's body, but for its TLS.
    pub(super) body: Value,
    /// The bodies of its versions.
    pub(super) versions: BTreeMap<String, Value>,
    /// Keys of the caller's own.
    pub(super) keys: [Option<Secret>; 2],
    /// What is asked of its certificate.
    pub(super) tls: tls::Ask,
}

impl Wish {
    /// Reads and checks a document. `before` is the service if there is one.
    ///
    /// # Errors
    /// `BadArgument`, `NotFound` or `NotImplemented` naming the field.
    pub(super) async fn read(
        state: &ApiState,
        asked: &Asked,
        name: &str,
        given: &Value,
        before: Option<&Service>,
    ) -> Result<Self, ApiError> {
        check_service_name("service", name)?;
        let kind = ServiceKind::parse(given["computeType"].as_str().unwrap_or_default())?;
        if let Some(before) = before {
            let present = document::kind(&before.row)?;
            if present != kind {
                let message = format!(
                    "The service '{name}' is of the type {}, which can't be changed to {}. Delete it first, or take another name.",
                    present.as_str(),
                    kind.as_str()
                );
                return Err(Fault::conflict("ServiceTypeMismatch", message).at("computeType").into());
            }
        }
        let mut block = kept(given, &SERVICE_FIELDS)?;
        block.insert("computeType".to_owned(), kind.as_str().into());
        if kind != ServiceKind::Aci {
            let compute = compute(state, asked, given).await?;
            block.insert("computeName".to_owned(), compute.name().into());
            block.insert("computeId".to_owned(), compute.as_str().into());
        }
        let auth = auth(kind, given)?;
        block.insert("authEnabled".to_owned(), (auth == AuthMode::Key).into());
        block.insert("aadAuthEnabled".to_owned(), (auth == AuthMode::AMLToken).into());
        let location =
            given["location"].as_str().or_else(|| asked.workspace.location()).unwrap_or(&state.config.region);
        block.insert("location".to_owned(), location.into());
        let mut versions = BTreeMap::new();
        for (version, document) in documents(kind, name, given)? {
            let old = before.and_then(|before| before.versions.iter().find(|row| row.name() == version));
            let body = version_body(state, asked, kind, &document, old).await?;
            versions.insert(version, body);
        }
        let traffic = traffic(&mut versions)?;
        let names = tls::label_name(state, kind, given)?;
        let body = json!({
            "location": location,
            "kind": kind.as_str(),
            "properties": {"authMode": auth, "traffic": traffic, "publicNetworkAccess": "Enabled"},
            V1_FIELD: block,
            NAMES_FIELD: names.into_iter().collect::<Vec<String>>(),
        });
        let keys = [
            keys::given(given.pointer("/keys/primaryKey"), "primaryKey")?,
            keys::given(given.pointer("/keys/secondaryKey"), "secondaryKey")?,
        ];
        Ok(Self { body, versions, keys, tls: tls::Ask::read(kind, given)? })
    }
}

/// The fields that are only kept and shown.
fn kept(given: &Value, names: &[&str]) -> Result<Map<String, Value>, Fault> {
    let mut kept = Map::new();
    for name in names {
        let value = given.get(*name).filter(|value| !value.is_null()).cloned();
        let value = match (*name, value) {
            ("kvTags" | "properties", value) => map_of(texts(value, name)?),
            ("environmentImageRequest", _) | (_, None) => continue,
            (_, Some(value)) if value.to_string().len() > MAX_TEXT => {
                return Err(
                    Fault::invalid("BadArgument", format!("'{name}' is longer than {MAX_TEXT} bytes.")).at(*name)
                );
            }
            (_, Some(value)) => value,
        };
        kept.insert((*name).to_owned(), value);
    }
    Ok(kept)
}

/// The compute that a service is to run on.
async fn compute(state: &ApiState, asked: &Asked, given: &Value) -> Result<ResourceId, ApiError> {
    // A service of several versions names it in each.
    let in_version = given["versions"]
        .as_object()
        .and_then(|versions| versions.values().find_map(|one| one["computeName"].as_str()));
    let name = given["computeName"].as_str().or(in_version).unwrap_or_default();
    let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    let missing = || {
        let message = if name.is_empty() {
            "The service names no compute. Give deployment_target, or compute_target_name.".to_owned()
        } else {
            format!("There is no compute '{shown}' in the workspace. Create or attach it first.")
        };
        Fault::not_found("ComputeNotFound", message).at("computeName")
    };
    if name.is_empty() {
        return Err(missing().into());
    }
    let id = asked.workspace.id.child("computes", name)?;
    debug_assert!(id.is_type(COMPUTE_TYPE));
    let row = state.store.resource_get(&id).await?.filter(|row| !row.deleting);
    Ok(row.ok_or_else(missing)?.id)
}

/// How callers authenticate: services on a compute by keys unless they say otherwise.
fn auth(kind: ServiceKind, given: &Value) -> Result<AuthMode, Fault> {
    let truth = |field: &str| match given.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(Fault::invalid("BadArgument", format!("'{field}' is neither true nor false.")).at(field)),
    };
    let (keys, tokens) = (truth("authEnabled")?, truth("aadAuthEnabled")?.unwrap_or(false));
    if kind == ServiceKind::Aci && tokens {
        let message = "Services of the type ACI do not authenticate by tokens; use auth_enabled, which is for keys.";
        return Err(Fault::invalid("BadArgument", message).at("aadAuthEnabled"));
    }
    match (keys.unwrap_or(kind != ServiceKind::Aci && !tokens), tokens) {
        (true, true) => {
            let message = "A service authenticates by keys or by tokens: set one of auth_enabled and token_auth_enabled to False.";
            Err(Fault::invalid("BadArgument", message).at("aadAuthEnabled"))
        }
        (true, false) => Ok(AuthMode::Key),
        (false, true) => Ok(AuthMode::AMLToken),
        (false, false) => Ok(AuthMode::None),
    }
}

/// The documents of the versions by name.
fn documents(kind: ServiceKind, name: &str, given: &Value) -> Result<BTreeMap<String, Value>, Fault> {
    if kind != ServiceKind::AksEndpoint {
        let mut only = given.clone();
        // These are the service's own, and changing them leaves its instances alone.
        if let Some(fields) = only.as_object_mut() {
            fields.retain(|key, _| !matches!(key.as_str(), "description" | "kvTags" | "properties"));
        }
        return Ok(BTreeMap::from([(ONLY_VERSION.to_owned(), only)]));
    }
    let versions = given["versions"].as_object().filter(|versions| !versions.is_empty());
    let bad = |message: String| Fault::invalid("BadArgument", message).at("versions");
    let versions = versions.ok_or_else(|| bad(format!("The service '{name}' has no version; give one at least.")))?;
    if versions.len() > MAX_VERSIONS {
        return Err(bad(format!(
            "The service '{name}' has {} versions; at most {MAX_VERSIONS} are taken.",
            versions.len()
        )));
    }
    for version in versions.keys() {
        check_service_name("version", version)?;
    }
    Ok(versions.iter().map(|(name, document)| (name.clone(), document.clone())).collect())
}

async fn version_body(
    state: &ApiState,
    asked: &Asked,
    kind: ServiceKind,
    document: &Value,
    before: Option<&Resource>,
) -> Result<Value, ApiError> {
    let settings = VersionSettings::read(kind, document)?;
    let mut block = kept(document, &VERSION_FIELDS)?;
    let request = &document["environmentImageRequest"];
    let old = before.map(|before| &before.body).filter(|body| body[V1_FIELD]["environmentImageRequest"] == *request);
    let (request, package, variables) = match old {
        // What was checked once need not be in the artifact store any more.
        Some(old) => {
            let mut package = old[V1_FIELD]["package"].clone();
            package["milliCpus"] = settings.size().milli_cpus.into();
            package["memoryBytes"] = settings.size().memory_bytes.into();
            (request.clone(), package, old["properties"]["environmentVariables"].clone())
        }
        None => {
            let prepared = environment::read(state, asked, request, &settings).await?;
            (prepared.request, json!(prepared.package), json!(prepared.variables))
        }
    };
    let script = package["entryScript"].clone();
    block.insert("settings".to_owned(), json!(settings));
    block.insert("environmentImageRequest".to_owned(), request);
    block.insert("package".to_owned(), package);
    let probe = settings.probe();
    Ok(json!({
        "sku": {"name": "Default", "capacity": settings.replicas()},
        "properties": {
            "endpointComputeType": "Managed",
            "codeConfiguration": {"scoringScript": script},
            "environmentVariables": variables,
            "requestSettings": settings.request_settings(),
            "livenessProbe": probe,
            "readinessProbe": probe,
            "egressPublicNetworkAccess": "Enabled",
        },
        V1_FIELD: block,
    }))
}

/// The shares of the versions: what each asks for, and the rest for the default one. Writes into each whether it is that.
fn traffic(versions: &mut BTreeMap<String, Value>) -> Result<BTreeMap<String, u64>, Fault> {
    let bad = |message: String| Fault::invalid("BadArgument", message).at("trafficPercentile");
    let mut shares = BTreeMap::new();
    for (name, body) in versions.iter() {
        let given = &body[V1_FIELD]["trafficPercentile"];
        let share = if given.is_null() { Some(0) } else { given.as_u64().or_else(|| whole(given)) };
        let share = share.filter(|share| *share <= 100).ok_or_else(|| {
            bad(format!(
                "The traffic percentile of the version '{name}' is {given}; give a whole number from 0 to 100."
            ))
        })?;
        shares.insert(name.clone(), share);
    }
    let total: u64 = shares.values().sum();
    if total > 100 {
        return Err(bad(format!(
            "The traffic percentiles of the versions make {total} %. Give at most 100; what is left goes to the default version."
        )));
    }
    let is_default = |body: &Value| body[V1_FIELD]["isDefault"].as_bool() == Some(true);
    let mut defaults = versions.iter().filter(|(_, body)| is_default(body)).map(|(name, _)| name.clone());
    let default = match (defaults.next(), defaults.next()) {
        (Some(_), Some(_)) => {
            return Err(Fault::invalid("BadArgument", "More than one version is the default one.").at("isDefault"));
        }
        (Some(default), None) => default,
        // The one with the largest share, or the first by name.
        (None, _) => {
            let largest = shares.iter().max_by_key(|(name, share)| (**share, std::cmp::Reverse((*name).clone())));
            largest.map(|(name, _)| name.clone()).unwrap_or_default()
        }
    };
    *shares.entry(default.clone()).or_default() += 100 - total;
    for (name, body) in versions.iter_mut() {
        let block = &mut body[V1_FIELD];
        block["isDefault"] = (*name == default).into();
        if block["type"].is_null() {
            block["type"] = if *name == default { "Control" } else { "Treatment" }.into();
        }
    }
    Ok(shares)
}

fn whole(given: &Value) -> Option<u64> {
    let number = given.as_f64().filter(|number| number.fract() == 0.0 && (0.0..=100.0).contains(number))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be 0 to 100")]
    Some(number as u64)
}

/// Refuses what an ACI service can't have here.
///
/// # Errors
/// `NotImplemented` naming the field.
pub(super) fn check_aci(given: &Value) -> Result<(), Fault> {
    for field in ["encryptionProperties", "vnetConfiguration"] {
        if given.get(field).is_some_and(|value| !value.is_null()) {
            let message = format!("'{field}' is not available for services on this platform. Leave it out.");
            return Err(Fault::new(FaultKind::NotImplemented, "NotImplemented", message).at(field));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(given: &[(&str, Value, bool)]) -> Result<Vec<(String, u64)>, Fault> {
        let mut versions = BTreeMap::new();
        for (name, share, default) in given {
            versions.insert((*name).to_owned(), json!({V1_FIELD: {"trafficPercentile": share, "isDefault": default}}));
        }
        Ok(traffic(&mut versions)?.into_iter().collect())
    }

    #[test]
    fn what_is_left_goes_to_the_default_version() {
        let pair = |a: u64, b: u64| vec![("a".to_owned(), a), ("b".to_owned(), b)];
        assert_eq!(shares(&[("a", Value::Null, false)]).unwrap(), [("a".to_owned(), 100)]);
        assert_eq!(shares(&[("a", Value::Null, true), ("b", json!(20), false)]).unwrap(), pair(80, 20));
        assert_eq!(shares(&[("a", json!(60), false), ("b", json!(20), false)]).unwrap(), pair(80, 20));
        assert_eq!(shares(&[("a", json!(20.0), false), ("b", json!(80), true)]).unwrap(), pair(20, 80));
        for bad in [
            shares(&[("a", json!(60), false), ("b", json!(50), false)]),
            shares(&[("a", json!(101), false)]),
            shares(&[("a", json!(1.5), false)]),
            shares(&[("a", json!(0), true), ("b", json!(0), true)]),
        ] {
            assert!(bad.is_err());
        }
    }

    #[test]
    fn who_may_call() {
        let mode =
            |kind, keys: Value, tokens: Value| auth(kind, &json!({"authEnabled": keys, "aadAuthEnabled": tokens}));
        let (aks, aci, none) = (ServiceKind::Aks, ServiceKind::Aci, Value::Null);
        assert_eq!(mode(aks, none.clone(), none.clone()), Ok(AuthMode::Key));
        assert_eq!(mode(aci, none.clone(), none.clone()), Ok(AuthMode::None));
        assert_eq!(mode(aks, json!(false), none.clone()), Ok(AuthMode::None));
        assert_eq!(mode(aks, none.clone(), json!(true)), Ok(AuthMode::AMLToken));
        assert!(mode(aks, json!(true), json!(true)).is_err());
        assert!(mode(aci, none.clone(), json!(true)).is_err());
        assert!(mode(aks, json!("yes"), none).is_err());
    }
}
