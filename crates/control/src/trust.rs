//! The certificates that what runs in a sandbox trusts: the system's, and the platform's own authority, whose
//! certificates the vaults and storage accounts of the platform have.

use std::{collections::BTreeMap, path::Path};

use casemate_runtime::PreparedEnvironment;

/// Below the state directory: a file that every payload may read.
pub const BUNDLE: &str = "trust/ca-bundle.pem";
/// The variables by which programs are told: OpenSSL and what is built on it, Python's requests, curl.
const VARIABLES: [&str; 3] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

/// The environment with the bundle in it, and the variables that name it where the deployment's own don't name another.
pub fn added(
    state_dir: &Path,
    environment: &PreparedEnvironment,
    mut variables: BTreeMap<String, String>,
) -> (PreparedEnvironment, BTreeMap<String, String>) {
    let (bundle, mut environment) = (state_dir.join(BUNDLE), environment.clone());
    if bundle.is_file() {
        for name in VARIABLES {
            variables.entry(name.to_owned()).or_insert_with(|| bundle.display().to_string());
        }
        environment.mounts.push(bundle);
    }
    (environment, variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundle_is_named_unless_the_deployment_names_another() {
        let dir = tempfile::tempdir().unwrap();
        let environment = PreparedEnvironment {
            digest: String::new(),
            python: "/usr/bin/python3".into(),
            mounts: Vec::new(),
            warnings: Vec::new(),
        };
        let own = BTreeMap::from([("SSL_CERT_FILE".to_owned(), "/own.pem".to_owned())]);
        let (none, variables) = added(dir.path(), &environment, own.clone());
        assert!(none.mounts.is_empty() && variables == own, "nothing to trust");
        std::fs::create_dir(dir.path().join("trust")).unwrap();
        std::fs::write(dir.path().join(BUNDLE), "PEM").unwrap();
        let (found, variables) = added(dir.path(), &environment, own);
        assert_eq!(found.mounts, [dir.path().join(BUNDLE)]);
        assert_eq!(variables["SSL_CERT_FILE"], "/own.pem");
        assert_eq!(variables["REQUESTS_CA_BUNDLE"], dir.path().join(BUNDLE).display().to_string());
    }
}
