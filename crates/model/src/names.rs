//! What DNS says about the platform's own names, to everybody and to clients of one virtual network.
//!
//! The DNS server answers from these zones and `casemate dns` shows and exports them: one function decides for both.
//! Nothing here asks or answers anything.

use std::{collections::HashSet, net::IpAddr};

use crate::{
    id::ResourceId,
    network::{
        ACCOUNT_SERVICES, NetworkSnapshot, Record, RecordData, ServiceRecord, WORKSPACE_ZONE, Zone, ZoneView,
        workspace_record_names,
    },
};

/// How long an answer about the platform's names may be kept, in seconds: short, since endpoints come and go.
pub const PLATFORM_TTL: u32 = 10;

/// What the platform's names are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformNames {
    /// Domain of all the platform's names, without a trailing dot.
    pub domain: String,
    /// The region.
    pub region: String,
    /// Where clients reach the front door.
    pub front_door: Vec<IpAddr>,
    /// Where clients reach the DNS server.
    pub dns: Vec<IpAddr>,
}

/// A zone as it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedZone {
    /// Its lower-case name without a trailing dot.
    pub name: String,
    /// The private zone it comes from; `None` for the platform's own zone.
    pub id: Option<ResourceId>,
    /// Its records, without SOA and NS.
    pub records: Vec<Record>,
}

impl PlatformNames {
    /// The zones that a client gets answers from: of a virtual network, or (`None`, or a network that does not exist)
    /// of no network. Earlier ones come first where two have one name: private zones before the platform's.
    #[must_use]
    pub fn zones(&self, snapshot: &NetworkSnapshot, network: Option<&ResourceId>) -> Vec<NamedZone> {
        let view = network.and_then(|network| snapshot.view(network));
        let linked = view.into_iter().flat_map(|view| &view.zones);
        let mut zones: Vec<NamedZone> = linked
            .map(|zone| NamedZone { name: zone.name.clone(), id: Some(zone.id.clone()), records: zone.records.clone() })
            .collect();
        zones.push(self.platform_zone(snapshot, view));
        zones
    }

    fn platform_zone(&self, snapshot: &NetworkSnapshot, view: Option<&ZoneView>) -> NamedZone {
        let mut records = addresses("@", &self.front_door);
        records.extend(addresses("ns", if self.dns.is_empty() { &self.front_door } else { &self.dns }));
        let managed = view.map(|view| self.management(snapshot, view)).unwrap_or_default();
        records.extend(if managed.is_empty() { addresses("management", &self.front_door) } else { managed });
        for service in ACCOUNT_SERVICES {
            let host = service.host;
            records.extend(addresses(&format!("*.{host}"), &self.front_door));
            // Where both of a service's zones have a name, the one of the platform's own domain counts.
            let mut names: HashSet<&str> = HashSet::new();
            for zone in service.zones(&self.domain).iter().filter_map(|name| view?.zone(name)) {
                let held = zone.records.iter().filter(|record| {
                    leads_somewhere(record)
                        && !matches!(record.name.as_str(), "@" | "*")
                        && !names.contains(&*record.name)
                });
                let held: Vec<&Record> = held.collect();
                names.extend(held.iter().map(|record| record.name.as_str()));
                records.extend(held.into_iter().map(|record| renamed(record, &format!("{}.{host}", record.name))));
            }
        }
        for workspace in &snapshot.workspaces {
            for endpoint in &workspace.endpoints {
                let name = format!("{endpoint}.{}.inference", self.region);
                let private = view.and_then(|view| {
                    let zone = view.zone(WORKSPACE_ZONE)?;
                    let [all, _] = workspace_record_names(&workspace.guid, &self.region);
                    let found = find(zone, &all.replacen('*', endpoint, 1));
                    let here = |id: &ResourceId| *id == view.network;
                    let expected =
                        snapshot.endpoints.iter().any(|link| link.target == workspace.id && here(&link.network));
                    // A network with a private endpoint whose record was lost is told that, not the public address.
                    (expected || !found.is_empty()).then_some(found)
                });
                match private {
                    Some(found) => records.extend(found.into_iter().map(|record| renamed(record, &name))),
                    None => records.extend(addresses(&name, &self.front_door)),
                }
            }
        }
        let domain = self.domain.to_ascii_lowercase();
        let mut held: HashSet<String> = records.iter().map(|record| record.name.clone()).collect();
        for name in &snapshot.names {
            let name = name.strip_suffix(&domain).and_then(|name| name.strip_suffix('.'));
            // What is there already may lead to a network's private endpoint.
            if let Some(name) = name.filter(|name| is_host(name) && held.insert((*name).to_owned())) {
                records.extend(addresses(name, &self.front_door));
            }
        }
        NamedZone { name: domain, id: None, records }
    }

    /// The management API's name, where the network has a private endpoint's record for a workspace.
    fn management(&self, snapshot: &NetworkSnapshot, view: &ZoneView) -> Vec<Record> {
        let Some(zone) = view.zone(WORKSPACE_ZONE) else { return Vec::new() };
        let records = snapshot.workspaces.iter().filter(|workspace| !workspace.guid.is_empty()).map(|workspace| {
            let [_, own] = workspace_record_names(&workspace.guid, &self.region);
            find(zone, &own).into_iter().map(|record| renamed(record, "management")).collect::<Vec<_>>()
        });
        // One workspace's address serves: mixed with another's, a name would lead here today and there tomorrow.
        records.into_iter().find(|records| !records.is_empty()).unwrap_or_default()
    }
}

/// The values of a record set as a zone file has them: names with a trailing dot, texts quoted and escaped.
#[must_use]
pub fn presentation(data: &RecordData) -> Vec<String> {
    match data {
        RecordData::A(values) => values.iter().map(ToString::to_string).collect(),
        RecordData::Aaaa(values) => values.iter().map(ToString::to_string).collect(),
        RecordData::Cname(target) => vec![format!("{target}.")],
        RecordData::Ptr(names) => names.iter().map(|name| format!("{name}.")).collect(),
        RecordData::Mx(values) => {
            values.iter().map(|(preference, exchange)| format!("{preference} {exchange}.")).collect()
        }
        RecordData::Srv(values) => {
            let text = |srv: &ServiceRecord| format!("{} {} {} {}.", srv.priority, srv.weight, srv.port, srv.target);
            values.iter().map(text).collect()
        }
        RecordData::Txt(values) => {
            values.iter().map(|texts| texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(" ")).collect()
        }
    }
}

/// A text as a zone file has it: every byte that is not plain stands as `\\DDD`.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            0x20..=0x7e => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\{byte:03}")),
        }
    }
    out.push('"');
    out
}

/// What a name relative to the zone resolves to: its own records, else those of the wildcard at its closest encloser.
fn find<'z>(zone: &'z Zone, name: &str) -> Vec<&'z Record> {
    let exists = |wanted: &str| {
        let below = |held: &str| held.strip_suffix(wanted).is_some_and(|front| front.ends_with('.'));
        zone.records.iter().any(|record| record.name == wanted || below(&record.name))
    };
    let at = |wanted: &str| -> Vec<&'z Record> {
        zone.records.iter().filter(|record| record.name == wanted && leads_somewhere(record)).collect()
    };
    if exists(name) {
        return at(name);
    }
    let mut encloser = name;
    while let Some((_, above)) = encloser.split_once('.') {
        encloser = above;
        if exists(encloser) {
            return at(&format!("*.{encloser}"));
        }
    }
    at("*")
}

/// Whether a name relative to the zone is one of a host: labels of letters, digits and inner hyphens.
fn is_host(name: &str) -> bool {
    let fits = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= 200 && name.split('.').all(fits)
}

fn leads_somewhere(record: &Record) -> bool {
    matches!(record.data, RecordData::A(_) | RecordData::Aaaa(_) | RecordData::Cname(_))
}

fn renamed(record: &Record, name: &str) -> Record {
    Record { name: name.to_owned(), ttl: record.ttl, data: record.data.clone() }
}

fn addresses(name: &str, addresses: &[IpAddr]) -> Vec<Record> {
    let v4 = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    let v6 = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(*address),
    });
    [RecordData::A(v4.collect()), RecordData::Aaaa(v6.collect())]
        .into_iter()
        .filter(|data| data.count() > 0)
        .map(|data| Record { name: name.to_owned(), ttl: PLATFORM_TTL, data })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        inbound::WorkspaceAccess,
        network::{PrivateEndpoint, RecordKind, VirtualNetwork, WorkspaceView},
    };

    const GUID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

    fn id(tail: &str) -> ResourceId {
        ResourceId::parse(&format!("/subscriptions/s/resourceGroups/g/providers/{tail}")).unwrap()
    }

    fn network(name: &str, prefix: &str) -> VirtualNetwork {
        let properties = json!({"resourceGuid": GUID, "addressSpace": {"addressPrefixes": [prefix]}});
        let subnet = json!({"addressPrefix": prefix});
        let id = id(&format!("Microsoft.Network/virtualNetworks/{name}"));
        VirtualNetwork::new(&id, &properties, [("default", &subnet)]).unwrap()
    }

    fn zone(name: &str, records: &[(&str, RecordData)]) -> Zone {
        let records =
            records.iter().map(|(name, data)| Record { name: (*name).to_owned(), ttl: 60, data: data.clone() });
        let id = id(&format!("Microsoft.Network/privateDnsZones/{name}"));
        Zone { id, name: name.to_owned(), records: records.collect() }
    }

    fn a(address: &str) -> RecordData {
        RecordData::A(vec![address.parse().unwrap()])
    }

    /// One network, in which `zones` are linked, and one without any; a workspace with the endpoints `one` and `two`.
    fn snapshot(zones: Vec<Zone>, has_private_endpoint: bool) -> NetworkSnapshot {
        let networks = vec![network("v", "10.1.0.0/16"), network("w", "10.2.0.0/16")];
        let workspace = id("Microsoft.MachineLearningServices/workspaces/ws");
        let endpoint = PrivateEndpoint {
            id: id("Microsoft.Network/privateEndpoints/pe"),
            network: networks[0].id.clone(),
            subnet: "default".to_owned(),
            address: "10.1.0.4".parse().unwrap(),
            target: workspace.clone(),
            groups: vec!["amlworkspace".to_owned()],
            connection: workspace.child("privateEndpointConnections", "pe").unwrap(),
            approved: true,
        };
        let views = networks.iter().zip([zones, Vec::new()]);
        let views =
            views.map(|(network, zones)| ZoneView { network: network.id.clone(), zones, forwarders: Vec::new() });
        NetworkSnapshot {
            views: views.collect(),
            networks,
            endpoints: if has_private_endpoint { vec![endpoint] } else { Vec::new() },
            workspaces: vec![WorkspaceView {
                id: workspace,
                guid: GUID.to_owned(),
                access: WorkspaceAccess::default(),
                endpoints: vec!["one".to_owned(), "two".to_owned()],
            }],
            names: Vec::new(),
        }
    }

    /// `name=values` of the platform's zone, for names that end with `of`.
    fn told(snapshot: &NetworkSnapshot, network: &str, of: &str) -> String {
        let platform = PlatformNames {
            domain: "casemate.test".to_owned(),
            region: "local".to_owned(),
            front_door: vec!["192.0.2.1".parse().unwrap()],
            dns: vec!["10.1.0.2".parse().unwrap()],
        };
        let network = id(&format!("Microsoft.Network/virtualNetworks/{network}"));
        let zones = platform.zones(snapshot, Some(&network));
        let platform = zones.last().unwrap();
        assert_eq!((platform.name.as_str(), &platform.id), ("casemate.test", &None));
        let records = platform.records.iter().filter(|record| record.name.ends_with(of));
        records
            .map(|record| match &record.data {
                RecordData::A(values) => format!("{}={}", record.name, values[0]),
                RecordData::Cname(target) => format!("{}=>{target}", record.name),
                other => format!("{} {}", record.name, other.kind().as_str()),
            })
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_network_with_the_workspaces_record_is_led_to_its_private_endpoint() {
        let [all, own] = workspace_record_names(GUID, "local");
        let exact = all.replace('*', "two");
        let (private, other) = (a("10.1.0.4"), RecordData::Cname("elsewhere.test".to_owned()));
        let records = |records: &[(&str, &RecordData)]| {
            let records: Vec<_> = records.iter().map(|(name, data)| (*name, (*data).clone())).collect();
            vec![zone(WORKSPACE_ZONE, &records)]
        };
        let public = "one.local.inference=192.0.2.1 two.local.inference=192.0.2.1";
        let text = RecordData::Txt(vec![vec!["x".to_owned()]]);
        for (zones, linked, inference, management) in [
            (vec![], true, public, "management=192.0.2.1"),
            (
                records(&[(&all, &private), (&own, &private)]),
                true,
                "one.local.inference=10.1.0.4 two.local.inference=10.1.0.4",
                "management=10.1.0.4",
            ),
            (
                records(&[(&all, &private), (&exact, &other)]),
                true,
                "one.local.inference=10.1.0.4 two.local.inference=>elsewhere.test",
                "management=192.0.2.1",
            ),
            // The zone is there and its record is not: with a private endpoint the name does not exist, without one
            // it is the public one.
            (records(&[]), true, "", "management=192.0.2.1"),
            (records(&[]), false, public, "management=192.0.2.1"),
            // A name that exists with another type stands in the way of the wildcard, as in any zone.
            (
                records(&[(&all, &private), (&exact, &text)]),
                true,
                "one.local.inference=10.1.0.4",
                "management=192.0.2.1",
            ),
            (
                records(&[("*", &private)]),
                false,
                "one.local.inference=10.1.0.4 two.local.inference=10.1.0.4",
                "management=10.1.0.4",
            ),
        ] {
            let snapshot = snapshot(zones, linked);
            assert_eq!(told(&snapshot, "v", ".inference"), inference);
            assert_eq!(told(&snapshot, "v", "management"), management);
            assert_eq!(told(&snapshot, "w", ".inference"), public);
            assert_eq!(told(&snapshot, "none", ".inference"), public);
        }
    }

    #[test]
    fn values_as_zone_files_have_them() {
        let service = ServiceRecord { priority: 1, weight: 2, port: 389, target: "a.test".to_owned() };
        for (data, expected) in [
            (RecordData::A(vec!["192.0.2.1".parse().unwrap()]), "192.0.2.1"),
            (RecordData::Aaaa(vec!["2001:db8::1".parse().unwrap()]), "2001:db8::1"),
            (RecordData::Cname("a.test".to_owned()), "a.test."),
            (RecordData::Ptr(vec!["a.test".to_owned()]), "a.test."),
            (RecordData::Mx(vec![(10, "a.test".to_owned())]), "10 a.test."),
            (RecordData::Srv(vec![service]), "1 2 389 a.test."),
            (RecordData::Txt(vec![vec!["one".to_owned(), "t w;o".to_owned()]]), r#""one" "t w;o""#),
            (RecordData::Txt(vec![vec!["a\"b\\c\nd\u{e9}".to_owned()]]), r#""a\"b\\c\010d\195\169""#),
        ] {
            assert_eq!(presentation(&data), [expected]);
        }
    }

    #[test]
    fn accounts_of_linked_zones_and_the_apex() {
        let zones = vec![zone("privatelink.blob.core.windows.net", &[("acct", a("10.1.0.5")), ("@", a("10.1.0.9"))])];
        let snapshot = snapshot(zones, false);
        assert_eq!(told(&snapshot, "v", ".blob.core"), "*.blob.core=192.0.2.1 acct.blob.core=10.1.0.5");
        assert_eq!(told(&snapshot, "w", ".blob.core"), "*.blob.core=192.0.2.1");
        assert_eq!(told(&snapshot, "v", "@"), "@=192.0.2.1");
        assert_eq!(told(&snapshot, "v", "ns"), "ns=10.1.0.2");
        let mut named = snapshot.clone();
        named.names = [
            "one.local.inference.casemate.test",
            "pool1a2b3c.local.cloudapp.casemate.test",
            "score.example.org",
            "evilcasemate.test",
            "casemate.test",
            "*.any.casemate.test",
            "a..casemate.test",
        ]
        .map(str::to_owned)
        .to_vec();
        let cloud = "pool1a2b3c.local.cloudapp=192.0.2.1";
        for (of, expected) in [(".cloudapp", cloud), ("org", ""), ("any", ""), ("evil", ""), ("@", "@=192.0.2.1")] {
            assert_eq!(told(&named, "w", of), expected);
        }
        assert_eq!(told(&named, "w", "one.local.inference"), "one.local.inference=192.0.2.1");
        let v6 = addresses("x", &["2001:db8::1".parse().unwrap(), "192.0.2.1".parse().unwrap()]);
        assert_eq!(v6.iter().map(|record| record.data.kind()).collect::<Vec<_>>(), [RecordKind::A, RecordKind::Aaaa]);
    }
}
