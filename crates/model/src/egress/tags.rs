//! Service tags: names for groups of addresses. The platform ships the tags of its own services; an operator adds
//! others in a file.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{
    address::classify,
    name::shown,
    pattern::{HostPattern, PatternError},
    policy::{Rule, Target},
    ports::{PortError, PortRanges},
    prefix::{Prefix, PrefixError},
};

/// The most tags a table can have, and the most prefixes and names one tag can have.
const MAX_TAGS: usize = 1000;
const MAX_MEMBERS: usize = 10_000;

/// The tags that files for the original name for services which here are the platform's own. An instance reaches those
/// through private endpoints and the front door, so the tags hold no addresses: a rule for one is accepted and opens
/// nothing further.
const PLATFORM_TAGS: [&str; 12] = [
    "AzureActiveDirectory",
    "AzureArcInfrastructure",
    "AzureContainerRegistry",
    "AzureFrontDoor.FirstParty",
    "AzureFrontDoor.Frontend",
    "AzureKeyVault",
    "AzureMachineLearning",
    "AzureMonitor",
    "AzureResourceManager",
    "BatchNodeManagement",
    "MicrosoftContainerRegistry",
    "Storage",
];

/// A table of service tags by name, in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceTags(BTreeMap<String, ServiceTag>);

/// One tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceTag {
    /// Its name as it is shown.
    pub name: String,
    /// Addresses that belong to it.
    pub prefixes: Vec<Prefix>,
    /// Hosts that belong to it.
    pub names: Vec<HostPattern>,
    /// The ports a rule opens when it names none.
    pub ports: PortRanges,
    /// Whether it stands for services of this platform, which need no rule.
    pub platform: bool,
}

/// What is wrong with a table of tags, or with a rule that names one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TagError {
    /// The file is not JSON (or was not readable as YAML).
    #[error(
        "The service tags are not a table of tags: {0}. Write each tag as NAME: {{prefixes: [...], names: [...], ports: \"443\"}}."
    )]
    Shape(String),
    /// Too many tags or members.
    #[error(
        "The service tags have too many entries: at most {MAX_TAGS} tags, and {MAX_MEMBERS} prefixes and names in each."
    )]
    TooMany,
    /// The tag is not known.
    #[error(
        "The service tag '{tag}' is not known. Known are: {known}. Others have addresses that change, so they are not \
         shipped: write those that you mean into the file of service tags, as in {example}, or give the rule \
         --address-prefixes."
    )]
    Unknown {
        /// The tag.
        tag: String,
        /// The tags there are.
        known: String,
        /// A whole file that has the tag, on one line.
        example: String,
    },
    /// A prefix that no tag may open.
    #[error(
        "The prefix {1} of the service tag '{0}' covers {2}, which no tag may open. Leave it out, or give the parts of \
         it that are meant."
    )]
    Forbidden(String, Prefix, &'static str),
    /// The protocol is not one.
    #[error("The protocol '{0}' is not known. Write TCP, UDP, ICMP or *; only TCP is relayed.")]
    Protocol(String),
    /// A prefix is wrong.
    #[error("Service tag '{0}': {1}")]
    Prefix(String, PrefixError),
    /// A host is wrong.
    #[error("Service tag '{0}': {1}")]
    Name(String, PatternError),
    /// The ports are wrong.
    #[error("Service tag '{0}': {1}")]
    Ports(String, PortError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    prefixes: Vec<String>,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    ports: Option<Value>,
}

impl ServiceTags {
    /// The tags of the platform's own services.
    #[must_use]
    pub fn builtin() -> Self {
        let tag = |name: &str| ServiceTag {
            name: name.to_owned(),
            prefixes: Vec::new(),
            names: Vec::new(),
            ports: PortRanges::one(443),
            platform: true,
        };
        Self(PLATFORM_TAGS.iter().map(|name| (name.to_ascii_lowercase(), tag(name))).collect())
    }

    /// The built-in tags with those of an operator's file in JSON, which take precedence.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn parse(text: &str) -> Result<Self, TagError> {
        let value = serde_json::from_str(text).map_err(|error| TagError::Shape(error.to_string()))?;
        Self::from_value(&value)
    }

    /// The built-in tags with those of an operator's file that the caller has read from YAML or JSON:
    /// `{"Corp": {"prefixes": ["10.1.0.0/16"], "names": ["*.corp.example"], "ports": "443,5432"}}`.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn from_value(value: &Value) -> Result<Self, TagError> {
        let mut tags = Self::builtin();
        let Value::Object(entries) = value else {
            return match value {
                // An empty file.
                Value::Null => Ok(tags),
                _ => Err(TagError::Shape("it is not an object".to_owned())),
            };
        };
        if entries.len() > MAX_TAGS {
            return Err(TagError::TooMany);
        }
        for (name, entry) in entries {
            let tag = read(name, entry)?;
            tags.0.insert(name.to_ascii_lowercase(), tag);
        }
        Ok(tags)
    }

    /// The tag of this name, in any case. `Storage.westeurope`, a tag for one region, is found as `Storage` unless the
    /// table has it itself.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&ServiceTag> {
        let key = name.to_ascii_lowercase();
        self.0.get(&key).or_else(|| self.0.get(key.rsplit_once('.')?.0))
    }

    /// All tags, by name.
    pub fn iter(&self) -> impl Iterator<Item = &ServiceTag> {
        self.0.values()
    }

    /// What a service tag rule means: one rule for the addresses and one for each host of the tag, all of the rule's
    /// name. `prefixes`, when given, take the place of what the table has.
    ///
    /// # Errors
    /// The tag is not known and no prefixes are given, or a field is wrong.
    pub fn rules(
        &self,
        rule: &str,
        tag: &str,
        protocol: &str,
        ports: Option<&str>,
        prefixes: &[String],
    ) -> Result<Vec<Rule>, TagError> {
        let known = self.get(tag);
        if known.is_none() && prefixes.is_empty() {
            let names: Vec<&str> = self.iter().map(|tag| tag.name.as_str()).collect();
            let example = example(if is_name(tag) { tag } else { "NAME" });
            return Err(TagError::Unknown { tag: shown(tag), known: names.join(", "), example });
        }
        let protocols_tcp = match protocol.trim().to_ascii_lowercase().as_str() {
            "tcp" | "*" | "any" | "" => true,
            "udp" | "icmp" => false,
            _ => return Err(TagError::Protocol(shown(protocol))),
        };
        let ports = match (ports.filter(|ports| !ports.trim().is_empty()), known) {
            (Some(ports), _) => PortRanges::parse(ports).map_err(|error| TagError::Ports(shown(tag), error))?,
            (None, Some(known)) => known.ports.clone(),
            (None, None) => PortRanges::web(),
        };
        let rule = |target| Rule { name: rule.to_owned(), target, ports: ports.clone(), protocols_tcp };
        if !prefixes.is_empty() {
            return Ok(vec![rule(Target::Addresses(read_prefixes(tag, prefixes)?))]);
        }
        let Some(known) = known else { return Ok(Vec::new()) };
        let addresses = Some(known.prefixes.clone()).filter(|prefixes| !prefixes.is_empty()).map(Target::Addresses);
        Ok(addresses.into_iter().chain(known.names.iter().cloned().map(Target::Host)).map(rule).collect())
    }
}

impl Default for ServiceTags {
    fn default() -> Self {
        Self::builtin()
    }
}

/// Whether a file of tags can have a tag of this name.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    (1..=80).contains(&name.len()) && name.chars().all(plain)
}

/// A file with one tag; the addresses are kept for examples, and nobody's.
fn example(name: &str) -> String {
    format!(r#"{{"{name}": {{"prefixes": ["203.0.113.0/24"], "names": ["*.service.example"], "ports": "443"}}}}"#)
}

fn read(name: &str, entry: &Value) -> Result<ServiceTag, TagError> {
    if !is_name(name) {
        return Err(TagError::Shape(format!("'{}' is not a tag's name", shown(name))));
    }
    if !entry.is_object() {
        return Err(TagError::Shape(format!("tag '{}' is not an object", shown(name))));
    }
    let entry: Entry = serde_json::from_value(entry.clone()).map_err(|error| {
        // The message can quote what is in the file.
        TagError::Shape(format!("tag '{}': {}", shown(name), shown(&error.to_string())))
    })?;
    if entry.prefixes.len() > MAX_MEMBERS || entry.names.len() > MAX_MEMBERS {
        return Err(TagError::TooMany);
    }
    let names: Result<Vec<HostPattern>, PatternError> =
        entry.names.iter().map(|text| HostPattern::parse(text)).collect();
    let ports = match &entry.ports {
        None | Some(Value::Null) => Ok(PortRanges::web()),
        Some(Value::String(text)) => PortRanges::parse(text),
        Some(other) => PortRanges::parse(&other.to_string()),
    };
    Ok(ServiceTag {
        name: name.to_owned(),
        prefixes: read_prefixes(name, &entry.prefixes)?,
        names: names.map_err(|error| TagError::Name(name.to_owned(), error))?,
        ports: ports.map_err(|error| TagError::Ports(name.to_owned(), error))?,
        platform: false,
    })
}

/// Reads prefixes, none of which may cover what no rule opens.
fn read_prefixes(tag: &str, prefixes: &[String]) -> Result<Vec<Prefix>, TagError> {
    let tag = shown(tag);
    let read = |text: &String| {
        let prefix = Prefix::parse(text).map_err(|error| TagError::Prefix(tag.clone(), error))?;
        match forbidden(prefix) {
            Some(what) => Err(TagError::Forbidden(tag.clone(), prefix, what)),
            None => Ok(prefix),
        }
    };
    if prefixes.len() > MAX_MEMBERS {
        return Err(TagError::TooMany);
    }
    prefixes.iter().map(read).collect()
}

/// What a prefix covers that no tag may: the machine itself, its links, a metadata service, or addresses of no host.
/// Private space is fine when the prefix lies wholly inside it, and is not opened otherwise, so a wide prefix such as
/// 8.0.0.0/5 is refused only for covering one of these.
fn forbidden(prefix: Prefix) -> Option<&'static str> {
    const NEVER: [&str; 17] = [
        "169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fd00:42::42",
        "127.0.0.0/8",
        "::1",
        "169.254.0.0/16",
        "fe80::/10",
        "0.0.0.0/8",
        "224.0.0.0/3",
        "ff00::/8",
        "64:ff9b::/96",
        "2001::/32",
        "2002::/16",
        "198.18.0.0/15",
    ];
    let net = prefix.net();
    if net.prefix_len() == 0 {
        return Some("everything, loopback and metadata addresses included");
    }
    let never = NEVER.iter().filter_map(|text| Prefix::parse(text).ok()).map(|never| never.net());
    let covered = never.into_iter().find_map(|never| match never.contains(&net) {
        true => Some(net.addr()),
        false => net.contains(&never).then(|| never.addr()),
    })?;
    Some(classify(covered).describe())
}
