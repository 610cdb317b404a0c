//! What a payload sees of the host's files, and what it can do to them.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use casemate_sandbox::{Access, LimitsBackend, Privilege};

use crate::Test;
use crate::world::{World, outside};

pub const TESTS: &[Test] = &[
    Test { name: "the_host_is_invisible", check: host_invisible },
    Test { name: "a_private_directory_can_be_given_read_only", check: private_read_only },
    Test { name: "a_writable_mount_belongs_to_its_owner_afterwards", check: writable },
    Test { name: "no_file_gains_a_set_id_bit", check: set_id },
    Test { name: "only_scratch_is_writable", check: only_scratch },
    Test { name: "scratch_is_bounded", check: scratch_bounded },
    Test { name: "a_single_file_can_be_given", check: single_file },
    Test { name: "mounts_nest", check: nesting },
    Test { name: "a_planted_link_is_not_followed_to_a_mount_point", check: planted_link },
    Test { name: "an_output_file_cannot_be_opened_anew", check: second_layer },
    Test { name: "neighbours_share_nothing", check: neighbours },
    Test { name: "a_file_system_without_id_maps_is_served_or_refused_by_name", check: without_id_maps },
];

fn host_invisible(world: &World) {
    let secret = world.dir.path().join("secret");
    std::fs::write(&secret, "planted").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o644)).unwrap();
    let path = secret.display();
    let read = format!("print(open('{path}').read())");
    assert_eq!(outside(&read).0, "planted\n", "the control must be able to read it");
    let outcome = world.python(&read).run();
    assert!(outcome.stderr.contains("No such file"), "{}", outcome.stderr);

    let look = "import os
print(sorted(os.listdir('/')))
print(sorted(os.listdir('/dev')))
print(os.path.exists('/sys/kernel'), os.path.exists('/sys/fs'), os.path.exists('/etc/shadow'), os.path.exists('/.empty'))
for path in ('/proc/kcore', '/proc/keys', '/proc/sysrq-trigger', '/proc/timer_list'):
    print(path, os.path.exists(path) and open(path, 'rb').read(16))
print(open('/proc/mounts').read().count('/work'), os.path.exists('/proc/1/root'))";
    let printed = world.python(look).output();
    let lines: Vec<&str> = printed.lines().collect();
    let expected = ["bin", "dev", "etc", "home", "proc", "run", "sbin", "sys", "tmp", "usr"];
    for name in expected {
        assert!(lines[0].contains(&format!("'{name}'")), "{name} is missing from {}", lines[0]);
    }
    for name in ["root", "work", "var", "srv", "mnt", "boot", "opt"] {
        assert!(!lines[0].contains(&format!("'{name}'")), "{name} is visible: {}", lines[0]);
    }
    let devices = "['fd', 'full', 'null', 'random', 'shm', 'stderr', 'stdin', 'stdout', 'urandom', 'zero']";
    assert_eq!(lines[1], devices);
    assert_eq!(lines[2], "False False False True");
    for line in &lines[3..7] {
        assert!(line.ends_with("b''") || line.ends_with("False"), "{line}");
    }
    assert_eq!(lines[7], "0 False");
}

fn private_read_only(world: &World) {
    let dir = world.make_dir("private");
    std::fs::write(dir.join("data"), "content").unwrap();
    std::fs::set_permissions(dir.join("data"), PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).unwrap();
    let code = "import os
print(open('/data/data').read())
for attempt in (lambda: open('/data/data', 'w'), lambda: open('/data/new', 'w'), lambda: os.unlink('/data/data'),
                lambda: os.chmod('/data/data', 0o644), lambda: os.utime('/data/data'), lambda: os.rename('/data/data', '/data/x')):
    try: attempt(); print('done')
    except OSError as error: print(error.strerror)";
    let printed = world.python(code).mount(&dir, "/data", Access::ReadOnly).output();
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "content");
    assert_eq!(lines.len(), 7);
    for line in &lines[1..] {
        assert!(["Read-only file system", "Permission denied"].contains(line), "{line}");
    }
}

fn writable(world: &World) {
    let dir = world.make_dir("build");
    std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::create_dir(dir.join("a")).unwrap();
    std::fs::write(dir.join("a/old"), "1").unwrap();
    let code = "import os
open('/build/a/old', 'a').write('2')
os.makedirs('/build/b/c')
os.rename('/build/a/old', '/build/b/c/old')
open('/build/tool', 'w').write('#!/bin/sh\\necho ran')
os.chmod('/build/tool', 0o755)
os.symlink('tool', '/build/link')
print(os.popen('/build/link').read(), os.stat('/build').st_uid)";
    let printed = world.python(code).mount(&dir, "/build", Access::ReadWrite).output();
    assert_eq!(printed, "ran\n 1000\n");
    assert_eq!(std::fs::read_to_string(dir.join("b/c/old")).unwrap(), "12");
    let owner = std::fs::metadata(&dir).unwrap();
    for made in ["b/c", "b/c/old", "tool"] {
        let meta = std::fs::symlink_metadata(dir.join(made)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (owner.uid(), owner.gid()), "{made}");
    }
}

fn set_id(world: &World) {
    let dir = world.make_dir("build");
    let code = "import os, shutil, errno
shutil.copy('/bin/true', '/build/tool')
os.chmod('/build/tool', 0o755)
def attempt(name, action):
    try: action(); print(name, 'done')
    except OSError as error: print(name, errno.errorcode[error.errno])
fd = os.open('/build/tool', os.O_RDONLY)
attempt('chmod', lambda: os.chmod('/build/tool', 0o4755))
attempt('chmod-group', lambda: os.chmod('/build/tool', 0o2755))
attempt('fchmod', lambda: os.fchmod(fd, 0o4755))
attempt('fchmodat', lambda: os.chmod('tool', 0o4755, dir_fd=os.open('/build', os.O_RDONLY)))
attempt('create', lambda: os.open('/build/new', os.O_CREAT | os.O_WRONLY, 0o4755))
attempt('tmpfile', lambda: os.open('/build', os.O_TMPFILE | os.O_WRONLY, 0o4755))
attempt('mknod', lambda: os.mknod('/build/node', 0o104755))
attempt('device', lambda: os.mknod('/build/device', 0o020666, os.makedev(1, 3)))
attempt('capability', lambda: os.setxattr('/build/tool', 'security.capability', bytes.fromhex('0100000200200000000000000000000000000000')))
attempt('control', lambda: os.chmod('/build/tool', 0o700))";
    let printed = world.python(code).mount(&dir, "/build", Access::ReadWrite).output();
    for line in printed.lines() {
        let denied = if line.starts_with("control") { "control done" } else { &line.replace("done", "EPERM") };
        assert_eq!(line, denied);
    }
    assert_eq!(printed.lines().count(), 10);
    for entry in std::fs::read_dir(&dir).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().mode();
        assert_eq!(mode & 0o6000, 0, "{mode:o}");
    }
}

fn only_scratch(world: &World) {
    let code = "import os
for place in ('/', '/usr', '/etc', '/dev', '/proc', '/proc/sys/kernel', '/sys/devices/system/cpu', '/home',
              '/tmp', '/dev/shm', '/run', '/home/casemate', '/var/tmp'):
    try: open(place + '/made', 'w').close(); print(place, 'made')
    except OSError as error: print(place, 'refused')
import multiprocessing
lock = multiprocessing.Lock()
with lock: print('lock works')";
    let printed = world.python(code).output();
    let made: Vec<&str> = printed.lines().filter_map(|line| line.strip_suffix(" made")).collect();
    assert_eq!(made, ["/tmp", "/dev/shm", "/run", "/home/casemate"]);
    assert!(printed.ends_with("lock works\n"));
}

fn scratch_bounded(world: &World) {
    let code = "written = 0
try:
    with open('/tmp/a', 'wb') as a, open('/dev/shm/b', 'wb') as b:
        for _ in range(1000):
            for file in (a, b): file.write(b'x' * 65536); file.flush(); written += 65536
except OSError as error: print(error.strerror)
print(written)";
    let printed = world.python(code).limits(|limits| limits.scratch_bytes = 8 << 20).output();
    let (words, written) = printed.trim().split_once('\n').unwrap();
    assert_eq!(words, "No space left on device");
    let written: u64 = written.parse().unwrap();
    assert!((6 << 20..=8 << 20).contains(&written), "{written}");
}

fn single_file(world: &World) {
    let file = world.dir.path().join("model.bin");
    std::fs::write(&file, "weights").unwrap();
    let code = "print(open('/var/models/one/model.bin').read())";
    let printed = world.python(code).mount(&file, "/var/models/one/model.bin", Access::ReadOnly).output();
    assert_eq!(printed, "weights\n");
}

fn nesting(world: &World) {
    let (outer, inner) = (world.make_dir("outer"), world.make_dir("inner"));
    std::fs::create_dir(outer.join("sub")).unwrap();
    std::fs::write(inner.join("file"), "inner").unwrap();
    let code = "print(open('/srv/outer/sub/file').read()); open('/srv/outer/sub/new', 'w').close(); open('/srv/outer/no', 'w')";
    let payload = world.python(code).mount(&inner, "/srv/outer/sub", Access::ReadWrite);
    let outcome = payload.mount(&outer, "/srv/outer", Access::ReadOnly).run();
    assert_eq!((outcome.exit.code, outcome.stdout.as_str()), (Some(1), "inner\n"));
    assert!(outcome.stderr.contains("Read-only file system"), "{}", outcome.stderr);
    assert!(inner.join("new").exists());
}

fn planted_link(world: &World) {
    let (build, inner) = (world.make_dir("build"), world.make_dir("inner"));
    world.python("import os; os.symlink('/etc', '/build/link')").mount(&build, "/build", Access::ReadWrite).output();
    let payload = world.payload("/bin/true", &[]).mount(&build, "/build", Access::ReadWrite);
    let payload = payload.mount(&inner, "/build/link/inner", Access::ReadOnly);
    let error = world.launcher.launch(payload.spec).unwrap_err().to_string();
    assert!(error.contains("/build/link/inner") && error.contains("symbolic link"), "{error}");
    assert!(!Path::new("/etc/inner").exists());
}

/// Only the second layer, Landlock, stands here: the file's mode allows it, and no mount is in the way.
fn second_layer(world: &World) {
    let log = world.dir.path().join("log");
    std::fs::write(&log, "earlier lines\n").unwrap();
    std::fs::set_permissions(&log, PermissionsExt::from_mode(0o666)).unwrap();
    let code = "import os, sys
for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
    try: os.open('/proc/self/fd/1', flags); print('opened', file=sys.stderr)
    except OSError as error: print(error.strerror, file=sys.stderr)
print('through the descriptor')";
    let mut payload = world.python(code);
    payload.spec.stdout = std::fs::File::options().append(true).open(&log).unwrap().into();
    let outcome = payload.run();
    assert_eq!(outcome.stderr, "Permission denied\n".repeat(3));
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "earlier lines\nthrough the descriptor\n");
    assert_eq!(outside(&format!("open('{}', 'r+'); print('control')", log.display())).0, "control\n");
}

fn neighbours(world: &World) {
    let first = "import ctypes, socket, time
from multiprocessing import shared_memory
shared_memory.SharedMemory('meeting', create=True, size=16)
a = socket.socket(socket.AF_UNIX); a.bind('\\0meeting'); a.listen()
b = socket.socket(socket.AF_UNIX); b.bind('/tmp/meeting'); b.listen()
print('segment', ctypes.CDLL(None).shmget(4242, 4096, 0o1666) >= 0)
print('ready', flush=True)
time.sleep(600)";
    let second = "import ctypes, socket
from multiprocessing import shared_memory
def attempt(name, action):
    try: action(); print(name, 'met')
    except OSError as error: print(name, error.strerror)
attempt('shm', lambda: shared_memory.SharedMemory('meeting'))
for name, address in (('abstract', '\\0meeting'), ('path', '/tmp/meeting')):
    attempt(name, lambda: socket.socket(socket.AF_UNIX).connect(address))
print('segment', ctypes.CDLL(None).shmget(4242, 0, 0) >= 0)";
    let mut host = world.python(first).start();
    host.wait_for("ready");
    let has_segment = world.launcher.limits() != LimitsBackend::Watchdog;
    assert!(host.stdout().contains(if has_segment { "segment True" } else { "segment False" }));
    let printed = world.python(second).output();
    let expected = "shm No such file or directory\nabstract Connection refused\npath No such file or directory\n\
                    segment False\n";
    assert_eq!(printed, expected);
}

/// Overlay file systems cannot be id-mapped. An ordinary user needs no id map at all.
fn without_id_maps(world: &World) {
    if world.mode.privilege() != Privilege::Root {
        return;
    }
    let overlay = Overlay::mount(world.dir.path());
    let top = overlay.0.as_path();
    std::fs::create_dir_all(top.join("open/deep")).unwrap();
    std::fs::write(top.join("open/deep/file"), "shared").unwrap();
    let printed =
        world.python("print(open('/data/deep/file').read())").mount(&top.join("open"), "/data", Access::ReadOnly);
    assert_eq!(printed.output(), "shared\n");

    let build = top.join("build");
    std::fs::create_dir_all(build.join("old")).unwrap();
    std::fs::write(build.join("old/file"), "1").unwrap();
    std::fs::set_permissions(&build, PermissionsExt::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink("/etc", build.join("old/link")).unwrap();
    for _ in 0..2 {
        // The second round has another host user.
        let code = "open('/build/old/file', 'a').write('2')";
        world.python(code).mount(&build, "/build", Access::ReadWrite).output();
    }
    assert_eq!(std::fs::read_to_string(build.join("old/file")).unwrap(), "122");
    assert_eq!(std::fs::metadata("/etc").unwrap().uid(), 0, "a planted link must not be followed");

    let closed = top.join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o700)).unwrap();
    let payload = world.payload("/bin/true", &[]).mount(&closed, "/data", Access::ReadOnly);
    let error = world.launcher.launch(payload.spec).unwrap_err().to_string();
    assert!(error.contains("closed") && error.contains("id-mapped"), "{error}");
}

struct Overlay(std::path::PathBuf);

impl Overlay {
    fn mount(dir: &Path) -> Self {
        let part = |name: &str| {
            let part = dir.join(name);
            std::fs::create_dir(&part).unwrap();
            part
        };
        let (lower, upper, work, merged) = (part("lower"), part("upper"), part("work"), part("merged"));
        let options = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("overlay"), &merged, Some("overlay"), flags, Some(options.as_str())).unwrap();
        Self(merged)
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).unwrap();
    }
}
