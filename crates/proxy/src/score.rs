//! One scoring request, phase by phase.

use std::sync::Arc;

use arc_swap::ArcSwap;
use casemate_identity::TokenAuthority;
use casemate_model::inbound::{self, Closed, Origin};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, uri::PathAndQuery};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    GatewayConfig,
    address::{Address, Callee, Target},
    answer::{AnswerBody, Ids, Refusal},
    arrival::Arrival,
    auth::Checker,
    forward::{Head, forward, refuse},
    mirror,
    queue::Denied,
    random::Random,
    snapshot::{Endpoint, Service, Snapshot},
    split,
    upload::{Inbound, Payload, receive},
};

/// Bodies up to this size are read whole before an instance is chosen, in bytes: a slow caller then holds no place,
/// and the request can be sent again when a kept connection turns out to be closed.
const WHOLE_BODY: usize = 64 * 1024;

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) config: GatewayConfig,
    pub(crate) address: Address,
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) random: Random,
    checker: Checker,
    copies: Arc<Semaphore>,
    /// Owns every task of this room.
    pub(crate) tracker: TaskTracker,
    /// Ends what has not ended when the time to drain is over.
    pub(crate) abort: CancellationToken,
}

impl Shared {
    pub(crate) fn new(config: GatewayConfig, tokens: Arc<TokenAuthority>) -> Arc<Self> {
        Arc::new(Self {
            address: Address::new(&config.region, &config.domain),
            config,
            snapshot: ArcSwap::default(),
            random: Random::new(),
            checker: Checker::new(tokens),
            copies: Arc::new(Semaphore::new(mirror::COPIES)),
            tracker: TaskTracker::new(),
            abort: CancellationToken::new(),
        })
    }

    /// What a request is addressed to.
    pub(crate) fn target(&self, server_name: Option<&str>, uri: &Uri, headers: &HeaderMap) -> Result<Target, Refusal> {
        self.address.target(&self.snapshot.load().hosts, server_name, uri, headers)
    }
}

/// A scoring request with its address read.
pub(crate) struct Call {
    pub(crate) callee: Callee,
    /// What is asked of the model's server; none for what no endpoint has.
    pub(crate) path: Option<PathAndQuery>,
    /// The caller's address.
    pub(crate) caller: HeaderValue,
    pub(crate) arrival: Arc<Arrival>,
    pub(crate) request: Request<Incoming>,
}

/// Answers a scoring request.
pub(crate) async fn answer(shared: &Arc<Shared>, call: Call) -> Response<AnswerBody> {
    let ids = Ids::new(shared.random.guid(), call.request.headers());
    match run(shared, call, &ids).await {
        Ok(mut answer) => {
            ids.put(answer.headers_mut());
            answer
        }
        Err(refusal) => {
            tracing::debug!(request = ?ids.request, status = refusal.status.as_u16(), refusal.code, "scoring request refused");
            refusal.into_answer(&ids)
        }
    }
}

async fn run(shared: &Arc<Shared>, call: Call, ids: &Ids) -> Result<Response<AnswerBody>, Refusal> {
    let (parts, body) = call.request.into_parts();
    let inbound = Inbound::new(body, &parts.headers, shared.tracker.clone());
    let mut endpoint = reach(shared, &call.callee, &call.arrival)?;
    let path = call.path.ok_or_else(|| Refusal::unknown_path(parts.uri.path()))?;
    shared.checker.check(&endpoint.route, &parts.headers)?;
    let choice = split::choose(&endpoint, &parts.headers, &shared.random)?;
    let mut live = Arc::clone(choice.live);
    let copy = choice
        .mirror
        .and_then(|target| Some((Arc::clone(target), Arc::clone(&shared.copies).try_acquire_owned().ok()?)));
    let whole = if copy.is_some() { mirror::COPY_BYTES } else { WHOLE_BODY };
    let payload = receive(inbound, whole, shared.config.max_body_bytes, shared.config.idle_timeout).await?;
    let wish = parts.headers.get(split::DEPLOYMENT).cloned();
    let head = Head::new(parts, path, &call.caller, call.arrival.scheme(), ids);
    if let (Some((target, permit)), Payload::Whole(bytes)) = (copy, &payload) {
        mirror::send(shared, &target, head.clone(), Payload::Whole(bytes.clone()), permit);
    }
    let entered = match live.enter().await {
        Err(Denied::Gone) => {
            // The table changed between the choice and the queue: choose again from the new one.
            endpoint = reach(shared, &call.callee, &call.arrival)?;
            let headers = wish.into_iter().map(|wish| (split::DEPLOYMENT, wish)).collect();
            live = Arc::clone(split::choose(&endpoint, &headers, &shared.random)?.live);
            live.enter().await
        }
        entered => entered,
    };
    let entered = entered.map_err(|denied| match (refuse(&live, denied), &call.callee) {
        // Clients of the first generation know a full queue by this status.
        (refusal, Callee::Service { .. }) if refusal.status == StatusCode::TOO_MANY_REQUESTS => {
            Refusal { status: StatusCode::SERVICE_UNAVAILABLE, ..refusal }
        }
        (refusal, _) => refusal,
    })?;
    forward(shared, &live, entered, head, payload).await
}

fn unknown_endpoint(name: &str) -> Refusal {
    let shown: String = name.chars().take(64).collect();
    Refusal::new(
        StatusCode::NOT_FOUND,
        "EndpointNotFound",
        format!("There is no endpoint '{shown}' here. Check the name; 'online-endpoint list' shows those there are."),
    )
}

fn unknown_service(name: &str) -> Refusal {
    let shown: String = name.chars().take(64).collect();
    Refusal::new(
        StatusCode::NOT_FOUND,
        "ServiceNotFound",
        format!("There is no web service '{shown}' here. Check its name and its scoring URI."),
    )
}

/// The endpoint, if the way that the request came leads to it. Nothing of the request's credentials is looked at, so
/// that the answer and its time tell nothing about them.
fn reach(shared: &Shared, callee: &Callee, arrival: &Arrival) -> Result<Arc<Endpoint>, Refusal> {
    let snapshot = shared.snapshot.load();
    let endpoint = match callee {
        Callee::Endpoint(name) => {
            let endpoint = snapshot.endpoint(name).ok_or_else(|| unknown_endpoint(name))?;
            let host = || shared.address.host_of(name);
            if arrival.is_plain() {
                return Err(only_by_tls(&endpoint.route.name, arrival, &host()));
            }
            if needs_settings(&snapshot, arrival) {
                same_settings(&snapshot, arrival, &host())?;
            }
            endpoint
        }
        Callee::Service { name, compute } => {
            let here = |service: &&Arc<Service>| compute.is_none() || service.compute == *compute;
            let service = snapshot.service(name).filter(here).ok_or_else(|| unknown_service(name))?;
            open_here(&snapshot, service, arrival)?;
            &service.endpoint
        }
    };
    let route = &endpoint.route;
    let open = inbound::check(&arrival.origin, &route.workspace, !route.public_access, &route.allowed_callers);
    open.map_err(|closed| refuse_way(&route.name, &arrival.origin, closed))?;
    Ok(Arc::clone(endpoint))
}

/// Whether the service may be called on the port that the request came to.
fn open_here(snapshot: &Snapshot, service: &Service, arrival: &Arrival) -> Result<(), Refusal> {
    let name = &service.endpoint.route.name;
    let host = || service.hosts.first().map_or("localhost", String::as_str);
    if arrival.is_plain() {
        return if service.plain { Ok(()) } else { Err(only_by_tls(name, arrival, host())) };
    }
    if !service.tls {
        let place = match arrival.http(host()) {
            Some(url) => format!("Call it at {url}, or enable TLS for it."),
            None => "The platform has no plain port: enable TLS for it, or start the platform with --http-listen."
                .to_owned(),
        };
        let message = format!("The web service '{name}' is not served with TLS. {place}");
        return Err(Refusal::new(StatusCode::FORBIDDEN, "HttpRequired", message));
    }
    if needs_settings(snapshot, arrival) {
        service.hosts.iter().try_for_each(|host| same_settings(snapshot, arrival, host))?;
    }
    Ok(())
}

/// Whether TLS settings are to be looked at at all.
fn needs_settings(snapshot: &Snapshot, arrival: &Arrival) -> bool {
    snapshot.has_guarded() || arrival.certificates.has_settings()
}

/// What is served at a host with settings of its own is given only to connections that were made with these, however
/// the request says whom it calls.
fn same_settings(snapshot: &Snapshot, arrival: &Arrival, host: &str) -> Result<(), Refusal> {
    let guarded = snapshot.is_guarded(host);
    let given = arrival.tls.as_ref().is_some_and(|settings| arrival.certificates.admits(host, settings, guarded));
    if given { Ok(()) } else { Err(Refusal::other_settings(host)) }
}

fn only_by_tls(name: &str, arrival: &Arrival, host: &str) -> Refusal {
    let message = format!("'{name}' is served with TLS only. Call it at {}.", arrival.https(host));
    Refusal::new(StatusCode::FORBIDDEN, "HttpsRequired", message)
}

fn refuse_way(endpoint: &str, origin: &Origin, closed: Closed) -> Refusal {
    let (code, message) = match (closed, origin) {
        (
            Closed::NotAllowed,
            Origin::Public { caller }
            | Origin::Private { caller, .. }
            | Origin::Deployment { public: Some(caller), .. },
        ) => (
            inbound::NOT_ALLOWED,
            format!(
                "The address {caller} is not on the IP allow-list of the endpoint '{endpoint}'. Add it to the                  workspace's ipAllowlist, or call through the workspace's private endpoint."
            ),
        ),
        (Closed::Elsewhere, Origin::Private { endpoint: private, .. }) => (
            inbound::ACCESS_DISABLED,
            format!(
                "The private endpoint '{}' does not lead to the workspace of the endpoint '{endpoint}'. Call it \
                 through a private endpoint of its own workspace, or over a public address if its \
                 public_network_access is enabled.",
                private.name()
            ),
        ),
        _ => (
            inbound::ACCESS_DISABLED,
            format!(
                "Public access to the endpoint '{endpoint}' is disabled. Call it from inside the virtual network, \
                 through the workspace's private endpoint, by the endpoint's DNS name; or set its \
                 public_network_access to enabled."
            ),
        ),
    };
    Refusal::new(StatusCode::FORBIDDEN, code, message)
}
