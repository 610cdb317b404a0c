use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::{
    egress::{EgressPolicy, HostName, Route, Verdict},
    resource::SystemData,
};

const GROUP: &str = "/subscriptions/s/resourceGroups/g/providers";
const MODES: [&str; 3] = ["Disabled", "AllowInternetOutbound", "AllowOnlyApprovedOutbound"];

fn row(id: &str, properties: Value) -> Resource {
    let at = Timestamp::UNIX_EPOCH;
    Resource {
        id: ResourceId::parse(id).unwrap(),
        body: json!({"location": "local", "properties": properties}),
        observed: serde_json::Map::new(),
        generation: 1,
        etag: "\"1\"".to_owned(),
        deleting: false,
        system: SystemData {
            created_by: "me".to_owned(),
            created_by_type: "User".to_owned(),
            created_at: at,
            last_modified_by: "me".to_owned(),
            last_modified_by_type: "User".to_owned(),
            last_modified_at: at,
        },
    }
}

fn id(kind: &str, name: &str) -> String {
    format!("{GROUP}/{kind}/{name}")
}

fn storage() -> String {
    id("Microsoft.Storage/storageAccounts", "Acct1")
}

/// A workspace with what belongs to it, and whatever else a test puts beside it.
struct World {
    workspace: Resource,
    others: HashMap<ResourceId, Resource>,
    rules: Vec<Resource>,
}

impl World {
    fn new(mode: &str) -> Self {
        let mut workspace = row(
            &id("Microsoft.MachineLearningServices/workspaces", "ws"),
            json!({"managedNetwork": {"isolationMode": mode}, "storageAccount": storage(),
                "keyVault": id("Microsoft.KeyVault/vaults", "kv1"), "publicNetworkAccess": "Enabled"}),
        );
        workspace.observed.insert("workspaceId".to_owned(), "guid-1".into());
        workspace.observed.insert(PROVISIONED.to_owned(), true.into());
        let mut world = Self { workspace: workspace.clone(), others: HashMap::new(), rules: Vec::new() };
        world.put(workspace);
        world.put(row(&storage(), json!({"publicNetworkAccess": "Disabled"})));
        world.put(row(&id("Microsoft.KeyVault/vaults", "kv1"), json!({"publicNetworkAccess": "Enabled"})));
        world
    }

    fn put(&mut self, row: Resource) {
        self.others.insert(row.id.clone(), row);
    }

    fn rule(&mut self, name: &str, given: Value) -> Resource {
        let mode = mode_of(&self.workspace);
        let kept = checked_rule(name, &given, None, mode, &ServiceTags::builtin()).unwrap_or_else(|f| panic!("{f}"));
        let rule = row(&format!("{}/outboundRules/{name}", self.workspace.id), kept);
        self.rules.push(rule.clone());
        rule
    }

    /// A private endpoint rule and the other side's word on it.
    fn private(&mut self, name: &str, target: &str, subresource: &str, word: Option<&str>) -> Resource {
        let destination = json!({"serviceResourceId": target, "subresourceTarget": subresource});
        let rule = self.rule(name, json!({"type": "PrivateEndpoint", "destination": destination}));
        if let (Some(word), Some(connection)) = (word, connection_of(&rule.id, rule.properties())) {
            let state = json!({"privateLinkServiceConnectionState": {"status": word}});
            self.put(row(connection.as_str(), state));
        }
        rule
    }

    fn with<T>(&self, ask: impl FnOnce(&Surroundings<'_>) -> T) -> T {
        let lookup = |id: &ResourceId| self.others.get(id).cloned();
        let tags = ServiceTags::builtin();
        let own = ["192.168.1.9".parse().unwrap()];
        ask(&Surroundings { tags: &tags, domain: "casemate.internal", own_addresses: &own, lookup: &lookup })
    }

    fn policy(&self, deployment: Option<&Resource>) -> EgressPolicy {
        self.with(|around| {
            let (policy, faults) = policy(&self.workspace, &self.rules, deployment, around);
            assert_eq!(faults, []);
            policy
        })
    }

    fn status(&self, rule: &Resource) -> RuleStatus {
        self.with(|around| rule_status(&self.workspace, rule, around))
    }
}

fn host(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

#[test]
fn what_users_may_write_comes_to_one_form() {
    let fqdn = |destination: &str, ports: &str| json!({"type": "FQDN", "category": "UserDefined", "destination": destination, "casemate": {"portRanges": ports}});
    for (given, kept) in [
        (json!({"type": "FQDN", "destination": "Packages.Example.com"}), fqdn("packages.example.com", "80,443")),
        (
            json!({"type": "fqdn", "destination": "pytorch.org, *.pytorch.org", "category": "userdefined", "status": "Active"}),
            fqdn("pytorch.org, *.pytorch.org", "80,443"),
        ),
        (json!({"type": "FQDN", "destination": "a.b", "casemate": {"portRanges": 5432}}), fqdn("a.b", "5432")),
        (json!({"type": "FQDN", "destination": "a.b", "casemate": {"portRanges": null}}), fqdn("a.b", "80,443")),
        (
            json!({"type": "ServiceTag", "destination": {"serviceTag": "Storage.WestEurope", "protocol": "tcp", "portRanges": "80, 8080-8089"}}),
            json!({"type": "ServiceTag", "category": "UserDefined", "destination":
                {"serviceTag": "Storage.WestEurope", "protocol": "TCP", "portRanges": "80, 8080-8089", "action": "Allow"}}),
        ),
        (
            json!({"type": "ServiceTag", "destination": {"serviceTag": "Anything", "addressPrefixes": ["10.0.0.0/8", " 8.8.8.8 "], "protocol": "*", "portRanges": 53}}),
            json!({"type": "ServiceTag", "category": "UserDefined", "destination":
                {"serviceTag": "Anything", "protocol": "*", "portRanges": "53", "action": "Allow", "addressPrefixes": ["10.0.0.0/8", "8.8.8.8/32"]}}),
        ),
        (
            json!({"type": "PrivateEndpoint", "destination": {"serviceResourceId": storage(), "subresourceTarget": "BLOB"}, "fqdns": []}),
            json!({"type": "PrivateEndpoint", "category": "UserDefined", "destination":
                {"serviceResourceId": storage(), "subresourceTarget": "blob", "sparkEnabled": false, "sparkStatus": "Inactive"}}),
        ),
    ] {
        let read = |given: &Value| {
            checked_rule("r", given, None, IsolationMode::AllowOnlyApprovedOutbound, &ServiceTags::builtin())
        };
        assert_eq!(read(&given).unwrap_or_else(|fault| panic!("{given}: {fault}")), kept, "{given}");
        assert_eq!(read(&kept), Ok(kept), "what is shown can be sent back");
    }
}

#[test]
fn what_users_may_not_write() {
    let private = |service: &str, part: &str| json!({"type": "PrivateEndpoint", "destination": {"serviceResourceId": service, "subresourceTarget": part}});
    let tag = |destination: Value| json!({"type": "ServiceTag", "destination": destination});
    for (rule, said) in [
        (json!({}), "give one of: FQDN, PrivateEndpoint, ServiceTag"),
        (json!({"type": "Magic"}), "type is 'Magic'"),
        (json!({"type": "FQDN"}), "needs a destination"),
        (json!({"type": "FQDN", "destination": "http://x.y"}), "no scheme"),
        (json!({"type": "FQDN", "destination": "*"}), "anybody"),
        (json!({"type": "FQDN", "destination": "*.com"}), "anybody"),
        (json!({"type": "FQDN", "destination": "a.*.b"}), "whole first label"),
        (json!({"type": "FQDN", "destination": "a..b"}), "empty label"),
        (json!({"type": "FQDN", "destination": "a.b,"}), "empty"),
        (json!({"type": "FQDN", "destination": "10.0.0.1"}), "address"),
        (json!({"type": "FQDN", "destination": vec!["a.b"; 51].join(",")}), "more than 50"),
        (json!({"type": "FQDN", "destination": "a.b", "casemate": {"portRanges": "0"}}), "'0' is not a port"),
        (json!({"type": "FQDN", "destination": "a.b", "category": "Required"}), "made by the platform"),
        (private("x", "blob"), "resource id"),
        (private("/subscriptions/s", "blob"), "can't lead to a resource of the type"),
        (private(&id("Microsoft.Sql/servers", "s"), "sqlServer"), "Microsoft.Network/privateLinkServices"),
        (private(&storage(), ""), "give blob, file"),
        (private(&storage(), "vault"), "give blob, file"),
        (private(&id("Microsoft.Network/privateLinkServices", "p"), ""), "1 to 80 characters"),
        (
            json!({"type": "PrivateEndpoint", "fqdns": ["a.b"], "destination": {"serviceResourceId": storage(), "subresourceTarget": "blob"}}),
            "leave fqdns out",
        ),
        (tag(json!({})), "needs a service tag"),
        (tag(json!({"serviceTag": "Narnia", "protocol": "TCP", "portRanges": "443"})), "service-tags.json"),
        (tag(json!({"serviceTag": "Narnia", "protocol": "TCP", "portRanges": "443"})), "AzureMachineLearning"),
        (tag(json!({"serviceTag": "DataFactory", "protocol": "TCP"})), r#"{"DataFactory": {"prefixes": ["#),
        (tag(json!({"serviceTag": "DataFactory", "protocol": "TCP"})), "read when the platform starts"),
        (tag(json!({"serviceTag": "Storage", "protocol": "SCTP"})), "TCP, UDP, ICMP, *"),
        (tag(json!({"serviceTag": "Storage", "portRanges": "90-80"})), "backwards"),
        (tag(json!({"serviceTag": "Storage", "action": "Deny"})), "refused already"),
        (tag(json!({"addressPrefixes": ["10.0.0.0/33"]})), "not an address prefix"),
        (tag(json!({"addressPrefixes": ["127.0.0.0/8"]})), "loopback"),
        (tag(json!({"addressPrefixes": ["169.254.169.254"]})), "covers"),
        (tag(json!({"addressPrefixes": ["0.0.0.0/0"]})), "covers"),
        (tag(json!({"addressPrefixes": "10.0.0.0/8"})), "give a list"),
    ] {
        let mode = IsolationMode::AllowOnlyApprovedOutbound;
        let fault = checked_rule("r", &rule, None, mode, &ServiceTags::builtin()).unwrap_err();
        assert!(fault.message.contains(said), "{rule}: {fault}");
        assert!(fault.message.starts_with("The outbound rule 'r': ") && fault.target.is_some(), "{fault:?}");
    }
    let fqdn = json!({"type": "FQDN", "destination": "a.b"});
    let refused = checked_rule("r", &fqdn, None, IsolationMode::AllowInternetOutbound, &ServiceTags::builtin());
    assert!(refused.unwrap_err().message.contains("let through already"));
}

#[test]
fn ports_stay_when_a_client_cannot_carry_them() {
    let before = json!({"type": "FQDN", "destination": "db.example.com", "casemate": {"portRanges": "5432"}});
    let mode = IsolationMode::AllowOnlyApprovedOutbound;
    for (given, ports) in [
        (json!({"type": "FQDN", "destination": "DB.example.com"}), "5432"),
        (json!({"type": "FQDN", "destination": "other.example.com"}), "80,443"),
        (json!({"type": "FQDN", "destination": "db.example.com", "casemate": {"portRanges": "6432"}}), "6432"),
        (json!({"type": "FQDN", "destination": "db.example.com", "casemate": {"portRanges": null}}), "80,443"),
    ] {
        let kept = checked_rule("r", &given, Some(&before), mode, &ServiceTags::builtin()).unwrap();
        assert_eq!(kept["casemate"]["portRanges"], ports, "{given}");
    }
}

#[test]
fn required_rules_by_mode() {
    for (mode, names) in [
        (MODES[0], &[][..]),
        (MODES[1], &["__SYS_PE_Acct1_blob_"]),
        (MODES[2], &["__SYS_PE_ws_amlworkspace_", "__SYS_PE_Acct1_blob_", "__SYS_PE_kv1_vault_"]),
    ] {
        let world = World::new(mode);
        let made = world.with(|around| required_rules(&world.workspace, around));
        assert_eq!(made.len(), names.len(), "{mode}");
        for (rule, name) in made.iter().zip(names) {
            assert!(rule.name().starts_with(name), "{}", rule.name());
            assert_eq!(rule.properties()["category"], REQUIRED);
            assert_eq!(world.status(rule), RuleStatus::Active);
        }
    }
}

#[test]
fn a_private_endpoint_leads_where_its_owner_lets_it() {
    let mut world = World::new(MODES[2]);
    let other = id("Microsoft.Storage/storageAccounts", "other");
    world.put(row(&other, json!({})));
    let name = host("other.blob.core.casemate.internal");
    for (word, status, allowed) in [
        (Some("Approved"), "Active", true),
        (Some("Pending"), "Inactive", false),
        (Some("Rejected"), "Inactive", false),
        (Some("Nonsense"), "Inactive", false),
    ] {
        world.rules.clear();
        let rule = world.private("pe", &other, "blob", word);
        assert_eq!(world.status(&rule).as_str(), status, "{word:?}");
        let decision = world.policy(None).name(&name, 443);
        assert_eq!(decision.is_allowed(), allowed, "{word:?}: {}", decision.reason);
        assert_eq!(decision.rule.as_deref(), Some("pe"));
        assert!(!world.policy(None).name(&name, 80).is_allowed());
    }
    let connection = connection_of(&world.rules[0].id, world.rules[0].properties()).unwrap();
    assert!(needed(&world.workspace, &world.rules).contains(&connection));
    world.others.remove(&connection);
    assert!(world.status(&world.rules[0]).why().unwrap().contains("was removed"));
    world.others.remove(&ResourceId::parse(&other).unwrap());
    assert_eq!(world.status(&world.rules[0]).as_str(), "Failed");
    let decision = world.policy(None).name(&name, 443);
    assert!(!decision.is_allowed() && decision.reason.contains("does not exist"), "{}", decision.reason);
    // The name is not looked up in public either, in any mode.
    for mode in MODES {
        world.workspace.body["properties"]["managedNetwork"]["isolationMode"] = mode.into();
        let own = world.policy(None).name(&host("acct1.blob.core.casemate.internal"), 443);
        assert_eq!(own.verdict, Verdict::Allow(Route::Private(PrivateDestination::FrontDoor)), "{mode}");
    }
    // Nothing inside a deployment may manage the platform.
    let workspace = world.workspace.id.as_str().to_owned();
    let api = world.policy(None).name(&host("guid-1.workspace.local.api.casemate.internal"), 443);
    assert!(!api.is_allowed() && api.reason.contains("management API"), "{}", api.reason);
    let api = world.private("api", &workspace, "amlworkspace", Some("Approved"));
    assert_eq!(world.status(&api).as_str(), "Failed");
    // Another part of the same account is not served, and says so.
    world.workspace.body["properties"]["managedNetwork"]["isolationMode"] = MODES[2].into();
    let table = world.private("table", &storage(), "table", Some("Approved"));
    assert!(world.status(&table).why().unwrap().contains("blobs only"));
}

#[test]
fn what_lies_outside_is_registered_as_a_resource() {
    let mut world = World::new(MODES[2]);
    let (database, mail) =
        (id("Microsoft.Network/privateLinkServices", "database"), id("Microsoft.Network/privateLinkServices", "mail"));
    world.put(row(&database, json!({"casemate": {"address": "10.1.2.3", "ports": "5432"}})));
    world.put(row(&mail, json!({"casemate": {"fqdn": "Mail.corp.example"}})));
    let destination = json!({"serviceResourceId": database, "subresourceTarget": "any"});
    world.rule("db", json!({"type": "PrivateEndpoint", "destination": destination, "fqdns": ["db.corp.example"]}));
    let rule = world.private("mail", &mail, "smtp", None);
    assert_eq!(world.status(&rule), RuleStatus::Active);
    let policy = world.policy(None);
    let to_database = Verdict::Allow(Route::Private(PrivateDestination::Address("10.1.2.3".parse().unwrap())));
    assert_eq!(policy.name(&host("db.corp.example"), 5432).verdict, to_database);
    assert_eq!(policy.address("10.1.2.3".parse().unwrap(), 5432).verdict, to_database);
    assert!(!policy.name(&host("db.corp.example"), 443).is_allowed());
    let to_mail = Verdict::Allow(Route::Private(PrivateDestination::Name(host("mail.corp.example"))));
    assert_eq!(policy.name(&host("mail.corp.example"), 443).verdict, to_mail);
    world.put(row(&mail, json!({"casemate": {"address": "mail"}})));
    assert!(world.status(&rule).why().unwrap().contains("neither an address nor a host name"));
}

#[test]
fn the_mode_decides_which_rules_have_effect() {
    let mut world = World::new(MODES[2]);
    world.rule(
        "web",
        json!({"type": "FQDN", "destination": "packages.example.org, *.pythonhosted.org", "casemate": {"portRanges": "443"}}),
    );
    world.rule(
        "lan",
        json!({"type": "ServiceTag", "destination": {"addressPrefixes": ["192.168.0.0/16"], "portRanges": "22"}}),
    );
    let lan = "192.168.1.8".parse().unwrap();
    for (mode, web, other, lan_open, status) in [
        (MODES[0], true, true, false, "Inactive"),
        (MODES[1], true, true, true, "Inactive"),
        (MODES[2], true, false, true, "Active"),
    ] {
        world.workspace.body["properties"]["managedNetwork"]["isolationMode"] = mode.into();
        let policy = world.policy(None);
        assert_eq!(policy.name(&host("packages.example.org"), 443).is_allowed(), web, "{mode}");
        assert_eq!(policy.name(&host("files.pythonhosted.org"), 443).is_allowed(), web, "{mode}");
        assert_eq!(policy.name(&host("evil.example"), 443).is_allowed(), other, "{mode}");
        assert_eq!(policy.address(lan, 22).is_allowed(), lan_open, "{mode}");
        assert!(!policy.address("192.168.1.9".parse().unwrap(), 22).is_allowed(), "the host's own, {mode}");
        assert_eq!(world.status(&world.rules[0]).as_str(), status, "{mode}");
    }
    world.workspace.observed.remove(PROVISIONED);
    assert_eq!(world.status(&world.rules[0]), RuleStatus::Inactive(None));
}

#[test]
fn a_deployment_narrows_or_learns() {
    let world = World::new(MODES[2]);
    let deployment =
        |properties: Value| row(&format!("{}/onlineEndpoints/e/deployments/blue", world.workspace.id), properties);
    let (pypi, own) = (host("packages.example.org"), host("acct1.blob.core.casemate.internal"));
    let learning = world.policy(Some(&deployment(json!({"properties": {AUDIT_PROPERTY: "True"}}))));
    assert!(learning.audit && learning.name(&pypi, 443).would_deny);
    let narrow = world.policy(Some(&deployment(json!({"egressPublicNetworkAccess": "disabled"}))));
    assert!(narrow.public_disabled && !narrow.name(&pypi, 443).is_allowed() && narrow.name(&own, 443).is_allowed());
    let plain = world.policy(Some(&deployment(json!({"properties": {AUDIT_PROPERTY: "false"}}))));
    assert!(!plain.audit && !plain.public_disabled && !plain.name(&pypi, 443).is_allowed());
}

#[test]
fn what_cannot_be_read_opens_nothing() {
    let mut world = World::new(MODES[2]);
    world.workspace.body["properties"]["managedNetwork"]["isolationMode"] = "Wide".into();
    for (name, stored) in [
        ("a", json!({"type": "FQDN", "destination": "*"})),
        ("b", json!({"type": "ServiceTag", "destination": {"serviceTag": "Gone"}})),
        ("c", json!({"type": "PrivateEndpoint", "destination": "x"})),
        ("d", json!({"type": "Odd"})),
    ] {
        world.rules.push(row(&format!("{}/outboundRules/{name}", world.workspace.id), stored));
    }
    let (read, faults) = world.with(|around| policy(&world.workspace, &world.rules, None, around));
    assert_eq!(faults.len(), 4, "{faults:?}");
    assert_eq!(read.mode, IsolationMode::AllowOnlyApprovedOutbound);
    assert!(!read.name(&host("packages.example.org"), 443).is_allowed());
    for rule in &world.rules {
        assert!(matches!(world.status(rule), RuleStatus::Failed(_)), "{}", rule.name());
    }
}
