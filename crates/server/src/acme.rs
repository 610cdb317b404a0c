//! The ACME authority of a platform: its options read and checked, its account in the store.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result};
use casemate_acme::{AccountStore, AcmeConfig, AcmeIssuer, ChallengeKind, ExternalAccount};
use casemate_cli::{AcmeArgs, AcmeChallenge};
use casemate_model::{Fault, ResourceId, Secret, challenge::ChallengeBoard};
use casemate_pki::{BoxFuture, Issuer};
use casemate_store::Store;

/// The configured authority; none where certificates come from the built-in one. Asks nobody and changes nothing.
///
/// # Errors
/// When a file can't be read, or what it holds or an option says can't be used.
pub fn config(args: &AcmeArgs) -> Result<Option<AcmeConfig>> {
    let (Some(directory), Some(challenge)) = (&args.acme_directory, args.challenge()) else { return Ok(None) };
    let challenge = match challenge {
        AcmeChallenge::Http01 => ChallengeKind::Http01,
        AcmeChallenge::TlsAlpn01 => ChallengeKind::TlsAlpn01,
        AcmeChallenge::Dns01 => ChallengeKind::Dns01,
    };
    let mut config = AcmeConfig::new(directory, challenge).map_err(told)?;
    config = config.with_contacts(args.acme_contact.iter().map(String::as_str)).map_err(told)?;
    config.root_pem = args.acme_root.as_deref().map(|path| read("--acme-root", path)).transpose()?;
    config.profile.clone_from(&args.acme_profile);
    if let (Some(key_id), Some(path)) = (&args.acme_eab_kid, &args.acme_eab_key_file) {
        let key = Secret::new(read("--acme-eab-key-file", path)?);
        config.external_account = Some(ExternalAccount::new(key_id, &key).map_err(told)?);
    }
    Ok(Some(config))
}

/// The issuer at the authority, which shows its answers on `board`.
///
/// # Errors
/// When the root certificates can't be read.
pub fn issuer(
    config: AcmeConfig,
    board: &ChallengeBoard,
    store: &Store,
    owner: &ResourceId,
) -> Result<Arc<dyn Issuer>> {
    let accounts = Arc::new(Accounts { store: store.clone(), owner: owner.clone() });
    Ok(Arc::new(AcmeIssuer::new(config, board.clone(), accounts).map_err(told)?))
}

/// What a person is told at the start; the code is of no use there.
fn told(fault: Fault) -> anyhow::Error {
    anyhow::Error::msg(fault.message)
}

fn read(option: &str, path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| {
        format!("the file '{}' of {option} can't be read; give one that this user may read", path.display())
    })
}

/// Accounts in the store, each a secret of the platform.
struct Accounts {
    store: Store,
    owner: ResourceId,
}

impl Accounts {
    /// One secret for each directory: whoever goes from an authority's rehearsal to its real one and back keeps both.
    fn name(directory: &str) -> String {
        let digest = casemate_model::route::key_digest(directory.as_bytes());
        let short: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        format!("acme-account-{short}")
    }
}

impl AccountStore for Accounts {
    fn load<'a>(&'a self, directory: &'a str) -> BoxFuture<'a, Result<Option<Secret>, Fault>> {
        Box::pin(async move { Ok(self.store.secret_get(&self.owner, &Self::name(directory)).await?) })
    }

    fn save<'a>(&'a self, directory: &'a str, account: &'a Secret) -> BoxFuture<'a, Result<(), Fault>> {
        Box::pin(async move {
            let mut tx = self.store.begin().await?;
            tx.secret_put(&self.owner, &Self::name(directory), account).await?;
            Ok(tx.commit().await?)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

    #[test]
    fn options_are_checked_before_anything_is_done() {
        let files = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = files.path().join(name);
            std::fs::write(&path, text).unwrap();
            Some(path)
        };
        let usual = AcmeArgs { acme_directory: Some("https://ca.example/dir".to_owned()), ..AcmeArgs::default() };
        assert!(config(&AcmeArgs::default()).unwrap().is_none());
        let read = config(&usual).unwrap().unwrap();
        assert_eq!((read.host(), read.challenge), ("ca.example", ChallengeKind::Http01));
        let eab = |key| AcmeArgs { acme_eab_kid: Some("k".to_owned()), acme_eab_key_file: key, ..usual.clone() };
        assert!(config(&eab(file("good", KEY))).unwrap().unwrap().external_account.is_some());
        for (args, told) in [
            (eab(file("bad", "no key?")), "not base64url"),
            (eab(Some(files.path().join("none"))), "--acme-eab-key-file can't be read"),
            (AcmeArgs { acme_root: Some(files.path().join("none")), ..usual.clone() }, "--acme-root can't be read"),
            (AcmeArgs { acme_contact: vec!["nobody".to_owned()], ..usual.clone() }, "no mail address"),
        ] {
            let error = format!("{:#}", config(&args).unwrap_err());
            assert!(error.contains(told), "{error}");
        }
        let args = AcmeArgs { acme_root: file("empty", "no PEM"), ..usual };
        assert!(config(&args).unwrap().unwrap().root_pem.is_some());
    }

    #[tokio::test]
    async fn an_account_is_kept_for_each_directory() {
        let state = tempfile::tempdir().unwrap();
        let store = Store::open(state.path(), casemate_model::Clock::system()).await.unwrap();
        let owner = ResourceId::parse("/providers/Casemate.Platform/settings/platform").unwrap();
        let accounts = Accounts { store, owner };
        let (one, two) = ("https://ca.example/dir", "https://ca.example/staging");
        assert!(accounts.load(one).await.unwrap().is_none());
        accounts.save(one, &Secret::from("first")).await.unwrap();
        accounts.save(two, &Secret::from("second")).await.unwrap();
        accounts.save(one, &Secret::from("third")).await.unwrap();
        let kept = [accounts.load(one).await.unwrap().unwrap(), accounts.load(two).await.unwrap().unwrap()];
        assert!(kept == [Secret::from("third"), Secret::from("second")]);
    }
}
