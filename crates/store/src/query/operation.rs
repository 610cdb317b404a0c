//! The table `operations`.

use casemate_model::{Clock, Operation, OperationStatus, ResourceId, operation::OperationKind};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};
use uuid::Uuid;

use super::{from_json, now, timestamp, to_json};
use crate::error::StoreError;

/// How long a finished operation can be asked for.
pub const KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How many finished operations are kept at most.
pub const KEPT_COUNT: i64 = 10_000;

pub async fn get(connection: &mut SqliteConnection, id: Uuid) -> Result<Option<Operation>, StoreError> {
    let row = sqlx::query("SELECT * FROM operations WHERE id = ?").bind(id.to_string()).fetch_optional(connection);
    row.await?.as_ref().map(parse).transpose()
}

pub async fn pending(connection: &mut SqliteConnection) -> Result<Vec<Operation>, StoreError> {
    let rows = sqlx::query("SELECT * FROM operations WHERE ended_at IS NULL ORDER BY ordinal").fetch_all(connection);
    rows.await?.iter().map(parse).collect()
}

pub async fn insert(connection: &mut SqliteConnection, operation: &Operation) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO operations (id, resource, kind, generation, status, result, created_at, ended_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(operation.id.to_string())
    .bind(operation.resource.as_str())
    .bind(to_json(&operation.kind))
    .bind(operation.generation)
    .bind(to_json(&operation.status))
    .bind(operation.result.as_ref().map(to_json))
    .bind(operation.created_at.as_microsecond())
    .bind(operation.ended_at.map(Timestamp::as_microsecond))
    .execute(connection)
    .await?;
    Ok(())
}

/// Ends an operation in progress; says whether it was one.
pub async fn finish(
    connection: &mut SqliteConnection,
    id: Uuid,
    status: &OperationStatus,
    result: Option<&Value>,
    ended_at: Timestamp,
) -> Result<bool, StoreError> {
    let done =
        sqlx::query("UPDATE operations SET status = ?, result = ?, ended_at = ? WHERE id = ? AND ended_at IS NULL")
            .bind(to_json(status))
            .bind(result.map(to_json))
            .bind(ended_at.as_microsecond())
            .bind(id.to_string())
            .execute(connection)
            .await?;
    Ok(done.rows_affected() > 0)
}

/// Forgets the finished operations beyond [`KEPT`] and [`KEPT_COUNT`].
pub async fn prune(connection: &mut SqliteConnection, clock: &Clock) -> Result<(), StoreError> {
    let oldest = now(clock).saturating_sub(KEPT).unwrap_or(Timestamp::MIN);
    sqlx::query("DELETE FROM operations WHERE ended_at < ?")
        .bind(oldest.as_microsecond())
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "DELETE FROM operations WHERE ordinal IN (SELECT ordinal FROM operations WHERE ended_at IS NOT NULL \
         ORDER BY ended_at DESC, ordinal DESC LIMIT -1 OFFSET ?)",
    )
    .bind(KEPT_COUNT)
    .execute(connection)
    .await?;
    Ok(())
}

fn parse(row: &SqliteRow) -> Result<Operation, StoreError> {
    let id: &str = row.try_get("id")?;
    let resource: &str = row.try_get("resource")?;
    let result: Option<&str> = row.try_get("result")?;
    let ended_at: Option<i64> = row.try_get("ended_at")?;
    Ok(Operation {
        id: Uuid::parse_str(id).map_err(|_| StoreError::Corrupt(format!("'{id}' is not an operation id")))?,
        resource: ResourceId::parse(resource).map_err(|fault| StoreError::Corrupt(fault.message))?,
        kind: from_json::<OperationKind>("kind", row.try_get("kind")?)?,
        generation: row.try_get("generation")?,
        status: from_json("status", row.try_get("status")?)?,
        result: result.map(|text| from_json("result", text)).transpose()?,
        created_at: timestamp(row.try_get("created_at")?),
        ended_at: ended_at.map(timestamp),
    })
}
