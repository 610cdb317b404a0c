//! A certificate that somebody brings: looked at from every side before it is served, so that a mistake shows when it
//! is made and not at the callers. What is refused changes nothing; what is only unusual is accepted with a warning.

mod chain;
mod pem;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use casemate_model::{Fault, Secret};
use jiff::Timestamp;
use rustls::{
    CertificateError, RootCertStore,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::aws_lc_rs::default_provider,
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::{certificate::X509Certificate, extensions::ParsedExtension};

use self::chain::{Certificate, Chain, invalid};
use crate::{Leaf, name};

/// The code of a key that can't be used.
const UNUSABLE_KEY: &str = "InvalidPrivateKey";
/// Time to the end of the validity below which there is a warning.
const SHORT_LEFT: Duration = Duration::from_secs(30 * 24 * 3600);
/// Names of a certificate that a message shows at most.
const SHOWN_NAMES: usize = 10;
/// The certificate extension that asks for stapled OCSP answers (RFC 7633).
const TLS_FEATURE: &str = "1.3.6.1.5.5.7.1.24";

/// A certificate that may be served.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The certificate, its chain in order and without a root, and its key, all as clean PEM.
    pub leaf: Leaf,
    /// The subjects of what is served, in order.
    pub chain: Vec<String>,
    /// What its owner should know, in sentences.
    pub warnings: Vec<String>,
}

/// Checks a certificate chain and its key, both PEM, for serving `cname` (a DNS name or an IP literal) at `now`.
///
/// The chain may be out of order and may include its root. It is read, put in order and judged: signatures, dates, key
/// sizes and algorithms, what each certificate may be used for, and whether a client would accept it for `cname`.
///
/// # Errors
/// A `Fault` of kind `Invalid` that says what is wrong and how to mend it. Codes: `InvalidCertificate`,
/// `InvalidPrivateKey`, `EncryptedPrivateKey`, `CertificateKeyMismatch`, `IncompleteCertificateChain`,
/// `CertificateNameMismatch`, `CertificateExpired`, `CertificateNotYetValid`, `WeakKey`, `WeakSignature`. No message
/// holds any of the key.
pub fn check(chain: impl AsRef<[u8]>, key: &Secret, cname: &str, now: Timestamp) -> Result<Checked, Fault> {
    let ders = pem::certificates(chain.as_ref())?;
    let key = pem::key(key)?;
    let given = ders.iter().zip(1..).map(|(der, number)| Certificate::read(der, number));
    let given = given.collect::<Result<Vec<_>, _>>()?;
    let at = leaf_of(&ders, &key).or_else(|fault| {
        // A key that can't be loaded is most likely one of a kind that is not served: better said by its name.
        if fault.code == UNUSABLE_KEY {
            given.iter().try_for_each(Certificate::check_key)?
        }
        Err(fault)
    })?;
    let Chain { path, self_signed, mut warnings } = chain::order(given, at)?;
    path.iter().try_for_each(|one| one.check(now))?;
    let leaf = &path[0];
    warnings.extend(uses(leaf, self_signed)?);
    let served: Vec<CertificateDer<'static>> = path.iter().map(|one| one.der.clone()).collect();
    let loaded = Leaf::load(pem::write(&served), pem::write_key(&key)).map_err(Fault::from)?;
    covers(&loaded.names, &leaf.parsed, cname)?;
    if self_signed {
        warnings.push(
            "The certificate is self-signed: callers reach the service only if they are given this certificate as one to \
             trust."
                .to_owned(),
        );
    } else {
        as_client(&served, cname, now)?;
    }
    if loaded.not_after.duration_since(now).unsigned_abs() < SHORT_LEFT {
        warnings.push(format!("The certificate expires at {}; bring its successor before that.", loaded.not_after));
    }
    Ok(Checked { chain: path.iter().map(Certificate::subject).collect(), leaf: loaded, warnings })
}

/// Which certificate the key belongs to.
fn leaf_of(ders: &[CertificateDer<'static>], key: &PrivateKeyDer<'static>) -> Result<usize, Fault> {
    let unusable = || {
        let message = "The private key can't be used: it is damaged, too weak, or of a kind that TLS does not serve. Use \
                       ECDSA P-256, or RSA with 2048 bits or more, and have the certificate issued for it.";
        Fault::invalid(UNUSABLE_KEY, message)
    };
    let signing = default_provider().key_provider.load_private_key(key.clone_key()).map_err(|_| unusable())?;
    let fits =
        |der: &CertificateDer<'static>| CertifiedKey::new(vec![der.clone()], Arc::clone(&signing)).keys_match().is_ok();
    ders.iter().position(fits).ok_or_else(|| {
        let message = "The private key belongs to none of the certificates in the text. Give the key that the \
                       certificate was requested with, or request a new certificate with this key.";
        Fault::invalid("CertificateKeyMismatch", message)
    })
}

/// What the certificate may be used for; gives warnings.
fn uses(leaf: &Certificate<'_>, self_signed: bool) -> Result<Vec<String>, Fault> {
    let subject = leaf.subject();
    let mut warnings = Vec::new();
    let unreadable = |what: &str| invalid(format!("The {what} of the certificate '{subject}' can't be read."));
    let extended = leaf.parsed.extended_key_usage().map_err(|_| unreadable("extended key usage"))?;
    if extended.is_some_and(|extended| !extended.value.server_auth) {
        return Err(invalid(format!(
            "The certificate '{subject}' is not one for servers: its extended key usage lacks serverAuth. Have it issued \
             for a TLS server."
        )));
    }
    if leaf.parsed.is_ca() {
        if !self_signed {
            return Err(invalid(format!(
                "The certificate '{subject}' is one of a certificate authority (CA:TRUE), which clients refuse as a \
                 server's. Have one issued for the service."
            )));
        }
        warnings.push(
            "The certificate says that it is an authority's (CA:TRUE); some clients refuse that of a server."
                .to_owned(),
        );
    }
    let usage = leaf.parsed.key_usage().map_err(|_| unreadable("key usage"))?;
    if usage.is_some_and(|usage| !usage.value.digital_signature()) {
        warnings.push("Its key usage lacks digitalSignature; some clients refuse it.".to_owned());
    }
    if leaf.parsed.extensions().iter().any(|extension| extension.oid.to_id_string() == TLS_FEATURE) {
        warnings.push("It asks for stapled OCSP answers, which are not served; some clients refuse it.".to_owned());
    }
    let critical = leaf.parsed.extensions().iter().find(|extension| {
        extension.critical && matches!(extension.parsed_extension(), ParsedExtension::UnsupportedExtension { .. })
    });
    if let Some(critical) = critical {
        let oid = critical.oid.to_id_string();
        warnings.push(format!("It has a critical extension ({oid}) that few clients know; they refuse it."));
    }
    Ok(warnings)
}

/// Whether a certificate for these names is good for `cname` (RFC 9525): the same name, or a wildcard for just its first
/// label. The subject's common name does not count.
fn covers(names: &[String], leaf: &X509Certificate<'_>, cname: &str) -> Result<(), Fault> {
    let cname = name::canonical(cname).map_err(Fault::from)?;
    if names.iter().any(|pattern| matches(pattern, &cname)) {
        return Ok(());
    }
    let mut common = leaf.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let by_common_name = common.any(|name| matches(&name.to_ascii_lowercase(), &cname));
    let has = match names {
        [] => "no names".to_owned(),
        names => {
            let shown: Vec<&str> = names.iter().take(SHOWN_NAMES).map(String::as_str).collect();
            let more = if names.len() > SHOWN_NAMES { ", …" } else { "" };
            format!("the names {}{more}", shown.join(", "))
        }
    };
    let why =
        if by_common_name { " It stands in the common name of the subject, which clients do not look at." } else { "" };
    let message = format!(
        "The certificate is not good for '{cname}': it has {has} as subject alternative names.{why} Have it issued with a \
         subject alternative name for '{cname}', or give a cname that it has."
    );
    Err(Fault::invalid("CertificateNameMismatch", message))
}

/// Whether a pattern, which may begin with a wildcard for one label, stands for a canonical name.
fn matches(pattern: &str, name: &str) -> bool {
    let Some(rest) = pattern.strip_prefix("*.") else { return pattern == name };
    let below = name.split_once('.').filter(|(first, _)| !first.is_empty() && *first != "*");
    pattern == name || rest.contains('.') && below.is_some_and(|(_, parent)| parent == rest)
}

/// What a client that trusts the chain's upper end says.
fn as_client(served: &[CertificateDer<'static>], cname: &str, now: Timestamp) -> Result<(), Fault> {
    let refused =
        |why: String| invalid(format!("A client that trusts the issuer would refuse the certificate: {why}."));
    let Some((anchor, below)) = served.split_last().filter(|(_, below)| !below.is_empty()) else {
        // Issued by a root directly, whose signature is checked.
        return Ok(());
    };
    let name = name::canonical(cname).map_err(Fault::from)?.replacen('*', "any", 1);
    let name = ServerName::try_from(name).map_err(|_| refused("its name can't be asked for".to_owned()))?;
    let mut roots = RootCertStore::empty();
    roots.add(anchor.clone()).map_err(|error| refused(error.to_string()))?;
    let client = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider())).build();
    let client = client.map_err(|error| refused(error.to_string()))?;
    let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0)));
    client.verify_server_cert(&below[0], &below[1..], &name, &[], now).map(drop).map_err(|error| match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => refused(other.to_string()),
        other => refused(other.to_string()),
    })
}
