//! What is configured, checked before anything is asked of an authority.

use std::time::Duration;

use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use casemate_model::{Fault, Secret};
use url::Url;

/// Base64url as authorities hand keys out: with or without padding.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Shortest key of an external account, in bytes: less is no key but a mistake.
const SHORTEST_KEY: usize = 16;

/// How names are proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChallengeKind {
    /// By a file that the authority gets over HTTP at port 80.
    Http01,
    /// By a certificate that the authority sees at port 443 (RFC 8737).
    TlsAlpn01,
    /// By a TXT record. The only way to a wildcard.
    Dns01,
}

impl ChallengeKind {
    /// Its name in ACME.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01 => "dns-01",
        }
    }
}

/// A customer's account at the authority, which a new ACME account is bound to (RFC 8555, section 7.3.4).
#[derive(Debug, Clone)]
pub struct ExternalAccount {
    pub(crate) key_id: String,
    pub(crate) key: Secret,
}

impl ExternalAccount {
    /// Reads the key as the authority hands it out: base64url text.
    ///
    /// # Errors
    /// When there is no key id, or the key is not base64url or too short. The message has nothing of the key.
    pub fn new(key_id: &str, encoded: &Secret) -> Result<Self, Fault> {
        let bad = |why: &str, what: &str| {
            let message = format!("The external account can't be used: {why}. Give {what} as the authority shows it.");
            Fault::invalid("InvalidExternalAccount", message)
        };
        let key_id = key_id.trim();
        if key_id.is_empty() || key_id.len() > 1024 {
            return Err(bad("its key id needs 1 to 1024 characters", "the key id").at("--acme-eab-kid"));
        }
        let bad_key = |why: &str| bad(why, "the key").at("--acme-eab-key-file");
        let text = encoded.expose_str().map_err(|_| bad_key("its key is not text"))?.trim();
        let key = BASE64URL.decode(text).map(Secret::new).map_err(|_| bad_key("its key is not base64url"))?;
        if key.expose().len() < SHORTEST_KEY {
            return Err(bad_key(&format!("its key has less than {SHORTEST_KEY} bytes")));
        }
        Ok(Self { key_id: key_id.to_owned(), key })
    }
}

/// How long things may take and how many may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// One request with its answer.
    pub request: Duration,
    /// The authority's look at the challenges, and again its signing of the certificate.
    pub processing: Duration,
    /// One order from beginning to end.
    pub order: Duration,
    /// Waiting for a place among the orders that run.
    pub queue: Duration,
    /// Orders that run at a time.
    pub orders: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            processing: Duration::from_secs(120),
            order: Duration::from_secs(360),
            queue: Duration::from_secs(1800),
            orders: 4,
        }
    }
}

/// An authority, and how to deal with it.
#[derive(Debug, Clone)]
pub struct AcmeConfig {
    pub(crate) directory: Url,
    /// The certificates that the authority's own server must come from, PEM; `None`: those that this machine trusts.
    pub root_pem: Option<Vec<u8>>,
    pub(crate) contacts: Vec<String>,
    /// How names are proven.
    pub challenge: ChallengeKind,
    /// The customer's account at the authority, where it wants one.
    pub external_account: Option<ExternalAccount>,
    /// Which of the authority's profiles of certificates is wanted; `None`: its default.
    pub profile: Option<String>,
    /// Bounds.
    pub limits: Limits,
}

impl AcmeConfig {
    /// The authority with this directory.
    ///
    /// # Errors
    /// When the address can't be one.
    pub fn new(directory: &str, challenge: ChallengeKind) -> Result<Self, Fault> {
        // What stands before an @ may be a password.
        let shown = directory.rsplit('@').next().unwrap_or(directory);
        let bad = |why: &str| {
            let message = format!(
                "'{shown}' is no ACME directory: {why}. Give the address that the authority documents, such as https://acme-v02.api.letsencrypt.org/directory."
            );
            Fault::invalid("InvalidAcmeDirectory", message).at("--acme-directory")
        };
        let url = Url::parse(directory).map_err(|error| bad(&error.to_string()))?;
        if url.scheme() != "https" {
            return Err(bad("it must begin with https://"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(bad("it has a user, a password or a fragment"));
        }
        Ok(Self {
            directory: url,
            root_pem: None,
            contacts: Vec::new(),
            challenge,
            external_account: None,
            profile: None,
            limits: Limits::default(),
        })
    }

    /// Whom the authority may write to: mail addresses.
    ///
    /// # Errors
    /// Naming the one that is no mail address.
    pub fn with_contacts<'a>(mut self, contacts: impl IntoIterator<Item = &'a str>) -> Result<Self, Fault> {
        for contact in contacts {
            let address = contact.strip_prefix("mailto:").unwrap_or(contact);
            let plain = address.bytes().all(|byte| byte.is_ascii_graphic() && !b",?<>\"".contains(&byte));
            let halves = address.split_once('@').filter(|(user, host)| !user.is_empty() && host.contains('.'));
            if !plain || halves.is_none() || address.len() > 254 {
                let message = format!("'{contact}' is no mail address. Give one such as ops@example.org.");
                return Err(Fault::invalid("InvalidAcmeContact", message).at("--acme-contact"));
            }
            self.contacts.push(format!("mailto:{address}"));
        }
        Ok(self)
    }

    /// The host of the directory.
    #[must_use]
    pub fn host(&self) -> &str {
        self.directory.host_str().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories() {
        let config = AcmeConfig::new("https://ca.example:14000/dir", ChallengeKind::Dns01).unwrap();
        assert_eq!(config.host(), "ca.example");
        for (bad, told) in [
            ("http://ca.example/dir", "https://"),
            ("ca.example/dir", "relative"),
            ("https://", "empty host"),
            ("https://user:secret@ca.example/", "a user"),
            ("https://ca.example/#x", "a fragment"),
        ] {
            let fault = AcmeConfig::new(bad, ChallengeKind::Dns01).unwrap_err();
            assert!(fault.message.contains(told), "{bad}: {fault}");
            assert_eq!(fault.target.as_deref(), Some("--acme-directory"));
        }
    }

    #[test]
    fn contacts() {
        let config = || AcmeConfig::new("https://ca.example/dir", ChallengeKind::Http01).unwrap();
        let contacts = config().with_contacts(["ops@example.org", "mailto:a.b+c@example.org"]).unwrap().contacts;
        assert_eq!(contacts, ["mailto:ops@example.org", "mailto:a.b+c@example.org"]);
        for bad in ["", "ops", "@example.org", "ops@host", "a b@example.org", "tel:+123", "a@b.c,d@e.f", "mailto:"] {
            assert!(config().with_contacts([bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_of_external_accounts() {
        let key = |text: &str| ExternalAccount::new("kid-1", &Secret::from(text.to_owned()));
        for good in ["zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W\n", "AAECAwQFBgcICQoLDA0ODxA="] {
            assert!(key(good).is_ok(), "{good}");
        }
        for (bad, told) in [("", "less than 16"), ("c2VjcmV0", "less than 16"), ("not base64 at all!", "not base64url")]
        {
            let fault = key(bad).unwrap_err();
            assert!(fault.message.contains(told) && (bad.is_empty() || !fault.message.contains(bad)), "{fault}");
        }
        assert!(ExternalAccount::new(" ", &Secret::from("AAECAwQFBgcICQoLDA0ODxA".to_owned())).is_err());
        let good = key("zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W").unwrap();
        assert!(!format!("{good:?}").contains("205, 99"));
    }
}
