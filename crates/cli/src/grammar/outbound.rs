//! `ml workspace outbound-rule …` and `ml workspace outbound-log`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{NoWait, Yes, workspace::WorkspaceName};

/// Outbound rules.
#[derive(Debug, Subcommand)]
pub(crate) enum RuleCommand {
    /// Create or replace a rule.
    #[command(
        visible_alias = "create",
        after_help = "Examples:
  casemate ml workspace outbound-rule set --workspace-name ws --rule pypi --type fqdn --destination packages.example.com
  casemate ml workspace outbound-rule set --workspace-name ws --rule db --type fqdn --destination db.example.com --port-ranges 5432
  casemate ml workspace outbound-rule set --workspace-name ws --rule blob --type private_endpoint \\
    --service-resource-id ID --subresource-target blob"
    )]
    Set(Box<RuleArgs>),
    /// Change a rule: what is not given stays.
    #[command(
        after_help = "Example:\n  casemate ml workspace outbound-rule update --workspace-name ws --rule db --port-ranges 5432,6432"
    )]
    Update(Box<RuleArgs>),
    /// List the rules.
    #[command(after_help = "Example:\n  casemate ml workspace outbound-rule list --workspace-name ws -o table")]
    List(RuleScope),
    /// Show a rule.
    #[command(after_help = "Example:\n  casemate ml workspace outbound-rule show --workspace-name ws --rule pypi")]
    Show(RuleName),
    /// Remove a rule.
    #[command(
        alias = "delete",
        after_help = "Example:\n  casemate ml workspace outbound-rule remove --workspace-name ws --rule pypi --yes"
    )]
    Remove {
        #[command(flatten)]
        rule: RuleName,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        no_wait: NoWait,
    },
    /// Tell whether a deployment could open a connection, and which rule decides. Nothing is sent.
    #[command(after_help = "Examples:
  casemate ml workspace outbound-rule test -n my-workspace packages.example.org:443
  casemate ml workspace outbound-rule test -n my-workspace --endpoint my-endpoint --deployment blue db.example.com:5432")]
    Test(TestArgs),
    /// Propose the rules that a deployment needs, from what it reached while it ran with --audit.
    #[command(after_help = "Examples:
  casemate ml online-deployment update -n blue -e my-endpoint --audit
  casemate ml workspace outbound-rule suggest -n my-workspace --deployment blue > rules.yml
  casemate ml workspace update -n my-workspace -f rules.yml")]
    Suggest(SuggestArgs),
}

/// In which workspace.
#[derive(Debug, Args)]
pub(crate) struct RuleScope {
    /// Workspace (default: the configured one).
    #[arg(short = 'w', long, value_name = "NAME")]
    pub(crate) workspace_name: Option<String>,
    /// Resource group (default: the configured one).
    #[arg(short = 'g', long, value_name = "NAME")]
    pub(crate) resource_group: Option<String>,
}

/// A rule of a workspace.
#[derive(Debug, Args)]
pub(crate) struct RuleName {
    /// Name of the rule.
    #[arg(short = 'n', long, alias = "name", value_name = "NAME")]
    pub(crate) rule: String,
    #[command(flatten)]
    pub(crate) scope: RuleScope,
}

/// `set` and `update`.
#[derive(Debug, Args)]
pub(crate) struct RuleArgs {
    #[command(flatten)]
    pub(crate) rule: RuleName,
    /// YAML file with the rule; options win over it.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// fqdn, private_endpoint or service_tag.
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,
    /// Host name, or *.NAME for all below it (fqdn).
    #[arg(short = 'd', long, value_name = "HOST")]
    pub(crate) destination: Option<String>,
    /// Id of the resource (private_endpoint).
    #[arg(long, value_name = "ID")]
    pub(crate) service_resource_id: Option<String>,
    /// Part of the resource, such as blob (private_endpoint).
    #[arg(long, value_name = "NAME")]
    pub(crate) subresource_target: Option<String>,
    /// Also for Spark (private_endpoint).
    #[arg(long, value_name = "BOOL")]
    pub(crate) spark_enabled: Option<String>,
    /// Host names of the resource (private_endpoint), separated by commas.
    #[arg(long, value_name = "HOSTS")]
    pub(crate) fqdns: Option<String>,
    /// Tag (service_tag).
    #[arg(long, value_name = "TAG")]
    pub(crate) service_tag: Option<String>,
    /// TCP, UDP, ICMP or * (service_tag).
    #[arg(long, value_name = "NAME")]
    pub(crate) protocol: Option<String>,
    /// Ports such as 80,8080-8089 (service_tag, and fqdn: 80,443 when not given).
    #[arg(long, value_name = "PORTS")]
    pub(crate) port_ranges: Option<String>,
    /// Networks separated by commas (service_tag).
    #[arg(long, value_name = "PREFIXES")]
    pub(crate) address_prefixes: Option<String>,
    #[command(flatten)]
    pub(crate) no_wait: NoWait,
}

/// `test`.
#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    #[command(flatten)]
    pub(crate) workspace: WorkspaceName,
    #[command(flatten)]
    pub(crate) of: OfDeployment,
    /// Host name or address with a port: packages.example.org:443, 10.0.0.5:5432, [fd00::1]:443.
    #[arg(value_name = "HOST:PORT")]
    pub(crate) destination: String,
}

/// Which deployment is meant.
#[derive(Debug, Args)]
pub(crate) struct OfDeployment {
    /// Name of the deployment.
    #[arg(short = 'd', long, value_name = "NAME")]
    pub(crate) deployment: Option<String>,
    /// Name of its endpoint, when several endpoints have such a deployment.
    #[arg(short = 'e', long, value_name = "NAME", requires = "deployment")]
    pub(crate) endpoint: Option<String>,
}

/// `suggest`.
#[derive(Debug, Args)]
pub(crate) struct SuggestArgs {
    #[command(flatten)]
    pub(crate) workspace: WorkspaceName,
    #[command(flatten)]
    pub(crate) of: OfDeployment,
}

/// `outbound-log`.
#[derive(Debug, Args)]
pub(crate) struct OutboundLogArgs {
    #[command(flatten)]
    pub(crate) workspace: WorkspaceName,
    #[command(flatten)]
    pub(crate) of: OfDeployment,
    /// Only what was refused.
    #[arg(long)]
    pub(crate) denied: bool,
    /// Go on and print what comes, one entry a line, until interrupted.
    #[arg(long)]
    pub(crate) follow: bool,
    /// How many entries from the end.
    #[arg(short = 'l', long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) lines: u32,
}
