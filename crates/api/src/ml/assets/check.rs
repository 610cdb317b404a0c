//! What a version must say of itself, and the defaults of what it leaves out.

use casemate_model::{
    Fault, Resource, ResourceId,
    asset::{CodeSpec, EnvironmentSpec, ModelSpec},
};
use serde_json::{Map, Value, json};

use super::{CODES, DATA, Family, MODELS};
use crate::{
    ApiError, ApiState,
    ml::{
        body::{map_of, texts},
        location::Location,
    },
};

/// Longest name of an asset or a version, in characters.
const MAX_NAME: usize = 255;
/// Largest conda file, in bytes.
const MAX_CONDA: usize = 1 << 20;

/// Checks the name of a container or a version.
///
/// # Errors
/// `BadArgument` naming the allowed characters.
pub(crate) fn name(what: &str, name: &str) -> Result<(), Fault> {
    let good = name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if good {
        return Ok(());
    }
    let message = format!(
        "The {what} '{name}' must start with a letter or a digit, hold only letters, digits, '-', '_' and '.', and have at most {MAX_NAME} characters."
    );
    Err(Fault::invalid("BadArgument", message).at("name"))
}

/// Checks names of a version's id: the asset's and the version's.
pub(super) fn names(family: &Family, id: &ResourceId) -> Result<(), Fault> {
    if let Some(container) = id.parent() {
        name(&format!("{} name", family.word), container.name())?;
    }
    name("version", id.name())
}

/// Fills in what all assets have: description, tags, properties, flags.
///
/// # Errors
/// `BadArgument` for a wrong type.
pub(super) fn common(properties: &mut Map<String, Value>) -> Result<(), Fault> {
    for key in ["provisioningState", "latestVersion", "nextVersion"] {
        properties.remove(key);
    }
    for key in ["tags", "properties"] {
        let found = texts(properties.remove(key), key)?;
        properties.insert(key.to_owned(), map_of(found));
    }
    if properties.get("description").is_some_and(|text| !text.is_string()) {
        return Err(Fault::invalid("BadArgument", "'description' is not a text.").at("description"));
    }
    for key in ["isAnonymous", "isArchived"] {
        let value = properties.entry(key).or_insert(Value::Bool(false));
        if !value.is_boolean() {
            return Err(Fault::invalid("BadArgument", format!("'{key}' is neither true nor false.")).at(key));
        }
    }
    Ok(())
}

/// Checks a version's substance, and that its files are there.
///
/// # Errors
/// `BadArgument` naming what is missing or wrong; as [`Location::resolve`].
pub(super) async fn substance(
    state: &ApiState,
    workspace: &Resource,
    family: &Family,
    properties: &mut Map<String, Value>,
) -> Result<(), ApiError> {
    if *family == MODELS {
        return model(state, workspace, properties).await;
    }
    if *family == CODES {
        let spec = CodeSpec::from_properties(&Value::Object(properties.clone()))?;
        return files(state, workspace, &spec.code_uri, "codeUri").await;
    }
    if *family == DATA {
        if !properties.get("dataUri").is_some_and(Value::is_string) {
            return Err(Fault::invalid("BadArgument", "The data asset has no 'dataUri'.").at("dataUri").into());
        }
        properties.entry("dataType").or_insert_with(|| "uri_folder".into());
        return Ok(());
    }
    Ok(environment(properties)?)
}

async fn model(state: &ApiState, workspace: &Resource, properties: &mut Map<String, Value>) -> Result<(), ApiError> {
    let spec = ModelSpec::from_properties(&Value::Object(properties.clone()))?;
    properties.entry("modelType").or_insert_with(|| "custom_model".into());
    // Clients crash when a model has no flavors at all.
    let flavors = properties.entry("flavors").or_insert_with(|| json!({}));
    if !flavors.is_object() {
        return Err(Fault::invalid("BadArgument", "'flavors' is not an object.").at("flavors").into());
    }
    files(state, workspace, &spec.model_uri, "modelUri").await
}

async fn files(state: &ApiState, workspace: &Resource, uri: &str, field: &str) -> Result<(), ApiError> {
    let location = Location::resolve(state, workspace, uri, field).await?;
    if location.exists(state).await? {
        return Ok(());
    }
    let (container, path) = (&location.container, &location.path);
    Err(Fault::invalid(
        "BadArgument",
        format!(
            "There is no file at '{path}' in the container '{container}'. Upload the files before registering them."
        ),
    )
    .at(field)
    .into())
}

fn environment(properties: &mut Map<String, Value>) -> Result<(), Fault> {
    let spec = EnvironmentSpec::from_properties(&Value::Object(properties.clone()))?;
    if spec.image.is_none() && spec.build.is_none() && spec.conda_file.is_none() {
        return Err(Fault::invalid(
            "BadArgument",
            "The environment says nothing of what is in it. Give a conda_file, an image, or both.",
        )
        .at("properties"));
    }
    if let Some(conda) = spec.conda_file.filter(|conda| conda.len() > MAX_CONDA) {
        let message = format!("The conda file has {} bytes; at most {MAX_CONDA} are taken.", conda.len());
        return Err(Fault::invalid("BadArgument", message).at("condaFile"));
    }
    properties.entry("osType").or_insert_with(|| "Linux".into());
    properties.entry("environmentType").or_insert_with(|| "UserCreated".into());
    Ok(())
}
