//! Who may do what.

use casemate_identity::role;
use serde_json::{Value, json};

use super::bench::Bench;

#[tokio::test]
async fn a_reader_reads_and_no_more() {
    let bench = Bench::new().await;
    bench.endpoint("one").await;
    bench.deployment("one", "blue").await;
    bench.register_assets().await;
    let reader = bench.principal(role::READER, "/ws").await;
    for path in [
        "onlineEndpoints",
        "onlineEndpoints/one",
        "onlineEndpoints/one/deployments",
        "onlineEndpoints/one/deployments/blue",
        "models",
        "models/m/versions",
        "codes/code-1/versions/1",
        "datastores",
    ] {
        let got = bench.call_as(&reader, &format!("GET {path}"), Value::Null).await;
        assert_eq!(got.status, 200, "{path}: {}", got.body);
    }
    for (line, action) in [
        ("PUT onlineEndpoints/two", "onlineEndpoints/write"),
        ("PATCH onlineEndpoints/one", "onlineEndpoints/write"),
        ("DELETE onlineEndpoints/one", "onlineEndpoints/delete"),
        ("POST onlineEndpoints/one/listKeys", "onlineEndpoints/listKeys/action"),
        ("POST onlineEndpoints/one/token", "onlineEndpoints/token/action"),
        ("POST onlineEndpoints/one/regenerateKeys", "onlineEndpoints/regenerateKeys/action"),
        ("PUT onlineEndpoints/one/deployments/green", "deployments/write"),
        ("DELETE onlineEndpoints/one/deployments/blue", "deployments/delete"),
        ("PUT models/x/versions/1", "models/versions/write"),
        ("DELETE models/m", "models/delete"),
        ("POST codes/c/versions/1/startPendingUpload", "startPendingUpload/action"),
        ("POST datastores/workspaceblobstore/listSecrets", "datastores/listSecrets/action"),
        ("PUT jobs/x", "jobs/write"),
    ] {
        let got = bench.call_as(&reader, line, json!({})).await;
        assert_eq!(got.fault(), (403, "AuthorizationFailed"), "{line}: {}", got.body);
        assert!(got.message().contains(action), "{line}: {}", got.message());
    }
    assert_eq!(bench.get("onlineEndpoints").await.names(), ["one"]);
}

#[tokio::test]
async fn a_role_at_one_endpoint_shows_just_that() {
    let bench = Bench::new().await;
    for name in ["one", "two"] {
        bench.endpoint(name).await;
    }
    let guest = bench.principal(role::READER, "onlineEndpoints/one").await;
    let listed = bench.call_as(&guest, "GET onlineEndpoints", Value::Null).await;
    assert_eq!(listed.names(), ["one"], "{}", listed.body);
    assert_eq!(bench.call_as(&guest, "GET onlineEndpoints/two", Value::Null).await.status, 403);
    assert_eq!(bench.call_as(&guest, "GET models", Value::Null).await.status, 403);
}
