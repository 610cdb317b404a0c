//! The system call filter, in three layers that the kernel applies together: a list of what may be called at all
//! (anything else does not exist: `ENOSYS`), calls and arguments that are refused (`EPERM`), and address families that
//! have no place here (`EAFNOSUPPORT`). A call through another architecture's table kills the process; the x32 table
//! is outside the list.

mod allowed;
mod refused;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};

use crate::error::{During, Step, StepFailure};
use crate::plan::Plan;

/// By call number; an empty list of rules matches every call of that number.
type Rules = Vec<(libc::c_long, Vec<SeccompRule>)>;

/// The programs, ready to be applied in order.
pub struct Filters(Vec<BpfProgram>);

/// Compiles the filter for this sandbox.
pub fn compile(plan: &Plan) -> Result<Filters, StepFailure> {
    let arch: TargetArch = std::env::consts::ARCH.try_into().during(Step::Seccomp, "architecture")?;
    let errno = |number: libc::c_int| SeccompAction::Errno(number as u32);
    let allowed = allowed::calls(plan).into_iter().map(|call| (call, Vec::new())).collect();
    // Where several layers refuse, the kernel answers with the one applied last.
    let layers = [
        (allowed, errno(libc::ENOSYS), SeccompAction::Allow),
        (refused::calls().during(Step::Seccomp, "rules")?, SeccompAction::Allow, errno(libc::EPERM)),
        (refused::sockets().during(Step::Seccomp, "rules")?, SeccompAction::Allow, errno(libc::EAFNOSUPPORT)),
    ];
    let programs: Result<Vec<BpfProgram>, _> = layers
        .into_iter()
        .map(|(rules, otherwise, matched): (Rules, _, _)| {
            SeccompFilter::new(rules.into_iter().collect(), otherwise, matched, arch).and_then(BpfProgram::try_from)
        })
        .collect();
    Ok(Filters(programs.during(Step::Seccomp, "compile")?))
}

/// Applies the filter to the calling process for good.
pub fn apply(filters: &Filters) -> Result<(), StepFailure> {
    filters.0.iter().try_for_each(|program| seccompiler::apply_filter(program)).during(Step::Seccomp, "apply")
}
