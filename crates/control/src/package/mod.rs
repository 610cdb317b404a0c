//! What a version of a first-generation service runs: its archive of code unpacked, its models linked, its inline
//! environment built. From there on it is an instance like any other.

mod archive;

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use casemate_model::{
    Fault, Resource,
    route::key_digest,
    service::{APP_ROOT, Package, SERVICE_DEPLOYMENT_TYPE},
};
use casemate_runtime::{Backend, CodeMount, EnvironmentRequest};
use casemate_store::Filter;
use serde_json::json;

use crate::{
    Shared,
    artifacts::{self, Artifacts},
    wish::Wish,
};

/// Where the code lies in the state directory, one directory for each that was ever unpacked and is still wanted.
const HOME: &str = "services";
/// The code's directory when it has no name of its own.
const CODE_DIR: &str = "onlinescoring";

/// Gets everything in place for a version.
///
/// # Errors
/// `BadArgument` for an archive that can't be unpacked, `ResourceNotFound` for files or models that are not there,
/// `ImageBuildFailure` from the environment's build.
pub async fn prepare<B: Backend>(shared: &Shared<B>, wish: &Wish, package: &Package) -> Result<Artifacts, Fault> {
    let code = code(shared, wish, package).await?;
    let mut models = Vec::with_capacity(package.models.len());
    for id in &package.models {
        models.push(artifacts::model(shared, id.as_str()).await?);
    }
    let request =
        EnvironmentRequest { conda_file: package.conda_file.clone(), image: package.image.clone(), build: false };
    let environment = shared.backend.environment_prepare(&wish.id, request).await?;
    let variables = variables(wish, &code);
    Ok(Artifacts { environment, code: Some(code), models, variables })
}

/// The version's variables, and those that scripts of the first generation know.
fn variables(wish: &Wish, code: &CodeMount) -> BTreeMap<String, String> {
    let mut variables = wish.spec.environment_variables.clone();
    let name = wish.id.parent().map(|service| service.name().to_owned()).unwrap_or_default();
    let directory = code.source.file_name().and_then(|name| name.to_str()).unwrap_or(CODE_DIR);
    for (name, value) in [
        ("AML_APP_ROOT", APP_ROOT.to_owned()),
        ("SERVICE_NAME", name),
        ("PYTHONPATH", format!("{APP_ROOT}/{directory}")),
    ] {
        variables.entry(name.to_owned()).or_insert(value);
    }
    variables
}

async fn code<B: Backend>(shared: &Shared<B>, wish: &Wish, package: &Package) -> Result<CodeMount, Fault> {
    let missing = |error: &dyn std::fmt::Display| {
        Fault::invalid("BadArgument", format!("The code of '{}' can't be found: {error}", wish.id))
    };
    let mut files = Vec::with_capacity(package.files.len());
    for file in &package.files {
        let path = shared.blob.local_path(&file.container, &file.path).map_err(|error| missing(&error))?;
        files.push((path, file.unpack));
    }
    let directory = package.source_directory.clone().unwrap_or_else(|| CODE_DIR.to_owned());
    let home = shared.config.state_dir.join(HOME).join(key_of(wish.id.key(), package));
    let source = home.join(&directory);
    let made = tokio::task::spawn_blocking(move || assemble(&files, &home, &directory)).await;
    let failed = |error: &dyn std::fmt::Display| {
        Fault::internal(format!("The code of '{}' can't be put in place: {error}.", wish.id))
    };
    match made.map_err(|error| failed(&error))? {
        Ok(()) => Ok(CodeMount { source, script: package.entry_script.clone() }),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Fault::invalid(
            "BadArgument",
            format!("The archive of the source directory of '{}' can't be used: {error}. Deploy again.", wish.id),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Fault::not_found(
            "ResourceNotFound",
            format!("The code of '{}' is not in the artifact store any more; deploy it again.", wish.id),
        )),
        Err(error) => Err(failed(&error)),
    }
}

/// What tells one code from another.
fn key_of(version: &str, package: &Package) -> String {
    let text = json!([version, package.files, package.source_directory]).to_string();
    key_digest(text.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Unpacks and links files into `home`, whole or not at all.
fn assemble(files: &[(PathBuf, bool)], home: &Path, directory: &str) -> io::Result<()> {
    if home.exists() {
        return Ok(());
    }
    let partial = home.with_extension(uuid::Uuid::new_v4().to_string());
    fs::create_dir_all(partial.join(directory))?;
    let made = files.iter().try_for_each(|(file, is_archive)| {
        if *is_archive {
            return archive::unpack(file, &partial);
        }
        let name = file.file_name().ok_or(io::ErrorKind::NotFound)?;
        fs::hard_link(file, partial.join(directory).join(name))
    });
    match made.and_then(|()| fs::rename(&partial, home)) {
        Err(_) if home.exists() => fs::remove_dir_all(&partial),
        Err(error) => {
            // What stays behind of a failure is swept later.
            let _ = fs::remove_dir_all(&partial);
            Err(error)
        }
        Ok(()) => Ok(()),
    }
}

/// Removes code that no version wants any more: neither the wished one nor what it served last.
pub async fn sweep<B: Backend>(shared: &Shared<B>) -> Result<(), Fault> {
    let versions = shared.store.resource_list(&Filter::of_type(SERVICE_DEPLOYMENT_TYPE)).await?;
    let kept: HashSet<String> = versions.iter().flat_map(keys).collect();
    artifacts::sweep_directory(&shared.config.state_dir.join(HOME), &kept);
    Ok(())
}

fn keys(version: &Resource) -> Vec<String> {
    let bodies = std::iter::once(&version.body).chain(version.observed.get("_served"));
    bodies
        .filter_map(|body| Package::of(body).ok().flatten())
        .map(|package| key_of(version.id.key(), &package))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_files_are_linked_into_a_directory_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let (script, home) = (dir.path().join("score.py"), dir.path().join("services/1"));
        fs::write(&script, "one").unwrap();
        assemble(&[(script.clone(), false)], &home, CODE_DIR).unwrap();
        assert_eq!(fs::read_to_string(home.join(CODE_DIR).join("score.py")).unwrap(), "one");
        // A second time changes nothing, even if the file is gone.
        fs::remove_file(&script).unwrap();
        assemble(&[(script, false)], &home, CODE_DIR).unwrap();
    }

    #[test]
    fn what_fails_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (archive, home) = (dir.path().join("x.tar.gz"), dir.path().join("services/1"));
        fs::write(&archive, "no archive").unwrap();
        let error = assemble(&[(archive, true)], &home, "code").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        assert_eq!(fs::read_dir(dir.path().join("services")).unwrap().count(), 0);
    }
}
