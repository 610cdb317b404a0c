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
    let others = other_interfaces().during(Step::Loopback, "list interfaces")?;
    if others.is_empty() {
        return Ok(());
    }
    Err(StepFailure::new(Step::Loopback, format!("the new network namespace also holds {}", others.join(", "))))
}

fn other_interfaces() -> io::Result<Vec<String>> {
    let all = nix::net::if_::if_nameindex()?;
    Ok(all.iter().map(|each| each.name().to_string_lossy().into_owned()).filter(|name| name != "lo").collect())
}
