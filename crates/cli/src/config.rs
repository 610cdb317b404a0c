//! Settings that outlive a command, in the INI file that `az` keeps: `config` in AZURE_CONFIG_DIR, else in the state
//! directory of the platform on this machine (`azure/`, which is what `casemate env` sets the variable to), else in
//! `~/.config/casemate`.
//!
//! A variable `AZURE_<SECTION>_<NAME>` wins over the file, as with `az`.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use crate::{failure::Failure, grammar::Globals, state};

/// Largest settings file read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The settings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    path: PathBuf,
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

/// The directory of settings and sign-ins. A state directory named with `--state` has its own, whatever the variables
/// say: they may be about another platform.
pub(crate) fn directory(globals: &Globals) -> PathBuf {
    let state = state::state_dir(globals.state.as_deref());
    let variable = || std::env::var_os("AZURE_CONFIG_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    if globals.state.is_none()
        && let Some(directory) = variable()
    {
        return directory;
    }
    if state::is_set_up(&state) {
        return state.join("azure");
    }
    variable().unwrap_or_else(|| state::home().join(".config/casemate"))
}

impl Settings {
    /// Reads the settings of a directory; none when there is no file yet.
    pub(crate) fn read(directory: &Path) -> Result<Self, Failure> {
        let path = directory.join("config");
        let text = match fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Ok(metadata) if metadata.len() > MAX_BYTES => {
                return Err(Failure::here(format!(
                    "The settings file '{}' is larger than {MAX_BYTES} bytes.",
                    path.display()
                )));
            }
            _ => fs::read_to_string(&path).map_err(|error| {
                Failure::here(format!("The settings file '{}' can't be read: {error}.", path.display()))
            })?,
        };
        Ok(Self { sections: parse(&text), path })
    }

    /// A value, from the variable or the file; empty counts as absent.
    pub(crate) fn get(&self, section: &str, name: &str) -> Option<String> {
        let variable = variable_name(section, name);
        let kept = || self.sections.get(section)?.get(name).cloned();
        std::env::var(variable).ok().filter(|value| !value.is_empty()).or_else(kept).filter(|value| !value.is_empty())
    }

    /// The default for `group`, `workspace` or `location`.
    pub(crate) fn default(&self, name: &str) -> Option<String> {
        self.get("defaults", name)
    }

    /// Sets a value; an empty one forgets it. Nothing is kept before [`Self::save`].
    pub(crate) fn set(&mut self, section: &str, name: &str, value: &str) -> Result<(), Failure> {
        let fits = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "_-. ".contains(c)) && text.trim() == text
        };
        if !fits(section) || !fits(name) {
            return Err(Failure::usage(format!(
                "'{section}.{name}' is no name of a setting; write SECTION.NAME=VALUE."
            )));
        }
        if value.contains(['\n', '\r']) {
            return Err(Failure::usage(format!(
                "The value of '{section}.{name}' has a line break; a setting is one line."
            )));
        }
        let entries = self.sections.entry(section.to_owned()).or_default();
        if value.is_empty() {
            entries.remove(name);
        } else {
            entries.insert(name.to_owned(), value.trim().to_owned());
        }
        if entries.is_empty() {
            self.sections.remove(section);
        }
        Ok(())
    }

    /// Writes the file, for the owner only and in one step.
    pub(crate) fn save(&self) -> Result<(), Failure> {
        let mut text = String::new();
        for (section, entries) in &self.sections {
            text.push_str(&format!("[{section}]\n"));
            for (name, value) in entries {
                text.push_str(&format!("{name} = {value}\n"));
            }
            text.push('\n');
        }
        write_private(&self.path, text.as_bytes())
    }

    /// A section as `az` prints it: `[{name, source, value}]`.
    pub(crate) fn section(&self, section: &str) -> Value {
        let mut names: Vec<String> =
            self.sections.get(section).map(|entries| entries.keys().cloned().collect()).unwrap_or_default();
        if section == "defaults" {
            for name in ["group", "workspace", "location"] {
                if !names.iter().any(|known| known == name) && self.default(name).is_some() {
                    names.push(name.to_owned());
                }
            }
            names.sort();
        }
        names.iter().filter_map(|name| self.entry(section, name)).collect()
    }

    /// One setting as `az` prints it.
    pub(crate) fn entry(&self, section: &str, name: &str) -> Option<Value> {
        let value = self.get(section, name)?;
        let variable = variable_name(section, name);
        let source = if std::env::var(&variable).is_ok_and(|value| !value.is_empty()) {
            variable
        } else {
            self.path.display().to_string()
        };
        Some(json!({"name": name, "source": source, "value": value}))
    }

    /// All settings as `az` prints them.
    pub(crate) fn all(&self) -> Value {
        let mut names: Vec<&str> = self.sections.keys().map(String::as_str).collect();
        if !names.contains(&"defaults") {
            names.push("defaults");
        }
        let map: Map<String, Value> = names.into_iter().map(|name| (name.to_owned(), self.section(name))).collect();
        Value::Object(map)
    }
}

fn variable_name(section: &str, name: &str) -> String {
    let upper = |text: &str| text.to_uppercase().replace(['-', '.', ' '], "_");
    format!("AZURE_{}_{}", upper(section), upper(name))
}

fn parse(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines().map(str::trim) {
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            name.trim().clone_into(&mut section);
        } else if let Some((name, value)) = line.split_once(['=', ':']) {
            sections.entry(section.clone()).or_default().insert(name.trim().to_lowercase(), value.trim().to_owned());
        }
    }
    sections
}

/// Writes a file that only its owner may read, in one step: either the old content is there or the new.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::here(format!("'{}' can't be written: {error}.", path.display()));
    let parent = path.parent().unwrap_or_else(|| Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
    let temporary = path.with_extension(format!("new-{}", std::process::id()));
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        failed(error)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn set_save_read_forget() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("deep/er");
        let mut settings = Settings::read(&place).unwrap();
        settings.set("defaults", "group", "my group=1").unwrap();
        settings.set("defaults", "workspace", "ws").unwrap();
        settings.set("core", "output", "table").unwrap();
        settings.save().unwrap();
        assert_eq!(fs::metadata(place.join("config")).unwrap().permissions().mode() & 0o777, 0o600);
        let mut again = Settings::read(&place).unwrap();
        assert_eq!(again.default("group").as_deref(), Some("my group=1"));
        assert_eq!(again.section("defaults")[1]["value"], "ws");
        assert_eq!(again.all()["core"][0]["name"], "output");
        again.set("defaults", "group", "").unwrap();
        again.save().unwrap();
        assert_eq!(Settings::read(&place).unwrap().default("group"), None);
        assert!(again.set("bad]section", "x", "y").is_err());
        assert!(again.set("core", "x", "a\n[defaults]").is_err());
    }

    #[test]
    fn files_that_az_wrote() {
        let sections = parse(
            "# note\n[cloud]\nname = AzureCloud\n\n[Defaults]\n[defaults]\nGroup = g\nlocation: local\nodd line\n",
        );
        assert_eq!(
            sections["defaults"],
            BTreeMap::from([("group".into(), "g".into()), ("location".into(), "local".into())])
        );
    }
}
