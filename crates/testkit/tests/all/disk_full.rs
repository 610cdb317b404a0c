//! A full disk: the platform serves on, says what is wrong, loses nothing, and works again when there is space.

use std::{fs::File, io::Write, path::Path};

use anyhow::{Context, Result, ensure};
use casemate_testkit::{
    Platform,
    sample::{SUM, Sample},
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::geteuid,
};
use serde_json::json;

/// Enough for one environment and what the artifact store keeps back for the platform.
const DISK: &str = "size=800m";

/// A small disk of its own; gone when dropped.
struct Disk {
    at: tempfile::TempDir,
}

impl Disk {
    fn new() -> Result<Self> {
        let at = tempfile::Builder::new().prefix("casemate-disk-").tempdir()?;
        mount(Some("tmpfs"), at.path(), Some("tmpfs"), MsFlags::empty(), Some(DISK)).context("mounting a tmpfs")?;
        Ok(Self { at })
    }

    /// Fills it to the last byte.
    fn fill(&self) -> Result<()> {
        let mut filler = File::create(self.filler())?;
        for size in [1 << 20, 1 << 12, 1] {
            let block = vec![0u8; size];
            while filler.write_all(&block).is_ok() {}
        }
        Ok(())
    }

    fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.filler())?)
    }

    fn filler(&self) -> std::path::PathBuf {
        self.at.path().join("filler")
    }

    fn path(&self) -> &Path {
        self.at.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(self.at.path(), MntFlags::MNT_DETACH);
    }
}

fn refused(platform: &Platform, line: &str) -> Result<String> {
    let output = platform.command(line.split_whitespace()).output()?;
    let stderr = String::from_utf8(output.stderr)?;
    ensure!(output.status.code() == Some(1), "`{line}` should fail, not end with {}: {stderr}", output.status);
    Ok(stderr)
}

// The commands block their thread; nothing else runs on it meanwhile.
#[tokio::test]
async fn a_full_disk_is_survived_and_named() -> Result<()> {
    if !geteuid().is_root() {
        return Ok(()); // Only root may mount a disk.
    }
    let disk = Disk::new()?;
    let mut platform = Platform::start_at(&disk.path().join("state"))?;
    platform.workspace()?;
    let dir = tempfile::tempdir()?;
    let sample = Sample::new(dir.path(), "sum", SUM)?;
    platform.casemate(&format!("ml online-endpoint create -f {}", sample.path("endpoint.yml").display()))?;
    platform
        .casemate(&format!("ml online-deployment create -f {} --all-traffic", sample.path("blue.yml").display()))?;
    let target = platform.scoring("sample")?;
    let client = target.client()?;

    disk.fill()?;
    for _ in 0..20 {
        let (status, body) = target.score(&client, &json!({"data": [1, 2]})).await?;
        assert_eq!((status, &body["sum"]), (200, &json!(3)), "scoring needs no disk: {body}");
    }
    std::fs::write(sample.path("model/model.txt"), "another model\n")?;
    let model = format!("ml model create -n late -v 1 --path {}", sample.path("model").display());
    // Small writes may still fit into what the database has already taken; in the end they are refused.
    let mut said = Vec::new();
    for number in 0..400 {
        let output = platform.command(["ml", "online-endpoint", "create", "-n", &format!("late-{number}")]).output()?;
        if !output.status.success() {
            said.push(String::from_utf8(output.stderr)?);
            break;
        }
        if number == 99 {
            break; // There are no more endpoints than a hundred; by then the log of the database has been full.
        }
    }
    said.push(refused(&platform, &model)?);
    for stderr in &said {
        let lower = stderr.to_lowercase();
        assert!(lower.contains("space") || lower.contains("full"), "{stderr}");
    }
    assert_eq!(platform.casemate("ml online-endpoint show -n sample --query name -o tsv")?.trim(), "sample");
    platform.casemate("ml online-deployment get-logs -n blue -e sample")?;
    let (status, _) = target.score(&client, &json!({"data": [1]})).await?;
    assert_eq!(status, 200);

    disk.free()?;
    platform.casemate(&model)?;
    platform.casemate("ml online-endpoint delete -n sample --yes")?;
    platform.casemate("ml online-endpoint create -n sample")?;

    // A start on a full disk either works or says what is wrong; afterwards everything is there.
    platform.stop()?;
    disk.fill()?;
    if let Err(error) = platform.launch() {
        let text = format!("{error:#}").to_lowercase();
        assert!(text.contains("space") || text.contains("full"), "{text}");
        platform.kill()?;
    } else {
        platform.stop()?;
    }
    disk.free()?;
    platform.launch()?;
    assert_eq!(platform.casemate("ml model show -n late -v 1 --query version -o tsv")?.trim(), "1");
    Ok(())
}
