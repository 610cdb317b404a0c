//! One sandbox at the gateway: its sockets, its share of everything, and the loop that accepts.

use std::{io, net::TcpListener as StdListener, sync::Arc, time::Duration};

use casemate_model::egress::LogEntry;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::recorder::Recorder;

/// A sandbox that is served. Dropping it cuts every stream and closes the sockets.
pub struct Attachment {
    recorder: Arc<Recorder>,
    _stop: DropGuard,
}

impl Attachment {
    /// The latest refusals of different destinations (64 at most), the newest first.
    #[must_use]
    pub fn refusals(&self) -> Vec<LogEntry> {
        self.recorder.refusals()
    }
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Attachment")
    }
}

/// Takes over a listening socket.
pub(crate) fn listener(socket: std::os::fd::OwnedFd) -> io::Result<TcpListener> {
    let listener = StdListener::from(socket);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

pub(crate) fn attachment(recorder: Arc<Recorder>, stop: &CancellationToken) -> Attachment {
    Attachment { recorder, _stop: stop.clone().drop_guard() }
}

/// Serves until `stop`.
pub(crate) async fn serve(listener: TcpListener, recorder: Arc<Recorder>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => recorder.tick(),
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                // A socket that never wants to linger can't fail to be told so.
                let _ = stream.set_zero_linger();
            },
        }
    }
}
