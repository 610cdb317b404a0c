//! Assets: what clients name by an id between uploading files and registering them as a model, and look up to download
//! a model. An asset's id says where its files lie, so that nothing has to be kept of it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use casemate_model::Fault;
use serde_json::{Value, json};

use super::Asked;
use crate::{ApiState, OpContext, context::Outcome, respond, v1::artifacts::Place};

/// What a model's url begins with.
const SCHEME: &str = "aml://asset/";
/// Longest id of an artifact.
const MAX_ARTIFACT: usize = 1200;

/// Makes an asset of files that were uploaded.
pub(super) async fn create(ctx: &OpContext, state: &ApiState, asked: &Asked) -> Outcome {
    asked.authorize(ctx, "models/write")?;
    let body = asked.call.json()?;
    let bad = |message: &str| Fault::invalid("BadArgument", message).at("artifacts");
    let artifacts = body.get("artifacts").and_then(Value::as_array).map(Vec::as_slice);
    let Some([artifact]) = artifacts else {
        return Err(bad("An asset has just one artifact on this platform: a file, or a directory of files.").into());
    };
    let named = ["prefix", "id"].iter().find_map(|key| artifact.get(*key)?.as_str());
    let named = named.filter(|named| named.len() <= MAX_ARTIFACT);
    let artifact = named.ok_or_else(|| bad("The artifact has no 'prefix' and no 'id', or a very long one."))?;
    let place = Place::parse(state, asked, artifact).await?;
    if place.files(state, false).await?.is_empty() {
        let message = format!("There are no files at '{artifact}'. Upload them before registering them.");
        return Err(bad(&message).into());
    }
    let name = body.get("name").and_then(Value::as_str).unwrap_or_default();
    Ok(respond::ok(&shown(artifact, name)))
}

/// An asset by its id.
pub(super) fn get(ctx: &OpContext, _: &ApiState, asked: &Asked, id: &str) -> Outcome {
    asked.authorize(ctx, "models/read")?;
    Ok(respond::ok(&shown(&artifact_of(id)?, "")))
}

fn shown(artifact: &str, name: &str) -> Value {
    json!({
        "id": URL_SAFE_NO_PAD.encode(artifact),
        "name": name,
        "type": null,
        "description": null,
        "artifacts": [{"id": null, "prefix": artifact}],
        "kvTags": {},
        "properties": {},
        "runid": null,
        "meta": null,
        "createdTime": null,
    })
}

/// The url of a model with these files.
pub(super) fn url(artifact: &str) -> String {
    format!("{SCHEME}{}", URL_SAFE_NO_PAD.encode(artifact))
}

/// The artifact that a model's url names.
///
/// # Errors
/// `BadArgument` for another form.
pub(super) fn artifact_of_url(url: &str) -> Result<String, Fault> {
    let Some(id) = url.strip_prefix(SCHEME) else {
        let shown: String = url.chars().filter(|c| !c.is_control()).take(200).collect();
        let message =
            format!("The url '{shown}' is not that of an asset of this workspace ({SCHEME}…). Upload the files.");
        return Err(Fault::invalid("BadArgument", message).at("url"));
    };
    artifact_of(id)
}

fn artifact_of(id: &str) -> Result<String, Fault> {
    let decoded = URL_SAFE_NO_PAD.decode(id).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let good = decoded.filter(|artifact| artifact.len() <= MAX_ARTIFACT && !artifact.chars().any(char::is_control));
    good.ok_or_else(|| Fault::not_found("AssetNotFound", "There is no asset with this id in the workspace.").at("id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_say_where_the_files_lie() {
        let artifact = "LocalUpload/231122T054200-1a2b/ä model.pkl";
        assert_eq!(artifact_of_url(&url(artifact)).unwrap(), artifact);
        for bad in ["aml://asset/", "aml://asset/!", "aml://artifact/x", "https://elsewhere.example/x", ""] {
            let refused = artifact_of_url(bad);
            assert!(refused.is_err() || refused == Ok(String::new()), "{bad}");
        }
    }
}
