//! The instance metadata service at 169.254.169.254: tokens of the instance's own identity, and of nothing else.
//!
//! Two shapes of one question, so that Azure's SDKs find it by themselves: the one of virtual machines
//! (`/metadata/identity/oauth2/token`, guarded by `Metadata: true`) and the one of App Service (`/msi/token`, guarded by the
//! secret in IDENTITY_HEADER). A request that somebody has made the model send (a forged URL) has neither header; one that
//! passed a proxy carries `X-Forwarded-For` and is refused. Nothing else is told here.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use casemate_model::{Fault, FaultKind, Secret};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::Instant};

use crate::{attach::Sandbox, http, recorder::Event, stream::end_well};

/// Where the service is, inside every sandbox.
pub(crate) const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), 80);
/// How long issuing a token may take.
const PATIENCE: Duration = Duration::from_secs(10);
const IMDS_PATH: &str = "/metadata/identity/oauth2/token";
const APP_SERVICE_PATH: &str = "/msi/token";
/// Longest resource and client id, in bytes.
const MAX_PARAMETER: usize = 1024;

/// Who an instance is, as far as tokens go.
pub trait InstanceIdentity: Send + Sync {
    /// A token for `resource` (an audience such as `https://storage.azure.com/`). `client_id` is the identity that the
    /// model asked for, by client id, object id or resource id; none: the only one, or the system-assigned one. Called on
    /// a thread that may block.
    ///
    /// # Errors
    /// A fault whose message the model gets to read. `Unavailable`, `Internal` and `Quota` make clients try again;
    /// every other kind tells them that there is no such identity or resource.
    fn token(&self, resource: &str, client_id: Option<&str>) -> Result<IdentityToken, Fault>;

    /// The value of IDENTITY_HEADER that the instance was started with, random and its own; none: the App Service shape
    /// (IDENTITY_ENDPOINT=`http://169.254.169.254/msi/token`) is not offered.
    fn header(&self) -> Option<Secret> {
        None
    }
}

/// A token as an instance gets it.
#[derive(Debug, Clone)]
pub struct IdentityToken {
    /// The bearer token.
    pub token: Secret,
    /// When it ends.
    pub expires_at: Timestamp,
    /// The client id of the identity that it is of.
    pub client_id: String,
}

/// Which SDK the question is written for; errors differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    VirtualMachine,
    AppService,
}

/// A question that may be answered.
#[derive(Debug, PartialEq, Eq)]
struct Ask {
    shape: Shape,
    resource: String,
    client_id: Option<String>,
}

/// An answer: its status and body, and what the log says.
struct Reply {
    status: u16,
    body: Value,
    reason: String,
}

impl Shape {
    fn refuse(self, status: u16, error: &str, why: &str) -> Reply {
        let body = match self {
            Self::VirtualMachine => json!({ "error": error, "error_description": why }),
            Self::AppService => json!({ "statusCode": status, "message": why }),
        };
        Reply { status, body, reason: format!("No token was given ({status}). {why}") }
    }
}

/// Answers one request and ends the connection.
pub(crate) async fn serve(sandbox: &Sandbox, mut client: TcpStream) {
    let deadline = Instant::now() + sandbox.limits.hello_deadline;
    let reply = match http::plain(&mut client, deadline).await {
        Err(_) => return,
        Ok(Err(refusal)) => Shape::VirtualMachine.refuse(refusal.status, "invalid_request", &refusal.reason),
        Ok(Ok(head)) => match read(&head, sandbox.identity.as_deref().and_then(InstanceIdentity::header).as_ref()) {
            Err(reply) => reply,
            Ok(ask) => issue(sandbox, ask).await,
        },
    };
    sandbox.recorder.record(Event {
        address: Some(ADDRESS.ip()),
        port: ADDRESS.port(),
        protocol: "metadata",
        allowed: reply.status == 200,
        reason: reply.reason.clone(),
        ..Event::default()
    });
    http::send(&mut client, &reply.bytes()).await;
    end_well(&client);
}

impl Reply {
    fn bytes(&self) -> Vec<u8> {
        let title = match self.status {
            200 => "OK",
            401 => "Unauthorized",
            404 => "Not Found",
            405 => "Method Not Allowed",
            500.. => "Internal Server Error",
            _ => "Bad Request",
        };
        let body = self.body.to_string();
        format!(
            "HTTP/1.1 {} {title}\r\nContent-Type: application/json; charset=utf-8\r\nCache-Control: no-store\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.status,
            body.len()
        )
        .into_bytes()
    }
}

/// Reads a request's head as a question; `secret` is the instance's IDENTITY_HEADER.
fn read(head: &[u8], secret: Option<&Secret>) -> Result<Ask, Reply> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let complete = matches!(parsed.parse(head), Ok(httparse::Status::Complete(length)) if length == head.len());
    let (Some(method), Some(target), true) = (parsed.method, parsed.path, complete) else {
        return Err(Shape::VirtualMachine.refuse(400, "invalid_request", "The request is not HTTP/1.1."));
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let shape = match path.trim_end_matches('/') {
        IMDS_PATH => Shape::VirtualMachine,
        APP_SERVICE_PATH if secret.is_some() => Shape::AppService,
        _ => {
            let why =
                "There is nothing but tokens of this instance's identity here, at /metadata/identity/oauth2/token.";
            return Err(Shape::VirtualMachine.refuse(404, "not_found", why));
        }
    };
    let invalid = |why: &str| Err(shape.refuse(400, "invalid_request", why));
    if method != "GET" {
        return Err(shape.refuse(405, "invalid_request", "Tokens are asked for with GET."));
    }
    let header = |name: &str| parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    if header("x-forwarded-for").is_some() {
        return invalid("The request carries X-Forwarded-For. It must come from the instance itself, without a proxy.");
    }
    match (shape, secret) {
        (Shape::AppService, Some(secret)) => {
            if !header("x-identity-header").is_some_and(|given| same(given.value, secret.expose())) {
                let why = "The header X-IDENTITY-HEADER is not this instance's. Send the value of IDENTITY_HEADER.";
                return Err(shape.refuse(401, "invalid_request", why));
            }
        }
        _ => {
            if !header("metadata").is_some_and(|given| given.value.eq_ignore_ascii_case(b"true")) {
                return invalid("Required metadata header not specified. Send the header 'Metadata: true'.");
            }
        }
    }
    ask(shape, query)
}

fn ask(shape: Shape, query: &str) -> Result<Ask, Reply> {
    let parameters: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let value = |names: &[&str]| {
        let found = parameters.iter().find(|(name, _)| names.contains(&name.as_str()));
        found.map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    };
    let invalid = |why: &str| Err(shape.refuse(400, "invalid_request", why));
    if value(&["api-version"]).is_none() {
        return invalid(
            "The parameter api-version is missing. Send api-version=2018-02-01, or 2019-08-01 to IDENTITY_ENDPOINT.",
        );
    }
    let Some(resource) = value(&["resource"]) else {
        return invalid(
            "The parameter resource is missing. Send the audience of the token, such as https://storage.azure.com/.",
        );
    };
    let client_id = value(&["client_id", "clientid", "object_id", "principal_id", "msi_res_id", "mi_res_id"]);
    if resource.len() > MAX_PARAMETER || client_id.as_ref().is_some_and(|id| id.len() > MAX_PARAMETER) {
        return invalid("A parameter is too long.");
    }
    Ok(Ask { shape, resource, client_id })
}

async fn issue(sandbox: &Sandbox, ask: Ask) -> Reply {
    let Some(identity) = sandbox.identity.clone() else {
        let why = "Identity not found. Assign a managed identity to the endpoint.";
        return ask.shape.refuse(400, "invalid_request", why);
    };
    let busy = || ask.shape.refuse(500, "server_error", "The identity service did not answer in time. Try again.");
    let asked = (ask.resource.clone(), ask.client_id.clone());
    let issued = async {
        let permit = Arc::clone(&sandbox.tokens).acquire_owned().await.ok()?;
        let issue = move || {
            let _permit = permit;
            identity.token(&asked.0, asked.1.as_deref())
        };
        tokio::task::spawn_blocking(issue).await.ok()
    };
    let Ok(Some(issued)) = tokio::time::timeout(PATIENCE, issued).await else { return busy() };
    match issued {
        Ok(token) => given(&ask, &token, sandbox.clock.now()),
        Err(fault) => match fault.kind {
            FaultKind::Unavailable | FaultKind::Internal | FaultKind::Quota => {
                ask.shape.refuse(500, "server_error", &fault.message)
            }
            _ => ask.shape.refuse(400, "invalid_request", &fault.message),
        },
    }
}

/// Numbers are texts here, as the original has them.
fn given(ask: &Ask, token: &IdentityToken, now: Timestamp) -> Reply {
    let Ok(text) = token.token.expose_str() else {
        return ask.shape.refuse(500, "server_error", "The identity service gave no token. Try again.");
    };
    let expires_on = token.expires_at.as_second();
    let expires_in = (expires_on - now.as_second()).max(0).to_string();
    let body = match ask.shape {
        Shape::VirtualMachine => json!({
            "access_token": text,
            "client_id": token.client_id,
            "expires_in": expires_in,
            "expires_on": expires_on.to_string(),
            "ext_expires_in": expires_in,
            "not_before": now.as_second().to_string(),
            "resource": ask.resource,
            "token_type": "Bearer",
        }),
        Shape::AppService => json!({
            "access_token": text,
            "client_id": token.client_id,
            "expires_on": expires_on.to_string(),
            "resource": ask.resource,
            "token_type": "Bearer",
        }),
    };
    let reason = format!("A token of identity {} for {} was given.", token.client_id, ask.resource);
    Reply { status: 200, body, reason }
}

/// Compares in a time that does not tell where they differ.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |differ, (left, right)| differ | (left ^ right)) == 0
}
