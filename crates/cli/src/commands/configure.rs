//! `configure` and `config`: settings that outlive a command.

use serde_json::Value;

use super::{Found, pairs};
use crate::{
    config::{self, Settings},
    failure::Failure,
    grammar::{Config, Configure, Globals},
    output::Output,
};

/// Names of defaults that commands use.
const DEFAULTS: [&str; 3] = ["group", "workspace", "location"];

fn settings(globals: &Globals) -> Result<Settings, Failure> {
    Settings::read(&config::directory(globals))
}

pub(super) fn configure(args: Configure, globals: &Globals) -> Found {
    let mut settings = settings(globals)?;
    for (name, value) in pairs("--defaults", &args.defaults)? {
        if !DEFAULTS.contains(&name.as_str()) {
            crate::terminal::note(&format!(
                "'{name}' is kept, but casemate's commands use only the defaults {}.",
                DEFAULTS.join(", ")
            ));
        }
        settings.set("defaults", &name, value.trim_matches(['\'', '"']))?;
    }
    if !args.defaults.is_empty() {
        settings.save()?;
    }
    if args.list_defaults == Some(true) {
        return Ok(settings.section("defaults").into());
    }
    Ok(Output::Nothing)
}

pub(super) fn config(command: Config, globals: &Globals) -> Found {
    let mut settings = settings(globals)?;
    match command {
        Config::Get { key: None, .. } => Ok(settings.all().into()),
        Config::Get { key: Some(key), .. } => get(&settings, &key).map(Output::from),
        Config::Set { settings: changes, .. } => {
            for (key, value) in pairs("The setting", &changes)? {
                let (section, name) = split(&key)?;
                settings.set(section, name, &value)?;
            }
            settings.save()?;
            Ok(Output::Nothing)
        }
        Config::Unset { keys, .. } => {
            for key in &keys {
                let (section, name) = split(key)?;
                settings.set(section, name, "")?;
            }
            settings.save()?;
            Ok(Output::Nothing)
        }
    }
}

fn split(key: &str) -> Result<(&str, &str), Failure> {
    key.split_once('.')
        .ok_or_else(|| Failure::usage(format!("'{key}' is no setting; write SECTION.NAME, such as defaults.group.")))
}

fn get(settings: &Settings, key: &str) -> Result<Value, Failure> {
    let Some((section, name)) = key.split_once('.') else {
        return Ok(settings.section(key));
    };
    settings.entry(section, name).ok_or_else(|| {
        Failure::here(format!(
            "Configuration '{name}' is not set in section '{section}'. `casemate config get` prints what is set."
        ))
    })
}
