//! The store as storage clients see it: plain requests in, answers out, real files below.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use crate::{BlobConfig, BlobStore, Permissions};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use casemate_model::{Clock, Secret};
use futures_util::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use jiff::{SignedDuration, Timestamp};
use md5::{Digest, Md5};
use tempfile::TempDir;

const HOST: &str = "/acct.blob.core.casemate.internal";

struct Bench {
    store: BlobStore,
    dir: TempDir,
    /// Seconds added to the machine's clock.
    ahead: Arc<AtomicI64>,
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn code(&self) -> (u16, &str) {
        (self.status, self.header("x-ms-error-code"))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn ticking(ahead: &Arc<AtomicI64>) -> Clock {
    let ahead = Arc::clone(ahead);
    Clock::from_fn(move || Timestamp::now() + SignedDuration::from_secs(ahead.load(Ordering::SeqCst)))
}

fn open(dir: &TempDir, ahead: &Arc<AtomicI64>, config: BlobConfig) -> BlobStore {
    BlobStore::open_with(dir.path(), Secret::from("a key"), ticking(ahead), config).unwrap()
}

impl Bench {
    async fn new() -> Self {
        Self::with(BlobConfig { reserve_bytes: 0, ..BlobConfig::default() }).await
    }

    async fn with(config: BlobConfig) -> Self {
        let (dir, ahead) = (TempDir::new().unwrap(), Arc::new(AtomicI64::new(0)));
        let store = open(&dir, &ahead, config);
        store.container_create("box").await.unwrap();
        Self { store, dir, ahead }
    }

    async fn reopen(self) -> Self {
        let Self { store, dir, ahead } = self;
        drop(store);
        let store = open(&dir, &ahead, BlobConfig { reserve_bytes: 0, ..BlobConfig::default() });
        Self { store, dir, ahead }
    }

    fn sas(&self, directory: &str, permissions: Permissions) -> String {
        let query = self.store.sign("box", directory, permissions, Timestamp::now() + SignedDuration::from_hours(1));
        query.unwrap().expose_str().unwrap().to_owned()
    }

    /// `line` is `METHOD path?query`, below the account; the signature for everything is added.
    async fn call(&self, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let sas = self.sas("", Permissions::ALL);
        self.call_with(&sas, line, headers, Full::new(Bytes::copy_from_slice(body))).await
    }

    async fn call_with<B>(&self, sas: &str, line: &str, headers: &[(&str, &str)], body: B) -> Answer
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: std::fmt::Display,
    {
        let (method, path) = line.split_once(' ').unwrap();
        let joint = if path.contains('?') { '&' } else { '?' };
        let mut request = Request::builder().method(method).uri(format!("{HOST}{path}{joint}{sas}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(self.store.handle(request.body(body).unwrap()).await).await
    }

    async fn put(&self, name: &str, body: &[u8]) {
        let put = self.call(&format!("PUT /box/{name}"), &[("x-ms-blob-type", "BlockBlob")], body).await;
        assert_eq!(put.status, 201, "{name}: {}", put.text());
    }

    /// The names of all files below a room of the state directory.
    fn files(&self, room: &str) -> Vec<String> {
        fn walk(dir: &std::path::Path, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    walk(&entry.path(), found);
                } else {
                    found.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.dir.path().join(room), &mut found);
        found.sort();
        found
    }
}

async fn answer(response: Response<crate::Body>) -> Answer {
    let (parts, body) = response.into_parts();
    let headers = parts.headers.iter();
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    Answer { status: parts.status.as_u16(), headers, body }
}

fn md5_of(bytes: &[u8]) -> String {
    STANDARD.encode(Md5::digest(bytes))
}

fn block_id(number: u32) -> String {
    STANDARD.encode(format!("{number:08}"))
}

/// Base64 as a query carries it.
fn quoted(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[tokio::test]
async fn the_life_of_a_blob() {
    let bench = Bench::new().await;
    let missing = bench.call("HEAD /box/code/score.py", &[], b"").await;
    assert_eq!(missing.code(), (404, "BlobNotFound"));
    assert!(missing.body.is_empty());
    let missing = bench.call("GET /box/code/score.py", &[], b"").await;
    assert!(missing.text().starts_with("<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>BlobNotFound</Code>"));

    let put = bench
        .call(
            "PUT /box/code/score.py",
            &[
                ("x-ms-blob-type", "BlockBlob"),
                ("content-type", "text/x-python"),
                ("content-md5", &md5_of(b"0123456789")),
                ("if-none-match", "*"),
                ("x-ms-meta-name", "one"),
                ("x-ms-version", "2026-10-06"),
                ("x-ms-client-request-id", "abc"),
            ],
            b"0123456789",
        )
        .await;
    assert_eq!(put.status, 201, "{}", put.text());
    assert_eq!(put.header("x-ms-version"), "2026-10-06");
    assert_eq!(put.header("x-ms-client-request-id"), "abc");
    assert!(!put.header("x-ms-request-id").is_empty());

    let head = bench.call("HEAD /box/code/score.py", &[], b"").await;
    for (name, value) in [
        ("content-length", "10"),
        ("content-type", "text/x-python"),
        ("content-md5", &md5_of(b"0123456789")),
        ("x-ms-meta-name", "one"),
        ("x-ms-blob-type", "BlockBlob"),
        ("etag", put.header("etag")),
        ("last-modified", put.header("last-modified")),
    ] {
        assert_eq!(head.header(name), value, "{name}");
    }
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(bench.call("GET /box/code/score.py", &[], b"").await.body, b"0123456789");
    assert_eq!(std::fs::read(bench.store.local_path("box", "code/score.py").unwrap()).unwrap(), b"0123456789");

    let metadata = [("x-ms-meta-upload_status", "completed"), ("x-ms-meta-version", "7")];
    let set = bench.call("PUT /box/code/score.py?comp=metadata", &metadata, b"").await;
    assert_eq!(set.status, 200);
    assert_ne!(set.header("etag"), put.header("etag"));
    let bench = bench.reopen().await;
    let head = bench.call("HEAD /box/code/score.py", &[], b"").await;
    assert_eq!(head.header("x-ms-meta-upload_status"), "completed");
    assert_eq!(head.header("x-ms-meta-version"), "7");
    assert_eq!(head.header("x-ms-meta-name"), "");
    assert_eq!(head.header("content-type"), "text/x-python");
    assert_eq!(head.header("etag"), set.header("etag"));

    assert_eq!(bench.call("DELETE /box/code/score.py", &[], b"").await.status, 202);
    assert_eq!(bench.call("DELETE /box/code/score.py", &[], b"").await.code(), (404, "BlobNotFound"));
    assert!(bench.files("data").is_empty() && bench.files("properties").is_empty());
}

#[tokio::test]
async fn overwriting_forgets_the_old_metadata() {
    let bench = Bench::new().await;
    let headers = [("x-ms-blob-type", "BlockBlob"), ("x-ms-meta-upload_status", "completed")];
    assert_eq!(bench.call("PUT /box/a", &headers, b"old").await.status, 201);
    // As if the platform had been killed between the new bytes and their properties.
    std::fs::write(bench.store.local_path("box", "a").unwrap(), b"newer").unwrap();
    assert_eq!(bench.call("HEAD /box/a", &[], b"").await.header("x-ms-meta-upload_status"), "");
    bench.put("a", b"newest").await;
    assert_eq!(bench.call("HEAD /box/a", &[], b"").await.header("x-ms-meta-upload_status"), "");
}

#[tokio::test]
async fn ranges() {
    let bench = Bench::new().await;
    bench.put("ten", b"0123456789").await;
    bench.put("none", b"").await;
    for (name, header, value, status, body, range) in [
        ("ten", "range", "bytes=2-4", 206, "234", "bytes 2-4/10"),
        ("ten", "x-ms-range", "bytes=0-33554431", 206, "0123456789", "bytes 0-9/10"),
        ("ten", "range", "bytes=8-", 206, "89", "bytes 8-9/10"),
        ("ten", "range", "bytes=-3", 206, "789", "bytes 7-9/10"),
        ("ten", "range", "bytes=10-", 416, "", ""),
        ("none", "x-ms-range", "bytes=0-10", 416, "", ""),
        ("ten", "range", "lines=1-2", 400, "", ""),
        ("ten", "range", "bytes=x-2", 400, "", ""),
    ] {
        let got = bench.call(&format!("GET /box/{name}"), &[(header, value)], b"").await;
        assert_eq!(got.status, status, "{value}");
        assert_eq!(got.header("content-range"), range, "{value}");
        if status == 206 {
            assert_eq!(got.text(), body, "{value}");
        }
    }
    assert_eq!(bench.call("GET /box/none", &[], b"").await.status, 200);
}

#[tokio::test]
async fn conditions() {
    let bench = Bench::new().await;
    bench.put("a", b"1").await;
    let etag = bench.call("HEAD /box/a", &[], b"").await.header("etag").to_owned();
    for (line, name, value, code) in [
        ("PUT /box/a", "if-none-match", "*", (409, "BlobAlreadyExists")),
        ("PUT /box/a", "if-match", "\"0x1\"", (412, "ConditionNotMet")),
        ("PUT /box/b", "if-match", "*", (412, "ConditionNotMet")),
        ("GET /box/a", "if-match", "\"0x1\"", (412, "ConditionNotMet")),
        ("GET /box/a", "if-none-match", etag.as_str(), (304, "ConditionNotMet")),
        ("DELETE /box/a", "if-match", "\"0x1\"", (412, "ConditionNotMet")),
        ("PUT /box/a?comp=metadata", "if-match", "\"0x1\"", (412, "ConditionNotMet")),
        ("GET /box/a", "if-modified-since", "nonsense", (400, "InvalidHeaderValue")),
        ("GET /box/a", "if-modified-since", "Fri, 31 Dec 2100 00:00:00 GMT", (304, "ConditionNotMet")),
        ("GET /box/a", "if-unmodified-since", "Fri, 31 Dec 1999 00:00:00 GMT", (412, "ConditionNotMet")),
        ("GET /box/a", "if-match", etag.as_str(), (200, "")),
        ("PUT /box/a", "if-match", etag.as_str(), (201, "")),
        ("PUT /box/b", "if-none-match", "*", (201, "")),
    ] {
        let got = bench.call(line, &[("x-ms-blob-type", "BlockBlob"), (name, value)], b"2").await;
        assert_eq!(got.code(), code, "{line} {name}: {value}");
    }
}

#[tokio::test]
async fn blocks_in_any_order_and_over_a_restart() {
    let bench = Bench::new().await;
    let list = |ids: &[(&str, u32)]| {
        let ids: String = ids.iter().map(|(tag, id)| format!("<{tag}>{}</{tag}>", block_id(*id))).collect();
        format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{ids}</BlockList>")
    };
    for (id, bytes) in [(2, "cc"), (0, "aaa"), (1, "b"), (9, "unused")] {
        let line = format!("PUT /box/big?comp=block&blockid={}", quoted(&block_id(id)));
        let put = bench.call(&line, &[("content-md5", &md5_of(bytes.as_bytes()))], bytes.as_bytes()).await;
        assert_eq!(put.status, 201, "{}", put.text());
    }
    assert_eq!(bench.call("HEAD /box/big", &[], b"").await.status, 404);
    let bench = bench.reopen().await;
    let staged = bench.call("GET /box/big?comp=blocklist&blocklisttype=all", &[], b"").await.text();
    assert!(staged.contains(&format!("<Name>{}</Name><Size>3</Size>", block_id(0))), "{staged}");

    let unknown = bench.call("PUT /box/big?comp=blocklist", &[], list(&[("Latest", 5)]).as_bytes()).await;
    assert_eq!(unknown.code(), (400, "InvalidBlockList"));
    let committed = list(&[("Latest", 0), ("Uncommitted", 1), ("Latest", 2)]);
    let headers = [("content-type", "application/xml"), ("x-ms-blob-content-type", "text/plain")];
    let put = bench.call("PUT /box/big?comp=blocklist", &headers, committed.as_bytes()).await;
    assert_eq!(put.status, 201, "{}", put.text());
    let got = bench.call("GET /box/big", &[], b"").await;
    assert_eq!((got.text().as_str(), got.header("content-type")), ("aaabcc", "text/plain"));
    assert!(bench.files("staging").is_empty() && bench.files("uploads").is_empty());

    // Committed blocks may be used again, beside new ones.
    let line = format!("PUT /box/big?comp=block&blockid={}", quoted(&block_id(3)));
    bench.call(&line, &[], b"dd").await;
    let again = list(&[("Committed", 2), ("Latest", 3), ("Committed", 0)]);
    assert_eq!(bench.call("PUT /box/big?comp=blocklist", &[], again.as_bytes()).await.status, 201);
    assert_eq!(bench.call("GET /box/big", &[], b"").await.text(), "ccddaaa");
    let gone = list(&[("Committed", 1)]);
    assert_eq!(bench.call("PUT /box/big?comp=blocklist", &[], gone.as_bytes()).await.code(), (400, "InvalidBlockList"));
    let shown = bench.call("GET /box/big?comp=blocklist", &[], b"").await.text();
    assert_eq!(shown.matches("<Block>").count(), 3, "{shown}");
}

#[tokio::test]
async fn uncommitted_blocks_go_after_seven_days() {
    let bench = Bench::new().await;
    let line = format!("PUT /box/big?comp=block&blockid={}", quoted(&block_id(0)));
    bench.call(&line, &[], b"aaa").await;
    bench.ahead.store(6 * 24 * 3600, Ordering::SeqCst);
    assert_eq!(bench.store.sweep().await.unwrap().blocks, 0);
    bench.ahead.store(8 * 24 * 3600, Ordering::SeqCst);
    assert_eq!(bench.store.sweep().await.unwrap().blocks, 1);
    assert!(bench.files("staging").is_empty());
}

#[tokio::test]
async fn listings() {
    let bench = Bench::new().await;
    for name in ["a/1", "a/2", "a/b/3", "ab", "b%20&%3Cc%3E", "z"] {
        bench.put(name, b"x").await;
    }
    bench.call("PUT /box/z?comp=metadata", &[("x-ms-meta-k", "v")], b"").await;
    let names = |text: &str| -> Vec<String> {
        text.split("<Name>").skip(1).map(|rest| rest.split("</Name>").next().unwrap().to_owned()).collect()
    };
    for (query, expected) in [
        ("", vec!["a/1", "a/2", "a/b/3", "ab", "b &amp;&lt;c&gt;", "z"]),
        ("&prefix=a", vec!["a/1", "a/2", "a/b/3", "ab"]),
        ("&prefix=a/", vec!["a/1", "a/2", "a/b/3"]),
        ("&prefix=a/&delimiter=/", vec!["a/1", "a/2", "a/b/"]),
        ("&delimiter=/", vec!["a/", "ab", "b &amp;&lt;c&gt;", "z"]),
        ("&prefix=nope/", vec![]),
        ("&prefix=../", vec![]),
        ("&prefix=/etc/", vec![]),
        ("&maxresults=2&marker=a/2", vec!["a/b/3", "ab"]),
    ] {
        let got = bench.call(&format!("GET /box?restype=container&comp=list{query}"), &[], b"").await;
        assert_eq!(got.status, 200, "{query}: {}", got.text());
        assert_eq!(names(&got.text()), expected, "{query}");
    }
    let mut paged = Vec::new();
    let mut marker = String::new();
    loop {
        let line = format!("GET /box?restype=container&comp=list&maxresults=2&marker={}", quoted(&marker));
        let text = bench.call(&line, &[], b"").await.text();
        paged.extend(names(&text));
        marker = text.split("<NextMarker>").nth(1).unwrap().split('<').next().unwrap().replace("&amp;", "&");
        if marker.is_empty() {
            break;
        }
        assert!(paged.len() < 20);
    }
    assert_eq!(paged.len(), 6);
    let with = bench.call("GET /box?restype=container&comp=list&include=metadata&prefix=z", &[], b"").await.text();
    assert!(with.contains("<Metadata><k>v</k></Metadata>"), "{with}");
    assert!(with.contains("<Content-Length>1</Content-Length>"), "{with}");
    let listed = bench.store.list("box", "a/", 10).await.unwrap();
    assert_eq!(listed.iter().map(|blob| blob.name.as_str()).collect::<Vec<_>>(), ["a/1", "a/2", "a/b/3"]);
    assert_eq!(bench.store.remove_prefix("box", "a").await.unwrap(), 3);
    assert_eq!(bench.store.list("box", "", 10).await.unwrap().len(), 3);
    bench.store.container_remove("box").await.unwrap();
    assert_eq!(bench.call("GET /box?restype=container&comp=list", &[], b"").await.code(), (404, "ContainerNotFound"));
}

#[tokio::test]
async fn a_directory_signature_stays_in_its_directory() {
    let bench = Bench::new().await;
    for name in ["m/1", "mm/2", "n"] {
        bench.put(name, b"x").await;
    }
    let sas = bench.sas("m", Permissions::READ);
    for (line, code) in [
        ("GET /box/m/1", (200, "")),
        ("GET /box/mm/2", (403, "AuthenticationFailed")),
        ("GET /box/n", (403, "AuthenticationFailed")),
        ("PUT /box/m/1", (403, "AuthorizationPermissionMismatch")),
        ("DELETE /box/m/1", (403, "AuthorizationPermissionMismatch")),
        ("PUT /box?restype=container", (403, "AuthenticationFailed")),
        ("GET /box?restype=container&comp=list", (403, "AuthenticationFailed")),
    ] {
        let headers = [("x-ms-blob-type", "BlockBlob")];
        assert_eq!(bench.call_with(&sas, line, &headers, Full::from("y")).await.code(), code, "{line}");
    }
    let listed = bench.call_with(&sas, "GET /box?restype=container&comp=list&prefix=m", &[], Full::from("")).await;
    assert!(listed.text().contains("m/1") && !listed.text().contains("mm/2"), "{}", listed.text());
    let create = Permissions { create: true, ..Permissions::default() };
    let sas = bench.sas("", create);
    let headers = [("x-ms-blob-type", "BlockBlob")];
    assert_eq!(bench.call_with(&sas, "PUT /box/new", &headers, Full::from("y")).await.status, 201);
    assert_eq!(bench.call_with(&sas, "PUT /box/new", &headers, Full::from("z")).await.status, 403);
    bench.ahead.store(2 * 3600, Ordering::SeqCst);
    let sas = bench.sas("", Permissions::ALL);
    assert_eq!(bench.call_with(&sas, "GET /box/n", &[], Full::from("")).await.code(), (403, "AuthenticationFailed"));
}

#[tokio::test]
async fn containers() {
    let bench = Bench::new().await;
    let again = bench.call("PUT /box?restype=container", &[], b"").await;
    assert_eq!(again.code(), (409, "ContainerAlreadyExists"));
    assert_eq!(bench.call("HEAD /box?restype=container", &[], b"").await.status, 200);
    let sas =
        bench.store.sign("other", "", Permissions::ALL, Timestamp::now() + SignedDuration::from_hours(1)).unwrap();
    let sas = sas.expose_str().unwrap();
    let get = |line: &'static str| bench.call_with(sas, line, &[], Full::from(""));
    assert_eq!(get("GET /other/x").await.code(), (404, "ContainerNotFound"));
    assert_eq!(get("GET /other?restype=container").await.code(), (404, "ContainerNotFound"));
    assert_eq!(get("PUT /other?restype=container").await.status, 201);
    assert_eq!(get("GET /other/x").await.code(), (404, "BlobNotFound"));
}

#[tokio::test]
async fn bad_requests_are_refused_and_nothing_is_written() {
    let bench = Bench::new().await;
    bench.put("file", b"x").await;
    let long = format!("PUT /box/{}", "x".repeat(300));
    let block = ("x-ms-blob-type", "BlockBlob");
    for (line, headers, code) in [
        ("PUT /box/a", vec![], (400, "InvalidHeaderValue")),
        ("PUT /box/a", vec![("x-ms-blob-type", "PageBlob")], (400, "InvalidHeaderValue")),
        ("PUT /box/a", vec![block, ("content-md5", "bm90IG1kNQ==")], (400, "InvalidMd5")),
        ("PUT /box/a", vec![block, ("content-md5", &md5_of(b"other"))], (400, "Md5Mismatch")),
        ("PUT /box/a", vec![block, ("x-ms-content-crc64", "AAAAAAAAAAA=")], (400, "Crc64Mismatch")),
        ("PUT /box/a", vec![block, ("x-ms-structured-body", "XSM/1.0")], (400, "InvalidHeaderValue")),
        ("PUT /box/a", vec![block, ("content-length", "99999999999999")], (413, "RequestBodyTooLarge")),
        ("PUT /box/a", vec![block, ("content-length", "many")], (400, "InvalidHeaderValue")),
        ("PUT /box/a", vec![block, ("x-ms-copy-source", "https://x")], (501, "NotImplemented")),
        ("PUT /box/a?comp=lease", vec![block], (501, "NotImplemented")),
        ("POST /box/a", vec![], (501, "NotImplemented")),
        ("PUT /box/../a", vec![block], (400, "InvalidResourceName")),
        ("PUT /box/%2e%2e/a", vec![block], (400, "InvalidResourceName")),
        ("PUT /box/..%2fa", vec![block], (400, "InvalidResourceName")),
        ("PUT /box//etc/passwd", vec![block], (400, "InvalidResourceName")),
        ("PUT /box/a%00", vec![block], (400, "InvalidResourceName")),
        ("PUT /BOX/a", vec![block], (400, "InvalidResourceName")),
        (long.as_str(), vec![block], (400, "InvalidResourceName")),
        ("PUT /box/file/below", vec![block], (409, "ResourceTypeMismatch")),
        ("GET /box/file/below", vec![], (404, "BlobNotFound")),
        ("PUT /box/a?comp=block&blockid=%21", vec![], (400, "InvalidQueryParameterValue")),
        ("PUT /box/a?comp=block", vec![], (400, "InvalidQueryParameterValue")),
        ("PUT /box/a?comp=blocklist", vec![], (400, "InvalidXmlDocument")),
        ("GET /box/a?comp=blocklist&blocklisttype=odd", vec![], (400, "InvalidQueryParameterValue")),
        ("GET /box?restype=container&comp=list&maxresults=0", vec![], (400, "InvalidQueryParameterValue")),
        ("GET /box?restype=account&comp=properties", vec![], (501, "NotImplemented")),
        ("GET /box/file?sp=r", vec![], (400, "InvalidQueryParameterValue")),
    ] {
        let got = bench.call(line, &headers, b"hello").await;
        assert_eq!(got.code(), code, "{line} {headers:?}: {}", got.text());
        if !line.starts_with("HEAD") {
            assert!(got.text().contains(&format!("<Code>{}</Code>", code.1)), "{line}");
        }
    }
    assert_eq!(bench.files("data"), ["file"]);
    assert!(bench.files("uploads").is_empty() && bench.files("staging").is_empty());
    let unsigned = bench.call_with("", "GET /box/file", &[], Full::from("")).await;
    assert_eq!(unsigned.code(), (401, "NoAuthenticationInformation"));
}

#[tokio::test]
async fn a_directory_is_no_blob() {
    let bench = Bench::new().await;
    bench.put("dir/file", b"x").await;
    // Clients ask both ways before they list a directory.
    for line in ["GET /box/dir", "GET /box/dir/", "HEAD /box/dir/"] {
        assert_eq!(bench.call(line, &[], b"").await.code(), (404, "BlobNotFound"), "{line}");
    }
    let slashed = bench.call("PUT /box/other/", &[("x-ms-blob-type", "BlockBlob")], b"y").await;
    assert_eq!(slashed.code(), (400, "InvalidResourceName"));
    let over = bench.call("PUT /box/dir", &[("x-ms-blob-type", "BlockBlob")], b"y").await;
    assert_eq!(over.code(), (409, "ResourceTypeMismatch"));
    assert_eq!(bench.call("DELETE /box/dir", &[], b"").await.code(), (404, "BlobNotFound"));
    assert_eq!(bench.call("GET /box/dir/file", &[], b"").await.text(), "x");
}

#[tokio::test]
async fn an_upload_cut_off_midway_leaves_nothing() {
    let bench =
        Bench::with(BlobConfig { reserve_bytes: 0, upload_idle: Duration::from_millis(200), ..BlobConfig::default() })
            .await;
    bench.put("a", b"old").await;
    let sas = bench.sas("", Permissions::ALL);
    let first = || Ok(Frame::data(Bytes::from(vec![b'x'; 3 << 20])));
    let broken = stream::iter([first(), Err(io::Error::other("connection reset"))]);
    let short = stream::iter([Ok::<_, io::Error>(Frame::data(Bytes::from("few")))]);
    let stalled = stream::iter([first()]).chain(stream::pending());
    let headers = [("x-ms-blob-type", "BlockBlob"), ("content-length", "9000000")];
    let got = bench.call_with(&sas, "PUT /box/a", &headers, StreamBody::new(broken)).await;
    assert_eq!(got.code(), (400, "InvalidInput"));
    let got = bench.call_with(&sas, "PUT /box/a", &headers, StreamBody::new(short)).await;
    assert_eq!(got.code(), (400, "InvalidInput"));
    let got = bench.call_with(&sas, "PUT /box/a", &headers, StreamBody::new(stalled)).await;
    assert_eq!(got.code(), (408, "OperationTimedOut"));
    // A client that goes away cancels the handler itself.
    let endless = StreamBody::new(stream::iter([first()]).chain(stream::pending()));
    let cancelled = bench.call_with(&sas, "PUT /box/a", &headers, endless);
    assert!(tokio::time::timeout(Duration::from_millis(100), cancelled).await.is_err());

    assert_eq!(bench.call("GET /box/a", &[], b"").await.text(), "old");
    for _ in 0..100 {
        if bench.files("uploads").is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("left over: {:?}", bench.files("uploads"));
}

#[tokio::test]
async fn a_large_upload_is_not_held_in_memory() {
    let bench = Bench::new().await;
    let sas = bench.sas("", Permissions::ALL);
    let before = peak_memory();
    let pieces = (0..192_u32).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![7_u8; 1 << 20]))));
    let headers = [("x-ms-blob-type", "BlockBlob")];
    let got = bench.call_with(&sas, "PUT /box/large", &headers, StreamBody::new(stream::iter(pieces))).await;
    assert_eq!(got.status, 201, "{}", got.text());
    let request = Request::get(format!("{HOST}/box/large?{sas}")).body(Full::<Bytes>::default()).unwrap();
    let mut body = bench.store.handle(request).await.into_body();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        size += frame.unwrap().into_data().unwrap().len();
    }
    assert_eq!(size, 192 << 20);
    let grown = peak_memory() - before;
    assert!(grown < 64 << 10, "192 MiB through the store took {grown} KiB of memory");
}

/// The largest resident size so far, in KiB.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    let bench = Bench::with(BlobConfig { reserve_bytes: u64::MAX, ..BlobConfig::default() }).await;
    let put = bench.call("PUT /box/a", &[("x-ms-blob-type", "BlockBlob")], b"x").await;
    assert_eq!(put.code(), (StatusCode::INSUFFICIENT_STORAGE.as_u16(), "InsufficientStorage"));
    assert!(put.text().contains("disk is full"), "{}", put.text());
    let bench = bench.reopen().await;
    bench.put("a", b"x").await;
}

#[tokio::test]
async fn limits_are_kept_without_a_content_length() {
    let bench =
        Bench::with(BlobConfig { reserve_bytes: 0, max_blob_bytes: 10, max_block_bytes: 8, ..BlobConfig::default() })
            .await;
    let sas = bench.sas("", Permissions::ALL);
    let headers = [("x-ms-blob-type", "BlockBlob")];
    for (line, size, code) in [
        ("PUT /box/a", 10, (201, "")),
        ("PUT /box/a", 11, (413, "RequestBodyTooLarge")),
        ("PUT /box/b?comp=block&blockid=MDA%3D", 8, (201, "")),
        ("PUT /box/b?comp=block&blockid=MDA%3D", 9, (413, "RequestBodyTooLarge")),
    ] {
        let body = StreamBody::new(stream::iter((0..size).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from("x"))))));
        assert_eq!(bench.call_with(&sas, line, &headers, body).await.code(), code, "{line} {size}");
    }
    let twice = b"<BlockList><Latest>MDA=</Latest><Latest>MDA=</Latest></BlockList>";
    assert_eq!(bench.call("PUT /box/b?comp=blocklist", &[], twice).await.code(), (413, "RequestBodyTooLarge"));
}

#[tokio::test]
async fn a_checked_crc64_is_accepted() {
    let bench = Bench::new().await;
    // The published check value of CRC-64/NVME for "123456789" is 0xae8b14860a799888.
    let crc = STANDARD.encode(0xae8b_1486_0a79_9888_u64.to_le_bytes());
    let headers = [("x-ms-blob-type", "BlockBlob"), ("x-ms-content-crc64", crc.as_str())];
    let put = bench.call("PUT /box/a", &headers, b"123456789").await;
    assert_eq!(put.status, 201, "{}", put.text());
}
