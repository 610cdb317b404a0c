//! The sentences that decisions carry: the cause, and for a refusal the line that would change it.

use std::net::IpAddr;

use super::{
    address::{AddressClass, classify},
    name::{HostName, shown},
    policy::{EgressPolicy, IsolationMode, PrivateDestination, Rule, Target},
    ports::PortRanges,
};

const SET: &str = "casemate ml workspace outbound-rule set --workspace-name WS";

pub(super) fn localhost(name: &HostName) -> String {
    format!(
        "{name} is the instance itself: connect to 127.0.0.1 inside the instance; it never goes through the gateway."
    )
}

pub(super) fn metadata(name: &HostName) -> String {
    format!(
        "{name} is the name of a cloud's metadata service, which no deployment may reach. The instance's own identity \
         answers at http://169.254.169.254/metadata/identity/oauth2/token."
    )
}

pub(super) fn public_disabled(asked: &str) -> String {
    format!(
        "{asked} is a public destination, and the deployment says egress_public_network_access: disabled. Reach it \
         through a private endpoint ({SET} --rule NAME --type private_endpoint --service-resource-id ID \
         --subresource-target GROUP), or set egress_public_network_access to enabled."
    )
}

pub(super) fn open(mode: IsolationMode) -> String {
    format!("The isolation mode {} lets every public destination through.", mode.as_snake())
}

pub(super) fn learned(why: &str) -> String {
    format!("Learn mode lets it through; by the rules it would be refused: {why}")
}

pub(super) fn approved(rule: &Rule) -> String {
    let name = shown(&rule.name);
    match &rule.target {
        Target::Host(pattern) => format!("Rule '{name}' approves {pattern} on port {}.", rule.ports),
        Target::Addresses(_) => format!("Rule '{name}' approves this address on port {}.", rule.ports),
        Target::Private { to, .. } => private(rule, to),
    }
}

pub(super) fn private(rule: &Rule, to: &PrivateDestination) -> String {
    let name = shown(&rule.name);
    match to {
        PrivateDestination::FrontDoor => format!("Private rule '{name}' leads to the platform's own service."),
        PrivateDestination::Address(address) => format!("Private rule '{name}' leads to {address}."),
        PrivateDestination::Name(host) => format!("Private rule '{name}' leads to {host}."),
        PrivateDestination::Absent(why) => format!("Private rule '{name}' leads nowhere: {why}"),
    }
}

pub(super) fn no_private(rule: &Rule) -> String {
    format!("Rule '{}' is not a private endpoint.", shown(&rule.name))
}

pub(super) fn absent(asked: &str, rule: &Rule, why: &str) -> String {
    format!(
        "{asked} is reached through the private rule '{}', which leads nowhere at present: {why}",
        shown(&rule.name)
    )
}

pub(super) fn never_private(address: IpAddr, rule: &Rule) -> String {
    format!(
        "Private rule '{}' leads to {address}, {}: no rule can open that. Set the rule to the address of a host.",
        shown(&rule.name),
        classify(address).describe()
    )
}

pub(super) fn private_port(name: &HostName, port: u16, rule: &Rule) -> String {
    format!(
        "{name} is reached through the private rule '{}', which opens port {}, not {port}. Set the rule again with \
         --port-ranges \"{}\".",
        shown(&rule.name),
        rule.ports,
        rule.ports.union(&PortRanges::one(port))
    )
}

pub(super) fn class(address: IpAddr, class: AddressClass) -> String {
    let known = format!("{address} is {}, and no rule can open that.", class.describe());
    match class {
        AddressClass::Benchmark => format!(
            "{known} If a name had this address, the name has been forgotten since: look it up again before connecting."
        ),
        AddressClass::Metadata => format!(
            "{known} The instance's own identity answers at http://169.254.169.254/metadata/identity/oauth2/token on \
             port 80, and nothing else does."
        ),
        AddressClass::Embedded => format!("{known} Use the IPv4 address, or the host's name."),
        _ => format!("{known} Use the name or the public address of the host."),
    }
}

pub(super) fn own(address: IpAddr) -> String {
    format!(
        "{address} is an address of the machine that runs the platform, which no deployment may reach. If a service on \
         this machine is meant, register it and make a private endpoint to it: {SET} --rule NAME --type \
         private_endpoint --service-resource-id ID --subresource-target GROUP"
    )
}

/// No rule approves `name` on `port`; `matching` are the rules that approve it otherwise.
pub(super) fn unapproved_name(policy: &EgressPolicy, name: &HostName, port: Option<u16>, matching: &[&Rule]) -> String {
    if let Some(rule) = matching.iter().find(|rule| rule.protocols_tcp) {
        let port = port.unwrap_or(0);
        let Target::Host(pattern) = &rule.target else { return no_private(rule) };
        return format!(
            "Rule '{rule}' approves {pattern} on port {ports}, not {port}. To approve it: {SET} --rule {rule} --type \
             fqdn --destination '{pattern}' --port-ranges {more}",
            rule = shown(&rule.name),
            ports = rule.ports,
            more = rule.ports.union(&PortRanges::one(port)),
        );
    }
    let asked = port.map_or_else(|| name.to_string(), |port| format!("{name}:{port}"));
    let udp = matching.first().map_or_else(String::new, |rule| {
        format!(" (rule '{}' is not about TCP, and nothing else is relayed)", shown(&rule.name))
    });
    let base = policy.rules.iter().find_map(|rule| match &rule.target {
        Target::Host(super::HostPattern::Below(base)) if base == name => Some(&rule.name),
        _ => None,
    });
    let base = base.map_or_else(String::new, |rule| {
        format!(" (rule '{}' approves the hosts below it, not {name} itself)", shown(rule))
    });
    let ports = match port {
        Some(port) if !PortRanges::web().contains(port) => format!(" --port-ranges {port}"),
        _ => String::new(),
    };
    format!(
        "No outbound rule approves {asked}{udp}{base}. To approve it: {SET} --rule {} --type fqdn --destination \
         {name}{ports}",
        slug(name.as_str())
    )
}

/// No rule approves `address` on `port`; `wrong_port` covers the address otherwise.
pub(super) fn unapproved_address(address: IpAddr, port: u16, private: bool, wrong_port: Option<&Rule>) -> String {
    if let Some(rule) = wrong_port {
        let name = shown(&rule.name);
        return match rule.protocols_tcp {
            true => format!(
                "Rule '{name}' covers {address} on port {}, not {port}. Set the rule again with --port-ranges \"{}\".",
                rule.ports,
                rule.ports.union(&PortRanges::one(port))
            ),
            false => format!(
                "Rule '{name}' covers {address} for another protocol than TCP, and nothing else is relayed. Set the \
                 rule again with --protocol TCP."
            ),
        };
    }
    let what = if private { format!("{address} is {}, and n", classify(address).describe()) } else { "N".to_owned() };
    let better = if private { "" } else { " If the host has a name, approve the name instead and connect by it." };
    let width = if address.is_ipv4() { 32 } else { 128 };
    format!(
        "{what}o service tag rule approves {address} on port {port}.{better} To approve the address: {SET} --rule {} \
         --type service_tag --service-tag NAME --protocol TCP --port-ranges {port} --address-prefixes {address}/{width}",
        slug(&address.to_string())
    )
}

/// A rule's name made of what it is for.
fn slug(text: &str) -> String {
    let plain: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(60).collect();
    match plain.trim_matches('-') {
        "" => "rule".to_owned(),
        name => name.to_owned(),
    }
}
