//! Secrets that the platform makes for others, and how it keeps those of principals: as a digest.

use aws_lc_rs::{
    constant_time,
    digest::{SHA256, digest},
    rand,
};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use casemate_model::Secret;
use zeroize::Zeroizing;

const SECRET_BYTES: usize = 32;

/// A new secret for a service principal: 32 random bytes as 43 characters that need no quoting in a shell.
#[must_use]
pub fn new_client_secret() -> Secret {
    Secret::from(BASE64_URL_SAFE_NO_PAD.encode(random()))
}

/// A new endpoint key: 32 random bytes as 44 characters of base64.
#[must_use]
pub fn new_endpoint_key() -> Secret {
    Secret::from(BASE64_STANDARD.encode(random()))
}

/// What is kept of a client secret, its SHA-256. A slow hash would add nothing: these secrets are 256 random bits,
/// not words that someone chose.
#[must_use]
pub fn digest_secret(secret: &Secret) -> Secret {
    Secret::new(digest(&SHA256, secret.expose()).as_ref())
}

/// Whether `candidate` is the secret that `digest` was made from; takes the same time wherever they differ.
#[must_use]
pub fn secret_matches(candidate: &[u8], digest_kept: &Secret) -> bool {
    constant_time::verify_slices_are_equal(digest(&SHA256, candidate).as_ref(), digest_kept.expose()).is_ok()
}

fn random() -> Zeroizing<[u8; SECRET_BYTES]> {
    let mut bytes = Zeroizing::new([0; SECRET_BYTES]);
    rand::fill(bytes.as_mut_slice()).expect("the kernel's random source does not fail once the system has booted");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_matches_its_own_digest_only() {
        let secret = new_client_secret();
        let kept = digest_secret(&secret);
        assert!(secret_matches(secret.expose(), &kept));
        assert_ne!(kept.expose(), secret.expose());
        for wrong in [&b""[..], b"x", new_client_secret().expose(), kept.expose(), &[secret.expose(), b"x"].concat()] {
            assert!(!secret_matches(wrong, &kept));
        }
        assert!(!secret_matches(secret.expose(), &Secret::from("")));
    }

    #[test]
    fn made_secrets_differ_and_have_the_right_shape() {
        let keys: std::collections::HashSet<Vec<u8>> = (0..100).map(|_| new_endpoint_key().expose().to_vec()).collect();
        assert_eq!(keys.len(), 100);
        assert!(keys.iter().all(|key| key.len() == 44));
        let secret = new_client_secret();
        let text = secret.expose_str().unwrap();
        assert_eq!(text.len(), 43);
        assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_'));
    }
}
