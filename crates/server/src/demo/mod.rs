//! `casemate demo`: the main job from start to end on real data, with the time of each step.
//!
//! The demo runs a platform of its own and then uses it as a user would: every step after the training is an ordinary
//! command line, run as a process of its own and printed at the end to go on by hand.

mod files;
mod network;
mod rotation;
mod steps;
mod train;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use casemate_cli::{DemoArgs, UpArgs};
use tokio::{
    process::Command,
    signal::unix::{SignalKind, signal},
};

use crate::{
    platform::Platform,
    state::StateDir,
    up::{prepare, report},
};
use steps::Steps;

const GROUP: &str = "demo";
const WORKSPACE: &str = "demo-ws";
const ENDPOINT: &str = "diabetes";
const DOMAIN: &str = "casemate.internal";

/// Runs the demo; 0 when every step succeeded.
pub fn main(args: DemoArgs) -> ExitCode {
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(args: &DemoArgs) -> Result<()> {
    let began = Instant::now();
    let state = StateDir::hold(&args.state)?;
    prepare("warn")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut steps = Steps::new(began);
        let files = files::unpack(state.path())?;
        let dns_port = network::free_dns_port()?;
        let up = UpArgs {
            state: args.state.clone(),
            listen: free_address(),
            http_listen: None,
            domain: DOMAIN.to_owned(),
            region: "local".to_owned(),
            environment_python: args.environment_python,
            dns: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, dns_port))],
            dns_port: Some(dns_port),
            upstream_dns: None,
            allow_from: Vec::new(),
            acme: Box::default(),
        };
        let state_path = state.path().to_owned();
        let platform = steps.run("start the platform", Platform::start(&up, state)).await?;
        let demo = Demo { platform: &platform, state: &state_path, files: &files, dns_port };
        let outcome = tokio::select! {
            outcome = demo.walk(&mut steps) => outcome,
            _ = terminate.recv() => Err(anyhow::anyhow!("stopped by SIGTERM")),
            _ = interrupt.recv() => Err(anyhow::anyhow!("stopped by Ctrl-C")),
        };
        if outcome.is_ok() {
            steps.say(&files::commands(&platform.url, &state_path, &files));
        }
        if outcome.is_ok() && args.keep {
            steps.say("The platform keeps running; stop it with Ctrl-C.");
            tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        } else if outcome.is_ok() {
            steps.say("Run the demo with --keep to try these on the running platform.");
        }
        let stopped = steps
            .run("stop the platform", async {
                platform.stop().await;
                anyhow::Ok(())
            })
            .await;
        outcome.and(stopped)
    })
}

/// The default port if it is free, else any.
fn free_address() -> SocketAddr {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, 8443));
    let free = TcpListener::bind(usual).is_ok();
    if free { usual } else { SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) }
}

struct Demo<'a> {
    platform: &'a Platform,
    state: &'a Path,
    files: &'a Path,
    /// Where names are answered.
    dns_port: u16,
}

impl Demo<'_> {
    async fn walk(&self, steps: &mut Steps) -> Result<()> {
        let environment = steps.run("build the Python environment from conda.yaml", self.environment()).await?;
        let trained = steps.run("train on the diabetes data, in a sandbox", self.train(&environment)).await?;
        steps.say(&format!(
            "    {} patients, R2 on unseen ones {}; two of them: measured {}, the model says {}",
            trained["patients"], trained["r2"], trained["measured"], trained["expected"]
        ));
        self.clean_slate(steps).await?;
        let scope = format!("-g {GROUP} -w {WORKSPACE}");
        let made = [
            ("create the resource group", format!("group create -n {GROUP} -l local")),
            (
                "create the workspace",
                format!("ml workspace create -n {WORKSPACE} -g {GROUP} -m allow_only_approved_outbound"),
            ),
            (
                "create the endpoint from endpoint.yml",
                format!("ml online-endpoint create -n {ENDPOINT} -f endpoint.yml {scope}"),
            ),
            (
                "create the deployment 'blue' from blue-deployment.yml, with all traffic",
                format!(
                    "ml online-deployment create -n blue -e {ENDPOINT} -f blue-deployment.yml --all-traffic {scope}"
                ),
            ),
        ];
        for (what, line) in &made {
            steps.run(what, self.casemate(line)).await?;
        }
        let invoke = format!("ml online-endpoint invoke -n {ENDPOINT} --request-file sample-request.json {scope}");
        let answer = steps.run("score two patients over HTTPS, certificate verified", self.casemate(&invoke)).await?;
        steps.say(&format!("    answer: {}", answer.trim()));
        steps.first_score();
        check_answer(&answer, &trained)?;
        let logs = format!("ml online-deployment get-logs -n blue -e {ENDPOINT} --lines 5 {scope}");
        let logs = steps.run("read the logs", self.casemate(&logs)).await?;
        for line in logs.lines() {
            steps.say(&format!("    {line}"));
        }
        self.rotation(steps).await?;
        self.isolation(steps).await
    }

    /// Removes what an earlier run with --keep left, so that the demo can be run again and again.
    async fn clean_slate(&self, steps: &mut Steps) -> Result<()> {
        if self.casemate(&format!("group exists -n {GROUP}")).await?.trim() == "true" {
            steps
                .run("remove what an earlier demo left", self.casemate(&format!("group delete -n {GROUP} --yes")))
                .await?;
        }
        Ok(())
    }

    /// Runs one command line of this same program in the directory of the sample, and gives its stdout.
    async fn casemate(&self, line: &str) -> Result<String> {
        let program = std::env::current_exe().context("this program's own path can't be found")?;
        let output = Command::new(program)
            .args(line.split_whitespace())
            .current_dir(self.files)
            .env("CASEMATE_STATE", self.state)
            .env_remove("CASEMATE_URL")
            .kill_on_drop(true)
            .output()
            .await?;
        if !output.status.success() {
            bail!("casemate {line}\n{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// One value of what a command shows.
    async fn field(&self, line: &str, query: &str) -> Result<String> {
        Ok(self.casemate(&format!("{line} --query {query} -o tsv")).await?.trim().to_owned())
    }
}

/// What a model answered, from what `invoke` prints.
fn answer(printed: &str) -> Result<serde_json::Value> {
    let read =
        |text: &str| serde_json::from_str::<serde_json::Value>(text).context("the endpoint's answer is not JSON");
    let answer = read(printed.trim())?;
    // The command line prints the body as a JSON string, as the original does.
    answer.as_str().map_or_else(|| Ok(answer.clone()), read)
}

/// The endpoint must say what the trained model says.
fn check_answer(answer: &str, trained: &serde_json::Value) -> Result<()> {
    let numbers = |value: &serde_json::Value| -> Vec<f64> {
        value.as_array().into_iter().flatten().filter_map(serde_json::Value::as_f64).collect()
    };
    let (said, expected) = (numbers(&self::answer(answer)?), numbers(&trained["expected"]));
    let same =
        said.len() == expected.len() && said.iter().zip(&expected).all(|(one, other)| (one - other).abs() < 1e-6);
    if !same || said.is_empty() {
        bail!("the endpoint said {said:?}, but the trained model says {expected:?}");
    }
    Ok(())
}

/// Where the demo's own files lie.
pub fn directory(state: &Path) -> PathBuf {
    state.join("demo")
}
