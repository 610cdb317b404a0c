//! The cases, in the order of [`TESTS`].

use std::{fs, future::Future, path::Path, sync::Arc, time::Duration};

use casemate_model::deployment::ProbeSettings;
use casemate_runtime::{Backend, Container, InstanceRequest, InstanceStatus, ModelMount};
use hyper::StatusCode;
use jiff::SignedDuration;
use tokio::time::timeout;

use crate::bench::{Bench, deployment, failed, ready, score, wait_for};

/// All cases by name.
pub const TESTS: &[(&str, fn())] = &[
    ("an_instance_serves_crashes_comes_back_and_stops", || run(an_instance_serves_crashes_comes_back_and_stops())),
    ("scripts_that_do_not_come_up_are_told_apart", || run(scripts_that_do_not_come_up_are_told_apart())),
    ("a_dropped_handle_leaves_nothing_behind", || run(a_dropped_handle_leaves_nothing_behind())),
    ("a_run_that_hangs_or_eats_memory_is_survived", || run(a_run_that_hangs_or_eats_memory_is_survived())),
    ("what_can_not_start_is_refused_at_once", || run(what_can_not_start_is_refused_at_once())),
];

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads can be started").block_on(test);
}

const GOOD: &str = r#"
import json, os, signal, time
import beside

def init():
    global model
    with open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "model", "weight.txt")) as f:
        model = int(f.read())
    print("loaded", model, os.environ["GREETING"])

def run(raw_data):
    data = json.loads(raw_data)
    if data.get("crash"):
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(60)
    return [beside.double(x) * model for x in data["data"]]
"#;

async fn an_instance_serves_crashes_comes_back_and_stops() {
    let bench = Bench::new().await;
    let mut request = bench.request("blue", GOOD);
    let code = request.code.as_ref().unwrap().source.clone();
    fs::write(code.join("beside.py"), "def double(x): return 2 * x\n").unwrap();
    let model = bench.state.path().join("model");
    fs::create_dir(&model).unwrap();
    fs::write(model.join("weight.txt"), "7").unwrap();
    request.models = vec![ModelMount { source: model, name: "diabetes".to_owned(), version: "3".to_owned() }];
    request.variables.insert("GREETING".to_owned(), "secret-greeting".to_owned());

    let instance = bench.backend.instance_start(request).await.unwrap();
    let first = ready(&instance).await;
    let (status, body) = score(&first, r#"{"data": [1, 2]}"#).await.unwrap();
    assert_eq!((status, body.as_str()), (StatusCode::OK, "[14, 28]"));
    let (status, _) = score(&first, "not json").await.unwrap();
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "run() raised");

    assert!(score(&first, r#"{"crash": true}"#).await.is_none());
    let second = wait_for(&instance, |status| match status {
        InstanceStatus::Ready(upstream) if upstream.id != first.id => Some(Arc::clone(upstream)),
        _ => None,
    })
    .await;
    assert!(second.id > first.id);
    assert!(first.dial.socket().is_err(), "the way to the dead process is closed");
    let (status, body) = score(&second, r#"{"data": [3]}"#).await.unwrap();
    assert_eq!((status, body.as_str()), (StatusCode::OK, "[42]"));

    instance.stop(Duration::from_secs(10)).await;
    assert!(matches!(*instance.status().borrow(), InstanceStatus::Stopped));
    assert!(second.dial.socket().is_err());
    timeout(Duration::from_secs(30), bench.backend.ended()).await.expect("nothing runs any more");

    let log = bench.log("blue", Container::InferenceServer);
    for words in [
        "start 1\n",
        "SystemSetup: Succeeded, 2 cores and 0.5 GiB of memory, outbound network allow_only_approved_outbound",
        "loaded 7 secret-greeting",
        "UserContainerStart: Succeeded, ready after",
        "The process ended: killed by signal 9",
        "Starting again in 1 s",
        "start 2\n",
        "Handling signal: term",
        "Stopped",
    ] {
        assert!(log.contains(words), "{words:?} is not in the log:\n{log}");
    }
    let initializer = bench.log("blue", Container::StorageInitializer);
    assert!(initializer.contains("ModelDownload: Succeeded, diabetes version 3"), "{initializer}");
    assert!(!initializer.contains("secret-greeting") && !initializer.contains(&*bench.state.path().to_string_lossy()));
}

async fn scripts_that_do_not_come_up_are_told_apart() {
    let bench = Bench::new().await;
    let quick = ProbeSettings {
        initial_delay: SignedDuration::from_secs(19),
        period: SignedDuration::from_secs(1),
        failure_threshold: 1,
        ..ProbeSettings::default()
    };
    // Name, script, code, what the message says, starts in the log.
    let table = [
        ("import", "import nowhere\n", "UserScriptImportError", "ModuleNotFoundError: No module named 'nowhere'", 1),
        ("run", "def init(): pass\n", "UserScriptFunctionNotFound", "does not have a run() function", 1),
        (
            "init",
            "def init(): raise ValueError('no weights')\ndef run(d): pass\n",
            "UserScriptInitFailed",
            "init() of score.py raised ValueError: no weights",
            3,
        ),
        (
            "exit",
            "import os\ndef init(): os._exit(7)\ndef run(d): pass\n",
            "UserScriptInitFailed",
            "ended in init() of score.py: its worker died again and again",
            1,
        ),
        ("memory", "def init(): b'x' * (1 << 30)\ndef run(d): pass\n", "PodOutOfMemory", "memory limit of 0.5 GiB", 3),
        (
            "hang",
            "def init():\n    print('waiting\\x1b[31m')\n    while True: pass\ndef run(d): pass\n",
            "ResourceNotReady",
            "not ready after 20 s; it is still in init()",
            1,
        ),
    ];
    let mut instances = Vec::new();
    for row in &table {
        let mut request = bench.request(row.0, row.1);
        if row.0 == "hang" {
            request.readiness = quick;
        }
        instances.push((row, bench.backend.instance_start(request).await.unwrap()));
    }
    for ((name, _, code, words, most_starts), instance) in &instances {
        let fault = failed(instance).await;
        assert_eq!(fault.code, *code, "{name}: {}", fault.message);
        assert!(fault.message.contains(words), "{name}: {words:?} is not in {:?}", fault.message);
        let log = bench.log(name, Container::InferenceServer);
        let shown = fault.message.lines().last().unwrap();
        assert!(log.lines().any(|line| line == shown), "{name}: the message ends with a line of the log: {shown:?}");
        let starts = log.matches("UserContainerStart: InProgress").count();
        assert!(starts <= *most_starts, "{name}: {starts} starts");
        assert!(log.ends_with(&format!("UserContainerStart: Failed ({code})\n")), "{name}: {log}");
    }
    assert!(bench.log("hang", Container::InferenceServer).contains("waiting\\u{1b}[31m"));
    timeout(Duration::from_secs(30), bench.backend.ended()).await.expect("nothing runs any more");
}

async fn a_dropped_handle_leaves_nothing_behind() {
    let bench = Bench::new().await;
    // Deaf to SIGTERM, with a child that has left its group: only the sandbox's end can end them.
    let script = "import os, signal, time\n\
                  signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
                  def init():\n    print('in init', flush=True)\n    if os.fork() == 0:\n        os.setsid()\n\
                  \x20   time.sleep(1000)\n\
                  def run(d): pass\n";
    let dropped = bench.backend.instance_start(bench.request("dropped", script)).await.unwrap();
    let stopped = bench.backend.instance_start(bench.request("stopped", script)).await.unwrap();
    for name in ["dropped", "stopped"] {
        let printed = async {
            while !bench.log(name, Container::InferenceServer).contains("in init") {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(60), printed).await.expect("init() is reached");
    }
    drop(dropped);
    stopped.stop(Duration::from_millis(200)).await;
    timeout(Duration::from_secs(30), bench.backend.ended()).await.expect("nothing runs any more");
    for name in ["dropped", "stopped"] {
        assert!(bench.log(name, Container::InferenceServer).ends_with("Stopped\n"));
        bench.backend.logs().remove(&deployment(name));
        assert_eq!(bench.log(name, Container::InferenceServer), "");
    }
}

async fn a_run_that_hangs_or_eats_memory_is_survived() {
    let bench = Bench::new().await;
    let script = "import json, time\n\
                  def init(): pass\n\
                  def run(data):\n\
                  \x20   data = json.loads(data)\n\
                  \x20   if 'sleep' in data: time.sleep(data['sleep'])\n\
                  \x20   if 'eat' in data: b'x' * data['eat']\n\
                  \x20   return 'fine'\n";
    let mut request = bench.request("odd", script);
    // One worker that sleeps can't answer its probe: out of service soon, killed later.
    let probe = |failures| ProbeSettings {
        period: SignedDuration::from_millis(300),
        timeout: SignedDuration::from_millis(500),
        failure_threshold: failures,
        initial_delay: SignedDuration::from_secs(60),
        ..ProbeSettings::default()
    };
    request.readiness = probe(2);
    request.liveness = probe(14);
    let instance = bench.backend.instance_start(request).await.unwrap();
    let upstream = ready(&instance).await;

    assert!(score(&upstream, r#"{"eat": 1073741824}"#).await.is_none_or(|(status, _)| status != StatusCode::OK));
    let noted = async {
        while !bench.log("odd", Container::InferenceServer).contains("PodOutOfMemory: A worker was killed") {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(30), noted).await.expect("the log names the memory limit");

    let upstream = ready(&instance).await;
    let sleeping = score(&upstream, r#"{"sleep": 4}"#);
    let watching = async {
        wait_for(&instance, |status| matches!(status, InstanceStatus::NotReady).then_some(())).await;
        ready(&instance).await
    };
    let (answer, again) = tokio::join!(sleeping, watching);
    assert_eq!(answer.unwrap().1, "\"fine\"");
    assert_eq!(again.id, upstream.id, "the same process is back in service");

    // Longer than the liveness probe's patience: a new process takes over.
    let sleeping = score(&upstream, r#"{"sleep": 1000}"#);
    let watching = wait_for(&instance, |status| match status {
        InstanceStatus::Ready(fresh) if fresh.id != upstream.id => Some(Arc::clone(fresh)),
        _ => None,
    });
    let (answer, fresh) = tokio::join!(sleeping, watching);
    assert!(answer.is_none());
    assert_eq!(score(&fresh, "{}").await.unwrap().1, "\"fine\"");
    instance.stop(Duration::ZERO).await;
}

async fn what_can_not_start_is_refused_at_once() {
    let bench = Bench::new().await;
    type Change = fn(&mut InstanceRequest);
    let table: [(Change, &str, &str); 5] = [
        (|r| r.code = None, "NotSupported", "code_configuration"),
        (
            |r| r.code.as_mut().unwrap().script = "main.py".into(),
            "UserScriptImportError",
            "which holds: score.py. Correct",
        ),
        (|r| r.code.as_mut().unwrap().source = "/nowhere".into(), "ResourceNotFound", "create the deployment again"),
        (|r| r.models = vec![model("/nowhere/model")], "ResourceNotFound", "register the model again"),
        (|r| r.model_mount_path = Some("/proc".into()), "BadArgument", "such as /var/models"),
    ];
    for (change, code, words) in table {
        let mut request = bench.request("refused", "");
        request.models = vec![model("/usr/share")];
        change(&mut request);
        let fault = bench.backend.instance_start(request).await.map(|_| ()).unwrap_err();
        assert_eq!(fault.code, code, "{fault}");
        assert!(fault.message.contains(words), "{words:?} is not in {fault}");
    }
    assert_eq!(bench.log("refused", Container::InferenceServer), "");
}

fn model(source: impl AsRef<Path>) -> ModelMount {
    ModelMount { source: source.as_ref().to_owned(), name: "m".to_owned(), version: "1".to_owned() }
}
