//! That what a payload may use is bounded, and that a payload which takes more is ended and the reason known.

use std::time::{Duration, Instant};

use casemate_sandbox::{Limits, LimitsBackend};

use crate::Test;
use crate::world::{Mode, World, until};

pub const TESTS: &[Test] = &[
    Test { name: "too_much_memory_ends_the_payload", check: memory },
    Test { name: "memory_of_several_processes_counts_together", check: shared_out },
    Test { name: "memory_that_nobody_maps_counts_or_is_refused", check: unmapped },
    Test { name: "memory_in_sockets_is_bounded", check: sockets },
    Test { name: "a_fork_bomb_is_bounded", check: fork_bomb },
    Test { name: "processor_time_is_bounded", check: processor },
    Test { name: "usage_is_told", check: usage },
    Test { name: "the_least_limits_suffice_for_a_launch", check: least },
    Test { name: "the_backend_is_the_expected_one", check: backend },
];

/// Touches `mebibytes` and says so.
fn eat(mebibytes: u32) -> String {
    format!("data = bytearray()\nfor _ in range({mebibytes}): data += b'x' * (1 << 20)\nprint('ate', flush=True)\n")
}

fn memory(world: &World) {
    let outcome = world.python(&eat(1000)).limits(|limits| limits.memory_bytes = 100 << 20).run();
    assert_eq!((outcome.exit.signal, outcome.exit.out_of_memory), (Some(9), true), "{}", outcome.stderr);
    let control = world.python(&eat(40)).limits(|limits| limits.memory_bytes = 100 << 20).run();
    assert_eq!((control.exit.code, control.exit.out_of_memory), (Some(0), false), "{}", control.stderr);
}

fn shared_out(world: &World) {
    // Each child stays below the limit; together they are over it. Whoever is killed, the payload notices.
    let code = "import os, sys, time
for _ in range(6):
    child = os.fork()
    if child == 0:
        data = bytearray()
        for _ in range(40): data += b'x' * (1 << 20)
        time.sleep(30)
        os._exit(0)
while True:
    if os.wait()[1] != 0: sys.exit(9)";
    let outcome = world.python(code).limits(|limits| limits.memory_bytes = 160 << 20).run();
    assert!(outcome.exit.out_of_memory, "{:?} {}", outcome.exit, outcome.stderr);
    assert!(outcome.exit.code == Some(9) || outcome.exit.signal == Some(9), "{:?}", outcome.exit);
}

fn unmapped(world: &World) {
    let code = "import os, errno
try:
    fd = os.memfd_create('x')
    for _ in range(400): os.write(fd, b'x' * (1 << 20))
    print('kept')
except OSError as error: print(errno.errorcode[error.errno])";
    let outcome = world.python(code).limits(|limits| limits.memory_bytes = 100 << 20).run();
    match world.launcher.limits() {
        LimitsBackend::Watchdog => assert_eq!(outcome.stdout, "ENOSYS\n"),
        _ => assert!(outcome.exit.out_of_memory, "{:?} {}", outcome.exit, outcome.stdout),
    }
}

fn sockets(world: &World) {
    // Fills connections with itself.
    let code = "import socket
server = socket.create_server(('127.0.0.1', 5001), backlog=100)
total, held = 0, []
while total < 400 << 20 and len(held) < 1000:
    a = socket.socket(); a.settimeout(5)
    try: a.connect(('127.0.0.1', 5001))
    except OSError: break
    held.append((a, server.accept()))
    a.setblocking(False)
    try:
        while True: total += a.send(b'x' * 65536)
    except OSError: pass
print(total >> 20)";
    let outcome = world.python(code).limits(|limits| limits.memory_bytes = 100 << 20).run();
    let mebibytes: u64 = outcome.stdout.trim().parse().unwrap_or_default();
    match world.launcher.limits() {
        // Nothing counts it there but the kernel's own bound for all of the host.
        LimitsBackend::Watchdog => assert!(mebibytes >= 300, "the control: {mebibytes} {}", outcome.stderr),
        _ => assert!(outcome.exit.out_of_memory || mebibytes < 200, "{mebibytes} MiB, {:?}", outcome.exit),
    }
}

fn fork_bomb(world: &World) {
    let code = "import os, time, sys
made = 0
try:
    while True:
        if os.fork() == 0: time.sleep(600)
        made += 1
except OSError as error: print(made, error.strerror, flush=True)
time.sleep(600)";
    let mut running = world.python(code).limits(|limits| limits.pids = 20).start();
    running.wait_for("temporarily unavailable");
    let made: u32 = running.stdout().split(' ').next().unwrap().parse().unwrap();
    assert!((15..20).contains(&made), "{made}");
    assert!((15..=21).contains(&running.sandbox.usage().processes), "{:?}", running.sandbox.usage());
    // Others are not affected.
    world.payload("/bin/true", &[]).output();
}

fn processor(world: &World) {
    if world.launcher.limits() == LimitsBackend::Watchdog {
        return;
    }
    let busy = |milli_cpus| {
        let payload = world.payload("/bin/sh", &["-c", "while :; do :; done"]);
        payload.limits(|limits| limits.milli_cpus = milli_cpus).start()
    };
    // Side by side, so that whatever else this machine does weighs on both.
    let (bounded, free) = (busy(20), busy(2000));
    let before = (bounded.sandbox.usage().cpu, free.sandbox.usage().cpu);
    let started = Instant::now();
    std::thread::sleep(Duration::from_secs(3));
    let used = (bounded.sandbox.usage().cpu - before.0, free.sandbox.usage().cpu - before.1);
    let wall = started.elapsed();
    assert!(used.0 < wall / 25, "{:?} in {wall:?} is more than a fiftieth of a processor", used.0);
    assert!(used.1 > 2 * used.0, "the control used {:?}, the bounded one {:?}", used.1, used.0);
}

fn usage(world: &World) {
    let code = format!(
        "{}import time\nwhile time.process_time() < 0.3: pass\nprint('burnt', flush=True)\ntime.sleep(600)",
        eat(50)
    );
    let mut running = world.python(&code).start();
    running.wait_for("burnt");
    let usage = running.sandbox.usage();
    assert!((50 << 20..400 << 20).contains(&usage.memory_bytes), "{usage:?}");
    assert!(usage.cpu >= Duration::from_millis(200), "{usage:?}");
    assert_eq!(usage.processes, 2, "the payload and the first process");
    running.sandbox.kill();
    running.wait();
    let started = Instant::now();
    until("an ended sandbox uses no process", || {
        running.sandbox.usage().processes == 0 || started.elapsed() > Duration::from_secs(5)
    });
}

fn least(world: &World) {
    let least = Limits { memory_bytes: 16 << 20, milli_cpus: 50, pids: 1, scratch_bytes: 0 };
    world.payload("/bin/true", &[]).limits(|limits| *limits = least).output();
}

fn backend(world: &World) {
    let expected: &[LimitsBackend] = match world.mode {
        Mode::Root => &[LimitsBackend::CgroupV1, LimitsBackend::CgroupV2, LimitsBackend::Watchdog],
        Mode::Delegated => &[LimitsBackend::CgroupV1, LimitsBackend::CgroupV2],
        Mode::User => &[LimitsBackend::Watchdog, LimitsBackend::CgroupV2],
    };
    assert!(expected.contains(&world.launcher.limits()), "{:?}", world.launcher.limits());
}
