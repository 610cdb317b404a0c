//! What a stored deployment asks for, read once.

use casemate_model::{
    Fault, Resource, ResourceId,
    deployment::DeploymentSpec,
    instance_type::{DEFAULT_INSTANCE_TYPE, InstanceSize, instance_size},
    service::Package,
};
use serde_json::{Value, json};

/// Most server workers that one instance gets on its own account; `WORKER_COUNT` overrides it.
const MAX_WORKERS: u32 = 8;

/// One deployment's wish.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The deployment.
    pub id: ResourceId,
    /// Its properties.
    pub spec: DeploymentSpec,
    /// What it runs, if it is a version of a first-generation service; else its properties name that.
    pub package: Option<Package>,
    /// How many instances.
    pub count: usize,
    /// The limits of each.
    pub size: InstanceSize,
    /// Server workers in each.
    pub workers: u32,
    /// Equal for two wishes that the same running processes satisfy.
    pub revision: String,
}

impl Wish {
    /// Reads the wish of a deployment.
    ///
    /// # Errors
    /// `BadArgument` when a field is wrong; the door checks the same, so this happens only after an upgrade.
    pub fn of(deployment: &Resource) -> Result<Self, Fault> {
        Self::from_body(&deployment.id, &deployment.body)
    }

    /// Reads the wish in a stored body.
    ///
    /// # Errors
    /// As [`Wish::of`].
    pub fn from_body(id: &ResourceId, body: &Value) -> Result<Self, Fault> {
        let spec = DeploymentSpec::from_properties(&body["properties"])?;
        let count = body.pointer("/sku/capacity").and_then(Value::as_u64).unwrap_or(1);
        let instance_type = spec.instance_type.as_deref().unwrap_or(DEFAULT_INSTANCE_TYPE);
        let package = Package::of(body)?;
        let size = package.as_ref().map_or_else(|| instance_size(instance_type), |package| Ok(package.size()))?;
        let workers = spec.request_settings.max_concurrent_requests_per_instance.clamp(1, MAX_WORKERS);
        let revision = json!([
            spec.code_configuration,
            spec.environment_id,
            spec.model,
            spec.model_mount_path,
            instance_type,
            spec.environment_variables,
            spec.liveness_probe,
            spec.readiness_probe,
            workers,
            package,
        ]);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        Ok(Self { id: id.clone(), revision: revision.to_string(), spec, package, count, size, workers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(change: impl FnOnce(&mut Value)) -> Wish {
        let mut body =
            json!({"sku": {"name": "Default", "capacity": 1}, "properties": {"endpointComputeType": "Managed"}});
        change(&mut body);
        let id = ResourceId::parse("/subscriptions/s/resourceGroups/g/providers/P/t/n").unwrap();
        Wish::from_body(&id, &body).unwrap()
    }

    #[test]
    fn only_what_the_process_sees_makes_a_new_revision() {
        let base = wish(|_| {});
        for same in [
            wish(|body| body["sku"]["capacity"] = json!(3)),
            wish(|body| body["tags"] = json!({"a": "b"})),
            wish(|body| body["properties"]["requestSettings"] = json!({"requestTimeout": "PT9S"})),
        ] {
            assert_eq!(same.revision, base.revision);
        }
        for other in [
            wish(|body| body["properties"]["environmentVariables"] = json!({"A": "1"})),
            wish(|body| body["properties"]["model"] = json!("/subscriptions/s/providers/P/t/m")),
            wish(|body| body["properties"]["instanceType"] = json!("Standard_F2s_v2")),
            wish(|body| body["properties"]["requestSettings"] = json!({"maxConcurrentRequestsPerInstance": 4})),
        ] {
            assert_ne!(other.revision, base.revision);
        }
    }
}
