//! Environments.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use casemate_model::Fault;
use serde_json::{Map, Value, json};

use super::{
    document::{Document, local_path},
    model::name_and_version,
    show,
};
use crate::{
    artifact::hash_bytes,
    yaml::{self, Fields, Kind},
};

/// The name under which environments written inside deployments are registered.
pub const ANONYMOUS_ENVIRONMENT: &str = "CliV2AnonymousEnvironment";

/// A docker build context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// A local directory, to be uploaded, or the URL of one.
    pub path: Result<PathBuf, String>,
    /// The Dockerfile inside it.
    pub dockerfile: Option<String>,
}

/// An environment as its YAML file says it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Environment {
    /// Its name; one written inside a deployment has none.
    pub name: Option<String>,
    /// Its version; the next free one when absent.
    pub version: Option<String>,
    /// A container image.
    pub image: Option<String>,
    /// The conda file, with its keys in order.
    pub conda: Option<Value>,
    /// A docker build context.
    pub build: Option<Build>,
    /// Ports and paths of a custom server, in the API's shape.
    pub inference_config: Option<Value>,
    /// `Linux` or `Windows`.
    pub os_type: Option<&'static str>,
    /// Free text.
    pub description: Option<String>,
    /// Free labels.
    pub tags: BTreeMap<String, String>,
    /// Free properties.
    pub properties: BTreeMap<String, String>,
}

impl Environment {
    /// Reads it from a document.
    ///
    /// # Errors
    /// `ValidationError` listing every mistake.
    pub fn read(document: &Document) -> Result<Self, Fault> {
        document.read("the environment", |fields, base| {
            let environment = Self::from_fields(fields, base);
            fields.require("name", environment.name.is_some());
            environment
        })
    }

    pub(super) fn from_fields(fields: &Fields<'_>, base: &Path) -> Self {
        for key in ["channels", "dependencies"] {
            if let Some(node) = fields.node(key) {
                let why = format!(
                    "'{key}' belongs in a conda file: put it in a file of its own and name that file with 'conda_file'."
                );
                fields.issues().add(node.spot, why);
            }
        }
        fields.ignore(&["id", "creation_context", "latest_version", "resourceGroup"]);
        fields.refuse(&["datastore", "auto_delete_setting", "intellectual_property"]);
        let build = read_build(fields, base);
        let image = fields.text("image");
        let conda = read_conda(fields, base);
        if let (Some(_), Some(node)) = (&build, fields.node("image")) {
            fields.issues().add(node.spot, "Give 'image' or 'build', not both.");
        }
        if fields.node("image").or(fields.node("build")).or(fields.node("conda_file")).is_none() {
            fields.mistake("The environment needs 'conda_file' or 'image'.");
        }
        Self {
            name: fields.text("name"),
            version: fields.text("version"),
            image,
            conda,
            build,
            inference_config: read_routes(fields),
            os_type: fields.choice("os_type", &[("linux", "Linux"), ("windows", "Windows")]),
            description: fields.text("description"),
            tags: fields.texts("tags"),
            properties: fields.texts("properties"),
        }
    }

    /// The conda file as YAML text with its keys in order, so that the same content is the same text.
    #[must_use]
    pub fn conda_text(&self) -> Option<String> {
        let conda = self.conda.as_ref()?;
        // A tree of JSON can always be written as YAML; should it not, JSON is YAML too.
        Some(serde_saphyr::to_string(conda).unwrap_or_else(|_| conda.to_string()))
    }

    /// The version under which it is registered when it is written inside a deployment: a digest of its content.
    /// `build_digest` is that of the build context.
    #[must_use]
    pub fn anonymous_version(&self, build_digest: Option<&str>) -> String {
        let dockerfile = self.build.as_ref().and_then(|build| build.dockerfile.clone());
        let content = json!({"image": self.image, "conda": self.conda, "inference": self.inference_config,
            "build": build_digest, "dockerfile": dockerfile, "os": self.os_type});
        hash_bytes(content.to_string().as_bytes())
    }

    /// The body of a PUT of a version; `context_uri` is where the build context was uploaded to.
    #[must_use]
    pub fn to_arm(&self, context_uri: Option<&str>, anonymous: bool) -> Value {
        let build = self.build.as_ref().map(|build| {
            show::object([
                ("contextUri", context_uri.map(|uri| json!(uri))),
                ("dockerfilePath", build.dockerfile.as_ref().map(|path| json!(path))),
            ])
        });
        json!({"properties": show::object([
            ("image", self.image.as_ref().map(|image| json!(image))),
            ("condaFile", self.conda_text().map(|text| json!(text))),
            ("build", build),
            ("inferenceConfig", self.inference_config.clone()),
            ("osType", self.os_type.map(|os| json!(os))),
            ("description", self.description.as_ref().map(|text| json!(text))),
            ("tags", Some(json!(self.tags))),
            ("properties", Some(json!(self.properties))),
            ("isAnonymous", Some(json!(anonymous))),
            ("isArchived", Some(json!(false))),
        ])})
    }

    /// What the command line prints for a version, or for a container of versions.
    #[must_use]
    pub fn show(arm: &Value) -> Value {
        let (name, version) = name_and_version(arm);
        let conda = show::text(arm, "/properties/condaFile").map(|text| match yaml::parse(text, "conda_file") {
            Ok(tree) => tree.to_json(),
            Err(_) => json!(text),
        });
        let routes = show::at(arm, "/properties/inferenceConfig").and_then(Value::as_object).map(|map| {
            let snake: Map<String, Value> =
                map.iter().map(|(key, route)| (show::snake_from_camel(key), route.clone())).collect();
            Value::Object(snake)
        });
        let build = show::at(arm, "/properties/build").map(|build| {
            show::object([
                ("path", show::copy(build, "/contextUri")),
                ("dockerfile_path", show::copy(build, "/dockerfilePath")),
            ])
        });
        show::object([
            ("build", build),
            ("conda_file", conda),
            ("creation_context", show::creation_context(arm)),
            ("description", show::copy(arm, "/properties/description")),
            ("id", show::text(arm, "/id").map(|id| json!(format!("azureml:{id}")))),
            ("image", show::copy(arm, "/properties/image")),
            ("inference_config", routes),
            ("latest_version", show::copy(arm, "/properties/latestVersion")),
            ("name", name),
            ("os_type", show::text(arm, "/properties/osType").map(|os| json!(os.to_ascii_lowercase()))),
            ("tags", Some(show::copy(arm, "/properties/tags").unwrap_or_else(|| json!({})))),
            ("version", version),
        ])
    }
}

fn read_conda(fields: &Fields<'_>, base: &Path) -> Option<Value> {
    let node = fields.node("conda_file")?;
    if matches!(node.kind, Kind::Map(_)) {
        return Some(node.to_json());
    }
    let path = local_path(fields, node, "conda_file", base)?;
    let tree = match yaml::read_file(&path) {
        Ok(tree) => tree,
        Err(fault) => {
            fields.issues().add(node.spot, fault.message);
            return None;
        }
    };
    if !matches!(tree.kind, Kind::Map(_)) {
        let why = format!(
            "The conda file '{}' must hold a mapping with 'dependencies', not {}.",
            path.display(),
            tree.describe()
        );
        fields.issues().add(node.spot, why);
        return None;
    }
    Some(tree.to_json())
}

fn read_build(fields: &Fields<'_>, base: &Path) -> Option<Build> {
    let inner = fields.nested("build")?;
    let dockerfile = inner.text("dockerfile_path");
    let path = match inner.node("path") {
        None => {
            inner.require("path", false);
            None
        }
        Some(node) => match node.as_written() {
            Some(url) if url.starts_with("https://") || url.starts_with("http://") => Some(Err(url.to_owned())),
            _ => local_path(&inner, node, "path", base).map(Ok),
        },
    };
    inner.finish();
    Some(Build { path: path?, dockerfile })
}

fn read_routes(fields: &Fields<'_>) -> Option<Value> {
    let inner = fields.nested("inference_config")?;
    let mut config = Map::new();
    for (name, wire) in
        [("liveness_route", "livenessRoute"), ("readiness_route", "readinessRoute"), ("scoring_route", "scoringRoute")]
    {
        let Some(route) = inner.nested(name) else {
            inner.require(name, inner.node(name).is_some());
            continue;
        };
        let (port, path) = (route.count("port"), route.text("path"));
        route.require("port", port.is_some());
        route.require("path", path.is_some());
        if port.is_some_and(|port| port == 0 || port > 65535) {
            route.issues().add(route.node("port").and_then(|node| node.spot), "A port is a number from 1 to 65535.");
        }
        route.finish();
        config.insert(wire.to_owned(), json!({"port": port, "path": path}));
    }
    inner.finish();
    Some(Value::Object(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str, base: &Path) -> Document {
        let root = yaml::parse(text, "env.yml").unwrap();
        Document { root, name: "env.yml".to_owned(), base: base.to_owned() }
    }

    #[test]
    fn conda_as_a_file_and_inline_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("conda.yml"),
            "# note\nname: e\ndependencies:\n  - python=3.12\n  - pip: [joblib]\n",
        )
        .unwrap();
        let file = Environment::read(&document("name: e\nimage: i\nconda_file: conda.yml\n", dir.path())).unwrap();
        let inline = Environment::read(&document(
            "name: e\nimage: i\nconda_file:\n  dependencies: ['python=3.12', {pip: [joblib]}]\n  name: e\n",
            dir.path(),
        ))
        .unwrap();
        assert_eq!(file, inline);
        assert_eq!(file.anonymous_version(None), inline.anonymous_version(None));
        let text = file.to_arm(None, true)["properties"]["condaFile"].as_str().unwrap().to_owned();
        assert_eq!(
            yaml::parse(&text, "c").unwrap().to_json(),
            json!({"name": "e", "dependencies": ["python=3.12", {"pip": ["joblib"]}]})
        );
        let mut other = inline;
        other.image = Some("j".to_owned());
        assert_ne!(file.anonymous_version(None), other.anonymous_version(None));
        assert_ne!(file.anonymous_version(None), file.anonymous_version(Some("x")));
    }

    #[test]
    fn routes() {
        let text = "name: e\nimage: i\ninference_config:\n  liveness_route: {port: 5001, path: /}\n  readiness_route: {port: 5001, path: /}\n  scoring_route: {port: 5001, path: /score}\n";
        let environment = Environment::read(&document(text, Path::new("."))).unwrap();
        let arm = environment.to_arm(None, false);
        assert_eq!(arm["properties"]["inferenceConfig"]["scoringRoute"], json!({"port": 5001, "path": "/score"}));
        let shown = Environment::show(&json!({"id": "/x/environments/e/versions/1", "properties": arm["properties"]}));
        assert_eq!(shown["inference_config"]["liveness_route"]["port"], 5001);
    }

    #[test]
    fn bad_input() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("bad.yml"), "a: [\n").unwrap();
        std::fs::write(dir.path().join("list.yml"), "- a\n").unwrap();
        for (text, said) in [
            ("name: e\n", "needs 'conda_file' or 'image'"),
            ("image: i\n", "needs the field 'name'"),
            ("name: e\ndependencies: [a]\nimage: i\n", "belongs in a conda file"),
            ("name: e\nconda_file: none.yml\n", "env.yml:2:13: 'conda_file' names 'none.yml'"),
            ("name: e\nconda_file: bad.yml\n", "bad.yml:"),
            ("name: e\nconda_file: list.yml\n", "must hold a mapping with 'dependencies', not a list"),
            ("name: e\nconda_file: [a]\n", "must be a path, not a list"),
            ("name: e\nimage: i\nbuild: {path: .}\n", "not both"),
            ("name: e\nbuild: {dockerfile_path: D}\n", "needs the field 'path'"),
            ("name: e\nimage: i\ninference_config: {liveness_route: {port: 99999, path: /}}\n", "1 to 65535"),
            ("name: e\nimage: i\ninference_config: {liveness_route: {path: /}}\n", "needs the field 'port'"),
            ("name: e\nimgae: i\nconda_file: {a: b}\n", "did you mean 'image'?"),
        ] {
            let fault = Environment::read(&document(text, dir.path())).expect_err(text);
            assert!(fault.message.contains(said), "{} lacks {said}", fault.message);
        }
    }
}
