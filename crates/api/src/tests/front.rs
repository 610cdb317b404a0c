use http::Method;
use serde_json::{Value, json};

use crate::testing::{URL, World};

#[tokio::test]
async fn metadata_in_both_versions_without_a_token() {
    let world = World::new().await;
    let list = world.send(Method::GET, "/metadata/endpoints?api-version=2019-05-01", &[], "").await.expect(200);
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|cloud| cloud["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Casemate", "AzureCloud"]);
    let one = world.send(Method::GET, "/metadata/endpoints?api-version=2022-09-01", &[], "").await.expect(200);
    assert_eq!(one["name"], "Casemate");
    for cloud in [&list[0], &list[1], &one] {
        assert_eq!(cloud["resourceManager"], format!("{URL}/"));
        let authority = cloud["authentication"]["loginEndpoint"].as_str().unwrap();
        assert!(authority.starts_with(&format!("{URL}/adfs")), "{authority}");
        assert_eq!(cloud["suffixes"]["storage"], "core.casemate.internal");
    }
    // Reached by another name, it names itself by that one.
    let request = http::Request::get("https://box.example:9/metadata/endpoints?api-version=2022-09-01");
    let request = request.body(axum::body::Body::empty()).unwrap();
    let answer = tower::ServiceExt::oneshot(crate::router(world.state.clone()), request).await.unwrap();
    let bytes = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    let other: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(other["resourceManager"], "https://box.example:9/");
}

#[tokio::test]
async fn every_answer_carries_ids() {
    let world = World::new().await;
    let correlation = uuid::Uuid::new_v4().to_string();
    let headers = [("x-ms-correlation-request-id", correlation.as_str()), ("x-ms-client-request-id", "mine")];
    for path in ["/subscriptions", "/nowhere", "/metadata/endpoints"] {
        let answer = world.call_with("GET", path, &headers, Value::Null).await;
        assert!(answer.header("x-ms-request-id").parse::<uuid::Uuid>().is_ok(), "{path}");
        assert_eq!(answer.header("x-ms-correlation-request-id"), correlation);
        assert_eq!(answer.header("x-ms-client-request-id"), "mine");
    }
}

#[tokio::test]
async fn bad_tokens_are_challenged() {
    let world = World::new().await;
    let path = world.path("/resourceGroups/g");
    let secret = world.bootstrap.client_secret.clone().unwrap();
    let client = world.bootstrap.client_id.to_string();
    let scoring = world.sign_in(&client, &secret, "https://ml.azure.com").await;
    let good = world.sign_in(&client, &secret, URL).await;
    let mut forged = good.clone();
    let last = forged.pop().unwrap();
    forged.push(if last == 'A' { 'B' } else { 'A' });
    let bearer = |token: &str| format!("Bearer {token}");
    for (header, code) in [
        (None, "AuthenticationFailed"),
        (Some("Basic eDp5".to_owned()), "AuthenticationFailedInvalidHeader"),
        (Some("Bearer".to_owned()), "AuthenticationFailedInvalidHeader"),
        (Some(bearer("x")), "InvalidAuthenticationToken"),
        (Some(bearer("a.b.c")), "InvalidAuthenticationToken"),
        (Some(bearer(&"a".repeat(100_000))), "InvalidAuthenticationToken"),
        (Some(bearer(&forged)), "InvalidAuthenticationToken"),
        (Some(bearer(&scoring)), "InvalidAuthenticationTokenAudience"),
    ] {
        let headers: Vec<(&str, &str)> = header.iter().map(|value| ("authorization", value.as_str())).collect();
        let answer = world.send(Method::GET, &path, &headers, "").await;
        let challenge = answer.header("www-authenticate").to_owned();
        answer.refused(401, code);
        assert!(challenge.starts_with(&format!("Bearer authorization_uri=\"{URL}/adfs/")), "{challenge}");
        assert_eq!(challenge.contains("error=\"invalid_token\""), header.is_some(), "{challenge}");
    }
    world.pass(7200);
    world.call_as(&good, "GET", &path, Value::Null).await.refused(401, "ExpiredAuthenticationToken");
}

#[tokio::test]
async fn bad_bodies_and_paths() {
    let world = World::new().await;
    let group = world.group("g").await;
    let bearer = format!(
        "Bearer {}",
        world
            .sign_in(world.bootstrap.client_id.to_string(), &world.bootstrap.client_secret.clone().unwrap(), URL)
            .await
    );
    let headers = [("authorization", bearer.as_str()), ("content-type", "text/plain")];
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let large = format!("{{\"location\": \"{}\"}}", "x".repeat(5 << 20));
    for (body, status, code) in [
        ("", 400, "InvalidRequestContent"),
        ("{", 400, "InvalidRequestContent"),
        ("[]", 400, "InvalidRequestContent"),
        ("\u{0}", 400, "InvalidRequestContent"),
        (deep.as_str(), 400, "InvalidRequestContent"),
        (large.as_str(), 413, "RequestContentTooLarge"),
        ("{}", 400, "LocationRequired"),
        ("{\"location\": 5}", 400, "LocationRequired"),
        ("{\"location\": \"a/b\"}", 400, "LocationNotAvailableForResourceType"),
        ("{\"location\": \"local\", \"tags\": []}", 400, "InvalidTagValueType"),
        ("{\"location\": \"local\", \"tags\": {\"a\": 1}}", 400, "InvalidTagValueType"),
    ] {
        world.send(Method::PUT, &group, &headers, body.to_owned()).await.refused(status, code);
    }
    for (path, status, code) in [
        ("/", 404, "NotFound"),
        ("/foo/bar", 400, "InvalidResourceId"),
        ("/subscriptions/x/resourceGroups/g", 404, "SubscriptionNotFound"),
        ("/subscriptions/%ff", 400, "InvalidResourceId"),
        ("/subscriptions/a%2fb", 400, "InvalidResourceId"),
        ("/providers/Casemate.Nothing", 404, "InvalidResourceNamespace"),
    ] {
        world.get(path).await.refused(status, code);
    }
    world
        .get(&format!("{group}/providers/Microsoft.Compute/virtualMachines/v"))
        .await
        .refused(404, "InvalidResourceType");
    world.call("POST", &group, json!({})).await.refused(405, "MethodNotAllowed");
}

#[tokio::test]
async fn known_places() {
    let world = World::new().await;
    let subscription = world.path("");
    assert_eq!(
        world.get("/subscriptions?api-version=2022-12-01").await.expect(200)["value"][0]["id"],
        subscription.as_str()
    );
    assert_eq!(world.get(&subscription).await.expect(200)["tenantId"], world.bootstrap.tenant.to_string());
    assert_eq!(world.get("/tenants").await.expect(200)["value"][0]["tenantId"], world.bootstrap.tenant.to_string());
    assert_eq!(world.get(&world.path("/locations")).await.expect(200)["value"][0]["name"], "local");
    let path = world.path("/providers/microsoft.machinelearningservices");
    assert_eq!(world.get(&path).await.expect(200)["registrationState"], "Registered");
    assert_eq!(
        world.call("POST", &format!("{path}/register"), Value::Null).await.expect(200)["registrationState"],
        "Registered"
    );
    assert!(world.get(&world.path("/providers")).await.expect(200)["value"].as_array().unwrap().len() > 5);
}
