//! The secrets of a vault: another host, and tokens of another audience, behind the same front door.

use std::{net::SocketAddr, time::Duration};

use casemate_model::{Fault, vault::AUDIENCE_VAULT};
use reqwest::{Method, Url, header::CONTENT_TYPE};
use serde_json::Value;

use super::{Client, Http, Idempotence};

/// How long the vault's name may take to be looked up.
const LOOKUP: Duration = Duration::from_secs(3);

/// One vault, of which the client knows where it is.
pub struct VaultClient<'a> {
    client: &'a Client,
    http: Http,
}

impl Client {
    /// The vault at this address, as its `vaultUri` says it. Where its name leads nowhere, it is called at the platform's
    /// own address, where it is served as well; its certificate must be for its name in any case.
    ///
    /// # Errors
    /// `InvalidUrl`; `PlatformNotReachable` when the platform's own name leads nowhere either.
    pub async fn vault(&self, uri: &str) -> Result<VaultClient<'_>, Fault> {
        let bad =
            |why: String| Fault::invalid("InvalidUrl", format!("The vault's address '{uri}' can't be used: {why}."));
        let address = Url::parse(uri).map_err(|error| bad(error.to_string()))?;
        let (Some(host), Some(port)) = (address.host_str(), address.port_or_known_default()) else {
            return Err(bad("it has no host".to_owned()));
        };
        let own = lookup(host, port).await;
        let instead = if own.is_empty() { self.own_addresses().await } else { Vec::new() };
        let http = Http::at(uri, self.ca_pem.as_deref(), Some((host, &instead)))?;
        Ok(VaultClient { client: self, http })
    }

    async fn own_addresses(&self) -> Vec<SocketAddr> {
        let Ok(base) = Url::parse(&self.base) else { return Vec::new() };
        let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        lookup(&host, base.port_or_known_default().unwrap_or(443)).await
    }
}

async fn lookup(host: &str, port: u16) -> Vec<SocketAddr> {
    match tokio::time::timeout(LOOKUP, tokio::net::lookup_host((host, port))).await {
        Ok(Ok(found)) => found.collect(),
        _ => Vec::new(),
    }
}

impl VaultClient<'_> {
    /// A request to a path such as `/secrets/NAME`, with its query.
    ///
    /// # Errors
    /// What the vault answers.
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Fault> {
        let address = Url::parse(&format!("{}{path}", self.http.base()))
            .map_err(|error| Fault::internal(format!("The address of the secret can't be read: {error}.")))?;
        let token = self.client.token(Some(AUDIENCE_VAULT)).await?;
        let bytes = body.map(|body| body.to_string().into_bytes());
        // Setting a secret twice makes two versions.
        let idempotence = if method == Method::GET { Idempotence::Safe } else { Idempotence::Unsafe };
        let answer = self.http.send(idempotence, || {
            let mut request = token.authorize(self.http.request(method.clone(), address.clone()))?;
            if let Some(bytes) = &bytes {
                request = request.header(CONTENT_TYPE, "application/json").body(bytes.clone());
            }
            Ok(request)
        });
        answer.await?.check()
    }

    /// A list with all its pages.
    ///
    /// # Errors
    /// What the vault answers; `UnexpectedAnswer` for a list that leads to another host or never ends.
    pub async fn list(&self, path: &str) -> Result<Vec<Value>, Fault> {
        let (mut items, mut next) = (Vec::new(), path.to_owned());
        for _ in 0..super::MAX_PAGES {
            let mut page = self.call(Method::GET, &next, None).await?;
            let Some(Value::Array(found)) = page.get_mut("value").map(Value::take) else {
                return Err(Fault::internal(format!("The vault's answer to '{path}' is no list.")));
            };
            items.extend(found);
            let Some(link) = page["nextLink"].as_str().filter(|link| !link.is_empty()) else { return Ok(items) };
            let rest = link.strip_prefix(self.http.base()).filter(|rest| rest.starts_with('/'));
            next = rest.ok_or_else(|| Fault::internal("The vault's list leads to another host."))?.to_owned();
        }
        Err(Fault::internal(format!("The list '{path}' has more than {} pages.", super::MAX_PAGES)))
    }
}
