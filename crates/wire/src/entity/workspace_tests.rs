//! Workspaces: from YAML to bodies and back, and bad input.

use super::*;

fn document(text: &str) -> Document {
    let root = crate::yaml::parse(text, "ws.yml").unwrap();
    Document { root, name: "ws.yml".to_owned(), base: ".".into() }
}

const FULL: &str = "\
name: ws
location: local
description: '[not an expression]'
public_network_access: disabled
v1_legacy_mode: false
managed_network:
  isolation_mode: allow_only_approved_outbound
  outbound_rules:
    - {name: pypi, type: fqdn, destination: packages.example.com}
    - {name: db, type: fqdn, destination: db.example.com, port_ranges: 5432}
    - {name: tag, type: service_tag, destination: {service_tag: DataFactory, protocol: TCP, port_ranges: '80,8080-8089'}}
    - {name: pe, type: private_endpoint, destination: {service_resource_id: /subscriptions/s/x, subresource_target: blob}, fqdns: [a.b]}
    - {name: made, type: fqdn, destination: x.y, category: required, status: Active}
";

#[test]
fn the_template_holds_all_that_is_needed() {
    let workspace = Workspace::read(&document(FULL)).unwrap();
    let body = workspace.to_template("/subscriptions/s/resourceGroups/g", "tenant", "ws", "local");
    let resources = body["properties"]["template"]["resources"].as_array().unwrap();
    let types: Vec<&str> = resources.iter().filter_map(|resource| resource["type"].as_str()).collect();
    assert_eq!(
        types,
        [
            "Microsoft.Storage/storageAccounts",
            "Microsoft.KeyVault/vaults",
            "Microsoft.Insights/components",
            "Microsoft.MachineLearningServices/workspaces"
        ]
    );
    let storage = resources[0]["name"].as_str().unwrap();
    assert!(
        (3..=24).contains(&storage.len()) && storage.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()),
        "{storage}"
    );
    let made = &resources[3]["properties"];
    assert_eq!(
        made["storageAccount"],
        format!("/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/{storage}")
    );
    assert_eq!(made["description"], "[[not an expression]");
    assert_eq!(made["v1LegacyMode"], false);
    assert_eq!(
        made["managedNetwork"],
        json!({"isolationMode": "AllowOnlyApprovedOutbound", "outboundRules": {
            "pypi": {"type": "FQDN", "category": "UserDefined", "destination": "packages.example.com", "casemate": {"portRanges": "80,443"}},
            "db": {"type": "FQDN", "category": "UserDefined", "destination": "db.example.com", "casemate": {"portRanges": "5432"}},
            "tag": {"type": "ServiceTag", "category": "UserDefined",
                "destination": {"serviceTag": "DataFactory", "protocol": "TCP", "portRanges": "80,8080-8089"}},
            "pe": {"type": "PrivateEndpoint", "category": "UserDefined", "fqdns": ["a.b"],
                "destination": {"serviceResourceId": "/subscriptions/s/x", "subresourceTarget": "blob", "sparkEnabled": false}}}})
    );
}

#[test]
fn existing_dependencies_are_not_made() {
    let text = "storage_account: /subscriptions/s/a\nkey_vault: /subscriptions/s/b\napplication_insights: /subscriptions/s/c\n";
    let body =
        Workspace::read(&document(text)).unwrap().to_template("/subscriptions/s/resourceGroups/g", "t", "ws", "local");
    let resources = body["properties"]["template"]["resources"].as_array().unwrap();
    assert_eq!(resources.len(), 1);
    assert_eq!(resources[0]["properties"]["keyVault"], "/subscriptions/s/b");
}

#[test]
fn a_patch_says_only_what_is_said() {
    let workspace = Workspace::read(&document("name: ws\ndescription: d\ntags: {a: b}\n")).unwrap();
    assert_eq!(workspace.to_patch(), json!({"properties": {"description": "d"}, "tags": {"a": "b"}}));
}

#[test]
fn shown() {
    let arm = json!({"id": "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w", "name": "w",
        "location": "local", "tags": null, "identity": {"type": "SystemAssigned", "principalId": "p"},
        "properties": {"friendlyName": "w", "publicNetworkAccess": "Enabled", "containerRegistry": null, "v1LegacyMode": false,
            "managedNetwork": {"isolationMode": "AllowOnlyApprovedOutbound", "status": {"status": "Active", "sparkReady": false},
                "outboundRules": {"db": {"type": "FQDN", "category": "UserDefined", "status": "Active", "destination": "db.example.com",
                    "casemate": {"portRanges": "5432"}},
                  "pe": {"type": "PrivateEndpoint", "category": "Required", "status": "Failed", "errorInformation": "gone",
                    "destination": {"serviceResourceId": "/x", "subresourceTarget": "blob", "sparkEnabled": false}}}}}});
    let shown = Workspace::show(&arm);
    assert_eq!(shown["resource_group"], "g");
    assert_eq!(shown["tags"], json!({}));
    assert!(shown.get("container_registry").is_none());
    assert_eq!(
        shown["managed_network"],
        json!({"isolation_mode": "allow_only_approved_outbound", "status": {"status": "Active", "spark_ready": false},
            "outbound_rules": [{"name": "db", "type": "fqdn", "category": "user_defined", "status": "Active",
                "destination": "db.example.com", "port_ranges": "5432"},
                {"name": "pe", "type": "private_endpoint", "category": "required", "status": "Failed", "error_information": "gone",
                "destination": {"service_resource_id": "/x", "subresource_target": "blob", "spark_enabled": false}}]})
    );
    // What is shown can be read back; the platform's own rules are left out.
    let again = Workspace::read(&Document::from_shown(&shown, "w")).unwrap();
    let rules = again.managed_network.unwrap().rules;
    assert_eq!(rules.len(), 1);
    assert_eq!(rules[0].body["casemate"], json!({"portRanges": "5432"}));
}

#[test]
fn bad_input() {
    for (text, said) in [
        (
            "managed_network: {isolation_mode: open}\n",
            "must be one of disabled, allow_internet_outbound, allow_only_approved_outbound, not 'open'",
        ),
        ("managed_network: {outbound_rules: []}\n", "needs the field 'isolation_mode'"),
        (
            "managed_network:\n  isolation_mode: disabled\n  outbound_rules:\n    - {name: a, type: fqdn}\n",
            "ws.yml:4:7: the outbound rule needs the field 'destination'",
        ),
        (
            "managed_network: {isolation_mode: disabled, outbound_rules: [{name: a, type: service_tag, destination: {service_tag: T}}]}\n",
            "needs the field 'protocol'",
        ),
        ("customer_managed_key: {key_vault: x}\n", "not supported by casemate yet"),
        ("v1_legacy_mode: maybe\n", "must be true or false"),
        ("locaton: x\n", "did you mean 'location'?"),
    ] {
        let fault = Workspace::read(&document(text)).expect_err(text);
        assert!(fault.message.contains(said), "{} lacks {said}", fault.message);
    }
}

/// A long name of a workspace makes no names that its storage account and its vault can't have.
#[test]
fn what_a_workspace_brings_has_names_that_fit() {
    let text = "name: my_workspace_with_a_long_name\n";
    let made = |name: &str| {
        let workspace = Workspace::read(&document(text)).unwrap();
        let body = workspace.to_template("/subscriptions/s/resourceGroups/g", "t", name, "local");
        let resources = body["properties"]["template"]["resources"].as_array().unwrap().clone();
        let names = resources.iter().take(3).map(|one| one["name"].as_str().unwrap().to_owned());
        names.collect::<Vec<String>>()
    };
    let (one, other) = (made("my_workspace_name"), made("my_workspace_other"));
    for (name, beside) in one.iter().zip(&other) {
        assert!((3..=24).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{name}");
        assert_ne!(name, beside, "two workspaces of one group have their own");
    }
}
