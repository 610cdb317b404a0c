//! A request, parsed once: what is asked, of what, under which conditions.

use axum::response::Response;
use bytes::Bytes;
use casemate_model::{Fault, ResourceId};
use casemate_store::Condition;
use http::{HeaderMap, HeaderName, Method, header};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::template::is_shallow;

/// Most pairs of a query that are read.
const MAX_QUERY_PAIRS: usize = 64;
/// The deepest body that is taken; what is stored must stay readable.
const MAX_DEPTH: usize = 64;
/// What stands encoded in the path of a URL.
const NOT_IN_PATHS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');
/// Most items in one page of a list.
const MAX_PAGE: usize = 1000;

/// Types whose spelling is restored when a path gives them in another case.
const KNOWN_WORDS: &[&str] = &[
    "Microsoft.MachineLearningServices",
    "Microsoft.Authorization",
    "Microsoft.Resources",
    "Microsoft.Storage",
    "Microsoft.KeyVault",
    "Microsoft.OperationalInsights",
    "Microsoft.Insights",
    "Microsoft.ContainerRegistry",
    "Microsoft.ManagedIdentity",
    "Microsoft.Network",
    "Casemate.Identity",
    "Casemate.Platform",
    "workspaces",
    "onlineEndpoints",
    "deployments",
    "models",
    "codes",
    "environments",
    "versions",
    "datastores",
    "computes",
    "outboundRules",
    "storageAccounts",
    "vaults",
    "components",
    "registries",
    "userAssignedIdentities",
    "roleAssignments",
    "roleDefinitions",
    "servicePrincipals",
    "operations",
    "operationStatuses",
    "operationResults",
    "blobServices",
    "containers",
    "virtualNetworks",
    "subnets",
    "privateEndpoints",
    "privateDnsZoneGroups",
    "privateDnsZones",
    "virtualNetworkLinks",
    "privateLinkServices",
    "privateLinkResources",
    "privateEndpointConnections",
    "networkInterfaces",
    "A",
    "AAAA",
    "CNAME",
    "MX",
    "PTR",
    "SRV",
    "TXT",
    "SOA",
    "ALL",
];

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One resource, a resource group or the subscription.
    Resource(ResourceId),
    /// The members of one type below a parent; below the tenant when there is no parent.
    Collection {
        /// What they lie in.
        parent: Option<ResourceId>,
        /// Their full type, in lower case: `microsoft.machinelearningservices/workspaces/onlineendpoints`.
        kind: String,
    },
    /// An action on one resource.
    Action {
        /// The resource acted upon.
        resource: ResourceId,
        /// The action's name as given, such as `listKeys`.
        name: String,
    },
    /// A resource provider.
    Namespace {
        /// Where it is asked for.
        scope: Option<ResourceId>,
        /// Its name as given.
        namespace: String,
    },
}

impl Target {
    /// Reads the path of a URL. Fixed words and known types get their canonical spelling.
    ///
    /// # Errors
    /// `InvalidResourceId` or `NotFound` saying what is wrong with the path.
    pub fn parse(method: &Method, path: &str) -> Result<Self, Fault> {
        let parts = canonical_parts(path)?;
        let text = format!("/{}", parts.join("/"));
        let last = parts.last().map(String::as_str).unwrap_or_default();
        let before = &text[..text.len() - last.len() - usize::from(!last.is_empty())];
        let providers = parts.iter().rposition(|part| part == "providers");
        match (parts.len(), providers) {
            (0, _) => return Err(no_such_path(path)),
            (1, None) if matches!(last, "subscriptions" | "tenants") => {
                return Ok(Self::Collection { parent: None, kind: format!("microsoft.resources/{last}") });
            }
            (count, Some(at)) if count == at + 1 => {
                return Ok(Self::Collection { parent: scope(before)?, kind: "microsoft.resources/providers".into() });
            }
            (count, Some(at)) if count == at + 2 => {
                let scope = scope(before.trim_end_matches("/providers"))?;
                return Ok(Self::Namespace { scope, namespace: last.to_owned() });
            }
            (count, Some(at)) if count == at + 3 => {
                let kind = format!("{}/{last}", parts[at + 1]).to_lowercase();
                let parent = if at == 0 { None } else { scope(&format!("/{}", parts[..at].join("/")))? };
                return Ok(Self::Collection { parent, kind });
            }
            _ => {}
        }
        let whole = ResourceId::parse(&text);
        let Err(fault) = whole else {
            return whole.map(Self::Resource);
        };
        let Ok(resource) = ResourceId::parse(before) else {
            return Err(fault);
        };
        if *method == Method::POST {
            return Ok(Self::Action { resource, name: last.to_owned() });
        }
        let kind = match last {
            "resourceGroups" => "microsoft.resources/resourcegroups".to_owned(),
            _ => format!("{}/{last}", resource.resource_type()).to_lowercase(),
        };
        Ok(Self::Collection { parent: Some(resource), kind })
    }

    /// The lower-case type of the resource, of the collection's members, or of the resource acted upon.
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Self::Resource(id) | Self::Action { resource: id, .. } => id.resource_type().to_lowercase(),
            Self::Collection { kind, .. } => kind.clone(),
            Self::Namespace { .. } => "microsoft.resources/providers".to_owned(),
        }
    }

    /// Where a permission for it is looked up: the resource itself, or the parent of a collection.
    #[must_use]
    pub fn scope(&self) -> Option<&ResourceId> {
        match self {
            Self::Resource(id) | Self::Action { resource: id, .. } => Some(id),
            Self::Collection { parent, .. } => parent.as_ref(),
            Self::Namespace { scope, .. } => scope.as_ref(),
        }
    }
}

fn scope(text: &str) -> Result<Option<ResourceId>, Fault> {
    if text.is_empty() { Ok(None) } else { ResourceId::parse(text).map(Some) }
}

fn no_such_path(path: &str) -> Fault {
    let shown: String = path.chars().take(200).collect();
    Fault::not_found("NotFound", format!("There is nothing at '{shown}'. Resources lie below /subscriptions/…."))
}

/// The decoded parts of a path with canonical spelling.
fn canonical_parts(path: &str) -> Result<Vec<String>, Fault> {
    let mut parts = Vec::new();
    for part in path.trim_matches('/').split('/').filter(|part| !part.is_empty()) {
        let decoded = percent_decode_str(part)
            .decode_utf8()
            .map_err(|_| Fault::invalid("InvalidResourceId", "The path has a part that is not UTF-8 when decoded."))?;
        let odd = |c: char| c.is_control() || "/<>%&?#\\".contains(c);
        if decoded.contains(odd) || matches!(&*decoded, "." | "..") {
            let shown: String = decoded.chars().filter(|c| !c.is_control()).take(100).collect();
            let message = format!("The part '{shown}' of the path holds a character that names can't have.");
            return Err(Fault::invalid("InvalidResourceId", message));
        }
        parts.push(decoded.into_owned());
    }
    let is = |at: usize, word: &str| parts.get(at).is_some_and(|part: &String| part.eq_ignore_ascii_case(word));
    let (in_subscription, in_group) = (is(0, "subscriptions"), is(0, "subscriptions") && is(2, "resourceGroups"));
    // The group's older form names deployments without their provider.
    if in_group && is(4, "deployments") {
        parts.splice(4..4, ["providers".to_owned(), "Microsoft.Resources".to_owned()]);
    }
    if in_group {
        "resourceGroups".clone_into(&mut parts[2]);
    }
    if in_subscription {
        parts[0] = "subscriptions".to_owned();
        if let Some(subscription) = parts.get_mut(1) {
            subscription.make_ascii_lowercase();
        }
    } else if parts.len() == 1 {
        parts[0].make_ascii_lowercase();
    }
    let mut start = match (in_group, in_subscription) {
        (true, _) => 4,
        (_, true) => 2,
        _ => 0,
    };
    while let Some(part) = parts.get_mut(start) {
        if !part.eq_ignore_ascii_case("providers") {
            break;
        }
        "providers".clone_into(part);
        start = spell_types(&mut parts, start + 1);
    }
    Ok(parts)
}

/// Spells the namespace at `at` and the types after it; gives the place of the next `providers` or the end.
fn spell_types(parts: &mut [String], at: usize) -> usize {
    let end = parts[at.min(parts.len())..]
        .iter()
        .position(|part| part.eq_ignore_ascii_case("providers"))
        .map_or(parts.len(), |offset| at + offset);
    let places = std::iter::once(at).chain((at + 1..end).step_by(2));
    for place in places.filter(|place| *place < end) {
        if let Some(known) = KNOWN_WORDS.iter().find(|known| known.eq_ignore_ascii_case(&parts[place])) {
            (*known).clone_into(&mut parts[place]);
        }
    }
    end
}

/// A type in the spelling of its known words.
fn spelled(kind: &str) -> String {
    let known = |part: &str| KNOWN_WORDS.iter().find(|known| known.eq_ignore_ascii_case(part)).copied();
    kind.split('/').map(|part| known(part).unwrap_or(part)).collect::<Vec<_>>().join("/")
}

/// The pairs of a query.
#[derive(Debug, Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the part after `?`; pairs beyond the first 64 are left out.
    #[must_use]
    pub fn parse(query: &str) -> Self {
        let pairs = url::form_urlencoded::parse(query.as_bytes()).take(MAX_QUERY_PAIRS);
        Self(pairs.map(|(key, value)| (key.into_owned(), value.into_owned())).collect())
    }

    /// The first value of a key, in any case.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.as_str())
    }
}

/// A parsed request.
#[derive(Debug, Clone)]
pub struct Call {
    /// The method; HEAD stays HEAD.
    pub method: Method,
    /// What it is about.
    pub target: Target,
    /// The query's pairs.
    pub query: Query,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, at most 4 MiB.
    pub body: Bytes,
}

impl Call {
    /// The body as JSON, whatever its content type says.
    ///
    /// # Errors
    /// `InvalidRequestContent` naming line, column and cause.
    pub fn json(&self) -> Result<Value, Fault> {
        let body: Value = self.json_as()?;
        if is_shallow(&body, MAX_DEPTH) {
            return Ok(body);
        }
        let message = format!("The request's body nests deeper than {MAX_DEPTH} levels.");
        Err(Fault::invalid("InvalidRequestContent", message))
    }

    /// The body as a typed value.
    ///
    /// # Errors
    /// As [`Call::json`].
    pub fn json_as<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        if self.body.is_empty() {
            return Err(Fault::invalid("InvalidRequestContent", "The request has no body; send a JSON object."));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            Fault::invalid(
                "InvalidRequestContent",
                format!("The request's body is not the JSON expected here: {error}."),
            )
        })
    }

    /// The body as a JSON object; an empty body gives an empty object (for actions whose body is optional).
    ///
    /// # Errors
    /// As [`Call::json`].
    pub fn json_or_empty(&self) -> Result<Value, Fault> {
        if self.body.is_empty() { Ok(Value::Object(serde_json::Map::new())) } else { self.json() }
    }

    fn header(&self, name: &HeaderName) -> Result<Option<&str>, Fault> {
        let value = self.headers.get(name).map(|value| value.to_str()).transpose();
        value.map_err(|_| Fault::invalid("InvalidHeader", format!("The header {name} is not plain ASCII.")))
    }

    /// What `If-Match` and `If-None-Match` ask of a write.
    ///
    /// # Errors
    /// `InvalidHeader` for a form that is not understood; guessing could lose an update.
    pub fn condition(&self) -> Result<Condition, Fault> {
        let if_match = self.header(&header::IF_MATCH)?.map(str::trim);
        let if_none_match = self.header(&header::IF_NONE_MATCH)?.map(str::trim);
        match (if_match, if_none_match) {
            (None, None) => Ok(Condition::None),
            (None, Some("*")) => Ok(Condition::MustNotExist),
            (Some(tag), None) => one_tag(tag).map(Condition::Etag).ok_or_else(|| {
                Fault::invalid("InvalidHeader", format!("If-Match is '{tag}'; give * or one ETag in double quotes."))
            }),
            (None, Some(tag)) => Err(Fault::invalid(
                "InvalidHeader",
                format!("If-None-Match is '{tag}'; a write takes only *, which means: create, never replace."),
            )),
            (Some(_), Some(_)) => {
                Err(Fault::invalid("InvalidHeader", "If-Match and If-None-Match contradict each other; send one."))
            }
        }
    }

    /// Whether a reader already has this version (`If-None-Match` with its ETag).
    #[must_use]
    pub fn has_version(&self, etag: &str) -> bool {
        let tags = self.headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
        tags.is_some_and(|tags| tags.split(',').any(|tag| matches!(tag.trim(), "*") || tag.trim() == etag))
    }

    /// How many items of a list are wanted: `$top`, at most 1000.
    ///
    /// # Errors
    /// `BadArgument` when it is not a positive number.
    pub fn top(&self) -> Result<usize, Fault> {
        let Some(top) = self.query.get("$top").or_else(|| self.query.get("$maxpagesize")) else {
            return Ok(MAX_PAGE);
        };
        match top.parse::<usize>() {
            Ok(top) if top > 0 => Ok(top.min(MAX_PAGE)),
            _ => Err(Fault::invalid("BadArgument", format!("$top is '{top}'; give a positive number.")).at("$top")),
        }
    }

    /// The permission that this call needs, in the original's form: `TYPE/read|write|delete` or `TYPE/NAME/action`.
    #[must_use]
    pub fn permission(&self) -> String {
        let kind = match &self.target {
            Target::Resource(id) | Target::Action { resource: id, .. } => id.resource_type(),
            other => spelled(&other.kind()),
        };
        match (&self.target, self.method.as_str()) {
            (Target::Action { name, .. }, _) => format!("{kind}/{name}/action"),
            (_, "GET" | "HEAD") => format!("{kind}/read"),
            (_, "DELETE") => format!("{kind}/delete"),
            (_, "POST") => format!("{kind}/action"),
            _ => format!("{kind}/write"),
        }
    }

    /// The path of the target, for links: percent-encoded, and read as the same target again.
    #[must_use]
    pub fn path(&self) -> String {
        let path = match &self.target {
            Target::Resource(id) => id.as_str().to_owned(),
            Target::Action { resource, name } => format!("{resource}/{name}"),
            Target::Namespace { scope, namespace } => {
                format!("{}/providers/{namespace}", scope.as_ref().map_or("", ResourceId::as_str))
            }
            Target::Collection { parent, kind } => {
                let scope = parent.as_ref().map_or("", ResourceId::as_str);
                let own = parent.as_ref().map(|parent| format!("{}/", parent.resource_type().to_lowercase()));
                match (kind.as_str(), own.and_then(|own| kind.strip_prefix(own.as_str()))) {
                    ("microsoft.resources/resourcegroups", _) => format!("{scope}/resourceGroups"),
                    ("microsoft.resources/providers", _) => format!("{scope}/providers"),
                    ("microsoft.resources/subscriptions", _) => "/subscriptions".to_owned(),
                    ("microsoft.resources/tenants", _) => "/tenants".to_owned(),
                    (_, Some(last)) => format!("{scope}/{}", spelled(last)),
                    (kind, None) => format!("{scope}/providers/{}", spelled(kind)),
                }
            }
        };
        utf8_percent_encode(&path, NOT_IN_PATHS).to_string()
    }

    /// The answer to a method that the target does not have.
    ///
    /// # Errors
    /// Always: `MethodNotAllowed`.
    pub fn method_not_allowed(&self) -> Result<Response, crate::ApiError> {
        let what = match &self.target {
            Target::Action { name, .. } => format!("the action '{name}'"),
            target => format!("the type '{}'", spelled(&target.kind())),
        };
        Err(Fault::invalid("MethodNotAllowed", format!("The method {} is not known for {what}.", self.method)).into())
    }
}

/// `*`, or one strong tag quoted as the store quotes it.
fn one_tag(tag: &str) -> Option<String> {
    if tag == "*" {
        return Some(tag.to_owned());
    }
    let inner = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
    let plain = !inner.is_empty() && inner.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != ',');
    (plain && !tag.starts_with("W/")).then(|| format!("\"{inner}\""))
}
