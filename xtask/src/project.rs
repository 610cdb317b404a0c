//! What cargo knows of the workspace.

use std::{collections::BTreeSet, env, path::PathBuf, process::Command};

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::shell;

/// The workspace as it is in this checkout.
#[derive(Deserialize)]
pub struct Project {
    /// The directory of the root manifest.
    #[serde(rename = "workspace_root")]
    pub root: PathBuf,
    /// Where cargo builds.
    #[serde(rename = "target_directory")]
    pub target: PathBuf,
    /// The members of the workspace.
    pub packages: Vec<Package>,
}

/// A member of the workspace.
#[derive(Deserialize)]
pub struct Package {
    /// Its name, such as `casemate-store`.
    pub name: String,
    /// Its manifest.
    pub manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `dev`, `build`, or none for an ordinary one.
    kind: Option<String>,
    /// Set for members of the workspace.
    path: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

impl Project {
    /// Asks cargo.
    ///
    /// # Errors
    /// When cargo fails, as it does for a manifest that does not parse.
    pub fn load() -> Result<Self> {
        let mut cargo = Command::new(cargo());
        cargo.args(["metadata", "--format-version", "1", "--no-deps"]);
        let said = shell::output(&mut cargo)?;
        serde_json::from_str(&said).context("cargo metadata answered in an unknown shape")
    }
}

impl Package {
    /// The name of its room: `store` for `casemate-store`, `server` for the binary's package.
    #[must_use]
    pub fn room(&self) -> &str {
        room(&self.name)
    }

    /// The rooms that it depends on; with `dev`, those of its tests instead of its own.
    pub fn rooms_needed(&self, dev: bool) -> BTreeSet<&str> {
        let wanted =
            |dependency: &&Dependency| dependency.path.is_some() && (dependency.kind.as_deref() == Some("dev")) == dev;
        self.dependencies.iter().filter(wanted).map(|dependency| room(&dependency.name)).collect()
    }

    /// The names of its benchmarks.
    pub fn benches(&self) -> impl Iterator<Item = &str> {
        self.targets.iter().filter(|target| target.kind.iter().any(|kind| kind == "bench")).map(|target| &*target.name)
    }
}

fn room(package: &str) -> &str {
    match package {
        "casemate" => "server",
        other => other.strip_prefix("casemate-").unwrap_or(other),
    }
}

/// The cargo that runs this tool.
#[must_use]
pub fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}
