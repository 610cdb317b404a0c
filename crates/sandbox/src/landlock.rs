//! The second layer over the file system: Landlock rules that repeat what the mounts allow, so that a mistake or a
//! hole in one of the two is not a way out. Where the kernel can, it also cuts abstract sockets and signals.

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use crate::error::{During, Step, StepFailure};
use crate::plan::Plan;
use crate::rootfs::{DEVICES, SCRATCH, SYSTEM};
use crate::spec::Access;

/// Without ABI 2 a rename from one directory to another is impossible, which installers need.
pub const REQUIRED_ABI: u32 = 2;
const NEWEST: ABI = ABI::V6;

/// Confines the calling process. Must come after the new root is in place.
pub fn restrict(plan: &Plan) -> Result<(), StepFailure> {
    let rules = ruleset().during(Step::Landlock, "create the rules")?;
    let rules = add_rules(rules, plan)?;
    let status = rules.restrict_self().during(Step::Landlock, "restrict")?;
    if status.ruleset == RulesetStatus::NotEnforced || !status.no_new_privs {
        return Err(StepFailure::new(Step::Landlock, "the kernel did not enforce the rules"));
    }
    Ok(())
}

fn ruleset() -> Result<RulesetCreated, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V2))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()
}

fn add_rules(mut rules: RulesetCreated, plan: &Plan) -> Result<RulesetCreated, StepFailure> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let run = AccessFs::from_read(NEWEST);
    let all = AccessFs::from_all(NEWEST);
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    rules = allow(rules, Path::new("/"), AccessFs::ReadDir.into())?;
    rules = allow(rules, Path::new("/etc"), read)?;
    rules = allow(rules, Path::new("/proc"), read | AccessFs::WriteFile | AccessFs::Truncate)?;
    for name in SYSTEM {
        let path = Path::new("/").join(name);
        if path.exists() {
            rules = allow(rules, &path, run)?;
        }
    }
    for name in DEVICES {
        rules = allow(rules, &Path::new("/dev").join(name), device)?;
    }
    for (_, place, _, _) in SCRATCH {
        rules = allow(rules, &Path::new("/").join(place), all)?;
    }
    for mount in &plan.mounts {
        rules = allow(rules, &mount.target, if mount.access == Access::ReadOnly { run } else { all })?;
    }
    Ok(rules)
}

fn allow(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, StepFailure> {
    let fd = PathFd::new(path).during(Step::Landlock, path.display())?;
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
    rules.add_rule(PathBeneath::new(fd, access)).during(Step::Landlock, path.display())
}
