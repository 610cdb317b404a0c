//! What is wanted of an online endpoint.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    fault::Fault,
    traffic::{Mirror, TrafficSplit},
};

/// The resource type of an online endpoint.
pub const ENDPOINT_TYPE: &str = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints";

/// How a caller proves who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthMode {
    /// A primary or secondary key.
    Key,
    /// A token issued by the endpoint (`POST token`).
    AMLToken,
    /// A token of the identity provider for the scoring audience, plus a role.
    AADToken,
    /// Not at all: anybody may call. Only services of the first generation can be this open; endpoints can't.
    None,
}

/// `properties` of an endpoint, in the public shape. Unknown fields are kept in `body` and ignored here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSpec {
    /// How callers authenticate; fixed at creation.
    pub auth_mode: AuthMode,
    /// Free text.
    #[serde(default)]
    pub description: Option<String>,
    /// Live percentages by deployment.
    #[serde(default)]
    pub traffic: BTreeMap<String, u64>,
    /// Mirrored percentage by deployment.
    #[serde(default)]
    pub mirror_traffic: BTreeMap<String, u64>,
    /// `Enabled` or `Disabled`.
    #[serde(default)]
    pub public_network_access: Option<String>,
    /// Kubernetes compute's id; managed endpoints have none.
    #[serde(default)]
    pub compute: Option<String>,
}

impl EndpointSpec {
    /// Reads `properties`.
    ///
    /// # Errors
    /// `BadArgument` saying which field has the wrong type or value.
    pub fn from_properties(properties: &Value) -> Result<Self, Fault> {
        serde_json::from_value(properties.clone()).map_err(|error| {
            Fault::invalid("BadArgument", format!("The endpoint's properties can't be read: {error}.")).at("properties")
        })
    }

    /// Whether it may be called over public listeners.
    #[must_use]
    pub fn is_public(&self) -> bool {
        !self.public_network_access.as_deref().is_some_and(|access| access.eq_ignore_ascii_case("disabled"))
    }

    /// The live split.
    ///
    /// # Errors
    /// As [`TrafficSplit::new`].
    pub fn split(&self) -> Result<TrafficSplit, Fault> {
        TrafficSplit::new(self.traffic.clone())
    }

    /// The mirror target, if any.
    ///
    /// # Errors
    /// As [`Mirror::new`].
    pub fn mirror(&self) -> Result<Option<Mirror>, Fault> {
        Mirror::new(&self.mirror_traffic, &self.split()?)
    }
}
