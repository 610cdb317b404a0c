//! Certificates of endpoints from a real ACME authority, Pebble, proven by each kind of challenge: the platform's own
//! plain port, TLS port and DNS server answer, and `openssl` looks at what is served.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use casemate_testkit::Platform;
use serde_json::json;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);
const HOST: &str = "sample.local.inference.casemate.internal";

/// Ports that are chosen before the platform and Pebble start, since each has to be told those of the other.
struct Ports {
    http: SocketAddr,
    dns: SocketAddr,
    acme: SocketAddr,
    management: SocketAddr,
}

impl Ports {
    fn free() -> Result<Self> {
        let listen = || TcpListener::bind("127.0.0.1:0");
        // Held together, so that they differ.
        let (http, dns, acme, management) = (listen()?, listen()?, listen()?, listen()?);
        Ok(Self {
            http: http.local_addr()?,
            dns: dns.local_addr()?,
            acme: acme.local_addr()?,
            management: management.local_addr()?,
        })
    }
}

/// Pebble's files, and its process once it runs.
struct Pebble {
    files: TempDir,
    process: Option<Child>,
}

impl Pebble {
    fn new() -> Result<Self> {
        let files = tempfile::tempdir()?;
        let mut command = Command::new("openssl");
        command
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(files.path());
        said(&mut command)?;
        Ok(Self { files, process: None })
    }

    fn path(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    /// Starts it, to look for answers where the platform gives them.
    fn start(&mut self, ports: &Ports, platform: &Platform) -> Result<()> {
        let front_door: u16 = platform.url.rsplit(':').next().context("the address has a port")?.parse()?;
        let config = json!({"pebble": {
            "listenAddress": ports.acme.to_string(),
            "managementListenAddress": ports.management.to_string(),
            "certificate": self.path("cert.pem"),
            "privateKey": self.path("key.pem"),
            "httpPort": ports.http.port(),
            "tlsPort": front_door,
        }});
        fs::write(self.path("config.json"), config.to_string())?;
        let log = fs::File::create(self.path("log"))?;
        let process = Command::new("pebble")
            .args(["-config", &self.path("config.json"), "-strict", "-dnsserver", &ports.dns.to_string()])
            .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_AUTHZREUSE", "0")])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("Pebble can't start; `cargo xtask test` installs it")?;
        self.process = Some(process);
        until("Pebble listens", || Ok(TcpStream::connect(ports.management)?))?;
        let root = format!("https://localhost:{}/roots/0", ports.management.port());
        let mut command = Command::new("curl");
        command.args(["-sS", "--fail", "--noproxy", "*", "--cacert", &self.path("cert.pem")]);
        said(command.args(["-o", &self.path("root.pem"), &root])).map(drop)
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a program says that succeeds.
fn said(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(text)
}

/// Waits until `look` sees something; else says what it saw instead.
fn until<T>(what: &str, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match look() {
            Ok(seen) => return Ok(seen),
            Err(told) if start.elapsed() > PATIENCE => bail!("not in time: {what}; {told:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// What `openssl` says of the certificate that is served for `host`, when it comes from `root` and is for that name.
fn served(platform: &Platform, host: &str, root: &str) -> Result<String> {
    let address = platform.url.trim_start_matches("https://");
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", address, "-servername", host, "-verify_hostname", host]).args([
        "-CAfile",
        root,
        "-no-CApath",
        "-no-CAstore",
        "-verify_return_error",
    ]);
    said(&mut command).with_context(|| platform.log())
}

/// The fingerprint of the certificate, if it is in this state and by this issuer.
fn status(platform: &Platform, issuer: &str, state: &str) -> Result<String> {
    let told = platform.casemate(&format!("tls status --name {HOST} --query [0].[issuer,state,sha256] -o tsv"))?;
    let words: Vec<&str> = told.lines().collect();
    match words.as_slice() {
        [by, is, print] if *by == issuer && *is == state => Ok((*print).to_owned()),
        _ => bail!("{told}\n{}", platform.log()),
    }
}

fn proven_by(challenge: &str) -> Result<()> {
    let (ports, mut pebble) = (Ports::free()?, Pebble::new()?);
    let (http, dns) = (ports.http.to_string(), ports.dns.to_string());
    let directory = format!("https://localhost:{}/dir", ports.acme.port());
    let root_of_server = pebble.path("cert.pem");
    let mut platform = Platform::start_with(&[
        "--http-listen",
        &http,
        "--dns",
        &dns,
        "--acme-directory",
        &directory,
        "--acme-root",
        &root_of_server,
        "--acme-contact",
        "ops@example.org",
        "--acme-challenge",
        challenge,
    ])?;
    pebble.start(&ports, &platform)?;
    platform.workspace()?;
    platform.casemate("ml online-endpoint create -n sample")?;
    let server = format!("@{}", ports.dns.ip());
    let port = ports.dns.port().to_string();
    let address = said(Command::new("dig").args([&server, "-p", &port, "+short", HOST]))?;
    ensure!(address.trim() == "127.0.0.1", "{address}");
    let root = pebble.path("root.pem");
    let seen = until("the certificate is the authority's", || served(&platform, HOST, &root))?;
    ensure!(seen.contains("Pebble Intermediate CA"), "{seen}");
    let before = until("it is kept", || status(&platform, "acme localhost", "Ok"))?;
    platform.casemate(&format!("tls renew {HOST} --force"))?;
    let after = status(&platform, "acme localhost", "Ok")?;
    ensure!(before != after, "it is the same certificate: {before}");
    served(&platform, HOST, &root)?;
    // The platform's own names stay with the built-in authority, which the CLI trusts.
    platform.casemate("ml online-endpoint list")?;
    // After a crash the certificate is still there, and the authority is not needed for that.
    platform.kill()?;
    pebble.stop();
    platform.launch()?;
    until("it is served after a restart", || served(&platform, HOST, &root))?;
    let log = platform.log();
    ensure!(!log.contains("PRIVATE KEY"), "{log}");
    Ok(())
}

#[test]
fn a_certificate_proven_by_http() -> Result<()> {
    proven_by("http-01")
}

#[test]
fn a_certificate_proven_by_tls() -> Result<()> {
    proven_by("tls-alpn-01")
}

#[test]
fn a_certificate_proven_by_dns() -> Result<()> {
    proven_by("dns-01")
}

#[test]
fn an_authority_that_is_down_keeps_nobody_from_serving() -> Result<()> {
    let (ports, mut pebble) = (Ports::free()?, Pebble::new()?);
    let (dns, root_of_server) = (ports.dns.to_string(), pebble.path("cert.pem"));
    let directory = format!("https://localhost:{}/dir", ports.acme.port());
    let authority = ["--acme-directory", &directory, "--acme-root", &root_of_server];
    let platform =
        Platform::start_with(&[&authority[..], &["--acme-challenge", "tls-alpn-01", "--dns", &dns]].concat())?;
    platform.workspace()?;
    platform.casemate("ml online-endpoint create -n sample")?;
    let root = platform.state().join("ca.pem").display().to_string();
    until("the built-in authority stands in", || served(&platform, HOST, &root))?;
    until("it says so", || status(&platform, "built-in", "Provisional"))?;
    let told = platform.casemate(&format!("tls status --name {HOST}"))?;
    ensure!(told.contains("no connection") && told.contains("--acme-directory"), "{told}");
    // The authority is there again.
    pebble.start(&ports, &platform)?;
    platform.casemate(&format!("tls renew {HOST} --force"))?;
    until("the certificate is the authority's", || status(&platform, "acme localhost", "Ok"))?;
    served(&platform, HOST, &pebble.path("root.pem"))?;
    Ok(())
}

#[test]
fn options_that_do_not_fit_together_are_told() -> Result<()> {
    let state = tempfile::tempdir()?;
    let key = state.path().join("key");
    fs::write(&key, "no key at all")?;
    let key = key.display().to_string();
    let directory = ["--acme-directory", "https://ca.example/dir"];
    for (options, told) in [
        (&["--acme-challenge", "http-01"][..], "--acme-directory"),
        (&[directory[0], "http://ca.example/dir"], "https://"),
        (&directory, "--http-listen"),
        (&[directory[0], directory[1], "--acme-challenge", "dns-01"], "--dns"),
        (&[directory[0], directory[1], "--acme-eab-kid", "k"], "--acme-eab-key-file"),
        (
            &[directory[0], directory[1], "--acme-challenge", "tls-alpn-01", "--acme-contact", "nobody"],
            "no mail address",
        ),
        (
            &[
                directory[0],
                directory[1],
                "--acme-challenge",
                "tls-alpn-01",
                "--acme-eab-kid",
                "k",
                "--acme-eab-key-file",
                &key,
            ],
            "not base64url",
        ),
    ] {
        let output = Command::new(casemate_testkit::binary())
            .args(["up", "--listen", "127.0.0.1:0", "--state"])
            .arg(state.path().join("state"))
            .args(options)
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains(told), "{options:?}: {said}");
    }
    Ok(())
}
