//! Runs the commands of one build, each in a sandbox of its own.
//!
//! What packages bring along is foreign code: it sees the interpreter, the environment being built and a scratch cache,
//! and of the state directory nothing else. Packages are fetched through the egress gateway, which lets through what the
//! build's policy names.

use std::{
    collections::{BTreeSet, VecDeque},
    io::PipeReader,
    net::SocketAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use casemate_egress::Attachment;
use casemate_model::{Fault, egress::LogEntry};
use casemate_sandbox::{Access, Exit, Launcher, Limits, Mount, Network, Sandbox, SandboxSpec};
use tokio::{io::AsyncReadExt, net::unix::pipe::Receiver, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{audience::Audience, destinations::Destinations, failure, stand_in::StandIns};
use crate::{logs::lines::Cleaner, outbound::Outbound};

/// Memory that one command may use.
const MEMORY_BYTES: u64 = 4 << 30;
/// Processes and threads that one command may have.
const PIDS: u32 = 512;
/// Temporary files that one command may have; they count as memory.
const SCRATCH_BYTES: u64 = 1 << 30;
/// Lines of a command's output that are kept for a failure's message.
const LAST_LINES: usize = 30;
/// Most that is kept of a command's answer, in bytes.
const MAX_ANSWER_BYTES: usize = 4 << 20;
/// After this much silence the log says that work goes on.
const SILENCE: Duration = Duration::from_secs(15);
/// How often a command that has closed its output is asked whether it has ended.
const ENDING_POLL: Duration = Duration::from_millis(5);

/// What becomes of a command's standard output; standard error always counts as talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stdout {
    /// Talk, like standard error.
    Talk,
    /// Thrown away.
    Nothing,
    /// Kept and handed to the caller.
    Answer,
}

/// One command.
pub(super) struct Command {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    /// In addition to those of the workshop.
    pub mounts: Vec<Mount>,
    pub network: Network,
    pub stdout: Stdout,
    /// Whether its talk goes to the log; it is kept for failures either way.
    pub shown: bool,
    /// What it is for, such as `installing packages`.
    pub purpose: &'static str,
}

/// How a command ended.
#[derive(Debug)]
pub(super) struct Outcome {
    pub exit: Exit,
    /// The last lines it said, without credentials.
    pub words: Vec<String>,
    /// With [`Stdout::Answer`]: what it wrote.
    pub answer: Vec<u8>,
    /// What it wanted to reach and was refused, each once in a build.
    pub refused: Vec<String>,
}

impl Outcome {
    pub(super) fn succeeded(&self) -> bool {
        self.exit.code == Some(0)
    }

    /// How it ended and what it said last, to stand at the end of a message.
    pub(super) fn last_words(&self) -> String {
        let how = match self.exit {
            Exit { out_of_memory: true, .. } => {
                format!("It was ended for using more than {} GiB of memory.", MEMORY_BYTES >> 30)
            }
            Exit { code: Some(code), .. } => format!("It ended with exit code {code}."),
            Exit { signal, .. } => format!("It was ended by signal {}.", signal.unwrap_or_default()),
        };
        let refused = match self.refused.join(", ") {
            refused if refused.is_empty() => refused,
            refused => format!(" The network refused {refused}. {}", Destinations::advice()),
        };
        if self.words.is_empty() {
            format!("{how}{refused}")
        } else {
            format!("{how}{refused} Its last words:\n{}", self.words.join("\n"))
        }
    }
}

/// Where the commands of one build run.
pub(super) struct Workshop {
    pub launcher: Arc<Launcher>,
    /// Names its sandboxes.
    pub name: String,
    pub audience: Arc<Audience>,
    /// What commands with a network may reach.
    pub outbound: Outbound,
    /// Services on this machine's loopback interface that they reach as well.
    pub on_loopback: Vec<SocketAddr>,
    /// What was refused so far.
    pub refused: Mutex<BTreeSet<String>>,
    /// When the whole build must be over.
    pub deadline: Instant,
    pub cancel: CancellationToken,
    /// What all commands see.
    pub mounts: Vec<Mount>,
    /// Variables of all commands.
    pub env: Vec<(String, String)>,
}

/// A directory or file that a command sees and can't change.
pub(super) fn read_only(source: &Path, target: impl Into<PathBuf>) -> Mount {
    Mount { source: source.to_owned(), target: target.into(), access: Access::ReadOnly }
}

/// A directory that a command may write to.
pub(super) fn writable(source: &Path, target: impl Into<PathBuf>) -> Mount {
    Mount { source: source.to_owned(), target: target.into(), access: Access::ReadWrite }
}

impl Workshop {
    /// Runs a command to its end.
    ///
    /// # Errors
    /// `ImageBuildFailure` when it can't be started, when the build's time is over, or when the platform stops. That
    /// the command itself fails is no error here.
    pub(super) async fn run(&self, command: Command) -> Result<Outcome, Fault> {
        let pipe = || std::io::pipe().map_err(|error| failure::io("making a pipe", &error));
        let (talk, talk_end) = pipe()?;
        let (answer, answer_end) = pipe()?;
        let copy = |end: &std::io::PipeWriter| {
            end.try_clone().map(OwnedFd::from).map_err(|error| failure::io("making a pipe", &error))
        };
        let stdout = match command.stdout {
            Stdout::Talk => copy(&talk_end)?,
            Stdout::Answer => copy(&answer_end)?,
            Stdout::Nothing => {
                let null = std::fs::OpenOptions::new().write(true).open("/dev/null");
                null.map_err(|error| failure::io("opening /dev/null", &error))?.into()
            }
        };
        drop(answer_end);
        let spec = self.spec(&command, stdout, talk_end.into());
        let launcher = Arc::clone(&self.launcher);
        let launched = tokio::task::spawn_blocking(move || launcher.launch(spec)).await;
        let mut sandbox = launched
            .map_err(|_| failure::unavailable("The environment could not be built: the platform is stopping."))?
            .map_err(|error| {
                failure::unavailable(format!(
                    "The environment could not be built, since {} could not be confined: {error}",
                    command.purpose
                ))
            })?;
        let way_out = match command.network {
            Network::Isolated => None,
            Network::Gateway => Some(self.way_out(&mut sandbox)?),
        };
        let mut running = Running {
            sandbox: Some(sandbox),
            talk: receiver(talk)?,
            answer: receiver(answer)?,
            words: VecDeque::new(),
        };
        let outcome = self.follow(&mut running, &command).await;
        running.end().await;
        let refused = way_out.map(|(attachment, _)| self.tell_refused(&attachment)).unwrap_or_default();
        outcome.map(|outcome| Outcome { refused, ..outcome })
    }

    /// Opens what the sandbox may reach, for as long as what this returns is kept.
    fn way_out(&self, sandbox: &mut Sandbox) -> Result<(Attachment, StandIns), Fault> {
        let opened = self.outbound.attach(sandbox, self.name.clone()).and_then(|attachment| {
            let stand_ins = StandIns::open(sandbox, &self.on_loopback).map_err(|error| error.to_string())?;
            Ok((attachment, stand_ins))
        });
        opened.map_err(|words| {
            failure::unavailable(format!("The environment could not be built: its sandbox has no network: {words}."))
        })
    }

    /// Says in the log what a command was refused, as far as it wasn't said before.
    fn tell_refused(&self, attachment: &Attachment) -> Vec<String> {
        let mut told = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let places = attachment.refusals().into_iter().rev().map(|entry| place_of(&entry));
        let new: Vec<String> = places.filter(|place| told.insert(place.clone())).collect();
        for place in &new {
            self.audience.line(&format!("Network: refused {place}. {}", Destinations::advice()));
        }
        new
    }

    fn spec(&self, command: &Command, stdout: OwnedFd, stderr: OwnedFd) -> SandboxSpec {
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let milli_cpus = u32::try_from(processors).unwrap_or(1).saturating_mul(1000);
        SandboxSpec {
            name: self.name.clone(),
            program: command.program.clone(),
            args: command.args.clone(),
            env: self.env.iter().chain(&command.env).cloned().collect(),
            cwd: PathBuf::from("/tmp"),
            mounts: self.mounts.iter().chain(&command.mounts).cloned().collect(),
            network: command.network,
            installer_config: command.network == Network::Gateway,
            limits: Limits { memory_bytes: MEMORY_BYTES, milli_cpus, pids: PIDS, scratch_bytes: SCRATCH_BYTES },
            stdout,
            stderr,
        }
    }

    /// Reads what the command says until it has ended.
    async fn follow(&self, running: &mut Running, command: &Command) -> Result<Outcome, Fault> {
        let sandbox = running.sandbox.as_mut().expect("the sandbox is taken only by end()");
        let mut cleaner = Cleaner::default();
        let (mut answer, mut talk_buffer, mut answer_buffer) = (Vec::new(), vec![0; 16 << 10], vec![0; 16 << 10]);
        let (mut talking, mut answering) = (true, true);
        let (started, mut last_said) = (Instant::now(), Instant::now());
        let words = &mut running.words;
        let mut hear = |line: &str| {
            let line = if command.shown { self.audience.line(line) } else { self.audience.masked(line) };
            if words.len() == LAST_LINES {
                words.pop_front();
            }
            words.push_back(line);
        };
        // A process may close its output and go on, so the end of the output is not yet the end.
        let exit = loop {
            if !talking && !answering {
                let exit = sandbox.try_wait().map_err(|error| failure::io("asking how the installer ended", &error))?;
                if let Some(exit) = exit {
                    break exit;
                }
            }
            tokio::select! {
                read = running.talk.read(&mut talk_buffer), if talking => match read {
                    Ok(0) | Err(_) => talking = false,
                    Ok(count) => {
                        last_said = Instant::now();
                        cleaner.push(&talk_buffer[..count], &mut hear);
                    }
                },
                read = running.answer.read(&mut answer_buffer), if answering => match read {
                    Ok(0) | Err(_) => answering = false,
                    Ok(count) => {
                        let room = MAX_ANSWER_BYTES - answer.len();
                        answer.extend_from_slice(&answer_buffer[..count.min(room)]);
                    }
                },
                () = tokio::time::sleep(ENDING_POLL), if !talking && !answering => {}
                () = tokio::time::sleep_until(self.deadline) => {
                    let minutes = super::BUILD_TIMEOUT.as_secs() / 60;
                    let said = words_of(&running.words);
                    return Err(failure::unavailable(format!("The environment could not be built within {minutes} minutes; {} was not done. Ask for fewer or smaller packages, or check the way to the package index. The last words:\n{said}", command.purpose)));
                }
                () = self.cancel.cancelled() => {
                    return Err(failure::unavailable("The environment was not built to its end, because the platform stopped."));
                }
                () = tokio::time::sleep_until(last_said + SILENCE), if command.shown => {
                    last_said = Instant::now();
                    self.audience.line(&format!("… {} goes on ({} s)", command.purpose, started.elapsed().as_secs()));
                }
            }
        };
        cleaner.finish(&mut hear);
        Ok(Outcome { exit, words: running.words.drain(..).collect(), answer, refused: Vec::new() })
    }
}

/// What was asked for: a name and a port, an address and a port, or a name alone when it was only looked up.
fn place_of(entry: &LogEntry) -> String {
    let host = entry.name.clone().or_else(|| entry.address.map(|address| address.to_string()));
    let host: String = host.unwrap_or_default().chars().filter(char::is_ascii_graphic).collect();
    if entry.port == 0 || entry.protocol == "dns" { host } else { format!("{host}:{}", entry.port) }
}

fn words_of(words: &VecDeque<String>) -> String {
    words.iter().map(String::as_str).collect::<Vec<_>>().join("\n")
}

fn receiver(end: PipeReader) -> Result<Receiver, Fault> {
    Receiver::from_owned_fd(end.into()).map_err(|error| failure::io("reading a pipe", &error))
}

struct Running {
    sandbox: Option<Sandbox>,
    talk: Receiver,
    answer: Receiver,
    words: VecDeque<String>,
}

impl Running {
    /// Ends whatever is left of the sandbox. That takes a moment of kernel work, so not on an async thread.
    async fn end(&mut self) {
        let sandbox = self.sandbox.take();
        // The only failure is a runtime that is shutting down, and then the drop happens right here.
        let _ = tokio::task::spawn_blocking(move || drop(sandbox)).await;
    }
}
