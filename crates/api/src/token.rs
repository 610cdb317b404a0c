//! The token issuer: discovery documents, keys, client credentials, and the managed-identity endpoint.
//!
//! It refuses every grant but client credentials, and it has no endpoint that gives tokens without a secret.

mod throttle;

use std::sync::Arc;

use axum::response::Response;
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::Bytes;
use casemate_identity::{AUDIENCE_ML, Issued, Principal, secret_matches};
use casemate_model::{Clock, Fault, ResourceId, Secret, vault::AUDIENCE_VAULT};
use http::{HeaderValue, Method, StatusCode, header, request::Parts};
use serde_json::{Value, json};
use uuid::Uuid;

use self::throttle::Throttle;
use crate::{call::Query, context::Directory, metadata::derived_ml_audience, respond, state::ApiState, vault};

/// The name under which a principal's secret digest is kept.
pub(crate) const SECRET_DIGEST: &str = "clientSecretDigest";

/// A path of the issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    adfs: bool,
    tenant: Option<String>,
    wanted: Wanted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Discovery { v2: bool },
    Token,
    Keys,
    ManagedIdentity,
}

impl Route {
    /// Reads `[/adfs[/TENANT]][/TENANT]/…`; none for paths that are not the issuer's. Clients put the tenant they sign in to
    /// behind an authority that holds one already.
    pub(crate) fn parse(path: &str) -> Option<Self> {
        let lower = path.trim_matches('/').to_ascii_lowercase();
        let mut parts: Vec<&str> = lower.split('/').collect();
        if parts == ["msi", "token"] {
            return Some(Self { adfs: false, tenant: None, wanted: Wanted::ManagedIdentity });
        }
        let adfs = parts.first() == Some(&"adfs");
        parts.drain(..usize::from(adfs));
        let is_end = |part: &str| matches!(part, ".well-known" | "v2.0" | "oauth2" | "discovery");
        let tenant = parts.first().filter(|part| !is_end(part)).map(|part| (*part).to_owned());
        parts.drain(..usize::from(tenant.is_some()));
        let again =
            parts.first().filter(|part| adfs && tenant.is_some() && !is_end(part)).map(|part| (*part).to_owned());
        parts.drain(..usize::from(again.is_some()));
        let tenant = again.or(tenant);
        let wanted = match parts.as_slice() {
            [".well-known", "openid-configuration"] => Wanted::Discovery { v2: false },
            ["v2.0", ".well-known", "openid-configuration"] => Wanted::Discovery { v2: true },
            ["oauth2", "token"] | ["oauth2", "v2.0", "token"] => Wanted::Token,
            ["discovery", "keys"] | ["discovery", "v2.0", "keys"] => Wanted::Keys,
            _ => return None,
        };
        Some(Self { adfs, tenant, wanted })
    }
}

/// One request to the issuer.
pub(crate) struct Asked<'a> {
    pub(crate) parts: &'a Parts,
    pub(crate) query: &'a Query,
    pub(crate) body: &'a Bytes,
    pub(crate) base: &'a str,
}

/// Answers token requests and counts failures.
pub(crate) struct Issuer {
    clock: Clock,
    throttle: Throttle,
}

/// A refusal in the shape of OAuth.
struct Refusal {
    status: StatusCode,
    error: &'static str,
    number: u32,
    description: String,
}

impl Refusal {
    fn new(status: u16, error: &'static str, number: u32, description: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        Self { status, error, number, description: description.into() }
    }
}

impl Issuer {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { throttle: Throttle::new(clock.clone()), clock }
    }

    pub(crate) async fn answer(
        &self,
        state: &ApiState,
        directory: &Arc<Directory>,
        route: Route,
        asked: &Asked<'_>,
    ) -> Response {
        let outcome = match (route.wanted, &asked.parts.method) {
            (Wanted::Discovery { v2 }, &Method::GET) => discovery(state, &route, v2, asked),
            (Wanted::Keys, &Method::GET) => Ok(respond::ok(&state.tokens.jwks())),
            (Wanted::Token, &Method::POST) => self.client_credentials(state, directory, &route, asked).await,
            (Wanted::ManagedIdentity, &Method::GET) => self.managed_identity(state, directory, asked).await,
            (_, method) => Err(Refusal::new(
                405,
                "invalid_request",
                900_561,
                format!("The endpoint does not accept {method} requests."),
            )),
        };
        outcome.unwrap_or_else(|refusal| self.refuse(&refusal))
    }

    fn refuse(&self, refusal: &Refusal) -> Response {
        let trace = Uuid::new_v4().to_string();
        let now = self.clock.now().strftime("%Y-%m-%d %H:%M:%SZ").to_string();
        let description =
            format!("AADSTS{}: {} Trace ID: {trace} Timestamp: {now}", refusal.number, refusal.description);
        let mut response = respond::json(
            refusal.status,
            &json!({
                "error": refusal.error,
                "error_description": description,
                "error_codes": [refusal.number],
                "timestamp": now,
                "trace_id": trace,
                "correlation_id": trace,
            }),
        );
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if refusal.status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
        }
        response
    }

    async fn client_credentials(
        &self,
        state: &ApiState,
        directory: &Arc<Directory>,
        route: &Route,
        asked: &Asked<'_>,
    ) -> Result<Response, Refusal> {
        check_tenant(state, route)?;
        let form = Query::parse(&String::from_utf8_lossy(asked.body));
        match form.get("grant_type") {
            Some("client_credentials") => {}
            None => return Err(missing("grant_type")),
            Some(other) => {
                let shown: String = other.chars().take(60).collect();
                let message = format!(
                    "The app requested an unsupported grant type '{shown}'. Only client_credentials is supported."
                );
                return Err(Refusal::new(400, "unsupported_grant_type", 70_003, message));
            }
        }
        if form.get("client_assertion").is_some() {
            let message = "Client assertions (certificates) are not supported. Use a client secret.";
            return Err(Refusal::new(401, "invalid_client", 700_027, message));
        }
        let basic = basic_credentials(asked.parts);
        let (client, secret) = match (&basic, form.get("client_id"), form.get("client_secret")) {
            (Some((client, secret)), ..) => (client.as_str(), Secret::from(secret.as_str())),
            (None, Some(client), Some(secret)) => (client, Secret::from(secret)),
            (None, None, _) => return Err(missing("client_id")),
            (None, _, None) => {
                let message = "The request body must contain the following parameter: 'client_secret'.";
                return Err(Refusal::new(401, "invalid_client", 7_000_218, message));
            }
        };
        let resource = wanted_resource(&form)?;
        let audience = audience(state, asked.base, &resource)?;
        let principal = self.sign_in(state, directory, client, &secret).await?;
        let issued = state.tokens.issue(&principal, &audience);
        Ok(granted(&issued, &resource, self.clock.now().as_second()))
    }

    /// The App Service shape of a managed identity: `X-IDENTITY-HEADER: APPID:SECRET`.
    async fn managed_identity(
        &self,
        state: &ApiState,
        directory: &Arc<Directory>,
        asked: &Asked<'_>,
    ) -> Result<Response, Refusal> {
        let header = asked.parts.headers.get("x-identity-header").and_then(|value| value.to_str().ok());
        let Some((client, secret)) = header.and_then(|header| header.split_once(':')) else {
            let message = "The header X-IDENTITY-HEADER must hold 'APPID:SECRET' of a service principal.";
            return Err(Refusal::new(401, "invalid_client", 7_000_218, message));
        };
        let resource = asked.query.get("resource").ok_or_else(|| missing("resource"))?.to_owned();
        let audience = audience(state, asked.base, &resource)?;
        let principal = self.sign_in(state, directory, client, &Secret::from(secret)).await?;
        let issued = state.tokens.issue(&principal, &audience);
        Ok(granted(&issued, &resource, self.clock.now().as_second()))
    }

    async fn sign_in(
        &self,
        state: &ApiState,
        directory: &Arc<Directory>,
        client: &str,
        secret: &Secret,
    ) -> Result<Principal, Refusal> {
        let tenant = state.config.tenant;
        let shown: String = client.chars().take(60).collect();
        let unknown = || {
            let message = format!(
                "Application with identifier '{shown}' was not found in the directory '{tenant}'. Check the client id; \
                 `casemate env` prints the one of this platform."
            );
            Refusal::new(400, "unauthorized_client", 700_016, message)
        };
        let app_id: Uuid = client.trim().parse().map_err(|_| unknown())?;
        let principal = directory.principal(app_id).ok_or_else(unknown)?;
        let id = principal_id(app_id);
        let digest = state.store.secret_get(&id, SECRET_DIGEST).await.map_err(|error| {
            let fault = Fault::from(error);
            Refusal::new(503, "temporarily_unavailable", 90_033, fault.message)
        })?;
        if digest.is_some_and(|digest| secret_matches(secret.expose(), &digest)) {
            return Ok(principal.clone());
        }
        if !self.throttle.may_try(app_id) {
            let message = format!("There were too many wrong secrets for the application '{app_id}'. Wait 10 seconds.");
            return Err(Refusal::new(429, "temporarily_unavailable", 50_196, message));
        }
        self.throttle.failed(app_id);
        let message = format!(
            "Invalid client secret provided for the application '{app_id}'. Ensure that the secret being sent is the \
             secret's value as it was shown when the service principal was made."
        );
        Err(Refusal::new(401, "invalid_client", 7_000_215, message))
    }
}

/// The id of a service principal.
pub(crate) fn principal_id(app_id: Uuid) -> ResourceId {
    ResourceId::parse(&format!("/providers/Casemate.Identity/servicePrincipals/{app_id}"))
        .expect("a GUID makes a valid id")
}

fn missing(parameter: &str) -> Refusal {
    let message = format!("The request body must contain the following parameter: '{parameter}'.");
    Refusal::new(400, "invalid_request", 900_144, message)
}

fn check_tenant(state: &ApiState, route: &Route) -> Result<(), Refusal> {
    let own = state.config.tenant.to_string();
    match route.tenant.as_deref() {
        None if route.adfs => Ok(()),
        Some(tenant) if tenant == own || matches!(tenant, "common" | "organizations" | "adfs") => Ok(()),
        other => {
            let shown: String = other.unwrap_or_default().chars().take(60).collect();
            let message = format!("Tenant '{shown}' not found. This platform's tenant is '{own}'.");
            Err(Refusal::new(400, "invalid_request", 90_002, message))
        }
    }
}

fn discovery(state: &ApiState, route: &Route, v2: bool, asked: &Asked<'_>) -> Result<Response, Refusal> {
    check_tenant(state, route)?;
    let mut authority = asked.base.to_owned();
    if route.adfs {
        authority.push_str("/adfs");
    }
    if let Some(tenant) = &route.tenant {
        authority.push('/');
        authority.push_str(tenant);
    }
    Ok(respond::ok(&state.tokens.discovery(&authority, route.adfs && !v2)))
}

fn basic_credentials(parts: &Parts) -> Option<(String, String)> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    let decoded = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(encoded.trim()).ok())??;
    let text = String::from_utf8(decoded).ok()?;
    let (client, secret) = text.split_once(':')?;
    // Both are form-encoded before they are joined (RFC 6749, 2.3.1).
    let plain =
        |part: &str| percent_encoding::percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
    Some((plain(client), plain(secret)))
}

/// The resource that a token is wanted for: `resource`, or the one scope without its permission.
fn wanted_resource(form: &Query) -> Result<String, Refusal> {
    if let Some(resource) = form.get("resource") {
        return Ok(resource.to_owned());
    }
    let scope = form.get("scope").ok_or_else(|| missing("scope"))?;
    let real: Vec<&str> =
        scope.split_whitespace().filter(|part| !matches!(*part, "openid" | "profile" | "offline_access")).collect();
    match real.as_slice() {
        [one] if one.ends_with("/.default") => Ok(one.trim_end_matches("/.default").to_owned()),
        _ => {
            let shown: String = scope.chars().take(200).collect();
            let message = format!(
                "The provided request must include a 'scope' input parameter of one resource followed by '/.default'. \
                 The scope '{shown}' is not valid."
            );
            Err(Refusal::new(400, "invalid_scope", 70_011, message))
        }
    }
}

/// The audience that a token for `resource` gets. The management API has several names (each host that it is reached
/// by), the data plane has its own and the one that the SDK derives from the portal's name.
fn audience(state: &ApiState, base: &str, resource: &str) -> Result<String, Refusal> {
    let own = &state.config.url;
    let wanted = resource.trim_end_matches('/').to_ascii_lowercase();
    if wanted == own.to_ascii_lowercase() || wanted == base {
        return Ok(own.clone());
    }
    let is_ml = |name: &str| wanted == name.trim_end_matches('/').to_ascii_lowercase();
    if is_ml(AUDIENCE_ML) || is_ml(&derived_ml_audience(base)) || is_ml(&derived_ml_audience(own)) {
        return Ok(AUDIENCE_ML.to_owned());
    }
    if vault::is_audience(&wanted, &state.config.domain) {
        return Ok(AUDIENCE_VAULT.to_owned());
    }
    let shown: String = resource.chars().take(200).collect();
    let message = format!(
        "The resource principal named '{shown}' was not found in the tenant '{}'. Tokens are given for '{own}' (the \
         management API), '{AUDIENCE_ML}' (scoring and the data plane) and '{AUDIENCE_VAULT}' (the secrets of vaults).",
        state.config.tenant
    );
    Err(Refusal::new(400, "invalid_resource", 500_011, message))
}

fn granted(issued: &Issued, resource: &str, now: i64) -> Response {
    let token = issued.token.expose_str().expect("a JSON Web Token is ASCII");
    let seconds = issued.expires_in.as_secs();
    let body: Value = json!({
        "token_type": "Bearer",
        "expires_in": seconds,
        "ext_expires_in": seconds,
        "expires_on": issued.expires_at.as_second().to_string(),
        "not_before": now.to_string(),
        "resource": resource,
        "access_token": token,
    });
    let mut response = respond::ok(&body);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
