//! Online deployments.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use casemate_model::Fault;
use serde_json::{Value, json};

use super::{
    data_collector::DataCollector,
    document::{Document, local_path},
    environment::Environment,
    model::Model,
    reference::{AssetKind, AssetRef},
    settings::{self, Probe, RequestSettings, ScaleSettings},
    show,
};
use crate::yaml::{Fields, Kind};

/// Fields of a deployment that an update with a file merges key by key instead of replacing.
pub const MERGED_FIELDS: &[&str] = &[
    "tags",
    "properties",
    "environment_variables",
    "request_settings",
    "liveness_probe",
    "readiness_probe",
    "scale_settings",
    "resources",
];

/// An asset written out in place, or a reference to a registered one.
#[derive(Debug, Clone, PartialEq)]
pub enum Source<T> {
    /// Written out in place; registered before the deployment is.
    Inline(Box<T>),
    /// Registered already.
    Ref(AssetRef),
}

/// Scoring code.
#[derive(Debug, Clone, PartialEq)]
pub enum Code {
    /// A local directory, to be uploaded.
    Local(PathBuf),
    /// Registered already.
    Ref(AssetRef),
}

/// Scoring code and its entry file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CodeConfiguration {
    /// Where the code is.
    pub code: Option<Code>,
    /// File inside the code.
    pub scoring_script: String,
    /// Line and column of `scoring_script`, for a later complaint about it.
    pub script_place: String,
}

/// What serves the deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ComputeKind {
    /// The platform itself.
    #[default]
    Managed,
    /// A Kubernetes cluster.
    Kubernetes,
}

/// A deployment as its YAML file says it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Deployment {
    /// Its name.
    pub name: Option<String>,
    /// The endpoint it belongs to.
    pub endpoint_name: Option<String>,
    /// Free text.
    pub description: Option<String>,
    /// Free labels.
    pub tags: BTreeMap<String, String>,
    /// Free properties.
    pub properties: BTreeMap<String, String>,
    /// The model.
    pub model: Option<Source<Model>>,
    /// Scoring code.
    pub code: Option<CodeConfiguration>,
    /// The environment.
    pub environment: Option<Source<Environment>>,
    /// Variables for the scoring process.
    pub environment_variables: BTreeMap<String, String>,
    /// Whether metrics are exported.
    pub app_insights_enabled: Option<bool>,
    /// How the number of instances is chosen.
    pub scale_settings: Option<ScaleSettings>,
    /// Limits on requests.
    pub request_settings: Option<RequestSettings>,
    /// When to restart an instance.
    pub liveness_probe: Option<Probe>,
    /// When an instance gets requests.
    pub readiness_probe: Option<Probe>,
    /// Number of instances; 1 when absent.
    pub instance_count: Option<u64>,
    /// Size of one.
    pub instance_type: Option<String>,
    /// Where the model is mounted.
    pub model_mount_path: Option<String>,
    /// What serves it.
    pub kind: ComputeKind,
    /// Whether it may reach the public network.
    pub egress_public_network_access: Option<bool>,
    /// What is collected.
    pub data_collector: Option<DataCollector>,
    /// Kubernetes resource requests and limits, in the API's shape.
    pub resources: Option<Value>,
}

/// Ids of the assets, once each is registered.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ResolvedAssets {
    /// The code version.
    pub code: Option<String>,
    /// The environment version.
    pub environment: Option<String>,
    /// The model version.
    pub model: Option<String>,
}

impl Deployment {
    /// Reads it from a document.
    ///
    /// # Errors
    /// `ValidationError` listing every mistake.
    pub fn read(document: &Document) -> Result<Self, Fault> {
        document.read("the deployment", |fields, base| {
            fields.ignore(&["id", "provisioning_state", "creation_context", "resourceGroup"]);
            fields.refuse(&["private_network_connection", "package_model"]);
            let kind =
                fields.choice("type", &[("managed", ComputeKind::Managed), ("kubernetes", ComputeKind::Kubernetes)]);
            Self {
                name: fields.text("name"),
                endpoint_name: fields.text("endpoint_name"),
                description: fields.text("description"),
                tags: fields.texts("tags"),
                properties: fields.texts("properties"),
                model: read_source(fields, "model", AssetKind::Model, |inner| Model::from_fields(inner, base)),
                code: read_code(fields, base),
                environment: read_source(fields, "environment", AssetKind::Environment, |inner| {
                    Environment::from_fields(inner, base)
                }),
                environment_variables: fields.texts("environment_variables"),
                app_insights_enabled: fields.boolean("app_insights_enabled"),
                scale_settings: settings::read_scale(fields),
                request_settings: settings::read_requests(fields),
                liveness_probe: settings::read_probe(fields, "liveness_probe"),
                readiness_probe: settings::read_probe(fields, "readiness_probe"),
                instance_count: fields.count("instance_count"),
                instance_type: fields.text("instance_type"),
                model_mount_path: fields.text("model_mount_path"),
                kind: kind.unwrap_or_default(),
                egress_public_network_access: fields
                    .choice("egress_public_network_access", &[("enabled", true), ("disabled", false)]),
                data_collector: DataCollector::read(fields),
                resources: settings::read_resources(fields),
            }
        })
    }

    /// Checks that the scoring script lies in the local code directory.
    ///
    /// # Errors
    /// `ValidationError` naming the script and the directory.
    pub fn check_script(&self) -> Result<(), Fault> {
        let Some(CodeConfiguration { code: Some(Code::Local(directory)), scoring_script, script_place }) = &self.code
        else {
            return Ok(());
        };
        if directory.join(scoring_script).is_file() {
            return Ok(());
        }
        Err(Fault::invalid(
            "ValidationError",
            format!(
                "{script_place}: there is no file '{scoring_script}' in the code directory '{}'. Correct 'scoring_script', or pass --skip-script-validation.",
                directory.display()
            ),
        ))
    }

    /// The body of a PUT.
    #[must_use]
    pub fn to_arm(&self, location: &str, assets: &ResolvedAssets) -> Value {
        let text = |value: &Option<String>| value.as_ref().map(|text| json!(text));
        let code = self.code.as_ref().map(|code| {
            show::object([("codeId", text(&assets.code)), ("scoringScript", Some(json!(code.scoring_script)))])
        });
        let managed = self.kind == ComputeKind::Managed;
        let access = self.egress_public_network_access.map(|open| json!(if open { "Enabled" } else { "Disabled" }));
        let properties = show::object([
            ("endpointComputeType", Some(json!(if managed { "Managed" } else { "Kubernetes" }))),
            ("description", text(&self.description)),
            ("properties", Some(json!(self.properties))),
            ("codeConfiguration", code),
            ("environmentId", text(&assets.environment)),
            ("model", text(&assets.model)),
            ("modelMountPath", text(&self.model_mount_path)),
            ("environmentVariables", Some(json!(self.environment_variables))),
            ("appInsightsEnabled", Some(json!(self.app_insights_enabled.unwrap_or(false)))),
            ("scaleSettings", Some(settings::scale_to_arm(self.scale_settings.unwrap_or(ScaleSettings::Default)))),
            ("requestSettings", self.request_settings.map(settings::requests_to_arm)),
            ("livenessProbe", self.liveness_probe.map(settings::probe_to_arm)),
            ("readinessProbe", self.readiness_probe.map(settings::probe_to_arm)),
            ("instanceType", text(&self.instance_type)),
            ("egressPublicNetworkAccess", access),
            ("dataCollector", self.data_collector.as_ref().map(DataCollector::to_arm)),
            ("containerResourceRequirements", self.resources.clone()),
        ]);
        json!({
            "location": location,
            "tags": self.tags,
            "sku": {"name": "Default", "capacity": self.instance_count.unwrap_or(1)},
            "properties": properties,
        })
    }

    /// What the command line prints for the API's shape.
    #[must_use]
    pub fn show(arm: &Value) -> Value {
        let endpoint = show::text(arm, "/id").and_then(|id| id.rsplit('/').nth(2)).map(|name| json!(name));
        let asset = |pointer: &str| {
            show::text(arm, pointer)
                .map(|id| json!(if id.starts_with('/') { format!("azureml:{id}") } else { id.to_owned() }))
        };
        let code = show::at(arm, "/properties/codeConfiguration").map(|code| {
            show::object([
                ("code", show::copy(code, "/codeId")),
                ("scoring_script", show::copy(code, "/scoringScript")),
            ])
        });
        let lower = |pointer: &str| show::text(arm, pointer).map(|text| json!(text.to_ascii_lowercase()));
        show::object([
            ("app_insights_enabled", show::copy(arm, "/properties/appInsightsEnabled")),
            ("code_configuration", code),
            ("creation_context", show::creation_context(arm)),
            ("data_collector", DataCollector::show(arm)),
            ("description", show::copy(arm, "/properties/description")),
            ("egress_public_network_access", lower("/properties/egressPublicNetworkAccess")),
            ("endpoint_name", endpoint),
            ("environment", asset("/properties/environmentId")),
            (
                "environment_variables",
                Some(show::copy(arm, "/properties/environmentVariables").unwrap_or_else(|| json!({}))),
            ),
            ("id", show::copy(arm, "/id")),
            ("instance_count", show::copy(arm, "/sku/capacity")),
            ("instance_type", show::copy(arm, "/properties/instanceType")),
            ("liveness_probe", settings::show_probe(arm, "/properties/livenessProbe")),
            ("model", asset("/properties/model")),
            ("model_mount_path", show::copy(arm, "/properties/modelMountPath")),
            ("name", show::copy(arm, "/name")),
            ("properties", Some(show::copy(arm, "/properties/properties").unwrap_or_else(|| json!({})))),
            ("provisioning_state", show::copy(arm, "/properties/provisioningState")),
            ("readiness_probe", settings::show_probe(arm, "/properties/readinessProbe")),
            ("request_settings", settings::show_requests(arm)),
            ("resources", settings::show_resources(arm)),
            ("scale_settings", settings::show_scale(arm)),
            ("tags", Some(show::copy(arm, "/tags").unwrap_or_else(|| json!({})))),
            ("type", lower("/properties/endpointComputeType")),
        ])
    }
}

fn read_source<T>(
    fields: &Fields<'_>,
    name: &'static str,
    kind: AssetKind,
    read: impl FnOnce(&Fields<'_>) -> T,
) -> Option<Source<T>> {
    let node = fields.node(name)?;
    if let Kind::Scalar { text, .. } = &node.kind {
        return match AssetRef::parse(text, kind) {
            Ok(reference) => Some(Source::Ref(reference)),
            Err(why) => {
                fields.issues().add(node.spot, format!("{why} To use local files, write a mapping instead of a text."));
                None
            }
        };
    }
    let inner = Fields::open(node, &format!("the deployment → {name}"), fields.issues())?;
    let value = read(&inner);
    inner.finish();
    Some(Source::Inline(Box::new(value)))
}

fn read_code(fields: &Fields<'_>, base: &Path) -> Option<CodeConfiguration> {
    let inner = fields.nested("code_configuration")?;
    let script = inner.node("scoring_script");
    let scoring_script = inner.text("scoring_script");
    inner.require("scoring_script", script.is_some());
    let code = inner.node("code").and_then(|node| {
        let text = node.as_written().unwrap_or_default();
        if text.starts_with("azureml:") || text.to_ascii_lowercase().starts_with("/subscriptions/") {
            return match AssetRef::parse(text, AssetKind::Code) {
                Ok(reference) => Some(Code::Ref(reference)),
                Err(why) => {
                    inner.issues().add(node.spot, why);
                    None
                }
            };
        }
        if text.starts_with("http://") || text.starts_with("https://") || text.starts_with("git+") {
            inner.issues().add(node.spot, "'code' as a URL is not supported by casemate yet; give a local directory.");
            return None;
        }
        let path = local_path(&inner, node, "code", base)?;
        if !path.is_dir() {
            inner.issues().add(node.spot, format!("'code' must name a directory; '{}' is a file.", path.display()));
            return None;
        }
        Some(Code::Local(path))
    });
    inner.finish();
    let script_place =
        script.and_then(|node| node.spot).map_or_else(|| "scoring_script".to_owned(), |spot| format!("{spot}"));
    Some(CodeConfiguration { code, scoring_script: scoring_script?, script_place })
}

#[cfg(test)]
#[path = "deployment_tests.rs"]
mod tests;
