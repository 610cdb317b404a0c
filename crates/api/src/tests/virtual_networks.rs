//! Virtual networks, private endpoints, their connections and their names.

use std::collections::BTreeMap;

use casemate_model::network::NetworkSnapshot;
use casemate_store::Filter;
use serde_json::{Value, json};

use crate::testing::{Answer, World};

const ZONE: &str = "privatelink.api.azureml.ms";

/// A group `g` with a workspace `ws` and a network `v` with the subnet `default`.
struct Net {
    world: World,
    group: String,
    workspace: String,
}

impl Net {
    async fn new() -> Self {
        let world = World::new().await;
        let workspace = world.workspace("g", "wks").await;
        let net = Self { group: world.path("/resourceGroups/g"), workspace, world };
        net.vnet("v", "127.77.0.0/16").await.expect(201);
        net
    }

    fn id(&self, rest: &str) -> String {
        format!("{}/providers/Microsoft.Network/{rest}", self.group)
    }

    async fn put(&self, rest: &str, body: Value) -> Answer {
        self.world.call("PUT", &self.id(rest), body).await
    }

    async fn get(&self, rest: &str) -> Value {
        self.world.get(&self.id(rest)).await.expect(200)
    }

    async fn delete(&self, rest: &str) -> Answer {
        self.world.call("DELETE", &self.id(rest), Value::Null).await
    }

    async fn vnet(&self, name: &str, prefix: &str) -> Answer {
        let subnet = json!({"name": "default", "properties": {"addressPrefix": prefix.replace("/16", "/24")}});
        let body = json!({"location": "local", "properties": {"addressSpace": {"addressPrefixes": [prefix]}, "subnets": [subnet]}});
        self.put(&format!("virtualNetworks/{name}"), body).await
    }

    fn endpoint_body(&self, network: &str, target: &str, group: &str, manual: bool) -> Value {
        let field = if manual { "manualPrivateLinkServiceConnections" } else { "privateLinkServiceConnections" };
        json!({"location": "local", "properties": {
            "subnet": {"id": self.id(&format!("virtualNetworks/{network}/subnets/default"))},
            field: [{"name": "c", "properties": {"privateLinkServiceId": target, "groupIds": [group], "requestMessage": "please"}}],
        }})
    }

    async fn endpoint(&self, name: &str, network: &str) -> Value {
        let body = self.endpoint_body(network, &self.workspace, "amlworkspace", false);
        self.put(&format!("privateEndpoints/{name}"), body).await.expect(201)
    }

    /// Names and values of the address records of the workspaces' zone.
    async fn records(&self) -> BTreeMap<String, Vec<String>> {
        let answer = self.world.get(&self.id(&format!("privateDnsZones/{ZONE}/A"))).await;
        let sets = answer.body["value"].as_array().cloned().unwrap_or_default();
        let values = |set: &Value| {
            let list = set["properties"]["aRecords"].as_array().unwrap();
            list.iter().map(|value| value["ipv4Address"].as_str().unwrap().to_owned()).collect()
        };
        sets.iter().map(|set| (set["name"].as_str().unwrap().to_owned(), values(set))).collect()
    }

    async fn connections(&self, target: &str) -> Vec<Value> {
        let path = format!("{target}/privateEndpointConnections");
        self.world.get(&path).await.expect(200)["value"].as_array().unwrap().clone()
    }

    async fn guid(&self) -> String {
        let workspace = self.world.get(&self.workspace).await.expect(200);
        workspace["properties"]["workspaceId"].as_str().unwrap().to_owned()
    }

    async fn snapshot(&self) -> NetworkSnapshot {
        let rows = self.world.state.store.resource_list(&Filter::default()).await.unwrap();
        let (snapshot, problems) = NetworkSnapshot::from_resources(&rows);
        assert_eq!(problems, []);
        snapshot
    }
}

fn status(endpoint: &Value) -> &str {
    let properties = &endpoint["properties"];
    let link = properties["privateLinkServiceConnections"].get(0);
    let link = link.or_else(|| properties["manualPrivateLinkServiceConnections"].get(0)).unwrap();
    link["properties"]["privateLinkServiceConnectionState"]["status"].as_str().unwrap()
}

#[tokio::test]
async fn networks_and_subnets() {
    let net = Net::new().await;
    let shown = net.get("virtualNetworks/V").await;
    assert_eq!(shown["properties"]["casemate"]["kind"], "loopback");
    assert_eq!(shown["properties"]["casemate"]["status"]["dnsAddress"], "127.77.0.2");
    assert_eq!(shown["properties"]["subnets"][0]["properties"]["addressPrefix"], "127.77.0.0/24");
    // What was read is accepted again, and changes nothing.
    let again = net.put("virtualNetworks/v", shown.clone()).await.expect(200);
    assert_eq!(again["properties"], shown["properties"]);
    assert_eq!(again["properties"]["subnets"][0]["etag"], shown["properties"]["subnets"][0]["etag"]);
    let subnet = json!({"properties": {"addressPrefix": "127.77.1.0/24"}});
    net.put("virtualNetworks/v/subnets/two", subnet.clone()).await.expect(201);
    net.put("virtualNetworks/v/subnets/three", subnet).await.refused(400, "NetcfgSubnetRangesOverlap");
    let outside = json!({"properties": {"addressPrefix": "127.78.1.0/24"}});
    net.put("virtualNetworks/v/subnets/three", outside).await.refused(400, "NetcfgSubnetRangeOutsideVnet");
    assert_eq!(net.get("virtualNetworks/v/subnets").await["value"].as_array().unwrap().len(), 2);
    // A body without subnets leaves them; one with some replaces them.
    let space = json!({"addressPrefixes": ["127.77.0.0/16"]});
    let body = json!({"location": "local", "properties": {"addressSpace": space}});
    let kept = net.put("virtualNetworks/v", body).await.expect(200);
    assert_eq!(kept["properties"]["subnets"].as_array().unwrap().len(), 2);
    let one = json!([{"name": "two", "properties": {"addressPrefix": "127.77.1.0/24"}}]);
    let body = json!({"location": "local", "properties": {"addressSpace": space, "subnets": one}});
    let replaced = net.put("virtualNetworks/v", body).await.expect(200);
    assert_eq!(replaced["properties"]["subnets"].as_array().unwrap().len(), 1);
    net.vnet("w", "127.77.0.0/16").await.refused(409, "VnetAddressSpaceOverlaps");
    let listed = net.world.get(&net.world.path("/providers/Microsoft.Network/virtualNetworks")).await.expect(200);
    assert_eq!(listed["value"].as_array().unwrap().len(), 1);
    net.delete("virtualNetworks/v").await.expect(200);
    net.delete("virtualNetworks/v").await.expect(204);
    assert_eq!(net.world.get(&net.id("virtualNetworks/v/subnets/two")).await.status, 404);
}

#[tokio::test]
async fn networks_that_are_refused() {
    let net = Net::new().await;
    let casemate = |own: Value| json!({"location": "local", "properties": {"addressSpace": {"addressPrefixes": ["10.1.0.0/16"]}, "casemate": own}});
    for (body, status, code) in [
        (json!({"location": "local"}), 400, "InvalidRequestFormat"),
        (casemate(json!({"kind": "loopback"})), 400, "InvalidRequestFormat"),
        (casemate(json!({"kind": "interface"})), 400, "InvalidRequestFormat"),
        (
            json!({"location": "local", "properties": {"addressSpace": {"addressPrefixes": ["10.1.0.0/16"]}, "virtualNetworkPeerings": [{}]}}),
            501,
            "NotImplemented",
        ),
        (
            json!({"location": "local", "properties": {"addressSpace": {"addressPrefixes": ["10.1.0.0/16"]}, "subnets": [{"name": "a", "properties": {"addressPrefix": "10.1.0.0/24", "networkSecurityGroup": {"id": "x"}}}]}}),
            501,
            "NotImplemented",
        ),
        (
            json!({"location": "local", "properties": {"addressSpace": {"addressPrefixes": ["10.1.0.0/16"]}, "subnets": [{"name": "a b", "properties": {"addressPrefix": "10.1.0.0/24"}}]}}),
            400,
            "InvalidResourceName",
        ),
        (
            json!({"location": "local", "properties": {"addressSpace": {"addressPrefixes": ["10.1.0.0/16"]}, "subnets": "x"}}),
            400,
            "InvalidRequestFormat",
        ),
        (json!({"location": "local", "properties": "x"}), 400, "InvalidRequestFormat"),
        (json!([]), 400, "InvalidRequestContent"),
    ] {
        net.put("virtualNetworks/other", body).await.refused(status, code);
    }
    net.put("virtualNetworks/other", casemate(json!({"kind": "interface", "interface": "eth0"}))).await.expect(201);
    let message = net
        .put("virtualNetworks/other", casemate(json!({"kind": "managed"})))
        .await
        .refused(400, "InvalidRequestFormat");
    assert!(message.contains("interface (eth0)") && message.contains("managed"), "{message}");
    assert_eq!(net.world.get(&net.id("virtualNetworks?x")).await.expect(200)["value"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_private_endpoint_of_a_workspace() {
    let net = Net::new().await;
    let guid = net.guid().await;
    let made = net.endpoint("pe", "v").await;
    assert_eq!(status(&made), "Approved");
    let dns = &made["properties"]["customDnsConfigs"];
    assert_eq!(dns[0]["fqdn"], format!("*.{guid}.inference.local.api.azureml.ms"));
    assert_eq!(dns[0]["ipAddresses"], json!(["127.77.0.4"]));
    let names = BTreeMap::from([
        (format!("*.{guid}.inference.local"), vec!["127.77.0.4".to_owned()]),
        (format!("{guid}.workspace.local"), vec!["127.77.0.4".to_owned()]),
    ]);
    assert_eq!(net.records().await, names);
    // The address is where clients look for it.
    let interface = made["properties"]["networkInterfaces"][0]["id"].as_str().unwrap();
    let interface = net.world.get(interface).await.expect(200);
    assert_eq!(interface["properties"]["ipConfigurations"][0]["properties"]["privateIPAddress"], "127.77.0.4");
    // What a record loses, a PUT of the endpoint mends.
    net.delete(&format!("privateDnsZones/{ZONE}/A/*.{guid}.inference.local")).await.expect(200);
    assert_eq!(net.records().await.len(), 1);
    let again = net.put("privateEndpoints/pe", made.clone()).await.expect(200);
    assert_eq!((net.records().await, &again["properties"]["customDnsConfigs"]), (names, dns));
    let snapshot = net.snapshot().await;
    assert!(snapshot.endpoints[0].approved);
    let view = &snapshot.views[0];
    assert_eq!((view.zones.len(), view.zones[0].records.len()), (1, 2));
    assert_eq!(snapshot.workspaces[0].guid, guid);
    // It is in use, and says by whom.
    for rest in ["virtualNetworks/v", "virtualNetworks/v/subnets/default"] {
        let message = net.delete(rest).await.refused(400, "InUseSubnetCannotBeDeleted");
        assert!(message.contains("privateEndpoints/pe"), "{message}");
    }
    let subnet = json!({"properties": {"addressPrefix": "127.77.5.0/24"}});
    net.put("virtualNetworks/v/subnets/default", subnet).await.refused(400, "InUsePrefixCannotBeDeleted");
    let message = net.delete(&format!("privateDnsZones/{ZONE}")).await.refused(409, "CannotDeleteResource");
    assert!(message.contains("virtualNetworkLinks/v"), "{message}");
    net.delete("privateEndpoints/pe").await.expect(200);
    assert_eq!(net.connections(&net.workspace).await, [] as [Value; 0]);
    assert_eq!(net.world.get(&net.id(&format!("privateDnsZones/{ZONE}"))).await.status, 404);
    net.delete("virtualNetworks/v").await.expect(200);
}

#[tokio::test]
async fn approval_and_rejection() {
    let net = Net::new().await;
    let body = net.endpoint_body("v", &net.workspace, "amlworkspace", true);
    let made = net.put("privateEndpoints/pe", body.clone()).await.expect(201);
    assert_eq!(status(&made), "Pending");
    assert!(net.records().await.is_empty(), "nobody approved it");
    let [connection] = &net.connections(&net.workspace).await[..] else { panic!("one connection") };
    let id = connection["id"].as_str().unwrap().to_owned();
    assert!(connection["name"].as_str().unwrap().starts_with("pe."));
    assert_eq!(connection["properties"]["privateLinkServiceConnectionState"]["description"], "please");
    assert_eq!(connection["properties"]["privateEndpoint"]["id"], net.id("privateEndpoints/pe"));
    let world = &net.world;
    for (decision, records) in [("Approved", 2), ("Rejected", 0), ("Approved", 2)] {
        let mut body = world.get(&id).await.expect(200);
        body["properties"]["privateLinkServiceConnectionState"] =
            json!({"status": decision, "description": "so be it"});
        let put = world.call("PUT", &id, body).await.expect(200);
        assert_eq!(put["properties"]["privateLinkServiceConnectionState"]["status"], decision);
        assert_eq!(status(&net.get("privateEndpoints/pe").await), decision);
        assert_eq!((net.records().await.len(), net.snapshot().await.endpoints[0].approved), (records, records > 0));
    }
    let odd = json!({"properties": {"privateLinkServiceConnectionState": {"status": "Maybe"}}});
    world.call("PUT", &id, odd).await.refused(400, "BadArgument");
    let back = json!({"properties": {"privateLinkServiceConnectionState": {"status": "Pending"}}});
    world.call("PUT", &id, back).await.refused(400, "InvalidRequestFormat");
    let nobody = json!({"properties": {"privateLinkServiceConnectionState": {"status": "Approved"}}});
    let other = format!("{}/privateEndpointConnections/other", net.workspace);
    world.call("PUT", &other, nobody).await.refused(404, "ResourceNotFound");
    world.call("DELETE", &id, Value::Null).await.expect(200);
    assert_eq!(status(&net.get("privateEndpoints/pe").await), "Disconnected");
    assert!(net.records().await.is_empty());
    // A PUT asks anew, under the same name.
    net.put("privateEndpoints/pe", body).await.expect(200);
    assert_eq!(net.connections(&net.workspace).await[0]["id"].as_str(), Some(id.as_str()));
}

#[tokio::test]
async fn rights_decide_about_approval() {
    let net = Net::new().await;
    let (contributor, reader) = ("b24988ac-6180-42a0-ab88-20f7382dd24c", "acdd72a7-3385-48ef-bd42-f606fba81ae7");
    let other = net.world.group("other").await;
    let world = &net.world;
    let (token, object) = world.principal("p", contributor, &other).await;
    let endpoint = format!("{other}/providers/Microsoft.Network/privateEndpoints/pe");
    let body = net.endpoint_body("v", &net.workspace, "amlworkspace", false);
    let put = async || world.call_as(&token, "PUT", &endpoint, body.clone()).await;
    // Without a right to join the subnet, then without one to see the target.
    assert!(put().await.refused(403, "AuthorizationFailed").contains("subnets/join/action"));
    let grant = async |role: &str, scope: &str| {
        let path = format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{}", uuid::Uuid::new_v4());
        let body = json!({"properties": {"roleDefinitionId": role, "principalId": object}});
        world.call("PUT", &path, body).await.expect(201);
    };
    grant(contributor, &net.id("virtualNetworks/v")).await;
    assert!(put().await.refused(403, "AuthorizationFailed").contains("workspaces/read"));
    grant(reader, &net.workspace).await;
    assert_eq!(status(&put().await.expect(201)), "Pending");
    assert!(net.records().await.is_empty());
    // He may not approve it himself.
    let id = net.connections(&net.workspace).await[0]["id"].as_str().unwrap().to_owned();
    let approve = json!({"properties": {"privateLinkServiceConnectionState": {"status": "Approved"}}});
    world.call_as(&token, "PUT", &id, approve.clone()).await.refused(403, "AuthorizationFailed");
    world.call("PUT", &id, approve).await.expect(200);
    assert_eq!(status(&world.call_as(&token, "GET", &endpoint, Value::Null).await.expect(200)), "Approved");
}

#[tokio::test]
async fn addresses() {
    let net = Net::new().await;
    let small = json!({"properties": {"addressPrefix": "127.77.9.0/29"}});
    net.put("virtualNetworks/v/subnets/small", small).await.expect(201);
    let body = |address: Option<&str>| {
        let mut body = net.endpoint_body("v", &net.workspace, "amlworkspace", false);
        body["properties"]["subnet"]["id"] = net.id("virtualNetworks/v/subnets/small").into();
        if let Some(address) = address {
            body["properties"]["ipConfigurations"] = json!([{"name": "i", "properties": {"privateIPAddress": address, "groupId": "amlworkspace", "memberName": "default"}}]);
        }
        body
    };
    let address = |shown: &Value| shown["properties"]["casemate"]["address"].as_str().unwrap().to_owned();
    let made = net.put("privateEndpoints/a", body(Some("127.77.9.5"))).await.expect(201);
    assert_eq!(address(&made), "127.77.9.5");
    for (asked, code) in [
        ("127.77.9.3", "PrivateIPAddressNotInSubnet"),
        ("127.77.9.7", "PrivateIPAddressNotInSubnet"),
        ("127.77.0.4", "PrivateIPAddressNotInSubnet"),
        ("127.77.9.5", "PrivateIPAddressInUse"),
        ("nonsense", "InvalidRequestFormat"),
    ] {
        net.put("privateEndpoints/b", body(Some(asked))).await.refused(400, code);
    }
    for (name, wanted) in [("b", "127.77.9.4"), ("c", "127.77.9.6")] {
        assert_eq!(address(&net.put(&format!("privateEndpoints/{name}"), body(None)).await.expect(201)), wanted);
    }
    net.put("privateEndpoints/d", body(None)).await.refused(400, "SubnetIsFull");
    net.delete("privateEndpoints/b").await.expect(200);
    assert_eq!(address(&net.put("privateEndpoints/d", body(None)).await.expect(201)), "127.77.9.4");
}

#[tokio::test]
async fn private_endpoints_that_are_refused() {
    let net = Net::new().await;
    net.endpoint("pe", "v").await;
    let storage =
        net.world.get(&net.workspace).await.expect(200)["properties"]["storageAccount"].as_str().unwrap().to_owned();
    let group = net.group.clone();
    let service = net.id("privateLinkServices/db");
    let good = net.endpoint_body("v", &net.workspace, "amlworkspace", false);
    let with = |path: &str, value: Value| {
        let mut body = good.clone();
        *body.pointer_mut(path).unwrap() = value;
        body
    };
    let link = "/properties/privateLinkServiceConnections";
    for (name, body, status, code) in [
        ("x", with("/properties/subnet/id", json!("x")), 400, "InvalidRequestFormat"),
        (
            "x",
            with("/properties/subnet/id", net.id("virtualNetworks/v/subnets/none").into()),
            400,
            "InvalidResourceReference",
        ),
        ("x", with(link, json!([])), 400, "InvalidRequestFormat"),
        ("x", with(link, json!([{}, {}])), 400, "InvalidRequestFormat"),
        ("x", with(&format!("{link}/0/properties/groupIds"), json!(["blob"])), 400, "InvalidPrivateLinkGroupId"),
        ("x", with(&format!("{link}/0/properties/groupIds"), json!([])), 400, "InvalidRequestFormat"),
        ("x", with(&format!("{link}/0/properties/privateLinkServiceId"), json!(group)), 400, "InvalidRequestFormat"),
        ("x", with(&format!("{link}/0/properties/privateLinkServiceId"), json!(service)), 400, "InvalidRequestFormat"),
        (
            "x",
            net.endpoint_body("v", &format!("{}2", net.workspace), "amlworkspace", false),
            400,
            "InvalidResourceReference",
        ),
        ("pe", net.endpoint_body("v", &storage, "blob", false), 400, "InvalidRequestFormat"),
        ("x", with("/properties", json!(7)), 400, "InvalidRequestFormat"),
    ] {
        net.put(&format!("privateEndpoints/{name}"), body).await.refused(status, code);
    }
    assert_eq!(net.connections(&net.workspace).await.len(), 1);
}

#[tokio::test]
async fn what_a_target_offers() {
    let net = Net::new().await;
    let properties = net.world.get(&net.workspace).await.expect(200)["properties"].clone();
    let vault = properties["keyVault"].as_str().unwrap();
    let storage = properties["storageAccount"].as_str().unwrap();
    for (target, groups, zone) in [
        (net.workspace.as_str(), vec!["amlworkspace"], ZONE),
        (storage, vec!["blob", "file"], "privatelink.blob.core.casemate.internal"),
        (vault, vec!["vault"], "privatelink.vault.casemate.internal"),
    ] {
        let listed = net.world.get(&format!("{target}/privateLinkResources")).await.expect(200);
        let found: Vec<&str> =
            listed["value"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(found, groups);
        assert_eq!(listed["value"][0]["properties"]["requiredZoneNames"], json!([zone]));
        let one = net.world.get(&format!("{target}/privateLinkResources/{}", groups[0])).await.expect(200);
        assert_eq!(one, listed["value"][0]);
    }
}

#[tokio::test]
async fn zones_links_and_record_sets() {
    let net = Net::new().await;
    let zone = "privateDnsZones/corp.example";
    let made = net.put(zone, json!({"location": "global"})).await.expect(201);
    assert_eq!(made["location"], "global");
    let network = json!({"id": net.id("virtualNetworks/v")});
    let link = json!({"location": "global", "properties": {"virtualNetwork": network, "registrationEnabled": false}});
    let shown = net.put(&format!("{zone}/virtualNetworkLinks/l"), link.clone()).await.expect(201);
    assert_eq!(shown["properties"]["virtualNetworkLinkState"], "Completed");
    net.put(&format!("{zone}/virtualNetworkLinks/m"), link.clone()).await.refused(409, "Conflict");
    let registers =
        json!({"location": "global", "properties": {"virtualNetwork": network, "registrationEnabled": true}});
    net.put(&format!("{zone}/virtualNetworkLinks/m"), registers).await.refused(400, "InvalidRequestFormat");
    for (path, properties) in [
        ("A/www", json!({"ttl": 60, "aRecords": [{"ipv4Address": "10.0.0.9"}]})),
        ("AAAA/www", json!({"aaaaRecords": [{"ipv6Address": "fd00::9"}]})),
        ("CNAME/ftp", json!({"cnameRecord": {"cname": "www.corp.example"}})),
        ("TXT/@", json!({"txtRecords": [{"value": ["hello"]}], "metadata": {"a": "b"}})),
        ("MX/@", json!({"mxRecords": [{"preference": 10, "exchange": "mail.corp.example"}]})),
        (
            "SRV/_x._tcp",
            json!({"srvRecords": [{"priority": 1, "weight": 1, "port": 443, "target": "www.corp.example"}]}),
        ),
        ("PTR/9", json!({"ptrRecords": [{"ptrdname": "www.corp.example"}]})),
        ("A/empty", json!({"ttl": 60})),
    ] {
        net.put(&format!("{zone}/{path}"), json!({"properties": properties})).await.expect(201);
    }
    let all = net.get(&format!("{zone}/ALL")).await;
    let names: Vec<&str> = all["value"].as_array().unwrap().iter().map(|set| set["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["9", "@", "@", "@", "_x._tcp", "empty", "ftp", "www", "www"]);
    let www = net.get(&format!("{zone}/a/WWW")).await;
    assert_eq!(www["properties"]["fqdn"], "www.corp.example.");
    assert_eq!(www["type"], "Microsoft.Network/privateDnsZones/A");
    let patch = json!({"properties": {"ttl": 5}});
    let patched = net.world.call("PATCH", &net.id(&format!("{zone}/A/www")), patch).await.expect(200);
    assert_eq!(
        (&patched["properties"]["ttl"], &patched["properties"]["aRecords"]),
        (&json!(5), &www["properties"]["aRecords"])
    );
    for (path, properties, status, code) in [
        ("CNAME/www", json!({"cnameRecord": {"cname": "a.b"}}), 409, "Conflict"),
        ("A/ftp", json!({"aRecords": [{"ipv4Address": "10.0.0.9"}]}), 409, "Conflict"),
        ("A/x", json!({"aRecords": [{"ipv4Address": "10.0.0"}]}), 400, "BadRequest"),
        ("A/x..y", json!({"aRecords": [{"ipv4Address": "10.0.0.1"}]}), 400, "BadRequest"),
        ("A/x", json!({"ttl": "soon"}), 400, "BadRequest"),
        ("SOA/@", json!({}), 405, "MethodNotAllowed"),
    ] {
        net.put(&format!("{zone}/{path}"), json!({"properties": properties})).await.refused(status, code);
    }
    let snapshot = net.snapshot().await;
    assert_eq!(snapshot.views[0].zones[0].records.len(), 7);
    assert_eq!(net.get(zone).await["properties"]["numberOfRecordSets"], 9);
    net.delete(&format!("{zone}/virtualNetworkLinks/l")).await.expect(200);
    net.delete(zone).await.expect(200);
    assert_eq!(net.world.get(&net.id(&format!("{zone}/A/www"))).await.status, 404);
}

#[tokio::test]
async fn scripts_that_make_the_zone_themselves() {
    let net = Net::new().await;
    net.endpoint("pe", "v").await;
    let new = [("if-none-match", "*")];
    let zone = net.id(&format!("privateDnsZones/{ZONE}"));
    // The zone and the link that were made on the way become the script's own, once.
    net.world.call_with("PUT", &zone, &new, json!({"location": "global"})).await.expect(201);
    net.world.call_with("PUT", &zone, &new, json!({"location": "global"})).await.refused(412, "PreconditionFailed");
    let link = json!({"location": "global", "properties": {"virtualNetwork": {"id": net.id("virtualNetworks/v")}, "registrationEnabled": false}});
    net.world.call_with("PUT", &format!("{zone}/virtualNetworkLinks/own"), &new, link).await.expect(201);
    let links = net.world.get(&format!("{zone}/virtualNetworkLinks")).await.expect(200);
    assert_eq!(links["value"].as_array().unwrap().len(), 1);
    let group =
        json!({"properties": {"privateDnsZoneConfigs": [{"name": "z", "properties": {"privateDnsZoneId": zone}}]}});
    let shown = net.put("privateEndpoints/pe/privateDnsZoneGroups/default", group.clone()).await.expect(201);
    let sets = &shown["properties"]["privateDnsZoneConfigs"][0]["properties"]["recordSets"];
    assert_eq!((sets.as_array().unwrap().len(), &sets[0]["ipAddresses"]), (2, &json!(["127.77.0.4"])));
    net.put("privateEndpoints/pe/privateDnsZoneGroups/second", group)
        .await
        .refused(409, "MaximumPrivateDnsZoneGroupsExceeded");
    assert_eq!(net.records().await.len(), 2);
    net.delete("privateEndpoints/pe").await.expect(200);
    assert!(net.records().await.is_empty());
    net.world.get(&zone).await.expect(200);
}

#[tokio::test]
async fn a_group_of_zones_for_a_storage_account() {
    let net = Net::new().await;
    let storage =
        net.world.get(&net.workspace).await.expect(200)["properties"]["storageAccount"].as_str().unwrap().to_owned();
    net.put("privateEndpoints/pe", net.endpoint_body("v", &storage, "blob", false)).await.expect(201);
    let zone = "privateDnsZones/privatelink.blob.core.casemate.internal";
    net.put(zone, json!({"location": "global"})).await.expect(201);
    let config = json!({"name": "z", "properties": {"privateDnsZoneId": net.id(zone)}});
    let group = json!({"properties": {"privateDnsZoneConfigs": [config]}});
    net.put("privateEndpoints/pe/privateDnsZoneGroups/default", group).await.expect(201);
    let name = storage.rsplit('/').next().unwrap();
    let set = net.get(&format!("{zone}/A/{name}")).await;
    assert_eq!(set["properties"]["aRecords"], json!([{"ipv4Address": "127.77.0.4"}]));
    assert!(set.get("_endpoints").is_none());
    net.delete("privateEndpoints/pe/privateDnsZoneGroups/default").await.expect(200);
    assert_eq!(net.world.get(&net.id(&format!("{zone}/A/{name}"))).await.status, 404);
}

#[tokio::test]
async fn two_networks_and_one_workspace() {
    let net = Net::new().await;
    net.vnet("w", "127.88.0.0/16").await.expect(201);
    net.endpoint("one", "v").await;
    net.endpoint("two", "w").await;
    let snapshot = net.snapshot().await;
    for view in &snapshot.views {
        let own = if view.network.name() == "v" { "127.77.0.4" } else { "127.88.0.4" };
        let shown = format!("{:?}", view.zones[0].records[0].data);
        assert_eq!(shown, format!("A([{own}])"), "{}", view.network);
    }
    net.delete("privateEndpoints/one").await.expect(200);
    let snapshot = net.snapshot().await;
    assert_eq!(snapshot.views.iter().map(|view| view.zones.len()).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test]
async fn groups_whose_networks_others_use_stay() {
    let net = Net::new().await;
    let other = net.world.group("other").await;
    let endpoint = format!("{other}/providers/Microsoft.Network/privateEndpoints/pe");
    let body = net.endpoint_body("v", &net.workspace, "amlworkspace", false);
    net.world.call("PUT", &endpoint, body).await.expect(201);
    let message = net.world.call("DELETE", &net.group, Value::Null).await.refused(409, "InUseSubnetCannotBeDeleted");
    assert!(message.contains("privateEndpoints/pe"), "{message}");
    net.world.call("DELETE", &endpoint, Value::Null).await.expect(200);
    assert_eq!(net.world.call("DELETE", &net.group, Value::Null).await.status, 202);
}

#[tokio::test]
async fn registered_destinations() {
    let net = Net::new().await;
    let body = |own: Value| json!({"location": "local", "properties": {"casemate": own}});
    for (own, kept) in [
        (json!({"address": "10.9.0.5", "ports": "5432"}), json!({"address": "10.9.0.5", "ports": "5432"})),
        (json!({"fqdn": "DB.corp.example"}), json!({"fqdn": "db.corp.example", "ports": "80,443"})),
    ] {
        let shown = net.put("privateLinkServices/db", body(own)).await;
        assert_eq!(shown.body["properties"]["casemate"], kept);
    }
    for own in [
        json!({}),
        json!({"address": "127.0.0.1"}),
        json!({"address": "169.254.169.254"}),
        json!({"address": "10.0.0.1", "fqdn": "a.b"}),
        json!({"fqdn": "10.0.0.1"}),
        json!({"address": "10.0.0.1", "ports": "0"}),
    ] {
        net.put("privateLinkServices/other", body(own)).await.refused(400, "InvalidRequestFormat");
    }
    assert_eq!(net.get("privateLinkServices").await["value"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn network_rules_of_a_workspace_are_its_allow_list() {
    let net = Net::new().await;
    let patch =
        async |properties: Value| net.world.call("PATCH", &net.workspace, json!({ "properties": properties })).await;
    let rules = json!({"networkAcls": {"defaultAction": "Deny", "ipRules": [{"value": "192.0.2.0/24"}, {"value": "2001:db8::1"}]}});
    let shown = patch(rules).await.expect(200);
    assert_eq!(shown["properties"]["ipAllowlist"], json!(["192.0.2.0/24", "2001:db8::1"]));
    // The rules are not kept beside the list, so a later change of the list stands.
    let shown = patch(json!({"ipAllowlist": ["198.51.100.7"]})).await.expect(200);
    assert_eq!(shown["properties"]["ipAllowlist"], json!(["198.51.100.7"]));
    for (rules, said) in [
        (json!({"defaultAction": "Deny"}), "names no ipRules"),
        (json!({"defaultAction": "Deny", "ipRules": [{"value": "x"}]}), "no address range"),
        (json!({"defaultAction": "Maybe"}), "Allow, Deny"),
    ] {
        let message = patch(json!({ "networkAcls": rules })).await.refused(400, "BadArgument");
        assert!(message.contains(said), "{message}");
    }
    let shown = patch(json!({"networkAcls": {"defaultAction": "Allow"}})).await.expect(200);
    assert_eq!(shown["properties"]["ipAllowlist"], json!([]));
}

#[tokio::test]
async fn a_target_shows_its_connections() {
    let net = Net::new().await;
    let storage = net.world.get(&net.workspace).await.expect(200)["properties"]["storageAccount"].clone();
    let storage = storage.as_str().unwrap().to_owned();
    let subnet = net.id("virtualNetworks/v/subnets/default");
    for (name, target, group) in [("pe", &net.workspace, "amlworkspace"), ("pe-blob", &storage, "blob")] {
        let listed = |shown: &Value| shown["properties"]["privateEndpointConnections"].clone();
        assert_eq!(listed(&net.world.get(target).await.expect(200)), json!([]));
        let body = net.endpoint_body("v", target, group, false);
        net.put(&format!("privateEndpoints/{name}"), body).await.expect(201);
        let shown = net.world.get(target).await.expect(200);
        assert_eq!(listed(&shown), json!(net.connections(target).await), "the same as below {target}");
        let connection = &listed(&shown)[0];
        assert_eq!(connection["properties"]["privateLinkServiceConnectionState"]["status"], "Approved");
        let endpoint = json!({"id": net.id(&format!("privateEndpoints/{name}")), "subnetArmId": subnet});
        assert_eq!(connection["properties"]["privateEndpoint"], endpoint);
        // Sent back as it was read, it keeps nothing of that, and so shows nothing old once the connection is gone.
        net.world.call("PUT", target, shown).await.expect(200);
        let all = net.world.get(target.rsplit_once('/').unwrap().0).await.expect(200);
        let of = |shown: &Value| shown["id"].as_str().is_some_and(|id| id.eq_ignore_ascii_case(target));
        let one = all["value"].as_array().unwrap().iter().find(|shown| of(shown)).unwrap().clone();
        assert_eq!(listed(&one), listed(&net.world.get(target).await.expect(200)), "in a list");
        net.delete(&format!("privateEndpoints/{name}")).await.expect(200);
        assert_eq!(listed(&net.world.get(target).await.expect(200)), json!([]));
    }
}

#[tokio::test]
async fn a_storage_accounts_names_are_in_both_of_its_zones() {
    let net = Net::new().await;
    let storage = net.world.get(&net.workspace).await.expect(200)["properties"]["storageAccount"].clone();
    let storage = storage.as_str().unwrap().to_owned();
    let account = storage.rsplit('/').next().unwrap().to_lowercase();
    let body = net.endpoint_body("v", &storage, "blob", false);
    let endpoint = net.put("privateEndpoints/pe", body).await.expect(201);
    let address = endpoint["properties"]["customDnsConfigs"][0]["ipAddresses"][0].as_str().unwrap().to_owned();
    let link = json!({"location": "global", "properties": {
        "virtualNetwork": {"id": net.id("virtualNetworks/v")}, "registrationEnabled": false}});
    for zone in ["privatelink.blob.core.casemate.internal", "privatelink.blob.core.windows.net"] {
        net.put(&format!("privateDnsZones/{zone}"), json!({"location": "global"})).await.expect(201);
        net.put(&format!("privateDnsZones/{zone}/virtualNetworkLinks/l"), link.clone()).await.expect(201);
        let config =
            json!({"name": "z", "properties": {"privateDnsZoneId": net.id(&format!("privateDnsZones/{zone}"))}});
        let group = json!({"properties": {"privateDnsZoneConfigs": [config]}});
        net.put("privateEndpoints/pe/privateDnsZoneGroups/default", group).await;
        let record = net.get(&format!("privateDnsZones/{zone}/A/{account}")).await;
        assert_eq!(record["properties"]["aRecords"], json!([{"ipv4Address": address}]), "{zone}");
        let names = casemate_model::names::PlatformNames {
            domain: "casemate.internal".to_owned(),
            region: "local".to_owned(),
            front_door: vec!["192.0.2.1".parse().unwrap()],
            dns: Vec::new(),
        };
        let snapshot = net.snapshot().await;
        let zones = names.zones(&snapshot, Some(&snapshot.networks[0].id));
        let host = format!("{account}.blob.core");
        let found = zones.iter().flat_map(|zone| &zone.records).filter(|record| record.name == host);
        let found: Vec<String> = found.flat_map(|record| casemate_model::names::presentation(&record.data)).collect();
        assert_eq!(found, [address.as_str()], "the account's own host, by {zone}");
        let taken = net.delete("privateEndpoints/pe/privateDnsZoneGroups/default").await;
        taken.expect(200);
    }
}

/// A network, a private endpoint in it, and its names, in one template.
#[tokio::test]
async fn a_template_makes_networks_and_private_endpoints() {
    let net = Net::new().await;
    let subnet = "[resourceId('Microsoft.Network/virtualNetworks/subnets', 't', 'default')]";
    let zone = format!("[resourceId('Microsoft.Network/privateDnsZones', '{ZONE}')]");
    let resources = json!([
        {
            "type": "Microsoft.Network/privateEndpoints", "apiVersion": "2023-09-01", "name": "pe", "location": "local",
            "dependsOn": ["[resourceId('Microsoft.Network/virtualNetworks', 't')]"],
            "properties": {
                "subnet": {"id": subnet},
                "privateLinkServiceConnections": [{"name": "c", "properties": {
                    "privateLinkServiceId": net.workspace, "groupIds": ["amlworkspace"]}}],
            },
        },
        {
            "type": "Microsoft.Network/virtualNetworks", "apiVersion": "2023-09-01", "name": "t", "location": "local",
            "properties": {
                "addressSpace": {"addressPrefixes": ["127.88.0.0/16"]},
                "subnets": [{"name": "default", "properties": {"addressPrefix": "127.88.0.0/24"}}],
            },
        },
        {"type": "Microsoft.Network/privateDnsZones", "apiVersion": "2020-06-01", "name": ZONE, "location": "global"},
        {
            "type": "Microsoft.Network/privateDnsZones/virtualNetworkLinks", "apiVersion": "2020-06-01",
            "name": format!("{ZONE}/l"), "location": "global",
            "dependsOn": [zone, "[resourceId('Microsoft.Network/virtualNetworks', 't')]"],
            "properties": {
                "virtualNetwork": {"id": "[resourceId('Microsoft.Network/virtualNetworks', 't')]"},
                "registrationEnabled": false,
            },
        },
        {
            "type": "Microsoft.Network/privateEndpoints/privateDnsZoneGroups", "apiVersion": "2023-09-01",
            "name": "pe/default",
            "dependsOn": ["[resourceId('Microsoft.Network/privateEndpoints', 'pe')]", zone],
            "properties": {"privateDnsZoneConfigs": [{"name": "ml", "properties": {"privateDnsZoneId": zone}}]},
        },
        {
            "type": "Microsoft.Network/privateDnsZones/A", "apiVersion": "2020-06-01", "name": format!("{ZONE}/extra"),
            "dependsOn": [zone], "properties": {"ttl": 60, "aRecords": [{"ipv4Address": "127.88.0.9"}]},
        },
    ]);
    let schema = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#";
    let template = json!({"$schema": schema, "contentVersion": "1.0.0.0", "resources": resources, "outputs": {
        "prefix": {"type": "string", "value": "[reference(resourceId('Microsoft.Network/virtualNetworks', 't')).addressSpace.addressPrefixes[0]]"},
    }});
    let deployment = format!("{}/providers/Microsoft.Resources/deployments/d", net.group);
    let body = json!({"properties": {"mode": "Incremental", "template": template}});
    let done = net.world.call("PUT", &deployment, body.clone()).await.expect(201);
    assert_eq!(done["properties"]["outputs"]["prefix"]["value"], "127.88.0.0/16");
    let guid = net.guid().await;
    let endpoint = net.get("privateEndpoints/pe").await;
    assert_eq!(status(&endpoint), "Approved");
    let records = net.records().await;
    assert_eq!(records["extra"], ["127.88.0.9"]);
    assert_eq!(records[&format!("{guid}.workspace.local")].len(), 1, "{records:?}");
    // Once more, nothing changes.
    net.world.call("PUT", &deployment, body).await.expect(200);
    assert_eq!(net.records().await, records);
    let again = net.get("privateEndpoints/pe").await;
    for kept in ["casemate", "networkInterfaces", "customDnsConfigs"] {
        assert_eq!(again["properties"][kept], endpoint["properties"][kept], "{kept}");
    }
}
