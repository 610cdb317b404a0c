//! The front door: request ids, limits, and the way to metadata, tokens, blobs and resources.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use casemate_model::{Fault, FaultKind, inbound::Origin, vault as vault_model};
use futures_util::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header, request::Parts};
use http_body_util::BodyExt;
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    arm,
    call::{Call, Query, Target},
    certificates,
    context::{DirectoryCache, OpContext, Outcome},
    error::ApiError,
    inbound, metadata,
    state::ApiState,
    token::{self, Issuer},
    v1, vault,
};

/// The largest body of a management request, in bytes.
const MAX_BODY: usize = 4 << 20;
/// The largest body that is read to its end, to be refused, in bytes.
const MAX_DISCARDED: usize = 32 << 20;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest client request id that is sent back.
const MAX_CLIENT_ID: usize = 40;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
const CORRELATION_ID: HeaderName = HeaderName::from_static("x-ms-correlation-request-id");
const CLIENT_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");

/// The management API as a service.
pub fn router(state: ApiState) -> Router {
    let front = Arc::new(Front::new(state));
    Router::new().fallback(move |request: Request<Body>| {
        let front = Arc::clone(&front);
        async move { front.enter(request).await }
    })
}

struct Front {
    state: ApiState,
    directory: DirectoryCache,
    issuer: Issuer,
}

impl Front {
    fn new(state: ApiState) -> Self {
        Self { directory: DirectoryCache::new(state.store.clone()), issuer: Issuer::new(state.clock.clone()), state }
    }

    async fn enter(&self, request: Request<Body>) -> Response {
        let id = Uuid::new_v4();
        let correlation = guid_header(request.headers(), &CORRELATION_ID).unwrap_or(id);
        let client = request.headers().get(&CLIENT_ID).and_then(cut);
        let span = tracing::info_span!("request", %id, method = %request.method(), path = %request.uri().path());
        let handled = AssertUnwindSafe(self.route(request, id)).catch_unwind().instrument(span).await;
        let mut response = match handled {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => error.into_response(),
            Err(_) => {
                tracing::error!(%id, "a handler panicked");
                let message = format!("The platform failed to handle the request; its log names the request id {id}.");
                ApiError::from(Fault::internal(message)).into_response()
            }
        };
        let headers = response.headers_mut();
        let guid = |id: Uuid| HeaderValue::from_str(&id.to_string()).ok();
        headers.extend(guid(id).map(|value| (REQUEST_ID, value)));
        headers.extend(guid(correlation).map(|value| (CORRELATION_ID, value)));
        headers.extend(client.map(|value| (CLIENT_ID, value)));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache"));
        response
    }

    async fn route(&self, request: Request<Body>, id: Uuid) -> Outcome {
        let base = base_url(&request).unwrap_or_else(|| self.state.config.url.clone());
        let origin = inbound::origin(&request);
        let request = with_account(request, &self.state.config.storage_suffix());
        let path = request.uri().path();
        if is_blob_path(path) {
            if let Some(refusal) = self.directory.get().await?.ways.refuse_blob(&origin, path) {
                return Ok(refusal);
            }
            return Ok(self.state.blob.handle(request).await.map(Body::new));
        }
        if let Some(name) = vault_model::of_host(host_of(&base), &self.state.config.domain) {
            let directory = self.directory.get().await?;
            let asked = vault::Asked { vault: &name, base: &base, origin, id };
            return vault::enter(&self.state, directory, asked, request).await;
        }
        if is_service_host(&base, &self.state.config.domain) {
            let message = format!("There is nothing at '{}'; images are kept elsewhere.", host_of(&base));
            return Err(Fault::not_found("NotFound", message).into());
        }
        inbound::check_management(&origin)?;
        let query = Query::parse(request.uri().query().unwrap_or_default());
        if path.trim_end_matches('/').eq_ignore_ascii_case("/metadata/endpoints") {
            return Ok(metadata::answer(&self.state.config, &base, &query));
        }
        if v1::discovery::is_asked(request.method(), path) {
            return Ok(v1::discovery::answer(&base));
        }
        if let Some(route) = token::Route::parse(path) {
            let directory = self.directory.get().await?;
            let (parts, body) = request.into_parts();
            let body = read_body(&parts, body).await?;
            let asked = token::Asked { parts: &parts, query: &query, body: &body, base: &base };
            return Ok(self.issuer.answer(&self.state, &directory, route, &asked).await);
        }
        let ctx = self.authenticate(request.headers(), id, base, origin).await?;
        if request.method() == Method::GET && path == "/metrics" {
            return certificates::metrics(&ctx, &self.state).await;
        }
        match v1::Door::of(path) {
            Some(door) => Ok(v1::shaped(self.handle(&ctx, request, query, Some(door)).await)),
            None => self.handle(&ctx, request, query, None).await,
        }
    }

    /// Reads the rest of a request of a known caller and hands it to its family, by way of `door` when it is one of the
    /// first generation of the SDK.
    async fn handle(&self, ctx: &OpContext, request: Request<Body>, query: Query, door: Option<v1::Door>) -> Outcome {
        let (parts, body) = request.into_parts();
        let (target, rest) = match door {
            Some(door) => door.parse(&parts.method, parts.uri.path())?,
            None => (Target::parse(&parts.method, parts.uri.path())?, Vec::new()),
        };
        let body = if parts.method == Method::GET || parts.method == Method::HEAD {
            Bytes::new()
        } else {
            read_body(&parts, body).await?
        };
        let call = Call { method: parts.method, target, query, headers: parts.headers, body };
        match door {
            Some(door) => v1::dispatch(ctx, &self.state, door, call, rest).await,
            None => arm::dispatch(ctx, &self.state, &call).await,
        }
    }

    /// Who asks, from the bearer token.
    async fn authenticate(
        &self,
        headers: &HeaderMap,
        id: Uuid,
        base: String,
        origin: Origin,
    ) -> Result<OpContext, ApiError> {
        let challenge = |fault: Fault, error: Option<&str>| {
            let mut value = format!("Bearer authorization_uri=\"{base}/adfs/{}\"", self.state.config.tenant);
            if let Some(error) = error {
                let description: String =
                    fault.message.chars().filter(|c| c.is_ascii() && !c.is_ascii_control() && *c != '"').collect();
                value.push_str(&format!(", error=\"{error}\", error_description=\"{description}\""));
            }
            ApiError::from(fault).with_header(header::WWW_AUTHENTICATE, &value)
        };
        let unauthenticated = |code: &str, message: String| Fault::new(FaultKind::Unauthenticated, code, message);
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            let message = "Authentication failed. The 'Authorization' header is missing. Sign in (casemate login, or a \
                           credential of the SDK) and send 'Authorization: Bearer TOKEN'.";
            return Err(challenge(unauthenticated("AuthenticationFailed", message.to_owned()), None));
        };
        let scheme_and_token = value.to_str().ok().and_then(|value| value.trim().split_once(' '));
        let Some((_, token)) = scheme_and_token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
            let message = "Authentication failed. The 'Authorization' header is provided in an invalid format; send \
                           'Bearer TOKEN'.";
            let fault = unauthenticated("AuthenticationFailedInvalidHeader", message.to_owned());
            return Err(challenge(fault, Some("invalid_token")));
        };
        let checked = self.state.tokens.check(token.trim(), &[&self.state.config.url]);
        let claims = checked.map_err(|error| challenge(Fault::from(error), Some("invalid_token")))?;
        let directory = self.directory.get().await?;
        let Some(principal) = directory.principal(claims.principal.app_id).cloned() else {
            let message = format!(
                "The token was issued to the application {}, which does not exist any more. Sign in with another.",
                claims.principal.app_id
            );
            return Err(challenge(unauthenticated("InvalidAuthenticationToken", message), Some("invalid_token")));
        };
        Ok(OpContext::new(principal, id, base.clone(), origin, directory))
    }
}

/// `/ACCOUNT.blob.SUFFIX/…`: what a blob client makes of an account name that ends in a path.
fn is_blob_path(path: &str) -> bool {
    path.trim_start_matches('/').split('/').next().is_some_and(|first| first.contains(".blob."))
}

/// A request to the host `ACCOUNT.blob.SUFFIX`, which private endpoints and sandboxes have names for, in the form that
/// names the account in the path.
fn with_account(mut request: Request<Body>, suffix: &str) -> Request<Body> {
    let Some(base) = base_url(&request) else { return request };
    let host = host_of(&base);
    let account = [suffix, vault_model::PUBLIC_STORAGE_SUFFIX].into_iter().find_map(|suffix| host.strip_suffix(suffix));
    let account = account.and_then(|account| account.strip_suffix(".blob."));
    if account.is_none_or(|account| account.is_empty() || account.contains('.')) {
        return request;
    }
    let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    if let Ok(path) = http::Uri::try_from(format!("/{host}{path}")) {
        *request.uri_mut() = path;
    }
    request
}

/// The host in a base, without port and the root's dot.
fn host_of(base: &str) -> &str {
    let host = base.trim_start_matches("https://").split(':').next().unwrap_or_default();
    host.strip_suffix('.').unwrap_or(host)
}

/// Whether the host is one of a service of the platform other than its management: `NAME.vault.DOMAIN` and so on. A
/// deployment may be let through to these, and to nothing else of the platform.
fn is_service_host(base: &str, domain: &str) -> bool {
    let outside = |service: &str| host_of(base).strip_suffix(domain).is_some_and(|host| host.ends_with(service));
    [".blob.core.", ".vault.", ".registry."].into_iter().any(outside)
}

fn guid_header(headers: &HeaderMap, name: &HeaderName) -> Option<Uuid> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// The client's own id, cut to what is sent back.
fn cut(value: &HeaderValue) -> Option<HeaderValue> {
    let bytes = value.as_bytes();
    HeaderValue::from_bytes(&bytes[..bytes.len().min(MAX_CLIENT_ID)]).ok()
}

/// How the client reached the platform: the host it named, if that is a plain host and port.
fn base_url(request: &Request<Body>) -> Option<String> {
    let named = request.uri().authority().map(http::uri::Authority::as_str);
    let host = named.or_else(|| request.headers().get(header::HOST)?.to_str().ok())?;
    let plain =
        !host.is_empty() && host.len() <= 255 && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c));
    plain.then(|| format!("https://{}", host.to_ascii_lowercase()))
}

pub(crate) async fn read_body(parts: &Parts, body: Body) -> Result<Bytes, Fault> {
    let too_large = || {
        let message = format!("The request's body is larger than {} MiB; send less.", MAX_BODY >> 20);
        Fault::new(FaultKind::TooLarge, "RequestContentTooLarge", message)
    };
    let length = parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let asks_first = parts.headers.contains_key(header::EXPECT);
    if length.is_some_and(|length| length > MAX_DISCARDED || (length > MAX_BODY && asks_first)) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, collect(body)).await {
        Ok(Ok(Some(body))) => Ok(body),
        Ok(Ok(None)) => Err(too_large()),
        Ok(Err(_)) => {
            Err(Fault::invalid("IncompleteBody", "The request's body ended before it was complete; send it again."))
        }
        Err(_) => {
            Err(Fault::invalid("IncompleteBody", "The request's body did not arrive within 60 seconds; send it again."))
        }
    }
}

/// The whole body; none when it is too large. Of such a body a bounded rest is read and thrown away first: most clients
/// look for an answer only when they have sent everything, and would see a broken connection instead of the reason.
async fn collect(mut body: Body) -> Result<Option<Bytes>, axum::Error> {
    let (mut kept, mut seen) = (BytesMut::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        seen += data.len();
        if seen <= MAX_BODY {
            kept.extend_from_slice(&data);
        } else if seen <= MAX_DISCARDED {
            kept = BytesMut::new();
        } else {
            break;
        }
    }
    Ok((seen <= MAX_BODY).then(|| kept.freeze()))
}
