//! Local files on their way to the artifact store: which files count (`.amlignore`, `.gitignore`), the digests that
//! the public clients compute over them, and the upload.
//!
//! The digests are those of the public clients, byte for byte, so that the same files uploaded by either are
//! recognized. Files are streamed; none is held in memory.

mod hash;
mod ignore;
mod scan;
mod upload;

pub use hash::{CONTENT_HASH_VERSION, content_hash, hash_bytes, object_hash};
pub use ignore::IgnoreFile;
pub use scan::{Item, Tree, scan};
pub use upload::{BlobTarget, Progress, Uploaded, upload_tree};
