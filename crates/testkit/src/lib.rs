//! A whole platform for tests: the real binary on a state directory of its own and a free port, driven from outside
//! as a user would. It mocks nothing and knows nothing of the rooms inside.

pub mod load;
pub mod rest;
pub mod sample;
pub mod world;

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// Longest wait for a platform to say that it is ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// An ordinary user that every system has.
const NOBODY: u32 = 65534;
/// Longest wait for a clean stop.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// The program under test: `CASEMATE_BIN`, or the one built beside this test.
///
/// # Panics
/// When neither exists: the test command builds it first.
#[must_use]
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os("CASEMATE_BIN") {
        return path.into();
    }
    let own = env::current_exe().expect("a test has a path");
    let beside = own.ancestors().nth(2).expect("a test lies in target/<profile>/deps").join("casemate");
    assert!(beside.exists(), "{} is missing: build it with `cargo build -p casemate`", beside.display());
    beside
}

/// The Python with the clients that tests drive (`CASEMATE_TEST_PYTHON`, set by `cargo xtask test`).
///
/// # Panics
/// When the variable is not set.
#[must_use]
pub fn python() -> PathBuf {
    env::var_os("CASEMATE_TEST_PYTHON").expect("CASEMATE_TEST_PYTHON is set by `cargo xtask test`").into()
}

/// The Python with the first generation of the SDK (`CASEMATE_TEST_PYTHON_V1`, set by `cargo xtask test`).
///
/// # Panics
/// When the variable is not set.
#[must_use]
pub fn python_v1() -> PathBuf {
    env::var_os("CASEMATE_TEST_PYTHON_V1").expect("CASEMATE_TEST_PYTHON_V1 is set by `cargo xtask test`").into()
}

/// The root of the project.
///
/// # Panics
/// Never: the crate lies two levels below it.
#[must_use]
pub fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/testkit lies in the project").to_owned()
}

/// A platform under test. Dropping it stops it and removes its state.
pub struct Platform {
    process: Option<Child>,
    state: PathBuf,
    /// Where its stderr goes.
    log: PathBuf,
    /// `https://127.0.0.1:PORT`.
    pub url: String,
    port: u16,
    extra: Vec<String>,
    program: PathBuf,
    /// Run as this user, when it isn't the test's own.
    user: Option<u32>,
    /// What stands before every command: enters a network namespace.
    enter: Vec<String>,
    _dir: TempDir,
}

impl Platform {
    /// Starts a platform on a new state directory.
    ///
    /// # Errors
    /// When it doesn't become ready; the message holds what it said.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// The same, with further arguments to `casemate up`.
    ///
    /// # Errors
    /// As [`Platform::start`].
    pub fn start_with(extra: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("casemate-test-").tempdir()?;
        let state = dir.path().join("state");
        seed_cache(&state)?;
        let mut platform = Self::new(dir, state);
        platform.extra = extra.iter().map(|word| (*word).to_owned()).collect();
        platform.launch()?;
        Ok(platform)
    }

    /// One that was not started yet, with its log in `dir`.
    fn new(dir: TempDir, state: PathBuf) -> Self {
        Self {
            process: None,
            state,
            log: dir.path().join("state.log"),
            url: String::new(),
            port: 0,
            extra: Vec::new(),
            program: binary(),
            user: None,
            enter: Vec::new(),
            _dir: dir,
        }
    }

    /// Moves the platform, which must not run, behind the commands `enter` (see [`world::World::enter`]) and gives it
    /// further arguments from its next [`Platform::launch`] on.
    pub fn move_into(&mut self, enter: Vec<String>, extra: &[&str]) {
        self.enter = enter;
        self.extra.extend(extra.iter().map(|word| (*word).to_owned()));
    }

    /// A command that starts `program` where the platform lives.
    fn spawn(&self, program: &Path) -> Command {
        let mut words = self.enter.iter().map(String::as_str);
        match words.next() {
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(program);
                command
            }
            None => Command::new(program),
        }
    }

    /// Starts a platform on this state directory, which must not exist yet. Its log lies elsewhere.
    ///
    /// # Errors
    /// As [`Platform::start`].
    pub fn start_at(state: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("casemate-test-").tempdir()?;
        seed_cache(state)?;
        let mut platform = Self::new(dir, state.to_owned());
        platform.launch()?;
        Ok(platform)
    }

    /// Starts a platform as an ordinary user: `nobody` when the test itself runs as root.
    ///
    /// # Errors
    /// As [`Platform::start`].
    pub fn start_unprivileged() -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Self::start();
        }
        let dir = tempfile::Builder::new().prefix("casemate-test-").tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        // The build directory may be closed to other users; the program is not.
        let program = dir.path().join("casemate");
        fs::copy(binary(), &program)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        let home = dir.path().join("home");
        fs::create_dir(&home)?;
        std::os::unix::fs::chown(&home, Some(NOBODY), Some(NOBODY))?;
        let state = home.join("state");
        let mut platform = Self::new(dir, state);
        (platform.program, platform.user) = (program, Some(NOBODY));
        platform.launch()?;
        Ok(platform)
    }

    /// `casemate`, by its user.
    fn up(&self) -> Command {
        let (Some(user), Some(home)) = (self.user, self.state.parent()) else { return self.spawn(&self.program) };
        let mut command = if self.enter.is_empty() {
            let mut command = Command::new(&self.program);
            command.uid(user).gid(user);
            command
        } else {
            // Only root may enter the namespace, so the user changes after that.
            let mut command = self.spawn("setpriv".as_ref());
            command.args([format!("--reuid={user}"), format!("--regid={user}"), "--clear-groups".to_owned()]);
            command.arg(&self.program);
            command
        };
        command.env("HOME", home).current_dir(home);
        command
    }

    /// Starts the process again on the same state and port, after [`Platform::kill`] or [`Platform::stop`].
    ///
    /// # Errors
    /// As [`Platform::start`].
    pub fn launch(&mut self) -> Result<()> {
        let mut command = self.up();
        let mut process = command
            .args(["up", "--state"])
            .arg(&self.state)
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .args(&self.extra)
            .stdout(Stdio::piped())
            .stderr(Stdio::from(fs::File::options().create(true).append(true).open(&self.log)?))
            .spawn()?;
        let stdout = process.stdout.take().context("stdout is piped")?;
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let mut reader = BufReader::new(stdout);
            let _ = reader.read_line(&mut line);
            let _ = sender.send(line);
            // Keep the pipe open and empty for the life of the process.
            let _ = reader.read_to_end(&mut Vec::new());
        });
        self.process = Some(process);
        let line = receiver.recv_timeout(READY_LIMIT).unwrap_or_default();
        let Some(url) = line.trim().strip_prefix("ready ") else {
            bail!("the platform did not become ready; it said '{}' and on stderr:\n{}", line.trim(), self.log());
        };
        self.url = url.to_owned();
        self.port = url.rsplit(':').next().context("the address has a port")?.parse()?;
        Ok(())
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// What the platform wrote on stderr.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The platform's process id.
    ///
    /// # Panics
    /// When it isn't running.
    #[must_use]
    pub fn pid(&self) -> Pid {
        let id = self.process.as_ref().expect("the platform runs").id();
        Pid::from_raw(i32::try_from(id).expect("a process id fits"))
    }

    /// kill -9.
    ///
    /// # Errors
    /// When the process can't be killed or waited for.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for a clean end.
    ///
    /// # Errors
    /// When it doesn't end with 0 in time.
    pub fn stop(&mut self) -> Result<()> {
        if self.process.is_none() {
            return Ok(());
        }
        kill(self.pid(), Signal::SIGTERM)?;
        let mut process = self.process.take().context("the platform runs")?;
        let began = Instant::now();
        loop {
            if let Some(status) = process.try_wait()? {
                ensure!(status.success(), "the platform ended with {status}:\n{}", self.log());
                return Ok(());
            }
            if began.elapsed() > STOP_LIMIT {
                process.kill()?;
                bail!("the platform did not stop within {STOP_LIMIT:?}:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The variables that `casemate env` prints.
    ///
    /// # Errors
    /// When the command fails.
    pub fn env(&self) -> Result<BTreeMap<String, String>> {
        let output = Command::new(binary()).args(["env", "--format", "json", "--state"]).arg(&self.state).output()?;
        Ok(serde_json::from_slice(&checked(output)?)?)
    }

    /// A command of the CLI against this platform, with nothing of the caller's own set-up.
    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = self.spawn(&binary());
        command
            .args(arguments)
            .env("CASEMATE_STATE", &self.state)
            .env("AZURE_CONFIG_DIR", self.state.join("azure"))
            .env_remove("CASEMATE_URL");
        command
    }

    /// Runs a command line, split at spaces, and gives its stdout.
    ///
    /// # Errors
    /// When it fails; the message holds its stderr.
    pub fn casemate(&self, line: &str) -> Result<String> {
        let output = self.command(line.split_whitespace()).output()?;
        let stdout = checked(output).with_context(|| format!("casemate {line}"))?;
        Ok(String::from_utf8(stdout)?)
    }

    /// A new group `rg` with a workspace `main`, made the defaults of later commands.
    ///
    /// # Errors
    /// When a command fails.
    pub fn workspace(&self) -> Result<()> {
        self.casemate("group create -n rg -l local")?;
        self.casemate("ml workspace create -n main -g rg")?;
        self.casemate("configure --defaults group=rg workspace=main")?;
        Ok(())
    }

    /// An endpoint's scoring address and primary key.
    ///
    /// # Errors
    /// When a command fails.
    pub fn scoring(&self, endpoint: &str) -> Result<load::Target> {
        let uri = self.casemate(&format!("ml online-endpoint show -n {endpoint} --query scoring_uri -o tsv"))?;
        let key =
            self.casemate(&format!("ml online-endpoint get-credentials -n {endpoint} --query primaryKey -o tsv"))?;
        let authority = fs::read(self.state.join("ca.pem"))?;
        Ok(load::Target { uri: uri.trim().to_owned(), key: key.trim().to_owned(), authority })
    }

    /// Runs a Python script of `tests/e2e` with the environment that `casemate env` gives.
    ///
    /// # Errors
    /// When it fails; the message holds what it printed.
    pub fn python(&self, script: &str, arguments: &[&str]) -> Result<String> {
        let output = self
            .spawn(&python())
            .arg(project().join("tests/e2e").join(script))
            .args(arguments)
            .envs(self.env()?)
            .env("PYTHONWARNINGS", "ignore")
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let stdout =
            checked(output).with_context(|| format!("{script} said:\n{said}\nand the platform:\n{}", self.log()))?;
        Ok(String::from_utf8(stdout)?)
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if self.stop().is_err() {
            let _ = self.kill();
        }
    }
}

/// Environment builds of all tests share one download cache, as builds on one machine would over the days.
fn seed_cache(state: &Path) -> Result<()> {
    let Some(shared) = env::var_os("CASEMATE_TEST_CACHE") else { return Ok(()) };
    fs::create_dir_all(&shared)?;
    fs::create_dir_all(state)?;
    std::os::unix::fs::symlink(shared, state.join("cache"))?;
    Ok(())
}

fn checked(output: Output) -> Result<Vec<u8>> {
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    Ok(output.stdout)
}
