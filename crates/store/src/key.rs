//! The key that seals secrets: 32 random bytes in a file of its own, and what is done with it.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use casemate_model::Secret;
use zeroize::Zeroizing;

use crate::error::StoreError;

const KEY_BYTES: usize = 32;
/// How long an opener waits for another that is making or migrating the same database.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// Seals and opens with AES-256-GCM.
pub struct SealingKey(RandomizedNonceKey);

/// The key file, held so that one opener at a time makes or migrates the database; let go on drop.
pub struct KeyFile {
    /// Its place, for messages.
    pub path: PathBuf,
    _lock: File,
}

impl SealingKey {
    fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(RandomizedNonceKey::new(&AES_256_GCM, bytes).expect("the key has the algorithm's length"))
    }

    /// Seals `secret`; it opens only with the same `context`. The result is nonce, ciphertext and tag.
    pub fn seal(&self, context: &str, secret: &Secret) -> Vec<u8> {
        let mut text = secret.expose().to_vec();
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(context.as_bytes()), &mut text)
            .expect("a value that fits in memory is shorter than the cipher's limit");
        [nonce.as_ref().as_slice(), &text].concat()
    }

    /// Opens what [`SealingKey::seal`] made; nothing when the key, the context or the bytes differ.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Option<Secret> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = Zeroizing::new(text.to_vec());
        let plain = self.0.open_in_place(nonce, Aad::from(context.as_bytes()), &mut text).ok()?;
        Some(Secret::new(&*plain))
    }
}

/// Reads the key at `path`, or makes it when it is not there and `may_create`.
///
/// Blocks for disk writes and, at most [`LOCK_WAIT`], for another opener.
///
/// # Errors
/// `KeyMissing` when it is not there and must not be made; `KeyInvalid` when its length or its permissions are wrong;
/// `Busy`; `Files`.
pub fn load(path: &Path, may_create: bool) -> Result<(SealingKey, KeyFile), StoreError> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && may_create => {
            create(path).map_err(|error| StoreError::files(path, error))?;
            File::open(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::KeyMissing { path: path.to_owned() });
        }
        other => other,
    }
    .map_err(|error| StoreError::files(path, error))?;
    lock(path, &file)?;
    let invalid = |reason: &str| StoreError::KeyInvalid { path: path.to_owned(), reason: reason.to_owned() };
    let mode = file.metadata().map_err(|error| StoreError::files(path, error))?.permissions().mode();
    if mode & 0o077 != 0 {
        return Err(invalid("other users may read or change it; make it private with 'chmod 600'"));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES + 1));
    let limit = KEY_BYTES as u64 + 1;
    (&mut file).take(limit).read_to_end(&mut bytes).map_err(|error| StoreError::files(path, error))?;
    let bytes: &[u8; KEY_BYTES] = bytes
        .as_slice()
        .try_into()
        .map_err(|_| invalid("it does not hold exactly 32 bytes; put back a good copy of it"))?;
    Ok((SealingKey::new(bytes), KeyFile { path: path.to_owned(), _lock: file }))
}

/// Makes the key file whole or not at all, and never over an existing one: when two openers race, both then read the
/// file of the first.
fn create(path: &Path) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| io::Error::other("the system gave no random bytes"))?;
    let mut file = tempfile::Builder::new()
        .prefix(".store.key.")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(dir)?;
    file.write_all(bytes.as_slice())?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        Err(error) if error.error.kind() != io::ErrorKind::AlreadyExists => return Err(error.error),
        _ => {}
    }
    File::open(dir)?.sync_all()
}

fn lock(path: &Path, file: &File) -> Result<(), StoreError> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(Duration::from_millis(20)),
            Err(TryLockError::WouldBlock) => return Err(StoreError::Busy),
            Err(TryLockError::Error(error)) => return Err(StoreError::files(path, error)),
        }
    }
}
