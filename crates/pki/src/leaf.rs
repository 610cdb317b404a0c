//! A leaf certificate with its key, ready to be stored and to be served.

use std::{net::IpAddr, sync::Arc};

use aws_lc_rs::digest;
use casemate_model::Secret;
use jiff::Timestamp;
use rustls::{crypto::aws_lc_rs::default_provider, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

use crate::PkiError;

/// Most certificates that a chain may have.
const MAX_CHAIN: usize = 10;

/// A leaf certificate, its chain and its key.
#[derive(Clone)]
pub struct Leaf {
    /// The leaf, then its issuers without the root, as PEM.
    pub chain_pem: String,
    /// The private key as PEM.
    pub key_pem: Secret,
    /// Start of its validity.
    pub not_before: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
    /// Serial number in lower-case hexadecimal.
    pub serial: String,
    /// SHA-256 of the leaf's DER in lower-case hexadecimal: the fingerprint that tools show.
    pub sha256: String,
    /// The names it is good for, in lower case: DNS names, wildcards, IP literals.
    pub names: Vec<String>,
    certified: Arc<CertifiedKey>,
}

impl Leaf {
    /// Reads a chain and its key, both PEM, and checks that the key is the first certificate's.
    ///
    /// # Errors
    /// `Malformed` naming the part that can't be read; `Mismatch` when the key belongs to another certificate.
    pub fn load(chain_pem: String, key_pem: Secret) -> Result<Self, PkiError> {
        let bad_chain = |why: String| PkiError::Malformed { what: "the certificate chain", why };
        let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
            .take(MAX_CHAIN + 1)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| bad_chain(error.to_string()))?;
        if chain.len() > MAX_CHAIN {
            return Err(bad_chain(format!("it has more than {MAX_CHAIN} certificates")));
        }
        let first = chain.first().ok_or_else(|| bad_chain("it has no certificate".to_owned()))?;
        let facts = Facts::read(first)?;
        let sha256 = hex(digest::digest(&digest::SHA256, first).as_ref());
        let key = PrivateKeyDer::from_pem_slice(key_pem.expose())
            .map_err(|_| PkiError::Malformed { what: "the private key", why: "it is no PEM key".to_owned() })?;
        let certified = CertifiedKey::from_der(chain, key, &default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => PkiError::Mismatch("the private key belongs to another certificate"),
            other => PkiError::Malformed { what: "the private key", why: other.to_string() },
        })?;
        Ok(Self {
            chain_pem,
            key_pem,
            not_before: facts.not_before,
            not_after: facts.not_after,
            serial: facts.serial,
            sha256,
            names: facts.names,
            certified: Arc::new(certified),
        })
    }

    /// What the TLS server serves.
    pub(crate) fn certified(&self) -> &Arc<CertifiedKey> {
        &self.certified
    }
}

impl std::fmt::Debug for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leaf")
            .field("names", &self.names)
            .field("serial", &self.serial)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// What the first certificate says of itself.
struct Facts {
    not_before: Timestamp,
    not_after: Timestamp,
    serial: String,
    names: Vec<String>,
}

impl Facts {
    fn read(der: &CertificateDer<'_>) -> Result<Self, PkiError> {
        let bad = |why: &str| PkiError::Malformed { what: "the certificate", why: why.to_owned() };
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|error| bad(&error.to_string()))?;
        if !rest.is_empty() {
            return Err(bad("bytes follow its end"));
        }
        let second = |seconds| Timestamp::from_second(seconds).map_err(|_| bad("its dates are out of range"));
        let alternatives = parsed.subject_alternative_name().map_err(|_| bad("its names can't be read"))?;
        let names = alternatives
            .map_or_else(Vec::new, |extension| extension.value.general_names.iter().filter_map(general_name).collect());
        Ok(Self {
            not_before: second(parsed.validity().not_before.timestamp())?,
            not_after: second(parsed.validity().not_after.timestamp())?,
            serial: hex(parsed.raw_serial()),
            names,
        })
    }
}

fn general_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]])
        .map(char::from)
        .collect()
}
