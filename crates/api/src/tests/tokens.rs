use base64::prelude::{BASE64_STANDARD, Engine};
use http::Method;

use crate::testing::{URL, World, form};

#[tokio::test]
async fn discovery_leads_to_a_token_endpoint_that_works() {
    let world = World::new().await;
    let tenant = world.bootstrap.tenant;
    let client = world.bootstrap.client_id.to_string();
    let secret = world.bootstrap.client_secret.clone().unwrap();
    for path in [
        "/adfs/.well-known/openid-configuration".to_owned(),
        format!("/adfs/{tenant}/.well-known/openid-configuration"),
        format!("/{tenant}/v2.0/.well-known/openid-configuration"),
        format!("/adfs/{tenant}/v2.0/.well-known/openid-configuration"),
        format!("/adfs/{tenant}/{tenant}/.well-known/openid-configuration"),
        "/common/v2.0/.well-known/openid-configuration".to_owned(),
    ] {
        let document = world.send(Method::GET, &path, &[], "").await.expect(200);
        let endpoint = document["token_endpoint"].as_str().unwrap().strip_prefix(URL).unwrap().to_owned();
        let body = form(&client, secret.expose_str().unwrap(), URL);
        let granted = world.send(Method::POST, &endpoint, &[], body).await.expect(200);
        assert_eq!(
            (granted["token_type"].as_str(), granted["expires_in"].as_u64()),
            (Some("Bearer"), Some(3600)),
            "{path}"
        );
        let keys = document["jwks_uri"].as_str().unwrap().strip_prefix(URL).unwrap().to_owned();
        assert!(world.send(Method::GET, &keys, &[], "").await.expect(200)["keys"][0]["kid"].is_string());
    }
}

#[tokio::test]
async fn audiences_and_ways_to_send_a_secret() {
    let world = World::new().await;
    let path = format!("/{}/oauth2/v2.0/token", world.bootstrap.tenant);
    let client = world.bootstrap.client_id.to_string();
    let secret = world.bootstrap.client_secret.clone().unwrap();
    let secret = secret.expose_str().unwrap();
    let slash = format!("{URL}/");
    for audience in [URL, slash.as_str(), "https://ml.azure.com", "https://ml.azure.com/", "https://ml.azure.0.1:8443"]
    {
        world.send(Method::POST, &path, &[], form(&client, secret, audience)).await.expect(200);
    }
    let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{client}:{secret}")));
    let body = format!("grant_type=client_credentials&resource={URL}/");
    world.send(Method::POST, &path, &[("authorization", &basic)], body).await.expect(200);
}

#[tokio::test]
async fn refusals_in_the_shape_of_oauth() {
    let world = World::new().await;
    let tenant = world.bootstrap.tenant;
    let token = format!("/adfs/{tenant}/oauth2/token");
    let client = world.bootstrap.client_id.to_string();
    let other_tenant = format!("/adfs/{}/oauth2/token", uuid::Uuid::new_v4());
    let secret = world.bootstrap.client_secret.clone().unwrap();
    let good = secret.expose_str().unwrap();
    for (path, body, status, error, number) in [
        (&token, form(&client, "wrong", URL), 401, "invalid_client", 7_000_215),
        (&token, form(&uuid::Uuid::new_v4().to_string(), good, URL), 400, "unauthorized_client", 700_016),
        (&token, form("nobody", good, URL), 400, "unauthorized_client", 700_016),
        (&token, form(&client, good, "https://elsewhere.example"), 400, "invalid_resource", 500_011),
        (&token, String::new(), 400, "invalid_request", 900_144),
        (&token, "grant_type=password".to_owned(), 400, "unsupported_grant_type", 70_003),
        (&token, format!("grant_type=client_credentials&client_id={client}"), 401, "invalid_client", 7_000_218),
        (
            &token,
            format!("grant_type=client_credentials&client_id={client}&client_secret={good}"),
            400,
            "invalid_request",
            900_144,
        ),
        (
            &token,
            format!("grant_type=client_credentials&client_id={client}&client_secret={good}&scope=read"),
            400,
            "invalid_scope",
            70_011,
        ),
        (
            &token,
            format!("grant_type=client_credentials&client_id={client}&client_assertion=x"),
            401,
            "invalid_client",
            700_027,
        ),
        (&other_tenant, form(&client, good, URL), 400, "invalid_request", 90_002),
    ] {
        let answer = world.send(Method::POST, path, &[], body.clone()).await;
        let description = answer.body["error_description"].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            (answer.status.as_u16(), answer.body["error"].as_str()),
            (status, Some(error)),
            "{body}: {description}"
        );
        assert!(description.starts_with(&format!("AADSTS{number}:")), "{description}");
        assert!(!description.contains(good));
    }
    assert_eq!(world.send(Method::GET, &token, &[], "").await.body["error"], "invalid_request");
}

#[tokio::test]
async fn wrong_secrets_are_slowed_down_and_the_right_one_never_is() {
    let world = World::new().await;
    let path = format!("/adfs/{}/oauth2/token", world.bootstrap.tenant);
    let client = world.bootstrap.client_id.to_string();
    let mut statuses = Vec::new();
    for _ in 0..12 {
        statuses.push(world.send(Method::POST, &path, &[], form(&client, "wrong", URL)).await.status.as_u16());
    }
    assert_eq!((statuses[0], statuses[11]), (401, 429));
    world.sign_in(&client, &world.bootstrap.client_secret.clone().unwrap(), URL).await;
    world.pass(10);
    assert_eq!(world.send(Method::POST, &path, &[], form(&client, "wrong", URL)).await.status, 401);
}

#[tokio::test]
async fn managed_identity_takes_a_secret() {
    let world = World::new().await;
    let path = format!("/msi/token?api-version=2019-08-01&resource={URL}/");
    let secret = world.bootstrap.client_secret.clone().unwrap();
    let header = format!("{}:{}", world.bootstrap.client_id, secret.expose_str().unwrap());
    let granted = world.send(Method::GET, &path, &[("x-identity-header", &header)], "").await.expect(200);
    let token = granted["access_token"].as_str().unwrap();
    assert!(granted["expires_on"].as_str().unwrap().parse::<i64>().is_ok());
    world.call_as(token, "GET", &world.path("/resourcegroups"), serde_json::Value::Null).await.expect(200);
    for headers in [vec![], vec![("x-identity-header", "x")], vec![("x-identity-header", "x:y")]] {
        let answer = world.send(Method::GET, &path, &headers, "").await;
        assert!(answer.status.is_client_error() && answer.body["access_token"].is_null(), "{headers:?}");
    }
}
