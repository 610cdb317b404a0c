//! The helper: the platform's own binary executed again, with a single thread, which can therefore enter namespaces.
//! It creates the network namespace and the first process, gives that process its identity, and ends. It keeps the
//! platform's privileges throughout and never runs foreign code.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Gid, Pid, Uid};

use crate::error::{During, Step, StepFailure};
use crate::plan::{Ids, PAYLOAD_ID, Plan, Report, read_frame, write_frame};
use crate::spec::Network;
use crate::sys::Forked;
use crate::{gateway, init, netns, sys};

/// Helper and first process take turns by these bytes.
pub(crate) const CREATED: u8 = b'c';
pub(crate) const UNSHARED: u8 = b'u';
pub(crate) const MAPPED: u8 = b'm';

/// How readily the kernel sacrifices a sandbox when the whole host runs out of memory.
const OOM_SCORE: &str = "500";

/// The main function of the helper process. The binary calls it, before anything else, when its first argument is
/// [`crate::HELPER_ARG`]. Descriptor 0 must be the platform's socket.
pub fn helper_main() -> ! {
    let code = match control_socket() {
        Ok(control) => match run(&control) {
            Ok(()) => 0,
            Err(failure) => {
                // The platform may be gone already; then nobody is left to tell.
                let _ = write_frame(&control, &Report::Failed(failure));
                1
            }
        },
        Err(_) => 2,
    };
    sys::exit_now(code)
}

fn control_socket() -> std::io::Result<UnixStream> {
    sys::close_from(3, false)?;
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    sys::replace_fd(std::fs::File::open("/dev/null")?, 0)?;
    Ok(UnixStream::from(socket))
}

fn run(control: &UnixStream) -> Result<(), StepFailure> {
    let plan: Plan = read_frame(control)
        .during(Step::Plan, "read")?
        .ok_or_else(|| StepFailure::new(Step::Plan, "the platform has gone"))?;
    shed(&plan)?;
    match plan.network {
        Network::Isolated => netns::enter_empty()?,
        Network::Gateway => {
            netns::enter_empty()?;
            gateway::prepare()?;
        }
    }
    let id_maps = id_maps(&plan)?;
    let (mine, theirs) = UnixStream::pair().during(Step::Namespaces, "socket pair")?;
    let namespaces = libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP
        | libc::CLONE_PARENT;
    match sys::clone_process(namespaces).during(Step::Namespaces, "clone")? {
        Forked::Child => {
            drop(mine);
            init::main(control, theirs, plan, id_maps)
        }
        Forked::Parent(pid) => {
            drop(theirs);
            drop(id_maps);
            write_frame(control, &Report::Created { pid }).during(Step::Namespaces, "report")?;
            give_identity(mine, pid, plan.ids)
        }
    }
}

/// Leaves behind what the platform's session would otherwise hand down.
fn shed(plan: &Plan) -> Result<(), StepFailure> {
    if plan.ids.init.is_some() {
        // With a single mapped id the kernel forbids it; the user's own groups then stay.
        nix::unistd::setgroups(&[]).during(Step::Shed, "setgroups")?;
    }
    for output in [std::io::stdout().as_fd(), std::io::stderr().as_fd()] {
        own_pipe(output, plan.ids.payload).during(Step::Shed, "outputs")?;
    }
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    nix::unistd::setsid().during(Step::Shed, "setsid")?;
    std::fs::write("/proc/self/oom_score_adj", OOM_SCORE).during(Step::Shed, "oom_score_adj")
}

/// Programs open `/dev/stdout` by name, which takes a pipe of their own user. Files stay their owner's.
fn own_pipe(output: BorrowedFd<'_>, payload: u32) -> nix::Result<()> {
    let kind = SFlag::from_bits_truncate(fstat(output)?.st_mode) & SFlag::S_IFMT;
    if kind != SFlag::S_IFIFO {
        return Ok(());
    }
    nix::unistd::fchown(output, Some(Uid::from_raw(payload)), Some(Gid::from_raw(payload)))
}

/// Waits until the first process is in its user namespace and writes the mapping, which only the outside may do.
fn give_identity(mut sync: UnixStream, pid: i32, ids: Ids) -> Result<(), StepFailure> {
    sync.write_all(&[CREATED]).during(Step::UserNamespace, "signal the first process")?;
    let mut byte = [0];
    if sync.read_exact(&mut byte).is_err() || byte != [UNSHARED] {
        // It has failed and reported why by itself.
        return Ok(());
    }
    let map = match ids.init {
        Some(init) => format!("0 {init} 1\n{PAYLOAD_ID} {} 1\n", ids.payload),
        None => format!("{PAYLOAD_ID} {} 1\n", ids.payload),
    };
    write_id_maps(pid, &map).during(Step::UserNamespace, "write the id map")?;
    sync.write_all(&[MAPPED]).during(Step::UserNamespace, "signal the first process")
}

fn write_id_maps(pid: i32, map: &str) -> std::io::Result<()> {
    let dir = Path::new("/proc").join(pid.to_string());
    std::fs::write(dir.join("setgroups"), "deny")?;
    std::fs::write(dir.join("uid_map"), map)?;
    std::fs::write(dir.join("gid_map"), map)
}

/// A user namespace for each owner of a mount's source, in which that owner is the payload: by it the payload reads
/// what the owner may read, and what the payload writes belongs to the owner.
pub(crate) struct IdMap {
    pub uid: u32,
    pub gid: u32,
    pub namespace: OwnedFd,
}

fn id_maps(plan: &Plan) -> Result<Vec<IdMap>, StepFailure> {
    let mut maps: Vec<IdMap> = Vec::new();
    if plan.ids.init.is_none() {
        // The payload is the platform's own user already.
        return Ok(maps);
    }
    for mount in &plan.mounts {
        let meta = std::fs::symlink_metadata(&mount.source).during(Step::RootFs, mount.source.display())?;
        if !maps.iter().any(|map| (map.uid, map.gid) == (meta.uid(), meta.gid())) {
            maps.push(id_map(meta.uid(), meta.gid(), plan.ids.payload).during(Step::IdMap, mount.source.display())?);
        }
    }
    Ok(maps)
}

/// The namespace outlives the process that carries it here only through the descriptor.
fn id_map(uid: u32, gid: u32, payload: u32) -> std::io::Result<IdMap> {
    match sys::clone_process(libc::CLONE_NEWUSER)? {
        Forked::Child => loop {
            nix::unistd::pause();
        },
        Forked::Parent(pid) => {
            let dir = Path::new("/proc").join(pid.to_string());
            let namespace = std::fs::write(dir.join("uid_map"), format!("{uid} {payload} 1\n"))
                .and_then(|()| std::fs::write(dir.join("gid_map"), format!("{gid} {payload} 1\n")))
                .and_then(|()| std::fs::File::open(dir.join("ns/user")));
            let carrier = Pid::from_raw(pid);
            nix::sys::signal::kill(carrier, nix::sys::signal::Signal::SIGKILL)?;
            nix::sys::wait::waitpid(carrier, None)?;
            Ok(IdMap { uid, gid, namespace: OwnedFd::from(namespace?) })
        }
    }
}
