//! The demo, as the README tells a new user to run it.

use std::process::Command;

use anyhow::Result;
use casemate_testkit::binary;

#[test]
fn the_demo_scores_real_rows_and_stops_cleanly() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let output = Command::new(binary()).args(["demo", "--state"]).arg(dir.path().join("state")).output()?;
    let said = String::from_utf8(output.stdout)?;
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    for line in [
        "442 patients",
        "answer: ",
        "first score",
        " 0 failed; new connections were shown",
        "ok stop the platform",
        "curl https://127.0.0.1:",
        "MLClient(",
    ] {
        assert!(said.contains(line), "'{line}' is missing in:\n{said}");
    }
    Ok(())
}
