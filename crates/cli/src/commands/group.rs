//! `group …`.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Found, confirmed, pairs};
use crate::{
    failure::Failure,
    grammar::{Globals, GroupCommand},
    output::Output,
    progress::Step,
    session::{ARM_API, Session, segment},
};

/// Columns of the table.
const COLUMNS: &str = "[].{Name:name, Location:location, Status:properties.provisioningState}";
/// The region of a platform that was started with none.
const USUAL_REGION: &str = "local";

pub(super) async fn run(command: GroupCommand, session: &Session, globals: &Globals) -> Found {
    let client = session.client();
    match command {
        GroupCommand::Create { name, location, tags } => {
            let path = path(session, &name.name).await?;
            let existing = client.get_optional(&path).await?;
            let there = existing.as_ref().and_then(|group| group.get("location")?.as_str());
            let location = location
                .or_else(|| there.map(str::to_owned))
                .or_else(|| session.settings().default("location"))
                .unwrap_or_else(|| USUAL_REGION.to_owned());
            let mut body = json!({"location": location});
            if let Some(tags) = tags {
                body["tags"] = tag_map(&tags)?;
            }
            Ok(client.write_and_wait(Method::PUT, &path, Some(&body), None, &mut |_| {}).await?.into())
        }
        GroupCommand::Show { name } => {
            let name = session.group(name.name.as_deref())?;
            Ok(client.get(&path(session, &name).await?).await?.into())
        }
        GroupCommand::List { tag } => {
            let mut groups =
                client.list(&format!("{}/resourceGroups?{ARM_API}", session.subscription_id().await?)).await?;
            if let Some(tag) = tag {
                groups.retain(|group| has_tag(group, &tag));
            }
            Ok(Output::Value(Value::Array(groups), Some(COLUMNS)))
        }
        GroupCommand::Delete { name, yes, no_wait } => {
            confirmed(yes)?;
            let path = path(session, &name.name).await?;
            if no_wait.no_wait {
                client.write(Method::DELETE, &path, None, None).await?;
                return Ok(Output::Nothing);
            }
            let mut step = Step::begin(globals, format!("Deleting the group '{}'", name.name));
            client.write_and_wait(Method::DELETE, &path, None, None, &mut |elapsed| step.tick(elapsed)).await?;
            Ok(Output::Nothing)
        }
        GroupCommand::Exists { name } => Ok(json!(client.exists(&path(session, &name.name).await?).await?).into()),
        GroupCommand::Wait { name, created, deleted, interval, timeout } => {
            if !created && !deleted {
                return Err(Failure::usage("Wait for what? Give --created or --deleted."));
            }
            let (wanted, path) = (!deleted, path(session, &name.name).await?);
            wait(session, &path, wanted, Duration::from_secs(interval), Duration::from_secs(timeout)).await
        }
    }
}

async fn wait(session: &Session, path: &str, wanted: bool, interval: Duration, timeout: Duration) -> Found {
    let started = Instant::now();
    while session.client().exists(path).await? != wanted {
        if started.elapsed() > timeout {
            return Err(Failure::here(format!("It did not happen within {} s.", timeout.as_secs())));
        }
        tokio::time::sleep(interval).await;
    }
    Ok(Output::Nothing)
}

async fn path(session: &Session, name: &str) -> Result<String, Failure> {
    Ok(format!("{}/resourceGroups/{}?{ARM_API}", session.subscription_id().await?, segment(name)))
}

/// Labels as JSON.
pub(super) fn tag_map(tags: &[String]) -> Result<Value, Failure> {
    let map: Map<String, Value> = pairs("--tags", tags)?.into_iter().map(|(key, value)| (key, json!(value))).collect();
    Ok(Value::Object(map))
}

fn has_tag(group: &Value, wanted: &str) -> bool {
    let tags = group.get("tags");
    match wanted.split_once('=') {
        Some((key, value)) => tags.and_then(|tags| tags.get(key)?.as_str()) == Some(value),
        None => tags.is_some_and(|tags| tags.get(wanted).is_some()),
    }
}
