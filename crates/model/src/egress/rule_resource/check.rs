//! What a user may write as a rule.

use serde_json::{Value, json};

use super::{REQUIRED, USER_DEFINED, private::Kind};
use crate::{
    egress::{HostPattern, IsolationMode, PortRanges, Prefix, ServiceTags, name::shown},
    fault::Fault,
    id::ResourceId,
};

/// Most hosts in one FQDN rule, and most names of one private endpoint.
const MAX_HOSTS: usize = 50;
/// Most prefixes in one rule.
const MAX_PREFIXES: usize = 1000;

/// Checks a rule that a user wrote (`properties` of the public shape) and brings it to the form that is kept. `before`
/// is the rule of that name as it was: the SDK can't carry the ports of an FQDN rule, so they stay while its destination
/// does. Whether a private endpoint's target exists is not looked at here.
///
/// # Errors
/// `BadArgument` naming the field, what is wrong with it, and what to write instead.
pub fn checked_rule(
    name: &str,
    given: &Value,
    before: Option<&Value>,
    mode: IsolationMode,
    tags: &ServiceTags,
) -> Result<Value, Fault> {
    let checked = read(name, given, before, mode, tags);
    checked
        .map_err(|(field, why)| Fault::invalid("BadArgument", format!("The outbound rule '{name}': {why}")).at(field))
}

/// The field at fault, and why.
type Wrong = (&'static str, String);

fn read(
    name: &str,
    given: &Value,
    before: Option<&Value>,
    mode: IsolationMode,
    tags: &ServiceTags,
) -> Result<Value, Wrong> {
    let kind = word(&given["type"], "type", &["FQDN", "PrivateEndpoint", "ServiceTag"], None)?;
    let category = word(
        &given["category"],
        "category",
        &[USER_DEFINED, REQUIRED, "Recommended", "Dependency"],
        Some(USER_DEFINED),
    )?;
    if category != USER_DEFINED {
        let why = format!("rules of the category {category} are made by the platform, not by users.");
        return Err(("category", why));
    }
    let mut kept = json!({"type": kind, "category": category});
    match kind {
        "FQDN" => {
            if mode == IsolationMode::AllowInternetOutbound {
                let why = "FQDN rules are for the isolation mode allow_only_approved_outbound; in \
                           allow_internet_outbound every public host is let through already. Leave the rule out, or \
                           set the mode first: casemate ml workspace update -n WS -m allow_only_approved_outbound.";
                return Err(("type", why.to_owned()));
            }
            let hosts = hosts(&given["destination"])?;
            let ports = ports_of_hosts(&hosts, given, before)?;
            kept["destination"] = hosts.into();
            kept["casemate"] = json!({"portRanges": ports});
        }
        "PrivateEndpoint" => {
            let (destination, fqdns) = private_endpoint(given)?;
            kept["destination"] = destination;
            if !fqdns.is_empty() {
                kept["fqdns"] = fqdns.into();
            }
        }
        _ => kept["destination"] = service_tag(name, &given["destination"], tags)?,
    }
    Ok(kept)
}

/// One of some words in any case.
fn word(
    value: &Value,
    field: &'static str,
    words: &[&'static str],
    default: Option<&'static str>,
) -> Result<&'static str, Wrong> {
    let given = match (value, default) {
        (Value::Null, Some(default)) => return Ok(default),
        (Value::String(given), _) => given.as_str(),
        _ => "",
    };
    let found = words.iter().find(|known| known.eq_ignore_ascii_case(given)).copied();
    found.ok_or_else(|| (field, format!("{field} is '{}'; give one of: {}.", shown(given), words.join(", "))))
}

/// One host or pattern, or several with commas between, in lower case.
fn hosts(destination: &Value) -> Result<String, Wrong> {
    let Some(text) = destination.as_str() else {
        let why = "it needs a destination, a host name such as packages.example.com or *.example.com.";
        return Err(("destination", why.to_owned()));
    };
    if text.split(',').nth(MAX_HOSTS).is_some() {
        return Err(("destination", format!("it names more than {MAX_HOSTS} hosts; make several rules.")));
    }
    let parsed: Result<Vec<String>, Wrong> = text
        .split(',')
        .map(|host| HostPattern::parse(host.trim()).map(|host| host.to_string()))
        .map(|host| host.map_err(|error| ("destination", error.to_string())))
        .collect();
    Ok(parsed?.join(", "))
}

/// `casemate.portRanges`: null means the default; absent means as before, for the same hosts.
fn ports_of_hosts(hosts: &str, given: &Value, before: Option<&Value>) -> Result<String, Wrong> {
    let same = before.filter(|before| before["type"] == "FQDN" && before["destination"] == hosts);
    let kept = || same.and_then(|before| before.pointer("/casemate/portRanges")).cloned();
    let text = match given.pointer("/casemate/portRanges").cloned().or_else(kept) {
        None | Some(Value::Null) => return Ok(PortRanges::default().to_string()),
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    };
    let ports = PortRanges::parse(&text).map_err(|error| ("portRanges", error.to_string()))?;
    Ok(ports.to_string())
}

fn private_endpoint(given: &Value) -> Result<(Value, Vec<Value>), Wrong> {
    let destination = &given["destination"];
    let service = ResourceId::parse(destination["serviceResourceId"].as_str().unwrap_or_default())
        .map_err(|fault| ("destination.serviceResourceId", fault.message))?;
    let Some(kind) = Kind::of(&service) else {
        let why = format!(
            "private endpoints can't lead to a resource of the type '{}'. Give a storage account, key vault, registry \
             or workspace of this platform; for anything else register its address or host name as a resource of the \
             type Microsoft.Network/privateLinkServices and give the id of that.",
            service.resource_type()
        );
        return Err(("destination.serviceResourceId", why));
    };
    let subresource = destination["subresourceTarget"].as_str().map(str::trim).unwrap_or_default();
    let subresource = kind.subresource(subresource).map_err(|why| ("destination.subresourceTarget", why))?;
    let spark = match &destination["sparkEnabled"] {
        Value::Bool(spark) => *spark,
        Value::String(text) => text.eq_ignore_ascii_case("true"),
        _ => false,
    };
    let fqdns: Result<Vec<Value>, Wrong> = match &given["fqdns"] {
        Value::Null => Ok(Vec::new()),
        Value::Array(names) if names.len() <= MAX_HOSTS => names
            .iter()
            .map(|name| HostPattern::parse(name.as_str().unwrap_or_default()))
            .map(|name| name.map(|name| name.to_string().into()).map_err(|error| ("fqdns", error.to_string())))
            .collect(),
        _ => Err(("fqdns", format!("give a list of at most {MAX_HOSTS} host names."))),
    };
    let fqdns = fqdns?;
    if !fqdns.is_empty() && !matches!(kind, Kind::LinkService) {
        let why = "only a private link service has host names of its own choice; leave fqdns out.";
        return Err(("fqdns", why.to_owned()));
    }
    let destination = json!({
        "serviceResourceId": service.as_str(),
        "subresourceTarget": subresource,
        "sparkEnabled": spark,
        "sparkStatus": "Inactive",
    });
    Ok((destination, fqdns))
}

/// What a stored private endpoint rule leads to; none for other rules.
#[must_use]
pub fn private_target(properties: &Value) -> Option<ResourceId> {
    if properties["type"] != "PrivateEndpoint" {
        return None;
    }
    ResourceId::parse(properties.pointer("/destination/serviceResourceId")?.as_str()?).ok()
}

fn service_tag(name: &str, destination: &Value, tags: &ServiceTags) -> Result<Value, Wrong> {
    let text = |key: &str| destination[key].as_str().map(str::trim).filter(|text| !text.is_empty());
    let prefixes = match &destination["addressPrefixes"] {
        Value::Null => &[],
        Value::Array(prefixes) if prefixes.len() <= MAX_PREFIXES => prefixes.as_slice(),
        _ => {
            let why = format!("give a list of at most {MAX_PREFIXES} address prefixes.");
            return Err(("destination.addressPrefixes", why));
        }
    };
    if text("serviceTag").is_none() && prefixes.is_empty() {
        return Err(("destination", "it needs a service tag or address prefixes.".to_owned()));
    }
    let protocol = word(&destination["protocol"], "destination.protocol", &["TCP", "UDP", "ICMP", "*"], Some("TCP"))?;
    let action = word(&destination["action"], "destination.action", &["Allow", "Deny"], Some("Allow"))?;
    if action == "Deny" {
        let why =
            "what no rule allows is refused already, so there are no rules with the action Deny. Leave the rule out.";
        return Err(("destination.action", why.to_owned()));
    }
    let ports = match &destination["portRanges"] {
        Value::Number(port) => Some(port.to_string()),
        _ => text("portRanges").map(str::to_owned),
    };
    let prefixes: Result<Vec<String>, Wrong> = prefixes
        .iter()
        .map(|one| Prefix::parse(one.as_str().unwrap_or_default()))
        .map(|one| one.map(|one| one.to_string()).map_err(|error| ("destination.addressPrefixes", error.to_string())))
        .collect();
    let prefixes = prefixes?;
    let tag = text("serviceTag").unwrap_or_default();
    tags.rules(name, tag, protocol, ports.as_deref(), &prefixes).map_err(|error| {
        let mut why = error.to_string();
        if matches!(error, crate::egress::TagError::Unknown { .. }) {
            why.push_str(
                " The file is service-tags.json in the platform's state directory, which is read when the platform starts.",
            );
        }
        if tag.is_empty() {
            why = why.replace(" of the service tag ''", "").replace("Service tag '': ", "");
        }
        ("destination", why)
    })?;
    let mut kept = json!({"protocol": protocol, "portRanges": ports.unwrap_or_default(), "action": action});
    if !tag.is_empty() {
        kept["serviceTag"] = tag.into();
    }
    if !prefixes.is_empty() {
        kept["addressPrefixes"] = prefixes.into();
    }
    Ok(kept)
}
