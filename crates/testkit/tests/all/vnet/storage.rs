//! Storage of a closed workspace: its own models read it, and nobody else.

use std::{fs, net::SocketAddr};

use anyhow::{Context, Result, ensure};
use casemate_testkit::{Platform, sample::Sample};
use reqwest::Method;
use serde_json::{Value, json};

use super::{DISABLED, LOCALHOST, Owner, PATIENCE, WORKSPACE};

/// Fetches what it is told to.
const FETCH: &str = r#"
import json, ssl, urllib.error, urllib.request

def init():
    pass

def run(data):
    asked = json.loads(data)
    context = ssl.create_default_context(cadata=asked["authority"])
    try:
        with urllib.request.urlopen(asked["url"], context=context, timeout=20) as answer:
            return [answer.status, answer.read().decode()]
    except urllib.error.HTTPError as error:
        return [error.code, error.read().decode()]
    except OSError as error:
        return [0, repr(error)]
"#;

/// A file in a workspace's storage, by an address that is good for whoever may come this way.
struct Stored {
    host: String,
    path: String,
}

impl Stored {
    async fn put(stage: &Closed, workspace: &str, content: &str) -> Result<Self> {
        let owner = &stage.owner;
        let home = owner.path(WORKSPACE, workspace);
        let shown = owner.send(Method::GET, &home, Value::Null).await?.body;
        let account = shown["properties"]["storageAccount"].as_str().and_then(|id| id.rsplit('/').next());
        let account = account.with_context(|| format!("no storage account in {shown}"))?.to_lowercase();
        let store = format!("{home}/datastores/workspaceblobstore");
        let container = owner.send(Method::GET, &store, Value::Null).await?.body["properties"]["containerName"].clone();
        let secrets = owner.send(Method::POST, &format!("{store}/listSecrets"), json!({})).await?.body;
        let (container, token) = (container.as_str().context("a container")?, secrets["sasToken"].clone());
        let stored = Self {
            host: format!("{account}.blob.core.casemate.internal"),
            path: format!("/{container}/file.txt?{}", token.as_str().context("a signature")?),
        };
        let request = stage.client(&stored.host)?.put(format!("https://{}:{}{}", stored.host, stage.port, stored.path));
        let made = request.header("x-ms-blob-type", "BlockBlob").body(content.to_owned()).send().await?;
        ensure!(made.status().as_u16() == 201, "the file is not stored: {}", made.text().await?);
        Ok(stored)
    }
}

/// A workspace whose model fetches, and another.
struct Closed {
    platform: Platform,
    owner: Owner,
    port: u16,
    key: String,
    _dir: tempfile::TempDir,
}

impl Closed {
    async fn new() -> Result<Self> {
        let platform = Platform::start()?;
        platform.casemate("group create -n rg -l local")?;
        platform.casemate("ml workspace create -n main -g rg -m allow_only_approved_outbound")?;
        platform.casemate("ml workspace create -n other -g rg")?;
        platform.casemate("configure --defaults group=rg workspace=main")?;
        let dir = tempfile::tempdir()?;
        let sample = Sample::new(dir.path(), "fetch", FETCH)?;
        let show = |file: &str| sample.path(file).display().to_string();
        sample.deployment("blue", "request_settings: {request_timeout_ms: 60000}\n")?;
        platform.casemate(&format!("ml online-endpoint create -f {}", show("endpoint.yml")))?;
        platform.casemate(&format!("ml online-deployment create -f {} --all-traffic", show("blue.yml")))?;
        let port = platform.url.rsplit(':').next().context("a port")?.parse()?;
        let key = platform.scoring("sample")?.key;
        let owner = Owner::new(&platform).await?;
        Ok(Self { platform, owner, port, key, _dir: dir })
    }

    /// A client outside for which `host` leads to the platform's public address.
    fn client(&self, host: &str) -> Result<reqwest::Client> {
        let root = reqwest::Certificate::from_pem(&fs::read(self.platform.state().join("ca.pem"))?)?;
        let builder = reqwest::Client::builder().tls_certs_only([root]).timeout(PATIENCE);
        Ok(builder.resolve(host, SocketAddr::new(LOCALHOST, self.port)).build()?)
    }

    /// What the model gets from `host` and `path`.
    async fn model_fetches(&self, host: &str, path: &str) -> Result<(i64, String)> {
        let name = "sample.local.inference.casemate.internal";
        let authority = fs::read_to_string(self.platform.state().join("ca.pem"))?;
        let body = json!({"url": format!("https://{host}{path}"), "authority": authority}).to_string();
        let uri = format!("https://{name}:{}/score", self.port);
        let answer = self.client(name)?.post(uri).bearer_auth(&self.key).body(body).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "the model was not reached: {status} {text}");
        let said: Value = serde_json::from_str(&text)?;
        let said = if let Some(text) = said.as_str() { serde_json::from_str(text)? } else { said };
        Ok((said[0].as_i64().with_context(|| said.to_string())?, said[1].as_str().unwrap_or_default().to_owned()))
    }

    /// What somebody outside gets.
    async fn stranger_fetches(&self, stored: &Stored) -> Result<(u16, String)> {
        let uri = format!("https://{}:{}{}", stored.host, self.port, stored.path);
        let answer = self.client(&stored.host)?.get(uri).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }
}

#[tokio::test]
async fn a_model_in_a_closed_workspace_reads_its_own_storage_and_no_other() -> Result<()> {
    let stage = Closed::new().await?;
    let result = closed_storage(&stage).await;
    result.with_context(|| stage.platform.log())
}

async fn closed_storage(stage: &Closed) -> Result<()> {
    let own = Stored::put(stage, "main", "of main").await?;
    let theirs = Stored::put(stage, "other", "of other").await?;
    for (access, outside) in [("enabled", 200), ("disabled", 403), ("enabled", 200)] {
        let line = format!("ml workspace update -n main -g rg --public-network-access {access}");
        stage.platform.casemate(&line)?;
        // The model, by its rules.
        assert_eq!(stage.model_fetches(&own.host, &own.path).await?, (200, "of main".to_owned()), "{access}");
        // Somebody outside, with the same address and signature.
        let (status, text) = stage.stranger_fetches(&own).await?;
        assert_eq!((status, text == "of main"), (outside, outside == 200), "{access}: {text}");
        assert_eq!(text.contains(DISABLED), outside == 403, "{access}: {text}");
        // Another workspace's storage, which is open to all but by no rule of the model's.
        assert_eq!(stage.stranger_fetches(&theirs).await?, (200, "of other".to_owned()), "the control");
        let (status, text) = stage.model_fetches(&theirs.host, &theirs.path).await?;
        assert_eq!(status, 0, "the other account: {text}");
        let (status, text) = stage.model_fetches(&own.host, &theirs.path).await?;
        assert_eq!((status, text.contains("storage account")), (403, true), "the other's file at the own host: {text}");
    }
    Ok(())
}
