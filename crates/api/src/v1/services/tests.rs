//! Services as these clients see them: requests through the router, a real store and real files below. The reconcilers
//! are played by the tests.

use casemate_model::{
    OperationStatus, ResourceId,
    service::{Package, SERVICE_DEPLOYMENT_TYPE, compute_of},
};
use casemate_store::Filter;
use http::Method;
use serde_json::{Map, Value, json};

use crate::testing::{Answer, World};

struct Bench {
    world: World,
    /// The workspace's id.
    home: String,
}

impl Bench {
    /// A workspace with a compute, uploaded code and a registered model.
    async fn new() -> Self {
        let world = World::new().await;
        let home = world.workspace("g", "home").await;
        let compute = json!({"location": "local", "properties": {"computeType": "AKS", "properties": {}}});
        world.call("PUT", &format!("{home}/computes/pool"), compute).await.expect(201);
        let bench = Self { world, home };
        for file in ["code/x.tar.gz", "code/main.py", "model/m.pkl"] {
            bench.upload(file).await;
        }
        let asset =
            bench.ask("POST", "/assets", json!({"name": "m", "artifacts": [{"prefix": "LocalUpload/model/m.pkl"}]}));
        let url = format!("aml://asset/{}", asset.await.expect(200)["id"].as_str().unwrap());
        bench
            .ask("POST", "/models", json!({"name": "m", "url": url, "mimeType": "application/json"}))
            .await
            .expect(200);
        bench
    }

    async fn ask(&self, method: &str, rest: &str, body: Value) -> Answer {
        self.world.call(method, &format!("/modelmanagement/v1.0{}{rest}", self.home), body).await
    }

    async fn upload(&self, file: &str) {
        let (container, name) = file.split_once('/').unwrap();
        let announce = format!("/artifact/v2.0{}/artifacts/batch/metadata/LocalUpload/{container}", self.home);
        let told = self.world.call("POST", &announce, json!({"paths": [{"path": name}]})).await.expect(200);
        let uri = told["artifactContentInformation"][name]["contentUri"].as_str().unwrap();
        let path = uri.splitn(4, '/').nth(3).unwrap();
        let headers = [("x-ms-blob-type", "BlockBlob"), ("content-length", "4")];
        let put = self.world.send(Method::PUT, &format!("/{path}"), &headers, "code").await;
        assert_eq!(put.status, 201, "{file}");
    }

    fn request(flavour: &str) -> Value {
        json!({
            "driverProgram": "main.py",
            "assets": [
                {"id": "main.py", "url": "aml://artifact/LocalUpload/code/main.py"},
                {"id": "x.tar.gz", "url": "aml://artifact/LocalUpload/code/x.tar.gz", "unpack": true},
            ],
            "modelIds": ["m:1"],
            "environment": {
                "environmentVariables": {"AZUREML_ENTRY_SCRIPT": "src/score.py", "FLAVOUR": flavour},
                "python": {"condaDependencies": {"dependencies": ["python=3.11"]}},
                "docker": {"baseImage": "x/y:1", "baseImageRegistry": {"password": "registry-password"}},
            },
        })
    }

    async fn deploy(&self, change: impl FnOnce(&mut Value)) -> Answer {
        let mut body = json!({
            "name": "one", "computeType": "AKS", "computeName": "pool", "environmentImageRequest": Self::request("v"),
            "keys": {"primaryKey": "p".repeat(32), "secondaryKey": null}, "autoScaler": {"autoscaleEnabled": null},
        });
        change(&mut body);
        self.ask("POST", "/services", body).await
    }

    /// Ends what is pending as the reconcilers would.
    async fn settle(&self) {
        let store = &self.world.state.store;
        for operation in store.operations_pending().await.unwrap() {
            let mut tx = store.begin().await.unwrap();
            let row = tx.resource_get(&operation.resource).await.unwrap().unwrap();
            let mut observed = Map::from_iter([("provisioningState".to_owned(), json!("Succeeded"))]);
            if row.id.is_type(SERVICE_DEPLOYMENT_TYPE) {
                observed.insert("_served".to_owned(), row.body.clone());
            }
            tx.resource_observe(&row.id, observed).await.unwrap();
            tx.operation_finish(operation.id, OperationStatus::Succeeded, None).await.unwrap();
            tx.commit().await.unwrap();
        }
    }

    async fn state_of(&self, answer: &Answer) -> Value {
        let at = answer.header("operation-location");
        let id = at.rsplit('/').next().unwrap();
        self.ask("GET", &format!("/operations/{id}"), Value::Null).await.expect(200)["state"].clone()
    }

    async fn versions(&self) -> Vec<casemate_model::Resource> {
        self.world.state.store.resource_list(&Filter::of_type(SERVICE_DEPLOYMENT_TYPE)).await.unwrap()
    }
}

#[tokio::test]
async fn a_service_becomes_rows_like_an_endpoints() {
    let bench = Bench::new().await;
    let accepted = bench.deploy(|_| {}).await;
    assert_eq!((accepted.status.as_u16(), bench.state_of(&accepted).await), (202, json!("Running")));
    let shown = bench.ask("GET", "/services/one", Value::Null).await.expect(200);
    assert_eq!((&shown["state"], &shown["scoringUri"]), (&json!("Transitioning"), &Value::Null));
    bench.settle().await;
    assert_eq!(bench.state_of(&accepted).await, "Succeeded");

    let shown = bench.ask("GET", "/services/one?expand=true", Value::Null).await.expect(200);
    assert_eq!(
        (&shown["state"], &shown["authEnabled"], &shown["numReplicas"]),
        (&json!("Healthy"), &json!(true), &Value::Null)
    );
    assert_eq!(shown["scoringUri"], "https://127.0.0.1:8443/api/v1/service/one/score");
    assert_eq!((&shown["models"][0]["id"], &shown["autoScaler"]["maxReplicas"]), (&json!("m:1"), &json!(10)));
    let text = shown.to_string();
    for hidden in ["registry-password", &"p".repeat(32), "package", "_v1"] {
        assert!(!text.contains(hidden), "{hidden} is in {text}");
    }
    let versions = bench.versions().await;
    let package = Package::of(&versions[0].body).unwrap().unwrap();
    assert_eq!((package.source_directory.as_deref(), package.entry_script.as_str()), (Some("src"), "score.py"));
    assert_eq!((package.files.len(), package.models.len()), (1, 1), "the driver is left out");
    assert_eq!(versions[0].body["properties"]["environmentVariables"], json!({"FLAVOUR": "v"}));
    let row = bench.world.state.store.resource_get(&versions[0].id.parent().unwrap()).await.unwrap().unwrap();
    assert_eq!(compute_of(&row), Some(ResourceId::parse(&format!("{}/computes/pool", bench.home)).unwrap()));
    assert_eq!(
        bench.ask("POST", "/services/one/listkeys", Value::Null).await.expect(200)["primaryKey"],
        "p".repeat(32)
    );
}

#[tokio::test]
async fn a_patch_changes_only_the_versions_that_it_means() {
    let bench = Bench::new().await;
    bench.deploy(|_| {}).await.expect(202);
    bench.settle().await;
    let before = bench.versions().await[0].generation;
    let patch = |changes: Value| bench.ask("PATCH", "/services/one", changes);
    patch(json!([{"op": "replace", "path": "/kvTags", "value": {"a": "b"}}])).await.expect(202);
    assert_eq!(bench.versions().await[0].generation, before, "tags leave the instances alone");
    bench.settle().await;
    // What was uploaded is not looked for again when it is not changed.
    bench
        .world
        .state
        .blob
        .remove_prefix(
            &Package::of(&bench.versions().await[0].body).unwrap().unwrap().files[0].container,
            "LocalUpload/code",
        )
        .await
        .unwrap();
    patch(json!([{"op": "replace", "path": "/numReplicas", "value": 2}, {"op": "replace", "path": "/autoScaler/autoscaleEnabled", "value": false}])).await.expect(202);
    let version = &bench.versions().await[0];
    assert_eq!((&version.body["sku"]["capacity"], version.generation), (&json!(2), before + 1));
    bench.settle().await;
    for (changes, status, code) in [
        (json!([{"op": "replace", "path": "/computeType", "value": "ACI"}]), 409, "ServiceTypeMismatch"),
        (json!([{"op": "replace", "path": "/aadAuthEnabled", "value": true}]), 400, "BadArgument"),
        (
            json!([{"op": "replace", "path": "/environmentImageRequest", "value": Bench::request("new")}]),
            400,
            "BadArgument",
        ),
        (json!([{"op": "replace", "path": "/scoringTimeoutMs", "value": 0}]), 400, "BadArgument"),
        (json!({"a": 1}), 400, "BadArgument"),
    ] {
        patch(changes).await.refused(status, code);
    }
}

#[tokio::test]
async fn names_are_unique_on_the_platform() {
    let bench = Bench::new().await;
    bench.deploy(|_| {}).await.expect(202);
    assert!(bench.deploy(|_| {}).await.refused(409, "ServiceExists").contains("overwrite=True"));
    let told = bench.ask("POST", "/services/validate/name/one", json!({})).await.expect(200);
    assert!(told["error"]["message"].as_str().unwrap().contains("already a service"), "{told}");
    assert_eq!(bench.ask("POST", "/services/validate/name/two", json!({})).await.expect(200), json!({}));
    bench.settle().await;
    bench.deploy(|body| body["overwrite"] = true.into()).await.expect(202);
    let other = bench.world.workspace("h", "other").await;
    let path = format!("/modelmanagement/v1.0{other}/services/validate/name/one");
    let told = bench.world.call("POST", &path, json!({})).await.expect(200);
    assert!(told["error"]["message"].as_str().unwrap().contains(&bench.home), "{told}");
}

#[tokio::test]
async fn refusals() {
    let bench = Bench::new().await;
    type Change = fn(&mut Value);
    let table: [(Change, u16, &str); 12] = [
        (|body| body["name"] = "A".into(), 400, "InvalidServiceName"),
        (|body| body["computeType"] = "IOT".into(), 501, "ComputeTypeNotSupported"),
        (|body| body["computeName"] = "elsewhere".into(), 404, "ComputeNotFound"),
        (|body| body["computeName"] = Value::Null, 404, "ComputeNotFound"),
        (|body| body["environmentImageRequest"]["modelIds"] = json!(["m:9"]), 404, "ModelNotFound"),
        (|body| body["environmentImageRequest"]["assets"] = json!([]), 400, "BadArgument"),
        (|body| body["environmentImageRequest"]["assets"][1]["url"] = "https://x".into(), 400, "BadArgument"),
        (
            |body| body["environmentImageRequest"]["assets"][1]["url"] = "aml://artifact/LocalUpload/code/no".into(),
            400,
            "BadArgument",
        ),
        (|body| body["environmentImageRequest"]["environment"] = Value::Null, 501, "NotImplemented"),
        (|body| body["keys"]["primaryKey"] = "short".into(), 400, "BadArgument"),
        (|body| body["sslCertificate"] = "x".into(), 400, "BadArgument"),
        (|body| body["containerResourceRequirements"] = json!({"gpu": 1}), 501, "NotImplemented"),
    ];
    for (at, (change, status, code)) in table.into_iter().enumerate() {
        let refused = bench.deploy(change).await;
        assert_eq!(
            (refused.status.as_u16(), refused.body["code"].as_str()),
            (status, Some(code)),
            "row {at}: {}",
            refused.body
        );
    }
    assert!(bench.versions().await.is_empty());
    bench.ask("GET", "/services/none", Value::Null).await.refused(404, "ServiceNotFound");
    bench.ask("GET", "/operations/none", Value::Null).await.refused(404, "OperationNotFound");
}

#[tokio::test]
async fn versions_share_the_traffic() {
    let bench = Bench::new().await;
    let version = |flavour: &str, share: Value| json!({"computeName": "pool", "trafficPercentile": share, "environmentImageRequest": Bench::request(flavour)});
    let endpoint = |body: &mut Value| {
        body["computeType"] = "AKSENDPOINT".into();
        body["computeName"] = Value::Null;
        body["versions"] = json!({"one": version("one", json!(20))});
    };
    bench.deploy(endpoint).await.expect(202);
    bench.settle().await;
    let add = json!([{"op": "add", "path": "/versions/two", "value": version("two", json!(50))}]);
    bench.ask("PATCH", "/services/one", add).await.expect(202);
    let row = ResourceId::parse(&format!("{}/services/one", bench.home)).unwrap();
    let row = bench.world.state.store.resource_get(&row).await.unwrap().unwrap();
    assert_eq!(row.properties()["traffic"], json!({"one": 50, "two": 50}));
    bench.settle().await;
    let shown = bench.ask("GET", "/services/one", Value::Null).await.expect(200);
    assert_eq!(shown["versions"]["one"]["isDefault"], true);
    assert_eq!(
        (&shown["versions"]["two"]["type"], &shown["versions"]["two"]["computeType"]),
        (&json!("Treatment"), &json!("AKS"))
    );
    let remove = json!([{"op": "remove", "path": "/versions/one"}]);
    bench.ask("PATCH", "/services/one", remove).await.expect(202);
    let versions = bench.versions().await;
    assert!(versions.iter().any(|row| row.deleting && row.name() == "one"), "{versions:?}");
}

#[tokio::test]
async fn rights_and_models_in_use() {
    let bench = Bench::new().await;
    bench.deploy(|_| {}).await.expect(202);
    assert!(bench.ask("DELETE", "/models/m:1", Value::Null).await.refused(409, "Conflict").contains("service 'one'"));
    // The other generation's delete knows it, too.
    let version = format!("{}/models/m/versions/1", bench.home);
    bench.world.call("DELETE", &version, Value::Null).await.refused(409, "Conflict");
    assert_eq!(bench.world.get(&version).await.expect(200)["properties"]["modelType"], "custom_model");
    let (token, _) = bench.world.principal("reader", "Reader", &bench.home).await;
    let path = |rest: &str| format!("/modelmanagement/v1.0{}{rest}", bench.home);
    bench.world.call_as(&token, "GET", &path("/services/one"), Value::Null).await.expect(200);
    for (method, rest) in [("POST", "/services/one/listkeys"), ("DELETE", "/services/one"), ("DELETE", "/models/m:1")] {
        bench.world.call_as(&token, method, &path(rest), Value::Null).await.refused(403, "AuthorizationFailed");
    }
}
