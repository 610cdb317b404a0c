//! Models, code, environments, data and the datastores that their files lie in.

use serde_json::{Value, json};

use super::bench::{Bench, URL};

fn properties(value: Value) -> Value {
    json!({ "properties": value })
}

#[tokio::test]
async fn versions_of_a_model() {
    let bench = Bench::new().await;
    for name in ["m", "other"] {
        bench.upload_model(name, "x").await;
    }
    let uri = "azureml://datastores/workspaceblobstore/paths/models/m/model.pkl";
    // A client asks for content that it has not registered yet.
    assert_eq!(bench.get("models/m/versions?$orderBy=createdtime desc&$top=1").await.body, json!({"value": []}));
    assert_eq!(bench.get("models/m").await.fault(), (404, "ResourceNotFound"));
    for version in ["1", "2", "10"] {
        let tags = json!({"v": version});
        let made = bench
            .call(&format!("PUT models/m/versions/{version}"), properties(json!({"modelUri": uri, "tags": tags})))
            .await;
        assert_eq!(made.status, 201, "{}", made.body);
    }
    let one = bench.get("MODELS/M/Versions/1").await;
    assert_eq!(one.body["properties"]["flavors"], json!({}));
    assert_eq!(one.body["properties"]["modelType"], "custom_model");
    assert_eq!(one.body["properties"]["provisioningState"], "Succeeded");
    let container = bench.get("models/m").await;
    assert_eq!(container.body["properties"]["latestVersion"], "10");
    assert_eq!(container.body["properties"]["nextVersion"], "11");
    for (query, names) in [
        ("", vec!["10", "2", "1"]),
        ("?$orderBy=createdtime desc&$top=1", vec!["10"]),
        ("?$orderBy=createdtime asc", vec!["1", "2", "10"]),
        ("?$orderBy=version desc", vec!["10", "2", "1"]),
        ("?$skip=1", vec!["2", "1"]),
        ("?tags=v=2", vec!["2"]),
        ("?version=2", vec!["2"]),
        ("?listViewType=ArchivedOnly", vec![]),
    ] {
        assert_eq!(bench.get(&format!("models/m/versions{query}")).await.names(), names, "{query}");
    }
    for query in ["?$orderBy=beauty", "?listViewType=Some", "?$top=0"] {
        assert_eq!(bench.get(&format!("models/m/versions{query}")).await.status, 400, "{query}");
    }
    assert_eq!(bench.get("models/m/versions/3").await.fault(), (404, "ResourceNotFound"));
    assert_eq!(bench.get("models/m/labels/latest").await.body["name"], "10");
    assert_eq!(bench.get("models").await.names(), ["m"]);

    // Archiving reads the version and writes it back.
    let mut whole = bench.get("models/m/versions/10").await.body;
    whole["properties"]["isArchived"] = json!(true);
    assert_eq!(bench.call("PUT models/m/versions/10", whole).await.status, 200);
    assert_eq!(bench.get("models/m/versions").await.names(), ["2", "1"]);
    assert_eq!(bench.get("models/m/versions?listViewType=All").await.names(), ["10", "2", "1"]);
    assert_eq!(bench.get("models/m").await.body["properties"]["latestVersion"], "2");

    // What a version is never changes; what is said of it may.
    let other = uri.replace("/m/", "/other/");
    let changed = bench.call("PUT models/m/versions/1", properties(json!({"modelUri": other}))).await;
    assert_eq!(changed.fault(), (409, "UserError"), "{}", changed.body);
    assert!(changed.message().contains("already exists") && changed.message().contains("modelUri"));
    let said = properties(json!({"modelUri": uri, "description": "new", "tags": {"x": 1}}));
    let said = bench.call("PUT models/m/versions/1", said).await;
    assert_eq!((said.status, &said.body["properties"]["tags"]), (200, &json!({"x": "1"})), "{}", said.body);
    assert_eq!(bench.call("DELETE models/m/versions/1", Value::Null).await.status, 204);
    assert_eq!(bench.call("DELETE models/m/versions/1", Value::Null).await.status, 204);
    assert_eq!(bench.get("models/m/versions").await.names(), ["2"]);
    assert_eq!(bench.call("DELETE models/m", Value::Null).await.status, 204);
    assert_eq!(bench.get("models").await.names(), [""; 0]);
}

#[tokio::test]
async fn code_is_found_by_its_hash() {
    let bench = Bench::new().await;
    let [id, ..] = bench.register_assets().await;
    let found = bench.get("codes/code-1/versions?hash=abc&hashVersion=202208").await;
    assert_eq!(found.body["value"][0]["id"], json!(id));
    for query in ["hash=abd&hashVersion=202208", "hash=abc&hashVersion=202209"] {
        assert_eq!(bench.get(&format!("codes/code-1/versions?{query}")).await.names(), [""; 0], "{query}");
    }
    // The same code uploaded a second time, to another place.
    let place = bench.call("POST codes/code-1/versions/1/startPendingUpload", json!({})).await;
    let sas = place.body["blobReferenceForConsumption"]["credential"]["sasUri"].as_str().unwrap();
    assert_eq!(bench.upload(sas, "code/score.py", "def init(): pass").await, 201);
    let uri = format!("{}/code", place.body["blobReferenceForConsumption"]["blobUri"].as_str().unwrap());
    let stored = bench.get("codes/code-1/versions/1").await.body["properties"]["codeUri"].clone();
    assert_ne!(stored, json!(uri));
    let same = properties(json!({"codeUri": uri, "properties": {"hash_sha256": "abc"}}));
    let again = bench.call("PUT codes/code-1/versions/1", same).await;
    assert_eq!((again.status, &again.body["properties"]["codeUri"]), (200, &stored), "{}", again.body);
    let other = properties(json!({"codeUri": uri, "properties": {"hash_sha256": "abd"}}));
    assert_eq!(bench.call("PUT codes/code-1/versions/1", other).await.fault(), (409, "UserError"));
}

#[tokio::test]
async fn environments() {
    let bench = Bench::new().await;
    let conda = |text: &str| properties(json!({"condaFile": text, "image": "x", "isAnonymous": true}));
    let path = "environments/CliV2AnonymousEnvironment/versions/0123abc";
    assert_eq!(bench.call(&format!("PUT {path}"), conda("dependencies: []")).await.status, 201);
    assert_eq!(bench.call(&format!("PUT {path}"), conda("dependencies: []")).await.status, 200);
    // Clients choose the next version when they get a conflict.
    let changed = bench.call(&format!("PUT {path}"), conda("dependencies: [numpy]")).await;
    assert_eq!(changed.fault(), (409, "UserError"));
    assert_eq!(bench.get("environments").await.names(), [""; 0], "what clients made up is not listed");
    let mine = properties(json!({"image": "x"}));
    bench.call("PUT environments/mine/versions/1", mine).await;
    assert_eq!(bench.get("environments").await.names(), ["mine"]);
    assert_eq!(bench.get("environments/mine/labels/latest").await.body["name"], "1");
    let archived = bench.call("PUT environments/mine", properties(json!({"isArchived": true}))).await;
    assert_eq!(archived.body["properties"]["latestVersion"], "1", "{}", archived.body);
    assert_eq!(bench.get("environments").await.names(), [""; 0]);
}

#[tokio::test]
async fn refused_assets() {
    let bench = Bench::new().await;
    bench.upload_model("m", "x").await;
    bench.workspace("ws2", json!({})).await;
    let other = bench.get("/ws2/datastores/workspaceblobstore").await.body["properties"]["containerName"].clone();
    let foreign = format!("{URL}/acct.blob.x/{}/secret", other.as_str().unwrap());
    let within = |workspace: &str| {
        format!(
            "azureml://subscriptions/{}/resourcegroups/rg/workspaces/{workspace}/datastores/workspaceblobstore/paths/models/m/model.pkl",
            bench.subscription
        )
    };
    assert_eq!(
        bench.call("PUT models/fine/versions/1", properties(json!({"modelUri": within("WS")}))).await.status,
        201
    );
    let (within_other, bad) = (within("ws2"), (400, "BadArgument"));
    for (path, given, fault, word) in [
        ("models/m/versions/1", json!({}), bad, "modelUri"),
        ("models/m/versions/1", json!({"modelUri": 1}), bad, "can't be read"),
        (
            "models/m/versions/1",
            json!({"modelUri": "azureml://datastores/workspaceblobstore/paths/none"}),
            bad,
            "no file at",
        ),
        (
            "models/m/versions/1",
            json!({"modelUri": "azureml://datastores/none/paths/x"}),
            (404, "ResourceNotFound"),
            "none",
        ),
        (
            "models/m/versions/1",
            json!({"modelUri": "azureml://datastores/workspaceblobstore/paths/../x"}),
            (400, "InvalidResourceName"),
            "relative",
        ),
        ("models/m/versions/1", json!({"modelUri": "https://example.com/x/y"}), bad, "names no files"),
        ("models/m/versions/1", json!({"modelUri": "/etc/passwd"}), bad, "names no files"),
        ("models/m/versions/1", json!({"modelUri": foreign}), bad, "not in a datastore of the workspace 'ws'"),
        ("models/m/versions/1", json!({"modelUri": within_other}), bad, "not in a datastore of the workspace 'ws'"),
        ("models/m/versions/1", json!({"modelUri": "azureml://jobs/j/outputs/x"}), (501, "NotImplemented"), "job"),
        ("models/m/versions/1", json!({"modelUri": within("ws"), "tags": []}), bad, "tags"),
        ("models/m/versions/1", json!({"modelUri": within("ws"), "isArchived": "no"}), bad, "isArchived"),
        ("models/m/versions/1", json!({"modelUri": within("ws"), "flavors": []}), bad, "flavors"),
        ("models/-m/versions/1", json!({"modelUri": within("ws")}), bad, "must start with"),
        ("models/m/versions/a b", json!({"modelUri": within("ws")}), bad, "version 'a b'"),
        ("codes/c/versions/1", json!({}), bad, "codeUri"),
        ("codes/c/versions/1", json!({"codeUri": foreign}), bad, "not in a datastore"),
        ("environments/e/versions/1", json!({}), bad, "says nothing"),
        ("environments/e/versions/1", json!({"condaFile": {"dependencies": []}}), bad, "can't be read"),
        ("environments/e/versions/1", json!({"condaFile": "x".repeat((1 << 20) + 1)}), bad, "at most"),
        ("data/d/versions/1", json!({}), bad, "dataUri"),
    ] {
        let got = bench.call(&format!("PUT {path}"), properties(given.clone())).await;
        let shown = &given.to_string()[..given.to_string().len().min(200)];
        assert_eq!(got.fault(), fault, "{path} {shown}: {}", got.body);
        assert!(got.message().contains(word), "{path} {shown}: {}", got.message());
    }
    assert_eq!(bench.get("models").await.names(), ["fine"]);
    let upload = bench.call("POST codes/c/versions/1/startPendingUpload", json!({"pendingUploadType": "Odd"})).await;
    assert_eq!(upload.fault(), bad);
}

#[tokio::test]
async fn a_version_in_use_stays() {
    let bench = Bench::new().await;
    bench.endpoint("one").await;
    let [code, environment, model] = bench.register_assets().await;
    let given = json!({"properties": {"endpointComputeType": "Managed", "environmentId": environment, "model": model,
        "codeConfiguration": {"codeId": code, "scoringScript": "score.py"}}});
    assert_eq!(bench.call("PUT onlineEndpoints/one/deployments/blue", given).await.status, 201);
    for path in ["models/m/versions/1", "models/m", "environments/env/versions/1", "codes/code-1/versions/1"] {
        let kept = bench.call(&format!("DELETE {path}"), Value::Null).await;
        assert_eq!(kept.fault(), (409, "Conflict"), "{path}");
        assert!(kept.message().contains("blue"), "{}", kept.message());
    }
}

#[tokio::test]
async fn datastores_and_their_secrets() {
    let bench = Bench::new().await;
    let default = bench.get("datastores?isDefault=true&count=1").await;
    assert_eq!(default.names(), ["workspaceblobstore"]);
    assert_eq!(bench.get("datastores").await.names(), ["workspaceartifactstore", "workspaceblobstore"]);
    let shown = &default.body["value"][0]["properties"];
    for (key, value) in [
        ("datastoreType", json!("AzureBlob")),
        ("accountName", json!("127.0.0.1:8443/acct")),
        ("endpoint", json!("core.casemate.internal")),
        ("protocol", json!("https")),
        ("credentials", json!({"credentialsType": "Sas"})),
        ("isDefault", json!(true)),
    ] {
        assert_eq!(shown[key], value, "{key}");
    }
    let again = bench.get("datastores/WorkspaceBlobStore").await;
    assert_eq!(again.body["properties"]["containerName"], shown["containerName"], "made once");
    let line = "POST datastores/workspaceblobstore/listSecrets";
    let secret = bench.call(line, json!({"expirableSecret": true, "expireAfterHours": 1})).await;
    assert_eq!(secret.body["secretsType"], "Sas");
    for hours in [json!(0), json!(999), json!("x")] {
        assert_eq!(bench.call(line, json!({"expireAfterHours": hours})).await.fault(), (400, "BadArgument"), "{hours}");
    }
    assert_eq!(bench.get("datastores/none").await.fault(), (404, "ResourceNotFound"));
    for line in ["PUT datastores/mine", "DELETE datastores/workspaceblobstore"] {
        assert_eq!(bench.call(line, json!({"properties": {}})).await.fault(), (501, "NotImplemented"), "{line}");
    }
}

#[tokio::test]
async fn a_pending_upload_opens_its_own_directory_only() {
    let bench = Bench::new().await;
    let places: Vec<Value> = vec![
        bench
            .call("POST codes/c/versions/1/startPendingUpload", json!({"pendingUploadType": "TemporaryBlobReference"}))
            .await
            .body,
        bench.call("POST codes/c/versions/1/startPendingUpload", json!({})).await.body,
    ];
    let of = |at: usize, pointer: &str| places[at].pointer(pointer).unwrap().as_str().unwrap().to_owned();
    assert_ne!(of(0, "/pendingUploadId"), of(1, "/pendingUploadId"));
    let sas = "/blobReferenceForConsumption/credential/sasUri";
    let address = of(0, "/blobReferenceForConsumption/blobUri");
    let (first, second) = (of(0, sas), of(1, sas));
    assert!(first.starts_with(&format!("{address}?")));
    assert_eq!(bench.upload(&first, "code/score.py", "x").await, 201);
    let crossed = format!("{}?{}", second.split('?').next().unwrap(), first.split('?').nth(1).unwrap());
    assert_eq!(bench.upload(&crossed, "code/score.py", "x").await, 403);
}

#[tokio::test]
async fn what_is_not_here_is_empty_or_refused() {
    let bench = Bench::new().await;
    for kind in ["jobs", "components", "schedules", "batchEndpoints"] {
        assert_eq!(bench.get(kind).await.body, json!({"value": []}), "{kind}");
        assert_eq!(bench.get(&format!("{kind}/x")).await.fault(), (404, "ResourceNotFound"), "{kind}");
        let made = bench.call(&format!("PUT {kind}/x"), json!({})).await;
        assert_eq!(made.fault(), (501, "NotImplemented"), "{kind}");
    }
}
