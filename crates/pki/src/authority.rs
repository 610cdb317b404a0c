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
    /// The root as signed by the root before it, PEM: callers that trust only that one need it.
    pub cross_cert_pem: Option<String>,
}

/// A certificate authority that can issue leaves.
pub struct CertificateAuthority {
    root_pem: String,
    intermediate_pem: String,
    intermediate_from: Timestamp,
    intermediate_until: Timestamp,
    /// The root as signed by the root before it, and how long that holds.
    cross: Option<(String, Timestamp)>,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// Makes a new root and intermediate (ECDSA P-256), valid from five minutes before `now`.
    ///
    /// # Errors
    /// `Generate` when the system's random source or the library fails.
    pub fn create(now: Timestamp) -> Result<(Self, CaMaterial), PkiError> {
        let material = make_authority(now)?;
        Ok((Self::load(&material)?, material))
    }

    /// Loads a stored authority; the root's key is checked and then forgotten.
    ///
    /// # Errors
    /// `Malformed` when a part can't be read; `Mismatch` when the parts do not belong together.
    pub fn load(material: &CaMaterial) -> Result<Self, PkiError> {
        let root_der = read_pem("the root certificate", &material.root_cert_pem)?;
        key_of("the root's key", &material.root_key_pem, &parse("the root certificate", &root_der)?)?;
        Self::open(
            &material.root_cert_pem,
            &material.intermediate_cert_pem,
            &material.intermediate_key_pem,
            material.cross_cert_pem.as_deref(),
        )
    }

    /// Loads a stored authority without the root's key, which issuing does not need.
    ///
    /// # Errors
    /// As [`CertificateAuthority::load`].
    pub fn open(root: &str, intermediate: &str, key: &Secret, cross: Option<&str>) -> Result<Self, PkiError> {
        let root_der = read_pem("the root certificate", root)?;
        let root_cert = parse("the root certificate", &root_der)?;
        let der = read_pem("the intermediate certificate", intermediate)?;
        let parsed = parse("the intermediate certificate", &der)?;
        let key = key_of("the intermediate's key", key, &parsed)?;
        signature::UnparsedPublicKey::new(
            &signature::ECDSA_P256_SHA256_ASN1,
            root_cert.public_key().subject_public_key.data.as_ref(),
        )
        .verify(parsed.tbs_certificate.as_ref(), &parsed.signature_value.data)
        .map_err(|_| PkiError::Mismatch("the intermediate certificate was not signed by the root"))?;
        let time =
            |at: i64| Timestamp::from_second(at).map_err(|error| malformed("the intermediate certificate", error));
        let cross = cross.map(|pem| cross_of(pem, &root_cert)).transpose()?;
        let issuer =
            Issuer::from_ca_cert_der(&der, key).map_err(|error| malformed("the intermediate certificate", error))?;
        Ok(Self {
            root_pem: root.to_owned(),
            intermediate_pem: intermediate.to_owned(),
            intermediate_from: time(parsed.validity().not_before.timestamp())?,
            intermediate_until: time(parsed.validity().not_after.timestamp())?,
            cross,
            issuer,
        })
    }

    /// Start and end of the issuing intermediate's validity.
    #[must_use]
    pub fn intermediate_validity(&self) -> (Timestamp, Timestamp) {
        (self.intermediate_from, self.intermediate_until)
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
        let cross = self.cross.as_ref().filter(|(_, until)| now < *until).map_or("", |(pem, _)| pem.as_str());
        let chain_pem = format!("{}{}{cross}", cert.pem(), self.intermediate_pem);
        Leaf::load(chain_pem, Secret::from(key.serialize_pem()))
    }
}

impl std::fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateAuthority").field("until", &self.intermediate_until).finish_non_exhaustive()
    }
}

/// A new root with its first intermediate. The path length leaves room for a later root that is signed by this one.
pub(crate) fn make_authority(now: Timestamp) -> Result<CaMaterial, PkiError> {
    let key = new_key("the root's key")?;
    let params = ca_params(&format!("Casemate Root CA {:08x}", tag()?), 2, now, after(now, ROOT_VALIDITY)?)?;
    let cert = params.self_signed(&key).map_err(generating("the root certificate"))?;
    let key_pem = Secret::from(key.serialize_pem());
    let issuer = Issuer::new(params, key);
    let (intermediate_cert_pem, intermediate_key_pem) = make_intermediate(&issuer, now, Timestamp::MAX)?;
    Ok(CaMaterial {
        root_cert_pem: cert.pem(),
        root_key_pem: key_pem,
        intermediate_cert_pem,
        intermediate_key_pem,
        cross_cert_pem: None,
    })
}

/// A new intermediate and its key, PEM, valid for its five years but not longer than `until`.
pub(crate) fn make_intermediate(
    root: &Issuer<'_, KeyPair>,
    now: Timestamp,
    until: Timestamp,
) -> Result<(String, Secret), PkiError> {
    let key = new_key("the intermediate's key")?;
    let until = after(now, INTERMEDIATE_VALIDITY)?.min(until);
    let mut params = ca_params(&format!("Casemate Issuing CA {:08x}", tag()?), 0, now, until)?;
    params.use_authority_key_identifier_extension = true;
    let cert = params.signed_by(&key, root).map_err(generating("the intermediate certificate"))?;
    Ok((cert.pem(), Secret::from(key.serialize_pem())))
}

/// Tells one authority's certificates from another's.
fn tag() -> Result<u32, PkiError> {
    let mut tag = [0_u8; 4];
    fill_random(&mut tag)?;
    Ok(u32::from_be_bytes(tag))
}

/// A cross certificate and its end; it must be for the root's own key.
fn cross_of(pem: &str, root: &X509Certificate<'_>) -> Result<(String, Timestamp), PkiError> {
    const WHAT: &str = "the root's cross certificate";
    let der = read_pem(WHAT, pem)?;
    let parsed = parse(WHAT, &der)?;
    if parsed.public_key().raw != root.public_key().raw || parsed.subject() != root.subject() {
        return Err(PkiError::Mismatch("the stored cross certificate is another root's"));
    }
    let until = Timestamp::from_second(parsed.validity().not_after.timestamp());
    Ok((pem.to_owned(), until.map_err(|error| malformed(WHAT, error))?))
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

pub(crate) fn ca_params(
    common_name: &str,
    path_length: u8,
    now: Timestamp,
    until: Timestamp,
) -> Result<CertificateParams, PkiError> {
    let mut params = base_params(now, until)?;
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

pub(crate) fn after(now: Timestamp, validity: Duration) -> Result<Timestamp, PkiError> {
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

pub(crate) fn generating<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> PkiError {
    move |error| PkiError::Generate { what, why: error.to_string() }
}

pub(crate) fn new_key(what: &'static str) -> Result<KeyPair, PkiError> {
    KeyPair::generate().map_err(generating(what))
}

fn fill_random(bytes: &mut [u8]) -> Result<(), PkiError> {
    rand::fill(bytes).map_err(generating("a random number"))
}

pub(crate) fn malformed(what: &'static str, why: impl std::fmt::Display) -> PkiError {
    PkiError::Malformed { what, why: why.to_string() }
}

pub(crate) fn read_pem(what: &'static str, pem: &str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| malformed(what, error))
}

pub(crate) fn parse<'a>(what: &'static str, der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PkiError> {
    X509Certificate::from_der(der).map(|(_, parsed)| parsed).map_err(|error| malformed(what, error))
}

/// The key, if it is the certificate's.
pub(crate) fn key_of(what: &'static str, pem: &Secret, certificate: &X509Certificate<'_>) -> Result<KeyPair, PkiError> {
    let text = pem.expose_str().map_err(|error| malformed(what, error))?;
    let key = KeyPair::from_pem(text).map_err(|error| malformed(what, error))?;
    if key.public_key_raw() != certificate.public_key().subject_public_key.data.as_ref() {
        return Err(PkiError::Mismatch("a stored key of the certificate authority belongs to another certificate"));
    }
    Ok(key)
}
