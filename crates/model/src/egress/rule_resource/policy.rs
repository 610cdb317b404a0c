//! The policy of one deployment, from its workspace, the rules and itself.

use serde_json::Value;

use super::{AUDIT_PROPERTY, Surroundings, mode_of, private::own_private_endpoints, rules_from_resource};
use crate::{
    egress::{EgressPolicy, IsolationMode},
    fault::Fault,
    resource::Resource,
};

/// What a deployment of the workspace may reach (or what any could, when none is given), and the rules that could not
/// be read, which open nothing. `rules` are the stored ones of the workspace; the platform's own are added here, in
/// every mode, since what belongs to a workspace is reached in no other way.
#[must_use]
pub fn policy(
    workspace: &Resource,
    rules: &[Resource],
    deployment: Option<&Resource>,
    around: &Surroundings<'_>,
) -> (EgressPolicy, Vec<Fault>) {
    let mode = mode_of(workspace);
    let has_effect = |rule: &&Resource| match mode {
        IsolationMode::Disabled => false,
        IsolationMode::AllowInternetOutbound => rule.properties()["type"] != "FQDN",
        IsolationMode::AllowOnlyApprovedOutbound => true,
    };
    let own = own_private_endpoints(workspace);
    let stored = rules.iter().filter(|rule| !rule.deleting && rule.id.is_within(&workspace.id)).filter(has_effect);
    let (mut read, mut faults) = (Vec::new(), Vec::new());
    for rule in own.iter().chain(stored) {
        match rules_from_resource(rule, around) {
            Ok(rules) => read.extend(rules),
            Err(fault) => faults.push(fault),
        }
    }
    let says = |pointer: &str, word: &str| {
        let value = deployment.and_then(|row| row.properties().pointer(pointer)).and_then(Value::as_str);
        value.is_some_and(|value| value.eq_ignore_ascii_case(word))
    };
    let policy = EgressPolicy {
        mode,
        public_disabled: says("/egressPublicNetworkAccess", "Disabled"),
        audit: deployment.is_some_and(is_audited),
        rules: read,
        own_addresses: around.own_addresses.to_vec(),
    };
    (policy, faults)
}

/// Whether a deployment runs in learn mode.
#[must_use]
pub fn is_audited(deployment: &Resource) -> bool {
    let value =
        deployment.properties().get("properties").and_then(|own| own.get(AUDIT_PROPERTY)).and_then(Value::as_str);
    value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
}
