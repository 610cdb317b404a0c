//! What a sandbox may reach: host names and patterns, ports, prefixes, address classes, and the policy that decides.
//!
//! The egress gateway asks this module about every name that a model looks up, every connection it opens and every
//! address that a name resolves to; the management API and `outbound-rule test` ask the same functions, so what is
//! shown is what happens. It refuses to resolve, to read files and to keep state: a decision is a function of the
//! policy and the question, and every refusal is a sentence that says what would change it.

mod address;
mod admit;
#[cfg(test)]
mod differential;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod home;
mod log;
mod name;
mod pattern;
mod policy;
#[cfg(test)]
mod policy_tests;
mod ports;
mod prefix;
mod reason;
mod rule_resource;
mod suggest;
mod tags;
#[cfg(test)]
mod tags_tests;

pub use address::{AddressClass, classify, unmapped};
pub use admit::{Admitted, RefusedAddress};
pub use home::{SERVICE_TYPES, lead_home, service_hosts};
pub use log::LogEntry;
pub use name::{HostName, NameError};
pub use pattern::{HostPattern, PatternError};
pub use policy::{
    Breadth, Decision, EgressPolicy, Inspection, IsolationMode, PrivateDestination, Route, Rule, Target, Verdict,
};
pub use ports::{PortError, PortRanges};
pub use prefix::{Prefix, PrefixError};
pub use rule_resource::{
    AUDIT_PROPERTY, PROVISIONED, REQUIRED, RULE_TYPE, RuleStatus, Surroundings, USER_DEFINED, checked_rule,
    connection_id, connection_of, is_audited, is_provisioned, mode_of, needed, policy, private_target,
    required_connections, required_rules, rule_status, rules_from_resource,
};
pub use suggest::{Suggestion, suggest};
pub use tags::{ServiceTag, ServiceTags, TagError};
