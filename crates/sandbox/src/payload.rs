//! The last steps before foreign code runs: each takes something away for good. The order matters: what a step needs
//! is taken by a later one.

use std::ffi::CString;
use std::io::{PipeWriter, Write};
use std::path::Path;

use caps::{CapSet, CapsHashSet};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{AccessFlags, Gid, Uid};

use crate::error::{During, Step, StepFailure};
use crate::plan::{PAYLOAD_ID, Plan};
use crate::{landlock, seccomp, sys};

/// Becomes the payload; on failure tells the first process why.
pub fn main(plan: &Plan, mut teller: PipeWriter) -> ! {
    if let Err(failure) = become_payload(plan) {
        let words = serde_json::to_vec(&failure).unwrap_or_else(|_| b"unprintable failure".to_vec());
        let _ = teller.write_all(&words);
        sys::exit_now(127);
    }
    sys::exit_now(0)
}

/// Returns only for the probe, which has no program.
fn become_payload(plan: &Plan) -> Result<(), StepFailure> {
    let program = plan.program.as_deref().map(Command::prepare).transpose()?;
    let args = strings(program.iter().map(|each| each.name.as_str()).chain(plan.args.iter().map(String::as_str)))?;
    let pairs: Vec<String> = plan.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let env = strings(pairs.iter().map(String::as_str))?;
    let filters = seccomp::compile(plan)?;
    nix::unistd::setsid().during(Step::Fork, "setsid")?;
    sys::reset_signals().during(Step::Fork, "reset signals")?;
    sys::close_from(3, true).during(Step::Fork, "close_range")?;
    limit_resources(plan)?;
    drop_privileges().map_err(|words| StepFailure::new(Step::Privileges, words))?;
    check_mounts(plan)?;
    nix::unistd::chdir(&plan.cwd).during(Step::Exec, plan.cwd.display())?;
    landlock::restrict(plan)?;
    seccomp::apply(&filters)?;
    match program {
        Some(program) => {
            Err(StepFailure::new(Step::Exec, format!("{}: {}", program.name, sys::exec(&program.path, &args, &env))))
        }
        None => Ok(()),
    }
}

struct Command {
    name: String,
    path: CString,
}

impl Command {
    fn prepare(path: &Path) -> Result<Self, StepFailure> {
        let name = path.to_string_lossy().into_owned();
        let path = CString::new(name.as_str()).during(Step::Exec, "program")?;
        Ok(Self { name, path })
    }
}

fn strings<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<CString>, StepFailure> {
    texts.map(|text| CString::new(text).during(Step::Exec, "argument")).collect()
}

/// The most open files a payload may have.
const MAX_FILES: u64 = 65_536;

fn limit_resources(plan: &Plan) -> Result<(), StepFailure> {
    // Where the two share a user, the first process counts as well.
    let first_process = u64::from(plan.ids.init.is_none());
    let mut wishes = vec![
        // Zero would still feed the host's crash handler; one is the value at which the kernel makes no dump at all.
        (Resource::RLIMIT_CORE, 1),
        (Resource::RLIMIT_NOFILE, MAX_FILES),
        (Resource::RLIMIT_NPROC, u64::from(plan.limits.pids) + first_process),
        (Resource::RLIMIT_MEMLOCK, 8 << 20),
        (Resource::RLIMIT_SIGPENDING, 4096),
        (Resource::RLIMIT_MSGQUEUE, 819_200),
    ];
    if plan.unmapped_memory_refused {
        // A brake between two looks of the watchdog, generous because reserved memory counts here as well.
        let data = plan.limits.memory_bytes.saturating_mul(2).saturating_add(1 << 30);
        wishes.push((Resource::RLIMIT_DATA, data));
    }
    for (resource, wish) in wishes {
        let (_, hard) = getrlimit(resource).during(Step::ResourceLimits, format_args!("{resource:?}"))?;
        let value = wish.min(hard);
        setrlimit(resource, value, value).during(Step::ResourceLimits, format_args!("{resource:?}"))?;
    }
    Ok(())
}

/// User 1000, no capability in any set, and no way to gain one by executing anything.
fn drop_privileges() -> Result<(), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    caps::clear(None, CapSet::Ambient).map_err(|error| words(&error))?;
    for capability in caps::read(None, CapSet::Bounding).map_err(|error| words(&error))? {
        caps::drop(None, CapSet::Bounding, capability).map_err(|error| words(&error))?;
    }
    let gid = Gid::from_raw(PAYLOAD_ID);
    nix::unistd::setresgid(gid, gid, gid).map_err(|error| words(&error))?;
    let uid = Uid::from_raw(PAYLOAD_ID);
    nix::unistd::setresuid(uid, uid, uid).map_err(|error| words(&error))?;
    for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::set(None, set, &CapsHashSet::new()).map_err(|error| words(&error))?;
    }
    nix::sys::prctl::set_no_new_privs().map_err(|error| words(&error))
}

/// A mount that the payload cannot read would otherwise show as a puzzling error of the foreign program.
fn check_mounts(plan: &Plan) -> Result<(), StepFailure> {
    for mount in &plan.mounts {
        nix::unistd::access(&mount.target, AccessFlags::R_OK).map_err(|errno| {
            let target = mount.target.display();
            let source = mount.source.display();
            StepFailure::new(
                Step::MountAccess,
                format!(
                    "{target} (from {source}): {errno}; make the source readable by others, or keep it on a file \
                         system that supports id-mapped mounts"
                ),
            )
        })?;
    }
    Ok(())
}
