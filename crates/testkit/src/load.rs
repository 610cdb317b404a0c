//! A bounded load on one endpoint, from this machine to this machine.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// Most requests of one load.
const MOST: usize = 20_000;

/// Between two requests of one client: the machine is for the platform under test, too.
const PAUSE: Duration = Duration::from_millis(10);

/// Where and how to call.
#[derive(Clone)]
pub struct Target {
    /// The scoring address.
    pub uri: String,
    /// A key of the endpoint.
    pub key: String,
    /// The platform's root certificate, PEM.
    pub authority: Vec<u8>,
}

impl Target {
    /// A client that trusts the platform's root and nothing else.
    ///
    /// # Errors
    /// When the certificate can't be read.
    pub fn client(&self) -> Result<reqwest::Client> {
        let root = reqwest::Certificate::from_pem(&self.authority)?;
        Ok(reqwest::Client::builder().tls_certs_only([root]).timeout(Duration::from_secs(60)).build()?)
    }

    /// One scoring request: status and body.
    ///
    /// # Errors
    /// When no answer arrives.
    pub async fn score(&self, client: &reqwest::Client, body: &Value) -> Result<(u16, Value)> {
        let response = client
            .post(&self.uri)
            .bearer_auth(&self.key)
            .body(body.to_string())
            .header("content-type", "application/json")
            .send()
            .await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        Ok((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }
}

/// What a load saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Answers with 200, by flavour.
    pub good: BTreeMap<String, usize>,
    /// Everything else, in words.
    pub bad: Vec<String>,
}

/// A load that runs until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: JoinSet<Seen>,
}

impl Load {
    /// Starts `clients` loops of requests, each one after the other.
    ///
    /// # Errors
    /// When a client can't be made.
    pub fn start(target: &Target, clients: usize) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let left = Arc::new(AtomicUsize::new(MOST));
        let mut set = JoinSet::new();
        for _ in 0..clients {
            let (target, client) = (target.clone(), target.client()?);
            set.spawn(one_client(target, client, Arc::clone(&stop), Arc::clone(&left)));
        }
        Ok(Self { stop, clients: set })
    }

    /// Ends the load and tells what it saw.
    pub async fn stop(mut self) -> Seen {
        self.stop.store(true, Ordering::Release);
        let mut all = Seen::default();
        while let Some(Ok(seen)) = self.clients.join_next().await {
            for (flavour, count) in seen.good {
                *all.good.entry(flavour).or_default() += count;
            }
            all.bad.extend(seen.bad);
        }
        all
    }
}

async fn one_client(target: Target, client: reqwest::Client, stop: Arc<AtomicBool>, left: Arc<AtomicUsize>) -> Seen {
    let mut seen = Seen::default();
    let take =
        |left: &AtomicUsize| left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok();
    while !stop.load(Ordering::Acquire) && take(&left) {
        match target.score(&client, &json!({"data": [1, 2, 3]})).await {
            Ok((200, body)) => {
                *seen.good.entry(body["flavour"].as_str().unwrap_or_default().to_owned()).or_default() += 1
            }
            Ok((status, body)) => seen.bad.push(format!("{status} {body}")),
            Err(error) => seen.bad.push(format!("{error:#}")),
        }
        tokio::time::sleep(PAUSE).await;
    }
    seen
}
