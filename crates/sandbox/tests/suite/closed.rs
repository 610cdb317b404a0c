//! That a launcher refuses to exist where something is missing, and says what.

use casemate_sandbox::{KernelFeatures, Launcher, SandboxError};

use crate::Test;
use crate::gateway::Gateway;
use crate::world::{World, config};

pub const TESTS: &[Test] = &[
    Test { name: "a_missing_feature_is_named", check: missing_feature },
    Test { name: "no_landlock_no_launcher", check: no_landlock },
    Test { name: "no_filter_no_launcher", check: no_seccomp },
    Test { name: "no_user_namespaces_no_launcher", check: no_user_namespaces },
    Test { name: "no_packet_rules_no_launcher", check: no_packet_rules },
    Test { name: "without_version_6_the_gateway_has_version_4", check: no_version_6 },
    Test { name: "an_unusable_group_name_is_refused", check: group_name },
];

fn refusal(world: &World, features: &KernelFeatures) -> SandboxError {
    let dir = world.make_dir("refused");
    match Launcher::with_features(config(&dir), features) {
        Ok(_) => panic!("the launcher must not exist"),
        Err(error) => error,
    }
}

fn missing_feature(world: &World) {
    let features = KernelFeatures { landlock_abi: Ok(1), ..KernelFeatures::detect() };
    let error = refusal(world, &features);
    assert!(matches!(error, SandboxError::Missing { .. }), "{error}");
    let words = error.to_string();
    assert!(words.contains("Landlock") && words.contains("ABI 1") && words.contains("Use Linux"), "{words}");
}

/// Makes one system call fail in this process and all that it starts, as on a kernel without it.
fn take_away(call: libc::c_long, errno: i32) {
    take_away_where(call, &[], errno);
}

/// The same, where the call's arguments have these values.
fn take_away_where(call: libc::c_long, arguments: &[(u8, libc::c_int)], errno: i32) {
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    };
    let condition = |(argument, value): &(u8, libc::c_int)| {
        SeccompCondition::new(*argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *value as u64).unwrap()
    };
    let rule = || SeccompRule::new(arguments.iter().map(condition).collect()).unwrap();
    let rules = [(call, if arguments.is_empty() { Vec::new() } else { vec![rule()] })].into_iter().collect();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter_all_threads(&program).unwrap();
}

fn no_landlock(world: &World) {
    take_away(libc::SYS_landlock_create_ruleset, libc::EOPNOTSUPP);
    let words = refusal(world, &KernelFeatures::detect()).to_string();
    assert!(words.contains("Landlock") && words.contains("not supported"), "{words}");
    // Even if the first look were wrong, a launch finds out.
    let dir = world.make_dir("blind");
    let features = KernelFeatures { landlock_abi: Ok(6), ..KernelFeatures::detect() };
    let words = Launcher::with_features(config(&dir), &features).err().unwrap().to_string();
    assert!(words.contains("Landlock"), "{words}");
}

fn no_seccomp(world: &World) {
    take_away(libc::SYS_seccomp, libc::EINVAL);
    let words = refusal(world, &KernelFeatures::detect()).to_string();
    assert!(words.contains("seccomp"), "{words}");
    let dir = world.make_dir("blind");
    let features = KernelFeatures { seccomp: Ok(()), ..KernelFeatures::detect() };
    let words = Launcher::with_features(config(&dir), &features).err().unwrap().to_string();
    assert!(words.contains("seccomp"), "{words}");
}

fn no_packet_rules(world: &World) {
    let netfilter = [(0, libc::AF_NETLINK), (2, libc::NETLINK_NETFILTER)];
    take_away_where(libc::SYS_socket, &netfilter, libc::EPROTONOSUPPORT);
    let error = refusal(world, &KernelFeatures::detect());
    assert!(matches!(error, SandboxError::Missing { feature: "transparent proxying", .. }), "{error}");
    let words = error.to_string();
    assert!(words.contains("not supported") && words.contains("CONFIG_NFT_TPROXY"), "{words}");
    // Where it was there when the platform started, each launch finds out, and only launches that need it fail.
    let error = world.launcher.launch(world.python_behind("").spec).unwrap_err();
    assert!(matches!(error, SandboxError::Missing { .. }), "{error}");
    world.payload("/bin/true", &[]).output();
}

fn no_version_6(world: &World) {
    take_away_where(libc::SYS_socket, &[(0, libc::AF_INET6)], libc::EAFNOSUPPORT);
    let code = "attempt('tcp', lambda: tcp('8.8.8.8', 443))
attempt('dns', lambda: udp('8.8.8.8', 53, data=QUERY))
attempt('tcp6', lambda: tcp('2001:db8::1', 443))";
    let mut running = world.python_behind(code).start();
    let sockets = running.sandbox.take_egress().unwrap();
    assert_eq!(sockets.dns.len(), 1);
    let _gateway = Gateway::serve(sockets);
    assert_eq!(running.finish().stdout, "tcp for 8.8.8.8:443\ndns 43\ntcp6 EAFNOSUPPORT\n");
}

fn no_user_namespaces(world: &World) {
    // In a user namespace of this process's own, of which the limit is then zero.
    let outcome = std::process::Command::new(std::fs::read_link("/proc/self/exe").unwrap())
        .args([crate::NO_NAMESPACES_ARG.as_ref(), world.make_dir("none").as_os_str()])
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&outcome.stdout);
    assert!(words.contains("user namespaces") && words.contains("max_user_namespaces"), "{words} {outcome:?}");
}

/// The other half of the test above, in a process without threads.
pub fn without_user_namespaces(dir: &std::path::Path) {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).unwrap();
    std::fs::write("/proc/self/setgroups", "deny").unwrap();
    // The map does not matter: the platform's user is enough to have all rights in here.
    std::fs::write("/proc/self/uid_map", format!("0 {} 1", 0)).unwrap();
    std::fs::write("/proc/self/gid_map", format!("0 {} 1", 0)).unwrap();
    std::fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
    println!("{}", Launcher::new(config(dir)).err().unwrap());
}

fn group_name(world: &World) {
    for name in ["", "../up", "a b", ".hidden", &"x".repeat(65)] {
        let dir = world.dir.path().join("group");
        let error = Launcher::new(casemate_sandbox::LauncherConfig { cgroup_group: name.into(), ..config(&dir) });
        assert!(matches!(error, Err(SandboxError::Spec(_))), "{name:?}");
    }
}
