//! The unmodified azure-ai-ml client.

use anyhow::Result;
use casemate_testkit::Platform;

#[test]
fn the_sdk_walks_from_workspace_to_delete() -> Result<()> {
    let platform = Platform::start()?;
    let said = platform.python("sdk_flow.py", &[])?;
    assert!(said.contains("steps passed"), "{said}");
    Ok(())
}
