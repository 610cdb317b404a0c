//! What a test gets: a launcher, a directory, and short ways to run a payload and to read what it said.

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use casemate_sandbox::{
    Access, Exit, Launcher, LauncherConfig, Limits, Mount, Network, Privilege, Sandbox, SandboxSpec,
};
use tempfile::TempDir;

pub const PYTHON: &str = "/usr/bin/python3";
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Root,
    User,
    /// An ordinary user to whom control groups were given.
    Delegated,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Mode::Root => "root",
            Mode::User => "user",
            Mode::Delegated => "delegated",
        }
    }

    pub fn privilege(self) -> Privilege {
        match self {
            Mode::Root => Privilege::Root,
            Mode::User | Mode::Delegated => Privilege::UserNamespace,
        }
    }
}

pub struct World {
    pub mode: Mode,
    pub launcher: Launcher,
    pub dir: Dir,
}

/// The test's own directory, or one within another's.
pub enum Dir {
    Own(TempDir),
    Within(PathBuf),
}

impl Dir {
    pub fn path(&self) -> &Path {
        match self {
            Dir::Own(dir) => dir.path(),
            Dir::Within(dir) => dir,
        }
    }
}

impl World {
    pub fn new(mode: Mode) -> Self {
        let dir = tempfile::Builder::new().prefix("casemate-sandbox-").rand_bytes(10).tempdir().unwrap();
        let launcher = Launcher::new(config(dir.path())).unwrap();
        Self { mode, launcher, dir: Dir::Own(dir) }
    }

    /// A second platform beside the test's own.
    pub fn with(dir: PathBuf, launcher: Launcher) -> Self {
        Self { mode: Mode::User, launcher, dir: Dir::Within(dir) }
    }

    /// A payload that has not been started yet.
    pub fn payload(&self, program: &str, args: &[&str]) -> Payload<'_> {
        let (stdout, stdout_end) = self.output();
        let (stderr, stderr_end) = self.output();
        let spec = SandboxSpec {
            name: "test".into(),
            program: program.into(),
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            cwd: "/tmp".into(),
            mounts: Vec::new(),
            network: Network::Isolated,
            installer_config: false,
            limits: Limits { memory_bytes: 512 << 20, milli_cpus: 2000, pids: 64, scratch_bytes: 64 << 20 },
            stdout: stdout_end,
            stderr: stderr_end,
        };
        Payload { world: self, spec, stdout, stderr }
    }

    /// A file to read from, and a descriptor of its own that appends to it.
    fn output(&self) -> (File, OwnedFd) {
        let file = tempfile::NamedTempFile::new_in(self.dir.path()).unwrap();
        let end = File::options().append(true).open(file.path()).unwrap();
        (file.into_file(), end.into())
    }

    /// A Python program.
    pub fn python(&self, code: &str) -> Payload<'_> {
        self.payload(PYTHON, &["-I", "-c", code])
    }

    /// A directory for this test.
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let dir = self.dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        dir
    }
}

pub fn config(dir: &Path) -> LauncherConfig {
    LauncherConfig {
        helper: "/proc/self/exe".into(),
        helper_args: Vec::new(),
        cgroup_group: dir.to_str().unwrap().trim_start_matches('/').replace('/', "-"),
        scratch: dir.join("scratch"),
    }
}

pub struct Payload<'w> {
    world: &'w World,
    pub spec: SandboxSpec,
    stdout: File,
    stderr: File,
}

pub struct Outcome {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
}

pub struct Running {
    pub sandbox: Sandbox,
    stdout: File,
    stderr: File,
}

impl Payload<'_> {
    pub fn mount(mut self, source: &Path, target: &str, access: Access) -> Self {
        self.spec.mounts.push(Mount { source: source.to_owned(), target: target.into(), access });
        self
    }

    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.spec.limits);
        self
    }

    pub fn start(self) -> Running {
        let sandbox = self.world.launcher.launch(self.spec).unwrap_or_else(|error| panic!("{error}"));
        Running { sandbox, stdout: self.stdout, stderr: self.stderr }
    }

    pub fn run(self) -> Outcome {
        self.start().finish()
    }

    /// Runs it, demands success, and returns what it printed.
    pub fn output(self) -> String {
        let outcome = self.run();
        assert_eq!(outcome.exit.code, Some(0), "{:?}\n{}{}", outcome.exit, outcome.stdout, outcome.stderr);
        outcome.stdout
    }
}

impl Running {
    pub fn finish(mut self) -> Outcome {
        let exit = self.wait();
        Outcome { exit, stdout: text(&self.stdout), stderr: text(&self.stderr) }
    }

    pub fn wait(&mut self) -> Exit {
        let mut ended = [nix::poll::PollFd::new(self.sandbox.pidfd(), nix::poll::PollFlags::POLLIN)];
        let timeout = nix::poll::PollTimeout::try_from(PATIENCE).unwrap();
        let ready = nix::poll::poll(&mut ended, timeout).unwrap();
        assert_eq!(ready, 1, "still running after {PATIENCE:?}: {}{}", text(&self.stdout), text(&self.stderr));
        self.sandbox.try_wait().unwrap().unwrap()
    }

    /// Waits until the payload has printed `word`.
    pub fn wait_for(&mut self, word: &str) {
        until(&format!("the payload prints {word:?}"), || {
            if let Some(exit) = self.sandbox.try_wait().unwrap() {
                panic!("ended early: {exit:?}\n{}{}", text(&self.stdout), text(&self.stderr));
            }
            text(&self.stdout).contains(word)
        });
    }

    pub fn stdout(&self) -> String {
        text(&self.stdout)
    }
}

/// Polls until `done`; fails after a long while, saying what was waited for.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn text(mut file: &File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What an unconfined Python with the platform's rights prints for the same program.
pub fn outside(code: &str) -> (String, ExitStatus) {
    let output = std::process::Command::new(PYTHON).args(["-I", "-c", code]).output().unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status)
}

/// Every process of the host with `marker` among its arguments, but not this one.
pub fn processes_with(marker: &str) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| *id != std::process::id())
        .filter(|id| {
            let arguments = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            arguments.split(|byte| *byte == 0).any(|argument| argument == marker.as_bytes())
        })
        .collect()
}

/// This process's children, zombies included.
pub fn children() -> Vec<u32> {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = threads.map(|thread| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    lists.flat_map(|list| list.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<u32>>()).collect()
}
