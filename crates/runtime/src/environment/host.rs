//! The variables of the platform's own process, taken once, so that everything here depends on a value and not on
//! the moment of asking.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The variables that this module looks at: `PATH`, `HOME`, `PIP_*`, proxies, certificates, pyenv's and uv's places.
#[derive(Clone, Default)]
pub struct HostVariables(BTreeMap<String, String>);

impl HostVariables {
    /// The variables of this process. Those that are not UTF-8 are left out.
    #[must_use]
    pub fn of_this_process() -> Self {
        let pairs =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self(pairs.collect())
    }

    /// The value of a variable, unless it is unset or empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The user's home directory.
    pub(super) fn home(&self) -> Option<PathBuf> {
        self.get("HOME").map(PathBuf::from).filter(|home| home.is_absolute())
    }

    /// `~/x` made absolute; other paths as they are.
    pub(super) fn expand(&self, path: &str) -> PathBuf {
        match (path.strip_prefix("~/"), self.home()) {
            (Some(rest), Some(home)) => home.join(rest),
            _ => PathBuf::from(path),
        }
    }

    /// The absolute directories on `PATH`, in order.
    pub(super) fn search_path(&self) -> Vec<PathBuf> {
        let path = self.get("PATH").unwrap_or("/usr/local/bin:/usr/bin:/bin");
        std::env::split_paths(path).filter(|dir| dir.is_absolute()).collect()
    }
}

impl FromIterator<(String, String)> for HostVariables {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl std::fmt::Debug for HostVariables {
    /// Names only: values may hold credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Whether a file exists that someone may execute.
pub(super) fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}
