//! `environmentImageRequest`: the code, the models and the inline environment of a version, found and checked.

use std::collections::BTreeMap;

use casemate_model::{
    Fault, FaultKind, ResourceId,
    service::{Package, PackagedFile, VersionSettings},
};
use serde_json::{Value, json};

use super::Asked;
use crate::{
    ApiError, ApiState,
    ml::body::texts,
    v1::{artifacts::Place, models},
};

/// What the address of an uploaded file begins with.
const SCHEME: &str = "aml://artifact/";
/// Most files, and most models, of one version.
const MAX_FILES: usize = 100;
const MAX_MODELS: usize = 20;
/// Longest document that is kept of it, in bytes.
const MAX_REQUEST: usize = 512 << 10;
/// Lines that clients put into every environment.
const ORIGINS: [&str; 2] =
    ["--find-links https://pypi.python.org/simple/index.html", "--extra-index-url https://pypi.python.org/simple"];
/// Says which file is the entry script; set by clients, and again by the runtime for the process.
const ENTRY_SCRIPT: &str = "AZUREML_ENTRY_SCRIPT";

/// A version's package and its variables.
pub(super) struct Prepared {
    pub(super) package: Package,
    pub(super) variables: BTreeMap<String, String>,
    /// The request as it is kept and shown, without credentials of registries.
    pub(super) request: Value,
}

/// Reads the request of a version.
///
/// # Errors
/// `BadArgument` or `NotFound` naming the file, the model or the field; `NotImplemented` for what has no environment or
/// needs an image to be built.
pub(super) async fn read(
    state: &ApiState,
    asked: &Asked,
    request: &Value,
    settings: &VersionSettings,
) -> Result<Prepared, ApiError> {
    let request = without_credentials(request)?;
    let environment = request.get("environment").filter(|environment| environment.is_object()).ok_or_else(|| {
        let message = "The service has no environment. Deployments without an InferenceConfig with an Environment are \
                       not available on this platform; give inference_config=InferenceConfig(entry_script=…, \
                       environment=…).";
        Fault::new(FaultKind::NotImplemented, "NotImplemented", message).at("environmentImageRequest")
    })?;
    let mut variables =
        texts(environment.get("environmentVariables").filter(|map| !map.is_null()).cloned(), "environmentVariables")?;
    let entry = variables.remove(ENTRY_SCRIPT).unwrap_or_default();
    let files = files(state, asked, &request).await?;
    let (source_directory, entry_script) = code(&entry, files.iter().any(|file| file.unpack))?;
    let size = settings.size();
    let package = Package {
        files,
        source_directory,
        entry_script,
        models: model_ids(state, asked, &request).await?,
        conda_file: conda_file(environment)?,
        image: environment.pointer("/docker/baseImage").and_then(Value::as_str).map(str::to_owned),
        milli_cpus: size.milli_cpus,
        memory_bytes: size.memory_bytes,
    };
    Ok(Prepared { package, variables, request })
}

/// The request without passwords of image registries, which nothing here logs in to.
fn without_credentials(request: &Value) -> Result<Value, Fault> {
    if request.to_string().len() > MAX_REQUEST {
        let message = format!("The environmentImageRequest has more than {MAX_REQUEST} bytes.");
        return Err(Fault::invalid("BadArgument", message).at("environmentImageRequest"));
    }
    let mut request = request.clone();
    if let Some(docker) = request.pointer_mut("/environment/docker").and_then(Value::as_object_mut) {
        docker.remove("baseImageRegistry");
    }
    if let Some(request) = request.as_object_mut() {
        request.remove("baseImageRegistryInfo");
    }
    Ok(request)
}

/// The uploaded files but for the driver, which only starts the entry script as the runtime does itself.
async fn files(state: &ApiState, asked: &Asked, request: &Value) -> Result<Vec<PackagedFile>, ApiError> {
    let bad = |message: String| Fault::invalid("BadArgument", message).at("assets");
    let assets = request["assets"].as_array().map(Vec::as_slice).unwrap_or_default();
    if assets.len() > MAX_FILES {
        return Err(bad(format!("There are {} assets; at most {MAX_FILES} are taken.", assets.len())).into());
    }
    let driver = request["driverProgram"].as_str().unwrap_or("driver");
    let mut files = Vec::new();
    for asset in assets.iter().filter(|asset| asset["id"].as_str() != Some(driver)) {
        let url = asset["url"].as_str().unwrap_or_default();
        let Some(artifact) = url.strip_prefix(SCHEME) else {
            let shown: String = url.chars().filter(|c| !c.is_control()).take(200).collect();
            return Err(bad(format!("The asset '{shown}' is no uploaded file ({SCHEME}…). Upload it.")).into());
        };
        let place = Place::parse(state, asked, artifact).await?;
        let found = place.files(state, true).await?;
        let [file] = found.as_slice() else {
            return Err(bad(format!("There is no file '{artifact}'. Deploy again, so that it is uploaded.")).into());
        };
        let unpack = asset["unpack"].as_bool().unwrap_or(false);
        files.push(PackagedFile { container: place.store.clone(), path: file.name.clone(), unpack });
    }
    if files.is_empty() {
        return Err(bad("The service has no code: none of its assets is more than the driver.".to_owned()).into());
    }
    Ok(files)
}

/// The directory in the archive and the script below it; no directory for single files.
fn code(entry: &str, in_archive: bool) -> Result<(Option<String>, String), Fault> {
    let entry = entry.trim_start_matches("./").replace('\\', "/");
    let plain = !entry.is_empty() && entry.split('/').all(|part| !matches!(part, "" | "." | ".."));
    let found = match (plain, in_archive) {
        (true, true) => {
            entry.split_once('/').map(|(directory, script)| (Some(directory.to_owned()), script.to_owned()))
        }
        (true, false) => Some((None, entry.rsplit('/').next().unwrap_or(&entry).to_owned())),
        (false, _) => None,
    };
    found.ok_or_else(|| {
        let message = format!(
            "The environment's variable {ENTRY_SCRIPT} is '{}'; it should name the entry script, such as code/score.py for \
             the source directory 'code'. Deploy by an InferenceConfig with entry_script and source_directory.",
            entry.escape_debug()
        );
        Fault::invalid("BadArgument", message).at(ENTRY_SCRIPT)
    })
}

async fn model_ids(state: &ApiState, asked: &Asked, request: &Value) -> Result<Vec<ResourceId>, ApiError> {
    let bad = |message: String| Fault::invalid("BadArgument", message).at("modelIds");
    let given = request["modelIds"].as_array().map(Vec::as_slice).unwrap_or_default();
    if given.len() > MAX_MODELS {
        return Err(bad(format!("There are {} models; at most {MAX_MODELS} are taken.", given.len())).into());
    }
    let mut ids: Vec<ResourceId> = Vec::new();
    for id in given {
        let id = id.as_str().ok_or_else(|| bad("A model's id is not a text.".to_owned()))?;
        let row = models::find(state, asked, id).await?;
        if !ids.contains(&row.id) {
            ids.push(row.id);
        }
    }
    Ok(ids)
}

/// The inline packages as a conda file, which may be JSON.
fn conda_file(environment: &Value) -> Result<Option<String>, Fault> {
    let not_here = |message: &str| Fault::new(FaultKind::NotImplemented, "NotImplemented", message).at("environment");
    let docker = &environment["docker"];
    if ["baseDockerfile", "buildContext"].iter().any(|key| docker.get(key).is_some_and(|value| !value.is_null())) {
        return Err(not_here(
            "Environments with a Dockerfile are not available on this platform, which builds no images. Name the packages \
             in conda_dependencies.",
        ));
    }
    let python = &environment["python"];
    if python["userManagedDependencies"].as_bool() == Some(true) {
        return Err(not_here(
            "Environments whose packages come with an image (user_managed_dependencies) are not available on this platform, \
             which runs no images. Name the packages in conda_dependencies.",
        ));
    }
    let packages = python.get("condaDependencies").filter(|packages| packages.is_object());
    let packages = packages.map(|packages| {
        json!({
            "name": "service",
            "channels": packages.get("channels").cloned().unwrap_or_else(|| json!([])),
            "dependencies": packages.get("dependencies").cloned().map_or_else(|| json!([]), without_origin),
        })
    });
    Ok(packages.map(|packages| packages.to_string()))
}

/// The dependencies without the lines that clients put into every environment on their own: they name the public index
/// by an old address, for which the indexes that the operator configured stand here.
fn without_origin(mut dependencies: Value) -> Value {
    for pip in dependencies.as_array_mut().into_iter().flatten().filter_map(|one| one.get_mut("pip")?.as_array_mut()) {
        pip.retain(|line| line.as_str().is_none_or(|line| !ORIGINS.contains(&line)));
    }
    dependencies
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_entry_script_lies() {
        for (entry, in_archive, expected) in [
            ("code/score.py", true, Some((Some("code"), "score.py"))),
            ("code/src/score.py", true, Some((Some("code"), "src/score.py"))),
            ("score.py", false, Some((None, "score.py"))),
            ("/tmp/score.py", false, None),
            ("score.py", true, None),
            ("code/../score.py", true, None),
            ("", false, None),
        ] {
            let expected = expected.map(|(directory, script)| (directory.map(str::to_owned), script.to_owned()));
            assert_eq!(code(entry, in_archive).ok(), expected, "{entry}");
        }
    }

    #[test]
    fn credentials_are_not_kept() {
        let request =
            json!({"environment": {"docker": {"baseImage": "x/y:1", "baseImageRegistry": {"password": "p"}}}});
        let kept = without_credentials(&request).unwrap();
        assert_eq!(kept, json!({"environment": {"docker": {"baseImage": "x/y:1"}}}));
    }

    #[test]
    fn packages_become_a_conda_file() {
        let environment = json!({"python": {"condaDependencies": {
            "channels": ["conda-forge"], "dependencies": ["python=3.11", {"pip": [ORIGINS[0], "x==1", ORIGINS[1]]}]}}});
        let text = conda_file(&environment).unwrap().unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["dependencies"][1]["pip"], json!(["x==1"]));
        for refused in
            [json!({"docker": {"baseDockerfile": "FROM x"}}), json!({"python": {"userManagedDependencies": true}})]
        {
            assert_eq!(conda_file(&refused).unwrap_err().kind, FaultKind::NotImplemented);
        }
    }
}
