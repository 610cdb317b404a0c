//! What a test gets: a state directory, a launcher, variables of a host, and short ways to build and to look.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_egress::{EgressConfig, EgressLimits, Gateway};
use casemate_model::{Fault, ResourceId};
use casemate_runtime::environment::{
    EnvironmentBuilder, EnvironmentRequest, HostVariables, PreparedEnvironment, PythonPolicy,
};
use casemate_runtime::logs::{Container, LogStore, LogWriter};
use casemate_sandbox::{Access, Launcher, LauncherConfig, Limits, Mount, Network, SandboxSpec};
use tempfile::TempDir;

use super::packages::Packages;

/// Where tests keep what is slow to get: the installer and the packages of the real index.
const KEPT: &str = env!("CARGO_TARGET_TMPDIR");
/// The workspace that decisions about builds are recorded for.
pub const SCOPE: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w";

pub struct World {
    pub dir: TempDir,
    pub state: PathBuf,
    pub variables: BTreeMap<String, String>,
    pub policy: PythonPolicy,
}

impl World {
    /// A host whose only package index is a directory, given by [`World::packages`].
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("environments-").tempdir_in(KEPT).unwrap();
        let state = dir.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let mut world = Self { dir, state, variables: BTreeMap::new(), policy: PythonPolicy::Exact };
        let path = std::env::var("PATH").unwrap();
        let uv = uv();
        world.set("PATH", &format!("{}:{path}", uv.parent().unwrap().display()));
        world.set("HOME", &std::env::var("HOME").unwrap());
        world.set("PIP_CONFIG_FILE", "/dev/null");
        world.set("PIP_NO_INDEX", "1");
        // No interpreter is fetched: what these tests ask for does not exist.
        world.set("UV_PYTHON_DOWNLOADS", "never");
        world.set("UV_PYTHON_INSTALL_MIRROR", "http://127.0.0.1:9");
        world
    }

    /// A host configured like the one that the tests run on.
    pub fn like_this_one() -> Self {
        let mut world = Self::new();
        let path = world.variables.remove("PATH").unwrap();
        world.variables = std::env::vars().collect();
        world.set("PATH", &path);
        // One cache for all runs: the link is above what is mounted.
        let cache = Path::new(KEPT).join("cache/uv");
        std::fs::create_dir_all(&cache).unwrap();
        std::os::unix::fs::symlink(cache.parent().unwrap(), world.state.join("cache")).unwrap();
        world
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// A directory of packages that the host's pip is told of.
    pub fn packages(&mut self) -> Packages {
        let packages = Packages::new(self.dir.path().join("packages"));
        self.set("PIP_FIND_LINKS", &packages.dir.display().to_string());
        packages
    }

    /// Takes packages from an index in place of a directory.
    pub fn use_index(&mut self, url: &str) {
        self.variables.remove("PIP_FIND_LINKS");
        self.variables.remove("PIP_NO_INDEX");
        self.set("PIP_INDEX_URL", url);
    }

    pub fn launcher(&self) -> Arc<Launcher> {
        Arc::new(launcher(self.dir.path()))
    }

    pub fn builder(&self) -> EnvironmentBuilder {
        let variables: HostVariables = self.variables.clone().into_iter().collect();
        EnvironmentBuilder::with_variables(&self.state, self.launcher(), gateway(&self.state), self.policy, variables)
    }

    /// The log of a deployment of this name.
    pub fn log(&self, name: &str) -> LogWriter {
        self.logs().writer(&deployment(name), Container::StorageInitializer)
    }

    pub fn log_text(&self, name: &str) -> String {
        self.logs().read(&deployment(name), Container::StorageInitializer, 100_000).unwrap()
    }

    fn logs(&self) -> LogStore {
        LogStore::new(self.state.join("logs"))
    }

    /// Builds for the deployment `blue`, and shows its log when the test fails.
    pub fn build(&self, conda_file: &str) -> Result<PreparedEnvironment, Fault> {
        let started = Instant::now();
        let built = block_on(self.builder().prepare(SCOPE, request(conda_file), &self.log("blue")));
        println!("--- {:.1} s\n{}---", started.elapsed().as_secs_f64(), self.log_text("blue"));
        built
    }

    /// What a Python program prints in an isolated sandbox with the environment mounted as an instance has it.
    pub fn python(&self, environment: &PreparedEnvironment, code: &str) -> String {
        let (mut reader, stdout) = std::io::pipe().unwrap();
        let stderr = stdout.try_clone().unwrap();
        let mount = |dir: &PathBuf| Mount { source: dir.clone(), target: dir.clone(), access: Access::ReadOnly };
        let spec = SandboxSpec {
            name: "look".into(),
            program: environment.python.clone(),
            args: vec!["-c".into(), code.into()],
            env: Vec::new(),
            cwd: "/tmp".into(),
            mounts: environment.mounts.iter().map(mount).collect(),
            network: Network::Isolated,
            installer_config: false,
            limits: Limits { memory_bytes: 2 << 30, milli_cpus: 2000, pids: 128, scratch_bytes: 64 << 20 },
            stdout: stdout.into(),
            stderr: stderr.into(),
        };
        let launcher = self.launcher();
        let sandbox = launcher.launch(spec).unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        drop(sandbox);
        text
    }

    /// Names in the directory of environments.
    pub fn shelf(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.state.join("environments")).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

pub fn launcher(scratch: &Path) -> Launcher {
    let name = scratch.file_name().unwrap().to_str().unwrap().to_owned();
    Launcher::new(LauncherConfig {
        helper: "/proc/self/exe".into(),
        helper_args: Vec::new(),
        cgroup_group: name,
        scratch: scratch.join("scratch"),
    })
    .unwrap()
}

/// A gateway that asks the host's own resolver.
pub fn gateway(state: &Path) -> Gateway {
    Gateway::new(EgressConfig {
        upstream_dns: None,
        log_dir: state.join("outbound"),
        limits: EgressLimits::default(),
        front_door: ([127, 0, 0, 1], 9).into(),
        callers: casemate_model::inbound::DeploymentCallers::default(),
    })
    .unwrap()
}

pub fn deployment(name: &str) -> ResourceId {
    ResourceId::parse(&format!("/providers/Casemate.Test/deployments/{name}")).unwrap()
}

pub fn request(conda_file: &str) -> EnvironmentRequest {
    EnvironmentRequest { conda_file: Some(conda_file.to_owned()), ..EnvironmentRequest::default() }
}

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(work)
}

/// Waits until something is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(120), "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A uv to put on the path: this host's, or one that its pip fetches once.
pub fn uv() -> PathBuf {
    let kept = Path::new(KEPT).join("uv");
    let lock = std::fs::File::create(Path::new(KEPT).join("uv.lock")).unwrap();
    lock.lock().unwrap();
    let program = kept.join("bin/uv");
    if !program.is_file() {
        let args = ["-m", "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target"];
        let done = Command::new("python3").args(args).arg(&kept).arg("uv==0.13.9").status().unwrap();
        assert!(done.success());
    }
    program
}
