//! The manager over a real store, a real authority and real handshakes.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use casemate_model::{
    operation::OperationStatus,
    tls::{AUTHORITY_TYPE, CERTIFICATE_TYPE, CUSTOM_KEY, SERVED_KEY, TlsWish},
};
use casemate_pki::{CertificateAuthority, DEFAULT_VALIDITY, Leaf, RenewalWindow};
use serde_json::json;
use tokio::time::timeout;

use super::{
    stage::{Paper, START, Stage, compute, platform},
    *,
};

fn names(name: &str) -> Vec<String> {
    vec![name.to_owned()]
}

#[tokio::test]
async fn a_certificate_is_seen_before_it_is_kept_and_served_from_the_first_moment_after_a_restart() {
    let mut stage = Stage::new(None).await;
    let id = compute("a");
    stage.put(&id, &TlsWish::platform(names("a.test"))).await;
    assert_eq!(stage.outcome(&id).await, TlsOutcome::Settled);
    let record = stage.record(&id).await;
    let facts = record.certificate.clone().unwrap();
    assert_eq!((facts.issuer.as_str(), facts.provisional, record.issued, record.failures), ("built-in", false, 1, 0));
    assert_eq!(stage.shown("a.test").await.as_ref(), Some(&facts.sha256));
    assert_eq!(stage.shown("b.test").await, None);
    stage.rest().await;
    let own = stage.record(&platform()).await.certificate.unwrap();
    assert_eq!(stage.shown("127.0.0.1").await, Some(own.sha256));

    // One round before anything can be looked at: what was proven is there, unchanged.
    stage.restart().await;
    stage.certificates.is_open = false;
    stage.round().await;
    assert_eq!(stage.shown("a.test").await.as_ref(), Some(&facts.sha256));
    stage.certificates.open();
    stage.rest().await;
    assert_eq!(stage.record(&id).await, record);

    // The key is nowhere in clear.
    let key = stage.store.secret_get(&id, SERVED_KEY).await.unwrap().unwrap();
    let body = key.expose_str().unwrap().lines().nth(1).unwrap().to_owned();
    for entry in std::fs::read_dir(stage.dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(body.len()).any(|window| window == body.as_bytes()));
    }
    // An owner that is gone is not served, and its name is free.
    let mut tx = stage.store.begin().await.unwrap();
    tx.resource_remove(&id).await.unwrap();
    tx.commit().await.unwrap();
    stage.rest().await;
    assert_eq!(stage.shown("a.test").await, None);
    assert!(!stage.certificates.claims.contains_key("a.test"));
}

#[tokio::test]
async fn a_forced_renewal_ends_with_what_is_shown_and_a_failed_proof_brings_the_old_one_back() {
    let mut stage = Stage::new(None).await;
    let id = compute("a");
    stage.put(&id, &TlsWish::platform(names("a.test"))).await;
    stage.outcome(&id).await;
    let first = stage.shown("a.test").await.unwrap();
    let operation = stage.action(CERTIFICATE_TYPE, "A.test").await;
    let began = tokio::time::Instant::now();
    let ended = stage.ended(operation).await;
    let took = began.elapsed();
    let second = stage.shown("a.test").await.unwrap();
    assert_ne!(first, second);
    let result = ended.result.unwrap();
    assert_eq!((&result["before"]["sha256"], &result["after"]["sha256"]), (&json!(first), &json!(second)));
    assert_eq!(stage.record(&id).await.issued, 2);
    eprintln!("a forced renewal took {took:?}");

    // The front door shows something else: back to the one before, and no end of it.
    *stage.glasses.lie.lock().unwrap() = Some("0123".to_owned());
    let operation = stage.action(CERTIFICATE_TYPE, "a.test").await;
    let OperationStatus::Failed(fault) = stage.ended(operation).await.status else { panic!("it can't be proven") };
    assert_eq!(fault.code, "CertificateNotServed");
    assert!(fault.message.contains("0123"), "{}", fault.message);
    stage.rest().await;
    assert_eq!(stage.shown("a.test").await.as_ref(), Some(&second));
    let record = stage.record(&id).await;
    assert_eq!((record.failures, record.failed_in_row), (1, 1));
    assert_eq!(record.certificate.unwrap().sha256, second);
    stage.restart().await;
    stage.round().await;
    assert_eq!(stage.shown("a.test").await.as_ref(), Some(&second));

    // Names that nobody has, and names of owners who renew for themselves.
    let operation = stage.action(CERTIFICATE_TYPE, "nobody.test").await;
    assert!(matches!(stage.ended(operation).await.status, OperationStatus::Failed(_)));
}

#[tokio::test]
async fn a_custom_certificate_that_is_no_good_leaves_the_one_before() {
    let mut stage = Stage::new(None).await;
    let id = compute("a");
    stage.put(&id, &TlsWish::platform(names("www.a.test"))).await;
    stage.outcome(&id).await;
    let before = stage.shown("www.a.test").await.unwrap();
    let now = Timestamp::from_second(START).unwrap();
    let (authority, _) = CertificateAuthority::create(now).unwrap();
    let issue = |name: &str, at: i64| {
        let at = Timestamp::from_second(START + at).unwrap();
        authority.issue(&names(name), at, Duration::from_secs(3600)).unwrap()
    };
    let (good, wrong, ended) = (issue("*.a.test", 0), issue("b.test", 0), issue("www.a.test", -5000));
    let cases = [
        ("garbage", "no certificate".to_owned(), good.key_pem.clone(), "InvalidCertificate"),
        ("another key", good.chain_pem.clone(), wrong.key_pem.clone(), "CertificateKeyMismatch"),
        ("another name", wrong.chain_pem.clone(), wrong.key_pem.clone(), "CertificateNameMismatch"),
        ("ended", ended.chain_pem.clone(), ended.key_pem.clone(), "CertificateExpired"),
    ];
    let wish = |version| TlsWish { mode: TlsMode::Custom, version, ..TlsWish::platform(names("www.a.test")) };
    let mut version = 0;
    for (what, chain, key, code) in cases {
        version += 1;
        stage.give(&id, version, &chain, &key).await;
        stage.put(&id, &wish(version)).await;
        let TlsOutcome::Refused(fault) = stage.outcome(&id).await else { panic!("{what} was taken") };
        assert_eq!(fault.code, code, "{what}: {}", fault.message);
        stage.rest().await;
        assert_eq!(stage.shown("www.a.test").await.as_ref(), Some(&before), "{what}");
    }
    stage.give(&id, version + 1, &good.chain_pem, &good.key_pem).await;
    stage.put(&id, &wish(version + 1)).await;
    assert_eq!(stage.outcome(&id).await, TlsOutcome::Settled);
    assert_eq!(stage.shown("www.a.test").await, Some(good.sha256.clone()));
    let facts = stage.record(&id).await.certificate.unwrap();
    assert_eq!((facts.issuer.as_str(), facts.next_renewal), ("custom", None));
    let superseded = stage.store.secret_get(&id, &format!("{CUSTOM_KEY}-{version}")).await.unwrap();
    assert!(superseded.is_none(), "keys that were refused are not kept");

    // Off, and on again: the same one.
    stage.put(&id, &TlsWish::off()).await;
    assert_eq!(stage.outcome(&id).await, TlsOutcome::Settled);
    assert_eq!(stage.shown("www.a.test").await, None);
    stage.put(&id, &wish(version + 1)).await;
    assert_eq!(stage.outcome(&id).await, TlsOutcome::Settled);
    assert_eq!(stage.shown("www.a.test").await, Some(good.sha256));
}

#[tokio::test]
async fn a_slow_issuer_holds_nobody_up_and_one_that_is_down_is_stood_in_for() {
    let paper = Paper::new(Duration::from_secs(90 * 86_400));
    let mut stage = Stage::new(Some(Arc::clone(&paper))).await;
    paper.is_stuck.store(true, Ordering::Relaxed);
    for number in 0..10 {
        stage.put(&compute(&format!("slow{number}")), &TlsWish::platform(names(&format!("slow{number}.test")))).await;
    }
    stage.round().await;
    assert_eq!(stage.certificates.running.len() - 1, ISSUING, "beside the proof of the platform's own");
    let now = Timestamp::from_second(START).unwrap();
    let (authority, _) = CertificateAuthority::create(now).unwrap();
    let good = authority.issue(&names("quick.test"), now, DEFAULT_VALIDITY).unwrap();
    let quick = compute("quick");
    stage.give(&quick, 1, &good.chain_pem, &good.key_pem).await;
    stage.put(&quick, &TlsWish { mode: TlsMode::Custom, version: 1, ..TlsWish::platform(names("quick.test")) }).await;
    assert_eq!(stage.outcome(&quick).await, TlsOutcome::Settled);

    // After a restart it is down: names get a certificate all the same, and the real one when it is up again.
    paper.is_stuck.store(false, Ordering::Relaxed);
    paper.is_down.store(true, Ordering::Relaxed);
    stage.restart().await;
    let id = compute("slow0");
    assert_eq!(stage.outcome(&id).await, TlsOutcome::Settled);
    stage.rest().await;
    let record = stage.record(&id).await;
    assert!(record.certificate.as_ref().unwrap().provisional && record.retry_at.is_some());
    assert_eq!(record.certificate.unwrap().issuer, "built-in");
    assert!(stage.shown("slow9.test").await.is_some());
    assert_eq!(paper.issued.load(Ordering::Relaxed), 0);
    paper.is_down.store(false, Ordering::Relaxed);
    stage.rest().await;
    assert_eq!(paper.issued.load(Ordering::Relaxed), 0, "not before its time");
    stage.pass(61);
    stage.rest().await;
    let facts = stage.record(&id).await.certificate.unwrap();
    assert_eq!((facts.issuer.as_str(), facts.provisional), ("acme ca.test", false));
    assert_eq!(stage.shown("slow0.test").await, Some(facts.sha256));

    // The issuer wants it renewed early.
    let soon = |hours: i64| Timestamp::from_second(START + hours * 3600).unwrap();
    *paper.window.lock().unwrap() = Some(RenewalWindow { start: soon(24), end: soon(25) });
    stage.pass(7 * 3600);
    stage.rest().await;
    let next = stage.record(&id).await.certificate.unwrap().next_renewal.unwrap();
    assert!((soon(24)..=soon(25)).contains(&next));
}

#[tokio::test]
async fn a_name_is_one_owners_only() {
    let mut stage = Stage::new(None).await;
    let (first, second) = (compute("first"), compute("second"));
    stage.put(&first, &TlsWish::platform(names("a.test"))).await;
    assert_eq!(stage.outcome(&first).await, TlsOutcome::Settled);
    for name in ["a.test", "localhost"] {
        stage.put(&second, &TlsWish::platform(names(name))).await;
        let TlsOutcome::Refused(fault) = stage.outcome(&second).await else { panic!("{name} is somebody else's") };
        assert_eq!(fault.code, "NameInUse");
    }
    // What another has is free when it is given up.
    stage.put(&first, &TlsWish::platform(names("b.test"))).await;
    stage.outcome(&first).await;
    stage.put(&second, &TlsWish::platform(names("a.test"))).await;
    assert_eq!(stage.outcome(&second).await, TlsOutcome::Settled);
    let seen = stage.record(&second).await.certificate.unwrap().sha256;
    assert_eq!(stage.shown("a.test").await, Some(seen));
}

#[tokio::test]
async fn a_kill_at_any_moment_leaves_a_proven_certificate_and_the_wish_is_pursued() {
    let paper = Paper::new(Duration::from_secs(90 * 86_400));
    let mut stage = Stage::new(Some(paper)).await;
    let id = compute("a");
    stage.put(&id, &TlsWish::platform(names("a.test"))).await;
    stage.outcome(&id).await;
    for kill_after in 0..5 {
        let before = stage.shown("a.test").await.unwrap();
        let operation = stage.action(CERTIFICATE_TYPE, "a.test").await;
        for _ in 0..kill_after {
            stage.round().await;
            let _ = timeout(Duration::from_millis(50), stage.certificates.finished()).await;
        }
        stage.restart().await;
        stage.certificates.is_open = false;
        stage.round().await;
        let shown = stage.shown("a.test").await.unwrap();
        let is_over = stage.store.operation_get(operation).await.unwrap().unwrap().result.is_some();
        assert_eq!(shown != before, is_over, "what is shown is what was written down");
        stage.certificates.open();
        let ended = stage.ended(operation).await;
        assert_eq!(ended.status, OperationStatus::Succeeded);
        assert_eq!(json!(stage.shown("a.test").await), ended.result.unwrap()["after"]["sha256"]);
    }
}

#[tokio::test]
async fn the_authority_renews_itself_and_when_asked_and_nothing_breaks() {
    let mut stage = Stage::new(None).await;
    let id = compute("a");
    stage.put(&id, &TlsWish::platform(names("a.test"))).await;
    stage.outcome(&id).await;
    let old = stage.shown("a.test").await.unwrap();
    let before = stage.certificates.issuers.built_in.authority();
    let operation = stage.action(AUTHORITY_TYPE, "intermediate").await;
    let ended = stage.ended(operation).await;
    assert_eq!(ended.status, OperationStatus::Succeeded);
    assert_ne!(ended.result.as_ref().unwrap()["before"]["sha256"], ended.result.as_ref().unwrap()["after"]["sha256"]);
    assert_eq!(stage.certificates.issuers.built_in.authority().root_pem(), before.root_pem());
    stage.rest().await;
    assert_eq!(stage.shown("a.test").await.as_ref(), Some(&old), "old leaves go on being served");

    let operation = stage.action(AUTHORITY_TYPE, "root").await;
    let ended = stage.ended(operation).await;
    assert_eq!(ended.result.unwrap()["crossSigned"], true);
    let both = stage.roots.lock().unwrap().clone();
    assert_eq!(casemate_pki::describe(&both).unwrap().len(), 2);
    assert_eq!(both, trusted_roots(&stage.store).await.unwrap());
    let issuing = stage.certificates.issuers.built_in.authority().intermediate_validity();
    stage.restart().await;
    assert_eq!(stage.certificates.issuers.built_in.authority().intermediate_validity(), issuing);

    // By itself at two thirds of five years.
    stage.pass(1200 * 86_400);
    stage.rest().await;
    assert_eq!(stage.certificates.issuers.built_in.authority().intermediate_validity(), issuing);
    stage.pass(20 * 86_400);
    stage.rest().await;
    assert_ne!(stage.certificates.issuers.built_in.authority().intermediate_validity(), issuing);
    assert_ne!(stage.shown("a.test").await.as_ref(), Some(&old), "a leaf whose time is over is made anew");
}

#[tokio::test]
async fn a_clock_that_was_wrong_is_no_trap() {
    let mut stage = Stage::new(None).await;
    let id = compute("a");
    stage.pass(400 * 86_400);
    stage.put(&id, &TlsWish::platform(names("a.test"))).await;
    stage.outcome(&id).await;
    let ahead = stage.shown("a.test").await.unwrap();
    // The clock is set right: the certificate is not valid yet, and another is made.
    stage.pass(-400 * 86_400);
    stage.rest().await;
    let right = stage.shown("a.test").await.unwrap();
    assert_ne!(ahead, right);
    assert_eq!(stage.record(&id).await.certificate.unwrap().not_before.as_second(), START - 300);
    // Forward past its end and back again.
    stage.pass(400 * 86_400);
    stage.rest().await;
    stage.pass(-400 * 86_400);
    stage.rest().await;
    let facts = stage.record(&id).await.certificate.unwrap();
    assert_eq!(stage.shown("a.test").await.as_ref(), Some(&facts.sha256));
    assert!(facts.not_before.as_second() < START && facts.not_after.as_second() > START);
}

#[tokio::test]
async fn ten_thousand_certificates_take_little_memory_and_time() {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or_default() * 4096
    };
    let now = Timestamp::from_second(START).unwrap();
    let (authority, _) = CertificateAuthority::create(now).unwrap();
    let (before, began) = (resident(), std::time::Instant::now());
    let leaves: Vec<Leaf> = (0..10_000)
        .map(|number| authority.issue(&names(&format!("e{number}.test")), now, DEFAULT_VALIDITY).unwrap())
        .collect();
    let issued = began.elapsed();
    let resolver = CertificateResolver::default();
    let began = std::time::Instant::now();
    let served = leaves.iter().map(|leaf| Served {
        names: leaf.names.clone(),
        leaf,
        settings: casemate_pki::TlsSettings::default(),
    });
    resolver.publish(CertificateMap::new(served, None));
    let took = resident().saturating_sub(before);
    eprintln!(
        "10,000 certificates: {} MB, {:?} each to issue, published in {:?}",
        took / 1_000_000,
        issued / 10_000,
        began.elapsed()
    );
    assert!(took < 250_000_000, "{took} bytes");
}
