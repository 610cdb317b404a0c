//! Vaults from outside, over a real store.

use casemate_model::{Secret, inbound::Origin};
use http::{Method, Request, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::testing::{URL, World};

const HOST: &str = "https://kv1.vault.casemate.internal:8443";
const V: &str = "?api-version=7.4";

async fn vault(world: &World, group: &str, body: Value) -> String {
    let path = format!("{}/providers/Microsoft.KeyVault/vaults/kv1", world.group(group).await);
    world.call("PUT", &path, json!({"location": "local", "properties": body})).await.expect(201);
    path
}

/// A principal with a role at a scope: a token for vaults, one for the management API, and its object id.
async fn principal(world: &World, name: &str, role: &str, scope: &str) -> (String, String, String) {
    let made = world.call("PUT", &format!("/providers/Casemate.Identity/servicePrincipals/{name}"), Value::Null).await;
    let made = made.expect(201);
    let text = |key: &str| made["properties"][key].as_str().unwrap().to_owned();
    let (app, object, secret) = (text("appId"), text("objectId"), Secret::from(text("clientSecret")));
    if !role.is_empty() {
        let path = format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{}", uuid::Uuid::new_v4());
        let body = json!({"properties": {"roleDefinitionId": role, "principalId": object}});
        world.call("PUT", &path, body).await.expect(201);
    }
    let vault = world.sign_in(&app, &secret, "https://vault.casemate.internal:8443").await;
    (vault, world.sign_in(&app, &secret, URL).await, object)
}

/// The status and the codes, outer and inner, of a refusal.
fn codes(answer: &crate::testing::Answer) -> (u16, &str, &str) {
    let error = &answer.body["error"];
    let text = |value: &'_ Value| value.as_str().unwrap_or_default().to_owned().leak() as &str;
    (answer.status.as_u16(), text(&error["code"]), text(&error["innererror"]["code"]))
}

#[tokio::test]
async fn a_vault_is_managed() {
    let world = World::new().await;
    let path = vault(&world, "g", json!({"networkAcls": {"defaultAction": "deny"}, "sku": {"name": "Premium"}})).await;
    let shown = world.get(&path).await.expect(200);
    let properties = &shown["properties"];
    assert_eq!(properties["vaultUri"], "https://kv1.vault.casemate.internal:8443/");
    assert_eq!(properties["networkAcls"]["defaultAction"], "Deny");
    assert_eq!(properties["networkAcls"]["bypass"], "AzureServices");
    assert_eq!((&properties["sku"]["name"], &properties["enableRbacAuthorization"]), (&json!("premium"), &json!(true)));
    assert_eq!(properties["provisioningState"], "Succeeded");

    let patch = json!({"properties": {"enableRbacAuthorization": false}, "tags": {"a": "b"}});
    let patched = world.call("PATCH", &path, patch).await.expect(200);
    assert_eq!(patched["properties"]["networkAcls"]["defaultAction"], "Deny", "what is not given stays");
    let policy = |words: Value| json!({"properties": {"accessPolicies": [{"objectId": uuid::Uuid::from_u128(7), "permissions": {"secrets": words}}]}});
    let policies = format!("{path}/accessPolicies");
    world.call("PUT", &format!("{policies}/add"), policy(json!(["get"]))).await.expect(200);
    let added = world.call("PUT", &format!("{policies}/add"), policy(json!(["get", "list"]))).await.expect(200);
    assert_eq!(added["properties"]["accessPolicies"][0]["permissions"]["secrets"], json!(["get", "list"]));
    let removed = world.call("PUT", &format!("{policies}/remove"), policy(json!([]))).await.expect(200);
    assert_eq!(removed["properties"]["accessPolicies"], json!([]));

    for (name, body, status, code) in [
        ("1kv", json!({}), 400, "VaultNameNotValid"),
        ("kv2", json!({"networkAcls": {"bypass": "All"}}), 400, "BadRequest"),
        ("kv2", json!({"enablePurgeProtection": true}), 501, "NotImplemented"),
        ("kv2", json!({"createMode": "recover"}), 501, "NotImplemented"),
        ("kv2", json!({"tenantId": uuid::Uuid::nil()}), 400, "BadRequest"),
        ("kv2", json!({"accessPolicies": [{"objectId": "me"}]}), 400, "BadRequest"),
    ] {
        let path = path.replace("/kv1", &format!("/{name}"));
        world.call("PUT", &path, json!({"location": "l", "properties": body})).await.refused(status, code);
    }
    let other = format!("{}/providers/Microsoft.KeyVault/vaults/KV1", world.group("other").await);
    world.call("PUT", &other, json!({"location": "l"})).await.refused(409, "VaultAlreadyExists");
    let check = world.path("/providers/Microsoft.KeyVault/checkNameAvailability");
    let free = |name: &str| world.call("POST", &check, json!({"name": name, "type": "Microsoft.KeyVault/vaults"}));
    assert_eq!(free("kv1").await.expect(200)["reason"], "AlreadyExists");
    assert_eq!(free("kv2").await.expect(200)["nameAvailable"], true);
    let all = world.get(&world.path("/providers/Microsoft.KeyVault/vaults")).await.expect(200);
    assert_eq!(all["value"].as_array().unwrap().len(), 1);
    let deleted = world.path("/providers/Microsoft.KeyVault/locations/local/deletedVaults/kv1");
    world.get(&deleted).await.refused(404, "DeletedVaultNotFound");
    world.call("DELETE", &path, Value::Null).await.expect(200);
    world.call("DELETE", &path, Value::Null).await.expect(204);
    world.call("PUT", &other, json!({"location": "l"})).await.expect(201);
}

#[tokio::test]
async fn secrets_have_versions_and_go_for_good() {
    let world = World::new().await;
    let path = vault(&world, "g", json!({})).await;
    let (officer, ..) = principal(&world, "officer", "Key Vault Secrets Officer", &path).await;
    let (user, ..) = principal(&world, "user", "Key Vault Secrets User", &path).await;
    let secret = format!("{HOST}/secrets/multiplier");
    let set = |value: &str| {
        let body = json!({"value": value, "contentType": "text/plain", "tags": {"a": "b"}});
        let at = format!("{secret}{V}");
        let (world, officer) = (&world, officer.as_str());
        async move { world.call_as(officer, "PUT", &at, body).await.expect(200) }
    };
    let first = set("7").await;
    let id = first["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("https://kv1.vault.casemate.internal:8443/secrets/multiplier/"), "{first:#}");
    assert_eq!((&first["value"], &first["attributes"]["enabled"]), (&json!("7"), &json!(true)));
    set("8").await;
    let get = |at: String| {
        let (world, user) = (&world, user.as_str());
        async move { world.call_as(user, "GET", &at, Value::Null).await }
    };
    assert_eq!(get(format!("{secret}{V}")).await.expect(200)["value"], "8");
    assert_eq!(get(format!("{secret}/{V}")).await.expect(200)["value"], "8", "as clients ask for the newest");
    assert_eq!(get(format!("{id}{V}")).await.expect(200)["value"], "7");
    let public = get(format!("https://KV1.vault.azure.net/secrets/multiplier{V}")).await.expect(200);
    assert!(public["id"].as_str().unwrap().starts_with("https://kv1.vault.azure.net/secrets/"), "{public:#}");
    let versions = get(format!("{secret}/versions{V}&maxresults=1")).await.expect(200);
    assert!(versions["value"][0].get("value").is_none() && versions["value"][0]["tags"]["a"] == "b", "{versions:#}");
    let rest = get(versions["nextLink"].as_str().unwrap().to_owned()).await.expect(200);
    assert_eq!((rest["value"].as_array().unwrap().len(), &rest["nextLink"]), (1, &Value::Null));
    let all = get(format!("{HOST}/secrets{V}")).await.expect(200);
    assert_eq!(all["value"][0]["id"], secret.as_str());

    let off = json!({"attributes": {"enabled": false}});
    world.call_as(&officer, "PATCH", &format!("{secret}/{V}"), off).await.expect(200);
    assert_eq!(codes(&get(format!("{secret}{V}")).await), (403, "Forbidden", "SecretDisabled"));
    assert_eq!(get(format!("{id}{V}")).await.expect(200)["value"], "7", "another version");

    for (method, rest, body, expected) in [
        ("GET", "secrets/none", Value::Null, (404, "SecretNotFound", "")),
        ("GET", "secrets/multiplier/latest", Value::Null, (404, "SecretNotFound", "")),
        ("GET", "secrets/a_b", Value::Null, (400, "BadParameter", "")),
        ("PUT", "secrets/big", json!({"value": "x".repeat(25 * 1024 + 1)}), (400, "BadParameter", "")),
        ("PUT", "secrets/none", json!({}), (400, "BadParameter", "")),
        ("PUT", "secrets/none", json!({"value": "x", "attributes": {"exp": "soon"}}), (400, "BadParameter", "")),
        ("GET", "keys/one", Value::Null, (501, "NotImplemented", "")),
        ("POST", "secrets/multiplier/backup", json!({}), (501, "NotImplemented", "")),
        ("GET", "deletedsecrets/multiplier", Value::Null, (404, "SecretNotFound", "")),
    ] {
        let answer = world.call_as(&officer, method, &format!("{HOST}/{rest}{V}"), body).await;
        assert_eq!(codes(&answer), expected, "{method} {rest}: {:#}", answer.body);
    }
    assert_eq!(codes(&world.call_as(&officer, "GET", &format!("{HOST}/secrets"), Value::Null).await).0, 400);
    world
        .call_as(&officer, "PUT", &format!("{HOST}/secrets/edge{V}"), json!({"value": "x".repeat(25 * 1024)}))
        .await
        .expect(200);
    world.call_as(&officer, "DELETE", &format!("{secret}{V}"), Value::Null).await.expect(200);
    assert_eq!(codes(&get(format!("{id}{V}")).await), (404, "SecretNotFound", ""));
    let kept =
        world.state.store.resource_list(&casemate_store::Filter::of_type(casemate_model::vault::VERSION_TYPE)).await;
    assert_eq!(kept.unwrap().len(), 1, "versions go with their secret");
    let database = format!("{:?}", world.state.store.resource_list(&casemate_store::Filter::default()).await.unwrap());
    assert!(!database.contains("xxxxxxxx"), "values are in no row");
}

#[tokio::test]
async fn only_who_may_reads_secrets() {
    let world = World::new().await;
    let path = vault(&world, "g", json!({})).await;
    let at = format!("{HOST}/secrets/one{V}");
    let asked = world.send(Method::GET, &at, &[], "").await;
    assert_eq!(codes(&asked), (401, "Unauthorized", ""));
    let challenge = asked.header("www-authenticate");
    assert!(challenge.contains("resource=\"https://vault.casemate.internal:8443\""), "{challenge}");
    assert!(challenge.contains(&format!("authorization=\"{URL}/{}\"", world.bootstrap.tenant)), "{challenge}");
    let public = world.send(Method::GET, &format!("https://kv1.vault.azure.net/secrets/one{V}"), &[], "").await;
    assert!(public.header("www-authenticate").contains("resource=\"https://vault.azure.net\""));
    // Tokens for the management API are not for vaults, and the other way round; nor does owning a vault open it.
    assert_eq!(world.get(&at).await.status, 401);
    let (officer, management, _) = principal(&world, "officer", "Key Vault Secrets Officer", &path).await;
    assert_eq!(world.call_as(&management, "GET", &at, Value::Null).await.status, 401);
    assert_eq!(world.call_as(&officer, "GET", &path, Value::Null).await.status, 401);
    world.call_as(&management, "GET", &path, Value::Null).await.refused(403, "AuthorizationFailed");
    world.call_as(&officer, "PUT", &at, json!({"value": "v"})).await.expect(200);
    let secret = world.bootstrap.client_secret.clone().unwrap();
    let owner = world.sign_in(world.bootstrap.client_id.to_string(), &secret, "https://vault.azure.net").await;
    assert_eq!(codes(&world.call_as(&owner, "GET", &at, Value::Null).await), (403, "Forbidden", "ForbiddenByRbac"));

    let (user, ..) = principal(&world, "user", "Key Vault Secrets User", &format!("{path}/secrets/one")).await;
    world.call_as(&user, "GET", &at, Value::Null).await.expect(200);
    for (method, rest) in
        [("GET", "secrets/two"), ("GET", "secrets"), ("PUT", "secrets/one"), ("DELETE", "secrets/one")]
    {
        let answer = world.call_as(&user, method, &format!("{HOST}/{rest}{V}"), json!({"value": "x"})).await;
        assert_eq!(codes(&answer), (403, "Forbidden", "ForbiddenByRbac"), "{method} {rest}");
    }
    // With the vault's own list, roles mean nothing.
    let (_, _, object) = principal(&world, "third", "", "").await;
    let (by_list, _, listed) = principal(&world, "listed", "", "").await;
    let policy = |object: &str| json!({"objectId": object, "permissions": {"secrets": ["get"]}});
    let own =
        json!({"properties": {"enableRbacAuthorization": false, "accessPolicies": [policy(&object), policy(&listed)]}});
    world.call("PATCH", &path, own).await.expect(200);
    assert_eq!(codes(&world.call_as(&user, "GET", &at, Value::Null).await), (403, "Forbidden", "AccessDenied"));
    world.call_as(&by_list, "GET", &at, Value::Null).await.expect(200);
    assert_eq!(
        codes(&world.call_as(&by_list, "PUT", &at, json!({"value": "x"})).await),
        (403, "Forbidden", "AccessDenied")
    );
    world.call("DELETE", &path, Value::Null).await.expect(200);
    world.call_as(&by_list, "GET", &at, Value::Null).await.refused(404, "NotFound");
}

#[tokio::test]
async fn network_rules_come_before_credentials() {
    let world = World::new().await;
    let path = vault(&world, "g", json!({})).await;
    let id = casemate_model::ResourceId::parse(&path).unwrap();
    let named = |name: &str| casemate_model::ResourceId::parse(&path.replace("/kv1", &format!("/{name}"))).unwrap();
    let public = |text: &str| Origin::Public { caller: text.parse().unwrap() };
    let private = |target: &casemate_model::ResourceId| Origin::Private {
        network: id.clone(),
        endpoint: named("pe1"),
        target: target.clone(),
        caller: "10.8.0.9".parse().unwrap(),
    };
    let open = json!({"publicNetworkAccess": "Enabled", "networkAcls": {"defaultAction": "Allow"}});
    let deny = json!({"networkAcls": {"defaultAction": "Deny", "ipRules": [{"value": "203.0.113.0/24"}]}});
    let disabled = json!({"publicNetworkAccess": "Disabled"});
    for (properties, origin, inner) in [
        (&open, public("198.51.100.1"), ""),
        (&open, private(&named("kv2")), "ForbiddenByConnection"),
        (&deny, public("198.51.100.1"), "ForbiddenByFirewall"),
        (&deny, public("203.0.113.9"), ""),
        (&deny, private(&id), ""),
        (&disabled, public("203.0.113.9"), "ForbiddenByConnection"),
        (&disabled, private(&id), ""),
    ] {
        world.call("PATCH", &path, json!({ "properties": properties })).await.expect(200);
        let request =
            Request::get(format!("{HOST}/secrets/one{V}")).header(header::HOST, "kv1.vault.casemate.internal:8443");
        let request = request.extension(origin.clone()).body(axum::body::Body::empty()).unwrap();
        let response = tower::ServiceExt::oneshot(crate::router(world.state.clone()), request).await.unwrap();
        let status = response.status().as_u16();
        let body: Value = serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap();
        let found = body["error"]["innererror"]["code"].as_str().unwrap_or_default();
        assert_eq!(
            (status, found),
            (if inner.is_empty() { 401 } else { 403 }, inner),
            "{properties} {origin:?} {body:#}"
        );
    }
}

#[tokio::test]
async fn endpoint_keys_need_a_vault_that_lets_the_platform_in() {
    let world = World::new().await;
    let path = world.workspace("g", "wsp").await;
    let vault = world.get(&path).await.expect(200)["properties"]["keyVault"].as_str().unwrap().to_owned();
    let name = vault.rsplit('/').next().unwrap().to_owned();
    let endpoint = |name: &str| format!("{path}/onlineEndpoints/{name}");
    let key = json!({"location": "local", "properties": {"authMode": "Key"}});
    let rules = |bypass: &str| json!({"properties": {"networkAcls": {"bypass": bypass, "defaultAction": "Deny"}}});
    world.call("PUT", &endpoint("before"), key.clone()).await.expect(201);
    world.call("PATCH", &vault, rules("None")).await.expect(200);
    let message = world.call("PUT", &endpoint("after"), key.clone()).await.refused(403, "KeyVaultAccessDenied");
    assert!(message.contains(&format!("az keyvault update -n {name} --bypass AzureServices")), "{message}");
    assert!(message.contains("\"defaultAction\":\"Deny\"") && message.contains("'after'"), "{message}");
    world.get(&endpoint("after")).await.refused(404, "ResourceNotFound");
    let token = json!({"location": "local", "properties": {"authMode": "AMLToken"}});
    world.call("PUT", &endpoint("other"), token).await.expect(201);
    let keys = |action: &str| format!("{}/{action}", endpoint("before"));
    world.call("POST", &keys("listKeys"), json!({})).await.refused(403, "KeyVaultAccessDenied");
    let renew = json!({"keyType": "Primary"});
    world.call("POST", &keys("regenerateKeys"), renew).await.refused(403, "KeyVaultAccessDenied");
    // What is there goes on, and the line in the message mends the rest.
    world.call("PUT", &endpoint("before"), key.clone()).await.expect(200);
    world.call("PATCH", &vault, rules("AzureServices")).await.expect(200);
    world.call("POST", &keys("listKeys"), json!({})).await.expect(200);
    world.call("PUT", &endpoint("after"), key).await.expect(201);
}

#[test]
fn references_to_secrets_are_checked_before_anything_runs() {
    for (value, code) in [
        ("plain", None),
        ("${{keyvault:https://kv1.vault.casemate.internal/secrets/one}}", None),
        ("${{keyvault:kv1/one}}", Some("BadArgument")),
        ("${{azureml://connections/c/credentials/key}}", Some("NotImplemented")),
    ] {
        let variables = std::collections::BTreeMap::from([("KEY".to_owned(), value.to_owned())]);
        let found = super::check_references(&variables, "casemate.internal").err();
        assert_eq!(found.as_ref().map(|fault| fault.code.as_str()), code, "{value}");
        assert!(found.is_none_or(|fault| fault.message.contains("'KEY'")), "{value}");
    }
}
