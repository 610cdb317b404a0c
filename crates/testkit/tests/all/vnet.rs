//! Private endpoints from outside: a model that can be called from inside a virtual network and from nowhere else.

mod guide;
mod storage;

use std::{
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    path::PathBuf,
    process::{Command, Output},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use casemate_testkit::{
    Platform, binary,
    rest::{Answer, Rest},
    sample::{SUM, Sample},
};
use reqwest::Method;
use serde_json::{Value, json};

/// Longer than anything here takes on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);
const NETWORK: &str = "Microsoft.Network/virtualNetworks";
const ENDPOINT: &str = "Microsoft.Network/privateEndpoints";
const WORKSPACE: &str = "Microsoft.MachineLearningServices/workspaces";

/// The management API as its owner calls it.
struct Owner {
    rest: Rest,
    token: String,
}

impl Owner {
    async fn new(platform: &Platform) -> Result<Self> {
        let rest = Rest::new(platform)?;
        let token = rest.token(&rest.owner, &rest.url).await?;
        Ok(Self { rest, token })
    }

    fn path(&self, kind: &str, name: &str) -> String {
        format!("{}/resourceGroups/rg/providers/{kind}/{name}", self.rest.subscription)
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> Result<Answer> {
        self.rest.call(&self.token, method, path, Some(&body).filter(|body| !body.is_null())).await
    }

    async fn put(&self, path: &str, body: Value) -> Result<Value> {
        let answer = self.send(Method::PUT, path, body).await?;
        ensure!(matches!(answer.status, 200..=202), "PUT {path}: {} {}", answer.status, answer.body);
        Ok(answer.body)
    }

    async fn network(&self, name: &str, prefix: &str) -> Result<()> {
        let subnets = json!([{"name": "default", "properties": {"addressPrefix": prefix}}]);
        let properties = json!({"addressSpace": {"addressPrefixes": [prefix]}, "subnets": subnets});
        self.put(&self.path(NETWORK, name), json!({"location": "local", "properties": properties})).await?;
        Ok(())
    }

    /// A private endpoint of a workspace; gives its address once it is served, and how long that took.
    async fn private_endpoint(
        &self,
        name: &str,
        network: &str,
        workspace: &str,
        port: u16,
    ) -> Result<(IpAddr, Duration)> {
        let path = self.path(ENDPOINT, name);
        let link = json!({"name": name, "properties": {
            "privateLinkServiceId": self.path(WORKSPACE, workspace), "groupIds": ["amlworkspace"]}});
        let subnet = format!("{}/subnets/default", self.path(NETWORK, network));
        let properties = json!({"subnet": {"id": subnet}, "privateLinkServiceConnections": [link]});
        let began = Instant::now();
        self.put(&path, json!({"location": "local", "properties": properties})).await?;
        let shown = self.send(Method::GET, &path, Value::Null).await?.body;
        let text = shown.to_string();
        let configs = shown["properties"]["customDnsConfigs"][0]["ipAddresses"][0].as_str();
        let address = configs.or_else(|| shown["properties"]["casemate"]["address"].as_str());
        let address: IpAddr =
            address.with_context(|| format!("the private endpoint has no address: {text}"))?.parse()?;
        while TcpStream::connect_timeout(&SocketAddr::new(address, port), Duration::from_millis(20)).is_err() {
            ensure!(began.elapsed() < PATIENCE, "{address}:{port} is never served: {text}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok((address, began.elapsed()))
    }
}

/// A deployed model and a second workspace.
struct Stage {
    platform: Platform,
    owner: Owner,
    port: u16,
    key: String,
    dir: tempfile::TempDir,
}

impl Stage {
    async fn new(platform: Platform) -> Result<Self> {
        platform.workspace()?;
        platform.casemate("ml workspace create -n other -g rg")?;
        let dir = tempfile::tempdir()?;
        let sample = Sample::new(dir.path(), "sum", SUM)?;
        let show = |file: &str| sample.path(file).display().to_string();
        platform.casemate(&format!("ml online-endpoint create -f {}", show("endpoint.yml")))?;
        platform.casemate(&format!("ml online-deployment create -f {} --all-traffic", show("blue.yml")))?;
        let port = platform.url.rsplit(':').next().context("a port")?.parse()?;
        let key = platform.scoring("sample")?.key;
        let owner = Owner::new(&platform).await?;
        Ok(Self { platform, owner, port, key, dir })
    }

    /// Where the model's files lie.
    fn sample(&self) -> PathBuf {
        self.dir.path().join("sum")
    }

    /// A client for which the platform's names lead to `address`.
    fn client(&self, address: IpAddr) -> Result<reqwest::Client> {
        let root = reqwest::Certificate::from_pem(&fs::read(self.platform.state().join("ca.pem"))?)?;
        let names = ["sample.local.inference.casemate.internal", "management.casemate.internal"];
        let mut builder = reqwest::Client::builder().tls_certs_only([root]).timeout(PATIENCE);
        for name in names {
            builder = builder.resolve(name, SocketAddr::new(address, self.port));
        }
        Ok(builder.build()?)
    }

    /// Scores with `key` by the endpoint's name, which leads to `address`: status and code or sum.
    async fn score(&self, client: &reqwest::Client, key: &str) -> Result<(u16, Value)> {
        let uri = format!("https://sample.local.inference.casemate.internal:{}/score", self.port);
        let answer = client.post(uri).bearer_auth(key).body(json!({"data": [1, 2]}).to_string()).send().await?;
        let status = answer.status().as_u16();
        let body: Value = serde_json::from_str(&answer.text().await?)?;
        Ok((status, if status == 200 { body["sum"].clone() } else { body["error"]["code"].clone() }))
    }
}

const DISABLED: &str = "PublicNetworkAccessDisabled";
const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

#[tokio::test]
async fn a_loopback_network_reaches_what_public_callers_can_not() -> Result<()> {
    for unprivileged in [false, true] {
        let started = if unprivileged { Platform::start_unprivileged()? } else { Platform::start()? };
        let stage = Stage::new(started).await?;
        closed_endpoint(&stage)
            .await
            .with_context(|| format!("unprivileged: {unprivileged}, {}", stage.platform.log()))?;
    }
    Ok(())
}

#[expect(clippy::print_stderr, reason = "figures for whoever reads the test")]
async fn closed_endpoint(stage: &Stage) -> Result<()> {
    let (owner, platform) = (&stage.owner, &stage.platform);
    owner.network("net", "127.0.77.0/24").await?;
    let (own, took) = owner.private_endpoint("pe", "net", "main", stage.port).await?;
    eprintln!("a private endpoint in a loopback network is served {took:?} after it was asked for");
    let (others, _) = owner.private_endpoint("pe-other", "net", "other", stage.port).await?;
    let (public, inside, elsewhere) = (stage.client(LOCALHOST)?, stage.client(own)?, stage.client(others)?);

    // Open: both ways, and not through the other workspace's.
    assert_eq!(stage.score(&public, &stage.key).await?, (200, json!(3)));
    assert_eq!(stage.score(&inside, &stage.key).await?, (200, json!(3)));
    assert_eq!(stage.score(&elsewhere, &stage.key).await?, (403, json!(DISABLED)));

    // Closed, on connections that are open already.
    platform.casemate("ml online-endpoint update -n sample --set public_network_access=disabled")?;
    let wrong = "wrong".repeat(8);
    for (client, key, expected) in [
        (&public, &stage.key, (403, json!(DISABLED))),
        (&public, &wrong, (403, json!(DISABLED))),
        (&elsewhere, &stage.key, (403, json!(DISABLED))),
        (&inside, &stage.key, (200, json!(3))),
        (&inside, &wrong, (401, json!("Unauthorized"))),
    ] {
        assert_eq!(stage.score(client, key).await?, expected);
    }
    let shown = platform.casemate("ml online-endpoint show -n sample --query scoring_uri -o tsv")?;
    assert_eq!(shown.trim(), format!("https://sample.local.inference.casemate.internal:{}/score", stage.port));

    // The workspace as well: its management, but for itself.
    platform.casemate("ml workspace update -n main -g rg --public-network-access disabled")?;
    let refused = platform.casemate("ml online-endpoint show -n sample").expect_err("the workspace is closed");
    assert!(format!("{refused:#}").contains(DISABLED), "{refused:#}");
    platform.casemate("ml workspace show -n main -g rg")?;
    let endpoint = format!("{}/onlineEndpoints/sample?api-version=2024-10-01", owner.path(WORKSPACE, "main"));
    for (client, status) in [(&public, 403), (&elsewhere, 403), (&inside, 200)] {
        let uri = format!("https://management.casemate.internal:{}{endpoint}", stage.port);
        let answer = client.get(uri).bearer_auth(&owner.token).send().await?;
        assert_eq!(answer.status().as_u16(), status);
    }

    // Rejected: gone within a second, connections and all.
    let endpoint = owner.send(Method::GET, &owner.path(ENDPOINT, "pe"), Value::Null).await?.body;
    let connections = owner
        .send(Method::GET, &format!("{}/privateEndpointConnections", owner.path(WORKSPACE, "main")), Value::Null)
        .await?
        .body;
    let connection = connections["value"][0]["id"].as_str().with_context(|| format!("{connections} {endpoint}"))?;
    let rejection =
        json!({"properties": {"privateLinkServiceConnectionState": {"status": "Rejected", "description": "no"}}});
    let began = Instant::now();
    owner.put(connection, rejection).await?;
    while stage.score(&inside, &stage.key).await.is_ok() {
        ensure!(began.elapsed() < PATIENCE, "a rejected private endpoint is still served");
    }
    eprintln!("a rejected private endpoint is closed after {:?}", began.elapsed());
    ensure!(TcpStream::connect((own, stage.port)).is_err(), "somebody still listens at {own}");
    assert_eq!(stage.score(&elsewhere, &stage.key).await?, (403, json!(DISABLED)));
    platform.casemate("ml workspace update -n main -g rg --public-network-access enabled")?;
    platform.casemate("ml online-endpoint update -n sample --set public_network_access=enabled")?;
    assert_eq!(stage.score(&public, &stage.key).await?, (200, json!(3)));
    Ok(())
}

/// A network namespace, removed when dropped.
struct Namespace(String);

impl Namespace {
    fn new(what: &str) -> Result<Self> {
        let name = format!("cm-{what}-{}", std::process::id());
        ip(&format!("netns add {name}"))?;
        let made = Self(name);
        made.ip("link set lo up")?;
        Ok(made)
    }

    fn ip(&self, line: &str) -> Result<String> {
        ip(&format!("-n {} {line}", self.0))
    }

    fn enter(&self) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/run/netns/{}", self.0)]
    }

    /// A shell script in here, with this resolv.conf; all it printed.
    fn shell(&self, resolver: &str, script: &str, variables: &[(String, String)]) -> Result<Output> {
        let directory = PathBuf::from("/etc/netns").join(&self.0);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join("resolv.conf"), format!("nameserver {resolver}\noptions timeout:2\n"))?;
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, "bash", "-c", script]);
        Ok(command.envs(variables.iter().cloned()).output()?)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&format!("netns delete {}", self.0));
        let _ = fs::remove_dir_all(PathBuf::from("/etc/netns").join(&self.0));
    }
}

fn ip(line: &str) -> Result<String> {
    let output = Command::new("ip").args(line.split_whitespace()).output()?;
    ensure!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// What a member of the network does, as the walkthrough has it.
const WALK: &str = r#"
set -e
az() { casemate "$@"; }
# Names are answered soon after their address is there.
for _ in $(seq 60); do dig +short +time=1 +tries=1 management.casemate.internal | grep -q '^10[.]' && break; sleep 0.5; done
dig +short management.casemate.internal sample.local.inference.casemate.internal
az ml workspace show -n main -g rg --query name -o tsv
az configure --defaults workspace=main group=rg
az ml online-endpoint show -n sample --query provisioning_state -o tsv
# The model starts with the platform.
for _ in $(seq 60); do az ml online-endpoint invoke -n sample --request-file "$REQUEST" && break; sleep 0.5; done
KEY=$(az ml online-endpoint get-credentials -n sample -o tsv --query primaryKey)
URI=$(az ml online-endpoint show -n sample -o tsv --query scoring_uri)
curl -sS --request POST "$URI" --header "Authorization: Bearer $KEY" --header 'Content-Type: application/json' --data @"$REQUEST"
az ml online-deployment get-logs -n blue -e sample
"#;

#[tokio::test]
async fn members_of_a_managed_network_work_through_the_private_endpoint() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let mut stage = Stage::new(Platform::start()?).await?;
    let owner = &stage.owner;
    owner.network("net", "10.231.77.0/24").await?;
    let (_, took) = owner.private_endpoint("pe", "net", "main", stage.port).await?;
    eprintln!("a private endpoint in a managed network is served {took:?} after it was asked for");
    stage.platform.casemate("ml online-endpoint update -n sample --set public_network_access=disabled")?;
    // The network is made again where nothing else is.
    stage.platform.stop()?;
    let (home, member, stranger) = (Namespace::new("home")?, Namespace::new("member")?, Namespace::new("stranger")?);
    stage.platform.move_into(home.enter(), &[]);
    stage.platform.launch()?;
    let result = managed(&stage, &home, &member, &stranger);
    result.with_context(|| stage.platform.log())
}

/// Attaches a namespace to the bridge of the platform's only managed network; gives the bridge.
fn attach(home: &Namespace, namespace: &Namespace, name: &str, address: &str) -> Result<String> {
    let bridge = wait("a bridge", || {
        let links = home.ip("-o link show type bridge").ok()?;
        Some(links.split(": ").nth(1)?.to_owned())
    })?;
    home.ip(&format!("link add {name} type veth peer name eth0 netns {}", namespace.0))?;
    home.ip(&format!("link set {name} master {bridge} up"))?;
    namespace.ip(&format!("addr add {address} dev eth0"))?;
    namespace.ip("link set eth0 up")?;
    Ok(bridge)
}

fn managed(stage: &Stage, home: &Namespace, member: &Namespace, stranger: &Namespace) -> Result<()> {
    let platform = &stage.platform;
    let bridge = attach(home, member, "m0", "10.231.77.200/24")?;
    attach(home, stranger, "s0", "10.99.0.9/24")?;
    stranger.ip("route add 10.231.77.0/24 dev eth0")?;
    wait("the private endpoint", || {
        home.ip(&format!("-o addr show dev {bridge}")).ok().filter(|all| all.matches("/32").count() >= 2)
    })?;

    let request = platform.state().join("request.json");
    fs::write(&request, r#"{"data": [1, 2]}"#)?;
    let mut variables = member_variables(platform)?;
    variables.push(("REQUEST".to_owned(), request.display().to_string()));
    let output = member.shell("10.231.77.2", WALK, &variables)?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "the walk failed:\n{said}");
    // By the command and by curl.
    assert!(said.contains("\"sum\": 3") && said.matches("POST /score 200").count() >= 2, "{said}");
    assert!(said.contains("init of blue"), "{said}");

    // The network's other addresses serve nobody, and who is not in its prefixes is closed before TLS.
    let address = said.lines().next().context("dig printed an address")?.to_owned();
    assert!(address.starts_with("10.231.77."), "{said}");
    let uri = format!("https://sample.local.inference.casemate.internal:{}/score", stage.port);
    for (namespace, to, served) in
        [(member, address.as_str(), true), (stranger, &address, false), (member, "10.231.77.1", false)]
    {
        let script = format!(
            "curl -sS -m 5 -o /dev/null -w '%{{http_code}}' --resolve sample.local.inference.casemate.internal:{}:{to} \
             -H 'Content-Type: application/json' -H 'Authorization: Bearer {}' -d '{{\"data\": [1]}}' {uri}",
            stage.port, stage.key
        );
        let output = namespace.shell("10.231.77.2", &script, &variables)?;
        let code = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(code == "200", served, "{to}: {code} {}", String::from_utf8_lossy(&output.stderr));
    }
    for (kind, name) in [(ENDPOINT, "pe"), (NETWORK, "net")] {
        let uri = format!("{}{}?api-version=2024-05-01", platform.url, stage.owner.path(kind, name));
        let script = format!("curl -sSf -X DELETE -H 'Authorization: Bearer {}' '{uri}'", stage.owner.token);
        let output = home.shell("127.0.0.1", &script, &variables)?;
        ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
    wait("the bridge to go", || home.ip("-o link show type bridge").ok().filter(String::is_empty))?;
    Ok(())
}

/// What a member of a network has in its environment: the platform's variables, and `az`, which is the program itself.
fn member_variables(platform: &Platform) -> Result<Vec<(String, String)>> {
    let text = platform.command(["env", "--private", "--format", "json"]).output()?.stdout;
    let mut variables: Vec<(String, String)> =
        serde_json::from_slice::<std::collections::BTreeMap<String, String>>(&text)?.into_iter().collect();
    let tools = platform.state().join("tools");
    fs::create_dir_all(&tools)?;
    for name in ["az", "casemate"] {
        let _ = fs::remove_file(tools.join(name));
        std::os::unix::fs::symlink(binary(), tools.join(name))?;
    }
    variables.push(("PATH".to_owned(), format!("{}:{}", tools.display(), std::env::var("PATH")?)));
    Ok(variables)
}

fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if began.elapsed() > PATIENCE {
            bail!("waited in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
