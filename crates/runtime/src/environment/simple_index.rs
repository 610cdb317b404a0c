//! Gets one wheel from a package index without pip: for hosts whose Python came without it.
//!
//! Speaks the index's JSON answers (PEP 691) only, takes no code from them, and checks what it gets by its hash. The
//! packages of an environment are never fetched here; that is the installer's work, inside the sandbox.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::digest;
use reqwest::{Certificate, Client, NoProxy, Proxy, Response, header::ACCEPT};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use url::Url;

use super::{
    index_settings::IndexSettings,
    mask::mask_urls,
    version::{compare, is_pep440, release_of},
};

pub(super) const JSON: &str = "application/vnd.pypi.simple.v1+json";
/// Largest index page read, in bytes.
const MAX_PAGE_BYTES: usize = 64 << 20;
/// Largest wheel taken, in bytes.
const MAX_WHEEL_BYTES: u64 = 256 << 20;
/// Longest time without a byte when nothing else is configured.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
pub(super) struct Page {
    pub files: Vec<File>,
}

#[derive(Deserialize)]
pub(super) struct File {
    filename: String,
    url: String,
    #[serde(default)]
    hashes: Hashes,
    #[serde(default)]
    yanked: serde_json::Value,
}

#[derive(Default, Deserialize)]
struct Hashes {
    sha256: Option<String>,
}

/// A wheel on the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wheel {
    pub filename: String,
    pub version: String,
    pub url: Url,
    sha256: String,
}

/// Fetches the newest wheel of `project` that `fits` (asked with the version) and that runs on this machine.
///
/// # Errors
/// A sentence for the log, without credentials.
pub(super) async fn fetch_wheel(
    settings: &IndexSettings,
    project: &str,
    fits: impl Fn(&str) -> bool,
    into: &Path,
) -> Result<PathBuf, String> {
    let mut reasons = Vec::new();
    let first = settings.index_url.as_deref().filter(|_| !settings.no_index);
    for index in first.into_iter().chain(settings.extra_index_urls.iter().map(String::as_str)) {
        match from_index(settings, index, project, &fits, into).await {
            Ok(file) => return Ok(file),
            Err(reason) => reasons.push(format!("{}: {reason}", mask_urls(index))),
        }
    }
    Err(if reasons.is_empty() {
        "no package index is configured, and only pip knows the default one; install pip (Debian: apt install python3-pip), \
         put uv on PATH, or set PIP_INDEX_URL"
            .to_owned()
    } else {
        reasons.join("; ")
    })
}

async fn from_index(
    settings: &IndexSettings,
    index: &str,
    project: &str,
    fits: &impl Fn(&str) -> bool,
    into: &Path,
) -> Result<PathBuf, String> {
    let page_url =
        Url::parse(&format!("{}/{project}/", index.trim_end_matches('/'))).map_err(|error| error.to_string())?;
    let client = client(settings, &page_url)?;
    let page = get(&client, page_url.clone(), Some(JSON)).await?;
    if !is_json(&page) {
        return Err("the index has no JSON pages".to_owned());
    }
    let answered_by = page.url().clone();
    let page: Page = serde_json::from_slice(&body(page).await?)
        .map_err(|error| format!("its page of {project} can't be read: {error}"))?;
    let wheels = page.files.into_iter().filter_map(|file| wheel(file, project, &answered_by));
    let fitting =
        wheels.filter(|wheel| fits(&wheel.version)).filter_map(|wheel| Some((platform_rank(&wheel.filename)?, wheel)));
    let best = fitting.max_by(|(rank_a, a), (rank_b, b)| {
        compare(&release_of(&a.version), &release_of(&b.version)).then(rank_a.cmp(rank_b))
    });
    let (_, mut wheel) = best.ok_or_else(|| format!("it has no wheel of {project} for this machine"))?;
    // Credentials count for the host that they were given for, and for no other.
    if wheel.url.host_str() == page_url.host_str() && wheel.url.username().is_empty() {
        let _ = wheel.url.set_username(page_url.username());
        let _ = wheel.url.set_password(page_url.password());
    }
    download(&client, &wheel, into).await
}

pub(super) fn client(settings: &IndexSettings, index: &Url) -> Result<Client, String> {
    let timeout = settings.timeout_seconds.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let mut builder = Client::builder().connect_timeout(timeout).read_timeout(timeout).no_proxy();
    let proxy =
        |names: [&str; 2]| names.iter().find_map(|name| settings.proxies.get(*name)).filter(|proxy| !proxy.is_empty());
    let exceptions = proxy(["NO_PROXY", "no_proxy"]).and_then(|list| NoProxy::from_string(list));
    let unusable = |error: reqwest::Error| mask_urls(&error.to_string());
    if let Some(address) = proxy(["HTTPS_PROXY", "https_proxy"]).or_else(|| proxy(["ALL_PROXY", "all_proxy"])) {
        builder = builder.proxy(Proxy::https(address).map_err(unusable)?.no_proxy(exceptions.clone()));
    }
    if let Some(address) = proxy(["HTTP_PROXY", "http_proxy"]).or_else(|| proxy(["ALL_PROXY", "all_proxy"])) {
        builder = builder.proxy(Proxy::http(address).map_err(unusable)?.no_proxy(exceptions));
    }
    if let Some(file) = &settings.certificates {
        let pem = std::fs::read(file)
            .map_err(|error| format!("the certificates in {} can't be read: {error}", file.display()))?;
        let certificates = Certificate::from_pem_bundle(&pem)
            .map_err(|error| format!("the certificates in {} can't be read: {error}", file.display()))?;
        builder = builder.tls_certs_only(certificates);
    }
    let host = index.host_str().unwrap_or_default();
    let with_port = index.port_or_known_default().map(|port| format!("{host}:{port}")).unwrap_or_default();
    if settings.trusted_hosts.iter().any(|trusted| trusted == host || *trusted == with_port) {
        builder = builder.tls_danger_accept_invalid_certs(true);
    }
    builder.build().map_err(unusable)
}

pub(super) async fn get(client: &Client, url: Url, accept: Option<&str>) -> Result<Response, String> {
    let mut request = client.get(url);
    if let Some(accept) = accept {
        request = request.header(ACCEPT, accept);
    }
    let response = request.send().await.map_err(|error| words_of(&error))?;
    let status = response.status();
    if status.is_success() { Ok(response) } else { Err(format!("it answered {status}")) }
}

pub(super) fn is_json(page: &Response) -> bool {
    page.headers().get("content-type").and_then(|kind| kind.to_str().ok()).is_some_and(|kind| kind.contains("json"))
}

/// An error with its causes, without credentials.
fn words_of(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    mask_urls(&words)
}

pub(super) async fn body(mut response: Response) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| words_of(&error))? {
        if bytes.len() + chunk.len() > MAX_PAGE_BYTES {
            return Err(format!("its page has more than {MAX_PAGE_BYTES} bytes"));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

async fn download(client: &Client, wheel: &Wheel, into: &Path) -> Result<PathBuf, String> {
    let failed = |error: std::io::Error| format!("{} can't be stored: {error}", wheel.filename);
    let path = into.join(&wheel.filename);
    let mut file = tokio::fs::File::create(&path).await.map_err(failed)?;
    let mut response = get(client, wheel.url.clone(), None).await?;
    let (mut hash, mut length) = (digest::Context::new(&digest::SHA256), 0_u64);
    while let Some(chunk) = response.chunk().await.map_err(|error| words_of(&error))? {
        length += chunk.len() as u64;
        if length > MAX_WHEEL_BYTES {
            return Err(format!("{} has more than {MAX_WHEEL_BYTES} bytes", wheel.filename));
        }
        hash.update(&chunk);
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    let found: String = hash.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    if found != wheel.sha256.to_ascii_lowercase() {
        return Err(format!("{} has the SHA-256 {found}, but the index says {}", wheel.filename, wheel.sha256));
    }
    Ok(path)
}

/// A file of the index page, if it is a wheel with a hash, a plain name and a final version.
pub(super) fn wheel(file: File, project: &str, page: &Url) -> Option<Wheel> {
    let yanked = !matches!(file.yanked, serde_json::Value::Null | serde_json::Value::Bool(false));
    let mut parts = file.filename.strip_suffix(".whl")?.split('-');
    let (name, version) = (parts.next()?, parts.next()?);
    let plain = file.filename.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b));
    let last = version.bytes().all(|b| b.is_ascii_digit() || b == b'.') && is_pep440(version);
    if yanked || !plain || !last || !name.eq_ignore_ascii_case(project) {
        return None;
    }
    let url = page.join(&file.url).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    Some(Wheel { version: version.to_owned(), url, sha256: file.hashes.sha256?, filename: file.filename })
}

/// How well a wheel of a program suits this machine; none when it doesn't run here.
pub(super) fn platform_rank(filename: &str) -> Option<u8> {
    let tags = filename.strip_suffix(".whl")?.rsplit('-').next()?;
    if tags == "any" {
        return Some(1);
    }
    let architecture = format!("_{}", std::env::consts::ARCH);
    let fits = |kind: &str| tags.split('.').any(|tag| tag.starts_with(kind) && tag.ends_with(&architecture));
    // A program linked to musl brings all it needs, so it runs on other systems too.
    let glibc = !Path::new("/lib")
        .read_dir()
        .ok()?
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("ld-musl-"));
    match (glibc && fits("manylinux"), fits("musllinux")) {
        (true, _) => Some(3),
        (false, true) => Some(2),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        sync::{Arc, Mutex},
    };

    use super::*;

    /// Answers each path with a body, and remembers the requests. Ends with the test's process.
    fn index(pages: Vec<(&'static str, &'static str, Vec<u8>)>) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://127.0.0.1:{}/simple", listener.local_addr().unwrap().port());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let remembered = Arc::clone(&heard);
        std::thread::spawn(move || {
            for mut peer in listener.incoming().flatten() {
                let mut request = Vec::new();
                let mut buffer = [0; 1024];
                while !request.ends_with(b"\r\n\r\n") {
                    let count = peer.read(&mut buffer).unwrap();
                    if count == 0 {
                        break;
                    }
                    request.extend_from_slice(&buffer[..count]);
                }
                let request = String::from_utf8(request).unwrap();
                let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                remembered.lock().unwrap().push(request);
                let page = pages.iter().find(|(known, ..)| *known == path);
                let (status, kind, body) = page
                    .map_or(("404 Not Found", "text/plain", Vec::new()), |(_, kind, body)| {
                        ("200 OK", *kind, body.clone())
                    });
                let head = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                peer.write_all(&[head.as_bytes(), &body].concat()).unwrap();
            }
        });
        (url, heard)
    }

    fn sha256(bytes: &[u8]) -> String {
        digest::digest(&digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn page(entries: &[(&str, &str, bool)]) -> Vec<u8> {
        let files: Vec<_> = entries
            .iter()
            .map(|(name, hash, yanked)| serde_json::json!({"filename": name, "url": format!("../../files/{name}"), "hashes": {"sha256": hash}, "yanked": yanked}))
            .collect();
        serde_json::json!({"meta": {"api-version": "1.1"}, "name": "tool", "files": files}).to_string().into_bytes()
    }

    fn settings(url: &str) -> IndexSettings {
        IndexSettings { index_url: Some(url.to_owned()), ..IndexSettings::default() }
    }

    #[tokio::test]
    async fn the_newest_fitting_wheel_is_taken_and_checked() {
        let content = b"a wheel".to_vec();
        let hash = sha256(&content);
        let entries = [
            ("tool-1.0-py3-none-any.whl", hash.as_str(), false),
            ("tool-1.10-py3-none-any.whl", hash.as_str(), false),
            ("tool-1.9-py3-none-any.whl", hash.as_str(), false),
            ("tool-1.11-py3-none-any.whl", hash.as_str(), true),
            ("tool-1.12-py3-none-win_amd64.whl", hash.as_str(), false),
            ("tool-1.13rc1-py3-none-any.whl", hash.as_str(), false),
            ("tool-2.0-py3-none-any.whl", hash.as_str(), false),
            ("tool-1.14.tar.gz", hash.as_str(), false),
        ];
        let (url, heard) = index(vec![
            ("/simple/tool/", JSON, page(&entries)),
            ("/files/tool-1.10-py3-none-any.whl", "application/zip", content.clone()),
        ]);
        let dir = tempfile::tempdir().unwrap();
        let with_login = url.replace("http://", "http://robot:pass-word@");
        let file =
            fetch_wheel(&settings(&with_login), "tool", |version| version.starts_with("1."), dir.path()).await.unwrap();
        assert_eq!(file.file_name().unwrap(), "tool-1.10-py3-none-any.whl");
        assert_eq!(std::fs::read(file).unwrap(), content);
        let heard = heard.lock().unwrap();
        assert_eq!(heard.len(), 2);
        assert!(heard.iter().all(|request| request.to_lowercase().contains("authorization: basic ")), "{heard:?}");
    }

    #[tokio::test]
    async fn what_goes_wrong_is_said_without_credentials() {
        let bad_hash = page(&[("tool-1.0-py3-none-any.whl", &"0".repeat(64), false)]);
        let other_machine = page(&[("tool-1.0-py3-none-win_amd64.whl", &"0".repeat(64), false)]);
        let cases = [
            (
                vec![
                    ("/simple/tool/", JSON, bad_hash),
                    ("/files/tool-1.0-py3-none-any.whl", "application/zip", b"x".to_vec()),
                ],
                "SHA-256",
            ),
            (vec![("/simple/tool/", JSON, other_machine)], "no wheel"),
            (vec![("/simple/tool/", "text/html", b"<a>".to_vec())], "no JSON"),
            (vec![("/simple/tool/", JSON, b"[]".to_vec())], "can't be read"),
            (vec![], "404"),
        ];
        for (pages, expected) in cases {
            let (url, _) = index(pages);
            let dir = tempfile::tempdir().unwrap();
            let with_login = url.replace("http://", "http://robot:pass-word@");
            let error = fetch_wheel(&settings(&with_login), "tool", |_| true, dir.path()).await.unwrap_err();
            assert!(error.contains(expected) && !error.contains("pass-word"), "{error}");
        }
        for none in
            [IndexSettings::default(), IndexSettings { no_index: true, ..settings("http://127.0.0.1:9/simple") }]
        {
            assert!(
                fetch_wheel(&none, "tool", |_| true, Path::new("/nonexistent"))
                    .await
                    .unwrap_err()
                    .contains("no package index")
            );
        }
    }

    #[tokio::test]
    async fn the_next_index_is_asked_when_one_has_nothing() {
        let content = b"a wheel".to_vec();
        let (empty, _) = index(vec![]);
        let (full, _) = index(vec![
            ("/simple/tool/", JSON, page(&[("tool-1.0-py3-none-any.whl", &sha256(&content), false)])),
            ("/files/tool-1.0-py3-none-any.whl", "application/zip", content),
        ]);
        let settings =
            IndexSettings { index_url: Some(empty), extra_index_urls: vec![full], ..IndexSettings::default() };
        let dir = tempfile::tempdir().unwrap();
        fetch_wheel(&settings, "tool", |_| true, dir.path()).await.unwrap();
    }

    #[test]
    fn platforms() {
        let here = std::env::consts::ARCH;
        let many = format!("uv-1.0-py3-none-manylinux_2_17_{here}.manylinux2014_{here}.whl");
        let musl = format!("uv-1.0-py3-none-musllinux_1_1_{here}.whl");
        assert!(platform_rank(&musl).is_some());
        assert!(platform_rank(&many) > platform_rank(&musl) || !Path::new("/lib64/ld-linux-x86-64.so.2").exists());
        for other in [
            "uv-1.0-py3-none-macosx_11_0_arm64.whl",
            "uv-1.0-py3-none-win32.whl",
            "uv-1.0-py3-none-manylinux_2_17_s390x.whl",
            "uv.tar.gz",
        ] {
            assert_eq!(platform_rank(other), None, "{other}");
        }
    }
}
