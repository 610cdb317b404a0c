//! What a sandbox costs: the launch, the end, a socket inside, and the memory that each takes. Prints one line a figure.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, not the platform")]

use std::net::{SocketAddrV4, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use casemate_sandbox::{Launcher, LauncherConfig, Limits, Network, Sandbox, SandboxSpec};

const SERVER: &str = "import socket
server = socket.create_server(('127.0.0.1', 5001), backlog=4096)
while True:
    connection, _ = server.accept()
    connection.close()";

fn main() {
    if std::env::args().nth(1).as_deref() == Some(casemate_sandbox::HELPER_ARG) {
        casemate_sandbox::helper_main();
    }
    let privilege = casemate_sandbox::prepare_process().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let launcher = Launcher::new(config(dir.path())).unwrap();
    println!("privilege {privilege:?}, limits {:?}, launcher ready in {:?}", launcher.limits(), started.elapsed());
    launches(&launcher);
    sockets(&launcher);
    memory(&launcher);
}

fn config(dir: &Path) -> LauncherConfig {
    let group = format!("bench-{}", std::process::id());
    LauncherConfig {
        helper: "/proc/self/exe".into(),
        helper_args: Vec::new(),
        cgroup_group: group,
        scratch: dir.join("scratch"),
    }
}

fn launch(launcher: &Launcher, program: &str, args: &[&str]) -> Sandbox {
    let null = || OwnedFd::from(std::fs::File::options().write(true).open("/dev/null").unwrap());
    let spec = SandboxSpec {
        name: "bench".into(),
        program: program.into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: Vec::new(),
        cwd: "/".into(),
        mounts: Vec::new(),
        network: Network::Isolated,
        installer_config: false,
        limits: Limits { memory_bytes: 256 << 20, milli_cpus: 2000, pids: 64, scratch_bytes: 64 << 20 },
        stdout: null(),
        stderr: null(),
    };
    launcher.launch(spec).unwrap()
}

fn wait(sandbox: &mut Sandbox) {
    let mut ended = [nix::poll::PollFd::new(sandbox.pidfd(), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut ended, nix::poll::PollTimeout::NONE).unwrap();
}

fn launches(launcher: &Launcher) {
    let (mut begun, mut whole, mut dropped) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..100 {
        let started = Instant::now();
        let mut sandbox = launch(launcher, "/bin/true", &[]);
        begun.push(started.elapsed());
        wait(&mut sandbox);
        sandbox.try_wait().unwrap().unwrap();
        whole.push(started.elapsed());
        let ended = Instant::now();
        drop(sandbox);
        dropped.push(ended.elapsed());
    }
    report("launch until the program executes", begun);
    report("launch, run /bin/true, end", whole);
    report("drop after the end", dropped);
}

fn sockets(launcher: &Launcher) {
    let sandbox = launch(launcher, "/usr/bin/python3", &["-I", "-c", SERVER]);
    let address = nix::sys::socket::SockaddrIn::from(SocketAddrV4::new([127, 0, 0, 1].into(), 5001));
    let connect = || {
        let stream = TcpStream::from(sandbox.socket().unwrap());
        stream.set_nonblocking(false).unwrap();
        nix::sys::socket::connect(stream.as_raw_fd(), &address)
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while connect().is_err() {
        assert!(Instant::now() < deadline, "the server never listened");
        std::thread::sleep(Duration::from_millis(5));
    }
    let time = |action: &dyn Fn()| {
        let started = Instant::now();
        action();
        started.elapsed()
    };
    report("socket()", (0..2000).map(|_| time(&|| drop(sandbox.socket().unwrap()))).collect());
    report("socket() and connect", (0..1000).map(|_| time(&|| connect().unwrap())).collect());
}

/// Memory of the host that many idle sandboxes take beyond their payload's own.
fn memory(launcher: &Launcher) {
    const COUNT: u64 = 40;
    let before = (available(), slab());
    let sandboxes: Vec<Sandbox> = (0..COUNT).map(|_| launch(launcher, "/bin/sleep", &["600"])).collect();
    let after = (available(), slab());
    println!(
        "{COUNT} sandboxes of sleep: {} KiB each, of it kernel {} KiB",
        (before.0.saturating_sub(after.0)) / COUNT,
        (after.1.saturating_sub(before.1)) / COUNT
    );
    let first = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", sandboxes[0].pid())).unwrap();
    let private: u64 = first.lines().filter(|line| line.starts_with("Private_")).filter_map(kilobytes).sum();
    println!("private memory of a first process: {private} KiB");
}

fn meminfo(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    text.lines().find(|line| line.starts_with(field)).and_then(kilobytes).unwrap()
}

fn available() -> u64 {
    meminfo("MemFree:")
}

fn slab() -> u64 {
    meminfo("Slab:") + meminfo("KernelStack:") + meminfo("PageTables:") + meminfo("Percpu:")
}

fn kilobytes(line: &str) -> Option<u64> {
    line.split_whitespace().nth(1)?.parse().ok()
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    println!("{what}: median {:?}, p90 {:?}, least {:?}", at(50), at(90), at(0));
}
