//! Learns from package indexes where their files lie, since many keep them on another host than their pages.
//!
//! Asks from outside of any sandbox, and takes nothing from the answers but hosts and ports.

use std::{collections::BTreeSet, time::Duration};

use serde::Deserialize;
use tokio::task::JoinSet;
use url::Url;

use super::{
    index_settings::IndexSettings,
    mask::mask_urls,
    simple_index::{JSON, body, client, get, is_json},
    site::Site,
};

/// Most projects of which the pages are read. An index keeps its files in one or two places, so these tell.
const MAX_PROJECTS: usize = 24;
/// Pages read at the same time.
const AT_ONCE: usize = 6;
/// Most places that one page may name; more than any index has.
const MAX_SITES: usize = 32;
/// Longest time for all pages together.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// What the files of packages are called. Other links of an index's page lead elsewhere.
const ENDINGS: [&str; 6] = [".whl", ".tar.gz", ".zip", ".tar.bz2", ".tgz", ".egg"];

#[derive(Deserialize)]
struct Page {
    files: Vec<File>,
}

#[derive(Deserialize)]
struct File {
    url: String,
}

/// Where the files of `projects` lie, by the pages of the indexes and the pages with links; and for each page that
/// couldn't be read, a sentence without credentials.
pub(super) async fn sites_of_files(
    settings: &IndexSettings,
    indexes: &[String],
    link_pages: &[String],
    projects: &[String],
) -> (BTreeSet<Site>, Vec<String>) {
    let mut pages = link_pages.to_vec();
    for index in indexes {
        let base = index.trim_end_matches('/');
        pages.extend(projects.iter().take(MAX_PROJECTS).map(|project| format!("{base}/{project}/")));
    }
    let (mut sites, mut failures) = (BTreeSet::new(), Vec::new());
    let mut reading = JoinSet::new();
    let all = async {
        loop {
            while reading.len() < AT_ONCE
                && let Some(page) = pages.pop()
            {
                let settings = settings.clone();
                reading.spawn(async move { sites_on(&settings, &page).await.map_err(|reason| (page, reason)) });
            }
            match reading.join_next().await {
                None => break,
                Some(Ok(Ok(found))) => sites.extend(found),
                Some(Ok(Err((page, reason)))) => failures.push(format!("{}: {reason}", mask_urls(&page))),
                Some(Err(_)) => {}
            }
        }
    };
    if tokio::time::timeout(TIME_LIMIT, all).await.is_err() {
        failures.push(format!("not all was read within {} s", TIME_LIMIT.as_secs()));
    }
    (sites, failures)
}

/// Where one page came from in the end, and the places that it names.
async fn sites_on(settings: &IndexSettings, page: &str) -> Result<BTreeSet<Site>, String> {
    let page = Url::parse(page).map_err(|error| error.to_string())?;
    let client = client(settings, &page)?;
    let response = get(&client, page, Some(&format!("{JSON}, text/html;q=0.5"))).await?;
    let answered_by = response.url().clone();
    let json = is_json(&response);
    let body = body(response).await?;
    let links: Vec<String> = if json {
        let page: Page = serde_json::from_slice(&body).map_err(|error| format!("its page can't be read: {error}"))?;
        page.files.into_iter().map(|file| file.url).collect()
    } else {
        links_to_files(&String::from_utf8_lossy(&body))
    };
    let named = links.iter().filter_map(|link| Site::of(&answered_by.join(link).ok()?));
    let mut sites = BTreeSet::new();
    for site in Site::of(&answered_by).into_iter().chain(named) {
        if sites.len() < MAX_SITES {
            sites.insert(site);
        }
    }
    Ok(sites)
}

/// The links of an HTML page whose path ends as a package's file does.
fn links_to_files(html: &str) -> Vec<String> {
    let is_file = |link: &&str| {
        let path = link.split(['#', '?']).next().unwrap_or_default();
        ENDINGS.iter().any(|ending| path.ends_with(ending))
    };
    let after = html.match_indices("href=").map(|(at, mark)| &html[at + mark.len()..]);
    let quoted = after.filter_map(|rest| {
        let quote = rest.chars().next().filter(|sign| matches!(sign, '"' | '\''))?;
        rest[1..].split(quote).next()
    });
    quoted.filter(is_file).map(|link| link.replace("&amp;", "&")).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;

    /// Answers every request with this page, until the test's process ends.
    fn index(kind: &'static str, page: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/simple", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut peer in listener.incoming().flatten() {
                let _ = peer.read(&mut [0; 4096]);
                let length = page.len();
                let head =
                    format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\nconnection: close");
                let _ = peer.write_all(format!("{head}\r\n\r\n{page}").as_bytes());
            }
        });
        url
    }

    #[tokio::test]
    async fn both_kinds_of_pages_tell_where_files_lie() {
        let json = r#"{"files": [{"url": "https://files.example/a.whl"}, {"url": "../../x.whl"}, {"url": "ftp://old.example/a.zip"}]}"#;
        let html = "<a href=\"https://cdn.example:8443/a-1.0.tar.gz#sha256=0\">a</a><a href='https://homepage.example/'>h</a>\
                    <a href='/b.whl?x=1&amp;y=2'>b</a>";
        for (kind, page, expected) in
            [(JSON, json, "files.example:443"), ("text/html; charset=utf-8", html, "cdn.example:8443")]
        {
            let url = index(kind, page.to_owned());
            let settings = IndexSettings::default();
            let (sites, failures) =
                sites_of_files(&settings, std::slice::from_ref(&url), &[], &["a".to_owned(), "b".to_owned()]).await;
            let sites: Vec<String> = sites.iter().map(ToString::to_string).collect();
            let own = url.trim_start_matches("http://").trim_end_matches("/simple").to_owned();
            assert_eq!(sites, [expected.to_owned(), own], "{kind}");
            assert!(failures.is_empty(), "{failures:?}");
        }
    }

    #[tokio::test]
    async fn pages_that_cannot_be_read_are_told_without_credentials() {
        let broken = index(JSON, "[".to_owned()).replace("http://", "http://robot:secret-word@");
        let away = "http://127.0.0.1:9/simple".to_owned();
        let (sites, failures) =
            sites_of_files(&IndexSettings::default(), &[broken, away], &[], &["a".to_owned()]).await;
        assert!(sites.is_empty());
        assert_eq!(failures.len(), 2, "{failures:?}");
        assert!(failures.iter().all(|failure| !failure.contains("secret-word")), "{failures:?}");
    }
}
