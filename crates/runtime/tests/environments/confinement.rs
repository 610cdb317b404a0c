//! Package hooks are foreign code: what they reach, and what they don't.

use std::os::unix::fs::PermissionsExt;

use super::Test;
use super::index::Index;
use super::world::World;

pub const TESTS: &[Test] = &[
    ("a_package_hook_reaches_nothing_of_the_platform", a_package_hook_reaches_nothing_of_the_platform),
    ("a_failing_hook_fails_the_build_with_its_own_words", a_failing_hook_fails_the_build_with_its_own_words),
    ("a_hook_that_leaves_traps_behind_harms_only_itself", a_hook_that_leaves_traps_behind_harms_only_itself),
    ("a_start_up_hook_has_no_network", a_start_up_hook_has_no_network),
    ("a_hook_that_phones_home_is_refused_and_told", a_hook_that_phones_home_is_refused_and_told),
];

fn a_package_hook_reaches_nothing_of_the_platform() {
    let mut world = World::new();
    let packages = world.packages();
    packages.wheel("friend", "1.0", &[], "answer = 'as published'");
    let planted = world.state.join("store.key");
    std::fs::write(&planted, "planted-secret").unwrap();
    std::fs::set_permissions(&planted, std::fs::Permissions::from_mode(0o644)).unwrap();
    let outside = world.dir.path().join("elsewhere");
    std::fs::write(&outside, "planted-secret").unwrap();
    let work = format!(
        r#"
import os, json
def tried(name, what):
    try:
        return [name, "did: " + str(what())]
    except BaseException as error:
        return [name, "refused: %s" % type(error).__name__]
def read(path): return open(path).read()
def poison():
    done = []
    for root, dirs, files in os.walk("/build/cache"):
        for name in files:
            if name == "friend.py":
                open(os.path.join(root, name), "w").write("answer = 'poisoned'")
                done.append(name)
    if not done: raise LookupError("nothing to poison")
    return done
def work():
    state, seen = {state:?}, []
    seen.append(tried("control", lambda: read("/etc/passwd")[:4]))
    seen.append(tried("network", lambda: __import__("socket").getaddrinfo("localhost", 80)[0][4]))
    seen.append(tried("key", lambda: read(state + "/store.key")))
    seen.append(tried("elsewhere", lambda: read({outside:?})))
    seen.append(tried("state", lambda: [n for n in os.listdir(state) if n != "environments"] or 1 / 0))
    seen.append(tried("own cache", poison))
    seen.append(tried("write there", lambda: open(state + "/planted", "w").write("x")))
    seen.append(tried("interpreter", lambda: open(os.path.join(os.__file__), "a").write("x")))
    seen.append(tried("other processes", lambda: [p for p in os.listdir("/proc") if p.isdigit() and "environments" in read("/proc/%s/cmdline" % p) and "--list" in p] or 1 / 0))
    seen.append(tried("home", lambda: os.listdir("/root")  if os.listdir("/root") else 1 / 0))
    return "seen = " + repr(json.dumps(seen))
"#,
        state = world.state.display().to_string(),
        outside = outside.display().to_string(),
    );
    packages.source("spy", &work);
    let environment = world.build("dependencies: [friend, {pip: [spy]}]").unwrap();
    let seen = world.python(&environment, "import spy; print(spy.seen)");
    let seen: Vec<(String, String)> = serde_json::from_str(seen.trim()).unwrap_or_else(|_| panic!("{seen}"));
    for (name, outcome) in &seen {
        let allowed = ["control", "network", "own cache"].contains(&name.as_str());
        // The environment's own path leads through the state directory, and an interpreter under the home directory
        // through that: names of directories may show, what is in them may not.
        let own_path = name == "home" && !outcome.contains("planted") && outcome.contains(".pyenv");
        assert_eq!(outcome.starts_with("did: "), allowed || own_path, "{name}: {outcome}");
        assert!(!outcome.contains("planted-secret"), "{name}: {outcome}");
    }
    assert_eq!(seen.len(), 10);
    assert!(!world.state.join("planted").exists());
    // It has its cache for itself: neither here nor in another environment does anyone get what it wrote there.
    assert_eq!(world.python(&environment, "import friend; print(friend.answer)"), "as published\n");
    let other = world.build("dependencies: [friend]").unwrap();
    assert_eq!(world.python(&other, "import friend; print(friend.answer)"), "as published\n");
}

fn a_failing_hook_fails_the_build_with_its_own_words() {
    let mut world = World::new();
    let packages = world.packages();
    packages.source("broken", "def work():\n    raise RuntimeError('the flux compensator is missing')\n");
    let fault = world.build("dependencies: [{pip: [broken]}]").unwrap_err();
    assert!(fault.message.contains("the flux compensator is missing"), "{}", fault.message);
    assert!(world.log_text("blue").contains("the flux compensator is missing"));
    assert!(world.shelf().is_empty());
}

fn a_hook_that_leaves_traps_behind_harms_only_itself() {
    let mut world = World::new();
    let packages = world.packages();
    let treasure = world.dir.path().join("treasure");
    std::fs::create_dir(&treasure).unwrap();
    std::fs::write(treasure.join("kept"), "x").unwrap();
    // Links where the platform will write or delete, and directories that it can't enter.
    let work = format!(
        r#"
import os
def work():
    for name in os.listdir("/build"):
        for trap in ["trap", "manifest.json"]:
            try:
                os.symlink({treasure:?}, "/build/%s/%s" % (name, trap))
            except OSError:
                pass
    os.makedirs("/build/cache/closed/inner")
    os.chmod("/build/cache/closed", 0)
    if os.fork() == 0:
        os.setsid()
        os.closerange(0, 256)
        import time
        time.sleep(600)
    return "x = 1"
"#,
        treasure = treasure.display().to_string()
    );
    packages.source("trapper", &work);
    let environment = world.build("dependencies: [{pip: [trapper]}]").unwrap();
    assert_eq!(world.python(&environment, "import trapper; print(trapper.x)"), "1\n");
    assert_eq!(world.shelf(), [environment.digest]);
    assert_eq!(std::fs::read_dir(&treasure).unwrap().count(), 1);
    assert!(treasure.join("kept").exists());
}

/// A package can make itself run at every start of the interpreter; in the environment's own trial it does.
fn a_start_up_hook_has_no_network() {
    let mut world = World::new();
    let packages = world.packages();
    let code = "import socket\ntry:\n    socket.create_connection(('127.0.0.1', PORT), 2)\n    raise SystemExit('it reached the network')\nexcept OSError:\n    pass\n";
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let code = code.replace("PORT", &listener.local_addr().unwrap().port().to_string());
    packages.wheel("azureml_inference_server_http", "9.0", &[], &code);
    world.build("dependencies: []").unwrap();
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "nobody has called");
}

/// A package's build reaches the configured index, and nothing else: not the host's other services, not the internet.
fn a_hook_that_phones_home_is_refused_and_told() {
    let mut world = World::new();
    let packages = world.packages();
    let index = Index::serve(packages.dir.clone(), &[], None);
    let canary = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let everywhere = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let work = r#"
import json, socket
def call(host, port):
    try:
        with socket.create_connection((host, port), 20) as peer:
            peer.sendall(b"GET /simple/friend/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return "reached" if peer.recv(9) else "refused"
    except OSError:
        return "refused"
def work():
    places = [("127.0.0.1", INDEX), ("127.0.0.1", CANARY), ("127.0.0.1", EVERYWHERE), ("OWN", EVERYWHERE),
              ("192.0.2.7", 443), ("168.63.129.16", 80), ("phone.example", 443)]
    return "seen = " + repr(json.dumps([call(*place) for place in places]))
"#;
    let port = |listener: &std::net::TcpListener| listener.local_addr().unwrap().port().to_string();
    let work = work
        .replace("INDEX", &index.port.to_string())
        .replace("CANARY", &port(&canary))
        .replace("EVERYWHERE", &port(&everywhere))
        .replace("OWN", &own_address());
    packages.wheel("friend", "1.0", &[], "");
    packages.source("spy", &work);
    world.use_index(&index.url());
    let environment = world.build("dependencies: [{pip: [spy]}]").unwrap();
    let seen = world.python(&environment, "import spy; print(spy.seen)");
    let seen: Vec<String> = serde_json::from_str(seen.trim()).unwrap_or_else(|_| panic!("{seen}"));
    assert_eq!(seen, ["reached", "refused", "refused", "refused", "refused", "refused", "refused"]);
    let log = world.log_text("blue");
    for told in ["Network: refused phone.example", "Network: refused 192.0.2.7:443", "pip.conf"] {
        assert!(log.contains(told), "{told} is not in:\n{log}");
    }
    for listener in [canary, everywhere] {
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nobody has called");
    }
}

/// An address of this host beside the loopback one, if it has one: the source that it would use for others.
fn own_address() -> String {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent: connecting only chooses a route.
    let chosen = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr());
    chosen.map_or("127.0.0.2".to_owned(), |address| address.ip().to_string())
}
