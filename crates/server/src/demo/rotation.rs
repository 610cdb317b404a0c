//! The demo's third part: certificates replaced under load.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use casemate_model::route::key_digest;
use reqwest::{Client, ClientBuilder, Url, tls::TlsInfo};

use super::{Demo, ENDPOINT, GROUP, WORKSPACE, steps::Steps};

/// How often the certificate is replaced.
const RENEWALS: usize = 3;
/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the load goes on before the first and after the last renewal.
const MARGIN: Duration = Duration::from_millis(500);

/// What the callers saw.
#[derive(Default)]
struct Seen {
    answered: AtomicUsize,
    failed: Mutex<Vec<String>>,
    /// SHA-256 of the certificates that new connections were shown.
    fingerprints: Mutex<BTreeSet<String>>,
}

/// An endpoint as callers reach it.
struct Called {
    url: Url,
    key: String,
    body: Vec<u8>,
    root: reqwest::Certificate,
    front_door: SocketAddr,
}

impl Demo<'_> {
    /// Renews the endpoint's certificate several times while it is being called, over kept and over new connections.
    pub(super) async fn rotation(&self, steps: &mut Steps) -> Result<()> {
        steps.say("\nCertificates look after themselves; here the endpoint's is replaced under load:");
        let called = self.called().await?;
        let name = called.url.host_str().unwrap_or_default().to_owned();
        let before = called.fingerprint().await?;
        let (seen, renewals) = (Seen::default(), self.renewals(&name));
        let what = format!("renew the certificate {RENEWALS} times under load");
        steps.run(&what, under_load(&called, &seen, renewals)).await?;
        let after = called.fingerprint().await?;
        let failed = seen.failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        let fingerprints = seen.fingerprints.into_inner().unwrap_or_else(PoisonError::into_inner);
        steps.say(&format!("    before: SHA-256 {before}\n    after:  SHA-256 {after}"));
        steps.say(&format!(
            "    {} requests answered, {} failed; new connections were shown {} certificates, each valid",
            seen.answered.into_inner(),
            failed.len(),
            fingerprints.len()
        ));
        ensure!(failed.is_empty(), "requests failed while certificates changed: {}", failed[0]);
        ensure!(before != after, "the certificate is still the old one");
        Ok(())
    }

    async fn renewals(&self, name: &str) -> Result<()> {
        tokio::time::sleep(MARGIN).await;
        for _ in 0..RENEWALS {
            self.casemate(&format!("tls renew {name} --force")).await?;
        }
        tokio::time::sleep(MARGIN).await;
        Ok(())
    }

    async fn called(&self) -> Result<Called> {
        let scope = format!("-n {ENDPOINT} -g {GROUP} -w {WORKSPACE}");
        let uri: Url = self.field(&format!("ml online-endpoint show {scope}"), "scoring_uri").await?.parse()?;
        let port = uri.port_or_known_default().unwrap_or(443);
        let url = Url::parse(&format!("https://{ENDPOINT}.local.inference.{}:{port}/score", super::DOMAIN))?;
        Ok(Called {
            url,
            key: self.field(&format!("ml online-endpoint get-credentials {scope}"), "primaryKey").await?,
            body: std::fs::read(self.files.join("sample-request.json"))?,
            root: reqwest::Certificate::from_pem(&std::fs::read(self.state.join("ca.pem"))?)?,
            front_door: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        })
    }
}

impl Called {
    /// A client that verifies the certificate and finds the name without anybody's DNS.
    fn client(&self) -> ClientBuilder {
        let host = self.url.host_str().unwrap_or_default();
        let client = Client::builder().tls_certs_only([self.root.clone()]).tls_info(true).timeout(PATIENCE);
        client.resolve(host, self.front_door)
    }

    /// Scores once; what the connection's certificate was.
    async fn score(&self, client: &Client) -> Result<String> {
        let request = client.post(self.url.clone()).bearer_auth(&self.key).body(self.body.clone());
        let answer = request.send().await?.error_for_status()?;
        let tls = answer.extensions().get::<TlsInfo>().context("the connection has no TLS")?;
        let certificate = tls.peer_certificate().context("the server showed no certificate")?;
        let fingerprint = key_digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect();
        answer.bytes().await?;
        Ok(fingerprint)
    }

    async fn fingerprint(&self) -> Result<String> {
        self.score(&self.client().build()?).await
    }

    /// Calls again and again until dropped.
    async fn call(&self, client: &Client, seen: &Seen) -> Infallible {
        loop {
            let began = Instant::now();
            match self.score(client).await {
                Ok(fingerprint) => {
                    seen.answered.fetch_add(1, Ordering::Relaxed);
                    seen.fingerprints.lock().unwrap_or_else(PoisonError::into_inner).insert(fingerprint);
                }
                Err(error) => seen.failed.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{error:#}")),
            }
            tokio::time::sleep(Duration::from_millis(20).saturating_sub(began.elapsed())).await;
        }
    }
}

/// Does `work` while two callers call: one keeps its connection, the other opens a new one for each request.
async fn under_load(called: &Called, seen: &Seen, work: impl Future<Output = Result<()>>) -> Result<()> {
    let keeping = called.client().build()?;
    let opening = called.client().pool_max_idle_per_host(0).build()?;
    tokio::select! {
        done = work => done,
        never = called.call(&keeping, seen) => match never {},
        never = called.call(&opening, seen) => match never {},
    }
}
