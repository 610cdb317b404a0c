//! Where an asset's files lie: from the uri of a request to a container and path of the artifact store.

use casemate_model::{Fault, FaultKind, Resource, ResourceId};

use super::datastores;
use crate::{ApiError, ApiState};

/// Files of one workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// A container of the artifact store.
    pub(crate) container: String,
    /// A blob or a directory of blobs in it, without slashes around; empty for all of it.
    pub(crate) path: String,
}

/// A uri, taken apart.
#[derive(Debug, PartialEq, Eq)]
enum Named {
    Datastore { workspace: Option<ResourceId>, name: String, path: String },
    Container { name: String, path: String },
}

impl Location {
    /// Finds the files that `uri` names. They must lie in a datastore of this very workspace: an asset must not open
    /// the files of a workspace that its author has no rights on.
    ///
    /// # Errors
    /// `BadArgument` for a uri that is not ours or lies elsewhere, `NotImplemented` for outputs of jobs and
    /// registries, `ResourceNotFound` for an unknown datastore.
    pub(crate) async fn resolve(
        state: &ApiState,
        workspace: &Resource,
        uri: &str,
        field: &str,
    ) -> Result<Self, ApiError> {
        match parse(uri).map_err(|fault| fault.at(field))? {
            Named::Datastore { workspace: Some(other), .. } if other != workspace.id => {
                Err(elsewhere(uri, workspace).at(field).into())
            }
            Named::Datastore { name, path, .. } => {
                let container = datastores::container(state, workspace, &name).await?;
                Ok(Self { container, path })
            }
            Named::Container { name, path } => {
                if datastores::containers(state, workspace).await?.contains(&name) {
                    return Ok(Self { container: name, path });
                }
                Err(elsewhere(uri, workspace).at(field).into())
            }
        }
    }

    /// Whether there is a blob of this name, or any in this directory.
    ///
    /// # Errors
    /// When the artifact store fails, or the path can't be a blob's name.
    pub(crate) async fn exists(&self, state: &ApiState) -> Result<bool, Fault> {
        if self.path.is_empty() {
            return Ok(!state.blob.list(&self.container, "", 1).await?.is_empty());
        }
        if state.blob.info(&self.container, &self.path).await?.is_some() {
            return Ok(true);
        }
        Ok(!state.blob.list(&self.container, &format!("{}/", self.path), 1).await?.is_empty())
    }

    /// A file below this directory.
    pub(super) fn join(&self, file: &str) -> String {
        if self.path.is_empty() { file.to_owned() } else { format!("{}/{file}", self.path) }
    }
}

fn elsewhere(uri: &str, workspace: &Resource) -> Fault {
    Fault::invalid(
        "BadArgument",
        format!(
            "The files at '{}' are not in a datastore of the workspace '{}'. Upload them to this workspace first.",
            without_query(uri),
            workspace.name()
        ),
    )
}

fn without_query(uri: &str) -> &str {
    uri.split('?').next().unwrap_or(uri)
}

fn parse(uri: &str) -> Result<Named, Fault> {
    let shown: String = without_query(uri).chars().take(300).collect();
    let unknown = || {
        Fault::invalid(
            "BadArgument",
            format!(
                "'{shown}' names no files of this platform. Give azureml://…/datastores/NAME/paths/PATH, or the address of an upload to this workspace."
            ),
        )
    };
    if ["azureml://jobs/", "azureml://registries/", "runs:"].iter().any(|start| uri.starts_with(start)) {
        return Err(Fault::new(
            FaultKind::NotImplemented,
            "NotImplemented",
            format!(
                "'{shown}' is an output of a job or an asset of a registry, which this platform does not have yet. Upload the files instead."
            ),
        ));
    }
    if let Some(rest) = uri.strip_prefix("azureml://") {
        let at = rest.find("datastores/").ok_or_else(unknown)?;
        let (name, path) = rest[at + "datastores/".len()..].split_once("/paths/").ok_or_else(unknown)?;
        let workspace = match rest[..at].trim_end_matches('/') {
            "" => None,
            scope => Some(workspace_of(scope).ok_or_else(unknown)?),
        };
        return Ok(Named::Datastore { workspace, name: name.to_owned(), path: path.trim_matches('/').to_owned() });
    }
    let rest = uri.strip_prefix("https://").or_else(|| uri.strip_prefix("http://")).ok_or_else(unknown)?;
    let (host, path) = without_query(rest).split_once('/').ok_or_else(unknown)?;
    // The account stands in the host's name, or, where that doesn't resolve, as the first part of the path.
    let path = if host.contains(".blob.") {
        path
    } else {
        path.split_once('/').filter(|(account, _)| account.contains(".blob.")).ok_or_else(unknown)?.1
    };
    let (container, path) = path.split_once('/').unwrap_or((path, ""));
    Ok(Named::Container { name: container.to_owned(), path: path.trim_matches('/').to_owned() })
}

/// Reads `subscriptions/S/resourcegroups/G/workspaces/W`.
fn workspace_of(scope: &str) -> Option<ResourceId> {
    let parts: Vec<&str> = scope.split('/').collect();
    let [subscriptions, subscription, groups, group, workspaces, workspace] = parts[..] else {
        return None;
    };
    let fits = subscriptions.eq_ignore_ascii_case("subscriptions")
        && groups.eq_ignore_ascii_case("resourcegroups")
        && workspaces.eq_ignore_ascii_case("workspaces");
    let id = format!(
        "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.MachineLearningServices/workspaces/{workspace}"
    );
    fits.then(|| ResourceId::parse(&id).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris() {
        let workspace = workspace_of("subscriptions/s/resourcegroups/g/workspaces/w");
        assert!(workspace.is_some());
        let datastore = |workspace: Option<&ResourceId>, name: &str, path: &str| {
            Some(Named::Datastore { workspace: workspace.cloned(), name: name.into(), path: path.into() })
        };
        let container = |name: &str, path: &str| Some(Named::Container { name: name.into(), path: path.into() });
        for (uri, expected) in [
            (
                "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/workspaceblobstore/paths/LocalUpload/1/model",
                datastore(workspace.as_ref(), "workspaceblobstore", "LocalUpload/1/model"),
            ),
            ("azureml://datastores/d/paths/a/b.pkl/", datastore(None, "d", "a/b.pkl")),
            ("https://127.0.0.1:8443/acct.blob.x/box/code/dir?sig=1", container("box", "code/dir")),
            ("https://acct.blob.example.com/box/", container("box", "")),
            ("https://example.com/elsewhere/c/d", None),
            ("azureml://elsewhere/datastores/d/paths/x", None),
            ("azureml://datastores/d", None),
            ("azureml://jobs/x/outputs", None),
            ("runs:/x/model", None),
            ("/etc/passwd", None),
            ("", None),
        ] {
            assert_eq!(parse(uri).ok(), expected, "{uri}");
        }
    }
}
