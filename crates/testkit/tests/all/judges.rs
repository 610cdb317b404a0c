//! The front door judged by others: testssl, sslscan and OpenSSL, against a live platform. Each of their findings that
//! matters is asserted by name, so that a judge that says nothing does not pass for one that is content.

use std::{
    collections::HashMap,
    fs,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use casemate_testkit::Platform;
use serde_json::Value;
use tempfile::TempDir;

/// The endpoint whose name is looked at.
const NAME: &str = "judged.local.inference.casemate.internal";
/// Longest time for one judge, in seconds: the machine may be busy, and testssl's whole programme is long.
const PATIENCE: u32 = 480;
const LONG_PATIENCE: u32 = 3600;
/// Longest time for one connection of a judge, in seconds.
const CONNECTION_PATIENCE: &str = "20";

fn is_long() -> bool {
    std::env::var_os("CASEMATE_TEST_LONG").is_some()
}

/// A platform with an endpoint, and a place for files.
struct Court {
    platform: Platform,
    files: TempDir,
}

impl Court {
    fn sit() -> Result<Self> {
        let (platform, files) = (Platform::start()?, tempfile::tempdir()?);
        platform.workspace()?;
        let endpoint = files.path().join("endpoint.yml");
        fs::write(&endpoint, "name: judged\nauth_mode: key\n")?;
        platform.casemate(&format!("ml online-endpoint create -n judged -f {}", endpoint.display()))?;
        Ok(Self { platform, files })
    }

    /// Address and port of the front door.
    fn address(&self) -> &str {
        self.platform.url.trim_start_matches("https://")
    }

    fn root(&self) -> String {
        self.platform.state().join("ca.pem").display().to_string()
    }

    fn file(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    /// Runs a judge, bounded in time, with nothing on its stdin; gives what it says.
    fn hear(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let patience = if is_long() { LONG_PATIENCE } else { PATIENCE };
        let output = Command::new("timeout")
            .args([&patience.to_string(), program])
            .args(arguments)
            .stdin(Stdio::null())
            .current_dir(self.files.path())
            .output()?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        ensure!(output.status.code() != Some(124), "{program} did not end in {patience} s:\n{said}");
        ensure!(output.status.code() != Some(127), "{program} is missing: `cargo xtask test` installs it");
        Ok(said)
    }
}

/// testssl's findings by id. The long form is its whole programme.
fn testssl(court: &Court) -> Result<HashMap<String, (String, String)>> {
    let (root, file) = (court.root(), court.file("testssl.json"));
    let port = court.address().rsplit(':').next().context("the address has a port")?;
    let target = format!("{NAME}:{port}");
    let bounds = ["--connect-timeout", CONNECTION_PATIENCE, "--openssl-timeout", CONNECTION_PATIENCE];
    let mut arguments = vec!["--quiet", "--color", "0", "--warnings", "batch", "-n", "none", "--ip", "127.0.0.1"];
    arguments.extend(["--add-ca", &root, "--jsonfile", &file]);
    arguments.extend(bounds);
    if !is_long() {
        arguments.extend(["-p", "-s", "-f", "-S", "-R", "-C"]);
    }
    arguments.push(&target);
    let said = court.hear("testssl", &arguments)?;
    let text = fs::read_to_string(&file).with_context(|| said.clone())?;
    let findings: Vec<Value> = serde_json::from_str(&text).with_context(|| said.clone())?;
    let part = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let entry = |finding: &Value| (part(finding, "id"), (part(finding, "severity"), part(finding, "finding")));
    Ok(findings.iter().map(entry).collect())
}

#[test]
fn testssl_finds_nothing_but_what_a_private_authority_lacks() -> Result<()> {
    let court = Court::sit()?;
    let found = testssl(&court)?;
    for (id, expected) in [
        ("SSLv2", "not offered"),
        ("SSLv3", "not offered"),
        ("TLS1", "not offered"),
        ("TLS1_1", "not offered"),
        ("TLS1_2", "offered"),
        ("TLS1_3", "offered"),
        ("ALPN_HTTP2", "h2"),
        ("ALPN", "http/1.1"),
        ("cipherlist_NULL", "not offered"),
        ("cipherlist_aNULL", "not offered"),
        ("cipherlist_EXPORT", "not offered"),
        ("cipherlist_LOW", "not offered"),
        ("cipherlist_3DES_IDEA", "not offered"),
        // Versions of testssl differ in two names.
        ("cipherlist_OBSOLETED|cipherlist_AVERAGE", "not offered"),
        ("cipherlist_STRONG", "offered"),
        ("FS|PFS", "offered"),
        ("secure_renego", "supported"),
        ("secure_client_renego", "not vulnerable"),
        ("CRIME_TLS", "not vulnerable"),
        ("cert_chain_of_trust", "passed"),
        ("cert_trust", "Ok via SAN"),
        ("cert_expirationStatus", "60 days"),
        ("cert_keySize", "EC 256 bits"),
        ("cert_signatureAlgorithm", "ECDSA with SHA256"),
        ("certs_countServer", "2"),
    ] {
        let (severity, finding) =
            id.split('|').find_map(|id| found.get(id)).with_context(|| format!("nothing of {id} in {found:?}"))?;
        // "not offered" holds "offered".
        let fits = finding.contains(expected) && (expected != "offered" || !finding.contains("not offered"));
        ensure!(fits, "{id}: {severity} {finding}");
    }
    // A private authority has no revocation service; a simulated old client that can't connect is as wanted.
    let allowed = |id: &str| id == "cert_revocation" || id.starts_with("clientsimulation-") || id.starts_with("HTTP_");
    let bad: Vec<_> = found
        .iter()
        .filter(|(id, (severity, _))| matches!(severity.as_str(), "MEDIUM" | "HIGH" | "CRITICAL") && !allowed(id))
        .collect();
    ensure!(bad.is_empty(), "{bad:?}");
    Ok(())
}

/// The attributes of each XML element of this name.
fn elements<'a>(xml: &'a str, name: &str) -> Vec<HashMap<&'a str, &'a str>> {
    let attributes = |text: &'a str| {
        let parts: Vec<&str> = text.split('>').next().unwrap_or_default().split('"').collect();
        parts.chunks_exact(2).map(|pair| (pair[0].trim().trim_end_matches('='), pair[1])).collect()
    };
    xml.split(&format!("<{name} ")).skip(1).map(attributes).collect()
}

#[test]
fn sslscan_finds_two_protocols_and_strong_suites_only() -> Result<()> {
    let court = Court::sit()?;
    let (file, name) = (court.file("sslscan.xml"), format!("--sni-name={NAME}"));
    let said = court.hear("sslscan", &["--no-colour", &format!("--xml={file}"), &name, court.address()])?;
    let xml = fs::read_to_string(&file).with_context(|| said.clone())?;
    let protocols = elements(&xml, "protocol");
    ensure!(protocols.len() == 6, "{said}");
    for protocol in &protocols {
        let wanted = protocol["type"] == "tls" && matches!(protocol["version"], "1.2" | "1.3");
        ensure!((protocol["enabled"] == "1") == wanted, "{protocol:?}");
    }
    let suites = elements(&xml, "cipher");
    ensure!(suites.len() >= 6, "{said}");
    for suite in &suites {
        let name = suite["cipher"];
        let has_forward_secrecy = suite["sslversion"] == "TLSv1.3" || name.starts_with("ECDHE-");
        let is_strong = name.contains("GCM") || name.contains("POLY1305");
        ensure!(has_forward_secrecy && is_strong && matches!(suite["strength"], "strong" | "acceptable"), "{suite:?}");
    }
    let renegotiation = elements(&xml, "renegotiation");
    ensure!(renegotiation.len() == 1 && renegotiation[0]["supported"] == "0", "{said}");
    let heartbleed = elements(&xml, "heartbleed");
    ensure!(!heartbleed.is_empty() && heartbleed.iter().all(|one| one["vulnerable"] == "0"), "{said}");
    for part in ["<expired>false", "<self-signed>false", "curve_name=\"prime256v1\"", NAME] {
        ensure!(xml.contains(part), "no {part} in {said}");
    }
    Ok(())
}

#[test]
fn openssl_accepts_what_is_meant_for_it_and_gets_a_clean_alert_else() -> Result<()> {
    let court = Court::sit()?;
    let root = court.root();
    let client = |name: &str, more: &[&str]| {
        let strict = ["-verify_return_error", "-x509_strict", "-verify_hostname", name, "-brief"];
        let mut arguments = vec!["s_client", "-connect", court.address(), "-servername", name, "-CAfile", &root];
        arguments.extend(strict);
        arguments.extend(more);
        court.hear("openssl", &arguments)
    };
    for (version, suite) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let said = client(NAME, &[version, "-alpn", "h2,http/1.1"])?;
        for part in
            ["Verification: OK", &format!("Protocol version: {suite}"), "Verified peername", "ALPN protocol: h2"]
        {
            ensure!(said.contains(part) || part.starts_with("ALPN"), "no '{part}' in:\n{said}");
        }
    }
    // Without -brief OpenSSL tells what was agreed on.
    for (offered, agreed) in [("h2,http/1.1", "ALPN protocol: h2"), ("http/1.1", "ALPN protocol: http/1.1")] {
        let arguments =
            ["s_client", "-connect", court.address(), "-servername", NAME, "-CAfile", &root, "-alpn", offered];
        let said = court.hear("openssl", &arguments)?;
        ensure!(said.contains(agreed) && said.contains("Verify return code: 0 (ok)"), "{said}");
        ensure!(said.matches(" s:").count() == 2, "the chain is not the leaf and its issuer:\n{said}");
    }
    for (name, more, alert) in [
        ("unknown.local.inference.casemate.internal", &[][..], "unrecognized name"),
        (NAME, &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], "handshake failure"),
        (NAME, &["-tls1_2", "-cipher", "AES128-SHA:ECDHE-ECDSA-AES128-SHA"], "handshake failure"),
        (NAME, &["-alpn", "acme-tls/1"], "unrecognized name"),
        (NAME, &["-alpn", "h2,acme-tls/1"], "no application protocol"),
        (NAME, &["-alpn", "spdy/3"], "no application protocol"),
    ] {
        let said = client(name, more)?;
        ensure!(said.contains(alert), "no '{alert}' for {name} {more:?} in:\n{said}");
    }
    Ok(())
}
