//! Tokens by client credentials.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use casemate_model::{Fault, FaultKind, Secret};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, RequestBuilder, Url, header::CONTENT_TYPE};
use serde_json::Value;
use tokio::sync::Mutex;

use super::http::{Http, Idempotence};

/// What may not stand as it is in a part of a path or in a form.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// A token is replaced this long before it expires.
const MARGIN: Duration = Duration::from_secs(120);

/// Who signs in.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The tenant's GUID.
    pub tenant: String,
    /// The service principal's application id.
    pub client_id: String,
    /// Its secret.
    pub client_secret: Secret,
}

/// A token and when it expires.
#[derive(Debug, Clone)]
pub struct AccessToken {
    /// The token.
    pub secret: Secret,
    /// When it expires.
    pub expires_at: Timestamp,
    use_until: Instant,
}

impl AccessToken {
    /// Adds it to a request.
    ///
    /// # Errors
    /// When the token is no text.
    pub fn authorize(&self, request: RequestBuilder) -> Result<RequestBuilder, Fault> {
        let text = self.secret.expose_str().map_err(|_| Fault::internal("The token is no text."))?;
        Ok(request.bearer_auth(text))
    }

    /// The object id of whom it was issued to, as the token says it.
    ///
    /// # Errors
    /// When the token is none that can be read.
    pub fn object_id(&self) -> Result<String, Fault> {
        let read = || {
            let payload = self.secret.expose_str().ok()?.split('.').nth(1)?.to_owned();
            let payload: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
            Some(payload["oid"].as_str()?.to_owned())
        };
        read().ok_or_else(|| Fault::internal("The token doesn't say whom it was issued to."))
    }
}

/// The tokens of one credential, by audience.
pub(super) struct Tokens {
    base: String,
    credential: Credential,
    kept: Mutex<HashMap<String, AccessToken>>,
}

impl Tokens {
    pub(super) fn new(base: String, credential: Credential) -> Self {
        Self { base, credential, kept: Mutex::default() }
    }

    pub(super) async fn forget(&self, audience: &str) {
        self.kept.lock().await.remove(audience);
    }

    pub(super) async fn get(&self, http: &Http, audience: &str) -> Result<AccessToken, Fault> {
        let mut kept = self.kept.lock().await;
        if let Some(token) = kept.get(audience)
            && token.use_until > Instant::now()
        {
            return Ok(token.clone());
        }
        let token = self.request(http, audience).await?;
        kept.insert(audience.to_owned(), token.clone());
        Ok(token)
    }

    async fn request(&self, http: &Http, audience: &str) -> Result<AccessToken, Fault> {
        let escape = |text: &str| utf8_percent_encode(text, RESERVED).to_string();
        let address = format!("{}/{}/oauth2/v2.0/token", self.base, escape(&self.credential.tenant));
        let address = Url::parse(&address).map_err(|error| Fault::internal(error.to_string()))?;
        let secret = self
            .credential
            .client_secret
            .expose_str()
            .map_err(|_| Fault::invalid("InvalidClientSecret", "The client secret is no text."))?;
        let scope = format!("{}/.default", audience.trim_end_matches('/'));
        let form = Secret::from(format!(
            "grant_type=client_credentials&client_id={}&client_secret={}&scope={}",
            escape(&self.credential.client_id),
            escape(secret),
            escape(&scope)
        ));
        let answer = http
            .send(Idempotence::Safe, || {
                Ok(http
                    .request(Method::POST, address.clone())
                    .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .body(form.expose().to_vec()))
            })
            .await?;
        let parsed: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        if answer.status != 200 {
            return Err(refused(&self.credential.client_id, answer.status, &parsed));
        }
        let lifetime =
            parsed.get("expires_in").and_then(|value| value.as_u64().or_else(|| value.as_str()?.parse().ok()));
        let (Some(secret), Some(lifetime)) = (parsed.get("access_token").and_then(Value::as_str), lifetime) else {
            return Err(Fault::internal("The answer of the token issuer has no 'access_token' and 'expires_in'."));
        };
        let lifetime = Duration::from_secs(lifetime.min(86_400));
        Ok(AccessToken {
            secret: Secret::from(secret),
            expires_at: Timestamp::now() + lifetime,
            use_until: Instant::now() + lifetime.saturating_sub(MARGIN),
        })
    }
}

/// The issuer's refusal has the shape of OAuth, not the management API's.
fn refused(client_id: &str, status: u16, body: &Value) -> Fault {
    let text = |key: &str| body.get(key).and_then(Value::as_str);
    let said =
        text("error_description").or_else(|| body.pointer("/error/message")?.as_str()).unwrap_or("it gives no reason");
    // The description's tail (trace id, timestamp) says nothing to a user.
    let said = said.split(" Trace ID:").next().unwrap_or(said);
    let kind = if status == 429 || status >= 500 { FaultKind::Unavailable } else { FaultKind::Unauthenticated };
    let code = text("error").unwrap_or("SignInFailed");
    Fault::new(kind, code, format!("The sign-in of '{client_id}' was refused: {said}"))
}
