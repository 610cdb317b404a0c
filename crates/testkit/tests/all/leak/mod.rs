//! The leak suite: a model that attacks, on a live platform whose only way out leads to an internet that writes down
//! every packet that arrives. Each denial has a control, the same probe where it is allowed, so that a probe that
//! never works can't pass for a wall that holds.

mod bare;
mod lab;
mod live;
mod table;

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lab::Lab;
use nix::unistd::geteuid;
use serde_json::Value;
use table::{Attack, attacks};

#[tokio::test]
async fn nothing_leaks_from_a_platform_of_root() -> Result<()> {
    ensure!(geteuid().is_root(), "the leak suite makes network namespaces: run it as root");
    run_all(false)
}

#[tokio::test]
async fn nothing_leaks_from_a_platform_of_an_ordinary_user() -> Result<()> {
    ensure!(geteuid().is_root(), "the leak suite makes network namespaces: run it as root");
    run_all(true)
}

fn run_all(unprivileged: bool) -> Result<()> {
    let lab = Lab::new(unprivileged)?;
    let mut failures: Vec<String> = Vec::new();
    for attack in attacks() {
        if let Err(error) = run(&lab, attack) {
            failures.push(format!("{} {}: {error:#}", attack.number, attack.what));
        }
    }
    failures.extend(live::run_all(lab));
    ensure!(failures.is_empty(), "{} attacks:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "times, which are shown when something fails")]
fn run(lab: &Lab, attack: &Attack) -> Result<()> {
    let began = Instant::now();
    let before = lab.mark()?;
    let said = lab.probe(attack.probe)?;
    ensure!((attack.denied)(&said), "the attack got {said}");
    lab.silent_since(before, attack.reaches).with_context(|| format!("it was answered with {said}"))?;
    if let Some((probe, allowed)) = attack.control {
        let said: Value = lab.probe(probe).context("the control")?;
        ensure!(allowed(&said), "the control, which must work, got {said}");
    }
    println!("{} {}: {:?}", attack.number, attack.what, began.elapsed());
    Ok(())
}

/// SECURITY.md must name every attack, so that its table can't fall behind.
#[test]
fn the_table_in_security_md_is_whole() -> Result<()> {
    let text = std::fs::read_to_string(casemate_testkit::project().join("SECURITY.md"))?;
    let missing: Vec<String> = attacks()
        .map(|attack| format!("| {} | {} | {} |", attack.number, attack.what, attack.layer))
        .filter(|line| !text.contains(line.as_str()))
        .collect();
    ensure!(missing.is_empty(), "SECURITY.md lacks these lines:\n{}", missing.join("\n"));
    Ok(())
}
