//! Certificates of endpoints from a real ACME authority, Pebble, proven by each kind of challenge: the platform's own
//! plain port, TLS port and DNS server answer, and `openssl` looks at what is served.

use std::{
    fmt::Display,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use casemate_testkit::Platform;
use serde_json::json;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(120);

/// Ports that are chosen before the platform and Pebble start, since each has to be told those of the other.
struct Ports {
    http: SocketAddr,
    dns: SocketAddr,
    acme: SocketAddr,
    management: SocketAddr,
}

impl Ports {
    fn free() -> Self {
        // Held together, so that they differ.
        let held = [(); 4].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [http, dns, acme, management] = held.map(|listener| listener.local_addr().unwrap());
        Self { http, dns, acme, management }
    }
}

/// Pebble's files, and its process once it runs.
struct Pebble {
    files: TempDir,
    process: Option<Child>,
}

impl Pebble {
    fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "cert.pem"])
            .current_dir(files.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { files, process: None }
    }

    fn path(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    /// Starts it, to look for answers where the platform gives them.
    fn start(&mut self, ports: &Ports, platform: &Platform) {
        let front_door: u16 = platform.url.rsplit(':').next().unwrap().parse().unwrap();
        let config = json!({"pebble": {
            "listenAddress": ports.acme.to_string(),
            "managementListenAddress": ports.management.to_string(),
            "certificate": self.path("cert.pem"),
            "privateKey": self.path("key.pem"),
            "httpPort": ports.http.port(),
            "tlsPort": front_door,
        }});
        fs::write(self.path("config.json"), config.to_string()).unwrap();
        let log = fs::File::create(self.path("log")).unwrap();
        let process = Command::new("pebble")
            .args(["-config", &self.path("config.json"), "-strict", "-dnsserver", &ports.dns.to_string()])
            .envs([("PEBBLE_VA_NOSLEEP", "1"), ("PEBBLE_AUTHZREUSE", "0")])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn();
        self.process = Some(process.expect("Pebble is there: `cargo xtask test` installs it"));
        until("Pebble listens", || TcpStream::connect(ports.management));
        let root = Command::new("curl")
            .args(["-sS", "--fail", "--noproxy", "*", "--cacert", &self.path("cert.pem")])
            .args(["-o", &self.path("root.pem"), &format!("https://localhost:{}/roots/0", ports.management.port())])
            .output()
            .unwrap();
        assert!(root.status.success(), "{}", String::from_utf8_lossy(&root.stderr));
    }
}

impl Pebble {
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

/// Waits until `look` sees something; else says what it saw instead.
fn until<T, E: Display>(what: &str, mut look: impl FnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(told) => assert!(start.elapsed() < PATIENCE, "not in time: {what}; {told}"),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What `openssl` says of the certificate that is served for `host`, when it comes from `root` and is for that name.
fn served(platform: &Platform, host: &str, root: &str) -> Result<String, String> {
    let address = platform.url.trim_start_matches("https://");
    let seen = Command::new("openssl")
        .args(["s_client", "-connect", address, "-servername", host, "-verify_hostname", host])
        .args(["-CAfile", root, "-no-CApath", "-no-CAstore", "-verify_return_error"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&seen.stdout).into_owned() + &String::from_utf8_lossy(&seen.stderr);
    if seen.status.success() { Ok(text) } else { Err(text) }
}

fn proven_by(challenge: &str) {
    let (ports, mut pebble) = (Ports::free(), Pebble::new());
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
    ])
    .unwrap();
    pebble.start(&ports, &platform);
    platform.workspace().unwrap();
    platform.casemate("ml online-endpoint create -n sample").unwrap();
    let host = "sample.local.inference.casemate.internal";
    let dig = Command::new("dig")
        .args([&format!("@{}", ports.dns.ip()), "-p", &ports.dns.port().to_string(), "+short", host])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&dig.stdout).trim(), "127.0.0.1");
    let root = pebble.path("root.pem");
    let seen = until("the certificate is the authority's", || {
        served(&platform, host, &root).map_err(|told| format!("{told}\n{}", platform.log()))
    });
    assert!(seen.contains("Pebble Intermediate CA"), "{seen}");
    // The platform's own names stay with the built-in authority, which the CLI trusts.
    platform.casemate("ml online-endpoint list").unwrap();
    // After a crash the certificate is still there, and Pebble is not needed for that.
    platform.kill().unwrap();
    pebble.stop();
    platform.launch().unwrap();
    until("it is served after a restart", || served(&platform, host, &root));
    let log = platform.log();
    assert!(!log.contains("PRIVATE KEY"), "{log}");
}

#[test]
fn a_certificate_proven_by_http() {
    proven_by("http-01");
}

#[test]
fn a_certificate_proven_by_tls() {
    proven_by("tls-alpn-01");
}

#[test]
fn a_certificate_proven_by_dns() {
    proven_by("dns-01");
}

#[test]
fn an_authority_that_is_down_keeps_nobody_from_serving() {
    let ports = Ports::free();
    let directory = format!("https://localhost:{}/dir", ports.acme.port());
    let platform = Platform::start_with(&["--acme-directory", &directory, "--acme-challenge", "tls-alpn-01"]).unwrap();
    platform.workspace().unwrap();
    platform.casemate("ml online-endpoint create -n sample").unwrap();
    let root = platform.state().join("ca.pem").display().to_string();
    let host = "sample.local.inference.casemate.internal";
    until("the built-in authority stands in", || served(&platform, host, &root));
}

#[test]
fn options_that_do_not_fit_together_are_told() {
    let state = tempfile::tempdir().unwrap();
    let key = state.path().join("key");
    fs::write(&key, "no key at all").unwrap();
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
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(told), "{options:?}: {said}");
    }
}
