//! The built-in authority's own renewal: a new intermediate below the root, or a new root that the old one vouches for.
//!
//! Nothing that was issued before becomes invalid: a leaf is served with the intermediate that signed it, and callers go
//! on trusting the old root until it ends. The root's key is needed here and nowhere else.

use jiff::Timestamp;
use rcgen::{Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::certificate::X509Certificate;

use crate::{
    CaMaterial, PkiError,
    authority::{
        ROOT_VALIDITY, after, ca_params, generating, key_of, make_authority, make_intermediate, malformed, parse,
        read_pem,
    },
    leaf::hex,
    probe::fingerprint,
};

/// Most certificates that are read from one text.
const MAX_DESCRIBED: usize = 20;
/// The room below itself that a root must leave for a later root and its intermediate.
const CROSS_PATH: u8 = 2;

/// The facts of one certificate of the authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its subject, as people write it.
    pub subject: String,
    /// Serial number in lower-case hexadecimal.
    pub serial: String,
    /// SHA-256 of its DER in lower-case hexadecimal.
    pub sha256: String,
    /// Start of its validity.
    pub not_before: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
}

/// The certificates in a PEM text, at most 20.
///
/// # Errors
/// `Malformed` when one of them can't be read.
pub fn describe(pem: &str) -> Result<Vec<Described>, PkiError> {
    const WHAT: &str = "a certificate of the authority";
    let mut described = Vec::new();
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()).take(MAX_DESCRIBED) {
        let der = der.map_err(|error| malformed(WHAT, error))?;
        let parsed = parse(WHAT, &der)?;
        let time = |at: i64| Timestamp::from_second(at).map_err(|error| malformed(WHAT, error));
        described.push(Described {
            subject: parsed.subject().to_string(),
            serial: hex(parsed.raw_serial()),
            sha256: fingerprint(&der),
            not_before: time(parsed.validity().not_before.timestamp())?,
            not_after: time(parsed.validity().not_after.timestamp())?,
        });
    }
    Ok(described)
}

/// What callers must trust, PEM: the root, then those of `retired` roots that have not ended at `now`.
///
/// # Errors
/// `Malformed` when one of the retired roots can't be read.
pub fn trusted_roots(root: &str, retired: &str, now: Timestamp) -> Result<String, PkiError> {
    let mut trusted = with_newline(root);
    for part in retired.split_inclusive("-----END CERTIFICATE-----").filter(|part| !part.trim().is_empty()) {
        let ended = describe(part)?.iter().all(|described| now >= described.not_after);
        if !ended {
            trusted.push_str(&with_newline(part.trim_start()));
        }
    }
    Ok(trusted)
}

fn with_newline(pem: &str) -> String {
    format!("{}\n", pem.trim_end())
}

/// The same authority with a new issuing intermediate, valid for five years but not longer than the root.
///
/// # Errors
/// As [`crate::CertificateAuthority::load`]; `IssuerExpired` when the root has ended; `Generate`.
pub fn rotate_intermediate(material: &CaMaterial, now: Timestamp) -> Result<CaMaterial, PkiError> {
    let (root, until, _) = root_issuer(material)?;
    if now >= until {
        return Err(PkiError::IssuerExpired { until, now });
    }
    let (intermediate_cert_pem, intermediate_key_pem) = make_intermediate(&root, now, until)?;
    Ok(CaMaterial { intermediate_cert_pem, intermediate_key_pem, ..material.clone() })
}

/// A new authority, whose root is signed by the old root as well, so that callers who trust only the old one accept what
/// the new one issues until the old one ends. A root made before roots left room for that (or one that has ended) can't
/// vouch for another; then the cross certificate is missing, and callers need the new root at once.
///
/// # Errors
/// As [`crate::CertificateAuthority::load`]; `Generate`.
pub fn rotate_root(material: &CaMaterial, now: Timestamp) -> Result<CaMaterial, PkiError> {
    let (old, until, has_room) = root_issuer(material)?;
    let mut next = make_authority(now)?;
    if has_room && now < until {
        next.cross_cert_pem = Some(cross_sign(&next, &old, now, until)?);
    }
    Ok(next)
}

/// The root as an issuer, its end, and whether there may be another root below it.
fn root_issuer(material: &CaMaterial) -> Result<(Issuer<'static, KeyPair>, Timestamp, bool), PkiError> {
    const WHAT: &str = "the root certificate";
    let der = read_pem(WHAT, &material.root_cert_pem)?;
    let parsed = parse(WHAT, &der)?;
    let key = key_of("the root's key", &material.root_key_pem, &parsed)?;
    let until = Timestamp::from_second(parsed.validity().not_after.timestamp());
    let until = until.map_err(|error| malformed(WHAT, error))?;
    let has_room = has_room(&parsed);
    let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| malformed(WHAT, error))?;
    Ok((issuer, until, has_room))
}

fn has_room(root: &X509Certificate<'_>) -> bool {
    let constraints = root.basic_constraints().ok().flatten();
    constraints
        .is_some_and(|found| found.value.path_len_constraint.is_none_or(|length| length >= u32::from(CROSS_PATH)))
}

/// The new root's name and key, signed by the old root, until the old one ends.
fn cross_sign(
    next: &CaMaterial,
    old: &Issuer<'_, KeyPair>,
    now: Timestamp,
    until: Timestamp,
) -> Result<String, PkiError> {
    const WHAT: &str = "the root's cross certificate";
    let der = read_pem(WHAT, &next.root_cert_pem)?;
    let root = parse(WHAT, &der)?;
    let key = key_of("the root's key", &next.root_key_pem, &root)?;
    let named = root.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let name = named.ok_or_else(|| malformed(WHAT, "the root has no name"))?;
    let mut params = ca_params(name, CROSS_PATH - 1, now, until.min(after(now, ROOT_VALIDITY)?))?;
    params.use_authority_key_identifier_extension = true;
    Ok(params.signed_by(&key, old).map_err(generating(WHAT))?.pem())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::SignedDuration;
    use rustls::{RootCertStore, client::WebPkiServerVerifier, crypto::aws_lc_rs::default_provider};
    use rustls_pki_types::{ServerName, UnixTime};

    use super::*;
    use crate::{CertificateAuthority, Leaf};

    const DAY: Duration = Duration::from_secs(86_400);

    /// Whether a client that trusts `roots` accepts the leaf with its chain at `at`.
    fn accepted(roots: &str, leaf: &Leaf, at: Timestamp) -> bool {
        let mut store = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
            store.add(root.unwrap()).unwrap();
        }
        let provider = std::sync::Arc::new(default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(store.into(), provider).build().unwrap();
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(leaf.chain_pem.as_bytes()).collect::<Result<_, _>>().unwrap();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at.as_second().unsigned_abs()));
        let verified = rustls::client::danger::ServerCertVerifier::verify_server_cert(
            &*verifier,
            &chain[0],
            &chain[1..],
            &ServerName::try_from("a.example").unwrap(),
            &[],
            at,
        );
        verified.is_ok()
    }

    fn leaf(material: &CaMaterial, now: Timestamp) -> Leaf {
        let authority = CertificateAuthority::load(material).unwrap();
        authority.issue(&["a.example".to_owned()], now, 90 * DAY).unwrap()
    }

    #[test]
    fn a_new_intermediate_breaks_nothing() {
        let now = Timestamp::now();
        let (_, first) = CertificateAuthority::create(now).unwrap();
        let old = leaf(&first, now);
        let later = now + SignedDuration::from_hours(24 * 1200);
        let second = rotate_intermediate(&first, later).unwrap();
        assert_eq!(second.root_cert_pem, first.root_cert_pem);
        assert_ne!(second.intermediate_cert_pem, first.intermediate_cert_pem);
        let new = leaf(&second, later);
        let roots = &first.root_cert_pem;
        assert!(accepted(roots, &old, now) && accepted(roots, &new, later));
        // No intermediate outlives the root, and an ended root makes none.
        let end = describe(&first.root_cert_pem).unwrap()[0].not_after;
        let late = rotate_intermediate(&first, end - SignedDuration::from_hours(24)).unwrap();
        assert_eq!(describe(&late.intermediate_cert_pem).unwrap()[0].not_after, end);
        assert!(matches!(rotate_intermediate(&first, end), Err(PkiError::IssuerExpired { .. })));
    }

    #[test]
    fn a_new_root_is_vouched_for_by_the_old_one() {
        let now = Timestamp::now();
        let (_, first) = CertificateAuthority::create(now).unwrap();
        let old = leaf(&first, now);
        let second = rotate_root(&first, now).unwrap();
        let new = leaf(&second, now);
        for (roots, leaf, expected) in [
            (&first.root_cert_pem, &old, true),
            (&first.root_cert_pem, &new, true),
            (&second.root_cert_pem, &new, true),
            (&second.root_cert_pem, &old, false),
        ] {
            assert_eq!(accepted(roots, leaf, now), expected);
        }
        let both = trusted_roots(&second.root_cert_pem, &first.root_cert_pem, now).unwrap();
        assert!(accepted(&both, &old, now) && accepted(&both, &new, now));
        // A root below a root is signed by the last one; the one before that is told by its own certificate only.
        let third = rotate_root(&second, now).unwrap();
        assert!(accepted(&second.root_cert_pem, &leaf(&third, now), now));
        // When the old root has ended, it is trusted no more and vouches for nobody.
        let end = describe(&first.root_cert_pem).unwrap()[0].not_after;
        assert_eq!(
            describe(&trusted_roots(&second.root_cert_pem, &first.root_cert_pem, end).unwrap()).unwrap().len(),
            1
        );
        assert_eq!(rotate_root(&first, end).unwrap().cross_cert_pem, None);
        let authority = CertificateAuthority::load(&second).unwrap();
        let after = authority.intermediate_validity().1 - SignedDuration::from_hours(1);
        assert!(CertificateAuthority::load(&second).unwrap().issue(&["a.example".to_owned()], after, DAY).is_ok());
        assert!(CertificateAuthority::load(&CaMaterial { cross_cert_pem: third.cross_cert_pem, ..second }).is_err());
    }

    #[test]
    fn outside_judges_accept_the_chain_across_roots() {
        let dir = tempfile::tempdir().unwrap();
        let now = Timestamp::now();
        let (_, first) = CertificateAuthority::create(now).unwrap();
        let second = rotate_root(&first, now).unwrap();
        let chain = leaf(&second, now).chain_pem;
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let chain = file("chain.pem", &chain);
        for (name, root) in [("old.pem", &first.root_cert_pem), ("new.pem", &second.root_cert_pem)] {
            let verified = std::process::Command::new("openssl")
                .args(["verify", "-no-CApath", "-no-CAstore", "-purpose", "sslserver", "-CAfile"])
                .arg(file(name, root))
                .arg("-untrusted")
                .args([&chain, &chain])
                .output()
                .unwrap();
            assert!(verified.status.success(), "{name}: {}", String::from_utf8_lossy(&verified.stderr));
        }
    }
}
