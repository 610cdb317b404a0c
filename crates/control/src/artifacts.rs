//! From the assets that a deployment names to what an instance needs: the built environment, and the files of its
//! code and model on this machine.
//!
//! Files are linked out of the artifact store, not copied: an upload replaces a blob's file as a whole, so a link keeps
//! what was registered even if the blob is overwritten or deleted later.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use casemate_model::{
    Fault, Resource, ResourceId,
    asset::{CodeSpec, EnvironmentSpec, ModelSpec},
    route::key_digest,
};
use casemate_runtime::{Backend, CodeMount, EnvironmentRequest, ModelMount, PreparedEnvironment};

use crate::{Shared, package, wish::Wish};

/// Linking an asset takes less than this.
const LINKING: Duration = Duration::from_secs(3600);
/// Directories below this depth are not linked; nothing sensible is that deep.
const MAX_DEPTH: usize = 64;

/// What all instances of one revision share.
pub struct Artifacts {
    /// The Python environment.
    pub environment: PreparedEnvironment,
    /// The scoring code.
    pub code: Option<CodeMount>,
    /// The models; an endpoint's deployment has one at most.
    pub models: Vec<ModelMount>,
    /// Variables of the environment, overlaid with those of the deployment.
    pub variables: BTreeMap<String, String>,
}

impl Artifacts {
    /// Gets everything in place for a wish.
    ///
    /// # Errors
    /// `ResourceNotFound` for an asset or files that are not there, `ImageBuildFailure` from the environment's build.
    pub async fn prepare<B: Backend>(shared: &Shared<B>, wish: &Wish) -> Result<Self, Fault> {
        if let Some(package) = &wish.package {
            return package::prepare(shared, wish, package).await;
        }
        let code = match &wish.spec.code_configuration {
            Some(configuration) => match &configuration.code_id {
                Some(id) => {
                    Some(CodeMount { source: code(shared, id).await?, script: configuration.scoring_script.clone() })
                }
                None => None,
            },
            None => None,
        };
        let models = match &wish.spec.model {
            Some(id) => vec![model(shared, id).await?],
            None => Vec::new(),
        };
        let spec = match &wish.spec.environment_id {
            Some(id) => Some(EnvironmentSpec::from_properties(asset(shared, id).await?.properties())?),
            None => None,
        };
        let mut variables = spec.as_ref().map(|spec| spec.environment_variables.clone()).unwrap_or_default();
        variables.extend(wish.spec.environment_variables.clone());
        let request = EnvironmentRequest {
            conda_file: spec.as_ref().and_then(|spec| spec.conda_file.clone()),
            image: spec.as_ref().and_then(|spec| spec.image.clone()),
            build: spec.is_some_and(|spec| spec.build.is_some()),
        };
        let environment = shared.backend.environment_prepare(&wish.id, request).await?;
        Ok(Self { environment, code, models, variables })
    }
}

/// A stored asset version.
async fn asset<B: Backend>(shared: &Shared<B>, id: &str) -> Result<Resource, Fault> {
    let id = ResourceId::parse(id)?;
    let found = shared.store.resource_get(&id).await?;
    found.ok_or_else(|| {
        Fault::not_found(
            "ResourceNotFound",
            format!("The asset '{id}' does not exist any more; register it again and update the deployment."),
        )
    })
}

async fn code<B: Backend>(shared: &Shared<B>, id: &str) -> Result<PathBuf, Fault> {
    let asset = asset(shared, id).await?;
    let spec = CodeSpec::from_properties(asset.properties())?;
    place(shared, &asset, "code", &spec.code_uri).await
}

/// The files of a model version, linked.
pub async fn model<B: Backend>(shared: &Shared<B>, id: &str) -> Result<ModelMount, Fault> {
    let asset = asset(shared, id).await?;
    let spec = ModelSpec::from_properties(asset.properties())?;
    let source = place(shared, &asset, "models", &spec.model_uri).await?;
    let name = asset.id.parent().map(|parent| parent.name().to_owned()).unwrap_or_default();
    Ok(ModelMount { source, name, version: asset.name().to_owned() })
}

/// Links the files of an asset into the state directory, once for each asset, and gives the linked file or directory.
async fn place<B: Backend>(shared: &Shared<B>, asset: &Resource, kind: &str, uri: &str) -> Result<PathBuf, Fault> {
    let location = Location::parse(uri).ok_or_else(|| {
        Fault::invalid(
            "BadArgument",
            format!(
                "The asset '{}' lies at '{}', which is not in this platform's artifact store; upload it here.",
                asset.id,
                without_query(uri)
            ),
        )
    })?;
    let (container, path) = location.container_and_path(shared, asset).await?;
    let source = shared.blob.local_path(&container, &path).map_err(|error| {
        Fault::invalid("BadArgument", format!("The files of '{}' can't be found: {error}", asset.id))
    })?;
    let base = path.trim_end_matches('/').rsplit('/').next().filter(|base| !base.is_empty()).unwrap_or(kind).to_owned();
    let home = shared.config.state_dir.join(kind).join(key_of(asset));
    let id = asset.id.clone();
    let linked = tokio::task::spawn_blocking(move || link_once(&source, &home, &base)).await;
    match linked {
        Ok(Ok(path)) => Ok(path),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Err(Fault::not_found(
            "ResourceNotFound",
            format!("The files of '{id}' are not in the artifact store; upload them again and register a new version."),
        )),
        Ok(Err(error)) => Err(Fault::internal(format!("The files of '{id}' can't be put in place: {error}"))),
        Err(error) => Err(Fault::internal(format!("The files of '{id}' can't be put in place: {error}"))),
    }
}

/// One asset version, also told apart from an earlier one of the same id that was deleted.
fn key_of(asset: &Resource) -> String {
    let text = format!("{} {}", asset.id.key(), asset.system.created_at);
    key_digest(text.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Links `source` to `home/base`, whole or not at all.
fn link_once(source: &Path, home: &Path, base: &str) -> io::Result<PathBuf> {
    let target = home.join(base);
    if target.exists() {
        return Ok(target);
    }
    // A name of its own: another deployment may be linking the same asset. What a crash leaves is swept at the next start.
    let partial = home.with_extension(uuid::Uuid::new_v4().to_string());
    fs::create_dir_all(&partial)?;
    link_tree(source, &partial.join(base), 0)?;
    match fs::rename(&partial, home) {
        // Another deployment of the same asset was faster.
        Err(_) if target.exists() => fs::remove_dir_all(&partial)?,
        renamed => renamed?,
    }
    Ok(target)
}

fn link_tree(source: &Path, target: &Path, depth: usize) -> io::Result<()> {
    let kind = fs::symlink_metadata(source)?.file_type();
    if kind.is_file() {
        return fs::hard_link(source, target);
    }
    if !kind.is_dir() || depth > MAX_DEPTH {
        return Err(io::Error::other(format!(
            "{} is neither a file nor a directory of reasonable depth",
            source.display()
        )));
    }
    fs::create_dir(target)?;
    for entry in fs::read_dir(source)? {
        let entry = entry?;
        link_tree(&entry.path(), &target.join(entry.file_name()), depth + 1)?;
    }
    Ok(())
}

/// Where an asset's uri says its files lie.
#[derive(Debug, PartialEq, Eq)]
enum Location {
    /// Below a datastore of the asset's workspace.
    Datastore { name: String, path: String },
    /// In a container of the artifact store.
    Container { name: String, path: String },
}

impl Location {
    fn parse(uri: &str) -> Option<Self> {
        if let Some(rest) = uri.strip_prefix("azureml://") {
            let at = rest.find("datastores/")?;
            let (name, path) = rest[at + "datastores/".len()..].split_once("/paths/")?;
            return Some(Self::Datastore { name: name.to_owned(), path: path.to_owned() });
        }
        let rest = uri.strip_prefix("https://").or_else(|| uri.strip_prefix("http://"))?;
        let (host, path) = without_query(rest).split_once('/')?;
        // The account stands in the host's name, or, where that doesn't resolve, as the first part of the path.
        let path = if host.contains(".blob.") {
            path
        } else {
            path.split_once('/').filter(|(account, _)| account.contains(".blob."))?.1
        };
        let (container, path) = path.split_once('/').unwrap_or((path, ""));
        Some(Self::Container { name: container.to_owned(), path: path.to_owned() })
    }

    async fn container_and_path<B: Backend>(
        self,
        shared: &Shared<B>,
        asset: &Resource,
    ) -> Result<(String, String), Fault> {
        let (name, path) = match self {
            Self::Container { name, path } => return Ok((name, path)),
            Self::Datastore { name, path } => (name, path),
        };
        let workspace = asset.id.ancestor(casemate_model::workspace::WORKSPACE_TYPE);
        let workspace = workspace
            .ok_or_else(|| Fault::invalid("BadArgument", format!("'{}' does not lie in a workspace.", asset.id)))?;
        let datastore = workspace.child("datastores", &name)?;
        let found = shared.store.resource_get(&datastore).await?;
        let container = found.as_ref().and_then(|datastore| datastore.properties()["containerName"].as_str());
        match container {
            Some(container) => Ok((container.to_owned(), path)),
            None => Err(Fault::not_found(
                "ResourceNotFound",
                format!("The datastore '{datastore}' that '{}' lies in does not exist.", asset.id),
            )),
        }
    }
}

fn without_query(uri: &str) -> &str {
    uri.split('?').next().unwrap_or(uri)
}

/// Removes linked files that no stored asset owns any more, and what an interrupted run left half-made.
pub async fn sweep<B: Backend>(shared: &Shared<B>) -> Result<(), Fault> {
    for (kind, asset_type) in
        [("code", casemate_model::asset::CODE_VERSION_TYPE), ("models", casemate_model::asset::MODEL_VERSION_TYPE)]
    {
        let assets = shared.store.resource_list(&casemate_store::Filter::of_type(asset_type)).await?;
        let kept: HashSet<String> = assets.iter().map(key_of).collect();
        sweep_directory(&shared.config.state_dir.join(kind), &kept);
    }
    package::sweep(shared).await
}

/// Removes what is in a directory and not among `kept`, unless it may be in the making.
pub fn sweep_directory(directory: &Path, kept: &HashSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        let owned = entry.file_name().to_str().is_some_and(|name| kept.contains(name));
        if !owned
            && is_old(&entry)
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "left-over files could not be removed");
        }
    }
}

/// Whether a directory is old enough not to be in the making.
fn is_old(entry: &fs::DirEntry) -> bool {
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > LINKING))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        let datastore = |name: &str, path: &str| Some(Location::Datastore { name: name.into(), path: path.into() });
        let container = |name: &str, path: &str| Some(Location::Container { name: name.into(), path: path.into() });
        for (uri, expected) in [
            (
                "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/workspaceblobstore/paths/LocalUpload/1/model",
                datastore("workspaceblobstore", "LocalUpload/1/model"),
            ),
            ("azureml://datastores/d/paths/a/b.pkl", datastore("d", "a/b.pkl")),
            ("https://127.0.0.1:8443/acct.blob.x/c0ntainer/code/dir?sig=1", container("c0ntainer", "code/dir")),
            ("https://acct.blob.example.com/c/", container("c", "")),
            ("https://example.com/elsewhere/c/d", None),
            ("azureml://jobs/x", None),
            ("/etc/passwd", None),
        ] {
            assert_eq!(Location::parse(uri), expected, "{uri}");
        }
    }

    #[test]
    fn links_survive_the_blob() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("blob/model");
        fs::create_dir_all(source.join("deep")).unwrap();
        fs::write(source.join("deep/file"), "one").unwrap();
        let linked = link_once(&source, &dir.path().join("home"), "model").unwrap();
        fs::write(source.join("new"), "two").unwrap();
        fs::remove_file(source.join("deep/file")).unwrap();
        let again = link_once(&source, &dir.path().join("home"), "model").unwrap();
        assert_eq!(linked, again);
        assert_eq!(fs::read_to_string(linked.join("deep/file")).unwrap(), "one");
        assert!(!linked.join("new").exists());
    }

    #[test]
    fn symbolic_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("blob");
        fs::create_dir(&source).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", source.join("planted")).unwrap();
        assert!(link_once(&source, &dir.path().join("home"), "blob").is_err());
        assert!(!dir.path().join("home").exists());
    }
}
