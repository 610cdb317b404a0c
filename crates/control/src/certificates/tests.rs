//! The manager over a real store, a real authority and real handshakes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use casemate_model::{
    Clock, Resource, Secret,
    inbound::DeploymentCallers,
    operation::{OperationKind, OperationStatus},
    tls::{
        AUTHORITY_TYPE, CERTIFICATE_TYPE, CUSTOM_CHAIN, CUSTOM_KEY, CertificateRecord, SERVED_KEY, TLS_FIELD, TlsWish,
    },
};
use casemate_pki::{BoxFuture, CertificateAuthority, DEFAULT_VALIDITY, IssueError, Leaf, RenewalWindow, Selection};
use casemate_store::{Author, Condition, Filter};
use serde_json::json;
use tokio::{net::TcpListener, time::timeout};
use tokio_rustls::LazyConfigAcceptor;
use uuid::Uuid;

use super::*;

/// Longest wait for something that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const START: i64 = 1_760_000_000;

/// An issuer outside of the platform, as a test wants it.
pub(super) struct Paper {
    authority: CertificateAuthority,
    pub(super) validity: Duration,
    pub(super) is_down: AtomicBool,
    pub(super) is_stuck: AtomicBool,
    pub(super) issued: AtomicUsize,
    pub(super) window: Mutex<Option<RenewalWindow>>,
}

impl Paper {
    pub(super) fn new(validity: Duration) -> Arc<Self> {
        // Its own authority outlives every simulation.
        let (authority, _) = CertificateAuthority::create(Timestamp::from_second(START - 1000).unwrap()).unwrap();
        Arc::new(Self {
            authority,
            validity,
            is_down: AtomicBool::new(false),
            is_stuck: AtomicBool::new(false),
            issued: AtomicUsize::new(0),
            window: Mutex::new(None),
        })
    }
}

impl Issuer for Paper {
    fn name(&self) -> &str {
        "acme ca.test"
    }

    fn issue<'a>(&'a self, names: &'a [String], now: Timestamp) -> BoxFuture<'a, Result<Leaf, IssueError>> {
        Box::pin(async move {
            if self.is_stuck.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            if self.is_down.load(Ordering::Relaxed) {
                return Err(Fault::new(casemate_model::FaultKind::Unavailable, "AcmeUnreachable", "It is down.").into());
            }
            self.issued.fetch_add(1, Ordering::Relaxed);
            Ok(self.authority.issue(names, now, self.validity)?)
        })
    }

    fn renewal<'a>(&'a self, _: &'a Leaf) -> BoxFuture<'a, Option<RenewalWindow>> {
        Box::pin(async { *self.window.lock().unwrap() })
    }
}

/// Looks through the front door, unless it is told what to see.
struct Glasses {
    front_door: FrontDoor,
    lie: Mutex<Option<String>>,
}

impl Probe for Glasses {
    fn seen<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(async move {
            let lie = self.lie.lock().unwrap().clone();
            match lie {
                Some(lie) => Ok(lie),
                None => self.front_door.seen(name).await,
            }
        })
    }
}

struct Stage {
    store: Store,
    dir: tempfile::TempDir,
    seconds: Arc<AtomicI64>,
    paper: Option<Arc<Paper>>,
    glasses: Arc<Glasses>,
    resolver: Arc<CertificateResolver>,
    certificates: Certificates,
    roots: Arc<Mutex<String>>,
    _server: JoinSet<()>,
}

pub(super) fn platform() -> ResourceId {
    ResourceId::parse(PLATFORM_OWNER).unwrap()
}

pub(super) fn compute(name: &str) -> ResourceId {
    let kind = "Microsoft.MachineLearningServices/workspaces/w/computes";
    ResourceId::parse(&format!("/subscriptions/s/resourceGroups/g/providers/{kind}/{name}")).unwrap()
}

pub(super) fn author() -> Author {
    Author { name: "a".to_owned(), kind: "User".to_owned() }
}

impl Stage {
    async fn new(paper: Option<Arc<Paper>>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let seconds = Arc::new(AtomicI64::new(START));
        let read = Arc::clone(&seconds);
        let clock = Clock::from_fn(move || Timestamp::from_second(read.load(Ordering::Relaxed)).unwrap());
        let store = Store::open(dir.path(), clock).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        tx.resource_put(&platform(), json!({}), &Condition::None, &author()).await.unwrap();
        tx.commit().await.unwrap();
        let resolver = Arc::new(CertificateResolver::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front_door = FrontDoor { address: listener.local_addr().unwrap(), callers: DeploymentCallers::default() };
        let glasses = Arc::new(Glasses { front_door, lie: Mutex::new(None) });
        let roots = Arc::new(Mutex::new(String::new()));
        let mut server = JoinSet::new();
        server.spawn(serve(listener, Arc::clone(&resolver)));
        let certificates = manager(&store, &paper, &resolver, &glasses, &roots).await;
        Self { store, dir, seconds, paper, glasses, resolver, certificates, roots, _server: server }
    }

    /// As after `kill -9`: another manager on the same store, and nothing published.
    async fn restart(&mut self) {
        self.resolver.publish(CertificateMap::default());
        let (store, glasses) = (self.store.clone(), Arc::clone(&self.glasses));
        self.certificates = manager(&store, &self.paper, &self.resolver, &glasses, &self.roots).await;
    }

    fn pass(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Writes a wish; gives the operation that waits for it.
    async fn put(&self, id: &ResourceId, wish: &TlsWish) -> Uuid {
        let mut tx = self.store.begin().await.unwrap();
        let body = json!({"properties": {}, TLS_FIELD: wish.to_value()});
        let put = tx.resource_put(id, body, &Condition::None, &author()).await.unwrap();
        let operation = tx.operation_create(id, OperationKind::Put, put.resource.generation).await.unwrap();
        tx.commit().await.unwrap();
        operation.id
    }

    /// Keeps a custom certificate.
    async fn give(&self, id: &ResourceId, version: u64, chain: &str, key: &Secret) {
        let mut tx = self.store.begin().await.unwrap();
        tx.secret_put(id, &format!("{CUSTOM_CHAIN}-{version}"), &Secret::from(chain.to_owned())).await.unwrap();
        tx.secret_put(id, &format!("{CUSTOM_KEY}-{version}"), key).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn action(&self, kind: &str, name: &str) -> Uuid {
        let id = ResourceId::parse(&format!("/subscriptions/s/providers/{kind}/{name}")).unwrap();
        let mut tx = self.store.begin().await.unwrap();
        let operation = tx.operation_create(&id, OperationKind::Action, 0).await.unwrap();
        tx.commit().await.unwrap();
        operation.id
    }

    async fn rows(&self) -> Vec<Resource> {
        self.store.resource_list(&Filter::of_type(COMPUTE_TYPE)).await.unwrap()
    }

    async fn round(&mut self) {
        let (rows, row) = (self.rows().await, self.store.resource_get(&platform()).await.unwrap());
        let pending = self.store.operations_pending().await.unwrap();
        let platform = platform();
        let wish = TlsWish::platform(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]);
        let mut wanted = vec![Wanted { owner: &platform, wish, generation: 0, row: row.as_ref() }];
        for row in rows.iter().filter(|row| !row.deleting) {
            let wish = TlsWish::of(row).unwrap().unwrap();
            wanted.push(Wanted { owner: &row.id, wish, generation: row.generation, row: Some(row) });
        }
        self.certificates.reconcile(wanted, &pending).await.unwrap();
    }

    /// Rounds until the wish of an owner has come to something.
    async fn outcome(&mut self, id: &ResourceId) -> TlsOutcome {
        let row = self.store.resource_get(id).await.unwrap().unwrap();
        let wish = TlsWish::of(&row).unwrap().unwrap();
        let began = tokio::time::Instant::now();
        loop {
            self.round().await;
            let outcome = self.certificates.outcome(id, &wish);
            if outcome != TlsOutcome::Pending {
                return outcome;
            }
            assert!(began.elapsed() < PATIENCE, "still pending");
            let _ = timeout(Duration::from_millis(20), self.certificates.finished()).await;
        }
    }

    /// Rounds until an operation ends.
    async fn ended(&mut self, operation: Uuid) -> Operation {
        let began = tokio::time::Instant::now();
        loop {
            self.round().await;
            let operation = self.store.operation_get(operation).await.unwrap().unwrap();
            if operation.status != OperationStatus::InProgress {
                return operation;
            }
            assert!(began.elapsed() < PATIENCE, "still pending");
            let _ = timeout(Duration::from_millis(20), self.certificates.finished()).await;
        }
    }

    /// Rounds until nothing is under way.
    async fn rest(&mut self) {
        for _ in 0..3 {
            self.round().await;
            while !self.certificates.running.is_empty() {
                timeout(PATIENCE, self.certificates.finished()).await.unwrap();
                self.round().await;
            }
        }
    }

    async fn shown(&self, name: &str) -> Option<String> {
        self.glasses.front_door.seen(name).await.ok()
    }

    async fn record(&self, id: &ResourceId) -> CertificateRecord {
        CertificateRecord::of(&self.store.resource_get(id).await.unwrap().unwrap())
    }
}

async fn manager(
    store: &Store,
    paper: &Option<Arc<Paper>>,
    resolver: &Arc<CertificateResolver>,
    glasses: &Arc<Glasses>,
    roots: &Arc<Mutex<String>>,
) -> Certificates {
    let authority = open_authority(store).await.unwrap();
    let issuers = Issuers {
        built_in: Arc::new(BuiltIn::new(Arc::new(authority), DEFAULT_VALIDITY)),
        names: paper.clone().map(|paper| paper as Arc<dyn Issuer>),
    };
    let roots = Arc::clone(roots);
    let publish: PublishRoots = Arc::new(move |text: &str| {
        text.clone_into(&mut roots.lock().unwrap());
        Ok(())
    });
    let probe = Arc::clone(glasses) as Arc<dyn Probe>;
    let mut certificates = Certificates::new(store.clone(), issuers, Arc::clone(resolver), probe, publish);
    certificates.open();
    certificates
}

async fn serve(listener: TcpListener, resolver: Arc<CertificateResolver>) {
    let mut handshakes = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let resolver = Arc::clone(&resolver);
        handshakes.spawn(async move {
            let start = LazyConfigAcceptor::new(Default::default(), stream).await.ok()?;
            let selection = resolver.select(&start.client_hello());
            let Selection::Serve { config, .. } = selection else { return None };
            let mut stream = start.into_stream(config).await.ok()?;
            // Until the caller has seen it.
            tokio::io::AsyncReadExt::read(&mut stream, &mut [0]).await.ok()
        });
        while handshakes.try_join_next().is_some() {}
    }
}

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
    let record: HashMap<_, _> = [(id.clone(), stage.record(&id).await)].into();
    let facts = record[&id].certificate.as_ref().unwrap();
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
