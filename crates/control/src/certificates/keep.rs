//! What is kept of a certificate: the chain and the key as sealed secrets of the owner, the facts beside them.

use casemate_model::{
    Fault, OperationStatus, ResourceId, Secret,
    tls::{
        CERTIFICATE_FIELD, CLIENT_CA, CUSTOM_CHAIN, CUSTOM_KEY, CertificateAsk, CertificateFacts, CertificateRecord,
        SERVED_CHAIN, SERVED_KEY, SERVED_NAMES, TlsMode, TlsWish,
    },
};
use casemate_pki::{Leaf, TlsSettings, schedule};
use casemate_store::{Store, Tx};
use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::owner::{Owner, Step, Wanted};

/// How many custom certificates before the one that is served are looked for, to be removed.
const SUPERSEDED: u64 = 8;

/// An operation, its end, and its result.
pub(super) type Ended = (Uuid, OperationStatus, Option<Value>);

/// An owner with what was kept of it.
pub(super) async fn load(store: &Store, wanted: &Wanted<'_>, now: Timestamp) -> Result<Owner, Fault> {
    let mut record = wanted.row.map(CertificateRecord::of).unwrap_or_default();
    let found = proven(store, wanted.owner).await?;
    if let Some((names, leaf)) = &found
        && record.certificate.as_ref().is_none_or(|facts| facts.sha256 != leaf.sha256)
    {
        // Kept by a release that wrote no record.
        let ask = TlsWish::platform(names.clone()).ask();
        record.certificate = Some(facts(leaf, ask, "built-in", false));
        record.served = true;
    }
    if found.is_none() && record.certificate.take().is_some() {
        tracing::warn!(owner = %wanted.owner, "the certificate that was served is not kept any more; another is made");
        record.served = false;
    }
    if let Some((_, leaf)) = &found
        && now >= leaf.not_after
    {
        tracing::warn!(owner = %wanted.owner, not_after = %leaf.not_after, "the certificate that was served has ended");
    }
    Ok(Owner {
        wish: wanted.wish.clone(),
        generation: wanted.generation,
        settings: None,
        record,
        leaf: found.map(|(_, leaf)| leaf),
        step: Step::Rest,
        held: Vec::new(),
        window_asked: None,
        stood_in: false,
        warned: false,
    })
}

/// The facts of a certificate, with the time of its renewal unless only its owner can renew it.
pub(super) fn facts(leaf: &Leaf, ask: CertificateAsk, issuer: &str, provisional: bool) -> CertificateFacts {
    let name = ask.names.first().map(String::as_str).unwrap_or_default();
    let renewal = || schedule::renewal_at(leaf.not_before, leaf.not_after, name, None);
    CertificateFacts {
        issuer: issuer.to_owned(),
        serial: leaf.serial.clone(),
        sha256: leaf.sha256.clone(),
        not_before: leaf.not_before,
        not_after: leaf.not_after,
        next_renewal: (ask.mode == TlsMode::Platform).then(renewal),
        provisional,
        ask,
    }
}

/// The certificate that was last seen to be served, with its names; none when there is none or it can't be read.
async fn proven(store: &Store, owner: &ResourceId) -> Result<Option<(Vec<String>, Leaf)>, Fault> {
    let Some(names) = store.secret_get(owner, SERVED_NAMES).await? else { return Ok(None) };
    let chain = store.secret_get(owner, SERVED_CHAIN).await?;
    let key = store.secret_get(owner, SERVED_KEY).await?;
    let (Some(chain), Some(key), Ok(names)) = (chain, key, names.expose_str()) else { return Ok(None) };
    let Ok(chain) = chain.expose_str() else { return Ok(None) };
    match Leaf::load(chain.to_owned(), key) {
        Ok(leaf) => Ok(Some((names.split_whitespace().map(str::to_owned).collect(), leaf))),
        Err(error) => {
            tracing::error!(%owner, %error, "the certificate that was served can't be read");
            Ok(None)
        }
    }
}

/// The owner's own certificate of this version, as it was given.
pub(super) async fn custom(store: &Store, owner: &ResourceId, version: u64) -> Result<Option<(String, Secret)>, Fault> {
    let chain = store.secret_get(owner, &format!("{CUSTOM_CHAIN}-{version}")).await?;
    let key = store.secret_get(owner, &format!("{CUSTOM_KEY}-{version}")).await?;
    let (Some(chain), Some(key)) = (chain, key) else { return Ok(None) };
    Ok(chain.expose_str().ok().map(|chain| (chain.to_owned(), key)))
}

/// How an owner is to be served; none when that can't be read, which is told.
pub(super) async fn settings(store: &Store, wanted: &Wanted<'_>) -> Result<Option<TlsSettings>, Fault> {
    let clients = if wanted.wish.client_certificates { store.secret_get(wanted.owner, CLIENT_CA).await? } else { None };
    if wanted.wish.client_certificates && clients.is_none() {
        tracing::error!(owner = %wanted.owner, "not served: clients must show certificates, and nobody said whose");
        return Ok(None);
    }
    let clients = clients.as_ref().map(|clients| clients.expose_str().unwrap_or_default());
    match TlsSettings::new(wanted.wish.minimum, clients) {
        Ok(settings) => Ok(Some(settings)),
        Err(error) => {
            tracing::error!(owner = %wanted.owner, %error, "not served: the TLS settings can't be read");
            Ok(None)
        }
    }
}

/// Writes a certificate that was seen to be served, its record and the ends of operations, all or nothing. False when the
/// owner is gone, and nothing was written but the ends.
pub(super) async fn proof(
    store: &Store,
    owner: &ResourceId,
    leaf: &Leaf,
    ask: &CertificateAsk,
    record: &CertificateRecord,
    ended: &[Ended],
) -> Result<bool, Fault> {
    let mut tx = store.begin().await?;
    let is_there = observe(&mut tx, owner, record).await?;
    if is_there {
        tx.secret_put(owner, SERVED_CHAIN, &Secret::from(leaf.chain_pem.clone())).await?;
        tx.secret_put(owner, SERVED_KEY, &leaf.key_pem).await?;
        tx.secret_put(owner, SERVED_NAMES, &Secret::from(ask.names.join(" "))).await?;
        // Custom certificates before the one that is served now are of no use any more.
        for version in ask.version.saturating_sub(SUPERSEDED)..ask.version {
            tx.secret_remove(owner, &format!("{CUSTOM_CHAIN}-{version}")).await?;
            tx.secret_remove(owner, &format!("{CUSTOM_KEY}-{version}")).await?;
        }
    }
    end(&mut tx, ended).await?;
    tx.commit().await?;
    Ok(is_there)
}

/// Writes a record and the ends of operations, all or nothing.
pub(super) async fn record(
    store: &Store,
    owner: &ResourceId,
    record: &CertificateRecord,
    ended: &[Ended],
) -> Result<(), Fault> {
    let mut tx = store.begin().await?;
    observe(&mut tx, owner, record).await?;
    end(&mut tx, ended).await?;
    tx.commit().await?;
    Ok(())
}

async fn observe(tx: &mut Tx, owner: &ResourceId, record: &CertificateRecord) -> Result<bool, Fault> {
    let mut patch = Map::new();
    patch.insert(CERTIFICATE_FIELD.to_owned(), record.to_value());
    Ok(tx.resource_observe(owner, patch).await?)
}

async fn end(tx: &mut Tx, ended: &[Ended]) -> Result<(), Fault> {
    for (operation, status, result) in ended {
        tx.operation_finish(*operation, status.clone(), result.clone()).await?;
    }
    Ok(())
}
