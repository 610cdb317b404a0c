//! What all commands of one build share: the interpreter, the way to the index, and what the sandboxes see.

use std::path::{Path, PathBuf};

use casemate_model::Fault;
use casemate_sandbox::Mount;

use super::{
    failure,
    index_settings::IndexSettings,
    python::Interpreter,
    shelf::Draft,
    toolbox::Uv,
    workshop::{Workshop, read_only, writable},
};

/// Where the sandbox sees what the platform hands in.
pub(super) const IN: &str = "/build/in";
/// Where the sandbox puts results.
pub(super) const OUT: &str = "/build/out";
/// Where the sandbox sees the installer.
pub(super) const UV: &str = "/build/uv";
/// Where the sandbox sees a package cache.
pub(super) const CACHE: &str = "/build/cache";
/// The certificates, among what is handed in.
const CERTIFICATES: &str = "certificates.pem";

/// One build.
pub(super) struct Session {
    pub workshop: Workshop,
    pub draft: Draft,
    pub python: Interpreter,
    pub settings: IndexSettings,
    /// Where the environment will be, inside and outside of sandboxes.
    pub venv: PathBuf,
    /// The cache that all builds share. Mounted only while no foreign code runs.
    pub shared_cache: PathBuf,
}

impl Session {
    /// Hands the certificates in, and shows the sandboxes what every command needs.
    ///
    /// # Errors
    /// `ImageBuildFailure` when something can't be read or may not be shown.
    pub(super) fn prepare(&mut self, uv: Option<&Uv>, state_dir: &Path) -> Result<(), Fault> {
        if let Some(file) = &self.settings.certificates {
            std::fs::copy(file, self.draft.inputs.join(CERTIFICATES))
                .map_err(|error| failure::io("reading the certificates to trust", &error))?;
            let inside = format!("{IN}/{CERTIFICATES}");
            for name in ["SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"] {
                self.workshop.env.push((name.to_owned(), inside.clone()));
            }
        }
        let mut mounts = vec![read_only(&self.draft.inputs, IN)];
        mounts.extend(uv.map(|uv| read_only(&uv.program, UV)));
        for dir in self.python.roots.iter().chain(&self.settings.link_dirs) {
            if state_dir.starts_with(dir) {
                return Err(failure::invalid(format!(
                    "The environment could not be built: {} holds the platform's own state and is not shown to packages. Choose a Python (or \
                     find-links directory) elsewhere.",
                    dir.display()
                )));
            }
            if !mounts.iter().any(|mount| mount.target == *dir) {
                mounts.push(read_only(dir, dir));
            }
        }
        self.workshop.mounts = mounts;
        let common = [
            ("PATH", "/usr/local/bin:/usr/bin:/bin"),
            ("LANG", "C.UTF-8"),
            ("HOME", casemate_sandbox::HOME),
            ("NO_COLOR", "1"),
        ];
        self.workshop.env.extend(common.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Ok(())
    }

    /// Hands a text in; its file's name.
    pub(super) fn input(&self, stem: &str, text: &str) -> Result<String, Fault> {
        for number in 1..1000 {
            let name = format!("{stem}-{number}.txt");
            let path = self.draft.inputs.join(&name);
            if !path.exists() {
                std::fs::write(path, text).map_err(|error| failure::io("writing the list of packages", &error))?;
                return Ok(name);
            }
        }
        Err(failure::unavailable("The environment could not be built: it took too many steps."))
    }

    /// The cache of this build alone, for steps that may run foreign code.
    pub(super) fn private_cache(&self) -> Vec<Mount> {
        vec![writable(&self.draft.cache, CACHE)]
    }

    /// The environment being built, at the place where it will be, for writing.
    pub(super) fn environment(&self) -> Mount {
        writable(&self.draft.venv, &self.venv)
    }

    /// The environment being built, as a model will see it.
    pub(super) fn finished_environment(&self) -> Mount {
        read_only(&self.draft.venv, &self.venv)
    }

    /// The environment's interpreter.
    pub(super) fn venv_python(&self) -> PathBuf {
        self.venv.join("bin/python")
    }

    /// Variables for uv.
    pub(super) fn uv_env(&self) -> Vec<(String, String)> {
        let fixed = [
            ("UV_CACHE_DIR", CACHE),
            ("UV_NO_CONFIG", "1"),
            ("UV_NO_PROGRESS", "1"),
            ("UV_PYTHON_DOWNLOADS", "never"),
            ("UV_LINK_MODE", "copy"),
        ];
        let fixed = fixed.map(|(name, value)| (name.to_owned(), value.to_owned()));
        fixed.into_iter().chain(self.settings.uv_variables()).collect()
    }

    /// What uv can only be told by options: directories with packages, and to use nothing else.
    pub(super) fn uv_index_args(&self) -> Vec<String> {
        let dirs =
            self.settings.link_dirs.iter().flat_map(|dir| ["--find-links".to_owned(), dir.display().to_string()]);
        dirs.chain(self.settings.no_index.then(|| "--no-index".to_owned())).collect()
    }
}
