//! `ml online-endpoint …`.

use casemate_model::{Fault, FaultKind};
use casemate_wire::{
    client::Accepted,
    entity::{Document, Endpoint, add_resource_group},
    yaml::Node,
};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Found, confirmed, group::tag_map, invoke, pairs, refuse_local};
use crate::{
    assets::Assets,
    failure::Failure,
    grammar::{EndpointCommand, EndpointCreate, EndpointUpdate, Globals, KeyName},
    output::Output,
    progress::Step,
    session::{ML_API, Session, segment},
};

/// How often a change is tried again when somebody else changed the endpoint meanwhile.
const MAX_CLASHES: usize = 5;

pub(super) async fn run(command: EndpointCommand, session: &Session, globals: &Globals) -> Found {
    let client = session.client();
    match command {
        EndpointCommand::Create(args) => create(args, session, globals).await,
        EndpointCommand::Update(args) => update(args, session, globals).await,
        EndpointCommand::Show(endpoint) => {
            refuse_local(endpoint.local.local)?;
            let path = path(&session.workspace_id(&endpoint.scope).await?, &endpoint.name);
            let arm = client.get(&format!("{path}?{ML_API}")).await?;
            Ok(shown(session, &path, &arm).await?.into())
        }
        EndpointCommand::List { scope, local } => {
            refuse_local(local.local)?;
            let workspace = session.workspace_id(&scope).await?;
            let all = client.list(&format!("{workspace}/onlineEndpoints?{ML_API}")).await?;
            let mut shown: Value = all.iter().map(|one| Endpoint::show(one, &[])).collect();
            add_resource_group(&mut shown);
            Ok(shown.into())
        }
        EndpointCommand::Delete { endpoint, yes, no_wait } => {
            refuse_local(endpoint.local.local)?;
            let path = format!("{}?{ML_API}", path(&session.workspace_id(&endpoint.scope).await?, &endpoint.name));
            client.get(&path).await?;
            confirmed(yes)?;
            let what = format!("Deleting the endpoint '{}'", endpoint.name);
            delete(session, globals, &path, what, no_wait.no_wait).await
        }
        EndpointCommand::Invoke(args) => invoke::invoke(args, session).await,
        EndpointCommand::GetCredentials(endpoint) => {
            refuse_local(endpoint.local.local)?;
            let path = path(&session.workspace_id(&endpoint.scope).await?, &endpoint.name);
            let arm = client.get(&format!("{path}?{ML_API}")).await?;
            Ok(invoke::credentials(session, &path, &arm).await?.into())
        }
        EndpointCommand::RegenerateKeys { endpoint, key_type, no_wait, .. } => {
            refuse_local(endpoint.local.local)?;
            let path = path(&session.workspace_id(&endpoint.scope).await?, &endpoint.name);
            let body = json!({"keyType": if key_type == KeyName::Primary { "Primary" } else { "Secondary" }});
            match client.write(Method::POST, &format!("{path}/regenerateKeys?{ML_API}"), Some(&body), None).await? {
                Accepted::Running(pending) if !no_wait.no_wait => {
                    let mut step = Step::begin(globals, "Making a new key");
                    client.wait(*pending, Default::default(), &mut |elapsed| step.tick(elapsed)).await?;
                }
                _ => {}
            }
            Ok(Output::Nothing)
        }
    }
}

/// The path of an endpoint.
pub(super) fn path(workspace: &str, name: &str) -> String {
    format!("{workspace}/onlineEndpoints/{}", segment(name))
}

/// Deletes a resource and, unless told otherwise, waits for its end.
pub(super) async fn delete(session: &Session, globals: &Globals, path: &str, what: String, no_wait: bool) -> Found {
    match session.client().write(Method::DELETE, path, None, None).await? {
        Accepted::Running(pending) if !no_wait => {
            let mut step = Step::begin(globals, what);
            session.client().wait(*pending, Default::default(), &mut |elapsed| step.tick(elapsed)).await?;
        }
        _ => {}
    }
    Ok(Output::Nothing)
}

/// The endpoint as it is printed, each of its deployments with its share.
async fn shown(session: &Session, path: &str, arm: &Value) -> Result<Value, Failure> {
    let deployments = session.client().list(&format!("{path}/deployments?{ML_API}")).await?;
    let names: Vec<String> = deployments.iter().filter_map(|one| Some(one.get("name")?.as_str()?.to_owned())).collect();
    let mut shown = Endpoint::show(arm, &names);
    add_resource_group(&mut shown);
    Ok(shown)
}

async fn create(args: EndpointCreate, session: &Session, globals: &Globals) -> Found {
    refuse_local(args.local.local)?;
    let mut document = match &args.source.file {
        Some(file) => Document::from_file(file)?,
        None => Document::from_arguments(),
    };
    if let Some(mode) = &args.auth_mode {
        document.put("auth_mode", Node::text(mode.as_str()));
    }
    if let Some(tags) = &args.tags {
        document.put("tags", Node::from_json(&tag_map(tags)?));
    }
    document.set(&args.source.settings)?;
    if let Some(name) = &args.name {
        document.put("name", Node::text(name.as_str()));
    }
    let mut endpoint = Endpoint::read(&document)?;
    let Some(name) = endpoint.name.clone() else {
        return Err(Failure::usage("Which name shall the endpoint have? Give --name, or 'name' in the file."));
    };
    let assets = Assets::open(session, globals, &session.workspace_id(&args.scope).await?).await?;
    let path = assets.path(&["onlineEndpoints", &name]);
    let existing = session.client().get_optional(&format!("{path}?{ML_API}")).await?;
    if let Some(existing) = &existing {
        // An endpoint that is there is overwritten; but what its callers get must not change by the way.
        let shares = |key: &str| {
            existing.pointer(&format!("/properties/{key}")).cloned().and_then(|map| serde_json::from_value(map).ok())
        };
        endpoint.traffic = endpoint.traffic.or_else(|| shares("traffic"));
        endpoint.mirror_traffic = endpoint.mirror_traffic.or_else(|| shares("mirrorTraffic"));
    }
    let body = endpoint.to_arm(&assets.location);
    write(session, globals, &path, &body, None, format!("Creating the endpoint '{name}'"), args.no_wait.no_wait).await
}

/// PUT and, unless told otherwise, wait and show.
async fn write(
    session: &Session,
    globals: &Globals,
    path: &str,
    body: &Value,
    etag: Option<&str>,
    what: String,
    no_wait: bool,
) -> Found {
    let client = session.client();
    let accepted = client.write(Method::PUT, &format!("{path}?{ML_API}"), Some(body), etag).await?;
    let arm = match accepted {
        Accepted::Running(_) if no_wait => return Ok(Output::Nothing),
        Accepted::Done(arm) => arm,
        Accepted::Running(pending) => {
            let mut step = Step::begin(globals, what);
            client.wait(*pending, Default::default(), &mut |elapsed| step.tick(elapsed)).await?
        }
    };
    Ok(shown(session, path, &arm).await?.into())
}

async fn update(args: EndpointUpdate, session: &Session, globals: &Globals) -> Found {
    refuse_local(args.local.local)?;
    let file = args.source.file.as_deref().map(Document::from_file).transpose()?;
    let named = file.as_ref().and_then(|file| file.root.get("name")?.as_written().map(str::to_owned));
    let Some(name) = args.name.clone().or(named) else {
        return Err(Failure::usage("Which endpoint? Give --name, or 'name' in the file."));
    };
    let traffic = args.traffic.as_deref().map(|words| shares("--traffic", words)).transpose()?;
    let mirror = args.mirror_traffic.as_deref().map(|words| shares("--mirror-traffic", words)).transpose()?;
    if file.is_none() && traffic.is_none() && mirror.is_none() && args.tags.is_none() && args.source.settings.is_empty()
    {
        return Err(Failure::usage("What shall change? Give --traffic, --mirror-traffic, --tags, --set or --file."));
    }
    let tags = args.tags.as_deref().map(tag_map).transpose()?;
    let workspace = session.workspace_id(&args.scope).await?;
    let edit = |document: &mut Document| -> Result<(), Failure> {
        if let Some(file) = &file {
            casemate_wire::yaml::merge_over(&mut document.root, file.root.clone(), &["tags", "properties"]);
            document.put("name", Node::text(name.as_str()));
        }
        for (key, value) in [("traffic", &traffic), ("mirror_traffic", &mirror), ("tags", &tags)] {
            if let Some(value) = value {
                document.put(key, Node::from_json(value));
            }
        }
        document.set(&args.source.settings)?;
        Ok(())
    };
    change(session, globals, &path(&workspace, &name), edit, args.no_wait.no_wait).await
}

/// Reads an endpoint, edits it as it is printed, and writes it back; again from the start when somebody else changed
/// it meanwhile.
pub(super) async fn change(
    session: &Session,
    globals: &Globals,
    path: &str,
    edit: impl Fn(&mut Document) -> Result<(), Failure>,
    no_wait: bool,
) -> Found {
    for _ in 0..MAX_CLASHES {
        let arm = session.client().get(&format!("{path}?{ML_API}")).await?;
        let name = arm.get("name").and_then(Value::as_str).unwrap_or_default();
        let mut document = Document::from_shown(&Endpoint::show(&arm, &[]), format!("endpoint {name}"));
        edit(&mut document)?;
        let location = arm.get("location").and_then(Value::as_str).unwrap_or("local");
        let body = Endpoint::read(&document)?.to_arm(location);
        let etag = arm.get("etag").and_then(Value::as_str);
        match write(session, globals, path, &body, etag, format!("Updating the endpoint '{name}'"), no_wait).await {
            Err(failure) if failure.kind() == FaultKind::PreconditionFailed => {}
            result => return result,
        }
    }
    Err(Fault::conflict(
        "EndpointBusy",
        "The endpoint was changed by somebody else again and again; run the command again.",
    )
    .into())
}

/// Percentages by deployment.
fn shares(option: &str, words: &[String]) -> Result<Value, Failure> {
    let mut map = Map::new();
    for (name, share) in pairs(option, words)? {
        let share: u64 = share.trim_end_matches('%').parse().map_err(|_| {
            Failure::usage(format!(
                "{option}: the share of '{name}' is '{share}'; give a whole percentage, such as {name}=10."
            ))
        })?;
        map.insert(name, json!(share));
    }
    Ok(Value::Object(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_whole_numbers() {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(shares("--traffic", &owned(&["blue=90 green=10"])).unwrap(), json!({"blue": 90, "green": 10}));
        assert_eq!(shares("--traffic", &owned(&["blue=90%", "green=10"])).unwrap(), json!({"blue": 90, "green": 10}));
        for bad in ["blue=much", "blue=-1", "blue=1.5", "blue="] {
            assert_eq!(shares("--traffic", &owned(&[bad])).unwrap_err().exit_code(), 2, "{bad}");
        }
    }
}
