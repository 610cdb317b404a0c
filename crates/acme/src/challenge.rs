//! The answer to one challenge, put on the board.

use casemate_model::{
    Fault, FaultKind, Secret,
    challenge::{AlpnCertificate, ChallengeBoard, Posted},
};
use instant_acme::{ChallengeType, KeyAuthorization};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};

use crate::ChallengeKind;

impl From<ChallengeKind> for ChallengeType {
    fn from(kind: ChallengeKind) -> Self {
        match kind {
            ChallengeKind::Http01 => Self::Http01,
            ChallengeKind::TlsAlpn01 => Self::TlsAlpn01,
            ChallengeKind::Dns01 => Self::Dns01,
        }
    }
}

/// The name of an authority's kind of challenge.
pub(crate) fn type_name(kind: &ChallengeType) -> &str {
    match kind {
        ChallengeType::Http01 => "http-01",
        ChallengeType::TlsAlpn01 => "tls-alpn-01",
        ChallengeType::Dns01 => "dns-01",
        ChallengeType::Unknown(name) => name,
        _ => "another",
    }
}

/// Whether an authority's token is one (RFC 8555, section 8): text of base64url, of at least 128 bits and no endless one.
pub(crate) fn is_token(token: &str) -> bool {
    (22..=512).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// Shows the answer that proves `name` (without `*.`) until the result is dropped.
///
/// # Errors
/// When the board is full, or the certificate for TLS-ALPN-01 can't be made.
pub(crate) fn post(
    board: &ChallengeBoard,
    kind: ChallengeKind,
    name: &str,
    token: &str,
    answer: &KeyAuthorization,
) -> Result<Posted, Fault> {
    let posted = match kind {
        ChallengeKind::Http01 => board.post_http(token, answer.as_str().to_owned()),
        ChallengeKind::Dns01 => board.post_txt(&format!("_acme-challenge.{name}"), answer.dns_value()),
        ChallengeKind::TlsAlpn01 => {
            let certificate = alpn_certificate(name, answer.digest().as_ref()).map_err(|error| {
                Fault::internal(format!("ACME: the certificate that proves {name} can't be made: {error}."))
            })?;
            board.post_alpn(name, certificate)
        }
    };
    posted.ok_or_else(|| {
        let message = "ACME: too many names are being proven at once. It is tried again.";
        Fault::new(FaultKind::Unavailable, "AcmeBusy", message)
    })
}

/// The self-signed certificate of RFC 8737: the name, and the digest in a critical extension.
fn alpn_certificate(name: &str, digest: &[u8]) -> Result<AlpnCertificate, rcgen::Error> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(AlpnCertificate { certificate: certificate.der().to_vec(), key: Secret::new(key.serialize_der()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        assert!(is_token("evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"));
        for bad in ["", "short", "../../../etc/passwd/xxxxxxxx", "evaGxfADs6pSRb2LAv9IZf17Dt3 juxGJ", &"a".repeat(513)]
        {
            assert!(!is_token(bad), "{bad}");
        }
    }
}
