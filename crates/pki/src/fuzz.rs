//! What must hold for whatever is given as a name or a certificate. The target in `fuzz/` runs these on raw bytes, the
//! tests below on generated texts; each panics when a promise is broken.

use std::sync::OnceLock;

use base64::prelude::{BASE64_STANDARD, Engine};
use casemate_model::{Secret, tls::MinimumTls};
use jiff::Timestamp;

use crate::{CaMaterial, CertificateAuthority, CertificateMap, Leaf, TlsSettings, custom, name};

/// The name that the fixture's leaf is for, and a moment at which it is valid.
const NAME: &str = "a.example";
const VALID_AT: i64 = 1_700_000_010;

fn fixture() -> &'static (CaMaterial, Leaf) {
    static FIXTURE: OnceLock<(CaMaterial, Leaf)> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let now = Timestamp::from_second(1_700_000_000).expect("a moment of the present");
        let (authority, material) = CertificateAuthority::create(now).expect("a new authority");
        let leaf = authority.issue(&["a.example".to_owned()], now, std::time::Duration::from_secs(3600));
        (material, leaf.expect("a leaf"))
    })
}

/// A name that is accepted has one canonical form, which a certificate can carry and a map finds again.
pub fn names(text: &str) {
    let (_, leaf) = fixture();
    let map = CertificateMap::new([(text.to_owned(), leaf)], None);
    let Ok(canonical) = name::canonical(text) else { return };
    assert_eq!(name::canonical(&canonical).ok().as_ref(), Some(&canonical), "{text}");
    assert!(canonical.is_ascii() && canonical.len() <= 253, "{canonical}");
    name::alternative(&canonical).expect("a canonical name can be in a certificate");
    if canonical.parse::<std::net::IpAddr>().is_err() {
        let asked = canonical.replacen('*', "x", 1);
        assert!(map.get(Some(&asked)).is_some(), "{text} does not serve {asked}");
        assert!(map.get(Some(&asked.to_ascii_uppercase())).is_some(), "{text} does not serve {asked}");
    }
    assert!(map.get(None).is_none());
}

fn armoured(der: &[u8]) -> String {
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64_STANDARD.encode(der))
}

/// Bytes given as a certificate, a chain, a key or an authority are read or refused; no key fits another certificate.
pub fn certificate(bytes: &[u8]) {
    let (material, leaf) = fixture();
    for pem in [armoured(bytes), String::from_utf8_lossy(bytes).into_owned()] {
        let _ = Leaf::load(pem.clone(), leaf.key_pem.clone());
        let _ = TlsSettings::new(MinimumTls::V1_2, Some(&pem));
        let spoilt = CaMaterial { root_cert_pem: pem.clone(), ..material.clone() };
        assert!(CertificateAuthority::load(&spoilt).is_err(), "a stranger's root was taken");
        let spoilt = CaMaterial { intermediate_cert_pem: pem, ..material.clone() };
        assert!(CertificateAuthority::load(&spoilt).is_err(), "a stranger's intermediate was taken");
    }
    if let Ok(read) = Leaf::load(leaf.chain_pem.clone(), Secret::new(bytes)) {
        assert_eq!(read.sha256, leaf.sha256);
    }
}

/// A good certificate with one byte changed is refused, or is another certificate; it never becomes an authority's.
pub fn changed(at: usize, byte: u8) {
    let (material, leaf) = fixture();
    let spoil = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes
    };
    let good = &leaf.certified().cert[0];
    let bad = spoil(good);
    if let Ok(read) = Leaf::load(armoured(&bad), leaf.key_pem.clone()) {
        assert_eq!(read.sha256 == leaf.sha256, bad[..] == good[..]);
    }
    let _ = Leaf::load(String::from_utf8_lossy(&spoil(leaf.chain_pem.as_bytes())).into_owned(), leaf.key_pem.clone());
    let _ = Leaf::load(leaf.chain_pem.clone(), Secret::new(spoil(leaf.key_pem.expose())));
    let intermediate_cert_pem = String::from_utf8_lossy(&spoil(material.intermediate_cert_pem.as_bytes())).into_owned();
    let _ = CertificateAuthority::load(&CaMaterial { intermediate_cert_pem, ..material.clone() });
}

/// Bytes that somebody brings as a certificate or as its key are accepted, and then serve the name, or are refused
/// without a word of what was given as the key.
pub fn custom(bytes: &[u8]) {
    /// What a line of a key looks like.
    const SECRET: &[u8] = b"c2VjcmV0IGxpbmUgb2YgYSBrZXk";
    let (_, leaf) = fixture();
    let now = Timestamp::from_second(VALID_AT).expect("a moment of the present");
    let judge = |chain: &[u8], key: &[u8]| match custom::check(chain, &Secret::new(key), NAME, now) {
        Ok(checked) => {
            let leaf = &checked.leaf;
            assert!(leaf.not_before <= now && now <= leaf.not_after && !leaf.names.is_empty());
            assert!(!checked.chain.is_empty() && checked.chain.len() <= 10);
            let again = custom::check(&leaf.chain_pem, &leaf.key_pem, NAME, now);
            assert!(checked.leaf.sha256 == again.expect("what was accepted is accepted again").leaf.sha256);
        }
        Err(fault) => {
            let said = [fault.message.as_bytes(), fault.target.as_deref().unwrap_or_default().as_bytes()].concat();
            assert!(!said.windows(SECRET.len()).any(|window| window == SECRET), "{fault}");
        }
    };
    let (chain, key) = (leaf.chain_pem.as_bytes(), leaf.key_pem.expose());
    let around = |label: &str, body: &[u8]| {
        [format!("-----BEGIN {label}-----\n").as_bytes(), body, format!("\n-----END {label}-----\n").as_bytes()]
            .concat()
    };
    judge(bytes, key);
    judge(chain, &[bytes, b"\n", SECRET, b"\n"].concat());
    judge(chain, &[SECRET, b"\n", bytes].concat());
    judge(chain, &[key, bytes].concat());
    judge(&[chain, bytes].concat(), key);
    judge(armoured(bytes).as_bytes(), key);
    for label in ["PRIVATE KEY", "EC PRIVATE KEY", "RSA PRIVATE KEY"] {
        judge(chain, &around(label, BASE64_STANDARD.encode(bytes).as_bytes()));
        judge(chain, &around(label, &[SECRET, b"\n", bytes].concat()));
    }
}

/// A leaf with one byte changed is never accepted for the one it was.
pub fn custom_changed(at: usize, byte: u8) {
    let (_, leaf) = fixture();
    let now = Timestamp::from_second(VALID_AT).expect("a moment of the present");
    let (first, above) = leaf.certified().cert.split_first().expect("a chain has its leaf");
    let mut changed = first.to_vec();
    let at = at % changed.len();
    changed[at] = byte;
    let is_same = changed[..] == first[..];
    let chain: String =
        [changed.as_slice()].into_iter().chain(above.iter().map(|der| &der[..])).map(armoured).collect();
    assert_eq!(custom::check(chain, &leaf.key_pem, NAME, now).is_ok(), is_same, "byte {at} = {byte}");
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, test_runner::RngSeed};

    use super::*;

    fn cases(cases: u32) -> ProptestConfig {
        ProptestConfig { cases, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() }
    }

    proptest! {
        #![proptest_config(cases(300))]

        #[test]
        fn likely_names(text in "(\\*\\.)?[a-zA-Z0-9_-]{1,8}(\\.[a-zA-Z0-9-]{1,8}){0,3}\\.?", odd in "\\PC{0,12}", address in "[0-9a-f:.]{2,20}") {
            names(&text);
            names(&odd);
            names(&address);
        }

        #[test]
        fn bytes_as_certificates(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            certificate(&bytes);
        }

        #[test]
        fn spoilt_chains(at in 0_usize..3000, byte in any::<u8>()) {
            changed(at, byte);
            custom_changed(at, byte);
        }

        #[test]
        fn texts_as_certificates(
            bytes in prop::collection::vec(any::<u8>(), 0..120),
            text in "(-----(BEGIN|END) (EC |RSA |ENCRYPTED |)(PRIVATE KEY|CERTIFICATE)-----\\n|[A-Za-z0-9+/=]{4,12}\\n|Proc-Type: 4,ENCRYPTED\\n){0,6}",
        ) {
            custom(&bytes);
            custom(text.as_bytes());
        }
    }
}
