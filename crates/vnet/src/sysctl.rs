//! The settings of a bridge: members reach each other and the platform, and nothing through it.

use std::{fs, io, path::Path};

/// Nothing that arrives is passed on, no redirects are sent or taken, and IPv6 configures nothing by itself.
const SETTINGS: [(&str, &str, &str); 8] = [
    ("ipv4", "forwarding", "0"),
    ("ipv4", "send_redirects", "0"),
    ("ipv4", "accept_redirects", "0"),
    ("ipv4", "accept_source_route", "0"),
    ("ipv6", "forwarding", "0"),
    ("ipv6", "accept_ra", "0"),
    ("ipv6", "accept_redirects", "0"),
    ("ipv6", "addr_gen_mode", "1"),
];

/// Confines a bridge; gives false when packets of its members might still be forwarded.
pub(crate) fn confine(bridge: &str) -> bool {
    let mut confined = true;
    for (family, setting, value) in SETTINGS {
        let path = format!("/proc/sys/net/{family}/conf/{bridge}/{setting}");
        match set(Path::new(&path), value) {
            Ok(()) => {}
            // A kernel without the family or the setting.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if setting == "forwarding" => {
                tracing::warn!(%error, path, "forwarding can't be turned off");
                confined = false;
            }
            Err(error) => tracing::debug!(%error, path, "a setting of a bridge can't be made"),
        }
    }
    confined
}

fn set(path: &Path, value: &str) -> io::Result<()> {
    if fs::read_to_string(path)?.trim() == value {
        return Ok(());
    }
    fs::write(path, value)
}
