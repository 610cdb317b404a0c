use casemate_identity::role;
use casemate_model::Secret;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::testing::{URL, World};

#[tokio::test]
async fn what_each_role_may() {
    let world = World::new().await;
    let workspace = world.workspace("g", "wsp").await;
    let (group, subscription) = (world.path("/resourceGroups/g"), world.path(""));
    let (reader, _) = world.principal("reader", role::READER, &group).await;
    let (contributor, _) = world.principal("contributor", "Contributor", &subscription).await;
    let (scorer, _) = world.principal("scorer", role::ENDPOINT_SCORER, &workspace).await;
    let assignment = format!("{group}/providers/Microsoft.Authorization/roleAssignments/{}", Uuid::new_v4());
    let role_body = json!({"properties": {"roleDefinitionId": role::READER, "principalId": Uuid::new_v4()}});
    let principal = "/providers/Casemate.Identity/servicePrincipals/another";
    let body = json!({"location": "local"});
    for (who, method, path, body, status) in [
        (&reader, "GET", group.as_str(), Value::Null, 200),
        (&reader, "GET", workspace.as_str(), Value::Null, 200),
        (&reader, "PUT", workspace.as_str(), body.clone(), 403),
        (&reader, "DELETE", group.as_str(), Value::Null, 403),
        (&reader, "GET", principal, Value::Null, 403),
        (&contributor, "PUT", workspace.as_str(), body.clone(), 200),
        (&contributor, "PUT", assignment.as_str(), role_body.clone(), 403),
        (&contributor, "PUT", principal, Value::Null, 403),
        (&contributor, "GET", "/providers/Casemate.Identity/servicePrincipals", Value::Null, 200),
        (&scorer, "GET", workspace.as_str(), Value::Null, 403),
        (&scorer, "GET", group.as_str(), Value::Null, 403),
    ] {
        let answer = world.call_as(who, method, path, body).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {:#}", answer.body);
    }
    let message = world.call_as(&reader, "PUT", &workspace, body).await.refused(403, "AuthorizationFailed");
    assert!(message.contains("'Microsoft.MachineLearningServices/workspaces/write'"), "{message}");
    assert!(message.contains(&format!("over scope '{workspace}'")), "{message}");
    // What is outside is neither listed nor told apart from what is not there.
    world.group("other").await;
    let listed = world.call_as(&reader, "GET", &world.path("/resourcegroups"), Value::Null).await.expect(200);
    assert_eq!(listed["value"].as_array().unwrap().len(), 1);
    world
        .call_as(&reader, "GET", &world.path("/resourceGroups/nowhere"), Value::Null)
        .await
        .refused(403, "AuthorizationFailed");
}

#[tokio::test]
async fn assignments_take_effect_at_once() {
    let world = World::new().await;
    let group = world.group("g").await;
    let (token, object) = world.principal("worker", role::READER, &group).await;
    let body = json!({"location": "local"});
    world.call_as(&token, "PUT", &group, body.clone()).await.refused(403, "AuthorizationFailed");
    let base = format!("{group}/providers/Microsoft.Authorization/roleAssignments");
    let path = format!("{base}/{}", Uuid::new_v4());
    let full = world.path(&format!("/providers/Microsoft.Authorization/roleDefinitions/{}", role::CONTRIBUTOR));
    let wanted = json!({"properties": {"roleDefinitionId": full, "principalId": object}});
    let made = world.call("PUT", &path, wanted.clone()).await.expect(201);
    assert_eq!(
        (made["properties"]["scope"].as_str(), made["properties"]["principalId"].as_str()),
        (Some(group.as_str()), Some(object.as_str()))
    );
    world.call_as(&token, "PUT", &group, body.clone()).await.expect(200);
    world.call("PUT", &path, wanted.clone()).await.expect(200);
    world.call("PUT", &format!("{base}/{}", Uuid::new_v4()), wanted).await.refused(409, "RoleAssignmentExists");

    let found = |filter: String| {
        let path = format!("{base}?$filter={}", filter.replace(' ', "%20"));
        let world = &world;
        async move { world.get(&path).await.expect(200)["value"].as_array().unwrap().len() }
    };
    assert_eq!(found(format!("principalId eq '{object}'")).await, 2);
    assert_eq!(found(format!("atScope() and assignedTo('{object}')")).await, 2);
    assert_eq!(found("atScope()".to_owned()).await, 3);
    let owned = world.get(&world.path("/providers/Microsoft.Authorization/roleAssignments?$filter=atScope()")).await;
    assert_eq!(owned.expect(200)["value"].as_array().unwrap().len(), 1);

    world.call("DELETE", &path, Value::Null).await.expect(200);
    world.call("DELETE", &path, Value::Null).await.expect(204);
    world.call_as(&token, "PUT", &group, body).await.refused(403, "AuthorizationFailed");
}

#[tokio::test]
async fn bad_assignments() {
    let world = World::new().await;
    let group = world.group("g").await;
    let at = |scope: &str| format!("{scope}/providers/Microsoft.Authorization/roleAssignments/{}", Uuid::new_v4());
    let good = json!({"roleDefinitionId": role::READER, "principalId": Uuid::new_v4()});
    for (path, properties, status, code) in [
        (
            format!("{group}/providers/Microsoft.Authorization/roleAssignments/x"),
            good.clone(),
            400,
            "InvalidRoleAssignmentId",
        ),
        (at(&world.path("/resourceGroups/none")), good.clone(), 404, "ResourceGroupNotFound"),
        (at(""), good.clone(), 400, "InvalidScope"),
        (at(&group), json!({}), 400, "RoleDefinitionDoesNotExist"),
        (at(&group), json!({"roleDefinitionId": role::READER, "principalId": "me"}), 400, "InvalidPrincipalId"),
        (
            at(&group),
            json!({"roleDefinitionId": role::READER, "principalId": Uuid::new_v4(), "condition": "x"}),
            400,
            "ConditionNotSupported",
        ),
    ] {
        world.call("PUT", &path, json!({"properties": properties})).await.refused(status, code);
    }
    let list = world.get(&world.path("/providers/Microsoft.Authorization/roleAssignments")).await.expect(200);
    let owner = list["value"][0]["id"].as_str().unwrap();
    world.call("DELETE", owner, Value::Null).await.refused(409, "LastOwner");
    world.get(&world.path("/resourcegroups")).await.expect(200);
}

#[tokio::test]
async fn definitions_by_name() {
    let world = World::new().await;
    let path = world.path("/providers/Microsoft.Authorization/roleDefinitions");
    assert_eq!(world.get(&path).await.expect(200)["value"].as_array().unwrap().len(), role::definitions().len());
    let owner = world.get(&format!("{path}?$filter=roleName%20eq%20'Owner'")).await.expect(200);
    assert_eq!(owner["value"][0]["name"], role::OWNER);
    assert_eq!(owner["value"][0]["id"], format!("{path}/{}", role::OWNER));
    world.get(&format!("{path}/{}", role::READER)).await.expect(200);
    world.get(&format!("{path}/{}", Uuid::new_v4())).await.refused(404, "RoleDefinitionDoesNotExist");
}

#[tokio::test]
async fn the_life_of_a_service_principal() {
    let world = World::new().await;
    let path = "/providers/Casemate.Identity/servicePrincipals/ci bot".replace(' ', "%20");
    let made = world.call("PUT", &path, json!({})).await.expect(201);
    let text = |value: &Value, key: &str| value["properties"][key].as_str().unwrap_or_default().to_owned();
    let (app, secret) = (text(&made, "appId"), Secret::from(text(&made, "clientSecret")));
    let again = world.call("PUT", &path, json!({})).await.expect(200);
    assert_eq!((text(&again, "appId"), text(&again, "clientSecret")), (app.clone(), String::new()));
    let by_id = format!("/providers/Casemate.Identity/servicePrincipals/{app}");
    assert_eq!(text(&world.get(&by_id).await.expect(200), "displayName"), "ci bot");
    assert_eq!(text(&world.get(&path).await.expect(200), "appId"), app);
    let token = world.sign_in(&app, &secret, URL).await;
    world.call_as(&token, "GET", "/subscriptions", Value::Null).await.expect(200);
    let reset = world.call("POST", &format!("{by_id}/resetSecret"), Value::Null).await.expect(200);
    let form = crate::testing::form(&app, secret.expose_str().unwrap(), URL);
    let path_of_tokens = format!("/adfs/{}/oauth2/token", world.bootstrap.tenant);
    assert_eq!(world.send(http::Method::POST, &path_of_tokens, &[], form).await.status, 401);
    world.sign_in(&app, &Secret::from(text(&reset, "clientSecret")), URL).await;
    // A deleted principal's tokens are worth nothing.
    world.call("DELETE", &by_id, Value::Null).await.expect(200);
    world.call_as(&token, "GET", "/subscriptions", Value::Null).await.refused(401, "InvalidAuthenticationToken");
    world.get(&by_id).await.refused(404, "ResourceNotFound");
    let own = format!("/providers/Casemate.Identity/servicePrincipals/{}", world.bootstrap.client_id);
    world.call("DELETE", &own, Value::Null).await.refused(409, "LastOwner");
    let long = format!("/providers/Casemate.Identity/servicePrincipals/{}", "x".repeat(121));
    world.call("PUT", &long, json!({})).await.refused(400, "InvalidDisplayName");
}
