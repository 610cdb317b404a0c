//! What it takes to run one instance.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use casemate_egress::InstanceIdentity;
use casemate_model::{ResourceId, deployment::ProbeSettings, egress::EgressPolicy, instance_type::InstanceSize};
use tokio::sync::watch;

use crate::environment::PreparedEnvironment;

/// One instance of a deployment. `Debug` shows the names of the variables only: their values may be secrets.
#[derive(Clone)]
pub struct InstanceRequest {
    /// Whose instance it is; its logs go there.
    pub deployment: ResourceId,
    /// The Python environment to run in.
    pub environment: PreparedEnvironment,
    /// The scoring code. Nothing can be served without it yet.
    pub code: Option<CodeMount>,
    /// The models. `AZUREML_MODEL_DIR` is the directory of the only one, or of all when there are several.
    pub models: Vec<ModelMount>,
    /// Directory under which `<name>/<version>` of the model is mounted; the documented one when absent.
    pub model_mount_path: Option<String>,
    /// Variables of the process. They win over those that the platform sets, as in the original.
    pub variables: BTreeMap<String, String>,
    /// Limits on memory and CPU time.
    pub size: InstanceSize,
    /// Server workers: requests that the instance can work on at once. `WORKER_COUNT` in `variables` wins over it.
    pub workers: u32,
    /// When to restart the process.
    pub liveness: ProbeSettings,
    /// When the instance can take requests.
    pub readiness: ProbeSettings,
    /// What it may reach. Changes are effective at once, for streams that are open too.
    pub egress: watch::Receiver<Arc<EgressPolicy>>,
    /// Who it is: it can get tokens of this identity, and of no other.
    pub identity: Option<Arc<dyn InstanceIdentity>>,
}

impl fmt::Debug for InstanceRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InstanceRequest")
            .field("deployment", &self.deployment)
            .field("environment", &self.environment.digest)
            .field("code", &self.code)
            .field("models", &self.models)
            .field("model_mount_path", &self.model_mount_path)
            .field("variables", &self.variables.keys().collect::<Vec<_>>())
            .field("size", &self.size)
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

/// The scoring code on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CodeMount {
    /// The directory of the code; its name is kept inside.
    pub source: PathBuf,
    /// Path of the entry script below it, such as `score.py`.
    pub script: String,
}

/// The model on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelMount {
    /// A file or a directory; its name is kept inside.
    pub source: PathBuf,
    /// Name of the model asset.
    pub name: String,
    /// Version of the model asset.
    pub version: String,
}
