//! Names that lead to the platform itself: its vaults and storage accounts, under its own domain and under the names
//! that they would have in the public cloud.
//!
//! Code that was written for the public cloud writes `NAME.vault.azure.net`. Where a deployment may reach that name and
//! the platform has a vault of it, the platform's is meant. A name that nothing here has goes where it always went.

use super::{EgressPolicy, HostName, HostPattern, PortRanges, PrivateDestination, Route, Rule, Target, Verdict};
use crate::{resource::Resource, vault};

/// The types of the resources that have such names.
pub const SERVICE_TYPES: [&str; 2] = [vault::VAULT_TYPE, "Microsoft.Storage/storageAccounts"];

/// The hosts that a vault or a storage account has: under the platform's domain, then in the public cloud.
#[must_use]
pub fn service_hosts(service: &Resource, domain: &str) -> Vec<HostName> {
    let name = service.name();
    let texts = if service.id.is_type(SERVICE_TYPES[0]) {
        [format!("{name}.vault.{domain}"), format!("{name}.{}", vault::PUBLIC_SUFFIX)]
    } else if service.id.is_type(SERVICE_TYPES[1]) {
        [format!("{name}.blob.core.{domain}"), format!("{name}.blob.{}", vault::PUBLIC_STORAGE_SUFFIX)]
    } else {
        return Vec::new();
    };
    texts.iter().filter_map(|text| HostName::parse(text).ok()).collect()
}

/// Makes the names of the platform's own services that a policy lets through in public lead to the front door. Nothing
/// is let through that was not before, and what leads somewhere privately goes on leading there.
pub fn lead_home(policy: &mut EgressPolicy, services: &[Resource], domain: &str) {
    let mut rules: Vec<Rule> = Vec::new();
    for host in services.iter().filter(|row| !row.deleting).flat_map(|row| service_hosts(row, domain)) {
        let decision = policy.name(&host, 443);
        if decision.would_deny || matches!(decision.verdict, Verdict::Deny | Verdict::Allow(Route::Private(_))) {
            continue;
        }
        let name = decision.rule.unwrap_or_else(|| "platform services".to_owned());
        let pattern = HostPattern::Exact(host);
        match rules.iter_mut().find(|rule| rule.name == name) {
            Some(Rule { target: Target::Private { names, .. }, .. }) => names.push(pattern),
            _ => rules.push(Rule {
                name,
                target: Target::Private { names: vec![pattern], to: PrivateDestination::FrontDoor },
                ports: PortRanges::one(443),
                protocols_tcp: true,
            }),
        }
    }
    policy.rules.extend(rules);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{egress::IsolationMode, id::ResourceId, resource::SystemData};

    fn row(kind: &str, name: &str) -> Resource {
        let at = "2026-01-02T03:04:05Z".parse().unwrap();
        Resource {
            id: ResourceId::parse(&format!("/subscriptions/s/resourceGroups/g/providers/{kind}/{name}")).unwrap(),
            body: json!({}),
            observed: serde_json::Map::new(),
            generation: 1,
            etag: String::new(),
            deleting: false,
            system: SystemData {
                created_by: String::new(),
                created_by_type: String::new(),
                created_at: at,
                last_modified_by: String::new(),
                last_modified_by_type: String::new(),
                last_modified_at: at,
            },
        }
    }

    #[test]
    fn only_names_that_are_ours_and_approved_lead_here() {
        let services = [row(SERVICE_TYPES[0], "KV1"), row(SERVICE_TYPES[1], "acct1")];
        let approving = |name: &str| Rule {
            name: "corp".to_owned(),
            target: Target::Host(HostPattern::parse(name).unwrap()),
            ports: PortRanges::default(),
            protocols_tcp: true,
        };
        let home = Some(Verdict::Allow(Route::Private(PrivateDestination::FrontDoor)));
        let (public, deny) = (Some(Verdict::Allow(Route::Public)), Some(Verdict::Deny));
        for (mode, disabled, rules, name, expected) in [
            (IsolationMode::Disabled, false, vec![], "kv1.vault.azure.net", &home),
            (IsolationMode::Disabled, false, vec![], "kv1.vault.ml.example", &home),
            (IsolationMode::AllowInternetOutbound, false, vec![], "acct1.blob.core.windows.net", &home),
            (IsolationMode::Disabled, false, vec![], "acct1.blob.core.ml.example", &home),
            (IsolationMode::Disabled, false, vec![], "kv2.vault.azure.net", &public),
            (IsolationMode::Disabled, false, vec![], "a.kv1.vault.azure.net", &public),
            (IsolationMode::Disabled, true, vec![], "kv1.vault.azure.net", &deny),
            (IsolationMode::AllowOnlyApprovedOutbound, false, vec![], "kv1.vault.azure.net", &deny),
            (
                IsolationMode::AllowOnlyApprovedOutbound,
                false,
                vec![approving("kv1.vault.azure.net")],
                "kv1.vault.azure.net",
                &home,
            ),
            (
                IsolationMode::AllowOnlyApprovedOutbound,
                false,
                vec![approving("*.vault.azure.net")],
                "kv1.vault.azure.net",
                &home,
            ),
            (
                IsolationMode::AllowOnlyApprovedOutbound,
                false,
                vec![approving("kv1.vault.azure.net")],
                "acct1.blob.core.windows.net",
                &deny,
            ),
        ] {
            let mut policy = EgressPolicy { mode, public_disabled: disabled, rules, ..EgressPolicy::default() };
            lead_home(&mut policy, &services, "ml.example");
            let found = policy.name(&HostName::parse(name).unwrap(), 443).verdict;
            assert_eq!(Some(&found), expected.as_ref(), "{mode:?} {disabled} {name}");
            assert_ne!(
                policy.name(&HostName::parse("kv1.vault.azure.net").unwrap(), 8443).verdict,
                home.clone().unwrap()
            );
        }
    }
}
