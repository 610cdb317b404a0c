//! The queue of one deployment: who gets the next free place at one of its instances.
//!
//! Places are given in order of arrival: a place that becomes free while someone waits is handed over, never raced
//! for. The queue outlives route tables; a new table only changes the instances and limits behind it. The lock here
//! belongs to one deployment and is taken only when all its places are taken.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering, fence},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use casemate_model::{
    deployment::RequestSettings,
    route::{InFlight, Upstream},
};
use http::HeaderValue;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use crate::pool::Pool;

/// How long an instance that refused a connection is passed over while another one is left.
const SUSPECT_FOR: Duration = Duration::from_secs(1);

/// One deployment and its queue.
pub(crate) struct Deployment {
    /// Its name as created, for the answer's header.
    pub(crate) name: HeaderValue,
    view: ArcSwap<View>,
    /// Requests in flight and waiting.
    admitted: AtomicUsize,
    /// Where the next search for a place starts, so that equally loaded instances take turns.
    turn: AtomicUsize,
    /// Length of `line`, to be read without its lock.
    waiting: AtomicUsize,
    line: Mutex<VecDeque<oneshot::Sender<Place>>>,
}

/// What the last table said.
struct View {
    limits: Limits,
    instances: Vec<Arc<Instance>>,
    /// The deployment has left the table.
    retired: bool,
}

/// The limits on requests, as the router uses them.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Longest time from having a place to having the head of the answer.
    pub(crate) request_timeout: Duration,
    /// Requests at one instance at once.
    max_concurrent: usize,
    /// Longest time in the queue.
    max_queue_wait: Duration,
}

/// One ready instance with its kept connections.
pub(crate) struct Instance {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) pool: Pool,
    born: Instant,
    /// Milliseconds after `born` until which it is passed over.
    suspect_until: AtomicU64,
}

/// A place at an instance. Dropping it hands the place to the next in line.
pub(crate) struct Place {
    in_flight: Option<InFlight>,
    instance: Arc<Instance>,
    deployment: Arc<Deployment>,
}

/// A request that has been let in: its place, counted until it is dropped.
pub(crate) struct Entered {
    place: Place,
    _ticket: Ticket,
}

/// Counts one request of a deployment, in flight or waiting.
struct Ticket(Arc<Deployment>);

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    /// As many requests as are allowed are in flight or waiting.
    Full,
    /// No place became free in time.
    Waited,
    /// No instance is ready.
    NoInstance,
    /// The deployment has left the table.
    Gone,
}

impl From<&RequestSettings> for Limits {
    fn from(settings: &RequestSettings) -> Self {
        // Settings are checked to be positive where they come in; what is not, is as short as can be.
        let positive = |duration: jiff::SignedDuration| Duration::try_from(duration).unwrap_or_default();
        Self {
            request_timeout: positive(settings.request_timeout),
            max_concurrent: usize::try_from(settings.max_concurrent_requests_per_instance).unwrap_or(usize::MAX).max(1),
            max_queue_wait: positive(settings.max_queue_wait),
        }
    }
}

impl Deployment {
    /// A deployment with an empty queue.
    pub(crate) fn new(name: &str, settings: &RequestSettings, instances: Vec<Arc<Instance>>) -> Arc<Self> {
        let view = View { limits: settings.into(), instances, retired: false };
        Arc::new(Self {
            name: HeaderValue::from_str(name).unwrap_or_else(|_| HeaderValue::from_static("")),
            view: ArcSwap::from_pointee(view),
            admitted: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            line: Mutex::new(VecDeque::new()),
        })
    }

    /// The instances of the last table.
    pub(crate) fn instances(&self) -> Vec<Arc<Instance>> {
        self.view.load().instances.clone()
    }

    /// The limits of the last table.
    pub(crate) fn limits(&self) -> Limits {
        self.view.load().limits
    }

    /// Takes over the instances and limits of a new table; who waits may get a place at once.
    pub(crate) fn update(self: &Arc<Self>, settings: &RequestSettings, instances: Vec<Arc<Instance>>) {
        self.view.store(Arc::new(View { limits: settings.into(), instances, retired: false }));
        self.serve();
    }

    /// The deployment has left the table: who waits is sent away, to look for another one.
    pub(crate) fn retire(self: &Arc<Self>) {
        let limits = self.limits();
        self.view.store(Arc::new(View { limits, instances: Vec::new(), retired: true }));
        self.serve();
    }

    /// Gets a place, waiting in line for it if need be.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn enter(self: &Arc<Self>) -> Result<Entered, Denied> {
        let (limits, instances, ticket) = {
            let view = self.view.load();
            if view.retired {
                return Err(Denied::Gone);
            }
            let ticket = self.admit(view.limits.admissible(view.instances.len())).ok_or(Denied::Full)?;
            if self.waiting.load(Ordering::SeqCst) == 0
                && let Some(place) = self.try_place(&view)
            {
                return Ok(Entered { place, _ticket: ticket });
            }
            (view.limits, view.instances.len(), ticket)
        };
        match timeout(limits.max_queue_wait, self.line_up(limits.admissible(instances))).await {
            Ok(Ok(place)) => Ok(Entered { place, _ticket: ticket }),
            Ok(Err(_)) => Err(Denied::Gone),
            Err(_) if self.view.load().instances.is_empty() => Err(Denied::NoInstance),
            Err(_) => Err(Denied::Waited),
        }
    }

    fn admit(self: &Arc<Self>, limit: usize) -> Option<Ticket> {
        let admitted = self.admitted.fetch_add(1, Ordering::AcqRel);
        let ticket = Ticket(Arc::clone(self));
        (admitted < limit).then_some(ticket)
    }

    /// Joins the end of the line.
    fn line_up(self: &Arc<Self>, limit: usize) -> oneshot::Receiver<Place> {
        let (sender, receiver) = oneshot::channel();
        let mut line = self.lock();
        if line.len() > limit {
            // Those who left stay in the line until someone cares: here, so that it can't grow without bound.
            line.retain(|waiter| !waiter.is_closed());
        }
        line.push_back(sender);
        self.waiting.store(line.len(), Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let spare = self.serve_line(&mut line);
        drop(line);
        drop(spare);
        receiver
    }

    /// Gives free places to those who wait.
    fn serve(self: &Arc<Self>) {
        fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut line = self.lock();
        let spare = self.serve_line(&mut line);
        drop(line);
        drop(spare);
    }

    /// Gives free places to the line, first come first served. A place that nobody wants any more is returned, since
    /// dropping it takes the lock again.
    fn serve_line(self: &Arc<Self>, line: &mut VecDeque<oneshot::Sender<Place>>) -> Option<Place> {
        let view = self.view.load_full();
        if view.retired {
            line.clear();
        }
        let mut spare = None;
        while let Some(first) = line.front() {
            if first.is_closed() {
                line.pop_front();
                continue;
            }
            let Some(place) = spare.take().or_else(|| self.try_place(&view)) else {
                break;
            };
            if let Some(first) = line.pop_front() {
                spare = first.send(place).err();
            }
        }
        self.waiting.store(line.len(), Ordering::SeqCst);
        spare
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<oneshot::Sender<Place>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place at the least loaded instance that has one and is not under suspicion; at a suspect if all others are
    /// suspects too.
    fn try_place(self: &Arc<Self>, view: &View) -> Option<Place> {
        let instances = &view.instances;
        let start = if instances.len() > 1 { self.turn.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let all_suspect = instances.len() > 1 && instances.iter().all(|instance| instance.is_suspect());
        // Each round can lose its choice to another request; after as many rounds as instances, all were taken once.
        for _ in 0..instances.len() {
            let in_turn = (0..instances.len()).map(|step| &instances[(start.wrapping_add(step)) % instances.len()]);
            let least = in_turn
                .filter(|instance| instances.len() == 1 || all_suspect || !instance.is_suspect())
                .min_by_key(|instance| instance.upstream.in_flight())?;
            if let Some(in_flight) = least.upstream.try_enter(view.limits.max_concurrent) {
                let (instance, deployment) = (Arc::clone(least), Arc::clone(self));
                return Some(Place { in_flight: Some(in_flight), instance, deployment });
            }
            if least.upstream.in_flight() >= view.limits.max_concurrent {
                return None;
            }
        }
        None
    }
}

impl Limits {
    /// How many requests may be in flight and waiting. With no instance, as many may wait for the first as one
    /// instance would allow.
    fn admissible(&self, instances: usize) -> usize {
        self.max_concurrent.saturating_mul(2).saturating_mul(instances.max(1))
    }
}

impl Instance {
    /// An instance without kept connections.
    pub(crate) fn new(upstream: Arc<Upstream>) -> Self {
        Self { upstream, pool: Pool::default(), born: Instant::now(), suspect_until: AtomicU64::new(0) }
    }

    /// Passes it over for a while: it refused a connection.
    pub(crate) fn suspect(&self) {
        self.suspect_until.store(millis(self.born.elapsed() + SUSPECT_FOR), Ordering::Relaxed);
    }

    fn is_suspect(&self) -> bool {
        let until = self.suspect_until.load(Ordering::Relaxed);
        until != 0 && millis(self.born.elapsed()) < until
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Entered {
    /// Where the place is.
    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.place.instance
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.in_flight.take());
        self.deployment.serve();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.admitted.fetch_sub(1, Ordering::AcqRel);
    }
}
