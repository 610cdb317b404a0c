//! `group …`.

use clap::{Args, Subcommand};

use super::{NoWait, Yes};

/// Resource groups.
#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Create a group.
    #[command(after_help = "Example:\n  casemate group create -n my-group -l local --tags team=a")]
    Create {
        #[command(flatten)]
        name: GroupName,
        /// Region (default: the configured location, else `local`).
        #[arg(short = 'l', long, value_name = "REGION")]
        location: Option<String>,
        /// Labels: KEY=VALUE …
        #[arg(long, value_name = "KEY=VALUE", num_args = 0..)]
        tags: Option<Vec<String>>,
    },
    /// Show a group.
    #[command(
        after_help = "Examples:\n  casemate group show -n my-group\n  casemate group show --query location -o tsv"
    )]
    Show {
        #[command(flatten)]
        name: OptionalGroupName,
    },
    /// List the groups.
    #[command(after_help = "Examples:\n  casemate group list -o table\n  casemate group list --tag team=a")]
    List {
        /// Only groups with this label: KEY or KEY=VALUE.
        #[arg(long, value_name = "KEY=VALUE")]
        tag: Option<String>,
    },
    /// Delete a group and everything in it.
    #[command(after_help = "Example:\n  casemate group delete -n my-group --yes --no-wait")]
    Delete {
        #[command(flatten)]
        name: GroupName,
        #[command(flatten)]
        yes: Yes,
        #[command(flatten)]
        no_wait: NoWait,
    },
    /// Print whether a group exists.
    #[command(after_help = "Example:\n  casemate group exists -n my-group")]
    Exists {
        #[command(flatten)]
        name: GroupName,
    },
    /// Wait until a group exists or is gone.
    #[command(after_help = "Example:\n  casemate group wait -n my-group --deleted")]
    Wait {
        #[command(flatten)]
        name: GroupName,
        /// Until it exists.
        #[arg(long, alias = "exists", conflicts_with = "deleted")]
        created: bool,
        /// Until it is gone.
        #[arg(long)]
        deleted: bool,
        /// Seconds between two looks.
        #[arg(long, default_value_t = 1, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
        interval: u64,
        /// Seconds until giving up.
        #[arg(long, default_value_t = 3600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
        timeout: u64,
    },
}

/// A group, which must be named.
#[derive(Debug, Args)]
pub(crate) struct GroupName {
    /// Name of the group (also -g, --resource-group).
    #[arg(short = 'n', short_alias = 'g', long, alias = "resource-group", value_name = "NAME")]
    pub(crate) name: String,
}

/// A group; the configured one when not named.
#[derive(Debug, Args)]
pub(crate) struct OptionalGroupName {
    /// Name of the group (also -g, --resource-group; default: the configured one).
    #[arg(short = 'n', short_alias = 'g', long, alias = "resource-group", value_name = "NAME")]
    pub(crate) name: Option<String>,
}
