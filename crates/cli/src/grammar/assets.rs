//! `ml model …` and `ml environment …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{FileAndSet, Scope};

/// Models.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelCommand {
    /// Register a model.
    #[command(after_help = "Examples:
  casemate ml model create -f model.yml
  casemate ml model create -n my-model -v 1 -p ./model --type custom_model")]
    Create {
        #[command(flatten)]
        asset: AssetCreate,
        #[command(flatten)]
        options: ModelOptions,
    },
    /// Show a version of a model.
    #[command(
        after_help = "Examples:\n  casemate ml model show -n my-model -v 1\n  casemate ml model show -n my-model --label latest"
    )]
    Show(AssetName),
    /// List the models, or the versions of one.
    #[command(after_help = "Examples:\n  casemate ml model list -o table\n  casemate ml model list -n my-model")]
    List(AssetList),
    /// Hide a model, or one version of it, from lists.
    #[command(after_help = "Example:\n  casemate ml model archive -n my-model -v 1")]
    Archive(AssetName),
    /// Undo `archive`.
    #[command(after_help = "Example:\n  casemate ml model restore -n my-model -v 1")]
    Restore(AssetName),
}

/// Environments.
#[derive(Debug, Subcommand)]
pub(crate) enum EnvironmentCommand {
    /// Register an environment.
    #[command(after_help = "Examples:
  casemate ml environment create -f environment.yml
  casemate ml environment create -n my-env -v 1 --conda-file conda.yml --image example/image:1")]
    Create {
        #[command(flatten)]
        asset: AssetCreate,
        #[command(flatten)]
        options: EnvironmentOptions,
    },
    /// Show a version of an environment.
    #[command(
        after_help = "Examples:\n  casemate ml environment show -n my-env -v 1\n  casemate ml environment show -n my-env --label latest"
    )]
    Show(AssetName),
    /// List the environments, or the versions of one.
    #[command(
        after_help = "Examples:\n  casemate ml environment list -o table\n  casemate ml environment list -n my-env"
    )]
    List(AssetList),
    /// Hide an environment, or one version of it, from lists.
    #[command(after_help = "Example:\n  casemate ml environment archive -n my-env -v 1")]
    Archive(AssetName),
    /// Undo `archive`.
    #[command(after_help = "Example:\n  casemate ml environment restore -n my-env -v 1")]
    Restore(AssetName),
}

/// What registering any asset takes.
#[derive(Debug, Args)]
pub(crate) struct AssetCreate {
    /// Name; wins over the file.
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Version; wins over the file. The next free one when neither says.
    #[arg(short = 'v', long, value_name = "VERSION", overrides_with = "version")]
    pub(crate) version: Option<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    #[command(flatten)]
    pub(crate) source: FileAndSet,
    /// Free text.
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// Labels: KEY=VALUE …
    #[arg(long, value_name = "KEY=VALUE", num_args = 0..)]
    pub(crate) tags: Option<Vec<String>>,
}

/// Options of a model.
#[derive(Debug, Args)]
pub(crate) struct ModelOptions {
    /// Local file or directory, or the address of one in a datastore.
    #[arg(short = 'p', long, value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// custom_model, mlflow_model or triton_model.
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,
    /// Free text, such as Production.
    #[arg(short = 's', long, value_name = "TEXT")]
    pub(crate) stage: Option<String>,
}

/// Options of an environment.
#[derive(Debug, Args)]
pub(crate) struct EnvironmentOptions {
    /// Container image.
    #[arg(short = 'i', long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// Conda file.
    #[arg(short = 'c', long, value_name = "FILE")]
    pub(crate) conda_file: Option<PathBuf>,
    /// Directory of a docker build.
    #[arg(short = 'b', long, value_name = "DIR")]
    pub(crate) build_context: Option<String>,
    /// Dockerfile in that directory.
    #[arg(short = 'd', long, value_name = "PATH")]
    pub(crate) dockerfile_path: Option<String>,
    /// Linux or Windows.
    #[arg(long, value_name = "OS")]
    pub(crate) os_type: Option<String>,
}

/// An asset and one of its versions.
#[derive(Debug, Args)]
pub(crate) struct AssetName {
    /// Name.
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) name: String,
    /// Version.
    #[arg(short = 'v', long, value_name = "VERSION", conflicts_with = "label")]
    pub(crate) version: Option<String>,
    /// Label instead of a version: latest.
    #[arg(short = 'l', long, value_name = "LABEL")]
    pub(crate) label: Option<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
}

/// `list`.
#[derive(Debug, Args)]
pub(crate) struct AssetList {
    /// Only the versions of this one.
    #[arg(short = 'n', long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// Archived ones too.
    #[arg(long, conflicts_with = "archived_only")]
    pub(crate) include_archived: bool,
    /// Archived ones alone.
    #[arg(long)]
    pub(crate) archived_only: bool,
    /// At most this many.
    #[arg(short = 'r', long, value_name = "N")]
    pub(crate) max_results: Option<usize>,
}
