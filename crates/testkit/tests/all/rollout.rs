//! A safe rollout through the command line, under load: not one request may fail.

use anyhow::Result;
use casemate_testkit::{
    Platform,
    load::Load,
    sample::{SUM, Sample},
};

// The commands block their thread; the load goes on beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_keys_scaling_and_updates_lose_no_request() -> Result<()> {
    let platform = Platform::start()?;
    platform.workspace()?;
    let dir = tempfile::tempdir()?;
    let sample = Sample::new(dir.path(), "sum", SUM)?;
    let patient = "request_settings:\n  max_queue_wait_ms: 30000\n  request_timeout_ms: 20000\n  max_concurrent_requests_per_instance: 8\n";
    let (blue, green) = (sample.deployment("blue", patient)?, sample.deployment("green", patient)?);
    platform.casemate(&format!("ml online-endpoint create -n sample -f {}", sample.path("endpoint.yml").display()))?;
    platform.casemate(&format!("ml online-deployment create -n blue -e sample -f {} --all-traffic", blue.display()))?;
    let mut target = platform.scoring("sample")?;
    // The load goes by the secondary key, so that the primary can be replaced under it.
    let secondary = platform.casemate("ml online-endpoint get-credentials -n sample --query secondaryKey -o tsv")?;
    target.key = secondary.trim().to_owned();

    let load = Load::start(&target, 4)?;
    platform.casemate("ml online-deployment update -n blue -e sample --set instance_count=3")?;
    platform.casemate(&format!("ml online-deployment create -n green -e sample -f {}", green.display()))?;
    for split in ["blue=90 green=10", "blue=50 green=50", "blue=0 green=100"] {
        let words = ["ml", "online-endpoint", "update", "-n", "sample", "--traffic", split];
        assert!(platform.command(words).status()?.success());
    }
    platform.casemate("ml online-endpoint regenerate-keys -n sample --key-type primary")?;
    platform.casemate("ml online-deployment update -n green -e sample --set environment_variables.FLAVOUR=fresh")?;
    platform.casemate("ml online-deployment update -n blue -e sample --set instance_count=1")?;
    platform.casemate("ml online-deployment delete -n blue -e sample --yes")?;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let seen = load.stop().await;

    assert!(
        seen.bad.is_empty(),
        "{} requests failed, the first: {:?}",
        seen.bad.len(),
        &seen.bad[..seen.bad.len().min(3)]
    );
    for flavour in ["blue", "green", "fresh"] {
        assert!(seen.good.get(flavour).is_some_and(|count| *count > 0), "no answer from {flavour}: {:?}", seen.good);
    }
    Ok(())
}
