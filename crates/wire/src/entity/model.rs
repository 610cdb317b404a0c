//! Models.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use casemate_model::Fault;
use serde_json::{Map, Value, json};

use super::{
    document::{Document, local_path},
    show,
};
use crate::yaml::Fields;

/// Where a model's files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelPath {
    /// A local file or directory, to be uploaded.
    Local(PathBuf),
    /// Already in a store: `azureml://datastores/D/paths/P`, its long form, or a blob's URL.
    Uri(String),
}

/// A model as its YAML file says it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Model {
    /// Its name; a model written inside a deployment may have none.
    pub name: Option<String>,
    /// Its version; the next free one when absent.
    pub version: Option<String>,
    /// Where its files are.
    pub path: Option<ModelPath>,
    /// `custom_model`, `mlflow_model` or `triton_model`; `custom_model` when absent.
    pub kind: Option<&'static str>,
    /// Flavours, each with free data.
    pub flavors: Option<Value>,
    /// Free text, such as `Production`.
    pub stage: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Free labels.
    pub tags: BTreeMap<String, String>,
    /// Free properties.
    pub properties: BTreeMap<String, String>,
}

impl Model {
    /// Reads it from a document.
    ///
    /// # Errors
    /// `ValidationError` listing every mistake.
    pub fn read(document: &Document) -> Result<Self, Fault> {
        document.read("the model", |fields, base| {
            let model = Self::from_fields(fields, base);
            fields.require("name", model.name.is_some());
            fields.require("path", fields.node("path").is_some());
            model
        })
    }

    pub(super) fn from_fields(fields: &Fields<'_>, base: &Path) -> Self {
        fields.ignore(&["id", "creation_context", "job_name", "latest_version", "resourceGroup"]);
        fields.refuse(&[
            "datastore",
            "system_metadata",
            "default_deployment_template",
            "allowed_deployment_templates",
            "intellectual_property",
        ]);
        Self {
            name: fields.text("name"),
            version: fields.text("version"),
            path: read_path(fields, base),
            kind: fields.choice(
                "type",
                &[("custom_model", "custom_model"), ("mlflow_model", "mlflow_model"), ("triton_model", "triton_model")],
            ),
            flavors: fields.json_map("flavors"),
            stage: fields.text("stage"),
            description: fields.text("description"),
            tags: fields.texts("tags"),
            properties: fields.texts("properties"),
        }
    }

    /// The body of a PUT of a version whose files are at `uri`.
    #[must_use]
    pub fn to_arm(&self, uri: &str, anonymous: bool) -> Value {
        let flavors = self.flavors.as_ref().and_then(Value::as_object).map(|map| {
            let wrapped: Map<String, Value> =
                map.iter().map(|(name, data)| (name.clone(), json!({"data": data}))).collect();
            Value::Object(wrapped)
        });
        json!({"properties": show::object([
            ("modelUri", Some(json!(uri))),
            ("modelType", Some(json!(self.kind.unwrap_or("custom_model")))),
            ("description", self.description.as_ref().map(|text| json!(text))),
            ("tags", Some(json!(self.tags))),
            ("properties", Some(json!(self.properties))),
            ("flavors", flavors),
            ("stage", self.stage.as_ref().map(|text| json!(text))),
            ("isAnonymous", Some(json!(anonymous))),
            ("isArchived", Some(json!(false))),
        ])})
    }

    /// What the command line prints for a version, or for a container of versions.
    #[must_use]
    pub fn show(arm: &Value) -> Value {
        let (name, version) = name_and_version(arm);
        let flavors = show::at(arm, "/properties/flavors").and_then(Value::as_object).map(|map| {
            let plain: Map<String, Value> = map
                .iter()
                .map(|(name, flavor)| (name.clone(), flavor.get("data").cloned().unwrap_or_else(|| json!({}))))
                .collect();
            Value::Object(plain)
        });
        show::object([
            ("creation_context", show::creation_context(arm)),
            ("description", show::copy(arm, "/properties/description")),
            ("flavors", flavors.filter(|_| version.is_some())),
            ("id", show::text(arm, "/id").map(|id| json!(format!("azureml:{id}")))),
            ("job_name", show::copy(arm, "/properties/jobName")),
            ("latest_version", show::copy(arm, "/properties/latestVersion")),
            ("name", name),
            ("path", show::copy(arm, "/properties/modelUri")),
            ("properties", Some(show::copy(arm, "/properties/properties").unwrap_or_else(|| json!({})))),
            ("stage", show::copy(arm, "/properties/stage")),
            ("tags", Some(show::copy(arm, "/properties/tags").unwrap_or_else(|| json!({})))),
            ("type", Some(show::copy(arm, "/properties/modelType").unwrap_or_else(|| json!("custom_model")))),
            ("version", version),
        ])
    }
}

/// An asset's name and version by its id; the version is none for a container.
pub(super) fn name_and_version(arm: &Value) -> (Option<Value>, Option<Value>) {
    let parts: Vec<&str> = show::text(arm, "/id").unwrap_or_default().split('/').collect();
    match parts.as_slice() {
        [.., name, versions, version] if versions.eq_ignore_ascii_case("versions") => {
            (Some(json!(name)), Some(json!(version)))
        }
        [.., name] => (Some(json!(name)), None),
        [] => (None, None),
    }
}

fn read_path(fields: &Fields<'_>, base: &Path) -> Option<ModelPath> {
    let node = fields.node("path")?;
    let text = node.as_written().unwrap_or_default();
    let refuse = |what: &str| {
        fields.issues().add(node.spot, format!("'path' of the model is {what}, which is not supported by casemate yet; give a local path or azureml://datastores/NAME/paths/PATH."));
        None
    };
    if text.starts_with("runs:/") {
        return refuse("an MLflow run's artifact");
    }
    if text.starts_with("azureml://jobs/") {
        return refuse("a job's output");
    }
    if text.starts_with("azureml:") || text.starts_with("https://") || text.starts_with("http://") {
        return Some(ModelPath::Uri(text.to_owned()));
    }
    local_path(fields, node, "path", base).map(ModelPath::Local)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        let root = crate::yaml::parse(text, "model.yml").unwrap();
        Document { root, name: "model.yml".to_owned(), base: env!("CARGO_MANIFEST_DIR").into() }
    }

    #[test]
    fn from_yaml_to_the_body() {
        let model = Model::read(&document(
            "name: m\nversion: 1.10\npath: src\ntype: custom_model\nflavors: {python_function: {a: b}}\ntags: {n: 1}\n",
        ))
        .unwrap();
        assert_eq!(model.version.as_deref(), Some("1.10"));
        assert!(
            matches!(&model.path, Some(ModelPath::Local(path)) if path.ends_with("crates/wire/src") && path.is_absolute())
        );
        let body = model.to_arm("azureml://x", false);
        assert_eq!(body["properties"]["flavors"], json!({"python_function": {"data": {"a": "b"}}}));
        assert_eq!(body["properties"]["tags"], json!({"n": "1"}));
    }

    #[test]
    fn shown() {
        let version = json!({"id": "/subscriptions/s/models/m/versions/2", "properties": {"modelUri": "azureml://x",
            "modelType": "custom_model", "flavors": {"f": {"data": {"a": "b"}}}, "description": null}});
        let shown = Model::show(&version);
        assert_eq!((shown["name"].as_str(), shown["version"].as_str()), (Some("m"), Some("2")));
        assert_eq!(shown["flavors"], json!({"f": {"a": "b"}}));
        assert!(shown.get("description").is_none());
        let container = Model::show(
            &json!({"id": "/subscriptions/s/models/m", "properties": {"latestVersion": "2", "flavors": {}}}),
        );
        assert_eq!(container["latest_version"], "2");
        assert!(container.get("version").is_none() && container.get("flavors").is_none());
    }

    #[test]
    fn bad_input() {
        for (text, said) in [
            ("path: src\n", "needs the field 'name'"),
            ("name: m\n", "needs the field 'path'"),
            ("name: m\npath: nowhere/at/all\n", "model.yml:2:7: 'path' names 'nowhere/at/all'"),
            ("name: m\npath: runs:/x/model\n", "not supported by casemate yet"),
            ("name: m\npath: [src]\n", "must be a path, not a list"),
            ("name: m\npath: src\ntype: onnx\n", "must be one of custom_model, mlflow_model, triton_model"),
            ("name: m\npath: src\nversoin: 1\n", "did you mean 'version'?"),
        ] {
            let fault = Model::read(&document(text)).expect_err(text);
            assert!(fault.message.contains(said), "{} lacks {said}", fault.message);
        }
    }
}
