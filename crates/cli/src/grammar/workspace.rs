//! `ml workspace …`.

use clap::{Args, Subcommand};

use super::{
    FileAndSet, NoWait, Yes,
    outbound::{OutboundLogArgs, RuleCommand},
};

/// Workspaces.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkspaceCommand {
    /// Create a workspace with what it depends on.
    #[command(after_help = "Examples:
  casemate ml workspace create -g my-group -n my-workspace
  casemate ml workspace create -g my-group -n my-workspace -m allow_only_approved_outbound
  casemate ml workspace create -f workspace.yml")]
    Create {
        #[command(flatten)]
        write: WorkspaceWrite,
        /// Region (default: the file's, the configured one, the group's).
        #[arg(short = 'l', long, value_name = "REGION")]
        location: Option<String>,
        /// Make the managed network at once.
        #[arg(long)]
        provision_network_now: bool,
    },
    /// Change a workspace.
    #[command(after_help = "Examples:
  casemate ml workspace update -n my-workspace --public-network-access disabled
  casemate ml workspace update -n my-workspace -m allow_internet_outbound
  casemate ml workspace update -n my-workspace -f workspace.yml --set tags.team=a")]
    Update {
        #[command(flatten)]
        write: WorkspaceWrite,
        /// Accepted for scripts.
        #[arg(short = 'u', long, hide = true)]
        update_dependent_resources: bool,
    },
    /// Show a workspace.
    #[command(after_help = "Example:\n  casemate ml workspace show -n my-workspace --query managed_network")]
    Show(WorkspaceName),
    /// List the workspaces of a group or of the subscription.
    #[command(
        after_help = "Examples:\n  casemate ml workspace list -o table\n  casemate ml workspace list -g my-group"
    )]
    List {
        /// Only this group.
        #[arg(short = 'g', long, value_name = "NAME")]
        resource_group: Option<String>,
    },
    /// Delete a workspace.
    #[command(after_help = "Example:\n  casemate ml workspace delete -n my-workspace --all-resources --yes")]
    Delete {
        #[command(flatten)]
        workspace: WorkspaceName,
        /// Delete also what it depends on.
        #[arg(long)]
        all_resources: bool,
        /// Accepted for scripts: nothing is kept after a deletion anyway.
        #[arg(short = 'p', long)]
        permanently_delete: bool,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        no_wait: NoWait,
    },
    /// Make the managed network.
    #[command(after_help = "Example:\n  casemate ml workspace provision-network -n my-workspace")]
    ProvisionNetwork {
        #[command(flatten)]
        workspace: WorkspaceName,
        /// Also for Spark.
        #[arg(long)]
        include_spark: bool,
        #[command(flatten)]
        no_wait: NoWait,
    },
    /// Outbound rules of the managed network.
    #[command(subcommand)]
    OutboundRule(RuleCommand),
    /// What deployments reached or tried to reach, and why it was let through or refused.
    #[command(after_help = "Examples:
  casemate ml workspace outbound-log -n my-workspace --denied -o table
  casemate ml workspace outbound-log -n my-workspace --deployment blue --follow")]
    OutboundLog(OutboundLogArgs),
}

/// A workspace.
#[derive(Debug, Args)]
pub(crate) struct WorkspaceName {
    /// Name of the workspace (also -w, --workspace-name; default: the configured one).
    #[arg(short = 'n', short_alias = 'w', long, alias = "workspace-name", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Resource group (default: the configured one).
    #[arg(short = 'g', long, value_name = "NAME")]
    pub(crate) resource_group: Option<String>,
}

/// What `create` and `update` share.
#[derive(Debug, Args)]
pub(crate) struct WorkspaceWrite {
    #[command(flatten)]
    pub(crate) workspace: WorkspaceName,
    #[command(flatten)]
    pub(crate) source: FileAndSet,
    #[command(flatten)]
    pub(crate) options: WorkspaceOptions,
    #[command(flatten)]
    pub(crate) no_wait: NoWait,
}

/// Options that win over the file.
#[derive(Debug, Args)]
pub(crate) struct WorkspaceOptions {
    /// disabled, allow_internet_outbound or allow_only_approved_outbound.
    #[arg(short = 'm', long, value_name = "MODE")]
    pub(crate) managed_network: Option<String>,
    /// Free text.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// A readable name.
    #[arg(long, value_name = "TEXT")]
    pub(crate) display_name: Option<String>,
    /// Labels: KEY=VALUE …
    #[arg(long, value_name = "KEY=VALUE", num_args = 0..)]
    pub(crate) tags: Option<Vec<String>>,
    /// Whether it may be reached from outside: enabled or disabled.
    #[arg(long, value_name = "ACCESS")]
    pub(crate) public_network_access: Option<String>,
    /// Prefixes or addresses of callers that may come from outside; none lifts the list.
    #[arg(long, value_name = "PREFIX", num_args = 0..)]
    pub(crate) ip_allowlist: Option<Vec<String>>,
    /// Compute that builds images.
    #[arg(short = 'i', long, value_name = "NAME")]
    pub(crate) image_build_compute: Option<String>,
    /// Id of an existing storage account.
    #[arg(long, value_name = "ID")]
    pub(crate) storage_account: Option<String>,
    /// Id of an existing vault.
    #[arg(long, value_name = "ID")]
    pub(crate) key_vault: Option<String>,
    /// Id of an existing registry.
    #[arg(short = 'c', long, value_name = "ID")]
    pub(crate) container_registry: Option<String>,
    /// Id of an existing metrics store.
    #[arg(short = 'a', long, value_name = "ID")]
    pub(crate) application_insights: Option<String>,
    /// The identity it uses first.
    #[arg(short = 'p', long, value_name = "ID")]
    pub(crate) primary_user_assigned_identity: Option<String>,
    /// How system datastores are opened.
    #[arg(long, value_name = "MODE")]
    pub(crate) system_datastores_auth_mode: Option<String>,
}
