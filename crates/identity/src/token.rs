//! Issuing and checking tokens.

mod check;
mod error;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use base64::prelude::{BASE64_STANDARD, Engine};
use casemate_model::{Clock, Secret};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header,
    jwk::{Jwk, PublicKeyUse, ThumbprintHash},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

pub use check::MAX_TOKEN_BYTES;
pub use error::{SigningKeyError, TokenError};

/// How long a token is good for.
const LIFETIME: Duration = Duration::from_secs(3600);
/// When the holder of an endpoint token is asked to fetch the next.
const REFRESH_AFTER: SignedDuration = SignedDuration::from_mins(45);
/// The header's type of a management token.
const TYPE_MANAGEMENT: &str = "JWT";
/// The header's type and the audience of an endpoint token.
const TYPE_ENDPOINT: &str = "aml+jwt";
const AUDIENCE_ENDPOINT: &str = "urn:casemate:online-endpoint";

/// A service principal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// What roles are assigned to.
    pub object_id: Uuid,
    /// What it signs in with (its client id).
    pub app_id: Uuid,
    /// Its name for people.
    pub display_name: String,
}

/// What a checked management token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who calls.
    pub principal: Principal,
    /// What the token is for; one of those that were asked for.
    pub audience: String,
    /// From when on it is refused.
    pub expires_at: Timestamp,
}

/// A new management token.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The token.
    pub token: Secret,
    /// From when on it is refused.
    pub expires_at: Timestamp,
    /// The same as a span from now.
    pub expires_in: Duration,
}

/// A new endpoint token.
#[derive(Debug, Clone)]
pub struct EndpointToken {
    /// The token.
    pub token: Secret,
    /// From when on it is refused.
    pub expires_at: Timestamp,
    /// When to fetch the next.
    pub refresh_after: Timestamp,
}

/// Signs tokens and checks them, by the clock it was given.
pub struct TokenAuthority {
    signing: EncodingKey,
    checking: DecodingKey,
    /// The public key, with its id.
    public: Jwk,
    kid: String,
    tenant: Uuid,
    issuer: String,
    clock: Clock,
}

/// The claims on the wire; times are seconds since 1970.
#[derive(Serialize, Deserialize)]
struct WireClaims {
    iss: String,
    aud: String,
    tid: Uuid,
    sub: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    ver: String,
    #[serde(flatten)]
    principal: Option<WirePrincipal>,
}

#[derive(Serialize, Deserialize)]
struct WirePrincipal {
    oid: Uuid,
    appid: Uuid,
    app_displayname: String,
    idtyp: String,
}

impl TokenAuthority {
    /// An authority for `tenant`. `signing_key` is what [`TokenAuthority::generate_key`] made; `issuer` is the
    /// platform's base URL.
    ///
    /// # Errors
    /// When `signing_key` is not a P-256 key in PKCS#8 PEM.
    pub fn new(signing_key: &Secret, tenant: Uuid, issuer: String, clock: Clock) -> Result<Self, SigningKeyError> {
        let signing = EncodingKey::from_ec_pem(signing_key.expose()).map_err(|_| SigningKeyError)?;
        let mut public = Jwk::from_encoding_key(&signing, Algorithm::ES256).map_err(|_| SigningKeyError)?;
        let kid = public.thumbprint(ThumbprintHash::SHA256).map_err(|_| SigningKeyError)?;
        public.common.key_id = Some(kid.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        let checking = DecodingKey::from_jwk(&public).map_err(|_| SigningKeyError)?;
        let issuer = format!("{}/{tenant}", issuer.trim_end_matches('/'));
        Ok(Self { signing, checking, public, kid, tenant, issuer, clock })
    }

    /// A new signing key: ECDSA on P-256, PKCS#8 in PEM.
    #[must_use]
    pub fn generate_key() -> Secret {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .expect("the kernel's random source does not fail once the system has booted");
        let text = Zeroizing::new(BASE64_STANDARD.encode(der.as_ref()));
        let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, tail) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = tail;
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        Secret::from(pem)
    }

    /// A token for `principal`, good for one hour at `audience`.
    #[must_use]
    pub fn issue(&self, principal: &Principal, audience: &str) -> Issued {
        let wire = WirePrincipal {
            oid: principal.object_id,
            appid: principal.app_id,
            app_displayname: principal.display_name.clone(),
            idtyp: "app".to_owned(),
        };
        let claims = self.claims(audience, principal.object_id.to_string(), Some(wire));
        Issued { token: self.sign(TYPE_MANAGEMENT, &claims), expires_at: seconds(claims.exp), expires_in: LIFETIME }
    }

    /// A token that scores at one endpoint and does nothing else, good for one hour.
    #[must_use]
    pub fn issue_for_endpoint(&self, endpoint_id: &str) -> EndpointToken {
        let claims = self.claims(AUDIENCE_ENDPOINT, endpoint_id.to_lowercase(), None);
        EndpointToken {
            token: self.sign(TYPE_ENDPOINT, &claims),
            expires_at: seconds(claims.exp),
            refresh_after: seconds(claims.iat + REFRESH_AFTER.as_secs()),
        }
    }

    fn claims(&self, audience: &str, subject: String, principal: Option<WirePrincipal>) -> WireClaims {
        let now = self.clock.now().as_second();
        WireClaims {
            iss: self.issuer.clone(),
            aud: audience.to_owned(),
            tid: self.tenant,
            sub: subject,
            iat: now,
            nbf: now,
            exp: now + LIFETIME.as_secs().cast_signed(),
            ver: "1.0".to_owned(),
            principal,
        }
    }

    fn sign(&self, kind: &str, claims: &WireClaims) -> Secret {
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some(kind.to_owned());
        header.kid = Some(self.kid.clone());
        let token = jsonwebtoken::encode(&header, claims, &self.signing);
        Secret::from(token.expect("the key was checked to sign ES256 and the claims are plain JSON"))
    }

    /// The public key as a JSON Web Key Set.
    #[must_use]
    pub fn jwks(&self) -> Value {
        json!({ "keys": [&self.public] })
    }

    /// The OpenID discovery document of the authority at `base`: its URL without `/.well-known/…`, such as
    /// `https://host/adfs`, `https://host/adfs/<tenant>` or `https://host/<tenant>`. The endpoints it names lie under
    /// `base`: `/oauth2/token` and `/discovery/keys` for `adfs`, else `/oauth2/v2.0/token` and
    /// `/discovery/v2.0/keys`.
    #[must_use]
    pub fn discovery(&self, base: &str, adfs: bool) -> Value {
        let base = base.trim_end_matches('/');
        let version = if adfs { "" } else { "/v2.0" };
        json!({
            "issuer": self.issuer,
            "authorization_endpoint": format!("{base}/oauth2{version}/authorize"),
            "token_endpoint": format!("{base}/oauth2{version}/token"),
            "jwks_uri": format!("{base}/discovery{version}/keys"),
            "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
            "grant_types_supported": ["client_credentials"],
            "response_types_supported": ["token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }
}

/// Signed times come from the platform's clock, but a checked token's could be any number.
fn seconds(since_1970: i64) -> Timestamp {
    Timestamp::from_second(since_1970).unwrap_or(Timestamp::MAX)
}

impl fmt::Debug for TokenAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenAuthority").field("kid", &self.kid).field("issuer", &self.issuer).finish_non_exhaustive()
    }
}
