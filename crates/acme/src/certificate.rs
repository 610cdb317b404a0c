//! The request for a certificate, and the look at what comes back.

use casemate_model::Secret;
use casemate_pki::{Leaf, PkiError};
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// How far an authority's clock may be ahead of this machine's.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// A signing request with its fresh key.
pub(crate) struct Request {
    /// The request, DER.
    pub der: Vec<u8>,
    key_pem: Secret,
}

impl Request {
    /// A request for these names, with a new ECDSA P-256 key.
    ///
    /// # Errors
    /// The library's reason.
    pub(crate) fn new(names: &[String]) -> Result<Self, rcgen::Error> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate()?;
        let request = params.serialize_request(&key)?;
        Ok(Self { der: request.der().to_vec(), key_pem: Secret::from(key.serialize_pem()) })
    }

    /// The certificate, if it is what was asked for.
    ///
    /// # Errors
    /// What is wrong with it, as the end of "the answer can't be right: …".
    pub(crate) fn accept(self, chain_pem: String, names: &[String], now: Timestamp) -> Result<Leaf, String> {
        let leaf = Leaf::load(chain_pem, self.key_pem).map_err(|error| match error {
            PkiError::Mismatch(_) => "the certificate is for another key".to_owned(),
            other => other.to_string(),
        })?;
        if let Some(missing) = names.iter().find(|name| !leaf.names.contains(name)) {
            let held = leaf.names.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            return Err(format!("the certificate is not for {missing} but for {held}"));
        }
        if leaf.not_after <= now || leaf.not_before.duration_since(now) > CLOCK_SKEW {
            return Err(format!(
                "the certificate is valid from {} to {}, and here it is {now}; look at this machine's clock",
                leaf.not_before, leaf.not_after
            ));
        }
        linked(&leaf.chain_pem)?;
        Ok(leaf)
    }
}

/// Whether each certificate of a chain is named as the issuer of the one before.
fn linked(chain_pem: &str) -> Result<(), String> {
    let mut issuer: Option<Vec<u8>> = None;
    for der in CertificateDer::pem_slice_iter(chain_pem.as_bytes()) {
        let der = der.map_err(|error| format!("the chain can't be read: {error}"))?;
        let (_, read) = X509Certificate::from_der(&der).map_err(|error| format!("the chain can't be read: {error}"))?;
        if issuer.is_some_and(|issuer| issuer != read.subject().as_raw()) {
            return Err("a certificate of the chain is not the issuer of the one before".to_owned());
        }
        issuer = Some(read.issuer().as_raw().to_vec());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use casemate_pki::CertificateAuthority;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    /// What an authority answers to a request for `names`: the leaf's and the intermediate's PEM. The key is the
    /// authority's own choice unless it is made the request's.
    fn issued(names: &[String], now: Timestamp) -> Leaf {
        CertificateAuthority::create(now).unwrap().0.issue(names, now, DAY).unwrap()
    }

    fn accept(of: &Leaf, chain: String, names: &[String], now: Timestamp) -> Result<Leaf, String> {
        Request { der: Vec::new(), key_pem: of.key_pem.clone() }.accept(chain, names, now)
    }

    #[test]
    fn only_what_was_asked_for_is_accepted() {
        let now = Timestamp::now();
        let names = ["a.example".to_owned(), "b.example".to_owned()];
        let good = issued(&names, now);
        assert_eq!(accept(&good, good.chain_pem.clone(), &names, now).unwrap().sha256, good.sha256);

        let other = issued(&names, now);
        let end = "-----END CERTIFICATE-----\n";
        let parts: Vec<&str> = good.chain_pem.split_inclusive(end).collect();
        let foreign = other.chain_pem.split_inclusive(end).nth(1).unwrap();
        for (chain, names, at, told) in [
            (other.chain_pem.clone(), &names[..], now, "for another key"),
            (
                good.chain_pem.clone(),
                &["c.example".to_owned()][..],
                now,
                "not for c.example but for a.example, b.example",
            ),
            (good.chain_pem.clone(), &names[..], now + DAY * 2, "clock"),
            (good.chain_pem.clone(), &names[..], now - DAY, "clock"),
            (format!("{}{foreign}", parts[0]), &names[..], now, "not the issuer"),
            (format!("{}{}", parts[1], parts[0]), &names[..], now, "for another key"),
            ("<html>".to_owned(), &names[..], now, "no certificate"),
            (String::new(), &names[..], now, "no certificate"),
        ] {
            let refused = accept(&good, chain, names, at).unwrap_err();
            assert!(refused.contains(told), "{told}: {refused}");
        }
    }

    #[test]
    fn a_request_has_the_names_and_a_key_of_its_own() {
        let names = ["*.a.example".to_owned(), "b.example".to_owned()];
        let (one, two) = (Request::new(&names).unwrap(), Request::new(&names).unwrap());
        assert!(one.key_pem != two.key_pem);
        let text = String::from_utf8_lossy(&one.der).into_owned();
        assert!(names.iter().all(|name| text.contains(name.as_str())));
    }
}
