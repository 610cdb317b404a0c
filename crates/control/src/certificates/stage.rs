//! What the tests of the manager stand on: a real store, a real authority, a front door that shakes hands, and an issuer
//! that does what a test wants.

use std::{
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
    tls::{CUSTOM_CHAIN, CUSTOM_KEY, CertificateRecord, TLS_FIELD, TlsWish},
};
use casemate_pki::{BoxFuture, CertificateAuthority, DEFAULT_VALIDITY, IssueError, Leaf, RenewalWindow, Selection};
use casemate_store::{Author, Condition, Filter};
use serde_json::json;
use tokio::{net::TcpListener, time::timeout};
use tokio_rustls::LazyConfigAcceptor;
use uuid::Uuid;

use super::*;

/// Longest wait for something that takes milliseconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
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
pub(super) struct Glasses {
    pub(super) front_door: FrontDoor,
    pub(super) lie: Mutex<Option<String>>,
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

pub(super) struct Stage {
    pub(super) store: Store,
    pub(super) dir: tempfile::TempDir,
    pub(super) seconds: Arc<AtomicI64>,
    pub(super) paper: Option<Arc<Paper>>,
    pub(super) glasses: Arc<Glasses>,
    pub(super) resolver: Arc<CertificateResolver>,
    pub(super) certificates: Certificates,
    pub(super) roots: Arc<Mutex<String>>,
    pub(super) _server: JoinSet<()>,
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
    pub(super) async fn new(paper: Option<Arc<Paper>>) -> Self {
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
    pub(super) async fn restart(&mut self) {
        self.resolver.publish(CertificateMap::default());
        let (store, glasses) = (self.store.clone(), Arc::clone(&self.glasses));
        self.certificates = manager(&store, &self.paper, &self.resolver, &glasses, &self.roots).await;
    }

    pub(super) fn pass(&self, seconds: i64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Writes a wish; gives the operation that waits for it.
    pub(super) async fn put(&self, id: &ResourceId, wish: &TlsWish) -> Uuid {
        let mut tx = self.store.begin().await.unwrap();
        let body = json!({"properties": {}, TLS_FIELD: wish.to_value()});
        let put = tx.resource_put(id, body, &Condition::None, &author()).await.unwrap();
        let operation = tx.operation_create(id, OperationKind::Put, put.resource.generation).await.unwrap();
        tx.commit().await.unwrap();
        operation.id
    }

    /// Keeps a custom certificate.
    pub(super) async fn give(&self, id: &ResourceId, version: u64, chain: &str, key: &Secret) {
        let mut tx = self.store.begin().await.unwrap();
        tx.secret_put(id, &format!("{CUSTOM_CHAIN}-{version}"), &Secret::from(chain.to_owned())).await.unwrap();
        tx.secret_put(id, &format!("{CUSTOM_KEY}-{version}"), key).await.unwrap();
        tx.commit().await.unwrap();
    }

    pub(super) async fn action(&self, kind: &str, name: &str) -> Uuid {
        let id = ResourceId::parse(&format!("/subscriptions/s/providers/{kind}/{name}")).unwrap();
        let mut tx = self.store.begin().await.unwrap();
        let operation = tx.operation_create(&id, OperationKind::Action, 0).await.unwrap();
        tx.commit().await.unwrap();
        operation.id
    }

    pub(super) async fn rows(&self) -> Vec<Resource> {
        self.store.resource_list(&Filter::of_type(COMPUTE_TYPE)).await.unwrap()
    }

    pub(super) async fn round(&mut self) {
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
    pub(super) async fn outcome(&mut self, id: &ResourceId) -> TlsOutcome {
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
    pub(super) async fn ended(&mut self, operation: Uuid) -> Operation {
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
    pub(super) async fn rest(&mut self) {
        for _ in 0..3 {
            self.round().await;
            while !self.certificates.running.is_empty() {
                timeout(PATIENCE, self.certificates.finished()).await.unwrap();
                self.round().await;
            }
        }
    }

    pub(super) async fn shown(&self, name: &str) -> Option<String> {
        self.glasses.front_door.seen(name).await.ok()
    }

    pub(super) async fn record(&self, id: &ResourceId) -> CertificateRecord {
        CertificateRecord::of(&self.store.resource_get(id).await.unwrap().unwrap())
    }
}

pub(super) async fn manager(
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

pub(super) async fn serve(listener: TcpListener, resolver: Arc<CertificateResolver>) {
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
