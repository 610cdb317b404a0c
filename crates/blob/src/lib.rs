//! The artifact store: the Blob REST that the clients speak, over plain files in the state directory.
//!
//! Why it exists: models, code and build contexts arrive through unmodified storage clients, and the runtime mounts
//! what arrived straight from disk. A blob is one file under `data/<container>/<name>`, so nothing has to be copied
//! out before use.
//!
//! What it refuses to do: it knows no workspaces, users or roles. Whoever holds a signature made by
//! [`BlobStore::sign`] may do what the signature says, and nobody else may do anything. It keeps no upload in memory,
//! shows no blob before all its bytes are on disk and checked, and lets no name leave its container.
//!
//! On disk, below the directory given to [`BlobStore::open`]:
//! `containers/<container>` (a container exists if this file does), `data/<container>/<name>` (contents),
//! `properties/…` and `blocklists/…` (the same names: headers, metadata, committed blocks),
//! `staging/<container>/<hash of name>/<block>` (uncommitted blocks) and `uploads/` (bodies now arriving).

mod blocks;
mod conditions;
mod content;
mod disk;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod listing;
mod name;
mod query;
mod rest;
mod sas;
mod store;
mod upload;
mod write;

#[cfg(test)]
mod tests;

pub use error::BlobError;
pub use name::{BlobName, ContainerName};
pub use rest::Body;
pub use sas::Permissions;
pub use store::{BlobConfig, BlobInfo, BlobStore, Swept};
