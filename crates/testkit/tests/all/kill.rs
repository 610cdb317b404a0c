//! kill -9 of the platform at random moments: what was acknowledged is there, every operation ends, nothing is left over.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use casemate_testkit::{
    Platform,
    sample::{SUM, Sample},
};
use serde_json::Value;

/// Kills in the short form; `CASEMATE_TEST_LONG` asks for more.
const KILLS: usize = 20;
const LONG_KILLS: usize = 100;

/// A small generator, so that a failing run can be repeated with its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn random_kills_lose_nothing_acknowledged_and_leave_nothing_behind() -> Result<()> {
    let seed = std::env::var("CASEMATE_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()) + 1);
    let kills = if std::env::var_os("CASEMATE_TEST_LONG").is_some() { LONG_KILLS } else { KILLS };
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut platform = Platform::start()?;
    platform.workspace()?;
    let dir = tempfile::tempdir()?;
    let sample = Sample::new(dir.path(), "sum", SUM)?;
    platform.casemate(&format!("ml online-endpoint create -f {}", sample.path("endpoint.yml").display()))?;
    platform
        .casemate(&format!("ml online-deployment create -f {} --all-traffic", sample.path("blue.yml").display()))?;

    let mut acknowledged: Vec<String> = Vec::new();
    for round in 0..kills {
        let mut work = start_work(&platform, &sample, round)?;
        std::thread::sleep(Duration::from_millis(random.below(1500)));
        platform.kill()?;
        acknowledged.extend(work.finish()?);
        let launched = platform.launch();
        let context = || format!("seed {seed}, round {round}\n{}", platform.log());
        launched.with_context(context)?;
        for endpoint in &acknowledged {
            let shown = platform
                .casemate(&format!("ml online-endpoint show -n {endpoint} --query name -o tsv"))
                .with_context(context)?;
            ensure!(shown.trim() == endpoint, "{endpoint} was acknowledged but is gone; {}", context());
        }
        operations_end(&platform).with_context(context)?;
    }
    serves_again(&platform)?;
    let state = platform.state().to_owned();
    platform.stop()?;
    nothing_left(&state)
}

/// Commands that run while the platform is killed.
struct Work {
    endpoint: String,
    create: std::process::Child,
    update: std::process::Child,
}

fn start_work(platform: &Platform, sample: &Sample, round: usize) -> Result<Work> {
    let endpoint = format!("kill-{round}");
    let yaml = sample.path("endpoint.yml");
    let create = platform
        .command(["ml", "online-endpoint", "create", "-n", &endpoint, "-f", &yaml.to_string_lossy()])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let count = format!("instance_count={}", 1 + round % 2);
    let update = platform
        .command(["ml", "online-deployment", "update", "-n", "blue", "-e", "sample", "--set", &count])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    Ok(Work { endpoint, create, update })
}

impl Work {
    /// The endpoints whose creation was reported as done.
    fn finish(&mut self) -> Result<Vec<String>> {
        // The platform is gone: the clients give up by themselves, but not for this test's patience.
        std::thread::sleep(Duration::from_millis(100));
        let _ = self.update.kill();
        self.update.wait()?;
        let done = match self.create.try_wait()? {
            Some(status) => status.success(),
            None => {
                let _ = self.create.kill();
                self.create.wait()?;
                false
            }
        };
        Ok(if done { vec![self.endpoint.clone()] } else { Vec::new() })
    }
}

/// Every resource must come to rest: no operation may be forgotten.
fn operations_end(platform: &Platform) -> Result<()> {
    let began = Instant::now();
    loop {
        let endpoints: Value = serde_json::from_str(&platform.casemate("ml online-endpoint list")?)?;
        let blue: Value = serde_json::from_str(&platform.casemate("ml online-deployment show -n blue -e sample")?)?;
        let states = endpoints
            .as_array()
            .into_iter()
            .flatten()
            .chain([&blue])
            .map(|resource| resource["provisioning_state"].as_str().unwrap_or("none"));
        let moving: Vec<&str> = states.filter(|state| !["Succeeded", "Failed"].contains(state)).collect();
        if moving.is_empty() {
            ensure!(blue["provisioning_state"] == "Succeeded", "the deployment ended as {blue}");
            return Ok(());
        }
        ensure!(began.elapsed() < Duration::from_secs(60), "still moving: {moving:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn serves_again(platform: &Platform) -> Result<()> {
    let target = platform.scoring("sample")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let began = Instant::now();
    loop {
        let (status, body) =
            runtime.block_on(async { target.score(&target.client()?, &serde_json::json!({"data": [1, 2]})).await })?;
        if status == 200 {
            return Ok(());
        }
        ensure!(began.elapsed() < Duration::from_secs(60), "not serving again: {status} {body}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// No process, mount or cgroup may outlive its platform.
fn nothing_left(state: &Path) -> Result<()> {
    let state_text = state.to_string_lossy().into_owned();
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    ensure!(!mounts.contains(&state_text), "a mount is left over:\n{mounts}");
    for process in fs::read_dir("/proc")?.filter_map(std::result::Result::ok) {
        let command = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        ensure!(!command.contains(&state_text), "a process is left over: {command}");
    }
    let groups = fs::read_to_string(state.join("instances/control-groups"))?;
    let left: Vec<&str> = groups.lines().filter(|group| Path::new(group).exists()).collect();
    ensure!(left.is_empty(), "control groups are left over: {left:?}");
    Ok(())
}
