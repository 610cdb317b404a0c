//! What is refused although the call exists, or refused loudly: calls by which a process leaves its confinement, and
//! arguments that turn a harmless call into such a one.

use libc::c_long;
use seccompiler::{
    BackendError, SeccompCmpArgLen::Dword, SeccompCmpOp, SeccompCmpOp::Eq, SeccompCmpOp::MaskedEq, SeccompCmpOp::Ne,
    SeccompCondition, SeccompRule,
};

use super::Rules;

type Result<T> = std::result::Result<T, BackendError>;

/// Refused whatever the arguments: `EPERM` says so to whoever reads a trace.
const ALWAYS: &[c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// Namespace flags of clone.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// Terminal requests that type on behalf of the user.
const TYPING: [u64; 2] = [0x5412, 0x541c];
/// Execution domains that may be asked for: the native one, and the query.
const PERSONALITIES: [u64; 2] = [0, 0xffff_ffff];
/// Bits that give a file's user or group to whoever executes it.
const SET_ID: [u64; 2] = [libc::S_ISUID as u64, libc::S_ISGID as u64];

/// The `EPERM` layer.
pub fn calls() -> Result<Rules> {
    let mut rules: Rules = ALWAYS.iter().map(|call| (*call, Vec::new())).collect();
    let any_bit = |argument, bits: &[u64]| bits.iter().map(|bit| rule(&[has(argument, *bit)?])).collect::<Result<_>>();
    rules.push((libc::SYS_clone, any_bit(0, &NAMESPACES.map(|flag| flag as u32 as u64))?));
    rules.push((libc::SYS_ioctl, TYPING.iter().map(|request| rule(&[is(1, *request)?])).collect::<Result<_>>()?));
    rules.push((libc::SYS_personality, vec![rule(&none_of(0, &PERSONALITIES)?)?]));
    // The first process shares the payload's user where only one id can be mapped.
    rules.push((libc::SYS_prlimit64, vec![rule(&[is(0, 1)?])?]));
    for (call, mode) in modes() {
        rules.push((call, any_bit(mode, &SET_ID)?));
    }
    for (call, flags, mode) in opens() {
        let mut each = Vec::new();
        for creates in [libc::O_CREAT as u64, (libc::O_TMPFILE & !libc::O_DIRECTORY) as u64] {
            for bit in SET_ID {
                each.push(rule(&[has(flags, creates)?, has(mode, bit)?])?);
            }
        }
        rules.push((call, each));
    }
    Ok(rules)
}

/// The `EAFNOSUPPORT` layer: only unix, internet and route-netlink sockets, and of the internet ones only TCP and UDP.
pub fn sockets() -> Result<Rules> {
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(|family| family as u64);
    let mut rules = vec![rule(&none_of(0, &families)?)?];
    rules.push(rule(&[is(0, libc::AF_NETLINK as u64)?, is_not(2, libc::NETLINK_ROUTE as u64)?])?);
    let protocols = [0, libc::IPPROTO_TCP as u64, libc::IPPROTO_UDP as u64];
    for family in [libc::AF_INET as u64, libc::AF_INET6 as u64] {
        let mut other_protocol = none_of(2, &protocols)?;
        other_protocol.push(is(0, family)?);
        rules.push(rule(&other_protocol)?);
    }
    for kind in (0..16).filter(|kind| ![libc::SOCK_STREAM, libc::SOCK_DGRAM].contains(kind)) {
        // Netlink knows raw sockets only; unix sockets may keep message boundaries.
        let mut conditions = vec![kind_is(1, kind as u64)?, is_not(0, libc::AF_NETLINK as u64)?];
        if kind == libc::SOCK_SEQPACKET {
            conditions.push(is_not(0, libc::AF_UNIX as u64)?);
        }
        rules.push(rule(&conditions)?);
    }
    let pairs = vec![rule(&[is_not(0, libc::AF_UNIX as u64)?])?];
    Ok(vec![(libc::SYS_socket, rules), (libc::SYS_socketpair, pairs)])
}

/// Calls that set a file's mode, and which argument is the mode.
fn modes() -> Vec<(c_long, u8)> {
    let mut all =
        vec![(libc::SYS_fchmod, 1), (libc::SYS_fchmodat, 2), (libc::SYS_fchmodat2, 2), (libc::SYS_mknodat, 2)];
    #[cfg(target_arch = "x86_64")]
    all.extend([(libc::SYS_chmod, 1), (libc::SYS_creat, 1), (libc::SYS_mknod, 1)]);
    all
}

/// Calls that may create a file: the flags' and the mode's arguments.
fn opens() -> Vec<(c_long, u8, u8)> {
    let mut all = vec![(libc::SYS_openat, 2, 3)];
    #[cfg(target_arch = "x86_64")]
    all.push((libc::SYS_open, 1, 2));
    all
}

fn rule(conditions: &[SeccompCondition]) -> Result<SeccompRule> {
    SeccompRule::new(conditions.to_vec())
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition> {
    SeccompCondition::new(argument, Dword, operator, value)
}

fn is(argument: u8, value: u64) -> Result<SeccompCondition> {
    condition(argument, Eq, value)
}

fn is_not(argument: u8, value: u64) -> Result<SeccompCondition> {
    condition(argument, Ne, value)
}

fn has(argument: u8, bit: u64) -> Result<SeccompCondition> {
    condition(argument, MaskedEq(bit), bit)
}

/// The type of a socket without its flags.
fn kind_is(argument: u8, kind: u64) -> Result<SeccompCondition> {
    condition(argument, MaskedEq(0xf), kind)
}

fn none_of(argument: u8, values: &[u64]) -> Result<Vec<SeccompCondition>> {
    values.iter().map(|value| is_not(argument, *value)).collect()
}
