//! What can go wrong in the store, told apart by what the user can do about it.

use std::{io, path::PathBuf};

use casemate_model::{Fault, FaultKind};
use sqlx::migrate::MigrateError;

/// A failure of the store. Its text is fit for a user: cause, evidence, fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The request contradicts what is stored; nothing was changed.
    #[error("{0}")]
    Condition(Fault),
    /// The disk, or its quota, is full. The transaction was rolled back.
    #[error(
        "The disk that holds the platform's state is full, so nothing was written. \
         Free some space there, then repeat the request."
    )]
    Full,
    /// Others held the database for longer than the bounded wait.
    #[error(
        "The platform's database was busy for too long, so nothing was written. Repeat the request; if it happens \
         again, look for another process that holds the database or for a disk that hardly answers."
    )]
    Busy,
    /// The database file is damaged, or holds what this program never wrote.
    #[error(
        "The platform's database is damaged: {0}. Stop the platform and put back a copy of casemate.db and store.key \
         from a backup."
    )]
    Corrupt(String),
    /// A database without its key.
    #[error(
        "The key file {} is missing, but the database beside it is not empty: its secrets can only be opened with the \
         key it was made with. Put the key file back, or move the whole state directory away to start anew.", path.display()
    )]
    KeyMissing { path: PathBuf },
    /// A key file that no release of this program would have made.
    #[error("The key file {} cannot be used: {reason}.", path.display())]
    KeyInvalid { path: PathBuf, reason: String },
    /// A key that belongs to another database.
    #[error(
        "The key file {} does not belong to the database beside it: the database's check value does not open with it. \
         Put back the key file that the database was made with.", path.display()
    )]
    KeyMismatch { path: PathBuf },
    /// A database of a later release.
    #[error(
        "The database {} was written by a newer release (schema {found}, this program knows up to {known}). \
         Use that release or a later one; a database cannot be taken back.", path.display()
    )]
    Newer { path: PathBuf, found: i64, known: i64 },
    /// The state directory or a file in it cannot be used.
    #[error("{} cannot be used: {source}. Check that it exists, is writable and belongs to this user.", path.display())]
    Files {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Any other failure of the database; a fault of this program.
    #[error("The platform's database failed: {0}.")]
    Database(#[source] sqlx::Error),
}

impl StoreError {
    /// An I/O failure at `path`; a full disk is told apart.
    pub(crate) fn files(path: impl Into<PathBuf>, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Files { path: path.into(), source },
        }
    }
}

/// Primary result codes of SQLite.
mod code {
    pub const BUSY: i32 = 5;
    pub const LOCKED: i32 = 6;
    pub const CORRUPT: i32 = 11;
    pub const FULL: i32 = 13;
    pub const NOTADB: i32 = 26;
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        if matches!(error, sqlx::Error::PoolTimedOut) {
            return Self::Busy;
        }
        if matches!(error, sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_)) {
            return Self::Corrupt(error.to_string());
        }
        let database = error.as_database_error();
        // The extended code is the primary code plus detail in the higher bytes.
        let primary = database.and_then(|error| error.code()?.parse::<i32>().ok()).map(|code| code & 0xff);
        match primary {
            Some(code::BUSY | code::LOCKED) => Self::Busy,
            Some(code::FULL) => Self::Full,
            Some(code::CORRUPT | code::NOTADB) => Self::Corrupt(error.to_string()),
            _ => Self::Database(error),
        }
    }
}

impl From<MigrateError> for StoreError {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _) => source.into(),
            MigrateError::VersionMismatch(version) => {
                Self::Corrupt(format!("its record of migration {version} differs from the one in this program"))
            }
            other => Self::Database(sqlx::Error::Migrate(Box::new(other))),
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::Condition(fault) => fault,
            StoreError::Full => Self::new(FaultKind::Unavailable, "InsufficientStorage", message),
            StoreError::Busy => Self::new(FaultKind::Unavailable, "StoreBusy", message),
            StoreError::Corrupt(_) => Self::new(FaultKind::Internal, "StoreCorrupt", message),
            StoreError::KeyMissing { .. } | StoreError::KeyInvalid { .. } | StoreError::KeyMismatch { .. } => {
                Self::new(FaultKind::Internal, "StoreKeyUnusable", message)
            }
            StoreError::Newer { .. } => Self::new(FaultKind::Internal, "StoreTooNew", message),
            StoreError::Files { .. } => Self::new(FaultKind::Unavailable, "StateDirectoryUnusable", message),
            StoreError::Database(_) => Self::internal(message),
        }
    }
}
