//! What an instance finds inside its sandbox: which directories lie where, which variables are set, what is run.
//!
//! The paths are the original's, because scoring scripts know them. Everything that comes from a user and becomes a
//! path or a variable is checked here; nothing here touches the disk.

use std::{
    num::NonZero,
    path::{Component, Path, PathBuf},
};

use casemate_model::{Fault, FaultKind};
use casemate_sandbox::{Access, HOME, Mount};

use crate::{
    outbound::OwnIdentity,
    request::{CodeMount, InstanceRequest, ModelMount},
};

/// Where the server listens, inside the instance's own network namespace. The server's default, so that scripts which
/// call themselves find it.
pub(crate) const SERVER_PORT: u16 = 5001;

/// Holds the code and, by default, the models.
const APP_DIR: &str = "/var/azureml-app";
/// Under [`APP_DIR`].
const MODELS_DIR: &str = "azureml-models";
/// Name of the code's directory when its own name can't be used.
const CODE_DIR: &str = "onlinescoring";
/// Directories of the sandbox itself, over which no model may be mounted.
const RESERVED: &[&str] = &[
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin", "/sys", "/tmp", "/usr", HOME,
];

/// An instance's view of the world, ready for the sandbox.
pub(crate) struct Layout {
    pub mounts: Vec<Mount>,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: PathBuf,
    /// Workers that the server will start.
    pub workers: u32,
    /// What is mounted where, in sentences for the log.
    pub notes: Vec<String>,
}

impl Layout {
    /// Lays out a request, for a process that has this identity.
    ///
    /// # Errors
    /// `BadArgument` naming the field when a path, a name or a variable can't be used; `NotSupported` when there is no
    /// scoring code.
    pub(crate) fn new(request: &InstanceRequest, identity: Option<&OwnIdentity>) -> Result<Self, Fault> {
        let Some(code) = &request.code else {
            return Err(Fault::new(
                FaultKind::NotImplemented,
                "NotSupported",
                "The deployment has no code_configuration. This platform serves a model through a scoring script; give \
                 code_configuration with code and scoring_script.",
            )
            .at("codeConfiguration"));
        };
        let python = &request.environment.python;
        let mut mounts: Vec<Mount> = request.environment.mounts.iter().map(|path| read_only(path, path)).collect();
        let mut env = base_env(python);
        let digest = &request.environment.digest;
        let mut notes =
            vec![format!("UserContainerImagePull: Succeeded, environment {digest} with {}", python.display())];

        let script = script_path(code)?;
        let code_dir = Path::new(APP_DIR).join(code_dir_name(code));
        let script = code_dir.join(script);
        mounts.push(read_only(&code.source, &code_dir));
        notes.push(format!("Code: mounted read-only at {}, entry script {}", code_dir.display(), script.display()));
        env.push(("AML_APP_ROOT", text(script.parent().unwrap_or(&code_dir))));
        env.push(("AZUREML_ENTRY_SCRIPT", text(&script)));

        let mount_path = request.model_mount_path.as_deref();
        for model in &request.models {
            let (own_dir, target) = model_target(model, mount_path)?;
            let model_dir = if request.models.len() == 1 { own_dir } else { model_root(mount_path)? };
            mounts.push(read_only(&model.source, &target));
            notes.push(format!(
                "ModelDownload: Succeeded, {} version {} mounted read-only at {}; AZUREML_MODEL_DIR={}",
                model.name,
                model.version,
                target.display(),
                model_dir.display()
            ));
            env.retain(|(name, _)| *name != "AZUREML_MODEL_DIR");
            env.push(("AZUREML_MODEL_DIR", text(&model_dir)));
        }

        let own_workers = request.variables.get("WORKER_COUNT").and_then(|count| count.trim().parse().ok());
        let workers = own_workers.unwrap_or(request.workers).max(1);
        env.push(("WORKER_COUNT", workers.to_string()));
        env.extend(thread_limit(request.size.milli_cpus, workers));
        env.extend(identity.into_iter().flat_map(OwnIdentity::variables));
        let env = with_user_variables(env, request)?;
        let args = ["-m", "azureml_inference_server_http", "--entry_script", &text(&script), "--port"];
        let args = args.into_iter().map(str::to_owned).chain([SERVER_PORT.to_string()]).collect();
        Ok(Self { mounts, program: python.clone(), args, env, cwd: APP_DIR.into(), workers, notes })
    }
}

fn read_only(source: &Path, target: &Path) -> Mount {
    Mount { source: source.to_owned(), target: target.to_owned(), access: Access::ReadOnly }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn bad(target: &str, message: String) -> Fault {
    Fault::invalid("BadArgument", message).at(target)
}

/// Variables that do not depend on the deployment.
fn base_env(python: &Path) -> Vec<(&'static str, String)> {
    let bin = python.parent().unwrap_or(Path::new("/usr/bin"));
    vec![
        ("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display())),
        // Empty and writable: the server's control socket and the caches of libraries go there.
        ("HOME", HOME.to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        // A log line is there when it is printed, not when a buffer is full.
        ("PYTHONUNBUFFERED", "1".to_owned()),
        // Nothing that is mounted can be written, so trying is a waste.
        ("PYTHONDONTWRITEBYTECODE", "1".to_owned()),
    ]
}

/// Numeric libraries start a thread for each core of the machine, whatever the CPU limit. When the limit is lower, or
/// several workers share the cores, that only makes them slower.
fn thread_limit(milli_cpus: u32, workers: u32) -> Option<(&'static str, String)> {
    let machine = std::thread::available_parallelism().map_or(1, NonZero::get);
    let machine = u32::try_from(machine).unwrap_or(u32::MAX);
    let threads = (milli_cpus.div_ceil(1000).min(machine) / workers).max(1);
    (threads < machine).then(|| ("OMP_NUM_THREADS", threads.to_string()))
}

fn with_user_variables(
    env: Vec<(&'static str, String)>,
    request: &InstanceRequest,
) -> Result<Vec<(String, String)>, Fault> {
    let mut all: Vec<(String, String)> = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    for (name, value) in &request.variables {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let shown = name.escape_debug();
            let message = format!(
                "The environment variable '{shown}' can't be set: a name must not be empty or contain '=', and neither \
                 name nor value may contain a NUL character."
            );
            return Err(bad("environmentVariables", message));
        }
        all.retain(|(other, _)| other != name);
        all.push((name.clone(), value.clone()));
    }
    Ok(all)
}

/// The script's path below the code directory.
fn script_path(code: &CodeMount) -> Result<PathBuf, Fault> {
    // YAML files written on Windows hold backslashes.
    let script = code.script.replace('\\', "/");
    let path: PathBuf = Path::new(&script).components().filter(|part| *part != Component::CurDir).collect();
    let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    if script.contains('\0') || path.as_os_str().is_empty() || !inside {
        return Err(bad(
            "codeConfiguration.scoringScript",
            format!(
                "The scoring_script '{}' is not a path inside the code directory; give one such as score.py.",
                code.script.escape_debug()
            ),
        ));
    }
    Ok(path)
}

/// The name of the code's own directory where it can be used, since scripts may name it.
fn code_dir_name(code: &CodeMount) -> &str {
    let own = code.source.file_name().and_then(|name| name.to_str());
    own.filter(|name| is_plain_name(name) && *name != MODELS_DIR).unwrap_or(CODE_DIR)
}

/// `AZUREML_MODEL_DIR`, and below it where the file or directory goes.
fn model_target(model: &ModelMount, mount_path: Option<&str>) -> Result<(PathBuf, PathBuf), Fault> {
    for part in [&model.name, &model.version] {
        if !is_plain_name(part) {
            return Err(bad("model", format!("'{}' can't be part of the model's path.", part.escape_debug())));
        }
    }
    let model_dir = model_root(mount_path)?.join(&model.name).join(&model.version);
    let Some(own_name) = model.source.file_name() else {
        return Err(bad("model", "The model's files have no name of their own.".to_owned()));
    };
    let target = model_dir.join(own_name);
    Ok((model_dir, target))
}

/// The directory that all models lie in.
fn model_root(mount_path: Option<&str>) -> Result<PathBuf, Fault> {
    mount_path.map_or_else(|| Ok(Path::new(APP_DIR).join(MODELS_DIR)), checked_mount_path)
}

fn checked_mount_path(path: &str) -> Result<PathBuf, Fault> {
    let parsed = Path::new(path);
    let plain = parsed.components().skip(1).all(|part| matches!(part, Component::Normal(_)));
    let reserved = RESERVED.iter().any(|reserved| parsed.starts_with(reserved));
    let on_code = parsed.starts_with(APP_DIR) && !parsed.starts_with(Path::new(APP_DIR).join(MODELS_DIR));
    if !parsed.is_absolute() || !plain || parsed.parent().is_none() || path.contains('\0') || reserved || on_code {
        return Err(bad(
            "modelMountPath",
            format!(
                "The model_mount_path '{}' can't be used; give an absolute path without '..' that is not a directory of \
                 the system, /tmp or {APP_DIR}, such as /var/models.",
                path.escape_debug()
            ),
        ));
    }
    Ok(parsed.components().collect())
}

/// One path component of letters, digits, dots, dashes and underscores.
fn is_plain_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use casemate_model::{ResourceId, deployment::ProbeSettings, instance_type::InstanceSize};

    use super::*;
    use crate::environment::PreparedEnvironment;

    type Change = fn(&mut InstanceRequest);

    fn request(change: Change) -> InstanceRequest {
        let mut request = InstanceRequest {
            deployment: ResourceId::parse("/subscriptions/s/resourceGroups/g/providers/P/t/blue").unwrap(),
            environment: PreparedEnvironment {
                digest: "sha256:1".to_owned(),
                python: "/state/environments/1/bin/python".into(),
                mounts: vec!["/state/environments/1".into()],
                warnings: vec![],
            },
            code: Some(CodeMount { source: "/state/code/1/onlinescoring".into(), script: "score.py".to_owned() }),
            models: vec![ModelMount {
                source: "/state/models/1/model".into(),
                name: "diabetes".to_owned(),
                version: "3".to_owned(),
            }],
            model_mount_path: None,
            variables: BTreeMap::new(),
            size: InstanceSize { milli_cpus: 500, memory_bytes: 1 << 30 },
            workers: 1,
            liveness: ProbeSettings::default(),
            readiness: ProbeSettings::default(),
            egress: tokio::sync::watch::channel(Arc::default()).1,
            identity: None,
        };
        change(&mut request);
        request
    }

    fn variable<'a>(layout: &'a Layout, name: &str) -> Option<&'a str> {
        layout.env.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    fn set(request: &mut InstanceRequest, name: &str, value: &str) {
        request.variables.insert(name.to_owned(), value.to_owned());
    }

    #[test]
    fn the_documented_places() {
        let layout = Layout::new(&request(|_| {}), None).unwrap();
        let targets: Vec<_> = layout.mounts.iter().map(|mount| mount.target.to_str().unwrap()).collect();
        let model_dir = "/var/azureml-app/azureml-models/diabetes/3";
        assert_eq!(targets, ["/state/environments/1", "/var/azureml-app/onlinescoring", &format!("{model_dir}/model")]);
        assert!(layout.mounts.iter().all(|mount| mount.access == Access::ReadOnly));
        for (name, value) in [
            ("AZUREML_MODEL_DIR", model_dir),
            ("AML_APP_ROOT", "/var/azureml-app/onlinescoring"),
            ("AZUREML_ENTRY_SCRIPT", "/var/azureml-app/onlinescoring/score.py"),
            ("WORKER_COUNT", "1"),
            ("PATH", "/state/environments/1/bin:/usr/local/bin:/usr/bin:/bin"),
        ] {
            assert_eq!(variable(&layout, name), Some(value), "{name}");
        }
    }

    #[test]
    fn what_a_user_may_choose() {
        let entry = "AZUREML_ENTRY_SCRIPT";
        let table: [(Change, &str, &str); 9] = [
            (
                |r| r.code.as_mut().unwrap().script = "src/score.py".into(),
                entry,
                "/var/azureml-app/onlinescoring/src/score.py",
            ),
            (
                |r| r.code.as_mut().unwrap().script = "src/score.py".into(),
                "AML_APP_ROOT",
                "/var/azureml-app/onlinescoring/src",
            ),
            (
                |r| r.code.as_mut().unwrap().script = ".\\src\\score.py".into(),
                entry,
                "/var/azureml-app/onlinescoring/src/score.py",
            ),
            (
                |r| r.code.as_mut().unwrap().source = "/state/code/my code".into(),
                entry,
                "/var/azureml-app/onlinescoring/score.py",
            ),
            (
                |r| r.code.as_mut().unwrap().source = "/state/azureml-models".into(),
                entry,
                "/var/azureml-app/onlinescoring/score.py",
            ),
            (|r| r.model_mount_path = Some("/models".into()), "AZUREML_MODEL_DIR", "/models/diabetes/3"),
            (
                |r| {
                    r.models.push(r.models[0].clone());
                    r.models[1].version = "4".to_owned();
                },
                "AZUREML_MODEL_DIR",
                "/var/azureml-app/azureml-models",
            ),
            (|r| set(r, "WORKER_COUNT", "4"), "WORKER_COUNT", "4"),
            (|r| set(r, "HOME", "/elsewhere"), "HOME", "/elsewhere"),
        ];
        for (at, (change, name, value)) in table.into_iter().enumerate() {
            let layout = Layout::new(&request(change), None).unwrap();
            assert_eq!(variable(&layout, name), Some(value), "row {at}");
            let names: std::collections::BTreeSet<_> = layout.env.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), layout.env.len(), "a variable is set twice");
        }
        assert_eq!(Layout::new(&request(|r| set(r, "WORKER_COUNT", "4")), None).unwrap().workers, 4);
    }

    #[test]
    fn what_a_user_may_not_choose() {
        let table: [(Change, &str); 14] = [
            (|r| r.code = None, "codeConfiguration"),
            (|r| r.code.as_mut().unwrap().script = "../../etc/passwd".into(), "codeConfiguration.scoringScript"),
            (|r| r.code.as_mut().unwrap().script = "/etc/passwd".into(), "codeConfiguration.scoringScript"),
            (|r| r.code.as_mut().unwrap().script = String::new(), "codeConfiguration.scoringScript"),
            (|r| r.code.as_mut().unwrap().script = ".".into(), "codeConfiguration.scoringScript"),
            (|r| r.model_mount_path = Some("models".into()), "modelMountPath"),
            (|r| r.model_mount_path = Some("/".into()), "modelMountPath"),
            (|r| r.model_mount_path = Some("/srv/../etc".into()), "modelMountPath"),
            (|r| r.model_mount_path = Some("/usr/lib".into()), "modelMountPath"),
            (|r| r.model_mount_path = Some("/var/azureml-app".into()), "modelMountPath"),
            (|r| r.models[0].name = "..".into(), "model"),
            (|r| r.models[0].version = "1/2".into(), "model"),
            (|r| set(r, "A=B", "c"), "environmentVariables"),
            (|r| set(r, "A", "b\0c"), "environmentVariables"),
        ];
        for (at, (change, target)) in table.into_iter().enumerate() {
            let fault = Layout::new(&request(change), None).err().unwrap();
            assert_eq!(fault.target.as_deref(), Some(target), "row {at}: {fault}");
        }
    }

    #[test]
    fn threads_are_limited_only_where_it_helps() {
        let machine = u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
        assert_eq!(thread_limit(machine * 1000, 1), None);
        assert_eq!(thread_limit(64_000, 1), None);
        if machine > 1 {
            assert_eq!(thread_limit(100, 1).unwrap().1, "1");
            assert_eq!(thread_limit(64_000, machine * 2).unwrap().1, "1");
        }
    }
}
