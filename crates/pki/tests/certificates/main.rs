//! The certificates judged by others: rustls, OpenSSL and Python's ssl in strict mode; and by whom they are shown to.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test fails by panicking")]

mod serving;
mod support;

use std::{process::Command, sync::Arc, time::Duration};

use casemate_model::Secret;
use casemate_pki::{CaMaterial, CertificateAuthority, CertificateMap, CertificateResolver, Leaf, PkiError};
use jiff::{SignedDuration, Timestamp};
use rustls::pki_types::{CertificateDer, pem::PemObject};

use crate::support::{DAY, authority, client_config, handshake, issue, serve};

#[test]
fn a_client_accepts_the_names_and_only_the_names() {
    let (authority, _) = authority();
    let names = ["score.local.inference.casemate.internal", "*.svc.example", "127.0.0.1", "::1"];
    let leaf = issue(&authority, &names);
    assert_eq!(leaf.names, names);
    // Shown for every name, so that it is the client who judges.
    let asked =
        names.iter().map(|name| (*name).to_owned()).chain(["other.example".to_owned(), "a.b.svc.example".to_owned()]);
    let resolver =
        Arc::new(CertificateResolver::new(CertificateMap::new(asked.map(|name| (name, &leaf)), Some(&leaf))));
    let client = Arc::new(client_config(authority.root_pem()));
    for good in [
        "score.local.inference.casemate.internal",
        "SCORE.local.inference.casemate.internal",
        "x.svc.example",
        "127.0.0.1",
        "::1",
    ] {
        let shown = handshake(&client, &resolver, good).unwrap_or_else(|error| panic!("{good}: {error}"));
        assert_eq!(shown, CertificateDer::from_pem_slice(leaf.chain_pem.as_bytes()).unwrap(), "{good}");
    }
    for bad in ["other.example", "a.b.svc.example", "127.0.0.2"] {
        let error = handshake(&client, &resolver, bad).unwrap_err();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{bad}: {error}");
    }
    let stranger = Arc::new(client_config(self::authority().0.root_pem()));
    assert!(matches!(handshake(&stranger, &resolver, "127.0.0.1"), Err(rustls::Error::InvalidCertificate(_))));
}

#[test]
fn an_expired_or_future_leaf_is_refused_by_a_client() {
    let (authority, _) = authority();
    let client = Arc::new(client_config(authority.root_pem()));
    for (hours, validity) in [(-240, DAY), (48, DAY)] {
        let at = Timestamp::now() + SignedDuration::from_hours(hours);
        let leaf = authority.issue(&["a.example".to_owned()], at, validity).unwrap();
        let resolver = Arc::new(CertificateResolver::new(CertificateMap::new([("a.example".to_owned(), &leaf)], None)));
        let error = handshake(&client, &resolver, "a.example").unwrap_err();
        assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{hours} h: {error}");
    }
}

#[test]
fn an_unknown_name_gets_an_alert_and_a_published_map_is_seen_by_the_next_handshake() {
    let (authority, _) = authority();
    let client = Arc::new(client_config(authority.root_pem()));
    let first = issue(&authority, &["a.example"]);
    let resolver = Arc::new(CertificateResolver::default());
    for name in ["a.example", "127.0.0.1"] {
        let error = handshake(&client, &resolver, name).unwrap_err();
        assert!(matches!(error, rustls::Error::AlertReceived(_)), "{name}: {error}");
    }
    resolver.publish(CertificateMap::new([("A.example.".to_owned(), &first)], None));
    let shown = handshake(&client, &resolver, "a.example").unwrap();
    let second = issue(&authority, &["a.example"]);
    assert_ne!((&first.serial, &first.sha256), (&second.serial, &second.sha256));
    resolver.publish(CertificateMap::new([("a.example".to_owned(), &second)], None));
    assert_ne!(handshake(&client, &resolver, "a.example").unwrap(), shown);
    // No name was sent, and no certificate is set for that.
    assert!(matches!(handshake(&client, &resolver, "127.0.0.1"), Err(rustls::Error::AlertReceived(_))));
}

#[test]
fn openssl_accepts_the_chain_in_strict_mode() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("skipped: no openssl on this machine");
        return;
    }
    let (authority, material) = authority();
    let leaf = issue(&authority, &["score.example", "127.0.0.1"]);
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let root = file("root.pem", authority.root_pem());
    let intermediate = file("intermediate.pem", &material.intermediate_cert_pem);
    let leaf_file = file("leaf.pem", &leaf.chain_pem);
    let verify = |extra: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile"]).arg(&root);
        command.arg("-untrusted").arg(&intermediate).args(extra).arg(&leaf_file).output().unwrap()
    };
    for extra in [&["-verify_hostname", "score.example"][..], &["-verify_ip", "127.0.0.1"]] {
        let answer = verify(extra);
        assert!(answer.status.success(), "{extra:?}: {}", String::from_utf8_lossy(&answer.stderr));
    }
    assert!(!verify(&["-verify_hostname", "other.example"]).status.success());
}

#[test]
fn python_accepts_the_chain_in_strict_mode() {
    let (authority, _) = authority();
    let leaf = issue(&authority, &["localhost", "127.0.0.1"]);
    let map = CertificateMap::new([("localhost".to_owned(), &leaf)], Some(&leaf));
    let port = serve(Arc::new(CertificateResolver::new(map)));
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root.pem");
    std::fs::write(&root, authority.root_pem()).unwrap();
    let script = "
import socket, ssl, sys
root, port = sys.argv[1], int(sys.argv[2])
context = ssl.create_default_context(cafile=root)
context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
for name in ('localhost', '127.0.0.1'):
    with context.wrap_socket(socket.create_connection(('127.0.0.1', port)), server_hostname=name) as stream:
        assert stream.recv(6) == b'hello\\n'
try:
    context.wrap_socket(socket.create_connection(('127.0.0.1', port)), server_hostname='127.0.0.2')
except ssl.SSLCertVerificationError:
    pass
else:
    sys.exit('a wrong address was accepted')
try:
    context.wrap_socket(socket.create_connection(('127.0.0.1', port)), server_hostname='unknown.example')
except ssl.SSLError as error:
    assert 'UNRECOGNIZED_NAME' in str(error).upper(), error
else:
    sys.exit('an unknown name was served')
";
    let Ok(answer) = Command::new("python3").args(["-c", script]).arg(&root).arg(port.to_string()).output() else {
        eprintln!("skipped: no python3 on this machine");
        return;
    };
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
}

#[test]
fn stored_material_loads_and_parts_of_two_authorities_do_not_mix() {
    let (_, one) = authority();
    let (_, other) = authority();
    let leaf = issue(&CertificateAuthority::load(&one).unwrap(), &["a.example"]);
    let resolver = Arc::new(CertificateResolver::new(CertificateMap::new([("a.example".to_owned(), &leaf)], None)));
    handshake(&Arc::new(client_config(&one.root_cert_pem)), &resolver, "a.example").unwrap();
    let mixes: [(&str, CaMaterial); 4] = [
        ("root key", CaMaterial { root_key_pem: other.root_key_pem.clone(), ..one.clone() }),
        ("intermediate key", CaMaterial { intermediate_key_pem: other.intermediate_key_pem.clone(), ..one.clone() }),
        (
            "root",
            CaMaterial {
                root_cert_pem: other.root_cert_pem.clone(),
                root_key_pem: other.root_key_pem.clone(),
                ..one.clone()
            },
        ),
        (
            "order",
            CaMaterial {
                intermediate_cert_pem: one.root_cert_pem.clone(),
                root_cert_pem: one.intermediate_cert_pem.clone(),
                ..one.clone()
            },
        ),
    ];
    for (what, mix) in mixes {
        assert!(matches!(CertificateAuthority::load(&mix), Err(PkiError::Mismatch(_))), "{what}");
    }
    for (what, broken) in [
        ("no root", CaMaterial { root_cert_pem: String::new(), ..one.clone() }),
        (
            "a key as certificate",
            CaMaterial { root_cert_pem: one.root_key_pem.expose_str().unwrap().to_owned(), ..one.clone() },
        ),
        ("binary key", CaMaterial { root_key_pem: Secret::new([0xff, 0xfe]), ..one.clone() }),
    ] {
        let error = CertificateAuthority::load(&broken).unwrap_err();
        assert!(matches!(error, PkiError::Malformed { .. }), "{what}: {error}");
    }
}

#[test]
fn a_leaf_loads_with_its_own_key_only() {
    let (authority, _) = authority();
    let (one, other) = (issue(&authority, &["a.example"]), issue(&authority, &["b.example"]));
    let again = Leaf::load(one.chain_pem.clone(), one.key_pem.clone()).unwrap();
    assert_eq!(
        (again.serial, again.sha256, again.not_after, again.names),
        (one.serial, one.sha256, one.not_after, one.names)
    );
    let mixed = Leaf::load(one.chain_pem.clone(), other.key_pem.clone());
    assert!(matches!(mixed, Err(PkiError::Mismatch(_))));
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for chain in ["", "hello", garbage, &one.chain_pem.repeat(20)] {
        assert!(matches!(Leaf::load(chain.to_owned(), one.key_pem.clone()), Err(PkiError::Malformed { .. })));
    }
    let shown = format!("{other:?}");
    assert!(!shown.contains("PRIVATE") && shown.contains("b.example"), "{shown}");
}

#[test]
fn a_leaf_never_outlives_its_issuer() {
    let start = Timestamp::now();
    let (authority, _) = CertificateAuthority::create(start).unwrap();
    let names = ["a.example".to_owned()];
    let late = start + SignedDuration::try_from(casemate_pki::INTERMEDIATE_VALIDITY).unwrap();
    let near = authority.issue(&names, late - SignedDuration::from_hours(24), 90 * DAY).unwrap();
    assert_eq!(near.not_after.as_second(), late.as_second());
    assert!(matches!(authority.issue(&names, late, DAY), Err(PkiError::IssuerExpired { .. })));
    for bad in [vec![], vec!["a b".to_owned()], vec!["a.example".to_owned(); 101]] {
        assert!(matches!(authority.issue(&bad, start, DAY), Err(PkiError::BadName { .. })));
    }
    assert!(authority.issue(&names, start, Duration::MAX).is_err());
}
