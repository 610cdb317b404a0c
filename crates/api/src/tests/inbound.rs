//! Ways in: what a workspace without public network access answers to whom.

use axum::{Router, body::Body};
use casemate_model::{ResourceId, inbound::Origin};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::testing::{URL, World};

struct Caller {
    router: Router,
    token: String,
}

impl Caller {
    async fn new(world: &World) -> Self {
        let secret = world.bootstrap.client_secret.clone().unwrap();
        let token = world.sign_in(world.bootstrap.client_id.to_string(), &secret, URL).await;
        Self { router: crate::router(world.state.clone()), token }
    }

    /// Status and body of a call that came in from `origin`.
    async fn call(&self, origin: Origin, method: &str, path: &str, body: Value) -> (StatusCode, String) {
        self.call_at("management.casemate.internal", origin, method, path, body).await
    }

    async fn call_at(&self, host: &str, origin: Origin, method: &str, path: &str, body: Value) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).header(header::HOST, host);
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", self.token)).extension(origin);
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let answer = self.router.clone().oneshot(request.body(body).unwrap()).await.unwrap();
        let (parts, body) = answer.into_parts();
        (parts.status, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }
}

fn public(caller: &str) -> Origin {
    Origin::Public { caller: caller.parse().unwrap() }
}

fn private(target: &str) -> Origin {
    let id = |text: &str| ResourceId::parse(text).unwrap();
    let base = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network";
    Origin::Private {
        network: id(&format!("{base}/virtualNetworks/net")),
        endpoint: id(&format!("{base}/privateEndpoints/pe")),
        target: id(target),
        caller: "127.0.0.1".parse().unwrap(),
    }
}

fn deployed(workspace: &str, public: Option<&str>) -> Origin {
    let public = public.map(|caller| caller.parse().unwrap());
    Origin::Deployment { workspace: ResourceId::parse(workspace).unwrap(), public }
}

const DISABLED: &str = "PublicNetworkAccessDisabled";

#[tokio::test]
async fn a_workspace_without_public_access_is_reached_through_its_private_endpoint() {
    let world = World::new().await;
    let (own, other) = (world.workspace("g", "own").await, world.workspace("h", "other").await);
    let caller = Caller::new(&world).await;
    let endpoint = json!({"location": "local", "properties": {"authMode": "Key"}});
    let made = format!("{own}/onlineEndpoints/before");
    world.call("PUT", &made, endpoint.clone()).await.expect(201);
    let close = json!({"properties": {"publicNetworkAccess": "Disabled"}});
    world.call("PATCH", &own, close.clone()).await.expect(200);

    let storage = world.call("GET", &own, Value::Null).await.expect(200)["properties"]["storageAccount"].clone();
    let template = json!({"properties": {"mode": "Incremental", "template": {
        "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "resources": [{
            "type": "Microsoft.MachineLearningServices/workspaces/onlineEndpoints", "apiVersion": "2024-10-01",
            "name": "own/smuggled", "location": "local", "properties": {"authMode": "Key"},
        }],
    }}});
    let deployment = world.path("/resourceGroups/g/providers/Microsoft.Resources/deployments/d");
    let endpoints = format!("{own}/onlineEndpoints");
    let keys = format!("{made}/listKeys");
    let fresh = format!("{endpoints}/fresh");
    let outside = || public("203.0.113.9");
    for (origin, method, path, body, expected) in [
        // What is in it, over public addresses and through the private endpoint of another.
        (outside(), "GET", &endpoints, Value::Null, 403),
        (outside(), "GET", &made, Value::Null, 403),
        (outside(), "POST", &keys, Value::Null, 403),
        (outside(), "PUT", &fresh, endpoint.clone(), 403),
        (outside(), "DELETE", &made, Value::Null, 403),
        (outside(), "GET", &format!("{own}/datastores"), Value::Null, 403),
        (outside(), "GET", &format!("{own}/models/m/versions"), Value::Null, 403),
        (outside(), "POST", &format!("{own}/listKeys"), Value::Null, 403),
        (private(&other), "GET", &endpoints, Value::Null, 403),
        (private(&other), "GET", &own, Value::Null, 403),
        (deployed(&own, Some("127.0.0.1")), "GET", &made, Value::Null, 403),
        (deployed(&own, None), "GET", &own, Value::Null, 403),
        (private(storage.as_str().unwrap()), "GET", &made, Value::Null, 403),
        (private(storage.as_str().unwrap()), "GET", &world.path("/resourceGroups/g"), Value::Null, 403),
        // The same through its own.
        (private(&own), "GET", &endpoints, Value::Null, 200),
        (private(&own.to_uppercase()), "GET", &made, Value::Null, 200),
        (private(&own), "POST", &keys, Value::Null, 200),
        (private(&own), "PUT", &fresh, endpoint.clone(), 201),
        (private(&own), "GET", &format!("{own}/datastores"), Value::Null, 200),
        (private(&own), "GET", &world.path("/resourceGroups/g"), Value::Null, 200),
        (private(&own), "GET", &format!("{other}/onlineEndpoints"), Value::Null, 403),
        // Others, and itself: nobody is locked out.
        (outside(), "GET", &format!("{other}/onlineEndpoints"), Value::Null, 200),
        (outside(), "GET", &own, Value::Null, 200),
        (outside(), "PATCH", &own, json!({"tags": {"a": "b"}}), 200),
        (private(&own), "PATCH", &own, json!({"tags": {"a": "c"}}), 200),
    ] {
        let (status, body) = caller.call(origin.clone(), method, path, body).await;
        assert_eq!(status.as_u16(), expected, "{method} {path} from {origin:?}: {body}");
        if expected == 403 {
            assert!(body.contains(DISABLED), "{body}");
        }
    }
    let (_, listed) = caller
        .call(private(&own), "GET", &world.path("/providers/Microsoft.MachineLearningServices/workspaces"), Value::Null)
        .await;
    let names: Vec<Value> = serde_json::from_str::<Value>(&listed).unwrap()["value"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].clone())
        .collect();
    assert_eq!(names, ["own"]);

    // A template is no way around: it fails, or its operation does.
    caller.call(outside(), "PUT", &deployment, template).await;
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let (status, _) = caller.call(private(&own), "GET", &format!("{endpoints}/smuggled"), Value::Null).await;
    assert_eq!(status.as_u16(), 404);

    let open = json!({"properties": {"publicNetworkAccess": "Enabled"}});
    let (status, _) = caller.call(outside(), "PATCH", &own, open).await;
    assert_eq!(status.as_u16(), 200);
    assert_eq!(caller.call(outside(), "GET", &made, Value::Null).await.0.as_u16(), 200);
}

#[tokio::test]
async fn files_are_closed_with_their_workspace() {
    let world = World::new().await;
    let (own, other) = (world.workspace("g", "own").await, world.workspace("h", "other").await);
    let caller = Caller::new(&world).await;
    let store = world.call("GET", &format!("{own}/datastores/workspaceblobstore"), Value::Null).await.expect(200);
    let secrets = world.call("POST", &format!("{own}/datastores/workspaceblobstore/listSecrets"), json!({})).await;
    let (container, sas) = (store["properties"]["containerName"].clone(), secrets.expect(200)["sasToken"].clone());
    let (container, sas) = (container.as_str().unwrap(), sas.as_str().unwrap());
    let storage = world.call("GET", &own, Value::Null).await.expect(200)["properties"]["storageAccount"].clone();
    let account = storage.as_str().and_then(|id| id.rsplit('/').next()).unwrap();
    let listing = |container: &str| format!("/{account}.blob.x/{container}?restype=container&comp=list&{sas}");
    let spelled = container.replacen("azureml", "%61zureml", 1);
    let close = json!({"properties": {"publicNetworkAccess": "Disabled"}});
    for closed in [false, true] {
        if closed {
            world.call("PATCH", &own, close.clone()).await.expect(200);
        }
        let when_open = if closed { 403 } else { 200 };
        for (origin, path, expected) in [
            (public("203.0.113.9"), listing(container), when_open),
            (public("203.0.113.9"), listing(&spelled), when_open),
            (private(&other), listing(container), 403),
            (private(&own), listing(container), 200),
            (private(storage.as_str().unwrap()), listing(container), 200),
            (deployed(&own, None), listing(container), 200),
            (deployed(&own, Some("127.0.0.1")), listing(&spelled), 200),
            (deployed(&other, None), listing(container), 403),
            (deployed(&other, Some("127.0.0.1")), listing(container), when_open),
            (deployed(&other, Some("127.0.0.1")), listing(&spelled), when_open),
        ] {
            let (status, body) = caller.call(origin.clone(), "GET", &path, Value::Null).await;
            assert_eq!(status.as_u16(), expected, "{path} from {origin:?}, closed: {closed}: {body}");
            assert_eq!(body.contains(DISABLED), expected == 403, "{body}");
            // The same at the account's own host.
            let own_path = path.trim_start_matches(&format!("/{account}.blob.x"));
            let host = format!("{account}.blob.core.casemate.internal:8443");
            let (status, body) = caller.call_at(&host, origin.clone(), "GET", own_path, Value::Null).await;
            assert_eq!(status.as_u16(), expected, "{own_path} at {host} from {origin:?}, closed: {closed}: {body}");
            // A deployment was let through to one account, and finds nothing of another there.
            let host = "another.blob.core.casemate.internal";
            let (status, body) = caller.call_at(host, origin.clone(), "GET", own_path, Value::Null).await;
            let expected = if matches!(origin, Origin::Deployment { .. }) { 403 } else { expected };
            assert_eq!(status.as_u16(), expected, "{own_path} at {host} from {origin:?}, closed: {closed}: {body}");
        }
    }
}

#[tokio::test]
async fn an_allow_list_names_public_callers() {
    let world = World::new().await;
    let own = world.workspace("g", "own").await;
    let caller = Caller::new(&world).await;
    let list = |entries: Value| json!({"properties": {"ipAllowlist": entries}});
    world.call("PATCH", &own, list(json!(["nonsense"]))).await.refused(400, "BadArgument");
    world.call("PATCH", &own, list(json!(["203.0.113.0/24", "2001:db8::/32"]))).await.expect(200);
    let endpoints = format!("{own}/onlineEndpoints");
    for (origin, path, expected) in [
        (public("203.0.113.9"), &endpoints, 200),
        (public("2001:db8::9"), &endpoints, 200),
        (public("198.51.100.9"), &endpoints, 403),
        (public("2001:db9::9"), &endpoints, 403),
        (public("198.51.100.9"), &own, 200),
        (private(&own), &endpoints, 200),
    ] {
        let (status, body) = caller.call(origin.clone(), "GET", path, Value::Null).await;
        assert_eq!(status.as_u16(), expected, "{origin:?}: {body}");
        assert_eq!(body.contains("ForbiddenByFirewall"), expected == 403, "{body}");
    }
}
