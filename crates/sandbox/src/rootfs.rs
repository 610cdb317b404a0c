//! The payload's file system: a small read-only tmpfs with the host's system directories bound in read-only, a few
//! files of `/etc`, the asked-for mounts, bounded scratch space, a fresh `/proc` and five devices. Nothing else of the
//! host is reachable, and nothing here is ever created through a link or outside the new root.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};

use crate::error::{During, Step, StepFailure};
use crate::etc::{self, Etc};
use crate::helper::IdMap;
use crate::idmapped;
use crate::plan::Plan;
use crate::spec::{Access, HOME};
use crate::sys;

/// Attributes for what is only read and never executed.
pub const LOCKED_DATA: u64 =
    libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
/// Attributes for what is read and executed.
const LOCKED: u64 = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
const WRITABLE: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
const WRITABLE_DATA: u64 = WRITABLE | libc::MOUNT_ATTR_NOEXEC;
const DEVICE: u64 = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;

/// The system's own directories; where the host has a link, so has the sandbox.
pub const SYSTEM: [&str; 8] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "sys/devices/system/cpu"];
/// Scratch directories: name within the scratch tmpfs, place, attributes and mode.
pub const SCRATCH: [(&str, &str, u64, u32); 4] = [
    ("tmp", "tmp", WRITABLE, 0o1777),
    ("home", HOME, WRITABLE, 0o755),
    ("run", "run", WRITABLE_DATA, 0o755),
    ("shm", "dev/shm", WRITABLE_DATA, 0o1777),
];
/// The devices a payload has.
pub const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
const DEVICE_LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];
/// What `/proc` tells about the host rather than about the sandbox.
const MASKED_FILES: [&str; 6] = ["kcore", "keys", "key-users", "kmsg", "sysrq-trigger", "timer_list"];
const MASKED_DIRS: [&str; 6] = ["acpi", "bus", "driver", "fs", "irq", "scsi"];

/// Builds the file system in this process's own mount namespace and makes it the root.
pub fn build(plan: &Plan, id_maps: &[IdMap]) -> Result<(), StepFailure> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).during(Step::RootFs, "make mounts private")?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("root"), &plan.scratch, Some("tmpfs"), flags, Some("size=8m,nr_inodes=8k,mode=0755"))
        .during(Step::RootFs, plan.scratch.display())?;
    let root = Root::open(&plan.scratch)?;
    add_system(&root)?;
    add_etc(&root, &etc::collect(plan))?;
    add_devices(&root)?;
    add_scratch(&root, plan)?;
    add_mounts(&root, plan, id_maps)?;
    add_proc(&root, &plan.scratch)?;
    pivot(root)
}

fn pivot(root: Root) -> Result<(), StepFailure> {
    let step = Step::Pivot;
    nix::unistd::fchdir(&root.fd).during(step, "fchdir")?;
    nix::unistd::pivot_root(".", ".").during(step, "pivot_root")?;
    umount2(".", MntFlags::MNT_DETACH).during(step, "detach the old root")?;
    nix::unistd::chdir("/").during(step, "/")?;
    let root = std::fs::File::open("/").during(step, "/")?;
    sys::mount_setattr(root.as_fd(), LOCKED_DATA, false, None).during(step, "make / read-only")
}

/// The directory that becomes `/`.
struct Root {
    fd: OwnedFd,
}

impl Root {
    fn open(path: &Path) -> Result<Self, StepFailure> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty()).during(Step::RootFs, path.display())?;
        Ok(Self { fd })
    }

    /// Opens a path in here without following any link; `None` when it does not exist.
    fn find(&self, path: &Path) -> Result<Option<OwnedFd>, StepFailure> {
        match open_beneath(self.fd.as_fd(), path, OFlag::O_PATH) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(StepFailure::new(Step::RootFs, format!("{} inside: {errno}", path.display()))),
        }
    }

    /// The directory at `path`, made with its parents where missing.
    fn dir(&self, path: &Path) -> Result<OwnedFd, StepFailure> {
        let mut at = self.fd.try_clone().during(Step::RootFs, "descriptor")?;
        for part in path.components().filter(|part| matches!(part, std::path::Component::Normal(_))) {
            let part = Path::new(part.as_os_str());
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
            at = match open_beneath(at.as_fd(), part, flags) {
                Err(Errno::ENOENT) => mkdirat(at.as_fd(), part, Mode::from_bits_truncate(0o755))
                    .and_then(|()| open_beneath(at.as_fd(), part, flags)),
                found => found,
            }
            .during(Step::RootFs, format_args!("{} inside", path.display()))?;
        }
        Ok(at)
    }

    /// The regular file at `path`, made empty where missing.
    fn file(&self, path: &Path) -> Result<OwnedFd, StepFailure> {
        if let Some(found) = self.find(path)? {
            return Ok(found);
        }
        self.create(path, b"")
    }

    fn create(&self, path: &Path, content: &[u8]) -> Result<OwnedFd, StepFailure> {
        let dir = self.dir(path.parent().unwrap_or(Path::new("")))?;
        let name = path.file_name().unwrap_or_default();
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::openat(&dir, name, flags, Mode::from_bits_truncate(0o644))
            .during(Step::RootFs, format_args!("{} inside", path.display()))?;
        let mut file = std::fs::File::from(fd);
        file.write_all(content).during(Step::RootFs, format_args!("{} inside", path.display()))?;
        Ok(file.into())
    }

    fn link(&self, path: &Path, to: &Path) -> Result<(), StepFailure> {
        let dir = self.dir(path.parent().unwrap_or(Path::new("")))?;
        nix::unistd::symlinkat(to, &dir, path.file_name().unwrap_or_default())
            .during(Step::RootFs, format_args!("{} inside", path.display()))
    }

    /// Attaches a mount tree at `path`, as a directory or a file as the tree itself is one.
    fn attach(&self, tree: BorrowedFd<'_>, path: &Path) -> Result<(), StepFailure> {
        let target = if is_dir(tree)? { self.dir(path)? } else { self.file(path)? };
        sys::move_mount(tree, target.as_fd()).during(Step::RootFs, format_args!("{} inside", path.display()))
    }

    /// Binds the host's `source` at `path` with the given attributes.
    fn bind(&self, source: &Path, path: &Path, attributes: u64) -> Result<(), StepFailure> {
        let tree = clone_tree(source)?;
        sys::mount_setattr(tree.as_fd(), attributes, true, None).during(Step::RootFs, source.display())?;
        self.attach(tree.as_fd(), path)
    }
}

fn open_beneath(dir: BorrowedFd<'_>, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
    openat2(dir, path, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve))
}

fn is_dir(fd: BorrowedFd<'_>) -> Result<bool, StepFailure> {
    let kind = SFlag::from_bits_truncate(fstat(fd).during(Step::RootFs, "fstat")?.st_mode) & SFlag::S_IFMT;
    Ok(kind == SFlag::S_IFDIR)
}

fn clone_tree(source: &Path) -> Result<OwnedFd, StepFailure> {
    let path = CString::new(source.as_os_str().as_bytes()).during(Step::RootFs, source.display())?;
    sys::open_tree(nix::fcntl::AT_FDCWD, &path).during(Step::RootFs, source.display())
}

fn add_system(root: &Root) -> Result<(), StepFailure> {
    for name in SYSTEM {
        let host = Path::new("/").join(name);
        let Ok(meta) = std::fs::symlink_metadata(&host) else { continue };
        if meta.is_symlink() {
            let to = std::fs::read_link(&host).during(Step::RootFs, host.display())?;
            root.link(Path::new(name), &to)?;
        } else if meta.is_dir() {
            let attributes = if name.starts_with("sys/") { LOCKED_DATA } else { LOCKED };
            root.bind(&host, Path::new(name), attributes)?;
        }
    }
    Ok(())
}

fn add_etc(root: &Root, entries: &[(PathBuf, Etc)]) -> Result<(), StepFailure> {
    for (path, entry) in entries {
        match entry {
            Etc::Text(content) => drop(root.create(path, content)?),
            Etc::Link(to) => root.link(path, to)?,
            Etc::Bind(source) => root.bind(source, path, LOCKED)?,
        }
    }
    Ok(())
}

fn add_devices(root: &Root) -> Result<(), StepFailure> {
    for name in DEVICES {
        root.bind(&Path::new("/dev").join(name), &Path::new("dev").join(name), DEVICE)?;
    }
    DEVICE_LINKS.iter().try_for_each(|(name, to)| root.link(&Path::new("dev").join(name), Path::new(to)))
}

/// One tmpfs serves all scratch directories, so that its size bounds them together.
fn add_scratch(root: &Root, plan: &Plan) -> Result<(), StepFailure> {
    let step = Step::RootFs;
    let hidden = plan.scratch.join(".scratch");
    drop(root.dir(Path::new(".scratch"))?);
    let bytes = plan.limits.scratch_bytes.max(1 << 20);
    let inodes = (bytes / 4096).clamp(4096, 1_000_000);
    let options = format!("size={bytes},nr_inodes={inodes},mode=0755");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("scratch"), &hidden, Some("tmpfs"), flags, Some(options.as_str())).during(step, "scratch")?;
    for (name, place, attributes, mode) in SCRATCH {
        let dir = hidden.join(name);
        std::fs::create_dir(&dir).during(step, dir.display())?;
        std::os::unix::fs::chown(&dir, Some(plan.ids.payload), Some(plan.ids.payload)).during(step, dir.display())?;
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(&dir, permissions).during(step, dir.display())?;
        if place == HOME {
            add_home_files(&dir, plan)?;
        }
        root.bind(&dir, Path::new(place), attributes)?;
    }
    umount2(&hidden, MntFlags::MNT_DETACH).during(step, "scratch")?;
    std::fs::remove_dir(&hidden).during(step, "scratch")
}

fn add_home_files(home: &Path, plan: &Plan) -> Result<(), StepFailure> {
    let owner = Some(plan.ids.payload);
    for (name, content) in etc::home_files(plan) {
        let file = home.join(&name);
        let parents: Vec<_> = file.ancestors().skip(1).take_while(|dir| *dir != home).collect();
        for dir in parents.into_iter().rev() {
            std::fs::create_dir_all(dir).during(Step::RootFs, dir.display())?;
            std::os::unix::fs::chown(dir, owner, owner).during(Step::RootFs, dir.display())?;
        }
        std::fs::write(&file, content).during(Step::RootFs, file.display())?;
        std::os::unix::fs::chown(&file, owner, owner).during(Step::RootFs, file.display())?;
    }
    Ok(())
}

/// Parents come before what is mounted inside them.
fn add_mounts(root: &Root, plan: &Plan, id_maps: &[IdMap]) -> Result<(), StepFailure> {
    let mut mounts: Vec<_> = plan.mounts.iter().collect();
    mounts.sort_by_key(|mount| mount.target.components().count());
    for mount in mounts {
        let tree = clone_tree(&mount.source)?;
        check_source(tree.as_fd(), &mount.source)?;
        if plan.ids.init.is_some() {
            idmapped::apply(tree.as_fd(), mount, plan.ids, id_maps)?;
        }
        let attributes = if mount.access == Access::ReadOnly { LOCKED } else { WRITABLE };
        sys::mount_setattr(tree.as_fd(), attributes, true, None).during(Step::RootFs, mount.source.display())?;
        root.attach(tree.as_fd(), &mount.target)?;
    }
    Ok(())
}

/// Only directories and regular files: a link may be planted, and a socket is a way out.
fn check_source(tree: BorrowedFd<'_>, source: &Path) -> Result<(), StepFailure> {
    let kind = SFlag::from_bits_truncate(fstat(tree).during(Step::RootFs, source.display())?.st_mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFDIR || kind == SFlag::S_IFREG {
        return Ok(());
    }
    let words = if kind == SFlag::S_IFLNK { "is a symbolic link; name its target" } else { "is no file or directory" };
    Err(StepFailure::new(Step::RootFs, format!("{} {words}", source.display())))
}

/// Mounted by the first process, so it shows the sandbox's own processes; those of other users are hidden.
fn add_proc(root: &Root, scratch: &Path) -> Result<(), StepFailure> {
    drop(root.dir(Path::new("proc"))?);
    let empty = root.dir(Path::new(".empty"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), &scratch.join("proc"), Some("proc"), flags, Some("hidepid=2")).during(Step::Proc, "mount")?;
    for name in MASKED_FILES {
        let path = Path::new("proc").join(name);
        if root.find(&path)?.is_some() {
            root.bind(Path::new("/dev/null"), &path, DEVICE)?;
        }
    }
    for name in MASKED_DIRS {
        let path = Path::new("proc").join(name);
        if let Some(target) = root.find(&path)? {
            let tree = sys::open_tree(empty.as_fd(), c"").during(Step::Proc, "mask")?;
            sys::mount_setattr(tree.as_fd(), LOCKED_DATA, false, None).during(Step::Proc, "mask")?;
            sys::move_mount(tree.as_fd(), target.as_fd()).during(Step::Proc, path.display())?;
        }
    }
    Ok(())
}
