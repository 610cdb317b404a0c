use serde_json::{Value, json};

use crate::testing::World;

/// `zone: name TYPE value` of a list.
fn told(body: &Value) -> Vec<String> {
    let zones = body["value"].as_array().unwrap();
    let lines = zones.iter().flat_map(|zone| {
        let records = zone["records"].as_array().unwrap();
        records.iter().map(move |record| {
            format!(
                "{}: {} {} {}",
                text(&zone["name"]),
                text(&record["name"]),
                text(&record["type"]),
                record["values"][0]
            )
        })
    });
    lines.collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[tokio::test]
async fn the_zones_of_the_public_view() {
    let world = World::new().await;
    let workspace = world.workspace("g", "wsp").await;
    let endpoint = json!({"location": "local", "properties": {"authMode": "Key"}});
    world.call("PUT", &format!("{workspace}/onlineEndpoints/my-ep"), endpoint).await;
    let path = world.path("/providers/Casemate.Platform/dnsZones");
    let body = world.get(&path).await.expect(200);
    let found = told(&body);
    let domain = &world.state.config.domain;
    for expected in
        [format!("{domain}: management A \"127.0.0.1\""), format!("{domain}: my-ep.local.inference A \"127.0.0.1\"")]
    {
        assert!(found.contains(&expected), "{expected} in {found:#?}");
    }
    assert_eq!(body["dnsAddress"], Value::Null);
    let moved = told(&world.get(&format!("{path}?frontDoor=192.0.2.1&dns=192.0.2.2")).await.expect(200));
    assert!(moved.contains(&format!("{domain}: management A \"192.0.2.1\"")));
    assert!(moved.contains(&format!("{domain}: ns A \"192.0.2.2\"")));
    world.get(&format!("{path}?frontDoor=x")).await.refused(400, "InvalidRequestFormat");
    world.get(&format!("{path}?network=x")).await.refused(400, "InvalidResourceId");
    world.get(&format!("{path}?network={workspace}")).await.refused(400, "InvalidRequestFormat");
    let none = world.path("/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/none");
    world.get(&format!("{path}?network={none}")).await.refused(404, "ResourceNotFound");
    world.call("POST", &path, json!({})).await.refused(405, "MethodNotAllowed");
    let (token, _) = world.principal("guest", "Reader", &workspace).await;
    world.call_as(&token, "GET", &path, Value::Null).await.refused(403, "AuthorizationFailed");
}
