//! Keys, endpoint tokens and identity tokens.

use casemate_identity::{AUDIENCE_ML, Principal, TokenAuthority};
use casemate_model::{
    Clock,
    endpoint::AuthMode,
    route::{EndpointRoute, key_digest},
};
use uuid::Uuid;

use crate::support::*;

async fn status(stage: &Stage, name: &str, token: &str) -> u16 {
    let answer = stage.call(with(score(name, "x"), "authorization", &format!("Bearer {token}"))).await;
    if !answer.status.is_success() && token.len() > 20 {
        assert!(!answer.text().contains(token), "a refusal must not repeat credentials");
    }
    answer.status.as_u16()
}

fn text(secret: &casemate_model::Secret) -> String {
    secret.expose_str().unwrap().to_owned()
}

#[tokio::test]
async fn both_keys_work_and_each_can_be_replaced_alone() {
    let model = Model::says("ok").await;
    let route = |keys: &[&str]| {
        let mut route = endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])]);
        route.keys = keys.iter().map(|key| key_digest(key.as_bytes())).collect();
        route
    };
    let stage = Stage::start(table(vec![route(&["one", "two"])])).await;
    for (key, expected) in [("one", 200), ("two", 200), ("three", 401), ("on", 401), ("onetwo", 401)] {
        assert_eq!(status(&stage, "e", key).await, expected, "{key}");
    }
    stage.publish(table(vec![route(&["three", "two"])]));
    let mut answer = status(&stage, "e", "one").await;
    while answer == 200 {
        answer = status(&stage, "e", "one").await;
    }
    assert_eq!(answer, 401);
    for (key, expected) in [("three", 200), ("two", 200)] {
        assert_eq!(status(&stage, "e", key).await, expected, "{key}");
    }
}

#[tokio::test]
async fn an_endpoint_token_opens_its_endpoint_only() {
    let model = Model::says("ok").await;
    let route = |name: &str| EndpointRoute {
        auth: AuthMode::AMLToken,
        keys: Vec::new(),
        ..endpoint(name, vec![deployment("blue", wide(), &[&model.upstream])])
    };
    let stage = Stage::start(table(vec![route("one"), route("two")])).await;
    let token = text(&stage.tokens.issue_for_endpoint(&route("one").id).token);
    let principal = Principal { object_id: Uuid::new_v4(), app_id: Uuid::new_v4(), display_name: "app".to_owned() };
    let management = text(&stage.tokens.issue(&principal, AUDIENCE_ML).token);
    let stranger = TokenAuthority::generate_key();
    let stranger =
        TokenAuthority::new(&stranger, Uuid::new_v4(), "https://localhost".to_owned(), Clock::system()).unwrap();
    let forged = text(&stranger.issue_for_endpoint(&route("one").id).token);
    for (what, name, token, expected) in [
        ("its own", "one", token.as_str(), 200),
        ("another endpoint's", "two", &token, 401),
        ("a management token", "one", &management, 401),
        ("a forged one", "one", &forged, 401),
        ("a key", "one", KEY, 401),
        ("rubbish", "one", "a.b.c", 401),
    ] {
        assert_eq!(status(&stage, name, token).await, expected, "{what}");
    }
}

#[tokio::test]
async fn an_identity_token_needs_the_role() {
    let model = Model::says("ok").await;
    let principal = |object_id| Principal { object_id, app_id: Uuid::new_v4(), display_name: "app".to_owned() };
    let (scorer, other) = (Uuid::new_v4(), Uuid::new_v4());
    let mut route = endpoint("e", vec![deployment("blue", wide(), &[&model.upstream])]);
    route.auth = AuthMode::AADToken;
    route.scorers = [scorer.to_string()].into();
    let id = route.id.clone();
    let stage = Stage::start(table(vec![route])).await;
    let issue = |object_id, audience| text(&stage.tokens.issue(&principal(object_id), audience).token);
    let endpoint_token = text(&stage.tokens.issue_for_endpoint(&id).token);
    for (what, token, expected) in [
        ("with the role", issue(scorer, AUDIENCE_ML), 200),
        ("wrong audience", issue(scorer, "https://management.azure.com"), 401),
        ("an endpoint token", endpoint_token, 401),
        ("without the role", issue(other, AUDIENCE_ML), 403),
    ] {
        assert_eq!(status(&stage, "e", &token).await, expected, "{what}");
    }
    let token = issue(other, AUDIENCE_ML);
    let answer = stage.call(with(score("e", "x"), "authorization", &format!("Bearer {token}"))).await;
    assert_eq!(answer.code(), "AuthorizationFailed");
    for part in ["Microsoft.MachineLearningServices/workspaces/onlineEndpoints/score/action", &id, &other.to_string()] {
        assert!(answer.text().contains(part), "{part} in {}", answer.text());
    }
}
