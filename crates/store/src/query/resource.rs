//! The table `resources`.

use casemate_model::{Resource, ResourceId};
use sqlx::{QueryBuilder, Row, Sqlite, SqliteConnection, sqlite::SqliteRow};

use super::{from_json, to_json};
use crate::{error::StoreError, filter::Filter};

const SELECT: &str = "SELECT id, body, observed, generation, etag, deleting, system FROM resources WHERE true";

pub async fn get(connection: &mut SqliteConnection, id: &ResourceId) -> Result<Option<Resource>, StoreError> {
    let mut sql = QueryBuilder::new(SELECT);
    sql.push(" AND key = ").push_bind(id.key().to_owned());
    sql.build().fetch_optional(connection).await?.as_ref().map(parse).transpose()
}

pub async fn list(connection: &mut SqliteConnection, filter: &Filter) -> Result<Vec<Resource>, StoreError> {
    let mut sql = select(filter);
    sql.build().fetch_all(connection).await?.iter().map(parse).collect()
}

pub fn select(filter: &Filter) -> QueryBuilder<Sqlite> {
    let mut sql = QueryBuilder::new(SELECT);
    filter.push(&mut sql);
    sql.push(" ORDER BY key");
    sql
}

/// Writes all of `resource`, over an existing row of the same key.
pub async fn write(connection: &mut SqliteConnection, resource: &Resource) -> Result<(), StoreError> {
    let parent = resource.id.parent();
    sqlx::query(
        "INSERT OR REPLACE INTO resources \
         (key, id, type, parent, name, body, observed, generation, etag, deleting, system) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(resource.id.key())
    .bind(resource.id.as_str())
    .bind(resource.id.resource_type().to_lowercase())
    .bind(parent.as_ref().map_or("", ResourceId::key))
    .bind(resource.id.name().to_lowercase())
    .bind(to_json(&resource.body))
    .bind(to_json(&resource.observed))
    .bind(resource.generation)
    .bind(&resource.etag)
    .bind(resource.deleting)
    .bind(to_json(&resource.system))
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes the row and its secrets; says whether there was any.
pub async fn remove(connection: &mut SqliteConnection, id: &ResourceId) -> Result<bool, StoreError> {
    let secrets = sqlx::query("DELETE FROM secrets WHERE owner = ?").bind(id.key()).execute(&mut *connection).await?;
    let rows = sqlx::query("DELETE FROM resources WHERE key = ?").bind(id.key()).execute(connection).await?;
    Ok(secrets.rows_affected() + rows.rows_affected() > 0)
}

fn parse(row: &SqliteRow) -> Result<Resource, StoreError> {
    let id: &str = row.try_get("id")?;
    Ok(Resource {
        id: ResourceId::parse(id).map_err(|fault| StoreError::Corrupt(fault.message))?,
        body: from_json("body", row.try_get("body")?)?,
        observed: from_json("observed", row.try_get("observed")?)?,
        generation: row.try_get("generation")?,
        etag: row.try_get("etag")?,
        deleting: row.try_get("deleting")?,
        system: from_json("system", row.try_get("system")?)?,
    })
}
