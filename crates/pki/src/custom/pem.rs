//! Reading what people give as a certificate or a key: PEM text, and a clear word on everything else. No message holds
//! any of the text.

use base64::prelude::{BASE64_STANDARD, Engine};
use casemate_model::{Fault, Secret};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// Longest text, in bytes.
pub(super) const MAX_BYTES: usize = 64 * 1024;
/// Most certificates in one text.
pub(super) const MAX_CERTIFICATES: usize = 10;
/// Most blocks that are looked at.
const MAX_BLOCKS: usize = 2 * MAX_CERTIFICATES;
/// Characters in a line of Base64.
const LINE: usize = 64;

/// One block between `-----BEGIN …-----` and `-----END …-----`.
struct Block {
    label: String,
    /// Whether a header says that the content is encrypted.
    encrypted: bool,
    der: Secret,
}

/// What a text is meant to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Certificate,
    Key,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Certificate => "The certificate",
            Self::Key => "The private key",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Certificate => "InvalidCertificate",
            Self::Key => "InvalidPrivateKey",
        }
    }

    fn fault(self, why: impl AsRef<str>) -> Fault {
        Fault::invalid(self.code(), format!("{} {}", self.name(), why.as_ref()))
    }
}

/// The certificates of a text, in its order; at least one.
pub(super) fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let part = Part::Certificate;
    let mut found = Vec::new();
    for block in blocks(part, text)? {
        match block.label.as_str() {
            "CERTIFICATE" | "X509 CERTIFICATE" => found.push(CertificateDer::from(block.der.expose().to_vec())),
            label if label.ends_with("PRIVATE KEY") => {
                return Err(part.fault(
                    "has a private key beside it in the same text. Give the certificate and its chain in one file, and \
                     the key in another.",
                ));
            }
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => {
                return Err(part.fault(
                    "is only a request for one (CSR). Send it to a certificate authority, and give here what comes back.",
                ));
            }
            "PKCS7" | "CMS" => {
                return Err(
                    part.fault("is a PKCS #7 bundle. Unpack it: openssl pkcs7 -print_certs -in FILE -out chain.pem")
                );
            }
            "TRUSTED CERTIFICATE" => {
                return Err(part.fault(
                    "is in OpenSSL's own form for trusted certificates. Convert it: openssl x509 -in FILE -out cert.pem",
                ));
            }
            _ => return Err(part.fault("has a block beside it that is neither a certificate nor a key. Remove it.")),
        }
    }
    if found.is_empty() || found.len() > MAX_CERTIFICATES {
        return Err(part.fault(format!("must be one of 1 to {MAX_CERTIFICATES} in its text: itself and its chain.")));
    }
    Ok(found)
}

/// The only key of a text.
pub(super) fn key(text: &Secret) -> Result<PrivateKeyDer<'static>, Fault> {
    let part = Part::Key;
    let mut found = None;
    for block in blocks(part, text.expose())? {
        if block.encrypted || block.label == "ENCRYPTED PRIVATE KEY" {
            let message = "is encrypted with a passphrase, and the platform can't ask for it. Take the passphrase off: \
                           openssl pkey -in FILE -out key.pem";
            return Err(Fault::invalid("EncryptedPrivateKey", format!("{} {message}", part.name())));
        }
        let der = block.der.expose().to_vec();
        let key = match block.label.as_str() {
            "PRIVATE KEY" => PrivateKeyDer::Pkcs8(der.into()),
            "RSA PRIVATE KEY" => PrivateKeyDer::Pkcs1(der.into()),
            "EC PRIVATE KEY" => PrivateKeyDer::Sec1(der.into()),
            // What `openssl ecparam -genkey` writes before a key.
            "EC PARAMETERS" => continue,
            label => return Err(part.fault(no_key(label))),
        };
        if found.replace(key).is_some() {
            return Err(part.fault("is one of several in its text. Give the one that belongs to the certificate."));
        }
    }
    found.ok_or_else(|| part.fault("is missing: the text has the parameters of a key only."))
}

fn no_key(label: &str) -> &'static str {
    match label {
        "CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => {
            "has a certificate in its text. Give the key alone, and the certificate in the other file."
        }
        "PUBLIC KEY" | "RSA PUBLIC KEY" => {
            "is only a public key. Give the private key that the certificate was made for."
        }
        "OPENSSH PRIVATE KEY" => "is in OpenSSH's own form. Convert a copy of it: ssh-keygen -p -N '' -m PKCS8 -f COPY",
        "DSA PRIVATE KEY" => "is a DSA key, which TLS no longer serves. Use an ECDSA P-256 or an RSA key.",
        _ => "has a block in its text that is no private key. Give the key alone.",
    }
}

/// The text's PEM blocks; at least one, and nothing after the last.
fn blocks(part: Part, text: &[u8]) -> Result<Vec<Block>, Fault> {
    if text.len() > MAX_BYTES {
        return Err(part.fault("is longer than 64 KiB. Give its PEM text and nothing else."));
    }
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    if text.trim_ascii().is_empty() {
        return Err(part.fault("is empty. Give its PEM text."));
    }
    let starts_der = |byte: &u8| byte & 0x80 != 0 || usize::from(*byte) + 2 == text.len();
    if text[0] == 0x30 && text.get(1).is_some_and(starts_der) {
        return Err(part.fault(binary(part, text)));
    }
    let Ok(text) = std::str::from_utf8(text) else {
        return Err(part.fault("is not text. Give it as PEM text, which starts with '-----BEGIN '."));
    };
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    let mut trailing = false;
    while let Some(line) = lines.next() {
        // Other text before a block explains it (RFC 7468).
        let Some(label) = boundary(line, "-----BEGIN ") else {
            trailing |= !line.trim().is_empty();
            continue;
        };
        trailing = false;
        if blocks.len() == MAX_BLOCKS {
            return Err(part.fault(format!("has more than {MAX_BLOCKS} PEM blocks in its text.")));
        }
        blocks.push(block(part, label, &mut lines)?);
    }
    if blocks.is_empty() {
        return Err(part.fault("is not PEM: no line of it is '-----BEGIN …-----'."));
    }
    if trailing {
        return Err(
            part.fault("has other text after its last PEM block. Was the file cut off or joined? Remove that text.")
        );
    }
    Ok(blocks)
}

/// Reads the rest of a block.
fn block<'a>(part: Part, label: &str, lines: &mut impl Iterator<Item = &'a str>) -> Result<Block, Fault> {
    let (mut body, mut encrypted) = (Vec::new(), false);
    for line in lines {
        if let Some(end) = boundary(line, "-----END ") {
            if end != label {
                return Err(part.fault("has a PEM block in its text that begins and ends with different labels."));
            }
            // With a header that says so, the content is of no use here.
            let body = Secret::new(body);
            let der = if encrypted { Ok(Vec::new()) } else { BASE64_STANDARD.decode(body.expose()) };
            let der = der.map_err(|_| part.fault("has a PEM block in its text that is not Base64; it is damaged."))?;
            return Ok(Block { label: label.to_owned(), encrypted, der: Secret::new(der) });
        }
        if line.contains("-----BEGIN ") {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            encrypted |= name.trim() == "Proc-Type" && value.contains("ENCRYPTED");
            continue;
        }
        body.extend(line.bytes().filter(|byte| !byte.is_ascii_whitespace()));
    }
    // Wiped, since it may be a part of a key.
    drop(Secret::new(body));
    Err(part.fault("has a PEM block in its text without its end; the file was cut off."))
}

/// The label of a line that begins or ends a block.
fn boundary<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.trim().strip_prefix(start)?.strip_suffix("-----")
}

/// What to say of binary DER.
fn binary(part: Part, der: &[u8]) -> &'static str {
    match part {
        Part::Certificate if X509Certificate::from_der(der).is_ok() => {
            "is binary (DER) and must be PEM text. Convert it: openssl x509 -inform der -in FILE -out cert.pem"
        }
        Part::Certificate => {
            "is binary and must be PEM text. If it is a PKCS #12 file (.pfx, .p12), unpack it: openssl pkcs12 -in FILE \
             -nokeys -out chain.pem"
        }
        Part::Key => "is binary (DER) and must be PEM text. Convert it: openssl pkey -inform der -in FILE -out key.pem",
    }
}

/// PEM text of certificates.
pub(super) fn write(certificates: &[CertificateDer<'_>]) -> String {
    let mut text = String::new();
    for certificate in certificates {
        armour(&mut text, "CERTIFICATE", certificate);
    }
    text
}

/// PEM text of a key, with nothing around it.
pub(super) fn write_key(key: &PrivateKeyDer<'_>) -> Secret {
    let (label, der) = match key {
        PrivateKeyDer::Pkcs1(der) => ("RSA PRIVATE KEY", der.secret_pkcs1_der()),
        PrivateKeyDer::Sec1(der) => ("EC PRIVATE KEY", der.secret_sec1_der()),
        other => ("PRIVATE KEY", other.secret_der()),
    };
    let mut text = String::with_capacity(der.len() * 3 / 2 + 100);
    armour(&mut text, label, der);
    Secret::from(text)
}

fn armour(text: &mut String, label: &str, der: &[u8]) {
    let body = Secret::from(BASE64_STANDARD.encode(der));
    let body = body.expose_str().expect("Base64 is text");
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for at in (0..body.len()).step_by(LINE) {
        text.push_str(&body[at..body.len().min(at + LINE)]);
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
}
