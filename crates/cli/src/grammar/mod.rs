//! What may be written: commands and options, with examples. The names are those of `az`; abbreviations of long options
//! are accepted as long as they are unique.

mod account;
mod acme;
mod assets;
mod computetarget;
mod deployment;
mod dns;
mod endpoint;
mod group;
mod keyvault;
mod network;
mod outbound;
mod platform;
mod tls;
pub(crate) mod unsupported;
mod workspace;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::{
    account::{
        Account, Config, Configure, Extension, Login, Role, RoleAssignment, RoleDefinition, ServicePrincipal, TokenArgs,
    },
    assets::{AssetCreate, AssetList, AssetName, EnvironmentCommand, EnvironmentOptions, ModelCommand, ModelOptions},
    computetarget::{
        AksAttach, AksCreate, AksUpdate, AttachKind, BalancerArgs, ComputeEnd, ComputeName, ComputeTargetCommand,
        CreateKind, SslArgs, UpdateKind,
    },
    deployment::{ContainerName, DeploymentCommand, DeploymentWrite, LogsArgs},
    dns::{DnsCommand, DnsExport, DnsFormat, DnsView},
    endpoint::{EndpointCommand, EndpointCreate, EndpointUpdate, InvokeArgs, KeyName},
    group::GroupCommand,
    keyvault::{
        KeyVault, NetworkRuleArgs, NetworkRuleCommand, PolicyArgs, PolicyHolder, SecretAbout, SecretCommand,
        SecretName, SecretSet, VaultArgs, VaultCreate, VaultName,
    },
    network::{
        AaaaValue, Acr, AcrConnection, AcrConnectionName, AddressValue, CnameValue, ConnectionCommand, ConnectionName,
        EndpointArgs, InGroup, InZone, LinkCommand, LinkKind, LinkResource, Named, Network, Placed, PrivateDns,
        PrivateEndpointCommand, RecordCommand, RecordSet, ServiceCommand, SubnetCommand, SubnetName, TargetName,
        TxtValue, VnetArgs, VnetCommand, ZoneCommand, ZoneGroupCommand, ZoneGroupName, ZoneLink,
    },
    outbound::{OfDeployment, OutboundLogArgs, RuleArgs, RuleCommand, RuleName, SuggestArgs, TestArgs},
    tls::{CaCommand, TlsCheck, TlsCommand, TlsPlan, TlsRenew, TlsStatus},
    workspace::{WorkspaceCommand, WorkspaceName, WorkspaceOptions, WorkspaceWrite},
};
pub use self::{
    acme::{AcmeArgs, AcmeChallenge},
    platform::{DemoArgs, EnvArgs, EnvFormat, EnvironmentPython, UpArgs},
};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "casemate",
    version,
    about = "Machine learning endpoints on your own machines, driven by the Azure ML tools you know",
    infer_long_args = true,
    arg_required_else_help = true,
    max_term_width = 110,
    after_help = "Examples:
  casemate demo                                   train, deploy and score a sample model
  casemate up                                     run the platform
  eval \"$(casemate env)\"                          point the Azure tools of this shell at it
  casemate ml online-endpoint create -n my-endpoint -f endpoint.yml
  casemate ml online-deployment create -n blue -e my-endpoint -f blue.yml --all-traffic
  casemate ml online-endpoint invoke -n my-endpoint --request-file sample.json"
)]
pub(crate) struct Root {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Top,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Globals {
    /// Output format.
    #[arg(short = 'o', long, global = true, value_enum, ignore_case = true, value_name = "FORMAT")]
    pub(crate) output: Option<Format>,
    /// JMESPath expression that picks from the output.
    #[arg(long, global = true, value_name = "JMESPATH")]
    pub(crate) query: Option<String>,
    /// Name or id of the subscription.
    #[arg(long, alias = "subscription-id", global = true, value_name = "NAME_OR_ID")]
    pub(crate) subscription: Option<String>,
    /// State directory of the platform on this machine (default ~/.local/share/casemate; variable CASEMATE_STATE).
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Say on stderr which platform is used, and as whom.
    #[arg(long, global = true)]
    pub(crate) verbose: bool,
    /// Say on stderr also which requests are sent, without their contents.
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    /// Say nothing on stderr but errors.
    #[arg(long, global = true)]
    pub(crate) only_show_errors: bool,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// JSON.
    Json,
    /// JSON, coloured on a terminal.
    Jsonc,
    /// Columns for reading.
    Table,
    /// Values separated by tabs.
    Tsv,
    /// YAML.
    Yaml,
    /// YAML.
    Yamlc,
    /// Nothing.
    None,
}

/// The first word.
#[derive(Debug, Subcommand)]
pub(crate) enum Top {
    /// Run the platform in the foreground.
    Up(UpArgs),
    /// Train, deploy and score a sample model, step by step.
    Demo(DemoArgs),
    /// Print the variables that point the Azure tools at the platform of this machine.
    Env(EnvArgs),
    /// Sign in at a platform on another machine.
    Login(Login),
    /// Forget the sign-in.
    Logout,
    /// Resource groups.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Workspaces, endpoints, deployments, models and environments.
    #[command(subcommand)]
    Ml(Box<Ml>),
    /// What the platform's DNS says, and how a company's own DNS is told.
    #[command(subcommand)]
    Dns(DnsCommand),
    /// Certificates of the names that are served.
    #[command(subcommand)]
    Tls(TlsCommand),
    /// The built-in certificate authority.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Virtual networks, private endpoints and private DNS.
    #[command(subcommand)]
    Network(Box<Network>),
    /// Container registries.
    #[command(subcommand)]
    Acr(Acr),
    /// Key vaults and the secrets in them.
    #[command(subcommand, name = "keyvault")]
    KeyVault(Box<KeyVault>),
    /// Subscriptions and tokens.
    #[command(subcommand)]
    Account(Account),
    /// Default group, workspace and location.
    Configure(Configure),
    /// Settings of the command line.
    #[command(subcommand)]
    Config(Config),
    /// Service principals: identities for programs.
    #[command(subcommand)]
    Sp(ServicePrincipal),
    /// Roles and who has them.
    #[command(subcommand)]
    Role(Role),
    /// Accepted for scripts: everything is built in.
    #[command(subcommand)]
    Extension(Extension),
    /// Print the version.
    Version,
}

/// `ml …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Ml {
    /// Workspaces.
    #[command(subcommand)]
    Workspace(WorkspaceCommand),
    /// Online endpoints.
    #[command(subcommand)]
    OnlineEndpoint(EndpointCommand),
    /// Online deployments.
    #[command(subcommand)]
    OnlineDeployment(DeploymentCommand),
    /// Models.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Environments.
    #[command(subcommand)]
    Environment(EnvironmentCommand),
    /// Computes that services of the first generation run on.
    #[command(subcommand, name = "computetarget")]
    ComputeTarget(ComputeTargetCommand),
}

/// In which workspace.
#[derive(Debug, Clone, Args)]
pub(crate) struct Scope {
    /// Resource group (default: `casemate configure --defaults group=NAME`).
    #[arg(short = 'g', long, value_name = "NAME")]
    pub(crate) resource_group: Option<String>,
    /// Workspace (default: `casemate configure --defaults workspace=NAME`).
    #[arg(short = 'w', long, value_name = "NAME")]
    pub(crate) workspace_name: Option<String>,
}

/// A YAML file and changes to it.
#[derive(Debug, Clone, Args)]
pub(crate) struct FileAndSet {
    /// YAML file.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Changes to what the file says: PATH=VALUE …
    #[arg(long = "set", value_name = "PATH=VALUE", num_args = 1.., action = clap::ArgAction::Append)]
    pub(crate) settings: Vec<String>,
}

/// Whether to go on without asking.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Yes {
    /// Do not ask.
    #[arg(short = 'y', long)]
    pub(crate) yes: bool,
}

/// Whether to wait for the end.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct NoWait {
    /// Do not wait for the operation to end.
    #[arg(long)]
    pub(crate) no_wait: bool,
}
