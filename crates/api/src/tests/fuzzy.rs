//! Bytes from outside never make a parser panic, and what it accepts keeps its rules.

use http::Method;
use proptest::{prelude::*, test_runner::RngSeed};
use serde_json::{Value, json};

use crate::fuzz;

/// Words of expressions in any order: most are wrong, some are right.
fn expression() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "concat(",
        "if(",
        "equals(",
        "parameters('p')",
        "variables('v')",
        "reference('n')",
        "resourceId(",
        "'A.B/c'",
        "json(",
        "split(",
        "substring(",
        "range(",
        "format(",
        "'{0}'",
        "createArray(",
        "union(",
        "copyIndex()",
        "union(",
        "'x'",
        "''",
        "'ä''",
        ")",
        "(",
        ",",
        ".",
        "[",
        "]",
        "name",
        "0",
        "-1",
        "9223372036854775807",
        "true()",
        " ",
    ]);
    prop::collection::vec(words, 0..24).prop_map(|words| words.concat())
}

/// Requests on what a workspace holds, with bodies that are nearly right.
fn request() -> impl Strategy<Value = String> {
    let method = prop::sample::select(vec!["PUT", "PUT", "PATCH", "GET", "DELETE", "POST"]);
    let path = prop::sample::select(vec![
        "$W/onlineEndpoints/ep",
        "$W/onlineEndpoints/ep/deployments/blue",
        "$W/onlineEndpoints/ep/listKeys",
        "$W/onlineEndpoints/ep/regenerateKeys",
        "$W/onlineEndpoints/ep/deployments/blue/getLogs",
        "$W/models/m/versions/1",
        "$W/codes/c/versions/1",
        "$W/environments/e/versions/1",
        "$W/datastores/d",
        "$W/datastores/workspaceblobstore/listSecrets",
        "$W",
        "$W/outboundRules/r",
        "$W/providers/Microsoft.Authorization/roleAssignments/8e3af657-a8ff-443c-a75c-2fe8c4bcb635",
        "$S/resourceGroups/g/providers/Microsoft.Resources/deployments/d",
        "$S/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/accountx",
        "$S/resourceGroups/g2",
        "$S/resources?$filter=name eq 'x'&$top=2",
    ]);
    let value = prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::from),
        prop::sample::select(vec![
            "Key",
            "local",
            "Managed",
            "PT5S",
            "azureml:m:1",
            "azureml://datastores/workspaceblobstore/paths/x",
            "/a/b",
            "https://acct.blob.x/box/y",
            "x",
            "",
            "Standard_DS2_v2",
            "SystemAssigned",
            "\u{0}",
            "AzureBlob",
        ])
        .prop_map(Value::from),
        Just(json!({"blue": 100})),
        Just(json!({"a": {"b": []}})),
        Just(json!([1, "x", null])),
    ];
    let key = prop::sample::select(vec![
        "authMode",
        "endpointComputeType",
        "traffic",
        "mirrorTraffic",
        "model",
        "environmentId",
        "codeConfiguration",
        "instanceType",
        "requestSettings",
        "livenessProbe",
        "modelUri",
        "codeUri",
        "condaFile",
        "image",
        "tags",
        "datastoreType",
        "accountName",
        "containerName",
        "credentials",
        "keyType",
        "keyValue",
        "principalId",
        "roleDefinitionId",
        "template",
        "parameters",
        "mode",
        "destination",
        "type",
        "category",
        "isArchived",
        "friendlyName",
        "storageAccount",
        "managedNetwork",
        "description",
        "scaleSettings",
        "environmentVariables",
    ]);
    let properties = prop::collection::hash_map(key, value, 0..4);
    let tops = prop::sample::select(vec!["location", "tags", "sku", "identity", "kind", "unknown"]);
    let top = prop::option::of((tops, prop_oneof![Just(Value::Null), Just(json!("local")), Just(json!({"a": "b"}))]));
    (method, path, properties, top, any::<bool>()).prop_map(|(method, path, properties, top, good)| {
        let mut body = json!({"location": "local", "properties": {}});
        if good {
            body["properties"] =
                json!({"authMode": "Key", "endpointComputeType": "Managed", "datastoreType": "AzureBlob"});
        }
        properties.into_iter().for_each(|(key, value)| body["properties"][key] = value);
        if let Some((key, value)) = top {
            body[key] = value;
        }
        format!("{method} {}\ncontent-type: application/json\n\n{body}", path.replace(' ', "%20"))
    })
}

#[test]
fn templates_that_multiply_work_are_refused() {
    let copy = json!({"name": "l", "count": 800});
    let busy = format!("[concat('n', copyIndex(), length(createArray({})))]", ["range(0, 10000)"; 300].join(", "));
    let value = format!("[createArray({})]", ["variables('v')"; 100].join(", "));
    for (why, resource) in [
        ("at most 800", json!({"name": "[string(copyIndex())]", "copy": copy, "dependsOn": vec![""; 200_000]})),
        ("too much work", json!({"name": busy, "copy": copy})),
        (
            "too much work",
            json!({"name": "[string(copyIndex())]", "copy": copy, "dependsOn": vec!["x".repeat(100); 800]}),
        ),
        ("too much work", json!({"name": "n", "properties": {"p": value}})),
    ] {
        let mut resource = resource;
        resource["type"] = "A.B/c".into();
        let document = json!({"$schema": "x/deploymentTemplate.json#", "resources": [resource],
            "variables": {"v": vec!["x"; 100_000]}});
        let refusal = fuzz::evaluated(&document, &Value::Null).unwrap_err();
        assert!(refusal.message.contains(why), "{}", refusal.message);
    }
}

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn expressions(text in prop_oneof![expression(), any::<String>()]) {
        fuzz::expression(&text);
    }

    #[test]
    fn templates(texts in prop::collection::vec(expression(), 4), count in 0..5, name in "[a-c/]{1,4}") {
        let bracketed: Vec<String> = texts.iter().map(|text| format!("[{text}]")).collect();
        let resource = |n: usize| json!({
            "type": "A.B/c", "name": if n == 0 { &name } else { &bracketed[n] }, "apiVersion": "1",
            "copy": {"name": "l", "count": count}, "dependsOn": ["l", "b", bracketed[n]], "properties": {"x": bracketed[n]},
        });
        let document = json!({
            "$schema": "x/deploymentTemplate.json#", "variables": {"v": bracketed[3]},
            "parameters": {"p": {"type": "string", "defaultValue": bracketed[2]}},
            "resources": [resource(0), resource(1)], "outputs": {"o": {"value": bracketed[2]}},
        });
        fuzz::template(document.to_string().as_bytes());
    }

    #[test]
    fn paths(path in prop_oneof![
        any::<String>(),
        prop::collection::vec(prop::sample::select(vec![
            "subscriptions", "SUBSCRIPTIONS", "resourcegroups", "providers", "Providers", "Microsoft.MachineLearningServices",
            "workspaces", "x", "deployments", "operations", "..", "%2f", "%ff", "%00", "%25", "wor%E2%84%AAspaces", "",
        ]), 0..12).prop_map(|parts| parts.join("/")),
    ]) {
        for method in [Method::GET, Method::POST] {
            fuzz::path(&method, &path);
        }
    }

    #[test]
    fn paths_below_a_subscription(tail in "(/(resourceGroups|providers|deployments|workspaces|[a-c]|%[0-9A-F]{2}|\\PC){1}){0,8}", query in "(\\?\\$top=[0-9]{0,3})?") {
        for method in [Method::GET, Method::POST] {
            fuzz::path(&method, &format!("/subscriptions/5e{tail}{query}"));
        }
    }

    #[test]
    fn filters(text in prop_oneof![
        any::<String>(),
        prop::collection::vec(prop::sample::select(vec!["name", " eq ", "'a'", "'", " and ", "(", ")", "atScope()", "5"]), 0..12)
            .prop_map(|parts| parts.concat()),
    ]) {
        fuzz::filter(&text);
    }
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn requests(script in prop::collection::vec(request(), 1..6)) {
        fuzz::requests(script.join("\n---\n").as_bytes());
    }
}
