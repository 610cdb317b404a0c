//! The installer itself: finds uv or gets it from the package index, and lets it fetch interpreters.
//!
//! uv and the interpreters that it fetches are trusted like the platform; the packages it installs are not, and are
//! handled elsewhere.

use std::{
    collections::HashMap,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{io::AsyncReadExt, process::Command, sync::Mutex};

use super::{
    audience::Audience,
    host::{HostVariables, is_executable},
    index_settings::IndexSettings,
    python::{Interpreter, Interpreters},
    simple_index,
    version::{compare, release_of},
};

/// The version of uv that is taken from the index: the one that the platform is tested with.
const UV_VERSION: &str = "0.13.9";
/// The oldest uv that knows all the options in use.
const UV_OLDEST: [u64; 2] = [0, 9];
/// The first uv that may understand them differently.
const UV_TOO_NEW: [u64; 1] = [1];
/// Longest time to get uv.
const FETCH_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest time to get an interpreter.
const PYTHON_TIMEOUT: Duration = Duration::from_secs(180);
/// An interpreter that could not be had is not asked for again for this long.
const PYTHON_PAUSE: Duration = Duration::from_secs(3600);
/// Most that is read of what a tool says, in bytes.
const MAX_WORDS_BYTES: u64 = 64 << 10;

/// A uv that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Uv {
    pub program: PathBuf,
    pub version: String,
}

/// The tools of a state directory.
pub(super) struct Toolbox {
    host: HostVariables,
    /// `tools` in the state directory.
    dir: PathBuf,
    uv: Mutex<Option<Uv>>,
    /// Interpreters that could not be had, by minor version.
    missing_pythons: Mutex<HashMap<String, (Instant, String)>>,
}

impl Toolbox {
    pub(super) fn new(host: HostVariables, dir: PathBuf) -> Self {
        Self { host, dir, uv: Mutex::default(), missing_pythons: Mutex::default() }
    }

    /// Where fetched interpreters are put.
    pub(super) fn pythons(&self) -> PathBuf {
        self.dir.join("python")
    }

    /// A working uv: our own, the host's, or one fetched now.
    ///
    /// # Errors
    /// A sentence that says why there is none.
    pub(super) async fn uv(
        &self,
        settings: &IndexSettings,
        pythons: &Interpreters,
        audience: &Audience,
    ) -> Result<Uv, String> {
        let mut known = self.uv.lock().await;
        if let Some(uv) = known.as_ref().filter(|uv| uv.program.is_file()) {
            return Ok(uv.clone());
        }
        let mut found = None;
        for program in self.candidates() {
            if let Some(version) = version_of(&program).await {
                found = Some(Uv { program, version });
                break;
            }
        }
        let uv = match found {
            Some(uv) => uv,
            None => tokio::time::timeout(FETCH_TIMEOUT, self.fetch(settings, pythons, audience))
                .await
                .unwrap_or_else(|_| Err(format!("fetching it took more than {} s", FETCH_TIMEOUT.as_secs())))?,
        };
        audience.line(&format!("The installer is uv {}.", uv.version));
        *known = Some(uv.clone());
        Ok(uv)
    }

    /// Our own, the newest first; then those on PATH and in uv's own places.
    fn candidates(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut own: Vec<(Vec<u64>, PathBuf)> = entries
            .filter_map(|entry| {
                Some((release_of(entry.file_name().to_str()?.strip_prefix("uv-")?), entry.path().join("uv")))
            })
            .collect();
        own.sort_by(|a, b| compare(&b.0, &a.0));
        let home =
            self.host.home().into_iter().flat_map(|home| [home.join(".local/bin/uv"), home.join(".cargo/bin/uv")]);
        let hosts = self.host.search_path().into_iter().map(|dir| dir.join("uv")).chain(home);
        // A link may lead out of what a sandbox gets to see.
        let real = hosts.filter(|file| is_executable(file)).filter_map(|file| file.canonicalize().ok());
        own.into_iter().map(|(_, program)| program).chain(real).collect()
    }

    async fn fetch(&self, settings: &IndexSettings, pythons: &Interpreters, audience: &Audience) -> Result<Uv, String> {
        let failed = |error: std::io::Error| format!("{} can't be written: {error}", self.dir.display());
        audience.line("Fetching the installer uv from the package index…");
        let parent = self.dir.join("fetch.partial");
        let _ = std::fs::remove_dir_all(&parent);
        std::fs::create_dir_all(&parent).map_err(failed)?;
        let default = pythons.default().await;
        let python = default.ok_or("there is no Python 3 on this machine")?;
        let wheel = match self.download_with_pip(&python, &parent, audience).await {
            Ok(wheel) => wheel,
            Err(reason) => {
                audience.line(&format!("pip could not fetch uv ({reason}); asking the package index directly…"));
                let fits = |version: &str| {
                    let release = release_of(version);
                    compare(&release, &UV_OLDEST).is_ge() && compare(&release, &UV_TOO_NEW).is_lt()
                };
                let tested = simple_index::fetch_wheel(settings, "uv", |version| version == UV_VERSION, &parent).await;
                match tested {
                    Ok(wheel) => wheel,
                    Err(_) => simple_index::fetch_wheel(settings, "uv", fits, &parent).await?,
                }
            }
        };
        let uv = self.unpack(&python, &wheel, &parent).await?;
        std::fs::remove_dir_all(&parent).map_err(failed)?;
        Ok(uv)
    }

    /// Lets the pip of the host's Python fetch the wheel, with whatever configuration that pip has.
    async fn download_with_pip(
        &self,
        python: &Interpreter,
        into: &Path,
        audience: &Audience,
    ) -> Result<PathBuf, String> {
        let mut last = String::new();
        for wanted in [format!("uv=={UV_VERSION}"), format!("uv>={}.{},<{}", UV_OLDEST[0], UV_OLDEST[1], UV_TOO_NEW[0])]
        {
            let mut command = self.command(&python.executable);
            command.args([
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--only-binary",
                ":all:",
                "--no-input",
                "--disable-pip-version-check",
            ]);
            command.arg("--dest").arg(into).arg(&wanted);
            let (succeeded, words) = run(command).await?;
            let entries = std::fs::read_dir(into).into_iter().flatten().flatten().map(|entry| entry.path());
            let wheel = entries.filter(|path| path.extension().is_some_and(|end| end == "whl")).max();
            match wheel {
                Some(wheel) if succeeded => return Ok(wheel),
                _ => last = audience.masked(words.lines().last().unwrap_or("it said nothing")),
            }
            if last.contains("No module named pip") {
                break;
            }
        }
        Err(last)
    }

    async fn unpack(&self, python: &Interpreter, wheel: &Path, parent: &Path) -> Result<Uv, String> {
        let unpacked = parent.join("unpacked");
        let mut command = self.command(&python.executable);
        command.args(["-I", "-m", "zipfile", "-e"]).arg(wheel).arg(&unpacked);
        let (succeeded, words) = run(command).await?;
        let failed = |error: std::io::Error| format!("uv can't be unpacked: {error}");
        if !succeeded {
            return Err(format!("uv can't be unpacked: {}", words.lines().last().unwrap_or_default()));
        }
        let inside =
            std::fs::read_dir(&unpacked).map_err(failed)?.flatten().map(|entry| entry.path().join("scripts/uv"));
        let program = inside.into_iter().find(|file| file.is_file()).ok_or("the wheel has no program uv in it")?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
        let version = version_of(&program).await.ok_or("the uv of the package index does not run on this machine")?;
        let home = self.dir.join(format!("uv-{version}"));
        let ready = parent.join("ready");
        std::fs::create_dir_all(&ready).map_err(failed)?;
        std::fs::rename(&program, ready.join("uv")).map_err(failed)?;
        std::fs::File::open(ready.join("uv")).and_then(|file| file.sync_all()).map_err(failed)?;
        let _ = std::fs::remove_dir_all(&home);
        std::fs::rename(&ready, &home).map_err(failed)?;
        Ok(Uv { program: home.join("uv"), version })
    }

    /// Lets uv fetch an interpreter. One that could not be had lately is not tried again.
    ///
    /// # Errors
    /// A sentence that says why it can't be had.
    pub(super) async fn install_python(
        &self,
        uv: &Uv,
        minor: &str,
        settings: &IndexSettings,
        audience: &Audience,
    ) -> Result<(), String> {
        let mut missing = self.missing_pythons.lock().await;
        if let Some((_, reason)) = missing.get(minor).filter(|(at, _)| at.elapsed() < PYTHON_PAUSE) {
            return Err(reason.clone());
        }
        audience.line(&format!(
            "Python {minor} is not on this machine; asking uv to fetch it (at most {} s)…",
            PYTHON_TIMEOUT.as_secs()
        ));
        let mut command = self.command(&uv.program);
        command.args(["python", "install", "--no-config", "--no-progress", "--color", "never", "--no-bin", minor]);
        command.env("UV_PYTHON_INSTALL_DIR", self.pythons()).env("UV_HTTP_RETRIES", "1").env("UV_HTTP_TIMEOUT", "30");
        command.envs(settings.certificates.iter().map(|file| ("SSL_CERT_FILE", file)));
        let ended = tokio::time::timeout(PYTHON_TIMEOUT, run(command)).await;
        let failure = match ended {
            Ok(Ok((true, _))) => return Ok(()),
            Ok(Ok((false, words))) => words,
            Ok(Err(error)) => error,
            Err(_) => format!("it took more than {} s", PYTHON_TIMEOUT.as_secs()),
        };
        failure.lines().for_each(|line| drop(audience.line(line)));
        let reason = failure.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it said nothing");
        let reason = audience.masked(reason);
        missing.insert(minor.to_owned(), (Instant::now(), reason.clone()));
        Err(reason)
    }

    /// A tool of the host with the host's variables: unlike packages, it is trusted.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(self.host.iter()).current_dir("/").kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

/// Runs a tool; whether it succeeded, and what it said on standard error.
async fn run(mut command: Command) -> Result<(bool, String), String> {
    let mut child = command.spawn().map_err(|error| format!("it can't be started: {error}"))?;
    let mut words = Vec::new();
    if let Some(talk) = child.stderr.take() {
        talk.take(MAX_WORDS_BYTES).read_to_end(&mut words).await.map_err(|error| error.to_string())?;
    }
    let status = child.wait().await.map_err(|error| error.to_string())?;
    Ok((status.success(), String::from_utf8_lossy(&words).into_owned()))
}

/// The version of a uv; none when it isn't one, is a script (a shim), or is one whose options differ.
async fn version_of(program: &Path) -> Option<String> {
    use std::io::Read;
    let mut start = [0; 4];
    std::fs::File::open(program).ok()?.read_exact(&mut start).ok()?;
    if start != *b"\x7fELF" {
        return None;
    }
    let mut command = Command::new(program);
    command
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut child = command.spawn().ok()?;
    let mut text = String::new();
    let answer = child.stdout.take()?.take(1024);
    tokio::time::timeout(Duration::from_secs(20), { answer }.read_to_string(&mut text)).await.ok()?.ok()?;
    let version = text.split_whitespace().nth(1)?.to_owned();
    let release = release_of(&version);
    (text.starts_with("uv ") && compare(&release, &UV_OLDEST).is_ge() && compare(&release, &UV_TOO_NEW).is_lt())
        .then_some(version)
}
