use casemate_model::{
    ResourceId,
    tls::{TlsMode, TlsWish},
};
use serde_json::{Value, json};

use crate::testing::World;

const CONTRIBUTOR: &str = "b24988ac-6180-42a0-ab88-20f7382dd24c";
const DATA_SCIENTIST: &str = "f6c7c914-8db3-469d-8ca1-694a8f32e121";

struct Computes {
    world: World,
    workspace: String,
}

impl Computes {
    async fn new() -> Self {
        let world = World::new().await;
        let workspace = world.workspace("g", "home").await;
        Self { world, workspace }
    }

    fn path(&self, name: &str) -> String {
        format!("{}/computes/{name}?api-version=2020-02-02", self.workspace)
    }

    async fn put(&self, name: &str, status: u16, ssl: Value) -> Value {
        let body =
            json!({"location": "local", "properties": {"computeType": "AKS", "properties": {"sslConfiguration": ssl}}});
        let answer = self.world.call("PUT", &self.path(name), body).await;
        if status < 300 {
            let poll = answer.header("azure-asyncoperation");
            assert!(poll.contains("/operationStatuses/"), "{poll}");
        }
        answer.expect(status)
    }

    async fn refused(&self, name: &str, status: u16, code: &str, ssl: Value) -> String {
        let body = json!({"properties": {"computeType": "AKS", "properties": {"sslConfiguration": ssl}}});
        self.world.call("PUT", &self.path(name), body).await.refused(status, code)
    }

    async fn read(&self, name: &str) -> Value {
        self.world.get(&format!("/rp/workspaces{}", self.path(name))).await.expect(200)
    }

    async fn name_of(&self, name: &str) -> String {
        ssl(&self.read(name).await)["cname"].as_str().unwrap_or_default().to_owned()
    }

    async fn wish(&self, name: &str) -> TlsWish {
        let id = ResourceId::parse(&format!("{}/computes/{name}", self.workspace)).unwrap();
        TlsWish::of(&self.world.state.store.resource_get(&id).await.unwrap().unwrap()).unwrap().unwrap()
    }
}

fn ssl(shown: &Value) -> &Value {
    &shown["properties"]["properties"]["sslConfiguration"]
}

fn auto(label: &str) -> Value {
    json!({"status": "Auto", "leafDomainLabel": label, "overwriteExistingDomain": false})
}

#[tokio::test]
async fn what_the_sdk_reads_is_there() {
    let computes = Computes::new().await;
    computes.put("myaks", 201, json!(null)).await;
    let shown = computes.read("myaks").await;
    assert!(["id", "name", "location", "tags"].iter().all(|key| !shown[*key].is_null()), "{shown:#}");
    let properties = &shown["properties"];
    for key in ["computeType", "description", "resourceId", "provisioningState", "provisioningErrors", "createdOn"] {
        assert!(properties.get(key).is_some(), "{key}");
    }
    assert_eq!(properties["isAttachedCompute"], false);
    let pool = &properties["properties"];
    assert_eq!((&pool["agentCount"], &pool["agentVmSize"]), (&json!(3), &json!("Standard_D3_v2")));
    assert_eq!((&pool["clusterPurpose"], &pool["loadBalancerType"]), (&json!("FastProd"), &json!("PublicIp")));
    assert!(pool.get("loadBalancerSubnet").is_some() && pool.get("clusterFqdn").is_some());
    assert_eq!(pool["systemServices"][0]["publicIpAddress"], "127.0.0.1");
    // The client takes these without looking whether they are there.
    assert_eq!((&ssl(&shown)["status"], &ssl(&shown)["leafDomainLabel"]), (&json!("Disabled"), &Value::Null));
    let list = computes.world.get(&format!("/rp/workspaces{}/computes", computes.workspace)).await.expect(200);
    assert_eq!(list["value"][0]["name"], "myaks");
    let keys = format!("{}/computes/myaks/listKeys?api-version=2020-02-02", computes.workspace);
    computes.world.call("POST", &keys, Value::Null).await.expect(200);
    // What was read can be written back.
    computes.world.call("PUT", &computes.path("myaks"), shown).await.expect(200);
}

#[tokio::test]
async fn a_name_is_kept_whatever_happens_to_it() {
    let computes = Computes::new().await;
    computes.put("myaks", 201, auto("Contoso")).await;
    let name = computes.name_of("myaks").await;
    let (first, rest) = name.split_once('.').unwrap();
    assert!(first.len() == "contoso".len() + 6 && first.starts_with("contoso"), "{name}");
    assert_eq!(rest, "local.cloudapp.casemate.internal");
    assert_eq!(computes.wish("myaks").await, TlsWish::platform(vec![name.clone()]));

    // The client renews by writing back what it has read; the article's sample asks to overwrite, too.
    let mut read = computes.read("myaks").await;
    read["properties"]["properties"]["sslConfiguration"]["renew"] = json!(true);
    read["properties"]["properties"]["sslConfiguration"]["overwriteExistingDomain"] = json!(true);
    computes.world.call("PUT", &computes.path("myaks"), read).await.expect(200);
    assert_eq!((computes.name_of("myaks").await, computes.wish("myaks").await.renewal), (name.clone(), 1));
    // The label with its six characters is understood as the label.
    computes.put("myaks", 200, json!({"leafDomainLabel": first, "overwriteExistingDomain": true, "renew": true})).await;
    assert_eq!((computes.name_of("myaks").await, computes.wish("myaks").await.renewal), (name.clone(), 2));
    // Without renew, what is good is left alone; without a configuration all stays.
    computes.put("myaks", 200, auto("contoso")).await;
    computes.put("myaks", 200, Value::Null).await;
    assert_eq!(computes.wish("myaks").await, TlsWish { renewal: 2, ..TlsWish::platform(vec![name.clone()]) });
    // Off and on again, and by way of another label.
    computes.put("myaks", 200, json!({"status": "Disabled"})).await;
    let off = computes.read("myaks").await;
    assert_eq!((&ssl(&off)["status"], &ssl(&off)["leafDomainLabel"]), (&json!("Disabled"), &Value::Null));
    assert_eq!(computes.wish("myaks").await.mode, TlsMode::Off);
    computes.put("myaks", 200, auto("other")).await;
    assert!(computes.name_of("myaks").await.starts_with("other"));
    computes.put("myaks", 200, auto("contoso")).await;
    assert_eq!(computes.name_of("myaks").await, name);
    let text = computes.read("myaks").await.to_string();
    assert!(!text.contains("_tls") && !text.contains("_labels"), "{text}");
}

#[tokio::test]
async fn a_label_is_one_computes_until_another_takes_it_over() {
    let computes = Computes::new().await;
    computes.put("one", 201, auto("contoso")).await;
    let name = computes.name_of("one").await;
    let said = computes.refused("two", 409, "LeafDomainLabelInUse", auto("contoso")).await;
    assert!(said.contains("computes/one") && said.contains("overwriteExistingDomain"), "{said}");
    let first = name.split('.').next().unwrap();
    computes.refused("two", 409, "LeafDomainLabelInUse", auto(first)).await;

    // Somebody who may not write the other compute can't take its name.
    let elsewhere = computes.world.workspace("h", "other").await;
    let group = computes.world.path("/resourceGroups/h");
    let (token, _) = computes.world.principal("p", CONTRIBUTOR, &group).await;
    let taking = json!({"properties": {"properties": {"sslConfiguration": {"leafDomainLabel": "contoso", "overwriteExistingDomain": true}}}});
    let theirs = format!("{elsewhere}/computes/two");
    let said = computes.world.call_as(&token, "PUT", &theirs, taking.clone()).await.refused(403, "AuthorizationFailed");
    assert!(!said.contains("computes/one"), "{said}");
    assert_eq!(computes.name_of("one").await, name);

    computes.world.call("PUT", &theirs, taking).await.expect(201);
    let taker = computes.world.get(&theirs).await.expect(200);
    assert_eq!(ssl(&taker)["cname"], name.as_str());
    let loser = computes.read("one").await;
    assert_eq!(ssl(&loser)["status"], "Disabled");
    let warning = loser["properties"]["casemate"]["warnings"][0].as_str().unwrap();
    assert!(warning.contains(&name) && warning.contains("computes/two"), "{warning}");
    assert_eq!(computes.wish("one").await.mode, TlsMode::Off);
    // It is as any other from now on.
    computes.refused("one", 409, "LeafDomainLabelInUse", auto("contoso")).await;
    computes.put("one", 200, auto("fabrikam")).await;
}

#[tokio::test]
async fn wrong_wishes_change_nothing() {
    let computes = Computes::new().await;
    computes.put("myaks", 201, auto("contoso")).await;
    let before = computes.read("myaks").await;
    for (given, said) in [
        (json!({"status": "Auto", "leafDomainLabel": "a.b"}), "without dots"),
        (json!({"status": "Auto", "leafDomainLabel": "other", "renew": true}), "that of the label 'contoso'"),
        (json!({"status": "Enabled", "cname": "www.contoso.com", "cert": "C"}), "missing: key"),
        (json!({"status": "Enabled", "cname": "www.contoso.com", "renew": true}), "give the new one"),
        (
            json!({"status": "Enabled", "cname": "a.casemate.internal", "cert": "C", "key": "K"}),
            "is a name of the platform",
        ),
        (json!({"status": "Enabled", "cname": "localhost", "cert": "C", "key": "K"}), "is a name of the platform"),
        (json!({"status": "Enabled", "cname": "10.0.0.4", "cert": "C", "key": "K"}), "is not a DNS name"),
        (json!({"status": "Enabled", "cname": "*.contoso.com", "cert": "C", "key": "K"}), "such as 'www.contoso.com'"),
    ] {
        let message = computes.refused("myaks", 400, "BadArgument", given.clone()).await;
        assert!(message.contains(said), "{given}: {message}");
    }
    assert_eq!(computes.read("myaks").await, before);
    for (body, status, code) in [
        (json!({"properties": {"computeType": "AmlCompute"}}), 501, "NotImplemented"),
        (json!({"properties": {"properties": {"agentCount": 0}}}), 400, "BadArgument"),
        (json!({"properties": {"properties": {"loadBalancerSubnet": "s"}}}), 400, "BadArgument"),
        (
            json!({"properties": {"resourceId": "/subscriptions/s/resourceGroups/g/providers/P/t/n"}}),
            400,
            "BadArgument",
        ),
        (json!({"properties": []}), 400, "BadArgument"),
        (json!([]), 400, "BadArgument"),
    ] {
        computes.world.call("PUT", &computes.path("new"), body).await.refused(status, code);
    }
    computes.world.call("PUT", &computes.path("x"), json!({})).await.refused(400, "BadArgument");
    let nowhere = computes.workspace.replace("/home", "/nowhere");
    computes.world.call("PUT", &format!("{nowhere}/computes/c2"), json!({})).await.refused(404, "ResourceNotFound");
}

#[tokio::test]
async fn deleting_and_detaching() {
    let computes = Computes::new().await;
    let cluster = computes.world.path("/resourceGroups/k/providers/Microsoft.ContainerService/managedClusters/k8s");
    let attach = json!({"properties": {"computeType": "AKS", "resourceId": cluster, "properties": {"sslConfiguration": auto("contoso")}}});
    computes.world.call("PUT", &computes.path("attached"), attach).await.expect(201);
    let shown = computes.read("attached").await;
    assert_eq!(
        (&shown["properties"]["isAttachedCompute"], &shown["properties"]["resourceId"]),
        (&json!(true), &json!(cluster))
    );
    computes.put("created", 201, Value::Null).await;
    let delete = async |name: &str, action: &str| {
        let path = format!("{}&underlyingResourceAction={action}", computes.path(name));
        computes.world.call("DELETE", &path, Value::Null).await
    };
    let said = delete("attached", "delete").await.refused(400, "BadArgument");
    assert!(said.contains("Detach it"), "{said}");
    delete("created", "burn").await.refused(400, "BadArgument");
    delete("created", "").await.refused(400, "BadArgument");
    delete("absent", "delete").await.expect(204);
    for (name, action) in [("attached", "detach"), ("created", "delete")] {
        let answer = delete(name, action).await;
        assert!(!answer.header("azure-asyncoperation").is_empty());
        answer.expect(202);
    }
}

#[tokio::test]
async fn rights_and_error_shapes() {
    let computes = Computes::new().await;
    computes.put("myaks", 201, auto("contoso")).await;
    let (token, _) = computes.world.principal("p", DATA_SCIENTIST, &computes.workspace).await;
    let world = &computes.world;
    let read = format!("/rp/workspaces{}", computes.path("myaks"));
    world.call_as(&token, "GET", &read, Value::Null).await.expect(200);
    world.call_as(&token, "PUT", &computes.path("myaks"), json!({})).await.refused(403, "AuthorizationFailed");
    let delete = format!("{}&underlyingResourceAction=delete", computes.path("myaks"));
    world.call_as(&token, "DELETE", &delete, Value::Null).await.refused(403, "AuthorizationFailed");
    // The shape of the first generation, which still has that of the resource manager in it.
    let absent = world.get(&read.replace("myaks", "none")).await.expect(404);
    assert_eq!((&absent["statusCode"], &absent["code"]), (&json!(404), &json!("ResourceNotFound")));
    assert!(absent["error"]["message"].as_str() == absent["message"].as_str() && absent["message"].is_string());
    let elsewhere = world.workspace("h", "other").await;
    let models = format!("/modelmanagement/v1.0{elsewhere}/models");
    world.call_as(&token, "GET", &models, Value::Null).await.expect(403);
    world.get("/modelmanagement/v1.0/nothing").await.expect(404);
    world.send(http::Method::GET, &models, &[], "").await.expect(401);
    // Where the services are is no secret.
    let found = world.send(http::Method::GET, "/discovery", &[], "").await.expect(200);
    for service in ["api", "history", "experimentation", "hyperdrive", "modelmanagement", "studio"] {
        assert_eq!(found[service], crate::testing::URL);
    }
}
