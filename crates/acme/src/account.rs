//! The account at the authority: made once, kept encrypted, found again after any crash.
//!
//! A new account's key is stored before the authority hears of it, and an authority that is shown a key it knows answers
//! with the account of that key: whenever the process is killed, the next start finds the same account. Only a first
//! account that is bound to an external one is made in one step with its key, as the library has it: a process killed
//! between the authority's answer and the next statement leaves an unused account there.

use std::sync::Arc;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use casemate_model::{Fault, Secret};
use casemate_pki::{BoxFuture, IssueError};
use instant_acme::{Account, ExternalAccountKey, Key, NewAccount};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::{AcmeConfig, failure::Explain, http::Http, order::persist};

/// Where accounts are kept, encrypted. Each has a text that names it and its directory.
pub trait AccountStore: Send + Sync {
    /// The account at this directory; none when there is none yet.
    fn load<'a>(&'a self, directory: &'a str) -> BoxFuture<'a, Result<Option<Secret>, Fault>>;

    /// Keeps the account at this directory in place of an earlier one; it is durable when this returns.
    fn save<'a>(&'a self, directory: &'a str, account: &'a Secret) -> BoxFuture<'a, Result<(), Fault>>;
}

/// What is kept of an account.
#[derive(Clone, Serialize, Deserialize)]
struct Kept {
    /// The account's address; none as long as the authority may not know the key.
    id: Option<String>,
    /// PKCS #8, base64url.
    key: Secret64,
    /// The contacts that the authority knows.
    contacts: Vec<String>,
}

/// Bytes of a key as text, for the JSON that is kept.
#[derive(Clone)]
struct Secret64(Secret);

impl Serialize for Secret64 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0.expose()))
    }
}

impl<'de> Deserialize<'de> for Secret64 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| serde::de::Error::custom("no base64url"))?;
        Ok(Self(Secret::new(bytes)))
    }
}

/// The account of one issuer.
pub(crate) struct Accounts {
    store: Arc<dyn AccountStore>,
    known: Mutex<Option<Kept>>,
}

impl Accounts {
    pub(crate) fn new(store: Arc<dyn AccountStore>) -> Self {
        Self { store, known: Mutex::new(None) }
    }

    /// The account, made at the first use. While one order makes it, the others wait.
    pub(crate) async fn account(
        &self,
        config: &AcmeConfig,
        http: &Http,
        explain: &Explain<'_>,
    ) -> Result<Account, IssueError> {
        let mut known = self.known.lock().await;
        if known.is_none() {
            *known = self.load(config).await?;
        }
        if let Some(kept) = known.as_ref()
            && kept.contacts == config.contacts
            && let Some(id) = kept.id.clone()
        {
            let key = PrivatePkcs8KeyDer::from(kept.key.0.expose().to_vec());
            // Others need not wait while the directory is read.
            drop(known);
            return open(config, http, explain, id, key).await;
        }
        let (account, mut kept) = match known.take() {
            Some(Kept { id: Some(id), key, contacts }) => {
                let der = PrivatePkcs8KeyDer::from(key.0.expose().to_vec());
                let account = open(config, http, explain, id.clone(), der).await?;
                (account, Kept { id: Some(id), key, contacts })
            }
            _ if config.external_account.is_some() => self.bound(config, http, explain).await?,
            unregistered => self.registered(config, http, explain, unregistered.map(|kept| kept.key)).await?,
        };
        if kept.contacts != config.contacts {
            let contacts: Vec<&str> = config.contacts.iter().map(String::as_str).collect();
            let told = persist!(account.update_contacts(&contacts));
            told.map_err(|error| explain.error(error, "the account's contacts"))?;
            kept.contacts.clone_from(&config.contacts);
        }
        self.save(config, &kept).await?;
        *known = Some(kept);
        Ok(account)
    }

    /// Notes that the authority does not know the account: its key is registered again at the next use. `id` is the one
    /// that was refused; a newer one stays.
    pub(crate) async fn forget(&self, id: &str) {
        let mut known = self.known.lock().await;
        if let Some(kept) = known.as_mut()
            && kept.id.as_deref() == Some(id)
        {
            kept.id = None;
            kept.contacts.clear();
        }
    }

    /// The account as it is known, for questions that are not worth making one.
    pub(crate) async fn existing(
        &self,
        config: &AcmeConfig,
        http: &Http,
        explain: &Explain<'_>,
    ) -> Result<Option<Account>, IssueError> {
        let mut known = self.known.lock().await;
        if known.is_none() {
            *known = self.load(config).await?;
        }
        let Some(Kept { id: Some(id), key, .. }) = known.clone() else { return Ok(None) };
        drop(known);
        let key = PrivatePkcs8KeyDer::from(key.0.expose().to_vec());
        open(config, http, explain, id, key).await.map(Some)
    }

    /// A new account with a key that is kept first.
    async fn registered(
        &self,
        config: &AcmeConfig,
        http: &Http,
        explain: &Explain<'_>,
        key: Option<Secret64>,
    ) -> Result<(Account, Kept), IssueError> {
        let key = match key {
            Some(key) => key,
            None => {
                let (_, der) = Key::generate_pkcs8().map_err(|error| explain.error(error, "a new account"))?;
                Secret64(Secret::new(der.secret_pkcs8_der()))
            }
        };
        let mut kept = Kept { id: None, key, contacts: Vec::new() };
        self.save(config, &kept).await?;
        let directory = config.directory.as_str().to_owned();
        let der = PrivatePkcs8KeyDer::from(kept.key.0.expose().to_vec());
        let made = persist!({
            let key = Key::from_pkcs8_der(der.clone_key()).map_err(|error| explain.error(error, "a new account"))?;
            let key = (key, PrivateKeyDer::Pkcs8(der.clone_key()));
            Account::builder_with_http(http.boxed()).create_from_key(key, directory.clone())
        });
        let (account, _) = made.map_err(|error| explain.error(error, "a new account"))?;
        kept.id = Some(account.id().to_owned());
        Ok((account, kept))
    }

    /// A new account that is bound to the configured external one.
    async fn bound(
        &self,
        config: &AcmeConfig,
        http: &Http,
        explain: &Explain<'_>,
    ) -> Result<(Account, Kept), IssueError> {
        let binding = config.external_account.as_ref();
        let binding = binding.map(|outer| ExternalAccountKey::new(outer.key_id.clone(), outer.key.expose()));
        let contacts: Vec<&str> = config.contacts.iter().map(String::as_str).collect();
        let new = NewAccount { contact: &contacts, terms_of_service_agreed: true, only_return_existing: false };
        let directory = config.directory.as_str().to_owned();
        let made =
            persist!({ Account::builder_with_http(http.boxed()).create(&new, directory.clone(), binding.as_ref()) });
        let (account, credentials) = made.map_err(|error| explain.error(error, "a new account"))?;
        let key = Secret64(Secret::new(credentials.private_key().secret_pkcs8_der()));
        let kept = Kept { id: Some(account.id().to_owned()), key, contacts: config.contacts.clone() };
        Ok((account, kept))
    }

    async fn load(&self, config: &AcmeConfig) -> Result<Option<Kept>, IssueError> {
        let Some(text) = self.store.load(config.directory.as_str()).await? else { return Ok(None) };
        serde_json::from_slice(text.expose()).map(Some).map_err(|_| {
            let message = format!(
                "ACME: the stored account at {} can't be read. Restore the state directory from a backup.",
                config.host()
            );
            Fault::internal(message).into()
        })
    }

    async fn save(&self, config: &AcmeConfig, kept: &Kept) -> Result<(), IssueError> {
        let text = serde_json::to_vec(kept).map_err(|error| Fault::internal(format!("ACME: {error}.")))?;
        Ok(self.store.save(config.directory.as_str(), &Secret::new(text)).await?)
    }
}

async fn open(
    config: &AcmeConfig,
    http: &Http,
    explain: &Explain<'_>,
    id: String,
    key: PrivatePkcs8KeyDer<'static>,
) -> Result<Account, IssueError> {
    let directory = config.directory.as_str().to_owned();
    let opened = Account::builder_with_http(http.boxed()).from_parts(id, key, directory).await;
    opened.map_err(|error| explain.error(error, "its directory"))
}
