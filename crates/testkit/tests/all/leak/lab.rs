//! The platform under attack and the internet around it.

use std::{
    collections::HashSet,
    fs,
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use casemate_testkit::{
    Platform, project,
    sample::Sample,
    world::{RESOLVER, World},
};
use serde_json::Value;

const RULES: &str = "
name: main
managed_network:
  isolation_mode: allow_only_approved_outbound
  outbound_rules:
    - {name: approved, type: fqdn, destination: approved.example.net}
    - {name: wild, type: fqdn, destination: '*.wild.example.net'}
    - {name: database, type: fqdn, destination: database.example.net, port_ranges: '5432'}
    - {name: flip, type: fqdn, destination: flip.example.net}
    - {name: inward, type: fqdn, destination: '*.inward.example.net'}
    - name: range
      type: service_tag
      destination: {service_tag: lab, protocol: TCP, port_ranges: '443,8443', address_prefixes: [142.250.0.0/16]}
";
/// Names that lead where no name may.
const INWARD: &[(&str, &[&str])] = &[
    ("metadata", &["169.254.169.254"]),
    ("loopback", &["127.0.0.1"]),
    ("private", &["10.1.2.3"]),
    ("router", &["192.168.77.1"]),
    ("self", &["192.168.77.2"]),
    ("shared", &["100.64.1.1"]),
    ("protocol", &["192.0.0.8"]),
    ("benchmark", &["198.18.0.1"]),
    ("reserved", &["240.0.0.1"]),
    ("mixed", &["10.1.2.3", "127.0.0.1"]),
];

/// Where the internet has its package index.
pub const INDEX: &str = "93.184.216.20";
/// The host's own pip must not tell of packages elsewhere.
const WITHOUT: [&str; 4] = ["PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "UV_INDEX_URL"];
/// An environment whose packages attack.
const HOOKED: &str =
    "name: hooked\ndependencies:\n  - pip:\n      - azureml-inference-server-http\n      - spy\n      - hooked\n";

/// A platform in its world with the attacker deployed.
pub struct Lab {
    pub platform: Platform,
    pub world: World,
    witness: Witness,
    sample: Sample,
    directory: tempfile::TempDir,
}

impl Lab {
    /// Deploys the attacker where packages can be had, then moves the platform into the world.
    pub fn new(unprivileged: bool) -> Result<Self> {
        let world = World::new()?;
        for (name, addresses) in INWARD {
            world.name(&format!("{name}.inward.example.net."), serde_json::json!({"a": addresses}))?;
        }
        world.name(
            "v6.inward.example.net.",
            serde_json::json!({"aaaa": ["fd00:77::1", "::1", "fe80::1", "::ffff:10.1.2.3"]}),
        )?;
        world.name("alias.inward.example.net.", serde_json::json!({"cname": "loopback.inward.example.net."}))?;
        world.name("hang.wild.example.net.", serde_json::json!({"hang": true}))?;
        let mut platform = if unprivileged { Platform::start_unprivileged()? } else { Platform::start()? };
        let directory = tempfile::tempdir()?;
        // What is in it must be out of reach because of the sandbox, not because of its mode.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let sample = Sample::new(directory.path(), "attacker", "")?;
        for entry in fs::read_dir(project().join("tests/leak/code"))? {
            let path = entry?.path();
            fs::copy(&path, sample.path("code").join(path.file_name().context("a file has a name")?))?;
        }
        fs::write(sample.path("workspace.yml"), RULES)?;
        platform.casemate("group create -n rg -l local")?;
        platform.casemate(&format!("ml workspace create -g rg -f {}", sample.path("workspace.yml").display()))?;
        platform.casemate("configure --defaults group=rg workspace=main")?;
        platform.casemate(&format!("ml online-endpoint create -f {}", sample.path("endpoint.yml").display()))?;
        for name in ["blue", "green"] {
            sample.deployment(
                name,
                "request_settings: {request_timeout_ms: 180000, max_concurrent_requests_per_instance: 4}\n",
            )?;
            let file = sample.path(&format!("{name}.yml"));
            platform.casemate(&format!("ml online-deployment create -f {}", file.display()))?;
        }
        platform.stop()?;
        let mut enter = world.enter();
        enter.push("env".to_owned());
        enter.extend(WITHOUT.iter().map(|name| format!("--unset={name}")));
        enter.extend(["PIP_CONFIG_FILE=/dev/null".to_owned(), format!("PIP_INDEX_URL=http://{INDEX}/simple")]);
        platform.move_into(enter, &["--upstream-dns", RESOLVER]);
        platform.launch()?;
        let witness = Witness::start(&world, directory.path())?;
        let lab = Self { platform, world, witness, sample, directory };
        lab.wait_until_served()?;
        Ok(lab)
    }

    /// After a restart the models come back by themselves.
    pub fn wait_until_served(&self) -> Result<()> {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        for name in ["blue", "green"] {
            while let Err(error) = self.probe_at(name, r#"{"probe": "processes"}"#) {
                if std::time::Instant::now() > end {
                    bail!("'{name}' did not come back: {error:#}\n{}", self.platform.log());
                }
                std::thread::sleep(std::time::Duration::from_millis(200));
            }
        }
        Ok(())
    }

    /// Lets the attacker run one probe.
    pub fn probe(&self, request: &str) -> Result<Value> {
        self.probe_at("blue", request)
    }

    /// The same at another deployment.
    pub fn probe_at(&self, deployment: &str, request: &str) -> Result<Value> {
        static SERIAL: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let file = self.directory.path().join(format!("{serial}.json"));
        let port = self.platform.url.rsplit(':').next().context("the address has a port")?;
        fs::write(&file, self.witness.fill(request, port))?;
        let said = self.platform.casemate(&format!(
            "ml online-endpoint invoke -n sample --deployment-name {deployment} --request-file {}",
            file.display()
        ))?;
        let mut said: Value = serde_json::from_str(said.trim())?;
        if let Some(text) = said.as_str() {
            said = serde_json::from_str(text)?;
        }
        Ok(said)
    }

    /// Puts packages whose hooks attack on the index, and deploys them as `hooked`.
    pub fn deploy_hooks(&self) -> Result<()> {
        let packages = self.world.packages()?;
        make_packages(&self.world.enter(), &packages.display().to_string(), &self.witness)?;
        fs::write(self.sample.path("hooked.yaml"), HOOKED)?;
        let text = fs::read_to_string(self.sample.path("blue.yml"))?;
        let text = text.replace("name: blue", "name: hooked").replace("conda.yaml", "hooked.yaml");
        fs::write(self.sample.path("hooked.yml"), text)?;
        let file = self.sample.path("hooked.yml");
        self.platform.casemate(&format!("ml online-deployment create -f {}", file.display()))?;
        Ok(())
    }

    /// One call of the management API, by its owner, at the platform.
    pub fn rest(&self, method: &str, path: &str) -> Result<Value> {
        let token = self.platform.casemate("account get-access-token --query accessToken -o tsv")?;
        let enter = self.world.enter();
        let output = Command::new(&enter[0])
            .args(&enter[1..])
            .args(["curl", "-sS", "--fail-with-body", "-X", method, "-H", "Content-Type: application/json", "-d", "{}"])
            .arg("--cacert")
            .arg(self.platform.state().join("ca.pem"))
            .args(["-H", &format!("Authorization: Bearer {}", token.trim())])
            .arg(format!("{}{path}?api-version=2024-10-01", self.platform.url))
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "{method} {path}: {said}{}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_str(&said)?)
    }

    /// Whether the resolver was asked since `mark` for a name with this label.
    pub fn was_asked(&self, mark: Mark, label: &str) -> Result<bool> {
        let arrivals = self.world.arrivals()?;
        let asks = |packet: &Value| {
            packet["port"] == 53 && packet["payload"].as_str().is_some_and(|text| text.to_lowercase().contains(label))
        };
        Ok(arrivals.iter().skip(mark.packets).any(asks))
    }

    /// How much has arrived so far.
    pub fn mark(&self) -> Result<Mark> {
        Ok(Mark { packets: self.world.arrivals()?.len(), callers: self.witness.seen()? })
    }

    /// Nothing arrived since `mark` but at the addresses `reaches` and, if there are any, questions to the resolver.
    pub fn silent_since(&self, mark: Mark, reaches: &[&str]) -> Result<()> {
        silent_since(&self.world, mark.packets, reaches)?;
        self.witness.silent_since(mark.callers)
    }
}

/// What had arrived at one moment.
#[derive(Clone, Copy)]
pub struct Mark {
    packets: usize,
    callers: usize,
}

/// The internet saw nothing new; see [`Lab::silent_since`].
pub fn silent_since(world: &World, packets: usize, reaches: &[&str]) -> Result<()> {
    // A packet on its way would arrive by now.
    std::thread::sleep(std::time::Duration::from_millis(30));
    let arrivals = world.arrivals()?;
    let (earlier, later) = arrivals.split_at(packets);
    let stream = |packet: &Value| {
        ["source", "source_port", "destination", "port"].map(|key| packet.get(key).cloned().unwrap_or_default())
    };
    let known: HashSet<_> = earlier.iter().map(stream).collect();
    for packet in later {
        let to = packet["destination"].as_str().unwrap_or_default();
        // The neighbours' own talk: ARP, and ICMPv6 with its multicast.
        let neighbourly = packet["ethertype"] == 0x0806 || packet["protocol"] == 58 || packet["protocol"] == 0;
        let resolver = !reaches.is_empty() && packet["port"] == 53 && to.starts_with("8.8.8.8");
        // The last words of a control's stream: they carry nothing.
        let farewell = packet["protocol"] == 6 && packet["payload"] == "" && known.contains(&stream(packet));
        // At its start the platform itself asks whether its endpoints' names are known.
        let own =
            packet["port"] == 53 && packet["payload"].as_str().is_some_and(|text| text.contains("casemate-probe"));
        if !neighbourly && !resolver && !farewell && !own && !reaches.contains(&to) {
            bail!("this arrived outside: {packet}");
        }
    }
    Ok(())
}

/// Servers beside the platform, on its machine, that nobody inside a sandbox may reach.
pub struct Witness {
    process: Child,
    directory: PathBuf,
    port: String,
}

impl Witness {
    /// Starts them in the platform's network; their files lie in `directory`.
    pub fn start(world: &World, directory: &Path) -> Result<Self> {
        let enter = world.enter();
        let mut process = Command::new(&enter[0])
            .args(&enter[1..])
            .arg("python3")
            .arg(project().join("tests/leak/witness.py"))
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("stdout is piped")?).read_line(&mut line)?;
        let witness = Self { process, directory: directory.to_owned(), port: line.trim().to_owned() };
        ensure!(!witness.port.is_empty(), "the witness did not start");
        Ok(witness)
    }

    /// Its TCP port.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// A probe with the places of this run in it.
    pub fn fill(&self, request: &str, platform: &str) -> String {
        request
            .replace("$WITNESS", &self.port)
            .replace("$DIRECTORY", &self.directory.display().to_string())
            .replace("$PLATFORM", platform)
    }

    /// How many callers there were.
    pub fn seen(&self) -> Result<usize> {
        Ok(fs::read_to_string(self.directory.join("callers"))?.lines().count())
    }

    /// Fails when there were more, or when its file was changed.
    pub fn silent_since(&self, callers: usize) -> Result<()> {
        ensure!(fs::read_to_string(self.directory.join("treasure"))? == "treasure", "the witness's file was changed");
        let text = fs::read_to_string(self.directory.join("callers"))?;
        let more: Vec<&str> = text.lines().skip(callers).collect();
        ensure!(more.is_empty(), "somebody reached the platform's machine: {more:?}");
        Ok(())
    }
}

/// Makes the packages in `directory`, or with `-` their hooks' attempts, by a command behind `enter`; gives what is told.
pub fn make_packages(enter: &[String], directory: &str, witness: &Witness) -> Result<String> {
    let port: u16 = witness.port.parse()?;
    let places = serde_json::json!({"index": INDEX, "witness": port, "directory": witness.directory});
    let output = Command::new(&enter[0])
        .args(&enter[1..])
        .arg("python3")
        .arg("-B")
        .arg(project().join("tests/leak/packages.py"))
        .args([directory, &places.to_string()])
        .output()?;
    ensure!(output.status.success(), "packages.py: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
