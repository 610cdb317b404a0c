//! Whole commands against a scripted platform behind real TLS: what they send, in which order, and how they end.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail by panicking")]

#[path = "../../wire/tests/peer/mod.rs"]
mod peer;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header::IF_MATCH},
    response::{IntoResponse, Response},
};
use casemate_cli::{Outcome, run};
use peer::Peer;
use serde_json::{Value, json};

const SUBSCRIPTION: &str = "11111111-1111-1111-1111-111111111111";
const WORKSPACE: &str = "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/ws";

/// A platform that keeps what it is given, and writes down what it is asked.
#[derive(Default)]
struct Platform {
    host: String,
    resources: BTreeMap<String, Value>,
    /// Writes: method, path and body.
    writes: Vec<(String, String, Value)>,
    /// How many conditional writes are refused from now on.
    clashes: usize,
}

type Shared = Arc<Mutex<Platform>>;

fn not_found() -> Response {
    let body = json!({"error": {"code": "ResourceNotFound", "message": "not there"}});
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

async fn answer(State(shared): State<Shared>, method: Method, uri: Uri, headers: HeaderMap, bytes: Bytes) -> Response {
    let mut platform = shared.lock().unwrap();
    let path = uri.path().to_owned();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    if path.ends_with("/oauth2/v2.0/token") {
        return Json(json!({"access_token": "t", "expires_in": 3600})).into_response();
    }
    if path == "/metadata/endpoints" {
        return Json(json!([{"suffixes": {"storage": "store.local"}}])).into_response();
    }
    if path.contains(".blob.") {
        let status = if method == "HEAD" { StatusCode::NOT_FOUND } else { StatusCode::CREATED };
        return status.into_response();
    }
    if method != "GET" && method != "HEAD" {
        platform.writes.push((method.to_string(), path.trim_start_matches(WORKSPACE).to_owned(), body.clone()));
    }
    let host = platform.host.clone();
    match method.as_str() {
        "POST" if path.ends_with("/startPendingUpload") => {
            let place = format!("https://{host}/acct.blob.store.local/c/u");
            Json(json!({"blobReferenceForConsumption": {"blobUri": place, "credential": {"sasUri": format!("{place}?sig=x")}}})).into_response()
        }
        "POST" if path.ends_with("/listSecrets") => Json(json!({"sasToken": "sig=x"})).into_response(),
        "POST" if path.ends_with("/listKeys") => {
            Json(json!({"primaryKey": "K1", "secondaryKey": "K2"})).into_response()
        }
        "POST" if path.ends_with("/testOutboundDestination") => {
            Json(json!({"destination": body["destination"], "allowed": false, "reason": "no rule"})).into_response()
        }
        "POST" if path.ends_with("/suggestOutboundRules") => Json(json!({"value": [], "entries": 0})).into_response(),
        "POST" if path.ends_with("/listOutboundLog") => {
            Json(json!({"value": [{"name": "a.b", "port": 443, "allowed": true}], "next": 7})).into_response()
        }
        "POST" if path.ends_with("/score") => {
            assert_eq!(headers["authorization"], "Bearer K1");
            (StatusCode::OK, "[1.0]").into_response()
        }
        "GET" if path.ends_with("/datastores/workspaceblobstore") => {
            Json(json!({"properties": {"accountName": format!("{host}/acct"), "containerName": "c"}})).into_response()
        }
        "GET" | "HEAD" if path.ends_with("/versions") || path.ends_with("/deployments") => {
            let prefix = format!("{}/", path.to_lowercase());
            let found =
                platform.resources.iter().filter(|(key, _)| key.starts_with(&prefix)).map(|(_, value)| value.clone());
            Json(json!({"value": found.collect::<Vec<_>>()})).into_response()
        }
        "GET" | "HEAD" => match platform.resources.get(&path.to_lowercase()) {
            Some(found) => Json(found.clone()).into_response(),
            None => not_found(),
        },
        "PUT" => {
            if headers.contains_key(IF_MATCH) && platform.clashes > 0 {
                platform.clashes -= 1;
                return StatusCode::PRECONDITION_FAILED.into_response();
            }
            let mut stored = body;
            stored["id"] = json!(path);
            stored["name"] = json!(path.rsplit('/').next());
            stored["etag"] = json!("\"1\"");
            stored["properties"]["scoringUri"] = json!(format!("https://{host}/score"));
            platform.resources.insert(path.to_lowercase(), stored.clone());
            (StatusCode::CREATED, Json(stored)).into_response()
        }
        _ => not_found(),
    }
}

/// A state directory whose platform is the scripted one.
struct World {
    platform: Shared,
    dir: tempfile::TempDir,
    _peer: Peer,
    _runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let platform = Shared::default();
        let routes = Router::new().fallback(answer).with_state(platform.clone());
        let peer = runtime.block_on(Peer::start(routes));
        let workspace = json!({"id": WORKSPACE, "name": "ws", "location": "here", "properties": {}});
        {
            let mut platform = platform.lock().unwrap();
            platform.host = peer.url.trim_start_matches("https://").to_owned();
            platform.resources.insert(WORKSPACE.to_lowercase(), workspace);
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("ca.pem"), &peer.ca_pem).unwrap();
        let credentials = json!({"url": peer.url, "tenantId": "t", "clientId": "c", "clientSecret": "s",
            "subscriptionId": SUBSCRIPTION, "caFile": "ca.pem"});
        std::fs::write(dir.path().join("credentials.json"), credentials.to_string()).unwrap();
        Self { platform, dir, _peer: peer, _runtime: runtime }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs a command line in the scripted workspace; its exit code as text.
    fn run(&self, line: &str) -> String {
        let words = line.split_whitespace().map(str::to_owned);
        let scope = ["--state", self.dir.path().to_str().unwrap(), "-o", "none"].map(str::to_owned);
        let words = ["az".to_owned()].into_iter().chain(words).chain(scope).map(Into::into);
        match run(words) {
            Outcome::Done(code) => format!("{code:?}"),
            other => panic!("{other:?}"),
        }
    }

    fn writes(&self) -> Vec<(String, String, Value)> {
        std::mem::take(&mut self.platform.lock().unwrap().writes)
    }

    fn resource(&self, path: &str) -> Value {
        self.platform.lock().unwrap().resources[&format!("{WORKSPACE}{path}").to_lowercase()].clone()
    }
}

fn code(number: u8) -> String {
    format!("{:?}", std::process::ExitCode::from(number))
}

const SCOPE: &str = "-g g -w ws";
const ENDPOINT: &str = "/onlineEndpoints/ep";

#[test]
fn a_deployment_from_files_to_all_traffic() {
    let world = World::new();
    world.file("code/score.py", "def init(): pass");
    world.file("model/m.bin", "weights");
    let yaml = world.file(
        "blue.yml",
        "name: blue\nendpoint_name: other\nmodel: {path: model}\ncode_configuration: {code: code, scoring_script: score.py}\n\
         environment: {image: i, conda_file: {dependencies: [python=3.12]}}\ninstance_type: Standard_DS3_v2\n",
    );
    assert_eq!(world.run(&format!("ml online-endpoint create -n ep {SCOPE}")), code(0));
    world.writes();
    let line =
        format!("ml online-deployment create -e ep -f {} --all-traffic --set instance_count=3 {SCOPE}", yaml.display());
    assert_eq!(world.run(&line), code(0));
    let writes = world.writes();
    let kinds: Vec<String> = writes
        .iter()
        .map(|(method, path, _)| {
            let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
            format!(
                "{method} {}",
                [parts.first(), parts.get(2), parts.get(4)]
                    .into_iter()
                    .flatten()
                    .copied()
                    .collect::<Vec<_>>()
                    .join(" ")
            )
        })
        .collect();
    assert_eq!(
        kinds,
        [
            "POST codes versions startPendingUpload",
            "PUT codes versions",
            "PUT environments versions",
            "POST datastores listSecrets",
            "PUT models versions",
            "PUT onlineEndpoints deployments",
            "PUT onlineEndpoints",
        ]
    );
    let deployment = &writes[5].2;
    assert_eq!(deployment["sku"]["capacity"], 3);
    assert_eq!(deployment["location"], "here");
    for (field, start) in [("environmentId", "/environments/CliV2AnonymousEnvironment/"), ("model", "/models/")] {
        let id = deployment["properties"][field].as_str().unwrap();
        assert!(id.starts_with(&format!("{WORKSPACE}{start}")), "{id}");
    }
    assert_eq!(writes[6].2["properties"]["traffic"], json!({"blue": 100}));
    assert!(writes[1].2["properties"]["codeUri"].as_str().unwrap().ends_with("/acct.blob.store.local/c/u/code"));
}

#[test]
fn updates_change_only_what_they_say_and_survive_clashes() {
    let world = World::new();
    assert_eq!(world.run(&format!("ml online-endpoint create -n ep --tags a=b {SCOPE}")), code(0));
    world.platform.lock().unwrap().clashes = 2;
    assert_eq!(world.run(&format!("ml online-endpoint update -n ep --traffic blue=90 green=10 {SCOPE}")), code(0));
    assert_eq!(world.writes().iter().filter(|(method, ..)| method == "PUT").count(), 4);
    let endpoint = world.resource(ENDPOINT);
    assert_eq!(endpoint["properties"]["traffic"], json!({"blue": 90, "green": 10}));
    assert_eq!(endpoint["tags"], json!({"a": "b"}));
    // Overwriting an endpoint keeps what its callers get.
    assert_eq!(world.run(&format!("ml online-endpoint create -n ep --auth-mode key {SCOPE}")), code(0));
    assert_eq!(world.resource(ENDPOINT)["properties"]["traffic"], json!({"blue": 90, "green": 10}));
    world.platform.lock().unwrap().clashes = 100;
    assert_eq!(world.run(&format!("ml online-endpoint update -n ep --set tags.x=y {SCOPE}")), code(1));
}

#[test]
fn scaling_a_deployment_keeps_the_rest() {
    let world = World::new();
    let path = format!("{WORKSPACE}{ENDPOINT}/deployments/blue");
    let properties = json!({"endpointComputeType": "Managed", "environmentId": format!("{WORKSPACE}/environments/e/versions/1"),
        "model": format!("{WORKSPACE}/models/m/versions/1"), "instanceType": "Standard_DS3_v2", "environmentVariables": {"A": "b"},
        "requestSettings": {"requestTimeout": "PT5S", "maxConcurrentRequestsPerInstance": 1, "maxQueueWait": "PT0.5S"}});
    let stored = json!({"id": path, "name": "blue", "location": "here", "etag": "\"1\"", "tags": {}, "sku": {"name": "Default", "capacity": 1}, "properties": properties});
    world.platform.lock().unwrap().resources.insert(path.to_lowercase(), stored);
    assert_eq!(
        world.run(&format!("ml online-deployment update -n blue --endpoint ep --set instance_count=2 {SCOPE}")),
        code(0)
    );
    let (_, _, body) = world.writes().pop().unwrap();
    assert_eq!(body["sku"]["capacity"], 2);
    for (key, value) in properties.as_object().unwrap() {
        assert_eq!(&body["properties"][key], value, "{key}");
    }
    world.platform.lock().unwrap().clashes = 1;
    assert_eq!(
        world.run(&format!("ml online-deployment update -n blue -e ep --set instance_count=3 {SCOPE}")),
        code(1)
    );
}

#[test]
fn outbound_rules_and_learn_mode() {
    let world = World::new();
    let rule = "ml workspace outbound-rule";
    let set = format!("{rule} set {SCOPE} --rule db --type fqdn --destination db.example.com --port-ranges 5432");
    assert_eq!(world.run(&set), code(0));
    assert_eq!(world.run(&format!("{rule} update {SCOPE} --rule db --port-ranges 5432,6432")), code(0));
    let set = format!("{rule} set {SCOPE} --rule web --type fqdn --destination *.example.com");
    assert_eq!(world.run(&set), code(0));
    let tag = "--type service_tag --protocol TCP --port-ranges 22 --address-prefixes 10.0.0.0/8,10.1.0.1";
    assert_eq!(world.run(&format!("{rule} set {SCOPE} --rule tag {tag}")), code(0));
    assert_eq!(world.run(&format!("{rule} update {SCOPE} --rule none --port-ranges 1")), code(3));
    let bodies: Vec<Value> = world.writes().into_iter().map(|(_, _, body)| body["properties"].clone()).collect();
    let fqdn = |host: &str, ports: &str| json!({"type": "FQDN", "category": "UserDefined", "destination": host, "casemate": {"portRanges": ports}});
    assert_eq!(
        bodies,
        [
            fqdn("db.example.com", "5432"),
            fqdn("db.example.com", "5432,6432"),
            fqdn("*.example.com", "80,443"),
            json!({"type": "ServiceTag", "category": "UserDefined", "destination":
                {"protocol": "TCP", "portRanges": "22", "addressPrefixes": ["10.0.0.0/8", "10.1.0.1"]}}),
        ]
    );
    assert_eq!(world.run(&format!("{rule} test {SCOPE} -e ep -d blue db.example.com:5432")), code(0));
    assert_eq!(world.run(&format!("{rule} suggest {SCOPE} -d blue")), code(0));
    assert_eq!(world.run(&format!("ml workspace outbound-log {SCOPE} --denied -l 5")), code(0));
    let asked: Vec<Value> = world.writes().into_iter().map(|(_, _, body)| body).collect();
    assert_eq!(asked[0], json!({"deployment": "blue", "endpoint": "ep", "destination": "db.example.com:5432"}));
    assert_eq!((&asked[2]["denied"], &asked[2]["limit"], &asked[2]["after"]), (&json!(true), &json!(5), &Value::Null));

    let path = format!("{WORKSPACE}{ENDPOINT}/deployments/blue");
    let properties = json!({"endpointComputeType": "Managed", "properties": {"kept": "yes"},
        "environmentId": format!("{WORKSPACE}/environments/e/versions/1")});
    let stored = json!({"id": path, "name": "blue", "location": "here", "etag": "\"1\"", "sku": {"name": "Default", "capacity": 1}, "properties": properties});
    world.platform.lock().unwrap().resources.insert(path.to_lowercase(), stored);
    for (option, value) in [("--audit", "true"), ("--audit false", "false")] {
        assert_eq!(world.run(&format!("ml online-deployment update -n blue -e ep {option} {SCOPE}")), code(0));
        let (_, _, body) = world.writes().pop().unwrap();
        assert_eq!(body["properties"]["properties"], json!({"kept": "yes", "casemate.egressAudit": value}));
    }
}

#[test]
fn ends() {
    let world = World::new();
    let bad = world.file("bad.yml", "name: ep\nauth_mod: key\n");
    let request = world.file("request.json", "{\"data\": [1]}");
    let nonsense = world.file("nonsense.json", "nonsense");
    assert_eq!(world.run(&format!("ml online-endpoint create -n ep {SCOPE}")), code(0));
    for (line, wanted) in [
        (format!("ml online-endpoint show -n ep {SCOPE}"), 0),
        (format!("ml online-endpoint show -n nope {SCOPE}"), 3),
        (format!("ml online-endpoint create -f {} {SCOPE}", bad.display()), 1),
        (format!("ml online-endpoint create -f none.yml {SCOPE}"), 1),
        (format!("ml online-endpoint create {SCOPE}"), 2),
        (format!("ml online-endpoint update -n ep {SCOPE}"), 2),
        (format!("ml online-endpoint update -n ep --traffic blue=much {SCOPE}"), 2),
        ("ml online-endpoint show -n ep".to_owned(), 2),
        (format!("ml online-endpoint show -n ep --query [? {SCOPE}"), 2),
        (format!("ml online-endpoint show -n ep --local {SCOPE}"), 1),
        (format!("ml online-endpoint invoke -n ep --request-file {} {SCOPE}", request.display()), 0),
        (format!("ml online-endpoint invoke -n ep --request-file {} {SCOPE}", nonsense.display()), 1),
        (format!("ml online-endpoint invoke -n ep --request-file {} -d nope {SCOPE}", request.display()), 3),
        (format!("ml online-deployment create -n blue -e nope {SCOPE}"), 3),
        (format!("ml online-deployment create -e ep {SCOPE}"), 2),
        (format!("ml online-deployment update -n blue -e ep {SCOPE}"), 2),
        (format!("ml model show -n m -v 1 {SCOPE}"), 3),
        ("group delete -n g".to_owned(), 1),
        ("storage account list".to_owned(), 2),
        ("extension add -n ml -y".to_owned(), 0),
        ("version".to_owned(), 0),
        ("config get defaults.nothing".to_owned(), 1),
        ("config set nothing".to_owned(), 2),
    ] {
        assert_eq!(world.run(&line), code(wanted), "{line}");
    }
}

#[test]
fn defaults_are_kept_beside_the_platform() {
    let world = World::new();
    assert_eq!(world.run("configure --defaults group=g workspace=ws"), code(0));
    assert_eq!(world.run("ml online-endpoint create -n ep"), code(0));
    assert_eq!(world.run("ml online-endpoint show -n ep"), code(0));
    assert_eq!(world.run("configure --defaults workspace="), code(0));
    assert_eq!(world.run("ml online-endpoint show -n ep"), code(2));
}

/// What a command line wrote, relative to the group's network resources.
fn network_writes(world: &World) -> Vec<(String, String, Value)> {
    let network = "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/g/providers/Microsoft.Network/";
    let writes = world.writes().into_iter();
    writes.map(|(method, path, body)| (method, path.trim_start_matches(network).to_owned(), body)).collect()
}

#[test]
fn networks_and_private_endpoints() {
    let world = World::new();
    let scope = "-g g -l here";
    assert_eq!(
        world.run(&format!("network vnet create -n v --address-prefixes 127.77.0.0/16 --subnet-name s {scope}")),
        code(0)
    );
    let (_, path, body) = network_writes(&world).remove(0);
    assert_eq!(path, "virtualNetworks/v");
    assert_eq!(body["properties"]["subnets"], json!([{"name": "s", "properties": {"addressPrefix": "127.77.0.0/24"}}]));
    assert_eq!(
        world.run("network vnet update -n v -g g --forwarders corp.example=10.0.0.1,10.0.0.2 --dns-servers 10.0.0.53"),
        code(0)
    );
    let (_, _, body) = network_writes(&world).remove(0);
    assert_eq!(body["properties"]["addressSpace"]["addressPrefixes"], json!(["127.77.0.0/16"]));
    assert_eq!(
        body["properties"]["casemate"]["forwarders"],
        json!([{"suffix": "corp.example", "to": ["10.0.0.1", "10.0.0.2"]}])
    );
    let create = format!(
        "network private-endpoint create -n pe --vnet-name v --subnet s --private-connection-resource-id {WORKSPACE} \
         --group-id amlworkspace --connection-name c --manual-request true --ip-config private-ip-address=127.77.0.9 {scope}"
    );
    assert_eq!(world.run(&create), code(0));
    let (_, path, body) = network_writes(&world).remove(0);
    assert_eq!(path, "privateEndpoints/pe");
    let properties = &body["properties"];
    assert!(properties["subnet"]["id"].as_str().unwrap().ends_with("/virtualNetworks/v/subnets/s"));
    assert_eq!(properties["manualPrivateLinkServiceConnections"][0]["properties"]["privateLinkServiceId"], WORKSPACE);
    assert_eq!(properties["ipConfigurations"][0]["properties"]["privateIPAddress"], "127.77.0.9");
    for (line, wanted) in [
        (
            "network private-endpoint create -n pe --subnet s --private-connection-resource-id x --group-id b --connection-name c -g g",
            2,
        ),
        (
            "network private-endpoint create -n pe --vnet-name v --subnet s --private-connection-resource-id x --group-id b --connection-name c -g g --ip-config colour=red",
            2,
        ),
        ("network private-endpoint-connection list -g g", 2),
        ("network private-endpoint-connection show --id nonsense", 1),
        ("network vnet show -n none -g g", 3),
        ("network vnet update -n v -g g --forwarders nonsense", 2),
        ("network nsg list", 2),
    ] {
        assert_eq!(world.run(line), code(wanted), "{line}");
    }
}

#[test]
fn connections_are_decided_and_records_changed() {
    let world = World::new();
    let id = format!("{WORKSPACE}/privateEndpointConnections/pe.1");
    let state = json!({"status": "Pending", "description": "please", "actionsRequired": "None"});
    let stored = json!({"id": id, "name": "pe.1", "properties": {"privateLinkServiceConnectionState": state}});
    world.platform.lock().unwrap().resources.insert(id.to_lowercase(), stored);
    assert_eq!(world.run(&format!("network private-endpoint-connection approve --id {id}")), code(0));
    let (_, path, body) = world.writes().remove(0);
    assert_eq!(path, "/privateEndpointConnections/pe.1");
    let wanted = json!({"status": "Approved", "description": "please", "actionsRequired": "None"});
    assert_eq!(body["properties"]["privateLinkServiceConnectionState"], wanted);
    let by_name =
        "--type Microsoft.MachineLearningServices/workspaces --resource-name ws -n pe.1 -g g --description no";
    assert_eq!(world.run(&format!("network private-endpoint-connection reject {by_name}")), code(0));
    assert_eq!(world.writes().remove(0).2["properties"]["privateLinkServiceConnectionState"]["status"], "Rejected");

    let records = "network private-dns record-set a";
    let add = |address: &str| world.run(&format!("{records} add-record -z z.example -g g -n *.x -a {address}"));
    assert_eq!((add("10.0.0.4"), add("10.0.0.5"), add("10.0.0.5")), (code(0), code(0), code(0)));
    let (_, path, body) = network_writes(&world).pop().unwrap();
    assert_eq!(path, "privateDnsZones/z.example/A/%2A.x");
    assert_eq!(body["properties"]["aRecords"], json!([{"ipv4Address": "10.0.0.4"}, {"ipv4Address": "10.0.0.5"}]));
    let remove = |address: &str| world.run(&format!("{records} remove-record -z z.example -g g -n *.x -a {address}"));
    assert_eq!((remove("10.0.0.4"), remove("10.0.0.9")), (code(0), code(3)));
    assert_eq!(network_writes(&world)[0].2["properties"]["aRecords"], json!([{"ipv4Address": "10.0.0.5"}]));
}
