//! Python environments for deployments: from a conda file to a directory that a sandbox can mount read-only.
//!
//! An environment is built once for its content, in the sandbox, from the Python package index; everyone who asks for
//! the same gets the same directory. What conda has under another name is translated, and what the index doesn't have
//! is refused by name: nothing is left out silently. This module never runs a package's code outside a sandbox and
//! never builds container images.

mod audience;
mod build;
mod conda_file;
mod default_index;
mod destinations;
mod failure;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod host;
mod index_files;
mod index_settings;
mod install;
mod lock;
mod mapping;
mod mask;
mod match_spec;
mod pip_line;
mod plan;
mod python;
mod resolve;
mod session;
mod shelf;
mod simple_index;
mod site;
mod stand_in;
mod toolbox;
mod version;
mod workshop;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest;
use casemate_egress::Gateway;
use casemate_model::Fault;
use casemate_sandbox::Launcher;
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::logs::LogWriter;
use audience::Audience;
pub use host::HostVariables;
use index_settings::IndexSettings;
use plan::Plan;
pub use python::PythonPolicy;
use python::{Choice, Interpreter, Interpreters};
use shelf::{Manifest, Shelf};
use toolbox::Toolbox;

/// Longest time for one build.
pub const BUILD_TIMEOUT: Duration = Duration::from_secs(20 * 60);
/// Builds that run at the same time; others wait.
pub const MAX_BUILDS: usize = 2;
/// Counts changes of the rules by which environments are built; an environment built by older rules is built anew.
const BUILDER_VERSION: u32 = 1;

/// What an environment is asked to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnvironmentRequest {
    /// The conda file's text (YAML or JSON); without one, a default environment is made.
    pub conda_file: Option<String>,
    /// A container image. Advisory: the platform has no container runtime.
    pub image: Option<String>,
    /// Whether a docker build context is asked for, which is refused.
    pub build: bool,
}

/// An environment that is ready to be mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedEnvironment {
    /// Identifies its content.
    pub digest: String,
    /// The interpreter; the same path inside and outside of a sandbox.
    pub python: PathBuf,
    /// Directories to be mounted read-only, each at its own path.
    pub mounts: Vec<PathBuf>,
    /// What the user should know, as sentences.
    pub warnings: Vec<String>,
}

/// Builds environments and remembers them on disk. Clones share everything.
#[derive(Clone)]
pub struct EnvironmentBuilder(Arc<Inner>);

struct Inner {
    state_dir: PathBuf,
    shelf: Shelf,
    launcher: Arc<Launcher>,
    gateway: Gateway,
    policy: PythonPolicy,
    host: HostVariables,
    pythons: Interpreters,
    toolbox: Toolbox,
    builds: Mutex<HashMap<String, Arc<Build>>>,
    places: Semaphore,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

/// A build that is under way.
struct Build {
    audience: Arc<Audience>,
    result: watch::Receiver<Option<Result<Manifest, Fault>>>,
}

/// What one build needs to know.
struct Order {
    digest: String,
    plan: Plan,
    python: Interpreter,
    /// What this machine's operator has configured.
    operator: IndexSettings,
    /// The same with the conda file's own options over it.
    settings: IndexSettings,
    /// The workspace whose log gets what the gateway decides.
    scope: String,
}

impl EnvironmentBuilder {
    /// A builder that keeps environments in `state_dir` and looks for pythons, tools and pip's configuration by the
    /// variables of this process. What interrupted builds left in `state_dir` is removed.
    #[must_use]
    pub fn new(state_dir: &Path, launcher: Arc<Launcher>, gateway: Gateway, policy: PythonPolicy) -> Self {
        Self::with_variables(state_dir, launcher, gateway, policy, HostVariables::of_this_process())
    }

    /// As [`Self::new`], with other variables than this process has.
    #[must_use]
    pub fn with_variables(
        state_dir: &Path,
        launcher: Arc<Launcher>,
        gateway: Gateway,
        policy: PythonPolicy,
        host: HostVariables,
    ) -> Self {
        let toolbox = Toolbox::new(host.clone(), state_dir.join("tools"));
        let builder = Self(Arc::new(Inner {
            state_dir: state_dir.to_owned(),
            shelf: Shelf::new(state_dir.join("environments")),
            launcher,
            gateway,
            policy,
            pythons: Interpreters::new(host.clone(), toolbox.pythons()),
            toolbox,
            host,
            builds: Mutex::default(),
            places: Semaphore::new(MAX_BUILDS),
            tasks: TaskTracker::new(),
            cancel: CancellationToken::new(),
        }));
        match builder.0.shelf.sweep() {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "unfinished environments of an earlier run are removed"),
            Err(error) => tracing::warn!(%error, "unfinished environments of an earlier run can't be removed"),
        }
        builder
    }

    /// Makes sure that the environment exists, building it if need be, and says each step in `log`. What the build
    /// reaches over the network is recorded for `scope`, a workspace's resource id.
    ///
    /// Whoever asks for an environment that is being built waits for that build. A build goes on when nobody waits any
    /// more, since the next one to ask will need it; it ends with [`Self::shutdown`].
    ///
    /// # Errors
    /// `ImageBuildFailure`: the conda file is wrong, the machine has no fitting Python, or the installer failed; the
    /// message has its own last words and the ways out.
    pub async fn prepare(
        &self,
        scope: &str,
        request: EnvironmentRequest,
        log: &LogWriter,
    ) -> Result<PreparedEnvironment, Fault> {
        let mut plan = Plan::new(&request)?;
        let operator = IndexSettings::of_host(&self.0.host);
        let settings = operator.clone().with_file(&plan.options);
        let audience = Audience::new(settings.mask());
        audience.join(log);
        for sentence in plan.warnings.iter().chain(&plan.notes).chain(&settings.notes) {
            audience.line(sentence);
        }
        let mut warnings = std::mem::take(&mut plan.warnings);
        let python = self.python_for(&plan, &settings, &audience, &mut warnings).await?;
        let digest = digest_of(&plan, &python);
        if let Some(manifest) = self.0.shelf.find(&digest) {
            audience.line(&format!("The environment is ready (built earlier, {} packages).", manifest.packages.len()));
            return Ok(self.prepared(manifest, &python, warnings));
        }
        let order = Order { digest, plan, python: python.clone(), operator, settings, scope: scope.to_owned() };
        let build = self.join_or_start(order, audience, log);
        let mut result = build.result.clone();
        let done = result.wait_for(Option::is_some).await.map_err(|_| stopped())?.clone();
        let manifest = done.ok_or_else(stopped)??;
        Ok(self.prepared(manifest, &python, warnings))
    }

    /// Ends all builds and waits until nothing of them runs.
    pub async fn shutdown(&self) {
        self.0.cancel.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn prepared(&self, manifest: Manifest, python: &Interpreter, mut warnings: Vec<String>) -> PreparedEnvironment {
        let venv = self.0.shelf.venv(&manifest.digest);
        warnings.extend(manifest.warnings);
        let mounts = std::iter::once(venv.clone()).chain(python.roots.iter().cloned()).collect();
        PreparedEnvironment { digest: manifest.digest, python: venv.join("bin/python"), mounts, warnings }
    }

    /// Joins the build of this digest, or starts it. The log gets what was said by the build so far.
    fn join_or_start(&self, order: Order, audience: Audience, log: &LogWriter) -> Arc<Build> {
        let mut builds = self.builds();
        if let Some(build) = builds.get(&order.digest) {
            log.line("The environment is being built for another deployment; waiting for it.");
            build.audience.join(log);
            return Arc::clone(build);
        }
        let (tell, result) = watch::channel(None);
        let audience = Arc::new(audience);
        let build = Arc::new(Build { audience: Arc::clone(&audience), result });
        builds.insert(order.digest.clone(), Arc::clone(&build));
        let builder = self.clone();
        self.0.tasks.spawn(async move {
            let digest = order.digest.clone();
            let result = builder.build_in_turn(order, audience).await;
            builder.builds().remove(&digest);
            tell.send_replace(Some(result));
        });
        build
    }

    async fn build_in_turn(&self, order: Order, audience: Arc<Audience>) -> Result<Manifest, Fault> {
        let place = match self.0.places.try_acquire() {
            Ok(place) => place,
            Err(_) => {
                audience.line(&format!("Waiting, since {MAX_BUILDS} environments are being built already…"));
                let free = self.0.cancel.run_until_cancelled(self.0.places.acquire()).await;
                free.and_then(Result::ok).ok_or_else(stopped)?
            }
        };
        // It may have been finished by a build that ended while this one waited.
        let result = match self.0.shelf.find(&order.digest) {
            Some(manifest) => Ok(manifest),
            None => self.0.build(order, audience).await,
        };
        drop(place);
        result
    }

    fn builds(&self) -> MutexGuard<'_, HashMap<String, Arc<Build>>> {
        // The map is changed in single steps, so a panic elsewhere leaves it whole.
        self.0.builds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the interpreter, and says what had to be decided.
    async fn python_for(
        &self,
        plan: &Plan,
        settings: &IndexSettings,
        audience: &Audience,
        warnings: &mut Vec<String>,
    ) -> Result<Interpreter, Fault> {
        let Some((wanted, written)) = &plan.python else {
            let python = self.0.pythons.default().await.ok_or_else(no_python)?;
            audience.line(&format!(
                "Python {} of this machine is used ({}).",
                python.full_version(),
                python.executable.display()
            ));
            return Ok(python);
        };
        let mut choice = self.0.pythons.choose(wanted).await;
        let mut fetch_failure = None;
        if let (Choice::Missing(_), Some(minor)) = (&choice, python::pinned_minor(wanted)) {
            let fetched = match self.0.toolbox.uv(settings, &self.0.pythons, audience).await {
                Ok(uv) => self.0.toolbox.install_python(&uv, &minor, settings, audience).await,
                Err(reason) => Err(format!("uv can't be had: {reason}")),
            };
            match fetched {
                Ok(()) => choice = self.0.pythons.choose(wanted).await,
                Err(reason) => fetch_failure = Some(reason),
            }
        }
        let (python, warning) = match choice {
            Choice::Fits(python) => (python, None),
            Choice::OtherPatch(python) => {
                let warning = format!(
                    "The conda file asks for {written}; this machine has Python {} of that minor version, which is used.",
                    python.full_version()
                );
                (python, Some(warning))
            }
            Choice::Missing(there) => {
                match python::nearest(wanted, &there).filter(|_| self.0.policy == PythonPolicy::Nearest) {
                    Some(python) => {
                        let warning = format!(
                            "WARNING: the conda file asks for {written}, which this machine does not have. The nearest, Python {}, is used instead \
                         (--environment-python nearest): packages and models made for another Python may fail.",
                            python.full_version()
                        );
                        (python, Some(warning))
                    }
                    None => return Err(python::missing(written, &there, fetch_failure.as_deref())),
                }
            }
        };
        audience.line(&format!(
            "{written}: Python {} of this machine is used ({}).",
            python.full_version(),
            python.executable.display()
        ));
        if let Some(warning) = warning {
            audience.line(&warning);
            warnings.push(warning);
        }
        Ok(python)
    }
}

fn digest_of(plan: &Plan, python: &Interpreter) -> String {
    let text = format!(
        "builder {BUILDER_VERSION}\n{} {} {}\n{}",
        python.executable.display(),
        python.full_version(),
        python.stamp,
        plan.normalized()
    );
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn no_python() -> Fault {
    failure::unavailable(
        "The environment could not be built: this machine has no Python 3 on PATH. Install one (Debian: apt install python3) and create the \
         deployment again.",
    )
}

fn stopped() -> Fault {
    failure::unavailable("The environment was not built to its end, because the platform stopped.")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// What a conda file holds comes from outside: whatever it is, there is an answer.
        #[test]
        fn no_text_makes_a_reader_panic(
            text in "([a-z0-9=<>!~*|,.:;@#'\"\\[\\] /é\u{3000}-]|\\PC|\\s){0,30}",
            sign in prop::sample::select(vec!["", "-i", "--index-url", "numpy=", "numpy[", "x @ https://", "dependencies: ", "- "]),
        ) {
            let line = format!("{sign}{text}");
            if let Ok(spec) = match_spec::MatchSpec::parse(&line) {
                let _ = spec.specifier().map(|specifier| (specifier.admits(&[3, 12, 1]), specifier.to_string()));
            }
            let _ = pip_line::PipLine::parse(&line);
            let _ = mask::mask_urls(&line);
            let quoted = serde_json::to_string(&line).unwrap();
            for file in [line, format!("dependencies: [{quoted}, {{pip: [{quoted}]}}]")] {
                let _ = Plan::new(&EnvironmentRequest { conda_file: Some(file), ..EnvironmentRequest::default() });
            }
        }
    }
}
