//! Puts what was chosen into the environment, and checks that the result can serve.

use std::path::PathBuf;

use casemate_model::Fault;
use casemate_sandbox::{Mount, Network};

use super::{
    failure,
    lock::Locked,
    plan::Plan,
    session::{CACHE, IN, Session, UV},
    workshop::{Command, Outcome, Stdout, writable},
};

/// Most packages that an environment is said to have.
const MAX_PACKAGES: usize = 5000;
/// Compiles all but tests, which nothing imports; what can't be compiled is no failure.
const COMPILE: &str = r#"
import compileall, re, sys
compileall.compile_dir(sys.argv[1], quiet=2, workers=0, rx=re.compile(r"/(tests?|testing/tests)/"))
"#;
/// Imports the server, and tells what is installed by the names of the directories that say so.
const VERIFY: &str = r#"
import json, os, sys
import azureml_inference_server_http
found = set()
for place in filter(os.path.isdir, sys.path):
    for entry in os.listdir(place):
        if entry.endswith(".dist-info") and place.startswith(sys.prefix):
            name, _, version = entry[:-len(".dist-info")].rpartition("-")
            found.add("%s==%s" % (name.replace("_", "-").lower(), version))
json.dump(sorted(found), sys.stdout)
"#;

/// Puts packages into the environment of a session.
pub(super) struct Installer<'a> {
    pub session: &'a Session,
}

impl Installer<'_> {
    /// Makes the empty environment with uv.
    pub(super) async fn create_with_uv(&self) -> Result<(), Fault> {
        let mut args = owned(&["venv", "--allow-existing", "--no-project", "--python"]);
        args.push(self.session.python.executable.display().to_string());
        args.push(self.session.venv.display().to_string());
        let mut mounts = self.session.private_cache();
        mounts.push(self.session.environment());
        self.must("making the environment", self.uv(args, mounts, "making the environment", false)).await.map(drop)
    }

    /// Installs a lock with uv. Wheels come first and through the cache that all builds share: no code of theirs runs
    /// meanwhile. What has to be built comes after, through a cache of its own.
    pub(super) async fn install_with_uv(&self, plan: &Plan, packages: &[Locked]) -> Result<(), Fault> {
        let (plain, rest): (Vec<_>, Vec<_>) = packages.iter().partition(|package| package.is_plain_wheel());
        if !plain.is_empty() {
            let lines: String = plain.iter().map(|package| hashed_line(package)).collect();
            let input = self.session.input("wheels", &lines)?;
            let mut args = owned(&["pip", "install", "--no-deps", "--require-hashes", "--only-binary", ":all:"]);
            self.add_common(&mut args, &input);
            let mounts = vec![writable(&self.session.shared_cache, CACHE), self.session.environment()];
            self.must("installing the packages", self.uv(args, mounts, "installing the packages", true)).await?;
        }
        if !rest.is_empty() {
            let names: Vec<&str> = rest.iter().map(|package| package.name.as_str()).collect();
            self.session.workshop.audience.line(&format!("Building {} from source…", names.join(", ")));
            let lines: String = rest.iter().map(|package| plain_line(package, plan)).collect();
            let input = self.session.input("sources", &lines)?;
            let mut args = owned(&["pip", "install", "--no-deps"]);
            self.add_common(&mut args, &input);
            let mut mounts = self.session.private_cache();
            mounts.push(self.session.environment());
            self.must("building packages from source", self.uv(args, mounts, "building packages from source", true))
                .await?;
        }
        Ok(())
    }

    fn add_common(&self, args: &mut Vec<String>, input: &str) {
        args.extend(["--python".to_owned(), self.session.venv_python().display().to_string()]);
        args.extend(self.session.uv_index_args());
        args.extend(["--requirements".to_owned(), format!("{IN}/{input}")]);
    }

    fn uv(&self, args: Vec<String>, mounts: Vec<Mount>, purpose: &'static str, shown: bool) -> Command {
        let env = self.session.uv_env();
        Command {
            program: UV.into(),
            args,
            env,
            mounts,
            network: Network::Gateway,
            stdout: Stdout::Talk,
            shown,
            purpose,
        }
    }

    /// Makes the environment and installs everything with the pip that the interpreter brings.
    pub(super) async fn with_pip(&self, plan: &Plan) -> Result<(), Fault> {
        let mut mounts = self.session.private_cache();
        mounts.push(self.session.environment());
        let pip = |program: PathBuf, args: Vec<String>, purpose: &'static str| {
            let mut env = self.session.settings.pip_variables();
            let fixed = [
                ("PIP_CACHE_DIR", CACHE),
                ("PIP_CONFIG_FILE", "/dev/null"),
                ("PIP_NO_INPUT", "1"),
                ("PIP_DISABLE_PIP_VERSION_CHECK", "1"),
                ("PIP_PROGRESS_BAR", "off"),
            ];
            env.extend(fixed.map(|(name, value)| (name.to_owned(), value.to_owned())));
            Command {
                program,
                args,
                env,
                mounts: mounts.clone(),
                network: Network::Gateway,
                stdout: Stdout::Talk,
                shown: true,
                purpose,
            }
        };
        let mut args = owned(&["-I", "-m", "venv"]);
        args.push(self.session.venv.display().to_string());
        let made = pip(self.session.python.executable.clone(), args, "making the environment");
        self.must("making the environment with Python's own venv (uv can't be had; on Debian, python3-venv must be installed)", made).await?;
        let lines: String = plan.requirements().map(|requirement| format!("{}\n", requirement.text)).collect();
        let input = self.session.input("requirements", &lines)?;
        let install = pip(
            self.session.venv_python(),
            owned(&["-m", "pip", "install", "--no-compile", "-r", &format!("{IN}/{input}")]),
            "installing the packages",
        );
        self.must("installing the packages", install).await.map(drop)
    }

    /// Compiles all modules: where the environment is used it can't be written to. Without a network: foreign code may
    /// run by now.
    pub(super) async fn compile(&self) -> Result<(), Fault> {
        let mut args = owned(&["-I", "-c", COMPILE]);
        args.push(self.session.venv.join("lib").display().to_string());
        let command = Command {
            program: self.session.venv_python(),
            args,
            env: Vec::new(),
            mounts: vec![self.session.environment()],
            network: Network::Isolated,
            stdout: Stdout::Nothing,
            shown: false,
            purpose: "compiling the modules",
        };
        self.session.workshop.audience.line("Compiling the modules…");
        self.must("compiling the modules", command).await.map(drop)
    }

    /// Imports the server as an instance will, and gives the installed packages.
    pub(super) async fn verify(&self) -> Result<Vec<String>, Fault> {
        let command = Command {
            program: self.session.venv_python(),
            args: owned(&["-c", VERIFY]),
            env: Vec::new(),
            mounts: vec![self.session.finished_environment()],
            network: Network::Isolated,
            stdout: Stdout::Answer,
            shown: false,
            purpose: "trying the scoring server",
        };
        let outcome = self.session.workshop.run(command).await?;
        if !outcome.succeeded() {
            return Err(failure::invalid(format!(
                "The environment was installed, but the scoring server azureml-inference-server-http can't be imported in it. Choose versions \
                 that fit together: the server's own needs are among the lines in the log. {}",
                outcome.last_words()
            )));
        }
        let packages: Vec<String> = serde_json::from_slice(&outcome.answer).unwrap_or_default();
        Ok(packages.into_iter().take(MAX_PACKAGES).collect())
    }

    /// Runs a command that the build can't do without.
    async fn must(&self, what: &str, command: Command) -> Result<Outcome, Fault> {
        let outcome = self.session.workshop.run(command).await?;
        if outcome.succeeded() {
            return Ok(outcome);
        }
        Err(failure::invalid(format!(
            "The environment could not be built: {what} failed. Correct what the lines below name (in the conda file, or on this machine) and create \
             the deployment again. {}",
            outcome.last_words()
        )))
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn hashed_line(package: &Locked) -> String {
    let hashes: String = package.wheels.iter().map(|hash| format!(" --hash=sha256:{hash}")).collect();
    format!("{}=={}{hashes}\n", package.name, package.version.as_deref().unwrap_or_default())
}

/// A package without a wheel: by its version, or as the conda file gives its address.
fn plain_line(package: &Locked, plan: &Plan) -> String {
    let asked = || {
        plan.pip.iter().find(|requirement| requirement.name == package.name).map(|requirement| requirement.text.clone())
    };
    match &package.version {
        Some(version) if !package.direct => format!("{}=={version}\n", package.name),
        _ => format!("{}\n", asked().unwrap_or_else(|| package.name.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::EnvironmentRequest;

    #[test]
    fn lines_for_the_installer() {
        let package = |name: &str, version: Option<&str>, direct| Locked {
            name: name.to_owned(),
            version: version.map(ToOwned::to_owned),
            wheels: vec!["aa".to_owned(), "bb".to_owned()],
            direct,
            ..Locked::default()
        };
        assert_eq!(
            hashed_line(&package("six", Some("1.16.0"), false)),
            "six==1.16.0 --hash=sha256:aa --hash=sha256:bb\n"
        );
        let conda_file = "dependencies: [{pip: ['Own_Pkg @ https://files.example/own.whl']}]".to_owned();
        let plan =
            Plan::new(&EnvironmentRequest { conda_file: Some(conda_file), ..EnvironmentRequest::default() }).unwrap();
        assert_eq!(plain_line(&package("six", Some("1.16.0"), false), &plan), "six==1.16.0\n");
        assert_eq!(
            plain_line(&package("own-pkg", Some("1.0"), true), &plan),
            "Own_Pkg @ https://files.example/own.whl\n"
        );
    }
}
