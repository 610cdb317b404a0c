//! What a renewal or a replacement will do, and the checks of a certificate without using it.

use casemate_model::{
    Fault, Secret,
    tls::{CertificateFacts, TlsMode},
};
use casemate_pki::custom::{self, Checked};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Known;
use crate::{call::Call, context::Outcome, respond, state::ApiState};

/// A certificate chain and its key, PEM. It has no `Debug`: the key goes nowhere but into the checks.
#[derive(Default)]
struct Given {
    cert: Option<String>,
    key: Option<Secret>,
    cname: Option<String>,
}

impl Given {
    /// Reads a body. What is wrong with it is said without quoting it, since it may hold a key in the wrong place.
    fn read(call: &Call) -> Result<Self, Fault> {
        let wrong = || {
            let message =
                "The body is not the one expected here: a JSON object with the texts 'cert', 'key' and 'cname'.";
            Fault::invalid("InvalidRequestContent", message)
        };
        if call.body.is_empty() {
            return Ok(Self::default());
        }
        let body: Value = serde_json::from_slice(&call.body).map_err(|_| wrong())?;
        let body = body.as_object().ok_or_else(wrong)?;
        let text = |key: &str| match body.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(wrong()),
        };
        Ok(Self { cert: text("cert")?, key: text("key")?.map(Secret::from), cname: text("cname")? })
    }
}

/// `POST …/check` with `cert`, `key` and `cname`: whether they could be served, and what their owner should know.
pub(super) fn check(state: &ApiState, call: &Call) -> Outcome {
    let given = Given::read(call)?;
    let (cert, key) = both(&given)?;
    let missing = || Fault::invalid("BadArgument", "Say which name it is for: 'cname' is missing.").at("cname");
    let cname = given.cname.as_deref().map(str::to_lowercase).ok_or_else(missing)?;
    Ok(respond::ok(&judged(cert, key, &cname, state.clock.now())))
}

/// `POST …/{name}/plan`, with `cert` and `key` for a replacement.
pub(super) fn plan(state: &ApiState, call: &Call, known: &Known) -> Outcome {
    let now = state.clock.now();
    let given = Given::read(call)?;
    let present = known.record.certificate.as_ref();
    let mut plan = json!({
        "name": known.name(),
        "owner": known.owner.as_str(),
        "names": known.names(),
        "present": present.map(described),
    });
    if given.cert.is_some() || given.key.is_some() {
        let (cert, key) = both(&given)?;
        let findings = judged(cert, key, known.name(), now);
        plan["steps"] = json!(replacement(known, findings["accepted"] == true));
        plan["findings"] = findings;
        return Ok(respond::ok(&plan));
    }
    plan["steps"] = json!(renewal(known, now));
    Ok(respond::ok(&plan))
}

fn both(given: &Given) -> Result<(&str, &Secret), Fault> {
    match (&given.cert, &given.key) {
        (Some(cert), Some(key)) => Ok((cert, key)),
        _ => Err(Fault::invalid(
            "BadArgument",
            "A certificate and its key belong together: give 'cert' and 'key', both PEM.",
        )),
    }
}

fn judged(cert: &str, key: &Secret, cname: &str, now: Timestamp) -> Value {
    match custom::check(cert, key, cname, now) {
        Ok(Checked { leaf, chain, warnings }) => json!({
            "accepted": true,
            "cname": cname,
            "names": leaf.names,
            "serial": leaf.serial,
            "sha256": leaf.sha256,
            "notBefore": leaf.not_before,
            "notAfter": leaf.not_after,
            "chain": chain,
            "warnings": warnings,
        }),
        Err(fault) => json!({
            "accepted": false,
            "cname": cname,
            "error": {"code": fault.code, "message": fault.message},
        }),
    }
}

fn described(facts: &CertificateFacts) -> Value {
    json!({
        "issuer": facts.issuer,
        "serial": facts.serial,
        "sha256": facts.sha256,
        "notBefore": facts.not_before,
        "notAfter": facts.not_after,
        "nextRenewal": facts.next_renewal,
        "provisional": facts.provisional,
    })
}

/// What happens on a renewal, in sentences.
fn renewal(known: &Known, now: Timestamp) -> Vec<String> {
    if known.mode() == TlsMode::Custom {
        return vec![
            "Nothing: the certificate was given by its owner, and only its owner can get another.".to_owned(),
            "Look at the next one with --cert and --key before it is given.".to_owned(),
        ];
    }
    let mut steps = Vec::new();
    if let Some(facts) = &known.record.certificate {
        let kept = match facts.next_renewal {
            Some(next) if now < next => format!(
                "Without --force nothing: the certificate is valid until {} and will be renewed on {next}.",
                facts.not_after
            ),
            _ => "The certificate is due: it will be renewed with and without --force.".to_owned(),
        };
        steps.push(kept);
    }
    let issuer =
        known.record.certificate.as_ref().filter(|facts| !facts.provisional).map(|facts| facts.issuer.as_str());
    let issuer = issuer.unwrap_or("the issuer of the platform's names");
    steps.push(format!(
        "A new key is made, and {issuer} issues a certificate for the same names: {}.",
        known.names().join(", ")
    ));
    steps.extend(served());
    steps
}

/// What happens on a replacement, in sentences.
fn replacement(known: &Known, is_accepted: bool) -> Vec<String> {
    if !is_accepted {
        return vec!["Nothing: the certificate would be refused, and the present one would be served on.".to_owned()];
    }
    let from = known.record.certificate.as_ref().map_or("none".to_owned(), |facts| facts.serial.clone());
    let mut steps = vec![format!("The certificate and its key are stored sealed, instead of {from}.")];
    steps.extend(served());
    if known.mode() == TlsMode::Platform {
        steps.push("From then on its owner must replace it in time: the platform can't renew it.".to_owned());
    }
    steps
}

fn served() -> [String; 3] {
    [
        "It is published: connections that begin after that see it, open ones go on undisturbed.".to_owned(),
        "The platform looks at it through its front door, and keeps it when the fingerprint is the new one.".to_owned(),
        "If it is not, the present certificate is published again and the operation fails.".to_owned(),
    ]
}
