//! Plain requests to the management API and the token issuer, as any identity.

use std::{fs, time::Duration};

use anyhow::{Context, Result, ensure};
use reqwest::{Method, header::HeaderMap};
use serde_json::Value;

use crate::Platform;

/// The api-version that requests name.
const API_VERSION: &str = "2024-10-01";

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; a JSON string when it is no JSON, null when it is empty.
    pub body: Value,
}

impl Answer {
    /// The error's code and message, joined; empty when the body has another shape.
    #[must_use]
    pub fn error(&self) -> String {
        let part = |key: &str| self.body["error"][key].as_str().unwrap_or_default();
        format!("{} {}", part("code"), part("message")).trim().to_owned()
    }

    /// A header as text; empty when it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// An identity that can sign in.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Application id.
    pub app_id: String,
    /// Object id; empty for the platform's first identity, whose is not shown.
    pub object_id: String,
    /// Its secret.
    pub secret: String,
}

/// A client of one platform.
pub struct Rest {
    http: reqwest::Client,
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    tenant: String,
    /// `/subscriptions/GUID`.
    pub subscription: String,
    /// The identity that owns the subscription.
    pub owner: Identity,
}

impl Rest {
    /// A client that trusts the platform's root and nothing else.
    ///
    /// # Errors
    /// When the platform's variables or certificate can't be read.
    pub fn new(platform: &Platform) -> Result<Self> {
        let root = reqwest::Certificate::from_pem(&fs::read(platform.state().join("ca.pem"))?)?;
        // Idle connections of HTTP/1.1 end with the platform even while nothing here reads from them.
        let builder = reqwest::Client::builder().http1_only().tls_certs_only([root]);
        let http = builder.timeout(Duration::from_secs(60)).build()?;
        let variables = platform.env()?;
        let get =
            |name: &str| variables.get(name).cloned().with_context(|| format!("{name} is not in the environment"));
        Ok(Self {
            http,
            url: platform.url.clone(),
            tenant: get("AZURE_TENANT_ID")?,
            subscription: format!("/subscriptions/{}", get("AZURE_SUBSCRIPTION_ID")?),
            owner: Identity {
                app_id: get("AZURE_CLIENT_ID")?,
                object_id: String::new(),
                secret: get("AZURE_CLIENT_SECRET")?,
            },
        })
    }

    /// Signs in; `resource` is the audience, such as the platform's URL.
    ///
    /// # Errors
    /// When it is refused; the message holds the answer.
    pub async fn token(&self, identity: &Identity, resource: &str) -> Result<String> {
        let scope = format!("{resource}/.default");
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", &identity.app_id),
            ("client_secret", &identity.secret),
            ("scope", &scope),
        ];
        let encoded: Vec<String> = form
            .iter()
            .map(|(key, value)| format!("{key}={}", value.replace('+', "%2B").replace('&', "%26")))
            .collect();
        let uri = format!("{}/{}/oauth2/v2.0/token", self.url, self.tenant);
        let request = self.http.post(uri).header("content-type", "application/x-www-form-urlencoded");
        let answer = taken(request.body(encoded.join("&")).send().await?).await?;
        ensure!(answer.status == 200, "no token: {} {}", answer.status, answer.body);
        Ok(answer.body["access_token"].as_str().context("the answer holds a token")?.to_owned())
    }

    /// One request with this bearer token (none when it is empty); the path starts with `/`.
    ///
    /// # Errors
    /// When no answer arrives.
    pub async fn call(&self, token: &str, method: Method, path: &str, body: Option<&Value>) -> Result<Answer> {
        let mark = if path.contains('?') { '&' } else { '?' };
        let mut request = self.http.request(method, format!("{}{path}{mark}api-version={API_VERSION}", self.url));
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        taken(request.send().await?).await
    }

    /// A POST of raw bytes to any address of the platform, with further headers.
    ///
    /// # Errors
    /// When no answer arrives.
    pub async fn send(
        &self,
        method: Method,
        address: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Result<Answer> {
        let mut request = self.http.request(method, address).body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        taken(request.send().await?).await
    }
}

async fn taken(response: reqwest::Response) -> Result<Answer> {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await?;
    let body = match serde_json::from_str(&text) {
        Ok(body) => body,
        Err(_) if text.is_empty() => Value::Null,
        Err(_) => Value::String(text),
    };
    Ok(Answer { status, headers, body })
}
