//! Who may score: a key, a token issued by the endpoint, or a token of the identity provider with the right role.
//!
//! A refusal says what the endpoint wants and never which part of what was sent is wrong.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use aws_lc_rs::{
    constant_time,
    digest::{Context, SHA256},
};
use casemate_identity::{AUDIENCE_ML, TokenAuthority};
use casemate_model::{
    endpoint::AuthMode,
    route::{EndpointRoute, KeyDigest, key_digest},
};
use http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use uuid::Uuid;

use crate::answer::Refusal;

/// The action that a principal needs to score with its own token.
const SCORE_ACTION: &str = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/score/action";

/// How long the outcome of a good signature is believed. Checking one costs more than all the rest of a request.
const BELIEVED_FOR: Duration = Duration::from_secs(5);
/// Tokens remembered; when two want one slot, the later one gets it.
const SLOTS: usize = 1024;

/// Checks credentials, and remembers tokens that were good for a few seconds. Only good ones are remembered, by
/// digest; a role is looked up in the table each time, so that taking it away works at once.
pub(crate) struct Checker {
    tokens: Arc<TokenAuthority>,
    known: Box<[ArcSwapOption<Known>]>,
}

/// A token that was good.
struct Known {
    digest: KeyDigest,
    until: Instant,
    /// Whose token it is; endpoint tokens are nobody's.
    principal: Option<Uuid>,
}

impl Checker {
    /// A checker that believes `tokens`.
    pub(crate) fn new(tokens: Arc<TokenAuthority>) -> Self {
        Self { tokens, known: (0..SLOTS).map(|_| ArcSwapOption::empty()).collect() }
    }

    /// Lets the request pass if its `Authorization` header is good for the endpoint.
    ///
    /// # Errors
    /// 401 for none, several or wrong credentials; 403 naming action and scope for a known principal without the
    /// role.
    pub(crate) fn check(&self, route: &EndpointRoute, headers: &HeaderMap) -> Result<(), Refusal> {
        let bearer = || bearer(headers).ok_or_else(|| unauthorized(route));
        match route.auth {
            AuthMode::None => Ok(()),
            AuthMode::Key => {
                if key_matches(&route.keys, bearer()?) {
                    Ok(())
                } else {
                    Err(unauthorized(route))
                }
            }
            AuthMode::AMLToken => {
                let check = |token: &str| self.tokens.check_for_endpoint(token, &route.id).ok().map(|()| None);
                self.believe(bearer()?, &route.id, check).map(|_| ()).ok_or_else(|| unauthorized(route))
            }
            AuthMode::AADToken => {
                let check = |token: &str| {
                    self.tokens.check(token, &[AUDIENCE_ML]).ok().map(|claims| Some(claims.principal.object_id))
                };
                let principal = self.believe(bearer()?, AUDIENCE_ML, check).flatten();
                let principal = principal.ok_or_else(|| unauthorized(route))?.to_string();
                if route.scorers.contains(&principal) { Ok(()) } else { Err(forbidden(route, &principal)) }
            }
        }
    }

    /// What `check` says of a token for `audience`, or said of it a moment ago.
    fn believe(
        &self,
        token: &[u8],
        audience: &str,
        check: impl FnOnce(&str) -> Option<Option<Uuid>>,
    ) -> Option<Option<Uuid>> {
        let token = std::str::from_utf8(token).ok()?;
        let mut digest = Context::new(&SHA256);
        // Its length first, so that no other audience and token run together to the same bytes.
        digest.update(&audience.len().to_be_bytes());
        digest.update(audience.as_bytes());
        digest.update(token.as_bytes());
        let digest = KeyDigest::try_from(digest.finish().as_ref()).ok()?;
        let slot = &self.known[usize::from(u16::from_be_bytes([digest[0], digest[1]])) % SLOTS];
        let now = Instant::now();
        if let Some(known) = slot.load().as_ref().filter(|known| known.digest == digest && now < known.until) {
            return Some(known.principal);
        }
        let principal = check(token)?;
        slot.store(Some(Arc::new(Known { digest, until: now + BELIEVED_FOR, principal })));
        Some(principal)
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
        AuthMode::None => "nothing",
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
    fn a_good_token_is_believed_for_its_audience_and_a_bad_one_is_asked_for_again() {
        let key = TokenAuthority::generate_key();
        let clock = casemate_model::Clock::system();
        let tokens = TokenAuthority::new(&key, Uuid::nil(), "https://localhost".to_owned(), clock).unwrap();
        let checker = Checker::new(Arc::new(tokens));
        let never = |_: &str| -> Option<Option<Uuid>> { panic!("the token is known") };
        assert_eq!(checker.believe(b"token", "one", |_| None), None);
        assert_eq!(checker.believe(b"token", "one", |_| Some(Some(Uuid::max()))), Some(Some(Uuid::max())));
        assert_eq!(checker.believe(b"token", "one", never), Some(Some(Uuid::max())));
        assert_eq!(checker.believe(b"token", "two", |_| None), None);
        assert_eq!(checker.believe(b"ntoken", "o", |_| None), None);
        assert_eq!(checker.believe(b"\xff", "one", never), None);
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
