//! What the egress gateway decided, and what it would decide.

use std::sync::Arc;

use casemate_model::{
    Fault, Resource, ResourceId,
    deployment::DEPLOYMENT_TYPE,
    egress::{
        self, Decision, EgressPolicy, HostName, IsolationMode, LogEntry, PrivateDestination, Route, Suggestion, Target,
        USER_DEFINED, Verdict,
    },
    service::SERVICE_DEPLOYMENT_TYPE,
};
use casemate_store::Filter;
use serde_json::{Value, json};

use super::surroundings::Loaded;
use crate::{arm::shape, call::Call, context::Outcome, error::ApiError, respond, state::ApiState};

/// Most entries of the log in one answer, and how many when none are asked for.
const MAX_ENTRIES: u64 = 5000;
const DEFAULT_ENTRIES: u64 = 1000;
/// Most entries that are looked through for those of one deployment.
const MAX_SCANNED: usize = 200_000;
/// How many of them at a time.
const SCAN: usize = 5000;

/// `POST …/listOutboundLog {denied, after, limit, deployment, endpoint}` → `{value, next}`.
pub(in crate::arm) async fn list_log(state: &ApiState, call: &Call, workspace: &Resource) -> Outcome {
    let asked = call.json_or_empty()?;
    let number = |key: &str, most: u64| match asked.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().filter(|value| *value <= most).map(Some).ok_or_else(|| {
            Fault::invalid("BadArgument", format!("{key} is {value}; give a whole number from 0 to {most}.")).at(key)
        }),
    };
    let limit = number("limit", MAX_ENTRIES)?.unwrap_or(DEFAULT_ENTRIES).max(1);
    let query = LogQuery {
        workspace: workspace.id.clone(),
        denied: asked.get("denied").is_some_and(|denied| shape::truth(denied, "denied").unwrap_or(false)),
        after: number("after", u64::MAX)?,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        of: asked_deployment(&asked)?,
    };
    let (entries, next) = query.read_apart(state, workspace).await?;
    Ok(respond::ok(&json!({"value": entries, "next": next})))
}

struct LogQuery {
    workspace: ResourceId,
    denied: bool,
    after: Option<u64>,
    limit: usize,
    of: Option<Asked>,
}

impl LogQuery {
    /// Reads on a thread that may wait for the disk.
    async fn read_apart(self, state: &ApiState, workspace: &Resource) -> Result<(Vec<LogEntry>, u64), ApiError> {
        let log = Arc::clone(&state.outbound);
        let read = tokio::task::spawn_blocking(move || self.read(&*log)).await;
        let failed = |error: &dyn std::fmt::Display| {
            tracing::error!(workspace = %workspace.id, %error, "the outbound log could not be read");
            let name = workspace.name();
            Fault::internal(format!("The outbound log of the workspace '{name}' could not be read; try again."))
        };
        Ok(read.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?)
    }

    fn read(&self, log: &dyn crate::OutboundLog) -> std::io::Result<(Vec<LogEntry>, u64)> {
        let Some(of) = &self.of else {
            return log.read(&self.workspace, self.denied, self.after, self.limit);
        };
        let Some(mut after) = self.after else {
            // The newest of one deployment lie among the newest of all.
            let (mut entries, next) = log.read(&self.workspace, self.denied, None, MAX_SCANNED)?;
            entries.retain(|entry| of.is(&entry.deployment));
            entries.drain(..entries.len().saturating_sub(self.limit));
            return Ok((entries, next));
        };
        let mut found = Vec::new();
        for _ in 0..MAX_SCANNED / SCAN {
            let wanted = (self.limit - found.len()).min(SCAN);
            let (entries, next) = log.read(&self.workspace, self.denied, Some(after), wanted)?;
            let read = entries.len();
            found.extend(entries.into_iter().filter(|entry| of.is(&entry.deployment)));
            after = next.max(after);
            if read < wanted || found.len() >= self.limit {
                break;
            }
        }
        Ok((found, after))
    }
}

/// The deployment that a question is about.
struct Asked {
    endpoint: Option<String>,
    deployment: String,
}

impl Asked {
    /// Whether an entry is about it; the log names a deployment by `endpoint/deployment`, or by its id.
    fn is(&self, logged: &str) -> bool {
        let mut parts = logged.rsplit('/').filter(|part| !part.eq_ignore_ascii_case("deployments"));
        let (name, endpoint) = (parts.next().unwrap_or_default(), parts.next());
        let same_endpoint = match (&self.endpoint, endpoint) {
            (Some(asked), Some(logged)) => asked.eq_ignore_ascii_case(logged),
            _ => true,
        };
        name.eq_ignore_ascii_case(&self.deployment) && same_endpoint
    }
}

fn asked_deployment(asked: &Value) -> Result<Option<Asked>, Fault> {
    let text = |key: &str| match asked.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(_) => Err(Fault::invalid("BadArgument", format!("'{key}' must be a name.")).at(key)),
    };
    let (deployment, endpoint) = (text("deployment")?, text("endpoint")?);
    match deployment {
        None if endpoint.is_some() => {
            let message = "An endpoint alone says not which deployment is meant; give 'deployment' too.";
            Err(Fault::invalid("BadArgument", message).at("deployment"))
        }
        deployment => Ok(deployment.map(|deployment| Asked { endpoint, deployment })),
    }
}

/// `POST …/testOutboundDestination {destination: "HOST:PORT", deployment?, endpoint?}`: the decision, and the rule that
/// makes it. Nothing is sent.
pub(in crate::arm) async fn test_destination(state: &ApiState, call: &Call, workspace: &Resource) -> Outcome {
    let asked = call.json()?;
    let destination = Destination::parse(asked["destination"].as_str().unwrap_or_default())?;
    let deployment = match asked_deployment(&asked)? {
        None => None,
        Some(of) => Some(find_deployment(state, workspace, &of).await?),
    };
    let all = Loaded::of(state, workspace).await?;
    let (mut policy, faults) =
        all.with(state, |around| egress::policy(workspace, &all.rules, deployment.as_ref(), around));
    egress::lead_home(&mut policy, &all.services, &state.config.domain);
    let decision = destination.judge(&policy);
    Ok(respond::ok(&json!({
        "destination": destination.to_string(),
        "deployment": deployment.as_ref().map(|row| row.id.as_str()),
        "isolationMode": policy.mode,
        "allowed": decision.is_allowed(),
        "rule": decision.rule,
        "reason": decision.reason,
        "route": route(&decision),
        "wouldDeny": decision.would_deny,
        "unreadableRules": faults.iter().map(|fault| fault.message.as_str()).collect::<Vec<_>>(),
    })))
}

async fn find_deployment(state: &ApiState, workspace: &Resource, of: &Asked) -> Result<Resource, ApiError> {
    let mut rows = Vec::new();
    for kind in [DEPLOYMENT_TYPE, SERVICE_DEPLOYMENT_TYPE] {
        rows.extend(state.store.resource_list(&Filter::of_type(kind).within(&workspace.id)).await?);
    }
    let endpoint = |row: &Resource| row.id.parent().map(|id| id.name().to_owned()).unwrap_or_default();
    let mut found: Vec<Resource> = rows
        .into_iter()
        .filter(|row| row.name().eq_ignore_ascii_case(&of.deployment))
        .filter(|row| of.endpoint.as_ref().is_none_or(|name| name.eq_ignore_ascii_case(&endpoint(row))))
        .collect();
    if found.len() > 1 {
        let endpoints: Vec<String> = found.iter().map(endpoint).collect();
        let message = format!(
            "Several endpoints have a deployment '{}': {}. Say which is meant: --endpoint NAME.",
            of.deployment,
            endpoints.join(", ")
        );
        return Err(Fault::invalid("BadArgument", message).at("endpoint").into());
    }
    found.pop().ok_or_else(|| {
        let message = format!("The workspace '{}' has no such deployment '{}'.", workspace.name(), of.deployment);
        Fault::not_found("ResourceNotFound", message).at("deployment").into()
    })
}

/// `POST …/suggestOutboundRules {deployment?, endpoint?}`: the rules that would have let through what was let through
/// without one, as they are written.
pub(in crate::arm) async fn suggest_rules(state: &ApiState, call: &Call, workspace: &Resource) -> Outcome {
    let query = LogQuery {
        workspace: workspace.id.clone(),
        denied: false,
        after: None,
        limit: MAX_SCANNED,
        of: asked_deployment(&call.json_or_empty()?)?,
    };
    let (entries, _) = query.read_apart(state, workspace).await?;
    let all = Loaded::of(state, workspace).await?;
    let (mut policy, _) = all.with(state, |around| egress::policy(workspace, &all.rules, None, around));
    policy.mode = IsolationMode::AllowOnlyApprovedOutbound;
    let taken: Vec<&str> = all.rules.iter().map(Resource::name).collect();
    let proposed: Vec<Value> = egress::suggest(&entries, &policy, &taken).iter().map(show_suggestion).collect();
    Ok(respond::ok(&json!({"value": proposed, "entries": entries.len()})))
}

fn show_suggestion(one: &Suggestion) -> Value {
    let properties = match &one.target {
        Target::Addresses(prefixes) => json!({"type": "ServiceTag", "category": USER_DEFINED, "destination":
            {"protocol": "TCP", "portRanges": one.ports, "addressPrefixes": prefixes, "action": "Allow"}}),
        Target::Host(pattern) => json!({"type": "FQDN", "category": USER_DEFINED, "destination": pattern,
            "casemate": {"portRanges": one.ports}}),
        Target::Private { .. } => Value::Null,
    };
    json!({"name": one.name, "properties": properties, "connections": one.connections, "hosts": one.hosts})
}

/// A host or address with a port.
enum Destination {
    Name(HostName, u16),
    Address(std::net::SocketAddr),
}

impl Destination {
    fn parse(text: &str) -> Result<Self, Fault> {
        let bad = |why: String| {
            let shown: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
            let message = format!(
                "The destination '{shown}' can't be tested: {why} Write HOST:PORT, such as packages.example.org:443, 10.0.0.5:5432 \
                 or [fd00::1]:443."
            );
            Fault::invalid("BadArgument", message).at("destination")
        };
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let Some((host, port)) = text.rsplit_once(':') else { return Err(bad("it has no port.".to_owned())) };
        let port = port.parse::<u16>().ok().filter(|port| *port > 0);
        let Some(port) = port else { return Err(bad("the port is not a number from 1 to 65535.".to_owned())) };
        HostName::parse(host).map(|host| Self::Name(host, port)).map_err(|error| bad(error.to_string()))
    }

    fn judge(&self, policy: &EgressPolicy) -> Decision {
        match self {
            Self::Name(name, port) => policy.name(name, *port),
            Self::Address(address) => policy.address(address.ip(), address.port()),
        }
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// How an allowed connection goes out.
fn route(decision: &Decision) -> Option<String> {
    Some(match &decision.verdict {
        Verdict::Deny => return None,
        Verdict::Allow(Route::Public) => "to a public address".to_owned(),
        Verdict::Allow(Route::PublicOrNamed(prefixes)) => {
            let prefixes: Vec<String> = prefixes.iter().take(10).map(ToString::to_string).collect();
            format!("to an address in {}", prefixes.join(", "))
        }
        Verdict::Allow(Route::Private(to)) => match to {
            PrivateDestination::FrontDoor => "to the platform's own front door".to_owned(),
            PrivateDestination::Address(address) => format!("privately to {address}"),
            PrivateDestination::Name(name) => format!("privately to {name}"),
            PrivateDestination::Absent(_) => return None,
        },
    })
}
