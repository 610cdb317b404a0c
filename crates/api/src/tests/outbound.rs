//! Managed networks, their rules, and what deployments reached.

use casemate_model::{ResourceId, egress::LogEntry};
use serde_json::{Value, json};

use crate::testing::{URL, World};

const ML: &str = "providers/Microsoft.MachineLearningServices/workspaces";
const READER: &str = "acdd72a7-3385-48ef-bd42-f606fba81ae7";

/// A workspace with a managed network in a new group; gives its path.
async fn isolated(world: &World, mode: &str) -> String {
    let group = world.group("g").await;
    let path = format!("{group}/{ML}/wsp");
    let body = json!({"location": "local", "properties": {"managedNetwork": {"isolationMode": mode}}});
    world.call("PUT", &path, body).await.expect(200);
    path
}

fn fqdn(destination: &str) -> Value {
    json!({"properties": {"type": "FQDN", "destination": destination, "category": "UserDefined"}})
}

fn private(target: &str, part: &str) -> Value {
    json!({"properties": {"type": "PrivateEndpoint", "destination": {"serviceResourceId": target, "subresourceTarget": part}}})
}

async fn provision(world: &World, path: &str) {
    let answer = world.call("POST", &format!("{path}/provisionManagedNetwork"), json!({"includeSpark": false})).await;
    let location = answer.header("location").strip_prefix(URL).unwrap().to_owned();
    answer.expect(202);
    assert_eq!(world.get(&location).await.expect(200), json!({"status": "Active", "sparkReady": false}));
}

/// Name, category and status of each rule in the list.
async fn listed(world: &World, path: &str) -> Vec<(String, String, String)> {
    let listed = world.get(&format!("{path}/outboundRules")).await.expect(200);
    let text = |rule: &Value, pointer: &str| rule.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let rules = listed["value"].as_array().unwrap().iter();
    rules
        .map(|rule| (text(rule, "/name"), text(rule, "/properties/category"), text(rule, "/properties/status")))
        .collect()
}

#[tokio::test]
async fn rules_from_creation_to_removal() {
    let world = World::new().await;
    let group = world.group("g").await;
    let path = format!("{group}/{ML}/wsp");
    let body = json!({"location": "local", "properties": {"managedNetwork": {
        "isolationMode": "allow_only_approved_outbound",
        "outboundRules": {"first": fqdn("packages.example.com")["properties"]},
    }}});
    let made = world.call("PUT", &path, body).await.expect(200);
    let network = &made["properties"]["managedNetwork"];
    assert_eq!(network["isolationMode"], "AllowOnlyApprovedOutbound");
    assert_eq!(network["outboundRules"]["first"]["destination"], "packages.example.com");
    assert_eq!(
        (network["status"]["status"].as_str(), network["outboundRules"]["first"]["status"].as_str()),
        (Some("Inactive"), Some("Inactive"))
    );
    let second = format!("{path}/outboundRules/second");
    world.call("PUT", &second, fqdn("pytorch.org, *.pytorch.org")).await.expect(200);
    let shown = world.get(&second).await.expect(200);
    assert_eq!(shown["properties"]["destination"], "pytorch.org, *.pytorch.org");
    assert_eq!(shown["properties"]["casemate"]["portRanges"], "80,443");
    world.call("PUT", &format!("{path}/outboundRules/third"), json!({})).await.refused(400, "BadArgument");
    world.call("PUT", &format!("{path}/outboundRules/_x"), fqdn("a.b")).await.refused(400, "BadArgument");
    for wide in ["*", "*.com", "a.*.b"] {
        world.call("PUT", &second, fqdn(wide)).await.refused(400, "BadArgument");
    }

    provision(&world, &path).await;
    let network = world.get(&path).await.expect(200)["properties"]["managedNetwork"].clone();
    assert_eq!(network["status"]["status"], "Active");
    let rules = listed(&world, &path).await;
    assert_eq!(rules.len(), 5, "{rules:?}");
    assert!(rules.iter().all(|(.., status)| status == "Active"), "{rules:?}");
    assert_eq!(rules.iter().filter(|(_, category, _)| category == "Required").count(), 3);
    assert_eq!(network["outboundRules"].as_object().unwrap().len(), 5);

    // The SDK can't carry ports: what it sends back keeps them.
    let with_ports =
        json!({"properties": {"type": "FQDN", "destination": "db.example.com", "casemate": {"portRanges": "5432"}}});
    world.call("PUT", &second, with_ports).await.expect(200);
    let again = world.call("PUT", &second, fqdn("db.example.com")).await.expect(200);
    assert_eq!(again["properties"]["casemate"]["portRanges"], "5432");

    world.call("DELETE", &second, Value::Null).await.expect(200);
    world.call("DELETE", &second, Value::Null).await.expect(204);
    world.get(&second).await.refused(404, "ResourceNotFound");
}

#[tokio::test]
async fn the_platforms_own_rules_are_nobodys_to_change() {
    let world = World::new().await;
    let path = isolated(&world, "AllowOnlyApprovedOutbound").await;
    let own = listed(&world, &path).await;
    let storage = own.iter().map(|(name, ..)| name).find(|name| name.contains("_blob_")).unwrap();
    assert!(storage.starts_with("__SYS_PE_"), "{storage}");
    let rule = format!("{path}/outboundRules/{storage}");
    let shown = world.get(&rule).await.expect(200);
    assert_eq!(shown["properties"]["destination"]["subresourceTarget"], "blob");
    world.call("PUT", &rule, shown.clone()).await.refused(400, "BadArgument");
    let message = world.call("DELETE", &rule, Value::Null).await.refused(400, "BadArgument");
    assert!(message.contains("required by the platform"), "{message}");
    let required = json!({"properties": {"type": "FQDN", "destination": "a.b", "category": "Required"}});
    world.call("PUT", &format!("{path}/outboundRules/r"), required).await.refused(400, "BadArgument");

    // They follow what the workspace leans on.
    let registry = path.replace(&format!("{ML}/wsp"), "providers/Microsoft.ContainerRegistry/registries/regis1");
    world.call("PUT", &registry, json!({"location": "local"})).await.expect(201);
    let patch = json!({"properties": {"containerRegistry": registry}});
    world.call("PATCH", &path, patch).await.expect(200);
    assert!(listed(&world, &path).await.iter().any(|(name, ..)| name.contains("_registry_")));
    // With the internet open, only for what has no public access.
    let patch = json!({"properties": {"managedNetwork": {"isolationMode": "AllowInternetOutbound"}}});
    world.call("PATCH", &path, patch).await.expect(200);
    assert_eq!(listed(&world, &path).await, []);
    let closed = json!({"properties": {"publicNetworkAccess": "Disabled"}});
    world.call("PATCH", &registry, closed).await.expect(200);
    assert_eq!(listed(&world, &path).await.len(), 1);
}

#[tokio::test]
async fn modes_change_both_ways_and_keep_the_rules() {
    let world = World::new().await;
    let path = isolated(&world, "AllowOnlyApprovedOutbound").await;
    let rule = format!("{path}/outboundRules/web");
    world.call("PUT", &rule, fqdn("packages.example.org")).await.expect(200);
    provision(&world, &path).await;
    let id = world.get(&path).await.expect(200)["properties"]["managedNetwork"]["networkId"].clone();
    let status = || async { world.get(&rule).await.expect(200)["properties"].clone() };
    for (mode, network, rule_status) in [
        ("AllowInternetOutbound", "Active", "Inactive"),
        ("Disabled", "Inactive", "Inactive"),
        ("AllowOnlyApprovedOutbound", "Active", "Active"),
    ] {
        let patch = json!({"properties": {"managedNetwork": {"isolationMode": mode, "outboundRules": {}}}});
        let after = world.call("PATCH", &path, patch).await.expect(200)["properties"]["managedNetwork"].clone();
        assert_eq!((&after["isolationMode"], &after["status"]["status"]), (&json!(mode), &json!(network)));
        assert_eq!(after["networkId"], id, "{mode}");
        let rule = status().await;
        assert_eq!(rule["status"], rule_status, "{mode}");
        assert_eq!(rule["errorInformation"].is_string(), mode == "AllowInternetOutbound", "{rule}");
    }
    let patch = json!({"properties": {"managedNetwork": {"isolationMode": "AllowInternetOutbound"}}});
    world.call("PATCH", &path, patch).await.expect(200);
    let message = world.call("PUT", &rule, fqdn("packages.example.org")).await.refused(400, "BadArgument");
    assert!(message.contains("allow_only_approved_outbound"), "{message}");
    let lan = json!({"properties": {"type": "ServiceTag", "destination": {"serviceTag": "Corp", "protocol": "TCP", "portRanges": "443"}}});
    world.call("PUT", &format!("{path}/outboundRules/lan"), lan).await.expect(200);
    let patch = json!({"properties": {"managedNetwork": {"isolationMode": "Disabled"}}});
    world.call("PATCH", &path, patch).await.expect(200);
    world.call("PUT", &rule, fqdn("packages.example.org")).await.refused(400, "ManagedNetworkDisabled");
    let provision = format!("{path}/provisionManagedNetwork");
    world.call("POST", &provision, json!({})).await.refused(400, "ManagedNetworkDisabled");
    let spark = json!({"includeSpark": true});
    world.call("POST", &provision, spark).await.refused(501, "NotImplemented");
}

#[tokio::test]
async fn tags_and_prefixes() {
    let world = World::new().await;
    let path = isolated(&world, "AllowOnlyApprovedOutbound").await;
    let rule = format!("{path}/outboundRules/tag");
    let tag = |destination: Value| json!({"properties": {"type": "ServiceTag", "destination": destination}});
    let made = tag(json!({"serviceTag": "corp", "protocol": "TCP", "portRanges": "80, 8080-8089"}));
    let made = world.call("PUT", &rule, made).await.expect(200);
    assert_eq!(made["properties"]["destination"]["portRanges"], "80, 8080-8089");
    for (destination, said) in [
        (json!({"serviceTag": "Narnia", "protocol": "TCP", "portRanges": "443"}), "Corp"),
        (json!({"serviceTag": "Narnia", "protocol": "TCP", "portRanges": "443"}), "service-tags.json"),
        (
            json!({"addressPrefixes": ["169.254.0.0/16"], "protocol": "TCP", "portRanges": "80"}),
            "169.254.0.0/16 covers",
        ),
        (json!({"addressPrefixes": ["192.168.7.7"], "protocol": "TCP", "portRanges": "8443"}), "own machine"),
    ] {
        let message = world.call("PUT", &rule, tag(destination)).await.refused(400, "BadArgument");
        assert!(message.contains(said), "{message} lacks {said}");
    }
}

#[tokio::test]
async fn private_endpoints_ask_the_targets_owner() {
    let world = World::new().await;
    let path = isolated(&world, "AllowOnlyApprovedOutbound").await;
    provision(&world, &path).await;
    let group = path.split("/providers").next().unwrap().to_owned();
    let other = world.group("others").await;
    let account = format!("{other}/providers/Microsoft.Storage/storageAccounts/theirs1");
    world.call("PUT", &account, json!({"location": "local"})).await.expect(201);
    let rule = format!("{path}/outboundRules/theirs");
    let missing = private(&format!("{account}x"), "blob");
    world.call("PUT", &rule, missing).await.refused(400, "ResourceNotFound");

    // Whoever has no say over the target asks; its owner answers.
    let (token, _) = world.principal("maker", "Contributor", &group).await;
    let asked = world.call_as(&token, "PUT", &rule, private(&account, "blob")).await.expect(200);
    assert_eq!(asked["properties"]["status"], "Inactive", "{asked:#}");
    assert!(asked["properties"]["errorInformation"].as_str().unwrap().contains("approve"), "{asked:#}");
    let made = world.call("PUT", &format!("{path}/outboundRules/mine"), private(&account, "blob")).await.expect(200);
    assert_eq!(made["properties"]["status"], "Active", "{made:#}");
    // The owner answers at the target, and can change the answer.
    let shown = world.get(&account).await.expect(200)["properties"]["privateEndpointConnections"].clone();
    let pending = |one: &&Value| one["properties"]["privateLinkServiceConnectionState"]["status"] == "Pending";
    let connection = shown.as_array().unwrap().iter().find(pending).unwrap()["id"].as_str().unwrap().to_owned();
    for (status, expected) in [("Approved", "Active"), ("Rejected", "Inactive")] {
        let state = json!({"properties": {"privateLinkServiceConnectionState": {"status": status}}});
        world.call("PUT", &connection, state).await.expect(200);
        assert_eq!(world.get(&rule).await.expect(200)["properties"]["status"], expected);
    }
    // A rule that is written again keeps its answer; one that goes takes its connection along.
    let again = world.call("PUT", &rule, private(&account, "blob")).await.expect(200);
    assert_eq!(again["properties"]["status"], "Inactive", "{again:#}");
    let connections = || async {
        let filter = casemate_store::Filter::default().within(&ResourceId::parse(&account).unwrap());
        world.state.store.resource_list(&filter).await.unwrap().len()
    };
    assert_eq!(connections().await, 2);
    world.call("DELETE", &rule, Value::Null).await.expect(200);
    assert_eq!(connections().await, 1);
    world.call("PUT", &format!("{path}/outboundRules/mine"), fqdn("a.b")).await.expect(200);
    assert_eq!(connections().await, 0);

    // What leads nowhere any more says so.
    world.call("PUT", &rule, private(&account, "blob")).await.expect(200);
    world.call("DELETE", &account, Value::Null).await.expect(200);
    let gone = world.get(&rule).await.expect(200);
    assert_eq!(gone["properties"]["status"], "Failed", "{gone:#}");
    // The workspace takes its connections along.
    let storage = world.get(&path).await.expect(200)["properties"]["storageAccount"].as_str().unwrap().to_owned();
    let within = casemate_store::Filter::default().within(&ResourceId::parse(&storage).unwrap());
    assert_eq!(world.state.store.resource_list(&within).await.unwrap().len(), 1);
    world.call("DELETE", &path, Value::Null).await.expect(202);
    assert_eq!(world.state.store.resource_list(&within).await.unwrap(), []);
}

#[tokio::test]
async fn a_destination_is_judged_by_the_policy() {
    let world = World::new().await;
    let path = isolated(&world, "AllowOnlyApprovedOutbound").await;
    let rule =
        json!({"properties": {"type": "FQDN", "destination": "db.example.com", "casemate": {"portRanges": "5432"}}});
    world.call("PUT", &format!("{path}/outboundRules/db"), rule).await.expect(200);
    let test = format!("{path}/testOutboundDestination");
    for (destination, allowed, rule) in [
        ("db.example.com:5432", true, json!("db")),
        ("DB.example.com.:5432", true, json!("db")),
        ("db.example.com:443", false, Value::Null),
        ("10.0.0.5:443", false, Value::Null),
        ("[::1]:443", false, Value::Null),
        ("169.254.169.254:80", false, Value::Null),
    ] {
        let answer = world.call("POST", &test, json!({"destination": destination})).await.expect(200);
        assert_eq!((&answer["allowed"], &answer["rule"]), (&json!(allowed), &rule), "{destination}: {answer:#}");
        assert!(answer["reason"].as_str().is_some_and(|reason| reason.len() > 20), "{answer:#}");
    }
    let storage = world.get(&path).await.expect(200)["properties"]["storageAccount"].as_str().unwrap().to_owned();
    let account = storage.rsplit('/').next().unwrap();
    let destination = json!({"destination": format!("{account}.blob.core.casemate.internal:443")});
    let answer = world.call("POST", &test, destination).await.expect(200);
    assert_eq!(answer["route"], "to the platform's own front door", "{answer:#}");
    // A version of a service is asked about like a deployment of an endpoint.
    let version = ResourceId::parse(&format!("{path}/services/svc/deployments/default")).unwrap();
    let author = casemate_store::Author { name: "test".to_owned(), kind: "User".to_owned() };
    let mut tx = world.state.store.begin().await.unwrap();
    tx.resource_put(&version, json!({"properties": {}}), &casemate_store::Condition::None, &author).await.unwrap();
    tx.commit().await.unwrap();
    let of = json!({"destination": "db.example.com:5432", "deployment": "default", "endpoint": "SVC"});
    let answer = world.call("POST", &test, of).await.expect(200);
    assert_eq!((&answer["allowed"], &answer["deployment"]), (&json!(true), &json!(version.as_str())), "{answer:#}");
    for (body, status, code) in [
        (json!({"destination": "db.example.com"}), 400, "BadArgument"),
        (json!({"destination": "db.example.com:0"}), 400, "BadArgument"),
        (json!({"destination": "0x7f.1:80"}), 400, "BadArgument"),
        (json!({}), 400, "BadArgument"),
        (json!({"destination": "a.b:1", "endpoint": "e"}), 400, "BadArgument"),
        (json!({"destination": "a.b:1", "deployment": "none"}), 404, "ResourceNotFound"),
    ] {
        world.call("POST", &test, body).await.refused(status, code);
    }
    let (token, _) = world.principal("looker", READER, &path).await;
    world.call_as(&token, "POST", &test, json!({"destination": "a.b:1"})).await.expect(200);
    world.call_as(&token, "POST", &format!("{path}/listOutboundLog"), json!({})).await.expect(200);
    world.call_as(&token, "POST", &format!("{path}/listKeys"), json!({})).await.refused(403, "AuthorizationFailed");
}

fn entry(deployment: &str, name: &str, port: u16, allowed: bool) -> LogEntry {
    LogEntry {
        time: "2026-01-02T03:04:05Z".parse().unwrap(),
        deployment: deployment.to_owned(),
        instance: "0".to_owned(),
        name: Some(name.to_owned()),
        address: None,
        port,
        protocol: "tcp".to_owned(),
        allowed,
        rule: None,
        reason: "because".to_owned(),
        bytes_sent: 1,
        bytes_received: 2,
        would_deny: allowed,
    }
}

#[tokio::test]
async fn the_log_is_read_in_pages_and_gives_rules() {
    let world = World::new().await;
    let path = isolated(&world, "AllowOnlyApprovedOutbound").await;
    let workspace = ResourceId::parse(&path).unwrap();
    let write = |entries: Vec<LogEntry>| {
        let mut all = world.decisions.0.lock().unwrap();
        all.extend(entries.into_iter().map(|entry| (workspace.clone(), entry)));
    };
    write(vec![
        entry("ep/blue", "packages.example.org", 443, true),
        entry("ep/green", "evil.example", 443, false),
        entry("ep/blue", "db.example.com", 5432, true),
        LogEntry { would_deny: false, ..entry("other/blue", "fine.example", 443, true) },
    ]);
    let log = format!("{path}/listOutboundLog");
    let read = |body: Value| {
        let (world, log) = (&world, &log);
        async move {
            let answer = world.call("POST", log, body).await.expect(200);
            let entries = answer["value"].as_array().unwrap().iter();
            let names: Vec<String> = entries.map(|entry| entry["name"].as_str().unwrap().to_owned()).collect();
            (names.join(" "), answer["next"].as_u64().unwrap())
        }
    };
    let whole = "packages.example.org evil.example db.example.com fine.example";
    assert_eq!(read(Value::Null).await, (whole.to_owned(), 4));
    assert_eq!(read(json!({"limit": 2})).await.0, "db.example.com fine.example");
    assert_eq!(read(json!({"denied": true})).await.0, "packages.example.org evil.example db.example.com");
    assert_eq!(read(json!({"deployment": "blue"})).await.0, "packages.example.org db.example.com fine.example");
    assert_eq!(read(json!({"deployment": "BLUE", "endpoint": "ep"})).await.0, "packages.example.org db.example.com");
    assert_eq!(read(json!({"deployment": "blue", "endpoint": "ep", "limit": 1})).await.0, "db.example.com");
    assert_eq!(read(json!({"after": 2, "limit": 1})).await, ("db.example.com".to_owned(), 3));
    assert_eq!(
        read(json!({"after": 0, "deployment": "blue", "limit": 2})).await.0,
        "packages.example.org db.example.com"
    );
    assert_eq!(read(json!({"after": 4})).await, (String::new(), 4));
    write(vec![entry("ep/blue", "late.example", 443, true)]);
    assert_eq!(read(json!({"after": 4, "deployment": "blue"})).await, ("late.example".to_owned(), 5));
    for body in [json!({"limit": 6000}), json!({"after": -1}), json!({"deployment": 1}), json!({"endpoint": "e"})] {
        world.call("POST", &log, body).await.refused(400, "BadArgument");
    }

    let suggest = format!("{path}/suggestOutboundRules");
    let asked = json!({"deployment": "blue", "endpoint": "ep"});
    let answer = world.call("POST", &suggest, asked.clone()).await.expect(200);
    let rules = answer["value"].as_array().unwrap();
    assert_eq!((rules.len(), answer["entries"].as_u64()), (3, Some(3)), "{answer:#}");
    for rule in rules {
        let name = rule["name"].as_str().unwrap();
        let body = json!({"properties": rule["properties"]});
        world.call("PUT", &format!("{path}/outboundRules/{name}"), body).await.expect(200);
    }
    let nothing = world.call("POST", &suggest, asked).await.expect(200);
    assert_eq!(nothing["value"], json!([]), "{nothing:#}");
}

#[tokio::test]
async fn hosts_that_deployments_may_reach_manage_nothing() {
    let world = World::new().await;
    world.get("https://box.example:9/subscriptions").await.expect(200);
    for host in ["kv1.vault.casemate.internal", "regis1.registry.casemate.internal:443", "KV1.Vault.Casemate.Internal."]
    {
        for path in ["/subscriptions", "/metadata/endpoints", "/adfs/oauth2/token"] {
            world.get(&format!("https://{host}{path}")).await.refused(404, "NotFound");
        }
    }
    for host in
        ["acct1.blob.core.casemate.internal", "acct1.blob.core.casemate.internal.", "a.b.blob.core.casemate.internal"]
    {
        let answer = world.get(&format!("https://{host}/subscriptions")).await;
        assert!(answer.status.is_client_error() && answer.body["value"].is_null(), "{host}: {answer:?}");
    }
}
