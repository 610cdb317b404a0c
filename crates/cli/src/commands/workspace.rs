//! `ml workspace …`.

use casemate_wire::{
    client::Accepted,
    entity::{Document, Workspace, add_resource_group},
    yaml::Node,
};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Found, confirmed, group::tag_map, outbound};
use crate::{
    failure::Failure,
    grammar::{Globals, Scope, WorkspaceCommand, WorkspaceOptions, WorkspaceWrite},
    output::Output,
    progress::Step,
    session::{ARM_API, ML_API, Session, segment},
};

pub(super) async fn run(command: WorkspaceCommand, session: &Session, globals: &Globals) -> Found {
    let client = session.client();
    match command {
        WorkspaceCommand::Create { write, location, provision_network_now } => {
            create(write, location, provision_network_now, session, globals).await
        }
        WorkspaceCommand::Update { write, .. } => {
            let (document, name, group) = read(&write, session).await?;
            let id = workspace_id(&group, &name);
            update(&document, &id, write.no_wait.no_wait, session, globals).await
        }
        WorkspaceCommand::Show(workspace) => {
            let id = session.workspace_id(&scope(workspace.resource_group, workspace.name)).await?;
            Ok(shown(&client.get(&format!("{id}?{ML_API}")).await?).into())
        }
        WorkspaceCommand::List { resource_group } => {
            let within = match resource_group {
                Some(group) => session.group_id(Some(&group)).await?,
                None => session.subscription_id().await?,
            };
            let all = client
                .list(&format!("{within}/providers/Microsoft.MachineLearningServices/workspaces?{ML_API}"))
                .await?;
            Ok(all.iter().map(shown).collect::<Value>().into())
        }
        WorkspaceCommand::Delete { workspace, all_resources, yes, no_wait, .. } => {
            confirmed(yes)?;
            let id = session.workspace_id(&scope(workspace.resource_group, workspace.name)).await?;
            delete(&id, all_resources, no_wait.no_wait, session, globals).await
        }
        WorkspaceCommand::ProvisionNetwork { workspace, include_spark, no_wait } => {
            let id = session.workspace_id(&scope(workspace.resource_group, workspace.name)).await?;
            let body = json!({"includeSpark": include_spark});
            let path = format!("{id}/provisionManagedNetwork?{ML_API}");
            match client.write(Method::POST, &path, Some(&body), None).await? {
                Accepted::Running(_) if no_wait.no_wait => Ok(Output::Nothing),
                Accepted::Done(value) => Ok(network_status(&value).into()),
                Accepted::Running(pending) => {
                    let mut step = Step::begin(globals, "Making the managed network");
                    let value = client.wait(*pending, Default::default(), &mut |elapsed| step.tick(elapsed)).await?;
                    Ok(network_status(&value).into())
                }
            }
        }
        WorkspaceCommand::OutboundRule(command) => outbound::rule(command, session, globals).await,
        WorkspaceCommand::OutboundLog(args) => outbound::log(args, session, globals).await,
    }
}

pub(super) fn scope(resource_group: Option<String>, workspace_name: Option<String>) -> Scope {
    Scope { resource_group, workspace_name }
}

fn workspace_id(group: &str, name: &str) -> String {
    format!("{group}/providers/Microsoft.MachineLearningServices/workspaces/{}", segment(name))
}

fn shown(arm: &Value) -> Value {
    let mut shown = Workspace::show(arm);
    add_resource_group(&mut shown);
    shown
}

fn network_status(value: &Value) -> Value {
    json!({"spark_ready": value.get("sparkReady").unwrap_or(&Value::Null), "status": value.get("status").unwrap_or(&Value::Null)})
}

/// The file with the options over it, the workspace's name, and the id of its group.
async fn read(write: &WorkspaceWrite, session: &Session) -> Result<(Document, String, String), Failure> {
    let mut document = match &write.source.file {
        Some(file) => Document::from_file(file)?,
        None => Document::from_arguments(),
    };
    document.set(&write.source.settings)?;
    lay_options(&mut document, &write.options)?;
    let text = |key: &str| document.root.get(key).and_then(Node::as_written).map(str::to_owned);
    let name = session.workspace_name(write.workspace.name.clone().or_else(|| text("name")).as_deref())?;
    let group = write.workspace.resource_group.clone().or_else(|| text("resource_group"));
    let group = session.group_id(group.as_deref()).await?;
    Ok((document, name, group))
}

fn lay_options(document: &mut Document, options: &WorkspaceOptions) -> Result<(), Failure> {
    if let Some(mode) = &options.managed_network {
        // The mode of the option replaces that of the file; its rules stay.
        document.set(&[format!("managed_network.isolation_mode={mode}")])?;
    }
    if let Some(tags) = &options.tags {
        document.put("tags", Node::from_json(&tag_map(tags)?));
    }
    if let Some(callers) = &options.ip_allowlist {
        let callers: Vec<&String> = callers.iter().filter(|caller| !caller.is_empty()).collect();
        document.put("ip_allowlist", Node::from_json(&json!(callers)));
    }
    for (key, value) in [
        ("description", &options.description),
        ("display_name", &options.display_name),
        ("public_network_access", &options.public_network_access),
        ("image_build_compute", &options.image_build_compute),
        ("storage_account", &options.storage_account),
        ("key_vault", &options.key_vault),
        ("container_registry", &options.container_registry),
        ("application_insights", &options.application_insights),
        ("primary_user_assigned_identity", &options.primary_user_assigned_identity),
        ("system_datastores_auth_mode", &options.system_datastores_auth_mode),
    ] {
        if let Some(value) = value {
            document.put(key, Node::text(value.as_str()));
        }
    }
    Ok(())
}

async fn create(
    write: WorkspaceWrite,
    location: Option<String>,
    provision: bool,
    session: &Session,
    globals: &Globals,
) -> Found {
    let client = session.client();
    let (mut document, name, group) = read(&write, session).await?;
    if provision {
        document.set(&["provision_network_now=true".to_owned()])?;
    }
    let workspace = Workspace::read(&document)?;
    let id = workspace_id(&group, &name);
    let path = format!("{id}?{ML_API}");
    if client.get_optional(&path).await?.is_some() {
        return update(&document, &id, write.no_wait.no_wait, session, globals).await;
    }
    let location =
        match location.or_else(|| workspace.location.clone()).or_else(|| session.settings().default("location")) {
            Some(location) => location,
            None => {
                let found = client.get(&format!("{group}?{ARM_API}")).await?;
                found.get("location").and_then(Value::as_str).unwrap_or("local").to_owned()
            }
        };
    let body = workspace.to_template(&group, session.tenant(), &name, &location);
    let tail = Uuid::new_v4().simple().to_string();
    let short: String = name.chars().take(50).collect();
    let deployment = format!(
        "{group}/providers/Microsoft.Resources/deployments/{}-{}?api-version=2020-06-01",
        segment(&short),
        &tail[..8]
    );
    match client.write(Method::PUT, &deployment, Some(&body), None).await? {
        Accepted::Running(_) if write.no_wait.no_wait => return Ok(Output::Nothing),
        Accepted::Done(_) => {}
        Accepted::Running(pending) => {
            let mut step = Step::begin(globals, format!("Creating the workspace '{name}'"));
            client.wait(*pending, Default::default(), &mut |elapsed| step.tick(elapsed)).await?;
        }
    }
    Ok(shown(&client.get(&path).await?).into())
}

async fn update(document: &Document, id: &str, no_wait: bool, session: &Session, globals: &Globals) -> Found {
    let body = Workspace::read(document)?.to_patch();
    let path = format!("{id}?{ML_API}");
    match session.client().write(Method::PATCH, &path, Some(&body), None).await? {
        Accepted::Running(_) if no_wait => Ok(Output::Nothing),
        Accepted::Done(_) => Ok(shown(&session.client().get(&path).await?).into()),
        Accepted::Running(pending) => {
            let mut step = Step::begin(globals, "Updating the workspace");
            let done = session.client().wait(*pending, Default::default(), &mut |elapsed| step.tick(elapsed)).await?;
            Ok(shown(&done).into())
        }
    }
}

async fn delete(id: &str, all_resources: bool, no_wait: bool, session: &Session, globals: &Globals) -> Found {
    let client = session.client();
    let path = format!("{id}?{ML_API}&forceToPurge=true");
    let workspace = client.get(&format!("{id}?{ML_API}")).await?;
    match client.write(Method::DELETE, &path, None, None).await? {
        Accepted::Running(_) if no_wait => {}
        Accepted::Done(_) => {}
        Accepted::Running(pending) => {
            let mut step = Step::begin(globals, "Deleting the workspace");
            client.wait(*pending, Default::default(), &mut |elapsed| step.tick(elapsed)).await?;
        }
    }
    if all_resources {
        for key in ["storageAccount", "keyVault", "applicationInsights", "containerRegistry"] {
            let Some(dependency) = workspace.pointer(&format!("/properties/{key}")).and_then(Value::as_str) else {
                continue;
            };
            let dependency = format!("{dependency}?{ARM_API}");
            if client.get_optional(&dependency).await?.is_some() {
                client.write_and_wait(Method::DELETE, &dependency, None, None, &mut |_| {}).await?;
            }
        }
    }
    Ok(Output::Nothing)
}
