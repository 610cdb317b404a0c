//! Starting and stopping: one platform to a state directory, clear refusals, a clean drain.

use std::{os::unix::fs::PermissionsExt, process::Command, time::Duration};

use anyhow::{Context, Result};
use casemate_testkit::{
    Platform, binary,
    sample::{SUM, Sample},
};
use serde_json::json;
use tokio::task::JoinSet;

fn refused(arguments: &[&str]) -> Result<String> {
    let output = Command::new(binary()).args(arguments).output()?;
    assert!(!output.status.success(), "{arguments:?} should have been refused");
    Ok(String::from_utf8(output.stderr)?)
}

#[test]
fn a_second_start_and_a_taken_port_are_refused_by_name() -> Result<()> {
    let platform = Platform::start()?;
    let state = platform.state().to_string_lossy().into_owned();
    let message = refused(&["up", "--state", &state, "--listen", "127.0.0.1:0"])?;
    assert!(message.contains(&platform.pid().to_string()) && message.contains(&state), "{message}");

    let other = tempfile::tempdir()?;
    let address = platform.url.trim_start_matches("https://");
    let message = refused(&["up", "--state", &other.path().join("s").to_string_lossy(), "--listen", address])?;
    assert!(message.contains(address) && message.contains("--listen"), "{message}");
    Ok(())
}

#[test]
fn the_state_is_private_and_holds_no_secret_in_clear() -> Result<()> {
    let platform = Platform::start()?;
    platform.workspace()?;
    platform.casemate("ml online-endpoint create -n keyed")?;
    let key = platform.casemate("ml online-endpoint get-credentials -n keyed --query primaryKey -o tsv")?;
    let state = platform.state();
    assert_eq!(std::fs::metadata(state)?.permissions().mode() & 0o777, 0o700);
    for file in ["credentials.json", "store.key", "casemate.db", "ca-bundle.pem"] {
        assert_eq!(std::fs::metadata(state.join(file))?.permissions().mode() & 0o077, 0, "{file}");
    }
    for file in ["casemate.db", "casemate.db-wal"] {
        let bytes = std::fs::read(state.join(file)).unwrap_or_default();
        for secret in [key.trim().as_bytes(), b"PRIVATE KEY"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{file} holds a secret in clear");
        }
    }
    assert!(!platform.log().contains(key.trim()));
    Ok(())
}

#[test]
fn env_speaks_three_formats() -> Result<()> {
    let platform = Platform::start()?;
    let state = platform.state().to_string_lossy().into_owned();
    let shell = platform.casemate(&format!("env --state {state}"))?;
    let dotenv = platform.casemate(&format!("env --state {state} --format dotenv"))?;
    for (name, value) in platform.env()? {
        assert!(shell.contains(&format!("export {name}=")), "{name} in {shell}");
        assert!(dotenv.contains(&format!("{name}=")), "{name} in {dotenv}");
        assert!(!value.is_empty(), "{name}");
    }
    assert!(shell.contains("AZUREML_CURRENT_CLOUD") && shell.contains("CURL_CA_BUNDLE"));
    Ok(())
}

#[tokio::test]
async fn sigterm_lets_requests_in_flight_finish() -> Result<()> {
    let mut platform = Platform::start()?;
    platform.workspace()?;
    let dir = tempfile::tempdir()?;
    let sample = Sample::new(dir.path(), "sum", SUM)?;
    let slow = sample.deployment("blue", "request_settings:\n  request_timeout_ms: 20000\n")?;
    platform.casemate(&format!("ml online-endpoint create -f {}", sample.path("endpoint.yml").display()))?;
    platform.casemate(&format!("ml online-deployment create -f {} --all-traffic", slow.display()))?;
    let target = platform.scoring("sample")?;
    let client = target.client()?;
    let mut calls = JoinSet::new();
    calls.spawn(async move { target.score(&client, &json!({"data": [1], "sleep": 3})).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    tokio::task::spawn_blocking(move || platform.stop()).await??;
    let (status, body) = calls.join_next().await.context("one call was made")???;
    assert_eq!((status, &body["sum"]), (200, &json!(1)), "{body}");
    Ok(())
}

#[test]
fn two_platforms_live_side_by_side() -> Result<()> {
    let (one, two) = (Platform::start()?, Platform::start()?);
    one.workspace()?;
    assert_eq!(two.casemate("group exists -n rg")?.trim(), "false");
    two.workspace()?;
    drop(one);
    assert_eq!(two.casemate("group exists -n rg")?.trim(), "true");
    Ok(())
}
