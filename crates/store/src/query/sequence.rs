//! The table `sequences`.

use sqlx::SqliteConnection;

use crate::error::StoreError;

pub async fn next(connection: &mut SqliteConnection, name: &str) -> Result<u64, StoreError> {
    let value: i64 = sqlx::query_scalar(
        "INSERT INTO sequences (name, value) VALUES (?, 1) \
         ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value",
    )
    .bind(name)
    .fetch_one(connection)
    .await?;
    u64::try_from(value).map_err(|_| StoreError::Corrupt(format!("the sequence '{name}' is negative")))
}
