//! That a payload runs with what it was given and nothing else, and how it ends.

use casemate_sandbox::{Access, SandboxError, Step};

use crate::Test;
use crate::world::{World, until};

pub const TESTS: &[Test] = &[
    Test { name: "true_succeeds", check: true_succeeds },
    Test { name: "output_and_exit_code_are_captured", check: output_and_code },
    Test { name: "a_signal_is_reported", check: signal_reported },
    Test { name: "terminate_asks_and_kill_does_not", check: terminate_and_kill },
    Test { name: "nothing_is_inherited", check: nothing_inherited },
    Test { name: "identity_and_rights_are_gone", check: identity },
    Test { name: "a_daemon_dies_with_the_payload", check: daemon_dies },
    Test { name: "zombies_are_reaped", check: zombies },
    Test { name: "outputs_can_be_opened_by_name", check: outputs_by_name },
    Test { name: "a_failed_launch_says_why", check: failed_launch },
];

fn true_succeeds(world: &World) {
    let outcome = world.payload("/bin/true", &[]).run();
    assert_eq!((outcome.exit.code, outcome.exit.signal, outcome.exit.out_of_memory), (Some(0), None, false));
}

fn output_and_code(world: &World) {
    let outcome = world.python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)").run();
    assert_eq!((outcome.exit.code, outcome.exit.signal), (Some(7), None));
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
}

fn signal_reported(world: &World) {
    let outcome = world.python("import os; os.abort()").run();
    assert_eq!((outcome.exit.code, outcome.exit.signal), (None, Some(6)));
}

fn terminate_and_kill(world: &World) {
    let polite = "import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
print('ready', flush=True)
time.sleep(600)";
    let mut running = world.python(polite).start();
    running.wait_for("ready");
    assert_eq!(running.sandbox.try_wait().unwrap(), None);
    running.sandbox.terminate();
    assert_eq!(running.wait().code, Some(5));

    let stubborn = "import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: os.write(1, b'heard\\n'))
print('ready', flush=True)
while True: time.sleep(600)";
    let mut running = world.python(stubborn).start();
    running.wait_for("ready");
    running.sandbox.terminate();
    running.wait_for("heard");
    running.sandbox.kill();
    let exit = running.wait();
    assert_eq!((exit.code, exit.signal, exit.out_of_memory), (None, Some(9), false));
    assert_eq!(running.sandbox.try_wait().unwrap(), Some(exit), "the answer must not change");
}

fn nothing_inherited(world: &World) {
    let code = "import os, signal
print('fds', sorted(int(fd) for fd in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + fd)))
print('stdin', os.read(0, 1), os.readlink('/proc/self/fd/0'))
print('env', sorted(os.environ.items()))
print('cwd', os.getcwd(), 'host', os.uname().nodename, 'pids', sorted(p for p in os.listdir('/proc') if p.isdigit()))
masks = {l[:6]: int(l.split()[1], 16) for l in open('/proc/self/status') if l.startswith('Sig') and l[3] in 'BI'}
print('signals', masks['SigBlk'], masks['SigIgn'] & ~(3 << 31) == 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)
print('umask', oct(os.umask(0)), 'session', os.getsid(0) == os.getpid())";
    // The platform leaks a descriptor; the payload must not see it.
    let _leaked = nix::unistd::dup(std::io::stdout()).unwrap();
    // Python itself ignores SIGPIPE and SIGXFSZ; signals 32 and 33 belong to the C library.
    let printed = world.python(code).output();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "fds [0, 1, 2]");
    assert_eq!(lines[1], "stdin b'' /dev/null");
    assert_eq!(lines[2], "env [('LC_CTYPE', 'C.UTF-8'), ('PATH', '/usr/bin:/bin')]");
    assert_eq!(lines[3], "cwd /tmp host test pids ['2']");
    assert_eq!(lines[4], "signals 0 True");
    assert_eq!(lines[5], "umask 0o22 session True");
}

fn identity(world: &World) {
    let mut running = world.python("import time; print('ready', flush=True); time.sleep(600)").start();
    running.wait_for("ready");
    let first = running.sandbox.pid();
    let payload = child_of(first);
    let status = Status::read(payload);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status.field(set), "0000000000000000", "{set}");
    }
    assert_eq!((status.field("NoNewPrivs"), status.field("Seccomp")), ("1", "2"));
    let first = Status::read(first);
    let init_caps = first.field("CapPrm");
    // The suite itself may run in a user namespace, where its own user shows as 0.
    let outside =
        |status: &Status| status.field("Uid").split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<u32>>();
    match world.mode.privilege() {
        casemate_sandbox::Privilege::Root => {
            assert!(outside(&status).iter().all(|id| *id >= 0x7000_0000), "{:?}", outside(&status));
            assert!(outside(&first).iter().all(|id| *id >= 0x7000_0000));
            assert_ne!(outside(&first), outside(&status));
            assert_eq!(init_caps, "0000000000000020", "only the right to signal the payload");
            assert_eq!(status.field("Groups"), "");
        }
        casemate_sandbox::Privilege::UserNamespace => assert_eq!(init_caps, "0000000000000000"),
    }
    let inside = world.python("import os; print(os.getresuid(), os.getresgid())").output();
    assert_eq!(inside, "(1000, 1000, 1000) (1000, 1000, 1000)\n");
}

fn child_of(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap_or_else(|_| panic!("one child expected, not {children:?}"))
}

struct Status(String);

impl Status {
    fn read(pid: u32) -> Self {
        Self(std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap())
    }

    fn field(&self, name: &str) -> &str {
        self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap().trim()
    }
}

fn daemon_dies(world: &World) {
    let code = "import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print('daemon', flush=True)
        time.sleep(600)
    os._exit(0)
os.wait()
time.sleep(0.2)
sys.exit(3)";
    let marker = format!("marker-{}", std::process::id());
    let mut payload = world.python(code);
    payload.spec.args.push(marker.clone());
    let mut running = payload.start();
    running.wait_for("daemon");
    assert_eq!(running.wait().code, Some(3));
    until("the daemon is gone", || crate::world::processes_with(&marker).is_empty());
}

fn zombies(world: &World) {
    // Orphans that end become the first process's to collect; the payload sees them disappear.
    let code = "import os, time
for _ in range(20):
    if os.fork() == 0:
        if os.fork() == 0: os._exit(0)
        os._exit(0)
    os.wait()
deadline = time.monotonic() + 30
while True:
    alive = [p for p in os.listdir('/proc') if p.isdigit()]
    if alive == [str(os.getpid())]: break
    assert time.monotonic() < deadline, alive
    time.sleep(0.01)";
    world.python(code).output();
}

fn outputs_by_name(world: &World) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut payload = world.python("open('/dev/stdout', 'w').write('by name')");
    payload.spec.stdout = writer.into();
    let outcome = payload.run();
    assert_eq!(outcome.exit.code, Some(0), "{}", outcome.stderr);
    assert_eq!(std::io::read_to_string(&mut reader).unwrap(), "by name");
}

fn failed_launch(world: &World) {
    let started = |payload: crate::world::Payload<'_>| world.launcher.launch(payload.spec);
    let missing = started(world.payload("/bin/no-such-program", &[])).unwrap_err();
    assert!(matches!(missing, SandboxError::Launch { step: Step::Exec, .. }), "{missing}");
    assert!(missing.to_string().contains("/bin/no-such-program: No such file"), "{missing}");

    let mut payload = world.payload("/bin/true", &[]);
    payload.spec.cwd = "/nowhere".into();
    let error = started(payload).unwrap_err().to_string();
    assert!(error.contains("/nowhere"), "{error}");

    let absent = world.dir.path().join("absent");
    let error = started(world.payload("/bin/true", &[]).mount(&absent, "/srv", Access::ReadOnly)).unwrap_err();
    assert!(error.to_string().contains("absent"), "{error}");

    let link = world.dir.path().join("link");
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    let error = started(world.payload("/bin/true", &[]).mount(&link, "/srv", Access::ReadOnly)).unwrap_err();
    assert!(error.to_string().contains("symbolic link"), "{error}");
    until("failed launches leave no process", || crate::world::children().is_empty());
}
