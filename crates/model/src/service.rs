//! Services of the first generation of the SDK: what they are called, the documented defaults, and how their settings
//! become those of a deployment that the one runtime serves.
//!
//! A service is a row like an endpoint's, with rows like deployments below it: the `properties` of both have the shape of
//! an endpoint and a deployment, and the hidden block [`V1_FIELD`] holds what only the first generation knows.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    Fault, FaultKind, Resource, ResourceId,
    deployment::{DEPLOYMENT_TYPE, MAX_INSTANCES, MAX_REQUEST_TIMEOUT, ProbeSettings, RequestSettings},
    instance_type::InstanceSize,
    tls::{TlsMode, TlsWish},
};

/// The resource type of a service.
pub const SERVICE_TYPE: &str = "Microsoft.MachineLearningServices/workspaces/services";
/// The resource type of a version of a service.
pub const SERVICE_DEPLOYMENT_TYPE: &str = "Microsoft.MachineLearningServices/workspaces/services/deployments";
/// The hidden block of a service's or a version's body that holds what only the first generation knows.
pub const V1_FIELD: &str = "_v1";
/// The hidden list of host names, beside those of its certificate, that lead to a service.
pub const NAMES_FIELD: &str = "_names";
/// The version of a service that has just one.
pub const ONLY_VERSION: &str = "default";
/// Where the code lies inside an instance; `AML_APP_ROOT` for scripts that look for their models below it.
pub const APP_ROOT: &str = "/var/azureml-app";

/// Least CPU time and memory of an instance: smaller requests are reservations, under which no server comes up.
const LEAST: InstanceSize = InstanceSize { milli_cpus: 1000, memory_bytes: 1 << 30 };
const GIB: f64 = 1_073_741_824.0;
/// Most cores, and most GiB of memory, that can be asked for.
const MAX_CPU: f64 = 1024.0;
const MAX_MEMORY_GB: f64 = 65_536.0;

/// Whether the id is that of something with instances: a deployment, or a version of a service.
#[must_use]
pub fn is_deployment(id: &ResourceId) -> bool {
    id.is_type(DEPLOYMENT_TYPE) || id.is_type(SERVICE_DEPLOYMENT_TYPE)
}

/// The compute that a service runs on; none for one that runs alone.
#[must_use]
pub fn compute_of(service: &Resource) -> Option<ResourceId> {
    let id = service.body.get(V1_FIELD)?.get("computeId")?.as_str()?;
    ResourceId::parse(id).ok()
}

/// Whether a service is served over TLS: by a certificate of its own, or by that of its compute unless it opted out.
#[must_use]
pub fn has_tls(service: &Resource, compute: Option<&Resource>) -> bool {
    let certified = |owner: &Resource| matches!(TlsWish::of(owner), Ok(Some(wish)) if wish.mode != TlsMode::Off);
    let opted_out = service.body.get(V1_FIELD).and_then(|block| block.get("sslEnabled")) == Some(&Value::Bool(false));
    certified(service) || (!opted_out && compute.is_some_and(certified))
}

/// The sorts of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceKind {
    /// One instance with an address, and if it likes a certificate, of its own.
    #[serde(rename = "ACI")]
    Aci,
    /// Instances on a compute.
    #[serde(rename = "AKS")]
    Aks,
    /// Several versions on a compute, with shares of the traffic.
    #[serde(rename = "AKSENDPOINT")]
    AksEndpoint,
}

impl ServiceKind {
    /// Reads `computeType`.
    ///
    /// # Errors
    /// `NotImplemented` for the sorts that this platform has not; `InvalidComputeType` for anything else.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        match text.to_ascii_uppercase().as_str() {
            "ACI" => Ok(Self::Aci),
            "AKS" => Ok(Self::Aks),
            "AKSENDPOINT" => Ok(Self::AksEndpoint),
            "IOT" | "MIR" | "FPGA" | "ACC" => Err(Fault::new(
                FaultKind::NotImplemented,
                "ComputeTypeNotSupported",
                format!(
                    "Services of the compute type '{text}' are not available on this platform. Deploy to AKS, \
                     AKSENDPOINT or ACI."
                ),
            )
            .at("computeType")),
            _ => {
                let shown: String = text.chars().filter(|c| !c.is_control()).take(40).collect();
                let message = format!("The compute type '{shown}' is not known; give AKS, AKSENDPOINT or ACI.");
                Err(Fault::invalid("InvalidComputeType", message).at("computeType"))
            }
        }
    }

    /// As the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aci => "ACI",
            Self::Aks => "AKS",
            Self::AksEndpoint => "AKSENDPOINT",
        }
    }
}

/// Checks the name of a service or a version.
///
/// # Errors
/// `InvalidServiceName` saying what a name must look like.
pub fn check_service_name(what: &str, name: &str) -> Result<(), Fault> {
    let good = (3..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.ends_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if good {
        return Ok(());
    }
    let shown: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    let message = format!(
        "The {what} name '{shown}' must consist of lower-case letters, digits and '-', start with a letter, end with a \
         letter or a digit, and have 3 to 32 characters."
    );
    Err(Fault::invalid("InvalidServiceName", message).at("name"))
}

/// How many instances a version has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AutoScaler {
    /// Whether the number of instances follows the load.
    pub autoscale_enabled: bool,
    /// Fewest instances. Default 1.
    pub min_replicas: u32,
    /// Most instances. Default 10.
    pub max_replicas: u32,
    /// Seconds between looks at the load. Default 1.
    pub refresh_period_in_seconds: u32,
    /// Percentage of busy places to aim at. Default 70.
    pub target_utilization: u32,
}

impl Default for AutoScaler {
    fn default() -> Self {
        Self {
            autoscale_enabled: true,
            min_replicas: 1,
            max_replicas: 10,
            refresh_period_in_seconds: 1,
            target_utilization: 70,
        }
    }
}

/// CPU and memory of one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerResources {
    /// Cores reserved. Default 0.1.
    pub cpu: f64,
    /// Most cores.
    #[serde(rename = "cpuLimit")]
    pub cpu_limit: Option<f64>,
    /// GiB reserved. Default 0.5.
    #[serde(rename = "memoryInGB")]
    pub memory_in_gb: f64,
    /// Most GiB.
    #[serde(rename = "memoryInGBLimit")]
    pub memory_in_gb_limit: Option<f64>,
    /// GPU cores; this platform has none.
    pub gpu: Option<u32>,
}

impl Default for ContainerResources {
    fn default() -> Self {
        Self { cpu: 0.1, cpu_limit: None, memory_in_gb: 0.5, memory_in_gb_limit: None, gpu: None }
    }
}

/// When an instance is restarted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Liveness {
    /// Default 10.
    pub period_seconds: u32,
    /// Default 310.
    pub initial_delay_seconds: u32,
    /// Default 2.
    pub timeout_seconds: u32,
    /// Default 1.
    pub success_threshold: u32,
    /// Default 3.
    pub failure_threshold: u32,
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            period_seconds: 10,
            initial_delay_seconds: 310,
            timeout_seconds: 2,
            success_threshold: 1,
            failure_threshold: 3,
        }
    }
}

/// What is collected of requests; nothing is on this platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DataCollection {
    /// Kept as given.
    pub event_hub_enabled: bool,
    /// Kept as given.
    pub storage_enabled: bool,
}

/// The settings of one version of a service, with the documented defaults.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VersionSettings {
    /// How the number of instances is found.
    pub auto_scaler: AutoScaler,
    /// How many instances there are when `auto_scaler` is off.
    pub num_replicas: Option<u32>,
    /// CPU and memory.
    pub container_resource_requirements: ContainerResources,
    /// When an instance is restarted.
    pub liveness_probe_requirements: Liveness,
    /// What is collected.
    pub data_collection: DataCollection,
    /// Requests that one instance works on at once. Default 1.
    pub max_concurrent_requests_per_container: u32,
    /// Longest wait for a place, in milliseconds. Default 500.
    pub max_queue_wait_ms: u64,
    /// Longest time for one request, in milliseconds. Default 60,000.
    pub scoring_timeout_ms: u64,
}

impl Default for VersionSettings {
    fn default() -> Self {
        Self {
            auto_scaler: AutoScaler::default(),
            num_replicas: None,
            container_resource_requirements: ContainerResources::default(),
            liveness_probe_requirements: Liveness::default(),
            data_collection: DataCollection::default(),
            max_concurrent_requests_per_container: 1,
            max_queue_wait_ms: 500,
            scoring_timeout_ms: 60_000,
        }
    }
}

impl VersionSettings {
    /// Reads the settings in a request; nulls count as absent, and absent ones get their defaults. Fewer instances than
    /// one can't be asked for; a service without a compute has just one.
    ///
    /// # Errors
    /// `BadArgument` naming the setting and what it may be.
    pub fn read(kind: ServiceKind, document: &Value) -> Result<Self, Fault> {
        let mut settings: Self = read(document, "settings")?;
        if kind == ServiceKind::Aci {
            settings.auto_scaler.autoscale_enabled = false;
            settings.num_replicas = Some(1);
        } else if settings.num_replicas.is_some()
            && document.pointer("/autoScaler/autoscaleEnabled").is_none_or(Value::is_null)
        {
            settings.auto_scaler.autoscale_enabled = false;
        } else if !settings.auto_scaler.autoscale_enabled && settings.num_replicas.is_none() {
            settings.num_replicas = Some(1);
        }
        if settings.auto_scaler.autoscale_enabled {
            settings.num_replicas = None;
        }
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), Fault> {
        let bad = |target: &str, message: String| Err(Fault::invalid("BadArgument", message).at(target));
        let scaler = &self.auto_scaler;
        let (least, most) = (scaler.min_replicas, scaler.max_replicas);
        if least == 0 || least > most || most > MAX_INSTANCES {
            return bad(
                "autoScaler",
                format!(
                    "autoScaler has {least} to {most} replicas; give 1 to {MAX_INSTANCES}, the smaller number first."
                ),
            );
        }
        if !(1..=100).contains(&scaler.target_utilization) || scaler.refresh_period_in_seconds == 0 {
            return bad(
                "autoScaler",
                "autoScaler needs a target of 1 to 100 % and a positive refresh period.".to_owned(),
            );
        }
        if let Some(count) = self.num_replicas.filter(|count| !(1..=MAX_INSTANCES).contains(count)) {
            return bad("numReplicas", format!("numReplicas is {count}; give 1 to {MAX_INSTANCES}."));
        }
        self.check_resources()?;
        let probe = &self.liveness_probe_requirements;
        if [probe.period_seconds, probe.timeout_seconds, probe.success_threshold, probe.failure_threshold].contains(&0)
        {
            return bad("livenessProbeRequirements", "The liveness probe's numbers must be positive.".to_owned());
        }
        if self.max_concurrent_requests_per_container == 0 {
            return bad(
                "maxConcurrentRequestsPerContainer",
                "maxConcurrentRequestsPerContainer is 0; give 1 or more.".to_owned(),
            );
        }
        let longest = u64::try_from(MAX_REQUEST_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
        for (name, given, least) in
            [("scoringTimeoutMs", self.scoring_timeout_ms, 1), ("maxQueueWaitMs", self.max_queue_wait_ms, 0)]
        {
            if !(least..=longest).contains(&given) {
                return bad(name, format!("{name} is {given}; give {least} to {longest} milliseconds."));
            }
        }
        Ok(())
    }

    fn check_resources(&self) -> Result<(), Fault> {
        let asked = &self.container_resource_requirements;
        let bad = |message: String| Err(Fault::invalid("BadArgument", message).at("containerResourceRequirements"));
        for (name, reserved, limit, most) in [
            ("cpu", asked.cpu, asked.cpu_limit, MAX_CPU),
            ("memoryInGB", asked.memory_in_gb, asked.memory_in_gb_limit, MAX_MEMORY_GB),
        ] {
            if reserved.is_nan() || reserved <= 0.0 || reserved > most {
                return bad(format!("{name} is {reserved}; give a number above 0, at most {most}."));
            }
            if let Some(limit) = limit.filter(|limit| limit.is_nan() || *limit < reserved || *limit > most) {
                return bad(format!("{name}Limit is {limit}; give {reserved} (its {name}) or more, at most {most}."));
            }
        }
        if asked.gpu.is_some_and(|count| count > 0) {
            let message = "GPUs are not available on this platform. Leave out gpu_cores.";
            return Err(
                Fault::new(FaultKind::NotImplemented, "NotImplemented", message).at("containerResourceRequirements")
            );
        }
        Ok(())
    }

    /// How many instances run.
    #[must_use]
    pub fn replicas(&self) -> u32 {
        if self.auto_scaler.autoscale_enabled { self.auto_scaler.min_replicas } else { self.num_replicas.unwrap_or(1) }
    }

    /// The limits of one instance: what is asked for as a limit, else what is reserved, and never less than a server
    /// needs to come up.
    #[must_use]
    pub fn size(&self) -> InstanceSize {
        let asked = &self.container_resource_requirements;
        // Both are positive and bounded, so that the numbers fit.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be small and positive")]
        let size = InstanceSize {
            milli_cpus: (asked.cpu_limit.unwrap_or(asked.cpu) * 1000.0) as u32,
            memory_bytes: (asked.memory_in_gb_limit.unwrap_or(asked.memory_in_gb) * GIB) as u64,
        };
        InstanceSize {
            milli_cpus: size.milli_cpus.max(LEAST.milli_cpus),
            memory_bytes: size.memory_bytes.max(LEAST.memory_bytes),
        }
    }

    /// The limits on requests.
    #[must_use]
    pub fn request_settings(&self) -> RequestSettings {
        RequestSettings {
            request_timeout: millis(self.scoring_timeout_ms),
            max_concurrent_requests_per_instance: self.max_concurrent_requests_per_container,
            max_queue_wait: millis(self.max_queue_wait_ms),
        }
    }

    /// When an instance is restarted. One whose workers are all busy answers no probe; it is not given up before the
    /// longest request that it may be working on must have ended.
    #[must_use]
    pub fn probe(&self) -> ProbeSettings {
        let asked = &self.liveness_probe_requirements;
        let longest_request = self.scoring_timeout_ms.div_ceil(1000 * u64::from(asked.period_seconds.max(1)));
        let patience = u32::try_from(longest_request).unwrap_or(u32::MAX).saturating_add(1);
        ProbeSettings {
            initial_delay: SignedDuration::from_secs(asked.initial_delay_seconds.into()),
            period: SignedDuration::from_secs(asked.period_seconds.into()),
            timeout: SignedDuration::from_secs(asked.timeout_seconds.into()),
            success_threshold: asked.success_threshold,
            failure_threshold: asked.failure_threshold.max(patience),
        }
    }
}

fn millis(count: u64) -> SignedDuration {
    SignedDuration::from_millis(i64::try_from(count).unwrap_or(i64::MAX))
}

/// A file of the artifact store that belongs to a version's code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackagedFile {
    /// A container of the artifact store.
    pub container: String,
    /// A blob in it.
    pub path: String,
    /// Whether it is an archive (a gzipped tar file) whose content is meant.
    #[serde(default)]
    pub unpack: bool,
}

/// What a version runs: the block `package` in the [`V1_FIELD`] of its body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    /// The code.
    pub files: Vec<PackagedFile>,
    /// The directory in the archive that holds the code; none when the code is single files.
    #[serde(default)]
    pub source_directory: Option<String>,
    /// Path of the entry script below that directory, such as `score.py`.
    pub entry_script: String,
    /// Ids of model versions.
    #[serde(default)]
    pub models: Vec<ResourceId>,
    /// The text of a conda file.
    #[serde(default)]
    pub conda_file: Option<String>,
    /// The base image, which is not used, and said so in the log.
    #[serde(default)]
    pub image: Option<String>,
    /// CPU time of one instance, in thousandths of a core.
    pub milli_cpus: u32,
    /// Memory of one instance, in bytes.
    pub memory_bytes: u64,
}

impl Package {
    /// The package in the body of a version; none for a deployment of an endpoint.
    ///
    /// # Errors
    /// When the stored block can't be read.
    pub fn of(body: &Value) -> Result<Option<Self>, Fault> {
        let Some(block) = body.get(V1_FIELD).and_then(|block| block.get("package")) else { return Ok(None) };
        Self::deserialize(block).map(Some).map_err(|error| {
            Fault::internal(format!("What was stored of a service's code and environment can't be read: {error}."))
        })
    }

    /// The limits of one instance.
    #[must_use]
    pub fn size(&self) -> InstanceSize {
        InstanceSize { milli_cpus: self.milli_cpus, memory_bytes: self.memory_bytes }
    }
}

/// Reads a part of a request; nulls count as absent.
fn read<T: DeserializeOwned>(document: &Value, what: &str) -> Result<T, Fault> {
    let mut document = document.clone();
    drop_nulls(&mut document);
    serde_json::from_value(document).map_err(|error| {
        Fault::invalid("BadArgument", format!("The service's {what} can't be read: {error}.")).at(what)
    })
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        map.retain(|_, value| !value.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documented_defaults() {
        let aks = VersionSettings::read(ServiceKind::Aks, &json!({"autoScaler": {"autoscaleEnabled": null}})).unwrap();
        assert_eq!((aks.replicas(), aks.auto_scaler.max_replicas, aks.num_replicas), (1, 10, None));
        assert!(aks.auto_scaler.autoscale_enabled);
        let requests = aks.request_settings();
        assert_eq!(requests.request_timeout, SignedDuration::from_secs(60));
        assert_eq!(requests.max_queue_wait, SignedDuration::from_millis(500));
        assert_eq!(requests.max_concurrent_requests_per_instance, 1);
        assert_eq!(aks.probe().failure_threshold, 7, "a request of 60 s is waited for");
        assert_eq!(aks.size(), LEAST);
        let aci = VersionSettings::read(ServiceKind::Aci, &json!({})).unwrap();
        assert!(!aci.auto_scaler.autoscale_enabled && aci.replicas() == 1);
    }

    #[test]
    fn what_is_asked_for() {
        let given = VersionSettings::read(
            ServiceKind::Aks,
            &json!({"numReplicas": 3, "containerResourceRequirements": {"cpu": 1, "cpuLimit": 2.5, "memoryInGB": 3}}),
        );
        let given = given.unwrap();
        assert!(!given.auto_scaler.autoscale_enabled);
        assert_eq!((given.replicas(), given.size()), (3, InstanceSize { milli_cpus: 2500, memory_bytes: 3 << 30 }));
        let scaled = json!({"autoScaler": {"autoscaleEnabled": true, "minReplicas": 2, "maxReplicas": 4}});
        assert_eq!(VersionSettings::read(ServiceKind::Aks, &scaled).unwrap().replicas(), 2);
        let fixed = json!({"autoScaler": {"autoscaleEnabled": false}});
        assert_eq!(VersionSettings::read(ServiceKind::Aks, &fixed).unwrap().num_replicas, Some(1));
    }

    #[test]
    fn refusals() {
        for document in [
            json!({"numReplicas": 0}),
            json!({"numReplicas": 51}),
            json!({"numReplicas": "two"}),
            json!({"autoScaler": {"minReplicas": 3, "maxReplicas": 2}}),
            json!({"autoScaler": {"targetUtilization": 101}}),
            json!({"containerResourceRequirements": {"cpu": 0}}),
            json!({"containerResourceRequirements": {"cpu": 2, "cpuLimit": 1}}),
            json!({"containerResourceRequirements": {"memoryInGB": -1}}),
            json!({"containerResourceRequirements": {"gpu": 1}}),
            json!({"livenessProbeRequirements": {"periodSeconds": 0}}),
            json!({"maxConcurrentRequestsPerContainer": 0}),
            json!({"scoringTimeoutMs": 0}),
            json!({"scoringTimeoutMs": 180_001}),
        ] {
            assert!(VersionSettings::read(ServiceKind::Aks, &document).is_err(), "{document}");
        }
    }

    #[test]
    fn names_and_kinds() {
        for good in ["abc", "my-service-1", "a1234567890123456789012345678901"] {
            assert!(check_service_name("service", good).is_ok(), "{good}");
        }
        for bad in ["ab", "Abc", "1bc", "abc-", "a_b", "äbcd", "a12345678901234567890123456789012"] {
            assert!(check_service_name("service", bad).is_err(), "{bad}");
        }
        assert_eq!(ServiceKind::parse("aksendpoint"), Ok(ServiceKind::AksEndpoint));
        for (bad, code) in
            [("IOT", "ComputeTypeNotSupported"), ("MIR", "ComputeTypeNotSupported"), ("x", "InvalidComputeType")]
        {
            assert_eq!(ServiceKind::parse(bad).unwrap_err().code, code);
        }
        let id = |tail: &str| {
            ResourceId::parse(&format!(
                "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w/{tail}"
            ))
            .unwrap()
        };
        assert!(
            is_deployment(&id("services/s/deployments/d")) && is_deployment(&id("onlineEndpoints/e/deployments/d"))
        );
        assert!(!is_deployment(&id("services/s")));
    }

    #[test]
    fn a_package_is_read_as_it_was_written() {
        let package = Package {
            files: vec![PackagedFile { container: "c".to_owned(), path: "p/x.tar.gz".to_owned(), unpack: true }],
            source_directory: Some("code".to_owned()),
            entry_script: "score.py".to_owned(),
            models: Vec::new(),
            conda_file: None,
            image: None,
            milli_cpus: 1000,
            memory_bytes: 1 << 30,
        };
        let body = json!({"_v1": {"package": package}});
        assert_eq!(Package::of(&body), Ok(Some(package)));
        assert_eq!(Package::of(&json!({"properties": {}})), Ok(None));
        assert!(Package::of(&json!({"_v1": {"package": {}}})).is_err());
    }
}
