//! Finds the Python interpreter that an environment is built on.
//!
//! Looks where interpreters usually are and asks each candidate what it is; installs nothing itself.

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Mutex,
    time::Duration,
};

use casemate_model::Fault;
use serde::Deserialize;
use tokio::{io::AsyncReadExt, process::Command};

use super::{
    failure,
    host::{HostVariables, is_executable},
    version::{Specifier, release_of},
};

/// Longest time that an interpreter may take to say what it is.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);
/// Most that is read of what it says, in bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 10;
/// The minor versions that are looked for: from the oldest that the scoring server ever ran on.
const MINORS: std::ops::RangeInclusive<u8> = 6..=40;
/// Directories that every sandbox has.
const ALWAYS_THERE: [&str; 5] = ["/usr", "/bin", "/sbin", "/lib", "/lib64"];

const PROBE: &str = r#"
import json, os, sys, sysconfig
base = getattr(sys, "_base_executable", None) or sys.executable
paths = [sys.base_prefix, sys.base_exec_prefix, sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
if sysconfig.get_config_var("Py_ENABLE_SHARED"):
    paths.append(sysconfig.get_config_var("LIBDIR"))
json.dump({
    "implementation": sys.implementation.name,
    "version": list(sys.version_info[:3]),
    "executable": os.path.realpath(base),
    "paths": [os.path.realpath(p) for p in paths if p],
}, sys.stdout)
"#;

/// What to do when the host has no interpreter of the minor version that a conda file asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PythonPolicy {
    /// Fail, naming the ways out.
    #[default]
    Exact,
    /// Take the nearest minor version, with a warning.
    Nearest,
}

/// A CPython interpreter of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interpreter {
    /// The real file, with all links resolved.
    pub executable: PathBuf,
    pub version: [u64; 3],
    /// Directories that it needs and that a sandbox doesn't have by itself.
    pub roots: Vec<PathBuf>,
    /// Changes when the interpreter is replaced.
    pub stamp: String,
}

impl Interpreter {
    /// `3.12.1`
    pub(super) fn full_version(&self) -> String {
        let [major, minor, patch] = self.version;
        format!("{major}.{minor}.{patch}")
    }
}

/// How a request for a Python version can be met.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// As asked.
    Fits(Interpreter),
    /// The minor version is right and the patch is not: the same language, with other fixes.
    OtherPatch(Interpreter),
    /// None of that minor version; these are there, newest first.
    Missing(Vec<Interpreter>),
}

/// The interpreters of the host. What each said of itself is remembered as long as its file doesn't change.
pub(super) struct Interpreters {
    host: HostVariables,
    /// Where the platform's own installer puts interpreters.
    managed: PathBuf,
    known: Mutex<HashMap<PathBuf, (String, Option<Interpreter>)>>,
}

#[derive(Deserialize)]
struct Answer {
    implementation: String,
    version: [u64; 3],
    executable: PathBuf,
    paths: Vec<PathBuf>,
}

impl Interpreters {
    pub(super) fn new(host: HostVariables, managed: PathBuf) -> Self {
        Self { host, managed, known: Mutex::default() }
    }

    /// The interpreter that the host's user gets by typing `python3`.
    pub(super) async fn default(&self) -> Option<Interpreter> {
        for dir in self.host.search_path() {
            if let Some(found) = self.probe(&dir.join("python3")).await {
                return Some(found);
            }
        }
        self.newest_first().await.into_iter().next()
    }

    /// The best interpreter for the conditions of a conda file.
    pub(super) async fn choose(&self, wanted: &Specifier) -> Choice {
        if let Some(minor) = pinned_minor(wanted) {
            // Asking only those that are named so is quick, and mostly enough.
            let name = format!("python{minor}");
            let named = self.newest_of(|file| file.file_name().is_some_and(|file| *file == *name)).await;
            if let Some(fitting) = named.into_iter().find(|found| wanted.admits(&found.version)) {
                return Choice::Fits(fitting);
            }
        }
        if let Some(default) = self.default().await.filter(|default| wanted.admits(&default.version)) {
            return Choice::Fits(default);
        }
        let all = self.newest_first().await;
        if let Some(fitting) = all.iter().find(|found| wanted.admits(&found.version)) {
            return Choice::Fits(fitting.clone());
        }
        let minors: Vec<[u64; 2]> = wanted
            .0
            .iter()
            .filter(|clause| Specifier(vec![(*clause).clone()]).is_pin())
            .filter_map(|clause| minor_of(&clause.version))
            .collect();
        match all.iter().find(|found| minors.contains(&[found.version[0], found.version[1]])) {
            Some(other_patch) if minors.len() == 1 => Choice::OtherPatch(other_patch.clone()),
            _ => Choice::Missing(all),
        }
    }

    /// All CPython 3 interpreters that can be found, the newest first.
    pub(super) async fn newest_first(&self) -> Vec<Interpreter> {
        self.newest_of(|_| true).await
    }

    async fn newest_of(&self, of_interest: impl Fn(&Path) -> bool) -> Vec<Interpreter> {
        let mut found: Vec<Interpreter> = Vec::new();
        for candidate in self.candidates().into_iter().filter(|file| of_interest(file)) {
            found.extend(self.probe(&candidate).await.filter(|python| !is_listed(&found, python)));
        }
        // A stable sort: among equals, the one found first (on PATH) stays first.
        found.sort_by_key(|python| std::cmp::Reverse(python.version));
        found
    }

    /// Files named `python3.N` on PATH, below pyenv's and uv's directories and our own.
    fn candidates(&self) -> Vec<PathBuf> {
        let mut dirs = self.host.search_path();
        let home = self.host.home();
        let data =
            self.host.get("XDG_DATA_HOME").map(PathBuf::from).or_else(|| Some(home.as_ref()?.join(".local/share")));
        let uv = self.host.get("UV_PYTHON_INSTALL_DIR").map(PathBuf::from).or_else(|| Some(data?.join("uv/python")));
        let holders = [self.pyenv_root().map(|root| root.join("versions")), uv, Some(self.managed.clone())];
        for holder in holders.into_iter().flatten() {
            dirs.extend(entries(&holder).into_iter().map(|version| version.join("bin")));
        }
        dirs.extend(["/usr/local/bin", "/usr/bin"].map(PathBuf::from));
        let mut files: Vec<PathBuf> = Vec::new();
        for file in dirs.iter().flat_map(|dir| MINORS.map(move |minor| dir.join(format!("python3.{minor}")))) {
            // pyenv's shims are scripts that work only for versions switched on; the real ones are found below its root.
            if is_executable(&file) && !is_script(&file) && !files.contains(&file) {
                files.push(file);
            }
        }
        files
    }

    fn pyenv_root(&self) -> Option<PathBuf> {
        self.host.get("PYENV_ROOT").map(PathBuf::from).or_else(|| Some(self.host.home()?.join(".pyenv")))
    }

    /// Asks a file what it is; none when it isn't a working CPython 3.
    async fn probe(&self, file: &Path) -> Option<Interpreter> {
        let mut stamp = stamp_of(file)?;
        if is_script(file) {
            // pyenv's shims answer by the version that is switched on, which stands in this file.
            let switch = self.pyenv_root().and_then(|root| stamp_of(&root.join("version")));
            stamp = format!("{stamp} {}", switch.unwrap_or_default());
        }
        let known = lock(&self.known).get(file).filter(|(known, _)| *known == stamp).map(|(_, found)| found.clone());
        let still_so = |found: &Interpreter| stamp_of(&found.executable).as_ref() == Some(&found.stamp);
        if let Some(known) = known.filter(|found| found.as_ref().is_none_or(still_so)) {
            return known;
        }
        let answer = tokio::time::timeout(PROBE_TIMEOUT, self.ask(file)).await.ok().flatten();
        let found = answer.and_then(interpret);
        lock(&self.known).insert(file.to_owned(), (stamp, found.clone()));
        found
    }

    async fn ask(&self, file: &Path) -> Option<Answer> {
        let mut command = Command::new(file);
        command.args(["-I", "-S", "-c", PROBE]).current_dir("/").env_clear();
        for name in ["PATH", "HOME", "PYENV_ROOT", "PYENV_VERSION"] {
            command.envs(self.host.get(name).map(|value| (name, value)));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().ok()?;
        let mut text = Vec::new();
        child.stdout.take()?.take(MAX_ANSWER_BYTES).read_to_end(&mut text).await.ok()?;
        let status = child.wait().await.ok()?;
        if status.success() { serde_json::from_slice(&text).ok() } else { None }
    }
}

fn interpret(answer: Answer) -> Option<Interpreter> {
    if answer.implementation != "cpython" || answer.version[0] != 3 {
        return None;
    }
    let stamp = stamp_of(&answer.executable)?;
    let bin = answer.executable.parent()?.to_owned();
    let mut roots: Vec<PathBuf> = Vec::new();
    for path in answer.paths.into_iter().chain([bin]) {
        let there = ALWAYS_THERE.iter().any(|dir| path.starts_with(dir));
        if !there && path.is_dir() && !roots.iter().any(|root| path.starts_with(root)) {
            roots.retain(|root| !root.starts_with(&path));
            roots.push(path);
        }
    }
    Some(Interpreter { executable: answer.executable, version: answer.version, roots, stamp })
}

fn is_listed(found: &[Interpreter], python: &Interpreter) -> bool {
    found.iter().any(|known| known.executable == python.executable)
}

/// Major and minor of a version that gives both.
fn minor_of(version: &str) -> Option<[u64; 2]> {
    release_of(version).first_chunk::<2>().copied()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn is_script(file: &Path) -> bool {
    use std::io::Read;
    let mut start = [0; 2];
    std::fs::File::open(file).and_then(|mut opened| opened.read_exact(&mut start)).is_ok() && start == *b"#!"
}

fn stamp_of(file: &Path) -> Option<String> {
    let data = std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file)?;
    Some(format!("{}-{}-{}.{}", data.ino(), data.size(), data.mtime(), data.mtime_nsec()))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The minor version that the conditions fix, such as `3.12`: what can be asked of uv.
pub(super) fn pinned_minor(wanted: &Specifier) -> Option<String> {
    let pin = wanted.0.iter().find(|clause| Specifier(vec![(*clause).clone()]).is_pin())?;
    minor_of(&pin.version).map(|[major, minor]| format!("{major}.{minor}"))
}

/// That no interpreter fits, with the ways out.
pub(super) fn missing(written: &str, there: &[Interpreter], fetch_failure: Option<&str>) -> Fault {
    let mut versions: Vec<String> = there.iter().map(Interpreter::full_version).collect();
    versions.dedup();
    let versions =
        if versions.is_empty() { "no Python 3 at all".to_owned() } else { format!("Python {}", versions.join(", ")) };
    let fetched = fetch_failure.map(|reason| format!(" uv could not fetch it either: {reason}.")).unwrap_or_default();
    failure::invalid(format!(
        "The environment could not be built: the conda file asks for {written}, and this machine has {versions}.{fetched} The ways out: install \
         that Python here (with the system's packages, pyenv or uv), name one of the above in the conda file, or start the platform with \
         --environment-python nearest to take the nearest one."
    ))
    .at("condaFile")
}

/// Of the interpreters there are, the one whose minor version is nearest to what is wanted; the newer of two equals.
pub(super) fn nearest(wanted: &Specifier, there: &[Interpreter]) -> Option<Interpreter> {
    let anchors: Vec<u64> = wanted
        .0
        .iter()
        .filter_map(|clause| minor_of(&clause.version))
        .filter(|minor| minor[0] == 3)
        .map(|minor| minor[1])
        .collect();
    let anchor = anchors.iter().copied().max()?;
    there.iter().min_by_key(|python| (python.version[1].abs_diff(anchor), std::cmp::Reverse(python.version))).cloned()
}

#[cfg(test)]
mod tests {
    use super::{super::match_spec::MatchSpec, *};

    fn python(version: [u64; 3]) -> Interpreter {
        let executable = PathBuf::from(format!("/opt/{}.{}.{}", version[0], version[1], version[2]));
        Interpreter { executable, version, roots: Vec::new(), stamp: String::new() }
    }

    fn wanted(text: &str) -> Specifier {
        MatchSpec::parse(text).unwrap().specifier().unwrap()
    }

    #[test]
    fn the_nearest_minor() {
        let there = [python([3, 13, 0]), python([3, 11, 7]), python([3, 11, 2]), python([3, 9, 18])];
        for (text, expected) in [
            ("python=3.12", [3, 13, 0]),
            ("python=3.10", [3, 11, 7]),
            ("python=3.7", [3, 9, 18]),
            ("python=3.20.1", [3, 13, 0]),
            ("python>=3.5,<3.9", [3, 9, 18]),
        ] {
            assert_eq!(nearest(&wanted(text), &there).map(|found| found.version), Some(expected), "{text}");
        }
        assert_eq!(nearest(&wanted("python=3.12"), &[]), None);
        assert_eq!(nearest(&wanted("python"), &there), None);
    }

    /// A directory that looks like an interpreter's, whose `python3.N` says it is `version`.
    fn plant(root: &Path, dir: &str, version: [u64; 3]) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let real = PathBuf::from("/usr/bin/python3").canonicalize().unwrap();
        let bin = root.join(dir);
        std::fs::create_dir_all(&bin).unwrap();
        let file = bin.join(format!("python{}.{}", version[0], version[1]));
        let [major, minor, patch] = version;
        let script = format!(
            "#!{}\nimport json,os\nprint(json.dumps(dict(implementation='cpython',version=[{major},{minor},{patch}],executable=os.path.realpath(__file__),paths=[os.path.dirname(os.path.dirname(os.path.realpath(__file__)))])))\n",
            real.display()
        );
        std::fs::write(&file, script).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    #[tokio::test]
    async fn a_real_interpreter_is_found_with_what_it_needs() {
        let found = Interpreters::new(HostVariables::of_this_process(), PathBuf::from("/nonexistent"));
        let default = found.default().await.expect("the tests need python3 on PATH");
        assert_eq!(default.version[0], 3);
        assert!(default.executable.is_absolute() && !is_script(&default.executable));
        assert!(default.roots.iter().all(|root| !root.starts_with("/usr") && root.is_dir()));
        assert_eq!(found.choose(&Specifier::default()).await, Choice::Fits(default.clone()));

        let exact = wanted(&format!("python=={}", default.full_version()));
        assert_eq!(found.choose(&exact).await, Choice::Fits(default.clone()));
        let other_patch = wanted(&format!("python=3.{}.999", default.version[1]));
        assert!(
            matches!(found.choose(&other_patch).await, Choice::OtherPatch(python) if python.version[1] == default.version[1])
        );
        let Choice::Missing(there) = found.choose(&wanted("python=3.99")).await else { panic!("3.99 can't be here") };
        assert!(there.iter().any(|python| python.executable == default.executable));
    }

    #[tokio::test]
    async fn what_does_not_work_is_no_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let broken = dir.path().join("python3");
        std::fs::write(&broken, "#!/bin/sh\nexit 1\n").unwrap();
        let hosts =
            [("PATH".to_owned(), dir.path().display().to_string()), ("HOME".to_owned(), "/nonexistent".to_owned())];
        let found = Interpreters::new(hosts.into_iter().collect(), PathBuf::from("/nonexistent"));
        assert_eq!(found.probe(&broken).await, None, "it is not executable");
        assert_eq!(found.probe(dir.path()).await, None);
        assert_eq!(found.probe(Path::new("/bin/true")).await, None);
        let planted = plant(dir.path(), "other", [2, 7, 18]);
        assert_eq!(found.probe(&planted).await, None, "Python 2 is not offered");
        let planted = plant(dir.path(), "bin", [3, 38, 1]);
        let python = found.probe(&planted).await.unwrap();
        assert_eq!((python.version, python.roots), ([3, 38, 1], vec![dir.path().canonicalize().unwrap()]));
    }
}
