//! `dns …`: what the platform's DNS says, and how a company's own DNS is told.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use serde_json::{Value, json};

use super::{
    Found,
    dns_files::{Server, Zone, bind, dnsmasq, unbound, zone_file},
};
use crate::{
    failure::Failure,
    grammar::{DnsCommand, DnsExport, DnsFormat, DnsView},
    output::Output,
    session::{Session, segment},
};

/// Columns of the table.
const COLUMNS: &str = "[].{Zone:zone, Name:name, Type:type, TTL:ttl, Values:join(', ', values)}";
/// The port of DNS.
const DNS_PORT: u16 = 53;

pub(super) async fn run(command: DnsCommand, session: &Session) -> Found {
    match command {
        DnsCommand::Records(view) => {
            let (zones, _) = zones(&view, None, session).await?;
            let records = zones.iter().flat_map(|zone| {
                zone.records.iter().map(|record| {
                    json!({
                        "zone": zone.name,
                        "name": record.name,
                        "type": record.kind,
                        "ttl": record.ttl,
                        "values": record.values,
                        "fqdn": record.full_name(zone),
                    })
                })
            });
            Ok(Output::Value(records.collect(), Some(COLUMNS)))
        }
        DnsCommand::Export(export) => write(&export, session).await,
    }
}

async fn write(export: &DnsExport, session: &Session) -> Found {
    let given = export.server.as_deref().map(server).transpose()?;
    let (zones, own) = zones(&export.view, given.map(|server| server.ip()), session).await?;
    let server = given.or(own.map(|address| SocketAddr::new(address, DNS_PORT)));
    if export.format == DnsFormat::Zone || (export.fixed && export.format == DnsFormat::Bind) {
        return write_zones(export, &zones);
    }
    let to = match (export.fixed, server) {
        (true, _) => Server::Records,
        (false, Some(server)) => Server::At(server),
        (false, None) => {
            return Err(Failure::usage(
                "Where is the platform's DNS server? Give --network of a network that has a DNS address, or --server IP[:PORT]; or --static to write the records themselves.",
            ));
        }
    };
    let text = match export.format {
        DnsFormat::Dnsmasq => dnsmasq(&zones, to),
        DnsFormat::Unbound => unbound(&zones, to),
        DnsFormat::Bind | DnsFormat::Zone => bind(&zones, to, Path::new("")),
    };
    match &export.file {
        None => Ok(Output::Raw(text)),
        Some(file) => save(file, &text).map(|()| Output::Nothing),
    }
}

/// One file for each zone, named after it; all of them one after the other on stdout.
fn write_zones(export: &DnsExport, zones: &[Zone]) -> Found {
    let Some(directory) = &export.file else {
        if export.format == DnsFormat::Bind {
            return Err(Failure::usage("BIND needs a file for each zone: give a directory with --file DIR."));
        }
        return Ok(Output::Raw(zones.iter().map(zone_file).collect::<Vec<_>>().join("\n")));
    };
    std::fs::create_dir_all(directory).map_err(|error| unwritable(directory, &error))?;
    for zone in zones {
        save(&directory.join(zone.file_name()), &zone_file(zone))?;
    }
    if export.format == DnsFormat::Bind {
        let directory = directory.canonicalize().map_err(|error| unwritable(directory, &error))?;
        save(&directory.join("casemate.conf"), &bind(zones, Server::Records, &directory))?;
    }
    Ok(Output::Nothing)
}

fn save(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text).map_err(|error| unwritable(file, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::here(format!("'{}' can't be written: {error}.", path.display()))
}

/// The zones of a view, and where the platform's DNS answers in its network.
async fn zones(view: &DnsView, dns: Option<IpAddr>, session: &Session) -> Result<(Vec<Zone>, Option<IpAddr>), Failure> {
    let mut path =
        format!("{}/providers/Casemate.Platform/dnsZones?api-version=2025-01-01", session.subscription_id().await?);
    if let Some(network) = &view.network {
        let id = match network.starts_with('/') {
            true => network.clone(),
            false => {
                let group = session.group_id(view.resource_group.as_deref()).await?;
                format!("{group}/providers/Microsoft.Network/virtualNetworks/{network}")
            }
        };
        path.push_str(&format!("&network={}", segment(&id)));
    }
    for (key, address) in [("frontDoor", view.address), ("dns", dns)] {
        if let Some(address) = address {
            path.push_str(&format!("&{key}={}", segment(&address.to_string())));
        }
    }
    let answer = session.client().get(&path).await?;
    let own = answer.get("dnsAddress").and_then(Value::as_str).and_then(|text| text.parse().ok());
    let zones =
        answer.get("value").and_then(Value::as_array).map(|zones| zones.iter().filter_map(Zone::read).collect());
    Ok((zones.unwrap_or_default(), own))
}

/// `IP`, `IP:PORT` or `[IPv6]:PORT`.
fn server(text: &str) -> Result<SocketAddr, Failure> {
    let plain = || Some(SocketAddr::new(text.parse().ok()?, DNS_PORT));
    let read = plain().or_else(|| text.parse().ok());
    read.ok_or_else(|| {
        Failure::usage(format!("--server '{text}' is not an address such as 10.0.0.2 or 10.0.0.2:5353."))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_with_and_without_a_port() {
        for (text, expected) in [
            ("10.0.0.2", Some("10.0.0.2:53")),
            ("10.0.0.2:5353", Some("10.0.0.2:5353")),
            ("fd00::2", Some("[fd00::2]:53")),
            ("[fd00::2]:5353", Some("[fd00::2]:5353")),
            ("dns.test", None),
            ("", None),
        ] {
            assert_eq!(server(text).ok().map(|server| server.to_string()).as_deref(), expected, "{text}");
        }
    }
}
