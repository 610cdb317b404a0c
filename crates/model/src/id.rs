//! Resource ids and names, parsed once at the door.
//!
//! Ids arrive in any case (`resourcegroups`, `resourceGroups`); two ids that differ only in case are the same
//! resource. [`ResourceId`] keeps the case it was given for display and compares by its lower-case key.

use std::{fmt, hash, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::fault::Fault;

/// The longest id accepted, in bytes.
const MAX_ID_BYTES: usize = 2048;

/// The id of a resource, a resource group, a subscription or a scope of any of them.
///
/// Forms: `/subscriptions/S`, `/subscriptions/S/resourceGroups/G`,
/// `[scope]/providers/Namespace/type/name[/type/name…]`. An extension resource (a role assignment on a workspace)
/// has a second `/providers/…` part; `scope()` then gives what it extends.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ResourceId {
    /// As given, without a trailing slash.
    text: String,
    /// Lower-case form; the identity of the resource.
    key: String,
}

impl ResourceId {
    /// Parses an id.
    ///
    /// # Errors
    /// `InvalidResourceId` naming what is wrong: no leading slash, an empty or over-long part, a forbidden
    /// character, or a dangling type without a name.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let bad = |why: &str| {
            let shown: String = text.chars().take(200).collect();
            Fault::invalid("InvalidResourceId", format!("The id '{shown}' is not a resource id: {why}."))
        };
        if text.len() > MAX_ID_BYTES {
            return Err(bad("it is longer than 2048 bytes"));
        }
        let trimmed = text.strip_suffix('/').unwrap_or(text);
        let Some(rest) = trimmed.strip_prefix('/') else {
            return Err(bad("it does not start with a slash"));
        };
        let parts: Vec<&str> = rest.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(bad("it has an empty part"));
        }
        if parts
            .iter()
            .any(|part| part.chars().any(|c| c.is_control() || "<>%&?#\\".contains(c)) || *part == "." || *part == "..")
        {
            return Err(bad("it has a part with a forbidden character"));
        }
        check_shape(&parts).map_err(bad)?;
        let key = trimmed.to_lowercase();
        // Some letters are longer in lower case.
        if key.len() > MAX_ID_BYTES {
            return Err(bad("it is longer than 2048 bytes in lower case"));
        }
        Ok(Self { text: trimmed.to_owned(), key })
    }

    /// As given, without a trailing slash.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The lower-case form by which ids are compared and stored.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    fn parts(&self) -> impl Iterator<Item = &str> {
        self.text[1..].split('/')
    }

    /// The value after the first part equal to `label` (any case) at an even position before `providers`.
    fn labelled(&self, label: &str) -> Option<&str> {
        let parts: Vec<&str> = self.parts().collect();
        parts
            .chunks(2)
            .take_while(|pair| !pair[0].eq_ignore_ascii_case("providers"))
            .find(|pair| pair[0].eq_ignore_ascii_case(label))
            .and_then(|pair| pair.get(1).copied())
    }

    /// The subscription's GUID, if the id lies in one.
    #[must_use]
    pub fn subscription(&self) -> Option<&str> {
        self.labelled("subscriptions")
    }

    /// The resource group's name, if the id lies in one.
    #[must_use]
    pub fn resource_group(&self) -> Option<&str> {
        self.labelled("resourceGroups")
    }

    /// The last part: the resource's own name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text.rsplit('/').next().unwrap_or_default()
    }

    /// The full type as given, such as `Microsoft.MachineLearningServices/workspaces/onlineEndpoints`;
    /// `Microsoft.Resources/resourceGroups` and `Microsoft.Resources/subscriptions` for those two.
    #[must_use]
    pub fn resource_type(&self) -> String {
        let lower_parts: Vec<&str> = self.key[1..].split('/').collect();
        let parts: Vec<&str> = self.parts().collect();
        let Some(at) = lower_parts.iter().rposition(|part| *part == "providers") else {
            return match parts.len() {
                2 => "Microsoft.Resources/subscriptions".to_owned(),
                _ => "Microsoft.Resources/resourceGroups".to_owned(),
            };
        };
        let mut kind = parts.get(at + 1).copied().unwrap_or_default().to_owned();
        for part in parts.iter().skip(at + 2).step_by(2) {
            kind.push('/');
            kind.push_str(part);
        }
        kind
    }

    /// Whether the type equals `resource_type`, in any case.
    #[must_use]
    pub fn is_type(&self, resource_type: &str) -> bool {
        self.resource_type().eq_ignore_ascii_case(resource_type)
    }

    /// What this id lies in: the parent resource, the group, the subscription, or nothing for a subscription
    /// and for a tenant-level resource.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let parts: Vec<&str> = self.parts().collect();
        let mut keep = parts.len().checked_sub(2)?;
        let providers = parts.iter().rposition(|part| part.eq_ignore_ascii_case("providers"));
        if let Some(at) = providers
            && keep == at + 2
        {
            keep = at;
        }
        if keep == 0 {
            return None;
        }
        let text = format!("/{}", parts[..keep].join("/"));
        let key = text.to_lowercase();
        Some(Self { text, key })
    }

    /// The ancestor (or self) of the given type.
    #[must_use]
    pub fn ancestor(&self, resource_type: &str) -> Option<Self> {
        let mut at = Some(self.clone());
        while let Some(id) = at {
            if id.is_type(resource_type) {
                return Some(id);
            }
            at = id.parent();
        }
        None
    }

    /// Whether `self` is `scope` or lies inside it.
    #[must_use]
    pub fn is_within(&self, scope: &Self) -> bool {
        self.key == scope.key
            || (self.key.starts_with(&scope.key) && self.key.as_bytes().get(scope.key.len()) == Some(&b'/'))
    }

    /// The id of a child: `child("deployments", "blue")`.
    ///
    /// # Errors
    /// `InvalidResourceId` when the name cannot be part of an id.
    pub fn child(&self, child_type: &str, name: &str) -> Result<Self, Fault> {
        Self::parse(&format!("{}/{child_type}/{name}", self.text))
    }
}

fn check_shape(parts: &[&str]) -> Result<(), &'static str> {
    let mut at = 0;
    if parts[0].eq_ignore_ascii_case("subscriptions") {
        at = 2;
        if parts.len() < 2 {
            return Err("it names no subscription");
        }
        if parts.get(2).is_some_and(|part| part.eq_ignore_ascii_case("resourceGroups")) {
            at = 4;
            if parts.len() < 4 {
                return Err("it names no resource group");
            }
        }
    }
    // Everything that tells scopes from providers looks for this word.
    if parts[..at].iter().any(|part| part.eq_ignore_ascii_case("providers")) {
        return Err("a subscription or a group can't be named 'providers'");
    }
    while at < parts.len() {
        if !parts[at].eq_ignore_ascii_case("providers") {
            return Err("a part that should be 'providers' is another word");
        }
        let end = parts[at + 1..]
            .iter()
            .position(|part| part.eq_ignore_ascii_case("providers"))
            .map_or(parts.len(), |offset| at + 1 + offset);
        let count = end - at - 1;
        if count < 3 || count.is_multiple_of(2) {
            return Err("each type after the provider needs a name");
        }
        // Or a type could differ from another that has the same key, such as one with the Kelvin sign for a K.
        if !parts[at + 1].is_ascii() || parts[at + 2..end].iter().step_by(2).any(|kind| !kind.is_ascii()) {
            return Err("providers and types are plain ASCII words");
        }
        at = end;
    }
    Ok(())
}

impl PartialEq for ResourceId {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for ResourceId {}

impl PartialOrd for ResourceId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ResourceId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

impl hash::Hash for ResourceId {
    fn hash<H: hash::Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl FromStr for ResourceId {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        Self::parse(text)
    }
}

impl TryFrom<String> for ResourceId {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        Self::parse(&text)
    }
}

impl From<ResourceId> for String {
    fn from(id: ResourceId) -> Self {
        id.text
    }
}

/// Checks an endpoint's or a deployment's name (`what` is `endpoint` or `deployment`).
///
/// # Errors
/// `BadArgument` in the original's words for the length, and naming the allowed characters otherwise.
pub fn check_serving_name(what: &str, name: &str) -> Result<(), Fault> {
    let length = name.chars().count();
    if !(3..=32).contains(&length) {
        return Err(Fault::invalid(
            "BadArgument",
            format!("The name for an {what} must be at least 3 and at most 32 characters long (inclusive of both limits). '{name}' has {length}."),
        )
        .at("name"));
    }
    let good = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.ends_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if good {
        return Ok(());
    }
    Err(Fault::invalid(
        "BadArgument",
        format!("The {what} name '{name}' must start with a letter, end with a letter or a digit, and hold only letters, digits and '-'."),
    )
    .at("name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKSPACE: &str =
        "/subscriptions/5e/resourceGroups/rg/providers/Microsoft.MachineLearningServices/workspaces/ws";

    #[test]
    fn parts_of_an_id() {
        let id = ResourceId::parse(&format!("{WORKSPACE}/onlineEndpoints/ep/deployments/blue")).unwrap();
        assert_eq!(id.subscription(), Some("5e"));
        assert_eq!(id.resource_group(), Some("rg"));
        assert_eq!(id.name(), "blue");
        assert_eq!(id.resource_type(), "Microsoft.MachineLearningServices/workspaces/onlineEndpoints/deployments");
        assert_eq!(id.parent().unwrap().name(), "ep");
        assert_eq!(id.ancestor("microsoft.machinelearningservices/workspaces").unwrap().as_str(), WORKSPACE);
        let chain: Vec<String> =
            std::iter::successors(Some(id), ResourceId::parent).map(|id| id.name().to_owned()).collect();
        assert_eq!(chain, ["blue", "ep", "ws", "rg", "5e"]);
    }

    #[test]
    fn case_does_not_matter() {
        let one = ResourceId::parse(WORKSPACE).unwrap();
        let two = ResourceId::parse(&WORKSPACE.to_uppercase().replace("5E", "5e")).unwrap();
        assert_eq!(one, two);
        assert!(two.is_type("Microsoft.MachineLearningServices/workspaces"));
    }

    #[test]
    fn extension_resources_have_their_scope_as_parent() {
        let id =
            ResourceId::parse(&format!("{WORKSPACE}/providers/Microsoft.Authorization/roleAssignments/x")).unwrap();
        assert_eq!(id.parent().unwrap().as_str(), WORKSPACE);
        assert_eq!(id.resource_type(), "Microsoft.Authorization/roleAssignments");
    }

    #[test]
    fn refusals() {
        for text in [
            "",
            "x",
            "/",
            "/subscriptions",
            "/subscriptions//x",
            "/subscriptions/a/b",
            "/subscriptions/a/resourceGroups",
            "/subscriptions/a/providers/P/t",
            "/subscriptions/a/providers/P/t/n/u",
            "/a/../b",
            "/subscriptions/a%2f",
            "/subscriptions/a\n",
            "/subscriptions/providers",
            "/subscriptions/a/resourceGroups/Providers",
            "/subscriptions/a/providers/P/\u{212a}/n",
            "/subscriptions/a/providers/\u{212a}/t/n",
        ] {
            assert!(ResourceId::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn within_is_by_whole_parts() {
        let group = ResourceId::parse("/subscriptions/5e/resourceGroups/rg").unwrap();
        assert!(ResourceId::parse(WORKSPACE).unwrap().is_within(&group));
        assert!(!ResourceId::parse("/subscriptions/5e/resourceGroups/rg2").unwrap().is_within(&group));
    }

    #[test]
    fn serving_names() {
        for good in ["abc", "my-endpoint", "A1234567890123456789012345678901"] {
            assert!(check_serving_name("endpoint", good).is_ok(), "{good}");
        }
        for bad in ["ab", "1abc", "abc-", "a_b", "a.b", "äbc", "A12345678901234567890123456789012"] {
            assert!(check_serving_name("endpoint", bad).is_err(), "{bad}");
        }
    }
}
