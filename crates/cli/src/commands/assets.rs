//! `ml model …` and `ml environment …`.

use casemate_wire::{
    entity::{AssetKind, Document, Environment, Model, add_resource_group},
    yaml::Node,
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Found, group::tag_map};
use crate::{
    assets::Assets,
    failure::Failure,
    grammar::{
        AssetCreate, AssetList, AssetName, EnvironmentCommand, EnvironmentOptions, Globals, ModelCommand, ModelOptions,
        Scope,
    },
    output::Output,
    session::{ML_API, Session},
};

pub(super) async fn model(command: ModelCommand, session: &Session, globals: &Globals) -> Found {
    match command {
        ModelCommand::Create { asset, options } => {
            let mut document = document(&asset)?;
            lay_model(&mut document, &asset, &options)?;
            let model = Model::read(&document)?;
            let assets = open(session, globals, &asset.scope).await?;
            Ok(shown(&assets.register_model(&model).await?, Model::show).into())
        }
        ModelCommand::Show(name) => {
            Ok(shown(&find(AssetKind::Model, &name, session, globals).await?, Model::show).into())
        }
        ModelCommand::List(list) => listed(AssetKind::Model, &list, session, globals, Model::show).await,
        ModelCommand::Archive(name) => archive(AssetKind::Model, &name, true, session, globals).await,
        ModelCommand::Restore(name) => archive(AssetKind::Model, &name, false, session, globals).await,
    }
}

pub(super) async fn environment(command: EnvironmentCommand, session: &Session, globals: &Globals) -> Found {
    let show = Environment::show;
    match command {
        EnvironmentCommand::Create { asset, options } => {
            let mut document = document(&asset)?;
            lay_environment(&mut document, &asset, &options)?;
            let environment = Environment::read(&document)?;
            let assets = open(session, globals, &asset.scope).await?;
            Ok(shown(&assets.register_environment(&environment).await?, show).into())
        }
        EnvironmentCommand::Show(name) => {
            Ok(shown(&find(AssetKind::Environment, &name, session, globals).await?, show).into())
        }
        EnvironmentCommand::List(list) => listed(AssetKind::Environment, &list, session, globals, show).await,
        EnvironmentCommand::Archive(name) => archive(AssetKind::Environment, &name, true, session, globals).await,
        EnvironmentCommand::Restore(name) => archive(AssetKind::Environment, &name, false, session, globals).await,
    }
}

async fn open<'a>(session: &'a Session, globals: &'a Globals, scope: &Scope) -> Result<Assets<'a>, Failure> {
    Assets::open(session, globals, &session.workspace_id(scope).await?).await
}

fn document(asset: &AssetCreate) -> Result<Document, Failure> {
    Ok(match &asset.source.file {
        Some(file) => Document::from_file(file)?,
        None => Document::from_arguments(),
    })
}

/// Options given on the command line start from the current directory, so their paths are made absolute.
fn absolute(path: &str) -> String {
    if path.contains("://") || path.starts_with("azureml:") || path.starts_with("runs:") {
        return path.to_owned();
    }
    std::path::absolute(path).map_or_else(|_| path.to_owned(), |path| path.display().to_string())
}

fn lay(document: &mut Document, asset: &AssetCreate, options: &[(&str, Option<String>)]) -> Result<(), Failure> {
    let common =
        [("name", asset.name.clone()), ("version", asset.version.clone()), ("description", asset.description.clone())];
    for (key, value) in common.iter().chain(options) {
        if let Some(value) = value {
            document.put(key, Node::text(value.as_str()));
        }
    }
    if let Some(tags) = &asset.tags {
        document.put("tags", Node::from_json(&tag_map(tags)?));
    }
    document.set(&asset.source.settings)?;
    Ok(())
}

fn lay_model(document: &mut Document, asset: &AssetCreate, options: &ModelOptions) -> Result<(), Failure> {
    let path = options.path.as_deref().map(absolute);
    lay(document, asset, &[("path", path), ("type", options.kind.clone()), ("stage", options.stage.clone())])
}

fn lay_environment(document: &mut Document, asset: &AssetCreate, options: &EnvironmentOptions) -> Result<(), Failure> {
    if let Some(context) = &options.build_context {
        let dockerfile = options.dockerfile_path.clone().unwrap_or_else(|| "Dockerfile".to_owned());
        document.put("build", Node::from_json(&json!({"path": absolute(context), "dockerfile_path": dockerfile})));
    }
    let conda = options.conda_file.as_ref().map(|file| absolute(&file.to_string_lossy()));
    lay(
        document,
        asset,
        &[("image", options.image.clone()), ("conda_file", conda), ("os_type", options.os_type.clone())],
    )
}

fn shown(arm: &Value, show: fn(&Value) -> Value) -> Value {
    let mut shown = show(arm);
    add_resource_group(&mut shown);
    shown
}

async fn find(kind: AssetKind, name: &AssetName, session: &Session, globals: &Globals) -> Result<Value, Failure> {
    let assets = open(session, globals, &name.scope).await?;
    match (&name.version, name.label.as_deref()) {
        (Some(version), _) => {
            let path = assets.path(&[kind.collection(), &name.name, "versions", version]);
            Ok(session.client().get(&format!("{path}?{ML_API}")).await?)
        }
        (None, None | Some("latest")) => assets.latest(kind, &name.name).await,
        (None, Some(label)) => {
            Err(Failure::here(format!("The label '{label}' is not supported by casemate yet; only 'latest' is.")))
        }
    }
}

async fn listed(
    kind: AssetKind,
    list: &AssetList,
    session: &Session,
    globals: &Globals,
    show: fn(&Value) -> Value,
) -> Found {
    let assets = open(session, globals, &list.scope).await?;
    let view = match (list.include_archived, list.archived_only) {
        (true, _) => "All",
        (_, true) => "ArchivedOnly",
        _ => "ActiveOnly",
    };
    let path = match &list.name {
        Some(name) => assets.path(&[kind.collection(), name, "versions"]),
        None => assets.path(&[kind.collection()]),
    };
    let mut all = session.client().list(&format!("{path}?{ML_API}&listViewType={view}")).await?;
    all.truncate(list.max_results.unwrap_or(usize::MAX));
    Ok(all.iter().map(|one| shown(one, show)).collect::<Value>().into())
}

async fn archive(kind: AssetKind, name: &AssetName, archived: bool, session: &Session, globals: &Globals) -> Found {
    let client = session.client();
    let assets = open(session, globals, &name.scope).await?;
    let path = match (&name.version, &name.label) {
        (Some(version), _) => assets.path(&[kind.collection(), &name.name, "versions", version]),
        (None, None) => assets.path(&[kind.collection(), &name.name]),
        (None, Some(_)) => {
            let latest = assets.latest(kind, &name.name).await?;
            let version = latest.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            assets.path(&[kind.collection(), &name.name, "versions", &version])
        }
    };
    let path = format!("{path}?{ML_API}");
    let mut asset = client.get(&path).await?;
    asset["properties"]["isArchived"] = json!(archived);
    let body = json!({"properties": asset["properties"]});
    client.write_and_wait(Method::PUT, &path, Some(&body), None, &mut |_| {}).await?;
    Ok(Output::Nothing)
}
