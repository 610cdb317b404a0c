//! The body of a compute, without its TLS configuration: what is given, what stays from before, and defaults.

use casemate_model::{Fault, FaultKind, Resource, ResourceId};
use serde_json::{Map, Value, json};

use crate::arm::shape;

/// The type of a compute.
pub(crate) const COMPUTE_TYPE: &str = "Microsoft.MachineLearningServices/workspaces/computes";
/// The one kind of compute there is.
const KIND: &str = "AKS";
/// The type of a cluster that can be attached.
const CLUSTER_TYPE: &str = "Microsoft.ContainerService/managedClusters";
/// Most agents.
const MAX_AGENTS: u64 = 1000;
/// The longest text of any property.
const MAX_TEXT: usize = 256;

/// Checks a compute's name.
///
/// # Errors
/// `BadArgument` naming the allowed characters.
pub(super) fn check_name(name: &str) -> Result<(), Fault> {
    let good = (2..=24).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if good {
        return Ok(());
    }
    let shown: String = name.chars().take(60).collect();
    let message = format!(
        "The compute's name '{shown}' must have 2 to 24 characters: letters, digits and '-', with a letter first and \
         no '-' at the end."
    );
    Err(Fault::invalid("BadArgument", message).at("name"))
}

/// The TLS configuration in a request's body.
pub(super) fn ssl_of(given: &Value) -> Option<&Value> {
    given.get("properties")?.get("properties")?.get("sslConfiguration")
}

/// The body to be stored, without TLS.
///
/// # Errors
/// `BadArgument` for a value that is not of its kind, and for what can't be changed; `NotImplemented` for other computes.
pub(super) fn read(given: &Value, before: Option<&Resource>, home: &Resource) -> Result<Value, Fault> {
    let given = given.as_object().ok_or_else(|| bad("The request's body is not a JSON object.", "body"))?;
    let none = Map::new();
    let properties = object(given.get("properties"), "properties")?.unwrap_or(&none);
    check_kind(properties)?;
    let inner = object(properties.get("properties"), "properties.properties")?.unwrap_or(&none);
    let old = before.map(|row| row.properties().clone()).unwrap_or_default();
    let location = match given.get("location").filter(|value| !value.is_null()) {
        Some(location) => shape::location(Some(location))?,
        None => home.location().unwrap_or_default().to_owned(),
    };
    let tags = match (given.get("tags"), before) {
        (None | Some(Value::Null), Some(before)) => before.body["tags"].clone(),
        (tags, _) => shape::tags(tags)?,
    };
    let (resource, is_attached) = attached(properties, before)?;
    let description = text(properties, "description")?.map_or_else(|| old["description"].clone(), Value::from);
    let region = text(properties, "computeLocation")?.map(Value::from);
    let region = region.or_else(|| old.get("computeLocation").cloned()).unwrap_or_else(|| location.as_str().into());
    Ok(json!({
        "location": location,
        "tags": tags,
        "properties": {
            "computeType": KIND,
            "computeLocation": region,
            "description": description,
            "resourceId": resource,
            "isAttachedCompute": is_attached,
            "properties": pool(inner, &old["properties"])?,
        },
    }))
}

fn check_kind(properties: &Map<String, Value>) -> Result<(), Fault> {
    let kind = text(properties, "computeType")?.unwrap_or(KIND);
    if kind.eq_ignore_ascii_case(KIND) {
        return Ok(());
    }
    let shown: String = kind.chars().take(40).collect();
    let message = format!(
        "{shown} compute is not available on this platform yet. It has computes of the kind AKS for services of the first \
         generation of the SDK; managed online endpoints need no compute: leave 'compute' out of the endpoint's YAML."
    );
    Err(Fault::new(FaultKind::NotImplemented, "NotImplemented", message).at("computeType"))
}

/// The cluster that is attached, if one is; it stays what it was.
fn attached(properties: &Map<String, Value>, before: Option<&Resource>) -> Result<(Value, bool), Fault> {
    let given = text(properties, "resourceId")?;
    if let Some(before) = before {
        let (kept, is_attached) =
            (before.properties()["resourceId"].clone(), before.properties()["isAttachedCompute"] == true);
        if given.is_some_and(|given| !kept.as_str().is_some_and(|kept| kept.eq_ignore_ascii_case(given))) {
            let what = if is_attached { "is attached to another cluster" } else { "was created, not attached" };
            let message = format!(
                "The compute '{}' {what}, which can't be changed. Delete or detach it, then attach it anew.",
                before.name()
            );
            return Err(bad(&message, "resourceId"));
        }
        return Ok((kept, is_attached));
    }
    let Some(given) = given else { return Ok((Value::Null, false)) };
    let id = ResourceId::parse(given).map_err(|fault| fault.at("resourceId"))?;
    if !id.is_type(CLUSTER_TYPE) {
        let message = format!("'{id}' is not the id of a cluster ({CLUSTER_TYPE}), so it can't be attached.");
        return Err(bad(&message, "resourceId"));
    }
    Ok((id.as_str().into(), true))
}

/// The pool: what is given, else what was, else the defaults of the original.
fn pool(given: &Map<String, Value>, old: &Value) -> Result<Value, Fault> {
    let chosen = |key: &str, words: &[&'static str], default: &str| -> Result<String, Fault> {
        match given.get(key).filter(|value| !value.is_null() && **value != "") {
            Some(value) => Ok(shape::one_of(value, key, words)?.to_owned()),
            None => Ok(old[key].as_str().unwrap_or(default).to_owned()),
        }
    };
    let purpose = chosen("clusterPurpose", &["FastProd", "DenseProd", "DevTest"], "FastProd")?;
    let balancer = chosen("loadBalancerType", &["PublicIp", "InternalLoadBalancer"], "PublicIp")?;
    let agents = match given.get("agentCount").filter(|value| !value.is_null()) {
        Some(value) => value.as_u64().filter(|count| (1..=MAX_AGENTS).contains(count)).ok_or_else(|| {
            bad(&format!("agentCount is {value}; give a number from 1 to {MAX_AGENTS}."), "agentCount")
        })?,
        None => old["agentCount"].as_u64().unwrap_or(if purpose == "DevTest" { 1 } else { 3 }),
    };
    let size = text(given, "agentVmSize")?.or(old["agentVmSize"].as_str()).unwrap_or("Standard_D3_v2");
    let subnet = match text(given, "loadBalancerSubnet")? {
        Some(_) if balancer == "PublicIp" => {
            let message = "loadBalancerSubnet goes with the load balancer type InternalLoadBalancer only.";
            return Err(bad(message, "loadBalancerSubnet"));
        }
        _ if balancer == "PublicIp" => Value::Null,
        Some(subnet) => subnet.into(),
        None => old["loadBalancerSubnet"].as_str().unwrap_or("aks-subnet").into(),
    };
    Ok(json!({
        "agentCount": agents,
        "agentVmSize": size,
        "clusterPurpose": purpose,
        "loadBalancerType": balancer,
        "loadBalancerSubnet": subnet,
        "aksNetworkingConfiguration": networking(given, old)?,
    }))
}

/// Where the cluster's own network would lie; recorded.
fn networking(given: &Map<String, Value>, old: &Value) -> Result<Value, Fault> {
    const KEY: &str = "aksNetworkingConfiguration";
    let Some(given) = object(given.get(KEY), KEY)? else { return Ok(old[KEY].clone()) };
    let mut kept = Map::new();
    for key in ["subnetId", "serviceCidr", "dnsServiceIP", "dockerBridgeCidr"] {
        kept.insert(key.to_owned(), text(given, key)?.map_or(Value::Null, Value::from));
    }
    Ok(Value::Object(kept))
}

fn object<'v>(value: Option<&'v Value>, field: &str) -> Result<Option<&'v Map<String, Value>>, Fault> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(_) => Err(bad(&format!("'{field}' is not an object."), field)),
    }
}

/// A text; an empty one counts as none.
fn text<'v>(map: &'v Map<String, Value>, key: &str) -> Result<Option<&'v str>, Fault> {
    match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if text.len() <= MAX_TEXT || key == "resourceId" || key == "subnetId" => {
            Ok(Some(text))
        }
        Some(Value::String(_)) => Err(bad(&format!("'{key}' is longer than {MAX_TEXT} bytes."), key)),
        Some(_) => Err(bad(&format!("'{key}' is not a text."), key)),
    }
}

fn bad(message: &str, field: &str) -> Fault {
    Fault::invalid("BadArgument", message).at(field)
}
