//! From what a deployment needs to a process that answers: environments, logs, and the supervisor of instances.
//!
//! This room knows how to run a model, not which ones should run: it takes requests and reports what happens, and
//! decides nothing about traffic or desired state. It refuses to start anything outside a sandbox, and the only way out of
//! one leads through the egress gateway.
//!
//! The way of a start: a [`Backend`] checks an [`InstanceRequest`] and lays it out (`layout`), a supervisor starts the
//! process, with the gateway at its way out (`outbound`), and watches it (`instance`, `probe`), its output goes to the deployment's log (`logs`), and when it does
//! not come up, `failure` says why.

mod backend;
pub mod environment;
mod failure;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod instance;
mod layout;
pub mod logs;
mod outbound;
mod probe;
mod request;

pub use backend::{Backend, LocalBackend};
pub use casemate_egress::{IdentityToken, InstanceIdentity};
pub use environment::{EnvironmentBuilder, EnvironmentRequest, PreparedEnvironment, PythonPolicy};
pub use instance::{Instance, InstanceStatus};
pub use logs::{Container, LogPipe, LogPump, LogStore, LogTail, LogWriter};
pub use request::{CodeMount, InstanceRequest, ModelMount};
