//! Opening: the directory, the key, the connections, the schema, and the proof that key and database belong together.

use std::{
    fs::{DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use casemate_model::{Clock, Secret};
use sqlx::{
    Connection, SqliteConnection, SqlitePool,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{sync::watch, task};

use crate::{
    Inner, Store,
    error::StoreError,
    key::{self, KeyFile, SealingKey},
    query,
};

/// The longest wait inside SQLite for a lock that another process holds.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const READERS: u32 = 4;

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

pub async fn open(dir: &Path, clock: Clock, wait: Duration) -> Result<Store, StoreError> {
    let dir = dir.to_owned();
    let prepared = task::spawn_blocking(move || prepare(&dir)).await;
    let Prepared { database, key, key_file } =
        prepared.map_err(|error| StoreError::Database(sqlx::Error::Io(io::Error::other(error))))??;
    let writer = writer_pool(&database, wait);
    let mut connection = writer.acquire().await?;
    migrate(&mut connection, &database).await?;
    check_key(&mut connection, &key, &key_file).await?;
    query::operation::prune(&mut connection, &clock).await?;
    drop(connection);
    drop(key_file);
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(wait)
        .test_before_acquire(false)
        .connect_lazy_with(options(&database).read_only(true));
    let commits = watch::Sender::new(0);
    Ok(Store(Arc::new(Inner { writer, readers, key, commits, clock, wait })))
}

struct Prepared {
    database: PathBuf,
    key: SealingKey,
    key_file: KeyFile,
}

/// Makes or reads the files; blocks.
fn prepare(dir: &Path) -> Result<Prepared, StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| StoreError::files(dir, error))?;
    let database = dir.join("casemate.db");
    let empty = match database.metadata() {
        Ok(found) => found.len() == 0,
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(StoreError::files(database, error)),
    };
    let (key, key_file) = key::load(&dir.join("store.key"), empty)?;
    // SQLite gives its own files the mode of the database file, so this makes all of them private.
    let made = OpenOptions::new().create(true).append(true).mode(0o600).open(&database);
    made.map_err(|error| StoreError::files(&database, error))?;
    Ok(Prepared { database, key, key_file })
}

fn options(database: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(database)
        .foreign_keys(true)
        .busy_timeout(LOCK_WAIT)
        .optimize_on_close(false, None)
}

fn writer_pool(database: &Path, wait: Duration) -> SqlitePool {
    let options = options(database)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(wait)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .after_release(|connection, _| {
            Box::pin(async move {
                // A full disk makes SQLite roll back by itself, which the driver does not notice: it would refuse
                // each later transaction on this connection. The ping waits for a rollback still queued.
                connection.ping().await?;
                Ok(!connection.is_in_transaction())
            })
        })
        .connect_lazy_with(options)
}

async fn migrate(connection: &mut SqliteConnection, database: &Path) -> Result<(), StoreError> {
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or_default();
    match MIGRATIONS.run(connection).await {
        Err(MigrateError::VersionMissing(found)) if found > known => {
            Err(StoreError::Newer { path: database.to_owned(), found, known })
        }
        other => Ok(other?),
    }
}

/// Opens the check value with the key; writes it when the database is new.
async fn check_key(connection: &mut SqliteConnection, key: &SealingKey, key_file: &KeyFile) -> Result<(), StoreError> {
    const CONTEXT: &str = "key check";
    let known = Secret::from("casemate");
    let sealed: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT sealed FROM key_check").fetch_optional(&mut *connection).await?;
    match sealed {
        Some(sealed) if key.open(CONTEXT, &sealed).as_ref() == Some(&known) => Ok(()),
        Some(_) => Err(StoreError::KeyMismatch { path: key_file.path.clone() }),
        None => {
            let sealed = key.seal(CONTEXT, &known);
            sqlx::query("INSERT INTO key_check (id, sealed) VALUES (1, ?)").bind(sealed).execute(connection).await?;
            Ok(())
        }
    }
}
