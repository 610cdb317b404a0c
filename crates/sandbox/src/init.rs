//! The sandbox's first process. It builds the root file system with the platform's privileges, enters the user
//! namespace, starts the payload, and from then on only reaps, passes on the request to end, and watches the
//! platform's socket: when that closes, it ends, and the kernel ends everything else in the sandbox with it.
//!
//! It cannot be traced, read or signalled by the payload: it is not dumpable, ignores every signal from inside (the
//! kernel guards the first process of a pid namespace) and, where ids allow, is another user.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid};

use crate::error::{During, Step, StepFailure};
use crate::helper::{CREATED, IdMap, MAPPED, UNSHARED};
use crate::plan::{COMMAND_GO, COMMAND_TERMINATE, Plan, Report, write_frame};
use crate::sys::Forked;
use crate::{payload, rootfs, sys};

/// Runs the first process; never returns to the helper's code.
pub fn main(control: &UnixStream, sync: UnixStream, plan: Plan, id_maps: Vec<IdMap>) -> ! {
    let code = match run(control, sync, &plan, id_maps) {
        Ok(report) => {
            let _ = write_frame(control, &report);
            0
        }
        Err(failure) => {
            let _ = write_frame(control, &Report::Failed(failure));
            1
        }
    };
    sys::exit_now(code)
}

fn run(control: &UnixStream, sync: UnixStream, plan: &Plan, id_maps: Vec<IdMap>) -> Result<Report, StepFailure> {
    expect_byte(&sync, CREATED, Step::Namespaces)?;
    nix::unistd::sethostname(host_name(&plan.name)).during(Step::Namespaces, "sethostname")?;
    rootfs::build(plan, &id_maps)?;
    drop(id_maps);
    enter_user_namespace(sync, plan)?;
    close_doors()?;
    expect_byte(control, COMMAND_GO, Step::Fork)?;
    let signals = block_signals().during(Step::Fork, "signalfd")?;
    let payload = start_payload(plan)?;
    keep_only_kill(plan).during(Step::Privileges, "first process")?;
    write_frame(control, &Report::Started).during(Step::Fork, "report")?;
    watch(control, &signals, payload).during(Step::Fork, "watch")
}

fn expect_byte(mut from: &UnixStream, expected: u8, step: Step) -> Result<(), StepFailure> {
    let mut byte = [0];
    from.read_exact(&mut byte).during(step, "wait for the other side")?;
    if byte == [expected] {
        return Ok(());
    }
    Err(StepFailure::new(step, format!("unexpected byte {byte:?}")))
}

/// The mount namespace is copied once more, into the weaker user namespace: the kernel then locks every mount in it.
fn enter_user_namespace(mut sync: UnixStream, plan: &Plan) -> Result<(), StepFailure> {
    let step = Step::UserNamespace;
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).during(step, "unshare")?;
    sync.write_all(&[UNSHARED]).during(step, "signal the helper")?;
    expect_byte(&sync, MAPPED, step)?;
    if plan.ids.init.is_some() {
        let root = Gid::from_raw(0);
        nix::unistd::setresgid(root, root, root).during(step, "setresgid")?;
        let root = Uid::from_raw(0);
        nix::unistd::setresuid(root, root, root).during(step, "setresuid")?;
    }
    nix::sys::prctl::set_dumpable(false).during(step, "set_dumpable")?;
    nix::sys::prctl::set_no_new_privs().during(step, "no_new_privs")
}

/// No further user namespace can be made in here, and the kernel's settings cannot be written.
fn close_doors() -> Result<(), StepFailure> {
    let step = Step::NoMoreNamespaces;
    std::fs::write("/proc/sys/user/max_user_namespaces", "0").during(step, "max_user_namespaces")?;
    let settings = std::fs::File::open("/proc/sys").during(step, "/proc/sys")?;
    let tree = sys::open_tree(settings.as_fd(), c"").during(step, "/proc/sys")?;
    sys::mount_setattr(tree.as_fd(), rootfs::LOCKED_DATA, true, None).during(step, "/proc/sys")?;
    sys::move_mount(tree.as_fd(), settings.as_fd()).during(step, "/proc/sys")
}

fn block_signals() -> nix::Result<SignalFd> {
    SigSet::all().thread_set_mask()?;
    let mut child = SigSet::empty();
    child.add(Signal::SIGCHLD);
    SignalFd::with_flags(&child, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Forks the payload and waits until it executes its program or tells why it cannot.
fn start_payload(plan: &Plan) -> Result<Pid, StepFailure> {
    let (mut failures, teller) = std::io::pipe().during(Step::Fork, "pipe")?;
    match sys::clone_process(0).during(Step::Fork, "clone")? {
        Forked::Child => {
            drop(failures);
            payload::main(plan, teller)
        }
        Forked::Parent(pid) => {
            drop(teller);
            let null = std::fs::File::open("/dev/null").during(Step::Fork, "/dev/null")?;
            for number in [1, 2] {
                sys::replace_fd(null.as_fd(), number).during(Step::Fork, "standard descriptors")?;
            }
            let mut told = Vec::new();
            failures.read_to_end(&mut told).during(Step::Fork, "wait for the program")?;
            if told.is_empty() {
                return Ok(Pid::from_raw(pid));
            }
            Err(serde_json::from_slice(&told).during(Step::Fork, "unreadable failure")?)
        }
    }
}

/// When it is another user than the payload, the first process keeps the right to signal it, and nothing else.
fn keep_only_kill(plan: &Plan) -> Result<(), caps::errors::CapsError> {
    let mut kept = CapsHashSet::new();
    if plan.ids.init.is_some() {
        kept.insert(Capability::CAP_KILL);
    }
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}

fn watch(control: &UnixStream, signals: &SignalFd, payload: Pid) -> nix::Result<Report> {
    loop {
        let mut both =
            [PollFd::new(control.as_fd(), PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match nix::poll::poll(&mut both, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
        let [from_platform, from_children] = both.map(|each| each.any().unwrap_or(false));
        if from_children {
            while signals.read_signal()?.is_some() {}
            if let Some(report) = reap(payload)? {
                return Ok(report);
            }
        }
        if from_platform && !obey(control.as_fd(), payload)? {
            // The platform has gone, and with this process everything in here goes too.
            sys::exit_now(1);
        }
    }
}

/// Collects the dead; reports when the payload is among them.
fn reap(payload: Pid) -> nix::Result<Option<Report>> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == payload => {
                return Ok(Some(Report::Exited { code: Some(code), signal: None }));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == payload => {
                return Ok(Some(Report::Exited { code: None, signal: Some(signal as i32) }));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Reads one command; false when the platform has gone.
fn obey(control: BorrowedFd<'_>, payload: Pid) -> nix::Result<bool> {
    let mut byte = [0];
    match nix::unistd::read(control, &mut byte) {
        Ok(0) => return Ok(false),
        Ok(_) => {}
        Err(Errno::EINTR) => return Ok(true),
        Err(_) => return Ok(false),
    }
    if byte == [COMMAND_TERMINATE] {
        match kill(payload, Signal::SIGTERM) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}

/// Letters, digits and dashes of the name, at most 63.
pub fn host_name(name: &str) -> String {
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).take(63).collect();
    let plain = plain.trim_matches('-');
    if plain.is_empty() { "sandbox".to_owned() } else { plain.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_are_plain() {
        let table = [("blue-1", "blue-1"), ("Blue/1", "blue-1"), ("--", "sandbox"), ("é", "sandbox")];
        for (name, expected) in table {
            assert_eq!(host_name(name), expected);
        }
        assert_eq!(host_name(&"x".repeat(100)).len(), 63);
    }
}
