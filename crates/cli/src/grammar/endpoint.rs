//! `ml online-endpoint …`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::{FileAndSet, NoWait, Scope, Yes};

/// Online endpoints.
#[derive(Debug, Subcommand)]
pub(crate) enum EndpointCommand {
    /// Create an endpoint.
    #[command(after_help = "Examples:
  casemate ml online-endpoint create -n my-endpoint
  casemate ml online-endpoint create -n my-endpoint -f endpoint.yml --set public_network_access=disabled")]
    Create(EndpointCreate),
    /// Change an endpoint: traffic, labels, anything with --set.
    #[command(after_help = "Examples:
  casemate ml online-endpoint update -n my-endpoint --traffic \"blue=90 green=10\"
  casemate ml online-endpoint update -n my-endpoint --mirror-traffic \"green=10\"
  casemate ml online-endpoint update -n my-endpoint --set tags.team=a")]
    Update(EndpointUpdate),
    /// Show an endpoint.
    #[command(after_help = "Examples:
  casemate ml online-endpoint show -n my-endpoint
  casemate ml online-endpoint show -n my-endpoint --query scoring_uri -o tsv")]
    Show(EndpointName),
    /// List the endpoints of a workspace.
    #[command(after_help = "Example:\n  casemate ml online-endpoint list -o table")]
    List {
        #[command(flatten)]
        scope: Scope,
        #[command(flatten)]
        local: Local,
    },
    /// Delete an endpoint and its deployments.
    #[command(after_help = "Example:\n  casemate ml online-endpoint delete -n my-endpoint --yes --no-wait")]
    Delete {
        #[command(flatten)]
        endpoint: EndpointName,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        no_wait: NoWait,
    },
    /// Send a request and print the model's answer.
    #[command(after_help = "Examples:
  casemate ml online-endpoint invoke -n my-endpoint --request-file sample.json
  casemate ml online-endpoint invoke -n my-endpoint --deployment-name green --request-file sample.json")]
    Invoke(InvokeArgs),
    /// Print the endpoint's keys or a token.
    #[command(
        after_help = "Example:\n  casemate ml online-endpoint get-credentials -n my-endpoint --query primaryKey -o tsv"
    )]
    GetCredentials(EndpointName),
    /// Replace one of the endpoint's keys.
    #[command(
        after_help = "Example:\n  casemate ml online-endpoint regenerate-keys -n my-endpoint --key-type secondary"
    )]
    RegenerateKeys {
        #[command(flatten)]
        endpoint: EndpointName,
        /// Which key.
        #[arg(long, value_enum, default_value = "primary", ignore_case = true)]
        key_type: KeyName,
        #[command(flatten)]
        no_wait: NoWait,
        #[command(flatten)]
        yes: Yes,
    },
}

/// Accepted so that it can be refused with a reason.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Local {
    /// Not supported: run the platform itself instead (`casemate up`).
    #[arg(long, hide = true)]
    pub(crate) local: bool,
}

/// An endpoint of a workspace.
#[derive(Debug, Args)]
pub(crate) struct EndpointName {
    /// Name of the endpoint.
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) scope: Scope,
    #[command(flatten)]
    pub(crate) local: Local,
}

/// `create`.
#[derive(Debug, Args)]
pub(crate) struct EndpointCreate {
    /// Name of the endpoint; wins over the file.
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    #[command(flatten)]
    pub(crate) source: FileAndSet,
    /// How callers authenticate: key, aml_token or aad_token.
    #[arg(long, value_name = "MODE")]
    pub(crate) auth_mode: Option<String>,
    /// Labels: KEY=VALUE …
    #[arg(long, value_name = "KEY=VALUE", num_args = 0..)]
    pub(crate) tags: Option<Vec<String>>,
    #[command(flatten)]
    pub(crate) no_wait: NoWait,
    #[command(flatten)]
    pub(crate) local: Local,
}

/// `update`.
#[derive(Debug, Args)]
pub(crate) struct EndpointUpdate {
    /// Name of the endpoint; wins over the file.
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    #[command(flatten)]
    pub(crate) source: FileAndSet,
    /// Live percentages: DEPLOYMENT=PERCENT …
    #[arg(short = 'r', long, value_name = "NAME=PERCENT", num_args = 1..)]
    pub(crate) traffic: Option<Vec<String>>,
    /// Percentage of the requests that one more deployment gets a copy of: DEPLOYMENT=PERCENT
    #[arg(long, value_name = "NAME=PERCENT", num_args = 1..)]
    pub(crate) mirror_traffic: Option<Vec<String>>,
    /// Labels: KEY=VALUE …
    #[arg(long, value_name = "KEY=VALUE", num_args = 0..)]
    pub(crate) tags: Option<Vec<String>>,
    #[command(flatten)]
    pub(crate) no_wait: NoWait,
    #[command(flatten)]
    pub(crate) local: Local,
}

/// `invoke`.
#[derive(Debug, Args)]
pub(crate) struct InvokeArgs {
    /// Name of the endpoint.
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// JSON file to send.
    #[arg(short = 'r', long, value_name = "FILE")]
    pub(crate) request_file: PathBuf,
    /// The deployment to ask, whatever its share of the traffic.
    #[arg(short = 'd', long, value_name = "NAME")]
    pub(crate) deployment_name: Option<String>,
    #[command(flatten)]
    pub(crate) local: Local,
}

/// One of the two keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum KeyName {
    /// The first.
    Primary,
    /// The second.
    Secondary,
}
