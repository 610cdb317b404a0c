//! A thin client of the management API: HTTPS with the platform's own CA, tokens by client credentials, bounded retries
//! of what may safely be repeated, and waiting for long-running operations.
//!
//! It knows the protocol, not the resources: bodies go in and come out as JSON.

mod auth;
mod http;
mod poll;
mod vault;

use casemate_model::{Fault, FaultKind};
use reqwest::{
    Method,
    header::{CONTENT_TYPE, IF_MATCH},
};
use serde_json::Value;

use self::{auth::Tokens, poll::Reply};
pub use self::{
    auth::{AccessToken, Credential},
    http::{Answer, Http, Idempotence, MAX_RETRIES, Trace, UPLOAD_TIMEOUT, backoff},
    poll::{Observer, Pending, WaitLimits},
    vault::VaultClient,
};

/// Audience of tokens for scoring.
pub const AUDIENCE_ML: &str = "https://ml.azure.com";
/// Most pages of one list.
const MAX_PAGES: usize = 1000;

/// A signed-in client of one platform.
pub struct Client {
    http: Http,
    base: String,
    tokens: Tokens,
    ca_pem: Option<Vec<u8>>,
}

/// How a write was accepted.
#[derive(Debug)]
pub enum Accepted {
    /// It is done; the answer's body.
    Done(Value),
    /// It goes on; wait for it with [`Client::wait`].
    Running(Box<Pending>),
}

impl Client {
    /// A client for the platform at `url` (https, no path). Nothing is sent yet.
    ///
    /// # Errors
    /// `InvalidUrl`; `InvalidCaFile` when `ca_pem` holds no certificates.
    pub fn new(url: &str, ca_pem: Option<&[u8]>, credential: Credential) -> Result<Self, Fault> {
        let http = Http::new(url, ca_pem)?;
        let base = http.base().to_owned();
        Ok(Self { http, base: base.clone(), tokens: Tokens::new(base, credential), ca_pem: ca_pem.map(<[u8]>::to_vec) })
    }

    /// The same client, telling `trace` of every request.
    #[must_use]
    pub fn traced(mut self, trace: Trace) -> Self {
        self.http.set_trace(trace);
        self
    }

    /// The platform's address, without a trailing slash.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The connection itself, for calls that carry no token of the management API.
    #[must_use]
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// A token for an audience; the management API's own for none. Tokens are kept until shortly before they expire.
    ///
    /// # Errors
    /// What the issuer answers, such as an unknown client or a wrong secret.
    pub async fn token(&self, audience: Option<&str>) -> Result<AccessToken, Fault> {
        self.tokens.get(&self.http, audience.unwrap_or(&self.base)).await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Result<Answer, Fault> {
        let address = self.address(path)?;
        let safe = method != Method::POST && etag.is_none();
        let idempotence = if safe { Idempotence::Safe } else { Idempotence::Unsafe };
        let bytes = body.map(|body| body.to_string().into_bytes());
        for attempt in 0..2 {
            let token = self.token(None).await?;
            let answer = self
                .http
                .send(idempotence, || {
                    let mut request = token.authorize(self.http.request(method.clone(), address.clone()))?;
                    if let Some(etag) = etag {
                        request = request.header(IF_MATCH, etag);
                    }
                    if let Some(bytes) = &bytes {
                        request = request.header(CONTENT_TYPE, "application/json").body(bytes.clone());
                    }
                    Ok(request)
                })
                .await?;
            if answer.status != 401 || attempt == 1 {
                return Ok(answer);
            }
            // The platform may have been set up anew since the token was issued: get another, once.
            self.tokens.forget(&self.base).await;
        }
        Err(Fault::internal("A request was refused and not repeated."))
    }

    fn address(&self, path: &str) -> Result<reqwest::Url, Fault> {
        let text = if path.starts_with('/') { format!("{}{path}", self.base) } else { path.to_owned() };
        let address = reqwest::Url::parse(&text)
            .map_err(|error| Fault::internal(format!("The address '{text}' can't be read: {error}.")))?;
        // The token must not travel to another host because an answer says so.
        let base = reqwest::Url::parse(&self.base).map_err(|error| Fault::internal(error.to_string()))?;
        if address.origin() != base.origin() {
            return Err(Fault::internal(format!(
                "The server refers to another host than '{}': '{address}'. The request was not sent.",
                self.base
            )));
        }
        Ok(address)
    }

    /// GET.
    ///
    /// # Errors
    /// What the server answers.
    pub async fn get(&self, path: &str) -> Result<Value, Fault> {
        self.call(Method::GET, path, None, None).await?.check()
    }

    /// GET; none when there is no such resource.
    ///
    /// # Errors
    /// What the server answers, but for 404.
    pub async fn get_optional(&self, path: &str) -> Result<Option<Value>, Fault> {
        match self.get(path).await {
            Ok(value) => Ok(Some(value)),
            Err(fault) if fault.kind == FaultKind::NotFound => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// HEAD: whether it exists.
    ///
    /// # Errors
    /// What the server answers, but for 404.
    pub async fn exists(&self, path: &str) -> Result<bool, Fault> {
        let answer = self.call(Method::HEAD, path, None, None).await?;
        if answer.status == 404 {
            return Ok(false);
        }
        answer.check()?;
        Ok(true)
    }

    /// GET of a list with all its pages.
    ///
    /// # Errors
    /// What the server answers; `UnexpectedAnswer` when it is no list or has too many pages.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, Fault> {
        let mut items = Vec::new();
        let mut next = path.to_owned();
        for _ in 0..MAX_PAGES {
            let mut page = self.get(&next).await?;
            let Some(Value::Array(found)) = page.get_mut("value").map(Value::take) else {
                return Err(Fault::internal(format!("The server's answer to '{path}' is no list.")));
            };
            items.extend(found);
            match page.get("nextLink").and_then(Value::as_str) {
                Some(link) if !link.is_empty() => next = link.to_owned(),
                _ => return Ok(items),
            }
        }
        Err(Fault::internal(format!("The list '{path}' has more than {MAX_PAGES} pages.")))
    }

    /// POST that is answered at once.
    ///
    /// # Errors
    /// What the server answers.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, Fault> {
        self.call(Method::POST, path, Some(body), None).await?.check()
    }

    /// A write that may go on after its answer. With `etag` it happens only to the version that the caller has seen.
    ///
    /// # Errors
    /// What the server answers.
    pub async fn write(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
    ) -> Result<Accepted, Fault> {
        let is_put = method == Method::PUT || method == Method::PATCH;
        let answer = self.call(method, path, body, etag).await?;
        let body = answer.check()?;
        let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let pending = Pending {
            operation: header("azure-asyncoperation"),
            location: header("location"),
            resource: is_put.then(|| path.to_owned()),
            retry_after: answer.retry_after(),
        };
        // A 200 or 204 to a DELETE or POST, and any answer without a way to ask on, is final.
        let goes_on = pending.operation.is_some() || (answer.status == 202 && pending.location.is_some());
        Ok(if goes_on { Accepted::Running(Box::new(pending)) } else { Accepted::Done(body) })
    }

    /// Waits until a long-running operation ends; its resource or result. `observer` hears of every poll.
    ///
    /// # Errors
    /// The operation's own failure; `OperationTimedOut` when it does not end within the limits (it goes on).
    pub async fn wait(
        &self,
        pending: Pending,
        limits: WaitLimits,
        observer: &mut Observer<'_>,
    ) -> Result<Value, Fault> {
        poll::wait(self, pending, limits, observer).await
    }

    /// [`Self::write`] and [`Self::wait`].
    ///
    /// # Errors
    /// As those.
    pub async fn write_and_wait(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        etag: Option<&str>,
        observer: &mut Observer<'_>,
    ) -> Result<Value, Fault> {
        match self.write(method, path, body, etag).await? {
            Accepted::Done(value) => Ok(value),
            Accepted::Running(pending) => self.wait(*pending, WaitLimits::default(), observer).await,
        }
    }

    async fn poll_once(&self, path: &str) -> Result<Reply, Fault> {
        let answer = self.call(Method::GET, path, None, None).await?;
        let retry_after = answer.retry_after();
        Ok(Reply { status: answer.status, retry_after, body: answer.check()? })
    }
}
