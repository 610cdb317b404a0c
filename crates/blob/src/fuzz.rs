//! What must hold for whatever a storage client sends. The targets in `fuzz/` run these on raw bytes, the tests below
//! on generated texts; each panics when a promise is broken.

use std::{
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use casemate_model::{Clock, Secret};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use jiff::Timestamp;
use object_store::local::LocalFileSystem;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use quick_xml::{Reader, events::Event};
use tokio::runtime::Runtime;

use crate::{
    BlobConfig, BlobStore, Permissions,
    blocks::{Whence, parse_list},
    conditions::Conditions,
    content::Described,
    listing::Listing,
    name::{BlobName, ContainerName, Target},
    query::Query,
    sas::Signer,
    upload::Expected,
};

const HOST: &str = "/acct.blob.core.casemate.internal";

fn now() -> Timestamp {
    Timestamp::from_second(1_700_000_000).expect("a moment of the present")
}

/// A path that is accepted names a file inside its container, and is accepted again in its canonical form.
pub fn address(path: &str) {
    let Ok(target) = Target::parse(path) else { return };
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let canonical = match &target {
        Target::Container(container) => format!("{HOST}/{container}"),
        Target::Blob(container, name) => format!("{HOST}/{container}/{}", encode(name.as_str())),
    };
    assert_eq!(Target::parse(&canonical).ok().as_ref(), Some(&target));
    let Target::Blob(container, name) = target else { return };
    static DISK: OnceLock<(PathBuf, LocalFileSystem)> = OnceLock::new();
    let (root, disk) = DISK.get_or_init(|| {
        let root = std::env::temp_dir().canonicalize().expect("a directory for temporary files");
        let disk = LocalFileSystem::new_with_prefix(&root).expect("a directory that is there");
        (root, disk)
    });
    for room in ["data", "properties", "blocklists"] {
        let location = name.location(room, &container);
        let inside = location.as_ref().strip_prefix(&format!("{room}/{container}/"));
        assert_eq!(inside, Some(name.as_str()));
        let path = disk.path_to_filesystem(&location).expect("a blob's name is a file's name");
        assert_eq!(path, root.join(room).join(container.as_str()).join(name.as_str()));
        assert!(path.components().all(|part| !matches!(part, std::path::Component::ParentDir)));
    }
}

/// A signature opens what it was made for and nothing else, whatever the query says besides.
pub fn signature(directory: &str, more: &str, path: &str) {
    let container = ContainerName::parse("box").expect("a plain name");
    let signer = Signer::new(&Secret::from("a key"));
    let target = Target::parse(path).ok();
    let Ok(forged) = Query::parse(Some(more)) else { return };
    if let Some(target) = &target {
        assert!(signer.check(&forged, target, now()).is_err(), "{more} was never signed");
    }
    let _ = Listing::from_query(&forged, String::new());
    let end = now() + jiff::SignedDuration::from_hours(1);
    let Ok(signed) = signer.sign(&container, directory, Permissions::READ, now(), end) else { return };
    let signed = signed.expose_str().expect("a query is text").to_owned();
    let Ok(query) = Query::parse(Some(&format!("{signed}&{more}"))) else { return };
    if let Ok(name) = BlobName::parse(&format!("{directory}/x")) {
        let inside = Target::Blob(container.clone(), name);
        let grant = signer.check(&query, &inside, now()).expect("a signature opens its own directory");
        assert_eq!((grant.permissions, grant.directory.as_str()), (Permissions::READ, directory));
        assert!(signer.check(&query, &inside, end).is_err(), "an expired signature opened something");
    }
    let Some(Ok(_)) = target.as_ref().map(|target| signer.check(&query, target, now())) else { return };
    let (asked, name) = match target.expect("it was just checked") {
        Target::Container(asked) => (asked, query.text("prefix").to_owned()),
        Target::Blob(asked, name) => (asked, name.as_str().to_owned()),
    };
    assert_eq!(asked, container);
    let inside = name.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    assert!(directory.is_empty() || inside, "a signature for {directory} opened {name}");
}

/// A block list that is accepted is the same list when it is written anew.
pub fn block_list(xml: &[u8]) {
    let Ok(list) = parse_list(xml) else { return };
    let element = |(whence, id): &(Whence, crate::blocks::BlockId)| format!("<{whence:?}>{}</{whence:?}>", id.shown());
    let anew: String = list.iter().map(element).collect();
    assert_eq!(parse_list(format!("<BlockList>{anew}</BlockList>").as_bytes()), Ok(list));
}

/// The headers of writes and conditions are read or refused.
pub fn headers(lines: &[u8]) {
    let headers = headers_of(lines);
    let _ = Conditions::from_headers(&headers);
    for plain in [false, true] {
        if let Ok(described) = Described::from_headers(&headers, plain) {
            assert!(described.metadata.values().all(|value| value.is_ascii()));
        }
    }
    let _ = Expected::from_headers(&headers, 1000);
}

fn headers_of(lines: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).take(50) {
        let at = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(at);
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default().trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            headers.append(name, value);
        }
    }
    headers
}

/// Requests as a client with a signature for everything may send them, one after the other, to a store on disk. Each
/// is a line `METHOD name?query`, lines of headers, an empty line and the body; they are parted by lines of `---`.
/// Every answer is well-formed and none says that the store failed.
pub fn requests(script: &[u8]) {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made")
    });
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("casemate-fuzz-blob-{}-{count}", std::process::id()));
    let config = BlobConfig { reserve_bytes: 0, ..BlobConfig::default() };
    let store = BlobStore::open_with(&dir, Secret::from("a key"), Clock::from_fn(now), config);
    let store = store.expect("a store in a directory of its own");
    runtime.block_on(async {
        store.container_create("box").await.expect("a container can be made");
        for request in parts(script, b"\n---\n").take(8) {
            answer(&store, request).await;
        }
    });
    std::fs::remove_dir_all(&dir).expect("the directory was made here");
}

fn parts<'a>(script: &'a [u8], mark: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(script);
    std::iter::from_fn(move || {
        let whole = rest?;
        let end = whole.windows(mark.len()).position(|window| window == mark);
        rest = end.map(|end| &whole[end + mark.len()..]);
        Some(&whole[..end.unwrap_or(whole.len())])
    })
}

async fn answer(store: &BlobStore, request: &[u8]) {
    let mut halves = parts(request, b"\n\n");
    let head = halves.next().unwrap_or_default();
    let body = Bytes::copy_from_slice(request.get(head.len() + 2..).unwrap_or_default());
    let end = head.iter().position(|byte| *byte == b'\n').unwrap_or(head.len());
    let (line, lines) = head.split_at(end);
    let Some((method, path)) = std::str::from_utf8(line).ok().and_then(|line| line.split_once(' ')) else { return };
    let end = now() + jiff::SignedDuration::from_hours(1);
    let signature = store.sign("box", "", Permissions::ALL, end).expect("a plain container");
    let signature = signature.expose_str().expect("a query is text").to_owned();
    let joint = if path.contains('?') { '&' } else { '?' };
    let uri = format!("{HOST}/box/{path}{joint}{signature}");
    let uri = uri.replacen("/box/?", "/box?", 1);
    let Ok(mut asked) = Request::builder().method(method).uri(uri).body(Full::new(body.clone())) else { return };
    *asked.headers_mut() = headers_of(lines);
    let headers = asked.headers().clone();
    let answer = store.handle(asked).await;
    let status = answer.status();
    assert!(status.as_u16() < 500 || status == StatusCode::NOT_IMPLEMENTED, "{status} for {line:?}");
    let shown = answer.headers().clone();
    let text = |name: &str| shown.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let content = answer.into_body().collect().await.expect("a small answer arrives").to_bytes();
    if status.is_client_error() || status.is_server_error() {
        assert!(!text("x-ms-error-code").is_empty(), "{status} without a code");
    }
    if status == StatusCode::PARTIAL_CONTENT {
        assert_eq!(text("content-length"), content.len().to_string());
        let range = text("content-range");
        let (first, last) =
            range["bytes ".len()..].split_once('/').expect("a size").0.split_once('-').expect("a range");
        let [first, last] = [first, last].map(|text| text.parse::<usize>().expect("a number"));
        assert_eq!(last - first + 1, content.len(), "{range}");
    }
    if text("content-type") == "application/xml" && content.starts_with(b"<?xml") && method != "PUT" {
        well_formed(std::str::from_utf8(&content).expect("XML is UTF-8"));
    }
    if method == "PUT" && status == StatusCode::CREATED && !path.contains('?') {
        read_back(store, path, &signature, &headers, &body).await;
    }
}

/// What was put is what is read.
async fn read_back(store: &BlobStore, path: &str, signature: &str, headers: &HeaderMap, body: &Bytes) {
    let asked = Request::builder().uri(format!("{HOST}/box/{path}?{signature}")).body(Full::new(Bytes::new()));
    let answer = store.handle(asked.expect("it was asked before")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let kept = answer.headers().iter().filter(|(name, _)| name.as_str().starts_with("x-ms-meta-")).count();
    assert_eq!(kept, headers.keys().filter(|name| name.as_str().starts_with("x-ms-meta-")).count());
    assert_eq!(&answer.into_body().collect().await.expect("a small answer arrives").to_bytes(), body);
}

/// Whether a text is XML 1.0: parseable, of allowed characters, with plain names.
fn well_formed(xml: &str) {
    let allowed =
        |c: char| !matches!(c, '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}');
    assert!(xml.chars().all(allowed), "a character that XML does not have: {xml:?}");
    let name = |name: &str| {
        name.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_alphanumeric() || "._-".contains(c))
    };
    let mut reader = Reader::from_str(xml);
    let mut depth = 0_usize;
    loop {
        match reader.read_event().unwrap_or_else(|error| unreachable!("{error}: {xml}")) {
            Event::Start(start) => {
                assert!(name(start.name().as_ref()), "{xml}");
                depth += 1;
            }
            Event::Empty(only) => assert!(name(only.name().as_ref()), "{xml}"),
            Event::End(_) => depth -= 1,
            Event::Eof => break assert_eq!(depth, 0, "{xml}"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, test_runner::RngSeed};

    use super::*;

    fn cases(cases: u32) -> ProptestConfig {
        ProptestConfig { cases, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
    }

    fn name() -> impl Strategy<Value = String> {
        prop_oneof![
            3 => "[ab]{1,2}(/[ab]{1,2}){0,2}",
            1 => prop::sample::select(vec!["..", "%2e%2e/x", "a//b", "a%00", "%EF%BF%BF", "a%23", "a%231", "C%7C", "%5C", "a%25", "", "%FF", "a%0D"]).prop_map(str::to_owned),
            1 => "[!-~]{1,12}",
        ]
    }

    fn request() -> impl Strategy<Value = String> {
        let query = prop::sample::select(vec![
            "",
            "?comp=block&blockid=MDA=",
            "?comp=block&blockid=MDE=",
            "?comp=blocklist",
            "?comp=blocklist&blocklisttype=all",
            "?comp=metadata",
            "?restype=container&comp=list&include=metadata",
            "?restype=container&comp=list&prefix=%01&delimiter=/",
            "?restype=container&comp=list&maxresults=1&marker=a",
            "?restype=container",
            "?comp=%00",
        ]);
        let headers = prop::collection::vec(
            prop::sample::select(vec![
                "range: bytes=1-2",
                "range: bytes=-1",
                "x-ms-range: bytes=0-0",
                "range: bytes=9-",
                "if-none-match: *",
                "if-match: x",
                "x-ms-meta-a: b",
                "x-ms-meta-a&b: c",
                "x-ms-meta-1: <",
                "content-md5: AAAA",
                "content-length: 3",
                "x-ms-blob-content-type: text/plain",
                "if-modified-since: Thu, 01 Jan 1970 00:00:00 GMT",
            ]),
            0..3,
        );
        let body =
            prop::sample::select(vec!["", "abc", "<BlockList><Latest>MDA=</Latest></BlockList>", "<BlockList/>"]);
        let method = prop::sample::select(vec!["PUT", "PUT", "GET", "HEAD", "DELETE"]);
        (method, name(), query, headers, body).prop_map(|(method, name, query, headers, body)| {
            let name = if query.contains("restype") { "" } else { &name };
            let kind = if headers.len() < 2 { "x-ms-blob-type: BlockBlob\n" } else { "" };
            format!("{method} {name}{query}\n{kind}{}\n\n{body}", headers.join("\n"))
        })
    }

    proptest! {
        #![proptest_config(cases(500))]

        #[test]
        fn addresses(name in name(), odd in "\\PC{0,20}") {
            address(&format!("{HOST}/box/{name}"));
            address(&format!("{HOST}/{odd}"));
            address(&odd);
        }

        #[test]
        fn signatures(directory in prop_oneof![Just(String::new()), "[ab]{1,2}(/[ab]{1,2}){0,2}"], name in name(),
            more in prop_oneof![Just(String::new()), "(sp|sr|sdd|se|prefix|SIG)=[a-d0-9/]{0,3}", "[!-~]{0,12}"]) {
            signature(&directory, &more, &format!("{HOST}/box/{name}"));
            signature(&directory, &more, &format!("{HOST}/box"));
            signature(&directory, &format!("prefix={name}&{more}"), &format!("{HOST}/box"));
        }

        #[test]
        fn block_lists(parts in prop::collection::vec(prop::sample::select(vec![
            "<BlockList>", "</BlockList>", "<Latest>MDA=</Latest>", "<Committed>", "MDE=", "</Committed>", "<Uncommitted> MDI= </Uncommitted>",
            "<!-- c -->", "<?xml version='1.0'?>", "&amp;", "\n", "<BlockList/>", "<![CDATA[MDA=]]>",
        ]), 0..8)) {
            block_list(parts.concat().as_bytes());
            block_list(format!("<BlockList>{}</BlockList>", parts.concat()).as_bytes());
        }

        #[test]
        fn header_lines(lines in "((range|if-match|if-modified-since|content-md5|content-length|x-ms-meta-[a-c!1]{0,2}|x-ms-blob-content-type):[ -~]{0,12}\n){0,4}") {
            headers(lines.as_bytes());
        }
    }

    #[test]
    fn what_xml_can_not_hold() {
        for script in [
            "PUT %EF%BF%BF/x\nx-ms-blob-type: BlockBlob\n\nabc\n---\nGET ?restype=container&comp=list\n\n\n---\nGET ?restype=container&comp=list&delimiter=/",
            "PUT a\nx-ms-blob-type: BlockBlob\nx-ms-meta-a&b: c\n\nabc\n---\nGET ?restype=container&comp=list&include=metadata",
            "GET ?restype=container&comp=list&prefix=%00%EF%BF%BE",
            "GET a?%01=x&%01=y",
        ] {
            requests(script.as_bytes());
        }
    }

    proptest! {
        #![proptest_config(cases(60))]

        #[test]
        fn likely_requests(script in prop::collection::vec(request(), 1..6)) {
            requests(script.join("\n---\n").as_bytes());
        }
    }
}
