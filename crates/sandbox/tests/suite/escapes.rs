//! Payloads that try to get out, each beside a control: the same attempt unconfined, which must get further, so that a
//! mistake in the attempt cannot pass for a denial.

use casemate_sandbox::Network;

use crate::Test;
use crate::world::{Mode, World, outside};

pub const TESTS: &[Test] = &[
    Test { name: "calls_that_leave_the_confinement_are_refused", check: calls },
    Test { name: "socket_families_are_limited", check: sockets },
    Test { name: "other_system_call_tables_are_closed", check: other_tables },
    Test { name: "the_first_process_cannot_be_touched", check: first_process },
    Test { name: "identity_cannot_be_changed", check: identity },
    Test { name: "kernel_settings_cannot_be_written", check: settings },
    Test { name: "ordinary_work_is_not_disturbed", check: ordinary },
];

/// Prints the symbolic result of raw system calls.
const PRELUDE: &str = "import ctypes, errno, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *args):
    ctypes.set_errno(0)
    args = [a if isinstance(a, (bytes, ctypes.Array)) else ctypes.c_long(a) for a in args]
    result = libc.syscall(ctypes.c_long(number), *args)
    print(name, 'ok' if result >= 0 else errno.errorcode[ctypes.get_errno()], flush=True)
buffer = ctypes.create_string_buffer(256)
";

struct Call {
    name: &'static str,
    number: libc::c_long,
    args: &'static str,
    /// What the payload must get.
    inside: &'static str,
    /// What the same call gets unconfined, where it is harmless and the same everywhere; else empty.
    outside: &'static [&'static str],
}

const fn refused(name: &'static str, number: libc::c_long, args: &'static str) -> Call {
    Call { name, number, args, inside: "EPERM", outside: &[] }
}

const fn only_inside(
    name: &'static str,
    number: libc::c_long,
    args: &'static str,
    outside: &'static [&'static str],
) -> Call {
    Call { name, number, args, inside: "EPERM", outside }
}

/// Arguments are chosen so that, were the call let through, the kernel would answer something else than `EPERM`
/// wherever an unprivileged process can get that far.
const CALLS: &[Call] = &[
    only_inside("unshare", libc::SYS_unshare, "0", &["ok"]),
    refused("unshare-user", libc::SYS_unshare, "0x10000000"),
    only_inside("clone-user", libc::SYS_clone, "0x10000000 | 0x800000, 0, 0, 0, 0", &["EINVAL", "ok"]),
    only_inside("setns", libc::SYS_setns, "-1, 0", &["EBADF"]),
    only_inside("mount", libc::SYS_mount, "0, 0, 0, 0, 0", &["EFAULT"]),
    only_inside("umount", libc::SYS_umount2, "0, 0", &["EFAULT"]),
    only_inside("pivot_root", libc::SYS_pivot_root, "0, 0", &["EFAULT"]),
    only_inside("chroot", libc::SYS_chroot, "0", &["EFAULT"]),
    only_inside("fsopen", libc::SYS_fsopen, "0, 0", &["EFAULT"]),
    only_inside("open_tree", libc::SYS_open_tree, "-100, b'/', 0", &["ok"]),
    only_inside("move_mount", libc::SYS_move_mount, "-1, b'', -1, b'', 0", &["EBADF", "ENOENT"]),
    only_inside("mount_setattr", libc::SYS_mount_setattr, "-1, b'', 0, 0, 0", &["EINVAL"]),
    only_inside("name_to_handle", libc::SYS_name_to_handle_at, "-100, b'/', 0, 0, 0", &["EFAULT"]),
    refused("open_by_handle", libc::SYS_open_by_handle_at, "-100, buffer, 0"),
    only_inside("ptrace", libc::SYS_ptrace, "0, 0, 0, 0", &["ok"]),
    only_inside("process_vm_readv", libc::SYS_process_vm_readv, "os.getpid(), 0, 0, 0, 0, 0", &["ok"]),
    only_inside("process_vm_writev", libc::SYS_process_vm_writev, "os.getpid(), 0, 0, 0, 0, 0", &["ok"]),
    only_inside("pidfd_getfd", libc::SYS_pidfd_getfd, "-1, 0, 0", &["EBADF"]),
    only_inside("kcmp", libc::SYS_kcmp, "os.getpid(), os.getpid(), 0, 0, 0", &["ok"]),
    only_inside("bpf", libc::SYS_bpf, "-1, 0, 0", &["EFAULT", "EINVAL", "EPERM"]),
    only_inside("perf_event_open", libc::SYS_perf_event_open, "0, 0, -1, -1, 0", &["EFAULT"]),
    only_inside("keyctl", libc::SYS_keyctl, "0, -3, 1", &["ok"]),
    only_inside("add_key", libc::SYS_add_key, "b'user', b'x', b'y', 1, -2", &["ok"]),
    only_inside("request_key", libc::SYS_request_key, "b'user', b'none', 0, 0", &["ENOKEY"]),
    only_inside("userfaultfd", libc::SYS_userfaultfd, "1", &["ok"]),
    only_inside("io_uring_setup", libc::SYS_io_uring_setup, "1, 0", &["EFAULT"]),
    only_inside("io_uring_enter", libc::SYS_io_uring_enter, "-1, 0, 0, 0, 0, 0", &["EBADF"]),
    only_inside("fanotify_init", libc::SYS_fanotify_init, "-1, 0", &["EINVAL", "EPERM"]),
    refused("kexec_load", libc::SYS_kexec_load, "0, 0, 0, -1"),
    refused("finit_module", libc::SYS_finit_module, "-1, b'', 0"),
    refused("swapon", libc::SYS_swapon, "b'/none', 0"),
    refused("reboot", libc::SYS_reboot, "0, 0, 0, 0"),
    refused("syslog", libc::SYS_syslog, "3, buffer, 256"),
    refused("sethostname", libc::SYS_sethostname, "b'x', 1"),
    refused("acct", libc::SYS_acct, "b'/none'"),
    refused("clock_settime", libc::SYS_clock_settime, "0, 0"),
    only_inside("personality", libc::SYS_personality, "0x0400000", &["ok"]),
    only_inside("tiocsti", libc::SYS_ioctl, "0, 0x5412, buffer", &["ENOTTY", "EPERM", "EIO"]),
    only_inside("prlimit-first", libc::SYS_prlimit64, "1, 7, 0, 0", &["ok", "EPERM"]),
    Call { name: "clone3", number: libc::SYS_clone3, args: "0, 0", inside: "ENOSYS", outside: &["EINVAL"] },
    Call {
        name: "openat2",
        number: libc::SYS_openat2,
        args: "-100, b'/', 0, 0",
        inside: "ENOSYS",
        outside: &["EINVAL"],
    },
    Call { name: "unknown", number: 9_999, args: "0", inside: "ENOSYS", outside: &["ENOSYS"] },
    Call { name: "control", number: libc::SYS_getpid, args: "", inside: "ok", outside: &["ok"] },
];

fn calls(world: &World) {
    let line = |each: &Call| format!("call('{}', {}, {})\n", each.name, each.number, each.args);
    let all: String = CALLS.iter().map(line).collect();
    for network in [Network::Isolated, Network::Gateway] {
        let mut payload = world.python(&format!("{PRELUDE}{all}"));
        payload.spec.network = network;
        let printed = payload.output();
        for each in CALLS {
            assert_answer(&printed, each.name, &[each.inside]);
        }
    }
    if world.mode != Mode::Root {
        // An ordinary user is refused several of them without any confinement; the controls are root's.
        return;
    }
    // Each in a process of its own: some of them, let through, change the process.
    for each in CALLS.iter().filter(|each| !each.outside.is_empty()) {
        let printed = outside(&format!("{PRELUDE}{}", line(each))).0;
        assert_answer(&printed, each.name, each.outside);
    }
}

fn assert_answer(printed: &str, name: &str, expected: &[&str]) {
    let prefix = format!("{name} ");
    let answer = printed.lines().find_map(|line| line.strip_prefix(&prefix));
    assert!(answer.is_some_and(|answer| expected.contains(&answer)), "{name}: {answer:?}, not {expected:?}\n{printed}");
}

fn sockets(world: &World) {
    // Family, type, protocol, and whether a payload may have it.
    let table: &[(&str, i32, i32, i32, bool)] = &[
        ("tcp", libc::AF_INET, libc::SOCK_STREAM, 0, true),
        ("tcp6", libc::AF_INET6, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_TCP, true),
        ("udp", libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, libc::IPPROTO_UDP, true),
        ("unix", libc::AF_UNIX, libc::SOCK_STREAM, 0, true),
        ("unix-packets", libc::AF_UNIX, libc::SOCK_SEQPACKET, 0, true),
        ("route", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE, true),
        ("vsock", libc::AF_VSOCK, libc::SOCK_STREAM, 0, false),
        ("packet", libc::AF_PACKET, libc::SOCK_RAW, 0, false),
        ("packet-datagram", libc::AF_PACKET, libc::SOCK_DGRAM, 0, false),
        ("alg", libc::AF_ALG, libc::SOCK_SEQPACKET, 0, false),
        ("xdp", libc::AF_XDP, libc::SOCK_RAW, 0, false),
        ("bluetooth", libc::AF_BLUETOOTH, libc::SOCK_RAW, 0, false),
        ("can", libc::AF_CAN, libc::SOCK_RAW, 0, false),
        ("tipc", libc::AF_TIPC, libc::SOCK_STREAM, 0, false),
        ("rds", libc::AF_RDS, libc::SOCK_SEQPACKET, 0, false),
        ("infiniband", libc::AF_IB, libc::SOCK_STREAM, 0, false),
        ("smc", 43, libc::SOCK_STREAM, 0, false),
        ("kcm", 41, libc::SOCK_DGRAM, 0, false),
        ("qualcomm", 42, libc::SOCK_DGRAM, 0, false),
        ("anything", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW, false),
        ("tunnel", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_GRE, false),
        ("groups", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_IGMP, false),
        ("raw6", libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_TCP, false),
        ("raw", libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP, false),
        ("ping", libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP, false),
        ("ping6", libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6, false),
        ("mptcp", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_MPTCP, false),
        ("sctp", libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP, false),
        ("sctp-packets", libc::AF_INET6, libc::SOCK_SEQPACKET, 0, false),
        ("udplite", libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE, false),
        ("dccp", libc::AF_INET, libc::SOCK_DCCP, 0, false),
        ("audit", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT, false),
        ("netfilter", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_NETFILTER, false),
        ("generic", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_GENERIC, false),
        ("diagnosis", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_SOCK_DIAG, false),
        ("transform", libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_XFRM, false),
        ("events", libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_KOBJECT_UEVENT, false),
        ("rdma", libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_RDMA, false),
    ];
    let calls: String = table
        .iter()
        .map(|(name, family, kind, protocol, _)| {
            format!("call('{name}', {}, {family}, {kind}, {protocol})\n", libc::SYS_socket)
        })
        .collect();
    let code = format!("{PRELUDE}{calls}");
    for network in [Network::Isolated, Network::Gateway] {
        let mut payload = world.python(&code);
        payload.spec.network = network;
        let inside = payload.output();
        for (name, .., allowed) in table {
            assert_answer(&inside, name, if *allowed { &["ok"] } else { &["EAFNOSUPPORT"] });
        }
    }
    let control = outside(&code).0;
    for name in ["tcp", "udp", "unix", "route", "generic"] {
        assert_answer(&control, name, &["ok"]);
    }
    let high_bits = format!("{PRELUDE}call('high', {}, {} | (1 << 40), 1, 0)\n", libc::SYS_socket, libc::AF_VSOCK);
    assert_answer(&world.python(&high_bits).output(), "high", &["EAFNOSUPPORT"]);
}

#[cfg(target_arch = "x86_64")]
fn other_tables(world: &World) {
    // mov eax, 20 (getpid in the 32-bit table); int 0x80; ret
    let code = "import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex('b814000000cd80c3'))
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
print('before', flush=True)
print('answer', ctypes.CFUNCTYPE(ctypes.c_int)(address)() > 0)";
    let outcome = world.python(code).run();
    assert_eq!((outcome.exit.signal, outcome.stdout.as_str()), (Some(libc::SIGSYS), "before\n"));
    let (control, status) = outside(code);
    // A kernel without the 32-bit table kills the control by another signal.
    assert!(control.contains("answer True") || !status.success(), "{control}");

    let x32 = format!("{PRELUDE}call('x32', {} | 0x40000000)\n", libc::SYS_getpid);
    assert_answer(&world.python(&x32).output(), "x32", &["ENOSYS"]);
}

#[cfg(not(target_arch = "x86_64"))]
fn other_tables(_: &World) {}

fn first_process(world: &World) {
    let code = format!(
        "{PRELUDE}
import signal
for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSTOP, signal.SIGUSR1, 64):
    try: os.kill(1, number); print('signal', number, 'sent')
    except OSError as error: print('signal', number, errno.errorcode[error.errno])
for name in ('mem', 'environ', 'maps', 'root', 'exe', 'fd', 'ns/net', 'stack', 'cwd'):
    try: (os.listdir if name == 'fd' else os.readlink if name in ('root', 'exe', 'ns/net', 'cwd') else open)('/proc/1/' + name); print(name, 'ok')
    except OSError as error: print(name, errno.errorcode[error.errno])
try: os.kill(-1, signal.SIGCONT); print('all ok')
except OSError as error: print('all', errno.errorcode[error.errno])
print('alive')"
    );
    let printed = world.python(&code).output();
    for name in ["mem", "environ", "maps", "root", "exe", "fd", "ns/net", "stack", "cwd"] {
        assert_answer(&printed, name, &["ENOENT", "EACCES", "EPERM"]);
    }
    // As the first process is alive to report the end, no signal had an effect.
    assert!(printed.ends_with("alive\n"), "{printed}");
}

fn identity(world: &World) {
    let code = "import os, errno
def attempt(name, action):
    try: action(); print(name, 'ok')
    except OSError as error: print(name, errno.errorcode[error.errno])
attempt('setuid', lambda: os.setuid(0))
attempt('setresuid', lambda: os.setresuid(0, 0, 0))
attempt('setgid', lambda: os.setgid(0))
attempt('setgroups', lambda: os.setgroups([0]))
attempt('nice', lambda: os.nice(-5))
attempt('control', lambda: os.setuid(1000))
def map():
    with open('/proc/self/uid_map', 'w') as file: file.write('0 0 1')
attempt('uid_map', map)";
    let printed = world.python(code).output();
    for name in ["setuid", "setresuid", "setgid", "setgroups"] {
        assert_answer(&printed, name, &["EPERM", "EINVAL"]);
    }
    assert_answer(&printed, "nice", &["EPERM", "EACCES"]);
    assert_answer(&printed, "control", &["ok"]);
    assert_answer(&printed, "uid_map", &["EPERM", "EACCES"]);
    // A set-user-id program of the system gives nothing.
    let su = "import os; print(os.stat('/usr/bin/su').st_mode & 0o4000, os.popen('/usr/bin/id -u').read().strip())";
    if std::path::Path::new("/usr/bin/su").exists() {
        assert!(world.python(su).output().ends_with(" 1000\n"));
        let mounted =
            world.python("print([l.split()[3] for l in open('/proc/mounts') if l.split()[1] == '/usr'])").output();
        for flag in ["ro", "nosuid", "nodev"] {
            assert!(mounted.contains(flag), "{mounted}");
        }
    }
}

fn settings(world: &World) {
    let code = "import errno, os
for path in ('/proc/sys/kernel/core_pattern', '/proc/sys/kernel/hostname', '/proc/sys/user/max_user_namespaces',
             '/proc/sys/net/ipv4/ip_forward', '/proc/sys/vm/overcommit_memory', '/proc/sysrq-trigger', '/proc/self/oom_score_adj'):
    try: 
        with open(path, 'w') as file: file.write('-1000' if 'oom' in path else '1')
        print(path, 'ok')
    except OSError as error: print(path, errno.errorcode[error.errno])
print([place for place in ('/', '/proc/sys', '/usr', '/etc/passwd') if not os.statvfs(place).f_flag & os.ST_RDONLY])
print(open('/proc/sys/user/max_user_namespaces').read().strip())
open('/proc/self/comm', 'w').write('renamed')
print(open('/proc/self/comm').read().strip())";
    let printed = world.python(code).output();
    let lines: Vec<&str> = printed.lines().collect();
    for line in &lines[..5] {
        assert!(line.ends_with("EROFS") || line.ends_with("EACCES") || line.ends_with("EPERM"), "{line}");
    }
    // The masked trigger is the null device.
    assert!(!lines[5].contains("EFAULT"), "{}", lines[5]);
    assert!(lines[6].ends_with("EACCES") || lines[6].ends_with("EPERM"), "{}", lines[6]);
    assert_eq!(lines[7..], ["[]", "0", "renamed"]);
}

fn ordinary(world: &World) {
    let code = "import asyncio, concurrent.futures, mmap, multiprocessing, os, random, socket, subprocess, tempfile, threading, time
def square(x): return x * x
assert subprocess.run(['/bin/sh', '-c', 'echo $((6*7))'], capture_output=True).stdout == b'42\\n'
with concurrent.futures.ThreadPoolExecutor(8) as pool: assert sum(pool.map(square, range(10))) == 285
context = multiprocessing.get_context('fork')
with context.Pool(2) as pool: assert sum(pool.map(square, range(10))) == 285
queue = context.Queue(); queue.put(1); assert queue.get() == 1
async def serve():
    async def answer(reader, writer): writer.write(await reader.read(5)); await writer.drain(); writer.close()
    server = await asyncio.start_server(answer, '127.0.0.1', 8000)
    reader, writer = await asyncio.open_connection('localhost', 8000)
    writer.write(b'hello'); assert await reader.read() == b'hello'
    server.close()
asyncio.run(serve())
with tempfile.TemporaryDirectory() as dir:
    os.rename(tempfile.mkstemp(dir=dir)[1], dir + '/renamed'); os.makedirs(dir + '/a/b'); os.rename(dir + '/renamed', dir + '/a/b/c')
    open(dir + '/data', 'wb').write(b'x' * 100)
    with open(dir + '/data', 'r+b') as file, mmap.mmap(file.fileno(), 0) as mapped: mapped[0] = 1; file.truncate(10)
from multiprocessing import shared_memory
shared = shared_memory.SharedMemory(create=True, size=4096); shared.close(); shared.unlink()
assert len(os.sched_getaffinity(0)) >= 1 and os.cpu_count() >= 1 and os.getloadavg()
import pwd, getpass, sqlite3, zlib, hashlib, ctypes
assert pwd.getpwuid(os.getuid()).pw_name == 'casemate' and os.path.expanduser('~') == '/home/casemate'
assert sqlite3.connect('/tmp/x.db').execute('select 1').fetchone() == (1,)
assert open('/proc/meminfo').read() and open('/proc/cpuinfo').read() and os.urandom(8)
print('fine')";
    let outcome = world.python(code).run();
    assert_eq!(outcome.stdout, "fine\n", "{:?} {}", outcome.exit, outcome.stderr);
}
