//! Two years of renewals in seconds: the real manager, store and scheduling, a clock that is moved, issuers that fail for
//! days, and restarts at any moment. Nobody may ever be shown a certificate that has ended.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use casemate_model::{Clock, tls::TlsWish};
use casemate_pki::{BoxFuture, CertificateAuthority, DEFAULT_VALIDITY};
use casemate_store::Condition;
use serde_json::json;

use super::{
    stage::{Paper, START, author, compute, platform},
    *,
};

const DAY: i64 = 86_400;
const YEARS: i64 = 730 * DAY;

/// Sees what was published last, as the front door would show it.
#[derive(Default)]
struct Mirror(Mutex<BTreeMap<String, String>>);

impl Probe for Mirror {
    fn seen<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<String, String>> {
        Box::pin(async move { self.0.lock().unwrap().get(name).cloned().ok_or_else(|| "nothing is shown".to_owned()) })
    }
}

/// A small generator, so that every run is the same.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        i64::try_from(self.0 % bound.unsigned_abs()).unwrap()
    }
}

struct World {
    store: Store,
    _dir: tempfile::TempDir,
    seconds: Arc<AtomicI64>,
    paper: Arc<Paper>,
    built_in: Arc<BuiltIn>,
    mirror: Arc<Mirror>,
    certificates: Certificates,
    owners: Vec<(ResourceId, TlsWish)>,
}

impl World {
    async fn new(names: usize, days: u64) -> Self {
        // What is written thousands of times is better not written to a disk.
        let memory = std::path::Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let seconds = Arc::new(AtomicI64::new(START));
        let read = Arc::clone(&seconds);
        let clock = Clock::from_fn(move || Timestamp::from_second(read.load(Ordering::Relaxed)).unwrap());
        let store = Store::open(dir.path(), clock).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        tx.resource_put(&platform(), json!({}), &Condition::None, &author()).await.unwrap();
        let mut owners = vec![(platform(), TlsWish::platform(vec!["localhost".to_owned()]))];
        for number in 0..names {
            let id = compute(&format!("c{number}"));
            tx.resource_put(&id, json!({}), &Condition::None, &author()).await.unwrap();
            owners.push((id, TlsWish::platform(vec![format!("c{number}.test")])));
        }
        tx.commit().await.unwrap();
        let paper = Paper::new(Duration::from_secs(days * 86_400));
        let (authority, _) = CertificateAuthority::create(Timestamp::from_second(START).unwrap()).unwrap();
        let built_in = Arc::new(BuiltIn::new(Arc::new(authority), DEFAULT_VALIDITY));
        let mirror = Arc::new(Mirror::default());
        let certificates = manager(&store, &paper, &built_in, &mirror);
        Self { store, _dir: dir, seconds, paper, built_in, mirror, certificates, owners }
    }

    async fn round(&mut self) {
        let mut rows = Vec::new();
        let is_new = self.certificates.owners.is_empty();
        for (owner, _) in self.owners.iter().filter(|_| is_new) {
            rows.push(self.store.resource_get(owner).await.unwrap().unwrap());
        }
        let wanted = self.owners.iter().enumerate().map(|(at, (owner, wish))| Wanted {
            owner,
            wish: wish.clone(),
            generation: 1,
            row: rows.get(at),
        });
        let wanted: Vec<_> = wanted.collect();
        self.certificates.reconcile(wanted, &[]).await.unwrap();
        let now = self.store.clock().now();
        let shown = self.certificates.owners.values().filter_map(|owner| owner.shown(now));
        let shown = shown.flat_map(|(names, leaf)| names.iter().map(|name| (name.clone(), leaf.sha256.clone())));
        *self.mirror.0.lock().unwrap() = shown.collect();
    }

    /// Rounds until nothing is under way.
    async fn rest(&mut self) {
        self.round().await;
        while !self.certificates.running.is_empty() {
            self.certificates.finished().await;
            self.round().await;
        }
    }

    /// How many owners are shown nothing, or something that has ended.
    fn unserved(&self) -> usize {
        let now = self.store.clock().now();
        let good = self.certificates.owners.values().filter_map(|owner| owner.shown(now));
        self.owners.len() - good.filter(|(_, leaf)| leaf.not_before <= now && now < leaf.not_after).count()
    }
}

fn manager(store: &Store, paper: &Arc<Paper>, built_in: &Arc<BuiltIn>, mirror: &Arc<Mirror>) -> Certificates {
    let names = Some(Arc::clone(paper) as Arc<dyn Issuer>);
    let issuers = Issuers { built_in: Arc::clone(built_in), names };
    let probe = Arc::clone(mirror) as Arc<dyn Probe>;
    let resolver = Arc::new(CertificateResolver::default());
    let mut certificates = Certificates::new(store.clone(), issuers, resolver, probe, Arc::new(|_: &str| Ok(())));
    certificates.open();
    certificates
}

/// Moves through two years in steps of `step` seconds.
async fn two_years(names: usize, days: u64, step: i64, outage: i64) {
    let began = Instant::now();
    let mut world = World::new(names, days).await;
    let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ days);
    world.rest().await;
    while world.unserved() > 0 {
        world.rest().await;
    }
    let (mut restarts, mut outages, mut down_until) = (0, 0, START);
    let mut hours: BTreeMap<i64, usize> = BTreeMap::new();
    let mut before = world.paper.issued.load(Ordering::Relaxed);
    for moment in (START..START + YEARS).step_by(usize::try_from(step).unwrap()) {
        world.seconds.store(moment, Ordering::Relaxed);
        if moment >= down_until && random.below(60 * DAY / step) == 0 {
            down_until = moment + DAY / 2 + random.below(outage);
            outages += 1;
        }
        world.paper.is_down.store(moment < down_until, Ordering::Relaxed);
        if random.below(20 * DAY / step) == 0 {
            // Whatever is under way is lost.
            world.round().await;
            world.certificates = manager(&world.store, &world.paper, &world.built_in, &world.mirror);
            world.round().await;
            assert_eq!(world.unserved(), 0, "right after a restart at {moment}");
            restarts += 1;
        }
        world.rest().await;
        assert_eq!(world.unserved(), 0, "at {moment}");
        let now = world.paper.issued.load(Ordering::Relaxed);
        if moment > START + DAY {
            *hours.entry(moment / 3600).or_default() += now - before;
        }
        before = now;
    }
    let most = hours.values().max().copied().unwrap_or_default();
    eprintln!(
        "{names} names, {days} days, two years: {before} certificates, at most {most} in an hour, {outages} outages, \
         {restarts} restarts, nothing expired was served; took {:?}",
        began.elapsed()
    );
    let least = names * 730 / usize::try_from(days).unwrap();
    assert!((least..least * 3 + names * 2).contains(&before), "{before} certificates");
    assert!(outages > 2 && restarts > 10);
}

#[tokio::test]
async fn two_years_of_ninety_day_certificates() {
    let names = if std::env::var_os("CASEMATE_TEST_LONG").is_some() { 200 } else { 12 };
    two_years(names, 90, 7200, 20 * DAY).await;
}

#[tokio::test]
async fn two_years_of_six_day_certificates() {
    let names = if std::env::var_os("CASEMATE_TEST_LONG").is_some() { 200 } else { 6 };
    two_years(names, 6, 3600, 5 * DAY).await;
}
