use casemate_model::{OperationStatus, operation::OperationKind};
use serde_json::{Value, json};

use crate::testing::World;

#[tokio::test]
async fn the_life_of_a_group() {
    let world = World::new().await;
    let path = world.path("/resourcegroups/My-Group");
    assert_eq!(world.call("HEAD", &path, Value::Null).await.status, 404);
    world.get(&path).await.refused(404, "ResourceGroupNotFound");
    let body = json!({"location": "East US", "tags": {"team": "a"}});
    let made = world.call("PUT", &path, body.clone()).await.expect(201);
    assert_eq!((made["name"].as_str(), made["location"].as_str()), (Some("My-Group"), Some("eastus")));
    assert_eq!(made["id"], world.path("/resourceGroups/My-Group"));
    assert_eq!(made["properties"]["provisioningState"], "Succeeded");
    world.call("PUT", &path, body).await.expect(200);
    assert_eq!(
        world.call("HEAD", &path.to_uppercase().replace("SUBSCRIPTIONS", "subscriptions"), Value::Null).await.status,
        204
    );
    world.call("PUT", &path, json!({"location": "westus"})).await.refused(409, "InvalidResourceGroupLocation");
    let patched = world.call("PATCH", &path, json!({"tags": {"team": "b"}})).await.expect(200);
    assert_eq!(patched["tags"], json!({"team": "b"}));
    let found = |filter: &'static str| {
        let path = world.path(&format!("/resourcegroups?$filter={}", filter.replace(' ', "%20")));
        let world = &world;
        async move { world.get(&path).await.expect(200)["value"].as_array().unwrap().len() }
    };
    assert_eq!(found("tagName eq 'team' and tagValue eq 'b'").await, 1);
    assert_eq!(found("tagName eq 'team' and tagValue eq 'c'").await, 0);
    world
        .get(&world.path("/resourcegroups?$filter=colour%20eq%20'red'"))
        .await
        .refused(400, "InvalidFilterInQueryString");
    world
        .call("PUT", &world.path("/resourceGroups/bad."), json!({"location": "x"}))
        .await
        .refused(400, "InvalidResourceGroup");
}

#[tokio::test]
async fn conditions_on_writes() {
    let world = World::new().await;
    let path = world.group("g").await;
    let body = json!({"location": "local"});
    let etag = world.get(&path).await.header("etag").to_owned();
    assert_eq!(world.call_with("GET", &path, &[("if-none-match", &etag)], Value::Null).await.status, 304);
    for (headers, status, code) in [
        (vec![("if-none-match", "*")], 412, "PreconditionFailed"),
        (vec![("if-match", "\"other\"")], 412, "PreconditionFailed"),
        (vec![("if-match", "W/\"weak\"")], 400, "InvalidHeader"),
        (vec![("if-match", "\"a\", \"b\"")], 400, "InvalidHeader"),
        (vec![("if-none-match", "\"a\"")], 400, "InvalidHeader"),
        (vec![("if-match", "*"), ("if-none-match", "*")], 400, "InvalidHeader"),
    ] {
        world.call_with("PUT", &path, &headers, body.clone()).await.refused(status, code);
    }
    world.call_with("PUT", &path, &[("if-match", &etag)], body.clone()).await.expect(200);
    world.call_with("PUT", &path, &[("if-match", &etag)], body.clone()).await.refused(412, "PreconditionFailed");
    world.call_with("PUT", &path, &[("if-match", "*")], body.clone()).await.expect(200);
    let new = world.path("/resourceGroups/new");
    world.call_with("PUT", &new, &[("if-match", "*")], body.clone()).await.refused(412, "PreconditionFailed");
    world.call_with("PUT", &new, &[("if-none-match", "*")], body).await.expect(201);
}

#[tokio::test]
async fn deletion_is_an_operation_that_marks_everything_inside() {
    let world = World::new().await;
    let workspace = world.workspace("g", "wsp").await;
    let group = world.path("/resourceGroups/g");
    let answer = world.call("DELETE", &group, Value::Null).await;
    let (status, result) = (answer.header("azure-asyncoperation").to_owned(), answer.header("location").to_owned());
    assert_eq!((answer.header("retry-after"), answer.status.as_u16()), ("1", 202));
    let local = |url: &str| url.strip_prefix(crate::testing::URL).unwrap().to_owned();
    assert_eq!(world.get(&local(&status)).await.expect(200)["status"], "InProgress");
    assert_eq!(world.get(&local(&result)).await.status, 202);
    assert_eq!(world.get(&workspace).await.expect(200)["properties"]["provisioningState"], "Deleting");
    world.call("PUT", &workspace, json!({"location": "local"})).await.refused(409, "ResourceGroupBeingDeleted");
    world.call("PUT", &group, json!({"location": "local"})).await.refused(409, "ResourceBeingDeleted");

    let pending = world.state.store.operations_pending().await.unwrap();
    assert_eq!((pending.len(), pending[0].kind), (1, OperationKind::Delete));
    let mut tx = world.state.store.begin().await.unwrap();
    tx.operation_finish(pending[0].id, OperationStatus::Succeeded, None).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(world.get(&local(&status)).await.expect(200)["status"], "Succeeded");
    assert_eq!(world.get(&local(&result)).await.status, 204);
    world
        .get(&world.path(&format!("/providers/Casemate.Platform/operationStatuses/{}", uuid::Uuid::new_v4())))
        .await
        .refused(404, "OperationNotFound");
}

#[tokio::test]
async fn resources_are_listed_by_type_name_and_tag() {
    let world = World::new().await;
    world.workspace("one", "wsp-a").await;
    let group = world.group("two").await;
    let account = format!("{group}/providers/microsoft.storage/storageaccounts/acct1");
    world.call("PUT", &account, json!({"location": "local", "tags": {"keep": "yes"}})).await.expect(201);
    let names = |query: &'static str| {
        let path = world.path(&format!("/resources?{}", query.replace(' ', "%20")));
        let world = &world;
        async move {
            let listed = world.get(&path).await.expect(200);
            let names = listed["value"].as_array().unwrap().iter();
            names.map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        }
    };
    assert_eq!(names("$filter=resourceType eq 'Microsoft.MachineLearningServices/workspaces'").await, ["wsp-a"]);
    assert_eq!(
        names("$filter=resourceType eq 'microsoft.storage/STORAGEACCOUNTS' and name eq 'ACCT1'").await,
        ["acct1"]
    );
    assert_eq!(names("$filter=tagName eq 'keep' and tagValue eq 'yes'").await, ["acct1"]);
    assert_eq!(names("$filter=resourceType eq 'Microsoft.Nothing/x'").await, Vec::<String>::new());
    assert_eq!(names("").await.len(), 6);
    let first = world.get(&world.path("/resources?$top=4")).await.expect(200);
    let next = first["nextLink"].as_str().unwrap().strip_prefix(crate::testing::URL).unwrap().to_owned();
    assert_eq!(first["value"].as_array().unwrap().len(), 4);
    let rest = world.get(&next).await.expect(200);
    assert_eq!((rest["value"].as_array().unwrap().len(), rest["nextLink"].is_null()), (2, true));
    assert_eq!(world.get(&format!("{group}/resources")).await.expect(200)["value"].as_array().unwrap().len(), 1);
    for (query, code) in [
        ("$filter=name gt 'a'", "InvalidFilterInQueryString"),
        ("$filter=tagValue eq 'a'", "InvalidFilterInQueryString"),
        ("$filter=size eq 'a'", "InvalidFilterInQueryString"),
        ("$filter=name eq 'a' or name eq 'b'", "InvalidFilterInQueryString"),
        ("$top=0", "BadArgument"),
        ("$top=x", "BadArgument"),
        ("$skipToken=x", "BadArgument"),
    ] {
        world.get(&world.path(&format!("/resources?{}", query.replace(' ', "%20")))).await.refused(400, code);
    }
}
