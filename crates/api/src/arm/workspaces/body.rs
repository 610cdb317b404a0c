//! What a workspace's body may hold, brought to one form.

use casemate_model::{Fault, FaultKind, Resource, ResourceId, inbound::AllowList};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::arm::{networks, shape};

/// A checked wish.
pub(super) struct Wanted {
    /// The body to be kept.
    pub(super) body: Value,
    /// Outbound rules that came with it; null removes one.
    pub(super) rules: Vec<(String, Value)>,
    /// Whether the managed network is to be provisioned at once.
    pub(super) provision_network: bool,
}

const TRUTHS: &[&str] = &[
    "hbiWorkspace",
    "v1LegacyMode",
    "allowPublicAccessWhenBehindVnet",
    "softDeleteEnabled",
    "allowRecoverSoftDeletedWorkspace",
    "allowRoleAssignmentOnRG",
    "enableDataIsolation",
    "enableServiceSideCMKEncryption",
];
/// What only other kinds of workspaces use, and what is computed.
const LEFT_OUT: &[&str] = &[
    "featureStoreSettings",
    "workspaceHubConfig",
    "existingWorkspaces",
    "provisionNetworkNow",
    "workspaceId",
    "privateEndpointConnections",
    "privateLinkCount",
    "discoveryUrl",
    "mlFlowTrackingUri",
    "tenantId",
    "creationTime",
    "provisioningState",
];

pub(super) fn check_name(id: &ResourceId) -> Result<(), Fault> {
    let name = id.name();
    let fits = (3..=33).contains(&name.chars().count())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let in_group = id.parent().is_some_and(|parent| parent.is_type("Microsoft.Resources/resourceGroups"));
    if fits && in_group {
        return Ok(());
    }
    let message = format!(
        "The workspace name '{name}' is invalid: a workspace lies in a resource group, and its name has 3 to 33 letters, \
         digits, '-' and '_', beginning with a letter or a digit."
    );
    Err(Fault::invalid("BadArgument", message).at("name"))
}

/// Checks a whole body and fills in defaults. Properties that are not known are kept as they are.
pub(super) fn normalize(
    given: &Map<String, Value>,
    existing: Option<&Resource>,
    tenant: Uuid,
) -> Result<Wanted, Fault> {
    let kind = match given.get("kind").filter(|kind| !kind.is_null()) {
        None => "Default",
        Some(kind) => other_kinds(shape::one_of(kind, "kind", &["Default", "Hub", "Project", "FeatureStore"])?)?,
    };
    let given_properties = match given.get("properties") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(map)) => map.clone(),
        Some(_) => return Err(Fault::invalid("BadArgument", "'properties' must be an object.").at("properties")),
    };
    let provision_network = given_properties.get("provisionNetworkNow").is_some_and(|now| {
        now == &Value::Bool(true) || now.as_str().is_some_and(|now| now.eq_ignore_ascii_case("true"))
    });
    // Templates write "" for what is not given.
    let is_given = |value: &Value| !value.is_null() && value.as_str() != Some("");
    let mut properties: Map<String, Value> = given_properties
        .into_iter()
        .filter(|(key, value)| is_given(value) && !LEFT_OUT.contains(&key.as_str()))
        .collect();
    for field in TRUTHS {
        if let Some(value) = properties.get_mut(*field) {
            *value = shape::truth(value, field)?.into();
        }
    }
    for field in ["hbiWorkspace", "v1LegacyMode"] {
        properties.entry(field).or_insert(Value::Bool(false));
    }
    for field in ["friendlyName", "description", "imageBuildCompute", "primaryUserAssignedIdentity"] {
        if properties.get(field).is_some_and(|value| !value.is_string()) {
            return Err(Fault::invalid("BadArgument", format!("'{field}' must be a text.")).at(field));
        }
    }
    let access = properties.get("publicNetworkAccess").cloned().unwrap_or_else(|| "Enabled".into());
    let access = shape::one_of(&access, "publicNetworkAccess", &["Enabled", "Disabled"])?;
    properties.insert("publicNetworkAccess".to_owned(), access.into());
    if let Some(list) = allowlist_of(properties.remove("networkAcls").as_ref(), access)? {
        properties.insert("ipAllowlist".to_owned(), list);
    }
    if let Some(list) = properties.get("ipAllowlist") {
        let entries = list
            .as_array()
            .ok_or_else(|| Fault::invalid("BadArgument", "'ipAllowlist' must be a list.").at("ipAllowlist"))?;
        AllowList::parse(entries.iter().map(|entry| entry.as_str().unwrap_or_default()))?;
    }
    let is_encrypted =
        |value: &Value| value["status"].as_str().is_some_and(|status| status.eq_ignore_ascii_case("Enabled"));
    if properties.get("encryption").is_some_and(is_encrypted) {
        let message = "Encryption with a customer-managed key is not available on this platform; leave it out. Secrets \
                       are encrypted with the platform's own key.";
        return Err(Fault::new(FaultKind::NotImplemented, "NotImplemented", message).at("encryption"));
    }
    properties.remove("encryption");
    if properties.get("serverlessComputeSettings").is_some_and(|value| value == &json!({})) {
        properties.remove("serverlessComputeSettings");
    }
    let (network, rules) = networks::normalize(properties.remove("managedNetwork"), existing)?;
    properties.insert("managedNetwork".to_owned(), network);
    let body = json!({
        "location": shape::location(given.get("location"))?,
        "tags": shape::tags(given.get("tags"))?,
        "kind": kind,
        "sku": given.get("sku").filter(|sku| sku.is_object()).cloned().unwrap_or_else(|| json!({"name": "Basic", "tier": "Basic"})),
        "identity": identity(given.get("identity"), existing.and_then(|row| row.body.get("identity")), tenant)?,
        "properties": properties,
    });
    Ok(Wanted { body, rules, provision_network })
}

/// The original's network rules as an allow-list: denied by default but for some callers, or allowed, which lifts the
/// list. None when nothing is said, and for the empty rules that clients send along with disabled public access.
fn allowlist_of(rules: Option<&Value>, access: &str) -> Result<Option<Value>, Fault> {
    let Some(rules) = rules.filter(|rules| rules.is_object()) else { return Ok(None) };
    let Some(action) = rules.get("defaultAction").filter(|action| !action.is_null()) else { return Ok(None) };
    let callers: Vec<Value> =
        rules["ipRules"].as_array().into_iter().flatten().map(|rule| rule["value"].clone()).collect();
    match shape::one_of(action, "networkAcls.defaultAction", &["Allow", "Deny"])? {
        "Deny" if callers.is_empty() => {
            let message = "networkAcls denies everybody: it names no ipRules. Name the callers that may come, or set \
                           publicNetworkAccess to Disabled.";
            Err(Fault::invalid("BadArgument", message).at("networkAcls"))
        }
        "Deny" => Ok(Some(callers.into())),
        _ if access == "Disabled" => Ok(None),
        _ => Ok(Some(json!([]))),
    }
}

fn other_kinds(kind: &'static str) -> Result<&'static str, Fault> {
    if kind == "Default" {
        return Ok(kind);
    }
    let message = format!("Workspaces of the kind '{kind}' are not available on this platform; use the default kind.");
    Err(Fault::new(FaultKind::NotImplemented, "NotImplemented", message).at("kind"))
}

/// What can't change after creation: the location, and the storage account and vault, which are kept when the new
/// body names none.
pub(super) fn keep_fixed(body: &mut Value, existing: Option<&Resource>) -> Result<(), Fault> {
    let Some(existing) = existing else { return Ok(()) };
    let same = |one: &Value, other: &Value| match (one.as_str(), other.as_str()) {
        (Some(one), Some(other)) => one.eq_ignore_ascii_case(other),
        _ => one == other,
    };
    let changed = |field: &str, was: &Value| {
        let message = format!("The workspace's {field} can't be changed; it is {was}.");
        Err(Fault::invalid("BadArgument", message).at(field))
    };
    if !same(&body["location"], &existing.body["location"]) {
        return changed("location", &existing.body["location"]);
    }
    for field in ["storageAccount", "keyVault", "applicationInsights", "containerRegistry"] {
        let was = &existing.properties()[field];
        if body["properties"][field].is_null() {
            if !was.is_null() {
                body["properties"][field] = was.clone();
            }
        } else if matches!(field, "storageAccount" | "keyVault") && !same(&body["properties"][field], was) {
            return changed(field, was);
        }
    }
    // Indexing for reading leaves nulls behind where there was nothing.
    if let Some(properties) = body["properties"].as_object_mut() {
        properties.retain(|_, value| !value.is_null());
    }
    Ok(())
}

/// A PATCH laid over what is there.
pub(super) fn merge(existing: &Resource, patch: &Map<String, Value>) -> Result<Map<String, Value>, Fault> {
    let mut merged = existing.body.as_object().cloned().unwrap_or_default();
    for (key, value) in patch.iter().filter(|(_, value)| !value.is_null()) {
        match (key.as_str(), value) {
            ("properties", Value::Object(given)) => {
                let mut properties = existing.properties().as_object().cloned().unwrap_or_default();
                for (key, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                    properties.insert(key.clone(), value.clone());
                }
                merged.insert(key.clone(), Value::Object(properties));
            }
            ("properties", _) => {
                return Err(Fault::invalid("BadArgument", "'properties' must be an object.").at("properties"));
            }
            ("tags" | "identity" | "sku", _) => {
                merged.insert(key.clone(), value.clone());
            }
            _ => {}
        }
    }
    Ok(merged)
}

/// The identity of a workspace: a system-assigned one keeps its principal over updates.
fn identity(given: Option<&Value>, existing: Option<&Value>, tenant: Uuid) -> Result<Value, Fault> {
    let bad = |message: String| Err(Fault::invalid("BadArgument", message).at("identity"));
    let given = match given {
        None | Some(Value::Null) => match existing {
            Some(existing) => return Ok(existing.clone()),
            None => &json!({"type": "SystemAssigned"}),
        },
        Some(given) => given,
    };
    let words: Vec<String> =
        given["type"].as_str().unwrap_or("SystemAssigned").split(',').map(|word| word.trim().to_lowercase()).collect();
    let has = |word: &str| words.iter().any(|known| known == word);
    let kind = match (has("systemassigned"), has("userassigned"), words.len()) {
        (true, true, 2) => "SystemAssigned,UserAssigned",
        (true, false, 1) => "SystemAssigned",
        (false, true, 1) => "UserAssigned",
        (false, false, 1) if has("none") => "None",
        _ => {
            return bad(format!(
                "The identity type {} is not known; give SystemAssigned, UserAssigned or both with a comma.",
                given["type"]
            ));
        }
    };
    let mut identity = json!({"type": kind});
    if kind.starts_with("System") {
        let known = existing.and_then(|existing| existing.get("principalId")).cloned();
        identity["principalId"] = known.unwrap_or_else(|| Uuid::new_v4().to_string().into());
        identity["tenantId"] = tenant.to_string().into();
    }
    if kind.ends_with("UserAssigned") {
        let mut users = Map::new();
        for (id, value) in given["userAssignedIdentities"].as_object().into_iter().flatten() {
            let parsed = ResourceId::parse(id).map_err(|fault| fault.at("identity"))?;
            if !parsed.is_type("Microsoft.ManagedIdentity/userAssignedIdentities") {
                return bad(format!("'{id}' is not the id of a user-assigned identity."));
            }
            // Null takes an identity away.
            if !value.is_null() {
                users.insert(id.clone(), json!({}));
            }
        }
        if users.is_empty() {
            return bad("A user-assigned identity needs at least one id under userAssignedIdentities.".to_owned());
        }
        identity["userAssignedIdentities"] = Value::Object(users);
    }
    Ok(identity)
}
