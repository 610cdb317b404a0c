//! Registered assets: models, code, environments, datastores.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::fault::Fault;

/// The resource types of assets; each has `versions` below it.
pub const MODEL_VERSION_TYPE: &str = "Microsoft.MachineLearningServices/workspaces/models/versions";
/// A code version.
pub const CODE_VERSION_TYPE: &str = "Microsoft.MachineLearningServices/workspaces/codes/versions";
/// An environment version.
pub const ENVIRONMENT_VERSION_TYPE: &str = "Microsoft.MachineLearningServices/workspaces/environments/versions";

/// `properties` of a model version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ModelSpec {
    /// Where the files lie: an `azureml://…/datastores/D/paths/P` uri or a blob URL of ours.
    pub model_uri: String,
    /// `custom_model`, `mlflow_model` or `triton_model`.
    #[serde(default)]
    pub model_type: Option<String>,
}

/// `properties` of a code version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CodeSpec {
    /// Blob URL (a prefix) of the files.
    pub code_uri: String,
}

/// `properties` of an environment version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentSpec {
    /// The conda file's text (YAML or JSON).
    #[serde(default)]
    pub conda_file: Option<String>,
    /// A container image; advisory without a container runtime.
    #[serde(default)]
    pub image: Option<String>,
    /// Ports and paths of a custom server.
    #[serde(default)]
    pub inference_config: Option<Value>,
    /// A docker build context.
    #[serde(default)]
    pub build: Option<Value>,
    /// Variables set in the environment.
    #[serde(default)]
    pub environment_variables: BTreeMap<String, String>,
}

macro_rules! from_properties {
    ($($spec:ty, $what:literal;)*) => {$(
        impl $spec {
            /// Reads `properties`.
            ///
            /// # Errors
            /// `BadArgument` saying which field has the wrong type.
            pub fn from_properties(properties: &Value) -> Result<Self, Fault> {
                serde_json::from_value(properties.clone())
                    .map_err(|error| Fault::invalid("BadArgument", format!(concat!("The ", $what, "'s properties can't be read: {}."), error)).at("properties"))
            }
        }
    )*};
}

from_properties! {
    ModelSpec, "model version";
    CodeSpec, "code version";
    EnvironmentSpec, "environment version";
}
