//! Checking: the outside first (size, header, signature), then each claim. A claim is believed, and told back in an
//! error, only after the signature held.

use aws_lc_rs::constant_time;
use jsonwebtoken::{Algorithm, Validation, errors::ErrorKind};

use super::{
    AUDIENCE_ENDPOINT, Claims, Principal, TYPE_ENDPOINT, TYPE_MANAGEMENT, TokenAuthority, TokenError, WireClaims,
    seconds,
};

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// How far the clocks of issuer and checker may lie apart, in seconds.
const LEEWAY: i64 = 60;

impl TokenAuthority {
    /// Checks a management token for one of `audiences`; a slash at the end of an audience means nothing.
    ///
    /// # Errors
    /// The first reason to refuse it.
    pub fn check(&self, token: &str, audiences: &[&str]) -> Result<Claims, TokenError> {
        let wire = self.open(token, TYPE_MANAGEMENT)?;
        let bare = wire.aud.trim_end_matches('/');
        if !audiences.iter().any(|audience| audience.trim_end_matches('/') == bare) {
            return Err(TokenError::WrongAudience { found: wire.aud, wanted: audiences.join(" or ") });
        }
        let principal = wire.principal.ok_or(TokenError::Malformed)?;
        Ok(Claims {
            principal: Principal {
                object_id: principal.oid,
                app_id: principal.appid,
                display_name: principal.app_displayname,
            },
            audience: wire.aud,
            expires_at: seconds(wire.exp),
        })
    }

    /// Checks an endpoint's token at the endpoint with this id, in any case.
    ///
    /// # Errors
    /// The first reason to refuse it.
    pub fn check_for_endpoint(&self, token: &str, endpoint_id: &str) -> Result<(), TokenError> {
        let wire = self.open(token, TYPE_ENDPOINT)?;
        if wire.aud != AUDIENCE_ENDPOINT {
            return Err(TokenError::WrongAudience { found: wire.aud, wanted: AUDIENCE_ENDPOINT.to_owned() });
        }
        let wanted = endpoint_id.to_lowercase();
        constant_time::verify_slices_are_equal(wire.sub.as_bytes(), wanted.as_bytes())
            .map_err(|_| TokenError::WrongEndpoint)
    }

    /// The claims of a token of this kind that is signed by this authority and whose issuer, tenant and times hold.
    fn open(&self, token: &str, kind: &str) -> Result<WireClaims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong);
        }
        // The algorithm is ours to say, never the token's: the library refuses any other, `none` included.
        let mut validation = Validation::new(Algorithm::ES256);
        validation.required_spec_claims.clear();
        validation.validate_aud = false;
        // Its times are the machine's; ours come from the clock we were given.
        validation.validate_exp = false;
        let opened = jsonwebtoken::decode::<WireClaims>(token, &self.checking, &validation);
        let opened = opened.map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature | ErrorKind::InvalidAlgorithm => TokenError::Forged,
            _ => TokenError::Malformed,
        })?;
        if opened.header.kid.as_deref() != Some(&self.kid) {
            return Err(TokenError::Forged);
        }
        if opened.header.typ.as_deref() != Some(kind) {
            return Err(TokenError::WrongKind);
        }
        self.check_claims(&opened.claims)?;
        Ok(opened.claims)
    }

    fn check_claims(&self, wire: &WireClaims) -> Result<(), TokenError> {
        if wire.iss != self.issuer {
            return Err(TokenError::WrongIssuer { found: wire.iss.clone() });
        }
        if wire.tid != self.tenant {
            return Err(TokenError::WrongTenant { found: wire.tid.to_string() });
        }
        let now = self.clock.now().as_second();
        if now >= wire.exp.saturating_add(LEEWAY) {
            return Err(TokenError::Expired { at: seconds(wire.exp) });
        }
        if now < wire.nbf.saturating_sub(LEEWAY) {
            return Err(TokenError::NotYetValid { from: seconds(wire.nbf) });
        }
        Ok(())
    }
}
