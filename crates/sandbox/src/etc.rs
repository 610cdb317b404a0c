//! What a payload finds in `/etc`: enough for the dynamic linker, name lookup, time zones, certificates and Python,
//! written for the sandbox or bound from the host. Keys, accounts and the machine's identity stay outside.

use std::path::{Path, PathBuf};

use crate::init::host_name;
use crate::plan::{PAYLOAD_ID, Plan};
use crate::spec::{HOME, Network};

/// How an entry comes to be.
pub enum Etc {
    /// A file with this content.
    Text(Vec<u8>),
    /// A symbolic link as on the host.
    Link(PathBuf),
    /// The host's own file or directory, read-only.
    Bind(PathBuf),
}

/// Bound where the host has them. Of the certificate directories only the public halves: on some systems private keys
/// lie beside them.
const BOUND: [&str; 13] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.conf.d",
    "/etc/alternatives",
    "/etc/ssl/certs",
    "/etc/ca-certificates",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/crypto-policies",
    "/etc/fonts",
    "/etc/python3",
    "/etc/python3.11",
    "/etc/python3.12",
    "/etc/python3.13",
];
/// Copied, or linked where the host has a link.
const COPIED: [&str; 12] = [
    "/etc/ld.so.conf",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/os-release",
    "/etc/debian_version",
    "/etc/mime.types",
    "/etc/protocols",
    "/etc/services",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/openssl.cnf",
];
/// Where the spec asks for it: the package installers' own configuration.
const INSTALLERS: [&str; 3] = ["/etc/pip.conf", "/etc/xdg/pip/pip.conf", "/etc/uv/uv.toml"];
const HOME_INSTALLERS: [&str; 3] = [".config/pip/pip.conf", ".pip/pip.conf", ".config/uv/uv.toml"];

/// No file copied into `/etc` is larger.
const MAX_COPY: u64 = 1 << 20;

/// Every entry, with its absolute path inside.
pub fn collect(plan: &Plan) -> Vec<(PathBuf, Etc)> {
    let mut entries = written(plan);
    entries.extend(BOUND.iter().map(Path::new).filter(|path| path.exists()).filter_map(bound));
    entries.extend(COPIED.iter().map(Path::new).filter_map(|path| Some((path.to_owned(), copied(path)?))));
    if plan.installer_config {
        entries.extend(INSTALLERS.iter().map(Path::new).filter_map(|path| Some((path.to_owned(), text(path)?))));
    }
    entries
}

/// The installers' configuration in the platform user's home, to be placed at the same names in the payload's home.
pub fn home_files(plan: &Plan) -> Vec<(PathBuf, Vec<u8>)> {
    let Some(home) = plan.home.as_deref().filter(|_| plan.installer_config) else { return Vec::new() };
    HOME_INSTALLERS.iter().filter_map(|name| Some((PathBuf::from(name), content(&home.join(name))?))).collect()
}

fn written(plan: &Plan) -> Vec<(PathBuf, Etc)> {
    // Programs ask for the address of their own host; that need not go to a name server.
    let hosts =
        format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {}\n", host_name(&plan.name));
    let texts = [
        ("/etc/passwd", accounts()),
        ("/etc/group", format!("root:x:0:\ncasemate:x:{PAYLOAD_ID}:\nnogroup:x:65534:\n").into_bytes()),
        (
            "/etc/nsswitch.conf",
            b"passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n".to_vec(),
        ),
        ("/etc/hosts", hosts.into_bytes()),
        ("/etc/resolv.conf", resolver(plan.network)),
    ];
    texts.into_iter().map(|(path, content)| (PathBuf::from(path), Etc::Text(content))).collect()
}

/// The platform answers inside at any address.
fn resolver(network: Network) -> Vec<u8> {
    match network {
        Network::Isolated => Vec::new(),
        Network::Gateway => b"nameserver 127.0.0.1\noptions timeout:2 attempts:2\n".to_vec(),
    }
}

fn accounts() -> Vec<u8> {
    format!(
        "root:x:0:0:root:/:/sbin/nologin\ncasemate:x:{PAYLOAD_ID}:{PAYLOAD_ID}:casemate:{HOME}:/bin/sh\n\
         nobody:x:65534:65534:nobody:/:/sbin/nologin\n"
    )
    .into_bytes()
}

fn bound(path: &Path) -> Option<(PathBuf, Etc)> {
    // The link is resolved out here: inside, its target may not exist.
    Some((path.to_owned(), Etc::Bind(path.canonicalize().ok()?)))
}

fn copied(path: &Path) -> Option<Etc> {
    match std::fs::read_link(path) {
        Ok(to) => Some(Etc::Link(to)),
        Err(_) => text(path),
    }
}

fn text(path: &Path) -> Option<Etc> {
    content(path).map(Etc::Text)
}

/// The whole content of a regular file of bounded size that exists and can be read.
fn content(path: &Path) -> Option<Vec<u8>> {
    let meta = std::fs::metadata(path).ok()?;
    if !meta.is_file() || meta.len() > MAX_COPY {
        return None;
    }
    std::fs::read(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Ids;
    use crate::spec::Limits;

    fn plan(network: Network, installer_config: bool, home: &Path) -> Plan {
        Plan {
            name: "t".into(),
            program: None,
            args: vec![],
            env: vec![],
            cwd: "/".into(),
            mounts: vec![],
            network,
            installer_config,
            limits: Limits { memory_bytes: 1, milli_cpus: 1, pids: 1, scratch_bytes: 1 },
            scratch: "/".into(),
            home: Some(home.to_owned()),
            ids: Ids { payload: 1, init: None },
            unmapped_memory_refused: false,
        }
    }

    #[test]
    fn installers_find_their_configuration_only_where_it_is_asked_for() {
        let home = tempfile::tempdir().unwrap();
        let config = home.path().join(".config/pip");
        std::fs::create_dir_all(&config).unwrap();
        std::fs::write(config.join("pip.conf"), "[global]\n").unwrap();
        let found = home_files(&plan(Network::Isolated, true, home.path()));
        assert_eq!(found, [(PathBuf::from(".config/pip/pip.conf"), b"[global]\n".to_vec())]);
        assert!(home_files(&plan(Network::Gateway, false, home.path())).is_empty());
    }

    #[test]
    fn accounts_and_keys_of_the_host_stay_outside() {
        let home = Path::new("/nowhere");
        for network in [Network::Isolated, Network::Gateway] {
            for (path, entry) in collect(&plan(network, true, home)) {
                let text = path.to_string_lossy();
                assert!(!["shadow", "private", "machine-id"].iter().any(|word| text.contains(word)), "{text}");
                let is_account = text.ends_with("/passwd") || text.ends_with("/group");
                assert!(!is_account || matches!(entry, Etc::Text(_)), "{text}");
            }
        }
    }
}
