use serde_json::{Value, json};

use crate::testing::{URL, World};

const ML: &str = "providers/Microsoft.MachineLearningServices/workspaces";

#[tokio::test]
async fn a_bare_workspace_brings_what_it_leans_on() {
    let world = World::new().await;
    let group = world.group("g").await;
    let path = format!("{group}/{ML}/my-ws");
    world.get(&path).await.refused(404, "ResourceNotFound");
    let made = world
        .call("PUT", &path, json!({"location": "Local", "properties": {"friendlyName": "Mine"}}))
        .await
        .expect(200);
    let properties = &made["properties"];
    assert_eq!((made["kind"].as_str(), made["location"].as_str()), (Some("Default"), Some("local")));
    assert!(properties["workspaceId"].as_str().unwrap().parse::<uuid::Uuid>().is_ok());
    assert_eq!(properties["discoveryUrl"], format!("{URL}/discovery"));
    assert_eq!(properties["mlFlowTrackingUri"], format!("azureml://127.0.0.1:8443/mlflow/v1.0{path}"));
    assert_eq!(properties["publicNetworkAccess"], "Enabled");
    assert_eq!(properties["managedNetwork"]["isolationMode"], "Disabled");
    assert_eq!((properties["v1LegacyMode"].clone(), properties["hbiWorkspace"].clone()), (json!(false), json!(false)));
    assert_eq!(made["identity"]["type"], "SystemAssigned");
    let mut dependents = Vec::new();
    for field in ["storageAccount", "keyVault", "applicationInsights"] {
        let id = properties[field].as_str().unwrap().to_owned();
        let row = world.get(&id).await.expect(200);
        assert_eq!(row["properties"]["provisioningState"], "Succeeded", "{field}");
        if field == "applicationInsights" {
            world.get(row["properties"]["WorkspaceResourceId"].as_str().unwrap()).await.expect(200);
        }
        dependents.push(id);
    }
    // Written again, it keeps its id, its identity and what it leans on.
    let again = world.call("PUT", &path, json!({"location": "local"})).await.expect(200);
    assert_eq!(again["properties"]["workspaceId"], properties["workspaceId"]);
    assert_eq!(again["properties"]["storageAccount"], properties["storageAccount"]);
    assert_eq!(again["identity"], made["identity"]);
    assert!(again["properties"].get("containerRegistry").is_none(), "{again:#}");
    for id in dependents {
        world.call("DELETE", &id, Value::Null).await.expect(200);
        world.call("DELETE", &id, Value::Null).await.expect(204);
        world.get(&id).await.refused(404, "ResourceNotFound");
    }
    let answer = world.call("DELETE", &format!("{path}?forceToPurge=true"), Value::Null).await;
    assert_eq!(answer.status, 202);
    assert_eq!(world.state.store.operations_pending().await.unwrap().len(), 1);
    world.call("DELETE", &format!("{group}/{ML}/none"), Value::Null).await.expect(204);
}

#[tokio::test]
async fn lists_and_actions() {
    let world = World::new().await;
    let path = world.workspace("one", "wsp-a").await;
    world.workspace("two", "wsp-b").await;
    let names = |path: String| {
        let world = &world;
        async move {
            let listed = world.get(&path).await.expect(200);
            listed["value"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["name"].as_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        }
    };
    assert_eq!(names(world.path(&format!("/{ML}"))).await, ["wsp-a", "wsp-b"]);
    assert_eq!(names(world.path(&format!("/resourcegroups/TWO/{ML}"))).await, ["wsp-b"]);
    world.get(&world.path(&format!("/resourceGroups/none/{ML}"))).await.refused(404, "ResourceGroupNotFound");
    let keys = world.call("POST", &format!("{path}/listKeys"), Value::Null).await.expect(200);
    assert!(keys["userStorageResourceId"].is_string());
    world.call("POST", &format!("{path}/resyncKeys"), Value::Null).await.expect(200);
    world.call("POST", &format!("{path}/diagnose"), json!({})).await.expect(200);
    world.call("POST", &format!("{path}/prepareNotebook"), Value::Null).await.refused(501, "NotImplemented");
    world.call("POST", &format!("{path}/dance"), Value::Null).await.refused(404, "InvalidResourceType");
    let message = world
        .call("PUT", &format!("{path}/computes/k8s"), json!({"properties": {"computeType": "Kubernetes"}}))
        .await
        .refused(501, "NotImplemented");
    assert!(message.contains("not available on this platform yet"), "{message}");
}

#[tokio::test]
async fn updates_merge() {
    let world = World::new().await;
    let path = world.workspace("g", "wsp").await;
    let before = world.get(&path).await.expect(200);
    let patch = json!({
        "tags": {"a": "b"},
        "properties": {"description": "new", "publicNetworkAccess": "disabled", "imageBuildCompute": null},
    });
    let after = world.call("PATCH", &path, patch).await.expect(200);
    assert_eq!((after["tags"].clone(), after["properties"]["description"].clone()), (json!({"a": "b"}), json!("new")));
    assert_eq!(after["properties"]["publicNetworkAccess"], "Disabled");
    assert_eq!(after["properties"]["keyVault"], before["properties"]["keyVault"]);
    assert_eq!(after["identity"], before["identity"]);
    for (patch, code) in [
        (json!({"properties": {"publicNetworkAccess": "Maybe"}}), "BadArgument"),
        (json!({"properties": {"v1LegacyMode": "perhaps"}}), "BadArgument"),
        (
            json!({"properties": {"storageAccount": format!("{}/providers/Microsoft.Storage/storageAccounts/other1", world.path("/resourceGroups/g"))}}),
            "BadArgument",
        ),
        (json!({"properties": {"containerRegistry": "x"}}), "InvalidResourceId"),
        (json!({"properties": {"containerRegistry": path}}), "BadArgument"),
        (json!({"properties": []}), "BadArgument"),
        (json!({"identity": {"type": "Magic"}}), "BadArgument"),
        (json!({"identity": {"type": "UserAssigned"}}), "BadArgument"),
    ] {
        world.call("PATCH", &path, patch).await.refused(400, code);
    }
    world.call("PATCH", &format!("{path}x"), json!({})).await.refused(404, "ResourceNotFound");
}

#[tokio::test]
async fn bodies_that_are_refused() {
    let world = World::new().await;
    let group = world.group("g").await;
    let path = format!("{group}/{ML}/wsp");
    for (path, body, status, code) in [
        (format!("{group}/{ML}/ab"), json!({"location": "l"}), 400, "BadArgument"),
        (format!("{group}/{ML}/_abc"), json!({"location": "l"}), 400, "BadArgument"),
        (format!("{group}x/{ML}/wsp"), json!({"location": "l"}), 404, "ResourceGroupNotFound"),
        (path.clone(), json!({}), 400, "LocationRequired"),
        (path.clone(), json!({"location": "l", "kind": "Hub"}), 501, "NotImplemented"),
        (path.clone(), json!({"location": "l", "kind": "Odd"}), 400, "BadArgument"),
        (
            path.clone(),
            json!({"location": "l", "properties": {"encryption": {"status": "Enabled"}}}),
            501,
            "NotImplemented",
        ),
        (
            path.clone(),
            json!({"location": "l", "properties": {"keyVault": format!("{group}/providers/Microsoft.KeyVault/vaults/none1")}}),
            400,
            "ResourceNotFound",
        ),
        (
            path.clone(),
            json!({"location": "l", "properties": {"managedNetwork": {"isolationMode": "Tight"}}}),
            400,
            "BadArgument",
        ),
        (path.clone(), json!({"location": "l", "properties": {"managedNetwork": []}}), 400, "BadArgument"),
        (
            path,
            json!({"location": "l", "properties": {"managedNetwork": {"outboundRules": {"r": {"type": "FQDN", "destination": "x.example"}}}}}),
            400,
            "ManagedNetworkDisabled",
        ),
    ] {
        world.call("PUT", &path, body).await.refused(status, code);
    }
    // Nothing of them is left behind.
    assert_eq!(world.get(&format!("{group}/resources")).await.expect(200)["value"], json!([]));
}
