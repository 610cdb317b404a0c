//! Outbound rules as resources: what a user may write, what the platform adds, and the policy that comes of them.
//!
//! The management API checks and shows rules with these functions, and the reconcilers publish policies with them, so
//! that `outbound-rule test` answers what the gateway will do. What is stored is the public shape; nothing here reads a
//! store: whoever asks brings the resources that a private endpoint leads to ([`needed`] says which).

mod check;
mod policy;
mod private;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use serde_json::Value;

pub use check::{checked_rule, private_target};
pub use policy::{is_audited, policy};
pub use private::{connection_id, connection_of, needed, required_connections, required_rules};

use super::{
    pattern::HostPattern,
    policy::{IsolationMode, PrivateDestination, Rule, Target},
    ports::PortRanges,
    tags::ServiceTags,
};
use crate::{fault::Fault, id::ResourceId, resource::Resource};

/// The resource type of an outbound rule.
pub const RULE_TYPE: &str = "Microsoft.MachineLearningServices/workspaces/outboundRules";
/// Observed (`true`) of a workspace whose managed network was provisioned.
pub const PROVISIONED: &str = "_networkProvisioned";
/// The deployment's own property (`properties.properties`) that turns learn mode on with `true`.
pub const AUDIT_PROPERTY: &str = "casemate.egressAudit";
/// The category of a user's own rules.
pub const USER_DEFINED: &str = "UserDefined";
/// The category of the platform's own rules.
pub const REQUIRED: &str = "Required";

/// What a rule means depends on.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The table of service tags.
    pub tags: &'a ServiceTags,
    /// The platform's DNS domain, under which its storage, vaults and registries have their names.
    pub domain: &'a str,
    /// The host's own addresses.
    pub own_addresses: &'a [IpAddr],
    /// The stored resource of an id, if it exists and is not being deleted.
    pub lookup: &'a dyn Fn(&ResourceId) -> Option<Resource>,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Surroundings").field("domain", &self.domain).finish_non_exhaustive()
    }
}

/// Whether a rule has effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleStatus {
    /// It has.
    Active,
    /// Not now; the text says why when it is not for the mode or the network alone.
    Inactive(Option<String>),
    /// It can't: what it leads to is gone or not served.
    Failed(String),
}

impl RuleStatus {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Active => "Active",
            Self::Inactive(_) => "Inactive",
            Self::Failed(_) => "Failed",
        }
    }

    /// Why it has no effect.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Active => None,
            Self::Inactive(why) => why.as_deref(),
            Self::Failed(why) => Some(why),
        }
    }
}

/// The isolation mode of a workspace; approved destinations only when it can't be read.
#[must_use]
pub fn mode_of(workspace: &Resource) -> IsolationMode {
    let mode = workspace.properties().pointer("/managedNetwork/isolationMode").and_then(Value::as_str);
    mode.map_or(IsolationMode::Disabled, |mode| IsolationMode::parse(mode).unwrap_or_default())
}

/// Whether the workspace has a managed network that is in force.
#[must_use]
pub fn is_provisioned(workspace: &Resource) -> bool {
    mode_of(workspace) != IsolationMode::Disabled && workspace.observed.get(PROVISIONED) == Some(&Value::Bool(true))
}

/// What a stored rule means: one or several rules of its name (an FQDN rule may list several hosts, a tag may hold
/// addresses and hosts). A private endpoint that leads nowhere at present gives a rule that says so, never none, since
/// without it its names would be looked up in public.
///
/// # Errors
/// `BadArgument` for a stored rule that can't be read, or whose service tag is not in the table any more.
pub fn rules_from_resource(rule: &Resource, around: &Surroundings<'_>) -> Result<Vec<Rule>, Fault> {
    let name = rule.name();
    let properties = rule.properties();
    let bad = |field: &str, why: String| {
        Fault::invalid("BadArgument", format!("The outbound rule '{name}': {why}")).at(field.to_owned())
    };
    match properties["type"].as_str().unwrap_or_default() {
        "FQDN" => {
            let ports = match properties.pointer("/casemate/portRanges").and_then(Value::as_str) {
                None => PortRanges::default(),
                Some(text) => PortRanges::parse(text).map_err(|error| bad("portRanges", error.to_string()))?,
            };
            let hosts = properties["destination"].as_str().unwrap_or_default();
            let hosts: Result<Vec<HostPattern>, _> =
                hosts.split(',').map(|host| HostPattern::parse(host.trim())).collect();
            let hosts = hosts.map_err(|error| bad("destination", error.to_string()))?;
            let rule = |host| Rule {
                name: name.to_owned(),
                target: Target::Host(host),
                ports: ports.clone(),
                protocols_tcp: true,
            };
            Ok(hosts.into_iter().map(rule).collect())
        }
        "ServiceTag" => {
            let destination = &properties["destination"];
            let text = |key: &str| destination[key].as_str();
            let prefixes = destination["addressPrefixes"].as_array().into_iter().flatten();
            let prefixes: Vec<String> = prefixes.filter_map(|one| Some(one.as_str()?.to_owned())).collect();
            let (tag, protocol) = (text("serviceTag").unwrap_or_default(), text("protocol").unwrap_or("TCP"));
            let rules = around.tags.rules(name, tag, protocol, text("portRanges"), &prefixes);
            rules.map_err(|error| bad("destination", error.to_string()))
        }
        "PrivateEndpoint" => {
            let found = private::resolve(rule, around).map_err(|fault| bad("destination", fault.message))?;
            Ok(vec![found.rule])
        }
        other => Err(bad("type", format!("its type '{other}' is not FQDN, PrivateEndpoint or ServiceTag."))),
    }
}

/// Whether a rule of the workspace has effect.
#[must_use]
pub fn rule_status(workspace: &Resource, rule: &Resource, around: &Surroundings<'_>) -> RuleStatus {
    let mode = mode_of(workspace);
    if rule.properties()["type"] == "FQDN" && mode == IsolationMode::AllowInternetOutbound {
        let why = "FQDN rules have effect in the isolation mode allow_only_approved_outbound only.";
        return RuleStatus::Inactive(Some(why.to_owned()));
    }
    let found = match rule.properties()["type"].as_str() {
        Some("PrivateEndpoint") => private::resolve(rule, around).map(|found| found.status),
        _ => rules_from_resource(rule, around).map(|_| RuleStatus::Active),
    };
    match found {
        Ok(RuleStatus::Active) if !is_provisioned(workspace) => RuleStatus::Inactive(None),
        Ok(status) => status,
        Err(fault) => RuleStatus::Failed(fault.message),
    }
}

/// A rule whose destination leads nowhere says why.
fn absent(why: &str) -> PrivateDestination {
    PrivateDestination::Absent(why.to_owned())
}
