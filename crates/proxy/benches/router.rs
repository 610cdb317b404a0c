//! What the router costs: its CPU time per request and the latency that it adds to calling the model's server
//! directly, measured in turns in one run, so that the ratios hold on any machine.
//!
//! The router, the model's server and the callers have one thread each. `cargo bench --package casemate-proxy` runs
//! all of it; `-- latency bodies handshakes tokens endpoints` names parts.

#![allow(clippy::print_stdout, reason = "its output is its purpose")]
#![allow(clippy::disallowed_methods, reason = "each lane's runtime owns its tasks and ends them")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark fails by panicking")]

#[path = "../tests/gateway/support.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod support;

use std::{
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use casemate_model::{endpoint::AuthMode, route::RouteTable};
use http::Request;
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, runtime::Handle, sync::oneshot};

use support::{Body, Caller, Model, Stage, deployment, endpoint, host, score, table, wide, with, with_traffic};

const ROUNDS: usize = 5;
const TURN: Duration = Duration::from_secs(2);
/// What most scoring requests look like.
const QUESTION: [u8; 300] = [b'1'; 300];
const ANSWER: &str = "[11055.977245525679, 4503.079536107787, 9876.5432]";

/// A thread with a runtime of its own, whose CPU time can be read.
struct Lane {
    runtime: Handle,
    /// The thread's directory in `/proc`.
    thread: PathBuf,
    _stop: oneshot::Sender<()>,
    _thread: JoinHandle<()>,
}

impl Lane {
    fn start(name: &str) -> Self {
        let (told, tell) = mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let thread = PathBuf::from("/proc").join(std::fs::read_link("/proc/thread-self").unwrap());
            told.send((runtime.handle().clone(), thread)).unwrap();
            let _ = runtime.block_on(stopped);
        });
        let thread = thread.unwrap();
        let (runtime, path) = tell.recv().unwrap();
        Self { runtime, thread: path, _stop: stop, _thread: thread }
    }

    /// Runs a future on this thread and waits for it.
    fn run<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> T {
        let (done, wait) = mpsc::channel();
        self.runtime.spawn(async move { done.send(future.await) });
        wait.recv().unwrap()
    }

    /// CPU time so far in microseconds: all of it, and the part in user space.
    fn cpu(&self) -> (f64, f64) {
        let schedstat = std::fs::read_to_string(self.thread.join("schedstat")).unwrap();
        let all: f64 = schedstat.split(' ').next().unwrap().parse().unwrap();
        let stat = std::fs::read_to_string(self.thread.join("stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        let (user, system): (f64, f64) = (fields[11].parse().unwrap(), fields[12].parse().unwrap());
        (all / 1000.0, all / 1000.0 * user / (user + system).max(1.0))
    }
}

/// What one turn gave.
struct Turn {
    requests: f64,
    seconds: f64,
    /// Sorted, in microseconds.
    latencies: Vec<u32>,
    /// Of the router, in microseconds: all, and in user space.
    cpu: (f64, f64),
}

impl Turn {
    fn percentile(&self, percent: usize) -> f64 {
        f64::from(self.latencies[(self.latencies.len() - 1) * percent / 100])
    }
}

/// Where the callers send their requests.
#[derive(Clone)]
enum Goal {
    Router(Arc<Stage>, &'static str),
    Model(SocketAddr),
}

impl Goal {
    async fn connect(&self) -> Caller {
        match self {
            Self::Router(stage, name) => stage.h1(&host(name)).await,
            Self::Model(address) => {
                let stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                Caller::h1(http1::handshake(TokioIo::new(stream)).await.unwrap())
            }
        }
    }

    fn endpoint(&self) -> &'static str {
        match self {
            Self::Router(_, name) => name,
            Self::Model(_) => "any",
        }
    }
}

/// The three threads.
struct Lanes {
    router: Lane,
    callers: Lane,
}

impl Lanes {
    /// Has `connections` callers send one request after the other for a while.
    fn turn(
        &self,
        goal: &Goal,
        connections: usize,
        request: impl Fn(&'static str) -> Request<Body> + Clone + Send + 'static,
    ) -> Turn {
        let goal = goal.clone();
        let callers = self.callers.run(async move {
            let mut callers = Vec::new();
            for _ in 0..connections {
                let mut caller = goal.connect().await;
                caller.call(request(goal.endpoint())).await;
                callers.push((caller, request.clone(), goal.endpoint()));
            }
            callers
        });
        let before = self.router.cpu();
        let start = Instant::now();
        let mut latencies: Vec<u32> = self.callers.run(async move {
            let mut tasks = tokio::task::JoinSet::new();
            for (mut caller, request, endpoint) in callers {
                tasks.spawn(async move {
                    let (start, mut latencies) = (Instant::now(), Vec::new());
                    while start.elapsed() < TURN {
                        let sent = Instant::now();
                        assert_eq!(caller.call(request(endpoint)).await.status, 200);
                        latencies.push(u32::try_from(sent.elapsed().as_micros()).unwrap());
                    }
                    latencies
                });
            }
            tasks.join_all().await.concat()
        });
        let (seconds, after) = (start.elapsed().as_secs_f64(), self.router.cpu());
        latencies.sort_unstable();
        let cpu = (after.0 - before.0, after.1 - before.1);
        Turn { requests: latencies.len() as f64, seconds, latencies, cpu }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The endpoint `e` with a split, `t` with tokens, and as many others as wanted.
fn routes(model: &Model, others: usize) -> RouteTable {
    let both = || vec![deployment("blue", wide(), &[&model.upstream]), deployment("green", wide(), &[&model.upstream])];
    let split = |name: &str| with_traffic(endpoint(name, both()), &[("blue", 90), ("green", 10)], &[]);
    let mut tokens = split("t");
    tokens.auth = AuthMode::AMLToken;
    let mut endpoints = vec![split("e"), tokens];
    endpoints.extend((0..others).map(|number| split(&format!("other-{number}"))));
    table(endpoints)
}

fn question(endpoint: &'static str) -> Request<Body> {
    score(endpoint, Bytes::from_static(&QUESTION))
}

fn latency(lanes: &Lanes, router: &Goal, model: &Goal, connections: usize) {
    let (mut cpu, mut user, mut rate, mut added, mut ratio, mut p99) = (vec![], vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let direct = lanes.turn(model, connections, question);
        let routed = lanes.turn(router, connections, question);
        cpu.push(routed.cpu.0 / routed.requests);
        user.push(routed.cpu.1 / routed.requests);
        rate.push(routed.requests / routed.seconds);
        added.push(routed.percentile(50) - direct.percentile(50));
        ratio.push(routed.percentile(99) / direct.percentile(99));
        p99.push(routed.percentile(99));
    }
    println!(
        "{connections} connections: router CPU {:.1} us/request ({:.1} us in user space), {:.0} requests/s, \
         p50 {:+.0} us over direct, p99 {:.0} us = {:.2} x direct",
        median(cpu),
        median(user),
        median(rate),
        median(added),
        median(p99),
        median(ratio)
    );
}

fn bodies(lanes: &Lanes, router: &Goal) {
    let body = Bytes::from(vec![b'x'; 10 * 1024 * 1024]);
    let turns: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let body = body.clone();
            let turn = lanes.turn(router, 2, move |endpoint| score(endpoint, body.clone()));
            turn.cpu.0 / 1e6 / (turn.requests * 10.0 / 1024.0)
        })
        .collect();
    println!("10 MiB bodies: router CPU {:.2} s/GiB", median(turns));
}

/// The cost of `other` over that of `base`, in turns.
fn compare(
    what: &str,
    lanes: &Lanes,
    base: &Goal,
    other: &Goal,
    request: impl Fn(&'static str) -> Request<Body> + Clone + Send + 'static,
) {
    let cost = |turn: &Turn| turn.cpu.0 / turn.requests;
    let turns = (0..ROUNDS).map(|_| {
        let one = cost(&lanes.turn(base, 16, question));
        (one, cost(&lanes.turn(other, 16, request.clone())))
    });
    let (ratios, costs): (Vec<f64>, Vec<f64>) = turns.map(|(one, other)| (other / one, other)).unzip();
    println!("{what}: router CPU {:.1} us/request = {:.2} x the base case", median(costs), median(ratios));
}

fn handshakes(lanes: &Lanes, router: &Goal) {
    let turns = (0..ROUNDS).map(|_| {
        let before = lanes.router.cpu().0;
        let goal = router.clone();
        let (count, seconds) = lanes.callers.run(async move {
            let (start, mut count) = (Instant::now(), 0.0);
            while start.elapsed() < TURN {
                goal.connect().await.abort();
                count += 1.0;
            }
            (count, start.elapsed().as_secs_f64())
        });
        ((lanes.router.cpu().0 - before) / count, count / seconds)
    });
    let (cpu, rate): (Vec<f64>, Vec<f64>) = turns.unzip();
    println!("full handshakes: router CPU {:.0} us each, {:.0}/s one after the other", median(cpu), median(rate));
}

fn main() {
    let lanes = Lanes { router: Lane::start("router"), callers: Lane::start("callers") };
    let models = Lane::start("models");
    let model = Arc::new(models.run(Model::start(|request| async move {
        let mut body = request.into_body();
        while let Some(Ok(_)) = body.frame().await {}
        http::Response::new(support::full(ANSWER))
    })));
    let table = routes(&model, 0);
    let stage = Arc::new(lanes.router.run(Stage::start(table)));
    let router = Goal::Router(Arc::clone(&stage), "e");
    let direct = Goal::Model(model.upstream.address);
    let parts: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|wanted| wanted == part);
    if wanted("latency") {
        for connections in [1, 16, 64] {
            latency(&lanes, &router, &direct, connections);
        }
    }
    if wanted("bodies") {
        bodies(&lanes, &router);
    }
    if wanted("handshakes") {
        handshakes(&lanes, &router);
    }
    if wanted("tokens") {
        let id = endpoint("t", Vec::new()).id;
        let token = stage.tokens.issue_for_endpoint(&id).token.expose_str().unwrap().to_owned();
        let with_token = move |endpoint| with(question(endpoint), "authorization", &format!("Bearer {token}"));
        compare("endpoint tokens", &lanes, &router, &Goal::Router(Arc::clone(&stage), "t"), with_token);
    }
    if wanted("endpoints") {
        let many = routes(&model, 999);
        let crowded = Goal::Router(Arc::new(lanes.router.run(Stage::start(many))), "e");
        compare("1,000 endpoints", &lanes, &router, &crowded, question);
    }
}
