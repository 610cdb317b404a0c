//! Where instances run: the trait that reconcilers speak to, and the backend for this machine.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use casemate_egress::Gateway;
use casemate_model::{Fault, FaultKind, ResourceId};
use casemate_sandbox::Launcher;
use jiff::Timestamp;
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use crate::{
    environment::{EnvironmentBuilder, EnvironmentRequest, PreparedEnvironment, PythonPolicy},
    instance::{Instance, InstanceStatus, Means, Plan, Supervisor},
    layout::Layout,
    logs::{Container, LogStore},
    outbound::{Outbound, OwnIdentity, scope_of, shown_deployment},
    request::{CodeMount, InstanceRequest},
};

/// Instances that may be in the middle of starting at once.
const TURNS: usize = 4;
/// Names that a message lists of what is in the code directory.
const LISTED_FILES: usize = 20;

/// A place where instances can run.
pub trait Backend: Send + Sync + 'static {
    /// Makes an environment ready, or finds it ready. Progress goes to the deployment's storage-initializer log.
    ///
    /// # Errors
    /// The fault that the deployment fails with, the installer's own words in it.
    fn environment_prepare(
        &self,
        deployment: &ResourceId,
        request: EnvironmentRequest,
    ) -> impl Future<Output = Result<PreparedEnvironment, Fault>> + Send;

    /// Begins to run an instance; its handle tells how that goes.
    ///
    /// # Errors
    /// When the request itself can't be carried out. A process that does not come up is a status, not an error.
    fn instance_start(&self, request: InstanceRequest) -> impl Future<Output = Result<Instance, Fault>> + Send;

    /// The logs of everything that ran here.
    fn logs(&self) -> &LogStore;
}

/// Runs instances on this machine, each in its own sandbox. Clones are the same backend.
#[derive(Clone)]
pub struct LocalBackend {
    environments: EnvironmentBuilder,
    logs: LogStore,
    means: Means,
    /// The supervisors.
    tasks: TaskTracker,
}

impl LocalBackend {
    /// A backend that keeps its logs and environments under `state_dir`, and whose only way out is `gateway`.
    ///
    /// # Errors
    /// When the directory can't be written.
    pub fn new(
        state_dir: &Path,
        launcher: Arc<Launcher>,
        gateway: Gateway,
        policy: PythonPolicy,
    ) -> Result<Self, Fault> {
        let logs = state_dir.join("logs");
        fs::create_dir_all(&logs).map_err(|error| {
            let message = format!("The state directory {} can't be written: {error}.", state_dir.display());
            Fault::new(FaultKind::Unavailable, "StateDirectoryNotWritable", message)
        })?;
        let environments = EnvironmentBuilder::new(state_dir, Arc::clone(&launcher), gateway.clone(), policy);
        // Ids must not come again after a restart. Fewer than one instance is started in a microsecond, so the time
        // is always ahead of the count.
        let first_id = u64::try_from(Timestamp::now().as_microsecond()).unwrap_or(1);
        let turns = Arc::new(Semaphore::new(TURNS));
        let means = Means { launcher, gateway, turns, next_id: Arc::new(AtomicU64::new(first_id)) };
        Ok(Self { environments, logs: LogStore::new(logs), means, tasks: TaskTracker::new() })
    }

    /// Breaks off environment builds and waits until nothing runs here any more. To be called when all handles are
    /// stopped or dropped.
    pub async fn ended(&self) {
        self.environments.shutdown().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Backend for LocalBackend {
    async fn environment_prepare(
        &self,
        deployment: &ResourceId,
        request: EnvironmentRequest,
    ) -> Result<PreparedEnvironment, Fault> {
        let log = self.logs.writer(deployment, Container::StorageInitializer);
        self.environments.prepare(&scope_of(deployment), request, &log).await
    }

    async fn instance_start(&self, request: InstanceRequest) -> Result<Instance, Fault> {
        let identity = request.identity.clone().map(OwnIdentity::new).transpose()?;
        let layout = Layout::new(&request, identity.as_ref())?;
        let request = tokio::task::spawn_blocking(move || check_sources(&request).map(|()| request)).await;
        let request = request.map_err(|_| Fault::internal("The platform is stopping."))??;
        let initializer = self.logs.writer(&request.deployment, Container::StorageInitializer);
        layout.notes.iter().for_each(|note| initializer.line(note));
        let outbound = Outbound {
            gateway: self.means.gateway.clone(),
            scope: scope_of(&request.deployment),
            deployment: shown_deployment(&request.deployment),
            policy: request.egress,
            identity: identity.map(|identity| Arc::new(identity) as _),
        };
        let plan = Plan {
            layout,
            outbound,
            script: request.code.map_or_else(String::new, |code| code.script),
            size: request.size,
            liveness: request.liveness.into(),
            readiness: request.readiness.into(),
            log: self.logs.writer(&request.deployment, Container::InferenceServer),
        };
        let (status, status_seen) = watch::channel(InstanceStatus::Starting);
        let (stop, stop_seen) = watch::channel(None);
        self.tasks.spawn(Supervisor::new(self.means.clone(), plan, status, stop_seen).run());
        Ok(Instance::new(status_seen, stop))
    }

    fn logs(&self) -> &LogStore {
        &self.logs
    }
}

/// Looks for the files before anything is started, since what is missing is clearer said here than by the server.
fn check_sources(request: &InstanceRequest) -> Result<(), Fault> {
    if let Some(model) = request.models.iter().find(|model| !model.source.exists()) {
        let message = format!(
            "The files of model {} version {} are not in the artifact store any more; register the model again.",
            model.name, model.version
        );
        return Err(Fault::not_found("ResourceNotFound", message).at("model"));
    }
    request.code.as_ref().map_or(Ok(()), check_code)
}

fn check_code(code: &CodeMount) -> Result<(), Fault> {
    let script = code.script.replace('\\', "/");
    if code.source.join(&script).symlink_metadata().is_ok() {
        return Ok(());
    }
    let Ok(entries) = fs::read_dir(&code.source) else {
        let message = "The deployment's code is not in the artifact store any more; create the deployment again.";
        return Err(Fault::not_found("ResourceNotFound", message).at("codeConfiguration.codeId"));
    };
    let names: BTreeSet<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let shown: Vec<&str> = names.iter().take(LISTED_FILES).map(String::as_str).collect();
    let more = if names.len() > LISTED_FILES { ", …" } else { "" };
    let message = format!(
        "The scoring_script '{}' is not in the code directory, which holds: {}{more}. Correct scoring_script, or add the \
         file.",
        code.script.escape_debug(),
        shown.join(", ")
    );
    Err(Fault::invalid("UserScriptImportError", message).at("codeConfiguration.scoringScript"))
}
