//! Tests of tokens: what is issued passes, and each way of tampering is refused for its own reason.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use casemate_model::{Clock, Fault, FaultKind};

use super::*;
use crate::AUDIENCE_ML;

const START: i64 = 1_700_000_000;
const BASE: &str = "https://127.0.0.1:8443";
const ENDPOINT: &str =
    "/subscriptions/S/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/onlineEndpoints/Ep";

struct Fixture {
    authority: TokenAuthority,
    key: Secret,
    time: Arc<AtomicI64>,
}

impl Fixture {
    fn new() -> Self {
        let key = TokenAuthority::generate_key();
        let time = Arc::new(AtomicI64::new(START));
        let authority = authority(&key, tenant(), BASE, &time);
        Self { authority, key, time }
    }

    fn token(&self) -> String {
        text(&self.authority.issue(&principal(), AUDIENCE_ML).token)
    }
}

fn authority(key: &Secret, tenant: Uuid, issuer: &str, time: &Arc<AtomicI64>) -> TokenAuthority {
    let time = Arc::clone(time);
    let clock = Clock::from_fn(move || seconds(time.load(Ordering::SeqCst)));
    TokenAuthority::new(key, tenant, issuer.to_owned(), clock).unwrap()
}

fn tenant() -> Uuid {
    Uuid::from_u128(7)
}

fn principal() -> Principal {
    Principal { object_id: Uuid::from_u128(1), app_id: Uuid::from_u128(2), display_name: "Ünit".to_owned() }
}

fn text(secret: &Secret) -> String {
    secret.expose_str().unwrap().to_owned()
}

fn decoded(part: &str) -> Value {
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn encoded(part: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(part.to_string())
}

/// The token with its header and claims changed, the old signature kept.
fn changed(token: &str, change: impl Fn(&mut Value, &mut Value)) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let (mut header, mut claims) = (decoded(parts[0]), decoded(parts[1]));
    change(&mut header, &mut claims);
    format!("{}.{}.{}", encoded(&header), encoded(&claims), parts[2])
}

/// A token signed with the right key, with any header and claims.
fn signed(fixture: &Fixture, change: impl Fn(&mut Header, &mut Value)) -> String {
    let mut header = jsonwebtoken::decode_header(fixture.token()).unwrap();
    let mut claims = decoded(fixture.token().split('.').nth(1).unwrap());
    change(&mut header, &mut claims);
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ec_pem(fixture.key.expose()).unwrap()).unwrap()
}

#[test]
fn an_issued_token_tells_who_calls() {
    let at = Fixture::new();
    let issued = at.authority.issue(&principal(), AUDIENCE_ML);
    assert_eq!(issued.expires_at, seconds(START + 3600));
    assert_eq!(issued.expires_in, Duration::from_secs(3600));
    let claims = at.authority.check(&text(&issued.token), &["https://other", "https://ml.azure.com/"]).unwrap();
    assert_eq!(claims.principal, principal());
    assert_eq!((claims.audience.as_str(), claims.expires_at), (AUDIENCE_ML, issued.expires_at));
    let wire = decoded(text(&issued.token).split('.').nth(1).unwrap());
    for (name, value) in [
        ("iss", json!(format!("{BASE}/{}", tenant()))),
        ("aud", json!(AUDIENCE_ML)),
        ("tid", json!(tenant())),
        ("oid", json!(principal().object_id)),
        ("sub", json!(principal().object_id)),
        ("appid", json!(principal().app_id)),
        ("idtyp", json!("app")),
        ("iat", json!(START)),
        ("nbf", json!(START)),
        ("exp", json!(START + 3600)),
        ("ver", json!("1.0")),
    ] {
        assert_eq!(wire[name], value, "{name}");
    }
}

#[test]
fn the_key_survives_a_restart_and_another_key_does_not_pass() {
    let at = Fixture::new();
    let again = authority(&at.key, tenant(), &format!("{BASE}/"), &at.time);
    assert!(again.check(&at.token(), &[AUDIENCE_ML]).is_ok());
    let other = authority(&TokenAuthority::generate_key(), tenant(), BASE, &at.time);
    assert_eq!(other.check(&at.token(), &[AUDIENCE_ML]), Err(TokenError::Forged));
    for bad in ["", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        assert!(TokenAuthority::new(&bad.into(), tenant(), BASE.to_owned(), Clock::system()).is_err());
    }
    assert!(!format!("{:?}", at.authority).contains("PRIVATE"));
}

#[test]
fn tampered_and_foreign_tokens_are_refused() {
    let at = Fixture::new();
    let token = at.token();
    let parts: Vec<&str> = token.split('.').collect();
    let hmac_with_public_key = {
        let mut header = Header::new(Algorithm::HS256);
        header.kid = Some(at.authority.kid.clone());
        let key = EncodingKey::from_secret(at.authority.jwks()["keys"][0].to_string().as_bytes());
        jsonwebtoken::encode(&header, &decoded(parts[1]), &key).unwrap()
    };
    let none = |signature: &str| {
        let header = json!({"alg": "none", "typ": "JWT", "kid": at.authority.kid});
        format!("{}.{}.{signature}", encoded(&header), parts[1])
    };
    let table = [
        ("algorithm none, no signature", none(""), TokenError::Malformed),
        ("algorithm none, old signature", none(parts[2]), TokenError::Malformed),
        ("HMAC with the public key", hmac_with_public_key, TokenError::Forged),
        ("another algorithm named", changed(&token, |header, _| header["alg"] = json!("ES384")), TokenError::Forged),
        (
            "another key's id, old signature",
            changed(&token, |header, _| header["kid"] = json!("x")),
            TokenError::Forged,
        ),
        ("another key's id", signed(&at, |header, _| header.kid = Some("x".to_owned())), TokenError::Forged),
        ("no key id", signed(&at, |header, _| header.kid = None), TokenError::Forged),
        ("another type", signed(&at, |header, _| header.typ = Some("at+jwt".to_owned())), TokenError::WrongKind),
        ("another subject", changed(&token, |_, claims| claims["oid"] = json!(Uuid::nil())), TokenError::Forged),
        ("longer life", changed(&token, |_, claims| claims["exp"] = json!(START * 2)), TokenError::Forged),
        ("no signature", format!("{}.{}.", parts[0], parts[1]), TokenError::Forged),
        ("short signature", token[..token.len() - 2].to_owned(), TokenError::Forged),
        ("two parts", format!("{}.{}", parts[0], parts[1]), TokenError::Malformed),
        ("four parts", format!("{token}.x"), TokenError::Malformed),
        ("empty", String::new(), TokenError::Malformed),
        ("dots", "..".to_owned(), TokenError::Malformed),
        ("words", "Bearer xyz".to_owned(), TokenError::Malformed),
        ("not ASCII", format!("é{token}"), TokenError::Malformed),
        ("longest", "x".repeat(MAX_TOKEN_BYTES), TokenError::Malformed),
        ("too long", "x".repeat(MAX_TOKEN_BYTES + 1), TokenError::TooLong),
        (
            "no subject",
            signed(&at, |_, claims| drop(claims.as_object_mut().unwrap().remove("oid"))),
            TokenError::Malformed,
        ),
        ("no end", signed(&at, |_, claims| drop(claims.as_object_mut().unwrap().remove("exp"))), TokenError::Malformed),
        ("end in words", signed(&at, |_, claims| claims["exp"] = json!("never")), TokenError::Malformed),
        ("two audiences", signed(&at, |_, claims| claims["aud"] = json!([AUDIENCE_ML, "x"])), TokenError::Malformed),
        ("claims not an object", signed(&at, |_, claims| *claims = json!([])), TokenError::Malformed),
    ];
    for (what, token, wanted) in table {
        assert_eq!(at.authority.check(&token, &[AUDIENCE_ML]), Err(wanted), "{what}");
    }
    assert!(at.authority.check(&signed(&at, |_, _| {}), &[AUDIENCE_ML]).is_ok(), "an unchanged one passes");
}

#[test]
fn claims_that_do_not_hold_are_refused() {
    let at = Fixture::new();
    let elsewhere = authority(&at.key, tenant(), "https://elsewhere", &at.time);
    let abroad = authority(&at.key, Uuid::from_u128(8), BASE, &at.time);
    let token = at.token();
    assert!(matches!(elsewhere.check(&token, &[AUDIENCE_ML]), Err(TokenError::WrongIssuer { .. })));
    assert!(matches!(abroad.check(&token, &[AUDIENCE_ML]), Err(TokenError::WrongIssuer { .. })));
    let tenant = signed(&at, |_, claims| claims["tid"] = json!(Uuid::nil()));
    assert!(matches!(at.authority.check(&tenant, &[AUDIENCE_ML]), Err(TokenError::WrongTenant { .. })));
    for audiences in [&[][..], &["https://management"], &["https://ml.azure.com.evil", "https://ml.azure"]] {
        assert!(
            matches!(at.authority.check(&token, audiences), Err(TokenError::WrongAudience { .. })),
            "{audiences:?}"
        );
    }
}

#[test]
fn a_token_lives_from_its_first_to_its_last_second_and_one_minute_of_leeway() {
    let at = Fixture::new();
    let token = at.token();
    let endpoint_token = text(&at.authority.issue_for_endpoint(ENDPOINT).token);
    for (now, wanted) in [
        (START - 61, Err(TokenError::NotYetValid { from: seconds(START) })),
        (START - 60, Ok(())),
        (START, Ok(())),
        (START + 3600 + 59, Ok(())),
        (START + 3600 + 60, Err(TokenError::Expired { at: seconds(START + 3600) })),
        (START * 2, Err(TokenError::Expired { at: seconds(START + 3600) })),
    ] {
        at.time.store(now, Ordering::SeqCst);
        assert_eq!(at.authority.check(&token, &[AUDIENCE_ML]).map(drop), wanted, "{now}");
        assert_eq!(at.authority.check_for_endpoint(&endpoint_token, ENDPOINT), wanted, "{now}");
    }
    at.time.store(START, Ordering::SeqCst);
    for (exp, nbf, passes) in [(i64::MAX, i64::MIN, true), (i64::MIN, 0, false), (i64::MAX, i64::MAX, false)] {
        let token = signed(&at, |_, claims| (claims["exp"], claims["nbf"]) = (json!(exp), json!(nbf)));
        assert_eq!(at.authority.check(&token, &[AUDIENCE_ML]).is_ok(), passes, "{exp} {nbf}");
    }
}

#[test]
fn an_endpoint_token_scores_at_its_endpoint_and_opens_nothing_else() {
    let at = Fixture::new();
    let issued = at.authority.issue_for_endpoint(ENDPOINT);
    let token = text(&issued.token);
    assert!(seconds(START) < issued.refresh_after && issued.refresh_after < issued.expires_at);
    assert_eq!(issued.expires_at, seconds(START + 3600));
    assert_eq!(at.authority.check_for_endpoint(&token, ENDPOINT), Ok(()));
    assert_eq!(at.authority.check_for_endpoint(&token, &ENDPOINT.to_uppercase()), Ok(()));
    for other in ["", "x", &ENDPOINT[..ENDPOINT.len() - 1], &format!("{ENDPOINT}2")] {
        assert_eq!(at.authority.check_for_endpoint(&token, other), Err(TokenError::WrongEndpoint), "{other}");
    }
    assert_eq!(at.authority.check(&token, &[AUDIENCE_ENDPOINT, AUDIENCE_ML]), Err(TokenError::WrongKind));
    assert_eq!(at.authority.check_for_endpoint(&at.token(), ENDPOINT), Err(TokenError::WrongKind));
    let posing = text(&at.authority.issue(&principal(), AUDIENCE_ENDPOINT).token);
    assert_eq!(at.authority.check_for_endpoint(&posing, ENDPOINT), Err(TokenError::WrongKind));
    let retyped = changed(&token, |header, _| header["typ"] = json!(TYPE_MANAGEMENT));
    assert_eq!(at.authority.check(&retyped, &[AUDIENCE_ENDPOINT]), Err(TokenError::Forged));
    // Even when the kinds were confused, the claims would still tell them apart.
    let mistyped = signed(&at, |header, _| header.typ = Some(TYPE_ENDPOINT.to_owned()));
    assert!(matches!(at.authority.check_for_endpoint(&mistyped, ENDPOINT), Err(TokenError::WrongAudience { .. })));
}

#[test]
fn others_can_check_a_token_with_the_published_key() {
    let at = Fixture::new();
    let token = at.token();
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_value(at.authority.jwks()).unwrap();
    let kid = jsonwebtoken::decode_header(&token).unwrap().kid.unwrap();
    let key = DecodingKey::from_jwk(keys.find(&kid).unwrap()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(Algorithm::ES256);
    validation.set_audience(&[AUDIENCE_ML]);
    validation.validate_exp = false;
    assert!(jsonwebtoken::decode::<Value>(&token, &key, &validation).is_ok());
    let published = at.authority.jwks().to_string();
    assert!(published.contains(r#""use":"sig""#) && !published.contains(r#""d":"#), "{published}");
}

#[test]
fn the_discovery_document_names_the_endpoints_of_its_authority() {
    let at = Fixture::new();
    for (base, adfs, token, keys) in [
        ("https://h/adfs", true, "https://h/adfs/oauth2/token", "https://h/adfs/discovery/keys"),
        ("https://h/adfs/t/", true, "https://h/adfs/t/oauth2/token", "https://h/adfs/t/discovery/keys"),
        ("https://h/t", false, "https://h/t/oauth2/v2.0/token", "https://h/t/discovery/v2.0/keys"),
    ] {
        let document = at.authority.discovery(base, adfs);
        assert_eq!((&document["token_endpoint"], &document["jwks_uri"]), (&json!(token), &json!(keys)));
        assert_eq!(document["issuer"], decoded(at.token().split('.').nth(1).unwrap())["iss"]);
    }
}

#[test]
fn a_refusal_is_an_unauthenticated_fault_that_never_tells_the_token() {
    let at = Fixture::new();
    let token = at.token();
    for (audience, at_time, code) in [
        ("https://x", START, "InvalidAuthenticationTokenAudience"),
        (AUDIENCE_ML, START * 2, "ExpiredAuthenticationToken"),
    ] {
        at.time.store(at_time, Ordering::SeqCst);
        let fault: Fault = at.authority.check(&token, &[audience]).unwrap_err().into();
        assert_eq!((fault.kind, fault.code.as_str()), (FaultKind::Unauthenticated, code));
        assert!(!fault.message.contains(&token[..20]));
    }
}

proptest::proptest! {
    #[test]
    fn no_text_passes_or_panics(text in ".{0,200}", dotted in "[A-Za-z0-9_{}\":.-]{0,200}") {
        let time = Arc::new(AtomicI64::new(START));
        let key = FIXED_KEY.get_or_init(TokenAuthority::generate_key);
        let authority = authority(key, tenant(), BASE, &time);
        let headed = format!("{}.{dotted}", encoded(&json!({"alg": "ES256", "kid": authority.kid, "typ": "JWT"})));
        for token in [&text, &dotted, &headed] {
            proptest::prop_assert!(authority.check(token, &[AUDIENCE_ML]).is_err());
            proptest::prop_assert!(authority.check_for_endpoint(token, ENDPOINT).is_err());
        }
    }
}

static FIXED_KEY: std::sync::OnceLock<Secret> = std::sync::OnceLock::new();
