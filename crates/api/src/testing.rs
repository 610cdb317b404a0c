//! A management API over real parts in a scratch directory, for tests and fuzzing.
#![expect(clippy::unwrap_used, reason = "built for tests and for fuzzing only")]
#![cfg_attr(not(test), allow(dead_code, reason = "fuzzing uses less of it than tests do"))]

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

use axum::{Router, body::Body};
use casemate_blob::BlobStore;
use casemate_identity::TokenAuthority;
use casemate_model::{
    Clock, ResourceId, Secret,
    egress::{LogEntry, ServiceTags},
};
use casemate_store::Store;
use http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{ApiConfig, ApiState, Bootstrap, DeploymentLogs, OutboundLog, bootstrap, router};

/// Where the test platform says it is.
pub(crate) const URL: &str = "https://127.0.0.1:8443";
const HOST: &str = "127.0.0.1:8443";

struct NoLogs;

impl DeploymentLogs for NoLogs {
    fn read(&self, _: &ResourceId, _: &str, _: usize) -> io::Result<String> {
        Ok(String::new())
    }
}

/// Decisions that a test writes; an entry's number is its place, from 1.
#[derive(Default)]
pub(crate) struct Decisions(pub(crate) Mutex<Vec<(ResourceId, LogEntry)>>);

impl OutboundLog for Decisions {
    fn read(
        &self,
        workspace: &ResourceId,
        denied: bool,
        after: Option<u64>,
        limit: usize,
    ) -> io::Result<(Vec<LogEntry>, u64)> {
        let all = self.0.lock().unwrap();
        let fits = |(_, (scope, entry)): &(usize, &(ResourceId, LogEntry))| {
            scope == workspace && (!denied || !entry.allowed || entry.would_deny)
        };
        let numbered = all.iter().enumerate().filter(fits).map(|(at, (_, entry))| (at as u64 + 1, entry.clone()));
        let mut found: Vec<(u64, LogEntry)> = numbered.filter(|(at, _)| *at > after.unwrap_or(0)).collect();
        match after {
            Some(_) => found.truncate(limit),
            None => drop(found.drain(..found.len().saturating_sub(limit))),
        }
        let next = found.last().map_or(after.unwrap_or(0), |(at, _)| *at);
        Ok((found.into_iter().map(|(_, entry)| entry).collect(), next))
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// Insists on a status; gives the body.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{:#}", self.body);
        self.body
    }

    /// Insists on an error's status and code; gives its message.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> String {
        assert_eq!(
            (self.status.as_u16(), self.body["error"]["code"].as_str()),
            (status, Some(code)),
            "{:#}",
            self.body
        );
        self.body["error"]["message"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// The platform's management side.
pub(crate) struct World {
    pub(crate) state: ApiState,
    pub(crate) bootstrap: Bootstrap,
    pub(crate) decisions: Arc<Decisions>,
    router: Router,
    token: String,
    seconds: Arc<AtomicI64>,
    _dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let seconds = Arc::new(AtomicI64::new(1_750_000_000));
        let read = Arc::clone(&seconds);
        let clock = Clock::from_fn(move || Timestamp::from_second(read.load(Ordering::Relaxed)).unwrap());
        let store = Store::open(dir.path(), clock.clone()).await.unwrap();
        let bootstrap = bootstrap(&store).await.unwrap();
        let settings = ResourceId::parse("/providers/Casemate.Platform/settings/platform").unwrap();
        let key = store.secret_get(&settings, "token-signing-key").await.unwrap().unwrap();
        let sas = store.secret_get(&settings, "sas-key").await.unwrap().unwrap();
        let tokens = TokenAuthority::new(&key, bootstrap.tenant, URL.to_owned(), clock.clone()).unwrap();
        let blob = BlobStore::open(&dir.path().join("blobs"), sas, clock.clone()).unwrap();
        let decisions = Arc::new(Decisions::default());
        let state = ApiState {
            store,
            tokens: Arc::new(tokens),
            blob: Arc::new(blob),
            logs: Arc::new(NoLogs),
            outbound: Arc::clone(&decisions) as Arc<dyn OutboundLog>,
            tags: Arc::new(ServiceTags::parse(r#"{"Corp": {"prefixes": ["10.1.0.0/16"]}}"#).unwrap()),
            own_addresses: Arc::new(|| vec!["192.168.7.7".parse().unwrap()]),
            config: ApiConfig {
                url: URL.to_owned(),
                http_listen: None,
                region: "local".to_owned(),
                domain: "casemate.internal".to_owned(),
                tenant: bootstrap.tenant,
                subscription: bootstrap.subscription,
                cloud_name: "Casemate".to_owned(),
            },
            clock,
        };
        let mut world = Self {
            router: router(state.clone()),
            state,
            bootstrap,
            decisions,
            token: String::new(),
            seconds,
            _dir: dir,
        };
        let secret = world.bootstrap.client_secret.clone().unwrap();
        world.token = world.sign_in(world.bootstrap.client_id.to_string(), &secret, URL).await;
        world
    }

    /// Moves the clock on.
    pub(crate) fn pass(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// A token of the real token endpoint.
    pub(crate) async fn sign_in(&self, client: impl AsRef<str>, secret: &Secret, audience: &str) -> String {
        let form = form(client.as_ref(), secret.expose_str().unwrap(), audience);
        let path = format!("/adfs/{}/oauth2/token", self.bootstrap.tenant);
        let granted = self.send(Method::POST, &path, &[], form).await.expect(200);
        granted["access_token"].as_str().unwrap().to_owned()
    }

    /// `/subscriptions/S` and what follows.
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/subscriptions/{}{rest}", self.bootstrap.subscription)
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, HOST);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// A request of any form with the owner's token.
    pub(crate) async fn send_as_owner(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let bearer = format!("Bearer {}", self.token);
        let all: Vec<(&str, &str)> = headers.iter().copied().chain([("authorization", bearer.as_str())]).collect();
        self.send(method, path, &all, body).await
    }

    /// A call with the owner's token; a null body is no body.
    pub(crate) async fn call(&self, method: &str, path: &str, body: Value) -> Answer {
        self.call_with(method, path, &[], body).await
    }

    /// As [`World::call`], with headers.
    pub(crate) async fn call_with(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.send_as_owner(method.parse().unwrap(), path, headers, body).await
    }

    /// A call with another token.
    pub(crate) async fn call_as(&self, token: &str, method: &str, path: &str, body: Value) -> Answer {
        let bearer = format!("Bearer {token}");
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.send(method.parse().unwrap(), path, &[("authorization", &bearer)], body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call("GET", path, Value::Null).await
    }

    /// A group, for what must lie in one.
    pub(crate) async fn group(&self, name: &str) -> String {
        let path = self.path(&format!("/resourceGroups/{name}"));
        self.call("PUT", &path, json!({"location": "local"})).await.expect(201);
        path
    }

    /// A workspace in a new group; gives its path.
    pub(crate) async fn workspace(&self, group: &str, name: &str) -> String {
        let group = self.group(group).await;
        let path = format!("{group}/providers/Microsoft.MachineLearningServices/workspaces/{name}");
        self.call("PUT", &path, json!({"location": "local"})).await.expect(200);
        path
    }

    /// A new service principal with a role at a scope; gives its token and its object id.
    pub(crate) async fn principal(&self, name: &str, role: &str, scope: &str) -> (String, String) {
        let path = format!("/providers/Casemate.Identity/servicePrincipals/{name}");
        let made = self.call("PUT", &path, Value::Null).await.expect(201);
        let text = |key: &str| made["properties"][key].as_str().unwrap().to_owned();
        let (app, object, secret) = (text("appId"), text("objectId"), Secret::from(text("clientSecret")));
        let assignment = format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{}", uuid::Uuid::new_v4());
        let body = json!({"properties": {"roleDefinitionId": role, "principalId": object}});
        self.call("PUT", &assignment, body).await.expect(201);
        (self.sign_in(app, &secret, URL).await, object)
    }
}

/// The body of a token request.
pub(crate) fn form(client: &str, secret: &str, audience: &str) -> String {
    url::form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "client_credentials")
        .append_pair("client_id", client)
        .append_pair("client_secret", secret)
        .append_pair("scope", &format!("{audience}/.default"))
        .finish()
}
