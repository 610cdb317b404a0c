//! Scoring from the command line.

use std::{io::Read, time::Duration};

use casemate_model::{Fault, FaultKind};
use casemate_wire::client::{AUDIENCE_ML, Answer};
use reqwest::{Method, Url, header::CONTENT_TYPE};
use serde_json::{Value, json};

use super::{Found, endpoint, refuse_local};
use crate::{
    failure::Failure,
    grammar::InvokeArgs,
    output::Output,
    session::{ML_API, Session},
};

/// Most characters of a model's refusal that are shown.
const MAX_SHOWN: usize = 1000;
/// Largest request sent, in bytes.
const MAX_REQUEST_BYTES: u64 = 100 << 20;
/// Longest time for an answer: the longest that a deployment may take, and some for the queue.
const TIMEOUT: Duration = Duration::from_secs(200);

pub(super) async fn invoke(args: InvokeArgs, session: &Session) -> Found {
    refuse_local(args.local.local)?;
    let request = read_request(&args)?;
    let client = session.client();
    let path = endpoint::path(&session.workspace_id(&args.scope).await?, &args.name);
    let arm = client.get(&format!("{path}?{ML_API}")).await?;
    if let Some(deployment) = &args.deployment_name {
        check_deployment(session, &path, &args.name, deployment).await?;
    }
    let Some(address) = arm.pointer("/properties/scoringUri").and_then(Value::as_str) else {
        return Err(Failure::here(format!(
            "The endpoint '{}' has no scoring address yet; its state is {}. Wait until it has succeeded.",
            args.name,
            arm.pointer("/properties/provisioningState").and_then(Value::as_str).unwrap_or("unknown")
        )));
    };
    let address = Url::parse(address)
        .map_err(|error| Fault::internal(format!("The scoring address '{address}' can't be read: {error}.")))?;
    let credentials = credentials(session, &path, &arm).await?;
    let secret =
        ["primaryKey", "accessToken"].iter().find_map(|key| credentials.get(key)?.as_str()).unwrap_or_default();
    let mut request = client
        .http()
        .request(Method::POST, address)
        .timeout(TIMEOUT)
        .bearer_auth(secret)
        .header(CONTENT_TYPE, "application/json")
        .body(request);
    if let Some(deployment) = &args.deployment_name {
        request = request.header("azureml-model-deployment", deployment);
    }
    let answer = client.http().send_once(request).await?;
    if !(200..300).contains(&answer.status) {
        return Err(refused(&answer, &args.name));
    }
    // The public client gives the answer's text, so that it is printed as a JSON string, whatever is in it.
    Ok(Output::Value(json!(String::from_utf8_lossy(&answer.body)), None))
}

fn read_request(args: &InvokeArgs) -> Result<Vec<u8>, Failure> {
    let shown = args.request_file.display();
    let failed = |error: std::io::Error| Failure::here(format!("The request file '{shown}' can't be read: {error}."));
    // It may be a pipe, whose size nobody knows before.
    let file = std::fs::File::open(&args.request_file).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_REQUEST_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_REQUEST_BYTES {
        return Err(Failure::here(format!(
            "The request file '{shown}' is larger than the {MAX_REQUEST_BYTES} bytes that can be sent."
        )));
    }
    serde_json::from_slice::<serde::de::IgnoredAny>(&bytes)
        .map_err(|error| Failure::here(format!("The request file '{shown}' is no JSON: {error}.")))?;
    Ok(bytes)
}

async fn check_deployment(session: &Session, path: &str, endpoint: &str, wanted: &str) -> Result<(), Failure> {
    let all = session.client().list(&format!("{path}/deployments?{ML_API}")).await?;
    let names: Vec<&str> = all.iter().filter_map(|one| one.get("name")?.as_str()).collect();
    if names.iter().any(|name| name.eq_ignore_ascii_case(wanted)) {
        return Ok(());
    }
    let there = if names.is_empty() { "It has none.".to_owned() } else { format!("It has: {}.", names.join(", ")) };
    Err(Failure::not_found(format!("The endpoint '{endpoint}' has no deployment '{wanted}'. {there}")))
}

/// What opens the endpoint, as `get-credentials` prints it.
pub(super) async fn credentials(session: &Session, path: &str, arm: &Value) -> Result<Value, Failure> {
    let client = session.client();
    let mode = arm.pointer("/properties/authMode").and_then(Value::as_str).unwrap_or("Key");
    match mode.to_ascii_lowercase().as_str() {
        "amltoken" => Ok(client.post(&format!("{path}/token?{ML_API}"), &json!({})).await?),
        "aadtoken" => {
            let token = client.token(Some(AUDIENCE_ML)).await?;
            let text = token.secret.expose_str().map_err(|_| Failure::here("The token is no text."))?;
            Ok(json!({"accessToken": text, "expiryTimeUtc": token.expires_at.as_second()}))
        }
        _ => Ok(client.post(&format!("{path}/listKeys?{ML_API}"), &json!({})).await?),
    }
}

/// A refusal of the router, or the model's own.
fn refused(answer: &Answer, endpoint: &str) -> Failure {
    let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(status) = header("ms-azureml-model-error-statuscode") {
        let reason = header("ms-azureml-model-error-reason").unwrap_or_default();
        let said: String = String::from_utf8_lossy(&answer.body).trim().chars().take(MAX_SHOWN).collect();
        let deployment = header("azureml-model-deployment").unwrap_or("NAME");
        return Failure::here(format!(
            "The model of the endpoint '{endpoint}' answered {status} {reason}: {said}\nIts log says more: casemate ml online-deployment get-logs -n {deployment} -e {endpoint}"
        ));
    }
    match answer.check() {
        Err(mut fault) => {
            // No such thing as a missing resource here: the endpoint was found, only nothing takes the request.
            if fault.kind == FaultKind::NotFound {
                fault.kind = FaultKind::Unavailable;
            }
            fault.into()
        }
        Ok(_) => Failure::here(format!("The endpoint '{endpoint}' answered {}.", answer.status)),
    }
}
