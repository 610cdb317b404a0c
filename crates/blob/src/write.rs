//! Writes of whole blobs: put, metadata, delete. Each checks its conditions and changes the files under one lock.

use object_store::ObjectMeta;

use crate::{
    blocks::Committed,
    conditions::Conditions,
    content::{Blob, ContentMark, Described, Properties, describe, new_revision},
    error::BlobError,
    name::{BlobName, ContainerName},
    sas::Grant,
    store::Inner,
    upload::Staged,
};

/// Makes a received file the blob.
///
/// # Errors
/// When the conditions don't hold, when the signature only permits new blobs and there is one, or the disk fails.
pub(crate) async fn publish(
    inner: &Inner,
    (container, name): (&ContainerName, &BlobName),
    staged: &Staged,
    (described, committed): (Described, Option<Committed>),
    conditions: &Conditions,
    grant: &Grant,
) -> Result<Blob, BlobError> {
    let _lock = inner.disk.lock(container, name).await;
    let before = inner.disk.blob(container, name).await?;
    conditions.check_write(before.as_ref(), name.as_str())?;
    let permissions = grant.permissions;
    grant.need(permissions.write || (permissions.create && before.is_none()), "overwrite a blob")?;
    let meta = inner.disk.publish(&staged.at, container, name).await?;
    let properties = describe(described, &meta, before.as_ref().map(Blob::created), inner.clock.now());
    inner.disk.write_json(&name.location("properties", container), &properties).await?;
    store_blocks(inner, container, name, &meta, committed).await?;
    Ok(Blob { meta, properties: Some(properties) })
}

async fn store_blocks(
    inner: &Inner,
    container: &ContainerName,
    name: &BlobName,
    meta: &ObjectMeta,
    committed: Option<Committed>,
) -> Result<(), BlobError> {
    let at = name.location("blocklists", container);
    match committed {
        Some(mut committed) => {
            committed.content = Some(ContentMark::of(meta));
            inner.disk.write_json(&at, &committed).await
        }
        None => inner.disk.delete(&at).await.map(|_| ()),
    }
}

/// Replaces a blob's metadata.
pub(crate) async fn set_metadata(
    inner: &Inner,
    container: &ContainerName,
    name: &BlobName,
    metadata: std::collections::BTreeMap<String, String>,
    conditions: &Conditions,
) -> Result<Blob, BlobError> {
    let _lock = inner.disk.lock(container, name).await;
    let Some(mut blob) = inner.disk.blob(container, name).await? else {
        return Err(BlobError::blob_not_found(name.as_str()));
    };
    conditions.check_write(Some(&blob), name.as_str())?;
    let now = inner.clock.now();
    let before = blob.properties.take();
    let before = before
        .unwrap_or_else(|| describe(Described::default(), &blob.meta, Some(blob.meta.last_modified.timestamp()), now));
    let properties = Properties { metadata, changed: now.as_second(), revision: new_revision(), ..before };
    inner.disk.write_json(&name.location("properties", container), &properties).await?;
    blob.properties = Some(properties);
    Ok(blob)
}

/// Deletes a blob.
pub(crate) async fn delete(
    inner: &Inner,
    container: &ContainerName,
    name: &BlobName,
    conditions: &Conditions,
) -> Result<(), BlobError> {
    let _lock = inner.disk.lock(container, name).await;
    let Some(blob) = inner.disk.blob(container, name).await? else {
        return Err(BlobError::blob_not_found(name.as_str()));
    };
    conditions.check_write(Some(&blob), name.as_str())?;
    inner.disk.blob_delete(container, name).await.map(|_| ())
}
