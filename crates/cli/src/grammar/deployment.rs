//! `ml online-deployment …`.

use clap::{Args, Subcommand, ValueEnum};

use super::{FileAndSet, NoWait, Scope, Yes, endpoint::Local};

/// Online deployments.
#[derive(Debug, Subcommand)]
pub(crate) enum DeploymentCommand {
    /// Create a deployment from a YAML file.
    #[command(after_help = "Examples:
  casemate ml online-deployment create -n blue -e my-endpoint -f blue.yml --all-traffic
  casemate ml online-deployment create -e my-endpoint -f blue.yml --set instance_count=2 environment_variables.A=b")]
    Create {
        #[command(flatten)]
        write: DeploymentWrite,
        /// Send all traffic of the endpoint to it once it is ready.
        #[arg(long, conflicts_with = "no_wait")]
        all_traffic: bool,
    },
    /// Change a deployment.
    #[command(after_help = "Examples:
  casemate ml online-deployment update -n blue -e my-endpoint --set instance_count=2
  casemate ml online-deployment update -n blue -e my-endpoint -f blue.yml
  casemate ml online-deployment update -n blue -e my-endpoint --audit")]
    Update {
        #[command(flatten)]
        write: DeploymentWrite,
    },
    /// Show a deployment.
    #[command(
        after_help = "Example:\n  casemate ml online-deployment show -n blue -e my-endpoint --query '{name:name,state:provisioning_state}'"
    )]
    Show(DeploymentName),
    /// List the deployments of an endpoint.
    #[command(after_help = "Example:\n  casemate ml online-deployment list -e my-endpoint -o table")]
    List {
        /// Name of the endpoint.
        #[arg(short = 'e', long, value_name = "NAME")]
        endpoint_name: String,
        #[command(flatten)]
        scope: Scope,
        #[command(flatten)]
        local: Local,
    },
    /// Delete a deployment.
    #[command(after_help = "Example:\n  casemate ml online-deployment delete -n blue -e my-endpoint --yes --no-wait")]
    Delete {
        #[command(flatten)]
        deployment: DeploymentName,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        no_wait: NoWait,
    },
    /// Print a deployment's log.
    #[command(after_help = "Examples:
  casemate ml online-deployment get-logs -n blue -e my-endpoint --lines 100
  casemate ml online-deployment get-logs -n blue -e my-endpoint --container storage-initializer")]
    GetLogs(LogsArgs),
}

/// A deployment of an endpoint.
#[derive(Debug, Args)]
pub(crate) struct DeploymentName {
    /// Name of the deployment.
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) name: String,
    /// Name of the endpoint.
    #[arg(short = 'e', long, value_name = "NAME")]
    pub(crate) endpoint_name: String,
    #[command(flatten)]
    pub(crate) scope: Scope,
    #[command(flatten)]
    pub(crate) local: Local,
}

/// What `create` and `update` share.
#[derive(Debug, Args)]
pub(crate) struct DeploymentWrite {
    /// Name of the deployment; wins over the file.
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Name of the endpoint; wins over the file.
    #[arg(short = 'e', long, value_name = "NAME")]
    pub(crate) endpoint_name: Option<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    #[command(flatten)]
    pub(crate) source: FileAndSet,
    /// Learn mode: let the deployment reach everything public and write down what the outbound rules would have
    /// refused. `--audit false` ends it.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) audit: Option<bool>,
    /// Do not check that the scoring script is there.
    #[arg(long)]
    pub(crate) skip_script_validation: bool,
    #[command(flatten)]
    pub(crate) no_wait: NoWait,
    #[command(flatten)]
    pub(crate) local: Local,
}

/// `get-logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) deployment: DeploymentName,
    /// How many lines from the end.
    #[arg(short = 'l', long, default_value_t = 5000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) lines: u32,
    /// Whose log.
    #[arg(short = 'c', long, value_enum, default_value = "inference-server", value_name = "CONTAINER")]
    pub(crate) container: ContainerName,
}

/// Containers with a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ContainerName {
    /// The process that runs the scoring script.
    InferenceServer,
    /// What put model and code in place.
    StorageInitializer,
}
