//! The proof that the suite can fail: each attack runs once more beside the platform instead of inside a sandbox, and
//! must be caught there, by its own check or by the canary.

use std::{
    fs,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use casemate_testkit::{project, world::World};
use serde_json::Value;

use super::{
    lab::{Witness, make_packages, silent_since},
    table::{Attack, attacks},
};

/// Attacks that fail on some machines without any sandbox: the kernel lacks the protocol, or the machine that runs the
/// tests is itself confined. The last three end well by design, and what they show is their bound.
const MAY_FAIL: &[&str] = &[
    "53", "53b", "53c", "56c", "61b", "62", "62b", "62c", "64b", "65", "66", "67b", "68", "69", "69b", "69c", "69d",
    "69e", "69f", "70", "76", "79c", "81", "82", "82b", "85", "85b", "85c", "10", "15", "39",
];

/// Runs probes as root in the platform's network, with the internet's resolver.
struct Bare {
    world: World,
    witness: Witness,
    resolver: PathBuf,
    directory: tempfile::TempDir,
}

impl Bare {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let directory = tempfile::tempdir()?;
        let witness = Witness::start(&world, directory.path())?;
        let resolver = directory.path().join("resolv.conf");
        fs::write(&resolver, "nameserver 8.8.8.8\noptions timeout:1 attempts:1\n")?;
        Ok(Self { world, witness, resolver, directory })
    }

    fn probe(&self, request: &str) -> Result<Value> {
        let script = format!(
            "mount --bind {} /etc/resolv.conf && cd {} && exec python3 -B -c \
             'import json, sys, score; print(json.dumps(score.run(sys.stdin.read())))'",
            self.resolver.display(),
            project().join("tests/leak/code").display()
        );
        let enter = self.world.enter();
        let mut child = Command::new(&enter[0])
            .args(&enter[1..])
            .args(["unshare", "--mount", "--propagation", "private", "sh", "-c", &script])
            .env("CASEMATE_LEAK_RESOLVER", "8.8.8.8")
            .env("CASEMATE_LEAK_WAIT", "1")
            .env("TMPDIR", self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdin = child.stdin.take().context("stdin is piped")?;
        let request = self.witness.fill(request, self.witness.port()).replace("\"seconds\": 12", "\"seconds\": 1");
        stdin.write_all(request.as_bytes())?;
        drop(stdin);
        let output = child.wait_with_output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// What caught the attack; nothing when it passed for a denial.
    fn caught(&self, attack: &Attack) -> Result<Option<String>> {
        let before = (self.world.arrivals()?.len(), self.witness.seen()?);
        let said = self.probe(attack.probe)?;
        if !(attack.denied)(&said) {
            return Ok(Some(format!("it got {said}")));
        }
        let silent =
            silent_since(&self.world, before.0, attack.reaches).and_then(|()| self.witness.silent_since(before.1));
        Ok(silent.err().map(|error| error.to_string()))
    }
}

#[tokio::test]
async fn every_attack_is_caught_where_nothing_stops_it() -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "the leak suite makes network namespaces: run it as root");
    let bare = Bare::new()?;
    let mut missed = Vec::new();
    for attack in attacks() {
        match bare.caught(attack).with_context(|| format!("{} {}", attack.number, attack.what))? {
            Some(how) => println!("{} {}: {how}", attack.number, attack.what),
            None if MAY_FAIL.contains(&attack.number) => {
                println!("{} {}: not possible here", attack.number, attack.what)
            }
            None => missed.push(format!("{} {}", attack.number, attack.what)),
        }
    }
    ensure!(missed.is_empty(), "nothing stops these, and the suite did not notice:\n{}", missed.join("\n"));
    hooks_that_nothing_stops(&bare)
}

/// What packages' hooks attempt succeeds where nothing stops it.
fn hooks_that_nothing_stops(bare: &Bare) -> Result<()> {
    let mut enter = bare.world.enter();
    let resolver = format!("mount --bind {} /etc/resolv.conf && exec \"$@\"", bare.resolver.display());
    enter.extend(["unshare", "--mount", "--propagation", "private", "sh", "-c", &resolver, "sh"].map(str::to_owned));
    let said = make_packages(&enter, "-", &bare.witness)?;
    let seen: serde_json::Map<String, Value> = serde_json::from_str(&said)?;
    let stopped: Vec<_> = seen.iter().filter(|(_, outcome)| *outcome != "did").collect();
    ensure!(stopped.is_empty() && !seen.is_empty(), "attempts of hooks that work nowhere: {stopped:?}");
    Ok(())
}
