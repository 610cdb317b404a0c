//! HTTP without TLS: every request is read, checked against the approved name, and only then sent on.
//!
//! One request at a time. A request goes on when its head has one meaning, is written anew from that meaning, and its
//! body ends where the head says; the next one is looked at when the answer is complete. All of them go over the one
//! connection that was dialled for the approved name, so whatever the client writes, no server but that one reads it, and
//! that one reads what was checked. Answers are framed only to know where they end, and go to nobody but this client, so
//! a server's odd answers can confuse only whom it talks to. After a server has agreed to a WebSocket the rest is copied.
//!
//! It is no proxy: CONNECT, targets with a host in them, HTTP/2 and upgrades to anything but a WebSocket are refused or
//! left out. Redirects are the client's to follow, and are then decided like any other request.

mod answer;
mod body;
mod head;

use std::io;

use bytes::{Buf, BytesMut};
use casemate_model::egress::HostName;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout_at},
};

pub(crate) use self::{
    answer::{Refusal, answer, send},
    head::{Scan, request},
};
use self::{
    body::Inbox,
    head::{Body, Request},
};
use crate::relay::{Means, Way, relay};

/// How a connection ended that did not fail.
#[derive(Debug)]
pub(crate) enum HttpEnd {
    /// Both ends are through with it.
    Finished,
    /// A request was refused; the client is still to be told.
    Refused(Refusal),
}

/// The first request of a connection, and what came behind it.
#[derive(Debug)]
pub(crate) struct First {
    request: Request,
    rest: BytesMut,
}

/// Reads the first request's head, before there is anybody to send it to.
///
/// # Errors
/// The outer one when the client ends; the inner one when the request is refused.
pub(crate) async fn first(
    client: &mut TcpStream,
    name: &HostName,
    port: u16,
    deadline: Instant,
) -> io::Result<Result<First, Refusal>> {
    let mut inbox = Inbox::new(client, BytesMut::new());
    Ok(match timeout_at(deadline, read_head(&mut inbox, name, port)).await {
        Ok(read) => read?.map(|request| First { request, rest: inbox.bytes }),
        Err(_) => Err(late()),
    })
}

fn late() -> Refusal {
    Refusal::new(408, "Its head took too long. Send it at once.")
}

async fn read_head(
    inbox: &mut Inbox<impl AsyncRead + Unpin>,
    name: &HostName,
    port: u16,
) -> io::Result<Result<Request, Refusal>> {
    let mut scan = Scan::default();
    loop {
        match scan.find(&inbox.bytes) {
            Err(refusal) => return Ok(Err(refusal)),
            Ok(Some(length)) => {
                let head = inbox.bytes.split_to(length);
                return Ok(request(&head, name, port));
            }
            Ok(None) if inbox.fill().await? == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(None) => {}
        }
    }
}

/// What a connection is for.
pub(crate) struct Approved<'a> {
    pub(crate) name: &'a HostName,
    pub(crate) port: u16,
    /// Time for each further request's head, from its first byte on.
    pub(crate) patience: std::time::Duration,
    /// Whether the policy still lets this through.
    pub(crate) holds: &'a (dyn Fn() -> Result<(), Refusal> + Sync),
}

/// Passes requests and answers on until the connection ends.
///
/// # Errors
/// When an end fails, or breaks its framing in the middle of something.
pub(crate) async fn serve(
    means: Means<'_>,
    approved: &Approved<'_>,
    client: &mut TcpStream,
    upstream: &mut TcpStream,
    first: First,
) -> io::Result<HttpEnd> {
    let (to_upstream, to_client) = {
        let (from_client, mut to_client) = client.split();
        let (from_upstream, mut to_upstream) = upstream.split();
        let mut ends = Ends {
            from_client: Inbox::new(from_client, first.rest),
            to_client: &mut to_client,
            from_upstream: Inbox::new(from_upstream, BytesMut::new()),
            to_upstream: &mut to_upstream,
        };
        let mut request = first.request;
        loop {
            match exchange(means, &mut ends, &request).await? {
                Next::WebSocket => break,
                Next::End => return Ok(HttpEnd::Finished),
                Next::Request => {}
            }
            match next(&mut ends, approved).await? {
                None => return Ok(HttpEnd::Finished),
                Some(Ok(read)) => request = read,
                Some(Err(refusal)) => return Ok(HttpEnd::Refused(refusal)),
            }
        }
        (ends.from_client.bytes, ends.from_upstream.bytes)
    };
    relay(means, client, upstream, (&to_upstream, &to_client)).await?;
    Ok(HttpEnd::Finished)
}

struct Ends<'a, CR, CW, UR, UW> {
    from_client: Inbox<CR>,
    to_client: &'a mut CW,
    from_upstream: Inbox<UR>,
    to_upstream: &'a mut UW,
}

enum Next {
    Request,
    WebSocket,
    End,
}

/// The next request; none when either end is through.
async fn next<CR, CW, UR, UW>(
    ends: &mut Ends<'_, CR, CW, UR, UW>,
    approved: &Approved<'_>,
) -> io::Result<Option<Result<Request, Refusal>>>
where
    CR: AsyncRead + Unpin,
    UR: AsyncRead + Unpin,
{
    ends.from_client.rest();
    ends.from_upstream.rest();
    if ends.from_client.bytes.is_empty() {
        tokio::select! {
            biased;
            // The server has ended, or speaks without having been asked: there is no next request for it.
            read = ends.from_upstream.fill() => return read.map(|_| None),
            read = ends.from_client.fill() => if read? == 0 {
                return Ok(None);
            },
        }
    }
    if let Err(refusal) = (approved.holds)() {
        return Ok(Some(Err(refusal)));
    }
    let read = read_head(&mut ends.from_client, approved.name, approved.port);
    match timeout_at(Instant::now() + approved.patience, read).await {
        Ok(read) => read.map(Some),
        Err(_) => Ok(Some(Err(late()))),
    }
}

/// Sends one request and its body, and passes the answer back.
async fn exchange<CR, CW, UR, UW>(
    means: Means<'_>,
    ends: &mut Ends<'_, CR, CW, UR, UW>,
    request: &Request,
) -> io::Result<Next>
where
    CR: AsyncRead + Unpin,
    CW: AsyncWrite + Unpin,
    UR: AsyncRead + Unpin,
    UW: AsyncWrite + Unpin,
{
    let Ends { from_client, to_client, from_upstream, to_upstream } = ends;
    let mut sending = std::pin::pin!(send_request(means, request, from_client, *to_upstream));
    let mut sent = None;
    let answered = {
        let mut answering = std::pin::pin!(pass_answer(means, request, from_upstream, *to_client));
        loop {
            tokio::select! {
                done = &mut sending, if sent.is_none() => sent = Some(done?),
                done = &mut answering => break done?,
            }
        }
    };
    match answered {
        Next::Request if !request.more => Ok(Next::End),
        Next::Request => {
            let sent = match sent {
                Some(sent) => sent,
                // An early answer: the rest of the body is still due.
                None => sending.await?,
            };
            Ok(if sent { Next::Request } else { Next::End })
        }
        next => Ok(next),
    }
}

/// Whether all of it was taken: a server that has answered early may stop reading.
async fn send_request(
    means: Means<'_>,
    request: &Request,
    from: &mut Inbox<impl AsyncRead + Unpin>,
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<bool> {
    let sent = async {
        means.write(Way::Out, to, &request.head).await?;
        body::copy(means, Way::Out, request.body, from, to).await
    };
    match sent.await {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn pass_answer(
    means: Means<'_>,
    request: &Request,
    from: &mut Inbox<impl AsyncRead + Unpin>,
    to: &mut (impl AsyncWrite + Unpin),
) -> io::Result<Next> {
    loop {
        let (length, answer) = match head::answer(&from.bytes, request.is_head) {
            Ok(Some(answer)) => answer,
            Ok(None) if from.fill().await? > 0 => continue,
            Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(why) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("the host's answer is not HTTP: {why}"),
                ));
            }
        };
        if answer.status == 101 && !request.upgrade {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the host changes the protocol without being asked",
            ));
        }
        means.write(Way::In, to, from.bytes.get(..length).unwrap_or_default()).await?;
        from.bytes.advance(length);
        match answer.status {
            101 => return Ok(Next::WebSocket),
            100..=199 => continue,
            _ => {}
        }
        body::copy(means, Way::In, answer.body, from, to).await?;
        if answer.body == Body::UntilEnd {
            to.shutdown().await?;
        }
        return Ok(if answer.more { Next::Request } else { Next::End });
    }
}

/// Reads one request without a body, for what the gateway answers itself: its head, all of it.
///
/// # Errors
/// The outer one when the client ends or takes too long; the inner one when its head can't be read.
pub(crate) async fn plain(client: &mut TcpStream, deadline: Instant) -> io::Result<Result<Vec<u8>, Refusal>> {
    let mut bytes = Vec::new();
    let mut scan = Scan::default();
    let mut chunk = [0; 2048];
    loop {
        match scan.find(&bytes) {
            Err(refusal) => return Ok(Err(refusal)),
            Ok(Some(length)) => {
                bytes.truncate(length);
                return Ok(Ok(bytes));
            }
            Ok(None) => {}
        }
        match timeout_at(deadline, client.read(&mut chunk)).await?? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(chunk.get(..count).unwrap_or_default()),
        }
    }
}
