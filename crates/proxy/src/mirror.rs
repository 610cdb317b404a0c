//! Copies of live requests for the mirror target. The caller never waits for one and never sees its answer.

use std::{pin::Pin, sync::Arc};

use http_body::Body;
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use crate::{
    forward::{Head, forward},
    queue::Deployment,
    score::Shared,
    upload::Payload,
};

/// Largest body that is copied, in bytes; requests with larger ones are not mirrored.
pub(crate) const COPY_BYTES: usize = 1024 * 1024;
/// Copies in memory and under way at once; while there are as many, further requests are not mirrored.
pub(crate) const COPIES: usize = 64;

/// Starts sending a copy, which ends by itself, at the latest by the target's own limits or with the front door.
pub(crate) fn send(
    shared: &Arc<Shared>,
    target: &Arc<Deployment>,
    head: Head,
    payload: Payload,
    permit: OwnedSemaphorePermit,
) {
    let (owner, shared, target) = (shared.tracker.clone(), Arc::clone(shared), Arc::clone(target));
    owner.spawn(async move {
        let _permit = permit;
        tokio::select! {
            () = copy(&shared, &target, head, payload) => {}
            () = shared.abort.cancelled() => {}
        }
    });
}

async fn copy(shared: &Arc<Shared>, target: &Arc<Deployment>, head: Head, payload: Payload) {
    let Ok(entered) = target.enter().await else {
        return;
    };
    let Ok(answer) = forward(shared, target, entered, head, payload).await else {
        return;
    };
    // Read to the end, so that the model sees a caller like any other.
    let mut body = answer.into_body();
    let drain = std::future::poll_fn(|cx| {
        loop {
            match std::task::ready!(Pin::new(&mut body).poll_frame(cx)) {
                Some(Ok(_)) => {}
                _ => return std::task::Poll::Ready(()),
            }
        }
    });
    // Past this time the rest does not matter any more.
    let _ = timeout(target.limits().request_timeout, drain).await;
}
