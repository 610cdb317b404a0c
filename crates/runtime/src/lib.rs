//! From what a deployment needs to a process that answers: environments, logs, and the supervisor of instances.
//!
//! This room knows how to run a model, not which ones should run: it takes requests and reports what happens, and
//! decides nothing about traffic or desired state. It refuses to start anything outside a sandbox.

pub mod logs;

pub use logs::{Container, LogPipe, LogPump, LogStore, LogTail, LogWriter};
