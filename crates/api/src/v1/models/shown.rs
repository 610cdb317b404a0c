//! A model's row in the shape of the first generation.

use casemate_model::{Fault, Resource, asset::ModelSpec, service::V1_FIELD};
use serde_json::{Value, json};

use super::assets;
use crate::{ml::datastores, v1::artifacts::ELSEWHERE};

/// What only the first generation knows of a model, and its values where nothing was given.
pub(super) fn unknown() -> Value {
    json!({
        "framework": "Custom",
        "frameworkVersion": null,
        "mimeType": "application/json",
        "unpack": false,
        "datasets": [],
        "runId": null,
        "experimentName": null,
        "parentModelId": null,
        "sampleInputData": null,
        "sampleOutputData": null,
        "resourceRequirements": null,
    })
}

/// The model as these clients read it, in lists, alone and in services.
///
/// # Errors
/// `ModelNotFound` for one whose version is no number, which these clients can't read.
pub(crate) fn show(row: &Resource) -> Result<Value, Fault> {
    let name = row.id.parent().map(|parent| parent.name().to_owned()).unwrap_or_default();
    let Some(version) = number(row) else {
        let message = format!(
            "The version '{}' of the model '{name}' is not a number, as it must be for this SDK. Use the second generation \
             of the SDK for it, or register the files again.",
            row.name()
        );
        return Err(Fault::not_found("ModelNotFound", message));
    };
    let spec = ModelSpec::from_properties(row.properties())?;
    let mut shown = unknown();
    if let (Some(shown), Some(own)) = (shown.as_object_mut(), row.body.get(V1_FIELD).and_then(Value::as_object)) {
        shown.extend(own.clone());
    }
    let properties = row.properties();
    let rest = json!({
        "id": format!("{name}:{version}"),
        "name": name,
        "version": version,
        "url": assets::url(&artifact(&spec.model_uri)),
        "description": properties.get("description"),
        "kvTags": properties.get("tags").cloned().unwrap_or_else(|| json!({})),
        "tags": properties.get("tags").cloned().unwrap_or_else(|| json!({})),
        "properties": properties.get("properties").cloned().unwrap_or_else(|| json!({})),
        "derivedModelIds": [],
        "createdTime": row.system.created_at.to_string(),
        "modifiedTime": row.system.last_modified_at.to_string(),
        "createdBy": {"userObjectId": row.system.created_by, "userName": row.system.created_by},
    });
    if let (Some(shown), Value::Object(rest)) = (shown.as_object_mut(), rest) {
        shown.extend(rest);
    }
    Ok(shown)
}

/// A version as a number, if these clients can read it as one.
pub(super) fn number(row: &Resource) -> Option<i64> {
    row.name().parse().ok().filter(|number| *number > 0)
}

/// The artifact at a model's address.
fn artifact(uri: &str) -> String {
    let in_datastore = uri.rsplit_once("datastores/").and_then(|(_, rest)| rest.split_once("/paths/"));
    match in_datastore {
        Some((datastores::ARTIFACTS, path)) => path.trim_matches('/').to_owned(),
        Some((datastore, path)) => format!("{ELSEWHERE}/{datastore}/{}", path.trim_matches('/')),
        // An address of the artifact store: account, container, path.
        None => {
            let path = uri.split('?').next().unwrap_or(uri);
            let path = path.split_once(".blob.").and_then(|(_, rest)| rest.splitn(3, '/').nth(2)).unwrap_or(path);
            format!("{ELSEWHERE}/{}/{}", datastores::DEFAULT, path.trim_matches('/'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_files_lie() {
        for (uri, expected) in [
            ("azureml://datastores/workspaceartifactstore/paths/LocalUpload/1/m.pkl", "LocalUpload/1/m.pkl"),
            (
                "azureml://subscriptions/s/resourcegroups/g/workspaces/w/datastores/workspaceblobstore/paths/LocalUpload/1/m/",
                "Datastore/workspaceblobstore/LocalUpload/1/m",
            ),
            ("https://h:1/acct.blob.core.x/box/LocalUpload/1/m?sig=2", "Datastore/workspaceblobstore/LocalUpload/1/m"),
        ] {
            assert_eq!(artifact(uri), expected, "{uri}");
        }
    }
}
