//! Requests on port 80.

use super::*;

pub const ATTACKS: &[Attack] = &[
    controlled(
        attack(
            "41",
            "another Host on port 80",
            "gateway: Host must equal the name",
            r#"{"probe": "http", "address": "approved.example.net", "requests": ["GET / HTTP/1.1\r\nHost: other.example.net\r\n\r\n"]}"#,
            http_refusal,
        ),
        HTTP_APPROVED,
        ok,
    ),
    attack(
        "42",
        "two Hosts",
        "gateway: exactly one Host",
        r#"{"probe": "http", "address": "approved.example.net", "requests": ["GET / HTTP/1.1\r\nHost: approved.example.net\r\nHost: other.example.net\r\n\r\n"]}"#,
        bad_request,
    ),
    attack(
        "43",
        "absolute target with another host",
        "gateway: target and Host must agree",
        r#"{"probe": "http", "address": "approved.example.net", "requests": ["GET http://other.example.net/ HTTP/1.1\r\nHost: approved.example.net\r\n\r\n"]}"#,
        forbidden,
    ),
    attack(
        "44",
        "CONNECT",
        "gateway: no tunnels",
        r#"{"probe": "http", "address": "approved.example.net", "requests": ["CONNECT other.example.net:443 HTTP/1.1\r\nHost: approved.example.net\r\n\r\n"]}"#,
        no_method,
    ),
    reaching(
        attack(
            "45",
            "a second request with another Host",
            "gateway: every request is read",
            r#"{"probe": "http", "address": "approved.example.net", "requests": ["GET / HTTP/1.1\r\nHost: approved.example.net\r\n\r\n", "GET / HTTP/1.1\r\nHost: other.example.net\r\n\r\n"]}"#,
            http_refusal,
        ),
        APPROVED,
    ),
    attack(
        "46",
        "both lengths",
        "gateway: strict HTTP",
        r#"{"probe": "http", "address": "approved.example.net", "requests": ["POST / HTTP/1.1\r\nHost: approved.example.net\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"]}"#,
        bad_request,
    ),
    attack(
        "46b",
        "bare line feeds",
        "gateway: strict HTTP",
        r#"{"probe": "http", "address": "approved.example.net", "requests": ["GET / HTTP/1.1\nHost: approved.example.net\n\n"]}"#,
        bad_request,
    ),
    attack(
        "46c",
        "folded header",
        "gateway: strict HTTP",
        r#"{"probe": "http", "address": "approved.example.net", "requests": ["GET / HTTP/1.1\r\nHost: approved.example.net\r\nX: a\r\n b\r\n\r\n"]}"#,
        bad_request,
    ),
    attack(
        "47",
        "HTTP/2 without TLS",
        "gateway: port 80 is HTTP/1",
        r#"{"probe": "http", "address": "approved.example.net", "requests": ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]}"#,
        http_refusal,
    ),
    reaching(
        attack(
            "49",
            "a redirect to an unapproved name leads nowhere",
            "sandbox DNS: NXDOMAIN",
            r#"{"probe": "shell", "line": "python3 -c \"import urllib.request as u; u.urlopen('http://approved.example.net/redirect', timeout=5)\""}"#,
            closed,
        ),
        APPROVED,
    ),
    attack(
        "51",
        "a PROXY prefix",
        "gateway: strict HTTP",
        r#"{"probe": "http", "address": "approved.example.net", "requests": ["PROXY TCP4 1.1.1.1 93.184.216.11 1 80\r\nGET / HTTP/1.1\r\nHost: approved.example.net\r\n\r\n"]}"#,
        bad_request,
    ),
    controlled(
        attack(
            "48",
            "WebSocket to another host",
            "gateway: Host must equal the name",
            r#"{"probe": "http", "address": "approved.example.net", "requests": ["GET / HTTP/1.1\r\nHost: other.example.net\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"]}"#,
            http_refusal,
        ),
        r#"{"probe": "http", "address": "approved.example.net", "requests": ["GET / HTTP/1.1\r\nHost: approved.example.net\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "echo}"]}"#,
        |said| said["detail"] == "echo}",
    ),
    reaching(
        attack(
            "50",
            "CONNECT behind a request that is fine",
            "gateway: every request is read",
            r#"{"probe": "http", "address": "approved.example.net", "requests": ["GET / HTTP/1.1\r\nHost: approved.example.net\r\n\r\n", "CONNECT other.example.net:443 HTTP/1.1\r\nHost: approved.example.net\r\n\r\n"]}"#,
            no_method,
        ),
        APPROVED,
    ),
];
