//! The issuer against a real authority, Pebble, and against broken ones.

mod broken;
mod pebble;
mod site;

use std::{
    collections::HashMap,
    fs,
    net::{SocketAddr, TcpListener as StdListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use casemate_model::{Fault, Secret, challenge::ChallengeBoard};
use casemate_pki::{BoxFuture, CertificateAuthority, Leaf};
use jiff::Timestamp;
use tempfile::TempDir;
use tokio::{net::TcpStream, time::timeout};

use crate::{AccountStore, AcmeConfig, AcmeIssuer, ChallengeKind};
use site::Site;

const PATIENCE: Duration = Duration::from_secs(60);
/// What tests of external accounts use; the authority knows it.
const KEY_ID: &str = "kid-1";
const MAC_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

/// A running Pebble, whose challenges lead to a [`Site`].
struct Pebble {
    process: Child,
    directory: String,
    /// Where Pebble shows its own roots.
    management: SocketAddr,
    /// What its server's certificate comes from.
    root_pem: Vec<u8>,
    _files: TempDir,
}

/// How a Pebble differs from the usual one.
#[derive(Clone, Copy, Default)]
struct Odd {
    /// Percentage of good nonces that it refuses.
    nonces_refused: u8,
    /// New accounts need an external one.
    external: bool,
    /// At a port where an earlier one was, since an account is known by its address.
    at: Option<u16>,
}

impl Pebble {
    async fn start(site: &Site, odd: Odd) -> Self {
        let files = tempfile::tempdir().unwrap();
        let (authority, _) = CertificateAuthority::create(Timestamp::now()).unwrap();
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let server = authority.issue(&names, Timestamp::now(), Duration::from_secs(24 * 3600)).unwrap();
        let (port, management) = (odd.at.unwrap_or_else(free_port), SocketAddr::from(([127, 0, 0, 1], free_port())));
        let path = |name: &str| files.path().join(name).display().to_string();
        fs::write(path("cert.pem"), &server.chain_pem).unwrap();
        fs::write(path("key.pem"), server.key_pem.expose()).unwrap();
        let config = serde_json::json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": management.to_string(),
            "certificate": path("cert.pem"),
            "privateKey": path("key.pem"),
            "httpPort": site.http.port(),
            "tlsPort": site.alpn.port(),
            "externalAccountBindingRequired": odd.external,
            "externalAccountMACKeys": {KEY_ID: MAC_KEY},
        }});
        fs::write(path("config.json"), config.to_string()).unwrap();
        let log = fs::File::create(files.path().join("log")).unwrap();
        let process = Command::new("pebble")
            .args(["-config", &path("config.json"), "-strict", "-dnsserver", &site.dns.to_string()])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", odd.nonces_refused.to_string())
            .env("PEBBLE_AUTHZREUSE", "0")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("Pebble is there: `cargo xtask test` installs it");
        let pebble = Self {
            process,
            directory: format!("https://localhost:{port}/dir"),
            management,
            root_pem: authority.root_pem().as_bytes().to_vec(),
            _files: files,
        };
        for address in [SocketAddr::from(([127, 0, 0, 1], port)), management] {
            listening(address, pebble._files.path()).await;
        }
        pebble
    }

    fn config(&self, challenge: ChallengeKind) -> AcmeConfig {
        let config = AcmeConfig::new(&self.directory, challenge).unwrap();
        AcmeConfig { root_pem: Some(self.root_pem.clone()), ..config }
    }

    fn issuer(&self, challenge: ChallengeKind, site: &Site, store: &Arc<Shelf>) -> AcmeIssuer {
        AcmeIssuer::new(self.config(challenge), site.board.clone(), Arc::clone(store) as Arc<dyn AccountStore>).unwrap()
    }

    /// The root that its certificates come from.
    async fn root(&self) -> Vec<u8> {
        let roots = [reqwest::Certificate::from_pem(&self.root_pem).unwrap()];
        let client = reqwest::Client::builder().tls_certs_only(roots).no_proxy().build().unwrap();
        let answer = client.get(format!("https://{}/roots/0", self.management)).send().await.unwrap();
        answer.bytes().await.unwrap().to_vec()
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn listening(address: SocketAddr, files: &Path) {
    let up = async {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let log = || fs::read_to_string(files.join("log")).unwrap_or_default();
    timeout(PATIENCE, up).await.unwrap_or_else(|_| panic!("Pebble does not listen at {address}: {}", log()));
}

/// Keeps accounts in memory; can be made to fail like a process that is killed before a write.
#[derive(Default)]
struct Shelf {
    kept: Mutex<HashMap<String, Secret>>,
    /// What was to be written, also when that failed.
    asked: Mutex<Vec<Secret>>,
    /// How many more writes succeed; none: all.
    left: Mutex<Option<u32>>,
}

impl Shelf {
    /// The account's address, in what was asked to be written last.
    fn last_id(&self) -> String {
        let asked = self.asked.lock().unwrap();
        let read: serde_json::Value = serde_json::from_slice(asked.last().unwrap().expose()).unwrap();
        read["id"].as_str().unwrap().to_owned()
    }
}

impl AccountStore for Shelf {
    fn load<'a>(&'a self, directory: &'a str) -> BoxFuture<'a, Result<Option<Secret>, Fault>> {
        Box::pin(async move { Ok(self.kept.lock().unwrap().get(directory).cloned()) })
    }

    fn save<'a>(&'a self, directory: &'a str, account: &'a Secret) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(account.clone());
            if let Some(left) = self.left.lock().unwrap().as_mut() {
                *left = left.checked_sub(1).ok_or_else(|| Fault::internal("killed"))?;
            }
            self.kept.lock().unwrap().insert(directory.to_owned(), account.clone());
            Ok(())
        })
    }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Whether a client that trusts `root` accepts the certificate for each name.
fn verified(leaf: &Leaf, root: &[u8], names: &[String]) {
    use rustls::client::{WebPkiServerVerifier, danger::ServerCertVerifier};
    use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};

    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(leaf.chain_pem.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
    for name in names {
        let name = name.replacen('*', "any", 1).try_into().unwrap();
        verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], UnixTime::now()).unwrap();
    }
}

/// Nothing is left on the board for these names.
fn taken_off(board: &ChallengeBoard, names: &[String]) {
    for name in names {
        assert!(board.alpn(name).is_none() && board.txt(&format!("_acme-challenge.{name}")).is_empty(), "{name}");
    }
}
