//! The unmodified azure-ai-ml client.

use anyhow::Result;
use casemate_testkit::{Platform, binary};

#[test]
fn the_sdk_walks_from_workspace_to_delete() -> Result<()> {
    let platform = Platform::start()?;
    let said = platform.python("sdk_flow.py", &[])?;
    assert!(said.contains("steps passed"), "{said}");
    Ok(())
}

#[test]
fn the_rest_of_the_sdks_surface_works() -> Result<()> {
    let platform = Platform::start()?;
    let said = platform.python("sdk_surface.py", &[])?;
    assert!(said.contains("steps passed"), "{said}");
    Ok(())
}

#[test]
fn the_sdk_manages_the_network_of_a_workspace() -> Result<()> {
    let platform = Platform::start()?;
    let said = platform.python("sdk_network.py", &[&binary().to_string_lossy()])?;
    assert!(said.contains("steps passed"), "{said}");
    Ok(())
}
