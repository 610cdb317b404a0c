//! The instance metadata service, as SDKs ask it.

use std::sync::Arc;

use casemate_model::{Fault, FaultKind, Secret};

use super::{World, internet, only, read_all, say};
use crate::{EgressLimits, IdentityToken, InstanceIdentity, metadata::ADDRESS};

struct Endpoint;

impl InstanceIdentity for Endpoint {
    fn token(&self, resource: &str, client_id: Option<&str>) -> Result<IdentityToken, Fault> {
        match (resource, client_id) {
            ("https://down/", _) => Err(Fault::new(FaultKind::Unavailable, "Down", "The store is busy. Try again.")),
            (_, Some("other")) => Err(Fault::not_found("NoIdentity", "The endpoint has no identity 'other'.")),
            _ => Ok(IdentityToken {
                token: Secret::from(format!("token for {resource}")),
                expires_at: "2100-01-01T00:00:00Z".parse().unwrap(),
                client_id: "the-client".into(),
            }),
        }
    }

    fn header(&self) -> Option<Secret> {
        Some(Secret::from("s3cret"))
    }
}

async fn ask(world: &World, request: &str) -> (u16, serde_json::Value) {
    let mut stream = world.connect_to(ADDRESS.ip(), 80).await;
    say(&mut stream, request.as_bytes()).await;
    let answer = read_all(&mut stream).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
}

const IMDS: &str = "/metadata/identity/oauth2/token?api-version=2018-02-01";
const MSI: &str = "/msi/token?api-version=2019-08-01";

#[tokio::test]
async fn tokens_come_in_the_shapes_that_sdks_know() {
    let world = World::with(only([]), EgressLimits::default(), Some(Arc::new(Endpoint)));
    let resource = "resource=https%3A%2F%2Fstorage.azure.com%2F";
    let request = format!("GET {IMDS}&{resource} HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n\r\n");
    let (status, body) = ask(&world, &request).await;
    assert_eq!(status, 200);
    assert_eq!(body["access_token"], "token for https://storage.azure.com/");
    assert_eq!((&body["client_id"], &body["token_type"]), (&"the-client".into(), &"Bearer".into()));
    assert_eq!((&body["expires_on"], &body["resource"]), (&"4102444800".into(), &"https://storage.azure.com/".into()));
    assert!(body["expires_in"].as_str().unwrap().parse::<u64>().unwrap() > 1_000_000);
    let request = format!(
        "GET {MSI}&{resource}&client_id=the-client HTTP/1.1\r\nHost: 169.254.169.254\r\nX-IDENTITY-HEADER: s3cret\r\n\r\n"
    );
    let (status, body) = ask(&world, &request).await;
    assert_eq!((status, &body["expires_on"]), (200, &"4102444800".into()));
    let entry = world.logged(|entry| entry.allowed).await;
    assert_eq!((entry.protocol.as_str(), entry.port), ("metadata", 80));
    assert!(entry.reason.contains("https://storage.azure.com/") && !entry.reason.contains("token for"), "{entry:?}");
}

#[tokio::test]
async fn every_other_question_is_refused_in_the_shape_of_its_sdk() {
    let with = World::with(only([]), EgressLimits::default(), Some(Arc::new(Endpoint)));
    let without = World::new(internet());
    let imds = |query: &str, headers: &str| format!("GET {IMDS}{query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    let msi = |query: &str, headers: &str| format!("GET {MSI}{query} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    let vm = "error_description";
    for (world, request, status, field, why) in [
        (&with, imds("&resource=r", ""), 400, vm, "Metadata: true"),
        (&with, imds("&resource=r", "Metadata: no\r\n"), 400, vm, "Metadata: true"),
        (&with, imds("&resource=r", "Metadata: true\r\nX-Forwarded-For: 1.2.3.4\r\n"), 400, vm, "X-Forwarded-For"),
        (&with, imds("", "Metadata: true\r\n"), 400, vm, "resource is missing"),
        (&with, imds("&resource=r", "Metadata: true\r\n").replace("api-version", "v"), 400, vm, "api-version"),
        (&with, imds("&resource=r", "Metadata: true\r\n").replace("GET", "POST"), 405, vm, "GET"),
        (&with, imds("&resource=r&client_id=other", "Metadata: true\r\n"), 400, vm, "no identity 'other'"),
        (&with, imds("&resource=r&msi_res_id=other", "Metadata: true\r\n"), 400, vm, "no identity 'other'"),
        (&with, imds("&resource=https://down/", "Metadata: true\r\n"), 500, vm, "Try again"),
        (
            &with,
            imds("&resource=r", "Metadata: true\r\n").replace("identity/oauth2/token", "instance"),
            404,
            vm,
            "nothing but tokens",
        ),
        (&with, "GET / HTTP/1.1\r\nHost: x\r\nMetadata: true\r\n\r\n".into(), 404, vm, "nothing but tokens"),
        (&with, "GET / HTTP/1.1\nHost: x\n\n".into(), 400, vm, "without CR"),
        (&with, msi("&resource=r", ""), 401, "message", "IDENTITY_HEADER"),
        (&with, msi("&resource=r", "X-IDENTITY-HEADER: s3crex\r\n"), 401, "message", "IDENTITY_HEADER"),
        (&with, msi("&resource=r", "Metadata: true\r\n"), 401, "message", "IDENTITY_HEADER"),
        (
            &with,
            msi("&resource=r&client_id=other", "X-IDENTITY-HEADER: s3cret\r\n"),
            400,
            "message",
            "no identity 'other'",
        ),
        (&without, imds("&resource=r", "Metadata: true\r\n"), 400, vm, "Identity not found"),
        (&without, msi("&resource=r", "X-IDENTITY-HEADER: \r\n"), 404, vm, "nothing but tokens"),
    ] {
        let (got, body) = ask(world, &request).await;
        assert_eq!(got, status, "{request}: {body}");
        assert!(body[field].as_str().is_some_and(|text| text.contains(why)), "{request}: {body}");
    }
    // Nothing of it has gone to whatever metadata service this machine may have.
    assert_eq!((with.dialled(), without.dialled()), (vec![], vec![]));
    without.refused("Identity not found").await;
}
