//! `tls …`: certificates of the names that are served.

use std::path::Path;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Found, ca};
use crate::{
    failure::Failure,
    grammar::{Globals, TlsCheck, TlsCommand, TlsPlan, TlsRenew, TlsStatus},
    output::Output,
    progress::Step,
    session::{Session, segment},
};

const API: &str = "api-version=2025-01-01";
/// Columns of the table.
const COLUMNS: &str = "[].{Name:name, Issuer:issuer, State:state, Serial:serial, SHA256:sha256, NotAfter:notAfter, NextRenewal:nextRenewal, LastResult:lastResult.outcome}";
/// Largest certificate or key file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

pub(super) async fn run(command: TlsCommand, session: &Session, globals: &Globals) -> Found {
    match command {
        TlsCommand::Status(status) => list(&status, session).await,
        TlsCommand::Plan(plan) => planned(&plan, session).await,
        TlsCommand::Check(check) => checked(&check, session).await,
        TlsCommand::Renew(renew) => renewed(&renew, session, globals).await,
    }
}

async fn list(status: &TlsStatus, session: &Session) -> Found {
    let found = match &status.name {
        Some(name) => vec![session.client().get(&certificate(session, name, "").await?).await?],
        None => session.client().list(&format!("{}/certificates?{API}", ca::base(session).await?)).await?,
    };
    // One line for each name: a certificate may have several.
    let shown = found.iter().flat_map(|one| {
        let names = one["properties"]["names"].as_array().cloned().unwrap_or_default();
        let wanted = status.name.clone();
        let names = names.into_iter().filter(move |name| {
            wanted.as_ref().is_none_or(|wanted| name.as_str().is_some_and(|name| name.eq_ignore_ascii_case(wanted)))
        });
        names.map(move |name| flat(&name, one))
    });
    Ok(Output::Value(shown.collect(), Some(COLUMNS)))
}

/// A certificate under one of its names, without the envelope.
fn flat(name: &Value, certificate: &Value) -> Value {
    let mut shown = Map::new();
    shown.insert("name".to_owned(), name.clone());
    let properties = certificate["properties"].as_object();
    shown.extend(properties.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
    Value::Object(shown)
}

async fn planned(plan: &TlsPlan, session: &Session) -> Found {
    let body = match (&plan.cert, &plan.key) {
        (Some(cert), Some(key)) => json!({"cert": text(cert)?, "key": text(key)?}),
        _ => json!({}),
    };
    let path = certificate(session, &plan.name, "/plan").await?;
    Ok(session.client().post(&path, &body).await?.into())
}

async fn checked(check: &TlsCheck, session: &Session) -> Found {
    let body = json!({"cert": text(&check.cert)?, "key": text(&check.key)?, "cname": check.cname});
    let path = format!("{}/certificates/check?{API}", ca::base(session).await?);
    let findings = session.client().post(&path, &body).await?;
    if findings["accepted"] == true {
        return Ok(findings.into());
    }
    let said = |key: &str| findings["error"][key].as_str().unwrap_or_default();
    Err(Failure::here(format!("The certificate would be refused: ({}) {}", said("code"), said("message"))))
}

async fn renewed(renew: &TlsRenew, session: &Session, globals: &Globals) -> Found {
    let force = if renew.force { "&force=true" } else { "" };
    let path = format!("{}{force}", certificate(session, &renew.name, "/renew").await?);
    let what = format!("Renewing the certificate for {}", renew.name);
    let result = wait(session, globals, &path, what).await?;
    let Some(message) = result["message"].as_str() else { return Ok(result.into()) };
    crate::terminal::note(message);
    Ok(result.into())
}

/// POSTs and waits for the operation's end, if there is one.
pub(super) async fn wait(session: &Session, globals: &Globals, path: &str, what: String) -> Result<Value, Failure> {
    let mut step = Step::begin(globals, what);
    let ended =
        session.client().write_and_wait(Method::POST, path, None, None, &mut |elapsed| step.tick(elapsed)).await;
    Ok(ended?)
}

/// The path of a certificate and of what is done with it.
async fn certificate(session: &Session, name: &str, action: &str) -> Result<String, Failure> {
    Ok(format!("{}/certificates/{}{action}?{API}", ca::base(session).await?, segment(name)))
}

/// A PEM file.
fn text(path: &Path) -> Result<String, Failure> {
    let unreadable = |why: String| Failure::here(format!("'{}' can't be read: {why}.", path.display()));
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > MAX_FILE {
        return Err(unreadable(format!("it is larger than {} MiB, which no PEM file is", MAX_FILE >> 20)));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
}
