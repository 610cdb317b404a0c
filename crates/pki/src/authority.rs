//! The built-in certificate authority: makes, loads, issues.

use std::time::Duration;

use aws_lc_rs::{rand, signature};
use casemate_model::Secret;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

use crate::{Leaf, PkiError, name};

/// How long a root is valid.
pub const ROOT_VALIDITY: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// How long an issuing intermediate is valid.
pub const INTERMEDIATE_VALIDITY: Duration = Duration::from_secs(5 * 365 * 24 * 3600);
/// How far before the time of issue a certificate's validity starts, for callers whose clock is behind.
const BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Most names in one leaf.
const MAX_NAMES: usize = 100;
/// Longest common name (RFC 5280, ub-common-name).
const MAX_COMMON_NAME: usize = 64;

/// What is stored of a certificate authority. All four are needed to load it.
#[derive(Debug, Clone)]
pub struct CaMaterial {
    /// The root, PEM: what callers trust.
    pub root_cert_pem: String,
    /// The root's key, PEM; needed only to make another intermediate.
    pub root_key_pem: Secret,
    /// The issuing intermediate, PEM.
    pub intermediate_cert_pem: String,
    /// The intermediate's key, PEM.
    pub intermediate_key_pem: Secret,
}

/// A certificate authority that can issue leaves.
pub struct CertificateAuthority {
    root_pem: String,
    intermediate_pem: String,
    intermediate_until: Timestamp,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// Makes a new root and intermediate (ECDSA P-256), valid from five minutes before `now`.
    ///
    /// # Errors
    /// `Generate` when the system's random source or the library fails.
    pub fn create(now: Timestamp) -> Result<(Self, CaMaterial), PkiError> {
        let mut tag = [0_u8; 4];
        fill_random(&mut tag)?;
        let tag = u32::from_be_bytes(tag);
        let root_key = new_key("the root's key")?;
        let root_params = ca_params(&format!("Casemate Root CA {tag:08x}"), 1, now, ROOT_VALIDITY)?;
        let root_cert = root_params.self_signed(&root_key).map_err(generating("the root certificate"))?;
        let root = Issuer::new(root_params, &root_key);
        let key = new_key("the intermediate's key")?;
        let mut params = ca_params(&format!("Casemate Issuing CA {tag:08x}"), 0, now, INTERMEDIATE_VALIDITY)?;
        params.use_authority_key_identifier_extension = true;
        let cert = params.signed_by(&key, &root).map_err(generating("the intermediate certificate"))?;
        let material = CaMaterial {
            root_cert_pem: root_cert.pem(),
            root_key_pem: Secret::from(root_key.serialize_pem()),
            intermediate_cert_pem: cert.pem(),
            intermediate_key_pem: Secret::from(key.serialize_pem()),
        };
        Ok((Self::load(&material)?, material))
    }

    /// Loads a stored authority; the root's key is checked and then forgotten.
    ///
    /// # Errors
    /// `Malformed` when a part can't be read; `Mismatch` when the parts do not belong together.
    pub fn load(material: &CaMaterial) -> Result<Self, PkiError> {
        let root_der = read_pem("the root certificate", &material.root_cert_pem)?;
        let root = parse("the root certificate", &root_der)?;
        let intermediate_der = read_pem("the intermediate certificate", &material.intermediate_cert_pem)?;
        let intermediate = parse("the intermediate certificate", &intermediate_der)?;
        key_of("the root's key", &material.root_key_pem, &root)?;
        let key = key_of("the intermediate's key", &material.intermediate_key_pem, &intermediate)?;
        signature::UnparsedPublicKey::new(
            &signature::ECDSA_P256_SHA256_ASN1,
            root.public_key().subject_public_key.data.as_ref(),
        )
        .verify(intermediate.tbs_certificate.as_ref(), &intermediate.signature_value.data)
        .map_err(|_| PkiError::Mismatch("the intermediate certificate was not signed by the root"))?;
        let intermediate_until = Timestamp::from_second(intermediate.validity().not_after.timestamp())
            .map_err(|error| malformed("the intermediate certificate", error))?;
        let issuer = Issuer::from_ca_cert_der(&intermediate_der, key)
            .map_err(|error| malformed("the intermediate certificate", error))?;
        Ok(Self {
            root_pem: material.root_cert_pem.clone(),
            intermediate_pem: material.intermediate_cert_pem.clone(),
            intermediate_until,
            issuer,
        })
    }

    /// The root certificate, PEM: what callers must trust.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Issues a server certificate (ECDSA P-256) for `names`, which are DNS names, one-label wildcards or IP
    /// literals. It is valid from five minutes before `now` for `validity` from `now`, but never longer than
    /// the intermediate.
    ///
    /// # Errors
    /// `BadName` for a name that no certificate can carry, none, or more than 100; `IssuerExpired`; `Generate`.
    pub fn issue(&self, names: &[String], now: Timestamp, validity: Duration) -> Result<Leaf, PkiError> {
        if now >= self.intermediate_until {
            return Err(PkiError::IssuerExpired { until: self.intermediate_until, now });
        }
        let params = leaf_params(names, now, after(now, validity)?.min(self.intermediate_until))?;
        let key = new_key("the certificate's key")?;
        let cert = params.signed_by(&key, &self.issuer).map_err(generating("the certificate"))?;
        let chain_pem = format!("{}{}", cert.pem(), self.intermediate_pem);
        Leaf::load(chain_pem, Secret::from(key.serialize_pem()))
    }
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority").field("until", &self.intermediate_until).finish_non_exhaustive()
    }
}

fn leaf_params(names: &[String], now: Timestamp, until: Timestamp) -> Result<CertificateParams, PkiError> {
    if names.is_empty() || names.len() > MAX_NAMES {
        let name = names.first().cloned().unwrap_or_default();
        return Err(PkiError::BadName { name, why: "a certificate needs 1 to 100 names" });
    }
    let canonical = names.iter().map(|name| name::canonical(name)).collect::<Result<Vec<_>, _>>()?;
    let mut params = base_params(now, until)?;
    params.subject_alt_names = canonical.iter().map(|name| name::alternative(name)).collect::<Result<Vec<_>, _>>()?;
    if let Some(common) = canonical.iter().find(|name| name.len() <= MAX_COMMON_NAME) {
        params.distinguished_name.push(DnType::CommonName, common.as_str());
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn ca_params(
    common_name: &str,
    path_length: u8,
    now: Timestamp,
    validity: Duration,
) -> Result<CertificateParams, PkiError> {
    let mut params = base_params(now, after(now, validity)?)?;
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// What all our certificates share: the organisation, a random serial, the dates.
fn base_params(now: Timestamp, until: Timestamp) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    let mut distinguished_name = DistinguishedName::new();
    distinguished_name.push(DnType::OrganizationName, "Casemate");
    params.distinguished_name = distinguished_name;
    let mut serial = [0_u8; 16];
    fill_random(&mut serial)?;
    // Positive, and of the full length whatever the other bits are.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let from = now.checked_sub(BACKDATE).map_err(|error| out_of_range(&error))?;
    params.not_before = date_time_ymd(1970, 1, 1) + since_epoch(from)?;
    params.not_after = date_time_ymd(1970, 1, 1) + since_epoch(until)?;
    Ok(params)
}

fn after(now: Timestamp, validity: Duration) -> Result<Timestamp, PkiError> {
    SignedDuration::try_from(validity)
        .and_then(|validity| now.checked_add(validity))
        .map_err(|error| out_of_range(&error))
}

fn since_epoch(at: Timestamp) -> Result<Duration, PkiError> {
    u64::try_from(at.as_second())
        .map(Duration::from_secs)
        .map_err(|_| generating("the certificate")("its dates would start before 1970"))
}

fn out_of_range(error: &jiff::Error) -> PkiError {
    generating("the certificate")(error)
}

fn generating<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> PkiError {
    move |error| PkiError::Generate { what, why: error.to_string() }
}

fn new_key(what: &'static str) -> Result<KeyPair, PkiError> {
    KeyPair::generate().map_err(generating(what))
}

fn fill_random(bytes: &mut [u8]) -> Result<(), PkiError> {
    rand::fill(bytes).map_err(generating("a random number"))
}

fn malformed(what: &'static str, why: impl std::fmt::Display) -> PkiError {
    PkiError::Malformed { what, why: why.to_string() }
}

fn read_pem(what: &'static str, pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| malformed(what, error))
}

fn parse<'a>(what: &'static str, der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PkiError> {
    X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(|error| malformed(what, error))
}

/// The key, if it is the certificate's.
fn key_of(what: &'static str, pem: &Secret, certificate: &X509Certificate<'_>) -> Result<KeyPair, PkiError> {
    let text = pem.expose_str().map_err(|error| malformed(what, error))?;
    let key = KeyPair::from_pem(text).map_err(|error| malformed(what, error))?;
    if key.public_key_raw() != certificate.public_key().subject_public_key.data.as_ref() {
        return Err(PkiError::Mismatch("a stored key of the certificate authority belongs to another certificate"));
    }
    Ok(key)
}
