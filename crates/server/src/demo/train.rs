//! Trains the sample model: the deployment's own environment, in a sandbox with no way out.

use std::{fs, io::Read, path::Path};

use anyhow::{Context, Result, bail};
use casemate_model::{Fault, ResourceId};
use casemate_runtime::{Backend, EnvironmentRequest, PreparedEnvironment};
use casemate_sandbox::{Access, Exit, HOME, Launcher, Limits, Mount, Network, Sandbox, SandboxSpec};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Demo, ENDPOINT, GROUP, WORKSPACE, files};

/// Longest time for the training, in milliseconds.
const TIME_LIMIT_MS: u32 = 120_000;

impl Demo<'_> {
    /// Builds (or finds) the environment that the deployment will use, too.
    pub(super) async fn environment(&self) -> Result<PreparedEnvironment, Fault> {
        let scope = format!(
            "/subscriptions/demo/resourceGroups/{GROUP}/providers/Microsoft.MachineLearningServices/workspaces/{WORKSPACE}"
        );
        let deployment = ResourceId::parse(&format!("{scope}/onlineEndpoints/{ENDPOINT}/deployments/training"))?;
        let request = EnvironmentRequest { conda_file: Some(files::conda_file()), image: None, build: false };
        self.platform.backend.environment_prepare(&deployment, request).await
    }

    /// Runs train.py and gives the line of JSON that it prints.
    pub(super) async fn train(&self, environment: &PreparedEnvironment) -> Result<serde_json::Value> {
        let launcher = self.platform.launcher.clone();
        let files = self.files.to_owned();
        let environment = environment.clone();
        tokio::task::spawn_blocking(move || train(&launcher, &files, &environment)).await?
    }
}

fn train(launcher: &Launcher, files: &Path, environment: &PreparedEnvironment) -> Result<serde_json::Value> {
    let (mut said, stdout) = std::io::pipe()?;
    let stderr = stdout.try_clone()?;
    let read_only = |path: &Path| Mount { source: path.to_owned(), target: path.to_owned(), access: Access::ReadOnly };
    let mut mounts: Vec<Mount> = environment.mounts.iter().map(|path| read_only(path)).collect();
    let output = files.join("trained");
    fs::create_dir_all(&output)?;
    mounts.push(Mount { source: files.join("train.py"), target: "/train/train.py".into(), access: Access::ReadOnly });
    mounts.push(Mount { source: output.clone(), target: "/train/out".into(), access: Access::ReadWrite });
    let mut sandbox = launcher.launch(SandboxSpec {
        name: "training".to_owned(),
        program: environment.python.clone(),
        args: vec!["/train/train.py".into(), "/train/out".into()],
        env: vec![("HOME".to_owned(), HOME.to_owned())],
        cwd: "/train".into(),
        mounts,
        network: Network::Isolated,
        installer_config: false,
        limits: Limits { memory_bytes: 2 << 30, milli_cpus: 2000, pids: 64, scratch_bytes: 256 << 20 },
        stdout: stdout.into(),
        stderr: stderr.into(),
    })?;
    let exit = wait(&mut sandbox)?;
    let mut text = String::new();
    said.read_to_string(&mut text)?;
    if exit.is_none_or(|exit| exit.code != Some(0)) {
        bail!("the training failed:\n{}", text.trim());
    }
    for name in ["model/diabetes.joblib", "sample-request.json"] {
        let target = files.join(name);
        fs::create_dir_all(target.parent().unwrap_or(files))?;
        fs::copy(output.join(name), target)?;
    }
    let line = text.lines().rfind(|line| line.starts_with('{')).context("the training printed no result")?;
    Ok(serde_json::from_str(line)?)
}

/// Waits for the end, which is forced when the time is over.
fn wait(sandbox: &mut Sandbox) -> Result<Option<Exit>> {
    let mut ended = [PollFd::new(sandbox.pidfd(), PollFlags::POLLIN)];
    if poll(&mut ended, PollTimeout::try_from(TIME_LIMIT_MS)?)? == 0 {
        bail!("the training took longer than two minutes");
    }
    Ok(sandbox.try_wait()?)
}
