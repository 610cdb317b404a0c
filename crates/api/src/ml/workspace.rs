//! The workspace that a call lies in, and what it allows.

use casemate_model::{Fault, FaultKind, Resource, ResourceId, workspace::WORKSPACE_TYPE};
use serde_json::Value;

use crate::{ApiError, ApiState, arm::shape::not_found};

/// The workspace that `id` lies in (or is).
///
/// # Errors
/// `ResourceNotFound` when there is none, or it is being deleted.
pub(super) async fn read(state: &ApiState, id: &ResourceId) -> Result<Resource, ApiError> {
    let at = id.ancestor(WORKSPACE_TYPE).ok_or_else(|| not_found(id))?;
    let found = state.store.resource_get(&at).await?;
    Ok(found.filter(|workspace| !workspace.deleting).ok_or_else(|| not_found(&at))?)
}

/// As [`read`], for a write of models, code, environments, endpoints or deployments.
///
/// # Errors
/// As [`read`]; a workspace in v1 legacy mode, by name.
pub(super) async fn for_write(state: &ApiState, id: &ResourceId) -> Result<Resource, ApiError> {
    let workspace = read(state, id).await?;
    if workspace.properties().get("v1LegacyMode").and_then(Value::as_bool) == Some(true) {
        return Err(Fault::new(
            FaultKind::Forbidden,
            "UserError",
            format!(
                "The workspace '{}' has V1LegacyMode == true, which turns off endpoints, deployments and assets of this API. Set v1_legacy_mode to false on the workspace and try again.",
                workspace.name()
            ),
        )
        .at("v1LegacyMode")
        .into());
    }
    Ok(workspace)
}

/// The row, unless it is absent.
pub(crate) fn present(found: Option<Resource>, id: &ResourceId) -> Result<Resource, Fault> {
    found.ok_or_else(|| not_found(id))
}

/// Where clients reach the workspace's files: the account's name is the first part of the path, so that no name has
/// to resolve.
pub(crate) fn account(workspace: &Resource) -> String {
    let id = workspace.properties().get("storageAccount").and_then(Value::as_str);
    let name = id.and_then(|id| id.rsplit('/').next()).filter(|name| !name.is_empty()).unwrap_or("artifacts");
    let kept = name.chars().filter(char::is_ascii_alphanumeric).take(24).collect::<String>().to_ascii_lowercase();
    if kept.is_empty() { "artifacts".to_owned() } else { kept }
}
