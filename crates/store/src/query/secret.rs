//! The table `secrets`.

use casemate_model::{ResourceId, Secret};
use sqlx::SqliteConnection;

use crate::{error::StoreError, key::SealingKey};

/// What a sealed value is bound to: moved to another owner or name, it does not open. No id holds a NUL.
fn context(owner: &ResourceId, name: &str) -> String {
    format!("{}\0{name}", owner.key())
}

pub async fn get(
    connection: &mut SqliteConnection,
    key: &SealingKey,
    owner: &ResourceId,
    name: &str,
) -> Result<Option<Secret>, StoreError> {
    let sealed: Option<Vec<u8>> = sqlx::query_scalar("SELECT sealed FROM secrets WHERE owner = ? AND name = ?")
        .bind(owner.key())
        .bind(name)
        .fetch_optional(connection)
        .await?;
    let Some(sealed) = sealed else { return Ok(None) };
    let opened = key.open(&context(owner, name), &sealed);
    let tampered = || StoreError::Corrupt(format!("the secret '{name}' of {owner} does not open with the store's key"));
    opened.map(Some).ok_or_else(tampered)
}

pub async fn put(
    connection: &mut SqliteConnection,
    key: &SealingKey,
    owner: &ResourceId,
    name: &str,
    secret: &Secret,
) -> Result<(), StoreError> {
    sqlx::query("INSERT OR REPLACE INTO secrets (owner, name, sealed) VALUES (?, ?, ?)")
        .bind(owner.key())
        .bind(name)
        .bind(key.seal(&context(owner, name), secret))
        .execute(connection)
        .await?;
    Ok(())
}

pub async fn remove(connection: &mut SqliteConnection, owner: &ResourceId, name: &str) -> Result<bool, StoreError> {
    let removed = sqlx::query("DELETE FROM secrets WHERE owner = ? AND name = ?")
        .bind(owner.key())
        .bind(name)
        .execute(connection)
        .await?;
    Ok(removed.rows_affected() > 0)
}
