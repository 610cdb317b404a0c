//! What a sandbox costs: the launch, the end, a socket inside, a connection to its gateway, and the memory that each
//! takes. Prints one line a figure.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement, not the platform")]

use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use casemate_sandbox::{Launcher, LauncherConfig, Limits, Network, Sandbox, SandboxSpec};
use nix::sys::socket::{setsockopt, sockopt};

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
    for network in [Network::Isolated, Network::Gateway] {
        launches(&launcher, network);
    }
    sockets(&launcher);
    connections(&launcher);
    for network in [Network::Isolated, Network::Gateway] {
        memory(&launcher, network, 40);
    }
    memory(&launcher, Network::Gateway, 200);
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

fn launch(launcher: &Launcher, network: Network, program: &str, args: &[&str]) -> Sandbox {
    launch_to(launcher, network, program, args, null())
}

fn null() -> OwnedFd {
    OwnedFd::from(std::fs::File::options().write(true).open("/dev/null").unwrap())
}

fn launch_to(launcher: &Launcher, network: Network, program: &str, args: &[&str], stdout: OwnedFd) -> Sandbox {
    let spec = SandboxSpec {
        name: "bench".into(),
        program: program.into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: Vec::new(),
        cwd: "/".into(),
        mounts: Vec::new(),
        network,
        installer_config: false,
        limits: Limits { memory_bytes: 256 << 20, milli_cpus: 2000, pids: 64, scratch_bytes: 64 << 20 },
        stdout,
        stderr: null(),
    };
    launcher.launch(spec).unwrap()
}

fn wait(sandbox: &mut Sandbox) {
    let mut ended = [nix::poll::PollFd::new(sandbox.pidfd(), nix::poll::PollFlags::POLLIN)];
    nix::poll::poll(&mut ended, nix::poll::PollTimeout::NONE).unwrap();
}

fn launches(launcher: &Launcher, network: Network) {
    let (mut begun, mut whole, mut dropped) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..100 {
        let started = Instant::now();
        let mut sandbox = launch(launcher, network, "/bin/true", &[]);
        begun.push(started.elapsed());
        wait(&mut sandbox);
        sandbox.try_wait().unwrap().unwrap();
        whole.push(started.elapsed());
        let ended = Instant::now();
        drop(sandbox);
        dropped.push(ended.elapsed());
    }
    report(&format!("{network:?}: launch until the program executes"), begun);
    report(&format!("{network:?}: launch, run /bin/true, end"), whole);
    report(&format!("{network:?}: drop after the end"), dropped);
}

fn sockets(launcher: &Launcher) {
    let sandbox = launch(launcher, Network::Isolated, "/usr/bin/python3", &["-I", "-c", SERVER]);
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

/// What the payload waits for: the kernel's refusals, and the gateway's answers at their fastest.
const CLIENT: &str = "import socket, time
def measure(what, kind, address, word=None):
    times = []
    for _ in range(3000):
        begun = time.perf_counter_ns()
        with socket.socket(socket.AF_INET, kind) as s:
            try:
                s.connect(address)
                if kind == socket.SOCK_DGRAM: s.send(b'x')
                if s.recv(1) == b'y': s.recv(1)
            except OSError: pass
        times.append((time.perf_counter_ns() - begun) / 1000)
    times.sort()
    print(f'{what}: median {times[1500]:.0f} us, p90 {times[2700]:.0f} us, least {times[0]:.0f} us', flush=True)
measure('a closed port of the sandbox itself, refused', socket.SOCK_STREAM, ('127.0.0.1', 9))
measure('a datagram to elsewhere, refused', socket.SOCK_DGRAM, ('8.8.8.8', 443))
measure('connect and the reset by the gateway', socket.SOCK_STREAM, ('8.8.8.8', 1))
measure('connect, a first byte from the gateway and the end', socket.SOCK_STREAM, ('8.8.8.8', 2))
";

fn connections(launcher: &Launcher) {
    let (mut printed, stdout) = std::io::pipe().unwrap();
    let mut sandbox = launch_to(launcher, Network::Gateway, "/usr/bin/python3", &["-I", "-c", CLIENT], stdout.into());
    let listener = TcpListener::from(sandbox.take_egress().unwrap().tcp);
    let listens = listener.try_clone().unwrap();
    let gateway = std::thread::spawn(move || {
        listens.set_nonblocking(false).unwrap();
        while let Ok((mut stream, _)) = listens.accept() {
            match stream.local_addr().unwrap().port() {
                1 => setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 }).unwrap(),
                // The client may have given up.
                _ => drop(stream.write_all(b"y")),
            }
        }
    });
    wait(&mut sandbox);
    drop(sandbox);
    // Wakes the thread, which then ends.
    nix::sys::socket::shutdown(listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).unwrap();
    gateway.join().unwrap();
    let mut text = String::new();
    printed.read_to_string(&mut text).unwrap();
    print!("{text}");
}

/// Memory of the host that many idle sandboxes take beyond their payload's own.
fn memory(launcher: &Launcher, network: Network, count: u64) {
    let before = (available(), slab());
    let started = Instant::now();
    let mut sandboxes: Vec<Sandbox> = (0..count).map(|_| launch(launcher, network, "/bin/sleep", &["600"])).collect();
    let launched = started.elapsed();
    let after = (available(), slab());
    let living = sandboxes.iter_mut().map(|each| each.try_wait().unwrap()).filter(Option::is_none).count();
    println!(
        "{network:?}: {living} sandboxes of sleep at once, launched in {launched:?}: {} KiB each, of it kernel {} KiB",
        (before.0.saturating_sub(after.0)) / count,
        (after.1.saturating_sub(before.1)) / count
    );
    let counted = sandboxes.iter().map(|sandbox| sandbox.usage().memory_bytes >> 10).sum::<u64>() / count;
    println!("{network:?}: {counted} KiB each as their limits count it");
    let first = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", sandboxes[0].pid())).unwrap();
    let private: u64 = first.lines().filter(|line| line.starts_with("Private_")).filter_map(kilobytes).sum();
    println!("{network:?}: private memory of a first process: {private} KiB");
    let ended = Instant::now();
    drop(sandboxes);
    println!("{network:?}: all of them ended in {:?}", ended.elapsed());
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
