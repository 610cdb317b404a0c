//! Port 80: every request is read, and what could be read in two ways goes nowhere.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{World, is_reset, only, read_all, read_some, rule, say, server::Server};

const NAME: &str = "approved.example";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn world(answer: &'static str) -> (World, Server) {
    let world = World::new(only([rule("r", NAME, "80")]));
    let server = Server::answering(answer).await;
    world.host(NAME, 80, server.address);
    (world, server)
}

#[tokio::test]
async fn hostile_requests_reach_nobody_and_are_told_why() {
    let cases = [
        ("another host", "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403, "Host header is 'evil.example'"),
        ("another port", "GET / HTTP/1.1\r\nHost: approved.example:443\r\n\r\n", 403, "Host header"),
        ("a sign before the port", "GET / HTTP/1.1\r\nHost: approved.example:+80\r\n\r\n", 403, "Host header"),
        ("below the host", "GET / HTTP/1.1\r\nHost: x.approved.example\r\n\r\n", 403, "Host header"),
        ("an address", "GET / HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n", 403, "Host header"),
        ("a user before the host", "GET / HTTP/1.1\r\nHost: approved.example@evil.example\r\n\r\n", 403, "Host header"),
        ("no host", "GET / HTTP/1.1\r\nAccept: */*\r\n\r\n", 400, "no Host header"),
        ("no host in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", 400, "no Host header"),
        (
            "two hosts",
            "GET / HTTP/1.1\r\nHost: approved.example\r\nHost: evil.example\r\n\r\n",
            400,
            "more than one Host",
        ),
        (
            "the host twice",
            "GET / HTTP/1.1\r\nHost: approved.example\r\nhost: approved.example\r\n\r\n",
            400,
            "more than one Host",
        ),
        (
            "absolute target",
            "GET http://evil.example/ HTTP/1.1\r\nHost: approved.example\r\n\r\n",
            403,
            "target is at 'evil.example'",
        ),
        (
            "absolute target here",
            "GET http://approved.example/ HTTP/1.1\r\nHost: approved.example\r\n\r\n",
            400,
            "not a path",
        ),
        ("CONNECT", "CONNECT evil.example:443 HTTP/1.1\r\nHost: approved.example\r\n\r\n", 405, "CONNECT"),
        ("CONNECT here", "CONNECT approved.example:80 HTTP/1.1\r\nHost: approved.example:80\r\n\r\n", 405, "CONNECT"),
        (
            "CL and TE",
            "POST / HTTP/1.1\r\nHost: approved.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "both",
        ),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nHost: approved.example\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
            400,
            "more than one Content-Length",
        ),
        (
            "a list of lengths",
            "POST / HTTP/1.1\r\nHost: approved.example\r\nContent-Length: 4, 4\r\n\r\nabcd",
            400,
            "not a number",
        ),
        (
            "a length with a sign",
            "POST / HTTP/1.1\r\nHost: approved.example\r\nContent-Length: +4\r\n\r\nabcd",
            400,
            "not a number",
        ),
        (
            "TE that only ends in chunked",
            "POST / HTTP/1.1\r\nHost: approved.example\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            400,
            "'chunked' alone",
        ),
        (
            "TE twice",
            "POST / HTTP/1.1\r\nHost: approved.example\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
            400,
            "'chunked' alone",
        ),
        (
            "TE in HTTP/1.0",
            "POST / HTTP/1.0\r\nHost: approved.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "'chunked' alone",
        ),
        (
            "a space before the colon",
            "POST / HTTP/1.1\r\nHost: approved.example\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            400,
            "HTTP/1.1",
        ),
        ("bare LF", "GET / HTTP/1.1\nHost: approved.example\n\n", 400, "without CR"),
        (
            "bare LF in a header",
            "GET / HTTP/1.1\r\nHost: approved.example\r\nA: b\nHost: evil.example\r\n\r\n",
            400,
            "without CR",
        ),
        (
            "bare CR",
            "GET / HTTP/1.1\r\nHost: approved.example\r\nA: b\rHost: evil.example\r\n\r\n",
            400,
            "CR that ends no line",
        ),
        (
            "a folded header",
            "GET / HTTP/1.1\r\nHost: approved.example\r\nA: b\r\n Host: evil.example\r\n\r\n",
            400,
            "continued",
        ),
        ("NUL", "GET / HTTP/1.1\r\nHost: approved.example\0.evil.example\r\n\r\n", 400, "control character"),
        (
            "an empty line first",
            "\r\nGET / HTTP/1.1\r\nHost: approved.example\r\n\r\n",
            400,
            "does not begin with a method",
        ),
        ("HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "HTTP/2 without TLS"),
        ("HTTP/0.9", "GET /\r\n\r\n", 400, "HTTP/1.1"),
        ("TLS", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03", 400, "does not begin with a method"),
        (
            "a PROXY prefix",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 80\r\nGET / HTTP/1.1\r\nHost: approved.example\r\n\r\n",
            400,
            "HTTP/1.1",
        ),
    ];
    let server = Server::answering(OK).await;
    for (what, request, status, why) in cases {
        let world = World::new(only([rule("r", NAME, "80")]));
        world.host(NAME, 80, server.address);
        let mut stream = world.connect(NAME, 80).await;
        say(&mut stream, request.as_bytes()).await;
        let answer = read_all(&mut stream).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(why), "{what}: {answer}");
        let entry = world.refused(why).await;
        assert_eq!((entry.protocol.as_str(), entry.name.as_deref()), ("http", Some(NAME)), "{what}");
        assert_eq!(world.dialled(), vec![], "{what}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn honest_requests_pass_one_after_the_other() {
    let (world, server) = world(OK).await;
    let mut stream = world.connect(NAME, 80).await;
    for (request, passed) in [
        ("GET /a?b=c HTTP/1.1\r\nHost: approved.example\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n", None),
        (
            "GET / HTTP/1.1\r\nHost:Approved.Example:80\r\nAccept:  x \r\n\r\n",
            Some("GET / HTTP/1.1\r\nHost: Approved.Example:80\r\nAccept: x\r\n\r\n"),
        ),
        ("OPTIONS * HTTP/1.1\r\nhost: approved.example.\r\n\r\n", None),
        ("POST / HTTP/1.1\r\nHost: approved.example\r\nContent-Length: 5\r\n\r\nhello", None),
        // A host among the trailers goes no further.
        (
            "POST / HTTP/1.1\r\nHost: approved.example\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\nHost: evil.example\r\n\r\n",
            Some(
                "POST / HTTP/1.1\r\nHost: approved.example\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            ),
        ),
        (
            "POST / HTTP/1.1\r\nHost: approved.example\r\nTransfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n0\r\n\r\n",
            Some(
                "POST / HTTP/1.1\r\nHost: approved.example\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            ),
        ),
        // An offer of HTTP/2 is left out, and so is a wish to have a header dropped on the way.
        (
            "GET / HTTP/1.1\r\nHost: approved.example\r\nConnection: Upgrade, HTTP2-Settings, Host\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
            Some("GET / HTTP/1.1\r\nHost: approved.example\r\n\r\n"),
        ),
    ] {
        server.heard.lock().unwrap().clear();
        say(&mut stream, request.as_bytes()).await;
        let mut answer = read_some(&mut stream, OK.len()).await;
        assert_eq!(String::from_utf8_lossy(&answer), OK, "{request}");
        // The server answers as soon as something comes, so the rest of a body may still be on its way.
        let passed = passed.unwrap_or(request);
        for _ in 0..200 {
            if server.heard() == passed {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert_eq!(server.heard(), passed);
        answer.clear();
    }
    // The next one is for somebody else: told so, after everything before it was answered.
    server.heard.lock().unwrap().clear();
    say(&mut stream, b"GET /smuggled HTTP/1.1\r\nHost: evil.example\r\n\r\n").await;
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("evil.example"), "{answer}");
    world.refused("evil.example").await;
    assert_eq!((server.heard().as_str(), server.connections()), ("", 1));
    let entry = world.logged(|entry| entry.allowed && entry.protocol == "http").await;
    assert!(entry.bytes_sent > 400 && entry.bytes_received >= 7 * OK.len() as u64, "{entry:?}");
}

#[tokio::test]
async fn requests_behind_a_body_are_read_as_requests() {
    let (world, server) = world(OK).await;
    // Both in one piece: the second is seen, whatever the first one's body looks like.
    let mut stream = world.connect(NAME, 80).await;
    let first = "POST / HTTP/1.1\r\nHost: approved.example\r\nContent-Length: 3\r\n\r\nabc";
    say(&mut stream, format!("{first}GET /evil HTTP/1.1\r\nHost: evil.example\r\n\r\n").as_bytes()).await;
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with(OK) && answer.contains("HTTP/1.1 403 "), "{answer}");
    assert_eq!(server.heard(), first);
    // Broken framing ends the connection without a word more to the server.
    for (head, body) in [
        ("Transfer-Encoding: chunked", "3\nabc\n0\n\n"),
        ("Transfer-Encoding: chunked", "3\r\nabcGET /evil HTTP/1.1\r\n"),
        ("Transfer-Encoding: chunked", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "ffffffffffffffffff\r\n"),
        ("Transfer-Encoding: chunked", "0\r\nGET /evil HTTP/1.1\r\n\r\n"),
        ("Transfer-Encoding: chunked", "0\r\nX: y\nHost: evil.example\r\n\r\n"),
    ] {
        let silent = Server::each(|mut stream, heard| async move {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut bytes).await {
                heard.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        })
        .await;
        let world = World::new(only([rule("r", NAME, "80")]));
        world.host(NAME, 80, silent.address);
        let mut stream = world.connect(NAME, 80).await;
        say(&mut stream, format!("POST / HTTP/1.1\r\nHost: approved.example\r\n{head}\r\n\r\n{body}").as_bytes()).await;
        assert!(is_reset(&mut stream).await, "{body}");
        assert!(!silent.heard().contains("evil"), "{body}: {}", silent.heard());
    }
}

#[tokio::test]
async fn answers_are_framed_as_they_say() {
    for (what, method, answer, body) in [
        ("chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", None),
        (
            "a hint first",
            "GET",
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
            None,
        ),
        ("nothing", "GET", "HTTP/1.1 204 No Content\r\n\r\n", None),
        ("not modified", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n", None),
        ("HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n", None),
        ("HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n\r\na", None),
        // Where an answer has no end of its own, what follows belongs to it.
        (
            "until the end",
            "GET",
            "HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\n\r\nabc",
            Some("HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\n\r\nabc"),
        ),
    ] {
        let (world, server) = match body {
            None => world(answer).await,
            Some(_) => {
                let world = World::new(only([rule("r", NAME, "80")]));
                let server = Server::each(move |mut stream, _| async move {
                    let mut bytes = [0; 4096];
                    let _ = stream.read(&mut bytes).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                })
                .await;
                world.host(NAME, 80, server.address);
                (world, server)
            }
        };
        let mut stream = world.connect(NAME, 80).await;
        let request = format!("{method} / HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
        if body.is_some() {
            say(&mut stream, request.as_bytes()).await;
            assert_eq!(read_all(&mut stream).await, answer, "{what}");
        } else {
            for _ in 0..2 {
                say(&mut stream, request.as_bytes()).await;
                let read = read_some(&mut stream, answer.len()).await;
                assert_eq!(String::from_utf8_lossy(&read), answer, "{what}");
            }
        }
        assert_eq!(server.connections(), 1, "{what}");
        // A redirect is the client's to follow: nobody has gone there.
        assert_eq!(world.dialled().len(), 1, "{what}");
    }
}

#[tokio::test]
async fn a_websocket_goes_on_as_bytes_only_when_the_server_agrees() {
    const ASK: &str = "GET /ws HTTP/1.1\r\nHost: approved.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let agreeing = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let server = Server::each(move |mut stream, heard| async move {
        let mut bytes = [0; 4096];
        let _ = stream.read(&mut bytes).await;
        let _ = stream.write_all(agreeing.as_bytes()).await;
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            heard.lock().unwrap().extend_from_slice(&bytes[..count]);
            let _ = stream.write_all(&bytes[..count]).await;
        }
    })
    .await;
    let world = World::new(only([rule("r", NAME, "80")]));
    world.host(NAME, 80, server.address);
    let mut stream = world.connect(NAME, 80).await;
    say(&mut stream, ASK.as_bytes()).await;
    assert_eq!(read_some(&mut stream, agreeing.len()).await, agreeing.as_bytes());
    say(&mut stream, b"\x81\x05hello").await;
    assert_eq!(read_some(&mut stream, 7).await, b"\x81\x05hello");
    // A server that declines gets requests, not bytes.
    let (world, server) = self::world(OK).await;
    let mut stream = world.connect(NAME, 80).await;
    say(&mut stream, format!("{ASK}GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n").as_bytes()).await;
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with(OK) && answer.contains("HTTP/1.1 403 "), "{answer}");
    assert!(!server.heard().contains("evil"));
    // A server that changes the protocol unasked is not followed.
    let (world, _server) = self::world(agreeing).await;
    let mut stream = world.connect(NAME, 80).await;
    say(&mut stream, b"GET / HTTP/1.1\r\nHost: approved.example\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n").await;
    assert!(is_reset(&mut stream).await);
}

#[tokio::test]
async fn a_body_may_wait_for_leave_and_an_answer_may_come_before_it() {
    const HEAD: &str = "POST / HTTP/1.1\r\nHost: approved.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    const LEAVE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    let server = Server::each(|mut stream, heard| async move {
        let mut bytes = [0; 4096];
        for answer in [LEAVE, OK, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"] {
            let count = stream.read(&mut bytes).await.unwrap();
            heard.lock().unwrap().extend_from_slice(&bytes[..count]);
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let world = World::new(only([rule("r", NAME, "80")]));
    world.host(NAME, 80, server.address);
    let mut stream = world.connect(NAME, 80).await;
    say(&mut stream, HEAD.as_bytes()).await;
    assert_eq!(read_some(&mut stream, LEAVE.len()).await, LEAVE.as_bytes());
    say(&mut stream, b"hello").await;
    assert_eq!(read_some(&mut stream, OK.len()).await, OK.as_bytes());
    assert_eq!(server.heard(), format!("{HEAD}hello"));
    // The server does not want the next body: the answer passes although the body has not been sent.
    say(&mut stream, HEAD.as_bytes()).await;
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}
