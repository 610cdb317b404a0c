//! The life of certificates, from outside: status, renewal, plan, check, the authority, kills, and where keys never are.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use casemate_testkit::{Platform, rest::Rest};
use reqwest::Method;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
/// The name of the endpoint that most of these are about.
const NAME: &str = "served.local.inference.casemate.internal";

/// A platform with one endpoint, which needs no deployment to have a certificate.
fn platform() -> Result<Platform> {
    let platform = Platform::start()?;
    platform.workspace()?;
    platform.casemate("ml online-endpoint create -n served")?;
    Ok(platform)
}

/// The SHA-256 fingerprint that a client of this name sees now.
fn shown(platform: &Platform, name: &str) -> Result<String> {
    let port = platform.url.rsplit(':').next().context("the address has a port")?;
    let mut client = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut read = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256"])
        .stdin(client.stdout.take().context("stdout is piped")?)
        .stderr(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = String::new();
    std::io::Read::read_to_string(&mut read.stdout.take().context("stdout is piped")?, &mut said)?;
    client.wait()?;
    ensure!(read.wait()?.success(), "no certificate is shown for {name}");
    let fingerprint = said.trim().rsplit('=').next().unwrap_or_default();
    Ok(fingerprint.replace(':', "").to_lowercase())
}

fn status(platform: &Platform, name: &str) -> Result<Value> {
    let found: Value = serde_json::from_str(&platform.casemate(&format!("tls status --name {name}"))?)?;
    Ok(found[0].clone())
}

fn json(platform: &Platform, line: &str) -> Result<Value> {
    Ok(serde_json::from_str(&platform.casemate(line)?)?)
}

#[test]
fn a_certificate_is_shown_renewed_and_left_alone() -> Result<()> {
    let platform = platform()?;
    let before = shown(&platform, NAME)?;
    let one = status(&platform, NAME)?;
    ensure!(one["sha256"] == before && one["state"] == "Ok" && one["issuer"] == "built-in", "{one}");
    let table = platform.casemate("tls status -o table")?;
    for name in [NAME, "localhost", "*.blob.core.casemate.internal"] {
        ensure!(table.contains(name), "{table}");
    }

    // Valid: left alone, and said until when. Forced: another, which is the one that clients see.
    let left = json(&platform, &format!("tls renew {NAME}"))?;
    ensure!(left["renewed"] == false && shown(&platform, NAME)? == before, "{left}");
    let plan = json(&platform, &format!("tls plan {NAME}"))?;
    ensure!(plan["present"]["sha256"] == before, "{plan}");
    let mut times = Vec::new();
    let mut last = before;
    for _ in 0..5 {
        let began = Instant::now();
        let renewed = json(&platform, &format!("tls renew {NAME} --force"))?;
        times.push(began.elapsed());
        let now = shown(&platform, NAME)?;
        ensure!(renewed["before"]["sha256"] == last && renewed["after"]["sha256"] == now, "{renewed}");
        ensure!(now != last, "the same certificate is shown after a renewal");
        last = now;
    }
    eprintln!("from the command's start to its end, with the new fingerprint served: {times:?}");
    ensure!(json(&platform, "tls renew localhost --force")?["after"]["served"] != false);

    let rest = Rest::new(&platform)?;
    let metrics = tokio::runtime::Runtime::new()?.block_on(async {
        let token = rest.token(&rest.owner, &rest.url).await?;
        rest.call(&token, Method::GET, "/metrics", None).await
    })?;
    let text = metrics.body.as_str().unwrap_or_default();
    for line in ["casemate_certificate_expiry_seconds{name=\"", "state=\"Ok\"} 1", "_issues_total"] {
        ensure!(text.contains(line), "{line} is not in\n{text}");
    }
    ensure!(text.contains(&format!("casemate_certificate_issues_total{{name=\"{NAME}\"}} 6")), "{text}");
    Ok(())
}

#[test]
fn the_authority_is_renewed_and_no_client_notices() -> Result<()> {
    let platform = platform()?;
    let old_root = fs::read(platform.state().join("ca.pem"))?;
    let first = json(&platform, "ca show")?;
    let before = shown(&platform, NAME)?;
    let rotated = json(&platform, "ca rotate")?;
    ensure!(rotated["before"]["sha256"] == first["intermediate"]["sha256"], "{rotated}");
    ensure!(shown(&platform, NAME)? == before, "what was issued before is served on");
    json(&platform, &format!("tls renew {NAME} --force"))?;

    let rotated = json(&platform, "ca rotate --root")?;
    ensure!(rotated["crossSigned"] == true, "{rotated}");
    let second = json(&platform, "ca show")?;
    ensure!(
        second["root"]["sha256"] != first["root"]["sha256"]
            && second["retiredRoots"][0]["sha256"] == first["root"]["sha256"]
    );
    let until = Instant::now() + PATIENCE;
    let both = platform.casemate("ca export")?;
    ensure!(both.matches("BEGIN CERTIFICATE").count() == 2, "{both}");
    while fs::read_to_string(platform.state().join("ca.pem"))?.trim() != both.trim() {
        ensure!(Instant::now() < until, "ca.pem does not hold both roots");
        std::thread::sleep(Duration::from_millis(20));
    }
    // The platform's own certificate comes from the new root, and clients that know only the old one or only the new one
    // go on.
    json(&platform, "tls renew localhost --force")?;
    let new_root = both.split_inclusive("-----END CERTIFICATE-----").next().context("there is one")?;
    let ask = |roots: &[u8]| -> Result<u16> {
        let root = reqwest::Certificate::from_pem(roots)?;
        let client = reqwest::Client::builder().tls_certs_only([root]).build()?;
        let url = format!("{}/metadata/endpoints?api-version=2022-09-01", platform.url);
        tokio::runtime::Runtime::new()?.block_on(async { Ok(client.get(url).send().await?.status().as_u16()) })
    };
    ensure!(ask(&old_root)? == 200 && ask(new_root.as_bytes())? == 200);
    // OpenSSL is the judge of many other clients.
    for (name, roots) in [("old", old_root.as_slice()), ("new", new_root.as_bytes())] {
        let file = platform.state().join(format!("{name}-root.pem"));
        fs::write(&file, roots)?;
        let curl = Command::new("curl")
            .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--noproxy", "*", "--cacert"])
            .arg(&file)
            .arg(format!("{}/metadata/endpoints?api-version=2022-09-01", platform.url))
            .output()?;
        ensure!(curl.stdout == b"200", "{name} root: {}", String::from_utf8_lossy(&curl.stderr));
    }
    Ok(())
}

#[test]
fn a_kill_in_the_middle_of_a_renewal_leaves_the_proven_certificate() -> Result<()> {
    let kills = if std::env::var_os("CASEMATE_TEST_LONG").is_some() { 50 } else { 8 };
    let mut platform = platform()?;
    for round in 0..kills {
        let before = shown(&platform, NAME)?;
        let mut renewing =
            platform.command(["tls", "renew", NAME, "--force"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(10 + 23 * round % 160));
        platform.kill()?;
        let _ = renewing.kill();
        renewing.wait()?;
        platform.launch()?;
        // What is shown was proven once: either the one before, or the one that the renewal brought.
        let at_once = shown(&platform, NAME)?;
        let until = Instant::now() + PATIENCE;
        let last = loop {
            let one = status(&platform, NAME)?;
            if one["state"] == "Ok" && one["sha256"] == shown(&platform, NAME)? {
                break one;
            }
            ensure!(Instant::now() < until, "round {round}: {one}\n{}", platform.log());
            std::thread::sleep(Duration::from_millis(50));
        };
        let known = [before.as_str(), last["sha256"].as_str().unwrap_or_default()].contains(&at_once.as_str());
        ensure!(known, "round {round}: {at_once} was neither {before} nor {last}");
        ensure!(last["failures"] == 0, "round {round}: {last}");
    }
    Ok(())
}

#[test]
fn rotations_under_requests_lose_none() -> Result<()> {
    let platform = platform()?;
    let root = reqwest::Certificate::from_pem(&fs::read(platform.state().join("ca.pem"))?)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let stop = tokio_util::sync::CancellationToken::new();
    let mut callers = tokio::task::JoinSet::new();
    let url = format!("{}/metadata/endpoints?api-version=2022-09-01", platform.url);
    for keep in [true, true, false, false] {
        let (root, url, stop) = (root.clone(), url.clone(), stop.clone());
        let call = async move {
            let idle = if keep { usize::MAX } else { 0 };
            let client = reqwest::Client::builder().tls_certs_only([root]).pool_max_idle_per_host(idle).build()?;
            let mut count = 0;
            while !stop.is_cancelled() {
                let answer = client.get(&url).send().await.with_context(|| format!("after {count} answers"))?;
                ensure!(answer.status() == 200, "{}", answer.status());
                answer.bytes().await?;
                count += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(count)
        };
        callers.spawn_on(call, runtime.handle());
    }
    for _ in 0..10 {
        json(&platform, "tls renew localhost --force")?;
    }
    stop.cancel();
    let counts: Vec<Result<i32>> = runtime.block_on(callers.join_all());
    let counts = counts.into_iter().collect::<Result<Vec<i32>>>()?;
    eprintln!("10 rotations under {counts:?} requests, none failed");
    Ok(())
}

#[test]
fn keys_are_nowhere_in_clear_and_bad_certificates_are_refused() -> Result<()> {
    let platform = platform()?;
    let dir = tempfile::tempdir()?;
    made(dir.path(), "good", "www.a.test")?;
    made(dir.path(), "other", "www.b.test")?;
    let path = |name: &str| dir.path().join(name).display().to_string();
    let check = |cert: &str, key: &str, cname: &str| {
        let line = ["tls", "check", "--cert", &path(cert), "--key", &path(key), "--cname", cname];
        platform.command(line).output()
    };
    let good = check("good.pem", "good.key", "www.a.test")?;
    ensure!(good.status.success(), "{}", String::from_utf8_lossy(&good.stderr));
    let said: Value = serde_json::from_slice(&good.stdout)?;
    ensure!(said["accepted"] == true && said["warnings"].as_array().is_some_and(|all| !all.is_empty()), "{said}");
    fs::write(dir.path().join("garbage.pem"), "no certificate")?;
    for (cert, key, cname, code) in [
        ("garbage.pem", "good.key", "www.a.test", "InvalidCertificate"),
        ("good.pem", "other.key", "www.a.test", "CertificateKeyMismatch"),
        ("good.pem", "good.key", "www.b.test", "CertificateNameMismatch"),
    ] {
        let refused = check(cert, key, cname)?;
        let said = String::from_utf8_lossy(&refused.stderr);
        ensure!(refused.status.code() == Some(1) && said.contains(code), "{code}: {said}");
    }
    let plan = json(&platform, &format!("tls plan {NAME} --cert {} --key {}", path("good.pem"), path("good.key")))?;
    ensure!(plan["findings"]["accepted"] == false, "another name: {plan}");

    // Neither what was checked nor what the platform made itself lies anywhere as it is.
    let mut wanted = vec!["PRIVATE KEY".to_owned()];
    for key in ["good.key", "other.key"] {
        let pem = fs::read_to_string(dir.path().join(key))?;
        wanted.push(pem.lines().nth(1).context("a key has a body")?.to_owned());
    }
    let log = platform.log();
    for text in &wanted {
        ensure!(!log.contains(text), "the log holds {text}");
    }
    for file in files(platform.state())? {
        let bytes = fs::read(&file).unwrap_or_default();
        for text in &wanted {
            let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
            ensure!(!found, "{} holds {text}", file.display());
        }
    }
    Ok(())
}

/// A self-signed certificate and its key.
fn made(dir: &Path, file: &str, name: &str) -> Result<()> {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", &format!("/CN={name}"), "-addext", &format!("subjectAltName=DNS:{name}")])
        .args(["-keyout", &format!("{file}.key"), "-out", &format!("{file}.pem")])
        .current_dir(dir)
        .output()?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

/// The files of a state directory, without what was downloaded.
fn files(dir: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_file() {
            found.push(entry.path());
        } else if kind.is_dir() && entry.file_name() != "cache" {
            found.extend(files(&entry.path())?);
        }
    }
    Ok(found)
}
