//! `ml online-deployment …`.

use casemate_model::{FaultKind, egress::AUDIT_PROPERTY};
use casemate_wire::{
    client::Accepted,
    entity::{Deployment, Document, MERGED_FIELDS, add_resource_group},
    yaml::{Node, merge_over},
};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Found, confirmed, endpoint, refuse_local};
use crate::{
    assets::Assets,
    failure::Failure,
    grammar::{ContainerName, DeploymentCommand, DeploymentWrite, Globals, LogsArgs},
    output::Output,
    progress::Step,
    session::{ML_API, Session, segment},
    terminal,
};

pub(super) async fn run(command: DeploymentCommand, session: &Session, globals: &Globals) -> Found {
    let client = session.client();
    match command {
        DeploymentCommand::Create { write, all_traffic } => create(write, all_traffic, session, globals).await,
        DeploymentCommand::Update { write } => update(write, session, globals).await,
        DeploymentCommand::Show(deployment) => {
            refuse_local(deployment.local.local)?;
            let workspace = session.workspace_id(&deployment.scope).await?;
            let path = path(&workspace, &deployment.endpoint_name, &deployment.name);
            Ok(shown(&client.get(&format!("{path}?{ML_API}")).await?).into())
        }
        DeploymentCommand::List { endpoint_name, scope, local } => {
            refuse_local(local.local)?;
            let endpoint = endpoint::path(&session.workspace_id(&scope).await?, &endpoint_name);
            let all = client.list(&format!("{endpoint}/deployments?{ML_API}")).await?;
            Ok(all.iter().map(shown).collect::<Value>().into())
        }
        DeploymentCommand::Delete { deployment, yes, no_wait } => {
            refuse_local(deployment.local.local)?;
            let workspace = session.workspace_id(&deployment.scope).await?;
            let path = format!("{}?{ML_API}", path(&workspace, &deployment.endpoint_name, &deployment.name));
            client.get(&path).await?;
            confirmed(yes)?;
            let what = format!("Deleting the deployment '{}'", deployment.name);
            endpoint::delete(session, globals, &path, what, no_wait.no_wait).await
        }
        DeploymentCommand::GetLogs(args) => logs(args, session).await,
    }
}

fn path(workspace: &str, endpoint: &str, name: &str) -> String {
    format!("{}/deployments/{}", endpoint::path(workspace, endpoint), segment(name))
}

fn shown(arm: &Value) -> Value {
    let mut shown = Deployment::show(arm);
    add_resource_group(&mut shown);
    shown
}

/// The file (or nothing) with the changes and the names of the command line over it.
fn document(write: &DeploymentWrite, base: Option<Document>) -> Result<Document, Failure> {
    let file = write.source.file.as_deref().map(Document::from_file).transpose()?;
    let mut document = match (base, file) {
        (None, Some(file)) => file,
        (None, None) => Document::from_arguments(),
        (Some(base), None) => base,
        (Some(mut base), Some(file)) => {
            merge_over(&mut base.root, file.root, MERGED_FIELDS);
            Document { root: base.root, name: file.name, base: file.base }
        }
    };
    document.set(&write.source.settings)?;
    for (key, value) in [("name", &write.name), ("endpoint_name", &write.endpoint_name)] {
        if let Some(value) = value {
            document.put(key, Node::text(value.as_str()));
        }
    }
    if let Some(audit) = write.audit {
        // A text, as all properties are.
        document.set(&[format!("properties[\"{AUDIT_PROPERTY}\"]=\"{audit}\"")])?;
    }
    Ok(document)
}

fn names(document: &Document) -> Result<(String, String), Failure> {
    let text = |key: &str| document.root.get(key).and_then(Node::as_written).map(str::to_owned);
    let Some(name) = text("name") else {
        return Err(Failure::usage("Which name has the deployment? Give --name, or 'name' in the file."));
    };
    let Some(endpoint) = text("endpoint_name") else {
        return Err(Failure::usage("Which endpoint? Give --endpoint-name, or 'endpoint_name' in the file."));
    };
    Ok((name, endpoint))
}

async fn create(write: DeploymentWrite, all_traffic: bool, session: &Session, globals: &Globals) -> Found {
    refuse_local(write.local.local)?;
    let document = document(&write, None)?;
    let (name, endpoint_name) = names(&document)?;
    let deployment = Deployment::read(&document)?;
    if !write.skip_script_validation {
        deployment.check_script()?;
    }
    let assets = Assets::open(session, globals, &session.workspace_id(&write.scope).await?).await?;
    let endpoint = assets.path(&["onlineEndpoints", &endpoint_name]);
    session.client().get(&format!("{endpoint}?{ML_API}")).await?;
    let resolved = assets.resolve_all(&deployment).await?;
    let body = deployment.to_arm(&assets.location, &resolved);
    let path = format!("{endpoint}/deployments/{}", segment(&name));
    let place = Place { name: &name, endpoint: &endpoint_name, path: &path };
    let output = put(session, globals, &place, &body, None, "Creating", write.no_wait.no_wait).await?;
    if all_traffic {
        let everything = |document: &mut Document| {
            document.put("traffic", Node::from_json(&Value::Object(Map::from_iter([(name.clone(), json!(100))]))));
            document.put("mirror_traffic", Node::empty_map());
            Ok(())
        };
        endpoint::change(session, globals, &endpoint, everything, false).await?;
    }
    Ok(output)
}

async fn update(write: DeploymentWrite, session: &Session, globals: &Globals) -> Found {
    refuse_local(write.local.local)?;
    if write.source.file.is_none() && write.source.settings.is_empty() && write.audit.is_none() {
        return Err(Failure::usage("What shall change? Give --set, --audit or --file."));
    }
    let (name, endpoint_name) = names(&document(&write, None)?)?;
    let assets = Assets::open(session, globals, &session.workspace_id(&write.scope).await?).await?;
    let path = assets.path(&["onlineEndpoints", &endpoint_name, "deployments", &name]);
    let arm = session.client().get(&format!("{path}?{ML_API}")).await?;
    let base = Document::from_shown(&Deployment::show(&arm), format!("deployment {name}"));
    let deployment = Deployment::read(&document(&write, Some(base))?)?;
    if !write.skip_script_validation {
        deployment.check_script()?;
    }
    let resolved = assets.resolve_all(&deployment).await?;
    let location = arm.get("location").and_then(Value::as_str).unwrap_or(&assets.location);
    let body = deployment.to_arm(location, &resolved);
    let etag = arm.get("etag").and_then(Value::as_str);
    let place = Place { name: &name, endpoint: &endpoint_name, path: &path };
    match put(session, globals, &place, &body, etag, "Updating", write.no_wait.no_wait).await {
        Err(failure) if failure.kind() == FaultKind::PreconditionFailed => Err(Failure::here(format!(
            "The deployment '{name}' was changed by somebody else meanwhile; look at it, and run the command again."
        ))),
        result => result,
    }
}

/// Which deployment.
struct Place<'a> {
    name: &'a str,
    endpoint: &'a str,
    path: &'a str,
}

async fn put(
    session: &Session,
    globals: &Globals,
    place: &Place<'_>,
    body: &Value,
    etag: Option<&str>,
    verb: &str,
    no_wait: bool,
) -> Found {
    let client = session.client();
    match client.write(Method::PUT, &format!("{}?{ML_API}", place.path), Some(body), etag).await? {
        Accepted::Running(_) if no_wait => Ok(Output::Nothing),
        Accepted::Done(arm) => Ok(shown(&arm).into()),
        Accepted::Running(pending) => {
            let mut step = Step::begin(globals, format!("{verb} the deployment '{}'", place.name));
            let ended = client.wait(*pending, Default::default(), &mut |elapsed| step.tick(elapsed)).await;
            drop(step);
            match ended {
                Ok(arm) => Ok(shown(&arm).into()),
                Err(fault) => {
                    if !globals.only_show_errors {
                        let (name, endpoint) = (place.name, place.endpoint);
                        terminal::note(&format!(
                            "The whole log: casemate ml online-deployment get-logs -n {name} -e {endpoint}"
                        ));
                    }
                    Err(fault.into())
                }
            }
        }
    }
}

async fn logs(args: LogsArgs, session: &Session) -> Found {
    refuse_local(args.deployment.local.local)?;
    let workspace = session.workspace_id(&args.deployment.scope).await?;
    let path = path(&workspace, &args.deployment.endpoint_name, &args.deployment.name);
    let container = match args.container {
        ContainerName::InferenceServer => "InferenceServer",
        ContainerName::StorageInitializer => "StorageInitializer",
    };
    let body = json!({"tail": args.lines, "containerType": container});
    let answer = session.client().post(&format!("{path}/getLogs?{ML_API}"), &body).await?;
    let content = answer.get("content").and_then(Value::as_str).unwrap_or_default();
    Ok(Output::Raw(content.to_owned()))
}
