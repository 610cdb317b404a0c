//! Endpoints, their traffic and their keys.

use serde_json::{Value, json};

use super::bench::Bench;

fn body(properties: Value) -> Value {
    json!({"location": "local", "properties": properties})
}

#[tokio::test]
async fn the_life_of_an_endpoint() {
    let bench = Bench::new().await;
    let made = bench
        .call(
            "PUT onlineEndpoints/My-Endpoint",
            json!({"location": "local", "tags": {"a": "b"}, "identity": {"type": "SystemAssigned"}, "properties": {
                "authMode": "Key", "description": null, "traffic": {}, "publicNetworkAccess": "enabled", "properties": {}}}),
        )
        .await;
    assert_eq!(made.status, 201, "{}", made.body);
    assert!(made.header("azure-asyncoperation").starts_with("https://"), "{:?}", made.headers);
    assert_eq!(made.header("retry-after"), "1");
    let shown = &made.body;
    for (pointer, value) in [
        ("/name", json!("My-Endpoint")),
        ("/location", json!("local")),
        ("/kind", json!("Managed")),
        ("/tags", json!({"a": "b"})),
        ("/properties/provisioningState", json!("Creating")),
        ("/properties/authMode", json!("Key")),
        ("/properties/publicNetworkAccess", json!("Enabled")),
        ("/properties/traffic", json!({})),
        ("/properties/mirrorTraffic", json!({})),
        ("/properties/properties", json!({})),
    ] {
        assert_eq!(shown.pointer(pointer), Some(&value), "{pointer}");
    }
    assert!(shown["systemData"]["createdAt"].is_string() && shown["systemData"]["lastModifiedAt"].is_string());
    let principal = shown["identity"]["principalId"].as_str().unwrap().to_owned();
    assert!(shown["identity"]["tenantId"].is_string());
    bench.settle("onlineEndpoints/my-endpoint").await;

    let got = bench.get("ONLINEENDPOINTS/my-ENDPOINT").await;
    assert_eq!((got.status, got.body["properties"]["provisioningState"].as_str()), (200, Some("Succeeded")));
    assert_eq!(bench.get("onlineEndpoints").await.names(), ["My-Endpoint"]);
    assert_eq!(bench.get("onlineEndpoints?name=other").await.names(), [""; 0]);

    let again = bench.call("PUT onlineEndpoints/my-endpoint", body(json!({"description": "new"}))).await;
    assert_eq!((again.status, again.body["properties"]["provisioningState"].as_str()), (200, Some("Updating")));
    assert_eq!(again.body["identity"]["principalId"], json!(principal));
    assert_eq!(again.body["tags"], json!({}));
    let patched = bench.call("PATCH onlineEndpoints/my-endpoint", json!({"tags": {"c": "d"}})).await;
    assert_eq!(patched.body["tags"], json!({"c": "d"}));
    assert_eq!(patched.body["properties"]["description"], json!("new"));

    let gone = bench.call("DELETE onlineEndpoints/my-endpoint", Value::Null).await;
    assert_eq!(gone.status, 202);
    assert!(gone.header("location").contains("operationResults"), "{:?}", gone.headers);
    let twice = bench.call("DELETE onlineEndpoints/my-endpoint", Value::Null).await;
    assert_eq!(twice.header("location"), gone.header("location"));
    let late = bench.call("PUT onlineEndpoints/my-endpoint", body(json!({}))).await;
    assert_eq!(late.status, 409, "{}", late.body);
    assert_eq!(bench.get("onlineEndpoints/my-endpoint").await.body["properties"]["provisioningState"], "Deleting");
    assert_eq!(bench.call("DELETE onlineEndpoints/other", Value::Null).await.status, 204);
}

#[tokio::test]
async fn refused_endpoints() {
    let bench = Bench::new().await;
    bench.endpoint("taken").await;
    bench.workspace("ws2", json!({})).await;
    let bad = (400, "BadArgument");
    for (line, given, fault, word) in [
        ("PUT onlineEndpoints/ab", body(json!({})), bad, "at least 3 and at most 32"),
        ("PUT onlineEndpoints/1abc", body(json!({})), bad, "start with a letter"),
        ("PUT onlineEndpoints/new", body(json!({"authMode": "None"})), bad, "Key, AMLToken, AADToken"),
        ("PUT onlineEndpoints/new", body(json!({"publicNetworkAccess": "maybe"})), bad, "Enabled, Disabled"),
        ("PUT onlineEndpoints/new", body(json!({"traffic": {"blue": 100}})), bad, "can't be set while"),
        ("PUT onlineEndpoints/new", body(json!({"mirrorTraffic": {"blue": 10}})), bad, "can't be set while"),
        ("PUT onlineEndpoints/new", body(json!({"traffic": {"blue": 0.5}})), bad, "invalid type"),
        ("PUT onlineEndpoints/new", body(json!({"traffic": {"blue": -1}})), bad, "invalid value"),
        ("PUT onlineEndpoints/new", body(json!({"traffic": []})), bad, "invalid type"),
        ("PUT onlineEndpoints/new", body(json!({"keys": {"primaryKey": "x"}})), bad, "made by the platform"),
        (
            "PUT onlineEndpoints/new",
            body(json!({"compute": "/subscriptions/x"})),
            (501, "NotImplemented"),
            "Kubernetes",
        ),
        ("PUT onlineEndpoints/new", json!({"properties": []}), bad, "not an object"),
        ("PUT onlineEndpoints/new", json!([]), bad, "not a JSON object"),
        ("PUT onlineEndpoints/new", json!({"identity": {"type": "Odd"}}), bad, "SystemAssigned"),
        ("PUT onlineEndpoints/new", json!({"identity": "x"}), bad, "not an object"),
        ("PUT onlineEndpoints/taken", body(json!({"authMode": "AMLToken"})), bad, "can't be changed"),
        (
            "PUT /ws2/onlineEndpoints/TAKEN",
            body(json!({})),
            (409, "EndpointAlreadyExists"),
            "There is already an endpoint with this name, Endpoint name needs to be unique within a region. Try some other name.",
        ),
        ("PATCH onlineEndpoints/new", json!({}), (404, "ResourceNotFound"), "new"),
        ("PUT /ws9/onlineEndpoints/new", body(json!({})), (404, "ResourceNotFound"), "ws9"),
        ("POST onlineEndpoints/taken/dance", json!({}), (405, "MethodNotAllowed"), "dance"),
    ] {
        let got = bench.call(line, given.clone()).await;
        assert_eq!(got.fault(), fault, "{line} {given}: {}", got.body);
        assert!(got.message().contains(word), "{line} {given}: {}", got.message());
    }
    assert_eq!(bench.get("onlineEndpoints").await.names(), ["taken"]);
}

#[tokio::test]
async fn an_etag_guards_an_update() {
    let bench = Bench::new().await;
    bench.endpoint("one").await;
    let got = bench.get("onlineEndpoints/one").await;
    let etag = got.header("etag").to_owned();
    assert_eq!(json!(etag), got.body["etag"]);
    let put = |condition: (&'static str, String)| {
        let bench = &bench;
        async move { bench.call_if(condition, "PUT onlineEndpoints/one", body(json!({}))).await.status }
    };
    assert_eq!(put(("if-none-match", "*".to_owned())).await, 412);
    assert_eq!(put(("if-match", "\"other\"".to_owned())).await, 412);
    assert_eq!(put(("if-match", etag.clone())).await, 200);
    assert_eq!(put(("if-match", etag)).await, 412, "it changed with the last write");
}

#[tokio::test]
async fn a_legacy_workspace_is_named() {
    let bench = Bench::new().await;
    bench.workspace("ws", json!({"v1LegacyMode": true})).await;
    let got = bench.call("PUT onlineEndpoints/one", body(json!({}))).await;
    assert_eq!(got.status, 403);
    assert!(got.message().contains("V1LegacyMode == true") && got.message().contains("'ws'"), "{}", got.message());
    bench.workspace("ws", json!({"v1LegacyMode": false})).await;
    assert_eq!(bench.call("PUT onlineEndpoints/one", body(json!({}))).await.status, 201);
}

#[tokio::test]
async fn keys() {
    let bench = Bench::new().await;
    bench.endpoint("one").await;
    let keys = |name: &'static str| {
        let bench = &bench;
        async move { bench.call(&format!("POST onlineEndpoints/{name}/listKeys"), Value::Null).await.body }
    };
    let first = keys("one").await;
    assert!(first["primaryKey"].as_str().unwrap().len() >= 32);
    assert_ne!(first["primaryKey"], first["secondaryKey"]);
    // Clients send the present key along; a new one is made all the same.
    let request = json!({"keyType": "Primary", "keyValue": first["primaryKey"]});
    let made = bench.call("POST onlineEndpoints/one/regenerateKeys", request).await;
    assert_eq!(made.status, 202, "{}", made.body);
    assert!(!made.header("location").is_empty());
    let second = keys("one").await;
    assert_ne!(second["primaryKey"], first["primaryKey"]);
    assert_eq!(second["secondaryKey"], first["secondaryKey"]);
    bench.call("POST onlineEndpoints/one/regenerateKeys", json!({"keyType": "secondary"})).await;
    assert_ne!(keys("one").await["secondaryKey"], first["secondaryKey"]);

    for (line, given) in [
        ("POST onlineEndpoints/one/regenerateKeys", json!({"keyType": "Third"})),
        ("POST onlineEndpoints/one/regenerateKeys", json!({})),
        ("POST onlineEndpoints/one/token", json!({})),
    ] {
        assert_eq!(bench.call(line, given).await.fault(), (400, "BadArgument"), "{line}");
    }
    // Keys are secrets of the endpoint and never part of what is shown.
    let shown = bench.get("onlineEndpoints/one").await.body.to_string();
    assert!(!shown.contains(second["primaryKey"].as_str().unwrap()));
}

#[tokio::test]
async fn tokens() {
    let bench = Bench::new().await;
    let made = bench.call("PUT onlineEndpoints/one", body(json!({"authMode": "amltoken"}))).await;
    assert_eq!(made.body["properties"]["authMode"], "AMLToken");
    let token = bench.call("POST onlineEndpoints/one/token", Value::Null).await;
    assert_eq!(token.status, 200, "{}", token.body);
    assert_eq!(token.body["tokenType"], "Bearer");
    let (expiry, refresh) = (token.body["expiryTimeUtc"].as_i64(), token.body["refreshAfterTimeUtc"].as_i64());
    assert!(expiry > refresh && refresh > Some(0));
    assert_eq!(bench.call("POST onlineEndpoints/one/listKeys", Value::Null).await.fault(), (400, "BadArgument"));
}

#[tokio::test]
async fn traffic() {
    let bench = Bench::new().await;
    bench.endpoint("one").await;
    for name in ["Blue", "green"] {
        bench.deployment("one", name).await;
    }
    let fresh = "onlineEndpoints/one/deployments/fresh";
    bench.call(&format!("PUT {fresh}"), json!({"properties": {"endpointComputeType": "Managed"}})).await;
    let line = "PUT onlineEndpoints/one";
    for (traffic, mirror, word) in [
        (json!({"blue": 90}), json!({}), "add up to 90"),
        (json!({"blue": 101}), json!({}), "from 0 to 100"),
        (json!({"red": 100}), json!({}), "has no deployment 'red'"),
        (json!({"blue": 90, "fresh": 10}), json!({}), "has not succeeded yet"),
        (json!({"blue": 100, "Blue": 0}), json!({}), "named twice"),
        (json!({"blue": 100}), json!({"green": 51}), "at most 50"),
        (json!({"blue": 100}), json!({"blue": 10}), "both live and mirrored"),
        (json!({"blue": 100}), json!({"red": 10}), "has no deployment 'red'"),
        (json!({}), json!({"blue": 10, "green": 10}), "Only one deployment"),
    ] {
        let got = bench.call(line, body(json!({"traffic": traffic, "mirrorTraffic": mirror}))).await;
        assert_eq!(got.fault(), (400, "BadArgument"), "{traffic} {mirror}: {}", got.body);
        assert!(got.message().contains(word), "{traffic} {mirror}: {}", got.message());
    }
    // The SDK sends names in lower case; a share of 0 for what is gone is no mistake.
    let given = json!({"traffic": {"blue": 100, "gone": 0}, "mirrorTraffic": {"green": 10}});
    let set = bench.call(line, body(given)).await;
    assert_eq!(set.status, 200, "{}", set.body);
    assert_eq!(set.body["properties"]["traffic"], json!({"Blue": 100}));
    assert_eq!(set.body["properties"]["mirrorTraffic"], json!({"green": 10}));
    // What is not mentioned stays; what is emptied goes.
    let kept = bench.call(line, body(json!({"description": "x"}))).await;
    assert_eq!(kept.body["properties"]["traffic"], json!({"Blue": 100}));
    let emptied = bench.call(line, body(json!({"traffic": {}}))).await;
    assert_eq!(emptied.body["properties"]["traffic"], json!({}));
    assert_eq!(emptied.body["properties"]["mirrorTraffic"], json!({"green": 10}));
}

#[tokio::test]
async fn there_is_room_for_a_hundred() {
    let bench = Bench::new().await;
    for number in 0..99 {
        bench.put_row(&format!("onlineEndpoints/ep-{number}"), body(json!({"authMode": "Key"}))).await;
    }
    assert_eq!(bench.call("PUT onlineEndpoints/last", body(json!({}))).await.status, 201);
    let full = bench.call("PUT onlineEndpoints/one-more", body(json!({}))).await;
    assert_eq!(full.fault(), (409, "OutOfQuota"), "{}", full.body);
    assert_eq!(bench.call("PUT onlineEndpoints/last", body(json!({}))).await.status, 200);
    let page = bench.get("onlineEndpoints?$top=60").await;
    assert_eq!(page.names().len(), 60);
    let next = bench.call(&format!("GET {}", page.body["nextLink"].as_str().unwrap()), Value::Null).await;
    assert_eq!(next.names().len(), 40);
}
