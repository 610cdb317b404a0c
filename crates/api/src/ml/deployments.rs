//! Online deployments.

use casemate_model::{
    Fault, FaultKind, Operation, Resource, ResourceId,
    deployment::{DEPLOYMENT_TYPE, DeploymentSpec, MAX_INSTANCES},
    endpoint::ENDPOINT_TYPE,
    id::check_serving_name,
    instance_type::{DEFAULT_INSTANCE_TYPE, instance_size},
};
use casemate_store::{Condition, Filter, Put, Tx};
use http::Method;
use jiff::SignedDuration;
use serde_json::{Map, Value, json};

use super::{
    body::{Body, map_of, spell, texts},
    endpoints::{accept_deletion, begin_work},
    references::{self, Found},
    traffic, workspace,
};
use crate::{
    ApiError, ApiState, Call, OpContext, Target,
    arm::{mark_provisioned, shape::not_found},
    context::Outcome,
    respond, vault,
};

/// Most deployments of one endpoint.
const MAX_PER_ENDPOINT: usize = 20;
/// Most deployments of the platform.
const MAX_DEPLOYMENTS: usize = 500;
/// How often a write is made anew because another one came in between.
const MAX_RACES: usize = 5;
/// Most lines of a log in one answer, and how many when none are asked for.
const MAX_TAIL: u64 = 100_000;
const DEFAULT_TAIL: u64 = 5000;
/// The containers that have logs: as the API calls them, and as users do.
const LOG_CONTAINERS: [(&str, &str); 2] =
    [("InferenceServer", "inference-server"), ("StorageInitializer", "storage-initializer")];

/// Answers calls about deployments.
pub(super) async fn handle(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    match (&call.target, &call.method) {
        (Target::Collection { parent: Some(endpoint), .. }, &Method::GET) => list(ctx, state, call, endpoint).await,
        (Target::Resource(id), &Method::GET | &Method::HEAD) => {
            Ok(respond::resource(call, &read(ctx, state, call, id).await?))
        }
        (Target::Resource(id), &Method::PUT | &Method::PATCH) => put(ctx, state, call, id).await,
        (Target::Resource(id), &Method::DELETE) => delete(ctx, state, call, id).await,
        (Target::Action { resource, name }, &Method::POST) if name.eq_ignore_ascii_case("getLogs") => {
            let row = read(ctx, state, call, resource).await?;
            logs(state, call, &row).await
        }
        _ => call.method_not_allowed(),
    }
}

async fn read(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Result<Resource, ApiError> {
    ctx.authorize_call(call)?;
    workspace::read(state, id).await?;
    Ok(workspace::present(state.store.resource_get(id).await?, id)?)
}

async fn list(ctx: &OpContext, state: &ApiState, call: &Call, endpoint: &ResourceId) -> Outcome {
    workspace::read(state, endpoint).await?;
    workspace::present(state.store.resource_get(endpoint).await?, endpoint)?;
    let rows = state.store.resource_list(&Filter::of_type(DEPLOYMENT_TYPE).child_of(endpoint)).await?;
    let rows = ctx.readable(endpoint, &call.permission(), rows)?;
    let items = rows.iter().map(Resource::to_public).collect();
    respond::list(ctx, call, &call.path(), items)
}

/// What sizes a deployment can be scaled to.
pub(super) async fn skus(ctx: &OpContext, state: &ApiState, call: &Call) -> Outcome {
    let Target::Collection { parent: Some(id), .. } = &call.target else {
        return call.method_not_allowed();
    };
    ctx.authorize(&format!("{DEPLOYMENT_TYPE}/read"), id)?;
    workspace::read(state, id).await?;
    workspace::present(state.store.resource_get(id).await?, id)?;
    Ok(respond::ok(&json!({ "value": [{
        "resourceType": DEPLOYMENT_TYPE,
        "sku": { "name": "Default" },
        "capacity": { "minimum": 1, "maximum": MAX_INSTANCES, "default": 1, "scaleType": "Manual" },
    }] })))
}

async fn put(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    let condition = call.condition()?;
    let home = workspace::for_write(state, id).await?;
    check_serving_name("deployment", id.name())?;
    for _ in 0..MAX_RACES {
        let wish = Wish::read(state, call, id, &home).await?;
        if let Some((put, operation)) = wish.write(ctx, state, id, &condition).await? {
            return Ok(respond::accepted_put(ctx, &put, &operation));
        }
    }
    let message = format!("The deployment '{}' is being changed by others again and again; try again.", id.name());
    Err(Fault::conflict("Conflict", message).into())
}

/// A complete body, and what it was made from.
struct Wish {
    workspace: ResourceId,
    endpoint: Resource,
    before: Option<Resource>,
    body: Body,
    found: Found,
}

impl Wish {
    /// Completes and checks the body. All slow looks into the artifact store are here, before the transaction, which
    /// everybody else waits for.
    async fn read(state: &ApiState, call: &Call, id: &ResourceId, home: &Resource) -> Result<Self, ApiError> {
        let endpoint =
            endpoint_of(id, |endpoint| async move { Ok(state.store.resource_get(&endpoint).await?) }).await?;
        let before = state.store.resource_get(id).await?;
        let given = call.json()?;
        let mut body = match &before {
            Some(before) if call.method == Method::PATCH => Body::patched(&before.body, &given)?,
            None if call.method == Method::PATCH => return Err(not_found(id).into()),
            _ => Body::read(given)?,
        };
        if call.method == Method::PUT {
            keep_what_clients_lose(body.properties(), before.as_ref());
        }
        let spec = complete(&mut body, before.as_ref(), &endpoint)?;
        vault::check_references(&spec.environment_variables, &state.config.domain)?;
        let found = references::settle(state, home, body.properties(), &spec).await?;
        Ok(Self { workspace: home.id.clone(), endpoint, before, body, found })
    }

    /// Writes it; none when the deployment is no longer the one that the body was made from.
    async fn write(
        self,
        ctx: &OpContext,
        state: &ApiState,
        id: &ResourceId,
        condition: &Condition,
    ) -> Result<Option<(Put, Operation)>, ApiError> {
        let mut tx = state.store.begin().await?;
        if tx.resource_get(&self.endpoint.id).await?.is_none_or(|endpoint| endpoint.deleting) {
            return Err(being_deleted(&self.endpoint).into());
        }
        let current = tx.resource_get(id).await?;
        let generation = |row: &Option<Resource>| row.as_ref().map(|row| row.generation);
        if generation(&current) != generation(&self.before) {
            return Ok(None);
        }
        if current.is_none() {
            check_room(&mut tx, &self.endpoint.id).await?;
        }
        if let Some(home) = tx.resource_get(&self.workspace).await? {
            mark_provisioned(&mut tx, &home).await?;
        }
        let observed = stand_in(&mut tx, ctx, &self.workspace, &self.found).await?;
        let mut put = tx.resource_put(id, self.body.into_value(), condition, &ctx.author()).await?;
        let operation = begin_work(&mut tx, &mut put, observed).await?;
        tx.commit().await?;
        Ok(Some((put, operation)))
    }
}

/// The endpoint of a deployment, which must be there and stay.
async fn endpoint_of<F>(id: &ResourceId, get: impl FnOnce(ResourceId) -> F) -> Result<Resource, ApiError>
where
    F: Future<Output = Result<Option<Resource>, ApiError>>,
{
    let parent = id.parent().filter(|parent| parent.is_type(ENDPOINT_TYPE)).ok_or_else(|| not_found(id))?;
    let endpoint = workspace::present(get(parent.clone()).await?, &parent)?;
    if endpoint.deleting { Err(being_deleted(&endpoint).into()) } else { Ok(endpoint) }
}

fn being_deleted(endpoint: &Resource) -> Fault {
    let message = format!("The endpoint '{}' is being deleted; it takes no deployments any more.", endpoint.name());
    Fault::conflict("ResourceBeingDeleted", message).at(endpoint.id.as_str())
}

async fn check_room(tx: &mut Tx, endpoint: &ResourceId) -> Result<(), ApiError> {
    let all = tx.resource_list(&Filter::of_type(DEPLOYMENT_TYPE)).await?;
    let here = all.iter().filter(|row| row.id.is_within(endpoint)).count();
    let full = if here >= MAX_PER_ENDPOINT {
        format!("The endpoint '{}' has {here} deployments, which is the most", endpoint.name())
    } else if all.len() >= MAX_DEPLOYMENTS {
        format!("There are {} deployments, which is the most", all.len())
    } else {
        return Ok(());
    };
    Err(Fault::new(FaultKind::Quota, "OutOfQuota", format!("{full}. Delete one first.")).into())
}

/// Stores the stand-in for a curated environment; gives what to show of it at the deployment.
async fn stand_in(
    tx: &mut Tx,
    ctx: &OpContext,
    workspace: &ResourceId,
    found: &Found,
) -> Result<Map<String, Value>, ApiError> {
    let mut observed = Map::new();
    observed.insert("environmentWarning".to_owned(), Value::Null);
    if let Some(curated) = &found.curated {
        let warning = curated.warning();
        tracing::warn!(%warning, "a stand-in for a curated environment");
        observed.insert("environmentWarning".to_owned(), warning.into());
        let id = curated.id(workspace)?;
        if tx.resource_get(&id).await?.is_none() {
            tx.resource_put(&id, curated.body(), &Condition::None, &ctx.author()).await?;
        }
    }
    Ok(observed)
}

/// Fills in every default and checks all that the body alone can tell.
///
/// # Errors
/// `BadArgument` naming the field; `NotImplemented` for Kubernetes.
fn complete(body: &mut Body, before: Option<&Resource>, endpoint: &Resource) -> Result<DeploymentSpec, Fault> {
    body.default("location", || endpoint.location().map_or(Value::Null, Value::from));
    body.default("kind", || "Managed".into());
    let sku = sku(body.get("sku"), before)?;
    body.set("sku", sku);
    let properties = body.properties();
    for shown in ["provisioningState", "provisioningError", "environmentWarning"] {
        properties.remove(shown);
    }
    spell(properties, "endpointComputeType", &["Managed", "Kubernetes"], Some("Managed"))?;
    if properties["endpointComputeType"] == "Kubernetes" {
        let message = "Kubernetes compute is not available on this platform yet. Use a managed deployment.";
        return Err(Fault::new(FaultKind::NotImplemented, "NotImplemented", message).at("endpointComputeType"));
    }
    spell(properties, "egressPublicNetworkAccess", &["Enabled", "Disabled"], Some("Enabled"))?;
    for key in ["properties", "environmentVariables"] {
        let found = texts(properties.remove(key), key)?;
        properties.insert(key.to_owned(), map_of(found));
    }
    scale(properties)?;
    properties.entry("instanceType").or_insert_with(|| DEFAULT_INSTANCE_TYPE.into());
    let insights = properties.entry("appInsightsEnabled").or_insert(Value::Bool(false));
    if !insights.is_boolean() {
        return Err(
            Fault::invalid("BadArgument", "'appInsightsEnabled' is neither true nor false.").at("appInsightsEnabled")
        );
    }
    let spec = DeploymentSpec::from_properties(&Value::Object(properties.clone()))?;
    instance_size(spec.instance_type.as_deref().unwrap_or(DEFAULT_INSTANCE_TYPE))?;
    check_process(&spec)?;
    for (key, defaults) in [
        ("requestSettings", json!(spec.request_settings)),
        ("livenessProbe", json!(spec.liveness_probe)),
        ("readinessProbe", json!(spec.readiness_probe)),
    ] {
        let shown = properties.remove(key);
        let mut filled = defaults;
        if let (Some(filled), Some(Value::Object(given))) = (filled.as_object_mut(), shown) {
            // The given texts stay as they are; the specification's own spelling fills the gaps.
            filled.extend(given);
        }
        properties.insert(key.to_owned(), filled);
    }
    Ok(spec)
}

/// Puts back what a PUT leaves out because the SDK can't show it, so that a deployment which is fetched, changed and
/// sent back loses nothing: the model's mount path, which it does not read at all, and durations below a second, which
/// it reads as 0 and sends no more. A PATCH with null removes them.
fn keep_what_clients_lose(properties: &mut Map<String, Value>, before: Option<&Resource>) {
    if let Some(path) = before.and_then(|before| before.properties().get("modelMountPath")) {
        properties.entry("modelMountPath").or_insert_with(|| path.clone());
    }
    let second = SignedDuration::from_secs(1);
    for section in ["requestSettings", "livenessProbe", "readinessProbe"] {
        let stored = before.and_then(|before| before.properties().get(section)?.as_object());
        let Some((stored, given)) = stored.zip(properties.get_mut(section).and_then(Value::as_object_mut)) else {
            continue;
        };
        for (key, value) in stored {
            let duration = value.as_str().and_then(|text| text.parse::<SignedDuration>().ok());
            if duration.is_some_and(|duration| duration < second) && !given.contains_key(key) {
                given.insert(key.clone(), value.clone());
            }
        }
    }
}

/// `{name, capacity}`; an update that names no capacity keeps the present one.
fn sku(given: Option<&Value>, before: Option<&Resource>) -> Result<Value, Fault> {
    let mut sku = match given {
        None => Map::new(),
        Some(Value::Object(sku)) => sku.clone(),
        Some(_) => return Err(Fault::invalid("BadArgument", "'sku' is not an object.").at("sku")),
    };
    let present = before.and_then(|before| before.body.pointer("/sku/capacity")).cloned();
    let capacity = sku.get("capacity").cloned().or(present).unwrap_or_else(|| 1.into());
    if !capacity.as_u64().is_some_and(|count| (1..=u64::from(MAX_INSTANCES)).contains(&count)) {
        let message = format!("The instance count is {capacity}; give a whole number from 1 to {MAX_INSTANCES}.");
        return Err(Fault::invalid("BadArgument", message).at("sku.capacity"));
    }
    sku.insert("capacity".to_owned(), capacity);
    sku.entry("name").or_insert_with(|| "Default".into());
    Ok(Value::Object(sku))
}

fn scale(properties: &mut Map<String, Value>) -> Result<(), Fault> {
    let settings = properties.entry("scaleSettings").or_insert_with(|| json!({}));
    let Some(settings) = settings.as_object_mut() else {
        return Err(Fault::invalid("BadArgument", "'scaleSettings' is not an object.").at("scaleSettings"));
    };
    spell(settings, "scaleType", &["Default", "TargetUtilization"], Some("Default"))?;
    if settings["scaleType"] == "TargetUtilization" {
        let message = "A managed deployment takes only scale_settings of type default; set instance_count instead.";
        return Err(Fault::invalid("BadArgument", message).at("scaleSettings"));
    }
    Ok(())
}

/// What would keep the process from starting.
fn check_process(spec: &DeploymentSpec) -> Result<(), Fault> {
    for (name, value) in &spec.environment_variables {
        let good = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
        if !good {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
            let message = format!("The environment variable '{shown}' needs a name without '=', and no NUL in it.");
            return Err(Fault::invalid("BadArgument", message).at("environmentVariables"));
        }
    }
    if let Some(path) = &spec.model_mount_path {
        let good = path.starts_with('/')
            && path.len() > 1
            && !path.chars().any(char::is_control)
            && path.split('/').all(|part| !matches!(part, "." | ".."));
        if !good {
            let message =
                format!("model_mount_path is '{path}'; give an absolute path without '..', such as /var/models.");
            return Err(Fault::invalid("BadArgument", message).at("modelMountPath"));
        }
    }
    Ok(())
}

async fn delete(ctx: &OpContext, state: &ApiState, call: &Call, id: &ResourceId) -> Outcome {
    ctx.authorize_call(call)?;
    let condition = call.condition()?;
    workspace::read(state, id).await?;
    let mut tx = state.store.begin().await?;
    let endpoint = match id.parent() {
        Some(parent) => tx.resource_get(&parent).await?,
        None => None,
    };
    if tx.resource_get(id).await?.is_none() {
        return Ok(respond::no_content());
    }
    if let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.deleting) {
        refuse_with_traffic(&endpoint, id.name())?;
        if let Some(body) = traffic::without(&endpoint, id.name()) {
            tx.resource_put(&endpoint.id, body, &Condition::None, &ctx.author()).await?;
        }
    }
    let Some(operation) = accept_deletion(&mut tx, id, &condition).await? else {
        return Ok(respond::no_content());
    };
    tx.commit().await?;
    Ok(respond::accepted_delete(ctx, &operation))
}

fn refuse_with_traffic(endpoint: &Resource, name: &str) -> Result<(), Fault> {
    let (live, mirrored) = traffic::shares(endpoint, name);
    let (share, word) = match (live, mirrored) {
        (0, 0) => return Ok(()),
        (0, mirrored) => (mirrored, "mirrored traffic"),
        (live, _) => (live, "traffic"),
    };
    let message = format!(
        "The deployment '{name}' gets {share} % of the {word} of the endpoint '{}' and can't be deleted. Set its {word} to 0 first.",
        endpoint.name()
    );
    Err(Fault::conflict("DeploymentHasTraffic", message).at("traffic"))
}

async fn logs(state: &ApiState, call: &Call, row: &Resource) -> Outcome {
    let asked = call.json_or_empty()?;
    let tail = match asked.get("tail") {
        None | Some(Value::Null) => DEFAULT_TAIL,
        Some(tail) => tail.as_u64().filter(|tail| (1..=MAX_TAIL).contains(tail)).ok_or_else(|| {
            Fault::invalid("BadArgument", format!("tail is {tail}; give a number of lines from 1 to {MAX_TAIL}."))
                .at("tail")
        })?,
    };
    let given = asked.get("containerType").and_then(Value::as_str).unwrap_or("InferenceServer");
    let matches = |(rest, plain): &&(&str, &str)| rest.eq_ignore_ascii_case(given) || plain.eq_ignore_ascii_case(given);
    let Some((_, container)) = LOG_CONTAINERS.iter().find(matches) else {
        let message = format!("containerType is '{given}'; give InferenceServer or StorageInitializer.");
        return Err(Fault::invalid("BadArgument", message).at("containerType").into());
    };
    let (logs, id, tail) = (state.logs.clone(), row.id.clone(), usize::try_from(tail).unwrap_or(usize::MAX));
    let read = tokio::task::spawn_blocking(move || logs.read(&id, container, tail)).await;
    let failed = |error: &dyn std::fmt::Display| {
        tracing::error!(deployment = %row.id, %error, "logs could not be read");
        Fault::internal(format!("The logs of the deployment '{}' could not be read; try again.", row.name()))
    };
    let content = read.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
    Ok(respond::ok(&json!({ "content": content })))
}
