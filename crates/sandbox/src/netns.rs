//! The sandbox's network: a new namespace with the loopback interface and nothing else. A namespace in which anything
//! else appears is refused, as it would be a way out.

use std::io;

use nix::sched::{CloneFlags, unshare};

use crate::error::{During, Step, StepFailure};
use crate::sys;

/// Moves the calling process into a new network namespace that holds only `lo`, up.
pub fn enter_empty() -> Result<(), StepFailure> {
    unshare(CloneFlags::CLONE_NEWNET).during(Step::NetworkNamespace, "unshare")?;
    sys::interface_up(c"lo").during(Step::Loopback, "lo")?;
    require_only_loopback(&interfaces().during(Step::Loopback, "list interfaces")?)
}

fn interfaces() -> io::Result<Vec<String>> {
    let all = nix::net::if_::if_nameindex()?;
    Ok(all.iter().map(|each| each.name().to_string_lossy().into_owned()).collect())
}

fn require_only_loopback(names: &[String]) -> Result<(), StepFailure> {
    if names == ["lo"] {
        return Ok(());
    }
    Err(StepFailure::new(Step::Loopback, format!("the new network namespace holds {names:?}, not just lo")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_beside_the_loopback_interface_is_refused() {
        let table: [(&[&str], bool); 4] = [(&["lo"], true), (&["lo", "sit0"], false), (&["eth0"], false), (&[], false)];
        for (names, fine) in table {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(require_only_loopback(&names).is_ok(), fine, "{names:?}");
        }
        assert!(interfaces().unwrap().contains(&"lo".to_owned()));
    }
}
