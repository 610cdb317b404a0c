//! A package index on the loopback interface: the JSON pages and the files of a directory of packages.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::packages::sha256;

/// A running index. Ends with the test's process.
pub struct Index {
    pub port: u16,
    /// Paths that were asked for.
    pub asked: Arc<Mutex<Vec<String>>>,
}

struct Shop {
    dir: PathBuf,
    /// When files were published, by the beginning of their name.
    published: BTreeMap<&'static str, &'static str>,
    /// The value of the authorization header that is wanted.
    authorization: Option<&'static str>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Index {
    /// Serves `dir`. With `authorization`, only to who sends it.
    pub fn serve(
        dir: PathBuf,
        published: &[(&'static str, &'static str)],
        authorization: Option<&'static str>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let published = published.iter().copied().collect();
        let shop = Arc::new(Shop { dir, published, authorization, asked: Arc::clone(&asked) });
        std::thread::spawn(move || {
            for peer in listener.incoming().flatten() {
                let shop = Arc::clone(&shop);
                std::thread::spawn(move || shop.answer(peer));
            }
        });
        Self { port, asked }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/simple", self.port)
    }
}

impl Shop {
    fn answer(&self, mut peer: TcpStream) -> Option<()> {
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !request.ends_with(b"\r\n\r\n") {
            let count = peer.read(&mut buffer).ok().filter(|count| *count > 0)?;
            request.extend_from_slice(&buffer[..count]);
        }
        let request = String::from_utf8_lossy(&request).into_owned();
        let path = request.split(' ').nth(1)?.to_owned();
        let header = |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
        let sent = request.lines().filter_map(header).find(|(name, _)| name == "authorization").map(|(_, value)| value);
        let (status, kind, body) = if self.authorization.is_some() && sent.as_deref() != self.authorization {
            ("401 Unauthorized", "text/plain", Vec::new())
        } else {
            self.asked.lock().unwrap().push(path.clone());
            self.page(&path).unwrap_or(("404 Not Found", "text/plain", Vec::new()))
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\ncache-control: max-age=600\r\nwww-authenticate: Basic\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let body = if request.starts_with("HEAD") { Vec::new() } else { body };
        peer.write_all(&[head.as_bytes(), &body].concat()).ok()
    }

    fn page(&self, path: &str) -> Option<(&'static str, &'static str, Vec<u8>)> {
        if let Some(file) = path.strip_prefix("/files/") {
            return Some(("200 OK", "application/octet-stream", std::fs::read(self.dir.join(file)).ok()?));
        }
        let name = path.strip_prefix("/simple/")?.trim_end_matches('/').replace('-', "_");
        let mut files = Vec::new();
        for entry in std::fs::read_dir(&self.dir).ok()?.flatten() {
            let file = entry.file_name().into_string().ok()?;
            if !file.to_lowercase().starts_with(&format!("{name}-")) {
                continue;
            }
            let mut listed = serde_json::json!({
                "filename": file, "url": format!("/files/{file}"), "hashes": {"sha256": sha256(&entry.path())},
            });
            let known = self.published.iter().find(|(beginning, _)| file.starts_with(*beginning));
            if let Some((_, time)) = known {
                listed["upload-time"] = (*time).into();
            }
            files.push(listed);
        }
        let page = serde_json::json!({"meta": {"api-version": "1.1"}, "name": name, "files": files});
        (!files.is_empty()).then(|| ("200 OK", "application/vnd.pypi.simple.v1+json", page.to_string().into_bytes()))
    }
}
