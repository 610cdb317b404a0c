//! A platform without its reconcilers: one subscription, one group, one workspace, one owner.

use std::{collections::BTreeMap, io, sync::Arc};

use axum::{Router, body::Body};
use casemate_blob::BlobStore;
use casemate_identity::{Principal, TokenAuthority, role};
use casemate_model::{Clock, OperationStatus, ResourceId, Secret};
use casemate_store::{Author, Condition, Store};
use http::{HeaderName, Request};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tower::ServiceExt;
use uuid::Uuid;

use crate::{ApiConfig, ApiState, DeploymentLogs, router, testing::Decisions};

pub(super) const URL: &str = "https://127.0.0.1:8443";

/// One answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Value,
}

impl Answer {
    /// Status and error code, for tables.
    pub(super) fn fault(&self) -> (u16, &str) {
        (self.status, self.body.pointer("/error/code").and_then(Value::as_str).unwrap_or_default())
    }

    pub(super) fn message(&self) -> &str {
        self.body.pointer("/error/message").and_then(Value::as_str).unwrap_or_default()
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The names in a list.
    pub(super) fn names(&self) -> Vec<&str> {
        self.body["value"].as_array().into_iter().flatten().filter_map(|item| item["name"].as_str()).collect()
    }
}

struct Logs;

impl DeploymentLogs for Logs {
    fn read(&self, deployment: &ResourceId, container: &str, tail: usize) -> io::Result<String> {
        Ok(format!("{} {container} {tail}", deployment.name()))
    }
}

pub(super) struct Bench {
    pub(super) store: Store,
    pub(super) subscription: Uuid,
    tokens: Arc<TokenAuthority>,
    router: Router,
    token: String,
    /// Holds the files.
    _dir: TempDir,
}

impl Bench {
    pub(super) async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let clock = Clock::system();
        let store = Store::open(dir.path(), clock.clone()).await.unwrap();
        let (tenant, subscription) = (Uuid::new_v4(), Uuid::new_v4());
        let tokens = TokenAuthority::new(&TokenAuthority::generate_key(), tenant, URL.to_owned(), clock.clone());
        let tokens = Arc::new(tokens.unwrap());
        let blob = Arc::new(BlobStore::open(&dir.path().join("blobs"), Secret::from("key"), clock.clone()).unwrap());
        let config = ApiConfig {
            url: URL.to_owned(),
            http_listen: None,
            region: "local".to_owned(),
            domain: "casemate.internal".to_owned(),
            tenant,
            subscription,
            cloud_name: "Casemate".to_owned(),
        };
        let state = ApiState {
            store: store.clone(),
            tokens: Arc::clone(&tokens),
            blob,
            logs: Arc::new(Logs),
            outbound: Arc::new(Decisions::default()),
            tags: Arc::default(),
            own_addresses: Arc::new(Vec::new),
            config,
            clock,
        };
        let mut bench = Self { store, subscription, tokens, router: router(state), token: String::new(), _dir: dir };
        bench.put_row("", json!({"location": "local", "properties": {}})).await;
        bench.workspace("ws", json!({})).await;
        bench.token = bench.principal(role::OWNER, "").await;
        bench
    }

    fn group(&self) -> String {
        format!("/subscriptions/{}/resourceGroups/rg", self.subscription)
    }

    /// A full id from a path below the workspace `ws`; one that starts with a slash is below the group.
    pub(super) fn id(&self, path: &str) -> ResourceId {
        let group = self.group();
        let workspaces = format!("{group}/providers/Microsoft.MachineLearningServices/workspaces");
        let text = match path {
            "" => group,
            path if path.starts_with("/ws") => format!("{workspaces}{path}"),
            path if path.starts_with('/') => format!("{group}{path}"),
            path => format!("{workspaces}/ws/{path}"),
        };
        ResourceId::parse(&text).unwrap()
    }

    pub(super) async fn put_row(&self, path: &str, body: Value) {
        self.put_id(&self.id(path), body).await;
    }

    async fn put_id(&self, id: &ResourceId, body: Value) {
        let mut tx = self.store.begin().await.unwrap();
        let author = Author { name: "test".to_owned(), kind: "Application".to_owned() };
        tx.resource_put(id, body, &Condition::None, &author).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Makes or changes a workspace.
    pub(super) async fn workspace(&self, name: &str, properties: Value) {
        let mut properties = properties;
        properties["storageAccount"] =
            format!("{}/providers/Microsoft.Storage/storageAccounts/acct", self.group()).into();
        let path = format!("/{name}");
        self.put_row(&path, json!({"location": "local", "properties": properties})).await;
    }

    /// A token of a new principal that has a role at a path.
    pub(super) async fn principal(&self, role: &str, scope: &str) -> String {
        let principal =
            Principal { object_id: Uuid::new_v4(), app_id: Uuid::new_v4(), display_name: "someone".to_owned() };
        let id = format!("/providers/Casemate.Identity/servicePrincipals/{}", principal.app_id);
        let body = json!({"properties": {"displayName": "someone", "appId": principal.app_id, "objectId": principal.object_id}});
        self.put_id(&ResourceId::parse(&id).unwrap(), body).await;
        let id = format!("{}/providers/Microsoft.Authorization/roleAssignments/{}", self.id(scope), Uuid::new_v4());
        let body = json!({"properties": {"principalId": principal.object_id, "roleDefinitionId": role}});
        self.put_id(&ResourceId::parse(&id).unwrap(), body).await;
        self.tokens.issue(&principal, URL).token.expose_str().unwrap().to_owned()
    }

    /// `line` is `METHOD path[?query]`, with the path as in [`Bench::id`].
    pub(super) async fn call(&self, line: &str, body: Value) -> Answer {
        self.call_as(&self.token, line, body).await
    }

    /// As [`Bench::call`], under a condition.
    pub(super) async fn call_if(&self, condition: (&str, String), line: &str, body: Value) -> Answer {
        let mut request = self.request(&self.token, line, body);
        let (name, value) = condition;
        request.headers_mut().insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        self.send(request).await
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.call(&format!("GET {path}"), Value::Null).await
    }

    pub(super) async fn call_as(&self, token: &str, line: &str, body: Value) -> Answer {
        self.send(self.request(token, line, body)).await
    }

    fn request(&self, token: &str, line: &str, body: Value) -> Request<Body> {
        let (method, rest) = line.split_once(' ').unwrap();
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let uri = if path.contains("://") {
            rest.to_owned()
        } else {
            let (group, workspaces) = (self.group(), "/providers/Microsoft.MachineLearningServices/workspaces");
            let base = if path.starts_with("/ws") { workspaces.to_owned() } else { format!("{workspaces}/ws/") };
            format!("{group}{base}{path}?api-version=2024-10-01&{query}").replace(' ', "%20")
        };
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(Body::from(bytes));
        request.unwrap()
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let headers = parts.headers.iter();
        let headers =
            headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned())).collect();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::String(text));
        Answer { status: parts.status.as_u16(), headers, body }
    }

    /// Puts a blob at `address?signature` as a storage client does.
    pub(super) async fn upload(&self, address: &str, file: &str, content: &str) -> u16 {
        let (address, query) = address.split_once('?').unwrap();
        let path = address.strip_prefix(URL).unwrap();
        let request = Request::builder()
            .method("PUT")
            .uri(format!("{path}/{file}?{query}"))
            .header("x-ms-blob-type", "BlockBlob")
            .body(Body::from(content.to_owned()));
        self.send(request.unwrap()).await.status
    }

    /// What the reconcilers do: everything pending for `path` succeeds.
    pub(super) async fn settle(&self, path: &str) {
        let id = self.id(path);
        let mut tx = self.store.begin().await.unwrap();
        let mut observed = Map::new();
        observed.insert("provisioningState".to_owned(), "Succeeded".into());
        tx.resource_observe(&id, observed).await.unwrap();
        for operation in tx.operations_pending().await.unwrap() {
            if operation.resource == id {
                tx.operation_finish(operation.id, OperationStatus::Succeeded, None).await.unwrap();
            }
        }
        tx.commit().await.unwrap();
    }

    /// Registers code (one file), an environment and a model; gives their ids.
    pub(super) async fn register_assets(&self) -> [String; 3] {
        let place = self.call("POST codes/code-1/versions/1/startPendingUpload", json!({})).await;
        assert_eq!(place.status, 200, "{}", place.body);
        let reference = &place.body["blobReferenceForConsumption"];
        let sas = reference["credential"]["sasUri"].as_str().unwrap();
        assert_eq!(self.upload(sas, "code/score.py", "def init(): pass").await, 201);
        assert_eq!(self.upload(sas, "code/inner/other.py", "").await, 201);
        let uri = format!("{}/code", reference["blobUri"].as_str().unwrap());
        let properties = json!({"codeUri": uri, "isAnonymous": true,
            "properties": {"hash_sha256": "abc", "hash_version": "202208"}});
        let code = self.call("PUT codes/code-1/versions/1", json!({"properties": properties})).await;
        assert_eq!(code.status, 201, "{}", code.body);

        let conda = "dependencies: [pip]";
        let environment = json!({"properties": {"condaFile": conda, "image": "mcr.example/base"}});
        let environment = self.call("PUT environments/env/versions/1", environment).await;
        assert_eq!(environment.status, 201, "{}", environment.body);

        self.upload_model("m", "one").await;
        let uri = "azureml://datastores/workspaceblobstore/paths/models/m/model.pkl";
        let model = self.call("PUT models/m/versions/1", json!({"properties": {"modelUri": uri}})).await;
        assert_eq!(model.status, 201, "{}", model.body);
        [code, environment, model].map(|answer| answer.body["id"].as_str().unwrap().to_owned())
    }

    /// Puts a file into the default datastore with its own secret.
    pub(super) async fn upload_model(&self, name: &str, content: &str) {
        let datastore = self.get("datastores/workspaceblobstore").await.body["properties"].clone();
        let secret = self.call("POST datastores/workspaceblobstore/listSecrets", json!({})).await;
        let sas = secret.body["sasToken"].as_str().unwrap();
        let text = |key: &str| datastore[key].as_str().unwrap().to_owned();
        let address = format!("https://{}.blob.{}/{}", text("accountName"), text("endpoint"), text("containerName"));
        let status = self.upload(&format!("{address}?{sas}"), &format!("models/{name}/model.pkl"), content).await;
        assert_eq!(status, 201);
    }

    /// An endpoint that has succeeded.
    pub(super) async fn endpoint(&self, name: &str) {
        let path = format!("onlineEndpoints/{name}");
        let made =
            self.call(&format!("PUT {path}"), json!({"location": "local", "properties": {"authMode": "Key"}})).await;
        assert_eq!(made.status, 201, "{}", made.body);
        self.settle(&path).await;
    }

    /// A deployment that has succeeded, without any asset.
    pub(super) async fn deployment(&self, endpoint: &str, name: &str) {
        let path = format!("onlineEndpoints/{endpoint}/deployments/{name}");
        let body = json!({"properties": {"endpointComputeType": "Managed"}});
        let made = self.call(&format!("PUT {path}"), body).await;
        assert_eq!(made.status, 201, "{}", made.body);
        self.settle(&path).await;
    }
}
