//! The settings inside a deployment: limits on requests, probes, scaling, Kubernetes resources. Each is read from YAML,
//! written in the API's shape, and shown again.

use serde_json::{Value, json};

use super::{
    duration::{iso_from_ms, ms_from_iso},
    show,
};
use crate::yaml::Fields;

/// Limits on requests, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestSettings {
    /// Longest time for one request.
    pub request_timeout_ms: Option<u64>,
    /// Requests that one instance works on at once.
    pub max_concurrent_requests_per_instance: Option<u64>,
    /// Longest wait for a free instance.
    pub max_queue_wait_ms: Option<u64>,
}

/// A probe; times in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Probe {
    /// Wait before the first.
    pub initial_delay: Option<u64>,
    /// Time between two.
    pub period: Option<u64>,
    /// Longest time for one.
    pub timeout: Option<u64>,
    /// Successes in a row that count as healthy.
    pub success_threshold: Option<u64>,
    /// Failures in a row that count as unhealthy.
    pub failure_threshold: Option<u64>,
}

/// How the number of instances is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleSettings {
    /// As many as `instance_count` says.
    Default,
    /// By load.
    TargetUtilization {
        /// Fewest.
        min_instances: Option<u64>,
        /// Most.
        max_instances: Option<u64>,
        /// Seconds between two looks at the load.
        polling_interval: Option<u64>,
        /// Wanted load in percent.
        target_utilization_percentage: Option<u64>,
    },
}

pub(super) fn read_requests(fields: &Fields<'_>) -> Option<RequestSettings> {
    let inner = fields.nested("request_settings")?;
    let settings = RequestSettings {
        request_timeout_ms: inner.count("request_timeout_ms"),
        max_concurrent_requests_per_instance: inner.count("max_concurrent_requests_per_instance"),
        max_queue_wait_ms: inner.count("max_queue_wait_ms"),
    };
    inner.finish();
    Some(settings)
}

pub(super) fn requests_to_arm(settings: RequestSettings) -> Value {
    show::object([
        ("requestTimeout", settings.request_timeout_ms.map(|ms| json!(iso_from_ms(ms)))),
        ("maxConcurrentRequestsPerInstance", settings.max_concurrent_requests_per_instance.map(|n| json!(n))),
        ("maxQueueWait", settings.max_queue_wait_ms.map(|ms| json!(iso_from_ms(ms)))),
    ])
}

pub(super) fn show_requests(arm: &Value) -> Option<Value> {
    let settings = show::at(arm, "/properties/requestSettings")?;
    let ms = |pointer: &str| show::text(settings, pointer).and_then(ms_from_iso).map(|ms| json!(ms));
    Some(show::object([
        ("max_concurrent_requests_per_instance", show::copy(settings, "/maxConcurrentRequestsPerInstance")),
        ("max_queue_wait_ms", ms("/maxQueueWait")),
        ("request_timeout_ms", ms("/requestTimeout")),
    ]))
}

pub(super) fn read_probe(fields: &Fields<'_>, name: &'static str) -> Option<Probe> {
    let inner = fields.nested(name)?;
    let probe = Probe {
        initial_delay: inner.count("initial_delay"),
        period: inner.count("period"),
        timeout: inner.count("timeout"),
        success_threshold: inner.count("success_threshold"),
        failure_threshold: inner.count("failure_threshold"),
    };
    inner.finish();
    Some(probe)
}

pub(super) fn probe_to_arm(probe: Probe) -> Value {
    let seconds = |value: Option<u64>| value.map(|seconds| json!(iso_from_ms(seconds.saturating_mul(1000))));
    show::object([
        ("initialDelay", seconds(probe.initial_delay)),
        ("period", seconds(probe.period)),
        ("timeout", seconds(probe.timeout)),
        ("successThreshold", probe.success_threshold.map(|n| json!(n))),
        ("failureThreshold", probe.failure_threshold.map(|n| json!(n))),
    ])
}

pub(super) fn show_probe(arm: &Value, pointer: &str) -> Option<Value> {
    let probe = show::at(arm, pointer)?;
    let seconds = |pointer: &str| show::text(probe, pointer).and_then(ms_from_iso).map(|ms| json!(ms / 1000));
    Some(show::object([
        ("failure_threshold", show::copy(probe, "/failureThreshold")),
        ("initial_delay", seconds("/initialDelay")),
        ("period", seconds("/period")),
        ("success_threshold", show::copy(probe, "/successThreshold")),
        ("timeout", seconds("/timeout")),
    ]))
}

pub(super) fn read_scale(fields: &Fields<'_>) -> Option<ScaleSettings> {
    let inner = fields.nested("scale_settings")?;
    let by_load = inner.choice("type", &[("default", false), ("target_utilization", true)]);
    inner.require("type", inner.node("type").is_some());
    let settings = if by_load == Some(true) {
        ScaleSettings::TargetUtilization {
            min_instances: inner.count("min_instances"),
            max_instances: inner.count("max_instances"),
            polling_interval: inner.count("polling_interval"),
            target_utilization_percentage: inner.count("target_utilization_percentage"),
        }
    } else {
        ScaleSettings::Default
    };
    inner.finish();
    Some(settings)
}

pub(super) fn scale_to_arm(settings: ScaleSettings) -> Value {
    match settings {
        ScaleSettings::Default => json!({"scaleType": "Default"}),
        ScaleSettings::TargetUtilization {
            min_instances,
            max_instances,
            polling_interval,
            target_utilization_percentage,
        } => show::object([
            ("scaleType", Some(json!("TargetUtilization"))),
            ("minInstances", min_instances.map(|n| json!(n))),
            ("maxInstances", max_instances.map(|n| json!(n))),
            ("pollingInterval", polling_interval.map(|s| json!(iso_from_ms(s.saturating_mul(1000))))),
            ("targetUtilizationPercentage", target_utilization_percentage.map(|n| json!(n))),
        ]),
    }
}

pub(super) fn show_scale(arm: &Value) -> Option<Value> {
    let scale = show::at(arm, "/properties/scaleSettings")?;
    let polling = show::text(scale, "/pollingInterval").and_then(ms_from_iso).map(|ms| json!(ms / 1000));
    Some(show::object([
        ("type", show::text(scale, "/scaleType").map(|kind| json!(show::snake_from_camel(kind)))),
        ("min_instances", show::copy(scale, "/minInstances")),
        ("max_instances", show::copy(scale, "/maxInstances")),
        ("polling_interval", polling),
        ("target_utilization_percentage", show::copy(scale, "/targetUtilizationPercentage")),
    ]))
}

pub(super) fn read_resources(fields: &Fields<'_>) -> Option<Value> {
    let inner = fields.nested("resources")?;
    let part = |name: &'static str| {
        let one = inner.nested(name)?;
        let gpu = one.text("nvidia.com/gpu").or_else(|| one.text("gpu"));
        let value = show::object([
            ("cpu", one.text("cpu").map(|v| json!(v))),
            ("memory", one.text("memory").map(|v| json!(v))),
            ("gpu", gpu.map(|v| json!(v))),
        ]);
        one.ignore(&["gpu"]);
        one.finish();
        Some(value)
    };
    let value =
        show::object([("containerResourceRequests", part("requests")), ("containerResourceLimits", part("limits"))]);
    inner.finish();
    Some(value)
}

pub(super) fn show_resources(arm: &Value) -> Option<Value> {
    let resources = show::at(arm, "/properties/containerResourceRequirements")?;
    Some(show::object([
        ("requests", show::copy(resources, "/containerResourceRequests")),
        ("limits", show::copy(resources, "/containerResourceLimits")),
    ]))
}
