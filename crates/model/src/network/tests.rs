use std::{collections::HashSet, net::IpAddr};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::*;
use crate::{
    id::ResourceId,
    resource::{Resource, SystemData},
};

const GROUP: &str = "/subscriptions/5e/resourceGroups/rg/providers";

fn network(properties: Value, subnets: &[(&str, &str)]) -> Result<VirtualNetwork, crate::Fault> {
    let mut properties = properties;
    properties["resourceGuid"] = "0f8fad5b-d9cb-469f-a165-70867728950e".into();
    let subnets: Vec<(&str, Value)> =
        subnets.iter().map(|(name, prefix)| (*name, json!({"addressPrefix": prefix}))).collect();
    let id = ResourceId::parse(&format!("{GROUP}/{NETWORK_TYPE}/v")).unwrap();
    VirtualNetwork::new(&id, &properties, subnets.iter().map(|(name, properties)| (*name, properties)))
}

fn space(prefixes: &[&str], casemate: Value) -> Value {
    json!({"addressSpace": {"addressPrefixes": prefixes}, "casemate": casemate})
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn kinds_and_own_addresses() {
    let managed = NetworkKind::Managed { bridge: "cm0f8fad5bd9".to_owned() };
    let device = NetworkKind::Interface { device: "eth0".to_owned() };
    let interface = json!({"kind": "interface", "interface": "eth0"});
    for (prefix, casemate, kind, dns, gateway) in [
        ("127.77.0.0/16", json!({}), NetworkKind::Loopback, Some("127.77.0.2"), None),
        ("10.0.0.0/16", Value::Null, managed.clone(), Some("10.0.0.2"), Some("10.0.0.1")),
        ("fd00:7::/64", json!({"kind": "Managed"}), managed, Some("fd00:7::2"), Some("fd00:7::1")),
        ("192.0.2.0/24", interface, device.clone(), None, None),
        (
            "192.0.2.0/24",
            json!({"kind": "interface", "interface": "eth0", "dnsAddress": "192.0.2.9"}),
            device,
            Some("192.0.2.9"),
            None,
        ),
    ] {
        let found = network(space(&[prefix], casemate), &[("default", prefix)]).unwrap();
        assert_eq!((found.kind, found.dns_address, found.gateway_address), (kind, dns.map(ip), gateway.map(ip)));
    }
    assert_eq!(network(space(&["10.0.0.0/16"], json!({})), &[]).unwrap().dns_address, None);
}

#[test]
fn networks_that_are_refused() {
    for (properties, subnets, said) in [
        (json!({}), vec![], "1 to 16 address prefixes"),
        (space(&["10.0.0.0/33"], json!({})), vec![], "not an address prefix"),
        (space(&["10.0.0.1/24"], json!({})), vec![], "it should be 10.0.0.0/24"),
        (space(&["10.0.0.0/8", "10.1.0.0/16"], json!({})), vec![], "overlap"),
        (space(&["8.8.8.0/24"], json!({})), vec![], "private prefix"),
        (space(&["127.0.0.0/8"], json!({})), vec![], "127.0.0.0/24"),
        (space(&["127.0.0.0/25"], json!({})), vec![], "127.0.0.0/24"),
        (space(&["127.1.0.0/16", "10.0.0.0/16"], json!({})), vec![], "kind 'managed'"),
        (space(&["10.0.0.0/16"], json!({"kind": "loopback"})), vec![], "127.0.0.0/8"),
        (space(&["127.1.0.0/16"], json!({"kind": "managed"})), vec![], "private prefix"),
        (space(&["10.0.0.0/16"], json!({"kind": "interface"})), vec![], "--interface"),
        (space(&["10.0.0.0/16"], json!({"kind": "interface", "interface": "a/b"})), vec![], "not an interface"),
        (space(&["10.0.0.0/16"], json!({"interface": "eth0"})), vec![], "no interface of its own"),
        (space(&["127.1.0.0/16"], json!({"kind": "interface", "interface": "lo"})), vec![], "machines can have"),
        (space(&["0.0.0.0/0"], json!({"kind": "interface", "interface": "eth0"})), vec![], "machines can have"),
        (space(&["10.0.0.0/16"], json!({"kind": "tunnel"})), vec![], "loopback, interface or managed"),
        (space(&["10.0.0.0/16"], json!({"dnsAddress": "10.1.0.1"})), vec![], "inside the network"),
        (space(&["10.0.0.0/16"], json!({"forwarders": [{"suffix": "a..b", "to": ["10.0.0.1"]}]})), vec![], "DNS name"),
        (space(&["10.0.0.0/16"], json!({"forwarders": [{"suffix": "a", "to": ["x"]}]})), vec![], "DNS server"),
        (space(&["10.0.0.0/16"], json!({})), vec![("a", "10.1.0.0/24")], "does not lie in"),
        (space(&["10.0.0.0/16"], json!({})), vec![("a", "10.0.0.0/24"), ("b", "10.0.0.128/25")], "overlaps 'a'"),
        (space(&["10.0.0.0/16"], json!({})), vec![("a", "10.0.0.0/30")], "too small"),
    ] {
        let fault = network(properties.clone(), &subnets).unwrap_err();
        assert!(fault.message.contains(said), "{properties}: {fault}");
    }
}

#[test]
fn addresses_are_given_after_the_reserved_ones_and_run_out() {
    let network = network(space(&["127.1.0.0/16"], json!({})), &[("small", "127.1.0.0/29")]).unwrap();
    let subnet = network.subnet("SMALL").unwrap();
    let mut taken = network.own_addresses();
    for wanted in ["127.1.0.4", "127.1.0.5", "127.1.0.6"] {
        let given = subnet.first_free(&taken).unwrap();
        assert_eq!(given, ip(wanted));
        taken.insert(given);
    }
    assert_eq!(subnet.first_free(&taken), None);
    for (address, usable) in
        [("127.1.0.3", false), ("127.1.0.4", true), ("127.1.0.7", false), ("127.1.0.8", false), ("::4", false)]
    {
        assert_eq!(subnet.is_usable(ip(address)), usable, "{address}");
    }
    let whole: HashSet<IpAddr> = (0..=255).map(|last| IpAddr::from([127, 1, 0, last])).collect();
    assert_eq!(subnet.first_free(&whole), None);
}

#[test]
fn record_sets() {
    let read = |kind: RecordKind, name: &str, value: Value| {
        Record::new(kind, name, &json!({"ttl": 10, kind.property(): value})).map(|record| record.data)
    };
    for (kind, value) in [
        (RecordKind::A, json!([{"ipv4Address": "10.0.0.4"}])),
        (RecordKind::Aaaa, json!([{"ipv6Address": "fd00::4"}])),
        (RecordKind::Cname, json!({"cname": "Host.example."})),
        (RecordKind::Mx, json!([{"preference": 10, "exchange": "mail.example"}])),
        (RecordKind::Ptr, json!([{"ptrdname": "host.example"}])),
        (RecordKind::Srv, json!([{"priority": 1, "weight": 2, "port": 443, "target": "h.example"}])),
        (RecordKind::Txt, json!([{"value": ["a", "b"]}])),
    ] {
        assert_eq!(read(kind, "*.x", value).unwrap().kind(), kind);
        assert!(read(kind, "x", json!([])).is_err(), "{kind:?}");
        assert!(read(kind, "x", json!([{}])).is_err(), "{kind:?}");
        assert!(read(kind, "x", json!(7)).is_err(), "{kind:?}");
    }
    let address = json!([{"ipv4Address": "10.0.0.4"}]);
    for bad in ["", "a..b", "-a", "a.*.b", "*a", "a b", "ä", &"a".repeat(64), &"a.".repeat(140)] {
        assert!(read(RecordKind::A, bad, address.clone()).is_err(), "{bad}");
    }
    assert!(read(RecordKind::Cname, "@", json!({"cname": "a.b"})).is_err());
    assert!(read(RecordKind::Txt, "x", json!([{"value": ["x".repeat(256)]}])).is_err());
    assert!(Record::new(RecordKind::A, "x", &json!({"ttl": -1, "aRecords": address})).is_err());
}

fn row(path: &str, properties: Value) -> Resource {
    let at = Timestamp::from_second(1_700_000_000).unwrap();
    Resource {
        id: ResourceId::parse(&format!("{GROUP}/{path}")).unwrap(),
        body: json!({ "properties": properties }),
        observed: Map::new(),
        generation: 1,
        etag: String::new(),
        deleting: false,
        system: SystemData {
            created_by: String::new(),
            created_by_type: String::new(),
            created_at: at,
            last_modified_by: String::new(),
            last_modified_by_type: String::new(),
            last_modified_at: at,
        },
    }
}

const WORKSPACE: &str = "Microsoft.MachineLearningServices/workspaces/ws";

fn endpoint(name: &str, network: &str, address: &str) -> [Resource; 2] {
    let id = format!("{GROUP}/Microsoft.Network/privateEndpoints/{name}");
    let connection = format!("{WORKSPACE}/privateEndpointConnections/{name}.1");
    [
        row(
            &format!("Microsoft.Network/privateEndpoints/{name}"),
            json!({
                "subnet": {"id": format!("{GROUP}/Microsoft.Network/virtualNetworks/{network}/subnets/s")},
                "privateLinkServiceConnections": [{"properties": {"privateLinkServiceId": format!("{GROUP}/{WORKSPACE}"), "groupIds": ["amlworkspace"]}}],
                "casemate": {"address": address, "connection": format!("{name}.1")},
            }),
        ),
        row(
            &connection,
            json!({"privateEndpoint": {"id": id}, "privateLinkServiceConnectionState": {"status": "Approved"}}),
        ),
    ]
}

fn vnet(name: &str, prefix: &str) -> [Resource; 2] {
    let guid = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, name.as_bytes()).to_string();
    [
        row(
            &format!("{NETWORK_TYPE}/{name}"),
            json!({"resourceGuid": guid, "addressSpace": {"addressPrefixes": [prefix]}}),
        ),
        row(&format!("{NETWORK_TYPE}/{name}/subnets/s"), json!({"addressPrefix": prefix})),
    ]
}

fn zone_rows() -> Vec<Resource> {
    let zone = format!("{ZONE_TYPE}/{WORKSPACE_ZONE}");
    let link = |network: &str| {
        let id = format!("{GROUP}/Microsoft.Network/virtualNetworks/{network}");
        row(&format!("{zone}/virtualNetworkLinks/{network}"), json!({"virtualNetwork": {"id": id}}))
    };
    let addresses = json!([{"ipv4Address": "127.1.0.4"}, {"ipv4Address": "127.2.0.4"}, {"ipv4Address": "9.9.9.9"}]);
    vec![
        row(&zone, json!({})),
        link("one"),
        link("two"),
        row(&format!("{zone}/A/*.g.inference.local"), json!({"ttl": 10, "aRecords": addresses})),
    ]
}

fn everything() -> Vec<Resource> {
    let mut workspace =
        row(WORKSPACE, json!({"publicNetworkAccess": "Disabled", "ipAllowlist": ["192.0.2.0/24", "::1"]}));
    workspace.observed.insert("workspaceId".to_owned(), "G".into());
    let mut rows = vec![workspace, row(&format!("{WORKSPACE}/onlineEndpoints/EP"), json!({}))];
    rows.extend(vnet("one", "127.1.0.0/16"));
    rows.extend(vnet("two", "127.2.0.0/16"));
    rows.extend(endpoint("pe1", "one", "127.1.0.4"));
    rows.extend(endpoint("pe2", "two", "127.2.0.4"));
    rows.extend(zone_rows());
    rows
}

#[test]
fn a_snapshot_of_everything() {
    let rows = everything();
    let (snapshot, problems) = NetworkSnapshot::from_resources(&rows);
    assert_eq!(problems, []);
    assert_eq!(snapshot.networks.len(), 2);
    assert!(snapshot.endpoints.iter().all(|endpoint| endpoint.approved));
    // Each network sees its own private endpoint, and what is nobody's.
    for view in &snapshot.views {
        let record = view.zone(WORKSPACE_ZONE).unwrap().record("*.G.inference.local", RecordKind::A).unwrap();
        let own = if view.network.name() == "one" { [127, 1, 0, 4] } else { [127, 2, 0, 4] };
        assert_eq!(record.data, RecordData::A(vec![own.into(), [9, 9, 9, 9].into()]));
    }
    let workspace = snapshot.workspace_of_endpoint("ep").unwrap();
    assert_eq!((workspace.guid.as_str(), workspace.access.public_disabled), ("g", true));
    assert!(workspace.access.allowed.admits(ip("192.0.2.9")) && !workspace.access.allowed.admits(ip("192.0.3.9")));
    // The order of the rows means nothing.
    let backwards: Vec<Resource> = rows.into_iter().rev().collect();
    assert_eq!(NetworkSnapshot::from_resources(&backwards).0, snapshot);
}

#[test]
fn what_is_gone_or_rejected_is_not_approved() {
    for change in ["rejected", "gone", "deleting", "another"] {
        let mut rows = everything();
        let at = rows.iter().position(|row| row.name() == "pe1.1").unwrap();
        match change {
            "gone" => drop(rows.remove(at)),
            "deleting" => rows[at].deleting = true,
            "another" => rows[at].body["properties"]["privateEndpoint"]["id"] = "/x".into(),
            _ => rows[at].body["properties"]["privateLinkServiceConnectionState"]["status"] = "Rejected".into(),
        }
        let (snapshot, _) = NetworkSnapshot::from_resources(&rows);
        let approved: Vec<bool> = snapshot.endpoints.iter().map(|endpoint| endpoint.approved).collect();
        assert_eq!(approved, [false, true], "{change}");
    }
}

#[test]
fn odd_rows_are_told_and_left_out() {
    let mut rows = everything();
    let find = |rows: &[Resource], name: &str| rows.iter().position(|row| row.name() == name).unwrap();
    let (pe2, records) = (find(&rows, "pe2"), find(&rows, "*.g.inference.local"));
    rows[pe2].body["properties"]["casemate"]["address"] = "10.9.9.9".into();
    rows[records].body["properties"]["aRecords"] = json!("x");
    let (snapshot, problems) = NetworkSnapshot::from_resources(&rows);
    assert_eq!((snapshot.endpoints.len(), problems.len()), (1, 2));
    assert_eq!(snapshot.views[0].zones[0].records, []);
    // An address that two claim is served for the first only.
    let mut rows = everything();
    rows.extend(endpoint("pe0", "one", "127.1.0.4"));
    let (snapshot, problems) = NetworkSnapshot::from_resources(&rows);
    assert_eq!((snapshot.endpoints.len(), problems.len()), (2, 1));
}

#[test]
fn owners_have_further_names() {
    let compute = "Microsoft.MachineLearningServices/workspaces/ws/computes/aks";
    let service = "Microsoft.MachineLearningServices/workspaces/ws/services/aci";
    let mut rows = vec![row(compute, json!({})), row(service, json!({})), row(WORKSPACE, json!({}))];
    rows[0].body["_tls"] = json!({"mode": "platform", "names": ["Pool1a2b3c.local.cloudapp.casemate.internal."]});
    rows[1].body["_names"] = json!(["aci.local.azurecontainer.casemate.internal", 7]);
    rows[2].body["_names"] = json!(["not.an.owner"]);
    let (snapshot, problems) = NetworkSnapshot::from_resources(&rows);
    let names = ["aci.local.azurecontainer.casemate.internal", "pool1a2b3c.local.cloudapp.casemate.internal"];
    assert_eq!((snapshot.names.as_slice(), problems.len()), (&names.map(str::to_owned)[..], 0));
    rows[0].body["_tls"] = json!({"mode": "none of ours"});
    rows[1].deleting = true;
    let (snapshot, problems) = NetworkSnapshot::from_resources(&rows);
    assert_eq!((snapshot.names.len(), problems.len()), (0, 1));
}

/// Applies changes to rows.
fn apply(rows: &mut Vec<Resource>, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Remove(id) => rows.retain(|row| row.id != id),
            Change::Put(id, body) => {
                let found = rows.iter_mut().find(|row| row.id == id);
                match found {
                    Some(row) => row.body = body,
                    None => rows.push(Resource { id, body, ..row(WORKSPACE, json!({})) }),
                }
            }
        }
    }
}

fn wish(network: &str, address: &str) -> Registration {
    let zone = ResourceId::parse(&format!("{GROUP}/{ZONE_TYPE}/{WORKSPACE_ZONE}")).unwrap();
    let network = ResourceId::parse(&format!("{GROUP}/{NETWORK_TYPE}/{network}")).unwrap();
    let names = workspace_record_names("G", "local").to_vec();
    Registration { network, address: ip(address), zones: vec![ZoneNames { zone, automatic: true, names }] }
}

fn endpoint_id(name: &str) -> ResourceId {
    ResourceId::parse(&format!("{GROUP}/{PRIVATE_ENDPOINT_TYPE}/{name}")).unwrap()
}

#[test]
fn names_come_and_go_with_their_private_endpoints() {
    let mut rows = Vec::new();
    let (one, two) = (endpoint_id("one"), endpoint_id("two"));
    let changes = register(&one, Some(&wish("net1", "10.0.0.4")), &rows);
    apply(&mut rows, changes);
    let names: Vec<&str> = rows.iter().map(Resource::name).collect();
    assert_eq!(names, [WORKSPACE_ZONE, "*.g.inference.local", "g.workspace.local", "net1"]);
    assert_eq!(register(&one, Some(&wish("net1", "10.0.0.4")), &rows), [], "it is as it should be");
    let changes = register(&two, Some(&wish("net2", "10.1.0.4")), &rows);
    apply(&mut rows, changes);
    let records = |rows: &[Resource]| {
        rows.iter().find(|row| row.name().starts_with('*')).map(|row| row.properties()["aRecords"].clone())
    };
    let address = |text: &str| json!({"ipv4Address": text});
    assert_eq!(records(&rows), Some(json!([address("10.0.0.4"), address("10.1.0.4")])));
    // Another address replaces the old one.
    let changes = register(&one, Some(&wish("net1", "10.0.0.9")), &rows);
    apply(&mut rows, changes);
    assert_eq!(records(&rows), Some(json!([address("10.1.0.4"), address("10.0.0.9")])));
    // A record that was removed by hand is mended.
    rows.retain(|row| !row.name().starts_with('*'));
    let changes = register(&two, Some(&wish("net2", "10.1.0.4")), &rows);
    apply(&mut rows, changes);
    assert_eq!(records(&rows), Some(json!([address("10.1.0.4")])));
    let changes = release(&two, &rows);
    apply(&mut rows, changes);
    assert!(!rows.iter().any(|row| row.name() == "net2") && rows.iter().any(|row| row.name() == "net1"));
    let changes = release(&one, &rows);
    apply(&mut rows, changes);
    assert_eq!(rows, []);
}

#[test]
fn what_was_made_by_hand_stays() {
    let zone = format!("{ZONE_TYPE}/{WORKSPACE_ZONE}");
    let mut rows = vec![
        row(&zone, json!({})),
        row(&format!("{zone}/A/*.g.inference.local"), json!({"ttl": 60, "aRecords": [{"ipv4Address": "9.9.9.9"}]})),
        row(&format!("{zone}/virtualNetworkLinks/net1"), json!({"virtualNetwork": {"id": "/subscriptions/5e"}})),
    ];
    let before = rows.clone();
    let changes = register(&endpoint_id("one"), Some(&wish("net1", "10.0.0.4")), &rows);
    apply(&mut rows, changes);
    assert!(rows.iter().any(|row| row.name() == "net1-2"), "the link's name was taken");
    let changes = release(&endpoint_id("one"), &rows);
    apply(&mut rows, changes);
    rows[1].body.as_object_mut().unwrap().remove(OWNERS);
    assert_eq!(rows, before);
}

#[test]
fn what_goes_with_a_private_endpoint_or_a_network() {
    let rows = everything();
    assert_eq!(
        release(&endpoint_id("pe1"), &rows),
        [Change::Remove(rows.iter().find(|row| row.name() == "pe1.1").unwrap().id.clone())]
    );
    let network = ResourceId::parse(&format!("{GROUP}/{NETWORK_TYPE}/one")).unwrap();
    let link = rows.iter().find(|row| row.name() == "one" && row.id.is_type(ZONE_LINK_TYPE)).unwrap();
    assert_eq!(release(&network, &rows), [Change::Remove(link.id.clone())]);
    assert_eq!(release(&link.id, &rows), []);
    let mut rows = rows;
    rows.iter_mut().for_each(|row| row.deleting = true);
    assert_eq!(release(&network, &rows), []);
}
