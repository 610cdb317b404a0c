//! The attacks that are one probe each. Numbers are those of the table in SECURITY.md.

mod address;
mod dns;
mod http;
mod kernel;
mod tls;

use serde_json::Value;

/// Says whether an answer is what it should be.
pub type Check = fn(&Value) -> bool;

/// One attack.
pub struct Attack {
    pub number: &'static str,
    pub what: &'static str,
    /// What stops it.
    pub layer: &'static str,
    pub probe: &'static str,
    pub denied: Check,
    /// Public addresses that the probe legitimately reaches on its way.
    pub reaches: &'static [&'static str],
    /// The same kind of probe where it is allowed.
    pub control: Option<(&'static str, Check)>,
}

fn open(said: &Value) -> bool {
    said["outcome"] == "open"
}

fn closed(said: &Value) -> bool {
    said["outcome"] == "refused"
}

fn closed_or_silent(said: &Value) -> bool {
    closed(said) || said["outcome"] == "silent"
}

fn status(said: &Value) -> &str {
    said["status"].as_str().unwrap_or_default()
}

fn ok(said: &Value) -> bool {
    open(said) && status(said) == "200"
}

fn bad_request(said: &Value) -> bool {
    status(said) == "400" || closed(said)
}

fn forbidden(said: &Value) -> bool {
    status(said) == "403"
}

fn no_method(said: &Value) -> bool {
    status(said) == "405"
}

fn http_refusal(said: &Value) -> bool {
    closed(said) || status(said).starts_with('4')
}

fn fake_address(said: &Value) -> bool {
    let found = said["detail"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let found: Vec<&str> = found.collect();
    !found.is_empty() && found.iter().all(|each| each.starts_with("198.18.") || each.starts_with("198.19."))
}

fn no_such_name(said: &Value) -> bool {
    said["code"] == 3
}

fn empty_or_refused(said: &Value) -> bool {
    said["outcome"] != "answered" || said["code"] != 0 || said["detail"].as_array().is_some_and(Vec::is_empty)
}

fn only_loopback(said: &Value) -> bool {
    said["detail"] == "lo"
}

fn not_permitted(said: &Value) -> bool {
    said["detail"] == "EPERM"
}

fn not_there(said: &Value) -> bool {
    said["detail"] == "ENOSYS"
}

const fn attack(
    number: &'static str,
    what: &'static str,
    layer: &'static str,
    probe: &'static str,
    denied: Check,
) -> Attack {
    Attack { number, what, layer, probe, denied, reaches: &[], control: None }
}

const fn controlled(attack: Attack, probe: &'static str, allowed: Check) -> Attack {
    Attack { control: Some((probe, allowed)), ..attack }
}

const fn reaching(attack: Attack, reaches: &'static [&'static str]) -> Attack {
    Attack { reaches, ..attack }
}

const TLS_APPROVED: &str = r#"{"probe": "tls", "address": "approved.example.net", "name": "approved.example.net"}"#;
const HTTP_APPROVED: &str = r#"{"probe": "http", "address": "approved.example.net", "requests": ["GET / HTTP/1.1\r\nHost: approved.example.net\r\n\r\n"]}"#;
const RAW_APPROVED: &str = r#"{"probe": "raw", "address": "database.example.net", "port": 5432, "send": "ping}"}"#;
const RANGE_APPROVED: &str = r#"{"probe": "raw", "address": "142.250.1.1", "port": 8443, "send": "ping}"}"#;
const APPROVED: &[&str] = &["93.184.216.10", "2a00:1450::10"];

/// All of them.
pub fn attacks() -> impl Iterator<Item = &'static Attack> {
    [tls::ATTACKS, dns::ATTACKS, http::ATTACKS, address::ATTACKS, kernel::ATTACKS].into_iter().flatten()
}

/// Python itself refuses some names.
fn closed_or_error(said: &Value) -> bool {
    closed(said) || said["outcome"] == "error"
}
