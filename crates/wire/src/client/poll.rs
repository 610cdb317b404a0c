//! Waiting for long-running operations.

use std::time::{Duration, Instant};

use casemate_model::{Fault, FaultKind};
use serde_json::Value;

use super::Client;
use crate::operation::Progress;

/// Least wait between two polls.
const MIN_INTERVAL: Duration = Duration::from_millis(200);
/// Most wait between two polls when the server asks for none.
const MAX_INTERVAL: Duration = Duration::from_secs(2);
/// How long the platform may be away (restarting) before a wait gives up.
const AWAY_LIMIT: Duration = Duration::from_secs(60);

/// Hears of every poll: the time since the wait began.
pub type Observer<'a> = dyn FnMut(Duration) + Send + 'a;

/// A long-running operation that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Where its status is.
    pub operation: Option<String>,
    /// Where its result will be.
    pub location: Option<String>,
    /// The resource to read when it is done (PUT and PATCH).
    pub resource: Option<String>,
    /// The wait that the server asked for.
    pub retry_after: Option<Duration>,
}

/// How long to wait in all.
#[derive(Debug, Clone, Copy)]
pub struct WaitLimits {
    /// From the first poll on.
    pub total: Duration,
}

impl Default for WaitLimits {
    fn default() -> Self {
        // A first environment with a slow package index takes tens of minutes; two hours mean that something hangs.
        Self { total: Duration::from_secs(7200) }
    }
}

/// One answer to a poll.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Value,
}

pub(super) async fn wait(
    client: &Client,
    pending: Pending,
    limits: WaitLimits,
    observer: &mut Observer<'_>,
) -> Result<Value, Fault> {
    let started = Instant::now();
    let mut interval = MIN_INTERVAL;
    let mut asked = pending.retry_after;
    let mut away_since: Option<Instant> = None;
    let Some(target) = pending.operation.as_deref().or(pending.location.as_deref()) else {
        return Err(Fault::internal("The server gave no way to follow the operation."));
    };
    loop {
        observer(started.elapsed());
        tokio::time::sleep(asked.unwrap_or(interval).max(MIN_INTERVAL)).await;
        interval = (interval * 3 / 2).min(MAX_INTERVAL);
        match client.poll_once(target).await {
            Ok(reply) => {
                away_since = None;
                asked = reply.retry_after;
                if let Some(done) = ended(&pending, &reply)? {
                    return finish(client, &pending, done).await;
                }
            }
            Err(fault) if fault.kind == FaultKind::Unavailable => {
                asked = None;
                let since = *away_since.get_or_insert_with(Instant::now);
                if since.elapsed() > AWAY_LIMIT {
                    return Err(fault);
                }
            }
            Err(fault) => return Err(fault),
        }
        if started.elapsed() > limits.total {
            return Err(Fault::new(
                FaultKind::Unavailable,
                "OperationTimedOut",
                format!(
                    "The operation did not end within {} s. It goes on at the platform; look at the resource's provisioning state.",
                    limits.total.as_secs()
                ),
            ));
        }
    }
}

/// The result, once it has ended well; none while it runs.
fn ended(pending: &Pending, reply: &Reply) -> Result<Option<Value>, Fault> {
    if pending.operation.is_none() {
        return Ok((reply.status != 202).then(|| reply.body.clone()));
    }
    match Progress::from_body(&reply.body)? {
        Progress::Running => Ok(None),
        Progress::Done(result) => Ok(Some(result)),
        Progress::Failed(fault) => Err(fault),
    }
}

async fn finish(client: &Client, pending: &Pending, done: Value) -> Result<Value, Fault> {
    match (&pending.resource, &pending.operation, &pending.location) {
        (Some(resource), ..) => client.get(resource).await,
        // An action with both addresses has its result at the second, a deletion nothing.
        (None, Some(_), Some(location)) if done.is_null() => {
            Ok(client.get_optional(location).await?.unwrap_or(Value::Null))
        }
        _ => Ok(done),
    }
}
