//! One instance of a deployment: a scoring process in its own sandbox, kept alive and watched.
//!
//! An [`Instance`] is a handle. What it stands for is run by a supervisor of its own, which starts the process again
//! when it ends and says at every moment whether requests may go there. Dropping the handle kills the process.

mod process;
mod supervisor;

use std::{sync::Arc, time::Duration};

use casemate_model::{Fault, route::Upstream};
use tokio::sync::watch;

pub(crate) use supervisor::{Means, Plan, Supervisor};

/// What an instance is doing.
#[derive(Debug, Clone)]
pub enum InstanceStatus {
    /// It was never ready yet; it may be on its second or third try.
    Starting,
    /// It takes requests. Every start of the process has an upstream of its own.
    Ready(Arc<Upstream>),
    /// It was ready before and will be again: its probes fail, or it is being started again.
    NotReady,
    /// It never became ready, and there will be no more tries.
    Failed(Fault),
    /// It was told to stop, and nothing of it runs any more.
    Stopped,
}

/// A running instance. Dropping it kills the instance without grace.
#[derive(Debug)]
pub struct Instance {
    status: watch::Receiver<InstanceStatus>,
    /// The grace to stop within, once it is to stop.
    stop: watch::Sender<Option<Duration>>,
}

impl Instance {
    /// The handle that a backend gives out. The backend sends the status, and stops when it is told a grace or when the
    /// other end of `stop` is dropped; it drops its end of `status` when nothing of the instance runs any more.
    #[must_use]
    pub fn new(status: watch::Receiver<InstanceStatus>, stop: watch::Sender<Option<Duration>>) -> Self {
        Self { status, stop }
    }

    /// What the instance is doing, now and from now on. The channel is closed when nothing of it runs any more.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<InstanceStatus> {
        self.status.clone()
    }

    /// Asks the process to end (SIGTERM), kills it after `grace`, and returns when nothing of it is left.
    pub async fn stop(&self, grace: Duration) {
        self.stop.send_replace(Some(grace));
        let mut status = self.status.clone();
        // An error means that the channel is closed, which is what is waited for.
        while status.changed().await.is_ok() {}
    }
}
