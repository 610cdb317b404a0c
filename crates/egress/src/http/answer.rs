//! What a client gets to read when its request is refused: an HTTP answer that says the cause and the fix.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long, and how much, is read of a client that is still sending, so that it gets to see the answer.
const PATIENCE: Duration = Duration::from_secs(1);
const DISCARDED: usize = 256 << 10;

/// A request that goes nowhere, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn new(status: u16, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    /// A request that two readers could understand differently.
    pub(crate) fn bad(reason: impl Into<String>) -> Self {
        Self::new(400, reason)
    }

    fn bytes(&self) -> Vec<u8> {
        let title = match self.status {
            403 => "Forbidden",
            405 => "Method Not Allowed",
            408 => "Request Timeout",
            431 => "Request Header Fields Too Large",
            502 => "Bad Gateway",
            _ => "Bad Request",
        };
        let body = format!("The outbound gateway of this deployment did not pass the request on. {}\n", self.reason);
        format!(
            "HTTP/1.1 {} {title}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.status,
            body.len()
        )
        .into_bytes()
    }
}

/// Sends the answer and ends the connection so that the client can read it.
pub(crate) async fn answer(client: &mut TcpStream, refusal: &Refusal) {
    send(client, &refusal.bytes()).await;
}

/// Sends the last bytes of a connection and waits for a moment until the client has them.
pub(crate) async fn send(client: &mut TcpStream, bytes: &[u8]) {
    let farewell = async {
        client.write_all(bytes).await?;
        client.shutdown().await?;
        // Closing with unread bytes would reset the connection, and with it what was sent.
        let mut discarded = [0; 4096];
        let mut left = DISCARDED;
        while left > 0 {
            match client.read(&mut discarded).await? {
                0 => break,
                count => left = left.saturating_sub(count),
            }
        }
        std::io::Result::Ok(())
    };
    // A client that goes before it has read the answer has missed it.
    let _ = tokio::time::timeout(PATIENCE, farewell).await;
}
