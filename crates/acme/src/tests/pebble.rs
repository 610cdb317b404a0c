//! Against Pebble, a real ACME server made for tests.

use casemate_pki::{IssueError, Issuer};

use super::*;
use crate::{ExternalAccount, Limits};

const KINDS: [ChallengeKind; 3] = [ChallengeKind::Http01, ChallengeKind::TlsAlpn01, ChallengeKind::Dns01];

#[tokio::test]
async fn each_challenge_proves_names_and_renews() {
    let site = Site::start().await;
    let pebble = Pebble::start(&site, Odd::default()).await;
    let root = pebble.root().await;
    for kind in KINDS {
        let store = Arc::new(Shelf::default());
        let issuer = pebble.issuer(kind, &site, &store);
        assert_eq!(issuer.name(), "acme localhost");
        let mut wanted = names(&["a.casemate.test", "B.casemate.test"]);
        if kind == ChallengeKind::Dns01 {
            wanted.extend(names(&["*.a.casemate.test"]));
        }
        let first = issuer.issue(&wanted, Timestamp::now()).await.unwrap_or_else(|error| panic!("{kind:?}: {error}"));
        verified(&first, &root, &wanted);
        taken_off(&site.board, &wanted);
        // A restart: the same account, another key and certificate.
        let account = store.last_id();
        let again = pebble.issuer(kind, &site, &store);
        let second = again.issue(&wanted, Timestamp::now()).await.unwrap();
        verified(&second, &root, &wanted);
        assert_eq!(store.last_id(), account);
        assert!(first.serial != second.serial && first.key_pem != second.key_pem);
        // This Pebble does not say when to renew.
        assert_eq!(again.renewal(&second).await, None);
    }
}

#[tokio::test]
async fn many_orders_at_once_and_nonces_refused() {
    let site = Site::start().await;
    let pebble = Pebble::start(&site, Odd { nonces_refused: 50, ..Odd::default() }).await;
    let config = pebble.config(ChallengeKind::Dns01);
    let config = AcmeConfig { limits: Limits { orders: 2, ..Limits::default() }, ..config };
    let config = config.with_contacts(["ops@example.org"]).unwrap();
    let store = Arc::new(Shelf::default());
    let issuer = Arc::new(AcmeIssuer::new(config, site.board.clone(), store.clone()).unwrap());
    let mut orders = tokio::task::JoinSet::new();
    for number in 0..8 {
        let issuer = Arc::clone(&issuer);
        orders.spawn(async move {
            let wanted = vec![format!("n{number}.casemate.test")];
            issuer.issue(&wanted, Timestamp::now()).await.map(|leaf| assert_eq!(leaf.names, wanted))
        });
    }
    for done in orders.join_all().await {
        done.unwrap_or_else(|error| panic!("{error}"));
    }
    let asked = store.asked.lock().unwrap().len();
    assert_eq!(asked, 2, "one account for all: its key, and then the account");
}

#[tokio::test]
async fn an_account_survives_a_kill_at_any_write() {
    let site = Site::start().await;
    let pebble = Pebble::start(&site, Odd::default()).await;
    let wanted = names(&["a.casemate.test"]);
    let store = Arc::new(Shelf { left: Mutex::new(Some(1)), ..Shelf::default() });
    let killed = pebble.issuer(ChallengeKind::Http01, &site, &store).issue(&wanted, Timestamp::now()).await;
    assert!(killed.unwrap_err().fault.message.contains("killed"));
    let account = store.last_id();
    *store.left.lock().unwrap() = None;
    pebble.issuer(ChallengeKind::Http01, &site, &store).issue(&wanted, Timestamp::now()).await.unwrap();
    assert_eq!(store.last_id(), account, "the account that was made before the kill");
}

#[tokio::test]
async fn an_account_that_the_authority_forgot_is_made_again() {
    let site = Site::start().await;
    let wanted = names(&["a.casemate.test"]);
    for external in [false, true] {
        let store = Arc::new(Shelf::default());
        let pebble = Pebble::start(&site, Odd { external, ..Odd::default() }).await;
        let port = reqwest::Url::parse(&pebble.directory).unwrap().port();
        let issuer = |pebble: &Pebble| {
            let mut config = pebble.config(ChallengeKind::Http01);
            config.external_account =
                external.then(|| ExternalAccount::new(KEY_ID, &Secret::from(MAC_KEY.to_owned())).unwrap());
            AcmeIssuer::new(config, site.board.clone(), store.clone()).unwrap()
        };
        issuer(&pebble).issue(&wanted, Timestamp::now()).await.unwrap();
        let before = store.last_id();
        drop(pebble);
        // Pebble keeps nothing: the next one knows no account.
        let pebble = Pebble::start(&site, Odd { external, at: port, ..Odd::default() }).await;
        issuer(&pebble).issue(&wanted, Timestamp::now()).await.unwrap();
        assert_ne!(store.last_id(), before);
    }
}

#[tokio::test]
async fn external_accounts_are_needed_where_they_are() {
    let site = Site::start().await;
    let pebble = Pebble::start(&site, Odd { external: true, ..Odd::default() }).await;
    let wanted = names(&["a.casemate.test"]);
    let wrong = MAC_KEY.replace('z', "y");
    for (account, code) in [
        (None, Some("AcmeExternalAccountRequired")),
        (Some((KEY_ID, wrong.as_str())), Some("AcmeUnauthorized")),
        (Some(("kid-9", MAC_KEY)), Some("AcmeUnauthorized")),
        (Some((KEY_ID, MAC_KEY)), None),
    ] {
        let mut config = pebble.config(ChallengeKind::TlsAlpn01);
        config.external_account =
            account.map(|(id, key)| ExternalAccount::new(id, &Secret::from(key.to_owned())).unwrap());
        let issuer = AcmeIssuer::new(config, site.board.clone(), Arc::new(Shelf::default())).unwrap();
        let done = issuer.issue(&wanted, Timestamp::now()).await;
        let told = done.as_ref().err().map(|error| error.fault.code.as_str());
        assert_eq!(told, code, "{account:?}: {done:?}");
        let said = done.map_or_else(|error| error.fault.message, |_| String::new());
        assert!(!said.contains(&MAC_KEY[5..20]), "{said}");
    }
}

#[tokio::test]
async fn what_cannot_be_proven_is_told_for_each_name() {
    let site = Site::wrong().await;
    let pebble = Pebble::start(&site, Odd::default()).await;
    let wanted = names(&["a.casemate.test", "b.casemate.test"]);
    for (kind, fix) in [
        (ChallengeKind::Http01, "--http-listen"),
        (ChallengeKind::TlsAlpn01, "port 443"),
        (ChallengeKind::Dns01, "NS records"),
    ] {
        let issuer = pebble.issuer(kind, &site, &Arc::new(Shelf::default()));
        let IssueError { fault, retry_after } = issuer.issue(&wanted, Timestamp::now()).await.unwrap_err();
        assert_eq!((fault.code.as_str(), retry_after), ("AcmeChallengeFailed", None), "{fault}");
        let mut told: Vec<&str> = vec![fault.target.as_deref().unwrap()];
        told.extend(fault.details.iter().filter_map(|detail| detail.target.as_deref()));
        told.sort_unstable();
        // Pebble stops an order at the first name that fails.
        assert!(!told.is_empty() && told.iter().all(|name| wanted.iter().any(|wanted| wanted == name)), "{told:?}");
        for part in ["localhost", kind.as_str(), "unauthorized", fix] {
            assert!(fault.message.contains(part), "{part}: {fault}");
        }
        taken_off(&site.board, &wanted);
    }
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_with_its_reason() {
    let site = Site::start().await;
    let pebble = Pebble::start(&site, Odd::default()).await;
    let store = Arc::new(Shelf::default());
    let issuer = pebble.issuer(ChallengeKind::Http01, &site, &store);
    for (wanted, told) in [
        (vec![], "1 to 100 names"),
        (names(&["*.a.casemate.test"]), "--acme-challenge dns-01"),
        (names(&["127.0.0.1"]), "an IP address"),
        (names(&["a b"]), "no DNS name"),
        (names(&[""]), "no DNS name"),
    ] {
        let error = issuer.issue(&wanted, Timestamp::now()).await.unwrap_err();
        assert!(error.fault.message.contains(told), "{error}");
    }
    assert!(store.asked.lock().unwrap().is_empty(), "the authority has not been asked");
    let config = AcmeConfig { profile: Some("shortlived".to_owned()), ..pebble.config(ChallengeKind::Http01) };
    let issuer = AcmeIssuer::new(config, site.board.clone(), store).unwrap();
    let error = issuer.issue(&names(&["a.casemate.test"]), Timestamp::now()).await.unwrap_err();
    assert_eq!(
        (error.fault.code.as_str(), error.fault.target.as_deref()),
        ("AcmeProfileUnknown", Some("--acme-profile"))
    );
    assert!(error.fault.message.contains("has no profiles"), "{error}");
}
