//! Zone files, and snippets for the DNS servers that companies run. Each is checked in the tests by the program that
//! has to read it.

use std::{
    collections::BTreeSet,
    fmt::Write,
    net::SocketAddr,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

/// A zone with its records.
#[derive(Debug, Clone)]
pub(super) struct Zone {
    pub(super) name: String,
    pub(super) records: Vec<Record>,
}

/// A record set; the values are in the words of zone files.
#[derive(Debug, Clone)]
pub(super) struct Record {
    /// Relative to the zone: `@` is the zone itself.
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) ttl: u64,
    pub(super) values: Vec<String>,
}

/// Where a snippet gets its answers from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Server {
    /// The platform's DNS server.
    At(SocketAddr),
    /// What is written here.
    Records,
}

impl Zone {
    /// Reads a zone of the platform's answer.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let records = value.get("records")?.as_array()?.iter().filter_map(|record| {
            let text = |key: &str| record.get(key)?.as_str().map(str::to_owned);
            let values = record.get("values")?.as_array()?.iter().filter_map(|value| value.as_str().map(str::to_owned));
            Some(Record {
                name: text("name")?,
                kind: text("type")?,
                ttl: record.get("ttl")?.as_u64()?,
                values: values.collect(),
            })
        });
        let name = value.get("name")?.as_str()?;
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        plain.then(|| Self { name: name.to_owned(), records: records.collect() })
    }

    pub(super) fn file_name(&self) -> String {
        format!("{}.zone", self.name)
    }

    /// The name of the zone's server: its own, if it has one.
    fn server(&self) -> &'static str {
        if self.records.iter().any(|record| record.name == "ns") { "ns" } else { "localhost." }
    }
}

impl Record {
    /// The whole name, without the last dot.
    pub(super) fn full_name(&self, zone: &Zone) -> String {
        if self.name == "@" { zone.name.clone() } else { format!("{}.{}", self.name, zone.name) }
    }
}

/// A zone file (RFC 1035).
pub(super) fn zone_file(zone: &Zone) -> String {
    let serial = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() & u64::from(u32::MAX);
    let (name, server) = (&zone.name, zone.server());
    let mut text = format!(
        "$ORIGIN {name}.\n$TTL 10\n@ 3600 IN SOA {server} hostmaster {serial} 3600 300 2419200 10\n@ 3600 IN NS {server}\n"
    );
    for record in &zone.records {
        for value in &record.values {
            let _ = writeln!(text, "{} {} IN {} {value}", record.name, record.ttl, record.kind);
        }
    }
    text
}

/// A file for dnsmasq's `conf-dir`.
pub(super) fn dnsmasq(zones: &[Zone], from: Server) -> String {
    let mut text = String::from("# Written by `casemate dns export`.\n");
    for zone in zones {
        match from {
            Server::At(server) => {
                let _ = writeln!(text, "server=/{}/{}#{}", zone.name, server.ip(), server.port());
                let _ = writeln!(text, "rebind-domain-ok=/{}/", zone.name);
            }
            Server::Records => {
                let _ = writeln!(text, "local=/{}/", zone.name);
                zone.records.iter().for_each(|record| dnsmasq_record(&mut text, zone, record));
            }
        }
    }
    text
}

fn dnsmasq_record(text: &mut String, zone: &Zone, record: &Record) {
    let name = record.full_name(zone);
    for value in &record.values {
        let words: Vec<&str> = value.split(' ').map(|word| word.trim_end_matches('.')).collect();
        let _ = match (record.kind.as_str(), words.as_slice()) {
            // dnsmasq has wildcards for addresses only, and they hold for the name itself as well.
            ("A" | "AAAA", [address]) => match name.strip_prefix("*.") {
                Some(below) => writeln!(text, "address=/{below}/{address}"),
                None => writeln!(text, "host-record={name},{address},{}", record.ttl),
            },
            _ if name.starts_with("*.") => writeln!(text, "# no wildcards of this type: {name} {}", record.kind),
            ("CNAME", [target]) => writeln!(text, "cname={name},{target},{}", record.ttl),
            ("MX", [preference, exchange]) => writeln!(text, "mx-host={name},{exchange},{preference}"),
            ("SRV", [priority, weight, port, target]) => {
                writeln!(text, "srv-host={name},{target},{port},{priority},{weight}")
            }
            ("PTR", [target]) => writeln!(text, "ptr-record={name},{target}"),
            ("TXT", _) => writeln!(text, "txt-record={name},{}", value.replace("\" \"", "\",\"")),
            _ => Ok(()),
        };
    }
}

/// A file for unbound's `include`.
pub(super) fn unbound(zones: &[Zone], from: Server) -> String {
    let mut text = String::from("# Written by `casemate dns export`.\nserver:\n");
    for zone in zones {
        let _ = writeln!(text, "    private-domain: \"{}\"\n    domain-insecure: \"{}\"", zone.name, zone.name);
        let reverse = zone.name.ends_with(".arpa");
        match from {
            Server::At(_) if reverse => drop(writeln!(text, "    local-zone: \"{}\" nodefault", zone.name)),
            Server::At(_) => {}
            Server::Records => unbound_zone(&mut text, zone),
        }
    }
    if let Server::At(server) = from {
        if server.ip().is_loopback() {
            text.push_str("    do-not-query-localhost: no\n");
        }
        for zone in zones {
            let _ = writeln!(text, "stub-zone:\n    name: \"{}\"", zone.name);
            let _ = writeln!(text, "    stub-addr: {}@{}", server.ip(), server.port());
        }
    }
    text
}

/// `redirect` answers everything below a name alike, which is what a wildcard for addresses does. A name of its own
/// below it then needs a zone of its own.
fn unbound_zone(text: &mut String, zone: &Zone) {
    let _ = writeln!(text, "    local-zone: \"{}\" static", zone.name);
    let full: Vec<String> = zone.records.iter().map(|record| record.full_name(zone)).collect();
    let wild: BTreeSet<&str> = full.iter().filter_map(|name| name.strip_prefix("*.")).collect();
    for below in &wild {
        let _ = writeln!(text, "    local-zone: \"{below}\" redirect");
    }
    let is_below = |name: &str| name.match_indices('.').any(|(at, _)| wild.contains(&name[at + 1..]));
    let own: BTreeSet<&String> = full.iter().filter(|name| !name.starts_with("*.") && is_below(name)).collect();
    for name in own {
        let _ = writeln!(text, "    local-zone: \"{name}\" static");
    }
    for (record, name) in zone.records.iter().zip(&full) {
        let name = name.strip_prefix("*.").unwrap_or(name);
        for value in &record.values {
            let data = format!("{name}. {} IN {} {value}", record.ttl, record.kind);
            let quote = if data.contains('"') { '\'' } else { '"' };
            let _ = writeln!(text, "    local-data: {quote}{}{quote}", data.replace('\'', "\\039"));
        }
    }
}

/// A file to include in `named.conf`; with records, the zone files lie in `directory`.
pub(super) fn bind(zones: &[Zone], from: Server, directory: &Path) -> String {
    let mut text = String::from("// Written by `casemate dns export`.\n");
    for zone in zones {
        let _ = match from {
            Server::At(server) => writeln!(
                text,
                "zone \"{}\" {{\n    type forward;\n    forward only;\n    forwarders {{ {} port {}; }};\n}};",
                zone.name,
                server.ip(),
                server.port()
            ),
            Server::Records => writeln!(
                text,
                "zone \"{}\" {{\n    type primary;\n    file \"{}\";\n}};",
                zone.name,
                directory.join(zone.file_name()).display()
            ),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use serde_json::json;

    use super::*;

    fn zones() -> Vec<Zone> {
        let zones = json!([
            {"name": "corp.test", "records": [
                {"name": "@", "type": "MX", "ttl": 60, "values": ["10 mail.corp.test."]},
                {"name": "mail", "type": "A", "ttl": 60, "values": ["192.0.2.25", "192.0.2.26"]},
                {"name": "mail", "type": "AAAA", "ttl": 60, "values": ["2001:db8::25"]},
                {"name": "www", "type": "CNAME", "ttl": 60, "values": ["mail.corp.test."]},
                {"name": "_ldap._tcp", "type": "SRV", "ttl": 60, "values": ["1 2 389 mail.corp.test."]},
                {"name": "note", "type": "TXT", "ttl": 60, "values": ["\"one\" \"t'w;o \\\"x\\\" \\195\\169\""]},
                {"name": "*.wild", "type": "A", "ttl": 60, "values": ["192.0.2.77"]},
                {"name": "*.words", "type": "TXT", "ttl": 60, "values": ["\"x\""]},
            ]},
            {"name": "2.0.192.in-addr.arpa", "records": [
                {"name": "25", "type": "PTR", "ttl": 60, "values": ["mail.corp.test."]},
            ]},
            {"name": "privatelink.api.azureml.ms", "records": [
                {"name": "*.0f8fad5b-d9cb-469f-a165-70867728950e.inference.local", "type": "A", "ttl": 10, "values": ["10.0.0.4"]},
            ]},
            {"name": "casemate.internal", "records": [
                {"name": "@", "type": "A", "ttl": 10, "values": ["192.0.2.1"]},
                {"name": "ns", "type": "A", "ttl": 10, "values": ["10.0.0.2"]},
                {"name": "one.local.inference", "type": "A", "ttl": 10, "values": ["10.0.0.4"]},
                {"name": "*.blob.core", "type": "A", "ttl": 10, "values": ["192.0.2.1"]},
                {"name": "acct.blob.core", "type": "A", "ttl": 10, "values": ["10.0.0.5"]},
            ]},
        ]);
        zones.as_array().unwrap().iter().filter_map(Zone::read).collect()
    }

    /// Runs the program that has to understand a file.
    fn check(program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).output();
        let output = output.unwrap_or_else(|error| {
            panic!("{program}: {error}; it is in the packages that `cargo xtask test` installs: bind9-utils, unbound, dnsmasq-base")
        });
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
    }

    #[test]
    fn named_reads_every_zone() {
        let directory = tempfile::tempdir().unwrap();
        for zone in zones() {
            let file = directory.path().join(zone.file_name());
            std::fs::write(&file, zone_file(&zone)).unwrap();
            check("/usr/bin/named-checkzone", &["-i", "local", &zone.name, file.to_str().unwrap()]);
        }
        for (what, text) in [
            ("forward", bind(&zones(), Server::At("10.0.0.2:5353".parse().unwrap()), Path::new(""))),
            ("static", bind(&zones(), Server::Records, directory.path())),
        ] {
            let file = directory.path().join(what);
            std::fs::write(&file, text).unwrap();
            check("/usr/bin/named-checkconf", &["-z", file.to_str().unwrap()]);
        }
    }

    #[test]
    fn unbound_and_dnsmasq_read_their_snippets() {
        let directory = tempfile::tempdir().unwrap();
        for server in ["10.0.0.2:53", "127.77.0.2:5353", "[fd00::2]:53"]
            .map(|text| Some(text.parse().unwrap()))
            .into_iter()
            .chain([None])
        {
            let from = server.map_or(Server::Records, Server::At);
            let file = directory.path().join("snippet");
            let path = file.to_str().unwrap();
            std::fs::write(&file, unbound(&zones(), from)).unwrap();
            check("/usr/sbin/unbound-checkconf", &[path]);
            std::fs::write(&file, dnsmasq(&zones(), from)).unwrap();
            check("/usr/sbin/dnsmasq", &["--test", "-C", path]);
        }
    }

    /// The servers with the records in them, asked by dig.
    #[test]
    fn unbound_and_dnsmasq_answer_from_their_snippets() {
        let directory = tempfile::tempdir().unwrap();
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let server = format!(
            "server:\n    interface: 127.0.0.1\n    port: {port}\n    do-daemonize: no\n    username: \"\"\n    chroot: \"\"\n    pidfile: \"\"\n    use-syslog: no\n    directory: \"{}\"\n",
            directory.path().display()
        );
        std::fs::write(path("unbound"), server + &unbound(&zones(), Server::Records)).unwrap();
        std::fs::write(path("dnsmasq"), dnsmasq(&zones(), Server::Records)).unwrap();
        let own = format!("--port={port}");
        for (program, arguments) in [
            ("/usr/sbin/unbound", vec!["-d", "-p", "-c", "unbound"]),
            (
                "/usr/sbin/dnsmasq",
                vec![
                    "-k",
                    "--listen-address=127.0.0.1",
                    "--bind-interfaces",
                    "--no-resolv",
                    "--no-hosts",
                    "--user=",
                    "--pid-file=",
                    &own,
                    "-C",
                    "dnsmasq",
                ],
            ),
        ] {
            let mut child = Command::new(program).current_dir(directory.path()).args(arguments).spawn().unwrap();
            let dig = |rest: &str| {
                let output = Command::new("dig")
                    .args(["+short", "+tries=1", "+time=2", "-p", &port, "@127.0.0.1"])
                    .args(rest.split(' '))
                    .output();
                String::from_utf8(output.unwrap().stdout).unwrap()
            };
            let ready = (0..100).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(100));
                dig("mail.corp.test AAAA") == "2001:db8::25\n"
            });
            let found = [
                ("one.local.inference.casemate.internal A", "10.0.0.4\n"),
                ("acct.blob.core.casemate.internal A", "10.0.0.5\n"),
                ("other.blob.core.casemate.internal A", "192.0.2.1\n"),
                ("x.0f8fad5b-d9cb-469f-a165-70867728950e.inference.local.privatelink.api.azureml.ms A", "10.0.0.4\n"),
                ("none.casemate.internal A", ""),
                ("corp.test MX", "10 mail.corp.test.\n"),
                ("_ldap._tcp.corp.test SRV", "1 2 389 mail.corp.test.\n"),
                ("-x 192.0.2.25", "mail.corp.test.\n"),
            ]
            .map(|(question, expected)| (question, dig(question), expected));
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(ready, "{program} does not answer");
            for (question, found, expected) in found {
                assert_eq!(found, expected, "{program}: {question}");
            }
        }
    }

    #[test]
    fn what_a_snippet_says() {
        let zones = &zones()[3..];
        let at = Server::At("10.0.0.2:5353".parse().unwrap());
        assert!(dnsmasq(zones, at).contains("server=/casemate.internal/10.0.0.2#5353\n"));
        assert!(unbound(zones, at).contains("name: \"casemate.internal\"\n    stub-addr: 10.0.0.2@5353\n"));
        assert!(bind(zones, at, Path::new("")).contains("forwarders { 10.0.0.2 port 5353; };"));
        assert!(
            dnsmasq(zones, Server::Records).contains("host-record=one.local.inference.casemate.internal,10.0.0.4,10\n")
        );
        assert!(dnsmasq(zones, Server::Records).contains("address=/blob.core.casemate.internal/192.0.2.1\n"));
        let odd = json!({"name": "a\"; include \"/etc/passwd", "records": []});
        assert!(Zone::read(&odd).is_none(), "a name that would be configuration");
    }
}
