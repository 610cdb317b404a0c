//! Who may score: a key, a token issued by the endpoint, or a token of the identity provider with the right role.
//!
//! A refusal says what the endpoint wants and never which part of what was sent is wrong.

use aws_lc_rs::constant_time;
use casemate_identity::{AUDIENCE_ML, TokenAuthority};
use casemate_model::{
    endpoint::AuthMode,
    route::{EndpointRoute, KeyDigest, key_digest},
};
use http::{HeaderMap, StatusCode, header::AUTHORIZATION};

use crate::answer::Refusal;

/// The action that a principal needs to score with its own token.
const SCORE_ACTION: &str = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/score/action";

/// Lets the request pass if its `Authorization` header is good for the endpoint.
///
/// # Errors
/// 401 for none, several or wrong credentials; 403 naming action and scope for a known principal without the role.
pub(crate) fn check(route: &EndpointRoute, tokens: &TokenAuthority, headers: &HeaderMap) -> Result<(), Refusal> {
    let bearer = bearer(headers).ok_or_else(|| unauthorized(route))?;
    match route.auth {
        AuthMode::Key => {
            if key_matches(&route.keys, bearer) {
                Ok(())
            } else {
                Err(unauthorized(route))
            }
        }
        AuthMode::AMLToken => {
            let token = std::str::from_utf8(bearer).map_err(|_| unauthorized(route))?;
            tokens.check_for_endpoint(token, &route.id).map_err(|_| unauthorized(route))
        }
        AuthMode::AADToken => {
            let token = std::str::from_utf8(bearer).map_err(|_| unauthorized(route))?;
            let claims = tokens.check(token, &[AUDIENCE_ML]).map_err(|_| unauthorized(route))?;
            let principal = claims.principal.object_id.to_string();
            if route.scorers.contains(&principal) { Ok(()) } else { Err(forbidden(route, &principal)) }
        }
    }
}

/// Compares digests, each with every key and in constant time, so that time tells nothing about a key.
fn key_matches(keys: &[KeyDigest], candidate: &[u8]) -> bool {
    let candidate = key_digest(candidate);
    keys.iter().fold(false, |matched, key| matched | constant_time::verify_slices_are_equal(key, &candidate).is_ok())
}

/// The credentials of `Authorization: Bearer …`, if there is just one such header.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    if values.next().is_some() {
        return None;
    }
    let (scheme, rest) = value.split_at_checked(b"Bearer ".len())?;
    let credentials = rest.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !credentials.is_empty()).then_some(credentials)
}

fn unauthorized(route: &EndpointRoute) -> Refusal {
    let wanted = match route.auth {
        AuthMode::Key => "its primary or secondary key",
        AuthMode::AMLToken => "a token that the endpoint issued and that has not expired",
        AuthMode::AADToken => "a token of the identity provider for the audience https://ml.azure.com",
    };
    Refusal::new(
        StatusCode::UNAUTHORIZED,
        "Unauthorized",
        format!(
            "The endpoint '{}' needs valid credentials. Send the header 'Authorization: Bearer …' with {wanted}.",
            route.name
        ),
    )
}

fn forbidden(route: &EndpointRoute, principal: &str) -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        "AuthorizationFailed",
        format!(
            "The principal '{principal}' may not perform the action '{SCORE_ACTION}' at the scope '{}'. Assign it a \
             role with that action there.",
            route.id
        ),
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn credentials_are_read_from_one_bearer_header() {
        for (values, expected) in [
            (&["Bearer abc"][..], Some("abc")),
            (&["bearer  abc "], Some("abc")),
            (&["BEARER a b"], Some("a b")),
            (&["Bearer "], None),
            (&["Bearer"], None),
            (&["Basic abc"], None),
            (&["abc"], None),
            (&[""], None),
            (&["Bearer abc", "Bearer abc"], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            assert_eq!(bearer(&headers), expected.map(str::as_bytes), "{values:?}");
        }
    }

    #[test]
    fn either_key_matches_and_nothing_else() {
        let keys = [key_digest(b"primary"), key_digest(b"secondary")];
        for (candidate, expected) in
            [("primary", true), ("secondary", true), ("primar", false), ("", false), ("other", false)]
        {
            assert_eq!(key_matches(&keys, candidate.as_bytes()), expected, "{candidate}");
        }
        assert!(!key_matches(&[], b""));
    }
}
