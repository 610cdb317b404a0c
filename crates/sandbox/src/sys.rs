//! System calls that neither std nor nix offers, each behind a safe function that owns or borrows its descriptors.
//! Almost all of the room's unsafe code is here; the rest of the room decides nothing about pointers.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, c_long, c_uint, pid_t};

fn check(answer: c_long) -> io::Result<c_long> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

fn own(answer: c_long) -> io::Result<OwnedFd> {
    let raw = check(answer)? as RawFd;
    // JUSTIFICATION: raw system calls return bare numbers; ownership starts here.
    // SAFETY: the callers pass answers of calls that create a descriptor, so it is open and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Which side of a fork this is.
pub enum Forked {
    /// The new process.
    Child,
    /// The old process; the new one's id as it is seen here.
    Parent(pid_t),
}

/// Copies the calling process into new namespaces (`CLONE_NEW*`). With `CLONE_PARENT` in `flags` the new process
/// becomes a sibling. The caller must have one thread only: it is checked.
pub fn clone_process(flags: c_int) -> io::Result<Forked> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the process has more than one thread"));
    }
    let sibling = flags & libc::CLONE_PARENT != 0;
    let mut args = libc::clone_args {
        flags: u64::from(flags as u32),
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        // A sibling takes the caller's own exit signal; the kernel refuses any other wish.
        exit_signal: if sibling { 0 } else { libc::SIGCHLD as u64 },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    // JUSTIFICATION: only the raw call takes namespace flags and CLONE_PARENT with fork's copy semantics.
    // SAFETY: `args` is a valid clone_args of the given size; without CLONE_VM the child gets a copy of this memory,
    // and as the process has a single thread no lock can be held by a thread missing from the copy.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })?;
    Ok(if pid == 0 { Forked::Child } else { Forked::Parent(pid as pid_t) })
}

/// A descriptor for a process, close-on-exec.
pub fn pidfd_open(pid: pid_t) -> io::Result<OwnedFd> {
    // JUSTIFICATION: not wrapped by nix.
    // SAFETY: plain integers in, a new descriptor out.
    own(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Sends a signal to exactly the process behind the descriptor.
pub fn pidfd_kill(pidfd: BorrowedFd<'_>, signal: c_int) -> io::Result<()> {
    // JUSTIFICATION: not wrapped by nix.
    // SAFETY: a borrowed descriptor, plain integers, and the permitted null siginfo.
    let answer = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    check(answer).map(drop)
}

/// Closes, or marks close-on-exec, every descriptor from `first` upward.
pub fn close_from(first: c_uint, only_on_exec: bool) -> io::Result<()> {
    let flags = if only_on_exec { libc::CLOSE_RANGE_CLOEXEC } else { 0 };
    // JUSTIFICATION: not wrapped by nix.
    // SAFETY: plain integers. Without `only_on_exec` the callers run it first of all, before any owner of a
    // descriptor at or above `first` exists.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, c_uint::MAX, flags) }).map(drop)
}

/// A private, detached copy of the mounts at `path` below `dir`, with everything mounted below it.
pub fn open_tree(dir: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | (libc::AT_RECURSIVE | libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW) as c_uint;
    // JUSTIFICATION: not wrapped by nix.
    // SAFETY: a borrowed descriptor and a terminated string that outlives the call.
    own(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) })
}

/// Attaches a detached mount tree on the open directory or file `target`.
pub fn move_mount(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
    // JUSTIFICATION: not wrapped by nix.
    // SAFETY: borrowed descriptors and terminated empty strings.
    let answer = unsafe {
        libc::syscall(libc::SYS_move_mount, tree.as_raw_fd(), c"".as_ptr(), target.as_raw_fd(), c"".as_ptr(), flags)
    };
    check(answer).map(drop)
}

/// Sets attributes (`MOUNT_ATTR_*`) on a mount; on all mounts below it too if `recursive`. `id_map` is a user
/// namespace for `MOUNT_ATTR_IDMAP`.
pub fn mount_setattr(
    mount: BorrowedFd<'_>,
    attributes: u64,
    recursive: bool,
    id_map: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: attributes | if id_map.is_some() { libc::MOUNT_ATTR_IDMAP } else { 0 },
        attr_clr: 0,
        propagation: libc::MS_PRIVATE,
        userns_fd: id_map.map_or(0, |fd| fd.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // JUSTIFICATION: not wrapped by nix.
    // SAFETY: a borrowed descriptor, a terminated string and a valid mount_attr of the given size.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    check(answer).map(drop)
}

/// The Landlock ABI version that the kernel speaks.
pub fn landlock_abi() -> io::Result<u32> {
    const VERSION: c_uint = 1;
    // JUSTIFICATION: the landlock crate answers with a range, not with the error that says why there is none.
    // SAFETY: the version query takes a null attribute of size zero.
    let answer = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, VERSION) };
    check(answer).map(|version| version as u32)
}

/// Whether the kernel's seccomp filters can answer a call with an error.
pub fn seccomp_available() -> io::Result<()> {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // JUSTIFICATION: not wrapped by nix or seccompiler.
    // SAFETY: the query reads one u32 through the pointer.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    check(answer).map(drop)
}

/// Brings an interface of the calling process's network namespace up.
pub fn interface_up(name: &CStr) -> io::Result<()> {
    let socket = nix::sys::socket::socket(
        nix::sys::socket::AddressFamily::Inet,
        nix::sys::socket::SockType::Datagram,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // JUSTIFICATION: ifreq is a union; nix has no wrapper for interface flags.
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let bytes = name.to_bytes();
    if bytes.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    // JUSTIFICATION: the flags live in a union of the request.
    // SAFETY: SIOCGIFFLAGS fills `ifru_flags`, which is then the union's live member; both calls borrow `request`.
    unsafe {
        check(c_long::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request)))?;
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        check(c_long::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)))?;
    }
    Ok(())
}

/// Puts every signal back to its default action and unblocks all of them.
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        // JUSTIFICATION: nix refuses the real-time signals.
        // SAFETY: installs SIG_DFL, which runs no code of ours. Signals that cannot be set (KILL, STOP, and those of
        // the C library) answer with an error that changes nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// Replaces this process by `program`; returns only on failure.
pub fn exec(program: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    match nix::unistd::execve(program, args, env) {
        Ok(never) => match never {},
        Err(errno) => errno.into(),
    }
}

/// Ends this process at once, without running anything registered for exit.
pub fn exit_now(code: c_int) -> ! {
    // JUSTIFICATION: std's exit runs handlers that belong to the process this one was copied from.
    // SAFETY: never returns and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Puts `/dev/null` or another descriptor in place of a standard one.
pub fn replace_fd(with: impl AsFd, number: RawFd) -> io::Result<()> {
    // JUSTIFICATION: nix's dup2 wants an owned target; the standard descriptors have no owner.
    // SAFETY: `number` is 0, 1 or 2, for which no OwnedFd exists in this room.
    check(c_long::from(unsafe { libc::dup2(with.as_fd().as_raw_fd(), number) })).map(drop)
}

/// The bytes of a page and the clock ticks of a second, for reading `/proc`.
pub fn clock_ticks() -> u64 {
    // JUSTIFICATION: one constant of the C library.
    // SAFETY: takes and returns plain integers.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).ok().filter(|ticks| *ticks > 0).unwrap_or(100)
}
