//! Where private endpoints lead, and the ones that the platform makes itself.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{REQUIRED, RULE_TYPE, RuleStatus, Surroundings, absent, check::private_target, mode_of};
use crate::{
    egress::{HostName, HostPattern, IsolationMode, PortRanges, PrivateDestination, Rule, Target},
    fault::Fault,
    id::ResourceId,
    network::{ConnectionStatus, PRIVATE_LINK_SERVICE_TYPE, connection_type},
    resource::Resource,
    vault,
    workspace::WORKSPACE_TYPE,
};

/// What a private endpoint can lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Storage,
    Vault,
    Registry,
    Workspace,
    /// An address or a host outside the platform, registered as a resource.
    LinkService,
}

impl Kind {
    pub(super) fn of(id: &ResourceId) -> Option<Self> {
        [
            ("Microsoft.Storage/storageAccounts", Self::Storage),
            ("Microsoft.KeyVault/vaults", Self::Vault),
            ("Microsoft.ContainerRegistry/registries", Self::Registry),
            (WORKSPACE_TYPE, Self::Workspace),
            (PRIVATE_LINK_SERVICE_TYPE, Self::LinkService),
        ]
        .into_iter()
        .find(|(kind, _)| id.is_type(kind))
        .map(|(_, kind)| kind)
    }

    /// A subresource in its own spelling.
    ///
    /// # Errors
    /// A sentence naming those there are.
    pub(super) fn subresource(self, given: &str) -> Result<String, String> {
        let known: &[&str] = match self {
            Self::Storage => &["blob", "file", "queue", "table", "dfs", "web"],
            Self::Vault => &["vault"],
            Self::Registry => &["registry"],
            Self::Workspace => &["amlworkspace"],
            // Its owner calls its parts as he likes.
            Self::LinkService if (1..=80).contains(&given.chars().count()) => return Ok(given.to_owned()),
            Self::LinkService => &["a name of 1 to 80 characters, such as the service's own"],
        };
        known.iter().find(|name| name.eq_ignore_ascii_case(given)).map(|name| (*name).to_owned()).ok_or_else(|| {
            let given: String = given.chars().filter(|c| !c.is_control()).take(80).collect();
            format!("the subresource target is '{given}'; give {}.", known.join(", "))
        })
    }
}

/// A private endpoint's rule, and whether it leads anywhere.
pub(super) struct Resolved {
    pub(super) rule: Rule,
    pub(super) status: RuleStatus,
}

/// Where a stored private endpoint rule leads.
///
/// # Errors
/// When what is stored can't be read.
pub(super) fn resolve(rule: &Resource, around: &Surroundings<'_>) -> Result<Resolved, Fault> {
    let properties = rule.properties();
    let wrong = |why: &str| Fault::invalid("BadArgument", why.to_owned());
    let target = private_target(properties).ok_or_else(|| wrong("its destination has no id of a resource."))?;
    let kind = Kind::of(&target).ok_or_else(|| wrong("private endpoints can't lead to a resource of its type."))?;
    let subresource = properties.pointer("/destination/subresourceTarget").and_then(Value::as_str).unwrap_or_default();
    let resource = (around.lookup)(&target);
    let mut place = match kind {
        Kind::LinkService => link_service(resource.as_ref(), properties),
        _ => own_service(kind, &target, subresource, resource.as_ref(), around.domain),
    };
    let required = properties["category"] == REQUIRED;
    let status = match (&resource, &place.to, unapproved(rule, &target, around)) {
        // The platform does for a deployment what it needs of its workspace; the rule opens nothing, and lacks nothing.
        (Some(_), _, None) if kind == Kind::Workspace && required => RuleStatus::Active,
        (None, ..) => {
            let why = format!("The resource '{target}' does not exist. Create it, or remove the rule.");
            place.to = absent(&why);
            RuleStatus::Failed(why)
        }
        (_, PrivateDestination::Absent(why), _) => RuleStatus::Failed(why.clone()),
        (_, _, Some(why)) => {
            place.to = absent(&why);
            RuleStatus::Inactive(Some(why))
        }
        _ => RuleStatus::Active,
    };
    let target = Target::Private { names: place.names, to: place.to };
    Ok(Resolved {
        rule: Rule { name: rule.name().to_owned(), target, ports: place.ports, protocols_tcp: true },
        status,
    })
}

struct Place {
    names: Vec<HostPattern>,
    to: PrivateDestination,
    ports: PortRanges,
}

/// The names under which the platform itself serves a resource.
fn own_service(kind: Kind, target: &ResourceId, subresource: &str, resource: Option<&Resource>, domain: &str) -> Place {
    let name = target.name();
    let text = match kind {
        Kind::Storage => format!("{name}.{subresource}.core.{domain}"),
        Kind::Vault => format!("{name}.vault.{domain}"),
        Kind::Registry => format!("{name}.registry.{domain}"),
        Kind::Workspace | Kind::LinkService => {
            let observed = |row: &Resource| Some(row.observed.get("workspaceId")?.as_str()?.to_owned());
            let guid = resource.and_then(observed).unwrap_or_else(|| name.to_owned());
            let region = resource.and_then(Resource::location).unwrap_or("local");
            format!("{guid}.workspace.{region}.api.{domain}")
        }
    };
    let mut names: Vec<HostPattern> = HostName::parse(&text).ok().map(HostPattern::Exact).into_iter().collect();
    // Code written for the public cloud calls it by the name that it would have there.
    let public = match kind {
        Kind::Vault => HostName::parse(&format!("{name}.{}", vault::PUBLIC_SUFFIX)).ok(),
        Kind::Storage if subresource == "blob" => {
            HostName::parse(&format!("{name}.blob.{}", vault::PUBLIC_STORAGE_SUFFIX)).ok()
        }
        _ => None,
    };
    names.extend(public.map(HostPattern::Exact));
    let to = match kind {
        Kind::Workspace => absent(
            "The platform itself does what a deployment needs of its workspace; the management API can't be reached from \
             inside a deployment.",
        ),
        _ if names.is_empty() => absent(&format!("'{text}', the host of '{target}', is not a host name.")),
        Kind::Storage if subresource != "blob" => absent(&format!(
            "Storage accounts of this platform serve blobs only, not '{subresource}'. Set the subresource target to blob."
        )),
        _ => PrivateDestination::FrontDoor,
    };
    Place { names, to, ports: PortRanges::one(443) }
}

/// What its owner registered: an address, or a host whose addresses may be private.
fn link_service(resource: Option<&Resource>, rule: &Value) -> Place {
    let place = |key: &str| resource?.properties().pointer(&format!("/casemate/{key}"))?.as_str();
    let names = rule["fqdns"].as_array().into_iter().flatten();
    let mut names: Vec<HostPattern> = names.filter_map(|name| HostPattern::parse(name.as_str()?).ok()).collect();
    let host = place("fqdn").map(HostName::parse);
    if let (Some(Ok(host)), true) = (&host, names.is_empty()) {
        names.push(HostPattern::Exact(host.clone()));
    }
    let to = match (place("address").map(str::parse), host) {
        (Some(Ok(address)), _) => PrivateDestination::Address(address),
        (_, Some(Ok(host))) => PrivateDestination::Name(host),
        _ => absent("The private link service has neither an address nor a host name that can be read."),
    };
    match place("ports").map(PortRanges::parse) {
        None => Place { names, to, ports: PortRanges::default() },
        Some(Ok(ports)) => Place { names, to, ports },
        Some(Err(error)) => Place { names, to: absent(&error.to_string()), ports: PortRanges::all() },
    }
}

/// Why the target's owner does not let the connection through; none when he does.
fn unapproved(rule: &Resource, target: &ResourceId, around: &Surroundings<'_>) -> Option<String> {
    let connection = connection_id(&rule.id, target)?;
    let Some(row) = (around.lookup)(&connection) else {
        // The platform's own need nobody's leave, but can be taken away like others.
        let required = rule.properties()["category"] == REQUIRED;
        return (!required)
            .then(|| format!("Its connection was removed at '{target}'. Set the rule again to ask for another."));
    };
    let status = row.properties().pointer("/privateLinkServiceConnectionState/status").and_then(Value::as_str);
    match status.and_then(ConnectionStatus::parse) {
        Some(ConnectionStatus::Approved) => None,
        status => Some(format!(
            "Its connection '{connection}' is {}, not Approved. The owner of '{}' approves it: casemate network \
             private-endpoint-connection approve --id {connection}.",
            status.map_or("of no known state", ConnectionStatus::as_str),
            target.name()
        )),
    }
}

/// The target's side of a private endpoint rule: the row that its owner approves. None for targets that have no owner
/// to ask (private link services, which were registered for this).
#[must_use]
pub fn connection_id(rule: &ResourceId, target: &ResourceId) -> Option<ResourceId> {
    connection_type(&target.resource_type())?;
    let workspace = rule.parent()?;
    let seed = Uuid::new_v5(&Uuid::NAMESPACE_URL, rule.key().as_bytes()).simple().to_string();
    target.child("privateEndpointConnections", &format!("{}.{}", workspace.name(), &seed[..12])).ok()
}

/// The connection of a private endpoint rule, by the rule's stored properties.
#[must_use]
pub fn connection_of(rule: &ResourceId, properties: &Value) -> Option<ResourceId> {
    connection_id(rule, &private_target(properties)?)
}

/// Every id that the rules of a workspace (the required ones among them) will look up.
#[must_use]
pub fn needed(workspace: &Resource, rules: &[Resource]) -> Vec<ResourceId> {
    let own = own_private_endpoints(workspace);
    let mut ids: Vec<ResourceId> = own
        .iter()
        .chain(rules)
        .filter_map(|rule| Some((rule, private_target(rule.properties())?)))
        .flat_map(|(rule, target)| connection_id(&rule.id, &target).into_iter().chain([target]))
        .collect();
    ids.sort();
    ids.dedup();
    ids
}

/// The rules that the platform makes itself, as rows like a user's: private endpoints to the workspace, its storage,
/// its vault and its registry. With allow_internet_outbound only to those whose public access is disabled; without a
/// managed network none are shown. They are computed each time, so they can't be stale.
#[must_use]
pub fn required_rules(workspace: &Resource, around: &Surroundings<'_>) -> Vec<Resource> {
    let closed = |rule: &Resource| {
        let target = private_target(rule.properties());
        let target = target.filter(|target| *target != workspace.id).map(|target| (around.lookup)(&target));
        let row = target.unwrap_or_else(|| Some(workspace.clone()));
        row.is_some_and(|row| {
            row.properties()["publicNetworkAccess"].as_str().is_some_and(|word| word.eq_ignore_ascii_case("Disabled"))
        })
    };
    let all = own_private_endpoints(workspace);
    match mode_of(workspace) {
        IsolationMode::Disabled => Vec::new(),
        IsolationMode::AllowInternetOutbound => all.into_iter().filter(closed).collect(),
        IsolationMode::AllowOnlyApprovedOutbound => all,
    }
}

/// Private endpoints to what belongs to the workspace, whatever the mode.
pub(super) fn own_private_endpoints(workspace: &Resource) -> Vec<Resource> {
    let property = |field: &str| ResourceId::parse(workspace.properties()[field].as_str()?).ok();
    [
        (Some(workspace.id.clone()), "amlworkspace"),
        (property("storageAccount"), "blob"),
        (property("keyVault"), "vault"),
        (property("containerRegistry"), "registry"),
    ]
    .into_iter()
    .filter_map(|(target, subresource)| required(workspace, &target?, subresource))
    .collect()
}

/// The required rules with their connections, whether or not there are such rows.
#[must_use]
pub fn required_connections(workspace: &Resource) -> Vec<(Resource, ResourceId)> {
    let with_connection = |rule: Resource| {
        let connection = connection_of(&rule.id, rule.properties())?;
        Some((rule, connection))
    };
    own_private_endpoints(workspace).into_iter().filter_map(with_connection).collect()
}

fn required(workspace: &Resource, target: &ResourceId, subresource: &str) -> Option<Resource> {
    let digest = Uuid::new_v5(&Uuid::NAMESPACE_URL, target.key().as_bytes()).simple().to_string();
    let name = format!("__SYS_PE_{}_{subresource}_{}", target.name(), &digest[..8]);
    let id = workspace.id.child("outboundRules", &name).ok()?;
    debug_assert!(id.is_type(RULE_TYPE));
    Some(Resource {
        id,
        body: json!({"properties": {
            "type": "PrivateEndpoint",
            "category": REQUIRED,
            "destination": {
                "serviceResourceId": target.as_str(),
                "subresourceTarget": subresource,
                "sparkEnabled": false,
                "sparkStatus": "Inactive",
            },
        }}),
        observed: serde_json::Map::new(),
        generation: 1,
        etag: workspace.etag.clone(),
        deleting: false,
        system: workspace.system.clone(),
    })
}
