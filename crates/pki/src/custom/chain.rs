//! Who signed whom: finds the leaf by its key, puts the chain in order, and checks every certificate in it.

use casemate_model::Fault;
use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm};
use x509_parser::{
    certificate::X509Certificate, oid_registry::Oid, prelude::FromDer, public_key::PublicKey, x509::X509Name,
};

/// Longest name of a certificate in a message, in characters.
const SHOWN: usize = 120;
/// Smallest and largest RSA key that is served, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A certificate with what it says.
pub(super) struct Certificate<'a> {
    pub(super) der: &'a CertificateDer<'static>,
    pub(super) parsed: X509Certificate<'a>,
}

/// A chain in order.
pub(super) struct Chain<'a> {
    /// The leaf, then each one's issuer; without a root above the leaf.
    pub(super) path: Vec<Certificate<'a>>,
    /// Whether the leaf has signed itself.
    pub(super) self_signed: bool,
    pub(super) warnings: Vec<String>,
}

impl<'a> Certificate<'a> {
    /// Reads one; `number` counts from 1 for the message.
    pub(super) fn read(der: &'a CertificateDer<'static>, number: usize) -> Result<Self, Fault> {
        let bad = |why: &str| {
            invalid(format!("Certificate {number} of the text {why}. Export it again from where it comes from."))
        };
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|_| bad("is not an X.509 certificate"))?;
        if !rest.is_empty() {
            return Err(bad("has other bytes after its end"));
        }
        Ok(Self { der, parsed })
    }

    pub(super) fn subject(&self) -> String {
        shown(self.parsed.subject())
    }

    pub(super) fn issuer(&self) -> String {
        shown(self.parsed.issuer())
    }

    fn is_self_issued(&self) -> bool {
        self.parsed.subject().as_raw() == self.parsed.issuer().as_raw()
    }

    fn names_as_issuer(&self, other: &Self) -> bool {
        self.parsed.issuer().as_raw() == other.parsed.subject().as_raw()
    }

    /// Whether the key of `issuer` made this one's signature.
    fn is_signed_by(&self, issuer: &Self) -> bool {
        let raw_key = tlv(issuer.parsed.public_key().raw).and_then(|(key, _)| tlv(key));
        let (Some((key_algorithm, _)), Some(algorithm)) = (raw_key, self.signature_algorithm()) else { return false };
        let (key, signature) = (&issuer.parsed.public_key().subject_public_key.data, &self.parsed.signature_value.data);
        let message = self.parsed.tbs_certificate.as_ref();
        let mut fitting = algorithms().filter(|candidate| {
            *candidate.public_key_alg_id() == *key_algorithm && *candidate.signature_alg_id() == *algorithm
        });
        fitting.any(|candidate| candidate.verify_signature(key, message, signature).is_ok())
    }

    /// The algorithm of its signature with its parameters, DER.
    fn signature_algorithm(&self) -> Option<&[u8]> {
        let (body, _) = tlv(self.der)?;
        let (_, after_body) = tlv(body)?;
        tlv(after_body).map(|(algorithm, _)| algorithm)
    }

    /// Whether its signature is of a kind that clients take.
    fn check_signature(&self) -> Result<(), Fault> {
        let (subject, algorithm) = (self.subject(), &self.parsed.signature_algorithm.algorithm);
        if let Some(why) = weak_signature(algorithm) {
            let message =
                format!("The certificate '{subject}' is signed with {why}. Have it issued again with SHA-256.");
            return Err(Fault::invalid("WeakSignature", message));
        }
        let given = self.signature_algorithm();
        if algorithms().any(|known| given.is_some_and(|given| *known.signature_alg_id() == *given)) {
            return Ok(());
        }
        Err(invalid(format!(
            "The certificate '{subject}' is signed with an algorithm ({algorithm}) or with parameters that TLS clients do \
             not take. Have it issued again with SHA-256."
        )))
    }

    /// Whether its dates and its key are good.
    pub(super) fn check(&self, now: Timestamp) -> Result<(), Fault> {
        let subject = self.subject();
        let validity = self.parsed.validity();
        let date = |seconds| {
            let moment = Timestamp::from_second(seconds);
            moment.map_err(|_| invalid(format!("The dates of the certificate '{subject}' are out of range.")))
        };
        let (from, until) = (date(validity.not_before.timestamp())?, date(validity.not_after.timestamp())?);
        if until < now {
            let message = format!("The certificate '{subject}' expired at {until}. Get a new one from its issuer.");
            return Err(Fault::invalid("CertificateExpired", message));
        }
        if from > now {
            let message = format!("The certificate '{subject}' is not valid before {from}; it is {now} now.");
            return Err(Fault::invalid("CertificateNotYetValid", message));
        }
        self.check_key()
    }

    /// Whether its key is of a kind that is served.
    pub(super) fn check_key(&self) -> Result<(), Fault> {
        bad_key(&self.parsed).map_or(Ok(()), |why| {
            let message = format!(
                "The key of the certificate '{}' {why}. Use ECDSA P-256 or RSA with 2048 bits.",
                self.subject()
            );
            Err(Fault::invalid("WeakKey", message))
        })
    }

    /// Whether it may sign certificates with `below` others between it and the leaf.
    fn check_issuer(&self, below: usize) -> Result<(), Fault> {
        let constraints = self.parsed.basic_constraints().ok().flatten().map(|found| found.value);
        let usage = self.parsed.key_usage().ok().flatten().map(|found| found.value);
        let long = constraints.and_then(|found| found.path_len_constraint).is_some_and(|most| (most as usize) < below);
        let why = if !constraints.is_some_and(|found| found.ca) {
            "is not one of a certificate authority"
        } else if usage.is_some_and(|usage| !usage.key_cert_sign()) {
            "may not sign certificates, as its key usage says"
        } else if long {
            "does not allow so long a chain below it"
        } else {
            return Ok(());
        };
        Err(invalid(format!("The certificate '{}' stands in the chain as an issuer, but {why}.", self.subject())))
    }
}

/// Puts the certificates in order, beginning with the one at `leaf`.
///
/// # Errors
/// When the chain has a gap, when a name fits and the signature does not, or when one of them is no issuer.
pub(super) fn order<'a>(mut given: Vec<Certificate<'a>>, leaf: usize) -> Result<Chain<'a>, Fault> {
    let mut warnings = Vec::new();
    let sequence: Vec<CertificateDer<'static>> = given.iter().map(|one| one.der.clone()).collect();
    let mut path = vec![given.remove(leaf)];
    given.retain(|one| path[0].der != one.der);
    let mut ended = false;
    loop {
        let last = path.last().expect("a path has its leaf");
        if last.is_self_issued() && path.len() > 1 {
            // Nobody looks at a root's own signature.
            ended = true;
            break;
        }
        last.check_signature()?;
        if last.is_self_issued() {
            if !last.is_signed_by(last) {
                let subject = last.subject();
                let message =
                    format!("The certificate '{subject}' names itself as its issuer, but its key did not sign it.");
                return Err(invalid(message + " It is damaged; make it again."));
            }
            ended = true;
            break;
        }
        let Some(at) = issuer_of(last, &given)? else { break };
        let next = given.remove(at);
        next.check_issuer(path.len() - 1)?;
        given.retain(|one| next.der != one.der);
        path.push(next);
    }
    let self_signed = ended && path.len() == 1;
    if path.len() > 1 && ended {
        let root = path.pop().map(|root| root.subject()).unwrap_or_default();
        warnings.push(format!("The root certificate '{root}' is left out of what is served: clients have it already."));
    } else if !self_signed && (path.len() == 1 || !given.is_empty()) {
        return Err(incomplete(path.last().expect("a path has its leaf")));
    }
    for one in &given {
        warnings.push(format!("The certificate '{}' is not part of the chain and is left out.", one.subject()));
    }
    let position = |one: &Certificate<'_>| sequence.iter().position(|der| der == one.der);
    if !path.iter().map(position).is_sorted() || leaf != 0 && given.is_empty() {
        warnings.push("The chain was not in order; it is served in order, the certificate itself first.".to_owned());
    }
    Ok(Chain { path, self_signed, warnings })
}

/// Where the issuer of `last` is among the others.
fn issuer_of(last: &Certificate<'_>, others: &[Certificate<'_>]) -> Result<Option<usize>, Fault> {
    let mut named = others.iter().enumerate().filter(|(_, other)| last.names_as_issuer(other)).peekable();
    if named.peek().is_none() {
        return Ok(None);
    }
    match named.find(|(_, other)| last.is_signed_by(other)) {
        Some((at, _)) => Ok(Some(at)),
        None => Err(invalid(format!(
            "The certificate '{}' names '{}' as its issuer, but the certificate of that name in the chain did not sign \
             it: it has another key, or one of the two is damaged. Get the issuer's present certificate.",
            last.subject(),
            last.issuer()
        ))),
    }
}

fn incomplete(last: &Certificate<'_>) -> Fault {
    Fault::invalid(
        "IncompleteCertificateChain",
        format!(
            "The chain is incomplete: the certificate of '{}', which issued '{}', is missing. Append it to the \
             certificate's text; if it is a root, append it all the same, and it will be left out of what is served.",
            last.issuer(),
            last.subject()
        ),
    )
}

pub(super) fn invalid(message: impl Into<String>) -> Fault {
    Fault::invalid("InvalidCertificate", message)
}

/// A name for a message: one line, not too long.
fn shown(name: &X509Name<'_>) -> String {
    let text = name.to_string();
    let plain = text.chars().map(|letter| if letter.is_control() { '?' } else { letter });
    let short: String = plain.take(SHOWN).collect();
    if short.is_empty() { "(no subject)".to_owned() } else { short }
}

/// Content and rest of the DER value at the start of `bytes`.
fn tlv(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, mut rest) = bytes.get(1..)?.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let (digits, after) =
            rest.split_at_checked(usize::from(first & 0x7f)).filter(|(digits, _)| digits.len() <= 4)?;
        length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
        rest = after;
    }
    rest.split_at_checked(length)
}

/// The algorithms of signatures that clients take.
fn algorithms() -> impl Iterator<Item = &'static dyn SignatureVerificationAlgorithm> {
    default_provider().signature_verification_algorithms.all.iter().copied()
}

/// What is wrong with a signature's algorithm.
fn weak_signature(algorithm: &Oid<'_>) -> Option<&'static str> {
    match algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.2" | "1.2.840.113549.1.1.3" => Some("MD2 or MD4, which is broken"),
        "1.2.840.113549.1.1.4" => Some("MD5, which is broken"),
        "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" | "1.2.840.10040.4.3" | "1.3.14.3.2.29" => {
            Some("SHA-1, which is broken")
        }
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => Some("SHA-224, which clients do not take"),
        _ => None,
    }
}

/// What is wrong with a certificate's key.
fn bad_key(certificate: &X509Certificate<'_>) -> Option<String> {
    let key = certificate.public_key();
    match key.algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.1" | "1.2.840.113549.1.1.10" => {
            let Ok(PublicKey::RSA(rsa)) = key.parsed() else { return Some("can't be read".to_owned()) };
            let modulus = rsa.modulus.iter().skip_while(|byte| **byte == 0);
            let bits =
                modulus.clone().count() * 8 - modulus.clone().next().map_or(0, |byte| byte.leading_zeros() as usize);
            (!RSA_BITS.contains(&bits)).then(|| format!("is RSA with {bits} bits, and {RSA_BITS:?} are served"))
        }
        "1.2.840.10045.2.1" => {
            let curve = key.algorithm.parameters.as_ref().and_then(|found| found.as_oid().ok());
            let curve = curve.map_or_else(|| "without a name".to_owned(), |curve| curve.to_id_string());
            match curve.as_str() {
                "1.2.840.10045.3.1.7" | "1.3.132.0.34" | "1.3.132.0.35" => None,
                "1.3.132.0.33" => {
                    Some("is on the curve P-224, which is too weak and which TLS does not serve".to_owned())
                }
                "1.3.132.0.10" => Some("is on the curve secp256k1, which TLS does not serve".to_owned()),
                other => Some(format!("is on a curve ({other}) that TLS does not serve")),
            }
        }
        "1.3.101.112" => None,
        "1.2.840.10040.4.1" => Some("is a DSA key, which TLS no longer serves".to_owned()),
        other => Some(format!("is of a kind ({other}) that is not served")),
    }
}
