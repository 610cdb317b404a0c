//! A backend on a fresh state directory, and what the cases ask of it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use casemate_egress::{EgressConfig, EgressLimits, Gateway};
use casemate_model::{Fault, ResourceId, deployment::ProbeSettings, instance_type::InstanceSize, route::Upstream};
use casemate_runtime::{
    Backend, CodeMount, Container, EnvironmentBuilder, EnvironmentRequest, Instance, InstanceRequest, InstanceStatus,
    LocalBackend, LogStore, PreparedEnvironment, PythonPolicy,
};
use casemate_sandbox::{HELPER_ARG, Launcher, LauncherConfig};
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, body::Bytes};
use hyper_util::rt::TokioIo;
use nix::fcntl::{Flock, FlockArg};
use tokio::{net::TcpSocket, sync::watch, time::timeout};

/// A backend on a fresh state directory, with an environment shared by all tests and kept between runs.
pub struct Bench {
    pub state: tempfile::TempDir,
    pub backend: LocalBackend,
    environment: PreparedEnvironment,
}

impl Bench {
    pub async fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let group = format!("test-{}", std::process::id());
        let launcher = Launcher::new(LauncherConfig {
            helper: "/proc/self/exe".into(),
            helper_args: vec![HELPER_ARG.to_owned()],
            cgroup_group: group,
            scratch: state.path().join("instances"),
        });
        let launcher = Arc::new(launcher.unwrap());
        let gateway = gateway(state.path());
        let environment = shared_environment(&launcher, gateway.clone()).await;
        let backend = LocalBackend::new(state.path(), launcher, gateway, PythonPolicy::Nearest).unwrap();
        Self { state, backend, environment }
    }

    /// A request for `script`, under a deployment of that name.
    pub fn request(&self, name: &str, script: &str) -> InstanceRequest {
        let code = self.state.path().join("code").join(name).join("onlinescoring");
        fs::create_dir_all(&code).unwrap();
        fs::write(code.join("score.py"), script).unwrap();
        InstanceRequest {
            deployment: deployment(name),
            environment: self.environment.clone(),
            code: Some(CodeMount { source: code, script: "score.py".to_owned() }),
            models: Vec::new(),
            model_mount_path: None,
            variables: BTreeMap::new(),
            size: InstanceSize { milli_cpus: 2000, memory_bytes: 512 << 20 },
            workers: 1,
            liveness: ProbeSettings::default(),
            readiness: ProbeSettings::default(),
            egress: watch::channel(Arc::default()).1,
            identity: None,
        }
    }

    pub fn log(&self, name: &str, container: Container) -> String {
        self.backend.logs().read(&deployment(name), container, 1000).unwrap()
    }
}

pub fn deployment(name: &str) -> ResourceId {
    let workspace = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w";
    ResourceId::parse(&format!("{workspace}/onlineEndpoints/e/deployments/{name}")).unwrap()
}

/// A gateway that asks the host's own resolver.
fn gateway(state: &Path) -> Gateway {
    Gateway::new(EgressConfig {
        upstream_dns: None,
        log_dir: state.join("outbound"),
        limits: EgressLimits::default(),
        front_door: ([127, 0, 0, 1], 9).into(),
        callers: casemate_model::inbound::DeploymentCallers::default(),
    })
    .unwrap()
}

async fn shared_environment(launcher: &Arc<Launcher>, gateway: Gateway) -> PreparedEnvironment {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("environment");
    fs::create_dir_all(&dir).unwrap();
    let lock = File::create(dir.join("lock")).unwrap();
    let _lock = tokio::task::spawn_blocking(|| Flock::lock(lock, FlockArg::LockExclusive).unwrap()).await.unwrap();
    let conda = "name: serving\ndependencies:\n  - pip:\n    - azureml-inference-server-http\n";
    let request = EnvironmentRequest { conda_file: Some(conda.to_owned()), ..EnvironmentRequest::default() };
    let logs = LogStore::new(dir.join("logs"));
    let log = logs.writer(&deployment("environment"), Container::StorageInitializer);
    let builder = EnvironmentBuilder::new(&dir, Arc::clone(launcher), gateway, PythonPolicy::Nearest);
    builder.prepare(deployment("environment").as_str(), request, &log).await.unwrap()
}

/// Waits for a status that `pick` takes; a failed instance and a long wait fail the test.
pub async fn wait_for<T>(instance: &Instance, mut pick: impl FnMut(&InstanceStatus) -> Option<T>) -> T {
    let mut status = instance.status();
    let waiting = async {
        loop {
            let now = status.borrow_and_update().clone();
            if let Some(picked) = pick(&now) {
                return picked;
            }
            assert!(!matches!(now, InstanceStatus::Failed(_)), "{now:?}");
            status.changed().await.unwrap();
        }
    };
    timeout(Duration::from_secs(180), waiting).await.expect("the status comes in time")
}

pub async fn ready(instance: &Instance) -> Arc<Upstream> {
    wait_for(
        instance,
        |status| if let InstanceStatus::Ready(upstream) = status { Some(Arc::clone(upstream)) } else { None },
    )
    .await
}

pub async fn failed(instance: &Instance) -> Fault {
    wait_for(instance, |status| if let InstanceStatus::Failed(fault) = status { Some(fault.clone()) } else { None })
        .await
}

/// POSTs to `/score` and gives status and body, or nothing when the connection breaks.
pub async fn score(upstream: &Upstream, body: &str) -> Option<(StatusCode, String)> {
    let socket = TcpSocket::from_std_stream(upstream.dial.socket().ok()?.into());
    let stream = socket.connect(upstream.address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::post("/score")
        .header("host", "model")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap();
    let answer = async move {
        let response = sender.send_request(request).await.ok()?;
        let status = response.status();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, String::from_utf8_lossy(&body).into_owned()))
    };
    // The connection ends when the answer is read and the sender gone, or when the server breaks it.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}
