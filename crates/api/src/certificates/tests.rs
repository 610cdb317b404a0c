use casemate_model::{
    OperationStatus, ResourceId, Secret,
    tls::{CERTIFICATE_FIELD, CertificateFacts, CertificateRecord, PLATFORM_OWNER, TlsWish},
};
use casemate_pki::CertificateAuthority;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use crate::testing::World;

const API: &str = "api-version=2025-01-01";

fn record(now: Timestamp, names: &[&str]) -> CertificateRecord {
    let ask = TlsWish::platform(names.iter().map(|name| (*name).to_owned()).collect()).ask();
    CertificateRecord {
        certificate: Some(CertificateFacts {
            issuer: "built-in".to_owned(),
            serial: "4711".to_owned(),
            sha256: "abcd".to_owned(),
            not_before: now,
            not_after: now + SignedDuration::from_hours(24 * 90),
            next_renewal: Some(now + SignedDuration::from_hours(24 * 60)),
            provisional: false,
            ask,
        }),
        served: true,
        issued: 3,
        failures: 1,
        ..CertificateRecord::default()
    }
}

/// A platform with a certificate of its own, as the reconciler would have written it.
async fn world() -> World {
    let world = World::new().await;
    let record = record(world.state.clock.now(), &["127.0.0.1", "localhost", "*.blob.core.casemate.internal"]);
    let mut patch = Map::new();
    patch.insert(CERTIFICATE_FIELD.to_owned(), record.to_value());
    let mut tx = world.state.store.begin().await.unwrap();
    tx.resource_observe(&ResourceId::parse(PLATFORM_OWNER).unwrap(), patch).await.unwrap();
    tx.commit().await.unwrap();
    world
}

fn path(world: &World, rest: &str) -> String {
    let mark = if rest.contains('?') { '&' } else { '?' };
    world.path(&format!("/providers/Casemate.Platform/{rest}{mark}{API}"))
}

#[tokio::test]
async fn certificates_are_listed_shown_and_measured() {
    let world = world().await;
    let list = world.get(&path(&world, "certificates")).await.expect(200);
    let one = &list["value"][0];
    assert_eq!((&one["name"], &one["properties"]["state"]), (&json!("127.0.0.1"), &json!("Ok")));
    assert_eq!((&one["properties"]["daysLeft"], &one["properties"]["serial"]), (&json!(90), &json!("4711")));
    for name in ["localhost", "*.blob.core.casemate.internal", "LOCALHOST"] {
        let shown = world.get(&path(&world, &format!("certificates/{name}"))).await.expect(200);
        assert_eq!(&shown, one, "{name}");
    }
    world.get(&path(&world, "certificates/nobody.test")).await.refused(404, "CertificateNotFound");
    // Also where no subscription is named.
    let same = world.get(&format!("/providers/Casemate.Platform/certificates?{API}")).await.expect(200);
    assert_eq!(same, list);

    let answer = world.send_as_owner(http::Method::GET, "/metrics", &[], "").await;
    assert!(answer.header("content-type").starts_with("text/plain"));
    world.pass(81 * 86_400);
    let secret = world.bootstrap.client_secret.clone().unwrap();
    let token = world.sign_in(world.bootstrap.client_id.to_string(), &secret, crate::testing::URL).await;
    let shown = world.call_as(&token, "GET", &path(&world, "certificates/localhost"), Value::Null).await.expect(200);
    assert_eq!(shown["properties"]["state"], "Danger");
}

#[tokio::test]
async fn only_rights_at_the_platform_lead_here() {
    let world = world().await;
    let workspace = world.workspace("group", "work").await;
    let (token, _) = world.principal("inside", "Owner", &workspace).await;
    let (reader, _) = world.principal("reader", "Reader", &world.path("")).await;
    let calls = [
        ("GET", "certificates", true),
        ("GET", "certificates/localhost", true),
        ("GET", "authority", true),
        ("POST", "certificates/localhost/renew", false),
        ("POST", "certificates/localhost/plan", false),
        ("POST", "certificates/check", false),
        ("POST", "authority/rotate", false),
    ];
    for (method, rest, may_read) in calls {
        let path = path(&world, rest);
        world.call_as(&token, method, &path, Value::Null).await.refused(403, "AuthorizationFailed");
        let answer = world.call_as(&reader, method, &path, Value::Null).await;
        assert_eq!(answer.status != 403, may_read, "{method} {rest}");
    }
    world.call_as(&token, "GET", "/metrics", Value::Null).await.refused(403, "AuthorizationFailed");
    assert_eq!(world.send(http::Method::GET, "/metrics", &[], "").await.status, 401);
}

#[tokio::test]
async fn a_valid_certificate_is_left_alone_unless_forced() {
    let world = world().await;
    let renew = path(&world, "certificates/localhost/renew");
    let left = world.call("POST", &renew, Value::Null).await.expect(200);
    assert_eq!(left["renewed"], false);
    assert!(left["message"].as_str().unwrap().contains("valid until"), "{left}");
    assert!(world.state.store.operations_pending().await.unwrap().is_empty());
    let forced = world.call("POST", &path(&world, "certificates/localhost/renew?force"), Value::Null).await;
    assert_eq!(forced.status, 202);
    let location = forced.header("location").to_owned();
    let pending = world.state.store.operations_pending().await.unwrap();
    assert_eq!(pending[0].resource.name(), "127.0.0.1");
    let shown = world.get(&path(&world, "certificates/localhost")).await.expect(200);
    assert_eq!(shown["properties"]["state"], "Renewing");
    let mut tx = world.state.store.begin().await.unwrap();
    let result = json!({"before": {"serial": "1"}, "after": {"serial": "2"}});
    tx.operation_finish(pending[0].id, OperationStatus::Succeeded, Some(result.clone())).await.unwrap();
    tx.commit().await.unwrap();
    let location = location.split_once("8443").unwrap().1;
    assert_eq!(world.get(location).await.expect(200), result);
    // One that is due is renewed without force, too.
    world.pass(61 * 86_400);
    let secret = world.bootstrap.client_secret.clone().unwrap();
    let token = world.sign_in(world.bootstrap.client_id.to_string(), &secret, crate::testing::URL).await;
    assert_eq!(world.call_as(&token, "POST", &renew, Value::Null).await.status, 202);
}

#[tokio::test]
async fn checks_and_plans_change_nothing_and_show_no_key() {
    let world = world().await;
    let now = world.state.clock.now();
    let (authority, material) = CertificateAuthority::create(now).unwrap();
    let leaf = authority.issue(&["a.test".to_owned()], now, std::time::Duration::from_secs(86_400)).unwrap();
    let key = leaf.key_pem.expose_str().unwrap().to_owned();
    let check = path(&world, "certificates/check");
    let body = |cname: &str, key: &str| json!({"cert": leaf.chain_pem, "key": key, "cname": cname});
    let good = world.call("POST", &check, body("A.test", &key)).await.expect(200);
    assert_eq!((&good["accepted"], &good["sha256"]), (&json!(true), &json!(leaf.sha256)), "{good}");
    let other = world.call("POST", &check, body("b.test", &key)).await.expect(200);
    assert_eq!((&other["accepted"], &other["error"]["code"]), (&json!(false), &json!("CertificateNameMismatch")));
    let inner = key.lines().nth(1).unwrap();
    assert!(!good.to_string().contains(inner) && !other.to_string().contains(inner));
    world.call("POST", &check, json!({"cert": leaf.chain_pem})).await.refused(400, "BadArgument");
    world.call("POST", &check, json!({"cert": "x", "key": "y"})).await.refused(400, "BadArgument");
    let quoted = world.call("POST", &check, json!(key)).await.refused(400, "InvalidRequestContent");
    assert!(!quoted.contains(inner), "{quoted}");

    let plan = path(&world, "certificates/localhost/plan");
    let renewal = world.call("POST", &plan, Value::Null).await.expect(200);
    assert!(renewal["steps"][0].as_str().unwrap().contains("Without --force nothing"), "{renewal}");
    let refused = world.call("POST", &plan, json!({"cert": leaf.chain_pem, "key": key})).await.expect(200);
    assert_eq!(refused["findings"]["accepted"], false, "another name");
    assert!(world.state.store.operations_pending().await.unwrap().is_empty());

    // The authority is shown without its keys.
    let settings = ResourceId::parse(PLATFORM_OWNER).unwrap();
    let mut tx = world.state.store.begin().await.unwrap();
    for (name, text) in
        [("ca-root-cert", &material.root_cert_pem), ("ca-intermediate-cert", &material.intermediate_cert_pem)]
    {
        tx.secret_put(&settings, name, &Secret::from(text.clone())).await.unwrap();
    }
    tx.secret_put(&settings, "ca-root-key", &material.root_key_pem).await.unwrap();
    tx.commit().await.unwrap();
    let shown = world.get(&path(&world, "authority")).await.expect(200);
    assert!(shown["root"]["subject"].as_str().unwrap().contains("Casemate Root CA"), "{shown}");
    assert!(!shown.to_string().contains("PRIVATE"));
    assert_eq!(world.call("POST", &path(&world, "authority/rotate"), Value::Null).await.status, 202);
    world.call("POST", &path(&world, "authority/rotate"), Value::Null).await.refused(409, "RotationInProgress");
    assert_eq!(world.call("POST", &path(&world, "authority/rotate?root"), Value::Null).await.status, 202);
}
