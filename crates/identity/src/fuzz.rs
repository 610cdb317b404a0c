//! What must hold for whatever is shown as a token. The target in `fuzz/` runs these on raw bytes, the tests below on
//! generated texts; each panics when a promise is broken.

use std::sync::OnceLock;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use casemate_model::{Clock, Secret};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey};
use uuid::Uuid;

use crate::{AUDIENCE_ML, Principal, TokenAuthority};

const NOW: i64 = 1_700_000_000;
const ENDPOINT: &str = "/subscriptions/s/resourcegroups/g/providers/p/workspaces/w/onlineendpoints/e";

fn fixture() -> &'static (TokenAuthority, EncodingKey, String) {
    static FIXTURE: OnceLock<(TokenAuthority, EncodingKey, String)> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let key = TokenAuthority::generate_key();
        let clock = Clock::from_fn(|| Timestamp::from_second(NOW).expect("a moment of the present"));
        let authority = TokenAuthority::new(&key, Uuid::from_u128(7), "https://h".to_owned(), clock);
        let authority = authority.expect("a generated key is usable");
        let kid = authority.jwks()["keys"][0]["kid"].as_str().expect("a key has an id").to_owned();
        (authority, EncodingKey::from_ec_pem(key.expose()).expect("the same key"), kid)
    })
}

/// No text that this authority did not sign is a token, whatever its parts say.
pub fn token(text: &str) {
    let (authority, _, kid) = fixture();
    let header = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"JWT"}}"#));
    for token in [text, &format!("{header}.{text}"), &format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(text))] {
        assert!(authority.check(token, &[AUDIENCE_ML]).is_err(), "{token}");
        assert!(authority.check_for_endpoint(token, ENDPOINT).is_err(), "{token}");
    }
}

/// Claims under a good signature are believed only within their limits, however odd they are.
pub fn claims(json: &[u8]) {
    let (authority, key, kid) = fixture();
    for kind in ["JWT", "aml+jwt"] {
        let header = BASE64_URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"{kind}"}}"#));
        let signed = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(json));
        let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), key, Algorithm::ES256);
        let token = format!("{signed}.{}", signature.expect("the key signs"));
        if let Ok(claims) = authority.check(&token, &[AUDIENCE_ML]) {
            assert_eq!((kind, claims.audience.trim_end_matches('/')), ("JWT", AUDIENCE_ML));
            assert!(claims.expires_at.as_second() > NOW - 61);
        }
        let endpoint = authority.check_for_endpoint(&token, ENDPOINT);
        assert!(endpoint.is_err() || kind == "aml+jwt", "a management token opened an endpoint");
    }
}

/// A good token with one byte changed is refused, or says what it said.
pub fn changed(at: usize, byte: u8) {
    static TOKEN: OnceLock<(Secret, Secret)> = OnceLock::new();
    let (authority, ..) = fixture();
    let principal =
        Principal { object_id: Uuid::from_u128(1), app_id: Uuid::from_u128(2), display_name: "n".to_owned() };
    let (good, scoring) = TOKEN
        .get_or_init(|| (authority.issue(&principal, AUDIENCE_ML).token, authority.issue_for_endpoint(ENDPOINT).token));
    let spoilt = |token: &Secret| {
        let mut bytes = token.expose().to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        String::from_utf8_lossy(&bytes).into_owned()
    };
    if let Ok(claims) = authority.check(&spoilt(good), &[AUDIENCE_ML]) {
        assert_eq!(claims.principal, principal);
    }
    let scoring = spoilt(scoring);
    assert!(authority.check_for_endpoint(&scoring, &format!("{ENDPOINT}2")).is_err());
    assert!(authority.check(&scoring, &[AUDIENCE_ML]).is_err());
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, test_runner::RngSeed};
    use serde_json::{Value, json};

    use super::*;

    fn cases(cases: u32) -> ProptestConfig {
        ProptestConfig { cases, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
    }

    fn odd() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            Just(json!(["https://ml.azure.com"])),
            Just(json!({"a": 1})),
        ]
    }

    proptest! {
        #![proptest_config(cases(200))]

        #[test]
        fn texts(text in "\\PC{0,80}", dotted in "[A-Za-z0-9_{}\":.-]{0,200}") {
            token(&text);
            token(&dotted);
        }

        #[test]
        fn signed_claims(key in prop::sample::select(vec!["iss", "aud", "tid", "sub", "iat", "nbf", "exp", "ver", "oid", "appid"]), value in odd()) {
            let mut good = json!({"iss": format!("https://h/{}", Uuid::from_u128(7)), "aud": AUDIENCE_ML, "tid": Uuid::from_u128(7),
                "sub": "s", "iat": NOW, "nbf": NOW, "exp": NOW + 60, "ver": "1.0", "oid": Uuid::from_u128(1),
                "appid": Uuid::from_u128(2), "app_displayname": "n", "idtyp": "app"});
            claims(good.to_string().as_bytes());
            good[key] = value;
            claims(good.to_string().as_bytes());
        }

        #[test]
        fn spoilt_tokens(at in 0_usize..2000, byte in any::<u8>()) {
            changed(at, byte);
        }
    }
}
