//! The built-in certificate authority: made at the first start, its intermediate renewed in time or when asked, its root
//! when asked. The root's key is read for that alone.

use std::{io, sync::Arc};

use casemate_model::{
    Fault, Operation, OperationStatus, ResourceId, Secret,
    operation::OperationKind,
    tls::{AUTHORITY_TYPE, PLATFORM_OWNER},
};
use casemate_pki::{
    BuiltIn, CaMaterial, CertificateAuthority, describe, rotate_intermediate, rotate_root, schedule,
    trusted_roots as roots_of,
};
use casemate_store::{Store, Tx};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

/// The secrets of the platform's settings that hold the authority.
const ROOT: &str = "ca-root-cert";
const ROOT_KEY: &str = "ca-root-key";
const INTERMEDIATE: &str = "ca-intermediate-cert";
const INTERMEDIATE_KEY: &str = "ca-intermediate-key";
/// The root as signed by the root before it.
const CROSS: &str = "ca-cross-cert";
/// Roots before the present one that have not ended.
const RETIRED: &str = "ca-retired-roots";
/// How long after a failure the renewal is tried again.
const RETRY: SignedDuration = SignedDuration::from_mins(10);

/// Lets callers know whom to trust: takes all roots, PEM.
pub type PublishRoots = Arc<dyn Fn(&str) -> io::Result<()> + Send + Sync>;

/// Which part is renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Intermediate,
    Root,
}

/// The authority's keeper.
pub(super) struct Authority {
    store: Store,
    built_in: Arc<BuiltIn>,
    publish: PublishRoots,
    retry_at: Option<Timestamp>,
    /// Roots that are in use and not yet published.
    unpublished: Option<String>,
}

impl Authority {
    pub(super) fn new(store: Store, built_in: Arc<BuiltIn>, publish: PublishRoots) -> Self {
        Self { store, built_in, publish, retry_at: None, unpublished: None }
    }

    /// Renews what is due or asked for.
    pub(super) async fn reconcile(&mut self, pending: &[Operation], now: Timestamp) -> Result<(), Fault> {
        let asked = |operation: &&Operation| {
            operation.kind == OperationKind::Action && operation.resource.is_type(AUTHORITY_TYPE)
        };
        for operation in pending.iter().filter(asked) {
            let part = match operation.resource.name() {
                "root" => Part::Root,
                _ => Part::Intermediate,
            };
            self.rotate(part, Some(operation.id), now).await?;
        }
        let (from, until) = self.built_in.authority().intermediate_validity();
        let due = from.checked_add(super::life(from, until) / 3 * 2).unwrap_or(until);
        if now >= due && schedule::may_retry(self.retry_at, now) {
            self.rotate(Part::Intermediate, None, now).await?;
        }
        self.publish_roots();
        Ok(())
    }

    /// Makes the part anew, writes it down with the end of the operation, and lets it issue from now on.
    async fn rotate(&mut self, part: Part, operation: Option<Uuid>, now: Timestamp) -> Result<(), Fault> {
        let mut tx = self.store.begin().await?;
        let before = read(&mut tx).await?;
        let made = match part {
            Part::Intermediate => rotate_intermediate(&before, now),
            Part::Root => rotate_root(&before, now),
        };
        let made = made.and_then(|material| Ok((CertificateAuthority::load(&material)?, material)));
        let (authority, material) = match made {
            Ok(made) => made,
            Err(error) => {
                self.retry_at = now.checked_add(RETRY).ok();
                tracing::error!(%error, ?part, "the certificate authority can't be renewed");
                let status = OperationStatus::Failed(error.into());
                return finish(tx, operation, status, None).await;
            }
        };
        let settings = settings()?;
        write(&mut tx, &settings, &material).await?;
        let retired = retired(&mut tx, &settings).await?;
        let retired = match part {
            Part::Intermediate => retired,
            Part::Root => roots_of(&before.root_cert_pem, &retired, now)?,
        };
        tx.secret_put(&settings, RETIRED, &Secret::from(retired.clone())).await?;
        let result = result(part, &before, &material)?;
        finish(tx, operation, OperationStatus::Succeeded, Some(result)).await?;
        self.built_in.replace(Arc::new(authority));
        self.unpublished = Some(roots_of(&material.root_cert_pem, &retired, now)?);
        self.retry_at = None;
        tracing::info!(?part, "the certificate authority was renewed");
        Ok(())
    }

    fn publish_roots(&mut self) {
        let Some(roots) = &self.unpublished else { return };
        match (self.publish)(roots) {
            Ok(()) => self.unpublished = None,
            Err(error) => tracing::error!(%error, "the file of trusted roots can't be written; trying again"),
        }
    }
}

/// The stored authority, or a new one at the first start.
///
/// # Errors
/// When the store can't be read or written, or holds an authority that can't be used.
pub async fn open_authority(store: &Store) -> Result<CertificateAuthority, Fault> {
    let settings = settings()?;
    let mut tx = store.begin().await?;
    if tx.secret_get(&settings, ROOT).await?.is_none() {
        let (authority, material) = CertificateAuthority::create(store.clock().now())?;
        write(&mut tx, &settings, &material).await?;
        tx.commit().await?;
        return Ok(authority);
    }
    let root = text(&mut tx, &settings, ROOT).await?;
    let intermediate = text(&mut tx, &settings, INTERMEDIATE).await?;
    let key = required(&mut tx, &settings, INTERMEDIATE_KEY).await?;
    let cross = optional(&mut tx, &settings, CROSS).await?;
    Ok(CertificateAuthority::open(&root, &intermediate, &key, cross.as_deref())?)
}

/// What callers must trust, PEM: the root, and roots before it that have not ended.
///
/// # Errors
/// When the store can't be read, or holds roots that can't be read.
pub async fn trusted_roots(store: &Store) -> Result<String, Fault> {
    let settings = settings()?;
    let mut tx = store.begin().await?;
    let root = text(&mut tx, &settings, ROOT).await?;
    let retired = retired(&mut tx, &settings).await?;
    Ok(roots_of(&root, &retired, store.clock().now())?)
}

fn settings() -> Result<ResourceId, Fault> {
    ResourceId::parse(PLATFORM_OWNER)
}

async fn read(tx: &mut Tx) -> Result<CaMaterial, Fault> {
    let settings = settings()?;
    Ok(CaMaterial {
        root_cert_pem: text(tx, &settings, ROOT).await?,
        root_key_pem: required(tx, &settings, ROOT_KEY).await?,
        intermediate_cert_pem: text(tx, &settings, INTERMEDIATE).await?,
        intermediate_key_pem: required(tx, &settings, INTERMEDIATE_KEY).await?,
        cross_cert_pem: optional(tx, &settings, CROSS).await?,
    })
}

async fn write(tx: &mut Tx, settings: &ResourceId, material: &CaMaterial) -> Result<(), Fault> {
    tx.secret_put(settings, ROOT, &Secret::from(material.root_cert_pem.clone())).await?;
    tx.secret_put(settings, ROOT_KEY, &material.root_key_pem).await?;
    tx.secret_put(settings, INTERMEDIATE, &Secret::from(material.intermediate_cert_pem.clone())).await?;
    tx.secret_put(settings, INTERMEDIATE_KEY, &material.intermediate_key_pem).await?;
    match &material.cross_cert_pem {
        Some(cross) => tx.secret_put(settings, CROSS, &Secret::from(cross.clone())).await?,
        None => tx.secret_remove(settings, CROSS).await?,
    }
    Ok(())
}

async fn retired(tx: &mut Tx, settings: &ResourceId) -> Result<String, Fault> {
    Ok(optional(tx, settings, RETIRED).await?.unwrap_or_default())
}

async fn required(tx: &mut Tx, settings: &ResourceId, name: &str) -> Result<Secret, Fault> {
    tx.secret_get(settings, name).await?.ok_or_else(|| {
        Fault::internal(format!("The store holds no '{name}'; the state directory is incomplete. Restore a backup."))
    })
}

async fn text(tx: &mut Tx, settings: &ResourceId, name: &str) -> Result<String, Fault> {
    let secret = required(tx, settings, name).await?;
    let text = secret.expose_str().map_err(|_| Fault::internal(format!("The stored '{name}' is no text.")))?;
    Ok(text.to_owned())
}

async fn optional(tx: &mut Tx, settings: &ResourceId, name: &str) -> Result<Option<String>, Fault> {
    let secret = tx.secret_get(settings, name).await?;
    Ok(secret.and_then(|secret| secret.expose_str().ok().map(str::to_owned)))
}

async fn finish(
    mut tx: Tx,
    operation: Option<Uuid>,
    status: OperationStatus,
    result: Option<Value>,
) -> Result<(), Fault> {
    if let Some(operation) = operation {
        tx.operation_finish(operation, status, result).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// What changed, for people: fingerprints and dates, and whether the old root vouches for the new one.
fn result(part: Part, before: &CaMaterial, after: &CaMaterial) -> Result<Value, Fault> {
    let of = |material: &CaMaterial| -> Result<Value, Fault> {
        let pem = match part {
            Part::Intermediate => &material.intermediate_cert_pem,
            Part::Root => &material.root_cert_pem,
        };
        let described = describe(pem)?;
        Ok(described.first().map_or(Value::Null, |described| {
            json!({
                "subject": described.subject,
                "serial": described.serial,
                "sha256": described.sha256,
                "notBefore": described.not_before,
                "notAfter": described.not_after,
            })
        }))
    };
    let mut result = json!({"before": of(before)?, "after": of(after)?});
    if part == Part::Root {
        result["crossSigned"] = after.cross_cert_pem.is_some().into();
    }
    Ok(result)
}
