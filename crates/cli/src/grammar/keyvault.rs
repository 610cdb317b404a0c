//! `keyvault …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{InGroup, Named, NoWait};

/// Key vaults.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyVault {
    /// Create a vault. The creator may use its secrets, unless roles decide.
    #[command(after_help = "Examples:
  casemate keyvault create -n my-vault -g my-group -l local
  casemate keyvault create -n my-vault --enable-rbac-authorization false
  casemate keyvault create -n my-vault --default-action Deny --bypass AzureServices --network-acls-ips 203.0.113.0/24")]
    Create(Box<VaultCreate>),
    /// Show a vault.
    #[command(after_help = "Example:\n  casemate keyvault show -n my-vault --query properties.vaultUri -o tsv")]
    Show(VaultName),
    /// List vaults.
    #[command(after_help = "Example:\n  casemate keyvault list -o table")]
    List(InGroup),
    /// Change a vault: what is not given stays.
    #[command(after_help = "Example:\n  casemate keyvault update -n my-vault --bypass AzureServices")]
    Update {
        #[command(flatten)]
        name: VaultName,
        #[command(flatten)]
        args: VaultArgs,
        #[command(flatten)]
        no_wait: NoWait,
    },
    /// Delete a vault with its secrets, for good.
    #[command(after_help = "Example:\n  casemate keyvault delete -n my-vault")]
    Delete {
        #[command(flatten)]
        name: VaultName,
        #[command(flatten)]
        no_wait: NoWait,
    },
    /// Say in the vault's own list what a principal may do, where roles do not decide.
    #[command(
        after_help = "Example:\n  casemate keyvault set-policy -n my-vault --object-id ID --secret-permissions get list"
    )]
    SetPolicy(Box<PolicyArgs>),
    /// Take a principal out of the vault's own list.
    #[command(after_help = "Example:\n  casemate keyvault delete-policy -n my-vault --object-id ID")]
    DeletePolicy {
        #[command(flatten)]
        name: VaultName,
        #[command(flatten)]
        who: PolicyHolder,
    },
    /// Secrets.
    #[command(subcommand)]
    Secret(SecretCommand),
    /// From where a vault may be called.
    #[command(subcommand)]
    NetworkRule(NetworkRuleCommand),
}

/// A vault.
#[derive(Debug, Args)]
pub(crate) struct VaultName {
    /// Name of the vault.
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) group: InGroup,
}

/// `create`.
#[derive(Debug, Args)]
pub(crate) struct VaultCreate {
    #[command(flatten)]
    pub(crate) name: Named,
    #[command(flatten)]
    pub(crate) args: VaultArgs,
    /// Region (default: the configured location, else the group's).
    #[arg(short = 'l', long, value_name = "REGION")]
    pub(crate) location: Option<String>,
    /// standard or premium, which are the same here.
    #[arg(long, value_name = "SKU")]
    pub(crate) sku: Option<String>,
    /// Labels: KEY=VALUE …
    #[arg(long, value_name = "KEY=VALUE", num_args = 0..)]
    pub(crate) tags: Option<Vec<String>>,
    /// Do not enter oneself into the vault's own list.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) no_self_perms: Option<String>,
    /// Addresses and ranges that may call.
    #[arg(long, value_name = "PREFIX", num_args = 0..)]
    pub(crate) network_acls_ips: Option<Vec<String>>,
    /// Subnets that may call: ids, or NETWORK/SUBNET in the vault's group.
    #[arg(long, value_name = "ID", num_args = 0..)]
    pub(crate) network_acls_vnets: Option<Vec<String>>,
    #[command(flatten)]
    pub(crate) no_wait: NoWait,
}

/// What `create` and `update` share.
#[derive(Debug, Args)]
pub(crate) struct VaultArgs {
    /// Whether roles decide who may use secrets (the default), or the vault's own list.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) enable_rbac_authorization: Option<String>,
    /// Kept for clients that ask: virtual machines.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) enabled_for_deployment: Option<String>,
    /// Kept for clients that ask: disks.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) enabled_for_disk_encryption: Option<String>,
    /// Kept for clients that ask: templates.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) enabled_for_template_deployment: Option<String>,
    /// AzureServices lets the platform itself in whatever the rules say; None does not.
    #[arg(long, value_name = "WHO")]
    pub(crate) bypass: Option<String>,
    /// Allow or Deny whom no rule names.
    #[arg(long, value_name = "ACTION")]
    pub(crate) default_action: Option<String>,
    /// Enabled or Disabled.
    #[arg(long, value_name = "STATE")]
    pub(crate) public_network_access: Option<String>,
}

/// `set-policy`.
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(flatten)]
    pub(crate) name: VaultName,
    #[command(flatten)]
    pub(crate) who: PolicyHolder,
    /// What it may do with secrets: get, list, set, delete, all; nothing takes all away.
    #[arg(long, value_name = "WORD", num_args = 0..)]
    pub(crate) secret_permissions: Option<Vec<String>>,
    /// Kept for clients that ask: keys.
    #[arg(long, value_name = "WORD", num_args = 0..)]
    pub(crate) key_permissions: Option<Vec<String>>,
    /// Kept for clients that ask: certificates.
    #[arg(long, value_name = "WORD", num_args = 0..)]
    pub(crate) certificate_permissions: Option<Vec<String>>,
    /// Kept for clients that ask: storage.
    #[arg(long, value_name = "WORD", num_args = 0..)]
    pub(crate) storage_permissions: Option<Vec<String>>,
}

/// Whom an access policy is about.
#[derive(Debug, Args)]
pub(crate) struct PolicyHolder {
    /// Object id of a principal or a managed identity.
    #[arg(long, value_name = "ID", required_unless_present = "spn")]
    pub(crate) object_id: Option<String>,
    /// Application id of a service principal.
    #[arg(long, value_name = "ID", conflicts_with = "object_id")]
    pub(crate) spn: Option<String>,
}

/// Secrets.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Make a secret, or a new version of one.
    #[command(after_help = "Examples:
  casemate keyvault secret set --vault-name my-vault -n multiplier --value 7
  casemate keyvault secret set --vault-name my-vault -n token --file token.txt")]
    Set(Box<SecretSet>),
    /// Show a secret with its value.
    #[command(
        after_help = "Example:\n  casemate keyvault secret show --vault-name my-vault -n multiplier --query value -o tsv"
    )]
    Show(SecretName),
    /// List the secrets, without their values.
    #[command(after_help = "Example:\n  casemate keyvault secret list --vault-name my-vault -o table")]
    List {
        /// Name of the vault.
        #[arg(long, value_name = "NAME")]
        vault_name: String,
    },
    /// List the versions of a secret, without their values.
    #[command(after_help = "Example:\n  casemate keyvault secret list-versions --vault-name my-vault -n multiplier")]
    ListVersions(SecretName),
    /// Change what is said about a secret, not its value.
    #[command(
        after_help = "Example:\n  casemate keyvault secret set-attributes --vault-name my-vault -n multiplier --enabled false"
    )]
    SetAttributes {
        #[command(flatten)]
        name: SecretName,
        /// Whether it can be read.
        #[arg(long, value_name = "BOOL")]
        enabled: Option<String>,
        #[command(flatten)]
        about: SecretAbout,
        /// What sort of value it is.
        #[arg(long, value_name = "TEXT")]
        content_type: Option<String>,
    },
    /// Delete a secret with all its versions, for good.
    #[command(after_help = "Example:\n  casemate keyvault secret delete --vault-name my-vault -n multiplier")]
    Delete(SecretName),
}

/// A secret.
#[derive(Debug, Args)]
pub(crate) struct SecretName {
    /// Name of the vault.
    #[arg(long, value_name = "NAME", required_unless_present = "id")]
    pub(crate) vault_name: Option<String>,
    /// Name of the secret.
    #[arg(short = 'n', long, value_name = "NAME", required_unless_present = "id")]
    pub(crate) name: Option<String>,
    /// Its version (default: the newest).
    #[arg(short = 'v', long, value_name = "VERSION")]
    pub(crate) version: Option<String>,
    /// Its address instead: https://VAULT/secrets/NAME[/VERSION]
    #[arg(long, value_name = "URL", conflicts_with_all = ["vault_name", "name", "version"])]
    pub(crate) id: Option<String>,
}

/// `set`.
#[derive(Debug, Args)]
pub(crate) struct SecretSet {
    /// Name of the vault.
    #[arg(long, value_name = "NAME")]
    pub(crate) vault_name: String,
    /// Name of the secret.
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) name: String,
    /// Its value. Other users of this machine may see it in the list of processes while the command runs; --file avoids that.
    #[arg(
        long,
        value_name = "TEXT",
        required_unless_present = "file",
        conflicts_with = "file",
        allow_hyphen_values = true
    )]
    pub(crate) value: Option<String>,
    /// A text file with its value.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// What sort of value it is.
    #[arg(long, alias = "content-type", value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Make it unreadable for the time being.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub(crate) disabled: Option<String>,
    #[command(flatten)]
    pub(crate) about: SecretAbout,
}

/// What may be said about a version.
#[derive(Debug, Args)]
pub(crate) struct SecretAbout {
    /// When it is out of date: 2027-01-02T03:04:05Z
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<String>,
    /// Before when it is not to be used.
    #[arg(long, value_name = "TIME")]
    pub(crate) not_before: Option<String>,
    /// Labels: KEY=VALUE …
    #[arg(long, value_name = "KEY=VALUE", num_args = 0..)]
    pub(crate) tags: Option<Vec<String>>,
}

/// From where a vault may be called.
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkRuleCommand {
    /// Let addresses or a subnet in.
    #[command(after_help = "Examples:
  casemate keyvault network-rule add -n my-vault --ip-address 203.0.113.0/24
  casemate keyvault network-rule add -n my-vault --vnet-name my-net --subnet default")]
    Add(NetworkRuleArgs),
    /// Take a rule away.
    #[command(after_help = "Example:\n  casemate keyvault network-rule remove -n my-vault --ip-address 203.0.113.0/24")]
    Remove(NetworkRuleArgs),
    /// List the rules.
    #[command(after_help = "Example:\n  casemate keyvault network-rule list -n my-vault")]
    List(VaultName),
}

/// One or several rules.
#[derive(Debug, Args)]
pub(crate) struct NetworkRuleArgs {
    #[command(flatten)]
    pub(crate) name: VaultName,
    /// Addresses or ranges.
    #[arg(long, value_name = "PREFIX", num_args = 1.., required_unless_present = "subnet")]
    pub(crate) ip_address: Option<Vec<String>>,
    /// Name or id of a subnet.
    #[arg(long, value_name = "NAME_OR_ID")]
    pub(crate) subnet: Option<String>,
    /// Name of the subnet's network.
    #[arg(long, value_name = "NAME", requires = "subnet")]
    pub(crate) vnet_name: Option<String>,
    #[command(flatten)]
    pub(crate) no_wait: NoWait,
}
