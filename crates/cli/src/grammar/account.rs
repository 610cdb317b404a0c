//! Signing in, subscriptions, settings, service principals and roles.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Yes;

/// `login`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  casemate login --service-principal -u APP_ID -p SECRET -t TENANT --url https://ml.example.org:8443 --ca-file ca.pem

On the machine of the platform no sign-in is needed: the state directory's credentials are used.")]
pub(crate) struct Login {
    /// Sign in as a service principal (the only way).
    #[arg(long, required = true)]
    pub(crate) service_principal: bool,
    /// Application id.
    #[arg(short = 'u', long, value_name = "APP_ID")]
    pub(crate) username: String,
    /// Secret; @FILE reads it from a file, so that it does not stand in the list of processes.
    #[arg(short = 'p', long, value_name = "SECRET")]
    pub(crate) password: String,
    /// Tenant.
    #[arg(short = 't', long, value_name = "TENANT")]
    pub(crate) tenant: String,
    /// The platform's address (default: the variable CASEMATE_URL).
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// The platform's CA certificate (default: the file named by SSL_CERT_FILE, else the system's).
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Accepted for scripts.
    #[arg(long, hide = true)]
    pub(crate) allow_no_subscriptions: bool,
}

/// `account …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Account {
    /// Show the subscription in use.
    #[command(after_help = "Example:\n  casemate account show --query id -o tsv")]
    Show,
    /// List the subscriptions.
    #[command(after_help = "Example:\n  casemate account list -o table")]
    List {
        /// Accepted for scripts.
        #[arg(long, hide = true)]
        all: bool,
        /// Accepted for scripts.
        #[arg(long, hide = true)]
        refresh: bool,
    },
    /// Choose the subscription to use. Name it with -s.
    #[command(after_help = "Example:\n  casemate account set -s 00000000-0000-0000-0000-000000000000")]
    Set {
        /// Name or id of the subscription.
        #[arg(short = 's', short_alias = 'n', long = "name", value_name = "NAME_OR_ID")]
        name: Option<String>,
    },
    /// Print a token.
    #[command(after_help = "Examples:
  casemate account get-access-token --query accessToken -o tsv
  casemate account get-access-token --resource https://ml.azure.com")]
    GetAccessToken(TokenArgs),
}

/// `account get-access-token`.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// What the token is for (default: the management API).
    #[arg(long, value_name = "URL", conflicts_with_all = ["scope", "resource_type"])]
    pub(crate) resource: Option<String>,
    /// The same in the newer form: URL/.default
    #[arg(long, value_name = "SCOPE", conflicts_with = "resource_type")]
    pub(crate) scope: Option<String>,
    /// The same by a word: arm.
    #[arg(long, value_name = "TYPE")]
    pub(crate) resource_type: Option<String>,
    /// Accepted when it is the platform's tenant.
    #[arg(short = 't', long, value_name = "TENANT")]
    pub(crate) tenant: Option<String>,
}

/// `configure`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  casemate configure --defaults group=my-group workspace=my-workspace location=local
  casemate configure --defaults workspace=''        forget one
  casemate configure -l")]
pub(crate) struct Configure {
    /// Defaults to keep: group, workspace, location.
    #[arg(short = 'd', long, value_name = "NAME=VALUE", num_args = 1.., required_unless_present = "list_defaults")]
    pub(crate) defaults: Vec<String>,
    /// Print the defaults.
    #[arg(short = 'l', long, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub(crate) list_defaults: Option<bool>,
    /// Accepted for scripts: there is one place for defaults.
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "global")]
    pub(crate) scope: Option<String>,
}

/// `config …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Print settings.
    #[command(after_help = "Examples:
  casemate config get
  casemate config get defaults.group
  casemate config get --query \"defaults[?name == 'workspace'].value\" -o tsv")]
    Get {
        /// SECTION or SECTION.NAME.
        #[arg(value_name = "KEY")]
        key: Option<String>,
        /// Accepted for scripts.
        #[arg(long, hide = true)]
        local: bool,
    },
    /// Keep settings.
    #[command(after_help = "Example:\n  casemate config set defaults.group=my-group core.output=table")]
    Set {
        /// SECTION.NAME=VALUE …
        #[arg(value_name = "KEY=VALUE", required = true, num_args = 1..)]
        settings: Vec<String>,
        /// Accepted for scripts.
        #[arg(long, hide = true)]
        local: bool,
    },
    /// Forget settings.
    #[command(after_help = "Example:\n  casemate config unset defaults.group")]
    Unset {
        /// SECTION.NAME …
        #[arg(value_name = "KEY", required = true, num_args = 1..)]
        keys: Vec<String>,
        /// Accepted for scripts.
        #[arg(long, hide = true)]
        local: bool,
    },
}

/// `sp …`.
#[derive(Debug, Subcommand)]
pub(crate) enum ServicePrincipal {
    /// Create a service principal; its secret is printed once.
    #[command(after_help = "Examples:
  casemate sp create --display-name scorer
  casemate sp create --display-name deployer --role Contributor --scopes /subscriptions/ID/resourceGroups/my-group")]
    Create {
        /// A name to recognize it by.
        #[arg(short = 'n', long, alias = "name", value_name = "NAME")]
        display_name: String,
        /// A role to give it, at --scopes.
        #[arg(long, value_name = "ROLE", requires = "scopes")]
        role: Option<String>,
        /// Ids of what the role is for.
        #[arg(long, value_name = "ID", num_args = 1.., requires = "role")]
        scopes: Vec<String>,
    },
    /// List the service principals.
    #[command(after_help = "Example:\n  casemate sp list -o table")]
    List,
    /// Delete a service principal.
    #[command(after_help = "Example:\n  casemate sp delete --id APP_ID")]
    Delete {
        /// Application id.
        #[arg(long, value_name = "APP_ID")]
        id: String,
    },
}

/// `role …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// Who has which role where.
    #[command(subcommand)]
    Assignment(RoleAssignment),
    /// The roles there are.
    #[command(subcommand)]
    Definition(RoleDefinition),
}

/// `role definition …`.
#[derive(Debug, Subcommand)]
pub(crate) enum RoleDefinition {
    /// List the roles.
    #[command(after_help = "Example:\n  casemate role definition list --query \"[].roleName\" -o tsv")]
    List {
        /// Only the role of this name or id.
        #[arg(short = 'n', long, value_name = "NAME")]
        name: Option<String>,
    },
}

/// `role assignment …`.
#[derive(Debug, Subcommand)]
pub(crate) enum RoleAssignment {
    /// Give a role.
    #[command(
        after_help = "Example:\n  casemate role assignment create --assignee APP_ID --role Reader --scope /subscriptions/ID/resourceGroups/my-group"
    )]
    Create {
        /// Application or object id of the service principal.
        #[arg(long, value_name = "ID", required_unless_present = "assignee_object_id")]
        assignee: Option<String>,
        /// Object id.
        #[arg(long, value_name = "ID", conflicts_with = "assignee")]
        assignee_object_id: Option<String>,
        /// Accepted for scripts.
        #[arg(long, hide = true, value_name = "TYPE")]
        assignee_principal_type: Option<String>,
        /// Name or id of the role.
        #[arg(long, value_name = "ROLE")]
        role: String,
        /// Id of what the role is for (default: the subscription).
        #[arg(long, value_name = "ID")]
        scope: Option<String>,
    },
    /// List the assignments at a scope.
    #[command(after_help = "Example:\n  casemate role assignment list --scope /subscriptions/ID -o table")]
    List {
        /// Id of the scope (default: the subscription).
        #[arg(long, value_name = "ID")]
        scope: Option<String>,
        /// Only those of this application or object id.
        #[arg(long, value_name = "ID")]
        assignee: Option<String>,
        /// Accepted for scripts.
        #[arg(long, hide = true)]
        all: bool,
    },
    /// Take a role away.
    #[command(after_help = "Example:\n  casemate role assignment delete --ids ASSIGNMENT_ID")]
    Delete {
        /// Ids of assignments.
        #[arg(long, value_name = "ID", num_args = 1.., required = true)]
        ids: Vec<String>,
        #[command(flatten)]
        yes: Yes,
    },
}

/// `extension …`.
#[derive(Debug, Subcommand)]
pub(crate) enum Extension {
    /// Does nothing.
    #[command(visible_alias = "update", alias = "remove")]
    Add {
        /// Name of the extension.
        #[arg(short = 'n', long, value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        yes: Yes,
        /// Accepted for scripts.
        #[arg(long, hide = true)]
        upgrade: bool,
        /// Accepted for scripts.
        #[arg(long, hide = true, value_name = "VERSION")]
        version: Option<String>,
        /// Accepted for scripts.
        #[arg(short = 's', long, hide = true, value_name = "SOURCE")]
        source: Option<String>,
        /// Accepted for scripts.
        #[arg(long, hide = true, num_args = 0..=1, value_name = "BOOL")]
        allow_preview: Option<String>,
    },
    /// Lists what is built in.
    List,
    /// Shows what is built in.
    Show {
        /// Name of the extension.
        #[arg(short = 'n', long, value_name = "NAME")]
        name: String,
    },
}
