//! What a hello says, and what is no hello.

use super::*;

pub const ATTACKS: &[Attack] = &[
    controlled(
        attack(
            "1",
            "raw address on 443 without a hello",
            "gateway: addresses need a service tag",
            r#"{"probe": "raw", "address": "93.184.216.10", "port": 443, "send": "leak"}"#,
            closed,
        ),
        RANGE_APPROVED,
        open,
    ),
    controlled(
        attack(
            "2",
            "raw address with an approved server name",
            "gateway: addresses need a service tag",
            r#"{"probe": "tls", "address": "93.184.216.10", "name": "approved.example.net"}"#,
            closed,
        ),
        TLS_APPROVED,
        ok,
    ),
    controlled(
        attack(
            "3",
            "approved name's address with another server name",
            "gateway: server name must equal the name",
            r#"{"probe": "tls", "address": "approved.example.net", "name": "other.example.net"}"#,
            closed,
        ),
        TLS_APPROVED,
        ok,
    ),
    attack(
        "4",
        "no server name",
        "gateway: server name must equal the name",
        r#"{"probe": "tls", "address": "approved.example.net", "name": null, "host": "approved.example.net"}"#,
        closed,
    ),
    attack(
        "5",
        "an address as server name",
        "gateway: server name must equal the name",
        r#"{"probe": "hello", "address": "approved.example.net", "name": "93.184.216.10"}"#,
        closed,
    ),
    controlled(
        attack(
            "6",
            "encrypted client hello",
            "gateway: refuses the extension",
            r#"{"probe": "hello", "address": "approved.example.net", "form": "ech"}"#,
            closed,
        ),
        r#"{"probe": "hello", "address": "approved.example.net"}"#,
        open,
    ),
    attack(
        "7",
        "SSH on 443",
        "gateway: 443 must be TLS",
        r#"{"probe": "raw", "address": "approved.example.net", "port": 443, "send": "SSH-2.0-leak\r\n", "wait": 12}"#,
        closed_or_silent,
    ),
    controlled(
        attack(
            "8",
            "fragmented hello with another name",
            "gateway: reads the whole hello",
            r#"{"probe": "hello", "address": "approved.example.net", "name": "other.example.net", "form": "fragmented"}"#,
            closed,
        ),
        r#"{"probe": "hello", "address": "approved.example.net", "form": "fragmented"}"#,
        open,
    ),
    attack(
        "9",
        "hello byte by byte",
        "gateway: one deadline for the whole hello",
        r#"{"probe": "hello", "address": "approved.example.net", "form": "drip", "seconds": 12}"#,
        closed_or_silent,
    ),
    reaching(
        attack(
            "10",
            "a thousand half hellos, then others are served",
            "gateway: bounded half-open connections",
            r#"{"probe": "half_open", "address": "approved.example.net", "count": 1000, "then": "approved.example.net"}"#,
            |said| ok(said) || closed(said),
        ),
        APPROVED,
    ),
    attack(
        "11",
        "two server names",
        "gateway: exactly one server name",
        r#"{"probe": "hello", "address": "approved.example.net", "form": "second-name-extension"}"#,
        closed,
    ),
    attack(
        "12",
        "NUL in the server name",
        "gateway: names are canonical",
        r#"{"probe": "hello", "address": "approved.example.net", "form": "nul"}"#,
        closed,
    ),
    attack(
        "12b",
        "percent sign in the server name",
        "gateway: names are canonical",
        r#"{"probe": "hello", "address": "approved.example.net", "form": "percent"}"#,
        closed,
    ),
    controlled(
        attack(
            "16",
            "a hello over 16 KB",
            "gateway: bounded hello",
            r#"{"probe": "hello", "address": "approved.example.net", "form": "huge"}"#,
            closed,
        ),
        r#"{"probe": "hello", "address": "approved.example.net", "form": "post-quantum"}"#,
        open,
    ),
    attack(
        "1b",
        "raw IPv6 address on 443",
        "gateway: addresses need a service tag",
        r#"{"probe": "raw", "address": "2a00:1450::10", "port": 443, "send": "leak"}"#,
        closed,
    ),
];
