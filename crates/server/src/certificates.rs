//! Sets up the certificate manager: the built-in authority, who else issues, and the files that tell callers whom to trust.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use anyhow::Result;
use casemate_control::{Certificates, FrontDoor, Issuers, TRUST_BUNDLE};
use casemate_pki::{BuiltIn, CertificateResolver, DEFAULT_VALIDITY, Issuer};
use casemate_store::Store;

use crate::state;

/// Where Debian, Alpine, Fedora and SUSE keep the system's root certificates.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/ssl/cert.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
];

/// The manager of a platform's certificates, with its authority, which the first start makes. `names` issues for
/// endpoints, computes and services instead of that authority. The files of trusted roots are written.
///
/// # Errors
/// When the store or the files can't be read or written.
pub async fn manager(
    store: &Store,
    state_dir: &Path,
    resolver: &Arc<CertificateResolver>,
    front_door: FrontDoor,
    names: Option<Arc<dyn Issuer>>,
) -> Result<Certificates> {
    let authority = casemate_control::open_authority(store).await?;
    let roots = casemate_control::trusted_roots(store).await?;
    write_roots(state_dir, &roots)?;
    let issuers = Issuers { built_in: Arc::new(BuiltIn::new(Arc::new(authority), DEFAULT_VALIDITY)), names };
    let state_dir = state_dir.to_owned();
    let publish = Arc::new(move |roots: &str| write_roots(&state_dir, roots));
    Ok(Certificates::new(store.clone(), issuers, Arc::clone(resolver), Arc::new(front_door), publish))
}

/// `ca.pem` holds the platform's roots, `ca-bundle.pem` the system's as well.
fn write_roots(state_dir: &Path, roots: &str) -> io::Result<()> {
    state::write_private(state_dir, "ca.pem", roots.as_bytes())?;
    let mut bundle = SYSTEM_ROOTS.iter().find_map(|path| fs::read(path).ok()).unwrap_or_default();
    bundle.extend_from_slice(b"\n");
    bundle.extend_from_slice(roots.as_bytes());
    state::write_private(state_dir, "ca-bundle.pem", &bundle)?;
    write_for_payloads(&state_dir.join(TRUST_BUNDLE), &bundle)
}

/// Writes a file that payloads are shown, and may read whoever they are in their sandboxes. Those that run keep the one
/// they began with.
fn write_for_payloads(path: &Path, content: &[u8]) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    let partial = path.with_extension("partial");
    fs::write(&partial, content)?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o644))?;
    fs::rename(&partial, path)
}
