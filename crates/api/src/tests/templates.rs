use serde_json::{Value, json};

use crate::testing::World;

const SCHEMA: &str = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#";

fn template(resources: Value) -> Value {
    json!({"properties": {"mode": "Incremental", "template": {
        "$schema": SCHEMA, "contentVersion": "1.0.0.0", "resources": resources,
    }}})
}

/// A storage account, a vault that depends on it, and a workspace that refers to both.
fn workspace_template() -> Value {
    json!({"properties": {
        "mode": "incremental",
        "parameters": {"name": {"value": "wsp-t"}, "location": {"value": "local"}, "registry": {"value": null}},
        "template": {
            "$schema": SCHEMA,
            "contentVersion": "1.0.0.0",
            "parameters": {
                "name": {"type": "string", "minLength": 3},
                "location": {"type": "string", "defaultValue": "[resourceGroup().location]"},
                "registry": {"type": "string", "defaultValue": "none", "allowedValues": ["none", "new"]},
                "secretish": {"type": "securestring", "defaultValue": "hush"},
            },
            "variables": {
                "account": "[concat('sa', uniqueString(resourceGroup().id, parameters('name')))]",
                "vault": "[resourceId('Microsoft.KeyVault/vaults', 'kv-t')]",
            },
            "resources": [
                {
                    "type": "Microsoft.MachineLearningServices/workspaces",
                    "apiVersion": "2023-08-01-preview",
                    "name": "[parameters('name')]",
                    "location": "[parameters('location')]",
                    "identity": {"type": "systemAssigned"},
                    "dependsOn": ["[variables('vault')]"],
                    "properties": {
                        "friendlyName": "[toUpper(parameters('name'))]",
                        "storageAccount": "[resourceId('Microsoft.Storage/storageAccounts', variables('account'))]",
                        "keyVault": "[variables('vault')]",
                        "applicationInsights": "[json('null')]",
                        "description": "[reference(variables('account')).primaryLocation]",
                        "hbiWorkspace": "false",
                        "managedNetwork": {"isolationMode": "Disabled"},
                    },
                },
                {
                    "type": "Microsoft.KeyVault/vaults",
                    "apiVersion": "2023-07-01",
                    "name": "kv-t",
                    "location": "[parameters('location')]",
                    "dependsOn": ["[resourceId('Microsoft.Storage/storageAccounts', variables('account'))]"],
                    "properties": {"tenantId": "[subscription().tenantId]"},
                },
                {
                    "type": "Microsoft.Storage/storageAccounts",
                    "apiVersion": "2023-04-01",
                    "name": "[variables('account')]",
                    "location": "[parameters('location')]",
                    "sku": {"name": "Standard_LRS"},
                    "kind": "StorageV2",
                },
                {
                    "condition": "[equals(parameters('registry'), 'new')]",
                    "type": "Microsoft.ContainerRegistry/registries",
                    "apiVersion": "2023-04-01",
                    "name": "crtest",
                    "location": "[parameters('location')]",
                },
            ],
            "outputs": {
                "vaultUri": {"type": "string", "value": "[reference('kv-t').vaultUri]"},
                "principal": {"type": "string", "value": "[reference(resourceId('Microsoft.MachineLearningServices/workspaces', parameters('name')), '2023-08-01', 'Full').identity.principalId]"},
            },
        },
    }})
}

#[tokio::test]
async fn a_template_becomes_a_workspace() {
    let world = World::new().await;
    let group = world.group("g").await;
    let path = format!("{group}/providers/Microsoft.Resources/deployments/wsp-t-123");
    let done = world.call("PUT", &path, workspace_template()).await.expect(201);
    let properties = &done["properties"];
    assert_eq!(properties["provisioningState"], "Succeeded");
    assert_eq!(properties["outputs"]["vaultUri"]["value"], "https://kv-t.vault.casemate.internal:8443/");
    assert!(properties["outputs"]["principal"]["value"].as_str().unwrap().parse::<uuid::Uuid>().is_ok());
    assert_eq!(properties["parameters"]["registry"], json!({"type": "string", "value": "none"}));
    assert_eq!(properties["parameters"]["secretish"], json!({"type": "securestring"}));
    assert!(properties["duration"].as_str().unwrap().starts_with("PT"));
    let workspace = format!("{group}/providers/Microsoft.MachineLearningServices/workspaces/wsp-t");
    let made = world.get(&workspace).await.expect(200);
    assert_eq!(
        (made["properties"]["friendlyName"].as_str(), made["properties"]["description"].as_str()),
        (Some("WSP-T"), Some("local"))
    );
    assert_eq!(made["properties"]["keyVault"], format!("{group}/providers/Microsoft.KeyVault/vaults/kv-t"));
    // Both forms of the operations' address, in the order of the work.
    for base in [path.clone(), format!("{}/deployments/wsp-t-123", group.replace("resourceGroups", "resourcegroups"))] {
        let listed = world.get(&format!("{base}/operations")).await.expect(200);
        let names: Vec<&str> = listed["value"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["properties"]["targetResource"]["resourceType"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "Microsoft.Storage/storageAccounts",
                "Microsoft.KeyVault/vaults",
                "Microsoft.MachineLearningServices/workspaces"
            ]
        );
    }
    // The same again changes nothing but generations.
    world.call("PUT", &path, workspace_template()).await.expect(200);
    assert_eq!(
        world.get(&format!("{group}/providers/Microsoft.Resources/deployments")).await.expect(200)["value"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(world.call("HEAD", &path, Value::Null).await.status, 204);
    world.call("DELETE", &path, Value::Null).await.expect(204);
    world.get(&path).await.refused(404, "DeploymentNotFound");
    world.get(&workspace).await.expect(200);
}

#[tokio::test]
async fn validation_writes_nothing() {
    let world = World::new().await;
    let group = world.group("g").await;
    let path = format!("{group}/providers/Microsoft.Resources/deployments/try");
    let seen = world.call("POST", &format!("{path}/validate"), workspace_template()).await.expect(200);
    assert_eq!(seen["properties"]["outputResources"].as_array().unwrap().len(), 3);
    world.get(&path).await.refused(404, "DeploymentNotFound");
    assert_eq!(world.get(&format!("{group}/resources")).await.expect(200)["value"], json!([]));
}

#[tokio::test]
async fn a_template_at_the_subscription_makes_groups() {
    let world = World::new().await;
    let path = world.path("/providers/Microsoft.Resources/deployments/groups");
    let mut body = template(json!([{
        "type": "Microsoft.Resources/resourceGroups", "apiVersion": "2022-09-01",
        "name": "[concat('made-', copyIndex('n', 1))]", "location": "[deployment().location]",
        "copy": {"name": "n", "count": 2},
    }]));
    body["location"] = "local".into();
    world.call("PUT", &path, body).await.expect(201);
    world.get(&world.path("/resourceGroups/made-1")).await.expect(200);
    world.get(&world.path("/resourceGroups/made-2")).await.expect(200);
}

#[tokio::test]
async fn what_is_refused_leaves_nothing_behind() {
    let world = World::new().await;
    let group = world.group("g").await;
    let path = format!("{group}/providers/Microsoft.Resources/deployments/bad");
    let account = |name: &str, extra: Value| {
        let mut one =
            json!({"type": "Microsoft.Storage/storageAccounts", "apiVersion": "x", "name": name, "location": "local"});
        one.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        one
    };
    let good = account("acct1", json!({}));
    for (body, status, code, said) in [
        (json!({}), 400, "InvalidRequestContent", "properties.template"),
        (json!({"properties": {"templateLink": {"uri": "x"}}}), 501, "NotImplemented", "linked template"),
        (json!({"properties": {"template": {}, "mode": "Complete"}}), 501, "NotImplemented", "Complete"),
        (json!({"properties": {"template": {"$schema": "x"}}}), 400, "InvalidTemplate", "$schema"),
        (
            template(json!([good, {"type": "Microsoft.Compute/virtualMachines", "name": "vm", "location": "local"}])),
            501,
            "NotImplemented",
            "resources[1]",
        ),
        (template(json!([good, {"type": "Microsoft.Web/sites", "name": "n"}])), 501, "NotImplemented", "resources[1]"),
        (template(json!([good, account("NO-GOOD", json!({}))])), 400, "InvalidResourceName", "resources[1]"),
        (template(json!([good, account("[nope()]", json!({}))])), 400, "InvalidTemplate", "'nope' is not known"),
        (
            template(json!([
                account("acct1", json!({"dependsOn": ["acct2"]})),
                account("acct2", json!({"dependsOn": ["acct1"]}))
            ])),
            400,
            "InvalidTemplate",
            "wait for each other",
        ),
        (
            template(json!([
                account("acct1", json!({"properties": {"a": "[reference('acct2').x]"}})),
                account("acct2", json!({"properties": {"a": "[reference('acct1').x]"}}))
            ])),
            400,
            "InvalidTemplate",
            "wait for each other",
        ),
        (
            template(json!([account("acct1", json!({"properties": {"a": "[reference('acct1').x]"}}))])),
            400,
            "InvalidTemplate",
            "does not exist",
        ),
        (
            template(json!([good, account("acct2", json!({"properties": {"a": "[listKeys('acct1', 'x')]"}}))])),
            400,
            "InvalidTemplate",
            "never given out",
        ),
    ] {
        let shown = body.to_string();
        let message = world.call("PUT", &path, body).await.refused(status, code);
        assert!(message.contains(said), "{shown}: {message}");
        world.get(&path).await.refused(404, "DeploymentNotFound");
    }
    assert_eq!(world.get(&format!("{group}/resources")).await.expect(200)["value"], json!([]));
    world
        .call(
            "PUT",
            &world.path("/resourceGroups/none/providers/Microsoft.Resources/deployments/d"),
            template(json!([])),
        )
        .await
        .refused(404, "ResourceGroupNotFound");
    let bad_name = format!("{group}/providers/Microsoft.Resources/deployments/{}", "d".repeat(65));
    world.call("PUT", &bad_name, template(json!([]))).await.refused(400, "InvalidDeploymentName");
}

#[tokio::test]
async fn a_template_needs_the_rights_of_what_it_writes() {
    let world = World::new().await;
    let group = world.group("g").await;
    let (token, object) = world.principal("builder", "Contributor", &group).await;
    let path = format!("{group}/providers/Microsoft.Resources/deployments/d");
    let grant = template(json!([{
        "type": "Microsoft.Authorization/roleAssignments", "apiVersion": "2022-04-01",
        "name": "[guid(resourceGroup().id, 'x')]",
        "properties": {"roleDefinitionId": "[subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '8e3af657-a8ff-443c-a75c-2fe8c4bcb635')]", "principalId": object},
    }]));
    world.call_as(&token, "PUT", &path, grant.clone()).await.refused(403, "AuthorizationFailed");
    world.call("PUT", &path, grant).await.expect(201);
    let elsewhere = world.group("other").await;
    let peek = template(json!([{
        "type": "Microsoft.Storage/storageAccounts", "apiVersion": "x", "name": "acct1", "location": "local",
        "tags": {"seen": format!("[string(reference('{elsewhere}/providers/Microsoft.KeyVault/vaults/v', '2023-07-01'))]")},
    }]));
    world.call_as(&token, "PUT", &path, peek).await.refused(403, "AuthorizationFailed");
}

#[tokio::test]
async fn deployments_inside_a_deployment_work_where_they_say() {
    let world = World::new().await;
    let group = world.group("g").await;
    let subscription = world.bootstrap.subscription;
    let inner = |name: &str, place: Value, after: Value, resource: Value| {
        let mut nested = template(json!([resource]));
        nested["type"] = json!("Microsoft.Resources/deployments");
        nested["name"] = json!(name);
        nested["dependsOn"] = after;
        if let (Some(nested), Some(place)) = (nested.as_object_mut(), place.as_object()) {
            nested.extend(place.clone());
        }
        nested
    };
    let made = inner(
        "make-group",
        json!({"subscriptionId": subscription.to_string(), "location": "local"}),
        json!([]),
        json!({"type": "Microsoft.Resources/resourceGroups", "name": "defaults", "location": "local"}),
    );
    let logs = inner(
        "make-logs",
        json!({"resourceGroup": "defaults"}),
        json!(["make-group"]),
        json!({"type": "Microsoft.OperationalInsights/workspaces", "name": "DefaultWorkspace-local", "location": "local"}),
    );
    let path = format!("{group}/providers/Microsoft.Resources/deployments/outer");
    world.call("PUT", &path, template(json!([logs, made]))).await.expect(201);
    let found = world
        .get(&world.path("/resourceGroups/defaults/resources?$filter=substringof('defaultworkspace',name)"))
        .await
        .expect(200);
    assert_eq!(found["value"][0]["name"], "DefaultWorkspace-local");
    let nested = world.path("/resourceGroups/defaults/providers/Microsoft.Resources/deployments/make-logs");
    assert_eq!(world.get(&nested).await.expect(200)["properties"]["provisioningState"], "Succeeded");

    let elsewhere = json!({"subscriptionId": uuid::Uuid::new_v4().to_string()});
    let refused = inner("n", elsewhere, json!([]), json!({}));
    let said = world.call("PUT", &path, template(json!([refused]))).await.refused(400, "InvalidTemplate");
    assert!(said.contains("subscriptionId"), "{said}");
    let resource = |name: &str| json!({"type": "Microsoft.KeyVault/vaults", "name": name, "location": "local"});
    let mut deep = inner("n0", json!({}), json!([]), resource("kv-deep"));
    for level in 1..6 {
        deep = inner(&format!("n{level}"), json!({}), json!([]), deep);
    }
    let said = world.call("PUT", &path, template(json!([deep]))).await.refused(400, "InvalidTemplate");
    assert!(said.contains("levels deep"), "{said}");
}
