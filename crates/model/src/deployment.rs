//! What is wanted of an online deployment, with the documented defaults.

use std::{collections::BTreeMap, time::Duration};

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{fault::Fault, id::ResourceId};

/// The resource type of an online deployment.
pub const DEPLOYMENT_TYPE: &str = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/deployments";

/// Most instances that one deployment may have.
pub const MAX_INSTANCES: u32 = 50;
/// Longest request timeout, in seconds.
pub const MAX_REQUEST_TIMEOUT: Duration = Duration::from_secs(180);

/// The scoring code and its entry file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CodeConfiguration {
    /// Id of a code version.
    #[serde(default)]
    pub code_id: Option<String>,
    /// File inside the code, such as `score.py`.
    pub scoring_script: String,
}

/// Limits of one instance on scoring requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestSettings {
    /// Longest time for one request; ISO 8601 on the wire. Default 5 s.
    pub request_timeout: SignedDuration,
    /// Requests that one instance works on at once. Default 1.
    pub max_concurrent_requests_per_instance: u32,
    /// Longest time that a request waits for a free instance. Default 500 ms.
    pub max_queue_wait: SignedDuration,
}

impl Default for RequestSettings {
    fn default() -> Self {
        Self {
            request_timeout: SignedDuration::from_secs(5),
            max_concurrent_requests_per_instance: 1,
            max_queue_wait: SignedDuration::from_millis(500),
        }
    }
}

/// A liveness or readiness probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProbeSettings {
    /// Wait before the first probe. Default 10 s.
    pub initial_delay: SignedDuration,
    /// Time between probes. Default 10 s.
    pub period: SignedDuration,
    /// Longest time for one probe. Default 2 s.
    pub timeout: SignedDuration,
    /// Successes in a row that count as healthy. Default 1.
    pub success_threshold: u32,
    /// Failures in a row that count as unhealthy. Default 30.
    pub failure_threshold: u32,
}

impl Default for ProbeSettings {
    fn default() -> Self {
        Self {
            initial_delay: SignedDuration::from_secs(10),
            period: SignedDuration::from_secs(10),
            timeout: SignedDuration::from_secs(2),
            success_threshold: 1,
            failure_threshold: 30,
        }
    }
}

/// `properties` of a deployment, in the public shape. Unknown fields are kept in `body` and ignored here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeploymentSpec {
    /// `Managed` or `Kubernetes`.
    pub endpoint_compute_type: String,
    /// Scoring code; absent for a model that brings its own server.
    #[serde(default)]
    pub code_configuration: Option<CodeConfiguration>,
    /// Id of an environment version.
    #[serde(default)]
    pub environment_id: Option<String>,
    /// Id of a model version.
    #[serde(default)]
    pub model: Option<String>,
    /// Directory under which the model is mounted; the documented one when absent.
    #[serde(default)]
    pub model_mount_path: Option<String>,
    /// Size of one instance, such as `Standard_DS3_v2`.
    #[serde(default)]
    pub instance_type: Option<String>,
    /// Variables for the scoring process.
    #[serde(default)]
    pub environment_variables: BTreeMap<String, String>,
    /// Limits on requests.
    #[serde(default)]
    pub request_settings: RequestSettings,
    /// When to restart an instance.
    #[serde(default)]
    pub liveness_probe: ProbeSettings,
    /// When an instance gets requests.
    #[serde(default)]
    pub readiness_probe: ProbeSettings,
    /// `Enabled` or `Disabled`.
    #[serde(default)]
    pub egress_public_network_access: Option<String>,
}

impl DeploymentSpec {
    /// Reads `properties`; an explicit null counts as absent.
    ///
    /// # Errors
    /// `BadArgument` saying which field has the wrong type or value, or which limit it breaks.
    pub fn from_properties(properties: &Value) -> Result<Self, Fault> {
        let mut without_nulls = properties.clone();
        drop_nulls(&mut without_nulls);
        let spec: Self = serde_json::from_value(without_nulls).map_err(|error| {
            Fault::invalid("BadArgument", format!("The deployment's properties can't be read: {error}."))
                .at("properties")
        })?;
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<(), Fault> {
        let bad = |target: &str, message: String| Err(Fault::invalid("BadArgument", message).at(target));
        let settings = &self.request_settings;
        let timeout = settings.request_timeout;
        if timeout <= SignedDuration::ZERO || timeout.unsigned_abs() > MAX_REQUEST_TIMEOUT {
            return bad(
                "requestSettings.requestTimeout",
                format!("request_timeout_ms is {} ms; give 1 to 180000 ms.", timeout.as_millis()),
            );
        }
        if settings.max_concurrent_requests_per_instance == 0 {
            return bad(
                "requestSettings.maxConcurrentRequestsPerInstance",
                "max_concurrent_requests_per_instance is 0; give 1 or more.".to_owned(),
            );
        }
        if settings.max_queue_wait < SignedDuration::ZERO {
            return bad("requestSettings.maxQueueWait", "max_queue_wait_ms is negative; give 0 or more.".to_owned());
        }
        for (name, probe) in [("livenessProbe", &self.liveness_probe), ("readinessProbe", &self.readiness_probe)] {
            let positive = probe.period > SignedDuration::ZERO
                && probe.timeout > SignedDuration::ZERO
                && probe.initial_delay >= SignedDuration::ZERO;
            if !positive || probe.success_threshold == 0 || probe.failure_threshold == 0 {
                return bad(
                    name,
                    format!("{name} needs a positive period, timeout, success_threshold and failure_threshold."),
                );
            }
        }
        for (field, id) in [("environmentId", &self.environment_id), ("model", &self.model)] {
            if let Some(id) = id
                && id.starts_with('/')
            {
                ResourceId::parse(id).map_err(|fault| fault.at(field))?;
            }
        }
        Ok(())
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documented_defaults() {
        let spec =
            DeploymentSpec::from_properties(&json!({"endpointComputeType": "Managed", "livenessProbe": null})).unwrap();
        assert_eq!(spec.request_settings, RequestSettings::default());
        assert_eq!(spec.liveness_probe.failure_threshold, 30);
    }

    #[test]
    fn durations_are_iso_8601() {
        let spec = DeploymentSpec::from_properties(&json!({"endpointComputeType": "Managed",
            "requestSettings": {"requestTimeout": "PT1M30S", "maxQueueWait": "PT0.5S"}}))
        .unwrap();
        assert_eq!(spec.request_settings.request_timeout, SignedDuration::from_secs(90));
        assert_eq!(spec.request_settings.max_concurrent_requests_per_instance, 1);
    }

    #[test]
    fn refusals() {
        for properties in [
            json!({}),
            json!({"endpointComputeType": "Managed", "requestSettings": {"requestTimeout": "PT181S"}}),
            json!({"endpointComputeType": "Managed", "requestSettings": {"requestTimeout": "5000"}}),
            json!({"endpointComputeType": "Managed", "requestSettings": {"maxConcurrentRequestsPerInstance": 0}}),
            json!({"endpointComputeType": "Managed", "livenessProbe": {"period": "PT0S"}}),
            json!({"endpointComputeType": "Managed", "environmentVariables": {"A": 1}}),
        ] {
            assert!(DeploymentSpec::from_properties(&properties).is_err(), "{properties}");
        }
    }
}
