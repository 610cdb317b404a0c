//! Two network namespaces for tests: one for a platform, and behind it a small internet that writes down everything
//! that arrives. Nothing in them reaches the machine's own network.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::project;

/// The address of the platform in its world, and of the router that leads to the internet.
pub const PLATFORM: &str = "192.168.77.2";
/// The next hop.
pub const ROUTER: &str = "192.168.77.1";
/// The internet's resolver, for `--upstream-dns`.
pub const RESOLVER: &str = "8.8.8.8:53";
/// What the internet answers on: every address of these prefixes.
const ROUTED: [&str; 6] =
    ["93.184.216.0/24", "8.8.8.0/24", "142.250.0.0/16", "169.254.0.0/16", "2a00:1450::/32", "2001:4860::/32"];
/// The names that the internet's resolver knows at first.
const NAMES: &[(&str, &str, &str)] = &[
    ("approved.example.net.", "93.184.216.10", "2a00:1450::10"),
    ("other.example.net.", "93.184.216.11", "2a00:1450::11"),
    ("a.wild.example.net.", "93.184.216.12", "2a00:1450::12"),
    ("b.wild.example.net.", "93.184.216.13", "2a00:1450::13"),
    ("wild.example.net.", "93.184.216.14", "2a00:1450::14"),
    ("database.example.net.", "93.184.216.15", "2a00:1450::15"),
    ("elsewhere.example.net.", "93.184.216.16", "2a00:1450::16"),
];

/// The two namespaces and the internet's servers. Dropping it removes all of it.
pub struct World {
    platform: String,
    internet: String,
    servers: Child,
    dir: TempDir,
}

impl World {
    /// Makes a world. Needs root.
    ///
    /// # Errors
    /// When a namespace or an address can't be made, or the servers don't start.
    pub fn new() -> Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = format!("{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        let (platform, internet) = (format!("cm-p-{serial}"), format!("cm-i-{serial}"));
        let dir = tempfile::Builder::new().prefix("casemate-world-").tempdir()?;
        let made = Namespaces { platform: &platform, internet: &internet };
        if let Err(error) = made.build() {
            made.remove();
            return Err(error);
        }
        match serve(&internet, dir.path()) {
            Ok(servers) => Ok(Self { platform, internet, servers, dir }),
            Err(error) => {
                made.remove();
                Err(error)
            }
        }
    }

    /// What to put before a command so that it runs in the platform's namespace.
    #[must_use]
    pub fn enter(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", self.platform)]
    }

    /// What to put before a command so that it runs in the internet.
    #[must_use]
    pub fn enter_internet(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", self.internet)]
    }

    /// Changes what the resolver says of a name (with its final dot): see `tests/e2e/internet.py` for the forms.
    ///
    /// # Errors
    /// When the zone can't be written.
    pub fn name(&self, name: &str, answer: Value) -> Result<()> {
        let path = self.dir.path().join("zone.json");
        let mut zone: Value = serde_json::from_slice(&fs::read(&path)?)?;
        zone[name] = answer;
        write_whole(&path, &zone)
    }

    /// The directory of packages that the internet serves as an index, at `http://<any address>/simple`.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn packages(&self) -> Result<PathBuf> {
        let path = self.dir.path().join("packages");
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Everything that arrived so far: one object for each packet.
    ///
    /// # Errors
    /// When the record can't be read.
    pub fn arrivals(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.dir.path().join("arrivals.jsonl"))?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.servers.kill();
        let _ = self.servers.wait();
        Namespaces { platform: &self.platform, internet: &self.internet }.remove();
    }
}

struct Namespaces<'a> {
    platform: &'a str,
    internet: &'a str,
}

impl Namespaces<'_> {
    fn build(&self) -> Result<()> {
        let (platform, internet) = (self.platform, self.internet);
        for each in [platform, internet] {
            ip(&format!("netns add {each}"))?;
            ip(&format!("-n {each} link set lo up"))?;
        }
        ip(&format!("link add inet netns {platform} type veth peer name plat netns {internet}"))?;
        ip(&format!("-n {platform} addr add {PLATFORM}/24 dev inet"))?;
        ip(&format!("-n {internet} addr add {ROUTER}/24 dev plat"))?;
        ip(&format!("-n {platform} -6 addr add fd00:77::2/64 dev inet nodad"))?;
        ip(&format!("-n {internet} -6 addr add fd00:77::1/64 dev plat nodad"))?;
        ip(&format!("-n {platform} link set inet up"))?;
        ip(&format!("-n {internet} link set plat up"))?;
        ip(&format!("-n {platform} route add default via {ROUTER}"))?;
        ip(&format!("-n {platform} -6 route add default via fd00:77::1"))?;
        for prefix in ROUTED {
            let family = if prefix.contains(':') { "-6 " } else { "" };
            ip(&format!("-n {internet} {family}route add local {prefix} dev lo"))?;
        }
        Ok(())
    }

    fn remove(&self) {
        for each in [self.platform, self.internet] {
            let _ = ip(&format!("netns delete {each}"));
        }
    }
}

fn ip(line: &str) -> Result<()> {
    let output = Command::new("ip").args(line.split_whitespace()).output().context("iproute2 is not installed")?;
    ensure!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Starts the internet's servers and waits until they listen.
fn serve(namespace: &str, dir: &Path) -> Result<Child> {
    let zone: serde_json::Map<String, Value> =
        NAMES.iter().map(|(name, v4, v6)| ((*name).to_owned(), json!({"a": [v4], "aaaa": [v6]}))).collect();
    write_whole(&dir.join("zone.json"), &Value::Object(zone))?;
    certificate(dir)?;
    let mut servers = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{namespace}"))
        .arg("python3")
        .arg(project().join("tests/e2e/internet.py"))
        .args(["plat".as_ref(), dir.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let stdout = servers.stdout.take().context("stdout is piped")?;
    BufReader::new(stdout).read_line(&mut line)?;
    if line.trim() != "ready" {
        let _ = servers.kill();
        let _ = servers.wait();
        bail!("the servers of the test's internet did not start");
    }
    Ok(servers)
}

/// The HTTPS server's certificate, for every name; nobody needs to believe it.
fn certificate(dir: &Path) -> Result<()> {
    let (key, chain) = (dir.join("key.pem"), dir.join("chain.pem"));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=*.example.net", "-addext", "subjectAltName=DNS:*.example.net,DNS:*.wild.example.net"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&chain)
        .output()?;
    ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr).trim());
    let mut both = fs::read(chain)?;
    both.extend(fs::read(key)?);
    Ok(fs::write(dir.join("server.pem"), both)?)
}

/// The resolver may be reading it.
fn write_whole(path: &PathBuf, zone: &Value) -> Result<()> {
    let partial = path.with_extension("partial");
    fs::write(&partial, zone.to_string())?;
    Ok(fs::rename(partial, path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(world: &World, line: &[&str]) -> std::process::Output {
        let enter = world.enter();
        Command::new(&enter[0]).args(&enter[1..]).args(line).output().unwrap()
    }

    #[test]
    fn the_internet_answers_and_writes_down_what_arrives() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let world = World::new().unwrap();
        for url in ["http://93.184.216.10/x", "https://93.184.216.10/x", "http://[2a00:1450::10]/x"] {
            let output = run(&world, &["curl", "-gsk", "--max-time", "20", url]);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains("GET /x HTTP/1.1"), "{url}: {said} {}", String::from_utf8_lossy(&output.stderr));
        }
        let nowhere = run(&world, &["curl", "-s", "--max-time", "5", "http://198.51.100.1/"]);
        assert!(!nowhere.status.success());
        let arrivals = world.arrivals().unwrap();
        let to = |address: &str, port: u64| {
            arrivals.iter().any(|each| each["destination"] == address && each["port"] == port)
        };
        assert!(to("93.184.216.10", 80) && to("93.184.216.10", 443) && to("198.51.100.1", 80), "{arrivals:?}");
        assert!(!to("93.184.216.11", 80));
    }
}
