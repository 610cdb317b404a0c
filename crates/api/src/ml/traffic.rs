//! Which deployments may get traffic.

use std::collections::BTreeMap;

use casemate_model::{
    Fault, ProvisioningState, Resource,
    endpoint::EndpointSpec,
    traffic::{Mirror, TrafficSplit},
};
use serde_json::{Map, Value, json};

/// Checks the traffic and mirror traffic in `properties` against the endpoint's deployments, and spells the names as
/// the deployments were created (clients send them in lower case).
///
/// # Errors
/// `BadArgument` for a deployment that is absent or never succeeded, a wrong sum, more than one mirror target and the
/// like; for any traffic at all when the endpoint is only being created.
pub(super) fn settle(
    endpoint: &str,
    properties: &mut Map<String, Value>,
    spec: &EndpointSpec,
    deployments: Option<&[Resource]>,
) -> Result<(), Fault> {
    let Some(deployments) = deployments else {
        let set = spec.traffic.iter().chain(&spec.mirror_traffic).find(|(_, share)| **share > 0);
        if let Some((name, _)) = set {
            let message = format!(
                "Traffic can't be set while the endpoint '{endpoint}' is created: its deployment '{name}' can't exist yet. Create the endpoint and the deployment, then set the traffic."
            );
            return Err(Fault::invalid("BadArgument", message).at("traffic"));
        }
        properties.insert("traffic".to_owned(), json!({}));
        properties.insert("mirrorTraffic".to_owned(), json!({}));
        return Ok(());
    };
    let live = named(endpoint, "traffic", &spec.traffic, deployments)?;
    let mirrored = named(endpoint, "mirrorTraffic", &spec.mirror_traffic, deployments)?;
    let split = TrafficSplit::new(live.clone())?;
    Mirror::new(&mirrored, &split)?;
    properties.insert("traffic".to_owned(), json!(live));
    properties.insert("mirrorTraffic".to_owned(), json!(mirrored));
    Ok(())
}

fn named(
    endpoint: &str,
    field: &str,
    shares: &BTreeMap<String, u64>,
    deployments: &[Resource],
) -> Result<BTreeMap<String, u64>, Fault> {
    let bad = |message: String| Fault::invalid("BadArgument", message).at(field);
    let present = || deployments.iter().filter(|deployment| !deployment.deleting);
    let mut found = BTreeMap::new();
    for (name, share) in shares {
        let deployment = present().find(|deployment| deployment.name().eq_ignore_ascii_case(name));
        let Some(deployment) = deployment else {
            if *share == 0 {
                continue;
            }
            let names: Vec<&str> = present().map(Resource::name).collect();
            let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Err(bad(format!(
                "The endpoint '{endpoint}' has no deployment '{name}' to send traffic to. Its deployments: {there}."
            )));
        };
        if *share > 0 && !has_succeeded(deployment) {
            let state = deployment.provisioning_state();
            return Err(bad(format!(
                "The deployment '{name}' can't get traffic: its state is {state:?}, and it has not succeeded yet. Wait until it has, or see its logs for the reason."
            )));
        }
        if found.insert(deployment.name().to_owned(), *share).is_some() {
            return Err(bad(format!("The deployment '{name}' is named twice.")));
        }
    }
    Ok(found)
}

/// Whether a deployment serves. One that is being updated, or whose update failed, still serves what succeeded
/// before; reconcilers keep that in `_served`.
fn has_succeeded(deployment: &Resource) -> bool {
    deployment.provisioning_state() == ProvisioningState::Succeeded || deployment.observed.contains_key("_served")
}

/// The live and mirrored share of a deployment in an endpoint's stored body.
pub(super) fn shares(endpoint: &Resource, deployment: &str) -> (u64, u64) {
    let share = |field: &str| {
        let map = endpoint.properties().get(field).and_then(Value::as_object);
        let found = map.into_iter().flatten().find(|(name, _)| name.eq_ignore_ascii_case(deployment));
        found.and_then(|(_, share)| share.as_u64()).unwrap_or(0)
    };
    (share("traffic"), share("mirrorTraffic"))
}

/// The endpoint's body without a deployment that goes away; none when it is not named there.
pub(super) fn without(endpoint: &Resource, deployment: &str) -> Option<Value> {
    let mut body = endpoint.body.clone();
    let mut changed = false;
    for field in ["traffic", "mirrorTraffic"] {
        if let Some(map) = body.pointer_mut(&format!("/properties/{field}")).and_then(Value::as_object_mut) {
            let before = map.len();
            map.retain(|name, _| !name.eq_ignore_ascii_case(deployment));
            changed |= map.len() != before;
        }
    }
    changed.then_some(body)
}
