//! The assets that a deployment names: found, checked, and spelled by their full ids.

use casemate_model::{
    Fault, FaultKind, Resource, ResourceId,
    asset::{CodeSpec, ModelSpec},
    deployment::DeploymentSpec,
};
use casemate_wire::entity::{AssetKind, AssetRef};
use serde_json::{Map, Value};

use super::{
    assets::{self, CODES, ENVIRONMENTS, Family, MODELS},
    curated::Curated,
    location::Location,
};
use crate::{ApiError, ApiState};

/// What has to be stored beside the deployment.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// A stand-in for a curated environment.
    pub(super) curated: Option<Curated>,
}

/// Finds code, environment and model of a deployment and puts their ids into `properties`.
///
/// # Errors
/// `BadArgument` or `ResourceNotFound` naming the field and the asset; a scoring script that is not in the code, by
/// name.
pub(super) async fn settle(
    state: &ApiState,
    workspace: &Resource,
    properties: &mut Map<String, Value>,
    spec: &DeploymentSpec,
) -> Result<Found, ApiError> {
    let mut found = Found::default();
    if let Some(configuration) = &spec.code_configuration {
        let script = script_name(&configuration.scoring_script)?;
        if let Some(text) = &configuration.code_id {
            let row = version(state, workspace, &CODES, AssetKind::Code, text, "codeConfiguration.codeId").await?;
            script_is_there(state, workspace, &row, &script).await?;
            properties["codeConfiguration"]["codeId"] = row.id.as_str().into();
        }
        properties["codeConfiguration"]["scoringScript"] = script.into();
    }
    if let Some(text) = &spec.environment_id {
        match Curated::parse(text) {
            Some(curated) => {
                properties.insert("environmentId".to_owned(), curated.id(&workspace.id)?.as_str().into());
                found.curated = Some(curated);
            }
            None => {
                let row =
                    version(state, workspace, &ENVIRONMENTS, AssetKind::Environment, text, "environmentId").await?;
                properties.insert("environmentId".to_owned(), row.id.as_str().into());
            }
        }
    }
    if let Some(text) = &spec.model {
        let row = version(state, workspace, &MODELS, AssetKind::Model, text, "model").await?;
        let location = ModelSpec::from_properties(row.properties())?.model_uri;
        let files = Location::resolve(state, workspace, &location, "model").await?;
        if !files.exists(state).await? {
            return Err(files_gone(&row, "model").into());
        }
        properties.insert("model".to_owned(), row.id.as_str().into());
    }
    Ok(found)
}

/// A stored version, from any form of reference.
async fn version(
    state: &ApiState,
    workspace: &Resource,
    family: &'static Family,
    kind: AssetKind,
    text: &str,
    field: &str,
) -> Result<Resource, ApiError> {
    let parsed = AssetRef::parse(text, kind).map_err(|message| Fault::invalid("BadArgument", message).at(field))?;
    let id = match parsed {
        AssetRef::Id(id) => ResourceId::parse(&id).map_err(|fault| fault.at(field))?,
        AssetRef::Version { name, version } => family.version_id(&workspace.id, &name, &version)?,
        AssetRef::Label { name, label } => workspace.id.child(family.collection, &name)?.child("labels", &label)?,
        AssetRef::Registry(uri) => {
            let message = format!(
                "'{uri}' is an asset of a registry, which this platform does not have yet. Register the {} in the workspace and name that.",
                family.word
            );
            return Err(Fault::new(FaultKind::NotImplemented, "NotImplemented", message).at(field).into());
        }
    };
    if !id.is_within(&workspace.id) {
        let message = format!(
            "The {} '{id}' lies outside the workspace '{}'. Register it in this workspace.",
            family.word,
            workspace.name()
        );
        return Err(Fault::invalid("BadArgument", message).at(field).into());
    }
    let labels = format!("{}/labels", family.container_type);
    let row = match id.parent() {
        Some(container) if id.is_type(&labels) && id.name().eq_ignore_ascii_case("latest") => {
            assets::latest(state, &container).await?
        }
        _ if id.is_type(family.version_type) => state.store.resource_get(&id).await?,
        _ => None,
    };
    Ok(row.filter(|row| !row.deleting).ok_or_else(|| {
        let message = format!("The {} '{id}' does not exist. Register it, or name one that is.", family.word);
        Fault::not_found("ResourceNotFound", message).at(field)
    })?)
}

/// The script's path inside the code, without `./`.
fn script_name(script: &str) -> Result<String, Fault> {
    let trimmed = script.trim_start_matches("./");
    let good = !trimmed.is_empty()
        && !trimmed.starts_with('/')
        && !trimmed.chars().any(char::is_control)
        && trimmed.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if good {
        return Ok(trimmed.to_owned());
    }
    let shown: String = script.chars().filter(|c| !c.is_control()).take(100).collect();
    let message = format!("The scoring script '{shown}' must be a file inside the code, such as score.py.");
    Err(Fault::invalid("BadArgument", message).at("codeConfiguration.scoringScript"))
}

async fn script_is_there(
    state: &ApiState,
    workspace: &Resource,
    code: &Resource,
    script: &str,
) -> Result<(), ApiError> {
    let uri = CodeSpec::from_properties(code.properties())?.code_uri;
    let files = Location::resolve(state, workspace, &uri, "codeConfiguration.codeId").await?;
    let wanted = files.join(script);
    if state.blob.info(&files.container, &wanted).await.map_err(Fault::from)?.is_some() {
        return Ok(());
    }
    if !files.exists(state).await? {
        return Err(files_gone(code, "codeConfiguration.codeId").into());
    }
    let start = files.join("");
    let listed = state.blob.list(&files.container, &start, 20).await.map_err(Fault::from)?;
    let names: Vec<&str> = listed.iter().map(|blob| blob.name[start.len()..].trim_start_matches('/')).collect();
    let message = format!(
        "The scoring script '{script}' is not in the code that was uploaded. The code holds: {}{}. Correct scoring_script, or upload the code again.",
        names.join(", "),
        if listed.len() == 20 { ", …" } else { "" }
    );
    Err(Fault::invalid("BadArgument", message).at("codeConfiguration.scoringScript").into())
}

fn files_gone(asset: &Resource, field: &str) -> Fault {
    let message = format!(
        "The files of '{}' are not in the artifact store any more. Upload them again and register a new version.",
        asset.id
    );
    Fault::not_found("ResourceNotFound", message).at(field)
}
