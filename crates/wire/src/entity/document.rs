//! A YAML tree, its name, and the directory that its relative paths start from.

use std::path::{Path, PathBuf};

use casemate_model::Fault;
use serde_json::Value;

use crate::yaml::{self, Fields, Issues, Key, Kind, Node};

/// What an entity is read from.
#[derive(Debug, Clone)]
pub struct Document {
    /// The tree.
    pub root: Node,
    /// How messages call it.
    pub name: String,
    /// Where relative paths start.
    pub base: PathBuf,
}

impl Document {
    /// Reads a file; its relative paths start in its own directory.
    ///
    /// # Errors
    /// As [`yaml::read_file`].
    pub fn from_file(path: &Path) -> Result<Self, Fault> {
        let root = yaml::read_file(path)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let base = parent.map_or_else(|| PathBuf::from("."), Path::to_path_buf);
        Ok(Self { root, name: path.display().to_string(), base })
    }

    /// No file: everything comes from the command line, and relative paths start in the current directory.
    #[must_use]
    pub fn from_arguments() -> Self {
        Self { root: Node::empty_map(), name: "command line".to_owned(), base: PathBuf::from(".") }
    }

    /// An entity as the command line prints it, to be changed and written back.
    #[must_use]
    pub fn from_shown(value: &Value, name: impl Into<String>) -> Self {
        Self { root: Node::from_json(value), name: name.into(), base: PathBuf::from(".") }
    }

    /// Applies `--set` arguments in order.
    ///
    /// # Errors
    /// As [`yaml::apply_setting`].
    pub fn set(&mut self, settings: &[String]) -> Result<(), Fault> {
        settings.iter().try_for_each(|setting| yaml::apply_setting(&mut self.root, setting))
    }

    /// Puts a value at a key of the root, whatever stood there.
    pub fn put(&mut self, key: &str, value: Node) {
        let Kind::Map(entries) = &mut self.root.kind else { return };
        entries.retain(|(name, _)| name.text != key);
        entries.push((Key { text: key.to_owned(), spot: None }, value));
    }

    /// Reads the root with `reader`, all fields accounted for.
    ///
    /// # Errors
    /// `ValidationError` listing every mistake.
    pub fn read<T: Default>(&self, what: &str, reader: impl FnOnce(&Fields<'_>, &Path) -> T) -> Result<T, Fault> {
        let issues = Issues::new(&self.name);
        let mut value = T::default();
        if let Some(fields) = Fields::open(&self.root, what, &issues) {
            value = reader(&fields, &self.base);
            fields.finish();
        }
        issues.finish(value)
    }
}

/// The local file or directory that a field names, resolved against `base`; a missing one is noted as a mistake.
pub(super) fn local_path(fields: &Fields<'_>, node: &Node, field: &str, base: &Path) -> Option<PathBuf> {
    let Some(text) = node.as_written() else {
        fields.issues().add(node.spot, format!("'{field}' must be a path, not {}.", node.describe()));
        return None;
    };
    let path = base.join(text);
    match path.canonicalize() {
        Ok(path) => Some(path),
        Err(error) => {
            let shown = std::path::absolute(&path).unwrap_or(path);
            fields.issues().add(
                node.spot,
                format!(
                    "'{field}' names '{text}', which is '{}': {error}. Relative paths start at the YAML file.",
                    shown.display()
                ),
            );
            None
        }
    }
}
