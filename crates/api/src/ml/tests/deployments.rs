//! Deployments.

use casemate_model::{OperationStatus, operation::OperationKind};
use serde_json::{Value, json};

use super::bench::Bench;

const BLUE: &str = "onlineEndpoints/one/deployments/blue";

fn managed(properties: Value) -> Value {
    let mut all = json!({"endpointComputeType": "Managed"});
    all.as_object_mut().unwrap().extend(properties.as_object().cloned().unwrap_or_default());
    json!({"location": "local", "sku": {"name": "Default", "capacity": 1}, "properties": all})
}

#[tokio::test]
async fn the_life_of_a_deployment() {
    let bench = Bench::new().await;
    bench.endpoint("one").await;
    let [code, environment, model] = bench.register_assets().await;
    let given = managed(json!({
        "codeConfiguration": {"codeId": code.to_uppercase(), "scoringScript": "./score.py"},
        "environmentId": environment, "model": model, "instanceType": null, "livenessProbe": null,
        "requestSettings": {"requestTimeout": "PT1M30S", "maxQueueWait": null},
        "environmentVariables": {"A": 1}}));
    let made = bench.call(&format!("PUT {BLUE}"), given).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert!(!made.header("azure-asyncoperation").is_empty());
    for (pointer, value) in [
        ("/sku", json!({"name": "Default", "capacity": 1})),
        ("/location", json!("local")),
        ("/properties/provisioningState", json!("Creating")),
        ("/properties/codeConfiguration", json!({"codeId": code, "scoringScript": "score.py"})),
        ("/properties/environmentId", json!(environment)),
        ("/properties/model", json!(model)),
        ("/properties/instanceType", json!("Standard_DS3_v2")),
        ("/properties/scaleSettings", json!({"scaleType": "Default"})),
        ("/properties/appInsightsEnabled", json!(false)),
        ("/properties/egressPublicNetworkAccess", json!("Enabled")),
        ("/properties/environmentVariables", json!({"A": "1"})),
        (
            "/properties/requestSettings",
            json!({"requestTimeout": "PT1M30S", "maxConcurrentRequestsPerInstance": 1, "maxQueueWait": "PT0.5S"}),
        ),
        (
            "/properties/readinessProbe",
            json!({"initialDelay": "PT10S", "period": "PT10S", "timeout": "PT2S", "successThreshold": 1, "failureThreshold": 30}),
        ),
        ("/properties/livenessProbe/failureThreshold", json!(30)),
    ] {
        assert_eq!(made.body.pointer(pointer), Some(&value), "{pointer}");
    }
    bench.settle(BLUE).await;
    assert_eq!(bench.get("onlineEndpoints/one/deployments").await.names(), ["blue"]);
    let skus = bench.get(&format!("{BLUE}/skus")).await;
    assert_eq!(skus.body["value"][0]["capacity"]["maximum"], json!(50), "{}", skus.body);

    let scaled = bench.call(&format!("PATCH {BLUE}"), json!({"sku": {"capacity": 3}})).await;
    assert_eq!((scaled.status, &scaled.body["sku"]["capacity"]), (200, &json!(3)), "{}", scaled.body);
    assert_eq!(scaled.body["properties"]["model"], json!(model));
    assert_eq!(scaled.body["properties"]["provisioningState"], "Updating");
    // A client that reads, changes and writes back sends what the platform showed, too.
    let mut whole = bench.get(BLUE).await.body;
    whole["sku"] = json!({"name": "Default"});
    let back = bench.call(&format!("PUT {BLUE}"), whole).await;
    assert_eq!((back.status, &back.body["sku"]["capacity"]), (200, &json!(3)), "{}", back.body);

    let pending = bench.store.operations_pending().await.unwrap();
    let mine: Vec<i64> = pending.iter().filter(|it| it.resource == bench.id(BLUE)).map(|it| it.generation).collect();
    assert_eq!(mine, [2, 3], "each write has its own operation, the newest with the newest generation");
    assert!(pending.iter().all(|it| it.kind == OperationKind::Put && it.status == OperationStatus::InProgress));
}

#[tokio::test]
async fn what_clients_cannot_show_survives_their_updates() {
    let bench = Bench::new().await;
    bench.endpoint("one").await;
    let settings = |wait: Value| {
        managed(
            json!({"modelMountPath": "/var/models", "requestSettings": {"requestTimeout": "PT3S", "maxQueueWait": wait},
            "readinessProbe": {"initialDelay": "PT0.25S", "period": "PT2S"}}),
        )
    };
    let wait = |body: &Value| body["properties"]["requestSettings"]["maxQueueWait"].clone();
    let made = bench.call(&format!("PUT {BLUE}"), settings("PT0.75S".into())).await;
    assert_eq!((made.status, wait(&made.body)), (201, json!("PT0.75S")), "{}", made.body);
    let mut back = settings(Value::Null);
    back["properties"]["readinessProbe"] = json!({"period": "PT4S"});
    back["properties"]["modelMountPath"] = Value::Null;
    let back = bench.call(&format!("PUT {BLUE}"), back).await;
    assert_eq!((back.status, wait(&back.body)), (200, json!("PT0.75S")), "{}", back.body);
    assert_eq!(back.body["properties"]["modelMountPath"], "/var/models");
    assert_eq!(back.body["properties"]["readinessProbe"]["initialDelay"], "PT0.25S");
    assert_eq!(back.body["properties"]["readinessProbe"]["period"], "PT4S");
    // Longer ones are shown as they are, so leaving one out means the default; so does a section left out.
    bench.call(&format!("PUT {BLUE}"), settings("PT2S".into())).await;
    let gone = bench.call(&format!("PUT {BLUE}"), settings(Value::Null)).await;
    assert_eq!(wait(&gone.body), json!("PT0.5S"));
    bench.call(&format!("PUT {BLUE}"), settings("PT0.75S".into())).await;
    let gone = bench.call(&format!("PUT {BLUE}"), managed(json!({}))).await;
    assert_eq!(wait(&gone.body), json!("PT0.5S"));
    bench.call(&format!("PUT {BLUE}"), settings("PT0.75S".into())).await;
    let patch = json!({"properties": {"modelMountPath": null, "requestSettings": {"maxQueueWait": null}}});
    let patched = bench.call(&format!("PATCH {BLUE}"), patch).await.body;
    assert_eq!((wait(&patched), &patched["properties"]["modelMountPath"]), (json!("PT0.5S"), &Value::Null));
}

#[tokio::test]
async fn patches_at_the_same_time_all_hold() {
    let bench = Bench::new().await;
    bench.endpoint("one").await;
    bench.call(&format!("PUT {BLUE}"), managed(json!({}))).await;
    let line = format!("PATCH {BLUE}");
    let tag = |name: &str| bench.call(&line, json!({"tags": {name: "x"}}));
    let answers = tokio::join!(tag("a"), tag("b"), tag("c"));
    for answer in [answers.0, answers.1, answers.2] {
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert_eq!(bench.get(BLUE).await.body["tags"], json!({"a": "x", "b": "x", "c": "x"}));
}

#[tokio::test]
async fn refused_deployments() {
    let bench = Bench::new().await;
    bench.endpoint("one").await;
    let [code, environment, model] = bench.register_assets().await;
    bench.workspace("ws2", json!({})).await;
    let elsewhere = model.replace("/ws/", "/ws2/");
    let configured = |script: &str| json!({"codeConfiguration": {"codeId": code, "scoringScript": script}});
    let capacity = |count: Value| {
        let mut body = managed(json!({}));
        body["sku"]["capacity"] = count;
        body
    };
    let bad = (400, "BadArgument");
    let missing = (404, "ResourceNotFound");
    for (given, fault, word) in [
        (json!({"properties": {"endpointComputeType": "Kubernetes"}}), (501, "NotImplemented"), "Kubernetes"),
        (json!({"properties": {"endpointComputeType": "Odd"}}), bad, "Managed, Kubernetes"),
        (capacity(json!(0)), bad, "1 to 50"),
        (capacity(json!(51)), bad, "1 to 50"),
        (capacity(json!(1.5)), bad, "1 to 50"),
        (capacity(json!("two")), bad, "1 to 50"),
        (json!({"sku": "big", "properties": {}}), bad, "'sku' is not an object"),
        (managed(json!({"instanceType": "Standard_Nope"})), bad, "Standard_DS3_v2"),
        (managed(json!({"requestSettings": {"requestTimeout": "PT181S"}})), bad, "180000"),
        (managed(json!({"requestSettings": {"requestTimeout": "5000"}})), bad, "can't be read"),
        (managed(json!({"livenessProbe": {"period": "PT0S"}})), bad, "livenessProbe"),
        (managed(json!({"environmentVariables": {"A": []}})), bad, "'A'"),
        (managed(json!({"environmentVariables": {"A=B": "x"}})), bad, "without '='"),
        (managed(json!({"modelMountPath": "relative"})), bad, "absolute path"),
        (managed(json!({"modelMountPath": "/a/../etc"})), bad, "absolute path"),
        (managed(json!({"scaleSettings": {"scaleType": "TargetUtilization"}})), bad, "instance_count"),
        (managed(json!({"egressPublicNetworkAccess": "some"})), bad, "Enabled, Disabled"),
        (managed(json!({"appInsightsEnabled": "yes"})), bad, "appInsightsEnabled"),
        (managed(configured("missing.py")), bad, "The code holds: inner/other.py, score.py"),
        (managed(configured("../score.py")), bad, "inside the code"),
        (managed(configured("/etc/passwd")), bad, "inside the code"),
        (managed(configured("")), bad, "inside the code"),
        (managed(json!({"codeConfiguration": {"codeId": code}})), bad, "scoringScript"),
        (
            managed(
                json!({"codeConfiguration": {"codeId": code.replace("code-1", "other"), "scoringScript": "score.py"}}),
            ),
            missing,
            "other",
        ),
        (managed(json!({"environmentId": environment.replace("versions/1", "versions/2")})), missing, "versions/2"),
        (managed(json!({"environmentId": "azureml:nope:1"})), missing, "nope"),
        (managed(json!({"environmentId": "my-env"})), bad, "azureml:"),
        (managed(json!({"environmentId": model})), bad, "environment"),
        (managed(json!({"model": elsewhere})), bad, "outside the workspace"),
        (
            managed(json!({"model": "azureml://registries/azureml/models/gpt/versions/1"})),
            (501, "NotImplemented"),
            "registry",
        ),
        (managed(json!({"model": "/not/an/id"})), bad, "/not/an/id"),
    ] {
        let got = bench.call(&format!("PUT {BLUE}"), given.clone()).await;
        let code = if got.fault().1 == "InvalidResourceId" { "BadArgument" } else { got.fault().1 };
        assert_eq!((got.status, code), fault, "{given}: {}", got.body);
        assert!(got.message().contains(word), "{given}: {}", got.message());
    }
    for (line, fault) in [
        ("PUT onlineEndpoints/one/deployments/b", bad),
        ("PUT onlineEndpoints/none/deployments/blue", missing),
        ("PATCH onlineEndpoints/one/deployments/blue", missing),
        ("GET onlineEndpoints/one/deployments/blue", missing),
        ("GET onlineEndpoints/none/deployments", missing),
    ] {
        assert_eq!(bench.call(line, managed(json!({}))).await.fault(), fault, "{line}");
    }
    assert_eq!(bench.get("onlineEndpoints/one/deployments").await.names(), [""; 0]);
    bench.call("DELETE onlineEndpoints/one", Value::Null).await;
    let late = bench.call(&format!("PUT {BLUE}"), managed(json!({}))).await;
    assert_eq!(late.fault(), (409, "ResourceBeingDeleted"), "{}", late.body);
}

#[tokio::test]
async fn short_references_and_labels() {
    let bench = Bench::new().await;
    bench.endpoint("one").await;
    let [_, environment, model] = bench.register_assets().await;
    let given = managed(json!({"environmentId": "azureml:env@latest", "model": "azureml:m:1"}));
    let made = bench.call(&format!("PUT {BLUE}"), given).await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.body["properties"]["environmentId"], json!(environment));
    assert_eq!(made.body["properties"]["model"], json!(model));
}

#[tokio::test]
async fn a_curated_environment_gets_a_stand_in_and_a_warning() {
    let bench = Bench::new().await;
    bench.endpoint("one").await;
    let uri = "azureml://registries/azureml/environments/sklearn-1.5/labels/latest";
    let made = bench.call(&format!("PUT {BLUE}"), managed(json!({"environmentId": uri}))).await;
    assert_eq!(made.status, 201, "{}", made.body);
    let properties = &made.body["properties"];
    assert!(properties["environmentWarning"].as_str().unwrap().contains("sklearn-1.5"), "{properties}");
    let id = properties["environmentId"].as_str().unwrap();
    assert!(id.ends_with("/environments/curated-sklearn-1.5/versions/latest"), "{id}");
    let environment = bench.get("environments/curated-sklearn-1.5/versions/latest").await;
    assert!(environment.body["properties"]["condaFile"].as_str().unwrap().contains("scikit-learn==1.5.*"));
    assert_eq!(bench.get("environments").await.names(), [""; 0]);
    let plain = bench.call(&format!("PUT {BLUE}"), managed(json!({}))).await;
    assert_eq!(plain.body["properties"].get("environmentWarning"), None);
}

#[tokio::test]
async fn a_deployment_with_traffic_stays() {
    let bench = Bench::new().await;
    bench.endpoint("one").await;
    for name in ["blue", "green"] {
        bench.deployment("one", name).await;
    }
    let traffic = |traffic: Value, mirror: Value| json!({"properties": {"traffic": traffic, "mirrorTraffic": mirror}});
    let line = "PATCH onlineEndpoints/one";
    assert_eq!(bench.call(line, traffic(json!({"blue": 100}), json!({"green": 10}))).await.status, 200);
    for (name, word) in [("blue", "100 % of the traffic"), ("green", "10 % of the mirrored traffic")] {
        let kept = bench.call(&format!("DELETE onlineEndpoints/one/deployments/{name}"), Value::Null).await;
        assert_eq!(kept.fault(), (409, "DeploymentHasTraffic"), "{}", kept.body);
        assert!(kept.message().contains(word), "{}", kept.message());
    }
    assert_eq!(bench.call(line, traffic(json!({"blue": 0, "green": 0}), json!({"green": 0}))).await.status, 200);
    let gone = bench.call(&format!("DELETE {BLUE}"), Value::Null).await;
    assert_eq!(gone.status, 202, "{}", gone.body);
    let endpoint = bench.get("onlineEndpoints/one").await;
    assert_eq!(endpoint.body["properties"]["traffic"], json!({"green": 0}));
    assert_eq!(bench.call("DELETE onlineEndpoints/one/deployments/none", Value::Null).await.status, 204);
    let late = bench.call(line, traffic(json!({"blue": 100}), json!({}))).await;
    assert_eq!(late.fault(), (400, "BadArgument"), "a deployment on its way out gets no traffic: {}", late.body);
}

#[tokio::test]
async fn an_endpoint_has_room_for_twenty() {
    let bench = Bench::new().await;
    bench.endpoint("one").await;
    for number in 0..20 {
        bench.put_row(&format!("onlineEndpoints/one/deployments/d-{number}"), managed(json!({}))).await;
    }
    let full = bench.call(&format!("PUT {BLUE}"), managed(json!({}))).await;
    assert_eq!(full.fault(), (409, "OutOfQuota"), "{}", full.body);
    assert_eq!(bench.call("PUT onlineEndpoints/one/deployments/d-3", managed(json!({}))).await.status, 200);
}

#[tokio::test]
async fn logs() {
    let bench = Bench::new().await;
    bench.endpoint("one").await;
    bench.deployment("one", "blue").await;
    let line = format!("POST {BLUE}/getLogs");
    for (given, content) in [
        (json!({}), "blue inference-server 5000"),
        (json!({"tail": 50, "containerType": null}), "blue inference-server 50"),
        (json!({"tail": 7, "containerType": "StorageInitializer"}), "blue storage-initializer 7"),
    ] {
        let got = bench.call(&line, given.clone()).await;
        assert_eq!(got.body, json!({ "content": content }), "{given}");
    }
    for given in [json!({"tail": 0}), json!({"tail": -1}), json!({"tail": "x"}), json!({"containerType": "Odd"})] {
        assert_eq!(bench.call(&line, given.clone()).await.fault(), (400, "BadArgument"), "{given}");
    }
    let missing = bench.call("POST onlineEndpoints/one/deployments/red/getLogs", json!({})).await;
    assert_eq!(missing.fault(), (404, "ResourceNotFound"));
}
